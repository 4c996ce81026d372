"""An event as it is told: what stands in the file about it, and what is read of a line, whoever wrote it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, strategies

from copilot_balancer.store.request_record import AttemptRecord, document, moment, parsed
from support.events import EVENT


def test_what_stands_in_the_file():
    """A document is plain JSON with the time as text; what is empty is left out, and it reads as it was."""
    assert document(EVENT) == {
        "time": "2026-09-21T14:13:20.125Z",
        "id": "f1",
        "what": "gpt-5",
        "verdict": "failed over",
        "status": 200,
        "ms": 812.0,
        "account": "spare",
        "host": "api.githubcopilot.com",
        "attempts": [
            {
                "account": "work",
                "host": "api.githubcopilot.com",
                "why": "sticky",
                "reason": "limit",
                "status": 429,
                "rest": 30.0,
                "text": "slow down",
            },
            {
                "account": "spare",
                "host": "api.githubcopilot.com",
                "why": "least recently used",
                "reason": "served",
                "status": 200,
            },
        ],
        "conversation": "0123456789ab",
    }
    assert parsed(json.dumps(document(EVENT))) == EVENT


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        pytest.param(0.0, "1970-01-01T00:00:00.000Z", id="the epoch"),
        pytest.param(1_790_000_000.125, "2026-09-21T14:13:20.125Z", id="milliseconds"),
    ],
)
def test_a_moment(at, shown):
    """A time stands in the file as text, in UTC and to the millisecond."""
    assert moment(at) == shown


@pytest.mark.parametrize(
    "line",
    [
        "",
        "half",
        "[]",
        "1",
        "{}",
        '{"time": 1}',
        '{"time": "yesterday"}',
        '{"time": "2026-09-21T14:13:20Z"}',
        '{"time": "2026-09-21T14:13:20Z", "id": 1, "what": "x", "verdict": "served", "status": 200, "ms": 1}',
        '{"time": "0001-01-01T00:00:00+23:59", "id": "1"}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
    ids=range(12),
)
def test_no_event(line):
    """What is no event of ours is none."""
    assert parsed(line) is None


def test_a_newer_version():
    """What a newer version says besides is passed over."""
    assert parsed(json.dumps({**document(EVENT), "mood": {"deep": [1]}})) == EVENT


@given(strategies.text(max_size=1000))
def test_foreign_words(text):
    """Whatever stands in a line, every word that is read from it is printable."""
    attempt = {"account": text, "host": text, "why": text, "reason": text, "text": text}
    told = {"what": text, "note": text, "account": text, "moved": text, "error": text, "attempts": [attempt]}
    event = parsed(json.dumps({**document(EVENT), **told}))
    assert event is not None
    words = [event.what, event.note, event.account, event.moved, event.error]
    words += [getattr(event.attempts[0], name) for name in attempt]
    assert all(word.isprintable() for word in words)


def test_whose_an_attempt_was():
    """By its id, whatever the account is called; by its label where no id was written."""
    known = AttemptRecord("work", "h", "w", "served", 200, account_id="github.com:1")
    assert known.is_by("github.com:1", "office")
    assert not known.is_by("github.com:2", "work")
    assert AttemptRecord("work", "h", "w", "served", 200).is_by("github.com:1", "work")


@pytest.mark.parametrize("rest", [float("inf"), float("nan"), None], ids=str)
def test_an_endless_cooldown(rest):
    """A cooldown without an end has no number in the file, and the line stays JSON."""
    written = document(replace(EVENT, attempts=(replace(EVENT.attempts[0], rest=rest),)))
    read = parsed(json.dumps(written, allow_nan=False))
    assert read is not None
    assert read.attempts[0].rest is None
