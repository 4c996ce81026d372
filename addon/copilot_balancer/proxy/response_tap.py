"""An answer on its way to the client: what is read of it, and what of it is kept.

Laws of this file:

1. The bytes pass as they are; nothing waits here (holding back is the layer's).
2. An answer that cannot be read (compressed, no event stream, too long an event) is judged by nothing but its head.
"""

from collections.abc import Callable
from typing import Any

from mitmproxy import http

from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_event import StreamError, may_tell, read_document
from copilot_balancer.copilot.response_reader import ResponseReader
from copilot_balancer.views.requests import BODY_LIMIT

DOCUMENT_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer in one piece that are looked at for what it binds to its account."""
PIECES = 4096
"""Pieces of it that are kept apart at most: each costs more than its bytes."""


def is_stream(response: http.Response) -> bool:
    """Whether it is an event stream."""
    return _kind(response) == "text/event-stream"


def _kind(response: http.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def beginning(response: http.Response | None) -> str:
    """What a person may look at of a refusal that the client will not see; tokens were taken out of it before."""
    # a compressed one stays unread: it may be a bomb
    content = response.raw_content if response is not None and "content-encoding" not in response.headers else None
    return (content or b"")[: 2 * BODY_LIMIT].decode("utf-8", "replace")[:BODY_LIMIT]


class ResponseTap:
    """One answer that is streamed; mitmproxy calls it with each piece (``response.stream``)."""

    def __init__(self, response: http.Response, api: Api | None, keep: int, served: Callable[[], None]) -> None:
        """Take up an answer whose head has come; `served` is called once it is known to be one."""
        self._api = api
        self._served = served
        self._keep = keep
        self._released = False
        self.kept = bytearray()
        """What a person may look at."""
        plain = response.headers.get("content-encoding", "identity").strip().lower() == "identity"
        self._reader = ResponseReader(api) if api and plain and is_stream(response) else None
        self._document: list[bytes] | None = [] if api and plain and _kind(response) == "application/json" else None
        self._length = 0
        """Bytes of it so far."""

    def __call__(self, data: bytes) -> bytes:
        """Look at the next piece and hand it on."""
        if len(self.kept) < self._keep:
            self.kept.extend(data[: self._keep - len(self.kept)])
        if self._reader is not None:
            self._reader.feed(data)
        elif self._document is not None:
            self._length += len(data)
            self._document.append(data)
            if self._length > DOCUMENT_LIMIT:
                self._document = None
            elif len(self._document) > PIECES:
                self._document = [b"".join(self._document)]
        return data

    # --- failover.hooks.Watch ----------------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether there is anything to tell from it while it passes."""
        return self._reader is not None

    @property
    def opened(self) -> bool:
        """Something has come that the client should see."""
        return self._reader is None or self._reader.opened or not self._reader.readable

    @property
    def refused(self) -> bool:
        """It opens with an error."""
        reader = self._reader
        return reader is not None and reader.error is not None and not reader.output and not self._released

    @property
    def whole(self) -> bool:
        """It may end here. Anthropic's answers have one last word only, ``message_stop``."""
        reader = self._reader
        if reader is None or not reader.readable:
            return True
        return reader.final or reader.error is not None or (reader.complete and self._api is not Api.MESSAGES)

    def released(self) -> None:
        """The client begins to get it: it counts as served, unless all that came is an error."""
        if not self.refused:
            self._served()
        self._released = True

    # --- what it said ------------------------------------------------------------------------------------------------

    @property
    def error(self) -> StreamError | None:
        """The error that stands in it."""
        return self._reader.error if self._reader is not None else None

    def learnt(self) -> tuple[list[str], dict[str, Any] | None, dict[str, int]]:
        """The marks of what it binds to its account, the quota snapshots and the usage counts that it told."""
        if self._reader is not None:
            return self._reader.marks, self._reader.quota, self._reader.used
        if self._document and self._api is not None and may_tell(self._api, self._document):
            return read_document(self._api, b"".join(self._document))
        return [], None, {}

    def let_go(self) -> None:
        """Drop its bytes: what they say was learnt, and mitmproxy's stream, which holds us, waits for the collector."""
        self.kept.clear()
        self._document = None
