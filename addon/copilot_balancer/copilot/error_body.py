"""Parses the body of an error response into code, type and message.

Laws of this file:

1. A foreign body is read with a bound: at most 64 KB as received, at most 64 KB inflated
   (docs/security.md#foreign-bodies).
2. Nothing here raises, whatever the bytes are; what cannot be read is empty.
3. It says what stands in the body. What that means is the table in ``rules.outcome_table``.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from copilot_balancer.copilot import retry_after
from copilot_balancer.copilot.encoding import inflated

_MATCHED = 8192
"""Characters of the text that the table's patterns look at; real messages have some hundred."""
_NESTED = 3
"""How many JSON documents inside a message are opened: a provider's error stands as a string in Copilot's."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a refusal says."""

    code: str = ""
    """As the service wrote it; a number in digits."""
    kind: str = ""
    """The error's ``type``."""
    message: str = ""
    """For people."""
    text: str = ""
    """All messages, white space made single, for matching; empty for an HTML page, whose footer could say anything."""
    html: bool = False
    provider: bool = False
    """It was written by the model's provider, not by Copilot."""
    authorize_url: bool = False
    """It asks the user to authorise an extension there."""
    retry_after: float | None = None
    """Seconds, as the server said, in the headers or here."""

    @property
    def word(self) -> str:
        """The code that counts: without its suffix (``user_global_rate_limited:pro``); the type when it says nothing.

        Source: docs/copilot-protocol.md#error-bodies (VS Code compares the part before ``:``; the code may be a
        number or empty).
        """
        code = before_colon(self.code)
        return before_colon(self.kind) if not code or code.isdigit() else code


def before_colon(code: str) -> str:
    """``" User_Global_Rate_Limited:pro"`` -> ``"user_global_rate_limited"``."""
    return code.partition(":")[0].strip().lower()


def read(headers: Mapping[str, str], body: bytes, *, wall: float) -> ErrorBody:
    """Read the body of an error answer.

    Args:
        headers: of the answer, names in lower case.
        body: as received, compressed or not.
        wall: seconds since the epoch now, on the wall clock.

    """
    text = inflated(body, headers.get("content-encoding", "")).decode("utf-8-sig", "replace").strip()
    marked = "text/html" in headers.get("content-type", "").lower() and text[:1] in ("<", "")
    if marked or text[:14].lower().startswith(("<!doctype html", "<html")):
        title = re.search(r"<title[^>]{0,200}>([^<]{0,400})", text, re.IGNORECASE)
        hint = retry_after.read(headers, None, "", wall=wall)
        return ErrorBody(message=title[1] if title else "an HTML page", html=True, retry_after=hint)
    return read_json(_json(text), text, headers, wall=wall)


def read_json(parsed: object, whole: str, headers: Mapping[str, str], *, wall: float) -> ErrorBody:
    """Read an error of any shape: nested, flat, Anthropic's, a provider's JSON inside a message, plain text.

    Sources: docs/copilot-protocol.md#error-bodies; for ``error_details`` docs/copilot-protocol.md#token-exchange.

    Args:
        parsed: the JSON document, None when it is not one.
        whole: its text, which speaks when nothing in it is called a message.
        headers: of the answer, names in lower case.
        wall: seconds since the epoch now, on the wall clock.

    """
    code = kind = message = ""
    messages: list[str] = []
    provider = authorize = False
    document = parsed
    for depth in range(_NESTED):
        outer = document[0] if isinstance(document, list) and document else document
        if not isinstance(outer, dict):
            break
        inner = outer["error"] if isinstance(outer.get("error"), dict) else outer
        details = inner["error_details"] if isinstance(inner.get("error_details"), dict) else {}
        own = _code(details.get("notification_id") or inner.get("code") or outer.get("code"))
        if own and (not code or code.isdigit()):
            code = own
        kind = kind or (inner["type"] if isinstance(inner.get("type"), str) else "")
        provider = provider or depth > 0 or inner.get("status") == "RESOURCE_EXHAUSTED" or own.isdigit()
        # Anthropic: {"type": "error", "error": {"type", "message"}}, no code
        provider = provider or (outer.get("type") == "error" and inner is not outer and not own and bool(kind))
        authorize = authorize or "authorize_url" in outer or "authorize_url" in inner
        said = (inner.get("message"), outer.get("message"), outer.get("error"), details.get("message"))
        message = next((text for text in said if isinstance(text, str) and text), message)
        messages.append(message)
        document = _json(message)
    text = " ".join((" ".join(messages).strip() or whole).split())[:_MATCHED]
    return ErrorBody(
        code=code,
        kind=kind,
        message=message or whole,
        text=text,
        provider=provider and (not code or code.isdigit()),
        authorize_url=authorize,
        retry_after=retry_after.read(headers, parsed, text, wall=wall),
    )


def _code(value: object) -> str:
    """A code as text: it may be a number, empty, or absent (docs/copilot-protocol.md#error-bodies)."""
    if isinstance(value, str):
        return value.strip()
    return f"{value:g}" if isinstance(value, float) else str(value) if type(value) is int else ""


def _json(text: str) -> object | None:
    """The object or array that `text` is, else None."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: a body of brackets
        return None
    return parsed
