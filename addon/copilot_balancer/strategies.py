"""In which order the accounts that can serve are preferred.

Laws of this file:

1. A strategy is a small function of one candidate and of the moment: it returns the terms that it compares, in the
   order of comparison. Lower is preferred. Each term has a name; ``explain`` prints exactly these, and what a score is
   the sum of.
2. The pool asks a strategy only for a new conversation, or for one whose account cannot serve; and only about accounts
   that may serve. Then it asks about each of them: a strategy looks only at what it compares.
3. Whatever the strategy, the home account wins what is still equal, then the user's order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from copilot_balancer.cooldowns import health
from copilot_balancer.eligibility import ALL_WINDOWS, Member, doubted, left, pace
from copilot_balancer.errors import InvalidInput

Terms = tuple[float, ...]
"""What is compared, in the order of comparison."""

UNTOLD_PACE = 1.5
"""What ``hybrid`` takes for the pace of an account that tells nothing: it is likely to have more than enough, and its
first refusal tells when it has not (found by scripts/simulate)."""
DOUBT = 10.0
"""More than all else together: who has the model is known to be able, the other would be asked to no avail."""
PACE_TOP = 2.0
"""More than twice the even pace is as good as twice."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What all candidates of one choice are compared by."""

    now: float
    """Seconds on the steady clock."""
    model: str | None
    """What is asked for."""
    model_ttl: float
    """``Policy.model_ttl``."""
    present_turn: float
    """How far the candidate that is furthest ahead had come before its last turn."""
    latest: float
    """When one of them was last used."""
    in_flight: Mapping[str, int]
    """Account id -> requests that it serves at this moment."""
    scarce: Mapping[str, Mapping[str, float]]
    """``eligibility.scarce``."""

    def turn(self, one: Member) -> float:
        """How far its turns have come: new conversations divided by weight, never behind the others' present turn."""
        return max(self.present_turn, one.state.turn)

    def load(self, one: Member) -> float:
        """Requests that it serves at this moment, divided by weight."""
        return self.in_flight.get(one.account.id, 0) / one.account.weight

    def scarcity(self, one: Member) -> float:
        """Sum over the other models in use of how scarce each is: 1 if no other account has it, 0 if all have."""
        few = self.scarce.get(one.account.id)
        return sum(few.values()) - few.get(self.model or "", 0.0) if few else 0.0


def hybrid(one: Member, at: Moment) -> Terms:
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
    well, paced, idle, scarcity, doubt = _weighed(one, at)
    return -(well + paced + idle + scarcity + doubt), at.turn(one), one.state.last_used


def _weighed(one: Member, at: Moment) -> tuple[float, float, float, float, float]:
    """What the score of ``hybrid`` is the sum of, with weight and sign: health, pace, idle, scarcity, doubt."""
    state, told = one.state, pace(one.state, at.now)
    return (
        health(state, at.model, at.now) if state.strikes or state.faults else 1.0,
        2.0 * (UNTOLD_PACE if told is None else min(told, PACE_TOP)),
        2.0 / (1.0 + at.load(one)),
        0.0 - at.scarcity(one) if at.scarce else 0.0,
        -DOUBT if state.models and doubted(one, at.model, at.now, at.model_ttl) else 0.0,
    )


def sticky(one: Member, at: Moment) -> Terms:
    """Stay with the account that was used last until it cannot serve; then by priority."""
    return float(one.state.last_used != at.latest), one.account.priority


def round_robin(one: Member, at: Moment) -> Terms:
    """Each new conversation to the next account; one of weight 2 gets two while one of weight 1 gets one.

    Start-time fair queueing: each placement moves an account's ``turn`` on by 1 / weight, the lowest turn is next, and
    one that could not serve for a while comes back at the present turn instead of catching up.
    """
    return (at.turn(one),)


def priority(one: Member, at: Moment) -> Terms:  # noqa: ARG001 - whatever the moment
    """The lowest priority first; the next one only while those before it cannot serve."""
    return (one.account.priority,)


def quota(one: Member, at: Moment) -> Terms:
    """The most quota left first; of equals the one that resets soonest, then the least busy, then by turns."""
    percent, resets_at = left(one.state, at.now, ALL_WINDOWS)
    return -percent, math.inf if resets_at is None else resets_at, at.load(one), at.turn(one)


@dataclass(frozen=True, slots=True)
class Strategy:
    """An order of accounts."""

    terms: Callable[[Member, Moment], Terms]
    names: tuple[str, ...]
    """Of its terms."""


STRATEGIES: dict[str, Strategy] = {
    "hybrid": Strategy(hybrid, ("-score", "turn", "last used")),
    "sticky": Strategy(sticky, ("not the last used", "priority")),
    "round-robin": Strategy(round_robin, ("turn",)),
    "priority": Strategy(priority, ("priority",)),
    "quota": Strategy(quota, ("-quota", "resets at", "in flight", "turn")),
}


def named(name: str, one: Member, at: Moment) -> dict[str, float]:
    """What the strategy `name` compares of an account, in the order of comparison, each term by its name."""
    return dict(zip(STRATEGIES[name].names, STRATEGIES[name].terms(one, at), strict=True))


def parts(name: str, one: Member, at: Moment) -> dict[str, float]:
    """What the score of the strategy `name` is the sum of; empty for one that has no score."""
    if name != "hybrid":
        return {}
    return dict(zip(("health", "pace", "idle", "scarcity", "doubt"), _weighed(one, at), strict=True))


def strategy(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        InvalidInput: there is none.

    """
    try:
        return STRATEGIES[name]
    except KeyError:
        raise InvalidInput(f"{name[:80]!r} is not a strategy: use one of {', '.join(STRATEGIES)}") from None
