"""May this account serve this request? The reason why not, or None."""

from dataclasses import replace

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.eligibility import (
    ALL_WINDOWS,
    PoolAccount,
    at_reserve,
    cooling,
    doubted,
    lacks,
    learnt,
    left,
    pace,
    probed,
    scarce,
    settled,
    unproved,
    why,
)
from copilot_balancer.rules.state import PAID, AccountState, Cooldown, Count, ModelFact
from copilot_balancer.rules.types import Exclusion, PoolRequest, Route
from support.pools import DAY, HOUR, MINUTE, START, account

REQUEST = PoolRequest("r1", "gpt", START)


def member(of: Account | None = None, state: AccountState | None = None, **changes) -> PoolAccount:
    of = of or account("a")
    return PoolAccount(of, state or AccountState(), 0, of.fingerprint, **{"home": False, "serving": True, **changes})


@pytest.mark.parametrize(
    ("one", "request_", "route", "bar"),
    [
        pytest.param(member(), REQUEST, None, None, id="nothing"),
        pytest.param(member(), replace(REQUEST, only="github.com:b"), None, Exclusion.ONLY, id="another is pinned"),
        pytest.param(
            member(account("a", fence="work")), replace(REQUEST, only="github.com:a"), None, None, id="pinned"
        ),
        pytest.param(
            member(),
            replace(REQUEST, only="github.com:a", fence="work"),
            None,
            Exclusion.FENCE,
            id="pinned across a fence",
        ),
        pytest.param(member(account("a", fence="work")), REQUEST, None, Exclusion.FENCE, id="fence"),
        pytest.param(
            member(), replace(REQUEST, bound=True, owner="github.com:b"), None, Exclusion.BOUND, id="another began it"
        ),
        pytest.param(member(account("a", fence="work")), replace(REQUEST, fence="work"), None, None, id="own fence"),
        pytest.param(member(serving=False), REQUEST, None, Exclusion.TERMS, id="terms"),
        pytest.param(member(account("a", enabled=False)), REQUEST, None, Exclusion.DISABLED, id="disabled"),
        pytest.param(member(state=AccountState(blocked_at=START)), REQUEST, None, Exclusion.BLOCKED, id="blocked"),
        pytest.param(
            member(account("a", enabled_at=START + 1), state=AccountState(blocked_at=START)),
            REQUEST,
            None,
            None,
            id="enabled again",
        ),
        pytest.param(member(state=AccountState(rejected_at=START)), REQUEST, None, Exclusion.LOGIN, id="needs login"),
        pytest.param(
            member(state=AccountState(rejected_at=START, ended_by_success={"": START + 1})),
            REQUEST,
            None,
            None,
            id="logged in",
        ),
        pytest.param(member(account("a", allow=("claude*",))), REQUEST, None, Exclusion.PATTERN, id="not allowed"),
        pytest.param(member(account("a", block=("GPT*",))), REQUEST, None, Exclusion.PATTERN, id="model blocked"),
        pytest.param(member(account("a", block=("o*",))), REQUEST, None, None, id="another model blocked"),
        pytest.param(member(), REQUEST, Route(("*",), ("b",)), Exclusion.ROUTE, id="not in the route"),
        pytest.param(member(), REQUEST, Route(("*",), ("b", "a")), None, id="in the route"),
        pytest.param(member(), REQUEST, Route(("*",)), None, id="a route without accounts"),
    ],
)
def test_what_the_user_decided(one, request_, route, bar):
    """Pins, fences, terms, switches, patterns and routes; a block and a dead credential."""
    fence = request_.fence or "default"
    assert settled(one, request_, fence, route, balancing=True) == bar


def test_with_balancing_off_only_home_serves():
    """Off: the home account, unless the request is pinned; the terms do not matter to a single account."""
    assert settled(member(), REQUEST, "default", None, balancing=False) is Exclusion.HOME
    assert settled(member(home=True, serving=False), REQUEST, "default", None, balancing=False) is None
    assert settled(member(), replace(REQUEST, only="github.com:a"), "default", None, balancing=False) is None


@pytest.mark.parametrize(
    ("one", "bar", "text"),
    [
        (member(), Exclusion.TRIED, "was already asked"),
        (member(), Exclusion.TERMS, "waits for the terms to be accepted"),
        (member(state=AccountState(blocked_why="spammy_user")), Exclusion.BLOCKED,
         "was blocked by GitHub (spammy_user); it stays off until you enable it"),
        (member(), Exclusion.BLOCKED, "was blocked by GitHub; it stays off until you enable it"),
        (member(account("a", block=("gpt",))), Exclusion.PATTERN, "does not take the model: it is in its block list"),
    ],
)  # fmt: skip
def test_what_the_user_has_to_do(one, bar, text):
    """The reason says what to act on."""
    told = why(one, bar, PoolRequest("r1", "gpt", START), START)
    assert (told.reason, told.bar, told.free_at, told.label) == (text, bar, None, "a")


REST = Cooldown(START, START + MINUTE, "limit")


@pytest.mark.parametrize(
    ("state", "model", "until"),
    [
        pytest.param(AccountState(), "gpt", None, id="nothing"),
        pytest.param(AccountState(cooldowns=[REST]), "gpt", 60, id="the account"),
        pytest.param(AccountState(cooldowns=[REST]), None, 60, id="a request without a model"),
        pytest.param(AccountState(cooldowns=[replace(REST, model="gpt")]), "gpt", 60, id="the model"),
        pytest.param(AccountState(cooldowns=[replace(REST, model="o9")]), "gpt", None, id="another model"),
        pytest.param(AccountState(cooldowns=[replace(REST, model="o9")]), None, None, id="a model, none asked for"),
        pytest.param(AccountState(cooldowns=[replace(REST, until=START)]), "gpt", None, id="run out this moment"),
        pytest.param(AccountState(cooldowns=[REST], ended_by_success={"": START + 1}), "gpt", None, id="healed"),
        pytest.param(AccountState(cooldowns=[REST], ended_by_success={"gpt": START + 1}), "gpt", 60, id="another key healed"),
        pytest.param(
            AccountState(cooldowns=[REST, replace(REST, until=START + 99, model="gpt"), REST]), "gpt", 99, id="the longest"
        ),
        pytest.param(AccountState(cooldowns=[replace(REST, reason="quota")]), "gpt", 60, id="quota"),
        pytest.param(AccountState(cooldowns=[replace(REST, reason="quota")]), None, 60, id="quota, no model"),
        pytest.param(
            AccountState(cooldowns=[replace(REST, reason="quota")], models={"gpt": ModelFact(True, START + DAY)}),
            "gpt", 60, id="quota, a model that costs",
        ),
        pytest.param(
            AccountState(
                cooldowns=[replace(REST, reason="quota")], models={"gpt": ModelFact(True, START + DAY, included=True)}
            ),
            "gpt", None, id="quota, an included model",
        ),
        pytest.param(
            AccountState(cooldowns=[replace(REST, reason="quota")], ended_by_success={PAID: START + 1}), "gpt", None, id="quota again"
        ),
    ],
)  # fmt: skip
def test_which_rest_keeps_a_model_away(state, model, until):
    """The longest one that still runs, is not over, and concerns this model."""
    rest = cooling(state, PoolRequest("r1", model, START), START)
    assert (None if rest is None else rest.until - START) == until


@pytest.mark.parametrize(
    ("one", "model", "until"),
    [
        pytest.param(member(), None, None, id="no model"),
        pytest.param(member(), "gpt", None, id="nothing known"),
        pytest.param(
            member(state=AccountState(models={"gpt": ModelFact(False, START + 9)})), "gpt", START + 9, id="lacks"
        ),
        pytest.param(member(state=AccountState(models={"gpt": ModelFact(False, START)})), "gpt", None, id="ran out"),
        pytest.param(member(state=AccountState(models={"gpt": ModelFact(True, START + 9)})), "gpt", None, id="has"),
        pytest.param(member(has=("claude*",)), "gpt", float("inf"), id="not in the seed"),
        pytest.param(member(has=("claude*", "GPT*")), "gpt", None, id="in the seed"),
        pytest.param(
            member(state=AccountState(models={"gpt": ModelFact(True, START)}), has=()), "gpt", None, id="learnt since"
        ),
    ],
)
def test_whether_an_account_lacks_a_model(one, model, until):
    """A live refusal, or the user's seed while nothing was learnt."""
    assert lacks(one, model, START) == until


LONG = Cooldown(START - HOUR, START, "session limit")


@pytest.mark.parametrize(
    ("state", "keys"),
    [
        pytest.param(AccountState(), [], id="nothing"),
        pytest.param(
            AccountState(cooldowns=[LONG, replace(LONG, reason="weekly limit")]), [""], id="a long rest ran out"
        ),
        pytest.param(AccountState(cooldowns=[replace(LONG, until=START + 1)]), [], id="it still runs"),
        pytest.param(AccountState(cooldowns=[replace(LONG, began=START - 899)]), [], id="it was short"),
        pytest.param(AccountState(cooldowns=[LONG], ended_by_success={"": START}), [], id="healed"),
        pytest.param(AccountState(cooldowns=[replace(LONG, model="gpt")]), ["gpt"], id="of the model"),
        pytest.param(AccountState(cooldowns=[replace(LONG, model="o9")]), [], id="of another model"),
        pytest.param(
            AccountState(models={"gpt": ModelFact(False, START, START - 900)}), ["has gpt"], id="a long refusal"
        ),
        pytest.param(AccountState(models={"gpt": ModelFact(False, START, START - 30)}), [], id="a short refusal"),
        pytest.param(
            AccountState(models={"gpt": ModelFact(False, START + 1, START - 900)}), [], id="a running refusal"
        ),
        pytest.param(AccountState(models={"gpt": ModelFact(True, START, START - DAY)}), [], id="an old success"),
    ],
)
def test_what_a_probe_would_prove(state, keys):
    """Long rests and long refusals that ran out and that nothing has ended."""
    assert unproved(member(state=state), REQUEST, START) == keys
    assert unproved(member(), PoolRequest("r1", None, START), START) == []


def test_a_probe_is_one_requests_for_a_while():
    """While its lease lasts others see it; its own request, and everybody after the lease, does not."""
    one = member(probes={"": ("r1", START + 120), "gpt": ("r2", START + 50)})
    assert probed(one, [""], "r9", START) == START + 120
    assert probed(one, [""], "r1", START) is None
    assert probed(one, ["", "gpt"], "r1", START) == START + 50
    assert probed(one, [""], "r9", START + 120) is None
    assert probed(one, ["has gpt"], "r9", START) is None


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(member(), None, id="nothing"),
        pytest.param(
            member(state=AccountState(models={"gpt": ModelFact(False, START + 90)})),
            (Exclusion.MODEL, "does not have the model gpt (asked again in 90 s)", None), id="lacks",
        ),
        pytest.param(member(has=()), (Exclusion.MODEL, "does not have the model gpt", None), id="seeded without"),
        pytest.param(
            member(state=AccountState(cooldowns=[REST])), (Exclusion.COOLDOWN, "rests after a rate limit", START + 60), id="rests"
        ),
        pytest.param(
            member(state=AccountState(cooldowns=[replace(REST, reason="no access")])),
            (Exclusion.ACCESS, "has no access to Copilot", START + 60), id="no access",
        ),
        pytest.param(
            member(state=AccountState(cooldowns=[replace(REST, reason="credential")])),
            (Exclusion.CREDENTIAL, "had its credential refused", START + 60), id="credential",
        ),
        pytest.param(
            member(state=AccountState(cooldowns=[replace(REST, reason="of a newer version")])),
            (Exclusion.COOLDOWN, "rests", START + 60), id="a reason of a newer version",
        ),
        pytest.param(member(state=AccountState(cooldowns=[LONG])), None, id="may be probed"),
        pytest.param(
            member(state=AccountState(cooldowns=[LONG]), probes={"": ("r2", START + 5)}),
            (Exclusion.PROBED, "is being tried by another request", START + 5), id="is probed",
        ),
    ],
)  # fmt: skip
def test_what_was_learnt_against_it(one, expected):
    """The reason, and when it ends by itself."""
    request = PoolRequest("r1", "gpt", START)
    bar = learnt(one, request, START)
    told = bar and why(one, bar, request, START)
    assert (told and (told.bar, told.reason, told.free_at)) == expected


@pytest.mark.parametrize(
    ("quota", "windows", "expected"),
    [
        pytest.param({}, ALL_WINDOWS, (100.0, None), id="unknown"),
        pytest.param({"premium": QuotaWindow(30.0, START + 9)}, ALL_WINDOWS, (30.0, START + 9), id="one"),
        pytest.param({"premium": QuotaWindow(30.0, START)}, ALL_WINDOWS, (100.0, None), id="it has reset"),
        pytest.param({"premium": QuotaWindow(30.0)}, ALL_WINDOWS, (30.0, None), id="no reset known"),
        pytest.param({"chat": QuotaWindow(0.0, unlimited=True)}, ALL_WINDOWS, (100.0, None), id="unlimited"),
        pytest.param({"completions": QuotaWindow(0.0)}, ALL_WINDOWS, (100.0, None), id="not ours"),
        pytest.param({"premium": QuotaWindow(30.0), "session": QuotaWindow(2.0)}, ALL_WINDOWS, (2.0, None), id="tightest"),
        pytest.param({"premium": QuotaWindow(30.0), "session": QuotaWindow(2.0)}, ("premium",), (30.0, None), id="chosen"),
        pytest.param(
            {"premium": QuotaWindow(3.0, START + 5), "chat": QuotaWindow(3.0, START + 9)}, ALL_WINDOWS, (3.0, START + 9),
            id="of equals the one that resets last",
        ),
    ],
)  # fmt: skip
def test_what_is_left(quota, windows, expected):
    """Percent left of the tightest window that still runs."""
    assert left(AccountState(quota=quota), START, windows) == expected


def test_the_reserve():
    """An account is at its reserve when no more than that is left of what is paid for."""
    state = AccountState(quota={"premium": QuotaWindow(20.0), "session": QuotaWindow(1.0)})
    assert not at_reserve(member(state=state), START)
    assert at_reserve(member(account("a", reserve=20.0), state), START)
    assert not at_reserve(member(account("a", reserve=19.0), state), START)


def test_how_scarce_a_model_is():
    """A model in use that others of the fence lack: refused, unlisted, kept away or not in the seed."""
    here = AccountState(models={"gpt": ModelFact(True, START, times=1), "o9": ModelFact(True, START, times=0)})
    first, unknown = member(account("a"), here), member(account("c"))
    assert scarce([first, unknown]) == {}
    for other in (
        member(account("b"), AccountState(models={"gpt": ModelFact(False, START, times=1)})),
        member(account("b"), AccountState(listed_at=START)),
        member(account("b", block=("gpt",))),
        member(account("b"), has=("claude*",)),
    ):
        assert scarce([first, other]) == {"github.com:a": {"gpt": 1.0}}
        assert scarce([first, other, unknown]) == {"github.com:a": {"gpt": 0.25}}
        assert scarce([first, other, member(account("c", fence="work"))]) == {"github.com:a": {"gpt": 1.0}}
    assert scarce([first]) == {}
    off = [member(account("b", enabled=False)), member(account("c"), serving=False)]
    assert scarce([first, *off]) == {}
    listed = member(account("b"), AccountState(models={"gpt": ModelFact(True, START)}, listed_at=START))
    assert scarce([first, listed]) == {}
    refused = member(account("b"), AccountState(models={"o9": ModelFact(False, START, times=2)}, listed_at=START))
    assert scarce([first, refused]) == {"github.com:a": {"gpt": 1.0, "o9": 1.0}}
    nobody = [member(account(label), AccountState(models={"gpt": ModelFact(False, START)})) for label in "ab"]
    assert scarce(nobody) == {}
    guess = member(account("a"), AccountState())
    assert scarce([guess, nobody[1]]) == {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(AccountState(), None, id="unknown"),
        pytest.param(AccountState(quota={"premium": QuotaWindow(30.0)}), 0.3, id="no reset known"),
        pytest.param(AccountState(quota={"premium": QuotaWindow(30.0, START)}), None, id="it has reset"),
        pytest.param(AccountState(quota={"chat": QuotaWindow(0.0, START + DAY, True)}), None, id="unlimited"),
        pytest.param(AccountState(quota={"session": QuotaWindow(50.0, START + 2.5 * HOUR)}), 1.0, id="even"),
        pytest.param(AccountState(quota={"session": QuotaWindow(50.0, START + 1.25 * HOUR)}), 2.0, id="more than enough"),
        pytest.param(AccountState(quota={"session": QuotaWindow(50.0, START + 9 * HOUR)}), 0.5, id="longer than it can be"),
        pytest.param(AccountState(quota={"session": QuotaWindow(1.0, START + 1.0)}), 0.5, id="about to reset"),
        pytest.param(AccountState(quota={"weekly": QuotaWindow(50.0, START + 7 * DAY)}), 0.5, id="weekly"),
        pytest.param(
            AccountState(quota={"premium": QuotaWindow(25.0, START + 15 * DAY), "session": QuotaWindow(90.0, START + HOUR)}),
            0.5, id="the tightest",
        ),
        pytest.param(AccountState(count=Count(START, 7)), None, id="counted, no limit yet"),
        pytest.param(AccountState(count=Count(START, 25, START + HOUR, 100.0)), 3.75, id="counted"),
        pytest.param(AccountState(count=Count(START, 250, START + HOUR, 100.0)), 0.0, id="counted, more than ever"),
        pytest.param(AccountState(count=Count(START, 25, START + DAY, 100.0)), None, id="counted, a clock jumped"),
        pytest.param(AccountState(count=Count(START, 25, START - 2.5 * HOUR, 100.0)), 2.0, id="counted, it has reset"),
        pytest.param(
            AccountState(count=Count(START, 99, START + HOUR, 100.0), quota={"session": QuotaWindow(50.0, START + 2.5 * HOUR)}),
            1.0, id="told, so not counted",
        ),
    ],
)  # fmt: skip
def test_the_pace(state, expected):
    """Share left divided by share of time left, of the tightest window."""
    assert pace(state, START) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(None, False, id="never asked"),
        pytest.param(ModelFact(True, START), False, id="has it"),
        pytest.param(ModelFact(False, START, times=1), True, id="lacked it"),
        pytest.param(ModelFact(False, START, times=0), False, id="taken back"),
        pytest.param(ModelFact(False, START - DAY, times=3), False, id="long ago"),
    ],
)
def test_who_is_doubted(fact, expected):
    """Who lacked the model when last asked, until a day after that ran out."""
    one = member(state=AccountState(models={"gpt": fact} if fact else {}))
    assert doubted(one, "gpt", START, DAY) is expected
    assert not doubted(one, None, START, DAY)


def test_a_direct_credential_is_its_own_bearer():
    """Only an exchanged one can be minted again."""
    assert member().direct
    assert not member(account("a", credential="exchange")).direct
