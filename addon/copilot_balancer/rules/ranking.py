"""Orders the accounts that can serve a request, by the user's strategy.

Laws of this file:

1. A strategy is a small function of one candidate and of the moment: it returns the terms that it compares, in the
   order of comparison. Lower is preferred. Each term has a name; ``explain`` prints exactly these, and what a score is
   the sum of.
2. The pool asks a strategy only for a new conversation, or for one whose account cannot serve; and only about accounts
   that may serve. Then it asks about each of them: a strategy looks only at what it compares.
3. Whatever the strategy, those whose own list of models lacks the model that is asked for come last (it may still be
   there, so they are asked); the home account wins what is still equal, then the user's order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import matches
from copilot_balancer.rules.cooldowns import health
from copilot_balancer.rules.eligibility import (
    ALL_WINDOWS,
    PoolAccount,
    asked_last,
    at_reserve,
    cooling,
    doubted,
    learnt,
    left,
    pace,
    settled,
    why,
)
from copilot_balancer.rules.state import Affinity
from copilot_balancer.rules.types import Exclusion, Policy, PoolRequest, Route, WhyNot

SortKey = tuple[float, ...]
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

    def turn(self, one: PoolAccount) -> float:
        """How far its turns have come: new conversations divided by weight, never behind the others' present turn."""
        return max(self.present_turn, one.state.turn)

    def load(self, one: PoolAccount) -> float:
        """Requests that it serves at this moment, divided by weight."""
        return self.in_flight.get(one.account.id, 0) / one.account.weight

    def scarcity(self, one: PoolAccount) -> float:
        """Sum over the other models in use of how scarce each is: 1 if no other account has it, 0 if all have."""
        few = self.scarce.get(one.account.id)
        return sum(few.values()) - few.get(self.model or "", 0.0) if few else 0.0


def hybrid(one: PoolAccount, at: Moment) -> SortKey:
    """Health, pace, load and scarcity in one score; the least recently used among equals.

    ::

        score =     health                      1 / (1 + steps on the cooldown ladder + faults of 2 minutes / 3)
              + 2 * pace                        share left / share of the window's time left, 2 at most; tightest window
              + 2 * idle                        1 / (1 + requests in flight / weight)
              - scarcity                        sum over the other models in use: 1 if nobody else has it, 0 if all have
              - 10 * doubt                      1 if it lacked the model when it was last asked

    The best score first; among equals the one whose last new conversation (divided by weight) lies furthest back, then
    the least recently used. What is left at a reset is lost, and what is used up too early is missed: so not who has
    most left is asked, but who has most left for its time. Health weighs least: a rest that has run out is over, so an
    account whose cooldown is over only waits until the others are busy. Each scarce model weighs up to half an even
    pace: an account is spared for what few can do until the others are in trouble.
    """
    well, paced, idle, scarcity, doubt = _weighed(one, at)
    return -(well + paced + idle + scarcity + doubt), at.turn(one), one.state.last_used


def _weighed(one: PoolAccount, at: Moment) -> tuple[float, float, float, float, float]:
    """What the score of ``hybrid`` is the sum of, with weight and sign: health, pace, idle, scarcity, doubt."""
    state, told = one.state, pace(one.state, at.now)
    return (
        health(state, at.model, at.now) if state.backoff or state.faults else 1.0,
        2.0 * (UNTOLD_PACE if told is None else min(told, PACE_TOP)),
        2.0 / (1.0 + at.load(one)),
        0.0 - at.scarcity(one) if at.scarce else 0.0,
        -DOUBT if state.models and doubted(one, at.model, at.now, at.model_ttl) else 0.0,
    )


def sticky(one: PoolAccount, at: Moment) -> SortKey:
    """Stay with the account that was used last until it cannot serve; then by priority."""
    return float(one.state.last_used != at.latest), one.account.priority


def round_robin(one: PoolAccount, at: Moment) -> SortKey:
    """Each new conversation to the next account; one of weight 2 gets two while one of weight 1 gets one.

    Start-time fair queueing: each placement moves an account's ``turn`` on by 1 / weight, the lowest turn is next, and
    one that could not serve for a while comes back at the present turn instead of catching up.
    """
    return (at.turn(one),)


def priority(one: PoolAccount, at: Moment) -> SortKey:  # noqa: ARG001 - whatever the moment
    """The lowest priority first; the next one only while those before it cannot serve."""
    return (one.account.priority,)


def quota(one: PoolAccount, at: Moment) -> SortKey:
    """The most quota left first; of equals the one that resets soonest, then the least busy, then by turns."""
    percent, resets_at = left(one.state, at.now, ALL_WINDOWS)
    return -percent, math.inf if resets_at is None else resets_at, at.load(one), at.turn(one)


@dataclass(frozen=True, slots=True)
class Strategy:
    """An order of accounts."""

    terms: Callable[[PoolAccount, Moment], SortKey]
    names: tuple[str, ...]
    """Of its terms."""


STRATEGIES: dict[str, Strategy] = {
    "hybrid": Strategy(hybrid, ("-score", "turn", "last used")),
    "sticky": Strategy(sticky, ("not the last used", "priority")),
    "round-robin": Strategy(round_robin, ("turn",)),
    "priority": Strategy(priority, ("priority",)),
    "quota": Strategy(quota, ("-quota", "resets at", "in flight", "turn")),
}


def named(name: str, one: PoolAccount, at: Moment) -> dict[str, float]:
    """What the strategy `name` compares of an account, in the order of comparison, each term by its name."""
    return dict(zip(STRATEGIES[name].names, STRATEGIES[name].terms(one, at), strict=True))


def parts(name: str, one: PoolAccount, at: Moment) -> dict[str, float]:
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


@dataclass(slots=True)
class PoolState:
    """What a decision looks at."""

    policy: Policy
    balancing: bool
    members: dict[str, PoolAccount]
    """By account id, in the user's order."""
    conversations: Mapping[str, Affinity]
    in_flight: Mapping[str, int]
    """Account id -> requests that it serves at this moment."""
    scarce: Mapping[str, Mapping[str, float]]
    """``eligibility.scarce``."""
    flights: int = 0
    """Requests under way."""
    resent: int = 0
    """Of these, sent again and still without an answer."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Who may serve, and what keeps the others from it."""

    ready: list[PoolAccount]
    """In the user's order."""
    barred: dict[str, Exclusion]
    """Account id -> the first thing that keeps it."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An account that may serve, and what it was compared by."""

    member: PoolAccount
    at: Moment
    stays: bool
    """The conversation is there already."""


def affinity_keys(conversation: str, model: str | None) -> tuple[str, str]:
    """Where a conversation's account is looked for: what holds for this model alone, then what holds for all.

    The first is used when the conversation's account cannot serve one model: the other models stay where they are.
    """
    return f"{conversation} {model or ''}", conversation


def stays_with(board: PoolState, request: PoolRequest, now: float) -> list[str]:
    """The accounts that the conversation stays with, the preferred one first."""
    owner = [request.owner] if request.owner is not None else []
    if request.conversation is None:
        return owner
    known = (board.conversations.get(key) for key in affinity_keys(request.conversation, request.model))
    return owner + [here.account_id for here in known if here and now - here.used_at < board.policy.affinity]


def route_of(board: PoolState, model: str | None) -> Route | None:
    """The first enabled row of the user's matrix that is about this model; none while balancing is off."""
    if model is None or not board.balancing:
        return None
    return next((route for route in board.policy.routes if route.enabled and matches(model, route.models)), None)


def bar(
    board: PoolState, member: PoolAccount, request: PoolRequest, route: Route | None, now: float
) -> Exclusion | None:
    """What keeps this account from serving this request, tried or not; None: nothing."""
    fence = request.fence or board.policy.fence
    found = settled(member, request, fence, route, balancing=board.balancing)
    if found is None and board.balancing:
        return learnt(member, request, now)
    return found


def why_not(
    board: PoolState, member: PoolAccount, request: PoolRequest, route: Route | None, now: float
) -> WhyNot | None:
    """The same for people: in words, and when it ends by itself."""
    found = bar(board, member, request, route, now)
    return None if found is None else why(member, found, request, now)


def select(
    board: PoolState, request: PoolRequest, now: float, route: Route | None, again: frozenset[str] = frozenset()
) -> Selection:
    """Who may serve `request`. `again`: tried accounts that may be asked once more."""
    tried = {one.attempt.account_id for one in request.tried} - again
    ready, barred = [], {}
    for key, member in board.members.items():
        against = bar(board, member, request, route, now)
        if against is None and key in tried:
            against = Exclusion.TRIED
        if against is None:
            ready.append(member)
        else:
            barred[key] = against
    if request.auto:  # those with a weekly limit come last
        limited = [member for member in ready if cooling(member.state, replace(request, auto=False), now) is not None]
        if 0 < len(limited) < len(ready):
            barred |= {member.account.id: Exclusion.COOLDOWN for member in limited}
            ready = [member for member in ready if member.account.id not in barred]
    kept = [member for member in ready if member.account.reserve > 0 and at_reserve(member, now)]
    if 0 < len(kept) < len(ready):
        barred |= {member.account.id: Exclusion.RESERVE for member in kept}
        ready = [member for member in ready if member.account.id not in barred]
    return Selection(ready, barred)


def whys(board: PoolState, request: PoolRequest, now: float, barred: Mapping[str, Exclusion]) -> dict[str, WhyNot]:
    """Why each of these does not serve `request`, for people; in the user's order."""
    return {key: why(member, barred[key], request, now) for key, member in board.members.items() if key in barred}


def best(board: PoolState, request: PoolRequest, now: float, route: Route | None, ready: list[PoolAccount]) -> Ranked:
    """The first of `ranked`, found without putting the others in order; `ready` is not empty."""
    at, stays = _moment(board, request, now, ready), stays_with(board, request, now)
    first = min(ready, key=_order(board, route, stays, at))
    return Ranked(first, at, first.account.id in stays)


def ranked(
    board: PoolState, request: PoolRequest, now: float, route: Route | None, ready: list[PoolAccount]
) -> list[Ranked]:
    """Those who are `ready`, best first."""
    at, stays = _moment(board, request, now, ready), stays_with(board, request, now)
    in_order = sorted(ready, key=_order(board, route, stays, at))
    return [Ranked(member, at, member.account.id in stays) for member in in_order]


def _moment(board: PoolState, request: PoolRequest, now: float, ready: list[PoolAccount]) -> Moment:
    return Moment(
        now=now,
        model=request.model,
        model_ttl=board.policy.model_ttl,
        present_turn=max((member.state.turn - 1.0 / member.account.weight for member in ready), default=0.0),
        latest=max((member.state.last_used for member in ready), default=0.0),
        in_flight=board.in_flight,
        scarce=board.scarce,
    )


def _order(
    board: PoolState, route: Route | None, stays: list[str], at: Moment
) -> Callable[[PoolAccount], tuple[int, int, bool, SortKey, bool, int]]:
    """By what accounts are put in order: conversation, route, who does not lack the model, strategy, home, order."""
    places = {label: place for place, label in enumerate(route.accounts)} if route else {}
    terms = STRATEGIES[board.policy.strategy].terms

    def order(one: PoolAccount) -> tuple[int, int, bool, SortKey, bool, int]:
        account = one.account
        place = stays.index(account.id) if account.id in stays else len(stays)
        last = asked_last(one, at.model, at.now, at.model_ttl)
        return place, places.get(account.label, 0), last, terms(one, at), not one.home, one.position

    return order


def staying(board: PoolState, request: PoolRequest, now: float, route: Route | None) -> PoolAccount | None:
    """The account of the conversation, when ``select`` would put it first: found without looking at the others."""
    stays = stays_with(board, request, now)
    member = board.members.get(stays[0]) if stays else None
    if member is None or at_reserve(member, now) or was_tried(request, stays[0]):
        return None
    return member if bar(board, member, request, route, now) is None else None


def was_tried(request: PoolRequest, account_id: str) -> bool:
    """Whether this account was already asked for this request."""
    return any(one.attempt.account_id == account_id for one in request.tried)
