"""Who may serve a request, best first, and why the others may not.

Laws of this file:

1. Nothing is changed here: the same board, request and moment give the same selection, bit for bit.
2. A conversation stays with its account under every strategy, as long as that account may serve; one that carries
   what only its maker takes back goes to its maker first.
3. After that comes the order of a route, then the strategy, then the home account, then the user's order.
4. An account at its reserve serves only when no other can.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from copilot_balancer.accounts import matches
from copilot_balancer.assignment import Bar, Policy, PoolRequest, Route, WhyNot
from copilot_balancer.eligibility import Member, at_reserve, learnt, settled, why
from copilot_balancer.memory import Affinity
from copilot_balancer.strategies import STRATEGIES, Moment, Terms


@dataclass(slots=True)
class Board:
    """What a decision looks at."""

    policy: Policy
    balancing: bool
    members: dict[str, Member]
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

    ready: list[Member]
    """In the user's order."""
    barred: dict[str, Bar]
    """Account id -> the first thing that keeps it."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An account that may serve, and what it was compared by."""

    member: Member
    at: Moment
    stays: bool
    """The conversation is there already."""


def affinity_keys(conversation: str, model: str | None) -> tuple[str, str]:
    """Where a conversation's account is looked for: what holds for this model alone, then what holds for all.

    The first is used when the conversation's account cannot serve one model: the other models stay where they are.
    """
    return f"{conversation} {model or ''}", conversation


def stays_with(board: Board, request: PoolRequest, now: float) -> list[str]:
    """The accounts that the conversation stays with, the preferred one first."""
    owner = [request.owner] if request.owner is not None else []
    if request.conversation is None:
        return owner
    known = (board.conversations.get(key) for key in affinity_keys(request.conversation, request.model))
    return owner + [here.account_id for here in known if here and now - here.used_at < board.policy.affinity]


def route_of(board: Board, model: str | None) -> Route | None:
    """The first enabled row of the user's matrix that is about this model; none while balancing is off."""
    if model is None or not board.balancing:
        return None
    return next((route for route in board.policy.routes if route.enabled and matches(model, route.models)), None)


def bar(board: Board, member: Member, request: PoolRequest, route: Route | None, now: float) -> Bar | None:
    """What keeps this account from serving this request, tried or not; None: nothing."""
    fence = request.fence or board.policy.fence
    found = settled(member, request, fence, route, balancing=board.balancing)
    if found is None and board.balancing:
        return learnt(member, request.model, request.id, now)
    return found


def why_not(board: Board, member: Member, request: PoolRequest, route: Route | None, now: float) -> WhyNot | None:
    """The same for people: in words, and when it ends by itself."""
    found = bar(board, member, request, route, now)
    return None if found is None else why(member, found, request.model, request.id, now)


def select(
    board: Board, request: PoolRequest, now: float, route: Route | None, again: frozenset[str] = frozenset()
) -> Selection:
    """Who may serve `request`. `again`: tried accounts that may be asked once more."""
    tried = {one.attempt.account_id for one in request.tried} - again
    ready, barred = [], {}
    for key, member in board.members.items():
        against = bar(board, member, request, route, now)
        if against is None and key in tried:
            against = Bar.TRIED
        if against is None:
            ready.append(member)
        else:
            barred[key] = against
    kept = [member for member in ready if member.account.reserve > 0 and at_reserve(member, now)]
    if 0 < len(kept) < len(ready):
        barred |= {member.account.id: Bar.RESERVE for member in kept}
        ready = [member for member in ready if member.account.id not in barred]
    return Selection(ready, barred)


def whys(board: Board, request: PoolRequest, now: float, barred: Mapping[str, Bar]) -> dict[str, WhyNot]:
    """Why each of these does not serve `request`, for people; in the user's order."""
    return {
        key: why(member, barred[key], request.model, request.id, now)
        for key, member in board.members.items()
        if key in barred
    }


def best(board: Board, request: PoolRequest, now: float, route: Route | None, ready: list[Member]) -> Ranked:
    """The first of `ranked`, found without putting the others in order; `ready` is not empty."""
    at, stays = _moment(board, request, now, ready), stays_with(board, request, now)
    first = min(ready, key=_order(board, route, stays, at))
    return Ranked(first, at, first.account.id in stays)


def ranked(board: Board, request: PoolRequest, now: float, route: Route | None, ready: list[Member]) -> list[Ranked]:
    """Those who are `ready`, best first."""
    at, stays = _moment(board, request, now, ready), stays_with(board, request, now)
    in_order = sorted(ready, key=_order(board, route, stays, at))
    return [Ranked(member, at, member.account.id in stays) for member in in_order]


def _moment(board: Board, request: PoolRequest, now: float, ready: list[Member]) -> Moment:
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
    board: Board, route: Route | None, stays: list[str], at: Moment
) -> Callable[[Member], tuple[int, int, Terms, bool, int]]:
    """By what accounts are put in order: conversation, route, strategy, home account, the user's order."""
    places = {label: place for place, label in enumerate(route.accounts)} if route else {}
    terms = STRATEGIES[board.policy.strategy].terms

    def order(one: Member) -> tuple[int, int, Terms, bool, int]:
        account = one.account
        place = stays.index(account.id) if account.id in stays else len(stays)
        return place, places.get(account.label, 0), terms(one, at), not one.home, one.position

    return order


def staying(board: Board, request: PoolRequest, now: float, route: Route | None) -> Member | None:
    """The account of the conversation, when ``select`` would put it first: found without looking at the others."""
    stays = stays_with(board, request, now)
    member = board.members.get(stays[0]) if stays else None
    if member is None or at_reserve(member, now) or was_tried(request, stays[0]):
        return None
    return member if bar(board, member, request, route, now) is None else None


def was_tried(request: PoolRequest, account_id: str) -> bool:
    """Whether this account was already asked for this request."""
    return any(one.attempt.account_id == account_id for one in request.tried)
