"""Chooses the response to a request that no account serves: its kind, the wait it names, the refusal it repeats.

Laws of this file:

1. Nothing is changed here.
2. A client never gets an answer that is final to it (400, 401, 403) while waiting would help.
3. A limit is said only where an account rests or a fault of the service passes by itself; a refusal that nobody
   understands is given as it came.
"""

from collections.abc import Mapping
from dataclasses import replace

from copilot_balancer.rules.eligibility import PoolAccount
from copilot_balancer.rules.ranking import PoolState, Selection, whys
from copilot_balancer.rules.types import (
    Exclusion,
    Nobody,
    NobodyKind,
    Outcome,
    PoolRequest,
    Reason,
    WhyNot,
    retry_after,
)

LIMITS = frozenset(
    {
        Reason.LIMIT,
        Reason.SESSION_LIMIT,
        Reason.WEEKLY_LIMIT,
        Reason.MODEL_LIMIT,
        Reason.AGENT_LIMIT,
        Reason.QUOTA,
    }
)
FAULTS = frozenset({Reason.TRANSIENT, Reason.OVERLOADED})
"""Of the service, not of an account."""
WAITING_HELPS = LIMITS | FAULTS

_REFUSED_BARS = {
    Reason.MODEL_MISSING: Exclusion.MODEL,
    Reason.CONVERSATION: Exclusion.BOUND,
    Reason.POLICY: Exclusion.ACCESS,
    Reason.NO_ACCESS: Exclusion.ACCESS,
    Reason.CLIENT_REFUSED: Exclusion.CLIENT,
    Reason.CREDENTIAL: Exclusion.CREDENTIAL,
    Reason.NEEDS_LOGIN: Exclusion.CREDENTIAL,
    Reason.PREFIX: Exclusion.CREDENTIAL,
    Reason.WRONG_HOST: Exclusion.CREDENTIAL,
    Reason.FORBIDDEN: Exclusion.ACCESS,
    Reason.UNKNOWN: Exclusion.REFUSED,
}
"""What a refusal says of an account, beyond that it was asked."""

_KINDS: tuple[tuple[NobodyKind, frozenset[Exclusion]], ...] = (
    (
        NobodyKind.LIMITED,
        frozenset({Exclusion.COOLDOWN, Exclusion.PROBED, Exclusion.RESERVE, Exclusion.TRIED, Exclusion.UNASKED}),
    ),
    (NobodyKind.NOT_RETRIED, frozenset({Exclusion.REFUSED})),
    (NobodyKind.NO_MODEL, frozenset({Exclusion.MODEL})),
    (NobodyKind.NO_ACCESS, frozenset({Exclusion.ACCESS, Exclusion.CLIENT})),
    (NobodyKind.NEEDS_LOGIN, frozenset({Exclusion.LOGIN, Exclusion.CREDENTIAL})),
    (NobodyKind.BLOCKED, frozenset({Exclusion.BLOCKED})),
    (NobodyKind.NO_MODEL, frozenset({Exclusion.PATTERN, Exclusion.ROUTE})),
    (NobodyKind.UNAVAILABLE, frozenset({Exclusion.DISABLED, Exclusion.TERMS, Exclusion.HOME})),
    (NobodyKind.FENCED, frozenset({Exclusion.FENCE})),
    (NobodyKind.UNAVAILABLE, frozenset({Exclusion.ONLY, Exclusion.BOUND, Exclusion.HOST})),
)
"""What the accounts' bars come to; the first kind with a bar among them."""


def give_up(board: PoolState, request: PoolRequest, selection: Selection, now: float, why: str) -> Nobody:
    """Nobody: what that comes to, how long to wait, and which of the refusals the client is given."""
    if not board.members:
        return Nobody(NobodyKind.NO_ACCOUNTS, (), None, None, None, "no account is stored")
    outcomes: dict[str, Outcome] = {one.attempt.account_id: one.outcome for one in request.tried}
    told = whys(board, request, now, selection.barred)
    given = {key: _as_given(told.get(key), member, outcomes.get(key), now) for key, member in board.members.items()}
    bars = {why.bar for why in given.values()}
    kind, counted = next((kind, among) for kind, among in _KINDS if bars & among)
    free_at = None
    if kind is NobodyKind.LIMITED and (Exclusion.TRIED not in bars or Exclusion.UNASKED in bars):
        free_at = min((why.free_at for why in given.values() if why.bar in counted and why.free_at), default=None)
    return Nobody(
        kind=kind,
        accounts=tuple(given.values()),
        free_at=free_at,
        retry_after=retry_after(free_at, now, board.policy.retry_after_cap),
        give=_given(request, given, kind, counted, now),
        why=why,
    )


def _as_given(why: WhyNot | None, member: PoolAccount, refused: Outcome | None, now: float) -> WhyNot:
    """The reason to show: what an account's refusal taught, else what the refusal itself was."""
    account = member.account
    if why is None:
        return WhyNot(account.id, account.label, str(Exclusion.UNASKED), now, Exclusion.UNASKED)
    if why.bar is Exclusion.TRIED and refused is not None:
        bar = _REFUSED_BARS.get(refused.reason, Exclusion.TRIED)
        return replace(why, reason=f"was asked: {refused.reason}", bar=bar, cause=refused.reason)
    return why


def _given(
    request: PoolRequest, whys: Mapping[str, WhyNot], kind: NobodyKind, counted: frozenset[Exclusion], now: float
) -> int | None:
    """Index of the refusal for the client: of the account that frees soonest, and only one that fits `kind`."""
    fitting = []
    for index, one in enumerate(request.tried):
        why = whys.get(one.attempt.account_id)
        fits = one.outcome.reason in WAITING_HELPS if kind is NobodyKind.LIMITED else why and why.bar in counted
        if kind is NobodyKind.LIMITED and one.outcome.reason is Reason.QUOTA:
            # a client shows a 402 and stops (docs/clients.md#after-a-refusal): only when nobody frees sooner
            ours = why.free_at if why else None
            fits = ours is not None and all(
                ours <= (other.free_at or ours) for other in whys.values() if other.bar in counted
            )
        if fits:
            fitting.append((why.free_at or now if why else now, -index))
    return -min(fitting)[1] if fitting else None
