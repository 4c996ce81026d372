"""The body of a refusal: from the bytes of an answer to the words that say why.

Laws of this file:

1. A foreign body is read with a bound: at most 64 KB as received, at most 64 KB inflated (security.md 3.4).
2. Nothing here raises, whatever the bytes are; what cannot be read is empty.
3. It says what stands in the body. What that means is the table in ``outcomes``.
"""

import json
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from copilot_balancer import retry_after

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
try:
    import brotli  # type: ignore[import-untyped]  # it ships no types
except ImportError:  # mitmproxy brings it; without it such a body stays unread and its status alone counts
    brotli = None

LIMIT = 65536
"""Bytes of an error body that are read as received, and again when inflated."""
_ZSTD_WINDOW_LOG = 23
"""8 MB, as a power of two. RFC 9659: a sender of ``Content-Encoding: zstd`` must not ask a receiver for more."""
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

        Source: copilot-protocol.md 5.1 (VS Code compares the part before ``:``; the code may be a number or empty).
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

    Sources: copilot-protocol.md 5.1; 2.2 for the ``error_details`` of the token exchange.

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
    """A code as text: it may be a number, empty, or absent (copilot-protocol.md 5.1)."""
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


def inflated(body: bytes, encoding: str, limit: int = LIMIT) -> bytes:
    """At most `limit` bytes of a body that says it is compressed; nothing when that cannot be read."""
    raw = bytes(body[:limit])
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return raw
    inflate = _INFLATE.get(name)
    if inflate is None:
        return b""
    try:
        return inflate(raw, limit)[:limit]
    except _BROKEN:
        return b""


def _inflated_zlib(raw: bytes, limit: int) -> bytes:
    """Gzip and zlib are told apart by their heads; some servers call a raw deflate stream ``deflate``, too."""
    try:
        return zlib.decompressobj(47).decompress(raw, limit)
    except zlib.error:
        return zlib.decompressobj(-15).decompress(raw, limit)


def _inflated_zstd(raw: bytes, limit: int) -> bytes:
    opened = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    return opened.decompress(raw, limit)


def _inflated_brotli(raw: bytes, limit: int) -> bytes:
    # before brotli 1.2 there is no output_buffer_limit: a TypeError, and the body stays unread
    inflated: bytes = brotli.Decompressor().process(raw, output_buffer_limit=limit)
    return inflated


_INFLATE: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflated_zlib,
    "x-gzip": _inflated_zlib,
    "deflate": _inflated_zlib,
    "zstd": _inflated_zstd,
    **({"br": _inflated_brotli} if brotli else {}),
}
_BROKEN: tuple[type[Exception], ...] = (
    zlib.error,
    TypeError,
    zstd.ZstdError,
    *([brotli.error] if brotli else []),
)
