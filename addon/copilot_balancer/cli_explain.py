"""``copilot-balancer explain`` and ``events replay``: why an account is chosen, and whether it would be chosen again.

Laws of this file:

1. What is explained comes from the proxy's own function (``Pool.explain``); nothing is decided here.
2. `explain` sees what was last written down, and says how old that is; nothing is changed by asking.
3. Exit code 0: somebody can serve, or everything came out the same; 1: not; 2: the call itself is wrong.
4. Names that come from requests and foreign files are printed without what could break a terminal.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from copilot_balancer import __version__, config
from copilot_balancer.accounts import normalise_label
from copilot_balancer.conversation import conversation_of
from copilot_balancer.decision_file import NAME, WAITING_BYTES
from copilot_balancer.decision_replay import Difference, Replay, replay
from copilot_balancer.errors import InvalidInput, printable
from copilot_balancer.explain import CandidateView
from copilot_balancer.memory import restored
from copilot_balancer.pool import Attempt, Explanation, Hold, Nobody, NobodyKind, Pool, WhyNot, duration
from copilot_balancer.terminal import WIDTH, World, iso, json_option, note, pass_world, show_json

_SHOWN_PARTS = 8
"""So many differing parts of one decision are printed."""

_SHORT = 24
"""A label that is longer has a line of its own."""


# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.argument("model")
@click.option("--conversation", metavar="ID", help="The client's own id of a conversation, like opencode's ses_...")
@click.option("--fence", metavar="NAME", help="As a request of this fence.")
@json_option
@pass_world
@click.pass_context
def explain(
    context: click.Context, world: World, model: str, *, conversation: str | None, fence: str | None, as_json: bool
) -> None:
    """Say which account would serve MODEL now, why, and why not the others. Exit code 1: nobody can."""
    now = world.now()
    loaded = world.settings(with_project=True)
    for warning in loaded.warnings:
        note(warning)
    store = world.store
    pool = Pool(config.policy(loaded.settings), store.read_decisions(), now)
    pool.remember(restored(store.read_memory(), now), now)
    name = conversation_of({"x-session-id": conversation}, None) if conversation else None
    explanation = pool.explain(model, name, now, None if fence is None else normalise_label(fence))
    written = _written(store.state_path)
    if as_json:
        show_json({**explained(explanation, now), "state_written_at": None if written is None else iso(written)})
    else:
        click.echo(explain_text(explanation, now))
        _say_how_old(written, now)
    context.exit(int(isinstance(explanation.decision, Nobody)))


def _written(path: Path) -> float | None:
    """When what was learnt was last written down; None: never."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _say_how_old(written: float | None, now: float) -> None:
    if written is None:
        note("nothing was written down yet, so this knows your decisions and settings alone")
        return
    note(
        f"this is what was written down {duration(max(now - written, 0.0))} ago; what a proxy serves at this moment, "
        "and options that it was given with --set, are not seen here"
    )


def _ago(moment: float, now: float) -> str:
    return f"{duration(now - moment)} ago" if moment else "never"


def _in(moment: float, now: float) -> str:
    return "unknown" if math.isinf(moment) else f"in {duration(moment - now)}"


Cell = Callable[[float, float], str]
"""A term's value and the moment -> what is printed."""

TERMS: Mapping[str, tuple[str, str, Cell]] = {
    "-score": ("SCORE", "the highest score", lambda value, _: f"{-value:.3f}"),
    "-quota": ("QUOTA LEFT", "the most quota left", lambda value, _: f"{-value:.0f} %"),
    "turn": ("TURN", "the lowest turn", lambda value, _: f"{value:g}"),
    "last used": ("LAST USED", "the longest unused", _ago),
    "not the last used": ("USED LAST", "the one used last", lambda value, _: "no" if value else "yes"),
    "priority": ("PRIORITY", "the lowest priority number", lambda value, _: f"{value:g}"),
    "resets at": ("RESETS", "the soonest reset", _in),
    "in flight": ("IN FLIGHT", "the least busy", lambda value, _: f"{value:g}"),
}
"""The terms of the strategies: head of the column, what is preferred, how a value is printed."""


def explain_text(explanation: Explanation, now: float) -> str:
    """An explanation for people, in lines of at most 80 columns; `now` is what it was made for."""
    parts = [_headline(explanation, now)]
    if explanation.candidates:
        parts.append(_candidates(explanation, now))
    if explanation.why_not:
        head = "The others:" if explanation.candidates else "Why not:"
        width = max((len(one.label) for one in explanation.why_not if len(one.label) <= _SHORT), default=_SHORT)
        parts.append("\n".join([head, *(_line(one, width, now) for one in explanation.why_not)]))
    return "\n\n".join(parts)


def _headline(explanation: Explanation, now: float) -> str:
    decision, model = explanation.decision, printable(explanation.model or "A request without a model", 60)
    if isinstance(decision, Attempt):
        told = f"{model} goes to {explanation.chosen}: {decision.why}."
        if decision.model != explanation.model:
            told = f"{explanation.chosen} serves another model than {model}: {decision.why}."
    elif isinstance(decision, Hold):
        told = f"{model} waits {duration(decision.until - now)}, and is then served: {decision.why}."
    elif decision.kind is NobodyKind.NO_ACCOUNTS:
        told = "No account is stored; `copilot-balancer accounts import` adds one."
    else:
        free = "" if decision.free_at is None else f"; the first is free in {duration(decision.free_at - now)}"
        told = f"Nobody can serve {model} now ({decision.kind}){free}."
    return _filled(told)


def _candidates(explanation: Explanation, now: float) -> str:
    """Who can serve, best first, with what they were compared by."""
    names = list(explanation.candidates[0].terms)
    shown = [TERMS.get(name, (name.upper(), f"the lowest {name}", lambda value, _: f"{value:g}")) for name in names]
    rows = [["", "ACCOUNT", *(head for head, _, _ in shown)]]
    for place, one in enumerate(explanation.candidates, 1):
        cells = (cell(one.terms[name], now) for name, (_, _, cell) in zip(names, shown, strict=True))
        rows.append([str(place), one.label + (" *" if one.stays else ""), *cells])
    preferred = f"{explanation.strategy} prefers {', then '.join(words for _, words, _ in shown)}"
    order = preferred if _is_by_terms(explanation.candidates) else "a route of yours gives the order"
    lines = [_filled(f"Who can serve it, best first; {order}:"), *_table(rows)]
    if any(one.stays for one in explanation.candidates):
        lines.append("  * the conversation is there already, which comes first")
    return "\n".join(lines)


def _is_by_terms(candidates: Sequence[CandidateView]) -> bool:
    """Whether the strategy alone gives this order; else a row of the user's routes comes before it."""
    order = [(not one.stays, *one.terms.values()) for one in candidates]
    return order == sorted(order)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, numbers to the right; the names are cut where 80 columns are too few."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    room = WIDTH - 2 - sum(widths) - 2 * (len(widths) - 1) + widths[1]
    widths[1] = min(widths[1], room)
    lines = []
    for place, name, *cells in rows:
        told = name if len(name) <= room else f"{name[: room - 1]}…"
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[2:], strict=True))
        lines.append("  ".join(["", place.rjust(widths[0]), told.ljust(widths[1]), *numbers]).rstrip())
    return lines


def _line(one: WhyNot, width: int, now: float) -> str:
    free = "" if one.free_at is None else f", free again in {duration(one.free_at - now)}"
    first = f"  {one.label.ljust(width)}  "
    if len(one.label) > width:
        first = f"  {one.label}\n  {' ' * width}  "
    hanging = " " * (width + 4)
    told = _filled(f"{printable(one.reason, 300)}{free}", hanging)
    return first + told.removeprefix(hanging)


def _filled(text: str, first: str = "") -> str:
    """`text` in lines of at most 80 columns, hanging from `first`, whatever long names stand in it."""
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def explained(explanation: Explanation, now: float) -> dict[str, Any]:
    """An explanation for programs: times as text, lengths of time in seconds."""
    decision = explanation.decision
    facts: dict[str, Any] = {"kind": type(decision).__name__.lower(), "why": decision.why}
    if isinstance(decision, Attempt):
        facts["model"] = decision.model
        facts["probe"] = decision.probe
    elif isinstance(decision, Hold):
        facts["seconds"] = decision.until - now
    else:
        facts["nobody"] = decision.kind
        facts["retry_after"] = decision.retry_after
        facts |= _free(decision.free_at, now)
    return {
        "model": explanation.model,
        "conversation": explanation.conversation,
        "strategy": explanation.strategy,
        "account": explanation.chosen,
        "decision": facts,
        "candidates": [
            {
                "account": one.label,
                "stays": one.stays,
                "terms": {name: None if math.isinf(value) else value for name, value in one.terms.items()},
            }
            for one in explanation.candidates
        ],
        "why_not": [
            {"account": one.label, "bar": one.bar, "reason": one.reason, **_free(one.free_at, now)}
            for one in explanation.why_not
        ],
    }


def _free(moment: float | None, now: float) -> dict[str, object]:
    return {"free_at": None if moment is None else iso(moment), "free_in": None if moment is None else moment - now}


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group()
def events() -> None:
    """Look at what the proxy wrote down."""


@events.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@json_option
@pass_world
@click.pass_context
def replay_command(context: click.Context, world: World, file: Path | None, as_json: bool) -> None:
    """Run the recorded decisions again, and say whether each comes out the same, bit for bit.

    The proxy records them while copilot_record_decisions is on. FILE is by default the newest of its two files.
    """
    path = file or world.paths.state / NAME
    place = printable(str(path), 4096)
    try:
        with path.open("rb") as opened:
            done = replay(_lines(opened))
    except FileNotFoundError:
        raise InvalidInput(f"nothing is recorded yet: there is no {place}; set copilot_record_decisions") from None
    except OSError as error:
        raise InvalidInput(f"{place} cannot be read: {error.strerror}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from None
    if as_json:
        show_json({"file": str(path), "same": done.same, **asdict(done)})
    else:
        _tell(done)
    context.exit(int(not done.same))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Its lines; one that is longer than any of ours comes in pieces, which are none."""
    while raw := file.readline(2 * WAITING_BYTES):
        yield raw


def _tell(done: Replay) -> None:
    numbers = {"decision": done.decisions, "call": done.calls, "run": done.runs}
    counted = ", ".join(f"{number} {name}{'' if number == 1 else 's'}" for name, number in numbers.items())
    if done.difference is not None:
        click.echo(_differing(done.difference))
        click.echo(f"\nUp to there the same: {counted}.")
    else:
        click.echo(f"{'All the same' if done.same else 'The same as far as it can be read'}: {counted}.")
    for stop in done.stops:
        note(f"line {stop.line}: {printable(stop.why, 400)}")
    if done.skipped:
        note(f"{done.skipped} lines could not be replayed: they belong to no run that is whole")
    others = [program for program in done.programs if program != __version__]
    if others:
        made = ", ".join(printable(program, 40) for program in others)
        note(f"recorded by copilot-balancer {made}; this is {__version__}, which may decide otherwise on purpose")


def _differing(difference: Difference) -> str:
    what = "The pool is not what was recorded" if difference.call == "begin" else f"Another {difference.call}"
    lines = [f"Line {difference.line}: {what}."]
    parts = difference.parts()
    for place, expected, got in parts[:_SHOWN_PARTS]:
        lines += ["", f"  {printable(place, 76)}"]
        for name, value in (("recorded", expected), ("now", got)):
            lines.append(_filled(printable(str(value), 300), f"    {name:8}  "))
    if len(parts) > _SHOWN_PARTS:
        lines += ["", f"  and {len(parts) - _SHOWN_PARTS} more"]
    return "\n".join(lines)
