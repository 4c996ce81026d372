"""One exchange by itself: what `plan` and `verdict` return, without a proxy and without a network."""

import asyncio
import json

import pytest
from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.test import tflow

from copilot_balancer import config
from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.tokens import ExchangeRefused, TokenCache
from copilot_balancer.proxy.exchange import Exchange
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.proxy.steps import Again, Answer, Outgoing, PassOn
from copilot_balancer.rules.catalogue import Catalogue
from copilot_balancer.rules.classify import classify_exchange
from copilot_balancer.rules.ownership import Ownership
from copilot_balancer.store.decision_log import RecordedPool
from support.pools import account, decisions

CHAT = "/chat/completions"


class Asked:
    """In the place of GitHub: exchanges no token."""

    def __init__(self, error):
        self.error = error

    def exchange(self, _token, _host):
        raise self.error


class Rig:
    """A runtime over a real pool, and one client's request in it."""

    def __init__(self, *accounts, path=CHAT, headers=(), body=None, github=None, method="POST", **decided):
        settings = config.Settings()
        known = decisions(*accounts, **decided)
        self.live = Runtime(
            pool=RecordedPool(config.policy(settings, known), known, 0.0),
            decisions=known,
            settings=settings,
            options=Options(),
            hosts=copilot_hosts(),
            mint=TokenCache(lambda: github),
            learn_host=self._learn_host,
            notice=lambda _token, _host: None,
            shelve=lambda _account, _seen: None,
            spent=lambda _account, _model, _usage: None,
            catalogue=Catalogue(),
            ownership=Ownership(),
        )
        flow = self.flow = tflow.tflow()
        fields = {"authorization": "Bearer gho_client-canary", **dict(headers)}
        content = json.dumps(body or {"model": "gpt-4.1", "messages": [], "stream": True}).encode()
        flow.request = http.Request.make(method, f"https://api.githubcopilot.com{path}", content, fields)
        self.hidden = HiddenCredentials(flow.request.headers)
        self.hidden.masked(flow.request.headers)
        self.exchange = Exchange(self.live, flow)

    async def _learn_host(self, one):
        return one

    async def send(self):
        """Ask with what the request is sent, as the failover stream does; the label of the account, or the status."""
        send = Send(self.flow, self.hidden)
        await self.exchange.choose(send)
        if self.flow.response is not None:
            return self.flow.response.status_code
        return self.exchange.upstream.account.label if self.exchange.upstream else f"client's own at {send.host}"

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


def play(test):
    return asyncio.run(test())


TWO = ("work", "home")
OWN = "the upstream's own"


@pytest.mark.parametrize(
    ("accounts", "path", "refusals", "expected"),
    [
        pytest.param(TWO, CHAT, [(429, "rate_limited")], "again: home", id="limit: the other account"),
        pytest.param(TWO, CHAT, [(402, "quota_exceeded")], "again: home", id="quota: the other account"),
        pytest.param(TWO, CHAT, [(500, "")], "again: home", id="server error: the other account once"),
        pytest.param(TWO, CHAT, [(500, ""), (500, "")], "answer: 500", id="server errors twice: given back"),
        pytest.param(TWO, CHAT, [(429, "rate_limited")] * 2, "answer: 429 of work", id="all limited: the first's"),
        pytest.param(TWO, CHAT, [(400, "invalid_request_body")], "answer: 400 of work", id="a fault of the request"),
        pytest.param(TWO, CHAT, [(403, "spammy_user")], "answer: 403 of work", id="an abuse block stops"),
        pytest.param(TWO, CHAT, ["reset"], "again: home", id="connection reset: the other account"),
        pytest.param(TWO, CHAT, ["reset", "reset"], "answer: 502", id="connections reset twice: our own 502"),
        pytest.param(("work",), CHAT, [(429, "rate_limited")], "answer: 429 of work", id="one account, limited"),
        pytest.param(("work",), CHAT, [(500, "")], "hold", id="one account, server error: again after a moment"),
        pytest.param(TWO, "/models", [(429, "rate_limited")], "again: home", id="models: another account's list"),
        pytest.param(TWO, "/models", [(429, "")] * 2, "pass on", id="models: nobody else has a list"),
        pytest.param(TWO, "/models", ["reset", "reset"], "answer: 502", id="models: no answer at all"),
        pytest.param(("work",), "/models", [(403, "spammy_user")], "pass on", id="models: a block passes"),
    ],
)
def test_judge(accounts, path, refusals, expected):
    """What is done after the last of these refusals: again with whom, which answer, or what came passes on."""

    async def run():
        method = "GET" if path == "/models" else "POST"
        rig = Rig(*accounts, path=path, method=method)
        for number, refused in enumerate(refusals):
            assert await rig.send() == accounts[number]
            refusal = rig.fails() if refused == "reset" else rig.arrives(*refused)
            if number < len(refusals) - 1:
                await rig.exchange.judge(refusal)
                assert refusal.again
                rig.flow.response = None
        return told(rig, await rig.exchange.verdict(refusal))

    def told(rig, step):
        match step:
            case Again(then) if hasattr(then, "account_id"):
                return f"again: {rig.live.account(then.account_id).label}"
            case Again():
                return "hold"
            case Answer(response, account=None):
                return f"answer: {response.status_code}"
            case Answer(response, account=label):
                same = f" of {label}" if response.status_code < 500 else ""
                return f"answer: {response.status_code}{same}"
            case PassOn():
                return "pass on"

    assert play(run) == expected


@pytest.mark.parametrize(
    ("accounts", "path", "token", "expected"),
    [
        pytest.param(TWO, CHAT, "gho_client", "work", id="an account"),
        pytest.param(TWO, "/mcp", "gho_client", "client's own at api.githubcopilot.com", id="acts as a person"),
        pytest.param(TWO, "/mcp", PLACEHOLDER, 403, id="acts as a person, no credential"),
        pytest.param((), CHAT, "gho_client", "client's own at api.githubcopilot.com", id="no accounts"),
        pytest.param((), CHAT, PLACEHOLDER, 401, id="no accounts, no credential"),
    ],
)
def test_choose(accounts, path, token, expected):
    """An account where one may serve, else the client's own credential, and an error where the client has none."""

    async def run():
        rig = Rig(*accounts, path=path, headers=[("authorization", f"Bearer {token}")])
        return await rig.send()

    assert play(run) == expected


def test_a_refused_exchange_is_a_refusal():
    """An account whose token cannot be exchanged counts as tried, and the pool chooses the next one at once."""

    async def run():
        body = json.dumps({"error_details": {"notification_id": "not_signed_up"}, "message": "no"}).encode()
        outcome = classify_exchange(403, {}, body, wall=0.0)
        rig = Rig(account("work", credential="exchange"), "home", github=Asked(ExchangeRefused("no", outcome)))
        assert await rig.send() == "home"
        assert [one.account for one in rig.exchange.tries] == ["work"]
        assert rig.exchange.answers == [None]

    play(run)


def test_an_unreachable_exchange_is_said():
    """When no account can be sent with, the client is told by one 502 that nothing was sent."""

    async def run():
        rig = Rig(account("work", credential="exchange"), github=Asked(UpstreamError("api.github.com is away")))
        assert await rig.send() == 502
        assert "api.github.com is away" in rig.flow.response.text

    play(run)


def test_what_is_judged_is_no_attempt_of_ours():
    """A refusal of the client's own credential passes; a failed connection becomes a 502 with the reason."""

    async def run():
        rig = Rig(path="/chat/completions")
        await rig.send()
        assert await rig.exchange.verdict(rig.arrives(401)) == PassOn()
        step = await rig.exchange.verdict(rig.fails("gone"))
        assert (step.response.status_code, "gone" in step.response.text) == (502, True)
        assert "own credential" in step.note

    play(run)


def test_plan_changes_nothing_in_the_flow():
    """Only `choose` writes into the flow and the hook's value."""

    async def run():
        rig = Rig("work")
        send = Send(rig.flow, rig.hidden)
        step = await rig.exchange.plan(send)
        assert isinstance(step, Outgoing)
        assert (send.host, send.authorize, rig.flow.response) == (None, None, None)
        assert rig.flow.request.headers["authorization"] == "Bearer [client]"

    play(run)
