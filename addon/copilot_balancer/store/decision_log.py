"""The decision log: what the pool was asked and what it decided, so that it can be asked again.

Laws of this file:

1. A log is a sequence of runs. A run begins with the whole pool, requests in flight included (``begin``), and goes on
   with each call on it in order: a replay is exact from any beginning, and needs nothing that stands before it.
2. No secret stands in it and no word of a conversation: a credential is its fingerprint, a conversation its hash. What
   a server wrote is left out, but for the sentence of an abuse block, which the pool itself shows.
3. Recording changes no decision. Its own faults end a run, never a request.
4. What was not recorded is said (``gap``), and then a new run begins.
5. What is private to ``Pool`` and used here is all in ``RecordedPool._state`` and ``_resume``, by name.

A line is one JSON object. Numbers are written so that reading them gives the same bits; a field that has its default
is left out, so a default that changes is a new `FORMAT`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr

from copilot_balancer import __version__
from copilot_balancer.copilot.hosts import default_api_host
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.pool import Flight, Pool
from copilot_balancer.rules.state import Memory
from copilot_balancer.rules.types import Attempt, CooldownKind, Hold, Nobody, Outcome, Policy, PoolRequest

FORMAT = 1
"""Stands in each ``begin`` line; another one is refused."""

RUN_BYTES = 2 * 1024 * 1024
"""So much is written of one run before the next begins: a file can be changed for a new one there."""

LINE_BYTES = 256 * 1024
"""The line of a call that is longer is left out (a memory of ten thousand conversations); a new run begins after it."""

RETRY_CALLS = 100
"""While there is no room for a new run, each so many calls it is tried again: taking down a whole pool costs time."""

NO_TOKEN = "no-token-in-a-replay"  # noqa: S105 - it says that it is none

type Put = Callable[[str, bool], bool]
"""Takes a line without its end, and whether a run begins with it; False: there is no room, the line is lost."""


# --- accounts without tokens ------------------------------------------------------------------------------------------

RECORDED = (
    "id",
    "label",
    "host",
    "credential",
    "enabled",
    "enabled_at",
    "cleared",
    "priority",
    "weight",
    "fence",
    "allow",
    "block",
    "reserve",
)
"""What the pool looks at of an account, with the fingerprint in place of the token."""

RECORDED_OF_ALL = ("home_id", "balancing", "terms_accepted_at", "removed")
"""What the pool looks at of what was decided about all accounts."""


class StandIn(Account, defer_build=True):  # a replay alone makes any
    """An account as a recorded pool knew it: there is no token, only its fingerprint."""

    known_as: str = Field(pattern=r"^[0-9a-f]{12}$")

    @property
    def fingerprint(self) -> str:
        """Names the credential that the recorded pool had."""
        return self.known_as


def _decided(decisions: Decisions) -> dict[str, object]:
    accounts = [
        {**{name: plain(getattr(account, name)) for name in RECORDED}, "fingerprint": account.fingerprint}
        for account in decisions.accounts
    ]
    return {**{name: plain(getattr(decisions, name)) for name in RECORDED_OF_ALL}, "accounts": accounts}


def _stand_ins(found: object) -> Decisions:
    if not isinstance(found, Mapping) or not isinstance(found.get("accounts"), list):
        raise ValueError("these are no decisions")  # noqa: TRY004 - pydantic tells a ValueError by its place
    accounts = []
    for facts in found["accounts"]:
        known = {name: facts[name] for name in RECORDED}
        token = SecretStr(NO_TOKEN)
        host = default_api_host(known["host"])
        accounts.append(StandIn(**known, api_host=host, token=token, known_as=facts["fingerprint"]))
    return Decisions.model_validate({**found, "accounts": accounts})


type StoodIn = Annotated[Decisions, BeforeValidator(_stand_ins)]


# --- values as JSON ---------------------------------------------------------------------------------------------------


@cache
def _fields(kind: type) -> tuple[tuple[str, object], ...]:
    """The fields of a dataclass, each with the value that is left out."""
    return tuple(
        (
            part.name,
            MISSING
            if kind is Policy  # nothing of it is left out: a person reads it
            else part.default_factory()
            if part.default_factory is not MISSING
            else part.default,
        )
        for part in fields(kind)
    )


def plain(value: object) -> Any:
    """`value` as JSON's own types: a noun of ours becomes an object without what has its default."""
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        told = ((name, getattr(value, name), default) for name, default in _fields(type(value)))
        return {name: plain(what) for name, what, default in told if what != default}
    if isinstance(value, Decisions):
        return _decided(value)
    if isinstance(value, Mapping):
        return {key: plain(what) for key, what in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(value)
    if isinstance(value, Iterable):
        return [plain(what) for what in value]
    raise TypeError(f"a {type(value).__name__} is none of the pool's nouns")


def _unsaid(outcome: Outcome) -> Outcome:
    """The outcome without what the server wrote; an abuse block's sentence stays, since the pool shows it."""
    return outcome if outcome.rest.kind is CooldownKind.UNTIL_USER else dataclasses.replace(outcome, text="")


def _given(call: str, given: Mapping[str, Any]) -> Mapping[str, object]:
    """What a call was given, without what a server wrote."""
    if call == "assign" and given["request"].tried:
        tried = tuple(dataclasses.replace(one, outcome=_unsaid(one.outcome)) for one in given["request"].tried)
        return {**given, "request": dataclasses.replace(given["request"], tried=tried)}
    return {**given, "outcome": _unsaid(given["outcome"])} if call == "record" else given


def answered(call: str, answer: Mapping[str, Any]) -> dict[str, object]:
    """What a call answered, where it decides: who is asked, held or refused; the id of the home account."""
    if "result" not in answer:
        return dict(answer)
    result = answer["result"]
    if call == "home":
        return {"result": None if result is None else result.id}
    return {"result": {type(result).__name__.lower(): result}}


@dataclass(frozen=True, slots=True)
class RecordedState:
    """All of a pool at a moment between two calls."""

    policy: Policy
    decisions: StoodIn
    memory: Memory
    flights: dict[str, Flight]
    """Request id -> the request under way."""
    probes: dict[str, dict[str, tuple[str, float]]]
    """Account id -> ``PoolAccount.probes``, where there are any."""
    stamps: tuple[tuple[str, str, float, float], ...]
    """Account id, what, the user's stamp, the moment on the pool's clock."""
    scarce: dict[str, dict[str, float]]
    renewed: dict[str, float] = field(default_factory=dict)
    """Account id -> ``PoolAccount.renewed_at``, where it ever was."""


DECIDING = ("assign", "home")
"""Whose answer is recorded, and compared in a replay."""


# --- recording --------------------------------------------------------------------------------------------------------


class RecordedPool(Pool):
    """A pool whose calls can be recorded; it decides as any other. Nothing is recorded before `record_to`."""

    _put: Put | None = None
    _inside = False
    """Within a call: what it calls in its turn belongs to it."""
    _left = 0
    """Bytes of this run to go; at most 0: a new one must begin."""
    _missed = 0
    """Calls that were not recorded, and of which nothing was said yet."""
    _wait = 0
    """Calls to go before a new run is tried again."""
    _whole = False
    """Nothing was missed since the last ``begin``."""

    def record_to(self, put: Put | None) -> None:
        """From the next call on, hand each line to `put`; None: record nothing. May be called at any time."""
        self._put, self._left, self._missed, self._wait, self._whole = put, 0, 0, 0, False

    def assign(self, request: PoolRequest, now: float) -> Attempt | Hold | Nobody:
        """As ``Pool.assign``."""
        with self._noted("assign", request=request, now=now) as answer:
            decision = super().assign(request, now)
            answer["result"] = decision
        return decision

    def record(
        self, attempt: Attempt, outcome: Outcome, now: float, quota: Mapping[str, QuotaWindow] | None = None
    ) -> None:
        """As ``Pool.record``."""
        with self._noted("record", attempt=attempt, outcome=outcome, now=now, quota=quota or {}):
            super().record(attempt, outcome, now, quota)

    def finish(self, request_id: str, now: float) -> None:
        """As ``Pool.finish``."""
        with self._noted("finish", request_id=request_id, now=now):
            super().finish(request_id, now)

    def learn_models(
        self,
        account_id: str,
        models: Iterable[str],
        now: float,
        included: Iterable[str] = (),
        disabled: Iterable[str] = (),
    ) -> None:
        """As ``Pool.learn_models``."""
        given = {"models": tuple(models), "included": tuple(included), "disabled": tuple(disabled)}
        with self._noted("learn_models", account_id=account_id, now=now, **given):
            super().learn_models(account_id, now=now, **given)

    def learn_quota(self, account_id: str, windows: Mapping[str, QuotaWindow]) -> None:
        """As ``Pool.learn_quota``."""
        with self._noted("learn_quota", account_id=account_id, windows=windows):
            super().learn_quota(account_id, windows)

    def set_policy(self, policy: Policy) -> None:
        """As ``Pool.set_policy``."""
        with self._noted("set_policy", policy=policy):
            super().set_policy(policy)

    def replace(self, decisions: Decisions, now: float) -> None:
        """As ``Pool.replace``."""
        with self._noted("replace", decisions=decisions, now=now):
            super().replace(decisions, now)

    def remember(self, memory: Memory, now: float) -> None:
        """As ``Pool.remember``."""
        if self._put is not None:
            memory = self._news(memory)
        with self._noted("remember", memory=memory, now=now):
            super().remember(memory, now)

    def memory(self, now: float) -> Memory:
        """As ``Pool.memory``."""
        with self._noted("memory", now=now):
            return super().memory(now)

    def home(
        self, now: float, fence: str | None = None, without: Collection[str] = (), host: str | None = None
    ) -> Account | None:
        """As ``Pool.home``."""
        with self._noted("home", now=now, fence=fence, without=sorted(without), host=host) as answer:
            account = super().home(now, fence, without, host)
            answer["result"] = account
        return account

    def _news(self, memory: Memory) -> Memory:
        """What of a memory is not known here as it is; merging in the rest would change nothing."""
        accounts = {key: state for key, state in memory.accounts.items() if self._states.get(key) != state}
        conversations = {
            key: here
            for key, here in memory.conversations.items()
            if key not in self._conversations or self._conversations[key].used_at < here.used_at
        }
        return Memory(accounts, conversations)

    # --- lines ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _noted(self, call: str, **given: object) -> Iterator[dict[str, object]]:
        """Write down a call with what it is given, and what is put into the yielded dict: its answer."""
        answer: dict[str, object] = {}
        if self._put is None or self._inside:
            yield answer
            return
        begun, self._inside = self._begun(), True
        try:
            yield answer
        except Exception as error:
            answer = {"raised": type(error).__name__}
            raise
        finally:
            self._inside = False
            self._end(call, given, answer, begun=begun)

    def _begun(self) -> bool:
        """Whether a run is open for the next line: begins one where it must and can."""
        if self._left > 0:
            return True
        if self._wait > 0:
            self._wait -= 1
            return False
        begin = {"begin": FORMAT, "program": __version__, "continues": self._whole, "pool": self._state()}
        if self._missed and self._emit({"gap": self._missed}):
            self._missed = 0
        if self._missed or not self._emit(begin, begins=True):
            self._wait = RETRY_CALLS
            return False
        self._left, self._whole = RUN_BYTES, True
        return True

    def _end(self, call: str, given: Mapping[str, Any], answer: Mapping[str, Any], *, begun: bool) -> None:
        if not begun or not self._emit({"call": call, **_given(call, given), **answered(call, answer)}):
            self._missed, self._left, self._whole = self._missed + 1, 0, False

    def _emit(self, line: Mapping[str, object], *, begins: bool = False) -> bool:
        assert self._put is not None
        try:
            text = json.dumps(plain(line), separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            return False  # something that is none of the pool's nouns: the call stands, its line does not
        if not begins and len(text) > LINE_BYTES:
            return False
        self._left -= len(text)
        return self._put(text, begins)

    # --- the whole pool ---------------------------------------------------------------------------------------------

    def _state(self) -> RecordedState:
        """All of this pool; what is not here follows from it. Its parts are the pool's own: write them down at once."""
        return RecordedState(
            policy=self._board.policy,
            decisions=self._decisions,
            memory=Memory(self._states, self._conversations),
            flights=self._flights,
            probes={key: member.probes for key, member in self._board.members.items() if member.probes},
            stamps=tuple((*key, *moments) for key, moments in self._stamps.items()),
            scarce={key: dict(models) for key, models in self._board.scarce.items()},
            renewed={k: m.renewed_at for k, m in self._board.members.items() if math.isfinite(m.renewed_at)},
        )

    def _resume(self, state: RecordedState) -> None:
        self._stamps = {(key, what): (stamp, moment) for key, what, stamp, moment in state.stamps}
        self.replace(state.decisions, 0.0)
        self._states = state.memory.accounts
        for key, member in self._board.members.items():
            member.state = self._states[key]
            member.probes = state.probes.get(key, {})
            member.renewed_at = state.renewed.get(key, -math.inf)
        self._conversations.clear()
        self._conversations.update(state.memory.conversations)
        self._flights = state.flights
        self._in_flight.clear()
        for flight in state.flights.values():
            if flight.serving:
                account_id = flight.attempt.account_id
                self._in_flight[account_id] = self._in_flight.get(account_id, 0) + 1
        self._board.flights = len(state.flights)
        self._board.resent = sum(flight.resent for flight in state.flights.values())
        self._board.scarce = state.scarce

    @classmethod
    def resumed(cls, state: RecordedState) -> Self:
        """A pool that goes on where another one was; `state` is its own from then on."""
        pool = cls(state.policy, Decisions(), 0.0)
        pool._resume(state)
        return pool

    def state(self) -> dict[str, object]:
        """All of this pool as it stands in a ``begin`` line."""
        state: dict[str, object] = plain(self._state())
        return state
