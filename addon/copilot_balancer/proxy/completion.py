"""The end of a request: what its answer taught, and its attribution.

Laws of this file:

1. The client has its answer, or has left: nothing here can change that.
2. What an answer said late (an error in it, a quota, what it binds) is told to the pool as anything else is.
"""

import time

from mitmproxy import ctx, http
from mitmproxy.flow import Error

from copilot_balancer.copilot import quota
from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.protocol import Kind
from copilot_balancer.proxy.exchange import Exchange
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.models_endpoint import learn_models, learn_session
from copilot_balancer.proxy.response_tap import ResponseTap
from copilot_balancer.proxy.websocket import WebSocketFrames
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.classify import classify_error, classify_event
from copilot_balancer.rules.types import Attempt
from copilot_balancer.text import duration
from copilot_balancer.views import requests
from copilot_balancer.views.requests import Attribution


def ended(exchange: Exchange) -> Attribution:
    """The request is over: the flow gets its comment, marker and metadata; the pool is told."""
    flow, response, live, body = exchange.flow, exchange.flow.response, exchange.live, exchange.body
    live.pool.finish(flow.id, live.now())
    error = ""
    if exchange.account is not None and exchange.attempt is not None and not exchange.local and response is not None:
        if response.status_code == 200 and exchange.kind is Kind.HOME:
            _learn_what_home_says(exchange, exchange.account, response)
        if exchange.passing is not None:
            if not exchange.passing.held:
                _keep(exchange, exchange.passing, response)
            error = _learn(exchange, exchange.account, exchange.attempt, exchange.passing)
    served = exchange.served and not exchange.local
    ended_by = _ended_by(exchange)
    record = Attribution(
        what=body.model or f"{flow.request.method} {flow.request.path.partition('?')[0]}",
        tries=tuple(exchange.tries),
        status=None if flow.error else response.status_code if response else None,
        seconds=live.now() - exchange.began,
        served=served,
        note=requests.ENDED.get(ended_by) or exchange.note or (flow.error.msg if flow.error else ""),
        declined=exchange.declined,
        client_left=ended_by == "client",
        request_id=flow.id,
        conversation=exchange.request.conversation or "",
        served_model=body.other_model if served else "",
        moved=f"sent without {body.left_out}, which only their maker takes back" if body.left_out else "",
        error=error,
    )
    flow.comment = requests.comment(record)
    if exchange.account is not None or exchange.local:
        flow.marked = requests.MARKERS[record.verdict]
    flow.metadata.update(requests.metadata(record))
    return record


def frames_after(exchange: Exchange) -> WebSocketFrames | None:
    """What looks at the frames from now on, when this was the handshake of a WebSocket that stands."""
    if exchange.flow.websocket is None or exchange.account is None or exchange.attempt is None or exchange.send is None:
        return None
    return WebSocketFrames(exchange.live, exchange.account, exchange.attempt, exchange.send)


def _ended_by(exchange: Exchange) -> str:
    """Who ended it with an error: a key of ``requests.ENDED``, the client or the upstream; empty when nobody did."""
    if exchange.flow.error is None:
        return ""
    if ctx.master.should_exit.is_set():
        return "shutdown"
    told = exchange.send.ended_by if exchange.send is not None else ""
    if told in requests.ENDED:
        return told
    if exchange.flow.error.msg == Error.KILLED_MESSAGE:
        return "addon"
    return told if exchange.flow.client_conn.connected else "client"


def _learn_what_home_says(exchange: Exchange, account: Account, response: http.Response) -> None:
    if exchange.lists_models:
        learn_models(exchange.live, exchange.request, account, response)
    else:
        learn_session(exchange.live, account, response)


def _keep(exchange: Exchange, passing: ResponseTap, response: http.Response) -> None:
    """Leave on the flow what a person may look at of a streamed answer."""
    response.stream = True  # a flow that is kept need not keep all of ours
    if passing.kept:
        response.raw_content = bytes(passing.kept)
        if encoding := response.headers.pop("content-encoding", ""):  # the client has it; a token could hide there
            response.raw_content = inflated(bytes(passing.kept), encoding, len(passing.kept) * 20)
        credential_guard.redact(response, exchange.live.decisions.accounts, exchange.live.mint.secrets())


def _learn(exchange: Exchange, account: Account, attempt: Attempt, passing: ResponseTap) -> str:
    """What the answer says beyond its head, and how it ended; the error that came inside it, for people."""
    live, flow, now, wall = exchange.live, exchange.flow, exchange.live.now(), time.time()
    marks, snapshots = passing.learnt()
    live.ownership.learn(marks, account.id, wall)
    if snapshots is not None:
        told = {"copilot_quota_snapshots": snapshots}
        live.pool.learn_quota(account.id, quota.read_snapshots(told, wall=wall, now=now))
    if not exchange.served:
        return ""
    if passing.error is not None:
        late = classify_event(passing.error.code, passing.error.message, wall=wall)
    elif flow.error is not None and _ended_by(exchange) == "upstream":
        late = classify_error(flow.error.msg, sent=True)
    else:
        return ""
    live.pool.record(attempt, late, now)
    rest = live.pool.cooldown_left(account.id, attempt.model, now)
    if passing.error is None:
        return ""
    return f"{late.reason}{f' (rests {duration(rest)})' if rest else ''}: {late.text or late.code}"
