"""A runtime without a proxy, and one request in it: for tests of `Exchange` and what it uses."""

import json

from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.test import tflow
from mitmproxy.test.tflow import tserver_conn
from mitmproxy.tls import TlsData

from copilot_balancer import config
from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.github.tokens import TokenCache
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.request.completion import ended
from copilot_balancer.proxy.request.exchange import Exchange
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.catalogue import Catalogue
from copilot_balancer.rules.ownership import Ownership
from copilot_balancer.rules.pool import Pool
from support.pools import decisions

CHAT = "/chat/completions"


class Asked:
    """In the place of GitHub: exchanges no token."""

    def __init__(self, error):
        self.error = error

    def exchange(self, _token, _host):
        raise self.error


def runtime(*accounts, github=None, select=None, settings=None, **decided):
    """What the requests of a proxy share, over a real pool; nobody is asked anything."""

    async def learn_host(one):
        return one

    settings = settings or config.Settings()
    known = decisions(*accounts, **decided)
    return Runtime(
        pool=Pool(config.policy(settings, known), known, 0.0),
        decisions=known,
        settings=settings,
        options=Options(),
        hosts=copilot_hosts(),
        mint=TokenCache(lambda: github),
        learn_host=learn_host,
        notice=lambda _token, _host: None,
        shelve=lambda _account, _seen: None,
        spent=lambda _account, _model, _usage: None,
        catalogue=Catalogue(),
        ownership=Ownership(),
        select=select,
    )


class Rig:
    """One client's request in a runtime, played as the failover stream and mitmproxy would."""

    def __init__(
        self,
        *accounts,
        live=None,
        path=CHAT,
        headers=(),
        body=None,
        method="POST",
        host="api.githubcopilot.com",
        proxy_user="",
        **more,
    ):
        self.live = live or runtime(*accounts, **more)
        flow = self.flow = tflow.tflow()
        fields = {"authorization": "Bearer gho_client-canary", **dict(headers)}
        asked = json.dumps(body or {"model": "gpt-4.1", "messages": [], "stream": True}).encode()
        content = b"" if method == "GET" else asked
        flow.request = http.Request.make(method, f"https://{host}{path}", content, fields)
        self.hidden = HiddenCredentials(flow.request.headers)
        self.hidden.masked(flow.request.headers)
        self.exchange = Exchange(self.live, flow, proxy_user)

    async def send(self):
        """Ask with what the request is sent, as the failover stream does; the label of the account, or the status."""
        send = Send(self.flow, self.hidden)
        await self.exchange.choose(send)
        if self.flow.response is not None:
            return self.flow.response.status_code
        return self.exchange.upstream.account.label if self.exchange.upstream else f"client's own at {send.host}"

    def outgoing(self):
        """The headers of the copy that goes upstream now, by lower-case name."""
        request = self.flow.request.copy()
        server = tserver_conn()
        server.address = (self.exchange.upstream.bearer.host, 443)
        server.sni, server.tls, server.timestamp_tls_setup = server.address[0], True, 1.0
        server.certificate_list = [object()]
        credential_guard._verified.add(server)  # as when its TLS was established
        credential_guard._verified.add(server)
        credential_guard.tls_begins(TlsData(server, None), self.live.options)  # as mitmproxy's hook tells it
        request.host = server.address[0]
        request.headers["host"] = request.host
        assert self.exchange.upstream.send.authorize(request, server) is None
        return {name.decode().lower(): value.decode() for name, value in request.headers.fields}

    def answers(self, document=None, status=200, content=None, kind="application/json", **headers):
        """A whole successful response arrives and reaches the client; its body as the client gets it."""
        flow, raw = self.flow, json.dumps(document).encode() if content is None else content
        flow.response = http.Response.make(status, b"", {"content-type": kind, **headers})
        self.exchange.head()
        passing = self.exchange.passing
        if passing is None:
            flow.response.raw_content = raw
            return raw
        if flow.response.stream:
            passing.feed(raw)
        else:
            flow.response.raw_content = raw
            passing.completed(flow.response)
        assert passing.whole, "it is no answer"
        assert not passing.refused
        passing.released()
        return raw

    def ends(self):
        """The request is over; its record."""
        return ended(self.exchange)

    def arrives(self, status, code="", message="", headers=(), content=None):
        """A whole refusal of the upstream stands in the flow."""
        body = {"error": {"code": code, "message": message or code}} if content is None else None
        raw = json.dumps(body).encode() if content is None else content
        self.flow.response = http.Response.make(status, raw, dict(headers))
        return Refusal(self.flow, None, sent=True)

    def fails(self, error="server closed connection", *, sent=True):
        """There is no response, but an error of the connection."""
        self.flow.response = None
        return Refusal(self.flow, error, sent=sent)
