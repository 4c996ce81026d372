"""Who may serve a request, best first, and why the others may not.

Laws of this file:

1. Nothing is changed here: the same board, request and moment give the same selection, bit for bit.
2. A conversation stays with its account under every strategy, as long as that account may serve; one that carries
   what only its maker takes back goes to its maker first.
3. After that comes the order of a route, then the strategy, then the home account, then the user's order.
4. An account at its reserve serves only when no other can.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from copilot_balancer.accounts import matches
from copilot_balancer.assignment import Bar, Policy, PoolRequest, Route, WhyNot
from copilot_balancer.cooldowns import health
from copilot_balancer.eligibility import (
    ALL_WINDOWS,
    Member,
    at_reserve,
    doubted,
    learnt,
    left,
    pace,
    settled,
    why_settled,
)
from copilot_balancer.memory import Affinity
from copilot_balancer.strategies import STRATEGIES, Candidate, Terms


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


@dataclass(slots=True)  # not frozen, as strategies.Candidate
class Ranked:
    """An account that may serve, and what it was compared by."""

    member: Member
    candidate: Candidate
    terms: Terms
    stays: bool
    """The conversation is there already."""

    @property
    def turn(self) -> float:
        """How far its turns have come."""
        return self.candidate.turn


@dataclass(frozen=True, slots=True)
class Selection:
    """Who may serve, best first, and why the others may not."""

    ready: list[Ranked]
    barred: dict[str, WhyNot] = field(default_factory=dict)


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


def why_not(board: Board, member: Member, request: PoolRequest, route: Route | None, now: float) -> WhyNot | None:
    """What keeps this account from serving this request, tried or not; None: nothing."""
    fence = request.fence or board.policy.fence
    bar = settled(member, request, fence, route, balancing=board.balancing)
    if bar is not None:
        return why_settled(member, bar, request.model)
    return learnt(member, request.model, request.id, now) if board.balancing else None


def select(
    board: Board, request: PoolRequest, now: float, route: Route | None, again: frozenset[str] = frozenset()
) -> Selection:
    """Who may serve `request`, best first. `again`: tried accounts that may be asked once more."""
    tried = {one.attempt.account_id for one in request.tried} - again
    ready, barred = [], {}
    for key, member in board.members.items():
        why = why_not(board, member, request, route, now)
        if why is None and key in tried:
            why = WhyNot(key, member.account.label, str(Bar.TRIED), None, Bar.TRIED)
        if why is None:
            ready.append(member)
        else:
            barred[key] = why
    spare = [member for member in ready if not at_reserve(member, now)]
    if spare and len(spare) < len(ready):
        for member in ready:
            if at_reserve(member, now):
                key = member.account.id
                barred[key] = WhyNot(key, member.account.label, str(Bar.RESERVE), None, Bar.RESERVE)
        ready = spare
    return Selection(_ranked(board, ready, request, now, route), barred)


def _ranked(board: Board, ready: list[Member], request: PoolRequest, now: float, route: Route | None) -> list[Ranked]:
    """The accounts that may serve, best first: conversation, route, strategy, home account, the user's order."""
    present = max((member.state.turn - 1.0 / member.account.weight for member in ready), default=0.0)
    latest = max((member.state.last_used for member in ready), default=0.0)
    stays = stays_with(board, request, now)
    places = {label: place for place, label in enumerate(route.accounts)} if route else {}
    scarce, in_flight = board.scarce, board.in_flight
    terms_of = STRATEGIES[board.policy.strategy]
    found = []
    for member in ready:
        state, account = member.state, member.account
        key, weight = account.id, account.weight
        quota, resets_at = left(state, now, ALL_WINDOWS) if state.quota else (100.0, None)
        few = scarce.get(key) if scarce else None
        candidate = Candidate(
            member.position,
            member.home,
            account.priority,
            weight,
            state.last_used,
            in_flight.get(key, 0),
            max(present, state.turn),
            state.last_used == latest,
            health(state, request.model, now) if state.strikes or state.faults else 1.0,
            quota,
            resets_at,
            pace(state, now) if state.quota or state.count else None,
            sum(few.values()) - few.get(request.model or "", 0.0) if few else 0.0,
            doubted(member, request.model, now, board.policy.model_ttl) if state.models else False,
        )
        terms = terms_of(candidate)
        place = stays.index(key) if key in stays else len(stays)
        order = (place, places.get(account.label, 0), *terms.values(), not member.home, member.position)
        found.append((order, Ranked(member, candidate, terms, place < len(stays))))
    found.sort(key=itemgetter(0))
    return [ranked for _, ranked in found]


def staying(board: Board, request: PoolRequest, now: float, route: Route | None) -> Member | None:
    """The account of the conversation, when ``select`` would put it first: found without looking at the others."""
    stays = stays_with(board, request, now)
    member = board.members.get(stays[0]) if stays else None
    if member is None or at_reserve(member, now) or was_tried(request, stays[0]):
        return None
    return member if why_not(board, member, request, route, now) is None else None


def was_tried(request: PoolRequest, account_id: str) -> bool:
    """Whether this account was already asked for this request."""
    return any(one.attempt.account_id == account_id for one in request.tried)
