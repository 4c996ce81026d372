"""Follows a model's response while it is streamed: whether it has begun, failed or ended, and its bound state.

Laws of this file:

1. It only reads: nothing is changed, and no text of a response is kept. Of bound state only the hash is kept
   (``bound_state.state_hash``); the pieces of a signature are buffered, bounded, until the last one has come.
2. The state is a function of the bytes: however they are cut into chunks, it is the same. Nothing here raises.
3. An event counts when the empty line after it has come, as it does for the clients (WHATWG HTML 9.2.6).
4. Speed: an event is parsed only until the answer has begun and where the bytes say that there is something to learn. A
   word in ``response_event.TELLING`` may also stand in a model's text; that costs a parse and changes nothing.
5. An event that cannot be parsed counts as the start of the response, so that nothing waits for it. Where something
   that matters may have been missed, `AnswerReader.readable` is False, and nothing is concluded from the rest.

``response_event`` parses the single events.
"""

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.jsontext.lenient import Json
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_event import (
    LONGEST,
    MAX_HASHES,
    OUTPUT,
    TELLING,
    ResponseEvent,
    StreamError,
    may_tell,
    read_document,
    read_event,
    read_frame,
    tells,
)

__all__ = ["ResponseReader", "StreamError", "may_tell", "read_document", "read_frame"]

KEPT = 1024 * 1024
"""Bytes of the longest event that is kept whatever it is; the head of a longer one must say that it is worth it."""
PIECES = 1024 * 1024
"""Bytes, about, of the pieces of signatures that wait for the rest of theirs; real ones have some thousand."""
_OVERLAP = 64
"""Bytes, more than the longest word of `TELLING`."""

_FIRST = b"deir:\xef"
"""How an event stream begins: data, event, id, retry, a comment, or a byte order mark. What begins otherwise is a JSON
document, a page, or compressed."""


class ResponseReader:
    """Reads one upstream answer that is an event stream; `feed` takes its bytes, decompressed, in any pieces."""

    __slots__ = (
        "_after_cr",
        "_api",
        "_begun",
        "_choices",
        "_closed",
        "_longest",
        "_overlap",
        "_pieces",
        "_room",
        "_seen",
        "_tail",
        "_worth",
        "complete",
        "error",
        "final",
        "hashes",
        "opened",
        "output",
        "quota",
        "readable",
        "used",
    )

    def __init__(self, api: Api, longest: int | None = None) -> None:
        self.opened = False
        """More than announcements has come."""
        self.output = False
        """Output has come, and no error before it."""
        self.error: StreamError | None = None
        """The first one."""
        self.complete = False
        """The answer ended by itself, well or not; a chat when each of its choices has. False says so only where it is
        `readable`."""
        self.final = False
        """Nothing can follow."""
        self.hashes: list[str] = []
        """Of what is bound to the account, in order, each once."""
        self.quota: Json | None = None
        """The last ``copilot_quota_snapshots``, for `quota.read_snapshots`."""
        self.used: dict[str, int] = {}
        """Token counts and price so far, for `usage.usage_of`."""
        self.readable = True
        """False: no event stream, or something was too long to be read; only what is already known is sure."""
        self._api = api
        self._longest = LONGEST if longest is None else longest
        self._begun = False
        self._after_cr = False
        self._tail = bytearray()  # an event under way
        self._worth = False  # it is longer than KEPT and may grow on
        self._overlap = b""  # not empty: an event is being skipped, and this is the last of it
        self._seen: set[str] = set()
        self._choices: set[int] = set()  # of a chat, those that have not ended
        self._closed: set[int] = set()
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
                    self.give_up()
                    return
            end = data.rfind(b"\n\n")
            whole = data[:end] if end >= 0 else b""
            tail += data[end + 2 :] if end >= 0 else data
        if end >= 0:
            self._worth = False
            if not (self.output or self.error) or self._closed or len(whole) > self._longest or tells(self._api, whole):
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
            self._learn(OUTPUT)
            self._skip(block[KEPT - _OVERLAP :] + b"\n\n")
        elif len(block) > self._longest:
            self.give_up()
        elif not (self.output or self.error) or self._closed or tells(self._api, block):
            self._learn(read_event(self._api, block))

    def _bound(self) -> None:
        """Keep the memory bounded that the event under way takes."""
        tail = self._tail
        size = len(tail) - tail.endswith(b"\n")  # which may already be half of the empty line
        if size > KEPT and not self._worth:
            self._worth = self._is_worth(tail)
            if not self._worth:
                skipped = bytes(tail[KEPT - _OVERLAP :])
                tail.clear()
                self._learn(OUTPUT)
                self._skip(skipped)
        if size > self._longest and self._worth:
            self.give_up()

    def _is_worth(self, long: bytes | bytearray) -> bool:
        """Whether the head of an event says that the rest matters; a chat's says nothing, its end would."""
        return self._api is Api.CHAT or any(long.find(word, 0, KEPT) >= 0 for word in TELLING[self._api])

    def _skip(self, data: bytes) -> bytes:
        """Look through more of an event that is not kept. Returns what comes after it."""
        data = self._overlap + data
        event, ended, after = data.partition(b"\n\n")
        if tells(self._api, event):
            self.give_up()
            return b""
        self._overlap = b"" if ended else event[-_OVERLAP:]
        return after

    def give_up(self) -> None:
        """Something was missed: nothing more is read."""
        self.readable, self.opened = False, True
        self._tail.clear()
        self._pieces.clear()

    def _learn(self, event: ResponseEvent) -> None:
        self.opened = self.opened or event.opens
        self.output = self.output or (event.output and self.error is None)
        self.error = self.error or event.error
        self.final = self.final or event.final
        if self._api is Api.CHAT and not event.error:
            self._closed.update(event.closes)
            self._choices.update(event.choices)
            self._choices -= self._closed
            self.complete = self.error is not None or (bool(self._closed or self.final) and not self._choices)
        else:
            self.complete = self.complete or event.complete
        self.quota = event.quota or self.quota
        self.used.update(event.used)
        for found in event.hashes:
            self._keep(found)
        for place, kind, value in event.pieces:
            self._keep(state_hash(kind, value))
            if (size := len(value) + _OVERLAP) <= self._room:
                self._room -= size
                self._pieces.setdefault(place, []).append((kind, value))
        for place in tuple(self._pieces) if event.final else event.closes:
            pieces = self._pieces.pop(place, [])
            self._room += sum(len(value) + _OVERLAP for _, value in pieces)
            if len(pieces) > 1:
                self._keep(state_hash(pieces[0][0], "".join(value for _, value in pieces)))

    def _keep(self, found: str) -> None:
        if found not in self._seen and len(self.hashes) < MAX_HASHES:
            self._seen.add(found)
            self.hashes.append(found)
