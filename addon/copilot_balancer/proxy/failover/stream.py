"""One client request and its response, over as many upstream attempts as the addon decides.

Laws of this file:

1. It knows HTTP, not Copilot. Which account is asked, and whether a refused request is sent again, is the addon's.
2. A request is sent again only while the client has seen no byte of a response; ``response`` holds the start back.
3. A credential never stands in the flow: the client's headers are masked on entry, before any hook has run, and the
   outgoing copy gets its credential at the moment of sending, on an established connection.
4. Whatever is private to mitmproxy and touched here, in ``response``, ``fast_path`` or ``layer`` is in
   ``layer.PRIVATE``.

Theory of operation::

    request complete -> FailoverChooseHook -> connect -> authorize() -> head, body and end are sent
                        which account?  |                       |
                               ^        | local response        | refused (status >= 400, or an error in spite of it),
                               |        v                       | cut before its first byte, or no connection
                               |   sent to the client           v
                               +-------- again -------- FailoverJudgeHook: send it again?
                                                                | no
                                                                v
                                                     the response goes to the client

A kept connection may be dead when the next request is written to it. That costs no attempt: the request is sent once
more on a new connection, with the same account, and no hook is asked (``_redialled``).

What other addons may do at each step: set ``flow.response`` (no upstream is asked), set ``flow.response.stream`` (True
or a function: streamed through it; False: held up to ``response.HELD_BYTES``, for their hooks to edit), replace
``flow.response`` in ``responseheaders`` (the upstream is cancelled), intercept (waited for) and kill (the client's
stream is aborted, nobody is blamed).
"""

import errno
import re
import time
from collections.abc import Iterator
from typing import Literal

from mitmproxy import http
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.flow import Error
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import GetHttpConnection, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.websocket import WebsocketLayer
from mitmproxy.proxy.utils import ReceiveBuffer
from wsproto.events import CloseConnection

from copilot_balancer.proxy import clock
from copilot_balancer.proxy.failover.credentials import HiddenCredentials, outgoing
from copilot_balancer.proxy.failover.hooks import FailoverChooseHook, FailoverJudgeHook, Refusal, Send, Watch
from copilot_balancer.proxy.failover.response import ResponseStream
from copilot_balancer.proxy.incident import fault_answer

CLOSED = "server closed connection"
"""mitmproxy's words for a connection that ended before any byte of a response (``Http1Client.read_headers``)."""

DEAD_SECONDS = 30.0
"""Within this time after a request such an end means that the connection was dead, and the request was not read."""

COME_BACK = 1013
"""The WebSocket close code "try again later" (IANA's registry)."""


_LACKS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}
"""What ``connect`` fails with when this machine lacks something."""


def _is_local(error: str, *, parent: bool) -> bool:
    """Whether a connection failed on this side of every upstream, by mitmproxy's text of the error.

    For what this machine lacks; or, where a `parent` proxy is the way out, because that is what failed.
    """
    if any(int(number) in _LACKS for number in re.findall(r"\[Errno (\d+)\]", error)):
        return True
    return (
        parent
        and re.search(r"\[Errno |^the parent proxy|^no connection within|CONNECT request: 407 ", error) is not None
    )


class FailoverStream(ResponseStream):
    """The stream of one client request: sends it upstream, and again while the addon asks for a retry."""

    hidden: HiddenCredentials
    _reused = False
    """Whether the request went out on a connection that had served another one before."""
    _redialled = False
    """Whether it was sent once more because such a connection was dead."""

    # --- entry -------------------------------------------------------------------------------------------------------

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Take the client's credentials out before the first hook runs."""
        headers = event.request.headers
        self.hidden = HiddenCredentials(headers)
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
            if not (yield from self._deliver(send)):
                return False

    def _deliver(self, send: Send) -> layer.CommandGenerator[bool]:
        """Connect and send the request. Returns whether it failed, and is to be chosen for again."""
        assert send.host is not None
        assert send.authorize is not None
        request = outgoing(self.flow.request, send.host)
        address = (request.host, request.port)
        connection, err = yield GetHttpConnection(address, True, self.flow.server_conn.via)
        if (yield from self.check_killed(True)):
            if err is None:  # nobody else will use it when the client speaks HTTP/2
                yield SendHttp(RequestProtocolError(self.stream_id, "killed", ErrorCode.KILL), connection)
                self.above.retire(connection)
            return False
        if err is not None:
            self.above.retire(address)
            local = _is_local(err, parent=self.flow.server_conn.via is not None)
            return (yield from self._again(err, sent=False, local=local))
        self.context.server = self.flow.server_conn = connection
        self.flow.response = send.authorize(request, connection)
        if self.flow.response is not None:
            yield from self._answer()
        else:
            yield from self._send(request, connection)
        return False

    def _send(self, request: http.Request, connection: Connection) -> Iterator[commands.Command]:
        self._upstream = True
        self._reused = self.above.used(connection)
        self.server_state = self.state_wait_for_response_headers
        content, trailers = self.flow.request.raw_content, self.flow.request.trailers
        yield SendHttp(RequestHeaders(self.stream_id, request, end_stream=not (content or trailers)), connection)
        if content:
            yield SendHttp(RequestData(self.stream_id, content), connection)
        yield SendHttp(RequestEndOfMessage(self.stream_id), connection)
        self._heard_at = clock.steady()
        if self._asked.first_byte_timeout:
            yield from self.above.wake_in(self._asked.first_byte_timeout)

    # --- again? ------------------------------------------------------------------------------------------------------

    def send_response(self, already_streamed: bool = False) -> layer.CommandGenerator[None]:
        """Ask *again?* before a refusal that the client has not seen goes down."""
        response, watch = self.flow.response, self._watch
        assert response
        if self._upstream:
            self.above.used(self.context.server)
        if not self._committed and not self._client_left:
            error = self._judged_whole(response, watch) if self._upstream else None
            if error is not None:
                self._upstream = False
                if error:
                    self.flow.response = None
                if (yield from self._again(error or None, sent=True)):
                    yield from self.make_server_connection()
                    return
                if error or self.server_state == self.state_errored:
                    return
            if self.flow.response is response and watch is not None:
                watch.released()
        self._committed = True
        self._edit_whole()
        self._without_body_to_head()
        yield from super().send_response(already_streamed)

    def _judged_whole(self, response: http.Response, watch: Watch | None) -> str | None:
        """Why the whole response that was held is no answer; empty: it says so itself; None: it is one."""
        if response.status_code >= 400:
            return ""
        if watch is None:
            return None
        watch.completed(response)
        if watch.refused:
            return ""
        return None if watch.whole else "the upstream ended its answer before it was complete"

    def _edit_whole(self) -> None:
        """Apply to a response that is sent whole what another addon wanted to do with each chunk of it."""
        response = self.flow.response
        assert response
        edits = response.stream
        if hasattr(self, "_asked") and not self._fast and callable(edits) and response.raw_content is not None:
            response.stream = False
            parts = [edits(data) for data in (response.raw_content, b"")]
            response.raw_content = b"".join(b"".join([part] if isinstance(part, bytes) else part) for part in parts)
            if "content-length" in response.headers:
                response.headers["content-length"] = str(len(response.raw_content))

    def _without_body_to_head(self) -> None:
        """A body in the answer to HEAD would be read as the next answer."""
        assert self.flow.response
        if self.flow.request.method == "HEAD":
            self.flow.response.raw_content = None

    def refused_in_stream(self, error: str | None) -> layer.CommandGenerator[None]:
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
            self._blame(self._client_ended())
        else:
            self._forget_upstream()  # mitmproxy tells some errors twice
        waiting = (
            self.state_wait_for_response_headers,
            self.state_consume_response_body,
            self.state_hold_response_body,
        )
        if isinstance(event, ResponseProtocolError) and self._ends_well() and not self._client_left:
            self.above.retire(self.context.server)
            yield from self._streamed(ResponseEndOfMessage(self.stream_id))
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
            soon = clock.steady() - self._heard_at <= DEAD_SECONDS
            if self._reused and not self._redialled and soon and event.message == CLOSED:
                # it was dead before the request went out: no account's fault, and none is asked
                self._redialled = True
                if (yield from self._deliver(self._asked)):
                    yield from self.make_server_connection()
                return
            if (yield from self._again(event.message, sent=True)):
                yield from self.make_server_connection()
            return
        self._blame("upstream")
        yield from super().handle_protocol_error(event)

    def check_killed(self, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, which looks whether an addon has killed the flow, or the client has left while a hook ran."""
        if self.flow.error is not None and self.flow.error.msg == Error.KILLED_MESSAGE:
            self._blame("addon")
        elif any(isinstance(event, RequestProtocolError) for event in self._paused_event_queue):
            self._blame(self._client_ended())
        return super().check_killed(emit_error_hook)

    def _client_ended(self) -> Literal["client", "timeout"]:
        """Whether the client has left, or mitmproxy has closed its connection because nothing passed for too long."""
        closed_here = self.context.client.state is ConnectionState.CLOSED
        silent = clock.steady() - self._heard_at >= self.context.options.tcp_timeout - 1
        return "timeout" if closed_here and self._upstream and silent else "client"

    def _blame(self, who: Literal["client", "upstream", "addon", "timeout"]) -> None:
        """The first to fail is the one who ended it."""
        asked = getattr(self, "_asked", None)
        if asked is not None and not asked.ended_by:
            asked.ended_by = who

    def _again(self, error: str | None, *, sent: bool, local: bool = False) -> layer.CommandGenerator[bool]:
        """Ask; when the answer is no and there was an error, the client gets its answer here."""
        refusal = Refusal(self.flow, error, sent, local=local)
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
