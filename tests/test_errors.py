"""The errors: one base for what a user is told, and one way to show foreign text."""

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer import errors
from copilot_balancer.errors import BalancerError, InvalidInput, StoreBusy, StoreError, UpstreamError
from copilot_balancer.text import printable


def test_one_base():
    """Whatever a user is told can be caught by one name, and what the user gave wrong is also a ValueError."""
    for kind in (InvalidInput, StoreError, StoreBusy, UpstreamError):
        assert issubclass(kind, BalancerError)
        assert kind.__name__ in str(errors.__doc__)
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(StoreBusy, StoreError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gpt-5 mini", "gpt-5 mini"),
        ("Müller 東京", "Müller 東京"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b[31m\x07", "\\x1b[31m\\x07"),
        ("\u202edecoy", "\\u202edecoy"),
        ("\ud800", "\\ud800"),
        ("x" * 200, "x" * 120),
        ("\n" * 200, "\\n" * 60),
    ],
    ids=["plain", "not ASCII", "line breaks", "terminal codes", "right to left", "surrogate", "long", "long escapes"],
)
def test_foreign_text(text, shown):
    """What people can read stays as it is; the rest stands there as an escape."""
    assert printable(text) == shown


@settings(deadline=None, database=None)
@given(strategies.text(strategies.characters(), max_size=50), strategies.integers(1, 20))
def test_any_text_is_one_printable_line(text, limit):
    """Any text whatever becomes printable, within its limit, and can be encoded."""
    shown = printable(text, limit)

    assert shown.isprintable()
    assert len(shown) <= limit
    shown.encode()
