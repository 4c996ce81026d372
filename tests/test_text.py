"""Text for people: wrapped lines and tables."""

from datetime import timedelta, timezone

import pytest
from hypothesis import given, strategies

from copilot_balancer.text import day, folded, table, wrapped

WORDS = strategies.lists(strategies.text("abc-_/é", min_size=1, max_size=30), min_size=1, max_size=20).map(" ".join)


@given(WORDS, strategies.integers(20, 60), strategies.integers(0, 8))
def test_no_line_is_too_long(text, width, hanging):
    """Where long words are broken no line is wider than asked for, and no character is lost."""
    lines = wrapped(text, width=width, hanging=hanging, long_words=False).split("\n")
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(line.startswith(" " * hanging) for line in lines[1:])


def test_a_command_stays_whole():
    """What a person is to copy stands on one line, and so does a path."""
    text = "Then say `copilot-balancer accounts clear work` and look at /a/very/long/path/that/is/wider/than/a/line"
    assert wrapped(text, "note: ", 40).split("\n") == [
        "note: Then say",
        "      `copilot-balancer accounts clear work`",
        "      and look at",
        "      /a/very/long/path/that/is/wider/than/a/line",
    ]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        pytest.param(None, "10:00  one two three four five", id="no terminal"),
        pytest.param(80, "10:00  one two three four five", id="it fits"),
        pytest.param(20, "10:00  one two three\n       four five", id="folded"),
    ],
)
def test_folded(width, shown):
    """A line for a pipe stays one; in a terminal it hangs below its second column."""
    assert folded("10:00  one two three four five", width, 7) == shown


def test_a_table():
    """Columns are as wide as their widest cell, numbers to the right where asked for, nothing trails."""
    rows = [("account", "left"), ("work", "7"), ("a longer one", "100"), ("x", "")]
    assert table(rows, right=[1]) == ["account       left", "work             7", "a longer one   100", "x"]
    assert table(rows, measure=lambda cell: len(cell) * 2)[1] == "work                  7"


def test_moments_are_on_one_clock():
    """A moment is told as the log tells it: on the computer's clock, whose name is said."""
    assert day(1_790_000_000.0, timezone(timedelta(hours=2), "CEST")) == "2026-09-21 16:13 CEST"
