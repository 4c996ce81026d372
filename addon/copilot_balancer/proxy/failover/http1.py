"""mitmproxy's HTTP/1 connections, reading all of RFC 9112: 1xx before the final response, trailers, bounded heads.

Laws of this file:

1. An informational response (RFC 9110, 15.2) is skipped: the final one counts. 101 is final.
2. Trailers are dropped, as RFC 9110, 6.5.1 allows; mitmproxy raises on them, and its connection hangs.
3. A head, or trailers, of more than `HEAD_BYTES` are a protocol error; mitmproxy reads on for ever.
4. A connection of mitmproxy's becomes one of these by `adopted`: its class is all that changes.
"""

import re

from h11 import Data, EndOfMessage
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server

PRIVATE = {
    Http1Client: ("body_reader", "buf", "conn", "done", "read_body", "read_headers", "request", "state", "stream_id"),
    Http1Server: ("body_reader", "buf", "conn", "done", "read_body", "read_headers", "request", "state", "stream_id"),
    ChunkedReader: ("__call__",),
    ReceiveBuffer: ("maybe_extract_lines",),
}
"""What we override or call and mitmproxy and h11 do not promise to keep; tested as ``layer.PRIVATE`` is."""

HEAD_BYTES = 256 * 1024
"""Bytes of a head, or of trailers; servers commonly allow 8 to 32 KB."""

_INFORMATIONAL = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d[ \r\n]")
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _WithoutTrailers(ChunkedReader):
    """Reads a chunked body and drops its trailers."""

    def __call__(self, buf: ReceiveBuffer) -> Data | EndOfMessage | None:
        event = super().__call__(buf)
        return EndOfMessage() if isinstance(event, EndOfMessage) else event


class _Bounded(Http1Connection):
    """What both sides share."""

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, which raises when trailers come."""
        if type(self.body_reader) is ChunkedReader:
            self.body_reader = _WithoutTrailers()
        yield from super().read_body(event)
        if self.state == self.read_body and len(self.buf) > HEAD_BYTES:
            yield from self._refused("trailers")

    def _refused(self, what: str) -> layer.CommandGenerator[None]:
        """End the connection: `what` is larger than it may be."""
        assert self.stream_id is not None
        message = f"{what} of more than {HEAD_BYTES // 1024} KB"
        self.state = self.done
        yield commands.CloseConnection(self.conn)
        yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, message, code=self.ReceiveProtocolError.code))


class UpstreamConnection(_Bounded, Http1Client):
    """The connection to an upstream."""

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's, which takes a 1xx for the final response."""
        while self.request and _INFORMATIONAL.match(bytes(self.buf)[:16]) and self.buf.maybe_extract_lines():
            pass
        yield from super().read_headers(event)
        if self.state == self.read_headers and self.request and len(self.buf) > HEAD_BYTES:
            yield from self._refused("a response's head")


class ClientConnection(_Bounded, Http1Server):
    """The connection of a client."""

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's, which reads a head without end for ever."""
        yield from super().read_headers(event)
        if self.state == self.read_headers and len(self.buf) > HEAD_BYTES:
            self.state = self.done
            yield commands.SendData(self.conn, _TOO_LARGE)
            yield commands.CloseConnection(self.conn)


def adopted(top: layer.Layer) -> None:
    """Let the connection to an upstream that stands below `top`, a stack of mitmproxy's, be one of ours."""
    below: layer.Layer | None = top
    while below is not None and not isinstance(below, Http1Client):
        below = getattr(below, "child_layer", None)
    if below is not None and type(below) is Http1Client:
        below.__class__ = UpstreamConnection
        below.state = below.read_headers
