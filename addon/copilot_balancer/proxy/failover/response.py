"""Receives one upstream response: buffers its start until it is known to be a real answer, then streams it.

Enforces the idle and refusal timeouts, and aborts streams that are cut short.

Laws of this file:

1. It knows HTTP and one attempt. What becomes of a response that turns out to be an error is ``stream``'s.
2. The client sees no byte before the response is known to be an answer, or has taken its time.
3. A response that is cut short is never ended as if it were whole (``Watch``).
4. An upstream that is silent for too long has failed; time is looked at where an exception of ours is caught.
5. ``flow.response.stream`` belongs to the other addons. False: the response is held, up to ``HELD_BYTES``, and their
   ``response`` hooks may edit it. True or a function: it is streamed, through the function; a refusal never is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mitmproxy.connection import Connection
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import SendHttp
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.utils import ReceiveBuffer

from copilot_balancer.proxy import clock
from copilot_balancer.proxy.failover.fast_path import FastPathStream, Hearing
from copilot_balancer.proxy.failover.hooks import Send, Watch

BUFFER_LIMIT = 1024 * 1024
"""Bytes of a refusal's body that count; the rest is cut off."""
HELD_BYTES = 8 * 1024 * 1024
"""Bytes of a successful response that are held for other addons to edit; a longer one is streamed after all."""
REFUSAL_SECONDS = 10.0
"""How long a refusal's body may take; what has come by then is all that counts."""

HOLD_LIMIT = 16 * 1024
"""Bytes of a streamed answer's beginning that are held back at most, until ``Watch.opened``."""
HOLD_SECONDS = 2.0
LINGER = 2.0
"""Seconds that a whole answer may stay open without another byte; then it is ended here."""


class Above(Hearing, Protocol):
    """The interface of the layer that a stream uses."""

    connections: dict[Connection, layer.Layer]

    def retire(self, failed: Connection | tuple[str, int]) -> None:
        """Forget failed connections."""
        ...

    def used(self, connection: Connection) -> bool:
        """A request goes out on it, or its response has ended. Returns whether it had served a request before."""
        ...

    def wake_in(self, delay: float) -> Iterator[commands.Command]:
        """Look at the streams in `delay` seconds at the latest."""
        ...


@dataclass
class Look(HttpEvent):
    """Time has passed: has the upstream been silent for too long?"""


@dataclass
class Overdue(HttpEvent):
    """The time is over: what has come by now has to do."""


class ResponseStream(FastPathStream):
    """The stream of one request that buffers, times and passes on the response of one upstream."""

    above: Above

    _upstream = False
    """Whether ``flow.response`` is, or will be, an upstream's answer (not one that an addon made)."""
    _asked: Send
    """The last question *with what?*, and its answer."""
    _held: bytearray
    """The beginning of a streamed answer that the client has not been sent yet."""
    _refused_at = 0.0
    """When the head of a refusal came; seconds of `clock.steady`."""

    def refused_in_stream(self, error: str | None) -> layer.CommandGenerator[None]:
        """A held answer is none: it opens with an error, or ended with this one before it began."""
        raise NotImplementedError

    @property
    def _client_left(self) -> bool:
        """Whether nobody waits any more: what the upstream's end comes from is that we closed it."""
        return bool(self.client_state == self.state_errored)

    # --- its head, and a refusal -------------------------------------------------------------------------------------

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but a response that an addon put in the place of the upstream's is sent whole."""
        yield from super().state_wait_for_response_headers(event)
        if self.server_state == self.state_consume_response_body and self.flow.response is not event.response:
            yield from self._cancel_upstream("answered here")
            yield from self.send_response()
            self.server_state = self.state_errored  # what the upstream sent meanwhile concerns nobody
        elif self._refuses():
            self._refused_at = clock.steady()
            yield from self.above.wake_in(REFUSAL_SECONDS)
        elif self._asked.idle_timeout:
            yield from self.above.wake_in(self._asked.idle_timeout)

    def check_invalid(self, request: bool) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, but a response head that it refuses is a failure of the upstream like any other."""
        if request:
            return (yield from super().check_invalid(request))
        assert self.flow.response
        try:
            validate_headers(self.flow.response)
        except ValueError as error:
            yield SendHttp(RequestProtocolError(self.stream_id, "refused", ErrorCode.CANCEL), self.context.server)
            message = f"a response head that could smuggle another response: {error}"
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR)
            )
            return True
        return False

    def _refuses(self) -> bool:
        """Whether a refusal is arriving: the client has seen nothing of it."""
        response, arriving = self.flow.response, self.server_state == self.state_consume_response_body
        return arriving and self._upstream and response is not None and response.status_code >= 400

    def state_consume_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold a response until its end; an endless refusal is cut off after `BUFFER_LIMIT`, or in its time."""
        if not isinstance(event, Overdue):
            yield from super().state_consume_response_body(event)
        if isinstance(event, Overdue) or (self._refuses() and len(self.response_body_buf) > BUFFER_LIMIT):
            yield from self._cut_refusal()
        elif isinstance(event, ResponseData) and len(self.response_body_buf) > HELD_BYTES:
            assert self.flow.response
            self._held = bytearray(bytes(self.response_body_buf))
            self.response_body_buf = ReceiveBuffer()
            self.flow.response.stream = True
            if (watch := self._watch) is not None:
                watch.feed(bytes(self._held))
            yield from self._release()

    def _cut_refusal(self) -> layer.CommandGenerator[None]:
        """Take what has come of a refusal for all of it."""
        assert self.flow.response
        self.flow.response.headers.pop("transfer-encoding", None)
        self.flow.response.headers["content-length"] = str(len(self.response_body_buf))
        yield from self._cancel_upstream("its refusal did not end")
        self._upstream = True
        yield from super().state_consume_response_body(ResponseEndOfMessage(self.stream_id))

    # --- a streamed answer -------------------------------------------------------------------------------------------

    @property
    def _watch(self) -> Watch | None:
        """What reads the upstream's response; None for one that was made here."""
        return self._asked.watch if self._upstream else None

    def start_response_stream(self) -> layer.CommandGenerator[None]:
        """Hold a watched response back until it is an answer. A refusal is judged whole, whoever asked for a stream."""
        assert self.flow.response
        self._held = bytearray()
        if self._upstream and self.flow.response.status_code >= 400:
            self.server_state = self.state_consume_response_body
        elif (watch := self._watch) is not None and watch.watched:
            self.server_state = self.state_hold_response_body
            yield from self.above.wake_in(self._hold_seconds())
        else:
            yield from self._release()

    def state_hold_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold back what only announces an answer; ask *again?* when it turns out to be an error."""
        watch = self._asked.watch
        assert watch is not None
        if isinstance(event, Overdue):
            yield from self._release()
        elif isinstance(event, ResponseData):
            watch.feed(event.data)
            self._held += event.data
            if watch.refused:
                yield from self.refused_in_stream(None)
            elif watch.opened or len(self._held) > HOLD_LIMIT:
                yield from self._release()
            else:
                yield from self.above.wake_in(HOLD_SECONDS)
        elif isinstance(event, ResponseEndOfMessage) and not watch.whole and not self._client_left:
            yield from self.refused_in_stream("the answer ended before it began")
        else:
            yield from self._release()
            yield from self.server_state(event)

    def _release(self) -> layer.CommandGenerator[None]:
        """Let the client see what was held back, and from now on each chunk as it comes."""
        response = self.flow.response
        assert response is not None
        framed = {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}
        if not framed and self.flow.request.http_version == response.http_version == "HTTP/1.1":
            # without it the end is the end of the connection, and an abort would look like one
            response.headers["transfer-encoding"] = "chunked"
        self._committed = True
        if (watch := self._watch) is not None:
            watch.released()
            self._reads = watch.feed
        yield from super().start_response_stream()
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            yield from self._streamed(ResponseData(self.stream_id, held))

    def _streamed(self, event: events.Event) -> layer.CommandGenerator[None]:
        """What mitmproxy does with a part of a streamed response; an empty chunk would be the last one of HTTP/1.1."""
        for command in super().state_stream_response_body(event):
            sent = command.event if isinstance(command, SendHttp) else None
            if not isinstance(sent, ResponseData) or sent.data:
                yield command

    def state_stream_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but a response that ends before it is whole is aborted."""
        watch = self._watch
        if watch is not None and isinstance(event, ResponseEndOfMessage) and not watch.whole:
            cut = "the upstream ended its answer before it was complete"
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, cut, ErrorCode.GENERIC_SERVER_ERROR)
            )
            return
        if isinstance(event, ResponseData) and self._reads is not None:
            self._reads(event.data)
        yield from self._streamed(event)
        if isinstance(event, ResponseData):
            yield from self.after_piece()

    def after_piece(self) -> Iterable[commands.Command]:
        """A response that is over may stay open for a moment only."""
        watch = self._watch
        return self.above.wake_in(LINGER) if watch is not None and watch.over else ()

    def _ends_well(self) -> bool:
        """Whether the client has a whole answer, whatever the upstream does now."""
        watch = self._watch if self.server_state == self.state_stream_response_body else None
        return watch is not None and watch.over

    # --- nothing of it counts any more -------------------------------------------------------------------------------

    def abandon_upstream(self, why: str) -> Iterator[commands.Command]:
        """A fault of ours ends the attempt that is under way."""
        if self.above.connections.get(self.context.server) is not None and self._upstream:
            yield from self._cancel_upstream(why)

    def _cancel_upstream(self, why: str) -> Iterator[commands.Command]:
        self._upstream = False
        self._forget_upstream()
        yield SendHttp(RequestProtocolError(self.stream_id, why, ErrorCode.CANCEL), self.context.server)
        self.above.retire(self.context.server)

    def _forget_upstream(self) -> None:
        """Drop what the last upstream sent while a hook ran."""
        stale = (ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage, ResponseProtocolError)
        for event in [event for event in self._paused_event_queue if isinstance(event, stale)]:
            self._paused_event_queue.remove(event)

    # --- silence -----------------------------------------------------------------------------------------------------

    def time_left(self, now: float) -> float | None:
        """Seconds until the upstream has been silent for too long; None when nothing is awaited."""
        if self.server_state == self.state_wait_for_response_headers:
            timeout = self._asked.first_byte_timeout if self._upstream else 0.0
        elif self.server_state == self.state_hold_response_body:
            timeout = self._hold_seconds()
        elif self._refuses():
            return max(self._refused_at + REFUSAL_SECONDS - now, 1.0 if self._paused else 0.0)
        elif self.server_state in (self.state_stream_response_body, self.state_consume_response_body):
            timeout = LINGER if self._ends_well() else self._asked.idle_timeout
        else:
            timeout = 0.0
        # while one of our hooks runs, look again soon
        return (max(self._heard_at + timeout - now, 1.0 if self._paused else 0.0)) if timeout else None

    def _hold_seconds(self) -> float:
        """How long a streamed answer is held back: while nothing has come but its head, until it counts as silent."""
        return (not self._held and self._asked.first_event_timeout) or HOLD_SECONDS

    def entered(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but an upstream that is silent for too long has failed."""
        return self._looked() if isinstance(event, Look) else super().entered(event)

    def _looked(self) -> layer.CommandGenerator[None]:
        left = self.time_left(clock.steady())
        if left is None:
            return
        if left > 0:
            yield from self.above.wake_in(left)
        elif self._is_silent():
            yield from self._fallen_silent()
        else:
            yield from super().entered(Overdue(self.stream_id))

    def _fallen_silent(self) -> layer.CommandGenerator[None]:
        yield SendHttp(RequestProtocolError(self.stream_id, "silent", ErrorCode.CANCEL), self.context.server)
        message = f"the upstream was silent for {clock.steady() - self._heard_at:.0f} s"
        yield from super().entered(ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR))

    def _is_silent(self) -> bool:
        """Whether an overdue upstream has failed; False: what it began is let through."""
        if self.server_state == self.state_hold_response_body:
            return not self._held and self._asked.first_event_timeout > 0
        return not self._refuses()
