"""One exchange by itself: what `plan` and `verdict` return, without a proxy and without a network."""

import asyncio
import json

import pytest
from mitmproxy.test.tflow import tserver_conn
from pydantic import SecretStr

from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.tokens import ExchangeRefused
from copilot_balancer.proxy.failover.hooks import Send
from copilot_balancer.proxy.request.steps import Again, Answer, Outgoing, PassOn
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.classify import classify_exchange
from support.exchanges import CHAT, Asked, Rig, runtime
from support.pools import account


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


LIMIT = (429, "user_global_rate_limited:pro", "limit", [("retry-after", "18000")])
QUOTA = (402, "quota_exceeded", "You have no quota")
CLI, OPENCODE = "copilot/1.0.102 (linux) client/github/cli", "opencode/1.18.33"


@pytest.mark.parametrize(
    ("refusals", "agent", "expected"),
    [
        pytest.param([LIMIT, LIMIT], CLI, (429, "user_global_rate_limited:pro", "18000"), id="limits, printed"),
        pytest.param([LIMIT, LIMIT], OPENCODE, (429, "user_global_rate_limited:pro", "60"), id="limits, slept"),
        pytest.param([QUOTA, QUOTA], CLI, (402, "quota_exceeded", None), id="quota, printed"),
        pytest.param([QUOTA, QUOTA], OPENCODE, (402, "quota_exceeded", None), id="quota, slept"),
    ],
)
@pytest.mark.parametrize("later", [False, True], ids=["refused now", "rests since"])
def test_all_are_limited(refusals, agent, expected, later):
    """What a client is told keeps status, code and meaning, with the wait it needs; so do later requests of ours."""

    async def run():
        live = runtime(*TWO)
        rig = Rig(live=live, headers=[("user-agent", agent)])
        for refused in refusals:
            await rig.send()
            refusal = rig.arrives(*refused)
            await rig.exchange.judge(refusal)
            if refusal.again:
                rig.flow.response = None
        if later:
            rig = Rig(live=live, headers=[("user-agent", agent)])
            await rig.send()
        answer = rig.flow.response
        code = answer.json()["error"]["code"].partition(":")[0]
        status, known, wait = expected
        assert (answer.status_code, code) == (status, known.partition(":")[0])
        told = answer.headers.get("retry-after")
        assert told is None if wait is None else int(wait) - 5 <= int(told) <= int(wait)

    play(run)


def test_nobody_serves_is_said_alike():
    """All accounts are limited: header, comment, record and note agree that nobody served, and whose refusal it is."""

    async def run():
        rig = Rig(*TWO)
        for seconds in ("300", "20"):
            await rig.send()
            refusal = rig.arrives(429, "rate_limited", "limit", [("retry-after", seconds)])
            await rig.exchange.judge(refusal)
            if refusal.again:
                rig.flow.response = None
        headers = rig.flow.response.headers
        assert "x-copilot-account" not in headers
        assert headers["x-copilot-refused-by"] == "home"
        record = rig.ends()
        assert (bool(record.served), record.verdict) == (False, "refused")
        assert "the answer is home's" in record.note
        assert "after work 429, home 429" in rig.flow.comment
        assert "copilot_account" not in rig.flow.metadata

    play(run)


def test_a_refused_exchange_is_told_once():
    """The only account's token is not exchanged: 403 with the cause; while it rests GitHub is not asked again."""

    async def run():
        body = json.dumps({"error_details": {"notification_id": "not_signed_up", "message": "No seat."}}).encode()
        error = ExchangeRefused("no", classify_exchange(403, {}, body, wall=0.0))
        github = Asked(error)
        live = runtime(account("work", credential="exchange"), github=github)
        first = Rig(live=live)
        assert await first.send() == 403
        assert first.flow.response.json()["error"]["code"] == "not_signed_up"
        assert "No seat." in first.flow.response.text
        github.error = AssertionError("asked again")
        assert await Rig(live=live).send() == 403

    play(run)


TENANT = "copilot-api.acme.ghe.com"


def tenant(label="acme"):
    token = SecretStr(f"gho_{label}-canary")
    return Account(id=f"acme.ghe.com:{label}", label=label, host="acme.ghe.com", api_host=TENANT, token=token)


@pytest.mark.parametrize(
    ("accounts", "host", "user", "expected"),
    [
        pytest.param(["work", tenant()], TENANT, "", "acme", id="a tenant's host: its own account"),
        pytest.param(["work", tenant(), tenant("other")], TENANT, "work", "work", id="the user named another account"),
        pytest.param(["work", tenant()], "api.githubcopilot.com", "", "work", id="github.com: any account"),
        pytest.param(["work"], TENANT, "", f"client's own at {TENANT}", id="no account of the tenant's"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/models"])
def test_tenants(accounts, host, user, expected, path):
    """What is addressed to an enterprise's own API host stays with its accounts, unless the user names another one."""

    async def run():
        live = runtime(*accounts)
        live.hosts = copilot_hosts(["acme.ghe.com"])
        method = "GET" if path == "/models" else "POST"
        assert await Rig(live=live, host=host, proxy_user=user, path=path, method=method).send() == expected

    play(run)


def test_a_tenants_request_does_not_fail_over_to_others():
    """A limited account of an enterprise gives its refusal to the client; no account of another host is asked."""

    async def run():
        live = runtime("work", tenant())
        live.hosts = copilot_hosts(["acme.ghe.com"])
        rig = Rig(live=live, host=TENANT)
        assert await rig.send() == "acme"
        refusal = rig.arrives(429, "rate_limited", "limit", [("retry-after", "300")])
        await rig.exchange.judge(refusal)
        assert (refusal.again, rig.flow.response.status_code) == (False, 429)
        later = Rig(live=live, host=TENANT)
        assert await later.send() == 429
        assert "work: belongs to another GitHub host" in later.flow.response.text

    play(run)


def test_a_disabled_model_is_shown_as_another_account_has_it():
    """The home account's entry is disabled: the client's list shows the other's whole entry, which serves the model."""

    async def run():
        live = runtime(*TWO)
        shelves = live.catalogue.accounts
        live.shelve = lambda one, seen: shelves.update({one.id: seen})
        off, on = ({"id": "gpt-4.1", "policy": {"state": state}, "from": state} for state in ("disabled", "enabled"))
        for label, entry in (("home", on), ("work", off)):
            live.decisions = live.decisions.model_copy(update={"home_id": f"github.com:{label}"})
            live.pool.replace(live.decisions, live.now())
            rig = Rig(live=live, path="/models", method="GET")
            assert await rig.send() == label
            rig.answers({"data": [entry], "object": "list"})
            rig.flow.response.content = json.dumps({"data": [entry], "object": "list"}).encode()
            rig.ends()
        assert rig.flow.response.json()["data"] == [on]
        assert await Rig(live=live).send() == "home"

    play(run)


@pytest.mark.parametrize(
    "moment",
    ["waits for an account", "chooses again", "connects", "connects with the client's own"],
)
def test_the_script_goes_while_a_request_waits(moment):
    """What was not sent when the script went is not sent afterwards: the client gets 503."""

    async def run():
        own = moment == "connects with the client's own"
        rig = Rig("work", path="/agents" if own else CHAT)
        await rig.send()
        if moment.startswith("connects"):
            send, copy = rig.exchange.send, rig.flow.request.copy()
            rig.live.ended = True
            return send.authorize(copy, tserver_conn()), copy
        refusal = rig.arrives(500)
        await rig.exchange.judge(refusal)
        assert refusal.again
        rig.flow.response = None
        if moment == "waits for an account":
            asyncio.get_running_loop().call_soon(setattr, rig.live, "ended", True)
        else:
            rig.live.ended = True
        assert await rig.send() == 503
        return rig.flow.response, rig.flow.request

    response, request = play(run)
    assert response.status_code == 503
    assert json.loads(response.content)["error"]["code"] == "not_loaded"
    assert "canary" not in str(request.headers)
