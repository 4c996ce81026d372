"""Finds the ranges of the parts of a JSON text, so that parts can be cut and every other byte stays.

Laws of this file:

1. It knows JSON and nothing else: what a part means, and which are cut, is the caller's.
2. What the parts hold is read by json's own scanner: this costs about as much as reading the text once.
3. A text that is no such document raises one of `UNREADABLE`; so does one that is too deep, or too long to be walked.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

UNREADABLE = (ValueError, RecursionError, MemoryError)
"""What a reader of foreign JSON may raise."""

MOST_PARTS = 65536
"""Parts of the longest array or object that is walked: more turns than any conversation has, and 0.2 s at most."""

_read = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_FOLLOWS = re.compile(r"[ \t\n\r]*([,\]}])[ \t\n\r]*")
_CLOSING = {"[": "]", "{": "}"}


class Part(NamedTuple):
    """An element of an array, or a member of an object, key included: ``text[start:end]``."""

    start: int
    end: int
    key: str
    value: object


class Walked(NamedTuple):
    """An array or object, read part by part."""

    parts: list[Part]
    end: int
    """Where the text goes on behind it."""

    @property
    def members(self) -> dict[str, object]:
        """Of an object: key -> value; of a key that stands there twice the last one counts, as for json."""
        return {part.key: part.value for part in self.parts}


def document(text: str, opened: str) -> Walked:
    """The object that the whole text is; the array under its key `opened` is walked as well.

    Raises:
        ValueError: it is none.

    """
    start = _after(_SPACE, text, int(text.startswith("\ufeff")))
    if not text.startswith("{", start):
        raise ValueError("no object")
    body = walk(text, start, opened)
    if _after(_SPACE, text, body.end) != len(text):
        raise ValueError("more than one document")
    return body


def walk(text: str, start: int, opened: str = "") -> Walked:
    """The array or object that begins at `start`; the array under the key `opened` is walked as well.

    Raises:
        ValueError: it cannot be read, or has more than `MOST_PARTS`.

    """
    closing = _CLOSING[text[start]]
    parts: list[Part] = []
    at = _after(_SPACE, text, start + 1)
    if text.startswith(closing, at):
        return Walked(parts, at + 1)
    while True:
        key, value_at = "", at
        if closing == "}":
            key, value_at = _read(text, at)
            if not isinstance(key, str):
                raise ValueError("a key that is no string")
            value_at = _after(_COLON, text, value_at)
        value: object
        if key and key == opened and text.startswith("[", value_at):
            value = walked = walk(text, value_at)
            end = walked.end
        else:
            value, end = _read(text, value_at)
        parts.append(Part(at, end, key, value))
        follows = _FOLLOWS.match(text, end)
        if follows is None or follows[1] not in ("," + closing) or len(parts) > MOST_PARTS:
            raise ValueError("neither a comma nor an end, or too much of it")
        if follows[1] == closing:
            return Walked(parts, follows.end(1))
        at = follows.end()


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    if found is None:
        raise ValueError("something else stands here")
    return found.end()


def named(walked: Walked, keys: Collection[str]) -> set[int]:
    """The places of the members with these keys: a key that stands there twice goes twice."""
    return {place for place, part in enumerate(walked.parts) if part.key in keys}


def spans(parts: list[Part], gone: Collection[int]) -> Iterator[tuple[int, int]]:
    """The spans of the parts at these places, each with one comma and the white space on that side of it."""
    if not gone:
        return
    first = next((place for place in range(len(parts)) if place not in gone), None)
    if first is None:
        yield parts[0].start, parts[-1].end
        return
    if first:
        yield parts[0].start, parts[first].start
    for place in gone:
        if place > first:
            yield parts[place - 1].end, parts[place].end


def without(text: str, cuts: list[tuple[int, int]]) -> str:
    """The text without these spans, which stand in their order, none within another."""
    kept = []
    at = 0
    for start, end in cuts:
        kept.append(text[at:start])
        at = end
    kept.append(text[at:])
    return "".join(kept)
