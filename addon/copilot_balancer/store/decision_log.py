"""Records the calls on a pool and its decisions in ``decisions.jsonl``, so that they can be replayed.

A `Recorder` stands around a pool and is made only while ``copilot_record_decisions`` is on. A log is a sequence of
runs: a run begins with the whole state of the pool, requests in flight included (``begin``), and goes on with each call
on it in order. After a call that could not be recorded (disk too slow, line too long) a new run begins.

Laws of this file:

1. A replay is exact from any ``begin`` line, and needs nothing that stands before it.
2. No secret stands in it and no word of a conversation: a credential is its fingerprint, a conversation its hash. What
   a server wrote is left out, but for the sentence of an abuse block, which the pool itself shows.
3. Recording changes no decision. A fault of recording ends a run, never a request.
4. The private names of ``Pool`` are used in `state_of`, `resumed` and `_without_words` alone.
5. Fields that have their default are left out, so a default that changes is a new `FORMAT`.
"""

# ruff: noqa: SLF001 - law 4

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, TypeAdapter

from copilot_balancer import __version__
from copilot_balancer.copilot.hosts import default_api_host
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.pool import Flight, Pool
from copilot_balancer.rules.state import Memory
from copilot_balancer.rules.types import Attempt, CooldownKind, Hold, Nobody, Outcome, Policy, PoolRequest
from copilot_balancer.store.line_log import LineLog

FORMAT = 2
"""Stands in each ``begin`` line; another one is refused."""
RUN_BYTES = 2 * 1024 * 1024
"""So much is written of one run before the next begins: a new file can begin there."""
LINE_BYTES = 256 * 1024
"""A call whose line is longer is left out (a memory of ten thousand conversations); a new run begins after it."""
NO_TOKEN = "no-token-in-a-replay"  # noqa: S105 - it says that it is none

RECORDED = ("id", "label", "host", "credential", "enabled", "enabled_at", "stopped_at", "stopped_why", "cleared",
            "priority", "weight", "fence", "allow", "block", "reserve")  # fmt: skip
"""What the pool looks at of an account, with the fingerprint in place of the token."""
RECORDED_OF_ALL = ("home_id", "balancing", "terms_accepted_at", "removed")
"""What the pool looks at of what was decided about all accounts."""


class DecisionLog(LineLog):
    """The file; one program at a time writes it. No file is larger than `FILE_BYTES` and a run."""

    NAME = "decisions.jsonl"
    BEFORE = "decisions.1.jsonl"
    LOCK = "decisions.lock"
    LOCK_SECONDS = 0.0
    KEEPS_LOCK = True
    BUSY = "another proxy records its decisions here; this one's are not kept"
    FILE_BYTES = 6 * 1024 * 1024
    WAITING_BYTES = 8 * 1024 * 1024


# --- the pool's nouns as JSON -----------------------------------------------------------------------------------------


class StandIn(Account):
    """An account as a recorded pool knew it: there is no token, only its fingerprint."""

    known_as: str = Field(pattern=r"^[0-9a-f]{12}$")

    @property
    def fingerprint(self) -> str:
        """Names the credential that the recorded pool had."""
        return self.known_as


def _decided(decisions: Decisions) -> dict[str, Any]:
    accounts = [
        {**account.model_dump(include=set(RECORDED)), "known_as": account.fingerprint} for account in decisions.accounts
    ]
    return {**decisions.model_dump(include=set(RECORDED_OF_ALL)), "accounts": accounts}


def _stand_ins(found: Mapping[str, Any]) -> Decisions:
    try:
        accounts = [
            StandIn(**facts, api_host=default_api_host(facts["host"]), token=SecretStr(NO_TOKEN))
            for facts in found["accounts"]
        ]
        return Decisions.model_validate({**found, "accounts": accounts})
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"these are no decisions: {error}") from None


type Decided = Annotated[Decisions, PlainSerializer(_decided), BeforeValidator(_stand_ins)]


@dataclass(frozen=True, slots=True)
class RecordedState:
    """All of a pool at a moment between two calls."""

    policy: Policy
    decisions: Decided
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


STATE = TypeAdapter[Any](RecordedState)
_NOW, _NAME, _NAMES = TypeAdapter[Any](float), TypeAdapter[Any](str), TypeAdapter[Any](tuple[str, ...])
_WINDOWS = TypeAdapter[Any](dict[str, QuotaWindow] | None)
CALLS: dict[str, dict[str, TypeAdapter[Any]]] = {
    "assign": {"request": TypeAdapter(PoolRequest), "now": _NOW},
    "record": {"attempt": TypeAdapter(Attempt), "outcome": TypeAdapter(Outcome), "now": _NOW, "quota": _WINDOWS},
    "finish": {"request_id": _NAME, "now": _NOW},
    "learn_models": {
        "account_id": _NAME,
        "models": _NAMES,
        "now": _NOW,
        "included": _NAMES,
        "disabled": _NAMES,
    },
    "learn_quota": {"account_id": _NAME, "windows": _WINDOWS},
    "set_policy": {"policy": TypeAdapter(Policy)},
    "replace": {"decisions": TypeAdapter(Decided), "now": _NOW},
    "remember": {"memory": TypeAdapter(Memory), "now": _NOW},
    "memory": {"now": _NOW},
    "home": {"now": _NOW, "fence": TypeAdapter(str | None), "without": _NAMES, "host": TypeAdapter(str | None)},
}
"""The calls that change a pool or decide something, and what each is given. ``memory`` forgets what is over."""
_DECISIONS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Attempt, Hold, Nobody)}


def plain(kind: TypeAdapter[Any], value: object) -> Any:
    """`value` as JSON gives it back, without what has its default; a set becomes a sorted list."""
    return json.loads(
        json.dumps(kind.dump_python(value, by_alias=True, exclude_defaults=True, warnings="none"), default=sorted)
    )


def answered(call: str, result: object) -> object:
    """What a call answered, where it decides: who is asked, held or refused; the id of the home account."""
    if call == "assign":
        return {type(result).__name__.lower(): plain(_DECISIONS[type(result)], result)}
    return result.id if isinstance(result, Account) else None


def state_of(pool: Pool) -> Any:
    """All of a pool, as it stands in a ``begin`` line; what is not here follows from it."""
    board = pool._board
    return plain(
        STATE,
        RecordedState(
            policy=board.policy,
            decisions=pool._decisions,
            memory=Memory(pool._states, dict(pool._conversations)),
            flights=pool._flights,
            probes={key: member.probes for key, member in board.members.items() if member.probes},
            stamps=tuple((*key, *moments) for key, moments in pool._stamps.items()),
            scarce={key: dict(models) for key, models in board.scarce.items()},
            renewed={key: one.renewed_at for key, one in board.members.items() if math.isfinite(one.renewed_at)},
        ),
    )


def resumed(found: object) -> Pool:
    """A pool that goes on where the recorded one was, from its `state_of`."""
    state: RecordedState = STATE.validate_python(found, strict=False)
    pool = Pool(state.policy, Decisions(), 0.0)
    pool._stamps = {(key, what): (stamp, moment) for key, what, stamp, moment in state.stamps}
    pool.replace(state.decisions, 0.0)
    pool._states = state.memory.accounts
    for key, member in pool._board.members.items():
        member.state = pool._states[key]
        member.probes = state.probes.get(key, {})
        member.renewed_at = state.renewed.get(key, -math.inf)
    pool._conversations.update(state.memory.conversations)
    pool._flights = state.flights
    for flight in state.flights.values():
        if flight.serving:
            account_id = flight.attempt.account_id
            pool._in_flight[account_id] = pool._in_flight.get(account_id, 0) + 1
    pool._board.flights = len(state.flights)
    pool._board.resent = sum(flight.resent for flight in state.flights.values())
    pool._board.scarce = state.scarce
    return pool


# --- recording --------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands in for `pool` and records each call on it; ``pool`` itself can be used again at any time."""

    def __init__(self, pool: Pool, log: DecisionLog) -> None:
        self.pool = pool
        self._log = log
        self._left = 0
        """Bytes of this run to go; at most 0: a new one must begin."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.pool, name)
        return partial(self._recorded, name, found) if name in CALLS else found

    def _recorded(self, name: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        bound = signature(call).bind(*arguments, **named)
        bound.apply_defaults()
        given = {key: tuple(value) if isinstance(value, Iterator) else value for key, value in bound.arguments.items()}
        line = self._begun(name, given)
        try:
            result = call(**given)
            line["result"] = answered(name, result)
        except Exception as error:
            line["raised"] = type(error).__name__
            raise
        finally:
            if "call" not in line or not self._emit(line):
                self._left = 0
        return result

    def _begun(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """What a call is given, in a run that is open; empty when it cannot be recorded."""
        try:
            if self._left <= 0:
                if self._log.room < self._log.waiting_bytes // 2:
                    return {}
                self._left = RUN_BYTES
                if not self._emit({"begin": FORMAT, "program": __version__, "pool": state_of(self.pool)}):
                    return {}
            told = {key: plain(CALLS[name][key], _without_words(self.pool, value)) for key, value in given.items()}
        except Exception:  # noqa: BLE001 - whatever cannot be written is missed; the call stands (law 3)
            return {}
        return {"call": name, "given": told}

    def _emit(self, line: Mapping[str, object]) -> bool:
        raw = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        self._left -= len(raw)
        return ("begin" in line or len(raw) <= LINE_BYTES) and self._log.put_line(raw, begins="begin" in line)


def _unsaid(outcome: Outcome) -> Outcome:
    return outcome if outcome.rest.kind is CooldownKind.UNTIL_USER else replace(outcome, text="")


def _without_words(pool: Pool, value: object) -> object:
    """An argument without what a server wrote; of a memory only what the pool does not know as it is."""
    if isinstance(value, Outcome):
        return _unsaid(value)
    if isinstance(value, PoolRequest):
        return replace(value, tried=tuple(replace(one, outcome=_unsaid(one.outcome)) for one in value.tried))
    if isinstance(value, Memory):
        known, here = pool._conversations, value.conversations.items()
        accounts = {key: state for key, state in value.accounts.items() if pool._states.get(key) != state}
        newer = {key: one for key, one in here if key not in known or known[key].used_at < one.used_at}
        return Memory(accounts, newer)
    return value
