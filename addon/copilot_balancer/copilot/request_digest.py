"""Parses a large request body incrementally; keeps only what ``protocol``, ``conversation``, ``bound_state`` read.

Laws of this file:

1. Each reader gets the same result from the digest as from the whole body; a test compares the two.
2. A turn keeps what kind it is of, and what marks it. How the conversation began is kept as canonical text: that names
   the conversation, and may be anything, of any size.
3. Of more turns than `MOST_PARTS`, which are no conversation, only the beginning is kept.
"""

import json
from typing import NamedTuple

from copilot_balancer.copilot.jsontext.incremental import LARGE, LongText, Steps
from copilot_balancer.copilot.jsontext.spans import MOST_PARTS

_WHOLE = ("model", "stream", "prompt_cache_key", "previous_response_id", "metadata", "messages", "input")
_CANONICAL = ("instructions", "system")
_TURNS = ("messages", "input")
_BATCH = 32
"""Small elements that are written as text at once."""

_encode = json.JSONEncoder(sort_keys=True).encode


class _Shape(NamedTuple):
    """What is kept of an object."""

    keys: frozenset[str]
    lists: tuple[str, ...] = ()
    """Keys under which a list of parts may stand."""


_NOTHING = _Shape(frozenset())
_METADATA = _Shape(frozenset({"user_id"}))
_PART = _Shape(frozenset({"type", "signature", "data", "encrypted_content"}))
_TURN = _Shape(
    frozenset({"role", "type", "id", "call_id", "encrypted_content", "reasoning_opaque"}), ("content", "output")
)
_PIECE = 1024 * 1024
"""Characters of a long string that are written at once."""
_TELLING = ("thinking", "redacted_thinking", "tool_result")
"""Types of parts that say whose turn it is, or what is bound."""


class RequestDigest(dict[str, object]):
    """An object without what nobody looks at."""

    text = ""
    """The whole of it, as `canonical` writes it, where that was asked for."""


def canonical(value: object) -> str:
    """The one text of a JSON value, however its client writes it.

    Raises:
        RecursionError: it is as deep as can be read.

    """
    return value.text if isinstance(value, RequestDigest) else _encode(value)


def abridged(raw: bytes, *, beginning: bool = True) -> Steps[dict[str, object]]:
    """Read a long request body; what it returns is the object without what nobody looks at.

    Args:
        raw: the body, uncompressed.
        beginning: whether somebody looks at how the conversation began.

    Raises:
        ValueError, RecursionError, MemoryError: it is no JSON object that can be read.

    """
    text = LongText(raw)
    body: dict[str, object] = {}

    def take(key: str, value: object) -> None:
        if key in _WHOLE or key in _CANONICAL:
            body[key] = value

    def large(key: str, value: object) -> Steps[None]:
        if value is not LARGE:
            take(key, value)
            return
        found: object = None
        if key in _TURNS and text.is_array:
            found = yield from _conversation(text, beginning=beginning)
        elif key in _CANONICAL and beginning:
            found = written = RequestDigest()
            written.text = yield from _written(text, value)
        elif key == "metadata" and not text.is_array:
            found = yield from _object(text, _METADATA, write=False)
        else:
            yield from _passed(text)
        take(key, found)

    yield from text.document(take, large)
    return body


def _conversation(text: LongText, *, beginning: bool) -> Steps[list[object]]:
    turns: list[object] = []
    awaited = ["user", "system"] if beginning else []
    """Roles whose first turn has not come yet."""

    def keep(turn: object) -> None:
        role = turn.get("role") if isinstance(turn, dict) else None
        role = "system" if role == "developer" else role
        if role in awaited:
            awaited.remove(str(role))
            turns.append(turn)
        elif len(turns) <= MOST_PARTS:
            turns.append(_pruned(turn, _TURN) if isinstance(turn, dict) else None)

    def large(turn: object) -> Steps[None]:
        if turn is not LARGE:
            keep(turn)
        elif text.is_array:
            yield from _passed(text)
            keep(None)
        else:
            keep((yield from _object(text, _TURN, write=bool(awaited))))

    yield from text.elements(keep, large)
    return turns


def _tells(part: dict[str, object]) -> bool:
    """Whether a part of a turn says more than that it is there."""
    return "encrypted_content" in part or part.get("type") in _TELLING


def _pruned(value: dict[str, object], shape: _Shape) -> dict[str, object]:
    """What is kept of an object that has been read whole."""
    keys, lists = shape
    kept = {key: found for key, found in value.items() if key in keys}
    for key in lists:
        if isinstance(parts := value.get(key), list):
            kept[key] = [_pruned(part, _PART) for part in parts if isinstance(part, dict) and _tells(part)]
    return kept


# --- what is longer than a window -------------------------------------------------------------------------------------


def _object(text: LongText, shape: _Shape, *, write: bool) -> Steps[RequestDigest]:
    """Read a large object; `write`: its text is wanted."""
    kept = RequestDigest()
    written: dict[str, str] = {}

    def take(key: str, value: object) -> None:
        kept.pop(key, None)
        kept.update(_pruned({key: value}, shape))
        if write:
            written[key] = _encode(value)

    def large(key: str, value: object) -> Steps[None]:
        if value is LARGE and text.is_array and key in shape.lists:
            parts: list[object] = []
            written[key] = yield from _array(text, parts, write=write)
            kept[key] = parts
            return
        kept.pop(key, None)
        if value is not LARGE and key in shape.keys:
            kept[key] = value
        if write:
            written[key] = yield from _written(text, value)
        elif value is LARGE:
            yield from _passed(text)

    yield from text.members(take, large)
    if write:
        kept.text = "{" + ", ".join(f"{_encode(key)}: {written[key]}" for key in sorted(written)) + "}"
    return kept


def _array(text: LongText, parts: list[object] | None, *, write: bool) -> Steps[str]:
    """Read a large array: its text, where that is wanted, and into `parts` what is kept of its elements."""
    written: list[str] = []
    batch: list[object] = []

    def keep(part: object) -> None:
        if parts is not None and isinstance(part, dict) and _tells(part):
            parts.append(_pruned(part, _PART))

    def flush() -> None:
        if batch:
            written.append(_encode(batch)[1:-1])
            batch.clear()

    def take(value: object) -> None:
        keep(value)
        if write:
            batch.append(value)
            if len(batch) == _BATCH:
                flush()

    def large(value: object) -> Steps[None]:
        flush()
        if value is LARGE and parts is not None and not text.is_array:
            part = yield from _object(text, _PART, write=write)
            keep(part)
            written.append(part.text)
        elif write:
            written.append((yield from _written(text, value)))
        elif value is LARGE:
            yield from _passed(text)

    yield from text.elements(take, large)
    flush()
    return f"[{', '.join(written)}]"


def _written(text: LongText, value: object) -> Steps[str]:
    """The text of a long string, or of the large array or object that begins here."""
    if isinstance(value, str):
        pieces = []
        for start in range(0, len(value), _PIECE):
            pieces.append(_encode(value[start : start + _PIECE])[1:-1])
            yield
        return f'"{"".join(pieces)}"'
    if text.is_array:
        return (yield from _array(text, None, write=True))
    return (yield from _object(text, _NOTHING, write=True)).text


def _passed(text: LongText) -> Steps[None]:
    """Read over a large array or object."""
    if text.is_array:
        yield from _array(text, None, write=False)
    else:
        yield from _object(text, _NOTHING, write=False)
