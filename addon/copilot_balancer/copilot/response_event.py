"""Parses one event of a model's response in each of the three API forms: output, error, end, bound state, quota, usage.

Laws of this file:

1. Each event is parsed alone; ``response_reader`` combines the events of one response.
2. No text of a response is kept. State bound to an account is kept as a hash only (``bound_state.state_hash``); the
   pieces of a signature that comes in several events are returned as they are, for the reader to join.
3. Nothing here raises. An event that cannot be parsed counts as the start of the response, so that nothing waits for
   it, and as nothing else.

Sources: docs/copilot-protocol.md#streams and the headings about WebSocket, bound state and errors there.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.encoding import LIMIT as MESSAGE_LENGTH
from copilot_balancer.copilot.jsontext.lenient import Json, as_number, as_object, as_text, objects, parsed
from copilot_balancer.copilot.protocol import Api, read_body
from copilot_balancer.copilot.usage import counts

LONGEST = 8 * 1024 * 1024
"""Bytes of the longest event that is read: ``response.completed`` carries the whole output once more."""
CHOICES = 128
"""Choices of one chat answer that are told apart; OpenAI's limit for ``n``."""
MAX_HASHES = 4096
"""Hashes of one answer that are kept; a long one has some dozens."""


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error inside a 200, as `classify.classify_event` takes it."""

    code: object
    """The error's ``code``, else its ``type``: text, a number, or None."""
    message: str


@dataclass(frozen=True, slots=True)
class ResponseEvent:
    """What one event of a stream, or one server frame of a WebSocket, says."""

    opens: bool = True
    """It is more than an announcement."""
    output: bool = False
    """A client may show or use something of it."""
    error: StreamError | None = None
    complete: bool = False
    """It is a sign that the answer came to an end of its own."""
    final: bool = False
    """Nothing of this answer follows."""
    hashes: tuple[str, ...] = ()
    """Of what is bound to the account, in order."""
    pieces: tuple[tuple[int, str, str], ...] = ()
    """Bound values that may come in several events: place (choice or block), kind of hash, value."""
    closes: tuple[int, ...] = ()
    """The places whose last piece has come."""
    choices: tuple[int, ...] = ()
    """Chat: the choices that it speaks of."""
    quota: Json | None = None
    """``copilot_quota_snapshots``."""
    used: Mapping[str, int] = field(default_factory=dict)
    """Token counts and price (``usage.counts``)."""
    readable: bool = True
    """False: it was too long to be read, and could have said anything."""

    @property
    def ends(self) -> bool:
        """Whether a response on a WebSocket is over with it; an error ends one, too.

        Source: docs/copilot-protocol.md#websocket.
        """
        return self.final or self.error is not None


_UNTOLD = ResponseEvent()
"""What cannot be read opens the answer and says nothing else."""
OUTPUT = ResponseEvent(output=True)
_DONE = ResponseEvent(complete=True, final=True)

TELLING: Mapping[Api, tuple[bytes, ...]] = {
    Api.CHAT: (
        b'"error"',
        b'"copilot_',
        b'"usage":{',
        b'"usage": {',
        b'"reasoning_opaque"',
        b"[DONE]",
        b"event: error",
        b"event:error",
    ),
    Api.RESPONSES: (
        b'"error"',
        b'"copilot_',
        b"response.output_item.",
        b"response.c",  # created, completed, cancelled
        b"response.failed",
        b"response.incomplete",
        b"event: error",
        b"event:error",
    ),
    Api.MESSAGES: (
        b'"error"',
        b'"copilot_',
        b"signature_delta",
        b"content_block_st",  # start, stop
        b"message_delta",
        b"message_stop",
        b"event: error",
        b"event:error",
    ),
}
"""An event of an answer that has begun has nothing to tell unless one of these stands in it, or, in a chat, a
``finish_reason`` that is not null. Quotes are escaped inside a JSON string, so a text rarely meets the quoted ones."""
_TELLING_FRAME = (*(word.decode() for word in TELLING[Api.RESPONSES]), "response.in_progress", "response.queued")

_TELLING_DOCUMENT: Mapping[Api, tuple[bytes, ...]] = {
    Api.CHAT: (b'"reasoning_opaque"', b'"copilot_', b'"usage"'),
    Api.RESPONSES: (b'"id"', b'"encrypted_content"', b'"copilot_', b'"usage"'),
    Api.MESSAGES: (b'"thinking"', b'"redacted_thinking"', b'"copilot_', b'"usage"'),
}
"""A document without any of these has nothing to tell, and need not be parsed, however long it is."""
_WORD = max(len(word) for words in _TELLING_DOCUMENT.values() for word in words)

_DATA = re.compile(rb"^data:(.*)", re.MULTILINE)
_NAME = re.compile(rb"^event: ?(.*)", re.MULTILINE)

_ANNOUNCED = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_SILENT = frozenset({"role", "padding", "obfuscation"})
"""What a chat's delta may hold and still say nothing; the last two blur the length of events on the wire."""


def tells(api: Api, data: bytes) -> bool:
    """Whether there may be something to learn from these events."""
    find = data.find  # `in` first tries the word as a number, which costs more than the search
    for word in TELLING[api]:  # a loop: so does the generator of any()
        if find(word) >= 0:
            return True
    return api is Api.CHAT and (
        data.count(b'"finish_reason"') != data.count(b'"finish_reason":null')
        or find(b'"index":1') >= 0  # another choice: it has an end of its own
        or find(b'"index": 1') >= 0
    )


def event_fields(block: bytes) -> tuple[bytes, str]:
    """The lines of one server-sent event, ended by LF -> its data and its name, each empty where there is none.

    Source: WHATWG HTML, 9.2.6 (interpreting an event stream).
    """
    block = block.removeprefix(b"\xef\xbb\xbf")
    names = _NAME.findall(block)
    return b"\n".join(_DATA.findall(block)).strip(), names[-1].decode("utf-8", "replace") if names else ""


def read_event(api: Api, block: bytes) -> ResponseEvent:
    """The lines of one event -> what it says; one without data is none (a comment, an id)."""
    data, name = event_fields(block)
    if not data:
        return ResponseEvent(opens=False)
    if api is Api.CHAT and data == b"[DONE]":
        return _DONE
    found = parsed(data.decode("utf-8", "replace"))
    if found is None:
        return _UNTOLD
    return _with_usage(_READ[api](found, name), found)


def read_frame(text: str) -> ResponseEvent:
    """What one frame of a server on the Responses WebSocket says."""
    if not any(word in text for word in _TELLING_FRAME):
        return OUTPUT
    if len(text) > LONGEST:
        return ResponseEvent(readable=False)
    found = parsed(text)
    return _UNTOLD if found is None else _with_usage(_responses(found, ""), found)


def may_tell(api: Api, pieces: Sequence[bytes]) -> bool:
    """Whether the document that came in these pieces has anything to tell; if not it need not be read."""
    if any(len(piece) < _WORD for piece in pieces[1:-1]):  # a word could stand in three of them
        pieces = [b"".join(pieces)]
    seams = (before[-_WORD:] + after[:_WORD] for before, after in itertools.pairwise(pieces))
    return any(word in piece for piece in itertools.chain(pieces, seams) for word in _TELLING_DOCUMENT[api])


LONE_ERROR = 64 * 1024
"""Bytes of the longest document that is looked at for being nothing but an error."""


def lone_error(body: bytes) -> StreamError | None:
    """The error of a document that tells nothing else (``{"error": ...}``, Anthropic's with a ``type``); None: it does.

    Args:
        body: decompressed.

    """
    document = read_body(body) if len(body) <= LONE_ERROR else None
    if document is None or "error" not in document or not set(document) <= {"error", "type", "request_id"}:
        return None
    error = document["error"]
    if not isinstance(error, dict):
        return StreamError(None, str(error)) if error else None
    message = error.get("message")
    return StreamError(error.get("code") or error.get("type"), message if isinstance(message, str) else "")


def read_document(api: Api, body: bytes) -> tuple[list[str], Json | None, dict[str, int]]:
    """The hashes, the quota snapshots and the usage counts of an answer that is one JSON document.

    Args:
        api: the form that the answer has.
        body: decompressed.

    """
    document = read_body(body) or {}
    if api is Api.CHAT:
        pieces = _chat(document, "").pieces
        hashes: Iterable[str] = (state_hash(kind, value) for _, kind, value in pieces)
    elif api is Api.RESPONSES:
        hashes = _response_hashes(document)
    else:
        blocks = [_block(0, block) for block in objects(document.get("content"))]
        hashes = (
            found for block in blocks for found in (*block.hashes, *(state_hash(k, v) for _, k, v in block.pieces))
        )
    return list(dict.fromkeys(hashes))[:MAX_HASHES], _quota(document), counts(document)


# --- the three forms: one event as an object, and the name that its ``event:`` line gave it ---------------------------


def _chat(chunk: Json, name: str) -> ResponseEvent:
    quota = _quota(chunk)
    choices = chunk.get("choices")
    if not choices:
        errors = chunk.get("copilot_errors")
        if chunk.get("error") or name == "error":
            return ResponseEvent(error=_error(chunk), complete=True, quota=quota)
        if isinstance(errors, list) and errors:
            return ResponseEvent(error=_error({"error": errors[0]}), complete=True, quota=quota)
        # without choices: prompt_filter_results at the head, usage at the end; anything else is new to us
        # the chunk with usage is the last before [DONE] (OpenAI API reference, stream_options.include_usage)
        usage = "choices" in chunk and bool(chunk.get("usage"))
        return ResponseEvent(opens="choices" not in chunk, output="choices" not in chunk, final=usage, quota=quota)
    pieces, closes, places = [], [], []
    known = objects(choices)
    output = not known
    for choice in known:
        place = as_number(choice.get("index"))
        places.append(place)
        part = as_object(choice.get("delta") or choice.get("message"))
        output = output or any(value and key not in _SILENT for key, value in part.items())
        if opaque := as_text(part.get("reasoning_opaque")):
            pieces.append((place, "opaque", opaque))
        if choice.get("finish_reason"):
            closes.append(place)
    return ResponseEvent(
        opens=output or bool(closes),
        output=output,
        complete=bool(closes),
        final=bool(closes and chunk.get("usage")),
        pieces=tuple(pieces),
        closes=tuple(closes),
        choices=tuple(places[:CHOICES]),
        quota=quota,
    )


def _responses(event: Json, name: str) -> ResponseEvent:
    kind, quota = as_text(event.get("type")) or name, _quota(event)
    response = as_object(event.get("response"))
    if _is_error(event, kind, name):
        return ResponseEvent(error=_error(event), complete=True, quota=quota)
    if kind in _ANNOUNCED:
        return ResponseEvent(opens=False, hashes=_response_hashes(response), quota=quota)
    if kind in _ENDS:
        error = _error(response) if kind == "response.failed" else None
        return ResponseEvent(error=error, complete=True, final=True, hashes=_response_hashes(response), quota=quota)
    item = as_object(event.get("item")) if kind.startswith("response.output_item.") else {}
    return ResponseEvent(output=True, hashes=tuple(_item_hashes(item)), quota=quota)


def _messages(event: Json, name: str) -> ResponseEvent:
    kind, quota = as_text(event.get("type")) or name, _quota(event)
    place, delta = as_number(event.get("index")), as_object(event.get("delta"))
    if _is_error(event, kind, name):
        return ResponseEvent(error=_error(event), complete=True, quota=quota)
    if kind in ("message_start", "ping"):
        return ResponseEvent(opens=False, quota=quota)
    if kind == "message_delta":
        return ResponseEvent(complete=bool(delta.get("stop_reason")), quota=quota)
    if kind == "message_stop":
        return ResponseEvent(complete=True, final=True, quota=quota)
    if kind == "content_block_start":
        return _block(place, as_object(event.get("content_block")))
    if kind == "content_block_stop":
        return ResponseEvent(output=True, closes=(place,), quota=quota)
    signature = as_text(delta.get("signature")) if delta.get("type") == "signature_delta" else ""
    return ResponseEvent(output=True, pieces=((place, "signature", signature),) if signature else (), quota=quota)


_READ = {Api.CHAT: _chat, Api.RESPONSES: _responses, Api.MESSAGES: _messages}


# --- parts of them ----------------------------------------------------------------------------------------------------


def _block(place: int, block: Json) -> ResponseEvent:
    """A content block of the messages API, whole or as it begins."""
    signature = as_text(block.get("signature")) if block.get("type") == "thinking" else ""
    sealed = as_text(block.get("data")) if block.get("type") == "redacted_thinking" else ""
    return ResponseEvent(
        output=True,
        hashes=(state_hash("signature", sealed),) if sealed else (),
        pieces=((place, "signature", signature),) if signature else (),
    )


def _response_hashes(response: Json) -> tuple[str, ...]:
    own = as_text(response.get("id"))
    items = (found for item in objects(response.get("output"))[:MAX_HASHES] for found in _item_hashes(item))
    return (*((state_hash("id", own),) if own else ()), *items)


def _item_hashes(item: Json) -> list[str]:
    """Of an output item; sealed content may also stand in the parts of it (an encrypted tool output)."""
    parts = (*objects(item.get("content")), *objects(item.get("output")))
    sealed = (as_text(part.get("encrypted_content")) for part in (item, *parts[:MAX_HASHES]))
    told = (("id", as_text(item.get("id"))), *(("sealed", value) for value in sealed))
    return [state_hash(kind, value) for kind, value in told if value]


def _is_error(event: Json, kind: str, name: str) -> bool:
    return "error" in (kind, name) or (not kind and bool(event.get("error")))


def _error(event: Json) -> StreamError:
    """An error nested or flat; the ``type`` of a flat event is the event's own and no code."""
    inner = as_object(event.get("error")) or event
    codes = (inner.get("code"), event.get("code"), inner.get("type"))
    said = (inner.get("message"), event.get("message"), event.get("error"))
    code = next(
        (code for code in codes if code not in (None, "", "error") and isinstance(code, str | int | float)), None
    )
    return StreamError(code, next((text for text in map(as_text, said) if text), "")[:MESSAGE_LENGTH])


def _with_usage(event: ResponseEvent, found: Json) -> ResponseEvent:
    used = counts(found)
    return replace(event, used=used) if used else event


def _quota(event: Json) -> Json | None:
    found = event.get("copilot_quota_snapshots") or as_object(event.get("response")).get("copilot_quota_snapshots")
    return as_object(found) or None
