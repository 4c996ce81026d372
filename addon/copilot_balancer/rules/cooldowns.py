"""Begins, extends and ends cooldowns, and records which models an account has, from the outcomes of attempts.

Laws of this file:

1. A wait that the server named is kept whole; our ladder and our fixed times only where it said nothing. Only the user
   ends it earlier, or quota that GitHub shows as back.
2. Only an attempt that began after a cooldown began may raise or end it (as a congestion window in TCP: twenty refusals
   at once are one event, and a late success of an old request proves nothing).
3. A shorter rest never replaces a longer one: the latest deadline holds.
4. The changes of an attempt can be undone as long as nothing newer was learnt; a time that the server named stays.

Theory of operation. A refusal says three things: for how long (``Outcome.retry_after``, else ``Outcome.rest``), who is
concerned (``Outcome.scope``: the account, one model of it, one client program), and when its attempt began. `learn`
turns it into a `Cooldown` from now until then, or into a `ModelFact` that says that the model is not there. Nothing is
ever counted down: who reads compares ``until`` with now. A cooldown ends by time, by the user (`clear`), or by a
success of an attempt that began after it did; of such a success only the time is kept, by key
(``AccountState.ended_by_success``), so that a copy of the cooldown that another proxy writes later is over as well.
Refusals of attempts that were under way together count once, as a congestion window does in TCP.

The ladder: 60 s, 2, 4, 8, 15 min. It goes down one step for each 15 min since it was last raised; nothing else lowers
it but the user. A hint leaves it alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from copilot_balancer.copilot.quota import WINDOW_LENGTHS
from copilot_balancer.rules.state import (
    CLIENT_KEY,
    LONG_COOLDOWN,
    LONGEST_COOLDOWN,
    LONGEST_DATE,
    LONGEST_WAIT,
    MAX_FAULTS,
    NEAR_ZERO,
    PAID,
    SHORTEST_SESSION_WAIT,
    AccountState,
    Cooldown,
    Count,
    ModelFact,
    live,
    newest_models,
    undominated,
)
from copilot_balancer.rules.types import Attempt, CooldownKind, Outcome, Reason, Scope

SESSION = WINDOW_LENGTHS["session"]
LADDER_BASE = 60.0
LADDER_TOP = 15 * 60.0
LADDER_STEPS = 5
"""60 s doubled four times is 16 min: the top."""
LADDER_DECAY = 15 * 60.0
"""Seconds for one step down; at the top it is the rest itself, so a lasting limit keeps resting 15 min."""
SHORTEST_COOLDOWN = 1.0
"""Whatever the server says (``Retry-After: 0``)."""
SHORT_FAULT_COOLDOWN = 60.0
"""The longest rest for what is nobody's fault, where the server named no wait."""
DISTRUST_COOLDOWN = 60.0
"""After a refusal that nobody understands and that another account has disproved."""
FAULT_WINDOW = 120.0
FAULT_COUNT = 3
FAULT_COOLDOWN = 30.0
"""Three transient faults in two minutes rest the account for half a minute."""
QUOTA_COOLDOWN = 3600.0
"""After a 402 when nobody knows the reset; budgets are raised at any time (docs/copilot-protocol.md#billing). Doubled
while it proves too short, up to `QUOTA_RECHECK`."""
QUOTA_RECHECK = 6 * 3600.0
INTEGRATOR_COOLDOWN = 3600.0
"""A model that the credential's app may not use: an hour, or until its list names the model."""
MODEL_COOLDOWN = 30.0
"""``model_not_supported`` can be transient: the catalogue settles within seconds
(docs/copilot-protocol.md#missing-models)."""
MODEL_COOLDOWN_REPEATED = 15 * 60.0
"""Doubled each time after that, up to `LONGEST_MODEL_REST`."""
LONGEST_MODEL_COOLDOWN = 6 * 3600.0

_REPAIRABLE = frozenset({Reason.CREDENTIAL, Reason.PREFIX, Reason.WRONG_HOST})


@dataclass(frozen=True, slots=True)
class Mark:
    """What an attempt changed in an account's state, so that it can be taken back."""

    account_id: str
    cooldown: Cooldown | None = None
    fault: float | None = None
    model: str | None = None
    """The model whose fact was changed ..."""
    before: ModelFact | None = None
    after: ModelFact | None = None


def backoff_step(state: AccountState, key: str, now: float) -> int:
    """The step of the ladder on which an account (``""``) or a model of it stands; 0 is the ground."""
    steps, raised = state.backoff.get(key, (0, 0.0))
    return max(0, steps - int(max(0.0, now - raised) // LADDER_DECAY))


def health(state: AccountState, model: str | None, now: float) -> float:
    """Between 0 and 1: ``1 / (1 + steps on the ladder + transient faults of the last two minutes / 3)``."""
    steps = backoff_step(state, "", now) + (backoff_step(state, model, now) if model else 0)
    return 1.0 / (1.0 + steps + len(_recent(state, now)) / FAULT_COUNT)


def rejected(state: AccountState) -> bool:
    """Whether the credential was refused and neither a success nor the user came after."""
    return state.rejected_at is not None and state.rejected_at >= state.ended_by_success.get("", 0.0)


def blocked(state: AccountState, enabled_at: float) -> bool:
    """Whether an abuse block was seen since the user last turned the account on (``Account.enabled_at``)."""
    return state.blocked_at is not None and state.blocked_under == enabled_at


def learn(
    state: AccountState,
    attempt: Attempt,
    outcome: Outcome,
    now: float,
    *,
    direct: bool,
    model_ttl: float,
    enabled_at: float = 0.0,
    renews: bool = False,
) -> Mark | None:
    """Note what came of `attempt` at `now`; what can be taken back is returned.

    Args:
        state: of the account; changed in place.
        attempt: what was sent, or could not be.
        outcome: what came of it.
        now: seconds on the steady clock.
        direct: the account's GitHub token is itself the bearer, so its refusal is the token's.
        model_ttl: seconds for which the account is known to have a model that it served.
        enabled_at: the account's.
        renews: token or host may be what was wrong and is got anew first, so the refusal is not held against anybody.

    """
    if outcome.reason is Reason.SERVED:
        _served(state, attempt, now, model_ttl)
        return None
    state.refused += 1
    if outcome.reason is Reason.SESSION_LIMIT and outcome.retry_after is not None:
        _measure(state, attempt, now, outcome.retry_after)
    kind = outcome.rest.kind
    if renews:
        return None
    if kind is CooldownKind.UNTIL_USER:
        state.blocked_at, state.blocked_why, state.blocked_under = now, outcome.text or outcome.code, enabled_at
        return None
    if kind is CooldownKind.UNTIL_LOGIN and (direct or not outcome.sent):
        if attempt.began >= state.ended_by_success.get("", 0.0):
            state.rejected_at = now
        return None
    if outcome.reason is Reason.MODEL_MISSING:
        listed(state, (model for model in outcome.models if model != attempt.model), now, model_ttl)
        return _model_missing(state, attempt, outcome, now)
    if outcome.reason is Reason.TRANSIENT and outcome.scope is Scope.NOBODY:
        return _fault(state, attempt, outcome, now)
    if outcome.reason is Reason.FORBIDDEN:
        return _forbidden(state, attempt, outcome, now, enabled_at)
    if outcome.reason in _REPAIRABLE:
        return _rest(state, attempt, outcome, None, now)
    if kind is CooldownKind.NONE or (kind is CooldownKind.SERVER and outcome.retry_after is None):
        return None
    if outcome.scope in (Scope.ACCOUNT_MODEL, Scope.CREDENTIAL_MODEL, Scope.NOBODY):
        return _rest(state, attempt, outcome, attempt.model, now)
    if outcome.reason is Reason.QUOTA and (fact := state.models.get(attempt.model or "")):
        state.models[attempt.model or ""] = replace(fact, included=False)
    return _rest(state, attempt, outcome, None, now)


def _forbidden(state: AccountState, attempt: Attempt, outcome: Outcome, now: float, enabled_at: float) -> Mark | None:
    """Refused again on the right host with a fresh credential: this model rests.

    The second model that is refused so, with nothing served in between, means that the account itself was stopped.
    """
    served = state.ended_by_success.get("", 0.0)
    models = {rest.model for rest in live(state) if rest.reason == Reason.FORBIDDEN and rest.began >= served}
    if outcome.retry_after is None and attempt.model is not None and models - {attempt.model, None}:
        state.blocked_at, state.blocked_why, state.blocked_under = now, outcome.text, enabled_at
        return None
    return _rest(state, attempt, outcome, attempt.model, now)


def take_back(state: AccountState, mark: Mark, now: float) -> None:
    """Undo one mark, unless something newer was learnt since."""
    if mark.cooldown is not None and mark.cooldown in state.cooldowns:
        state.cooldowns.remove(mark.cooldown)
        key = mark.cooldown.key
        if mark.cooldown.began < now and not any(rest.key == key for rest in live(state)):
            # another program's copy of it, merged in later, is over as well
            state.ended_by_success[key] = max(
                state.ended_by_success.get(key, 0.0), math.nextafter(mark.cooldown.began, math.inf)
            )
    if mark.fault is not None and mark.fault in state.faults:
        state.faults.remove(mark.fault)
    if mark.model is not None and state.models.get(mark.model) == mark.after:
        known = mark.before is not None and mark.before.has
        state.models[mark.model] = (
            replace(mark.before, began=now) if mark.before and known else ModelFact(False, now, now, times=0)
        )


def listed(
    state: AccountState, models: Iterable[str], now: float, model_ttl: float, included: frozenset[str] = frozenset()
) -> None:
    """Its own list names these models: it has them, whatever was learnt before."""
    for model in models:
        known = state.models.get(model)
        times = known.times if known and known.has else 0
        state.models[model] = ModelFact(True, now + model_ttl, now, times, model in included)
    state.models = newest_models(state.models)


def turned_off(state: AccountState, models: Iterable[str], now: float) -> None:
    """Its own list names these models as disabled: whoever may have them is asked before it."""
    for model in models:
        state.models[model] = ModelFact(False, now, now)
    state.models = newest_models(state.models)


def clear(state: AccountState, model: str, at: float) -> None:
    """End by hand, as of `at`, what keeps `model` (``""``: everything) from the account.

    Attempts that began before do not bring it back, nor does another program's copy of this memory.
    """
    ended = [rest for rest in state.cooldowns if rest.began < at and model in ("", rest.model)]
    state.cooldowns = [rest for rest in state.cooldowns if rest not in ended]
    for key in [rest.key for rest in ended] + ([] if model else [""]):
        state.ended_by_success[key] = max(state.ended_by_success.get(key, 0.0), at)
    for key, (_, raised) in list(state.backoff.items()):
        if raised < at and (key == model or not model):
            state.backoff[key] = (0, at)
    for name, fact in list(state.models.items()):
        if not fact.has and fact.began < at and model in ("", name):
            state.models[name] = ModelFact(False, at, at, times=0)
    if not model:
        state.faults = [fault for fault in state.faults if fault >= at]


def forget_clients(state: AccountState) -> None:
    """The credential is another one: what some client programs were refused with the old one is over."""
    for rest in [rest for rest in state.cooldowns if rest.client is not None]:
        state.cooldowns.remove(rest)
        state.ended_by_success[rest.key] = max(
            state.ended_by_success.get(rest.key, 0.0), math.nextafter(rest.began, math.inf)
        )


def is_long(rest: Cooldown | ModelFact) -> bool:
    """Whether one attempt goes first after it, and the others wait for its answer."""
    return rest.until - rest.began >= LONG_COOLDOWN


def prune(state: AccountState, now: float) -> None:
    """Forget the cooldowns that are over; one that was long and has run out stays until an attempt has proved it."""
    if state.cooldowns:
        state.cooldowns = [rest for rest in live(state) if rest.until > now or is_long(rest)]


def _served(state: AccountState, attempt: Attempt, now: float, model_ttl: float) -> None:
    state.served += 1
    count = counted(state.count or Count(attempt.began), attempt.began)
    state.count = replace(count, served=count.served + 1)
    known = state.models.get(attempt.model) if attempt.model else None
    keys = ["", attempt.model or "", f"{CLIENT_KEY}{attempt.client}"]
    if attempt.auto and any(rest.reason == Reason.WEEKLY_LIMIT and not rest.auto for rest in live(state)):
        keys.remove("")  # what Auto mode may do says nothing about the weekly limit of the rest
    if not (known and known.has and known.included):
        keys.append(PAID)
    for key in keys:
        if key.startswith(CLIENT_KEY) and not any(rest.key == key for rest in state.cooldowns):
            continue  # what clients are called is their choice: only what ends something is kept
        if attempt.began > state.ended_by_success.get(key, 0.0):
            state.ended_by_success[key] = attempt.began
    if attempt.model and (known is None or known.has or attempt.began > known.began):
        times, included = (known.times, known.included) if known and known.has else (0, False)
        state.models[attempt.model] = ModelFact(True, now + model_ttl, attempt.began, times + 1, included)
        if known is None:
            state.models = newest_models(state.models)
    prune(state, now)


def counted(count: Count, now: float) -> Count:
    """The count of the window that runs at `now`: windows are taken to follow one another."""
    if count.resets_at is None:
        return count
    if now < count.resets_at - SESSION:
        return Count(now, capacity=count.capacity)  # a clock has jumped: nobody knows when it resets
    if now < count.resets_at:
        return count
    began = count.resets_at + (now - count.resets_at) // SESSION * SESSION
    return replace(count, since=began, served=0, resets_at=began + SESSION)


def _measure(state: AccountState, attempt: Attempt, now: float, wait: float) -> None:
    """A session limit: what the window served, and when it resets. A burst limit has the same code, but is short."""
    if not SHORTEST_SESSION_WAIT <= wait <= SESSION:
        return
    count, resets_at = counted(state.count or Count(attempt.began), attempt.began), now + wait
    counted_for = resets_at - max(count.since, resets_at - SESSION)
    capacity = max(count.served, 1) * SESSION / counted_for
    if count.capacity is not None:
        capacity = (capacity + count.capacity) / 2.0
    state.count = replace(count, resets_at=resets_at, capacity=capacity)


def distrust(state: AccountState, attempt: Attempt, now: float) -> None:
    """Another account has served what this one refused for a reason that nobody knows: its model rests a moment."""
    if attempt.model is not None and attempt.began >= state.ended_by_success.get(attempt.model, 0.0):
        new = Cooldown(now, now + DISTRUST_COOLDOWN, str(Reason.UNKNOWN), attempt.model)
        state.cooldowns = undominated([*state.cooldowns, new])


def _rest(state: AccountState, attempt: Attempt, outcome: Outcome, model: str | None, now: float) -> Mark | None:
    """Begin a rest of the account, of one model of it, or for one client program.

    None when this answer tells nothing new, or when the server named the time: that is never taken back.
    """
    client = attempt.client if outcome.scope is Scope.CREDENTIAL_CLIENT else None
    seconds, source = _told(state, outcome, now)
    if seconds is None:
        key = model or ""
        steps, raised = state.backoff.get(key, (0, -math.inf))
        if attempt.began <= raised:
            return None
        steps = min(backoff_step(state, key, now) + 1, LADDER_STEPS)
        state.backoff[key] = (steps, now)
        seconds = min(LADDER_BASE * 2 ** (steps - 1), LADDER_TOP)
    elif source == "ladder" and any(
        (rest.model, rest.client, rest.reason) == (model, client, outcome.reason) and rest.began >= attempt.began
        for rest in live(state)
    ):
        return None
    longest = outcome.rest.recheck or (QUOTA_RECHECK if outcome.reason is Reason.QUOTA else LONGEST_COOLDOWN)
    if outcome.scope is Scope.NOBODY and source != "server":
        longest = SHORT_FAULT_COOLDOWN
    told = now + min(max(seconds, SHORTEST_COOLDOWN), LONGEST_WAIT if source == "server" else LONGEST_DATE)
    until = told if source == "server" else min(told, now + longest)
    auto = attempt.auto and outcome.reason is Reason.WEEKLY_LIMIT
    new = Cooldown(now, until, str(outcome.reason), model, source, told if told > until else None, auto, client)
    prune(state, now)
    state.cooldowns = undominated([*state.cooldowns, new])
    return None if source == "server" else Mark(attempt.account_id, cooldown=new)


def _told(state: AccountState, outcome: Outcome, now: float) -> tuple[float | None, str]:
    """Seconds to rest and who named them; None: the ladder does."""
    if outcome.retry_after is not None:
        return outcome.retry_after, "server"
    rest = outcome.rest
    if rest.kind is CooldownKind.RESET:
        window = state.quota.get(rest.window or "")
        spent = window is not None and (outcome.reason is not Reason.SESSION_LIMIT or window.percent_left <= NEAR_ZERO)
        if window and spent and not window.unlimited and window.resets_at is not None and window.resets_at > now:
            return window.resets_at - now, "reset"
        if outcome.reason is Reason.QUOTA:
            return _without_a_date(state, rest.seconds or QUOTA_COOLDOWN, now), "ladder"
    return rest.seconds, "ladder"


def _without_a_date(state: AccountState, first: float, now: float) -> float:
    """Nobody knows when the quota is filled up: after each rest that was too short comes one twice as long."""
    proved = [rest for rest in live(state) if rest.reason == Reason.QUOTA and rest.source == "ladder"]
    before = max((rest.until - rest.began for rest in proved if rest.until <= now), default=0.0)
    return min(max(first, 2.0 * before), QUOTA_RECHECK)


def _fault(state: AccountState, attempt: Attempt, outcome: Outcome, now: float) -> Mark:
    """A transient fault is nobody's until it is the account's third in two minutes, or the server asked for time."""
    state.faults = [*_recent(state, now), now][-MAX_FAULTS:]
    mark = Mark(attempt.account_id, fault=now)
    if outcome.retry_after is not None:
        _rest(state, attempt, outcome, attempt.model, now)
        return mark
    if len(state.faults) < FAULT_COUNT or any(
        rest.model is None and rest.reason == Reason.TRANSIENT and rest.began >= attempt.began for rest in live(state)
    ):
        return mark
    new = Cooldown(now, now + FAULT_COOLDOWN, str(Reason.TRANSIENT))
    state.cooldowns = undominated([*state.cooldowns, new])
    return replace(mark, cooldown=new)


def _recent(state: AccountState, now: float) -> list[float]:
    return [fault for fault in state.faults if now - fault < FAULT_WINDOW]


def _model_missing(state: AccountState, attempt: Attempt, outcome: Outcome, now: float) -> Mark | None:
    model = attempt.model
    if model is None:
        return None
    known = state.models.get(model)
    if known and (attempt.began < known.began or (not known.has and attempt.began == known.began)):
        return None
    times = known.times + 1 if known and not known.has else 1
    rest = outcome.rest
    first = rest.seconds or (INTEGRATOR_COOLDOWN if outcome.scope is Scope.CREDENTIAL_MODEL else MODEL_COOLDOWN)
    again = min(
        (rest.repeated or max(first, MODEL_COOLDOWN_REPEATED)) * 2.0 ** min(times - 2, 9), LONGEST_MODEL_COOLDOWN
    )
    seconds = outcome.retry_after if outcome.retry_after is not None else again if times > 1 else first
    fact = ModelFact(False, now + min(max(seconds, SHORTEST_COOLDOWN), LONGEST_WAIT), now, times)
    state.models = newest_models({**state.models, model: fact})
    asked = outcome.retry_after is not None
    return None if asked else Mark(attempt.account_id, model=model, before=known, after=fact)
