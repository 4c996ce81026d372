"""Ends a request: records what its response taught (quota, bound state, a late error) and makes its record.

Laws of this file:

1. The client has its response, or has disconnected: nothing here changes that.
2. Facts that come late in a response (an error, a quota, bound state) are recorded in the pool as any other.
"""

import time

from mitmproxy import ctx, http
from mitmproxy.flow import Error

from copilot_balancer.copilot import quota
from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.usage import Usage, usage_of
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.request.auto_mode import SelectionTap
from copilot_balancer.proxy.request.exchange import Exchange
from copilot_balancer.proxy.request.models_endpoint import learn_models
from copilot_balancer.proxy.request.response_tap import ResponseTap
from copilot_balancer.proxy.request.steps import Upstream
from copilot_balancer.proxy.request.websocket import WebSocketFrames
from copilot_balancer.rules.classify import classify_error, classify_event, written_of
from copilot_balancer.store.request_record import RequestRecord, finished
from copilot_balancer.text import duration
from copilot_balancer.views import requests

_USED = ("tokens_in", "cached", "tokens_out", "reasoning", "nano_aiu")
"""Fields that a record takes over from the usage that an answer told."""


def ended(exchange: Exchange) -> RequestRecord:
    """The request is over: the flow gets its comment, marker and metadata; the pool is told."""
    flow, response, live, body = exchange.flow, exchange.flow.response, exchange.live, exchange.body
    live.pool.finish(flow.id, live.now())
    error, usage = "", None
    upstream = exchange.upstream
    if upstream is not None and not exchange.local and response is not None:
        if response.status_code == 200 and exchange.lists_models:
            credential_guard.redact(response, live.sent)
            learn_models(exchange.live, exchange.request, upstream.account, response)
        if exchange.passing is not None:
            if not exchange.passing.held:
                _keep(exchange, exchange.passing, response)
            error, usage = _learn(exchange, upstream, exchange.passing)
    served = exchange.served and not exchange.local
    ended_by = _ended_by(exchange)
    record = finished(
        tuple(exchange.tries),
        served=served,
        status=None if flow.error else response.status_code if response else None,
        error=error,
        client_left=ended_by == "client",
        declined=exchange.declined,
        passed=upstream is None and not exchange.local,
        at=time.time(),
        id=flow.id,
        what=body.model or f"{flow.request.method} {flow.request.path.partition('?')[0]}",
        ms=(live.now() - exchange.began) * 1000,
        note=requests.ENDED.get(ended_by) or exchange.note or (flow.error.msg if flow.error else ""),
        conversation=exchange.request.conversation or "",
        model=(body.other_model if served else "") or None,
        moved=f"sent without {body.left_out}, which only their maker takes back" if body.left_out else "",
        first_ms=None if exchange.first_at is None else (exchange.first_at - exchange.began) * 1000,
        client=exchange.headers.get("user-agent", "").partition(" ")[0],
        **({name: getattr(usage, name) for name in _USED} if usage else {}),
    )
    if upstream is not None and record.account is not None and exchange.costs:
        live.spent(upstream.account.id, record.model or record.what, usage)
    flow.comment = requests.comment(record)
    if upstream is not None or exchange.local:
        flow.marked = requests.MARKERS[record.verdict]
    flow.metadata.update(requests.metadata(record))
    return record


def frames_after(exchange: Exchange) -> WebSocketFrames | None:
    """What looks at the frames from now on, when this was the handshake of a WebSocket that stands."""
    if exchange.flow.websocket is None or exchange.upstream is None:
        return None
    return WebSocketFrames(exchange.live, exchange.upstream)


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


def _keep(exchange: Exchange, passing: ResponseTap, response: http.Response) -> None:
    """Leave on the flow what a person may look at of a streamed answer."""
    response.stream = True  # a flow that is kept need not keep all of ours
    if isinstance(passing, SelectionTap):
        response.headers.pop("content-encoding", None)
        response.raw_content = passing.shown()
        passing.finish()
    if passing.kept:
        response.raw_content = bytes(passing.kept)
        if encoding := response.headers.pop("content-encoding", ""):  # the client has it; a token could hide there
            response.raw_content = inflated(bytes(passing.kept), encoding, len(passing.kept) * 20)
        credential_guard.redact(response, exchange.live.sent)


def _learn(exchange: Exchange, upstream: Upstream, passing: ResponseTap) -> tuple[str, Usage | None]:
    """What the answer says beyond its head, and how it ended: the error that came inside it, for people; its usage."""
    live, flow, now, wall = exchange.live, exchange.flow, exchange.live.now(), time.time()
    account, attempt = upstream.account, upstream.attempt
    hashes, snapshots, used = passing.learnt()
    usage = usage_of(used)
    live.ownership.learn(hashes, account.id, wall)
    if snapshots is not None:
        told = {"copilot_quota_snapshots": snapshots}
        live.pool.learn_quota(account.id, quota.read_snapshots(told, wall=wall, now=now))
    if not exchange.served:
        return "", usage
    if passing.error is not None:
        late = classify_event(passing.error.code, live.sent.text(passing.error.message), wall=wall)
    elif flow.error is not None and _ended_by(exchange) == "upstream":
        late = classify_error(flow.error.msg, sent=True)
    else:
        return "", usage
    live.pool.record(attempt, late, now)
    rest = live.pool.cooldown_left(account.id, attempt.model, now)
    if passing.error is None:
        return "", usage
    return f"{late.reason}{f' (rests {duration(rest)})' if rest else ''}: {written_of(late) or 'no code'}", usage
