"""How the commands print, and the outside world that they touch."""

import json
import os
import sys
from pathlib import Path
from threading import Barrier

import click
import pyperclip
import pytest
from hypothesis import given, strategies

from copilot_balancer.cli import env as terminal
from copilot_balancer.cli.env import Env, ask_all, note, show_facts, show_json, show_table
from copilot_balancer.text import bar, day, folded, iso, wrapped

COMMAND = "`copilot-balancer terms accept`"


@given(strategies.lists(strategies.sampled_from(["word", "copilot-balancer", COMMAND, "a", "x" * 30]), max_size=60))
def test_wrapped(words):
    """No line is longer than 80 columns, no word is lost, no command is broken."""
    text = wrapped(" ".join(words), "note: ")

    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.split() == (["note:", *" ".join(words).split()] if words else [])
    assert text.count(COMMAND) == words.count(COMMAND)


def test_wrapped_hangs():
    """Further lines begin under the first one's text."""
    lines = wrapped("word " * 40, "note: ").splitlines()

    assert lines[0].startswith("note: word")
    assert all(line.startswith("      word") for line in lines[1:])


def test_note(capsys):
    """A note goes to stderr, so that stdout stays what a program can read."""
    note("balancing is off")

    assert capsys.readouterr() == ("", "note: balancing is off\n")


def test_table(capsys):
    """Columns are as wide as their widest cell, and no line ends in blanks."""
    show_table(("A", "LONG"), [("xx", "y"), ("x", "")])

    assert capsys.readouterr().out == "A   LONG\nxx  y\nx\n"


def test_facts(capsys):
    """Values stand under each other."""
    show_facts({"a": "1", "long": "2"})

    assert capsys.readouterr().out == "  a     1\n  long  2\n"


def test_json(capsys):
    """JSON is JSON."""
    show_json({"a": [None]})

    assert json.loads(capsys.readouterr().out) == {"a": [None]}


@pytest.mark.parametrize(
    ("width", "shown"),
    [(None, "12:00  one two three"), (20, "12:00  one two three"), (5, "12:00  one two three")],
    ids=["no terminal", "it fits", "at least twenty"],
)
def test_folded(width, shown):
    """A line of a log is folded where a terminal is too narrow for it, below its words, and nowhere else."""
    assert folded("12:00  one two three", width, 7) == shown
    assert folded("12:00  one two three four five", 25, 7) == "12:00  one two three four\n       five"
    assert folded("12:00  one two three four five", 20, 70) == "12:00  one two three\n          four five"


def test_columns(monkeypatch):
    """The width of what is printed to is that of a terminal, or nobody's."""
    monkeypatch.setenv("COLUMNS", "101")
    for answer, columns in ((True, 101), (False, None)):
        monkeypatch.setattr(terminal.sys, "stdout", type("Stdout", (), {"isatty": lambda _, answer=answer: answer})())
        assert Env().columns() == columns


def test_moments():
    """A moment is told in UTC, for people and for programs."""
    assert day(1_790_000_039.99) == "2026-09-21 14:14 UTC"
    assert (day(1_790_000_000.0), iso(1_790_000_000.0)) == ("2026-09-21 14:13 UTC", "2026-09-21T14:13:20Z")


def test_the_real_world(monkeypatch, tmp_path):
    """By itself the outside world is this process's, and showing it does not show the environment."""
    monkeypatch.setenv("COPILOT_BALANCER_HOME", str(tmp_path))
    monkeypatch.setenv("SECRET", "Canary")

    env = Env()

    assert env.environ is os.environ
    assert env.home == Path.home()
    assert env.store.accounts_path == tmp_path / "state" / "accounts.json"
    assert "Canary" not in repr(env)


@pytest.mark.parametrize("answer", [True, False])
def test_interactive(monkeypatch, answer):
    """A person can be asked where stdin is a terminal."""

    class Stdin:
        @staticmethod
        def isatty():
            return answer

    monkeypatch.setattr(terminal.sys, "stdin", Stdin)

    assert Env().interactive() is answer


@pytest.mark.parametrize(
    ("percent", "shown"),
    [
        (0, "[..........]"),
        (0.1, "[#.........]"),
        (50, "[#####.....]"),
        (99.9, "[#########.]"),
        (100, "[##########]"),
        (-7, "[..........]"),
        (250, "[##########]"),
    ],
)
def test_bar(percent, shown):
    """A bar shows a percentage; only what is empty or full looks so."""
    assert bar(percent, 10) == shown


def test_settings(tmp_path):
    """The settings are those of config.toml, and of the project where the user stands when that is asked for."""
    (tmp_path / "ours" / "config").mkdir(parents=True)
    (tmp_path / "ours" / "config" / "config.toml").write_text('fence = "one"\n')
    (tmp_path / ".copilot-balancer.toml").write_text('fence = "two"\n')
    env = Env(environ={"COPILOT_BALANCER_HOME": str(tmp_path / "ours")}, folder=lambda: tmp_path)

    assert env.settings().settings.fence == "one"
    assert env.settings(with_project=True).settings.fence == "two"


def test_ask_all():
    """All are asked at the same time, answers come in the order of the questions, and an error is raised at the end."""
    together = Barrier(3)

    def ask(number):
        together.wait(10)
        return number * 2

    assert ask_all([1, 2, 3], str, ask) == [2, 4, 6]
    assert ask_all([], str, ask) == []
    with pytest.raises(ZeroDivisionError):
        ask_all([1, 0], str, lambda number: 1 / number)


def test_ask_all_shows_what_it_waits_for(monkeypatch, capsys):
    """At a terminal stderr says who has not answered yet, and is empty in the end; in a pipe it stays empty."""
    ask_all(["work"], str, len)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(terminal.sys, "stderr", Tty(sys.stderr))
    ask_all(["work", "acme"], str, len)
    shown = capsys.readouterr().err
    assert "asking work, acme ..." in shown
    assert click.unstyle(shown.rpartition("\r")[2]).replace("\x1b[K", "") == ""


class Tty:
    """A stream that says that it is a terminal."""

    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._stream, name)


def test_a_table_with_colours(capsys):
    """A colour takes no place in a column."""
    show_table(("A", "B"), [(click.style("x", fg="red"), "y"), ("zz", "y")])
    assert click.unstyle(capsys.readouterr().out) == "A   B\nx   y\nzz  y\n"


# ── clipboard ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "worked"), [(None, True), (pyperclip.PyperclipException("no clipboard"), False), (OSError("x"), False)]
)
def test_copy(monkeypatch, error, worked):
    """A text is copied by pyperclip; where that has no clipboard, or its program cannot be run, it says so."""
    given = []

    def copy(text):
        given.append(text)
        if error:
            raise error

    monkeypatch.setattr(pyperclip, "copy", copy)
    assert Env().copy("ABCD-1234") is worked
    assert given == ["ABCD-1234"]
