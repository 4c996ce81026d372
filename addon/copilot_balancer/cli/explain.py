"""``copilot-balancer explain``, ``explain-answer`` and ``events replay``: why an account is chosen, what an answer
means, and whether a recorded decision would be made again.

Laws of this file:

1. What is explained comes from the proxy's own function (``Pool.explain``); nothing is decided here.
2. `explain` reads what was last stored, and says how old that is; nothing is changed by it.
3. Exit code 0: some account can serve, or the replay is the same; 1: not; 2: the call itself is wrong.
4. Names that come from requests and foreign files are printed without what could break a terminal.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from copilot_balancer import __version__, config
from copilot_balancer.cli.completion import fences, models
from copilot_balancer.cli.env import Env, json_option, note, pass_world, show_json
from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import normalise_label
from copilot_balancer.rules.catalogue import warnings
from copilot_balancer.rules.classify import classify
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.state import restored
from copilot_balancer.rules.types import Nobody
from copilot_balancer.text import duration, iso, printable, wrapped
from copilot_balancer.views.explanation import explain_text, explained, judged_text
from copilot_balancer.views.names import known_models, unknown_fence, unknown_model, unknown_names

if TYPE_CHECKING:
    from copilot_balancer.store.decision_replay import Difference, Replay

_SHOWN_PARTS = 8
"""So many differing parts of one decision are printed."""

# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.argument("model", shell_complete=models)
@click.option("--conversation", metavar="ID", help="The client's id of a conversation, like opencode's ses_...")
@click.option("--fence", metavar="NAME", shell_complete=fences, help="As a request in this fence.")
@json_option
@pass_world
@click.pass_context
def explain(
    context: click.Context, env: Env, model: str, *, conversation: str | None, fence: str | None, as_json: bool
) -> None:
    """Show which account would serve MODEL now, and why.

    Exit code 1: no account can.
    """
    now = env.now()
    loaded = env.settings(with_project=True)
    for warning in loaded.warnings:
        note(warning)
    store = env.store
    decisions = store.read_decisions()
    pool = Pool(config.policy(loaded.settings, decisions), decisions, now)
    memory = restored(store.read_memory(), now)
    pool.remember(memory, now)
    name = conversation_of({"x-session-id": conversation}, None) if conversation else None
    chosen = None if fence is None else normalise_label(fence)
    explanation = pool.explain(model, name, now, chosen)
    written = _written(store.state_path)
    if told := warnings(store.read_catalogue(), decisions.accounts).get(model):
        note(f"{printable(model, 60)}: {told}")
    if as_json:
        show_json({**explained(explanation, now), "state_written_at": None if written is None else iso(written)})
    else:
        click.echo(explain_text(explanation, now))
        _say_how_old(written, now)
    listed = known_models(memory, decisions)
    unknown = [unknown_model(model, listed), unknown_fence(chosen, decisions) if chosen else None]
    for sentence in (*unknown, *unknown_names(config.policy(loaded.settings, decisions), decisions, listed)):
        if sentence:
            note(sentence)
    context.exit(int(isinstance(explanation.decision, Nobody)))


def _written(path: Path) -> float | None:
    """When what was learnt was last written down; None: never."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _say_how_old(written: float | None, now: float) -> None:
    if written is None:
        note("nothing is stored about the accounts yet: this uses your decisions and settings only")
        return
    note(
        f"this uses what was stored {duration(max(now - written, 0.0))} ago; what a proxy serves at this moment, and "
        "options that it was given with --set, are not seen here"
    )


# ── explain-answer ───────────────────────────────────────────────────────────────────────────────────────────────────

_STATUS_LINE = re.compile(rb"HTTP/[0-9.]{1,3} ([0-9]{3})(?: [^\r\n]*)?\r?\n?")
_MOST = 256 * 1024
"""Bytes of an answer that are read; more of one is never looked at."""


@click.command("explain-answer")
@click.option("--bound", is_flag=True, help="As the answer to a request that carries reasoning, ids or signatures.")
@json_option
@pass_world
def explain_answer(env: Env, *, bound: bool, as_json: bool) -> None:
    """Say which rule judges an answer, and what follows.

    The answer is read from standard input as `curl -i` prints it: status line, headers, an empty line, body.
    """
    raw = sys.stdin.buffer.read(_MOST)
    found = _STATUS_LINE.match(raw)
    if found is None:
        raise InvalidInput("this does not begin with a status line like `HTTP/1.1 429 Too Many Requests`")
    head, _, body = raw[found.end() :].replace(b"\r\n", b"\n").partition(b"\n\n")
    if raw[found.end() :][:1] in (b"\r", b"\n"):  # no header at all
        head, body = b"", raw[found.end() :].lstrip(b"\r\n")
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\n"))
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
    own = env.settings(with_project=True).settings.outcomes
    outcome = classify(int(found[1]), headers, body, wall=env.now(), bound=bound, own=own)
    if as_json:
        facts = {name: value for name, value in asdict(outcome).items() if name not in ("rest", "sent")}
        show_json({**facts, "rest": {name: value for name, value in asdict(outcome.rest).items() if value is not None}})
    else:
        click.echo(judged_text(outcome))


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@json_option
@pass_world
@click.pass_context
def replay_command(context: click.Context, env: Env, file: Path | None, as_json: bool) -> None:
    """Run the recorded decisions again and compare them.

    The proxy records them while copilot_record_decisions is on. FILE is by default the newer of its two files.
    """
    # every other command would start later for what these know of the pool's nouns
    from copilot_balancer.store.decision_log import DecisionLog  # noqa: PLC0415
    from copilot_balancer.store.decision_replay import replay  # noqa: PLC0415

    path = file or env.paths.state / DecisionLog.NAME
    place = printable(str(path), 4096)
    try:
        with path.open("rb") as opened:
            done = replay(_lines(opened, 2 * DecisionLog.WAITING_BYTES))
    except FileNotFoundError:
        raise InvalidInput(f"nothing is recorded yet: there is no {place}; set copilot_record_decisions") from None
    except OSError as error:
        raise InvalidInput(f"{place} cannot be read: {error.strerror}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from None
    if as_json:
        show_json({"file": str(path), "same": done.difference is None, **asdict(done)})
    else:
        _tell(done)
    context.exit(int(done.difference is not None))


def _lines(file: BinaryIO, limit: int) -> Iterator[bytes]:
    """Its lines; one that is longer than any of ours comes in pieces, which are none."""
    while raw := file.readline(limit):
        yield raw


def _tell(done: "Replay") -> None:
    numbers = {"decision": done.decisions, "call": done.calls, "run": done.runs}
    counted = ", ".join(f"{number} {name}{'' if number == 1 else 's'}" for name, number in numbers.items())
    if done.difference is not None:
        click.echo(_differing(done.difference))
        click.echo(f"\nUp to there the same: {counted}.")
    else:
        click.echo(f"{'The same as far as it can be read' if done.broken else 'All the same'}: {counted}.")
    for why in done.broken:
        note(printable(why, 400))
    if done.skipped:
        note(f"{done.skipped} lines could not be replayed: they belong to no run that is whole")
    others = [program for program in done.programs if program != __version__]
    if others:
        made = ", ".join(printable(program, 40) for program in others)
        note(f"recorded by copilot-balancer {made}; this is {__version__}, which may decide otherwise on purpose")


def _differing(difference: "Difference") -> str:
    lines = [f"Line {difference.line}: another result of {difference.call}."]
    parts = list(differing_parts("", difference.expected, difference.got))
    for place, expected, got in parts[:_SHOWN_PARTS]:
        lines += ["", f"  {printable(place, 76)}"]
        for name, value in (("recorded", expected), ("now", got)):
            lines.append(wrapped(printable(str(value), 300), f"    {name:8}  ", long_words=False))
    if len(parts) > _SHOWN_PARTS:
        lines += ["", f"  and {len(parts) - _SHOWN_PARTS} more"]
    return "\n".join(lines)


def differing_parts(place: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each place that differs, with what was recorded and what came out; a missing part is None."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in dict.fromkeys([*expected, *got]):
            yield from differing_parts(f"{place}.{key}".lstrip("."), expected.get(key), got.get(key))
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for index, pair in enumerate(zip(expected, got, strict=True)):
            yield from differing_parts(f"{place}[{index}]", *pair)
    elif expected != got:
        yield place, expected, got
