"""Foreign text on its way through the addon's real hooks: no forged line, no forged header, no exception."""

import asyncio
import json
import logging
import tempfile
from itertools import chain, repeat
from pathlib import Path

from hypothesis import example, given, settings, strategies
from mitmproxy import http
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Server
from mitmproxy.test import taddons, tflow

from copilot_balancer.proxy.addon import CopilotBalancer
from copilot_balancer.proxy.chain import hooks
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.store.store import Paths, Store
from copilot_balancer.views.requests import LINE_LIMIT
from support.proxies import three_accounts
from views.test_requests import BIDI, NASTY

HOST = "api.githubcopilot.com"
OURS = (b"authorization", b"retry-after", b"host", b"content-length", b"content-type")
"""Headers that we may write, beside ``x-copilot-...``."""


class Lines(logging.Handler):
    """What would be logged, put together as mitmproxy does it."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        if record.name.startswith("copilot_balancer") and record.levelno > logging.DEBUG:
            self.lines.append(record.getMessage())


def a_flow(body, path, fields):
    flow = tflow.tflow(req=http.Request.make("POST", f"https://{HOST}/chat/completions", body))
    flow.request.data.path = as_bytes(path)
    flow.request.headers = http.Headers([(b"host", HOST.encode()), (b"authorization", b"Bearer [client]"), *fields])
    return flow


def a_server(host):
    server = Server(address=(host, 443), sni=host)
    server.tls, server.timestamp_tls_setup = True, 1.0
    server.certificate_list = tflow.tserver_conn().certificate_list or ["a certificate"]
    credential_guard._verified.add(server)
    return server


async def asked(hooks, flow, answers, sent):
    """One request through the hooks, as the layer calls them; `sent` gets the copies that would go upstream."""
    hooks.requestheaders(flow)
    hidden = HiddenCredentials(http.Headers([(b"authorization", b"Bearer ghu_" + b"a" * 36)]))
    for answer in chain(answers, repeat("no more")):
        flow.response, send = None, Send(flow, hidden)
        if not hooks.choose(send):
            await hooks.failover_choose(send)
        if flow.response is None:
            assert send.host
            assert send.authorize
            copy = flow.request.copy()
            copy.host = send.host
            copy.headers["host"] = send.host
            refused = send.authorize(copy, a_server(send.host))
            sent.append(copy)
            if refused is None:
                refusal = Refusal(flow, answer if isinstance(answer, str) else None, sent=True)
                if refusal.error is None:
                    flow.response = answer.copy()
                    hooks.responseheaders(flow)
                    if flow.response.status_code < 400:
                        break
                await hooks.failover_judge(refusal)
                if refusal.again:
                    continue
                flow.response = flow.response or http.Response.make(502)  # as the layer does
        hooks.responseheaders(flow)
        break
    hooks.response(flow)


def through_the_hooks(make_flow, answers, decisions):
    """The lines that were logged, the flow, and what was sent."""
    lines, sent = Lines(), []
    root = logging.getLogger()
    handlers = list(root.handlers)
    root.addHandler(lines)
    try:
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            Store(where / "state").edit_decisions(lambda _: decisions)

            async def run():
                addon = CopilotBalancer(Paths(where / "state", where / "config"), where)
                with taddons.context(Proxyserver()) as tctx:
                    tctx.master.addons.add(addon)
                    tctx.configure(addon)
                    flow = make_flow()
                    ours = hooks()
                    ours._failover_flows.add(flow)  # as when our layer has told of its head
                    ours.door._admitted.add(flow.client_conn)
                    await asked(ours, flow, answers, sent)
                    addon.sync.journal.close()
                    return flow

            flow = asyncio.run(run())
    finally:
        root.handlers[:] = handlers  # mitmproxy's own is of a loop that is closed now
    return lines.lines, flow, sent


def as_bytes(text):
    return text.encode("utf-8", "surrogatepass")


NAMES = strategies.sampled_from(
    [b"x-session-affinity", b"session-id", b"x-copilot-account", b"x-initiator", b"upgrade", b"retry-after", b"\xff"]
)
FIELDS = strategies.lists(strategies.tuples(NAMES, NASTY.map(as_bytes)), max_size=3)
BODIES = (
    strategies.builds(lambda model, more: json.dumps({"model": model, "messages": more}).encode(), NASTY, NASTY)
    | strategies.builds(lambda model: as_bytes(f'{{"model":"{model}","input":[]}}'), NASTY)
    | NASTY.map(as_bytes)
)
PATHS = strategies.sampled_from(
    ["/chat/completions", "/responses", "/messages", "/models", "/agents"]
) | strategies.builds("/responses?{}".format, NASTY)


@strategies.composite
def answers(draw):
    """A refusal in foreign words, or why none came."""
    if draw(strategies.booleans()):
        return draw(NASTY)
    words = {"code": draw(NASTY), "message": draw(NASTY), "type": draw(NASTY)}
    body = draw(strategies.sampled_from([json.dumps({"error": words}).encode(), as_bytes(words["message"])]))
    response = http.Response.make(
        draw(strategies.sampled_from([400, 401, 402, 403, 404, 421, 429, 500, 503, 200])), body
    )
    response.headers = http.Headers([(b"content-type", draw(NASTY).encode("utf-8", "surrogatepass")), *draw(FIELDS)])
    return response


LOUD = http.Response.make(429, b'{"error":{"code":"rate_limited","message":"wait\\r\\ncopilot: forged <- work 200"}}')


@settings(max_examples=50, deadline=None)
@given(BODIES, PATHS, FIELDS, strategies.lists(answers(), max_size=3), strategies.booleans())
@example(b'{"model":"a\\ncopilot: forged"}', "/responses", [], [LOUD] * 3, True)
def test_foreign_text_forges_nothing(body, path, fields, refusals, many):
    """Whatever clients and upstreams say: each line is one, printable and bounded; each header of ours is plain ASCII."""
    decisions = Decisions(accounts=three_accounts()[: 3 if many else 2], terms_accepted_at=1.0)
    lines, flow, sent = through_the_hooks(lambda: a_flow(body, path, fields), refusals, decisions)

    assert not [line for line in lines if "incident" in line]
    facts = [str(value) for key, value in flow.metadata.items() if not key.endswith("_body")]  # which is shown as it is
    for line in [*lines, flow.comment, *facts]:
        assert line.isprintable()
        assert not BIDI & set(line)
        assert len(line) <= LINE_LIMIT
        line.encode()
    foreign = {value for _, value in fields}
    foreign |= {value for answer in refusals if not isinstance(answer, str) for _, value in answer.headers.fields}
    written = [*flow.request.headers.fields, *(field for copy in sent for field in copy.headers.fields)]
    for name, value in [*written, *flow.response.headers.fields]:
        if name.lower() in OURS or name.lower().startswith(b"x-copilot-"):
            assert value in foreign or all(0x20 <= byte < 0x7F for byte in value)
    for copy in sent:
        assert [name.lower() for name, _ in copy.headers.fields].count(b"authorization") == 1
        assert len(copy.headers.fields) == len(flow.request.headers.fields)
