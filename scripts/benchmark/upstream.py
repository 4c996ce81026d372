"""The upstream of scripts/bench: fixed answers, as cheap as Python can give them, in a process of its own.

The embedded fake plays the service and keeps all that it saw; here the upstream must cost little beside the proxies
that are measured. It borrows the fake's throw-away CA. What is answered stands in the request's header ``x-bench``:

- ``json SIZE``: one JSON body of so many bytes.
- ``sse SIZE``: a stream of about so many bytes, sent as fast as it goes, an event at a time.
- ``paced EVENTS MS``: so many events, one every so many milliseconds; each tells when it was sent.
- ``hop``: a model that is asked for the first time is refused (429 for this model), then served. The answer's header
  ``x-hop`` tells the seconds from the refusal's last byte to the first byte of the next request for that model.

It prints its port and the path of its CA, and ends with its standard input.
"""

import asyncio
import json
import re
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from copilot_balancer.fake.authority import Authority

EVENT_BYTES = 250
"""A chat chunk of the service has about so many."""
_BENCH = re.compile(rb"\r\nx-bench: ([^\r]+)\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"([^"]+)"')


def event(text: str) -> bytes:
    """One event of a chat answer, as a chunk of HTTP/1.1."""
    chunk = {"object": "chat.completion.chunk", "model": "gpt-4.1", "choices": [{"delta": {"content": text}}]}
    line = f"data: {json.dumps(chunk)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(line), line)


def head(status: str, kind: str, *more: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {kind}", *more, "", ""]).encode()


STREAM = head("200 OK", "text/event-stream", "transfer-encoding: chunked")
_STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"%x\r\n%s\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" % (len(_STOP), _STOP)
"""The choice is closed, then the stream: what lacks either is cut off."""


@cache
def whole(size: int) -> bytes:
    """A JSON answer of `size` bytes."""
    frame = {"id": "x", "model": "gpt-4.1", "choices": [{"message": {"role": "assistant", "content": ""}}]}
    empty = len(json.dumps(frame))
    frame["choices"] = [{"message": {"role": "assistant", "content": "x" * max(size - empty, 0)}}]
    body = json.dumps(frame).encode()
    return head("200 OK", "application/json", f"content-length: {len(body)}") + body


@cache
def burst(size: int) -> tuple[bytes, ...]:
    """The events of a stream of about `size` bytes."""
    return (event("x" * (EVENT_BYTES - 110)),) * max(size // EVENT_BYTES, 1)


@cache
def refusal() -> bytes:
    """The 429 that is about this model alone; no rest of another model's."""
    body = b'{"error":{"code":"user_model_rate_limited","message":"slow down"}}'
    return head("429 Too Many Requests", "application/json", "retry-after: 30", f"content-length: {len(body)}") + body


class Answering(asyncio.Protocol):
    """One connection: requests with a length in, fixed answers out."""

    refused: dict[bytes, float]

    def __init__(self, refused: dict[bytes, float]) -> None:
        self.refused = refused
        self.received = bytearray()
        self.began = 0.0
        self.wanted = 0
        self.pacing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.write: Callable[[bytes], None] = transport.write

    def data_received(self, data: bytes) -> None:
        if not self.received:
            self.began = time.monotonic()
        self.received += data
        if not self.wanted:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self.received, 0, end + 2)
            self.wanted = end + 4 + (int(found[1]) if found else 0)
        if len(self.received) >= self.wanted:
            asked = _BENCH.search(self.received)
            kind, *numbers = (asked[1] if asked else b"json 100").decode().split()
            getattr(self, kind)(*map(int, numbers))
            self.received.clear()
            self.wanted = 0

    def json(self, size: int) -> None:
        self.write(whole(size))

    def sse(self, size: int) -> None:
        self.write(STREAM)
        for one in burst(size):
            self.write(one)
        self.write(DONE)

    def paced(self, events: int, milliseconds: int) -> None:
        self.pacing = asyncio.create_task(self._pace(events, milliseconds / 1000))

    async def _pace(self, events: int, gap: float) -> None:
        self.write(STREAM)
        for number in range(events):
            if number:
                await asyncio.sleep(gap)
            self.write(event(f"sent-at={time.monotonic():.6f}"))
        self.write(DONE)

    def hop(self) -> None:
        found = _MODEL.search(self.received)
        model = found[1] if found else b""
        if (refused_at := self.refused.pop(model, None)) is None:
            self.write(refusal())
            self.refused[model] = time.monotonic()
            return
        body = b'{"choices":[]}'
        told = (f"x-hop: {self.began - refused_at:.6f}", f"content-length: {len(body)}")
        self.write(head("200 OK", "application/json", *told) + body)


async def serve() -> None:
    """Answer until standard input ends."""
    with tempfile.TemporaryDirectory(prefix="copilot-balancer-bench-") as folder:
        authority = Authority(Path(folder))
        tls = authority.context("api.githubcopilot.com")

        def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = authority.context(name or "127.0.0.1")

        tls.sni_callback = choose
        refused: dict[bytes, float] = {}
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Answering(refused), "127.0.0.1", 0, ssl=tls, backlog=512)
        print(server.sockets[0].getsockname()[1], authority.file, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.close()


if __name__ == "__main__":
    asyncio.run(serve())
