"""One connection of the fake: parses requests and sends the scripted responses.

Laws of this file:

1. HTTP/1.1 by h11, one request after the other, keep-alive; an answer may be cut, dropped, late or endless.
2. A client that goes away while it is answered is noticed at once and written down (``Seen.client_gone``).
3. It asks its server only what to answer, never who anybody is.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Literal, Protocol

import h11
from wsproto.connection import Connection as WebSocketConnection
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import generate_accept_token

from copilot_balancer.fake import bodies, responses
from copilot_balancer.fake.answers import (
    AnnounceOnly,
    Answer,
    CutMid,
    Document,
    Drop,
    EmptyStream,
    Ending,
    EndlessError,
    Huge,
    Malformed,
    NoTerminator,
    Ok,
    RawBytes,
    Refuse,
    Silent,
    SlowFirst,
    StreamError,
    Trickle,
    Unstreamed,
)
from copilot_balancer.fake.bodies import EMBEDDINGS, RESPONSES, Quota
from copilot_balancer.fake.faults import FORMS, Streamable, outgoing
from copilot_balancer.fake.reply import Event, Reply, as_sse, as_text
from copilot_balancer.fake.seen import Seen

_SETTLE = 0.05
"""Seconds between the last bytes and an RST, which would otherwise overtake them."""


class Service(Protocol):
    """What a connection asks its server."""

    seen: list[Seen]

    def answer(self, seen: Seen) -> Answer:
        """The answer to a request."""
        ...

    def served(self, seen: Seen, ok: Ok) -> Reply:
        """The reply of an `Ok` to this request."""
        ...

    def served_headers(self, seen: Seen, ok: Ok) -> list[tuple[str, str]]:
        """The headers that only a served answer has."""
        ...

    def quota_of(self, seen: Seen) -> Mapping[str, Quota]:
        """The quotas of the account that is asked."""
        ...


class Connection:
    """One connection: requests in, answers out, one after the other (HTTP/1.1, keep-alive)."""

    def __init__(
        self, fake: Service, number: int, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._fake = fake
        self._number = number
        self._host = host
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 18)
        self._early: asyncio.Queue[bytes] = asyncio.Queue()
        """What the client sent while it was being answered."""

    async def serve(self) -> None:
        """Serve until one side ends the connection."""
        while (seen := await self._receive()) is not None:
            if not await self._answer_while_watching(seen):
                return
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()
            while not self._early.empty():
                self._http.receive_data(self._early.get_nowait())

    async def _receive(self) -> Seen | None:
        """The next whole request; None: there is none, or it was not HTTP."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._whole(error.error_status_hint, b"not HTTP as we know it", "text/plain")
                return None
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return self._record(head, bytes(body))
            else:
                return None

    def _record(self, head: h11.Request, body: bytes) -> Seen:
        authorization = next((value.decode("latin-1") for key, value in head.headers if key == b"authorization"), None)
        seen = Seen(
            host=self._host,
            method=head.method.decode(),
            target=head.target.decode("latin-1"),
            authorization=authorization,
            headers=list(head.headers.raw_items()),
            body=body,
            at=time.monotonic(),
            connection=self._number,
        )
        self._fake.seen.append(seen)
        return seen

    async def _answer_while_watching(self, seen: Seen) -> bool:
        """Answer, and notice a client that goes away meanwhile; whether the connection can go on."""
        answering = asyncio.ensure_future(self._perform(seen, self._fake.answer(seen)))
        watching = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                seen.client_gone = not seen.websocket  # one that leaves an idle WebSocket misses nothing
                return False
            return await answering
        except OSError:
            seen.client_gone = True
            return False
        finally:
            answering.cancel()
            watching.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def _watch(self) -> None:
        """End when the client does; what it sends meanwhile is kept for the next request."""
        with suppress(OSError):
            while data := await self._reader.read(65536):
                self._early.put_nowait(data)

    async def _perform(self, seen: Seen, answer: Answer) -> bool:
        """Send an answer; False: the connection ends with it."""
        match answer:
            case Ok() if seen.websocket:
                await self._websocket(seen, answer)
                return False
            case Ok() if seen.stream and seen.endpoint in FORMS:
                return await self._stream(seen, answer)
            case Ok() | Unstreamed():
                await self._serve_whole(seen, answer if isinstance(answer, Ok) else answer.ok)
            case Huge():
                return await self._perform(seen, answer.ok)
            case Document(body, status, headers):
                await self._whole(status, json.dumps(body).encode(), "application/json", headers)
            case Refuse(status, headers=headers, content_type=content_type):
                await self._whole(status, answer.content, content_type, headers)
            case Drop(how):
                await self._end(how)
                return False
            case CutMid() | StreamError() | Malformed() | NoTerminator() | AnnounceOnly() | EmptyStream():
                return await self._stream(seen, answer)
            case Silent():
                await asyncio.Event().wait()
            case SlowFirst(seconds, then):
                await asyncio.sleep(seconds)
                return await self._perform(seen, then)
            case EndlessError(status, chunk, gap):
                await self._head(status, "text/plain")
                while True:
                    await self._send(h11.Data(data=chunk))
                    await asyncio.sleep(gap)
            case RawBytes(data, close):
                await self._write(data)
                if not close:
                    await asyncio.Event().wait()
                await self._end("fin")
                return False
            case Trickle(data, gap):
                for byte in data:
                    await self._write(bytes([byte]))
                    await asyncio.sleep(gap)
                await self._end("fin")
                return False
        return True

    # how it is sent

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._write(data)

    async def _head(self, status: int, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        named = [("content-type", content_type), ("x-github-request-id", f"FAKE:{self._number}"), *headers]
        reason = HTTPStatus(status).phrase if status in HTTPStatus else ""  # Anthropic's 529 has none
        await self._send(h11.Response(status_code=status, headers=named, reason=reason))

    async def _whole(
        self, status: int, body: bytes, content_type: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        await self._head(status, content_type, [("content-length", str(len(body))), *headers])
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def _serve_whole(self, seen: Seen, ok: Ok) -> None:
        if form := FORMS.get(seen.endpoint):
            document = form.document(self._fake.served(seen, ok))
        elif seen.endpoint == EMBEDDINGS:
            inputs = seen.json.get("input")
            document = bodies.embeddings_document(seen.model or "", len(inputs) if isinstance(inputs, list) else 1)
        else:
            document = {"input_tokens": len(seen.body) // 4}
        headers = self._fake.served_headers(seen, ok)
        await self._whole(200, json.dumps(document).encode(), "application/json", headers)

    async def _stream(self, seen: Seen, answer: Streamable) -> bool:
        """Send an event stream, whole or not; False: the connection ends with it."""
        ok = answer if isinstance(answer, Ok) else answer.ok
        out = outgoing(answer, seen.endpoint, self._fake.served(seen, ok))
        headers = [("cache-control", "no-cache"), *self._fake.served_headers(seen, ok)]
        await self._head(200, "text/event-stream", headers)
        await asyncio.sleep(ok.wait)
        for number, event in enumerate(out.events):
            if number and ok.gap:
                await asyncio.sleep(ok.gap)
            await self._send(h11.Data(data=as_sse(event)))
        match out.ending:
            case "end":
                await self._send(h11.EndOfMessage())
                return True
            case "stall":
                await asyncio.Event().wait()
            case "rst" | "fin" as how:
                await self._end(how)
        return False

    async def _end(self, how: Literal["rst", "fin"]) -> None:
        if how == "rst":
            await asyncio.sleep(_SETTLE)
            connected = self._writer.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    # WebSocket: one answer of the script for the handshake, one for each response.create

    async def _websocket(self, seen: Seen, ok: Ok) -> None:
        key = (seen.header("sec-websocket-key") or "").encode()
        upgrade = [("upgrade", "websocket"), ("connection", "upgrade")]
        accept = ("sec-websocket-accept", generate_accept_token(key).decode())
        headers = [*upgrade, accept, *self._fake.served_headers(seen, ok)]
        await self._send(h11.InformationalResponse(status_code=101, headers=headers))
        frames = WebSocketConnection(ConnectionType.SERVER, trailing_data=self._http.trailing_data[0])
        text = ""
        while True:
            for event in frames.events():
                match event:
                    case TextMessage(data, message_finished=finished):
                        text += data
                        if finished:
                            if not await self._frame(seen, frames, text):
                                return
                            text = ""
                    case Ping():
                        await self._write(frames.send(event.response()))
                    case CloseConnection():
                        await self._write(frames.send(event.response()))
                        return
            frames.receive_data(await self._early.get())

    async def _frame(self, seen: Seen, frames: WebSocketConnection, text: str) -> bool:
        """Answer one ``response.create``, which is recorded as a request of its own; False: the connection ended."""
        asked = replace(seen, method="FRAME", body=text.encode(), at=time.monotonic())
        self._fake.seen.append(asked)
        asked.client_gone = True  # until all is sent
        return await self._answer_frame(asked, frames, self._fake.answer(asked))

    async def _answer_frame(self, asked: Seen, frames: WebSocketConnection, answer: Answer) -> bool:
        ending: Ending = "end"
        events: tuple[Event, ...] = ()
        goes_on, gap = False, 0.0
        match answer:
            case Huge() | Unstreamed():
                return await self._answer_frame(asked, frames, answer.ok)
            case SlowFirst(seconds, then):
                await asyncio.sleep(seconds)
                return await self._answer_frame(asked, frames, then)
            case Refuse():
                code, message = answer.told
                events = (responses.frame_error(code, message, self._fake.quota_of(asked)),)
                goes_on = True
            case Ok() | CutMid() | StreamError() | Malformed() | NoTerminator() | AnnounceOnly() | EmptyStream():
                ok = answer if isinstance(answer, Ok) else answer.ok
                out = outgoing(answer, RESPONSES, self._fake.served(asked, ok))
                events, ending, goes_on, gap = out.events, out.ending, out.whole, ok.gap
            case _:
                ending = "rst"
        for event in events:
            await self._write(frames.send(TextMessage(as_text(event))))
            await asyncio.sleep(gap)
        asked.client_gone = ending == "stall"
        match ending:
            case "stall":
                await asyncio.Event().wait()
            case "rst" | "fin" as how:
                await self._end(how)
                return False
            case "end" if not goes_on:
                await self._write(frames.send(CloseConnection(1000)))
        return goes_on
