"""The order in which each strategy prefers accounts."""

from dataclasses import replace

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.eligibility import PoolAccount
from copilot_balancer.rules.ranking import STRATEGIES, Moment, named, parts, strategy
from copilot_balancer.rules.state import AccountState, ModelFact
from copilot_balancer.rules.types import Policy
from support.pools import DAY, HOUR, LIMIT, START, Bench, account, hinted


def seen(
    *,
    steps: int = 0,
    pace: float | None = None,
    quota: float | None = None,
    resets_at: float | None = None,
    in_flight: int = 0,
    turn: float = 0.0,
    last_used: float = 100.0,
    latest: bool = False,
    scarcity: float = 0.0,
    doubted: bool = False,
    **decided,
) -> tuple[PoolAccount, Moment]:
    """An account and a moment at which all this is so: `steps` up the ladder; the session window half over."""
    of, state = account("a", **decided), AccountState(turn=turn, last_used=last_used)
    if steps:
        state.backoff[""] = (steps, START)
    if pace is not None:
        state.quota["session"] = QuotaWindow(50.0 * pace, START + 2.5 * HOUR)
    if quota is not None:
        state.quota["premium"] = QuotaWindow(quota, resets_at)
    if doubted:
        state.models["gpt"] = ModelFact(False, START)
    return PoolAccount(of, state, 0, of.fingerprint, home=False, serving=True), Moment(
        now=START,
        model="gpt",
        model_ttl=DAY,
        present_turn=0.0,
        latest=last_used if latest else last_used + 1.0,
        in_flight={of.id: in_flight},
        scarce={of.id: {"gpt": 0.5, "o9": scarcity}} if scarcity else {},
    )


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        pytest.param("hybrid", {}, {"steps": 1}, id="hybrid: health"),
        pytest.param("hybrid", {"pace": 1.2}, {"pace": 0.8}, id="hybrid: pace"),
        pytest.param("hybrid", {"pace": 1.6}, {}, id="hybrid: more than enough is told"),
        pytest.param("hybrid", {}, {"pace": 1.4}, id="hybrid: nothing is told"),
        pytest.param("hybrid", {"pace": 0.0, "in_flight": 9}, {"doubted": True}, id="hybrid: who lacked the model"),
        pytest.param("hybrid", {"in_flight": 1}, {"in_flight": 2}, id="hybrid: load"),
        pytest.param("hybrid", {"in_flight": 3, "weight": 4.0}, {"in_flight": 1}, id="hybrid: load by weight"),
        pytest.param("hybrid", {"scarcity": 0}, {"scarcity": 1}, id="hybrid: scarcity"),
        pytest.param("hybrid", {"turn": 1.0}, {"turn": 2.0}, id="hybrid: turn"),
        pytest.param("hybrid", {"last_used": 5.0}, {"last_used": 6.0}, id="hybrid: least recently used"),
        pytest.param("hybrid", {"steps": 1}, {"in_flight": 1}, id="hybrid: a healed one is not shunned"),
        pytest.param("sticky", {"latest": True, "priority": 5}, {"priority": 1}, id="sticky: the last used"),
        pytest.param("sticky", {"priority": 1}, {"priority": 2}, id="sticky: then priority"),
        pytest.param("round-robin", {"turn": 1.0, "priority": 9}, {"turn": 1.5}, id="round-robin: turn"),
        pytest.param("priority", {"priority": -1, "in_flight": 50}, {"priority": 0}, id="priority: spills over only"),
        pytest.param("quota", {"quota": 50.5}, {"quota": 50.0}, id="quota: most left"),
        pytest.param(
            "quota",
            {"quota": 50.0, "resets_at": START + 9},
            {"quota": 50.0, "resets_at": START + 10},
            id="quota: soonest reset",
        ),
        pytest.param("quota", {"quota": 50.0, "resets_at": START + 9}, {"quota": 50.0}, id="quota: a known reset"),
        pytest.param("quota", {}, {"quota": 99.0}, id="quota: nothing is told"),
        pytest.param("quota", {"in_flight": 1}, {"in_flight": 2}, id="quota: load"),
        pytest.param("quota", {"turn": 1.0}, {"turn": 2.0}, id="quota: turn"),
    ],
)
def test_who_is_preferred(name, better, worse):
    """Each term of a strategy decides when the ones before it are equal."""
    terms = strategy(name).terms
    assert terms(*seen(**better)) < terms(*seen(**worse))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param(
            "hybrid", {"quota": 10.0, "resets_at": START + 3 * DAY}, id="hybrid: what is left, but for its time"
        ),
        pytest.param("hybrid", {"priority": 7}, id="hybrid: priority"),
        pytest.param("sticky", {"in_flight": 9}, id="sticky: load"),
        pytest.param("round-robin", {"quota": 1.0}, id="round-robin: quota"),
        pytest.param("priority", {"quota": 1.0}, id="priority: quota"),
        pytest.param("quota", {"steps": 4}, id="quota: health"),
    ],
)
def test_what_a_strategy_does_not_look_at(name, changes):
    """Differences that a strategy ignores leave its terms equal."""
    terms = strategy(name).terms
    half = {"quota": 50.0, "resets_at": START + 15 * DAY}
    assert terms(*seen(**{**half, **changes})) == terms(*seen(**half))


def test_the_formula_of_hybrid():
    """The score is the documented sum."""
    terms = strategy("hybrid").terms(
        *seen(steps=1, pace=0.5, in_flight=3, weight=2.0, scarcity=1.25, turn=4.0, last_used=9.0)
    )
    score = 0.5 + 2 * 0.5 + 2 / 2.5 - 1.25
    assert terms == (-score, 4.0, 9.0)
    assert strategy("hybrid").terms(*seen(pace=50.0))[0] == -(1 + 2 * 2 + 2)
    assert strategy("hybrid").terms(*seen(pace=1.0, doubted=True))[0] == -(1 + 2 + 2 - 10)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_parts_of_a_score(name):
    """What is shown of a score adds up to it, bit for bit; a strategy without a score has no parts."""
    one, at = seen(steps=2, pace=0.7, in_flight=3, weight=2.1, scarcity=1.1, doubted=True)
    found = parts(name, one, at)
    if name != "hybrid":
        assert found == {}
        return
    assert found == {
        "health": 1 / 3,
        "pace": pytest.approx(1.4),
        "idle": 2 / (1 + 3 / 2.1),
        "scarcity": pytest.approx(-1.1),
        "doubt": -10.0,
    }
    score = found["health"] + found["pace"] + found["idle"] + found["scarcity"] + found["doubt"]
    assert -score == named(name, one, at)["-score"]


def test_no_part_is_a_negative_zero():
    """It would be printed as -0.00."""
    assert "-" not in str(list(parts("hybrid", *seen()).values()))
    one, at = seen()
    here = replace(at, scarce={one.account.id: {"gpt": 1.0}})
    assert "-" not in str(list(parts("hybrid", one, here).values()))


def test_what_the_candidates_have_in_common():
    """Turns are never behind the present one; load is by weight; the model that is asked for is not scarce."""
    one, at = seen(turn=3.0, in_flight=3, weight=2.0)
    assert (at.turn(one), at.load(one), at.scarcity(one)) == (3.0, 1.5, 0.0)
    behind = Moment(START, None, DAY, 5.0, 0.0, {}, {one.account.id: {"gpt": 0.5, "o9": 0.25}})
    assert (behind.turn(one), behind.load(one), behind.scarcity(one)) == (5.0, 0.0, 0.75)


def test_an_unknown_strategy():
    """A wrong name is one clear sentence that names the right ones."""
    with pytest.raises(InvalidInput, match="'fastest' is not a strategy: use one of hybrid, sticky, round-robin"):
        strategy("fastest")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_what_it_compares(name):
    """Each has terms with names, and a docstring that explains them."""
    terms = named(name, *seen())
    assert tuple(terms) == STRATEGIES[name].names
    assert tuple(terms.values()) == STRATEGIES[name].terms(*seen())
    assert all(isinstance(value, (int, float)) for value in terms.values())
    assert STRATEGIES[name].terms.__doc__


@pytest.mark.parametrize("strategy_name", ["hybrid", "sticky", "round-robin", "priority", "quota"])
def test_a_disabled_model_is_asked_of_others_first(strategy_name):
    """An account whose own list disables the model comes last, whatever the strategy; it is asked when nobody else is."""
    bench = Bench("work", "home", policy=Policy(strategy=strategy_name))
    bench.pool.learn_models("github.com:work", ["another"], bench.now, disabled=["gpt"])
    assert bench.ask("gpt").sent() == "home"
    bench.edit("home", enabled=False)
    assert bench.ask("gpt").sent() == "work"


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_whose_own_list_lacks_the_model_is_asked_last(name):
    """Whatever the strategy; who was never listed may have it, and a list that is too old says nothing."""
    bench = Bench("personal", "free", "work", "spare", policy=Policy(strategy=name, model_ttl=DAY))
    bench.pool.learn_models("github.com:personal", ["other"], bench.now)
    bench.pool.learn_models("github.com:work", ["gpt"], bench.now)
    asked = []
    for _ in range(4):
        ask = bench.ask()
        asked.append(ask.sent())
        ask.answered(hinted(LIMIT, HOUR))
    assert asked[-1] == "personal"
    assert set(asked[:-1]) == {"free", "work", "spare"}
    explained = Bench("a", "b", policy=Policy(strategy=name, model_ttl=HOUR))
    explained.pool.learn_models("github.com:a", ["other"], explained.now)
    shown = explained.pool.explain("gpt", None, explained.now)
    assert [(one.label, one.asked_last) for one in shown.candidates] == [("b", False), ("a", True)]
    later = explained.pool.explain("gpt", None, explained.now + HOUR)
    assert not any(one.asked_last for one in later.candidates)
