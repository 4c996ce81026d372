"""The body of a client's request: what is read of it, and what of it goes upstream.

Laws of this file:

1. The client's own bytes go out. Another body does only for another model that the user wrote down (features B4), or
   without what only another account takes back (D9); and the next account starts from the client's own bytes again.
2. A body that cannot be read goes on as it is.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from mitmproxy import http

from copilot_balancer.bound import Bound, read_bound, stripped
from copilot_balancer.copilot import api_of, model_of, read_body, with_model
from copilot_balancer.error_body import inflated

COMPRESSED_LIMIT = 4 * 1024 * 1024
"""Bytes of a compressed body that are looked at, inflated. No client is known to send one (clients.md 3, 4)."""

PARSE_ON_LOOP = 1024 * 1024
"""Bytes of a body that are parsed on the event loop; a longer one is parsed in a thread."""


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
        self.bound = Bound()
        """What it carries that only its maker takes back."""
        self.left_out = ""
        """What of that the present account is not sent, for people."""

    @property
    def is_long(self) -> bool:
        """Whether it is read and changed in a thread; of a compressed one nobody knows before."""
        return len(self._request.raw_content or b"") > PARSE_ON_LOOP or "content-encoding" in self._request.headers

    async def read(self) -> dict[str, object] | None:
        """The JSON object that it is; None when it is none that we can read."""
        raw = self._content()
        large = len(raw) > PARSE_ON_LOOP
        body, self.bound = await asyncio.to_thread(self._parsed, raw) if large else self._parsed(raw)
        self.model = self.asked_model = model_of(body)
        self.streams = (body or {}).get("stream") is True
        return body

    def _parsed(self, raw: bytes) -> tuple[dict[str, object] | None, Bound]:
        body = read_body(raw)
        return body, read_bound(self.api, body) if self.api is not None and body is not None else Bound()

    async def dress(self, model: str | None, keeps: Callable[[str], bool]) -> None:
        """Let it ask for `model`, without what `keeps` refuses (told by its mark)."""
        request = self._request
        if self._original is not None:
            request.raw_content, self._original = self._original, None
            if "content-length" in request.headers:
                request.headers["content-length"] = str(len(request.raw_content or b""))
        own = request.raw_content
        self.asked_model, self.left_out = model or self.model, ""
        if self.model is not None and self.asked_model not in (None, self.model):
            request.content = with_model(self._content(), self.model, self.asked_model or "")
        if self.api is not None and not all(map(keeps, self.bound.marks)):
            content = self._content()
            strip = partial(stripped, self.api, content, keeps)
            found = await asyncio.to_thread(strip) if len(content) > PARSE_ON_LOOP else strip()
            if found is not None:
                request.content, self.left_out = found.body, found.what
        if request.raw_content != own:
            self._original = own

    @property
    def other_model(self) -> str:
        """The model that is asked for now, where it is not the client's."""
        return (self.asked_model or "") if self.asked_model != self.model else ""

    def can_go_bare(self) -> bool:
        """Whether there is something in what was sent last that could be left out."""
        return self.api is not None and stripped(self.api, self._content(), lambda _mark: False) is not None

    def _content(self) -> bytes:
        raw, encoding = self._request.raw_content or b"", self._request.headers.get("content-encoding", "")
        return inflated(raw, encoding, COMPRESSED_LIMIT) if encoding else raw
