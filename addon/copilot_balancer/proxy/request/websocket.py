"""Reads the frames of one Responses WebSocket after its handshake, and closes it when an account reports a limit.

Laws of this file:

1. Its state lives on this one connection, so no turn of it can move to another account
   (docs/copilot-protocol.md#websocket).
2. A limit reported in a frame is recorded as any other, and the socket is closed. The frame is dropped while the turn
   has no output yet: the client sends the same turn again over HTTP, where another account can serve it
   (docs/clients.md#copilot-cli).
3. A flow keeps the last frames only, and none when nobody looks at bodies. A token that the upstream echoes is taken
   out of what is kept, and so out of what the client gets.
"""

import logging
import time
from dataclasses import replace

from mitmproxy import http
from mitmproxy.websocket import WebSocketMessage

from copilot_balancer.copilot import quota
from copilot_balancer.copilot.protocol import model_of, read_body
from copilot_balancer.copilot.response_event import read_frame
from copilot_balancer.proxy.request.steps import Upstream
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.classify import classify_event
from copilot_balancer.rules.types import Action, PoolRequest
from copilot_balancer.text import duration, printable

logger = logging.getLogger(__name__)

KEPT = 100
"""Frames of an open WebSocket that stay on its flow."""

_MOVES = (Action.NEXT, Action.NEXT_ONCE, Action.SAME_ONCE, Action.OWNER, Action.STOP)
"""After an error that means one of these the socket is of no more use."""


def declines(live: Runtime, request: PoolRequest) -> bool:
    """Whether a WebSocket handshake is answered with 426: the client then sends the same turn over HTTP.

    What is said over a WebSocket is bound to its connection and so to its account: nothing there can fail over
    (what clients do with 426: docs/clients.md#copilot-cli).
    """
    if live.settings.websocket != "auto":
        return live.settings.websocket == "refuse"
    if request.only:
        return False
    fence = request.fence or live.settings.fence
    could = [
        account
        for account in live.decisions.serving()
        if account.enabled and account.fence == fence and request.host in (None, account.host)
    ]
    return live.decisions.balancing and len(could) > 1


class WebSocketFrames:
    """The frames of one open WebSocket: parsed, recorded, and dropped after a limit."""

    def __init__(self, live: Runtime, upstream: Upstream) -> None:
        self._live = live
        self._account = upstream.account
        self._attempt = upstream.attempt
        self._send = upstream.send
        self._shown = False
        """Whether the client has seen something of the present turn."""

    def passing(self, flow: http.HTTPFlow) -> None:
        """The newest message of `flow` is about to be handed on."""
        assert flow.websocket is not None
        messages = flow.websocket.messages
        newest = messages[-1]
        if newest.is_text and newest.from_client:
            self._asked(newest)
        elif newest.is_text:
            self._told(newest)
        if self._live.keep_bodies and not newest.from_client:
            newest.content = self._live.sent.without(newest.content)
        del messages[: -KEPT if self._live.keep_bodies else None]

    def _asked(self, message: WebSocketMessage) -> None:
        body = read_body(message.content)
        if body is not None and body.get("type") == "response.create":
            self._attempt = replace(self._attempt, model=model_of(body), began=self._live.now())
            self._shown = False

    def _told(self, message: WebSocketMessage) -> None:
        live, now, wall = self._live, self._live.now(), time.time()
        event = read_frame(message.text)
        live.ownership.learn(event.hashes, self._account.id, wall)
        if event.quota is not None:
            told = {"copilot_quota_snapshots": event.quota}
            live.pool.learn_quota(self._account.id, quota.read_snapshots(told, wall=wall, now=now))
        if event.error is None:
            self._shown = self._shown or event.output
            return
        outcome = classify_event(event.error.code, event.error.message, wall=wall)
        live.pool.record(self._attempt, outcome, now)
        if outcome.action not in _MOVES:
            return
        rest = live.pool.cooldown_left(self._account.id, self._attempt.model, now)
        logger.warning(
            "copilot: %s <- %s said in its WebSocket: %s%s; the socket is closed, so that the client comes back",
            printable(self._attempt.model or "?", 80),
            self._account.label,
            outcome.reason,
            f" (rests {duration(rest)})" if rest else "",
        )
        if not self._shown:
            message.drop()
        self._send.hang_up = "this account cannot go on: say it again over HTTP"
