"""The replay of a decision log: the same calls on a pool again, and whether the same comes out.

Laws of this file:

1. A decision is the same when all of it is, bit for bit; and at each new run the whole pool is compared as well.
2. It stops at the first difference: what comes after it follows from it.
3. A file may be cut, damaged or made up: that is said with its line, and nothing but `InvalidInput` is raised.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from copilot_balancer import __version__
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.state import Memory
from copilot_balancer.rules.types import Attempt, Outcome, Policy, PoolRequest
from copilot_balancer.store.decision_log import DECIDING, FORMAT, RecordedPool, RecordedState, StoodIn, answered, plain
from copilot_balancer.text import printable

_TIME = TypeAdapter[Any](float)
_NAME = TypeAdapter[Any](str)
_NAMES = TypeAdapter[Any](tuple[str, ...])
_WINDOWS = TypeAdapter[Any](dict[str, QuotaWindow])
STATE = TypeAdapter[Any](RecordedState)

CALLS: dict[str, dict[str, TypeAdapter[Any]]] = {
    "assign": {"request": TypeAdapter(PoolRequest), "now": _TIME},
    "record": {"attempt": TypeAdapter(Attempt), "outcome": TypeAdapter(Outcome), "now": _TIME, "quota": _WINDOWS},
    "finish": {"request_id": _NAME, "now": _TIME},
    "learn_models": {"account_id": _NAME, "models": _NAMES, "now": _TIME, "included": _NAMES},
    "learn_quota": {"account_id": _NAME, "windows": _WINDOWS},
    "set_policy": {"policy": TypeAdapter(Policy)},
    "replace": {"decisions": TypeAdapter(StoodIn), "now": _TIME},
    "remember": {"memory": TypeAdapter(Memory), "now": _TIME},
    "memory": {"now": _TIME},
    "home": {"now": _TIME, "fence": TypeAdapter(str | None), "without": TypeAdapter(list[str])},
}
"""The calls that change a pool or decide something, and what each is given. ``memory`` forgets what is over."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first call that does not come out as it was recorded."""

    line: int
    call: str
    """A name of `CALLS`; ``begin`` when the pool itself is another one than the recorded."""
    expected: Any
    got: Any

    def parts(self) -> list[tuple[str, Any, Any]]:
        """Each place that differs, with what was recorded and what came out; a missing part is None."""
        return list(_parts("", self.expected, self.got))


def _parts(place: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in dict.fromkeys([*expected, *got]):
            yield from _parts(f"{place}.{key}".lstrip("."), expected.get(key), got.get(key))
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for index, pair in enumerate(zip(expected, got, strict=True)):
            yield from _parts(f"{place}[{index}]", *pair)
    elif expected != got:
        yield place, expected, got


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a run ends before its time: what follows it cannot be replayed, up to the next ``begin``."""

    line: int
    why: str
    damage: bool = False
    """Somebody changed the file; else it is what happens when a proxy is killed, or a disk is slow."""


@dataclass(slots=True)
class Replay:
    """What came of a replay."""

    runs: int = 0
    calls: int = 0
    decisions: int = 0
    """Of these calls, those whose answer was compared."""
    skipped: int = 0
    """Lines that could not be replayed."""
    programs: list[str] = field(default_factory=list)
    """Versions of copilot-balancer that recorded the runs."""
    stops: list[Stop] = field(default_factory=list)
    difference: Difference | None = None

    @property
    def same(self) -> bool:
        """Whether all that could be replayed came out the same, and nobody changed the file."""
        return self.difference is None and not any(stop.damage for stop in self.stops)


def replay(lines: Iterable[bytes]) -> Replay:
    """Run recorded calls through a pool again, up to the first difference, and say what came of it.

    Raises:
        InvalidInput: these are no lines of a decision log, or of another `FORMAT`.

    """
    done, pool, cut = Replay(), None, None
    for number, raw in enumerate(lines, 1):
        line = _line(raw)
        if cut is not None:
            # a proxy that was killed leaves at most one, and the next one begins after it
            done.stops.append(cut if line and "begin" in line else replace(cut, damage=True))
            cut = None
        if line and "begin" in line:
            pool = _begin(done, number, line, pool)
        elif not done.programs:
            raise InvalidInput(f"line {number} is not the beginning of a decision log")
        elif line is None:
            cut, pool = Stop(number, "this line is cut"), None
        elif "gap" in line:
            done.stops.append(Stop(number, f"{line['gap']} calls were not recorded here: the disk was too slow"))
            pool = None
        elif pool is None:
            done.skipped += 1
        else:
            pool = _call(done, number, line, pool)
        if done.difference is not None:
            return done
    if cut is not None:
        done.stops.append(cut)
    if not done.programs:
        raise InvalidInput("nothing is recorded in it")
    return done


def _line(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _begin(done: Replay, number: int, line: dict[str, Any], before: RecordedPool | None) -> RecordedPool | None:
    """The pool that a run begins with, after a look at whether the run before came to just that."""
    program = printable(str(line.get("program")), 40)
    if line["begin"] != FORMAT:
        made = f"format {printable(str(line['begin']), 20)} by copilot-balancer {program}"
        raise InvalidInput(f"line {number} is written in {made}; this is {__version__} and knows format {FORMAT}")
    if program not in done.programs:
        done.programs.append(program)
    done.runs += 1
    if before is not None and line.get("continues") is True and (got := before.state()) != line.get("pool"):
        done.difference = Difference(number, "begin", line.get("pool"), got)
        return None
    try:
        return RecordedPool.resumed(STATE.validate_python(line.get("pool"), strict=False))
    except Exception as error:  # noqa: BLE001 - whatever a foreign file makes of a pool is said, not raised
        done.stops.append(Stop(number, f"no pool can be made of this line: {_told(error)}", damage=True))
        return None


def _call(done: Replay, number: int, line: dict[str, Any], pool: RecordedPool) -> RecordedPool | None:
    """Do one call again; None when it cannot be understood."""
    name = line.get("call")
    try:
        given = {key: kind.validate_python(line[key], strict=False) for key, kind in CALLS[str(name)].items()}
    except (LookupError, ValueError, RecursionError) as error:
        done.stops.append(Stop(number, f"this line is no call: {_told(error)}", damage=True))
        return None
    try:
        result = getattr(pool, str(name))(**given)
        answer = {"result": result} if name in DECIDING else {}
    except Exception as error:  # noqa: BLE001 - the recorded pool raised as well, or this is the difference
        answer = {"raised": type(error).__name__}
    got = plain(answered(str(name), answer))
    expected = {key: line[key] for key in ("result", "raised") if key in line}
    done.calls += 1
    done.decisions += name in DECIDING
    if got != expected:
        done.difference = Difference(number, str(name), expected, got)
    return pool


def _told(error: Exception) -> str:
    """What is wrong, by place and kind."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
