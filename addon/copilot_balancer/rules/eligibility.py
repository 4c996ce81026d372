"""Whether an account may serve a request: the reason why not, or None.

Laws of this file:

1. Everything is computed from facts and ``now``; nothing is changed here.
2. What the user decided comes first, what the proxy learnt after, so that the reason given is the one to act on.
3. A choice looks at every account and needs the bar alone; what it comes to in words is made (``why``) when somebody is
   to read it.
4. After a long rest one attempt goes first (``probes``); until its answer is known the others see a reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from copilot_balancer.copilot.quota import WINDOW_LENGTHS, QuotaWindow
from copilot_balancer.rules.accounts import Account, matches
from copilot_balancer.rules.cooldowns import blocked, counted, is_long, rejected
from copilot_balancer.rules.state import QUOTA_REASON, AccountState, Cooldown
from copilot_balancer.rules.types import Action, Attempt, Exclusion, Outcome, PoolRequest, Reason, Route, WhyNot
from copilot_balancer.text import duration

PROBE_LEASE = 120.0
"""Seconds that a probe may take before another one may go (docs/how-it-decides.md#probes)."""

LEARN_EVERY = 3600.0
"""Seconds between two questions to GitHub for the API host of a direct account, however often it is refused."""
MINT_EVERY = 300.0
"""Seconds between two tokens minted for refusals that do not say that the token is at fault."""

QUOTA_WINDOWS = ("premium", "chat")
"""What is paid for, as opposed to the short-term limits ``session`` and ``weekly``; names as in ``quota``."""
ALL_WINDOWS = (*QUOTA_WINDOWS, "session", "weekly")
SHORTEST_SHARE = 0.02
"""Of a window's time: what is left is not compared to less, since the service counts late."""

_COOLDOWN_EXCLUSIONS: dict[str, Exclusion] = {
    Reason.NO_ACCESS: Exclusion.ACCESS,
    Reason.FORBIDDEN: Exclusion.ACCESS,
    Reason.CLIENT_REFUSED: Exclusion.CLIENT,
    Reason.CREDENTIAL: Exclusion.CREDENTIAL,
    Reason.NEEDS_LOGIN: Exclusion.CREDENTIAL,
    Reason.PREFIX: Exclusion.CREDENTIAL,
    Reason.WRONG_HOST: Exclusion.CREDENTIAL,
}
"""A rest for one of these does not "merely rest": its end may change nothing."""
_COOLDOWNS = (Exclusion.COOLDOWN, *_COOLDOWN_EXCLUSIONS.values())

_COOLDOWN_TEXTS: dict[str, str] = {
    Reason.LIMIT: "rests after a rate limit",
    Reason.SESSION_LIMIT: "rests after a session limit",
    Reason.WEEKLY_LIMIT: "rests after a weekly limit",
    Reason.MODEL_LIMIT: "rests after a limit for this model",
    Reason.AGENT_LIMIT: "rests after an agent mode limit",
    Reason.QUOTA: "has used up its quota",
    Reason.OVERLOADED: "rests because the model was overloaded",
    Reason.TRANSIENT: "rests after several faults of the service",
    Reason.NO_ACCESS: "has no access to Copilot",
    Reason.FORBIDDEN: "was forbidden this model, with a hint at the Terms of Service",
    Reason.CLIENT_REFUSED: "is not taken from this client program",
    Reason.UNKNOWN: "rests after a refusal of an unknown kind",
    Reason.CREDENTIAL: "had its credential refused",
    Reason.NEEDS_LOGIN: "had its credential refused",
    Reason.PREFIX: "had its credential refused",
    Reason.WRONG_HOST: "was sent to the wrong host",
}


type Asked = PoolRequest | Attempt
"""What is asked for: the model, by which client program, in Auto mode or not."""


@dataclass(slots=True)
class PoolAccount:
    """An account as the pool sees it: what was decided and what was learnt, side by side."""

    account: Account
    state: AccountState
    position: int
    """Its place in the user's order, from 0."""
    fingerprint: str
    home: bool
    serving: bool
    """Whether the terms let it serve."""
    has: tuple[str, ...] | None = None
    """Patterns of the models that it has, as the user wrote them (``Policy.preseed``)."""
    probes: dict[str, tuple[str, float]] = field(default_factory=dict)
    """What is being probed -> (request, when the lease ends)."""
    renewed_at: float = -math.inf
    """When its token was last minted again, or its host learnt again, because of a refusal."""

    @property
    def direct(self) -> bool:
        """Whether the stored token is itself the bearer."""
        return self.account.credential == "direct"

    @property
    def blocked(self) -> bool:
        """Whether GitHub stopped it, and the user has not turned it on again."""
        if self.account.stopped_at is not None:
            return True
        return self.state.blocked_at is not None and blocked(self.state, self.account.enabled_at)


def settled(
    member: PoolAccount, request: PoolRequest, fence: str, route: Route | None, *, balancing: bool
) -> Exclusion | None:
    """What the user's decisions, a block or a dead credential have against it."""
    account = member.account
    if request.host is not None and account.host != request.host:
        return Exclusion.HOST
    if request.only is not None:
        if request.only != account.id:
            return Exclusion.ONLY
        if request.fence is not None and account.fence != request.fence:
            return Exclusion.FENCE
    elif account.fence != fence:
        return Exclusion.FENCE
    elif request.bound and request.owner not in (None, account.id):
        return Exclusion.BOUND
    elif not balancing and not member.home:
        return Exclusion.HOME
    if balancing and not member.serving:
        return Exclusion.TERMS
    if not account.enabled:
        return Exclusion.DISABLED
    if member.blocked:
        return Exclusion.BLOCKED
    if member.state.rejected_at is not None and rejected(member.state):
        return Exclusion.LOGIN
    if (account.allow or account.block) and account.takes(request.model):
        return Exclusion.PATTERN
    if route is not None and route.accounts and account.label not in route.accounts:
        return Exclusion.ROUTE
    return None


def repairable(member: PoolAccount, outcome: Outcome, now: float) -> bool:
    """Whether what `outcome` refused may be the prefix, the token or the host, and that may be got anew now."""
    reason = outcome.reason
    if reason is Reason.NEEDS_LOGIN:  # of an exchanged token it is said of that alone
        return outcome.sent and not member.direct
    if outcome.action not in (Action.SAME, Action.SAME_ONCE) or outcome.retry_after is not None:
        return False  # where the server names a wait it is kept, and nothing is asked before
    if reason is Reason.PREFIX or (reason is Reason.CREDENTIAL and not member.direct):
        return True
    return now - member.renewed_at >= (LEARN_EVERY if member.direct else MINT_EVERY)


def cooling(state: AccountState, request: Asked, now: float) -> Cooldown | None:
    """The cooldown that keeps `request` from this account for longest, if any still runs."""
    longest = None
    for rest in state.cooldowns:
        if rest.until > (now if longest is None else longest.until) and _concerns(rest, state, request):
            longest = rest
    return longest


def _concerns(rest: Cooldown, state: AccountState, request: Asked) -> bool:
    model = request.model
    if request.auto and not rest.auto and rest.reason == Reason.WEEKLY_LIMIT:
        return False
    if (rest.model is not None and rest.model != model) or (rest.client is not None and rest.client != request.client):
        return False
    if state.ended_by_success and rest.began < state.ended_by_success.get(rest.key, 0.0):
        return False
    if rest.model is None and rest.reason == QUOTA_REASON and model is not None:
        known = state.models.get(model)
        return known is None or not known.included
    return True


def lacks(member: PoolAccount, model: str | None, now: float) -> float | None:
    """Until when the account is known not to have `model` (infinity: until it is learnt otherwise); None: it may."""
    if model is None:
        return None
    known = member.state.models.get(model)
    if known is not None and known.until > now:
        return None if known.has else known.until
    if known is None and member.has is not None and not matches(model, member.has):
        return float("inf")
    return None


def unproved(member: PoolAccount, request: Asked, now: float) -> list[str]:
    """What a probe would prove: long rests that have run out and that no attempt has ended yet."""
    state = member.state
    keys = [
        rest.key
        for rest in state.cooldowns
        if rest.until <= now and is_long(rest) and _concerns(rest, state, request)
    ]  # fmt: skip
    model = request.model
    known = state.models.get(model) if model is not None else None
    if known is not None and not known.has and known.until <= now and is_long(known):
        keys.append(f"has {model}")
    return list(dict.fromkeys(keys))


def doubted(member: PoolAccount, model: str | None, now: float, model_ttl: float) -> bool:
    """Whether it lacked `model` when it was last asked, not long ago: the others are asked first."""
    known = member.state.models.get(model) if model is not None else None
    return known is not None and not known.has and known.times > 0 and now < known.until + model_ttl


def asked_last(member: PoolAccount, model: str | None, now: float, model_ttl: float) -> bool:
    """Whether its own list, seen not long ago, does not name `model`, or names it as turned off."""
    state = member.state
    known = state.models.get(model) if model is not None else None
    if known is not None:  # a list's word holds back nothing, so its fact is over when it begins
        return not known.has and known.times > 0 and known.until == known.began and now < known.until + model_ttl
    return model is not None and state.listed_at is not None and now < state.listed_at + model_ttl


def probed(member: PoolAccount, keys: list[str], request_id: str, now: float) -> float | None:
    """Until when another request probes one of these; None: nobody does."""
    leases = [member.probes[key] for key in keys if key in member.probes]
    return max((until for owner, until in leases if owner != request_id and until > now), default=None)


def learnt(member: PoolAccount, request: PoolRequest, now: float) -> Exclusion | None:
    """What past answers have against it."""
    model = request.model
    if lacks(member, model, now) is not None:
        return Exclusion.MODEL
    if member.state.cooldowns and (rest := cooling(member.state, request, now)) is not None:
        return _COOLDOWN_EXCLUSIONS.get(rest.reason, Exclusion.COOLDOWN)
    if member.probes and probed(member, unproved(member, request, now), request.id, now) is not None:
        return Exclusion.PROBED
    return None


def why(member: PoolAccount, bar: Exclusion, request: PoolRequest, now: float) -> WhyNot:
    """What `bar`, which keeps it from serving `request` now, comes to: in words, and when it ends by itself."""
    text, free_at, cause, model = str(bar), None, "", request.model
    running = cooling(member.state, request, now) or cooling(member.state, replace(request, auto=False), now)
    if bar in _COOLDOWNS and (rest := running) is not None:
        text, free_at, cause = _COOLDOWN_TEXTS.get(rest.reason, "rests"), rest.until, rest.reason
    elif bar is Exclusion.BLOCKED:
        said = member.account.stopped_why or member.state.blocked_why
        told = f" ({said})" if said else ""
        text = f"was blocked by GitHub{told}; it stays off until you enable it"
    elif bar is Exclusion.PATTERN:
        text = f"does not take the model: it is {member.account.takes(model)}"
    elif bar is Exclusion.MODEL and (gone := lacks(member, model, now)) is not None:
        again = "" if gone == float("inf") else f" (asked again in {duration(gone - now)})"
        text = f"does not have the model {model}{again}"
    elif bar is Exclusion.PROBED:
        free_at = probed(member, unproved(member, request, now), request.id, now)
    return WhyNot(member.account.id, member.account.label, text, free_at, bar, cause)


def _runs(window: QuotaWindow, now: float) -> bool:
    return not window.unlimited and (window.resets_at is None or window.resets_at > now)


def left(state: AccountState, now: float, windows: tuple[str, ...] = QUOTA_WINDOWS) -> tuple[float, float | None]:
    """Percent left of the tightest of these quota windows, and when that one resets; 100 when nothing is known."""
    running = [state.quota[name] for name in windows if name in state.quota and _runs(state.quota[name], now)]
    if not running:
        return 100.0, None
    tightest = min(running, key=lambda window: (window.percent_left, -(window.resets_at or 0.0)))
    return tightest.percent_left, tightest.resets_at


def pace(state: AccountState, now: float) -> float | None:
    """How the tightest window stands to its time: share left / share of time left; None when nothing is known.

    Where the service does not tell about the session window, our own count stands in for it.

    1: used evenly it lasts until its reset. Above: something would be left over then. Below: it would not last.
    """
    if not state.quota and (state.count is None or not state.count.capacity):
        return None
    found = []
    for name in ALL_WINDOWS:
        window = state.quota.get(name)
        if window is not None and _runs(window, now):
            found.append(window.percent_left / 100.0 / _time_left(name, window.resets_at, now))
        elif name == "session" and state.count is not None and state.count.capacity:
            count = counted(state.count, now)
            if count.resets_at is not None and count.capacity is not None:
                share = max(0.0, 1.0 - count.served / count.capacity)
                found.append(share / _time_left(name, count.resets_at, now))
    return min(found, default=None)


def _time_left(window: str, resets_at: float | None, now: float) -> float:
    """Share of a window's time until its reset; all of it when nobody knows."""
    if resets_at is None:
        return 1.0
    return min(max((resets_at - now) / WINDOW_LENGTHS[window], SHORTEST_SHARE), 1.0)


def at_reserve(member: PoolAccount, now: float) -> bool:
    """Whether what is left of its quota is kept for when no other account can serve."""
    reserve = member.account.reserve
    return reserve > 0 and left(member.state, now)[0] <= reserve


def scarce(members: Iterable[PoolAccount]) -> dict[str, dict[str, float]]:
    """Account id -> model in use that it has -> how scarce that is among the accounts of its fence.

    1: it alone has the model; 0, and left out: all have it. Between: ``(accounts / those who have it - 1) / (accounts -
    1)``. In use: some account was asked for it. This is a preference only, so facts that ran out still count, and who
    was never asked may have it.
    """
    fences: dict[str, list[PoolAccount]] = {}
    for member in members:
        if member.serving and member.account.enabled:
            fences.setdefault(member.account.fence, []).append(member)
    found: dict[str, dict[str, float]] = {}
    for inside in fences.values():
        in_use = {model for member in inside for model, fact in member.state.models.items() if fact.times > 0}
        for model in sorted(in_use) if len(inside) > 1 else ():
            owners = [member for member in inside if not _seems_without(member, model)]
            if 0 < len(owners) < len(inside):
                scarcity = (len(inside) / len(owners) - 1) / (len(inside) - 1)
                for owner in owners:
                    if (fact := owner.state.models.get(model)) is not None and fact.has:
                        found.setdefault(owner.account.id, {})[model] = scarcity
    return found


def _seems_without(member: PoolAccount, model: str) -> bool:
    if member.account.takes(model):
        return True
    known = member.state.models.get(model)
    if known is not None:
        return not known.has
    return member.state.listed_at is not None or (member.has is not None and not matches(model, member.has))
