"""What the commands share: the outside world that they use (files, clock, network, terminal), and how they print.

Laws of this file:

1. Results go to stdout, as a table, as lines, or as JSON; hints and warnings go to stderr as notes.
2. Lines are wrapped at 80 columns, so that output looks the same in a terminal, a pipe and a bug report. Only a log,
   one line an entry for programs, is folded to the width of a terminal.
3. Colours are for terminals: none in a pipe, none where ``NO_COLOR`` is set (no-color.org).
4. Nothing here is ever given a token.
"""

import json
import os
import shutil
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

import click

from copilot_balancer import config
from copilot_balancer.cli.clients.client import PORT
from copilot_balancer.github.api import GitHub
from copilot_balancer.store.store import Paths, Store, paths
from copilot_balancer.text import table, wrapped


def _copied(text: str) -> bool:
    """Put `text` into the clipboard; whether that worked."""
    import pyperclip  # noqa: PLC0415 - only one option needs it

    try:
        pyperclip.copy(text)
    except (pyperclip.PyperclipException, OSError):
        return False
    return True


def _stdin_is_terminal() -> bool:
    return sys.stdin.isatty()


def _home() -> Path:
    """Where programs of this user keep their files; without ``HOME`` and an entry in passwd there are none."""
    try:
        return Path.home()
    except RuntimeError:
        return paths(os.environ).state


def _columns() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass(frozen=True)
class Env:
    """The outside world of the commands; the tests and the demo pass their own."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    home: Path = field(default_factory=_home)
    github: GitHub = field(default_factory=GitHub)
    now: Callable[[], float] = time.time
    interactive: Callable[[], bool] = _stdin_is_terminal
    """Whether a person can be asked."""
    folder: Callable[[], Path] = Path.cwd
    """The working directory: a project's settings are there."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    open_page: Callable[[str], bool] = webbrowser.open
    """Show a page in the user's browser; whether that worked."""
    copy: Callable[[str], bool] = _copied
    """Put a text into the clipboard; whether that worked."""
    columns: Callable[[], int | None] = _columns
    """How wide the terminal is that is printed to; None: it is none."""
    zone: tzinfo | None = None
    """The time zone of the times in a log; None: this computer's."""

    @property
    def paths(self) -> Paths:
        """Where our files are."""
        return paths(self.environ)

    @property
    def store(self) -> Store:
        """Our files."""
        return Store(self.paths.state)

    def settings(self, *, with_project: bool = False) -> config.Loaded:
        """The settings of config.toml, and those of the project's file; what mitmproxy is given is not seen here.

        Raises:
            InvalidInput: a value is not allowed; the sentence names file and key.

        """
        return config.load(self.paths.config, self.folder() if with_project else None, {})


pass_world = click.make_pass_decorator(Env, ensure=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
port_option = click.option(
    "-p", "--port", type=click.IntRange(1, 65535), default=PORT, show_default=True, help="The proxy's port."
)


def show_json(value: object) -> None:
    """Print `value` as JSON."""
    click.echo(json.dumps(value, indent=2))


def ask_all[T, R](items: Sequence[T], name: Callable[[T], str], ask: Callable[[T], R]) -> list[R]:
    """`ask` of each item, all at the same time in threads; the results in the order of `items`.

    At a terminal stderr shows which are still awaited. An exception of `ask` is raised when all are done.
    """
    if not items:
        return []
    waiting = [name(item) for item in items]
    shows = sys.stderr.isatty()

    def show() -> None:
        if shows:
            told = f"asking {', '.join(waiting)} ..." if waiting else ""
            click.echo(f"\r\x1b[K{told[: shutil.get_terminal_size().columns - 1]}", nl=False, err=True)

    with ThreadPoolExecutor(len(items)) as threads:
        show()
        futures = {threads.submit(ask, item): name(item) for item in items}
        for done in as_completed(futures):
            waiting.remove(futures[done])
            show()
    return [future.result() for future in futures]


def coloured(text: str, colour: str | None) -> str:
    """`text` in a colour of click's; `click.echo` takes it out again where stdout is no terminal."""
    return click.style(text, fg=colour) if colour and not os.environ.get("NO_COLOR") else text


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under `head`, each column as wide as its widest cell; a cell may be `coloured`."""
    for line in table([head, *rows], measure=lambda cell: len(click.unstyle(cell))):
        click.echo(line)


def show_facts(facts: Mapping[str, str]) -> None:
    """Print names and values, indented, one pair a line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"  {name.ljust(width)}  {value}")


def note(text: str) -> None:
    """Print a hint or a warning to stderr, since a program may read stdout."""
    click.echo(wrapped(text, "note: "), err=True)
