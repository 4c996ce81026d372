"""``copilot-balancer service``: a systemd unit or a launchd agent that runs the proxy for this user.

Laws of this file:

1. A file is written and shown; nothing is started, enabled or stopped here.
2. No secret stands in it: the proxy reads its accounts itself.
3. A file that is not ours is neither replaced nor removed.
"""

import plistlib
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from copilot_balancer.cli.clients.client import PORT
from copilot_balancer.cli.env import Env, note, pass_world, port_option
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.store.folder import replace_file
from copilot_balancer.text import wrapped

NAME = "copilot-balancer"
_MARK = "Written by `copilot-balancer service install`"

OPEN_FILES = 65_536
"""Idle connections alone can use up the usual 1024 or 256 (docs/security.md#who-may-use-the-proxy)."""

KEPT_VARIABLES = ("COPILOT_BALANCER_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
"""The variables that say where accounts and settings are stored; the service must find the same ones."""


@dataclass(frozen=True)
class Service:
    """A file that makes a system run the proxy."""

    path: Path
    content: str
    begin: str
    """The command that starts it, now and at each login."""
    end: str
    """The command that ends it."""


def systemd_unit(env: Env, command: list[str], variables: dict[str, str]) -> Service:
    """A unit of the user's own systemd. Source: systemd.service(5), systemd.exec(5), systemd.unit(5)."""
    config = Path(env.environ.get("XDG_CONFIG_HOME") or env.home / ".config")
    unit = f"{NAME}.service"
    lines = [
        f"# {_MARK}; `copilot-balancer service remove` deletes it.",
        "[Unit]",
        "Description=Copilot requests over several accounts of your own",
        "",
        "[Service]",
        f"ExecStart={' '.join(_unit_word(word, command=True) for word in command)}",
        *(f"Environment={_unit_word(f'{name}={value}')}" for name, value in variables.items()),
        "Restart=on-failure",
        "RestartSec=5",
        f"LimitNOFILE={OPEN_FILES}",
        "LimitCORE=0",
        "NoNewPrivileges=yes",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return Service(
        config / "systemd" / "user" / unit,
        "\n".join(lines),
        f"systemctl --user daemon-reload && systemctl --user enable --now {unit}",
        f"systemctl --user disable --now {unit}",
    )


def _unit_word(text: str, *, command: bool = False) -> str:
    """A word of a unit file, in quotes. ``%`` begins a specifier, and ``$`` a variable in a command."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{quoted.replace("$", "$$") if command else quoted}"'


def launchd_agent(env: Env, command: list[str], variables: dict[str, str]) -> Service:
    """An agent of the user's own launchd. Source: launchd.plist(5), launchctl(1)."""
    path = env.home / "Library" / "LaunchAgents" / f"{NAME}.plist"
    log = str(env.paths.state / "service.log")
    content = plistlib.dumps(
        {
            "Label": NAME,
            "ProgramArguments": command,
            "EnvironmentVariables": variables,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES, "Core": 0},
            "HardResourceLimits": {"NumberOfFiles": OPEN_FILES, "Core": 0},
            "Umask": 0o077,
            "StandardOutPath": log,
            "StandardErrorPath": log,
        },
        sort_keys=False,
    ).decode()
    head, doctype, rest = content.split("\n", 2)
    marked = f"{head}\n{doctype}\n<!-- {_MARK}; `copilot-balancer service remove` deletes it. -->\n{rest}"
    where = shlex.quote(str(path))
    return Service(path, marked, f"launchctl bootstrap gui/$UID {where}", f"launchctl bootout gui/$UID/{NAME}")


_MAKERS: dict[str, Callable[[Env, list[str], dict[str, str]], Service]] = {
    "linux": systemd_unit,
    "darwin": launchd_agent,
}


def _service(env: Env, port: int) -> Service:
    make = _MAKERS.get(sys.platform)
    if make is None:
        raise InvalidInput(
            "this system has neither systemd nor launchd: let it run `copilot-balancer run` at login by its own means "
            '(Windows: a task of the Task Scheduler, with the trigger "At log on")'
        )
    program = Path(sys.executable).with_name("copilot-balancer")
    variables = {name: env.environ[name] for name in KEPT_VARIABLES if env.environ.get(name)}
    return make(env, [str(program), "run", "--port", str(port)], variables)


def service_file(env: Env) -> Service | None:
    """The service file that was written here; None: there is none.

    Raises:
        InvalidInput: a file stands there that is not ours.

    """
    if sys.platform not in _MAKERS:
        return None
    made = _service(env, PORT)
    return made if _ours(made.path) is not None else None


@click.group("service")
def service() -> None:
    """Let systemd or launchd run the proxy."""


dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


@service.command("install")
@port_option
@dry_run_option
@pass_world
def install(env: Env, port: int, dry_run: bool) -> None:
    """Write the service file; nothing is started."""
    made = _service(env, port)
    old = _ours(made.path)
    if old == made.content:
        click.echo(f"{made.path} is there already.")
    elif dry_run:
        click.echo(f"Would write {made.path}:\n")
    else:
        _write(made.path, made.content)
        click.echo(f"Wrote {made.path}:\n")
    if old != made.content:
        click.echo("\n".join(f"    {line}".rstrip() for line in made.content.splitlines()))
    click.echo(f"\nStart it, now and at each login:\n\n    {made.begin}")
    if sys.platform == "darwin" and not dry_run:
        note("launchd starts the agents in this folder at your next login by itself")


@service.command("remove")
@dry_run_option
@pass_world
def remove(env: Env, dry_run: bool) -> None:
    """Delete the service file; nothing is stopped."""
    made = _service(env, PORT)
    if _ours(made.path) is None:
        click.echo(f"There is no {made.path}.")
        return
    if dry_run:
        click.echo(f"Would delete {made.path}.")
    else:
        made.path.unlink()
        click.echo(f"Deleted {made.path}.")
    click.echo(wrapped(f"If it was started, stop it: `{made.end}`"))


def _ours(path: Path) -> str | None:
    """The content of the file; None: there is none."""
    try:
        content = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BalancerError(f"{path} cannot be read: {error.strerror}") from None
    if _MARK not in content:
        raise InvalidInput(f"{path} was not written by copilot-balancer, so it is left alone")
    return content


def _write(path: Path, content: str) -> None:
    try:
        replace_file(path, content.encode(), 0o644)
    except OSError as error:
        raise BalancerError(f"{path} cannot be written: {error.strerror}") from None
