"""Frozen views of the pool for display: its accounts, and which account would serve a request and why not the others.

Laws of this file:

1. Views are frozen and plain: a program paints or prints them, nothing leads back into the pool.
2. An explanation comes from the same function as the decision (``decide``), and changes nothing.
3. No token stands in a view.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Status
from copilot_balancer.rules.cooldowns import health, rejected
from copilot_balancer.rules.decide import decide
from copilot_balancer.rules.eligibility import PoolAccount, asked_last, cooling
from copilot_balancer.rules.ranking import PoolState, named, parts, ranked, route_of, select, why_not, whys
from copilot_balancer.rules.state import live
from copilot_balancer.rules.types import Attempt, Exclusion, Hold, Nobody, PoolRequest, WhyNot


@dataclass(frozen=True, slots=True)
class CooldownView:
    """A rest that still runs."""

    reason: str
    """A value of ``types.Reason``."""
    model: str | None
    """None: the whole account."""
    seconds: float
    """Seconds left."""
    source: str
    """``server``, ``reset`` or ``ladder``."""
    told: float | None
    """Seconds left as the server said it, when that is longer than we wait before we ask again."""


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as people see it at a moment."""

    id: str
    label: str
    login: str | None
    host: str
    plan: str | None
    fence: str
    priority: int
    weight: float
    reserve: float
    enabled: bool
    home: bool
    status: Status
    rests: tuple[CooldownView, ...]
    """Longest first."""
    quota: Mapping[str, QuotaWindow]
    in_flight: int
    last_used: float | None
    """Seconds on the steady clock; None: never."""
    served: int
    refused: int
    health: float
    """0 to 1."""
    lacks: Mapping[str, float]
    """Model -> seconds for which the account is known not to have it."""
    why_not: str | None
    """Why it serves nothing at all at this moment; None: it serves."""


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at a moment."""

    at: float
    """Seconds on the steady clock."""
    balancing: bool
    strategy: str
    accounts: tuple[AccountView, ...]
    """In the user's order."""
    requests: int
    """Client requests under way."""
    conversations: int
    """Conversations that are remembered."""


@dataclass(frozen=True, slots=True)
class CandidateView:
    """An account that may serve, and what it was compared by."""

    account_id: str
    label: str
    terms: Mapping[str, float]
    """Name -> value in the order of comparison; lower is preferred (``ranking``)."""
    parts: Mapping[str, float]
    """What the score among the terms is the sum of; empty when the strategy has no score."""
    stays: bool
    """The conversation is there already; this comes before all terms."""
    asked_last: bool = False
    """Its own list lacks the model, or names it as turned off: it comes after the others."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who would serve a request now, and why not the others."""

    model: str | None
    conversation: str | None
    strategy: str
    chosen: str | None
    """Label of the account that would serve; None: nobody, or not yet."""
    decision: Attempt | Hold | Nobody
    candidates: tuple[CandidateView, ...]
    """Best first."""
    why_not: tuple[WhyNot, ...]
    """The others, in the user's order."""


def explain(board: PoolState, request: PoolRequest, now: float) -> Explanation:
    """Who would serve `request` if it came now."""
    decision, _ = decide(board, request, now)
    route = route_of(board, request.model)
    selection = select(board, request, now, route)
    chosen = board.members[decision.account_id].account.label if isinstance(decision, Attempt) else None
    return Explanation(
        model=request.model,
        conversation=request.conversation,
        strategy=board.policy.strategy,
        chosen=chosen,
        decision=decision,
        candidates=tuple(
            CandidateView(
                account_id=one.member.account.id,
                label=one.member.account.label,
                terms=named(board.policy.strategy, one.member, one.at),
                parts=parts(board.policy.strategy, one.member, one.at),
                stays=one.stays,
                asked_last=asked_last(one.member, request.model, now, board.policy.model_ttl),
            )
            for one in ranked(board, request, now, route, selection.ready)
        ),
        why_not=tuple(whys(board, request, now, selection.barred).values()),
    )


def snapshot(board: PoolState, now: float) -> PoolSnapshot:
    """The pool as people see it at `now`."""
    return PoolSnapshot(
        at=now,
        balancing=board.balancing,
        strategy=board.policy.strategy,
        accounts=tuple(_account(board, member, now) for member in board.members.values()),
        requests=board.flights,
        conversations=len(board.conversations),
    )


def _account(board: PoolState, member: PoolAccount, now: float) -> AccountView:
    account, state = member.account, member.state
    rests = sorted((rest for rest in live(state) if rest.until > now), key=lambda rest: -rest.until)
    against = why_not(board, member, PoolRequest("", None, now, fence=account.fence), None, now)
    return AccountView(
        id=account.id,
        label=account.label,
        login=account.login,
        host=account.host,
        plan=account.plan,
        fence=account.fence,
        priority=account.priority,
        weight=account.weight,
        reserve=account.reserve,
        enabled=account.enabled,
        home=member.home,
        status=_status(member, now),
        rests=tuple(
            CooldownView(
                reason=rest.reason,
                model=rest.model,
                seconds=rest.until - now,
                source=rest.source,
                told=None if rest.told_until is None else rest.told_until - now,
            )
            for rest in rests
        ),
        quota=dict(state.quota),
        in_flight=board.in_flight.get(account.id, 0),
        last_used=state.last_used or None,
        served=state.served,
        refused=state.refused,
        health=health(state, None, now),
        lacks={model: fact.until - now for model, fact in state.models.items() if not fact.has and fact.until > now},
        why_not=None if against is None or against.bar is Exclusion.PROBED else against.reason,
    )


def _status(member: PoolAccount, now: float) -> Status:
    if not member.account.enabled or member.blocked:
        return Status.DISABLED
    if rejected(member.state):
        return Status.NEEDS_LOGIN
    return Status.READY if cooling(member.state, PoolRequest("", None, now), now) is None else Status.COOLING
