"""``copilot-balancer events``: the finished requests that proxies wrote down, printed and filtered.

Laws of this file:

1. One line an event, oldest first, in the words of mitmproxy's event log and at this computer's time, as there; in a
   terminal a long one is folded. Nothing is changed by reading.
2. ``--json`` prints one object a line, as in the file, so that both a pipe and ``--follow`` work.
3. A filter is a shell-like pattern, case-insensitive. ``--last`` counts what the filters leave.
"""

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, tzinfo

import click

from copilot_balancer.cli.env import Env, json_option, note, pass_world
from copilot_balancer.rules.accounts import matches
from copilot_balancer.store.request_log import RequestLogReader
from copilot_balancer.store.request_record import RequestRecord, document
from copilot_balancer.text import folded
from copilot_balancer.views.requests import summary

LOOK_EVERY = 0.5
"""Seconds between two looks while following."""
SHOWN = 50


@click.group(invoke_without_command=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--account", metavar="LABEL", help="Only requests that this account served, or refused; a pattern.")
@click.option("--model", metavar="MODEL", help="Only requests for this model, or served by it; a pattern.")
@click.option("--last", "-n", type=click.IntRange(0), default=SHOWN, show_default=True, help="So many; 0: all.")
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
    last: int,
    as_json: bool,
) -> None:
    """Print the requests that proxies have finished."""
    if context.invoked_subcommand is not None:
        return
    reader = RequestLogReader(env.paths.state)
    accounts = env.store.read_decisions().accounts if account is not None else ()
    known = {one.id for one in accounts if matches(one.label, [account or ""])}
    wanted = _wanted(reader.read(), account, known, model)
    _print(wanted[-last:], env, as_json=as_json)
    if not wanted and not follow:
        note("no such request was written down" if account or model else "no request was written down yet")
    with suppress(KeyboardInterrupt):
        while follow:
            env.sleep(LOOK_EVERY)
            _print(_wanted(reader.read(), account, known, model), env, as_json=as_json)


def _wanted(
    found: Iterable[RequestRecord], account: str | None, known: Collection[str], model: str | None
) -> list[RequestRecord]:
    """The events that the filters leave; `known`: ids of accounts that are called so now, whatever they were called."""
    return [
        event
        for event in found
        if (
            account is None or any(one.account_id in known or matches(one.account, [account]) for one in event.attempts)
        )
        and (model is None or any(matches(name, [model]) for name in (event.what, event.model) if name))
    ]


def _print(found: Iterable[RequestRecord], env: Env, *, as_json: bool) -> None:
    for event in found:
        if as_json:
            click.echo(json.dumps(document(event)))
        else:
            line = event_line(event, env.zone)
            click.echo(folded(line, env.columns(), line.index("  ") + 2))


def event_line(event: RequestRecord, zone: tzinfo | None) -> str:
    """``2026-11-03 14:05:09  gpt-5 <- work (api.githubcopilot.com) 200 in 812 ms, ...``."""
    return f"{datetime.fromtimestamp(event.at, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}  {summary(event)}"
