"""In which order the accounts that can serve are preferred.

Laws of this file:

1. A strategy is a small function of one candidate and of the moment: it returns the terms that it compares, in the
   order of comparison, each with its name. Lower is preferred; ``explain`` prints exactly these, and what a score is
   the sum of.
2. The pool asks a strategy only for a new conversation, or for one whose account cannot serve; and only about accounts
   that may serve.
3. Whatever the strategy, the home account wins what is still equal, then the user's order.
"""

from collections.abc import Callable
from dataclasses import dataclass

from copilot_balancer.errors import InvalidInput

Terms = dict[str, float]
"""Name -> value, in the order of comparison."""

UNTOLD_PACE = 1.5
"""What ``hybrid`` takes for the pace of an account that tells nothing: it is likely to have more than enough, and its
first refusal tells when it has not (found by scripts/simulate)."""
DOUBT = 10.0
"""More than all else together: who has the model is known to be able, the other would be asked to no avail."""
PACE_TOP = 2.0
"""More than twice the even pace is as good as twice."""


@dataclass(slots=True)  # not frozen: one is made for each account and choice, and frozen ones are slow to make
class Candidate:
    """An account that may serve, as a strategy sees it."""

    position: int
    """Its place in the user's order, from 0."""
    home: bool
    priority: int
    weight: float
    last_used: float
    in_flight: int
    """Requests that it serves at this moment."""
    turn: float
    """How far its turns have come: new conversations divided by weight, never behind the others' present turn."""
    latest: bool
    """No other account was used later."""
    health: float
    """0 to 1; ``cooldowns.health``."""
    quota: float
    """Percent left in the tightest window, 100 when unknown."""
    resets_at: float | None
    """When that window resets."""
    pace: float | None
    """``eligibility.pace``: share left divided by share of time left, 1 at an even pace; None when unknown."""
    scarcity: float
    """Sum over the other models in use of how scarce each is: 1 if no other account has it, 0 if all have."""
    doubted: bool
    """It lacked the model when it was last asked."""


def hybrid(candidate: Candidate) -> Terms:
    """Health, pace, load and scarcity in one score; the least recently used among equals.

    ::

        score =     health                      1 / (1 + steps on the cooldown ladder + faults of 2 minutes / 3)
              + 2 * pace                        share left / share of the window's time left, 2 at most; tightest window
              + 2 * idle                        1 / (1 + requests in flight / weight)
              - scarcity                        sum over the other models in use: 1 if nobody else has it, 0 if all have
              - 10 * doubt                      1 if it lacked the model when it was last asked

    The best score first; among equals the one whose last new conversation (divided by weight) lies furthest back, then
    the least recently used. What is left at a reset is lost, and what is used up too early is missed: so not who has
    most left is asked, but who has most left for its time. Health weighs least: a rest that has run out is over, so a
    healed account only waits until the others are busy. Each scarce model weighs up to half an even pace: an account is
    spared for what few can do until the others are in trouble.
    """
    health, pace, idle, scarcity, doubt = _weighed(candidate)
    return {
        "-score": -(health + pace + idle + scarcity + doubt),
        "turn": candidate.turn,
        "last used": candidate.last_used,
    }


def _weighed(candidate: Candidate) -> tuple[float, float, float, float, float]:
    """What the score of ``hybrid`` is the sum of, with weight and sign: health, pace, idle, scarcity, doubt."""
    return (
        candidate.health,
        2.0 * min(UNTOLD_PACE if candidate.pace is None else candidate.pace, PACE_TOP),
        2.0 / (1.0 + candidate.in_flight / candidate.weight),
        0.0 - candidate.scarcity,
        0.0 - DOUBT * candidate.doubted,
    )


def sticky(candidate: Candidate) -> Terms:
    """Stay with the account that was used last until it cannot serve; then by priority."""
    return {"not the last used": float(not candidate.latest), "priority": candidate.priority}


def round_robin(candidate: Candidate) -> Terms:
    """Each new conversation to the next account; one of weight 2 gets two while one of weight 1 gets one.

    Start-time fair queueing: each placement moves an account's ``turn`` on by 1 / weight, the lowest turn is next, and
    one that could not serve for a while comes back at the present turn instead of catching up.
    """
    return {"turn": candidate.turn}


def priority(candidate: Candidate) -> Terms:
    """The lowest priority first; the next one only while those before it cannot serve."""
    return {"priority": candidate.priority}


def quota(candidate: Candidate) -> Terms:
    """The most quota left first; of equals the one that resets soonest, then the least busy, then by turns."""
    return {
        "-quota": -candidate.quota,
        "resets at": float("inf") if candidate.resets_at is None else candidate.resets_at,
        "in flight": candidate.in_flight / candidate.weight,
        "turn": candidate.turn,
    }


STRATEGIES: dict[str, Callable[[Candidate], Terms]] = {
    "hybrid": hybrid,
    "sticky": sticky,
    "round-robin": round_robin,
    "priority": priority,
    "quota": quota,
}


def parts(name: str, candidate: Candidate) -> Terms:
    """What the score of the strategy `name` is the sum of; empty for one that has no score."""
    if name != "hybrid":
        return {}
    return dict(zip(("health", "pace", "idle", "scarcity", "doubt"), _weighed(candidate), strict=True))


def strategy(name: str) -> Callable[[Candidate], Terms]:
    """The strategy of this name.

    Raises:
        InvalidInput: there is none.

    """
    try:
        return STRATEGIES[name]
    except KeyError:
        raise InvalidInput(f"{name[:80]!r} is not a strategy: use one of {', '.join(STRATEGIES)}") from None
