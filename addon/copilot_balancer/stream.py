"""One request of a client and its answer, over as many upstream attempts as the addon says.

Laws of this file:

1. It knows HTTP, not Copilot. Who asks, who answers and why is the addon's.
2. It asks *again?* only while the client has seen no byte of an answer. The head of a streamed one is held back, for a
   moment, until it is known to be an answer; and one that is cut short is never ended as if it were whole (``Watch``).
3. A credential never stands in the flow: what the client brought is hidden on entry, before any hook of anyone has run,
   and the copy that goes upstream is dressed at the moment of sending, on a connection that stands.
4. What is private to mitmproxy and touched here, in ``steady`` and in ``layer`` is named in ``layer.PRIVATE``.

The flow through one stream, compared with mitmproxy's own::

    request complete -> FailoverChooseHook: with what? -> connection -> authorize() -> head, body, end are sent
                               ^                |                            |
                               |  local answer, or nobody answered           | refused (status >= 400, not streamed), a
                               |                v                            | held stream that opens with an error,
                               |                |                            | connect error, reset before any output
                               |         sent to the client                  v
                               +---------------------- again ------ FailoverJudgeHook: again?
                                                                             | no
                                                                             v
                                                               the answer goes to the client
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import GetHttpConnection, SendHttp
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.websocket import WebsocketLayer
from mitmproxy.proxy.utils import ReceiveBuffer
from wsproto.events import CloseConnection

from copilot_balancer.hidden import Hidden, outgoing
from copilot_balancer.questions import FailoverChooseHook, FailoverJudgeHook, Refusal, Send
from copilot_balancer.steady import Hearing, SteadyStream, fault_answer

BUFFER_LIMIT = 1024 * 1024
"""Bytes of an answer that was not streamed so far that are held back; beyond, it is passed on as it comes. Of a refusal
they are all that counts."""
REFUSAL_SECONDS = 10.0
"""How long a refusal's body may take; what has come by then is all that counts."""

HOLD_LIMIT = 16 * 1024
"""Bytes of a streamed answer's beginning that are held back at most, until ``Watch.opened``."""
HOLD_SECONDS = 2.0
LINGER = 2.0
"""Seconds that a whole answer may stay open without another byte; then it is ended here."""
COME_BACK = 1013
"""The WebSocket close code "try again later" (IANA's registry)."""


class Above(Hearing, Protocol):
    """What a stream needs of the layer that it belongs to."""

    connections: dict[Connection, layer.Layer]

    def retire(self, failed: Connection | tuple[str, int]) -> None:
        """Forget failed connections."""
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


class FailoverStream(SteadyStream):
    """One request and its answer, over as many upstream attempts as the addon says."""

    above: Above

    hidden: Hidden
    _upstream = False
    """Whether ``flow.response`` is, or will be, an upstream's answer (not one that an addon made)."""
    _asked: Send
    """The last question *with what?*, and its answer."""
    _held: bytearray
    """The beginning of a streamed answer that the client has not been sent yet."""
    _refused_at = 0.0
    """When the head of a refusal came; monotonic seconds."""

    # --- entry -------------------------------------------------------------------------------------------------------

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Take the client's credentials out before the first hook runs."""
        headers = event.request.headers
        self.hidden = Hidden(headers)
        self.hidden.masked(headers)
        yield from super().state_wait_for_request_headers(event)

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """Collect the request whatever another addon asked for: it must be whole to be sent again."""
        self.flow.request.stream = False
        self.client_state = self.state_consume_request_body
        yield from ()

    # --- with what? --------------------------------------------------------------------------------------------------

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Choose, connect and send the whole request, as often as the addon says.

        Always False: mitmproxy's caller then has nothing left to send.
        """
        while True:
            send = self._asked = Send(self.flow, self.hidden)
            answering = self.above.answering()
            if answering is None or not answering.choose(send):
                yield FailoverChooseHook(send)
                if (yield from self.check_killed(True)):
                    return False
            if self.flow.response is None and (send.host is None or send.authorize is None):
                self.flow.response = fault_answer("no addon said where this request may go")
            if self.flow.response is not None:
                yield from self._answer()
                return False
            assert send.host is not None
            assert send.authorize is not None
            request = outgoing(self.flow.request, send.host)
            address = (request.host, request.port)
            connection, err = yield GetHttpConnection(address, True, self.flow.server_conn.via)
            if (yield from self.check_killed(True)):
                return False
            if err is None:
                self.context.server = self.flow.server_conn = connection
                self.flow.response = send.authorize(request, connection)
                if self.flow.response is not None:
                    yield from self._answer()
                else:
                    yield from self._send(request, connection)
                return False
            self.above.retire(address)
            if not (yield from self._again(err, sent=False)):
                return False

    def _send(self, request: http.Request, connection: Connection) -> Iterator[commands.Command]:
        self._upstream = True
        self.server_state = self.state_wait_for_response_headers
        content, trailers = self.flow.request.raw_content, self.flow.request.trailers
        yield SendHttp(RequestHeaders(self.stream_id, request, end_stream=not (content or trailers)), connection)
        if content:
            yield SendHttp(RequestData(self.stream_id, content), connection)
        yield SendHttp(RequestEndOfMessage(self.stream_id), connection)
        self._heard_at = time.monotonic()
        if self._asked.first_byte_timeout:
            yield from self.above.wake_in(self._asked.first_byte_timeout)

    # --- again? ------------------------------------------------------------------------------------------------------

    def send_response(self, already_streamed: bool = False) -> layer.CommandGenerator[None]:
        """Ask *again?* before a refusal that the client has not seen goes down."""
        assert self.flow.response
        if self._upstream and not self._committed and not self._client_left and self.flow.response.status_code >= 400:
            self._upstream = False
            if (yield from self._again(None, sent=True)):
                yield from self.make_server_connection()
                return
            if self.server_state == self.state_errored:
                return
        self._committed = True
        self._without_body_to_head()
        yield from super().send_response(already_streamed)

    def _without_body_to_head(self) -> None:
        """A body in the answer to HEAD would be read as the next answer."""
        assert self.flow.response
        if self.flow.request.method == "HEAD":
            self.flow.response.raw_content = None

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but an answer that an addon put in the place of the upstream's is sent whole.

        mitmproxy takes a 1xx for the last answer, and its client hangs: it counts as none.
        """
        if 100 <= event.response.status_code < 200 and event.response.status_code != 101:
            yield SendHttp(RequestProtocolError(self.stream_id, "informational", ErrorCode.CANCEL), self.context.server)
            why = f"an answer of status {event.response.status_code}, which announces another one"
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, why, ErrorCode.GENERIC_SERVER_ERROR)
            )
            return
        yield from super().state_wait_for_response_headers(event)
        if self.server_state == self.state_consume_response_body and self.flow.response is not event.response:
            yield from self._cancel_upstream("answered here")
            yield from self.send_response()
            self.server_state = self.state_errored  # what the upstream sent meanwhile concerns nobody
        elif self._refuses():
            self._refused_at = time.monotonic()
            yield from self.above.wake_in(REFUSAL_SECONDS)
        elif self._asked.idle_timeout:
            yield from self.above.wake_in(self._asked.idle_timeout)

    def abandon_upstream(self, why: str) -> Iterator[commands.Command]:
        """A fault of ours ends the attempt that is under way."""
        if self.above.connections.get(self.context.server) is not None and self._upstream:
            yield from self._cancel_upstream(why)

    def _cancel_upstream(self, why: str) -> Iterator[commands.Command]:
        self._upstream = False
        self._forget_upstream()
        yield SendHttp(RequestProtocolError(self.stream_id, why, ErrorCode.CANCEL), self.context.server)
        self.above.retire(self.context.server)

    def _refuses(self) -> bool:
        """Whether a refusal is arriving: the client has seen nothing of it."""
        response, arriving = self.flow.response, self.server_state == self.state_consume_response_body
        return arriving and self._upstream and response is not None and response.status_code >= 400

    def state_consume_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold back at most ``BUFFER_LIMIT`` bytes; a refusal that does not end is cut off there, or in its time."""
        if not isinstance(event, Overdue):
            yield from super().state_consume_response_body(event)
        if isinstance(event, Overdue) or (self._refuses() and len(self.response_body_buf) > BUFFER_LIMIT):
            yield from self._cut_refusal()
        elif isinstance(event, ResponseData) and len(self.response_body_buf) > BUFFER_LIMIT:
            assert self.flow.response
            held = bytes(self.response_body_buf)
            self.response_body_buf = ReceiveBuffer()
            self.flow.response.stream = True
            yield from self.start_response_stream()
            yield from self.server_state(ResponseData(self.stream_id, held))

    def _cut_refusal(self) -> layer.CommandGenerator[None]:
        """Take what has come of a refusal for all of it."""
        assert self.flow.response
        self.flow.response.headers.pop("transfer-encoding", None)
        self.flow.response.headers["content-length"] = str(len(self.response_body_buf))
        yield from self._cancel_upstream("its refusal did not end")
        self._upstream = True
        yield from super().state_consume_response_body(ResponseEndOfMessage(self.stream_id))

    # --- a streamed answer -------------------------------------------------------------------------------------------

    def start_response_stream(self) -> layer.CommandGenerator[None]:
        """From here on the client has seen a byte; an answer that is watched is held back until it is one."""
        assert self.flow.response
        framed = {"content-length", "transfer-encoding"} & {name.lower() for name in self.flow.response.headers}
        if not framed and self.flow.request.http_version == self.flow.response.http_version == "HTTP/1.1":
            # without it the end is the end of the connection, and an abort would look like one
            self.flow.response.headers["transfer-encoding"] = "chunked"
        if self._asked.watch is not None and self._upstream:
            self._held = bytearray()
            self.server_state = self.state_hold_response_body
            yield from self.above.wake_in(self._hold_seconds())
        else:
            self._committed = True
            yield from super().start_response_stream()

    def state_hold_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold back what only announces an answer; ask *again?* when it turns out to be none."""
        watch, response = self._asked.watch, self.flow.response
        assert watch is not None
        assert response is not None
        if isinstance(event, Overdue):
            yield from self._release()
        elif isinstance(event, ResponseData):
            assert callable(response.stream)
            passed = response.stream(event.data)
            self._held += passed if isinstance(passed, bytes) else b"".join(passed)
            if watch.refused:
                yield from self._refused_in_stream(None)
            elif watch.opened or len(self._held) > HOLD_LIMIT:
                yield from self._release()
            else:
                yield from self.above.wake_in(HOLD_SECONDS)
        elif isinstance(event, ResponseEndOfMessage) and not watch.whole and not self._client_left:
            yield from self._refused_in_stream("the answer ended before it began")
        else:
            yield from self._release()
            yield from self.server_state(event)

    def _release(self) -> layer.CommandGenerator[None]:
        """Let the client see what was held back, and from now on each piece as it comes."""
        assert self._asked.watch is not None
        self._committed = True
        self._asked.watch.released()
        yield from super().start_response_stream()
        if self._held:
            yield SendHttp(ResponseData(self.stream_id, bytes(self._held)), self.context.client)
        self._held = bytearray()

    def _refused_in_stream(self, error: str | None) -> layer.CommandGenerator[None]:
        """A held answer is none: ask *again?*. What comes meanwhile counts only if this answer is given after all."""
        response = self.flow.response
        assert response is not None
        self._upstream = False
        if error is None:
            response.raw_content = bytes(self._held)
        else:
            self.flow.response = None
        again = yield from self._again(error, sent=True)
        if self.server_state == self.state_errored:
            return
        if self.flow.response is response:
            self._upstream, response.raw_content = True, None
            yield from self._release()
            return
        if error is None:
            yield from self._cancel_upstream("refused in its stream")
        if again:
            yield from self.make_server_connection()
        elif error is None:
            yield from self._answer()

    def _forget_upstream(self) -> None:
        """Drop what the last upstream sent while a hook ran."""
        stale = (ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage, ResponseProtocolError)
        for event in [event for event in self._paused_event_queue if isinstance(event, stale)]:
            self._paused_event_queue.remove(event)

    def state_stream_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but an answer that ends before it is whole is aborted."""
        watch = self._asked.watch
        if watch is not None and isinstance(event, ResponseEndOfMessage) and not watch.whole:
            cut = "the upstream ended its answer before it was complete"
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, cut, ErrorCode.GENERIC_SERVER_ERROR)
            )
            return
        yield from super().state_stream_response_body(event)
        if watch is not None and isinstance(event, ResponseData) and watch.whole:
            yield from self.above.wake_in(LINGER)

    def passthrough(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; closes a WebSocket when the addon says so, as if the upstream had closed it."""
        yield from super().passthrough(event)
        if self._asked.hang_up and isinstance(self.child_layer, WebsocketLayer):
            reason, self._asked.hang_up = self._asked.hang_up, ""
            self.child_layer.server_ws._events.append(CloseConnection(COME_BACK, reason))  # noqa: SLF001 - as mitmproxy
            yield from super().passthrough(ResponseData(self.stream_id, b""))

    # --- errors of a connection --------------------------------------------------------------------------------------

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """Ask *again?* when the upstream fails before the client has seen a byte; end what was whole by then well."""
        if isinstance(event, RequestProtocolError):
            self._blame("client")
        else:
            self._forget_upstream()  # mitmproxy tells some errors twice
        waiting = (
            self.state_wait_for_response_headers,
            self.state_consume_response_body,
            self.state_hold_response_body,
        )
        if isinstance(event, ResponseProtocolError) and self._ends_well() and not self._client_left:
            self.above.retire(self.context.server)
            yield from super().state_stream_response_body(ResponseEndOfMessage(self.stream_id))
            return
        if (
            isinstance(event, ResponseProtocolError)
            and self._upstream
            and not self._committed
            and self.client_state == self.state_done
            and self.server_state in waiting
        ):
            self._upstream = False
            self.flow.response = None
            self.response_body_buf = ReceiveBuffer()
            self.above.retire(self.context.server)
            if (yield from self._again(event.message, sent=True)):
                yield from self.make_server_connection()
            return
        self._blame("upstream")
        yield from super().handle_protocol_error(event)

    def check_killed(self, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, which looks whether the client has left while a hook ran."""
        if any(isinstance(event, RequestProtocolError) for event in self._paused_event_queue):
            self._blame("client")
        return super().check_killed(emit_error_hook)

    def _blame(self, who: Literal["client", "upstream"]) -> None:
        """The first to fail is the one who ended it."""
        asked = getattr(self, "_asked", None)
        if asked is not None and not asked.ended_by:
            asked.ended_by = who

    def _again(self, error: str | None, *, sent: bool) -> layer.CommandGenerator[bool]:
        """Ask; when the answer is no and there was an error, the client gets its answer here."""
        refusal = Refusal(self.flow, error, sent)
        yield FailoverJudgeHook(refusal)
        if (yield from self.check_killed(True)):
            return False
        if refusal.again or error is not None:
            self._forget_upstream()
        if refusal.again:
            self.flow.response = None
            return True
        if error is not None:
            if self.flow.response is None:
                self.flow.response = fault_answer(f"no answer from upstream: {error}")
            yield from self._answer()
        return False

    def _answer(self) -> layer.CommandGenerator[None]:
        """Send an answer that was made here."""
        assert self.flow.response
        self._upstream = False
        self.flow.response.timestamp_start = time.time()
        yield HttpResponseHeadersHook(self.flow)
        if not (yield from self.check_killed(True)):
            self._committed = True
            self._without_body_to_head()
            yield from super().send_response()

    @property
    def _client_left(self) -> bool:
        """Whether nobody waits any more: what the upstream's end comes from is that we closed it."""
        return bool(self.client_state == self.state_errored)

    def _ends_well(self) -> bool:
        """Whether the client has a whole answer, whatever the upstream does now."""
        watch = self._asked.watch if self.server_state == self.state_stream_response_body else None
        return watch is not None and watch.whole

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

    def after_piece(self) -> Iterable[commands.Command]:
        """A whole answer may stay open for a moment only."""
        watch = self._asked.watch
        return self.above.wake_in(LINGER) if watch is not None and watch.whole else ()

    def entered(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but an upstream that is silent for too long has failed."""
        return self._looked() if isinstance(event, Look) else super().entered(event)

    def _looked(self) -> layer.CommandGenerator[None]:
        left = self.time_left(time.monotonic())
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
        message = f"the upstream was silent for {time.monotonic() - self._heard_at:.0f} s"
        yield from super().entered(ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR))

    def _is_silent(self) -> bool:
        """Whether an overdue upstream has failed; False: what it began is let through."""
        if self.server_state == self.state_hold_response_body:
            return not self._held and self._asked.first_event_timeout > 0
        return not self._refuses()
