"""HttpLayer of one client connection to a Copilot host, with our streams and our HTTP/1 connections in it.

The law of this file: it knows HTTP, not Copilot, and keeps what streams share: which addon answers their hooks,
connections that failed, one timer, and chunks of responses that are sent together.
"""

import math
from collections.abc import Callable

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpLayer, HTTPMode, HttpStream, RegisterHttpConnection
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server

from copilot_balancer.proxy import clock
from copilot_balancer.proxy.failover.fast_path import Answering, FastPathStream
from copilot_balancer.proxy.failover.http1 import ClientConnection, adopted
from copilot_balancer.proxy.failover.response import Look
from copilot_balancer.proxy.failover.stream import FailoverStream

PRIVATE = {
    HttpStream: (
        "_handle_event",
        "check_body_size",
        "check_invalid",
        "check_killed",
        "handle_protocol_error",
        "make_server_connection",
        "passthrough",
        "send_response",
        "start_request_stream",
        "start_response_stream",
        "_paused",
        "_paused_event_queue",
        "state_consume_request_body",
        "state_consume_response_body",
        "state_done",
        "state_errored",
        "state_stream_response_body",
        "state_wait_for_request_headers",
        "state_wait_for_response_headers",
    ),
    HttpLayer: (
        "_handle_event",
        "event_to_child",
        "get_connection",
        "make_stream",
        "register_connection",
        "waiting_for_establishment",
    ),
    GetHttpConnection: ("connection_spec_matches",),
    RegisterHttpConnection: ("connection", "err"),
    Http1Server: ("buf",),
}
"""What we override or call and mitmproxy does not promise to keep; tested against the oldest and newest version."""


MAX_IDLE = 120.0
"""Seconds that a kept connection may have been silent when the next request comes, sleep included."""
MAX_AGE = 900.0
"""Seconds after which a kept connection serves no further request."""


def _nobody() -> None:
    """No addon answers directly: the questions go through mitmproxy's hooks."""


class FailoverLayer(HttpLayer):
    """The HTTP layer of one client connection to a Copilot host.

    Args:
        context: of the connection.
        answering: the addon that answers at once, at this moment; None: mitmproxy's hooks are run, which costs a task
            and a look at each of mitmproxy's addons.

    """

    def __init__(self, context: Context, answering: Callable[[], Answering | None] = _nobody) -> None:
        super().__init__(context, HTTPMode.transparent)
        self.answering = answering
        self.gathering: set[FastPathStream] = set()
        self.retired: set[Connection] = set()
        """Upstream connections that failed: whatever still comes from them concerns no attempt any more."""
        self._kept: dict[Connection, tuple[float, float]] = {}
        """Upstream connection -> when it was first seen, and when it was last used."""
        self._wakeup: commands.RequestWakeup | None = None
        self._wakes_at = math.inf

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Create our stream instead of mitmproxy's."""
        stream = self.streams[stream_id] = FailoverStream(self.context.fork(), stream_id, self)
        yield from self.event_to_child(stream, events.Start())

    def register_connection(self, command: RegisterHttpConnection) -> layer.CommandGenerator[None]:
        """A connection to an upstream stands, or has failed."""
        if command.err is None:
            adopted(self.connections[command.connection])
        yield from super().register_connection(command)

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but a connection that was kept for too long is closed: its path may be dead by now."""
        for connection in [*self.connections, self.context.server] if reuse else ():
            if event.connection_spec_matches(connection) and connection.connected and self._is_stale(connection):
                yield from self._closed(connection)
        yield from super().get_connection(event, reuse=reuse)

    def used(self, connection: Connection) -> bool:
        """A request goes out on it, or its response has ended. Returns whether it had served a request before."""
        now = clock.steady()
        seen, last = self._kept.get(connection, (now, 0.0))
        self._kept[connection] = (seen, now)
        return last > 0.0

    def _is_stale(self, connection: Connection) -> bool:
        if connection in self.waiting_for_establishment:
            return False
        seen, last = self._kept.setdefault(connection, (clock.steady(), 0.0))
        now = clock.steady()
        return now - max(seen, last) > MAX_IDLE or now - seen > MAX_AGE

    def _closed(self, connection: Connection) -> layer.CommandGenerator[None]:
        handler = self.connections.get(connection)
        if handler is None:
            yield commands.CloseConnection(connection)
        else:
            cancel = RequestProtocolError(0, "kept for too long", ErrorCode.CANCEL)
            yield from self.event_to_child(handler, cancel)
        self.retire(connection)

    def retire(self, failed: Connection | tuple[str, int]) -> None:
        """Forget failed connections, so that the next attempt at that host opens a new one.

        mitmproxy keeps a connection that could not be opened, with its error, and hands that out for the rest of the
        client's connection; and it reports some errors of a connection twice (once more when it is closed).
        """
        for connection in [*self.connections, self.context.server]:
            if not isinstance(connection, Server):
                continue
            if connection is failed or (connection.address == failed and connection.error):
                self.connections.pop(connection, None)
                self._kept.pop(connection, None)
                self.retired.add(connection)
                if connection is self.context.server:
                    self.context.server = Server(address=connection.address, sni=connection.sni)
                    self.context.server.tls, self.context.server.via = connection.tls, connection.via

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but for our own wake-ups and for connections that were retired."""
        if isinstance(event, events.Start) and self.context.server.connected:
            self._kept[self.context.server] = (clock.steady(), 0.0)
        if isinstance(event, events.Start) and self.context.client.alpn != b"h2":
            self.connections.setdefault(self.context.client, ClientConnection(self.context.fork()))
        if isinstance(event, events.Wakeup):
            return self._woken(event)
        if self.retired and isinstance(event, events.ConnectionEvent) and event.connection in self.retired:
            return _nothing()
        return self._together(super()._handle_event(event))

    def _together(self, commanded: layer.CommandGenerator[None]) -> layer.CommandGenerator[None]:
        """Run the commands; then send the chunks that streams have gathered meanwhile."""
        yield from commanded
        while self.gathering:
            for command in self.gathering.pop().gathered():
                yield from self.event_to_child(self.connections[command.connection], command.event)

    def client_is_ahead(self) -> bool:
        """Whether the client has sent more than the request that is under way."""
        connection = self.connections[self.context.client]
        return isinstance(connection, Http1Server) and bool(connection.buf)

    def wake_in(self, delay: float) -> layer.CommandGenerator[None]:
        """Look at the streams in `delay` seconds at the latest. One timer serves a whole client connection.

        It is set for `clock.LOOK_EVERY` at most: timers stand while the machine sleeps, the clock does not.
        """
        delay = min(delay, clock.LOOK_EVERY)
        at = clock.steady() + delay
        if at < self._wakes_at:
            self._wakes_at = at
            self._wakeup = commands.RequestWakeup(delay)
            yield self._wakeup

    def _woken(self, event: events.Wakeup) -> layer.CommandGenerator[None]:
        source = self.command_sources.pop(event.command, None)
        if event.command is not self._wakeup:
            # an older one of a stream's: a sooner look was asked for after it. Others are a tunnel's below us
            if source is not None and not isinstance(source, FailoverStream):
                yield from self.event_to_child(source, event)
            return
        self._wakes_at = math.inf
        for stream in list(self.streams.values()):
            if isinstance(stream, FailoverStream):
                yield from self.event_to_child(stream, Look(stream.stream_id))


def _nothing() -> layer.CommandGenerator[None]:
    yield from ()
