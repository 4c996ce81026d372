"""What people are shown of the pool."""

from dataclasses import FrozenInstanceError

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Status
from copilot_balancer.rules.snapshot import CooldownView
from copilot_balancer.rules.types import SERVED, Attempt, Hold, Nobody, Policy
from support.pools import (
    BAD_CREDENTIALS,
    BLOCKED,
    HOUR,
    LIMIT,
    MINUTE,
    MISSING,
    MODEL_LIMIT,
    QUOTA,
    START,
    Bench,
    account,
    hinted,
)


def test_an_account_as_people_see_it():
    """Everything that status and the dashboard print, at one moment."""
    bench = Bench(account("a", login="octocat", plan="individual", priority=2, weight=3.0, reserve=5.0), "b")
    bench.refuse(hinted(QUOTA, 10 * HOUR), MISSING)
    bench.pool.learn_quota("github.com:a", {"premium": QuotaWindow(40.0, seen_at=START)})
    ask = bench.ask("o9")
    ask.sent()
    ask.answered(SERVED)
    bench.now += MINUTE
    snapshot = bench.pool.snapshot(bench.now)

    assert (snapshot.at, snapshot.balancing, snapshot.strategy) == (bench.now, True, "hybrid")
    assert (snapshot.requests, snapshot.conversations) == (1, 0)
    first, second = snapshot.accounts
    assert (first.id, first.label, first.login, first.host, first.plan) == (
        "github.com:a", "a", "octocat", "github.com", "individual",
    )  # fmt: skip
    assert (first.fence, first.priority, first.weight, first.reserve) == ("default", 2, 3.0, 5.0)
    assert (first.enabled, first.home, first.status) == (True, True, Status.COOLING)
    assert first.rests == (CooldownView("quota", None, 10 * HOUR - MINUTE, "server", None),)
    assert first.quota == {"premium": QuotaWindow(40.0, seen_at=START)}
    assert (first.in_flight, first.last_used, first.served, first.refused) == (0, START, 0, 1)
    assert first.why_not == "has used up its quota"
    assert first.health == 1.0
    assert (second.home, second.status, second.in_flight, second.served, second.refused) == (False, "ready", 1, 1, 1)
    assert second.why_not is None
    assert second.rests == ()
    with pytest.raises(FrozenInstanceError):
        second.label = "x"


def test_the_status_of_an_account():
    """The first that holds of disabled, needs login, cooling, ready."""
    bench = Bench("off", "blocked", "login", "cooling", "model", "new")
    bench.edit("off", enabled=False)
    for label, outcome in (
        ("blocked", BLOCKED),
        ("login", BAD_CREDENTIALS),
        ("cooling", LIMIT),
        ("model", hinted(MODEL_LIMIT, 90)),
    ):
        bench.refuse(outcome, only=f"github.com:{label}")
    views = {view.label: view for view in bench.pool.snapshot(bench.now).accounts}

    assert {label: str(view.status) for label, view in views.items()} == {
        "off": "disabled", "blocked": "disabled", "login": "needs login", "cooling": "cooling", "model": "ready",
        "new": "ready",
    }  # fmt: skip
    assert views["off"].why_not == "is turned off"
    assert views["login"].why_not == "needs a login"
    assert views["model"].why_not is None
    assert views["model"].rests == (CooldownView("model limit", "gpt", 90, "server", None),)
    assert views["new"].last_used is None


def test_the_models_that_an_account_lacks():
    """With the seconds for which that is believed; what ran out is not shown."""
    bench = Bench("a", "b")
    bench.refuse(MISSING, SERVED, model="o9")
    bench.now += 10
    assert bench.view("a").lacks == {"o9": 20.0}
    assert bench.view("b").lacks == {}
    bench.now += 20
    assert bench.view("a").lacks == {}


def test_a_probe_is_nothing_that_keeps_an_account_from_serving():
    """While a healed account is tried it is shown as serving."""
    bench = Bench("a")
    bench.refuse(hinted(LIMIT, HOUR))
    bench.now += HOUR
    bench.ask().sent()
    assert bench.view("a").why_not is None


def test_an_explanation_is_what_would_happen():
    """It names whom the next assignment chooses, each candidate's terms, and the reason of each other account."""
    bench = Bench("a", "b", "c", account("d", fence="work"))
    bench.refuse(hinted(LIMIT, HOUR), SERVED)
    found = bench.pool.explain("gpt", "talk", bench.now)

    assert (found.model, found.conversation, found.strategy) == ("gpt", "talk", "hybrid")
    assert [(one.label, one.stays) for one in found.candidates] == [("c", False), ("b", False)]
    assert found.candidates[0].terms == {"-score": -6.0, "turn": 0.0, "last used": 0.0}
    assert found.candidates[0].parts == {"health": 1.0, "pace": 3.0, "idle": 2.0, "scarcity": 0.0, "doubt": 0.0}
    assert {why.label: why.reason for why in found.why_not} == {
        "a": "rests after a rate limit", "d": "stands in another fence",
    }  # fmt: skip
    assert isinstance(found.decision, Attempt)
    assert found.chosen == "c" == bench.serve(conversation="talk")
    assert bench.pool.explain("gpt", "talk", bench.now).candidates[0].stays
    assert bench.pool.explain("gpt", "talk", bench.now, fence="work").chosen == "d"


def test_an_explanation_changes_nothing():
    """Asked a hundred times the pool is as before."""
    bench = Bench("a", "b", policy=Policy(strategy="round-robin"))
    before = bench.pool.memory(bench.now), bench.pool.snapshot(bench.now), bench.pool.version
    for number in range(100):
        bench.pool.explain("gpt", f"c{number}", bench.now)
    assert (bench.pool.memory(bench.now), bench.pool.snapshot(bench.now), bench.pool.version) == before


@pytest.mark.parametrize(("wait", "kind"), [(0.0, Nobody), (60.0, Hold)])
def test_an_explanation_of_nobody(wait, kind):
    """When nobody serves, nobody is named, and the decision says what a client would get."""
    bench = Bench("a", policy=Policy(wait=wait))
    bench.refuse(hinted(LIMIT, 30))
    found = bench.pool.explain("gpt", None, bench.now)
    assert isinstance(found.decision, kind)
    assert found.chosen is None
    assert found.candidates == ()


def test_no_view_holds_a_token():
    """Snapshots and explanations are printed and logged."""
    bench = Bench("a", "b")
    bench.refuse(LIMIT, SERVED)
    shown = repr(bench.pool.snapshot(bench.now)) + repr(bench.pool.explain("gpt", None, bench.now))
    assert "canary" not in shown
