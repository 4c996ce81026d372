"""The clients of the layer's simulation: one that speaks HTTP/1.1, and one that speaks HTTP/2.

The law of this file: a client knows what it sent, and reads what it gets; what it should get is the oracle's.
"""

from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import events

from support.layer_plans import chunked
from support.layer_story import Wanted

if TYPE_CHECKING:
    from support.layer_world import World

PATIENCE = 900.0
"""Seconds after which a client gives up; nothing that a script does takes so long, but a silence nobody watches over."""


class Person1:
    """An HTTP/1.1 client: one request after the other on one connection; sometimes it does not wait."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=200_000)
        self.next = 0
        self.raw = b""
        self.over = False
        self.pipelines = world.rng.random() < 0.1
        self.written = 0.0
        """When the last byte of all requests so far is out; one that is begun sooner comes after it."""

    @property
    def current(self) -> Wanted | None:
        """Whose answer comes next."""
        return next((wanted for wanted in self.world.wanted[: self.next] if wanted.state == "waiting"), None)

    def begin(self) -> None:
        self._ask()

    def _ask(self) -> None:
        if self.over or self.world.client_gone or self.next >= len(self.world.wanted):
            return
        wanted = self.world.wanted[self.next]
        self.next += 1
        self.world.later(0.0, lambda: self.world.say(f"request {wanted.number}: {wanted.method.decode()}"))
        if self.current is wanted:
            self._expect(wanted)
        data = wanted.head + self._body(wanted)
        after = max(self.written - self.world.now, 0.0)
        for chunk in self.world.chunks(data):
            after += self.world.moment() / 4
            self.world.later(after, lambda chunk=chunk: self._deliver(chunk))
        self.written = self.world.now + after
        self.world.later(after + PATIENCE, lambda: self._impatient(wanted))
        if self.pipelines and not wanted.websocket:
            self.world.later(after, self._ask)

    def _body(self, wanted: Wanted) -> bytes:
        if b"chunked" not in wanted.head:
            return wanted.body
        half = len(wanted.body) // 2
        parts = [part for part in (wanted.body[:half], wanted.body[half:]) if part]
        return b"".join(part for part in chunked(parts) if isinstance(part, bytes))

    def _expect(self, wanted: Wanted) -> None:
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        more = [("upgrade", "websocket")] if wanted.websocket else []
        self.http.send(h11.Request(method=wanted.method, target="/", headers=[("host", "x"), *more]))
        self.http.send(h11.EndOfMessage())

    def _deliver(self, chunk: bytes) -> None:
        client = self.world.context.client
        if not self.world.client_gone and client.state & ConnectionState.CAN_READ:
            self.world.feed(events.DataReceived(client, chunk))

    def _impatient(self, wanted: Wanted) -> None:
        if wanted.state == "waiting" and not self.over:
            self.world.client_goes("its patience is at its end")

    def gives_up(self) -> None:
        for wanted in self.world.wanted[: self.next]:
            if wanted.state == "waiting":
                wanted.state = "left"

    def receive(self, data: bytes) -> None:
        if self.http.their_state is h11.SWITCHED_PROTOCOL:
            self._upgraded(data)
            return
        try:
            self.http.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            self.world.blame(f"the client cannot read what it gets: {error}")

    def _read(self) -> None:
        while (wanted := self.current) is not None:
            event = self.http.next_event()
            match event:
                case h11.NEED_DATA | h11.PAUSED:
                    return
                case h11.InformationalResponse(status_code=101) | h11.Response(status_code=101):
                    wanted.status = 101
                    self.world.say(f"client: 101 for {wanted.number}")
                    self._upgraded(self.http.trailing_data[0])
                    return
                case h11.InformationalResponse():
                    self.world.say(f"client: {event.status_code} meanwhile")
                case h11.Response(status_code=status):
                    wanted.status = status
                    self.world.say(f"client: head {status} for {wanted.number}")
                case h11.Data(data=data):
                    wanted.got += bytes(data)
                case h11.EndOfMessage():
                    wanted.state = "whole"
                    self.world.say(f"client: all of {wanted.number}: {wanted.got[:60]!r}")
                    self._next()
                case h11.ConnectionClosed():
                    return

    def _next(self) -> None:
        if self.http.their_state is not h11.DONE:
            self.over = True  # it said that it closes
        elif (waiting := self.current) is not None:
            self._expect(waiting)
        else:
            self.world.later(0.001 + self.world.moment(), self._ask)

    def _upgraded(self, data: bytes) -> None:
        if (wanted := self.current) is not None:
            wanted.got += data

    def closed(self) -> None:
        """Our side of the connection was closed by the proxy."""
        self.over = True
        wanted = self.current
        if wanted is None or self.world.client_gone:
            return
        if wanted.status == 101:
            wanted.state = "whole"
            return
        try:
            self.http.receive_data(b"")
            self._read()
        except h11.RemoteProtocolError:
            pass
        for one in self.world.wanted[: self.next]:
            if one.state == "waiting":
                one.state = "aborted"
                self.world.say(f"client: {one.number} is cut off after {one.status} {one.got[:40]!r}")

    def done(self) -> bool:
        return self.over or all(wanted.state != "waiting" for wanted in self.world.wanted)


class Person2:
    """An HTTP/2 client: its requests run side by side; it may cancel one."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.http.initiate_connection()
        self.of_stream: dict[int, Wanted] = {}
        self.over = False
        self.next = 0

    def begin(self) -> None:
        self._flush()
        for number in range(len(self.world.wanted)):
            self.world.later(self.world.moment() * number, lambda number=number: self._ask(number))

    def _ask(self, number: int) -> None:
        if self.over or self.world.client_gone:
            return
        wanted = self.world.wanted[number]
        self.next = max(self.next, number + 1)
        stream = self.http.get_next_available_stream_id()
        self.of_stream[stream] = wanted
        headers = [(b":method", wanted.method), (b":scheme", b"https"), (b":path", b"/responses")]
        headers += [(b":authority", b"api.githubcopilot.com"), (b"x-number", b"%d" % number)]
        if b"clients-own" in wanted.head:
            headers.append((b"authorization", b"Bearer clients-own"))
        if wanted.body and number % 2 == 0:  # HTTP/2 needs none
            headers.append((b"content-length", b"%d" % len(wanted.body)))
        self.world.say(f"request {number}: {wanted.method.decode()} as stream {stream}")
        self.http.send_headers(stream, headers, end_stream=not wanted.body)
        if wanted.body:
            self.http.send_data(stream, wanted.body, end_stream=True)
        self._flush()
        self.world.later(PATIENCE, lambda: self._impatient(wanted))
        if self.world.rng.random() < 0.1:
            self.world.later(self.world.rng.uniform(0, 20), lambda: self._cancel(stream))

    def _cancel(self, stream: int) -> None:
        wanted = self.of_stream[stream]
        if self.over or self.world.client_gone or wanted.state != "waiting":
            return
        self.world.say(f"client: cancels {wanted.number}")
        wanted.state = "left"
        self.http.reset_stream(stream, 8)
        self._flush(at_once=True)

    def _flush(self, *, at_once: bool = False) -> None:
        data = self.http.data_to_send()
        if at_once:
            self._deliver(data)
            return
        # what was sent before must arrive before: one queue, so no delay of its own
        for chunk in self.world.chunks(data):
            self.world.later(0.0, lambda chunk=chunk: self._deliver(chunk))

    def _deliver(self, chunk: bytes) -> None:
        client = self.world.context.client
        if chunk and not self.world.client_gone and client.state & ConnectionState.CAN_READ:
            self.world.feed(events.DataReceived(client, chunk))

    def _impatient(self, wanted: Wanted) -> None:
        if wanted.state == "waiting" and not self.over:
            self.world.client_goes("its patience is at its end")

    def gives_up(self) -> None:
        for wanted in self.of_stream.values():
            if wanted.state == "waiting":
                wanted.state = "left"

    def receive(self, data: bytes) -> None:
        try:
            for event in self.http.receive_data(data):
                wanted = self.of_stream.get(getattr(event, "stream_id", 0))
                match event:
                    case h2.events.ResponseReceived() if wanted:
                        wanted.status = int(dict(event.headers)[b":status"])
                        self.world.say(f"client: head {wanted.status} for {wanted.number}")
                    case h2.events.DataReceived() if wanted:
                        wanted.got += event.data
                        self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded() if wanted and wanted.state == "waiting":
                        wanted.state = "whole"
                        self.world.say(f"client: all of {wanted.number}: {wanted.got[:60]!r}")
                    case h2.events.StreamReset() if wanted and wanted.state == "waiting":
                        wanted.state = "aborted"
                        self.world.say(f"client: {wanted.number} is reset")
        except h2.exceptions.ProtocolError as error:
            self.world.blame(f"the client cannot read what it gets: {error}")
        self.world.later(0.0, self._flush)

    def closed(self) -> None:
        self.over = True
        for wanted in self.of_stream.values():
            if wanted.state == "waiting" and not self.world.client_gone:
                wanted.state = "aborted"

    def done(self) -> bool:
        return self.over or all(wanted.state != "waiting" for wanted in self.world.wanted)
