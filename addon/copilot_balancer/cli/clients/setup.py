"""``copilot-balancer setup``: write what a client needs into the client's own files, and undo that.

Laws of this file:

1. Only what was asked for is written, and it is shown; ``--dry-run`` writes nothing.
2. A real login is replaced only with ``--replace``, and never lost: the old content is kept until ``--undo``.
3. What cannot be done here is shown as steps, and what was not tried is called so.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from copilot_balancer.cli.clients.changes import Changes, is_written
from copilot_balancer.cli.clients.client import Client, Record, SetupRequest, Way
from copilot_balancer.cli.clients.files import read
from copilot_balancer.cli.clients.local_proxy import own_authority, trust_more
from copilot_balancer.cli.clients.registry import CLIENTS, client_named
from copilot_balancer.cli.env import Env, note, pass_world, port_option
from copilot_balancer.errors import InvalidInput
from copilot_balancer.text import wrapped


@click.command("setup")
@click.argument("client", type=click.Choice([client.name for client in CLIENTS if client.plan]))
@port_option
@click.option("--replace", is_flag=True, help="Replace a real login; it is kept for --undo.")
@click.option("--undo", is_flag=True, help="Restore what was there before.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@pass_world
def setup(env: Env, *, client: str, port: int, replace: bool, undo: bool, dry_run: bool) -> None:
    """Write what a client needs into its own files, or undo that."""
    changes, row = Changes(env.paths.state / "setup"), client_named(client)
    record = changes.record(client)
    if undo:
        undo_setup(env, changes, row, record, dry_run=dry_run)
        return
    if record is not None and is_written(record, read(Path(record.path))):
        click.echo(f"{client} is set up already, in {record.path}.\n\nTo undo: {_undo_command(client)}")
        return
    authority = own_authority(env.paths.state)
    if not dry_run:
        authority.create()
    trusted = authority.certificate if dry_run else trust_more(authority, env.environ)
    assert row.plan is not None
    plan = row.plan(SetupRequest(env.environ, env.home, sys.platform, Way(port, trusted, None), replace))
    if plan.path is None:
        click.echo(wrapped(plan.done))
    elif read(plan.path) == plan.after:
        click.echo(f"{client} has what it needs already, in {plan.path}.")
    elif record is not None:
        raise InvalidInput(
            f"{record.path} was changed since it was set up, and its older content is still kept: "
            f"`{_undo_command(client)}` first"
        )
    elif dry_run:
        click.echo(f"Would write to {plan.path}:\n\n{_indented(plan.shown)}\n\nNothing was written.")
        return
    else:
        record = changes.apply(client, plan.path, plan.after, plan.note)
        click.echo(f"Wrote to {plan.path}:\n\n{_indented(plan.shown)}\n")
        click.echo(wrapped(plan.done))
    _show_steps(plan.steps)
    if record is not None:
        click.echo(f"\nTo undo: {_undo_command(client)}")


def _undo_command(client: str) -> str:
    return f"copilot-balancer setup {client} --undo"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _show_steps(steps: Sequence[str]) -> None:
    click.echo("\nNext:" if len(steps) > 1 else "")
    for number, step in enumerate(steps, 1):
        click.echo(wrapped(step, f"  {number}. " if len(steps) > 1 else ""))


def undo_setup(env: Env, changes: Changes, client: Client, record: Record | None, *, dry_run: bool) -> None:
    """Undo the change that `record` describes, if there is one, and print what was done.

    Raises:
        BalancerError: it cannot be undone; nothing was changed.

    """
    if record is None:
        click.echo(f"Nothing was written for {client.name}, so there is nothing to undo.")
        return
    if dry_run:
        what = "delete" if record.before is None else "restore the old content of"
        click.echo(f"Would {what} {record.path}. Nothing was changed.")
        return
    without = partial(client.without, Path(record.path), record) if client.without else None
    click.echo(f"{changes.undo(client.name, record, without)}.")
    if record.before is not None and client.own_login(env.environ, env.home):
        note(f"{client.name} has its own login again")
