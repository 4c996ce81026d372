"""``copilot-balancer uninstall``: undo the set-ups of clients, remove the service file, the accounts and the settings.

Laws of this file:

1. ``--dry-run`` changes nothing and shows all of it; without it a person confirms, or ``--yes`` is given.
2. A set-up that cannot be undone stops the removal of the folder that holds the old content.
3. Nothing is removed while a proxy runs. Only files with our names are deleted; a folder that holds something else
   stays.
4. GitHub is not asked: which tokens to revoke there is said, since only the user can.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from copilot_balancer.cli.clients.changes import Changes
from copilot_balancer.cli.clients.registry import CLIENTS
from copilot_balancer.cli.clients.setup import undo_setup
from copilot_balancer.cli.env import Env, note, pass_world
from copilot_balancer.cli.service import service_file
from copilot_balancer.config import CONFIG_FILE
from copilot_balancer.errors import BalancerError, InvalidInput, StoreError
from copilot_balancer.rules.accounts import Account
from copilot_balancer.store.running_proxies import read_live
from copilot_balancer.text import printable, wrapped

_STATE_FILES = (
    *(f"{name}.json*" for name in ("accounts", "state", "models", "owners")),
    *(f"{name}{end}" for name in ("events", "decisions") for end in (".jsonl*", ".lock", ".1.jsonl")),
    "ledger.sqlite3*",
    *("store.lock", "service.log", "live", "logs", "setup", "mitmproxy", ".gitignore", "CACHEDIR.TAG"),
)
"""Patterns of the names in the state folder that this program makes."""


@click.command("uninstall")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Remove without being asked.")
@pass_world
def uninstall(env: Env, *, dry_run: bool, yes: bool) -> None:
    """Undo set-ups; remove service, accounts and settings.

    The program itself is removed by whatever installed it: deleting the checkout, `uv tool uninstall copilot-balancer`
    or `pipx uninstall copilot-balancer`.
    """
    accounts = _accounts(env)
    folders = [folder for folder in dict.fromkeys((env.paths.state, env.paths.config)) if folder.is_dir()]
    if not dry_run:
        _must_not_run(env)
        if not yes:
            _confirm(env, accounts, folders)
    _undo_setups(env, dry_run=dry_run)
    service = service_file(env)
    if service is not None:
        click.echo(f"{'Would delete' if dry_run else 'Deleted'} {service.path}.")
        click.echo(wrapped(f"If the service was started, stop it: `{service.end}`"))
        if not dry_run:
            service.path.unlink()
    for folder in folders:
        if dry_run:
            click.echo(f"Would delete {folder} ({_content(env, folder)}).")
        else:
            content = _content(env, folder)
            click.echo(f"Deleted {folder if _delete(env, folder) else f'our files in {folder}'} ({content}).")
    if not folders and service is None:
        click.echo("Nothing is stored on this computer.")
    _tell_what_is_left(accounts, folders)


def _accounts(env: Env) -> tuple[Account, ...]:
    try:
        return env.store.read_decisions().accounts
    except StoreError as error:
        note(f"which accounts are stored cannot be read: {error}")
        return ()


def _must_not_run(env: Env) -> None:
    try:
        running = read_live(env.paths.state)
    except StoreError:
        return
    if running:
        pids = ", ".join(str(proxy.pid) for proxy in running)
        raise InvalidInput(f"a proxy is running (process {pids}): stop it first")


def _confirm(env: Env, accounts: tuple[Account, ...], folders: list[Path]) -> None:
    if not env.interactive():
        raise InvalidInput("not a terminal: pass --yes to remove everything; --dry-run shows what that is")
    labels = ", ".join(account.label for account in accounts) or "no account"
    click.echo(f"This deletes {' and '.join(map(str, folders)) or 'nothing'}: {labels}, logs, settings.", err=True)
    if not click.confirm("Remove everything?", default=False, err=True):
        raise InvalidInput("nothing was removed")


def _undo_setups(env: Env, *, dry_run: bool) -> None:
    changes = Changes(env.paths.state / "setup")
    for client in CLIENTS:
        if client.plan is None:
            continue
        record = changes.record(client.name)
        if record is not None:
            undo_setup(env, changes, client, record, dry_run=dry_run)


def _content(env: Env, folder: Path) -> str:
    parts = ["accounts, logs, the proxy's CA"] if folder == env.paths.state else []
    if folder == env.paths.config and (folder / CONFIG_FILE).is_file():
        parts.append("settings")
    return ", ".join(parts) or "empty"


def _ours(env: Env, folder: Path) -> Iterator[Path]:
    """The files and folders in one of our folders that this program made."""
    for pattern in _STATE_FILES if folder == env.paths.state else (CONFIG_FILE,):
        yield from folder.glob(pattern)


def _delete(env: Env, folder: Path) -> bool:
    """Delete our files in a folder of ours, and the folder where nothing else is in it; whether it is gone."""
    try:
        for path in list(_ours(env, folder)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        others = sorted(path.name for path in folder.iterdir())
        if not others:
            folder.rmdir()
        else:
            note(f"{folder} stays: it holds {printable(', '.join(others))}, which copilot-balancer did not write")
    except OSError as error:
        raise BalancerError(f"{folder} cannot be deleted: {error.strerror}") from None
    return not others


def _tell_what_is_left(accounts: tuple[Account, ...], folders: list[Path]) -> None:
    hosts = dict.fromkeys(account.host for account in accounts)
    steps = [
        f"GitHub accepts the stored tokens until you revoke them: https://{host}/settings/applications"
        for host in hosts
    ]
    if folders:
        steps.append("Where you made a system or a browser trust the proxy's CA: certs-howto.md says how to undo that")
    steps.append(f"To remove the program: what installed it into {Path(sys.prefix)}, or delete that folder")
    click.echo("\nLeft to you:")
    for number, step in enumerate(steps, 1):
        click.echo(wrapped(step, f"  {number}. "))
