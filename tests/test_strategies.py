"""The order in which each strategy prefers accounts."""

from dataclasses import replace

import pytest

from copilot_balancer.errors import InvalidInput
from copilot_balancer.strategies import STRATEGIES, Candidate, parts, strategy

EQUAL = Candidate(
    position=0,
    home=False,
    priority=0,
    weight=1.0,
    last_used=100.0,
    in_flight=0,
    turn=0.0,
    latest=False,
    health=1.0,
    quota=100.0,
    resets_at=None,
    pace=None,
    scarcity=0.0,
    doubted=False,
)


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        pytest.param("hybrid", {"health": 1.0}, {"health": 0.5}, id="hybrid: health"),
        pytest.param("hybrid", {"pace": 1.2}, {"pace": 0.8}, id="hybrid: pace"),
        pytest.param("hybrid", {"pace": 1.6}, {}, id="hybrid: more than enough is told"),
        pytest.param("hybrid", {}, {"pace": 1.4}, id="hybrid: nothing is told"),
        pytest.param("hybrid", {"pace": 0.0, "in_flight": 9}, {"doubted": True}, id="hybrid: who lacked the model"),
        pytest.param("hybrid", {"in_flight": 1}, {"in_flight": 2}, id="hybrid: load"),
        pytest.param("hybrid", {"in_flight": 3, "weight": 4.0}, {"in_flight": 1}, id="hybrid: load by weight"),
        pytest.param("hybrid", {"scarcity": 0}, {"scarcity": 1}, id="hybrid: scarcity"),
        pytest.param("hybrid", {"turn": 1.0}, {"turn": 2.0}, id="hybrid: turn"),
        pytest.param("hybrid", {"last_used": 5.0}, {"last_used": 6.0}, id="hybrid: least recently used"),
        pytest.param(
            "hybrid", {"in_flight": 0, "health": 0.5}, {"in_flight": 1}, id="hybrid: a healed one is not shunned"
        ),
        pytest.param("sticky", {"latest": True, "priority": 5}, {"priority": 1}, id="sticky: the last used"),
        pytest.param("sticky", {"priority": 1}, {"priority": 2}, id="sticky: then priority"),
        pytest.param("round-robin", {"turn": 1.0, "priority": 9}, {"turn": 1.5}, id="round-robin: turn"),
        pytest.param("priority", {"priority": -1, "in_flight": 50}, {"priority": 0}, id="priority: spills over only"),
        pytest.param("quota", {"quota": 50.5}, {"quota": 50.0}, id="quota: most left"),
        pytest.param(
            "quota", {"quota": 50.0, "resets_at": 9.0}, {"quota": 50.0, "resets_at": 10.0}, id="quota: soonest reset"
        ),
        pytest.param("quota", {"resets_at": 9.0}, {"resets_at": None}, id="quota: a known reset"),
        pytest.param("quota", {"in_flight": 1}, {"in_flight": 2}, id="quota: load"),
        pytest.param("quota", {"turn": 1.0}, {"turn": 2.0}, id="quota: turn"),
    ],
)
def test_who_is_preferred(name, better, worse):
    """Each term of a strategy decides when the ones before it are equal."""
    order = strategy(name)
    assert tuple(order(replace(EQUAL, **better)).values()) < tuple(order(replace(EQUAL, **worse)).values())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("hybrid", {"quota": 1.0}, id="hybrid: what is left, but for its time"),
        pytest.param("hybrid", {"priority": 7}, id="hybrid: priority"),
        pytest.param("sticky", {"in_flight": 9}, id="sticky: load"),
        pytest.param("round-robin", {"quota": 1.0}, id="round-robin: quota"),
        pytest.param("priority", {"quota": 1.0}, id="priority: quota"),
        pytest.param("quota", {"health": 0.1}, id="quota: health"),
    ],
)
def test_what_a_strategy_does_not_look_at(name, changes):
    """Differences that a strategy ignores leave its terms equal."""
    order = strategy(name)
    assert order(replace(EQUAL, **changes)) == order(EQUAL)


def test_the_formula_of_hybrid():
    """The score is the documented sum."""
    terms = strategy("hybrid")(
        replace(EQUAL, health=0.5, pace=0.6, in_flight=3, weight=2.0, scarcity=1.25, turn=4.0, last_used=9.0)
    )
    score = 0.5 + 2 * 0.6 + 2 / 2.5 - 1.25
    assert terms == {"-score": -score, "turn": 4.0, "last used": 9.0}
    assert strategy("hybrid")(replace(EQUAL, pace=50.0))["-score"] == -(1 + 2 * 2 + 2)
    assert strategy("hybrid")(replace(EQUAL, pace=1.0, doubted=True))["-score"] == -(1 + 2 + 2 - 10)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_parts_of_a_score(name):
    """What is shown of a score adds up to it, bit for bit; a strategy without a score has no parts."""
    candidate = replace(EQUAL, health=0.3, pace=0.7, in_flight=3, weight=2.1, scarcity=1.1, doubted=True)
    found = parts(name, candidate)
    if name != "hybrid":
        assert found == {}
        return
    assert found == {"health": 0.3, "pace": 1.4, "idle": 2 / (1 + 3 / 2.1), "scarcity": -1.1, "doubt": -10.0}
    score = found["health"] + found["pace"] + found["idle"] + found["scarcity"] + found["doubt"]
    assert -score == strategy(name)(candidate)["-score"]


def test_no_part_is_a_negative_zero():
    """It would be printed as -0.00."""
    assert "-" not in str(list(parts("hybrid", EQUAL).values()))


def test_an_unknown_strategy():
    """A wrong name is one clear sentence that names the right ones."""
    with pytest.raises(InvalidInput, match="'fastest' is not a strategy: use one of hybrid, sticky, round-robin"):
        strategy("fastest")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_what_it_compares(name):
    """Each has terms with names, and a docstring that explains them."""
    terms = STRATEGIES[name](EQUAL)
    assert terms
    assert all(isinstance(value, (int, float)) for value in terms.values())
    assert STRATEGIES[name].__doc__
