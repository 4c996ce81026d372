"""Runs the recorded calls of a decision log through a pool again, and finds the first that comes out differently.

Laws of this file:

1. Each answer is compared in all its parts.
2. It ends at the first difference: what comes after it follows from it.
3. A file may be cut, damaged or made up: that is said with its line, and nothing but `InvalidInput` is raised.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from copilot_balancer import __version__
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.pool import Pool
from copilot_balancer.store.decision_log import CALLS, FORMAT, answered, resumed
from copilot_balancer.text import printable


@dataclass(frozen=True, slots=True)
class Difference:
    """The first call that does not come out as it was recorded."""

    line: int
    call: str
    """A name of `CALLS`."""
    expected: Any
    got: Any


@dataclass(slots=True)
class Replay:
    """What came of a replay."""

    runs: int = 0
    calls: int = 0
    decisions: int = 0
    """Of these calls, those that decide something."""
    skipped: int = 0
    """Lines that could not be replayed, since the beginning of their run is missing."""
    programs: list[str] = field(default_factory=list)
    """Versions of copilot-balancer that recorded the runs."""
    broken: list[str] = field(default_factory=list)
    """Which lines are no calls, and why; a proxy that was killed leaves a cut one."""
    difference: Difference | None = None


def replay(lines: Iterable[bytes]) -> Replay:
    """Run recorded calls through a pool again, up to the first difference, and say what came of it.

    Raises:
        InvalidInput: these are no lines of a decision log, or of another `FORMAT`.

    """
    done, pool = Replay(), None
    for number, raw in enumerate(lines, 1):
        line = _line(raw)
        program = printable(str(line.get("program")), 40)
        if line.get("begin", FORMAT) != FORMAT:
            made = f"format {printable(str(line['begin']), 20)} by copilot-balancer {program}"
            raise InvalidInput(f"line {number} is written in {made}; this is {__version__} and knows format {FORMAT}")
        try:
            if "begin" in line:
                done.programs += [program] if program not in done.programs else []
                done.runs, pool = done.runs + 1, None
                pool = resumed(line.get("pool"))
            elif pool is None:
                done.skipped += 1
            else:
                _call(done, number, line, pool)
        except Exception as error:  # noqa: BLE001 - whatever a foreign file makes of a pool is said, not raised
            done.broken.append(f"line {number} is cut or was changed: {_reason(error)}")
            pool = None
        if done.difference is not None:
            break
    if not done.runs:
        raise InvalidInput("this is no decision log" if done.skipped else "nothing is recorded in it")
    return done


def _line(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        line = None
    return line if isinstance(line, dict) else {}


ADDED = frozenset({"host", "disabled"})
"""Arguments that calls did not have in older logs; their defaults mean what was meant then."""


def _call(done: Replay, number: int, line: dict[str, Any], pool: Pool) -> None:
    """Do one call again; raises what a damaged line makes of it."""
    name = str(line["call"])
    given = {
        key: kind.validate_python(line["given"][key], strict=False)
        for key, kind in CALLS[name].items()
        if key in line["given"] or key not in ADDED
    }
    try:
        got: dict[str, object] = {"result": answered(name, getattr(pool, name)(**given))}
    except Exception as error:  # noqa: BLE001 - the recorded pool raised as well, or this is the difference
        got = {"raised": type(error).__name__}
    expected = {key: line[key] for key in ("result", "raised") if key in line}
    done.calls += 1
    done.decisions += name in ("assign", "home")
    if got != expected:
        done.difference = Difference(number, name, expected, got)


def _reason(error: Exception) -> str:
    """What is wrong, by place and kind."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
