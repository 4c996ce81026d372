"""The body of a client's request: parses the fields that routing needs, and makes the body that is sent upstream.

Laws of this file:

1. The client's own bytes are sent. They are edited only to replace the model by one that the user configured, or to
   remove bound state of another account; each attempt starts from the client's own bytes again.
2. A body that cannot be parsed is sent unchanged.
3. A long body is parsed on the event loop too, a slice at a turn: json holds Python's lock, so a thread would help
   nobody.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from weakref import WeakKeyDictionary

from mitmproxy import http

from copilot_balancer.copilot.bound_state import BoundState, may_carry, read_bound, reading_bound, stripped
from copilot_balancer.copilot.conversation import conversation_of, is_named, naming
from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.jsontext.incremental import Steps
from copilot_balancer.copilot.jsontext.spans import UNREADABLE
from copilot_balancer.copilot.protocol import PARSE_LIMIT, api_of, model_of, read_body, with_model
from copilot_balancer.copilot.request_digest import abridged

COMPRESSED_LIMIT = 4 * 1024 * 1024
"""Bytes of a compressed body that are looked at, inflated. No client is known to send one (docs/clients.md)."""

AT_ONCE = 256 * 1024
"""Bytes of a body that are read at once, whatever it is: in 20 ms when it is nothing but small tokens."""

PROSE_AT_ONCE = 1024 * 1024
"""Bytes of one that is mostly long strings, as all clients' are: in 3 ms, half of what reading in slices takes."""
PROSE = 16
"""Bytes to a comma or an opening bracket where it is mostly text; all else that JSON can hold has more of them."""
SAMPLE = 61
"""One byte of so many is looked at for that: counting all of them takes longer than reading the body."""

TURN = 0.002
"""Seconds that reading a longer one may take before everything else on the event loop has its turn."""


class RequestBody:
    """The body of one request of a client."""

    def __init__(self, request: http.Request) -> None:
        self._request = request
        self._original: bytes | None = None
        """The client's own bytes, while other ones stand in the request."""
        self.api = api_of(request.path)
        self.model: str | None = None
        """What the client asked for."""
        self.asked_model: str | None = None
        """What the request asks for now."""
        self.streams = False
        """Whether the client asked for a stream."""
        self.conversation: str | None = None
        """Which conversation it belongs to."""
        self.bound = BoundState()
        """The bound state in this body."""
        self.left_out = ""
        """What of that the present account is not sent, for people."""

    async def read(self, headers: Mapping[str, str]) -> None:
        """Learn what it says; `headers`: the request's, by lower-case name."""
        raw = self._content()
        if len(raw) <= AT_ONCE or (len(raw) <= PROSE_AT_ONCE and _is_prose(raw)):
            body = read_body(raw)
            self.conversation = conversation_of(headers, body)
            if self.api is not None and body is not None:
                self.bound = read_bound(self.api, body)
        else:
            body = await _in_turns(self._long(raw, headers))
        self.model = self.asked_model = model_of(body)
        self.streams = (body or {}).get("stream") is True

    def _long(self, raw: bytes, headers: Mapping[str, str]) -> Steps[dict[str, object] | None]:
        body = None
        if len(raw) <= PARSE_LIMIT:
            body = yield from abridged(raw, beginning=not is_named(headers))
        self.conversation = yield from naming(headers, body)
        if self.api is not None and body is not None and may_carry(self.api, raw):
            self.bound = yield from reading_bound(self.api, body)
        return body

    async def dress(self, model: str | None, keeps: Callable[[str], bool]) -> None:
        """Let it ask for `model`, without what `keeps` refuses (told by its hash)."""
        request = self._request
        if self._original is not None:
            request.raw_content, self._original = self._original, None
            if "content-length" in request.headers:
                request.headers["content-length"] = str(len(request.raw_content or b""))
        own = request.raw_content
        self.asked_model, self.left_out = model or self.model, ""
        if self.model is not None and self.asked_model not in (None, self.model):
            request.content = await self._made(partial(with_model, old=self.model, new=self.asked_model or ""))
        if self.api is not None and not all(map(keeps, self.bound.hashes)):
            found = await self._made(partial(stripped, self.api, keep=keeps))
            if found is not None:
                request.content, self.left_out = found.body, found.what
        if request.raw_content != own:
            self._original = own

    @property
    def other_model(self) -> str:
        """The model that is asked for now, where it is not the client's."""
        return (self.asked_model or "") if self.asked_model != self.model else ""

    async def can_go_bare(self) -> bool:
        """Whether there is something in what was sent last that could be left out."""
        if self.api is None:
            return False
        return await self._made(partial(stripped, self.api, keep=lambda _: False)) is not None

    async def _made[Made](self, make: Callable[[bytes], Made]) -> Made:
        """What is made of the body as it stands now; of a long one in a thread."""
        content = self._content()
        return await asyncio.to_thread(make, content) if len(content) > AT_ONCE else make(content)

    def sent(self) -> bytes:
        """The client's own bytes, uncompressed where that is allowed."""
        if self._original is None:
            return self._content()
        return self._original if "content-encoding" not in self._request.headers else b""

    def _content(self) -> bytes:
        raw, encoding = self._request.raw_content or b"", self._request.headers.get("content-encoding", "")
        return inflated(raw, encoding, COMPRESSED_LIMIT) if encoding else raw


def _is_prose(raw: bytes) -> bool:
    sample = raw[::SAMPLE]
    return (sample.count(b",") + sample.count(b"[") + sample.count(b"{")) * PROSE <= len(sample)


_reading: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""One long body at a time, so that ten do not take ten turns in a row."""


async def _in_turns(steps: Steps[dict[str, object] | None]) -> dict[str, object] | None:
    """Read a long body, and let everything else have its turn in between; None when it cannot be read."""
    async with _reading.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        until = time.perf_counter() + TURN
        try:
            while True:
                next(steps)
                if time.perf_counter() >= until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + TURN
        except StopIteration as end:
            body: dict[str, object] | None = end.value
            return body
        except UNREADABLE:
            return None


def by_name(headers: http.Headers) -> dict[str, str]:
    """Headers by lower-case name; of several with one name the first counts."""
    found: dict[str, str] = {}
    for name, value in headers.fields:
        found.setdefault(name.decode("utf-8", "surrogateescape").lower(), value.decode("utf-8", "surrogateescape"))
    return found
