"""The schema of state.json: the facts that the proxy learnt about accounts, and the merge of several writers' copies.

Laws of this file:

1. No secret stands here; losing all of it loses memory only. State is keyed by account id.
2. Every time is a float of seconds since the epoch. In memory it is read on the *steady* clock (the epoch time at start
   plus monotonic time since, so that it never jumps); on disk on the wall clock. ``shifted`` and ``restored`` turn one
   into the other.
3. A limited account is computed from these facts and ``now``; there is no flag.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.copilot.retry_after import LONGEST

MAX_CONVERSATIONS = 10_000
"""How many conversations are remembered; the least recently used are forgotten first."""
MAX_MODELS = 256
"""How many models are remembered for one account: their names come from requests."""
MAX_COOLDOWNS = 64
"""How many cooldowns are remembered for one account."""
MAX_SIGHTINGS = 64
"""How many unknown credentials are remembered: anybody on this machine can show us new ones."""
MAX_FAULTS = 8
EARLIEST = 1.0
"""Seconds since the epoch: what happened before that counts as then."""
LONGEST_COOLDOWN = 24 * 3600.0
"""The longest cooldown that no server named."""
LONGEST_WAIT = LONGEST
"""The longest cooldown that a server named: its word is kept whole, but for what is absurd."""
LONGEST_DATE = 35 * 24 * 3600.0
"""A date further away than a month and some days is no quota reset."""
PAID = "$paid"
"""The key of ``ended_by_success`` for a quota cooldown: a success with a model that costs nothing does not end it."""
CLIENT_KEY = "$client "
"""The beginning of the key for a cooldown that holds for one client program."""
MAX_CLIENT_COOLDOWNS = 8
"""How many cooldowns that hold for one client program are remembered: what it is called is the client's choice."""
QUOTA_REASON = "quota"
"""``types.Reason.QUOTA``: such a cooldown of a whole account leaves the models that cost nothing alone."""
WINDOW_REASONS = {"premium": QUOTA_REASON, "session": "session limit", "weekly": "weekly limit"}
"""Quota window -> ``types.Reason`` of the cooldowns that end when GitHub shows that it has something left again."""
NEAR_ZERO = 5.0
"""Percent: a window with more left is not what was refused (a burst limit of seconds has a session limit's code)."""
SHORTEST_SESSION_WAIT = 60.0
"""A session limit that ends sooner may be a burst limit, which has the same code: it says nothing about the window."""
LONG_COOLDOWN = 15 * 60.0
"""After a rest of this length one attempt probes the account before the others follow."""


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A time in which an account, or a model on it, is not asked.

    Only an attempt that began after ``began`` may raise or end it.
    """

    began: float
    until: float
    reason: str
    """A value of ``types.Reason``."""
    model: str | None = None
    """None: the whole account rests; else only for this model."""
    source: str = "ladder"
    """Who named the time: ``server`` (a hint), ``reset`` (a quota's reset) or ``ladder`` (our default)."""
    told_until: float | None = None
    """The server's own deadline, when it lies beyond our cap: shown, and re-checked earlier."""
    auto: bool = False
    """A request of Auto mode was refused: it keeps such requests away as well, which a weekly limit else does not."""
    client: str | None = None
    """None: whoever asks; else only for clients with this identity (``PoolRequest.client``)."""

    @property
    def key(self) -> str:
        """Where ``AccountState.ended_by_success`` says when a success last ended such a cooldown."""
        if self.client is not None:
            return f"{CLIENT_KEY}{self.client}"
        return self.model or (PAID if self.reason == QUOTA_REASON else "")


@dataclass(frozen=True, slots=True)
class ModelFact:
    """Whether a credential has a model, as learnt."""

    has: bool
    until: float
    """The fact is forgotten then."""
    began: float = 0.0
    """When it was learnt."""
    times: int = 1
    """A refusal: how often in a row (0: it was taken back). Else how often it was served (0: only listed)."""
    included: bool = False
    """The account's own list says that it costs nothing, so a used-up quota does not stop it."""


@dataclass(frozen=True, slots=True)
class Count:
    """Our own count of an account's session window, for when the service does not tell what is left."""

    since: float
    """The window began then, or we began to count."""
    served: int = 0
    resets_at: float | None = None
    """As its last session limit said; None: it had none yet."""
    capacity: float | None = None
    """How much a whole window served before it refused."""


@dataclass(slots=True)
class AccountState:
    """What the proxy learnt about one account, since when, and for how long it holds."""

    credential: str = ""
    """Fingerprint of the credential that ``rejected_at`` and ``models`` are about."""
    rejected_at: float | None = None
    """The credential was refused then: NEEDS_LOGIN until the token changes or the user clears it."""
    blocked_at: float | None = None
    """An abuse block was seen then: off until the user enables the account again."""
    blocked_why: str = ""
    blocked_under: float = 0.0
    """The account's ``enabled_at`` of that moment: it is blocked as long as that is the same, whatever clocks do."""
    cooldowns: list[Cooldown] = field(default_factory=list)
    ended_by_success: Annotated[dict[str, float], Field(alias="healed")] = field(default_factory=dict)
    """``Cooldown.key`` -> began of the newest success: cooldowns that began before are over."""
    backoff: Annotated[dict[str, tuple[int, float]], Field(alias="strikes")] = field(default_factory=dict)
    """Model (``""`` = account) -> (step of the backoff ladder, when it was last raised)."""
    faults: list[float] = field(default_factory=list)
    """When the last transient faults happened (three in two minutes begin a cooldown)."""
    models: dict[str, ModelFact] = field(default_factory=dict)
    listed_at: float | None = None
    """When the account's own list of models was last seen."""
    quota: dict[str, QuotaWindow] = field(default_factory=dict)
    count: Count | None = None
    last_used: float = 0.0
    turn: float = 0.0
    """Round-robin: how far this account has come, in new conversations divided by its weight."""
    served: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Affinity:
    """Which account a conversation stays with."""

    account_id: str
    used_at: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A credential that a client used through the proxy and that no account has."""

    host: str
    """The login host that it belongs to."""
    first_seen: float


@dataclass(slots=True)
class Memory:
    """state.json: what the proxy learnt about all accounts, and where each conversation stays."""

    accounts: dict[str, AccountState] = field(default_factory=dict)
    conversations: dict[str, Affinity] = field(default_factory=dict)
    """Hash of a conversation's id -> its account; oldest first, bounded."""
    sightings: dict[str, Sighting] = field(default_factory=dict)
    """Fingerprint of an unknown credential -> where and when it was noticed; oldest first, bounded."""


def live(state: AccountState) -> list[Cooldown]:
    """The cooldowns that no success has ended; some may have run out."""
    return [rest for rest in state.cooldowns if rest.began >= state.ended_by_success.get(rest.key, 0.0)]


def undominated(cooldowns: Iterable[Cooldown]) -> list[Cooldown]:
    """Each cooldown that no other of its model, reason and mode outlasts while it began no earlier; in a fixed order.

    So a shorter rest never replaces a longer one, and a success can still end each by when it began.
    """
    kept: dict[tuple[str, str, bool, str | None], list[Cooldown]] = {}
    latest_first = sorted(cooldowns, key=lambda c: (c.until, c.began, c.told_until or 0.0, c.source), reverse=True)
    for rest in latest_first:
        longer = kept.setdefault((rest.model or "", rest.reason, rest.auto, rest.client), [])
        if all(other.began < rest.began for other in longer):
            longer.append(rest)
    found = sorted((rest for group in kept.values() for rest in group), key=lambda c: c.until, reverse=True)
    of_clients = [rest for rest in found if rest.client is not None][:MAX_CLIENT_COOLDOWNS]
    of_all = [rest for rest in found if rest.client is None][:MAX_COOLDOWNS]
    return sorted([*of_all, *of_clients], key=lambda c: (c.model or "", c.reason, c.client or "", c.began, c.until))


def refilled(state: AccountState, name: str, before: QuotaWindow | None, window: QuotaWindow) -> None:
    """End the cooldowns of a quota window that GitHub shows as back: more is left than `before`, seen after they began.

    A session limit of seconds is no matter of its window: it has the same code, and runs out by itself.
    """
    back = window.unlimited or window.percent_left > NEAR_ZERO
    rose = before is None or window.unlimited or window.percent_left > before.percent_left
    if name not in WINDOW_REASONS or not (back and rose):
        return
    shortest = SHORTEST_SESSION_WAIT if name == "session" else 0.0
    for rest in [rest for rest in live(state) if rest.reason == WINDOW_REASONS[name]]:
        if rest.began < window.seen_at and rest.until - rest.began >= shortest:
            _end(state, rest)


def _end(state: AccountState, rest: Cooldown) -> None:
    """One cooldown is over; where no other shares its key, another program's copy of it, merged in later, is too."""
    state.cooldowns.remove(rest)
    if not any(other.key == rest.key and other.began <= rest.began for other in live(state)):
        state.ended_by_success[rest.key] = max(
            state.ended_by_success.get(rest.key, 0.0), math.nextafter(rest.began, math.inf)
        )


def newest_conversations(conversations: dict[str, Affinity]) -> dict[str, Affinity]:
    """The `MAX_CONVERSATIONS` that were used last, oldest first."""
    ordered = sorted(conversations.items(), key=lambda item: (item[1].used_at, item[0]))
    return dict(ordered[-MAX_CONVERSATIONS:])


def newest_sightings(sightings: dict[str, Sighting]) -> dict[str, Sighting]:
    """The `MAX_SIGHTINGS` that were noticed last, oldest first."""
    ordered = sorted(sightings.items(), key=lambda item: (item[1].first_seen, item[0]))
    return dict(ordered[-MAX_SIGHTINGS:])


def merge(disk: Memory, mine: Memory) -> Memory:
    """Both memories as one; neither is changed.

    Merging twice changes nothing more, and it does not matter which of the two comes first: longest deadlines, newest
    facts and highest counters win. Only conversations and sightings beyond their bounds are lost.
    """
    accounts = {
        key: _merged(disk.accounts.get(key), mine.accounts.get(key))
        for key in sorted(disk.accounts.keys() | mine.accounts.keys())
    }
    conversations = dict(disk.conversations)
    for key, affinity in mine.conversations.items():
        known = conversations.get(key)
        if known is None or (known.used_at, known.account_id) < (affinity.used_at, affinity.account_id):
            conversations[key] = affinity
    sightings = dict(disk.sightings)
    for key, sighting in mine.sightings.items():
        earlier = (sightings.get(key, sighting), sighting)
        sightings[key] = min(earlier, key=lambda seen: (seen.first_seen, seen.host))
    return Memory(accounts, newest_conversations(conversations), newest_sightings(sightings))


def _merged(one: AccountState | None, two: AccountState | None) -> AccountState:
    known = one or two or AccountState()
    one = one or AccountState(credential=known.credential)
    two = two or AccountState(credential=known.credential)
    if one.credential != two.credential:
        # the facts about a credential belong together: those of the one about which something was learnt last
        older, newer = sorted((one, two), key=lambda state: (_credential_seen(state), state.credential))
        older = replace(older, credential=newer.credential, rejected_at=None, models={}, listed_at=None)
        one, two = older, newer
    one, two = _seen_by(one, two), _seen_by(two, one)
    ended = _highest(one.ended_by_success, two.ended_by_success)
    blocked = max(one, two, key=lambda state: (state.blocked_at or 0.0, state.blocked_why, state.blocked_under))
    state = AccountState(
        credential=one.credential,
        rejected_at=_latest(one.rejected_at, two.rejected_at),
        blocked_at=blocked.blocked_at,
        blocked_why=blocked.blocked_why,
        blocked_under=blocked.blocked_under,
        ended_by_success=ended,
        backoff=_newest(one.backoff, two.backoff, lambda step: (step[1], step[0])),
        faults=sorted((Counter(one.faults) | Counter(two.faults)).elements())[-MAX_FAULTS:],
        models=newest_models(_newest(one.models, two.models, _age)),
        listed_at=_latest(one.listed_at, two.listed_at),
        quota=_newest(one.quota, two.quota, lambda window: (window.seen_at, -window.percent_left, repr(window))),
        count=max(one.count, two.count, key=_newest_count),
        last_used=max(one.last_used, two.last_used),
        turn=max(one.turn, two.turn),
        served=max(one.served, two.served),
        refused=max(one.refused, two.refused),
    )
    state.cooldowns = [*one.cooldowns, *two.cooldowns]
    state.cooldowns = undominated(live(state))
    return state


def _seen_by(state: AccountState, other: AccountState) -> AccountState:
    """`state` without the cooldowns that newer quota windows of `other` end."""
    newer = {
        name: window
        for name, window in other.quota.items()
        if name not in state.quota or state.quota[name].seen_at < window.seen_at
    }
    if not (newer and state.cooldowns):
        return state
    state = copied(state)
    for name, window in newer.items():
        refilled(state, name, state.quota.get(name), window)
    return state


def _age(fact: ModelFact) -> tuple[float, float, bool, int, bool]:
    return (fact.began, fact.until, fact.has, fact.times, fact.included)


def _newest_count(count: Count | None) -> tuple[float, float, int, float]:
    if count is None:
        return (-1.0, 0.0, 0, 0.0)
    return (count.resets_at or 0.0, count.since, count.served, count.capacity or 0.0)


def newest_models(models: dict[str, ModelFact]) -> dict[str, ModelFact]:
    """The `MAX_MODELS` facts that were learnt last, by name."""
    kept = sorted(models.items(), key=lambda item: (item[1].began, item[0]))[-MAX_MODELS:]
    return dict(sorted(kept))


def _credential_seen(state: AccountState) -> float:
    return max([state.rejected_at or 0.0, state.listed_at or 0.0, *(fact.began for fact in state.models.values())])


def _latest(one: float | None, two: float | None) -> float | None:
    return max((time for time in (one, two) if time is not None), default=None)


def _highest(one: dict[str, float], two: dict[str, float]) -> dict[str, float]:
    return {key: max(one.get(key, 0.0), two.get(key, 0.0)) for key in sorted(one.keys() | two.keys())}


def _newest[T](one: dict[str, T], two: dict[str, T], age: Callable[[T], tuple[object, ...]]) -> dict[str, T]:
    both = {key: [side[key] for side in (one, two) if key in side] for key in sorted(one.keys() | two.keys())}
    return {key: max(values, key=age) for key, values in both.items()}


def copied(state: AccountState) -> AccountState:
    """An independent copy: nothing that happens to one is seen in the other."""
    return replace(
        state,
        cooldowns=list(state.cooldowns),
        ended_by_success=dict(state.ended_by_success),
        backoff=dict(state.backoff),
        faults=list(state.faults),
        models=dict(state.models),
        quota=dict(state.quota),
    )


def shifted(memory: Memory, by: float) -> Memory:
    """The same memory read on another clock: every time plus `by` seconds. A time of 0 means never and stays 0.

    What happened is never moved to 0 or before, where it would count as never: a clock may have been set back to 1970.
    """

    def move(time: float) -> float:
        return max(time + by, EARLIEST) if time else 0.0

    return _timed(memory, move, lambda began, until: (move(began), until + by), lambda date: date + by)


def restored(memory: Memory, wall: float) -> Memory:
    """A memory read from disk at `wall` (seconds since the epoch), without what a clock jump made absurd.

    Nothing happened in the future, and nobody rests longer than it was once told or than our caps: however the clock
    jumped, what is left of a rest lies between 0 and its length.
    """

    def past(time: float) -> float:
        return min(time, wall)

    def span(began: float, until: float) -> tuple[float, float]:
        return min(began, wall), min(until, wall + max(until - began, 0.0))

    sane = _timed(memory, past, span, lambda date: min(date, wall + LONGEST_DATE))
    for state in sane.accounts.values():
        state.cooldowns = [
            replace(rest, until=min(rest.until, wall + (LONGEST_WAIT if rest.source == "server" else LONGEST_COOLDOWN)))
            for rest in state.cooldowns
        ]
    return sane


def _timed(
    memory: Memory,
    past: Callable[[float], float],
    span: Callable[[float, float], tuple[float, float]],
    date: Callable[[float], float],
) -> Memory:
    """The same memory with every time changed: `past` what happened, `span` what lasts, `date` what will happen."""

    def maybe(change: Callable[[float], float], time: float | None) -> float | None:
        return None if time is None else change(time)

    def rest(cooldown: Cooldown) -> Cooldown:
        began, until = span(cooldown.began, cooldown.until)
        return replace(cooldown, began=began, until=until, told_until=maybe(date, cooldown.told_until))

    def counted(count: Count | None) -> Count | None:
        return count and replace(count, since=past(count.since), resets_at=maybe(date, count.resets_at))

    def fact(known: ModelFact) -> ModelFact:
        began, until = span(known.began, known.until)
        return replace(known, began=began, until=until)

    accounts = {
        key: replace(
            state,
            rejected_at=maybe(past, state.rejected_at),
            blocked_at=maybe(past, state.blocked_at),
            cooldowns=[rest(cooldown) for cooldown in state.cooldowns],
            ended_by_success={model: past(time) for model, time in state.ended_by_success.items()},
            backoff={model: (step, past(time)) for model, (step, time) in state.backoff.items()},
            faults=[past(time) for time in state.faults],
            models={model: fact(known) for model, known in state.models.items()},
            listed_at=maybe(past, state.listed_at),
            quota={
                name: replace(window, resets_at=maybe(date, window.resets_at), seen_at=past(window.seen_at))
                for name, window in state.quota.items()
            },
            count=counted(state.count),
            last_used=past(state.last_used),
        )
        for key, state in memory.accounts.items()
    }
    conversations = {
        key: Affinity(known.account_id, past(known.used_at)) for key, known in memory.conversations.items()
    }
    sightings = {key: replace(seen, first_seen=past(seen.first_seen)) for key, seen in memory.sightings.items()}
    return Memory(accounts, conversations, sightings)
