import math

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.quota import QuotaWindow, read_headers, read_snapshots

WALL = 1_790_000_000.0
"""2026-09-21, 14:13:20 UTC."""
NOW = 5000.0
"""The same moment on another clock, so that a window cannot hold a wall-clock date by accident."""
OCTOBER = NOW + 1_790_812_800 - WALL
"""2026-10-01 00:00 UTC on the clock of NOW."""


@pytest.mark.parametrize(
    ("header", "value", "name", "window"),
    [
        pytest.param(
            "x-quota-snapshot-premium_interactions",
            "ent=10000000&ov=0.0&ovPerm=true&rem=97.1&rst=2026-10-01T00%3A00%3A00Z&totRem=9719759.1",
            "premium",
            QuotaWindow(97.1, OCTOBER, overage_permitted=True, entitlement=1e7, remaining=9719759.1, seen_at=NOW),
            id="premium, as captured",
        ),
        pytest.param(
            "x-quota-snapshot-chat",
            "ent=-1&ov=0.0&ovPerm=false&rem=100.0&rst=2026-10-01T00%3A00%3A00Z&totRem=-1",
            "chat",
            QuotaWindow(100.0, OCTOBER, unlimited=True, seen_at=NOW),
            id="unlimited chat, as captured",
        ),
        pytest.param(
            "x-usage-ratelimit-session",
            "ent=0&ov=0.0&ovPerm=false&rem=99.6&rst=2026-09-21T15%3A13%3A20Z",
            "session",
            QuotaWindow(99.6, NOW + 3600, entitlement=0.0, seen_at=NOW),
            id="session, as captured",
        ),
        pytest.param(
            "x-usage-ratelimit-weekly", "rem=12", "weekly", QuotaWindow(12.0, seen_at=NOW), id="weekly, percent alone"
        ),
        pytest.param(
            "x-quota-snapshot-completions", "rem=0&rst=", "completions", QuotaWindow(0.0, seen_at=NOW), id="used up"
        ),
        pytest.param("x-quota-snapshot-chat", "rem=104.5", "chat", QuotaWindow(100.0, seen_at=NOW), id="above 100"),
        pytest.param("x-quota-snapshot-chat", "rem=-3", "chat", QuotaWindow(0.0, seen_at=NOW), id="below 0"),
        pytest.param(
            "x-quota-snapshot-chat",
            "rem=5&rst=0001-01-01T00:00:00Z",
            "chat",
            QuotaWindow(5.0, seen_at=NOW),
            id="Go's zero date is no date",
        ),
        pytest.param(
            "x-quota-snapshot-chat",
            "rem=5&rst=2026-10-01T02:00:00+02:00",
            "chat",
            QuotaWindow(5.0, OCTOBER, seen_at=NOW),
            id="a plus that is not encoded stands for itself",
        ),
        pytest.param(
            "x-quota-snapshot-chat",
            "ent=50&totRem=10",
            "chat",
            QuotaWindow(20.0, entitlement=50.0, remaining=10.0, seen_at=NOW),
            id="percent from the numbers",
        ),
    ],
)
def test_headers(header, value, name, window):
    """One header is one window, its reset on the clock of `now`."""
    assert {name: window} == read_headers({header: value, "content-type": "x"}, wall=WALL, now=NOW)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("x-quota-snapshot-moonshots", "rem=5"), id="a window without a name of ours"),
        pytest.param(("x-quota-snapshot-", "rem=5"), id="no name"),
        pytest.param(("x-quota-snapshot-chat", ""), id="empty"),
        pytest.param(("x-quota-snapshot-chat", "rem"), id="no value"),
        pytest.param(("x-quota-snapshot-chat", "rem=nan"), id="NaN"),
        pytest.param(("x-quota-snapshot-chat", "rem=inf"), id="infinite"),
        pytest.param(("x-quota-snapshot-chat", "rem=1_0"), id="underscore"),
        pytest.param(("x-quota-snapshot-chat", "rem=٣٠"), id="Arabic digits"),
        pytest.param(("x-quota-snapshot-chat", "rem=many"), id="word"),
        pytest.param(("x-quota-snapshot-chat", "ent=0&totRem=0"), id="no percent of nothing"),
        pytest.param(("x-quota-snapshot-chat", "ent=50"), id="nothing left is told"),
        pytest.param(("x-quota-snapshot-chat", "rem=5&" + "x" * 3000), id="too long"),
        pytest.param(("x-other-chat", "rem=5"), id="another header"),
    ],
)
def test_unusable_headers(pair):
    """What cannot be read is left out."""
    assert read_headers(dict([pair]), wall=WALL, now=NOW) == {}


def test_premium_models_before_interactions():
    """Two headers for the premium window: premium_models counts, as in VS Code, whichever comes first."""
    both = {"x-quota-snapshot-premium_interactions": "rem=10", "x-quota-snapshot-premium_models": "rem=20"}

    assert {"premium": QuotaWindow(20.0, seen_at=NOW)} == read_headers(both, wall=WALL, now=NOW)


def test_unreadable_premium_models_leave_the_interactions():
    """A premium_models header that cannot be read does not hide the other one."""
    both = {"x-quota-snapshot-premium_models": "rem=x", "x-quota-snapshot-premium_interactions": "rem=10"}

    assert {"premium": QuotaWindow(10.0, seen_at=NOW)} == read_headers(both, wall=WALL, now=NOW)


STREAM = {
    "premium_interactions": {
        "entitlement": "300",
        "percent_remaining": 68.1,
        "overage_permitted": True,
        "overage_count": 0,
        "reset_date": "2026-10-01T00:00:00Z",
    },
    "chat": {"entitlement": "-1", "percent_remaining": 100, "overage_permitted": False, "overage_count": 0},
    "5Hour-Session-RateLimits": {"entitlement": "0", "percent_remaining": 40.5, "overage_permitted": False},
    "Weekly-Session-RateLimits": {"entitlement": "0", "percent_remaining": 90, "overage_permitted": False},
}
STREAM_WINDOWS = {
    "premium": QuotaWindow(68.1, OCTOBER, overage_permitted=True, entitlement=300.0, seen_at=NOW),
    "chat": QuotaWindow(100.0, unlimited=True, seen_at=NOW),
    "session": QuotaWindow(40.5, entitlement=0.0, seen_at=NOW),
    "weekly": QuotaWindow(90.0, entitlement=0.0, seen_at=NOW),
}


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param(STREAM, id="the snapshots themselves"),
        pytest.param({"type": "error", "error": {}, "copilot_quota_snapshots": STREAM}, id="WebSocket error event"),
        pytest.param({"type": "response.completed", "copilot_quota_snapshots": STREAM}, id="end event"),
        pytest.param(
            {"type": "response.completed", "response": {"id": "x", "copilot_quota_snapshots": STREAM}},
            id="end event, in its response",
        ),
    ],
)
def test_stream_snapshots(obj):
    """The snapshots of a stream's end or error event are read wherever they stand."""
    assert read_snapshots(obj, wall=WALL, now=NOW) == STREAM_WINDOWS


USER = {
    "login": "octocat",
    "copilot_plan": "individual",
    "quota_reset_date": "2026-10-01",
    "quota_reset_date_utc": "2026-10-01T00:00:00.000Z",
    "quota_snapshots": {
        "chat": {"entitlement": 0, "remaining": 0, "percent_remaining": 100.0, "unlimited": True},
        "completions": {"unlimited": True},
        "premium_interactions": {
            "entitlement": 300,
            "remaining": 204,
            "quota_remaining": 204.33,
            "percent_remaining": 68.1,
            "unlimited": False,
            "overage_permitted": False,
            "has_quota": True,
            "quota_reset_at": 1_790_812_801,
        },
    },
}


def test_user():
    """/copilot_internal/user: its own reset counts before the common one; unlimited needs no numbers."""
    assert {
        "premium": QuotaWindow(68.1, OCTOBER + 1, entitlement=300.0, remaining=204.33, seen_at=NOW),
        "chat": QuotaWindow(100.0, OCTOBER, unlimited=True, seen_at=NOW),
        "completions": QuotaWindow(100.0, OCTOBER, unlimited=True, seen_at=NOW),
    } == read_snapshots(USER, wall=WALL, now=NOW)


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        pytest.param(
            {"percent_remaining": 50, "has_quota": False}, QuotaWindow(0.0, seen_at=NOW), id="has_quota false"
        ),
        pytest.param(
            {"unlimited": True, "has_quota": False}, QuotaWindow(0.0, seen_at=NOW), id="a pooled seat, used up"
        ),
        pytest.param(
            {"unlimited": True, "has_quota": False, "overage_permitted": True},
            QuotaWindow(100.0, unlimited=True, overage_permitted=True, seen_at=NOW),
            id="a pooled seat that may go on",
        ),
        pytest.param(
            {"entitlement": 300, "remaining": -4},
            QuotaWindow(0.0, entitlement=300.0, remaining=-4.0, seen_at=NOW),
            id="negative remaining",
        ),
        pytest.param(
            {"percent_remaining": 50, "quota_reset_at": 0}, QuotaWindow(50.0, seen_at=NOW), id="reset in 1970 is none"
        ),
        pytest.param(
            {"percent_remaining": 50, "quota_reset_at": "1790812800"},
            QuotaWindow(50.0, OCTOBER, seen_at=NOW),
            id="epoch seconds in a string",
        ),
        pytest.param(
            {"percent_remaining": 50, "quota_reset_at": [1]}, QuotaWindow(50.0, seen_at=NOW), id="reset is a list"
        ),
        pytest.param({"percent_remaining": True}, None, id="percent is true"),
        pytest.param({"percent_remaining": math.nan}, None, id="percent is NaN"),
        pytest.param({"percent_remaining": 10**400}, None, id="percent that no float holds"),
        pytest.param("50", None, id="not an object"),
    ],
)
def test_fields(fields, window):
    """A field of the wrong kind is as if it were absent."""
    expected = {} if window is None else {"chat": window}

    assert expected == read_snapshots({"quota_snapshots": {"chat": fields}}, wall=WALL, now=NOW)


@pytest.mark.parametrize(
    ("obj", "windows"),
    [
        pytest.param(
            {
                "quota_snapshots": {},
                "limited_user_quotas": {"chat": 10, "completions": 2000},
                "monthly_quotas": {"chat": 50, "completions": 2000},
                "limited_user_reset_date": "2026-10-01",
            },
            {
                "chat": QuotaWindow(20.0, OCTOBER, entitlement=50.0, remaining=10.0, seen_at=NOW),
                "completions": QuotaWindow(100.0, OCTOBER, entitlement=2000.0, remaining=2000.0, seen_at=NOW),
            },
            id="numbers of the month",
        ),
        pytest.param({"limited_user_quotas": {"chat": 10}, "monthly_quotas": None}, {}, id="of how many is not told"),
        pytest.param({"limited_user_quotas": None, "monthly_quotas": {"chat": 50}}, {}, id="paid plan"),
    ],
)
def test_free_plan(obj, windows):
    """A free plan's numbers become percents."""
    assert windows == read_snapshots(obj, wall=WALL, now=NOW)


@pytest.mark.parametrize("obj", [None, 5, "chat", [], [{"chat": {"rem": 5}}], {}, {"chat": 5}, {5: 5}], ids=repr)
def test_no_snapshots(obj):
    """What is no object of windows holds none."""
    assert read_snapshots(obj, wall=WALL, now=NOW) == {}


NAMES = (
    strategies.sampled_from(
        ["quota_snapshots", "copilot_quota_snapshots", "response", "limited_user_quotas", "monthly_quotas"]
    )
    | strategies.sampled_from(
        ["chat", "premium_models", "rem", "entitlement", "percent_remaining", "unlimited", "has_quota"]
    )
    | strategies.sampled_from(["quota_reset_at", "reset_date"])
)
JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(strategies.characters(), max_size=20),
    lambda inner: (
        strategies.dictionaries(NAMES | strategies.text(max_size=5), inner, max_size=4)
        | strategies.lists(inner, max_size=2)
    ),
    max_leaves=12,
)
HEADERS = strategies.dictionaries(
    strategies.sampled_from(["x-quota-snapshot-chat", "x-usage-ratelimit-weekly", "x-quota-snapshot-premium_models"]),
    strategies.text(strategies.characters(), max_size=60)
    | strategies.from_regex(r"\Arem=[0-9.eE+-]{0,12}&rst=[0-9TZ:%-]{0,30}\Z"),
)


@settings(max_examples=150, deadline=None)
@given(obj=JSON, head=HEADERS, wall=strategies.floats(0, 1e11))
def test_any_input_gives_sound_windows(obj, head, wall):
    """Whatever comes, nothing is raised and each window is a finite percent with a reset within 366 days."""
    for windows in (read_snapshots(obj, wall=wall, now=NOW), read_headers(head, wall=wall, now=NOW)):
        for name, window in windows.items():
            assert name in {"premium", "chat", "completions", "session", "weekly"}
            assert 0 <= window.percent_left <= 100
            assert window.resets_at is None or abs(window.resets_at - NOW) <= 366 * 86400 + 1
            assert all(number is None or math.isfinite(number) for number in (window.entitlement, window.remaining))
