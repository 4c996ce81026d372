"""``copilot-balancer run``, ``web``, ``console``, ``exec``, ``env``: start the proxy, and run clients through it.

Laws of this file:

1. ``run``, ``web`` and ``console`` replace this process by mitmproxy: signals and the exit code are its own.
2. ``exec`` adds nothing to what a client prints or reads; its exit code is the client's. A proxy that it started ends
   with the client, also when ``exec`` itself is killed (not on Windows, which cannot pass a pipe on like this).
3. What a client needs is a row of ``clients``; no credential of an account is in an environment that is made here.
4. Settings are checked before anything is announced.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import cast

import click

from copilot_balancer import config
from copilot_balancer.cli.clients.client import PORT, Way
from copilot_balancer.cli.clients.environment import BYPASS_VARIABLES, PROXY_VARIABLES, environment, other_proxy
from copilot_balancer.cli.clients.local_proxy import (
    Authority,
    Listener,
    Started,
    command,
    listener,
    own_authority,
    prompt,
    start,
    trust_all,
    trust_more,
    usual_authority,
)
from copilot_balancer.cli.clients.registry import PROXIED, client_named, client_of
from copilot_balancer.cli.completion import users
from copilot_balancer.cli.env import Env, json_option, note, pass_world, port_option, show_json
from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.text import printable

SHELLS = ("bash", "fish", "powershell", "zsh")

as_option = click.option(
    "--as", "user", metavar="NAME", shell_complete=users, help="Only this account, or this fence, serves."
)
client_option = click.option(
    "--client", "name", type=click.Choice([client.name for client in PROXIED]), help="The client that it is for."
)


# ── the proxy ────────────────────────────────────────────────────────────────────────────────────────────────────────

_THROUGH = {"ignore_unknown_options": True}
"""Options that are not ours are passed to mitmproxy."""


def _runs(tool: str) -> Callable[..., None]:
    @port_option
    @click.option("--verbose", is_flag=True, help="Also log each connection.")
    @click.argument("extra", nargs=-1, type=click.UNPROCESSED)
    @pass_world
    def run(env: Env, port: int, verbose: bool, extra: tuple[str, ...]) -> None:
        authority = own_authority(env.paths.state)
        arguments = command(tool, authority, port, extra)
        env.store.read_decisions()
        config.load(env.paths.config, env.folder(), _overrides(extra))
        _must_be_free(env, authority, port)
        authority.prepare()
        authority.create()
        if tool != "mitmproxy":
            click.echo(
                f"Point a client at it, in another terminal:  copilot-balancer exec{_port(port)} -- opencode\n"
                "Ctrl-C stops it.\n",
                err=True,
            )
        become(arguments, prompt(env.environ, verbose=verbose))

    return run


def _overrides(extra: Sequence[str]) -> dict[str, object]:
    """The settings among mitmproxy's arguments: ``--set copilot_NAME=VALUE``; an option of a list may come again."""
    found: dict[str, object] = {}
    given = [word for option, word in pairwise(extra) if option == "--set"]
    given += [word.removeprefix("--set=") for word in extra if word.startswith("--set=copilot_")]
    kinds = {option.name: option.kind for option in config.options()}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name.startswith("copilot_"):
            continue
        if kinds.get(name.removeprefix("copilot_")) == "list":
            found[name] = [*cast("list[str]", found.get(name, [])), value]
        else:
            found[name] = value
    return found


def _must_be_free(env: Env, authority: Authority, port: int) -> None:
    heard = listener(port, authority)
    if heard is Listener.OURS:
        whose = "a proxy of yours runs"
    elif heard is Listener.ANOTHER:
        whose = "a mitmproxy of yours runs" if _by_hand(env, port) else "another program listens"
    else:
        return
    raise InvalidInput(f"{whose} on 127.0.0.1:{port} already: give this one another --port")


def _by_hand(env: Env, port: int) -> bool:
    usual = usual_authority(env.home)
    return usual.certificate.is_file() and listener(port, usual) is Listener.OURS


def _port(port: int) -> str:
    return "" if port == PORT else f" --port {port}"


def become(arguments: list[str], environ: dict[str, str]) -> None:
    """Replace this process by a program. Windows cannot: there it runs as a child, and its exit code is ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        raise click.exceptions.Exit(subprocess.call(arguments, env=environ))  # noqa: S603 - mitmproxy of this Python
    os.execve(arguments[0], arguments, environ)  # noqa: S606 - no shell is wanted


run = click.command(
    "run", context_settings=_THROUGH, help="Run the proxy (mitmdump). Extra arguments are passed to mitmdump."
)(_runs("mitmdump"))

web = click.command("web", context_settings=_THROUGH, help="Run the proxy with mitmweb: requests in a browser.")(
    _runs("mitmweb")
)

console = click.command(
    "console", context_settings=_THROUGH, help="Run the proxy with mitmproxy's console, in the terminal."
)(_runs("mitmproxy"))


# ── the environment of a client ──────────────────────────────────────────────────────────────────────────────────────


@click.command("env")
@click.option("--shell", type=click.Choice(SHELLS), help="The syntax of the output.  [default: the shell of $SHELL]")
@client_option
@port_option
@as_option
@json_option
@pass_world
def env_command(env: Env, *, shell: str | None, name: str | None, port: int, user: str | None, as_json: bool) -> None:
    """Print variables that point a client at the proxy.

    Use it: eval "$(copilot-balancer env)"
    """
    decisions = env.store.read_decisions()
    _check_user(decisions, user)
    authority = own_authority(env.paths.state)
    if listener(port, authority) is not Listener.OURS and _by_hand(env, port):
        authority = usual_authority(env.home)
    authority.create()
    client = client_named(name) if name else None
    way = _way(env, authority, port, user)
    found = environment(
        client,
        way,
        env.environ,
        hosts=_hosts(env, decisions),
        placeholder=client is not None and client.wants_placeholder(env.environ, env.home),
    )
    if client is None:  # what replaces the system's CAs is for those that need it, or have it already
        usual = {*PROXY_VARIABLES, *BYPASS_VARIABLES, "NODE_EXTRA_CA_CERTS"}
        found = {key: value for key, value in found.items() if key in usual or env.environ.get(key)}
    if as_json:
        show_json(found)
    else:
        asked = f" --client {name}" * bool(name) + f" --as {user}" * bool(user) + _port(port)
        click.echo(_script(found, env.environ, shell or _shell(env), f"copilot-balancer env{asked}"))
    if client and client.hint:
        note(client.hint)
    if listener(port, authority) is not Listener.OURS:
        note(f"no proxy of yours runs on 127.0.0.1:{port} yet: `copilot-balancer run{_port(port)}`")


def _shell(env: Env) -> str:
    named = Path(env.environ.get("SHELL", "")).name
    return named if named in SHELLS else "powershell" if os.name == "nt" else "bash"


def _script(variables: Mapping[str, str], before: Mapping[str, str], shell: str, asked: str) -> str:
    """The variables in the words of a shell, and the way back; comments stand last, for those who forget to quote."""
    words = _WORDS[shell]
    old = {name: before[name] for name, value in variables.items() if before.get(name) not in (None, value)}
    new = [name for name in variables if name not in old]
    back = [words.unset(new)] * bool(new) + [words.set(name, value) for name, value in old.items()]
    return "\n".join(
        [
            *(words.set(name, value) for name, value in variables.items()),
            f"# for this shell:  {words.use.format(asked)}",
            f"# and back:        {'; '.join(back)}",
        ]
    )


@dataclass(frozen=True)
class _Words:
    """How a shell says it."""

    set: Callable[[str, str], str]
    unset: Callable[[Sequence[str]], str]
    use: str
    """How what a command prints is run."""


def _fish(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def _powershell(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


_POSIX = _Words(
    lambda name, value: f"export {name}={shlex.quote(value)}",
    lambda names: f"unset {' '.join(names)}",
    'eval "$({})"',
)
_WORDS = {
    "bash": _POSIX,
    "fish": _Words(
        lambda name, value: f"set -gx {name} {_fish(value)}",
        lambda names: f"set -e {' '.join(names)}",
        "{} --shell fish | source",
    ),
    "powershell": _Words(
        lambda name, value: f"$env:{name} = {_powershell(value)}",
        lambda names: f"Remove-Item {','.join(f'Env:{name}' for name in names)}",
        "{} --shell powershell | Out-String | Invoke-Expression",
    ),
    "zsh": _POSIX,
}


def _way(env: Env, authority: Authority, port: int, user: str | None) -> Way:
    return Way(port, trust_more(authority, env.environ), trust_all(authority, env.environ), user)


def _hosts(env: Env, decisions: Decisions) -> frozenset[str]:
    return copilot_hosts({*decisions.domains, *env.settings(with_project=True).settings.hosts})


def _check_user(decisions: Decisions, user: str | None) -> None:
    known = {name: None for account in decisions.accounts for name in (account.fence, account.label)}
    if user is not None and user not in known:
        raise InvalidInput(f"--as: no fence or account is named {user!r} (there are: {', '.join(known) or 'none'})")


# ── a client ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command("exec", context_settings={"allow_interspersed_args": False})
@port_option
@as_option
@client_option
@click.option(
    "--proxy-args",
    default="",
    metavar="ARGS",
    help="Arguments of mitmdump for a new proxy; a running one is then not used.",
)
@click.argument("arguments", metavar="CLIENT [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_world
def exec_command(
    env: Env, *, port: int, user: str | None, name: str | None, proxy_args: str, arguments: tuple[str, ...]
) -> None:
    """Run a client through the proxy, started if none runs.

    Proxy and certificate are set for this client only. A client that holds no login gets a placeholder.
    """
    program = shutil.which(arguments[0], path=env.environ.get("PATH"))
    if program is None:
        raise InvalidInput(f"there is no program {arguments[0]!r} on the PATH")
    client = client_named(name) if name else client_of(arguments[0])
    decisions = env.store.read_decisions()
    _check_user(decisions, user)
    placeholder = client is not None and client.wants_placeholder(env.environ, env.home)
    if not decisions.accounts:
        if placeholder:
            raise InvalidInput(
                f"no account is stored, and {arguments[0]} has no login of its own: run `copilot-balancer start` first"
            )
        note("no account is stored, so requests are sent with the client's own login")
    if client and (warning := client.warning(program, env.environ)):
        note(warning)
    hosts = _hosts(env, decisions)
    with _signals() as signals, _pipe() as pipe, _proxy(env, port, proxy_args, pipe) as (authority, at):
        way = _way(env, authority, at, user)
        added = environment(client, way, env.environ, hosts=hosts, placeholder=placeholder)
        code = _run_client([program, *arguments[1:]], {**env.environ, **added}, signals, pipe)
    raise click.exceptions.Exit(code)


@dataclass
class _Pipe:
    """The pipe whose end ends the proxy; None: not on this system, or no proxy was started."""

    read: int | None
    write: int | None


@contextmanager
def _pipe() -> Iterator[_Pipe]:
    pipe = _Pipe(*os.pipe()) if os.name == "posix" else _Pipe(None, None)
    try:
        yield pipe
    finally:
        for end in (pipe.read, pipe.write):
            if end is not None:
                os.close(end)


@contextmanager
def _proxy(env: Env, port: int, proxy_args: str, pipe: _Pipe) -> Iterator[tuple[Authority, int]]:
    """A proxy of ours: the one on `port`, else one that ends with this context, or with `pipe`."""
    authority = own_authority(env.paths.state)
    if not proxy_args and listener(port, authority) is Listener.OURS:
        yield authority, port
        return
    try:
        extra = shlex.split(proxy_args)
    except ValueError as error:
        raise InvalidInput(f"--proxy-args: {error}") from None
    beyond = other_proxy(env.environ)
    if beyond and not proxy_args:
        note(
            f"HTTPS_PROXY names {printable(beyond)}, which the new proxy does not use by itself: "
            "`--proxy-args '--mode upstream:URL'`"
        )
    started = start(authority, env.paths.state / "logs", env.environ, extra, pipe.read)
    if pipe.read is not None:
        os.close(pipe.read)
        pipe.read = None
    try:
        yield authority, started.port
    finally:
        _end(started)


def _end(started: Started) -> None:
    if started.process.poll() is not None:
        note(f"the proxy ended before the client did (exit code {started.process.returncode}); its log: {started.log}")
    else:
        started.stop()


_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_BY_TERMINAL = ("SIGINT", "SIGQUIT")
"""These a terminal sends to the client as well."""


class _Signals:
    """What becomes of a signal: the client's, once there is one; until then it ends us, and what we started."""

    client: subprocess.Popen[bytes] | None = None

    def arrived(self, number: int, _frame: FrameType | None) -> None:
        """What Python calls."""
        if self.client is None:
            raise click.exceptions.Exit(128 + number)
        if signal.Signals(number).name not in _BY_TERMINAL or not _in_foreground():
            with suppress(ProcessLookupError):
                self.client.send_signal(number)


@contextmanager
def _signals() -> Iterator[_Signals]:
    ours = _Signals()
    numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)]
    before = {number: signal.signal(number, ours.arrived) for number in numbers}
    try:
        yield ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_client(arguments: Sequence[str], environ: Mapping[str, str], signals: _Signals, pipe: _Pipe) -> int:
    """Run a client with our terminal; its exit code, as a shell shows it. It holds our end of `pipe` open as well."""
    handles = () if pipe.write is None else (pipe.write,)
    try:
        signals.client = subprocess.Popen(arguments, env=environ, pass_fds=handles)  # noqa: S603 - what the user asked for
    except OSError as error:
        raise InvalidInput(f"{arguments[0]} cannot be run: {error.strerror}") from None
    code = signals.client.wait()
    return 128 - code if code < 0 else code


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to us, and so to the client too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
