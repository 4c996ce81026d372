"""How the demo prints: at most 80 columns, names in colour on a terminal, words of an answer as they come.

Laws of this file:

1. It prints what it is given, and knows nothing of the story.
2. A command is printed on one line, however long, so that it can be copied.
"""

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import click

WIDTH = 80


def echo(text: str, *, end: bool = True) -> None:
    """Print `text` as it is."""
    click.echo(text, nl=end, color=False if "NO_COLOR" in os.environ else None)


def say(text: str = "") -> None:
    """Print a paragraph."""
    echo(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def title(text: str) -> None:
    """Print a heading."""
    echo(click.style(text, bold=True))


def account(name: str, words: str) -> None:
    """Print what there is to say about an account."""
    echo(f"  {click.style(f'{name:<10}', fg='cyan')}{words}")


def command(line: str) -> None:
    """Print something to type."""
    echo(f"  {click.style(line, fg='green')}")


def path_line() -> str | None:
    """What to type so that a shell finds this very program; None: it finds it already."""
    own = Path(sys.executable).absolute().parent
    found = shutil.which("copilot-balancer")
    return None if found and Path(found).parent == own else f"export PATH={shlex.quote(str(own))}:$PATH"


def times(count: str, what: str) -> str:
    """``1 attempt``, ``3 attempts``."""
    return f"{count} {what}" if count == "1" else f"{count} {what}s"


def _prefix(who: str) -> str:
    return click.style(f"  {who:<8}", fg="cyan" if who == "client" else "yellow")


def aside(who: str, text: str) -> None:
    """Print what a program said."""
    for line in textwrap.wrap(text, WIDTH - 10, break_long_words=False, break_on_hyphens=False):
        echo(_prefix(who) + line)


class Words:
    """Words that grow on the screen, broken at its edge."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._column = 0
        self._gap = ""
        """The white space before the next word."""

    def add(self, piece: str) -> None:
        """Print a piece now."""
        word = piece.rstrip()
        if self._column == 0 or self._column + len(self._gap + word) > WIDTH:
            echo(("\n" if self._column else "") + _prefix(self._who), end=False)
            self._column, self._gap = 10, ""
        echo(self._gap + word, end=False)
        self._column += len(self._gap + word)
        self._gap = piece[len(word) :]

    def end(self) -> None:
        """The stream is over."""
        echo("")
