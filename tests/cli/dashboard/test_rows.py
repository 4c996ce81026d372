"""What the dashboard shows, as plain lines: rows, bars, countdowns, details, the history of a quota. No screen, no clock."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies
from rich.cells import cell_len

from copilot_balancer.cli.dashboard import lines as drawing
from copilot_balancer.cli.dashboard import rows as view
from copilot_balancer.cli.dashboard.data import CAPACITY, History
from copilot_balancer.cli.dashboard.details import account_details, fact, request_details, route_details, wrapped
from copilot_balancer.cli.dashboard.lines import Column, Span, Tone, plain, words
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import RouteTable, Status
from copilot_balancer.rules.types import Policy, Route
from copilot_balancer.store.ledger import QuotaPoint
from copilot_balancer.store.request_record import document, parsed
from copilot_balancer.text import printable
from copilot_balancer.views.overview import look
from support.dashboards import (
    ACCOUNTS,
    DAY,
    DECISIONS,
    EVENTS,
    HOME,
    NOW,
    OLD,
    ROUTES,
    SPARE,
    WORK,
    ZONE,
    Scene,
    attempt,
    event,
    token,
)


@pytest.fixture(scope="module")
def overview(tmp_path_factory):
    scene = Scene(tmp_path_factory.mktemp("scene")).filled()
    yield look(scene.env.paths, NOW)
    scene.live.close()


def of(overview, account_id):
    return next(one for one in overview.pool.accounts if one.id == account_id)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "width", "right", "shown"),
    [
        pytest.param("work", 6, False, "work  ", id="padded"),
        pytest.param("42", 4, True, "  42", id="padded on the left"),
        pytest.param("work", 4, False, "work", id="fits"),
        pytest.param("old-seat", 5, False, "old-…", id="cut"),
        pytest.param("日本語", 4, False, "日 …", id="a wide character does not stand half"),
        pytest.param("x", 0, False, "", id="no room"),
    ],
)
def test_fitted(text, width, right, shown):
    """A line is as wide as it was asked to be, in cells."""
    assert plain(drawing.fitted(words(text), width, right=right)) == shown


@given(strategies.lists(strategies.text(max_size=30), max_size=4), strategies.integers(0, 60))
def test_no_text_breaks_a_row(texts, width):
    """Whatever stands in a line, fitting it gives exactly the cells that were asked for."""
    texts = [printable(text) for text in texts]
    assert drawing.width_of(drawing.fitted(words(*texts), width)) == width


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        pytest.param(12, [2, 4, 4], id="no room to grow"),
        pytest.param(18, [2, 7, 7], id="equal shares"),
        pytest.param(40, [2, 28, 8], id="one is wide enough"),
        pytest.param(5, [2, 4, 4], id="too narrow"),
    ],
)
def test_laid_out(width, widths):
    """Growing columns share what is over, as far as each may grow."""
    columns = (Column("a", 2), Column("b", 4, grows=1), Column("c", 4, grows=1, most=8))
    assert [wide for _, wide in drawing.laid_out(columns, width)] == widths


def test_laid_out_without_growing():
    """Columns that do not grow leave the rest empty."""
    assert [wide for _, wide in drawing.laid_out((Column("a", 2),), 9)] == [2]


# ── moments and amounts ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (272, "4:32"), (3599, "59:59"), (3600, "1h 00m"),
        (3661, "1h 02m"), (47 * 3600, "47h 00m"), (48 * 3600, "2d 0h"), (645_800, "7d 12h"), (1000 * 86400, "1000d"),
        (1e15, "999999d"),
    ],
)  # fmt: skip
def test_countdown(seconds, shown):
    """A wait is rounded up, and never longer than seven characters."""
    assert drawing.countdown(seconds) == shown
    assert len(shown) <= 7


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "now"),
        (0.9, "now"),
        (1, "1 s"),
        (99, "99 s"),
        (100, "1 min"),
        (5999, "99 min"),
        (6000, "1 h"),
        (2 * 86400, "2 d"),
        (1e12, "9999 d"),
    ],
)
def test_ago(seconds, shown):
    """What is past is rounded down, and never longer than six characters."""
    assert drawing.ago(seconds) == shown
    assert drawing.since(seconds) == ("just now" if shown == "now" else f"{shown} ago")
    assert len(shown) <= 6


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0312, "31 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (12.44, "12.4 s"), (205, "3:25")]
)
def test_milliseconds(seconds, shown):
    """How long a request took, with about three digits."""
    assert drawing.milliseconds(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(3, "3"), (9999, "9999"), (12_345, "12.3k"), (9_700_000, "9700.0k"), (97e6, "97.0M")]
)
def test_amount(number, shown):
    """A number in a few characters."""
    assert drawing.amount(number) == shown


def test_moments_stand_in_the_zone():
    """A moment is shown in the zone that was given."""
    assert (drawing.clock(NOW, ZONE), drawing.moment(NOW, ZONE)) == ("12:32:11", "2026-11-23 12:32")


# ── quota ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("percent", "shown", "tone"),
    [
        (100, "━━━━", Tone.GOOD), (99.9, "━━━╸", Tone.GOOD), (50, "━━──", Tone.GOOD), (25, "━───", Tone.CAUTION),
        (0.1, "╸───", Tone.BAD), (0, "────", None), (-3, "────", None), (250, "━━━━", Tone.GOOD),
    ],
)  # fmt: skip
def test_bar(percent, shown, tone):
    """A bar is full or empty only when the quota is, and its colour says how much is left."""
    line = drawing.bar(percent, 4)
    assert plain(line) == shown
    assert tone in [None, line[0].tone]


def test_gauge():
    """A window that has no end, and one that has reset since, show no bar."""
    assert plain(drawing.gauge(QuotaWindow(41), NOW, 4)) == "━╸──  41%"
    assert plain(drawing.gauge(QuotaWindow(41, unlimited=True), NOW, 4)) == "unlimited"
    assert plain(drawing.gauge(QuotaWindow(41, resets_at=NOW), NOW, 4)) == "has reset"


def test_percent():
    """The number alone; nothing where it says nothing."""
    assert drawing.percent(QuotaWindow(9, resets_at=NOW + 1), NOW) == (Span("9%", Tone.BAD),)
    assert drawing.percent(QuotaWindow(9, resets_at=NOW), NOW) == ()
    assert drawing.percent(QuotaWindow(100, unlimited=True), NOW) == ()


def test_tightest_window_comes_first():
    """The window with the least left counts; one without an end, and one that has reset, tell nothing."""
    quota = {
        "chat": QuotaWindow(0, unlimited=True),
        "weekly": QuotaWindow(1, resets_at=NOW - 1),
        "premium": QuotaWindow(30),
        "session": QuotaWindow(20),
    }
    assert [name for name, _ in drawing.tightest(quota, NOW)] == ["session", "premium", "weekly", "chat"]


def test_history_thins_out_and_keeps_its_ends():
    """A long history is bounded; its first and its newest point stay."""
    history = History()
    for second in range(0, 20_000, 5):
        history.note("a", "premium", float(second), second / 200)

    line = history.points["a", "premium"]
    assert len(line) <= CAPACITY
    assert (line[0], line[-1]) == ((0.0, 0.0), (19_995.0, 99.975))
    assert [at for at, _ in line] == sorted(at for at, _ in line)


def test_history_begins_with_what_proxies_noted(overview):
    """Points of the window's present period are taken, those of the one before are not."""
    history = History()
    view = of(overview, HOME)
    reset = view.quota["premium"].resets_at
    points = [QuotaPoint(HOME, "premium", reset - 31 * DAY, 3.0), QuotaPoint(HOME, "premium", reset - 29 * DAY, 90.0)]
    history.begin([*points, QuotaPoint(HOME, "premium", NOW - 900, 70.0)], overview)
    assert history.points == {(HOME, "premium"): [(reset - 29 * DAY, 90.0), (NOW - 900, 70.0)]}


def test_history_takes_no_older_point():
    """A clock that is set back draws no line backwards, and points that follow fast replace each other."""
    history = History()
    for at, percent in ((10, 90), (11, 80), (12, 70), (12.5, 60), (5, 1), (20, 50)):
        history.note("a", "w", at, percent)
    assert history.points["a", "w"] == [(10, 90), (11, 80), (12.5, 60), (20, 50)]


def test_plot():
    """A plot rises with what is left, holds the older value between two points, and shows nothing where nothing is known."""
    history = History()
    for at, percent in ((0, 100), (40, 50), (80, 0)):
        history.note("a", "w", at, percent)

    assert history.plot("a", "w", 4, 2, 80) == ["█   ", "███▁"]
    assert history.sampled("a", "w", 4, 80) == [100, 50, 50, 0]
    assert history.plot("a", "other", 4, 2, 80) == ["    ", "    "]
    assert (history.since("a", "w"), history.since("b", "w")) == (0, None)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

NARROW = """\
  account    state                    left              resets busy srv/ref
◐ work       rests 4:32 session limit ╸─────   2% sess    4:32    -   412/9
● home *     ready                    ━━━━──  68% prem  7d 12h    2  1290/3
● acme       ready, 1:30 until claud… ━╸────  24% prem  7d 12h    -    77/2
! old-seat   needs login: press l     not told yet                -     3/0
"""

WIDE = """\
  account      plan         state                      left                     resets busy srv/ref   used
◐ work         business     rests 4:32 session limit   ╸─────────   2% session    4:32    -   412/9   88 s
● home *       individual_… ready                      ━━━━━━━───  68% premium  7d 12h    2  1290/3    2 s
● acme         enterprise   ready, 1:30 until claude-… ━━╸───────  24% premium  7d 12h    -    77/2   31 s
! old-seat     business     needs login: press l       not told yet                       -     3/0    2 h
"""


SHORT = """\
  account  state                    left
◐ work     rests 4:32 session lim…    2%
● home *   ready                     68%
● acme     ready, 1:30 until clau…   24%
! old-seat needs login: press l
"""


@pytest.mark.parametrize(("width", "golden"), [(40, SHORT), (75, NARROW), (106, WIDE)], ids=["short", "narrow", "wide"])
def test_account_rows(overview, width, golden):
    """Who is what until when, what is left, and what is in flight stand in aligned columns."""
    columns = view.account_columns(width, overview.pool.accounts)
    lines = [drawing.head(columns, width)]
    lines += [
        view.account_row(one, columns, at=NOW, busy=overview.in_flight.get(one.id, 0), width=width)
        for one in overview.pool.accounts
    ]

    assert {drawing.width_of(line) for line in lines} == {width}
    assert "".join(f"{plain(line).rstrip()}\n" for line in lines) == golden


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        pytest.param({"status": Status.DISABLED, "enabled": False}, "off", id="off"),
        pytest.param({"status": Status.DISABLED}, "blocked by GitHub", id="blocked"),
        pytest.param({"why_not": "is not the home account"}, "is not the home account", id="not asked"),
        pytest.param({"why_not": None}, "ready", id="ready"),
    ],
)
def test_account_states(overview, facts, shown):
    """Each state of an account is said in words."""
    one = replace(of(overview, HOME), rests=(), **facts)
    assert plain(view.account_state(one)) == shown


def test_used_up_quota_rests_for_paid_models(overview):
    """A used-up quota leaves the models that cost nothing alone, and the row says so."""
    rest = replace(of(overview, WORK).rests[0], reason="quota", model=None)
    one = replace(of(overview, WORK), rests=(rest,), status=Status.READY)
    assert plain(view.account_state(one)) == "rests 4:32 quota (paid models)"


def test_never_used(overview):
    """An account that was never used says so."""
    one = replace(of(overview, OLD), last_used=None, plan=None)
    assert plain(view.account_row(one, view.account_columns(110), at=NOW, busy=0, width=110)).split()[-1] == "never"


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────

REQUEST_ROWS = """\
  time     account   model           how                               took
✓ 12:32:09 home      gpt-5.4         its conversation is there        8.1 s
✗ 12:31:52 home      gpt-5.4-mini    cut off by the upstream          7.4 s
✗ 12:31:40 nobody    claude-opus-4.6 acme 429 model limit; acme: r…  312 ms
✓ 12:31:11 home      gpt-5.4         its conversation is there        6.2 s
» 12:30:43 home      gpt-5.4         work 429 session limit, then …   5.6 s
- 12:29:50 work      gpt-5.4         the client left                  5.0 s
"""


def test_request_rows():
    """Which account served what, after whom and why, newest first."""
    lines = [drawing.head(view.request_columns(75, EVENTS), 75)]
    lines += [
        view.request_row(one, view.request_columns(75, EVENTS), zone=ZONE, width=75)
        for one in view.picked(EVENTS, "", switches=False)[:6]
    ]
    assert "".join(f"{plain(line).rstrip()}\n" for line in lines) == REQUEST_ROWS

    lines = [drawing.head(view.request_columns(40), 40)]
    lines += [
        view.request_row(one, view.request_columns(40), zone=ZONE, width=40)
        for one in view.picked(EVENTS, "", switches=True)[:3]
    ]
    assert "".join(f"{plain(line).rstrip()}\n" for line in lines) == (
        "  time     account    model\n"
        "✗ 12:31:52 home       gpt-5.4-mini\n"
        "✗ 12:31:40 nobody     claude-opus-4.6\n"
        "» 12:30:43 home       gpt-5.4\n"
    )


@pytest.mark.parametrize(
    ("search", "switches", "numbers"),
    [
        pytest.param("", True, [11, 10, 8, 7, 4], id="what did not simply succeed"),
        pytest.param("gemini", False, [4], id="model"),
        pytest.param("WORK limit", False, [10, 8], id="every word counts, in any case"),
        pytest.param("429", False, [10, 8], id="a number"),
        pytest.param("nobody", False, [10], id="nobody"),
        pytest.param("no such words", False, [], id="nothing"),
    ],
)
def test_picked(search, switches, numbers):
    """A filter picks by every word, among models, accounts, numbers and reasons."""
    found = view.picked(EVENTS, search, switches=switches)
    assert [EVENTS.index(one) + 1 for one in found] == numbers


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        pytest.param(
            event(1, 0, "m", served=False, verdict="refused", note="no accounts"), "no accounts", id="nobody was asked"
        ),
        pytest.param(event(1, 0, "m", served=False, verdict="declined"), "declined", id="without a note"),
        pytest.param(replace(EVENTS[0], attempts=()), "", id="nothing is known"),
        pytest.param(
            event(1, 0, "m", attempt("work", "w", "limit", 429), attempt("home", "h"), verdict="cut off", status=None),
            "work 429 limit, cut off by the upstream",
            id="cut off after a failover",
        ),
    ],
)
def test_how(one, shown):
    """How a request went is said whatever happened."""
    assert plain(view.how(one)) == shown


def test_another_model_is_loud():
    """A model that took the place of another one stands out in the row."""
    one = event(1, 0, "claude-x", attempt("home", "h"), model="gpt-5.4")
    line = view.request_row(one, view.request_columns(120, [one]), zone=ZONE, width=120)
    assert "gpt-5.4 for claude-x" in plain(line)
    assert [span.tone for span in line if span.text.startswith("gpt-5.4")] == [Tone.CAUTION]


def test_foreign_words_cannot_break_a_line():
    """Words that another program wrote into the events file are one printable line."""
    bad = document(replace(EVENTS[0], what="a\x1b[31m\nb\u202e", note="\x07"))
    one = parsed(__import__("json").dumps(bad))
    line = plain(view.request_row(one, view.request_columns(75), zone=ZONE, width=75))
    assert line.isprintable()


# ── routes and the rest ──────────────────────────────────────────────────────────────────────────────────────────────

ROUTE_ROWS = """\
 # on  models             accounts, in this ord… else these mod…
 1 on  claude-*           acme > work            gpt-5.4
 2 on  gpt-5*, o4-mini    work > home > acme     -
 3 off gemini-*           home > gone?           -
 4 on  *                  all of them            -
"""


def test_route_rows(overview):
    """A row of the matrix shows models, accounts in their order and fallbacks; who is not there is marked."""
    rows = (*ROUTES, RouteTable(models=("*",)))
    lines = [drawing.head(view.ROUTES, 64)]
    lines += [view.route_row(one, place, view.labels(overview), 64) for place, one in enumerate(rows, 1)]
    assert "".join(f"{plain(line).rstrip()}\n" for line in lines) == ROUTE_ROWS


def test_routes_in_force(overview):
    """The settings' rows are shown until the user has some of their own, be it none."""
    settings = Policy(routes=(Route(("m",), ("work",), ("n",), enabled=False),))
    seen = replace(overview, policy=settings, decisions=DECISIONS.model_copy(update={"routes": None}))
    assert view.routes_in_force(seen) == (
        RouteTable(models=("m",), accounts=("work",), fallback=("n",), enabled=False),
    )
    assert view.routes_in_force(replace(seen, decisions=DECISIONS.model_copy(update={"routes": ()}))) == ()


@pytest.mark.parametrize(
    ("decided", "proxies", "shown"),
    [
        pytest.param({}, 1, "copilot-balancer  balancing on, hybrid  127.0.0.1:8080  2 running", id="in normal times"),
        pytest.param({"balancing": False}, 0, "copilot-balancer  balancing off  no proxy runs", id="off"),
        pytest.param(
            {}, 2, "copilot-balancer  balancing on, hybrid and sticky  127.0.0.1:8080 +1  2 running", id="two proxies"
        ),
    ],
)
def test_headline(overview, decided, proxies, shown):
    """The first line says what is on and what runs."""
    running = (overview.proxies[0], replace(overview.proxies[0], strategy="sticky"))[:proxies]
    seen = replace(overview, proxies=running, decisions=DECISIONS.model_copy(update=decided))
    line = plain(view.headline(seen, zone=ZONE, width=100))
    assert (line[:-8].rstrip(), line[-8:], len(line)) == (shown, "12:32:11", 100)
    assert plain(view.headline(seen, zone=ZONE, width=100, stale=True)) == f"{line[:-14]}as of 12:32:11"


def test_headline_in_few_cells(overview):
    """Where there is little room the name of the program gives way."""
    assert plain(view.headline(overview, zone=ZONE, width=40)) == "balancing on, hybrid  127.0.0.… 12:32:11"


def quiet(overview, **facts):
    return replace(overview, **facts)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"off": "it listens on 0.0.0.0"}, "The proxy with process id", id="a proxy without accounts"),
        pytest.param({"none": True}, None, id="no account"),
        pytest.param(
            {"terms_accepted_at": None}, "Only work serves until you accept GitHub's rules: press T", id="terms"
        ),
        pytest.param(
            {"enabled": False}, "Every account is off, so nobody serves: press e to turn one on", id="all off"
        ),
        pytest.param({"balancing": False}, "Balancing is off: only home serves", id="balancing off"),
        pytest.param(
            {"why_not": "rests"}, "Nobody can serve at this moment; the first rest ends in 4:32", id="all rest"
        ),
        pytest.param({"warnings": ("strategy is not known",)}, "strategy is not known", id="a warning of the settings"),
        pytest.param({"proxies": ()}, "Start one: copilot-balancer run", id="no proxy"),
    ],
)
def test_notice(overview, change, shown):
    """One line says what to do first, the worst thing before all others."""
    decided = {key: value for key, value in change.items() if key in ("terms_accepted_at", "balancing")}
    accounts = tuple(
        replace(one, **{key: value for key, value in change.items() if key in ("enabled", "why_not")})
        for one in overview.pool.accounts
        if "none" not in change
    )
    proxies = tuple(replace(one, off=change.get("off", "")) for one in change.get("proxies", overview.proxies))
    seen = replace(
        overview, pool=replace(overview.pool, accounts=accounts), decisions=DECISIONS.model_copy(update=decided),
        proxies=proxies, warnings=change.get("warnings", ()),
    )  # fmt: skip
    line = view.notice(seen)
    assert shown is None if line is None else plain(line).startswith(shown)


# ── details ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def text(lines) -> str:
    return "\n".join(plain(line).rstrip() for line in lines)


@pytest.mark.parametrize("width", [30, 57, 120])
def test_details_are_never_wider(overview, width):
    """Details keep to their pane, whatever stands in them."""
    history = History()
    history.note(WORK, "session", NOW - 60, 40)
    every = [account_details(one, overview, EVENTS, history, zone=ZONE, width=width) for one in overview.pool.accounts]
    every += [request_details(one, at=NOW, zone=ZONE, width=width) for one in EVENTS]
    every += [route_details(one, overview, ["gpt-5.4"], place=1, width=width) for one in ROUTES]
    assert max(drawing.width_of(line) for lines in every for line in lines) <= width


def test_account_details(overview):
    """The details of an account hold state, causes, every window, the decisions and its last requests; no token."""
    history = History()
    history.note(WORK, "session", NOW - 600, 40)
    history.note(WORK, "session", NOW, 2)
    shown = text(account_details(of(overview, WORK), overview, EVENTS, history, zone=ZONE, width=60))

    for fact_ in (
        "state        rests 4:32 session limit",
        "serves       no: rests after a session limit",
        "rests        4:32 session limit, as the service said",
        "premium      ━━━╸────  41% 123 of 300",
        "session, the last 10:00",
        "API host     api.business.githubcopilot.com",
        "lacks        gemini-3-pro (8:20)",
        "requests     412 served, 9 refused",
        "» 12:30:43 gpt-5.4",
    ):
        assert fact_ in shown
    assert token("work") not in shown
    assert ACCOUNTS[0].fingerprint not in shown


def test_account_details_of_others(overview):
    """Patterns, a rest of one model, a quota that nobody told of: all are said in words."""
    account = ACCOUNTS[2].model_copy(update={"allow": ("gpt-*",), "block": ("gpt-4*",), "credential": "exchange"})
    decisions = DECISIONS.model_copy(update={"accounts": (*ACCOUNTS[:2], account, ACCOUNTS[3])})
    seen = replace(overview, decisions=decisions)
    shown = text(account_details(of(seen, SPARE), seen, (), History(), zone=ZONE, width=70))
    assert "models       only gpt-*, but not gpt-4*" in shown
    assert "claude-opus-4.6: 1:30 model limit, our own guess" in shown
    assert "is exchanged for a short-lived one" in shown

    view_of_old = replace(of(overview, OLD), last_used=None)
    shown = text(account_details(view_of_old, overview, (), History(), zone=ZONE, width=70))
    assert "No answer has told it yet." in shown
    assert "last used    never" in shown


def test_request_details():
    """The details of a request tell each attempt: who, why, what came back, how long it rests."""
    shown = text(request_details(EVENTS[7], at=NOW, zone=ZONE, width=70))
    for fact_ in (
        "ended        » failed over, 200",
        "served by    home (api.individual.githubcopilot.com)",
        "changed      what is bound to work was left out",
        "2 attempts",
        "1            work 429 session limit",
        "then rests 6:00",
        "user_global_rate_limited: try again in 6 minutes",
        "2            home 200 served",
    ):
        assert fact_ in shown
    nobody = text(
        request_details(replace(EVENTS[9], model="gpt-5.4", conversation="", attempts=()), at=NOW, zone=ZONE, width=70)
    )
    assert "served by    nobody" in nobody
    assert "gpt-5.4, by a fallback that you wrote" in nobody
    assert "conversation none" in nobody


def test_route_details(overview):
    """The details of a route tell the state of each of its accounts, and which seen models it matches."""
    shown = text(route_details(ROUTES[2], overview, ["gemini-3-pro", "gpt-5.4"], place=3, width=70))
    assert "route 3  off" in shown
    assert "matches      gemini-3-pro" in shown
    assert "there is no such account" in shown
    everybody = replace(overview, decisions=DECISIONS.model_copy(update={"routes": None}))
    shown = text(route_details(RouteTable(models=("*",), fallback=("m",)), everybody, [], place=1, width=70))
    assert "every account, as the strategy orders them" in shown
    assert "config.toml; an edit here takes all rows over" in shown


@given(strategies.text(max_size=200), strategies.integers(12, 50))
def test_wrapping_loses_no_short_word(string, width):
    """Wrapped text holds every word that fits, in order, and no line is wider than it may be."""
    lines = wrapped(words(Span(printable(string, 400))), width)
    assert all(drawing.width_of(line) <= width for line in lines)
    shown = " ".join(plain(line) for line in lines).split()
    assert [word for word in printable(string, 400).split() if cell_len(word) <= width and word not in shown] == []


def test_a_fact_hangs_from_its_name():
    """A long value goes on under itself."""
    assert text(fact("name", "one two three", 24)) == "name         one two\n             three"


def test_names_take_what_is_free(overview):
    """Where there is room nothing is cut: the longest label and plan, and the cause of a failure at 120 columns."""
    long = [
        replace(one, label="a-label-of-thirty-characters-x", plan="business_copilot_standalone")
        for one in overview.pool.accounts
    ]
    lines = [plain(view.account_row(one, view.account_columns(158, long), at=NOW, busy=0, width=158)) for one in long]
    assert all("a-label-of-thirty-characters-x" in line and "business_copilot_standalone" in line for line in lines)
    columns = view.request_columns(116, EVENTS)
    rows = [plain(view.request_row(one, columns, zone=ZONE, width=116)) for one in EVENTS]
    assert not [line for line in rows if "…" in line and "acme: rests after a limit for this model" not in line]
