"""HttpStream with two additions: an exception fails only its stream; streamed chunks bypass mitmproxy's dispatch.

Laws of this file:

1. It knows no accounts and no attempts: those are ``stream``'s.
2. An exception in our code becomes a JSON 502 with an id on this stream alone; it neither hangs nor fails open. Once
   the client has seen the head of a response, the response is aborted: no client takes it for a whole one.
3. The fast path does what mitmproxy does, but that chunks which arrived together are sent together.
4. Our tap reads each chunk of a streamed response as the upstream sent it; then comes the function that another addon
   set as ``flow.response.stream``, if one did.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Protocol

from mitmproxy.flow import Error
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import DropStream, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import (
    HttpErrorHook,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)

from copilot_balancer.proxy import clock
from copilot_balancer.proxy.failover.hooks import FailoverWaitHook, Send, Wait
from copilot_balancer.proxy.incident import fault_answer, log_incident

_TOLD = (HttpRequestHeadersHook, HttpRequestHook, HttpResponseHeadersHook, HttpResponseHook, HttpErrorHook)
"""The hooks that any addon may have; our own questions are answered by ours alone."""


class Answering(Protocol):
    """Who answers what a stream asks, without mitmproxy's way through a task and all its addons."""

    def choose(self, send: Send) -> bool:
        """Answer *with what?*; False: the hook must be asked, which may wait."""
        ...

    def tell(self, hook: commands.StartHook) -> Awaitable[None] | None:
        """Tell mitmproxy's addons of a hook about a flow; what is left of that, ``FailoverWaitHook`` waits for."""
        ...


class Hearing(Protocol):
    """The interface of the layer that a stream uses."""

    answering: Callable[[], Answering | None]
    """Who answers at this moment; None: mitmproxy's hooks are asked."""
    gathering: "set[FastPathStream]"
    """Streams with gathered chunks: the layer asks for them once it has looked at all that arrived."""

    def client_is_ahead(self) -> bool:
        """Whether the client has sent more than the request that is under way."""
        ...


class FastPathStream(HttpStream):
    """mitmproxy's stream of one request and its response, with contained exceptions and direct hooks."""

    above: Hearing
    _committed = False
    """Whether the client has been sent the head of an answer."""
    _heard_at = 0.0
    """When the upstream was last heard of, or asked; seconds of `clock.steady`."""
    _reads: Callable[[bytes], None] | None = None
    """Our tap: reads each chunk of the streamed response as the upstream sent it."""
    _edits: Callable[[bytes], bytes | Iterable[bytes]] | None = None
    """What another addon set as ``flow.response.stream`` to edit the streamed response."""
    _fast = False
    """Whether chunks of the streamed response take the fast path."""

    def __init__(self, context: Context, stream_id: int, above: Hearing) -> None:
        super().__init__(context, stream_id)
        self.above = above
        self._gathered: list[bytes] = []
        """Pieces of a streamed answer that came together, to be sent together."""

    # --- the fast path -----------------------------------------------------------------------------------------------

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """As mitmproxy's, but an exception ends this stream alone, with an answer."""
        # not a generator itself: a body arrives in many chunks, and each takes the fast path
        if type(event) is RequestData:
            if not self._paused and self.client_state == self.state_consume_request_body:
                self.request_body_buf += event.data
                return ()
        elif type(event) is ResponseData:
            self._heard_at = clock.steady()
            if self._fast and not self._paused and self.server_state == self.state_stream_response_body:
                return self._passed(event.data)
        return itertools.chain(self.gathered(), self._handled(event)) if self._gathered else self._handled(event)

    def gathered(self) -> Iterable[SendHttp]:
        """The command that sends the gathered chunks: one TLS record and one system call for all of them."""
        pieces, self._gathered = self._gathered, []
        data = b"".join(pieces)  # nothing at all would be the last chunk of HTTP/1.1
        return [SendHttp(ResponseData(self.stream_id, data), self.context.client)] if data else ()

    def _passed(self, data: bytes) -> Iterable[commands.Command]:
        """What `state_stream_response_body` does with a chunk, without mitmproxy's dispatch."""
        try:
            if self._reads is not None:
                self._reads(data)
            if self._edits is None:
                self._gathered.append(data)
            else:
                edited = self._edits(data)
                self._gathered.extend((edited,) if isinstance(edited, bytes) else edited)
            self.above.gathering.add(self)
            return self.after_piece()
        except Exception as error:  # noqa: BLE001 - as below
            return itertools.chain(self.gathered(), self._fall(error))

    def after_piece(self) -> Iterable[commands.Command]:
        """What else is to be done once a chunk of a streamed response has passed."""
        return ()

    def start_response_stream(self) -> layer.CommandGenerator[None]:
        """As mitmproxy's, without its log line, for which every addon would be looked at: the addon's own says more.

        From here on the chunks take the fast path, unless an option wants them kept.
        """
        for command in super().start_response_stream():
            if not isinstance(command, commands.Log):
                yield command
        stream = self.flow.response.stream if self.flow.response else None
        self._edits = stream if callable(stream) else None
        self._fast = self.debug is None and not self.context.options.store_streamed_bodies

    def check_body_size(self, request: bool) -> layer.CommandGenerator[bool]:  # noqa: ARG002 - its signature
        """Neither cut a body nor stream a request because of an option: a request must be whole to be sent again."""
        yield from ()
        return False

    # --- hooks -------------------------------------------------------------------------------------------------------

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but its hooks are told on the spot."""
        commanded, reply = super()._handle_event(event), None
        while True:
            try:
                command = commanded.send(reply)
            except StopIteration:
                return
            reply = None
            early = isinstance(command, HttpResponseHook) and self.above.client_is_ahead()
            if early or not isinstance(command, _TOLD) or (answering := self.above.answering()) is None:
                # the next request may go out only after the upstream's connection has seen the end of this answer
                reply = yield command
            elif (rest := answering.tell(command)) is not None:
                yield FailoverWaitHook(Wait(rest))

    # --- a fault of ours ---------------------------------------------------------------------------------------------

    def entered(self, event: events.Event) -> layer.CommandGenerator[None]:
        """What mitmproxy does with an event."""
        return super().handle_event(event)

    def abandon_upstream(self, why: str) -> Iterator[commands.Command]:  # noqa: ARG002 - for those who override it
        """Nothing of what the upstream may still send counts."""
        yield from ()

    def _handled(self, event: events.Event) -> layer.CommandGenerator[None]:
        try:
            yield from self.entered(event)
        except Exception as error:  # noqa: BLE001 - whatever it is: mitmproxy would leave the client hanging
            yield from self._fall(error)

    def _fall(self, error: Exception) -> layer.CommandGenerator[None]:
        incident, flow = log_incident("a stream", error), getattr(self, "flow", None)
        self.client_state = self.server_state = self.state_errored
        yield from self.abandon_upstream(incident)
        if self._committed:
            yield SendHttp(ResponseProtocolError(self.stream_id, incident, ErrorCode.KILL), self.context.client)
        else:
            self._committed = True
            answer = fault_answer(f"a fault in copilot-balancer, incident {incident}; the proxy's log has the details")
            yield SendHttp(ResponseHeaders(self.stream_id, answer), self.context.client)
            if flow is None or flow.request.method != "HEAD":
                yield SendHttp(ResponseData(self.stream_id, answer.raw_content or b""), self.context.client)
            yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        if flow is not None and flow.live:
            flow.error = Error(f"copilot-balancer: incident {incident}")
            flow.live = False
            hook = HttpErrorHook(flow)
            hook.blocking = False  # nobody is left here to wait for it
            yield hook
        yield DropStream(self.stream_id)
