"""Chooses the account that serves a request, or the reason why none does, for ``Pool.assign`` and ``Pool.explain``.

Laws of this file:

1. Nothing is changed here: the same board, request and moment give the same decision.
2. A request asks each account at most once, plus one repair in all: minted again, waited for, its conversation's owner,
   or another model that the user wrote down.
3. Giving up is said in two different ways: "all accounts tried, all refused" and "not retried, because ...".
4. A client never gets an answer that is final to it (400, 401, 403) while waiting would help.
"""

import zlib
from dataclasses import replace
from itertools import pairwise

from copilot_balancer.rules.classify import USER_RULE
from copilot_balancer.rules.eligibility import PoolAccount, repairable, settled, unproved
from copilot_balancer.rules.give_up import FAULTS, LIMITS, WAITING_HELPS, give_up
from copilot_balancer.rules.outcome_table import BY_STATUS
from copilot_balancer.rules.ranking import (
    PoolState,
    Ranked,
    Selection,
    bar,
    best,
    route_of,
    select,
    staying,
    was_tried,
    why_not,
    whys,
)
from copilot_balancer.rules.types import (
    Action,
    Attempt,
    Exclusion,
    Hold,
    Nobody,
    NobodyKind,
    Outcome,
    Policy,
    PoolRequest,
    Reason,
    Route,
    Scope,
    Tried,
)

BUDGET_FLOOR = 3
BUDGET_SHARE = 0.2
"""Requests that may be sent again at the same time after a fault of the service (Envoy's retry budget). A refusal of
an account does not count: it cost nothing, and it keeps the next request from being refused."""

MOMENTS = 60.0
"""Seconds within which refusals of all accounts for the same reason are one event that is nobody's fault."""

RESEND_AFTER = 1.0
"""Seconds, plus up to one more, before the only account is asked again after a fault of the service."""

SHORT_LIMIT = 2.0
"""Seconds: a session limit that ends this soon is a burst limit; without another account it is waited for."""

PROBE_STEP = 0.5
"""Seconds between two looks at whether a probe has come back."""

FAILOVER_CLASS: dict[Reason, str] = {
    Reason.LIMIT: "limit",
    Reason.SESSION_LIMIT: "limit",
    Reason.WEEKLY_LIMIT: "limit",
    Reason.MODEL_LIMIT: "limit",
    Reason.AGENT_LIMIT: "limit",
    Reason.QUOTA: "quota",
    Reason.MODEL_MISSING: "model",
    Reason.NEEDS_LOGIN: "auth",
    Reason.NO_ACCESS: "auth",
    Reason.FORBIDDEN: "auth",
    Reason.POLICY: "auth",
    Reason.CLIENT_REFUSED: "auth",
    Reason.CREDENTIAL: "auth",
    Reason.PREFIX: "auth",
    Reason.WRONG_HOST: "auth",
    Reason.TRANSIENT: "transient",
    Reason.OVERLOADED: "transient",
}
"""Which class of ``Policy.failover`` lets a refusal move the request to another account."""

_UNKNOWN_CLASS = {429: "limit", 403: "auth"}
"""The same for a refusal that no row of the table is about, by its status; any other is "transient"."""

_ONCE = frozenset({Action.NEXT_ONCE, Action.SAME_ONCE})

_MODEL_BOUND = frozenset({Reason.MODEL_MISSING, Reason.MODEL_LIMIT})


def decide(board: PoolState, request: PoolRequest, now: float) -> tuple[Attempt | Hold | Nobody, float | None]:
    """What to do with `request`: send it with an account, hold it, or give up.

    With it comes where the chosen account's turns stand; None when no turn is taken, as in a conversation that stays.
    """
    route = route_of(board, request.model)
    if request.bound and request.owner is not None and not _owner_comes_back(board, request, now, route):
        request = replace(request, bound=False)
    if request.tried:
        verdict = _again(board, request, now, route)
        if verdict is not None:
            return verdict, None
    here = staying(board, request, now, route)
    if here is not None:
        return _attempt(request, here, now, "same conversation"), None
    selection = select(board, request, now, route)
    if selection.ready:
        first = best(board, request, now, route, selection.ready)
        attempt = _attempt(request, first.member, now, _why(board, first, len(selection.ready), route))
        return attempt, None if first.stays else first.at.turn(first.member)
    decision = (
        _wait(board, request, selection, now, route)
        or _fall_back(board, request, now, route)
        or give_up(board, request, selection, now, _all_refused(request, selection))
    )
    return decision, None


def _owner_comes_back(board: PoolState, request: PoolRequest, now: float, route: Route | None) -> bool:
    """Whether the owner of a bound request can go on with it, now or after a rest.

    If not, moving it without what is bound is the lesser evil: at worst it is refused once more.
    """
    owner = board.members.get(request.owner or "")
    return owner is not None and bar(board, owner, request, route, now) in (None, Exclusion.COOLDOWN, Exclusion.PROBED)


def _attempt(
    request: PoolRequest,
    member: PoolAccount,
    now: float,
    why: str,
    *,
    repair: bool = False,
    bare: bool = False,
    renew: bool = False,
) -> Attempt:
    probe = bool(unproved(member, request, now))
    return Attempt(
        request_id=request.id,
        number=len(request.tried) + 1,
        account_id=member.account.id,
        credential=member.fingerprint,
        model=request.model,
        why=f"{why}, first after its rest" if probe else why,
        began=now,
        probe=probe,
        repair=repair,
        bare=bare,
        auto=request.auto,
        renew=renew,
        client=request.client,
    )


def _why(board: PoolState, first: Ranked, ready: int, route: Route | None) -> str:
    """Why the first of so many that are ready was chosen, in a few words."""
    if first.stays:
        return "same conversation"
    if not board.balancing:
        return "balancing is off"
    if ready == 1:
        return "only one that can serve"
    return "first in its route" if route and route.accounts else f"first by {board.policy.strategy}"


# --- after a refusal --------------------------------------------------------------------------------------------------


def _again(board: PoolState, request: PoolRequest, now: float, route: Route | None) -> Attempt | Nobody | None:
    """Whether the last refusal settles the request; None: another account may be asked."""
    last = request.tried[-1]
    outcome, action = last.outcome, last.outcome.action
    member = board.members.get(last.attempt.account_id)
    spent = _spent(board.policy, request, now)
    if action is Action.STOP or (outcome.reason is Reason.FORBIDDEN and member is not None and member.blocked):
        return _final(request, "GitHub blocked this account", NobodyKind.BLOCKED)
    if action is Action.PASS:
        return _final(request, _why_passed(outcome))
    if action is Action.OWNER and spent is None and _may_be_anothers(board, request, now, route):
        return None
    if action is Action.OWNER:
        return _to_owner(board, request, now, route, spent)
    if spent is None and not _repaired(request) and member is not None and repairable(member, outcome, now):
        same = replace(request, model=last.attempt.model)
        if bar(board, member, same, route, now) is None and _affords_repair(board, request, now, route):
            return _attempt(same, member, now, "repair", repair=True, renew=outcome.reason is not Reason.PREFIX)
    if not board.balancing:
        return _final(request, "balancing is off")
    name = FAILOVER_CLASS.get(outcome.reason)
    if outcome.reason is Reason.UNKNOWN:
        name = _UNKNOWN_CLASS.get(outcome.status or 0, "transient")
    if name is not None and name not in board.policy.failover:
        return _final(request, f"failover for {name} is switched off")
    if spent is not None:
        selection = select(board, request, now, route)
        waits = any(one.outcome.reason in WAITING_HELPS for one in request.tried)
        if outcome.reason in (Reason.UNKNOWN, Reason.POLICY) and not waits:  # nothing was learnt: it would be the same
            return _final(request, f"{spent}; {_more(selection, board.policy, request)}" if selection.ready else spent)
        why = f"not retried, because {spent}; {_more(selection, board.policy, request)}"
        why = why if selection.ready else _all_refused(request, selection)
        return give_up(board, request, selection, now, why)
    if action in _ONCE and (refusal := _once(board, request)) is not None:
        if outcome.reason is Reason.MODEL_MISSING and (other := _fall_back(board, request, now, route)) is not None:
            return other
        if outcome.reason not in FAULTS and any(one.outcome.reason in WAITING_HELPS for one in request.tried):
            return give_up(board, request, select(board, request, now, route), now, f"not retried, because {refusal}")
        return _final(request, refusal)
    return None


def _to_owner(
    board: PoolState, request: PoolRequest, now: float, route: Route | None, spent: str | None
) -> Attempt | Nobody:
    """Bound state was refused: retry with the account that made it, else once more without it."""
    last = request.tried[-1]
    same, owner = replace(request, model=last.attempt.model), _owner(board, request)
    if spent is None:
        if owner is not None and bar(board, owner, same, route, now) is None:
            return _attempt(same, owner, now, "owner of the conversation")
        member = board.members.get(last.attempt.account_id)
        free = member is not None and bar(board, member, same, route, now) is None
        if member is not None and free and request.carries and not _repaired(request):
            return _attempt(same, member, now, "repair", repair=True, bare=True)
    return _final(request, "the conversation is bound to its account")


def _affords_repair(board: PoolState, request: PoolRequest, now: float, route: Route | None) -> bool:
    """Whether a repair on suspicion leaves a send for another account; what is known to help always goes first."""
    if request.tried[-1].outcome.action is not Action.SAME_ONCE:
        return True
    return board.policy.max_attempts - len(request.tried) > 1 or not select(board, request, now, route).ready


def _why_passed(outcome: Outcome) -> str:
    """Why a refusal goes to the client at once: no more than is known."""
    if outcome.reason is Reason.UNKNOWN:
        return "nothing is known about this refusal"
    if outcome.rule.startswith(USER_RULE):
        return f"{outcome.rule} says so"
    if outcome.rule == BY_STATUS:
        return "its status says that it is about the request"
    return "another account would answer the same"


def _more(selection: Selection, policy: Policy, request: PoolRequest) -> str:
    """How many accounts were not asked, and by which option."""
    ready, option = len(selection.ready), "max_attempts" if len(request.tried) >= policy.max_attempts else "deadline"
    return f"{ready} more {'was' if ready == 1 else 'were'} ready (copilot_{option})"


def _may_be_anothers(board: PoolState, request: PoolRequest, now: float, route: Route | None) -> bool:
    """Whether a refused tool loop, whose owner is not known any more, may belong to an account not yet tried."""
    if not request.bound or request.owner is not None or not board.balancing:
        return False
    unasked = (member for key, member in board.members.items() if not was_tried(request, key))
    return any(
        bar(board, member, request, route, now) in (None, Exclusion.COOLDOWN, Exclusion.PROBED) for member in unasked
    )


def _once(board: PoolState, request: PoolRequest) -> str | None:
    """Why what is asked of one other account alone is not sent once more; None: it may be."""
    outcome = request.tried[-1].outcome
    if outcome.reason is Reason.TRANSIENT and outcome.sent and not board.policy.retry_ambiguous:
        return "it may already have run"
    if any(one.outcome.action in _ONCE and not then.attempt.renew for one, then in pairwise(request.tried)):
        return "a second try met the same trouble"
    if outcome.reason in FAULTS and board.resent >= max(BUDGET_FLOOR, BUDGET_SHARE * board.flights):
        return "too many requests are being sent again at this moment"
    return None


def _spent(policy: Policy, request: PoolRequest, now: float) -> str | None:
    """Why this request may not be sent any more, whatever the reason; None: it may."""
    if len(request.tried) >= policy.max_attempts:
        return f"it was sent {len(request.tried)} times"
    if now >= request.began + policy.deadline:
        return "its time is over"
    return None


def _repaired(request: PoolRequest) -> bool:
    return any(one.attempt.repair for one in request.tried)


def _owner(board: PoolState, request: PoolRequest) -> PoolAccount | None:
    """The account that made what was refused, unless it was asked already."""
    if request.owner is None or was_tried(request, request.owner):
        return None
    return board.members.get(request.owner)


# --- nobody is ready: wait, ask for another model, give up ------------------------------------------------------------


def _wait(
    board: PoolState, request: PoolRequest, selection: Selection, now: float, route: Route | None
) -> Attempt | Hold | None:
    """Hold the request until somebody frees, or ask a tried account once more when its rest was waited for."""
    unasked = _unasked(request, selection)
    rests = {
        key: against for key, against in unasked.items() if against is Exclusion.COOLDOWN and board.policy.wait > 0
    }
    holds = [
        Hold(why.free_at, f"waits for {why.label}")
        for why in whys(board, request, now, rests).values()
        if why.free_at is not None and why.free_at - now <= board.policy.wait
    ]
    if Exclusion.PROBED in unasked.values():
        holds.append(Hold(now + PROBE_STEP, "waits for another request's probe"))
    if not _repaired(request):
        for one in request.tried:
            member = board.members.get(one.attempt.account_id)
            until = _free_again(board, request, one, now, route) if member is not None else None
            if member is not None and until is not None:
                if until <= now:
                    same = replace(request, model=one.attempt.model)
                    return _attempt(same, member, now, "the same account once more", repair=True)
                holds.append(Hold(until, f"waits for {member.account.label}"))
    soonest = min(holds, key=lambda hold: hold.until, default=None)
    return soonest if soonest and soonest.until < request.began + board.policy.deadline else None


def _unasked(request: PoolRequest, selection: Selection) -> dict[str, Exclusion]:
    """What keeps those that were not asked for this request yet."""
    asked = {one.attempt.account_id for one in request.tried}
    return {key: against for key, against in selection.barred.items() if key not in asked}


def _free_again(board: PoolState, request: PoolRequest, one: Tried, now: float, route: Route | None) -> float | None:
    """When an account that refused may be asked once more; None: not for this request."""
    outcome, same = one.outcome, replace(request, model=one.attempt.model)
    why = why_not(board, board.members[one.attempt.account_id], same, route, now)
    if one is request.tried[-1] and outcome.reason is Reason.TRANSIENT and outcome.action is Action.NEXT_ONCE:
        jitter = zlib.crc32(request.id.encode()) % 1000 / 1000  # spread, and the same again in a replay
        return one.ended + RESEND_AFTER + jitter if why is None else None
    short = outcome.reason is Reason.SESSION_LIMIT and outcome.retry_after is not None
    patience = max(board.policy.wait, SHORT_LIMIT if short and (outcome.retry_after or 0.0) <= SHORT_LIMIT else 0.0)
    if outcome.reason not in LIMITS or patience <= 0.0:
        return None
    if why is None:
        return now
    return (
        why.free_at
        if why.bar is Exclusion.COOLDOWN and why.free_at is not None and why.free_at - now <= patience
        else None
    )


def _fall_back(board: PoolState, request: PoolRequest, now: float, route: Route | None) -> Attempt | None:
    """Ask for another model, where the user wrote one down and nobody can serve the one that was asked for."""
    if route is None:
        return None
    refused = [one.attempt.account_id for one in request.tried if one.outcome.reason in _MODEL_BOUND]
    again = frozenset(() if _repaired(request) else refused)
    for model in route.fallback:
        other = replace(request, model=model)
        selection = select(board, other, now, route, again)
        if selection.ready:
            member = best(board, other, now, route, selection.ready).member
            why = f"MODEL CHANGED to {model}, as your route says: nobody can serve {request.model}"
            return _attempt(other, member, now, why, repair=was_tried(request, member.account.id))
    return None


def _final(request: PoolRequest, because: str, kind: NobodyKind = NobodyKind.NOT_RETRIED) -> Nobody:
    """The last answer goes to the client as it is."""
    return Nobody(kind, (), None, None, len(request.tried) - 1, f"not retried, because {because}")


def _all_refused(request: PoolRequest, selection: Selection) -> str:
    if not request.tried:
        return "no account can serve this now"
    if request.bound and Exclusion.BOUND in selection.barred.values():
        return "not retried, because no other account can go on with what this one began"
    elsewhere = (Exclusion.ONLY, Exclusion.HOST, Exclusion.FENCE)
    if all(against in elsewhere for against in _unasked(request, selection).values()):
        return "all accounts tried, all refused"
    return "all accounts that could serve were tried, all refused"


# --- nobody's fault ---------------------------------------------------------------------------------------------------


def is_nobodys_fault(board: PoolState, request: PoolRequest, now: float) -> bool:
    """Whether every account that could be asked refused for the same reason within moments, so that none is to blame.

    A model that the client's own app may not use counts only when no account is left unasked, resting ones included:
    until then the refusals say something about the accounts.
    """
    first, last = request.tried[0], request.tried[-1]
    outcomes = {(one.outcome.reason, one.outcome.scope) for one in request.tried}
    if len(outcomes) > 1 or last.ended - first.ended > MOMENTS:
        return False
    route = route_of(board, request.model)
    if last.outcome.scope in (Scope.CREDENTIAL_MODEL, Scope.CREDENTIAL_CLIENT):
        fence = request.fence or board.policy.fence
        return all(
            was_tried(request, key) or settled(member, request, fence, route, balancing=board.balancing)
            for key, member in board.members.items()
        )
    if last.outcome.reason not in (Reason.TRANSIENT, Reason.OVERLOADED) or last.outcome.scope is not Scope.NOBODY:
        return False
    return not select(board, request, now, route).ready
