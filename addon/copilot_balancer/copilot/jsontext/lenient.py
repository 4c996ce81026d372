"""JSON that another program wrote, read without trust in its types.

Laws of this file:

1. But for `loads` nothing here raises: what cannot be read is None, and a value of an unexpected type counts as not
   said.
"""

import json
from typing import Any

from pydantic_core import from_json

type Json = dict[str, Any]


def parsed(text: str) -> Json | None:
    """The object that the text is; None when it is none, or too deep."""
    try:
        found = loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


def loads(text: str | bytes) -> object:
    """As ``json.loads``, in about half the time.

    Raises:
        ValueError, RecursionError, MemoryError: as that does.

    """
    try:
        return from_json(text, cache_strings="keys")  # no word of anybody's stays in its cache
    except (ValueError, TypeError):  # TypeError: a text with a lone surrogate in it
        return json.loads(text)  # it takes more: lone surrogates, other encodings, deeper nesting


def dumped(value: object) -> str:
    """As JSON again; the value came from JSON, and may be deeper than can be written."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(too deep to be shown)"


def as_text(value: object) -> str:
    """The text; empty when it is none."""
    return value if isinstance(value, str) else ""


def as_number(value: object) -> int:
    """The whole number, as a place in a list is told; 0 when it is none."""
    return value if isinstance(value, int) else 0


def as_object(value: object) -> Json:
    """The object; empty when it is none."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The list; empty when it is none."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[Json]:
    """The objects in a list; what else stands in it is passed over."""
    return [part for part in as_list(value) if isinstance(part, dict)]
