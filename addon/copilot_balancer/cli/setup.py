"""``copilot-balancer setup``: write into a client's own files what it needs, and take it back.

Laws of this file:

1. Only what was asked for is written, and it is told before or after; ``--dry-run`` writes nothing.
2. A real login is not replaced unasked, and never lost: what stood there is kept until ``--undo``.
3. What cannot be done here is told as steps, and what was not tried is called so.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from copilot_balancer.cli.clients.changes import Changes, Record
from copilot_balancer.cli.clients.copilot_cli import copilot_cli_login
from copilot_balancer.cli.clients.editors import (
    neovim_plugin,
    neovim_plugin_file,
    vscode_settings_file,
    with_vscode_proxy,
    without_vscode_proxy,
)
from copilot_balancer.cli.clients.environment import PORT, Way
from copilot_balancer.cli.clients.files import Login, read
from copilot_balancer.cli.clients.local_proxy import own_authority, trust_more
from copilot_balancer.cli.clients.opencode import (
    opencode_logins,
    opencode_logins_file,
    with_opencode_login,
    without_opencode_login,
)
from copilot_balancer.cli.env import Env, note, pass_world
from copilot_balancer.errors import InvalidInput
from copilot_balancer.text import wrapped


@dataclass(frozen=True)
class Plan:
    """What is to be done for a client."""

    path: Path | None
    """The file that is written; None: none has to be."""
    after: bytes
    """What is to stand there."""
    shown: str
    """The part of that which is ours, for people; the rest may be secret."""
    done: str
    """What it is for, as a sentence."""
    steps: tuple[str, ...]
    """What is left to the user."""
    note: str = ""
    """Kept for the way back."""


@dataclass(frozen=True)
class Asked:
    """How a client is to be set up."""

    env: Env
    way: Way
    replace: bool


def _opencode(asked: Asked) -> Plan:
    env = asked.env
    path = opencode_logins_file(env.environ, env.home)
    before = read(path)
    held = opencode_logins(path)
    if held.copilot is Login.OWN and not asked.replace:
        raise InvalidInput(
            f"opencode has a login for GitHub Copilot of its own in {path}, and that works through the proxy as it is. "
            "To keep its token in the store alone: `copilot-balancer accounts import --from opencode`, then say "
            "--replace here"
        )
    others = f" Its {held.others} logins of other providers stay as they are." if held.others else ""
    return Plan(
        path,
        before if before is not None and held.copilot is Login.PLACEHOLDER else with_opencode_login(path, before),
        '"github-copilot": the placeholder, which is nobody\'s token',
        f"With it opencode offers Copilot's models.{others}",
        (f"Run it through the proxy: `copilot-balancer exec{_port(asked.way)} -- opencode`",),
    )


def _copilot_cli(asked: Asked) -> Plan:
    env, port = asked.env, _port(asked.way)
    own = copilot_cli_login(env.environ, env.home)
    if own:
        how = f"It has a login of its own ({own}), which is used as it is; its requests go on with your accounts."
    else:
        how = (
            "It has no login of its own that can be seen here, so it gets the placeholder. GitHub refuses that, of "
            "which the CLI warns: prompts are answered, but MCP servers that need GitHub's policy, and what acts as a "
            "person (GitHub's MCP server, cloud sessions), are not there. For those, `/login` with an account of yours."
        )
    return Plan(
        None,
        b"",
        "",
        f"The Copilot CLI needs no file of its own to be changed: its environment is enough. {how}",
        (
            f"Run it through the proxy: `copilot-balancer exec{port} -- copilot`",
            f'Or for a whole shell: `eval "$(copilot-balancer env --client copilot-cli{port})"`',
        ),
    )


def _vscode(asked: Asked) -> Plan:
    env, url = asked.env, asked.way.url
    path = vscode_settings_file(env.environ, env.home, sys.platform)
    extensions = (
        "With it VS Code's extensions, Copilot among them, go through the proxy, and reach nothing while it does not "
        "run. This was not tried with VS Code itself."
    )
    trust = (
        f"Let it trust the proxy's certificate: close VS Code and start it with `NODE_EXTRA_CA_CERTS={asked.way.more} "
        "code`; if that is not enough, certs-howto.md says how the system can"
    )
    login = "Sign in to GitHub in VS Code with an account of yours: it asks GitHub itself, so no placeholder will do"
    return Plan(
        path,
        with_vscode_proxy(path, read(path), url),
        f'"http.proxy": "{url}"',
        extensions,
        (_keep_running(asked.way), trust, login),
        note=url,
    )


def _neovim(asked: Asked) -> Plan:
    env, way = asked.env, asked.way
    path = neovim_plugin_file(env.environ, env.home, sys.platform)
    after = neovim_plugin(way.url, way.more)
    if read(path) not in (None, after):
        raise InvalidInput(f"{path} is there already and says something else: move it away first")
    plugins = (
        "With it copilot.vim, copilot.lua and what else reads g:copilot_proxy go through the proxy. This was tried "
        "with Neovim and with the language server that these plugins start, but not with the plugins."
    )
    login = (
        "Log in with the plugin as always, with an account of yours: its language server exchanges that login at "
        "GitHub itself, so no placeholder will do"
    )
    return Plan(path, after, after.decode().rstrip(), plugins, (_keep_running(way), login))


def _keep_running(way: Way) -> str:
    port = _port(way)
    return f"Keep the proxy running: `copilot-balancer run{port}`, or `copilot-balancer service install{port}`"


PLANS: Mapping[str, Callable[[Asked], Plan]] = {
    "opencode": _opencode,
    "copilot-cli": _copilot_cli,
    "vscode": _vscode,
    "neovim": _neovim,
}


def _port(way: Way) -> str:
    return "" if way.port == PORT else f" --port {way.port}"


@click.command("setup")
@click.argument("client", type=click.Choice(list(PLANS)))
@click.option(
    "-p", "--port", type=click.IntRange(1, 65535), default=PORT, show_default=True, help="Where the proxy listens."
)
@click.option("--replace", is_flag=True, help="Take the place of a real login, which is kept for --undo.")
@click.option("--undo", is_flag=True, help="Take back what was written.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@pass_world
def setup(env: Env, *, client: str, port: int, replace: bool, undo: bool, dry_run: bool) -> None:
    """Prepare a client: write what it needs into its own files."""
    changes = Changes(env.paths.state / "setup")
    record = changes.record(client)
    if undo:
        _undo(changes, client, record, dry_run=dry_run)
        return
    if record is not None and record.is_in(read(Path(record.path))):
        click.echo(f"{client} is set up already, in {record.path}.\n\nTake it back: {_undo_words(client)}")
        return
    authority = own_authority(env.paths.state)
    if not dry_run:
        authority.create()
    trusted = authority.certificate if dry_run else trust_more(authority, env.environ)
    plan = PLANS[client](Asked(env, Way(port, trusted, None), replace))
    if plan.path is None:
        click.echo(wrapped(plan.done))
    elif read(plan.path) == plan.after:
        click.echo(f"{client} has what it needs already, in {plan.path}.")
    elif record is not None:
        raise InvalidInput(
            f"{record.path} was changed since it was set up here, and what stood there before is still kept: "
            f"`{_undo_words(client)}` first"
        )
    elif dry_run:
        click.echo(f"Would write to {plan.path}:\n\n{_indented(plan.shown)}\n\nNothing was written.")
        return
    else:
        record = changes.apply(client, plan.path, plan.after, plan.note)
        click.echo(f"Wrote to {plan.path}:\n\n{_indented(plan.shown)}\n")
        click.echo(wrapped(plan.done))
    _tell_steps(plan.steps)
    if record is not None:
        click.echo(f"\nTake it back: {_undo_words(client)}")


def _undo_words(client: str) -> str:
    return f"copilot-balancer setup {client} --undo"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _tell_steps(steps: Sequence[str]) -> None:
    click.echo("\nNext:" if len(steps) > 1 else "")
    for number, step in enumerate(steps, 1):
        click.echo(wrapped(step, f"  {number}. " if len(steps) > 1 else ""))


def _undo(changes: Changes, client: str, record: Record | None, *, dry_run: bool) -> None:
    if record is None:
        click.echo(f"Nothing was written for {client}, so there is nothing to take back.")
        return
    if dry_run:
        what = "delete" if record.before is None else "give back what stood before in"
        click.echo(f"Would {what} {record.path}. Nothing was changed.")
        return
    path = Path(record.path)
    without: dict[str, Callable[[bytes], bytes]] = {
        "opencode": partial(_without_opencode_login, path, record),
        "vscode": partial(_without_vscode_proxy, path, record),
    }
    click.echo(f"{changes.undo(client, record, without.get(client))}.")
    if client == "opencode" and record.before is not None and opencode_logins(path).copilot is Login.OWN:
        note("opencode holds its own login again")


def _without_opencode_login(path: Path, record: Record, now: bytes) -> bytes:
    return without_opencode_login(path, now, record.before)


def _without_vscode_proxy(path: Path, record: Record, now: bytes) -> bytes:
    return without_vscode_proxy(path, now, record.note)
