"""What a model's answer says while it streams by: has it begun, has it failed, is it complete, what in it is bound.

Laws of this file:

1. It only reads: nothing is changed, and no text of an answer is kept. Of what is bound to an account only the mark
   stays (``bound.mark``); the pieces of a signature wait, bounded, until its last one has come.
2. The state is a function of the bytes: however they are cut into chunks, it is the same. Nothing here raises.
3. An event counts when the empty line after it has come, as it does for the clients (WHATWG HTML 9.2.6).
4. Speed: an event is parsed only until the answer has begun and where the bytes say that there is something to learn.
   A word of `_TELLING` may also stand in a model's text; that costs a parse and changes nothing.
5. What cannot be told opens the answer, so that nobody waits for it; and where something that matters may have been
   missed, `AnswerReader.readable` is False and nobody may judge by the rest.

Sources: copilot-protocol.md 3.4, 3.5, 4, 5.8.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from copilot_balancer.bound import mark
from copilot_balancer.copilot import Api, read_body
from copilot_balancer.error_body import LIMIT as MESSAGE_LENGTH

Json = dict[str, object]

KEPT = 1024 * 1024
"""Bytes of the longest event that is kept whatever it is; the head of a longer one must say that it is worth it."""
LONGEST = 8 * KEPT
"""Bytes of the longest event that is read: ``response.completed`` carries the whole output once more."""
MARKS = 4096
"""Marks of one answer that are kept; a long one has some dozens."""
PIECES = 1024 * 1024
"""Bytes, about, of the pieces of signatures that wait for the rest of theirs; real ones have some thousand."""


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error inside a 200, as `outcomes.classify_event` takes it."""

    code: object
    """The error's ``code``, else its ``type``: text, a number, or None."""
    message: str


@dataclass(frozen=True, slots=True)
class Event:
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
    marks: tuple[str, ...] = ()
    """Of what is bound to the account, in order."""
    pieces: tuple[tuple[int, str, str], ...] = ()
    """Bound values that may come in several events: place (choice or block), kind of mark, value."""
    closes: tuple[int, ...] = ()
    """The places whose last piece has come."""
    quota: Json | None = None
    """``copilot_quota_snapshots``."""
    readable: bool = True
    """False: it was too long to be read, and could have said anything."""

    @property
    def ends(self) -> bool:
        """Whether a response on a WebSocket is over with it; an error ends one, too (copilot-protocol.md 3.4)."""
        return self.final or self.error is not None


_UNTOLD = Event()
"""What cannot be read opens the answer and says nothing else."""
_OUTPUT = Event(output=True)
_DONE = Event(complete=True, final=True)

_TELLING: Mapping[Api, tuple[bytes, ...]] = {
    Api.CHAT: (b'"error"', b'"copilot_', b'"reasoning_opaque"', b"[DONE]", b"event: error", b"event:error"),
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
_TELLING_FRAME = (*(word.decode() for word in _TELLING[Api.RESPONSES]), "response.in_progress", "response.queued")
_OVERLAP = 64
"""Bytes, more than the longest of these words."""

_FIRST = b"deir:\xef"
"""How an event stream begins: data, event, id, retry, a comment, or a byte order mark. What begins otherwise is a JSON
document, a page, or compressed."""
_DATA = re.compile(rb"^data:(.*)", re.MULTILINE)
_NAME = re.compile(rb"^event: ?(.*)", re.MULTILINE)

_ANNOUNCED = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_SILENT = frozenset({"role", "padding", "obfuscation"})
"""What a chat's delta may hold and still say nothing; the last two blur the length of events on the wire."""


class AnswerReader:
    """Reads one upstream answer that is an event stream; `feed` takes its bytes, decompressed, in any pieces."""

    __slots__ = (
        "_after_cr",
        "_api",
        "_begun",
        "_overlap",
        "_pieces",
        "_room",
        "_seen",
        "_tail",
        "_worth",
        "complete",
        "error",
        "final",
        "marks",
        "opened",
        "output",
        "quota",
        "readable",
    )

    def __init__(self, api: Api) -> None:
        self.opened = False
        """More than announcements has come."""
        self.output = False
        """Output has come, and no error before it."""
        self.error: StreamError | None = None
        """The first one."""
        self.complete = False
        """A sign has come that the answer ended by itself, well or not. False says so only where it is `readable`."""
        self.final = False
        """Nothing can follow."""
        self.marks: list[str] = []
        """Of what is bound to the account, in order, each once."""
        self.quota: Json | None = None
        """The last ``copilot_quota_snapshots``, for `quota.read_snapshots`."""
        self.readable = True
        """False: no event stream, or something was too long to be read; only what is already known is sure."""
        self._api = api
        self._begun = False
        self._after_cr = False
        self._tail = bytearray()  # an event under way
        self._worth = False  # it is longer than KEPT and may grow on
        self._overlap = b""  # not empty: an event is being skipped, and this is the last of it
        self._seen: set[str] = set()
        self._pieces: dict[int, list[tuple[str, str]]] = {}
        self._room = PIECES

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the answer."""
        if not data or not self.readable:
            return
        if self._after_cr or data.find(b"\r") >= 0:
            data = self._in_lines(data)
        if self._overlap:
            data = self._skip(data)
        tail = self._tail
        if tail:
            joint = len(tail) - 1
            tail += data
            end = tail.rfind(b"\n\n", joint)
            whole = bytes(tail[:end]) if end >= 0 else b""
            del tail[: end + 2 if end >= 0 else 0]
        else:
            data = data.lstrip(b"\n")
            if data and not self._begun:
                self._begun = True
                if data[0] not in _FIRST:
                    self._give_up()
                    return
            end = data.rfind(b"\n\n")
            whole = data[:end] if end >= 0 else b""
            tail += data[end + 2 :] if end >= 0 else data
        if end >= 0:
            self._worth = False
            if not (self.output or self.error) or len(whole) > LONGEST or _tells(self._api, whole):
                for block in whole.split(b"\n\n"):
                    self._event(block.lstrip(b"\n"))
        if len(tail) > KEPT:
            self._bound()

    def _in_lines(self, data: bytes) -> bytes:
        """Every line's end as LF; the two bytes of a CRLF may come apart."""
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _event(self, block: bytes) -> None:
        if not self.readable:
            return
        if len(block) > KEPT and not self._is_worth(block):
            self._learn(_OUTPUT)
            self._skip(block[KEPT - _OVERLAP :] + b"\n\n")
        elif len(block) > LONGEST:
            self._give_up()
        elif not (self.output or self.error) or _tells(self._api, block):
            self._learn(_read_event(self._api, block))

    def _bound(self) -> None:
        """Keep the memory bounded that the event under way takes."""
        tail = self._tail
        size = len(tail) - tail.endswith(b"\n")  # which may already be half of the empty line
        if size > KEPT and not self._worth:
            self._worth = self._is_worth(tail)
            if not self._worth:
                skipped = bytes(tail[KEPT - _OVERLAP :])
                tail.clear()
                self._learn(_OUTPUT)
                self._skip(skipped)
        if size > LONGEST and self._worth:
            self._give_up()

    def _is_worth(self, long: bytes | bytearray) -> bool:
        """Whether the head of an event says that the rest matters; a chat's says nothing, its end would."""
        return self._api is Api.CHAT or any(long.find(word, 0, KEPT) >= 0 for word in _TELLING[self._api])

    def _skip(self, data: bytes) -> bytes:
        """Look through more of an event that is not kept. Returns what comes after it."""
        data = self._overlap + data
        event, ended, after = data.partition(b"\n\n")
        if _tells(self._api, event):
            self._give_up()
            return b""
        self._overlap = b"" if ended else event[-_OVERLAP:]
        return after

    def _give_up(self) -> None:
        self.readable, self.opened = False, True
        self._tail.clear()
        self._pieces.clear()

    def _learn(self, event: Event) -> None:
        self.opened = self.opened or event.opens
        self.output = self.output or (event.output and self.error is None)
        self.error = self.error or event.error
        self.complete = self.complete or event.complete
        self.final = self.final or event.final
        self.quota = event.quota or self.quota
        for found in event.marks:
            self._mark(found)
        for place, kind, value in event.pieces:
            self._mark(mark(kind, value))
            if (size := len(value) + _OVERLAP) <= self._room:
                self._room -= size
                self._pieces.setdefault(place, []).append((kind, value))
        for place in tuple(self._pieces) if event.final else event.closes:
            pieces = self._pieces.pop(place, [])
            self._room += sum(len(value) + _OVERLAP for _, value in pieces)
            if len(pieces) > 1:
                self._mark(mark(pieces[0][0], "".join(value for _, value in pieces)))

    def _mark(self, found: str) -> None:
        if found not in self._seen and len(self.marks) < MARKS:
            self._seen.add(found)
            self.marks.append(found)


def read_document(api: Api, body: bytes) -> tuple[list[str], Json | None]:
    """The marks and the quota snapshots of an answer that is one JSON document.

    Args:
        api: the form that the answer has.
        body: decompressed.

    """
    document = read_body(body) or {}
    if api is Api.CHAT:
        pieces = _chat(document, "").pieces
        marks: Iterable[str] = (mark(kind, value) for _, kind, value in pieces)
    elif api is Api.RESPONSES:
        marks = _response_marks(document)
    else:
        blocks = [_block(0, block) for block in _dicts(document.get("content"))]
        marks = (found for block in blocks for found in (*block.marks, *(mark(k, v) for _, k, v in block.pieces)))
    return list(dict.fromkeys(marks))[:MARKS], _quota(document)


def read_frame(text: str) -> Event:
    """What one frame of a server on the Responses WebSocket says."""
    if not any(word in text for word in _TELLING_FRAME):
        return _OUTPUT
    if len(text) > LONGEST:
        return Event(readable=False)
    found = _parsed(text)
    return _UNTOLD if found is None else _responses(found, "")


def _tells(api: Api, data: bytes) -> bool:
    """Whether there may be something to learn from these events."""
    find = data.find  # `in` first tries the word as a number, which costs more than the search
    for word in _TELLING[api]:  # a loop: so does the generator of any()
        if find(word) >= 0:
            return True
    return api is Api.CHAT and data.count(b'"finish_reason"') != data.count(b'"finish_reason":null')


def _read_event(api: Api, block: bytes) -> Event:
    """The lines of one event -> what it says; one without data is none (a comment, an id)."""
    block = block.removeprefix(b"\xef\xbb\xbf")
    data = b"\n".join(_DATA.findall(block)).strip()
    if not data:
        return Event(opens=False)
    if api is Api.CHAT and data == b"[DONE]":
        return _DONE
    found = _parsed(data.decode("utf-8", "replace"))
    if found is None:
        return _UNTOLD
    names = _NAME.findall(block)
    return _READ[api](found, names[-1].decode("utf-8", "replace") if names else "")


def _parsed(text: str) -> Json | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


# --- the three forms: one event as an object, and the name that its ``event:`` line gave it ---------------------------


def _chat(chunk: Json, name: str) -> Event:
    quota = _quota(chunk)
    choices = chunk.get("choices")
    if not choices:
        errors = chunk.get("copilot_errors")
        if chunk.get("error") or name == "error":
            return Event(error=_error(chunk), complete=True, quota=quota)
        if isinstance(errors, list) and errors:
            return Event(error=_error({"error": errors[0]}), complete=True, quota=quota)
        # without choices: prompt_filter_results at the head, usage at the end; anything else is new to us
        return Event(opens="choices" not in chunk, output="choices" not in chunk, quota=quota)
    pieces, closes = [], []
    known = _dicts(choices)
    output = not known
    for choice in known:
        place = _place(choice)
        part = _dict(choice.get("delta") or choice.get("message"))
        output = output or any(value and key not in _SILENT for key, value in part.items())
        if opaque := _text(part.get("reasoning_opaque")):
            pieces.append((place, "opaque", opaque))
        if choice.get("finish_reason"):
            closes.append(place)
    return Event(
        opens=output or bool(closes),
        output=output,
        complete=bool(closes),
        pieces=tuple(pieces),
        closes=tuple(closes),
        quota=quota,
    )


def _responses(event: Json, name: str) -> Event:
    kind, quota = _text(event.get("type")) or name, _quota(event)
    response = _dict(event.get("response"))
    if _is_error(event, kind, name):
        return Event(error=_error(event), complete=True, quota=quota)
    if kind in _ANNOUNCED:
        return Event(opens=False, marks=_response_marks(response), quota=quota)
    if kind in _ENDS:
        error = _error(response) if kind == "response.failed" else None
        return Event(error=error, complete=True, final=True, marks=_response_marks(response), quota=quota)
    item = _dict(event.get("item")) if kind.startswith("response.output_item.") else {}
    return Event(output=True, marks=tuple(_item_marks(item)), quota=quota)


def _messages(event: Json, name: str) -> Event:
    kind, quota = _text(event.get("type")) or name, _quota(event)
    place, delta = _place(event), _dict(event.get("delta"))
    if _is_error(event, kind, name):
        return Event(error=_error(event), complete=True, quota=quota)
    if kind in ("message_start", "ping"):
        return Event(opens=False, quota=quota)
    if kind == "message_delta":
        return Event(complete=bool(delta.get("stop_reason")), quota=quota)
    if kind == "message_stop":
        return Event(complete=True, final=True, quota=quota)
    if kind == "content_block_start":
        return _block(place, _dict(event.get("content_block")))
    if kind == "content_block_stop":
        return Event(output=True, closes=(place,), quota=quota)
    signature = _text(delta.get("signature")) if delta.get("type") == "signature_delta" else ""
    return Event(output=True, pieces=((place, "signature", signature),) if signature else (), quota=quota)


_READ = {Api.CHAT: _chat, Api.RESPONSES: _responses, Api.MESSAGES: _messages}


# --- parts of them ----------------------------------------------------------------------------------------------------


def _block(place: int, block: Json) -> Event:
    """A content block of the messages API, whole or as it begins."""
    signature = _text(block.get("signature")) if block.get("type") == "thinking" else ""
    sealed = _text(block.get("data")) if block.get("type") == "redacted_thinking" else ""
    return Event(
        output=True,
        marks=(mark("signature", sealed),) if sealed else (),
        pieces=((place, "signature", signature),) if signature else (),
    )


def _response_marks(response: Json) -> tuple[str, ...]:
    own = _text(response.get("id"))
    items = (found for item in _dicts(response.get("output"))[:MARKS] for found in _item_marks(item))
    return (*((mark("id", own),) if own else ()), *items)


def _item_marks(item: Json) -> list[str]:
    """Of an output item; sealed content may also stand in the parts of it (an encrypted tool output)."""
    parts = (*_dicts(item.get("content")), *_dicts(item.get("output")))
    sealed = (_text(part.get("encrypted_content")) for part in (item, *parts[:MARKS]))
    told = (("id", _text(item.get("id"))), *(("sealed", value) for value in sealed))
    return [mark(kind, value) for kind, value in told if value]


def _is_error(event: Json, kind: str, name: str) -> bool:
    return "error" in (kind, name) or (not kind and bool(event.get("error")))


def _error(event: Json) -> StreamError:
    """An error nested or flat; the ``type`` of a flat event is the event's own and no code."""
    inner = _dict(event.get("error")) or event
    codes = (inner.get("code"), event.get("code"), inner.get("type"))
    said = (inner.get("message"), event.get("message"), event.get("error"))
    code = next(
        (code for code in codes if code not in (None, "", "error") and isinstance(code, str | int | float)), None
    )
    return StreamError(code, next((text for text in map(_text, said) if text), "")[:MESSAGE_LENGTH])


def _quota(event: Json) -> Json | None:
    found = event.get("copilot_quota_snapshots") or _dict(event.get("response")).get("copilot_quota_snapshots")
    return _dict(found) or None


def _place(part: Json) -> int:
    place = part.get("index")
    return place if isinstance(place, int) else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Json]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
