"""Reads one response on its way to the client: whether it is a success, an error, complete; keeps a bounded copy.

Laws of this file:

1. It only reads; holding a response back is the failover stream's.
2. A response that cannot be parsed (an unknown encoding, no event stream, too long an event) is judged by its status
   and headers alone. One that is no success (a redirect) is passed on, whatever it holds.
3. A compressed response is inflated on the side, within bounds; its bytes pass as they are.
"""

import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import http

from copilot_balancer.copilot.encoding import Inflater
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_event import StreamError, lone_error, may_tell, read_document
from copilot_balancer.copilot.response_reader import ResponseReader
from copilot_balancer.text import printable
from copilot_balancer.views.requests import BODY_LIMIT

logger = logging.getLogger(__name__)

INFLATED = 1024 * 1024
"""Bytes of what is inflated of one response that are kept at once."""
DOCUMENT_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer in one piece that are looked at for what it binds to its account."""
MOST_TOLD = 8
"""Encodings that are told of as unread at most."""
PIECES = 4096
"""Pieces of it that are kept apart at most: each costs more than its bytes."""


_unread: set[str] = set()
"""Encodings of which was said that they are not read."""


def _say_unread(encoding: str) -> None:
    """One line for each encoding, and a few encodings at most."""
    if encoding not in _unread and len(_unread) < MOST_TOLD:
        _unread.add(encoding)
        logger.info(
            "copilot: an answer says that its encoding is %s, which could not be read: it is passed on as it came, "
            "and nothing is learnt from it",
            printable(encoding, 40),
        )


def is_stream(response: http.Response) -> bool:
    """Whether it is an event stream."""
    return _kind(response) == "text/event-stream"


def goes_in_chunks(response: http.Response) -> bool:
    """Whether the client may use the beginning before the end has come; else it can be held for others to edit."""
    kind = _kind(response)
    held = kind == "application/json" or kind.endswith("+json") or "content-length" in response.headers
    return kind == "text/event-stream" or not held


_PAGES = ("text/html", "application/xhtml+xml")


def _kind(response: http.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def beginning(response: http.Response | None) -> str:
    """What a person may look at of a refusal that the client will not see; tokens were taken out of it before."""
    # a compressed one stays unread: it may be a bomb
    content = response.raw_content if response is not None and "content-encoding" not in response.headers else None
    return (content or b"")[: 2 * BODY_LIMIT].decode("utf-8", "replace")[:BODY_LIMIT]


class ResponseTap:
    """One response that is no refusal: ``hooks.Watch``. The stream feeds it, or hands it over whole."""

    def __init__(
        self,
        response: http.Response,
        api: Api | None,
        keep: int,
        served: Callable[[], None],
        redact: Callable[[http.Response], None] = lambda _response: None,
    ) -> None:
        """Take up a response whose head has come.

        Args:
            response: whose head is read.
            api: its form; None: nothing in it is read.
            keep: bytes of a streamed one that are kept for people.
            served: called once it is known to be an answer.
            redact: takes accounts' tokens out of a response that is held whole.

        """
        self._api = api
        self._served = served
        self._keep = keep
        self._redact = redact
        self._released = False
        self.held = False
        """It was not streamed: the flow holds all of it."""
        self.kept = bytearray()
        """What a person may look at."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        self._inflater = None if encoding in ("", "identity") else Inflater(encoding)
        self._encoding = encoding
        longest = INFLATED if self._inflater else None
        success = response.status_code < 300
        self._reader = ResponseReader(api, longest) if success and api and is_stream(response) else None
        self._document: list[bytes] | None = [] if success and _kind(response) == "application/json" else None
        self._page = success and _kind(response) in _PAGES
        self._empty = success
        """It should hold an answer, and no byte of it has come."""
        if self._inflater is not None and not self._inflater.readable:
            self._is_unread()
        self._limit = INFLATED if self._inflater else DOCUMENT_LIMIT
        self._length = 0
        """Bytes of it so far."""

    def feed(self, data: bytes) -> None:
        """Read the next chunk, as the upstream sent it."""
        self._empty = self._empty and not data
        if len(self.kept) < self._keep:
            self.kept.extend(data[: self._keep - len(self.kept)])
        if self._inflater is not None:
            data = self._inflated(self._inflater, data)
        if self._reader is not None:
            self._reader.feed(data)
        elif self._document is not None:
            self._length += len(data)
            self._document.append(data)
            if self._length > self._limit:
                self._document = None
            elif len(self._document) > PIECES:
                self._document = [b"".join(self._document)]

    def _inflated(self, inflater: Inflater, data: bytes) -> bytes:
        plain = inflater.feed(data)
        if not inflater.readable:
            self._is_unread()
        return plain

    def _is_unread(self) -> None:
        """Its encoding is unknown here, or the bytes are not in it."""
        if self._reader is not None and self._reader.readable:
            self._reader.give_up()
            _say_unread(self._encoding)
        if self._document is not None:
            self._document = None
            _say_unread(self._encoding)

    def completed(self, response: http.Response) -> None:
        """It was held, and all of it stands in `response`; from here on other addons may read and edit it."""
        self._keep = 0
        self.feed(response.raw_content or b"")
        while self._inflater is not None and self._inflater.behind and self._length <= self._limit:
            self.feed(b"")
        self.held = True
        self._redact(response)

    # --- failover.hooks.Watch ----------------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether there is anything to tell from it while it passes."""
        return self._page or (self._reader is not None and self._reader.readable)

    @property
    def opened(self) -> bool:
        """Something has come that the client should see."""
        if self._page:
            return False
        return self._reader is None or self._reader.opened or not self._reader.readable

    @property
    def refused(self) -> bool:
        """It opens with an error, or is no answer of a model: an HTML page, a document that only tells an error."""
        if self._released:
            return False
        if self._reader is None:
            return self.error is not None
        return self._reader.error is not None and not self._reader.output

    @property
    def whole(self) -> bool:
        """It may end here: not when nothing has come. Anthropic's answers have one last word only, ``message_stop``."""
        reader = self._reader
        if self._page or self._empty:
            return self._released
        if reader is None or not reader.readable or (self._inflater is not None and self._inflater.behind):
            return True
        return reader.error is not None or (reader.complete and (reader.final or self._api is not Api.MESSAGES))

    @property
    def over(self) -> bool:
        """Nothing can follow: it is whole, and its last event, or an error, has been read."""
        reader = self._reader
        return reader is not None and self.whole and (reader.final or reader.error is not None)

    def released(self) -> None:
        """The client begins to get it: it counts as served, unless all that came is an error."""
        if not self.refused:
            self._served()
        self._released = True

    # --- what it said ------------------------------------------------------------------------------------------------

    @property
    def error(self) -> StreamError | None:
        """The error that stands in it; for an HTML page, that it is one."""
        if self._page:
            return StreamError(502, "an HTML page in the place of an answer")
        if self._reader is not None:
            return self._reader.error
        return lone_error(b"".join(self._document)) if self._document and self.held else None

    def learnt(self) -> tuple[list[str], dict[str, Any] | None, dict[str, int]]:
        """The hashes of the response's bound state, its quota snapshots and its usage counts."""
        if self._reader is not None:
            return self._reader.hashes, self._reader.quota, self._reader.used
        if self._inflater is not None and self._inflater.behind:
            return [], None, {}
        if self._document and self._api is not None and may_tell(self._api, self._document):
            return read_document(self._api, b"".join(self._document))
        return [], None, {}

    def let_go(self) -> None:
        """Drop its bytes: what they say was learnt, and mitmproxy's stream, which holds us, waits for the collector."""
        self.kept.clear()
        self._document = None
