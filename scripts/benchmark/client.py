"""The client of scripts/bench: requests over kept connections through a proxy, each timed where it matters."""

import asyncio
import itertools
import json
import re
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from copilot_balancer.copilot.protocol import PLACEHOLDER

HOST = "api.githubcopilot.com"
_SENT_AT = re.compile(rb"sent-at=([0-9.]+)")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_HOP = re.compile(rb"\r\nx-hop: ([0-9.]+)\r\n", re.IGNORECASE)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Ask:
    """A request: what the upstream is to answer, and how large the request's own body is."""

    answer: str
    """As in ``bench_upstream``."""
    size: int = 1000
    """Bytes of the body, in messages of 1 KB."""
    model: str = "gpt-4.1"

    def raw(self, conversation: str) -> bytes:
        """The request as it is sent."""
        said = [{"role": "user", "content": "x" * min(1000, self.size)}] * max(self.size // 1000, 1)
        stream = not self.answer.startswith(("json", "hop"))
        body = json.dumps({"model": self.model, "stream": stream, "messages": said}).encode()
        lines = [
            "POST /chat/completions HTTP/1.1",
            f"host: {HOST}",
            f"authorization: Bearer {PLACEHOLDER}",
            "content-type: application/json",
            "user-agent: opencode/1.0",
            f"x-session-affinity: {conversation}",
            f"x-bench: {self.answer}",
            f"content-length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Timing:
    """One answer; seconds."""

    first: float
    """From the request's last byte out to the first byte of the answer's body in."""
    whole: float
    """From the request's last byte out to the answer's last byte in."""
    late: list[float] = field(default_factory=list)
    """Paced streams: from each event's leaving the upstream to its arrival."""
    gaps: list[float] = field(default_factory=list)
    """Paced streams: between the arrivals of events."""
    hop: float | None = None


class Connection:
    """A client's connection to the API host, through a proxy."""

    def __init__(self, port: int, ca_file: Path | None) -> None:
        self._port, self._ca_file = port, ca_file
        self.conversation = f"bench-{next(_numbers)}"

    async def open(self, *, direct: bool = False) -> Self:
        """Connect; `direct`: the port is the upstream's own."""
        tls = ssl.create_default_context(cafile=self._ca_file)
        tls.set_alpn_protocols(["http/1.1"])
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
        if not direct:
            self.writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nhost: {HOST}:443\r\n\r\n".encode())
            answer = await self.reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.partition(b"\r\n")[0]:
                raise ConnectionError(answer.decode())
        await self.writer.start_tls(tls, server_hostname=HOST)
        return self

    async def close(self) -> None:
        """Hang up at once."""
        self.writer.transport.abort()
        await asyncio.sleep(0.001)  # the loop closes the socket a turn later

    async def ask(self, raw: bytes) -> Timing:
        """Send a request, read the whole answer.

        Raises:
            ConnectionError: the answer is no 200.

        """
        self.writer.write(raw)
        await self.writer.drain()
        began = time.monotonic()
        head = await self.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError((head + await self.reader.read(2000)).decode("utf-8", "replace"))
        if found := _LENGTH.search(head):
            first = time.monotonic()
            await self.reader.readexactly(int(found[1]))
            hop = _HOP.search(head)
            return Timing(first - began, time.monotonic() - began, hop=float(hop[1]) if hop else None)
        return await self._stream(began)

    async def _stream(self, began: float) -> Timing:
        first, late, arrived, tail = 0.0, [], [], b""
        while not tail.endswith(b"0\r\n\r\n"):
            piece = await self.reader.read(2**18)
            now = time.monotonic()
            if not piece:
                raise ConnectionError("the stream ended before it was complete")
            first = first or now
            tail = (tail + piece)[-5:]
            for sent_at in _SENT_AT.findall(piece):
                late.append(now - float(sent_at))
                arrived.append(now)
        gaps = [after - before for before, after in itertools.pairwise(arrived)]
        return Timing(first - began, time.monotonic() - began, late, gaps)


@dataclass
class Batch:
    """What came of a batch of requests."""

    timings: list[Timing]
    seconds: float


class Client:
    """Kept connections to one proxy."""

    def __init__(self, port: int, ca_file: Path | None, *, direct: bool = False) -> None:
        self._port, self._ca_file, self._direct = port, ca_file, direct
        self._connections: list[Connection] = []

    async def batch(self, ask: Ask, concurrent: int, *, seconds: float = 0.0, requests: int = 0) -> Batch:
        """So many at a time, each after the other on its connection: for so long, or so many in all."""
        while len(self._connections) < concurrent:
            connection = await Connection(self._port, self._ca_file).open(direct=self._direct)
            await connection.ask(Ask("json 100").raw(connection.conversation))
            self._connections.append(connection)
        timings: list[Timing] = []
        left = requests or 10**9
        began = time.monotonic()
        end = began + seconds if seconds else began + 3600

        async def work(connection: Connection) -> None:
            nonlocal left
            raw = ask.raw(connection.conversation)
            while left > 0 and (time.monotonic() < end or not timings):
                left -= 1
                timings.append(await connection.ask(raw))

        await asyncio.gather(*(work(connection) for connection in self._connections[:concurrent]))
        return Batch(timings, time.monotonic() - began)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            await connection.close()
