"""``copilot-balancer events``: the finished requests in the request log, printed and filtered.

Laws of this file:

1. One line a request, oldest first, in the words of mitmproxy's event log and in this computer's time, as there; in a
   terminal a long line is folded. Reading changes nothing.
2. ``--json`` prints one object a line, as in the file, so that both a pipe and ``--follow`` work.
3. A filter by name is a shell-like pattern, case-insensitive. ``--last`` counts what the filters leave.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo

import click

from copilot_balancer.cli.completion import labels, models
from copilot_balancer.cli.env import Env, coloured, json_option, note, pass_world
from copilot_balancer.rules.accounts import matches
from copilot_balancer.store.request_log import RequestLogReader
from copilot_balancer.store.request_record import RequestRecord, document
from copilot_balancer.store.unknown_refusals import SHOWN_BYTES, read_unknown
from copilot_balancer.text import folded, iso, printable, wrapped
from copilot_balancer.views.requests import summary

LOOK_EVERY = 0.5
"""Seconds between two looks while following."""
SHOWN = 50

FAILED = frozenset({"refused", "failed", "cut off"})
"""The verdicts of requests that got no answer, or only a part of one."""
_COLOURS = {**dict.fromkeys(FAILED, "red"), "failed over": "yellow"}

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Filter:
    """Which requests are printed; None and False: all."""

    account: str | None = None
    """A pattern over the labels of the accounts that were tried."""
    ids: frozenset[str] = frozenset()
    """The ids of the accounts whose label of now matches `account`."""
    model: str | None = None
    client: str | None = None
    """A pattern over the program in the User-Agent, with or without its version."""
    since: float | None = None
    """Seconds since the epoch."""
    failed: bool = False
    switches: bool = False
    """With `failed`: requests of both kinds."""

    def takes(self, record: RequestRecord) -> bool:
        """Whether `record` is printed."""
        if self.since is not None and record.at < self.since:
            return False
        if self.account is not None and not any(
            one.account_id in self.ids or matches(one.account, [self.account]) for one in record.attempts
        ):
            return False
        if self.model is not None and not _is_any((record.what, record.model), self.model):
            return False
        if self.client is not None and not _is_any((record.client, record.client.partition("/")[0]), self.client):
            return False
        if not (self.failed or self.switches):
            return True
        return (self.failed and record.verdict in FAILED) or (self.switches and len(record.attempts) > 1)


def _is_any(names: Iterable[str | None], pattern: str) -> bool:
    return any(matches(name, [pattern]) for name in names if name)


def _moment(context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds since the epoch of ``1h`` ago, ``30min`` ago, or of a time like ``2026-11-03T14:05`` of this computer."""
    if value is None:
        return None
    env = context.ensure_object(Env)
    found = re.fullmatch(r"(\d{1,9})\s*([a-z]+)", value.strip().lower())
    if found and found[2] in _UNITS:
        return env.now() - int(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=env.zone)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value[:80]!r} is neither a length of time like 30min, 1h, 2d nor a time like 2026-11-03T14:05"
        ) from None


@click.group(invoke_without_command=True)
@click.option("--follow", "-f", is_flag=True, help="Print new requests as they finish, until Ctrl-C.")
@click.option(
    "--account", metavar="LABEL", shell_complete=labels, help="Only requests sent to this account; a pattern."
)
@click.option(
    "--model", metavar="MODEL", shell_complete=models, help="Only requests for this model, or served by it; a pattern."
)
@click.option("--client", metavar="NAME", help="Only requests of this program, like opencode; a pattern.")
@click.option(
    "--since", metavar="TIME", callback=_moment, help="Only requests since then: 30min, 1h, 2d, or 2026-11-03T14:05."
)
@click.option("--failed", is_flag=True, help="Only requests without a whole answer.")
@click.option("--switches", is_flag=True, help="Only requests that more than one account was tried for.")
@click.option(
    "--last",
    "-n",
    type=click.IntRange(0),
    default=SHOWN,
    show_default=True,
    help="Show the last N requests (0 = all).",
)
@json_option
@pass_world
@click.pass_context
def events(
    context: click.Context,
    env: Env,
    *,
    follow: bool,
    account: str | None,
    model: str | None,
    client: str | None,
    since: float | None,
    failed: bool,
    switches: bool,
    last: int,
    as_json: bool,
) -> None:
    """Print the requests that proxies have finished."""
    if context.invoked_subcommand is not None:
        return
    accounts = env.store.read_decisions().accounts if account is not None else ()
    ids = frozenset(one.id for one in accounts if matches(one.label, [account or ""]))
    wanted = Filter(account, ids, model, client, since, failed, switches)
    reader = RequestLogReader(env.paths.state)
    found = [record for record in reader.read() if wanted.takes(record)]
    _print(found[-last:], env, as_json=as_json)
    if not found and not follow:
        note("no request is stored yet" if wanted == Filter() else "no such request is stored")
    with suppress(KeyboardInterrupt):
        while follow:
            env.sleep(LOOK_EVERY)
            _print((record for record in reader.read() if wanted.takes(record)), env, as_json=as_json)


def _print(found: Iterable[RequestRecord], env: Env, *, as_json: bool) -> None:
    for record in found:
        if as_json:
            click.echo(json.dumps(document(record)))
        else:
            line = event_line(record, env.zone)
            click.echo(coloured(folded(line, env.columns(), line.index("  ") + 2), _COLOURS.get(record.verdict)))


def event_line(record: RequestRecord, zone: tzinfo | None) -> str:
    """``2026-11-03 14:05:09  gpt-5 <- work (api.githubcopilot.com) 200 in 812 ms, ...``."""
    return f"{datetime.fromtimestamp(record.at, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}  {summary(record)}"


@events.command("unknown")
@json_option
@pass_world
def unknown(env: Env, *, as_json: bool) -> None:
    """Print the last refusals that no rule knew, for a report.

    Words of your requests, logins, ids and credentials were replaced before they were written down; look through them
    all the same. `copilot_keep_unknown` turns this off.
    """
    found = read_unknown(env.store)
    if as_json:
        click.echo(json.dumps([{**asdict(one), "at": iso(one.at)} for one in found], indent=2))
        return
    if not found:
        note("no refusal of an unknown kind was written down")
    for one in found:
        what = "in a stream" if one.status is None else str(one.status)
        click.echo(f"{iso(one.at)} {printable(one.path, 80)} {what} {printable(one.code, 80)}".rstrip())
        click.echo(wrapped(printable(one.body, SHOWN_BYTES) or "(nothing said)", "    "))
