"""How the commands print, and the outside world that they touch."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_balancer import terminal
from copilot_balancer.terminal import World, day, iso, note, show_facts, show_json, show_table, wrapped

COMMAND = "`copilot-balancer terms accept`"


@given(st.lists(st.sampled_from(["word", "copilot-balancer", COMMAND, "a", "x" * 30]), max_size=60))
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


def test_moments():
    """A moment is told in UTC, for people and for programs."""
    assert (day(1_790_000_000.0), iso(1_790_000_000.0)) == ("2026-09-21 14:13 UTC", "2026-09-21T14:13:20Z")


def test_the_real_world(monkeypatch, tmp_path):
    """By itself the outside world is this process's, and showing it does not show the environment."""
    monkeypatch.setenv("COPILOT_BALANCER_HOME", str(tmp_path))
    monkeypatch.setenv("SECRET", "Canary")

    world = World()

    assert world.environ is os.environ
    assert world.home == Path.home()
    assert world.store.accounts_path == tmp_path / "state" / "accounts.json"
    assert "Canary" not in repr(world)


@pytest.mark.parametrize("answer", [True, False])
def test_interactive(monkeypatch, answer):
    """A person can be asked where stdin is a terminal."""

    class Stdin:
        @staticmethod
        def isatty():
            return answer

    monkeypatch.setattr(terminal.sys, "stdin", Stdin)

    assert World().interactive() is answer
