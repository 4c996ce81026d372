"""The main job, with a real mitmdump, real sockets and TLS, against the embedded fake."""

import json
import os
import socket
import ssl
import sys
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpx
import pytest

from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.answers import CutMid, Drop, FakeAccount, Ok, RawBytes, Refuse, Silent, limited
from copilot_balancer.fake.bodies import Quota
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Consent, Decisions, fingerprint
from copilot_balancer.store.store import Store
from support.proxies import CLIENT, PERSONAL, ROOT, SPARE, SUPPORT, WORK, an_account, three_accounts, until

API = "https://api.githubcopilot.com"
LIMITED = limited(30)
BODIES = {
    "/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/responses": {"input": "hi", "messages": None},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100},
}


def asked(fake) -> list[str | None]:
    return [seen.account for seen in fake.asked()]


@pytest.mark.parametrize("path", BODIES)
def test_a_limited_account_fails_over(proxy, fake, path):
    """The first account is limited: the second one's stream reaches the client, and later requests skip the first."""
    fake.accounts[WORK].default = LIMITED

    answer = proxy.post(path, model="gpt-5-mini", **BODIES[path])

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "Hello" in answer.text
    assert answer.headers["x-copilot-attempts"] == "2"
    assert asked(fake)[0] == "work"
    second = asked(fake)[1]
    assert answer.headers["x-copilot-account"] == second != "work"

    assert proxy.post(path, model="gpt-5-mini", **BODIES[path]).status_code == 200
    assert asked(fake).count("work") == 1
    until(lambda: len(proxy.lines()) == 2, "two lines")
    assert f"gpt-5-mini <- {second} (api.githubcopilot.com) 200" in proxy.lines()[0]
    assert "before: work 429 session limit (rests 30 s)" in proxy.lines()[0]


def test_the_first_event_arrives_when_it_is_sent(proxy, fake):
    """After a failover the stream is live: the first event arrives although the answer never ends."""
    fake.accounts[WORK].default = LIMITED
    for token in (PERSONAL, SPARE):
        fake.accounts[token].default = Ok("one two three", gap=3600)
    with (
        proxy.client() as client,
        client.stream("POST", f"{API}/chat/completions", json={"model": "gpt-4.1", "stream": True}) as answer,
    ):
        first = next(answer.iter_lines())
    assert first.startswith("data: {")
    assert asked(fake)[0] == "work"
    until(lambda: fake.asked()[-1].client_gone, "the fake to see that the client left")


def test_an_account_without_the_model_is_not_asked_again(proxy, fake):
    """The first refusal for a missing model costs one attempt, the second request none."""
    fake.accounts[WORK].models = ("gpt-4o",)
    first = proxy.post(model="gpt-5-mini")
    second = proxy.post(model="gpt-5-mini")
    assert first.status_code == second.status_code == 200
    assert asked(fake).count("work") == 1
    assert second.headers["x-copilot-attempts"] == "1"
    assert proxy.post(model="gpt-4o").status_code == 200


def test_a_conversation_stays(proxy, fake):
    """A conversation stays with its account; new ones are spread."""
    for number in (1, 2, 3, 1, 2, 3, 1):
        with proxy.client() as client:
            client.post(f"{API}/responses", json={"model": "gpt-5-mini"}, headers={"x-session-id": f"ses_{number}"})
    accounts = asked(fake)
    assert len(set(accounts[:3])) == 3
    assert accounts == [*accounts[:3], *accounts[:3], accounts[0]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Refuse(402, "quota_exceeded", "You have no quota"), "quota", id="quota"),
        pytest.param(Refuse(500, message="oops"), "transient", id="500"),
        pytest.param(Refuse(503), "overloaded", id="503"),
        pytest.param(Refuse(401, body=b'{"message":"Bad credentials"}'), "needs login", id="bad credentials"),
        pytest.param(Drop("rst"), "transient", id="reset"),
        pytest.param(Drop("fin"), "transient", id="closed"),
    ],
)
def test_other_refusals_fail_over(proxy, fake, answer, reason):
    """Quota, server errors, a dead credential and broken connections are answered by another account."""
    fake.accounts[WORK].default = answer
    got = proxy.post()
    assert got.status_code == 200
    assert asked(fake)[0] == "work"
    assert len(asked(fake)) == 2
    until(proxy.lines, "the line")
    assert reason in proxy.lines()[0]


def test_a_refusal_of_the_request_is_passed_down(proxy, fake):
    """What is the request's own fault reaches the client untouched, and nobody else is asked."""
    body = json.dumps({"error": {"message": "bad", "code": "invalid_request_body"}}).encode()
    fake.accounts[WORK].default = Refuse(400, body=body, headers=(("x-request-id", "r1"),))
    got = proxy.post()
    assert (got.status_code, got.content, got.headers["x-request-id"]) == (400, body, "r1")
    assert asked(fake) == ["work"]


def test_an_abuse_block_stops(proxy, fake):
    """An abuse block is passed down, nobody else is asked, and the account is off from then on."""
    fake.accounts[WORK].default = Refuse(403, code="access_revoked", message="Copilot was taken from this account")
    assert proxy.post().status_code == 403
    assert asked(fake) == ["work"]
    for _ in range(3):
        assert proxy.post().status_code == 200
    assert asked(fake).count("work") == 1


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_text('{"version": 1, "acc'), id="broken"),
        pytest.param(lambda path: path.write_text('{"version": 1}'), id="older, without the stop"),
        pytest.param(lambda path: path.write_text(""), id="empty"),
    ],
)
def test_a_stop_outlives_what_was_learnt(start, fake, harm):
    """A state.json that is missing, broken or older lets no stopped account serve: the stop stands in accounts.json."""
    fake.accounts[WORK].default = Refuse(403, code="spammy_user", message="This account was flagged")
    proxy = start()
    assert proxy.post().status_code == 403
    until(lambda: proxy.store.read_decisions().accounts[0].stopped_at, "the stop in accounts.json")
    until(proxy.store.state_path.exists, "state.json")
    proxy.stop()
    fake.accounts[WORK].default = Ok()
    harm(proxy.store.state_path)

    again = start(home=proxy.folder / "home")
    for _ in range(3):
        assert again.post().status_code == 200
    assert asked(fake).count("work") == 1
    again.store.edit_decisions(edits.turned_on("github.com:1", time.time()))
    until(lambda: again.log.count("accounts.json was read again"), "the new decision")
    again.post()
    assert asked(fake).count("work") == 2


def test_a_hint_at_the_terms_alone_stops_nobody(proxy, fake):
    """A 403 that names the Terms of Service: the host is learnt once, then the model rests and another account serves.

    The same for a second model, on the host that was learnt just now, says that the account itself is stopped: nobody
    else is asked then, and it stays off.
    """
    fake.accounts[WORK].default = Refuse(
        403,
        message="Access to this endpoint is forbidden. Please review our Terms of Service",
        content_type="text/plain",
    )
    assert proxy.post().status_code == 200
    assert asked(fake) == ["work", "work", "personal"]
    assert proxy.post().status_code == 200
    assert asked(fake).count("work") == 2
    state = proxy.memory().accounts.get("github.com:1")
    assert state is None or state.blocked_at is None
    before = len(asked(fake))
    assert proxy.post(model="gpt-5-mini").status_code == 403
    assert asked(fake)[before:] == ["work"]  # the host is learnt once an hour (`LEARN_EVERY`)
    until(lambda: any(one.blocked_at for one in proxy.memory().accounts.values()), "the block in the state file")
    assert proxy.post(model="gpt-5-mini").status_code == 200
    assert asked(fake).count("work") == 3


def test_everybody_is_limited(proxy, fake):
    """When all rest the client gets a 429 with the soonest expiry; a client that hammers costs no upstream request."""
    for token, seconds in ((WORK, 300), (PERSONAL, 20), (SPARE, 200)):
        fake.accounts[token].default = limited(seconds)
    first = proxy.post()
    assert first.status_code == 429
    assert int(first.headers["retry-after"]) in (19, 20)
    assert first.json()["error"]["code"].startswith("user_global_rate_limited")
    assert len(asked(fake)) == 3
    second = proxy.post()
    assert second.status_code == 429
    assert 1 <= int(second.headers["retry-after"]) <= 20
    assert "personal" in second.json()["error"]["message"]
    assert len(asked(fake)) == 3


def test_nobody_has_the_model(proxy, fake):
    """When no account has the model the client gets a 400 that says so."""
    for account in fake.accounts.values():
        account.models = ("gpt-4o",)
    first = proxy.post(model="gpt-9")
    assert first.status_code == 400
    second = proxy.post(model="gpt-9")
    assert second.status_code == 400
    assert second.json()["error"]["code"] == "model_not_supported"
    assert len(asked(fake)) == 3


def test_a_cut_stream_is_cut_for_the_client(proxy, fake):
    """After the first byte there is no second attempt; the client sees that its answer is not whole."""
    fake.accounts[WORK].default = CutMid(2)
    with pytest.raises(httpx.RemoteProtocolError):
        proxy.post()
    assert asked(fake) == ["work"]
    until(proxy.lines, "the line")
    assert "cut off" in proxy.lines()[0]


def test_a_client_that_leaves_cancels_upstream(proxy, fake):
    """A client that gives up ends the upstream request, and no other account is asked."""
    fake.accounts[WORK].default = Silent()
    with pytest.raises(httpx.ReadTimeout), proxy.client() as client:
        client.post(f"{API}/chat/completions", json={"model": "gpt-4.1"}, timeout=0.5)
    until(lambda: fake.asked() and fake.asked()[0].client_gone, "the upstream request to end")
    assert asked(fake) == ["work"]


def test_a_cancel_over_http2_is_the_clients(start, fake):
    """Its connection goes on, so that alone tells nothing: the account is not to blame, and does not rest."""
    proxy = start("--set", "connection_strategy=lazy", accounts=three_accounts()[:1])
    fake.accounts[WORK].default = CutMid(2, how="stall")
    context = proxy.context()
    context.set_alpn_protocols(["h2"])
    given = {":method": "POST", ":scheme": "https", ":path": "/chat/completions", ":authority": "api.githubcopilot.com"}
    http2 = h2.connection.H2Connection(h2.config.H2Configuration())
    http2.initiate_connection()

    def hears(kind, stream):
        while True:
            tls.sendall(http2.data_to_send())
            for event in http2.receive_data(tls.recv(65536)):
                if isinstance(event, kind) and event.stream_id == stream:
                    return

    def asks(stream):
        http2.send_headers(stream, [*given.items(), ("authorization", f"Bearer {CLIENT}")])
        said = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        http2.send_data(stream, json.dumps(said).encode(), end_stream=True)

    with tunnel(proxy, context=context) as tls:
        for stream in (1, 3, 5, 7):
            asks(stream)
            hears(h2.events.DataReceived, stream)
            http2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            tls.sendall(http2.data_to_send())
            until(lambda stream=stream: len(proxy.lines()) == stream // 2 + 1, "the line")
        fake.accounts[WORK].default = Ok()
        asks(9)
        hears(h2.events.StreamEnded, 9)
    assert asked(fake) == ["work"] * 5
    until(lambda: len(proxy.lines()) == 5, "the last line")
    assert [line for line in proxy.lines()[:4] if "the client left" not in line] == []
    assert "work (api.githubcopilot.com) 200" in proxy.lines()[4]


def test_a_script_that_is_saved(start, fake, tmp_path):
    """mitmproxy runs it again: a client's open connection is served by the new object, failover and all."""
    script = tmp_path / "balancer.py"
    script.write_text(
        (ROOT / "addon" / "balancer.py").read_text().replace("__file__", repr(str(ROOT / "addon" / "x.py")))
    )
    proxy = start(script=script)
    given = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with proxy.client() as client, client.stream("POST", f"{API}/chat/completions", json=given) as first:
        first.read()
        before = fake.asked()[0].connection
        os.utime(script, (1, 2_000_000_000))
        until(lambda: proxy.log.count("copilot: ready on") == 2, "the script to be run again")
        fake.accounts[WORK].default = limited(30)
        second = client.post(f"{API}/chat/completions", json=given)
    assert second.status_code == 200
    assert second.headers["x-copilot-account"] == "personal"
    assert second.headers["x-copilot-attempts"] == "2"
    assert second.headers["transfer-encoding"] == "chunked"
    assert {seen.connection for seen in fake.asked()} == {before}
    until(lambda: len(proxy.lines()) == 2, "the second line")
    assert "Traceback" not in proxy.log


def test_a_silent_upstream_fails_over(start, fake):
    """With a first-byte time-out a silent account's streaming request is answered by another one."""
    proxy = start("--set", "copilot_first_byte_timeout=0.5")
    fake.accounts[WORK].default = Silent()
    got = proxy.post()
    assert got.status_code == 200
    assert asked(fake)[0] == "work"
    until(proxy.lines, "the line")
    assert "before: work transient" in proxy.lines()[0]


def test_a_stalled_answer_is_cut(start, fake):
    """With an idle time-out an answer that stalls is cut off for the client."""
    proxy = start("--set", "copilot_idle_timeout=0.5")
    fake.accounts[WORK].default = CutMid(2, how="stall")
    with pytest.raises(httpx.RemoteProtocolError):
        proxy.post()
    assert asked(fake) == ["work"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_silent_upstream_ends_at_the_deadline(start, fake, stream):
    """Without any other time-out a silent upstream is given up when the request's time is over; nobody else is asked."""
    proxy = start("--set", "copilot_deadline=1")
    fake.accounts[WORK].default = Silent()
    got = proxy.post(stream=stream)
    assert got.status_code == 502
    assert "silent for 1 s" in got.json()["error"]["message"]
    assert asked(fake) == ["work"]
    until(proxy.lines, "the line")
    assert "not retried, because its time is over" in proxy.lines()[0]


def test_a_choice_that_never_comes_ends_at_the_deadline(start, fake):
    """A hook of ours that waits for ever costs its own request alone, which ends with an answer and an incident."""
    proxy = start("-s", str(SUPPORT / "break_hooks.py"), "--set", "copilot_deadline=1")
    got = []
    waiting = threading.Thread(target=lambda: got.append(proxy.post(model="wait-choose")))
    waiting.start()
    assert proxy.post().status_code == 200
    waiting.join(60)
    assert [answer.status_code for answer in got] == [502]
    assert "incident" in got[0].json()["error"]["message"]
    assert proxy.log.count("copilot: incident") == 1
    assert proxy.log.count("TimeoutError") == 1
    assert len(asked(fake)) == 1
    assert proxy.post().status_code == 200


RAW = (
    b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: api.githubcopilot.com\r\nUser-Agent: a client/1\r\nx-initiator: user\r\n"
    b"Authorization: Bearer %s\r\nX-Interaction-Id: ses_1\r\nanthropic-version: 2023-06-01\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
    b"Cookie: a=b\r\nEditor-Device-Id: 5\r\ncopilot-integration-id: vscode-chat\r\nContent-Type: application/json\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%s"
)


def tunnel(proxy, host="api.githubcopilot.com", context=None, port=443, sni=None) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)
    plain.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = plain.recv(4096)
    assert b" 200 " in answer.split(b"\r\n")[0], answer
    return (context or proxy.context()).wrap_socket(plain, server_hostname=sni or host)


@pytest.mark.parametrize("path", ["/v1/messages?beta=true", "/mcp/"])
def test_bytes_upstream(proxy, fake, path):
    """Headers, their order and letters, and the body arrive as the client sent them, but for what must differ."""
    body = b'{"model":"claude-sonnet-4.6", "stream":false , "messages":[],"x":"\xc3\xa9"}'
    raw = (RAW % (CLIENT.encode(), len(body), body)).replace(b"/v1/messages?beta=true", path.encode())
    fake.accounts[WORK].default = LIMITED
    with tunnel(proxy) as tls:
        tls.sendall(raw)
        assert tls.recv(65536)
    sent = [tuple(line.split(b": ", 1)) for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    for seen in fake.seen:
        expected = sent
        if path != "/mcp/":
            bearer = {"work": WORK, "personal": PERSONAL, "spare": SPARE}[seen.account]
            expected = [
                (name, f"Bearer {bearer}".encode() if name == b"Authorization" else value)
                for name, value in sent
                if name != b"Cookie"
            ]
        assert seen.headers == expected
        assert seen.body == body
    assert len(fake.seen) == (1 if path == "/mcp/" else 2)


def test_set_cookie_is_dropped(proxy, fake):
    """A cookie of an account's does not reach the client."""
    fake.accounts[WORK].default = Ok(headers=(("Set-Cookie", "who=work"),))
    assert "set-cookie" not in proxy.post().headers


def test_an_account_elsewhere(start, fake):
    """A business seat is sent to its own host, whatever host the client called."""
    proxy = start(accounts=(an_account("work", WORK, 1, api_host="api.business.githubcopilot.com"),))
    assert proxy.post().status_code == 200
    assert fake.asked()[0].host == "api.business.githubcopilot.com"
    assert fake.asked()[0].header("host") == "api.business.githubcopilot.com"


@pytest.mark.parametrize("accounts", [(), None], ids=["without accounts", "with accounts"])
def test_paths_that_act_as_a_person(start, fake, accounts):
    """The client's own credential goes on; a client that holds the placeholder is told."""
    proxy = start(accounts=accounts)
    with proxy.client() as client:
        client.post(f"{API}/mcp/", json={})
    assert fake.seen[-1].token == CLIENT
    with proxy.client(PLACEHOLDER) as client:
        got = client.post(f"{API}/mcp/", json={})
    assert got.status_code == 403
    assert "balanced" in got.json()["error"]["message"]
    assert len(fake.seen) == 1


def test_without_accounts(start, fake):
    """With no account stored the client's own credential goes on; the placeholder gets a sentence."""
    proxy = start(accounts=())
    fake.accounts[CLIENT] = FakeAccount("client")
    assert proxy.post().status_code == 200
    assert fake.asked()[0].token == CLIENT
    got = proxy.post(token=PLACEHOLDER)
    assert got.status_code == 401
    assert "accounts add" in got.json()["error"]["message"]
    assert "no account is stored" in proxy.log


def test_until_the_terms_are_accepted_one_account_serves(start, fake):
    """A second account serves only after the terms were accepted, and that is said."""
    proxy = start(terms_accepted_at=None)
    fake.accounts[WORK].default = LIMITED
    assert proxy.post().status_code == 429
    assert asked(fake) == ["work"]
    assert "terms accept" in proxy.log


def test_balancing_off(start, fake):
    """With balancing off the home account serves everything, and its refusal reaches the client unchanged."""
    proxy = start(balancing=False, home_id="github.com:2", strategy="sticky")
    fake.accounts[PERSONAL].default = limited(300)
    got = proxy.post()
    assert got.status_code == 429
    assert got.headers["retry-after"] == "300"
    assert asked(fake) == ["personal"]
    assert "strategy: sticky" in proxy.log  # what is in force: the dashboard's decision, not the setting


def test_models_come_from_the_home_account(start, fake):
    """/models is the home account's answer."""
    proxy = start(home_id="github.com:3")
    fake.accounts[SPARE].models = ("gpt-4o",)
    with proxy.client() as client:
        listed = client.get(f"{API}/models")
    assert [model["id"] for model in listed.json()["data"]] == ["gpt-4o"]
    assert listed.headers["x-copilot-account"] == "spare"


HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


@pytest.mark.parametrize(
    ("arguments", "accounts", "status"),
    [
        pytest.param((), 3, 426, id="auto, while a second account could serve"),
        pytest.param((), 1, 101, id="auto, with one account"),
        pytest.param(("--set", "copilot_websocket=allow"), 3, 101, id="allow"),
        pytest.param(("--set", "copilot_websocket=refuse"), 1, 426, id="refuse"),
    ],
)
def test_websocket_handshake(start, fake, arguments, accounts, status):
    """A WebSocket is refused where HTTP could fail over; otherwise the handshake gets an account's credential."""
    fake.accounts[WORK].websocket = True
    proxy = start(*arguments, accounts=three_accounts()[:accounts])
    with tunnel(proxy) as tls:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        tls.sendall(f"GET /responses HTTP/1.1\r\nHost: api.githubcopilot.com\r\n{head}\r\n".encode())
        assert tls.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
    assert [seen.token for seen in fake.asked()] == ([WORK] if status == 101 else [])


@pytest.fixture
def fenced(start):
    """work stands in a fence of its own; personal and spare in the default one."""
    work, *others = three_accounts()
    return start(accounts=(*others, work.model_copy(update={"fence": "job"})))


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        pytest.param("", {"personal", "spare"}, id="nobody: the default fence"),
        pytest.param("job", {"work"}, id="a fence"),
        pytest.param("work", {"work"}, id="an account in a fence"),
        pytest.param("spare", {"spare"}, id="an account"),
    ],
)
def test_fences(fenced, fake, user, allowed):
    """A request never crosses a fence, under any failure; the name in the proxy URL says which fence or account."""
    at = fenced.url.replace("//", f"//{user}:@") if user else fenced.url
    for answer in (Ok(), Refuse(500), Drop("rst"), limited(1), Refuse(402, "quota_exceeded"), Refuse(401)):
        for account in fake.accounts.values():
            account.default = answer
        with httpx.Client(proxy=at, verify=fenced.context(), trust_env=False, timeout=20) as client:
            client.post(f"{API}/chat/completions", json={"model": "gpt-4.1", "x": str(answer)})
            client.get(f"{API}/models")
    assert set(asked(fake)) == allowed
    assert {seen.account for seen in fake.seen} == allowed


def test_an_unknown_proxy_user_is_refused(fenced, fake):
    """A name that is neither a fence nor an account is an error, never a silent default."""
    with httpx.Client(proxy=fenced.url.replace("//", "//jobb:@"), verify=fenced.context(), trust_env=False) as client:
        got = client.post(f"{API}/chat/completions", json={"model": "gpt-4.1"})
    assert got.status_code == 403
    assert "jobb" in got.json()["error"]["message"]
    assert fake.seen == []


def listed_models(client):
    return [model["id"] for model in client.get(f"{API}/models").json()["data"]]


def test_models_are_completed(start, fake):
    """What another account is known to have is in the list that the client sees, and using it goes to that account."""
    fake.accounts[WORK].models = ("gpt-4.1",)
    fake.accounts[PERSONAL].models = ("gpt-4.1", "claude-sonnet-4.6")
    proxy = start()
    with proxy.client() as client:
        assert listed_models(client) == ["gpt-4.1"]  # nothing is known of the others yet
        with httpx.Client(
            proxy=proxy.url.replace("//", "//personal:@"), verify=proxy.context(), trust_env=False
        ) as own:
            assert listed_models(own) == ["gpt-4.1", "claude-sonnet-4.6"]
        assert listed_models(client) == ["gpt-4.1", "claude-sonnet-4.6"]
        got = client.post(f"{API}/v1/messages", json={"model": "claude-sonnet-4.6"})
    assert got.status_code == 200
    assert fake.asked()[-1].account in ("personal", "spare")
    until(lambda: len(proxy.store.read_catalogue().accounts) == 2, "the lists to be written down")
    again = start(home=proxy.store.accounts_path.parent.parent)
    with again.client() as client:
        assert listed_models(client) == ["gpt-4.1", "claude-sonnet-4.6"]
    again.store.edit_decisions(
        lambda decisions: decisions.with_account(decisions.find("personal").model_copy(update={"block": ("claude*",)}))
    )
    until(lambda: "accounts.json was read again" in again.log, "the proxy to notice")
    with again.client() as client:
        assert listed_models(client) == ["gpt-4.1"]


def test_models_when_the_home_account_is_limited(proxy, fake):
    """A client that gets no list of models ends, so another account answers when the home account cannot."""
    fake.accounts[WORK].at["/models"] = limited(30)
    fake.accounts[PERSONAL].at["/models"] = Drop("rst")
    with proxy.client() as client:
        listed = client.get(f"{API}/models")
        assert listed.status_code == 200
        assert listed.headers["x-copilot-account"] == "spare"
        fake.accounts[SPARE].at["/models"] = Refuse(503, message="down")
        assert client.get(f"{API}/models").status_code == 503
    assert proxy.post().headers["x-copilot-account"] == "work"  # a limit of the list is none of the models


def test_a_disabled_account_gets_nothing(proxy, fake):
    """An edit of accounts.json by another program is in force in a running proxy."""
    proxy.store.edit_decisions(
        lambda decisions: decisions.with_account(decisions.find("work").model_copy(update={"enabled": False}))
    )
    until(lambda: "accounts.json was read again" in proxy.log, "the proxy to notice")
    for _ in range(4):
        assert proxy.post().status_code == 200
    assert set(asked(fake)) == {"personal", "spare"}


def test_a_broken_edit_is_said_and_survived(proxy, fake):
    """A broken accounts.json is complained about once; the proxy goes on with what it knows."""
    path = proxy.store.accounts_path
    path.write_text("{ not json")
    until(lambda: str(path) in proxy.log, "the complaint")
    assert proxy.post().status_code == 200
    assert proxy.log.count(str(path)) == 1
    assert path.read_text() == "{ not json"


def test_cooldowns_survive_a_restart(start, fake):
    """A limited account still rests after the proxy was ended and started again."""
    fake.accounts[WORK].default = limited(3000)
    first = start()
    assert first.post().status_code == 200
    first.stop()
    second = start(home=first.store.accounts_path.parent.parent)
    for _ in range(3):
        assert second.post().status_code == 200
    assert asked(fake).count("work") == 1


def test_another_host_stays_closed(start, fake):
    """Another host keeps its own certificate, and nothing of it becomes a flow."""
    proxy = start("-w", "flows")
    upstream = ssl.create_default_context(cafile=str(fake.ca_file))
    with tunnel(proxy, "other.test", upstream) as tls:
        issuer = dict(pair[0] for pair in tls.getpeercert()["issuer"])
        tls.sendall(b"GET /user HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n")
        assert tls.recv(4096).startswith(b"HTTP/1.1 404")
    assert "mitmproxy" not in str(issuer)
    assert fake.seen[0].host == "other.test"
    proxy.stop()
    assert (proxy.folder / "flows").read_bytes() == b""


def test_a_copilot_tunnel_with_another_name_inside_stays_closed(start, fake):
    """CONNECT to Copilot but TLS for another host: not opened, no credential."""
    proxy = start("-w", "flows")
    upstream = ssl.create_default_context(cafile=str(fake.ca_file))
    with tunnel(proxy, context=upstream, sni="evil.test") as tls:
        tls.sendall(b"POST /chat/completions HTTP/1.1\r\nHost: api.githubcopilot.com\r\nContent-Length: 2\r\n\r\n{}")
        tls.recv(4096)
    assert fake.seen[0].authorization is None
    proxy.stop()
    assert (proxy.folder / "flows").read_bytes() == b""


def test_a_foreign_host_header_gets_no_credential(proxy, fake):
    """Domain fronting through a Copilot tunnel is refused before anything is sent."""
    with tunnel(proxy) as tls:
        tls.sendall(b"POST /chat/completions HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 2\r\n\r\n{}")
        assert b" 403 " in tls.recv(4096)
    assert fake.seen == []


def test_plain_http_gets_no_credential(proxy, fake):
    """A Copilot host in clear, through the proxy port, is refused by us: nothing is sent to it, not even as it came."""
    with httpx.Client(proxy=proxy.url, trust_env=False) as client:
        got = client.post("http://api.githubcopilot.com/chat/completions", json={})
    assert got.status_code == 403
    assert got.json()["error"]["code"] == "not_through_a_tunnel"
    assert fake.seen == []
    assert proxy.lines() == []


def test_a_host_that_cannot_be_reached(start):
    """When the Copilot host cannot be connected to, the answer at CONNECT is JSON."""
    proxy = start(env={"FAKE_REFUSES": "api.githubcopilot.com"})
    with socket.create_connection(("127.0.0.1", proxy.port)) as plain:
        plain.sendall(b"CONNECT api.githubcopilot.com:443 HTTP/1.1\r\n\r\n")
        answer = b""
        while b"}}" not in answer:
            answer += plain.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502")
    assert "cannot be reached" in json.loads(body)["error"]["message"]


def test_a_host_that_never_answers(start):
    """A Copilot host whose connection is never answered is as one that cannot be reached, after ten seconds."""
    proxy = start("-s", str(SUPPORT / "no_rests.py"), env={"FAKE_SWALLOWS": "api.githubcopilot.com"})
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as plain:
        plain.sendall(b"CONNECT api.githubcopilot.com:443 HTTP/1.1\r\n\r\n")
        answer = b""
        while b"}}" not in answer:
            answer += plain.recv(65536)
    assert answer.startswith(b"HTTP/1.1 502")
    assert "no connection within" in proxy.log


def test_an_accounts_host_that_cannot_be_reached_fails_over(start, fake):
    """When the chosen account's own host cannot be connected to, another account serves."""
    elsewhere = an_account("work", WORK, 1, api_host="api.business.githubcopilot.com")
    proxy = start(accounts=(elsewhere, *three_accounts()[1:]), env={"FAKE_REFUSES": "api.business.githubcopilot.com"})
    assert proxy.post().status_code == 200
    until(proxy.lines, "the line")
    assert "before: work transient" in proxy.lines()[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--listen-host", "0.0.0.0"), "copilot_allow_remote", id="listen host"),
        pytest.param(("--mode", "regular@0.0.0.0:0"), "would lend your accounts", id="mode"),
        pytest.param(
            ("--listen-host", "0.0.0.0", "--set", "copilot_allow_remote=true"), "proxyauth", id="no proxyauth"
        ),
        pytest.param(("--set", "copilot_max_attempts=0"), "copilot_max_attempts", id="bad value"),
        pytest.param(("--set", "ssl_insecure=true"), "ssl_insecure", id="insecure"),
        pytest.param(("--set", "validate_inbound_headers=false"), "smuggled", id="smuggling"),
    ],
)
def test_refuses_to_start(start, arguments, said):
    """What would lend or leak an account ends mitmdump with one clear sentence, not a traceback."""
    proxy = start(*arguments, wait=False)
    until(lambda: proxy.process.poll() is not None, "mitmdump to end")
    assert proxy.process.returncode == 1
    assert said in proxy.log
    assert "Traceback" not in proxy.log


def test_a_store_that_others_can_read_is_refused(start):
    """accounts.json with a wrong mode ends mitmdump with its path and the remedy."""
    first = start()
    first.stop()
    first.store.accounts_path.chmod(0o644)
    again = start(home=first.store.accounts_path.parent.parent, wait=False)
    until(lambda: again.process.poll() is not None, "mitmdump to end")
    assert again.process.returncode == 1
    assert f"chmod 600 {first.store.accounts_path}" in again.log
    assert "Traceback" not in again.log


def test_loopback_is_the_default(proxy):
    """The plain command listens on 127.0.0.1 alone."""
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", proxy.port), timeout=2).close()


def test_a_request_is_held_while_all_rest(start, fake):
    """With copilot_wait a request waits for the account that frees soonest, and is then served."""
    proxy = start("--set", "copilot_wait=10", accounts=three_accounts()[:1])
    fake.accounts[WORK].script.extend([limited(3, "rate_limited")])
    assert proxy.post().status_code == 200
    assert asked(fake) == ["work", "work"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of open files to set")
def test_more_connections_than_files(start):
    """Idle connections that use up the process's files do not flood the log with tracebacks; then it serves again."""
    proxy = start("-s", str(SUPPORT / "few_files.py"))
    idle = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(300)]
    until(lambda: proxy.log.count("client connect\n") > 200, "the connections")
    for connected in idle:
        connected.close()
    assert proxy.post().status_code == 200
    assert "Traceback" not in proxy.log
    assert len([line for line in proxy.log.splitlines() if "copilot: " in line]) <= 10


def test_a_held_client_that_leaves_costs_nothing(start, fake):
    """A client that leaves while it is held costs no upstream request."""
    proxy = start("--set", "copilot_wait=10", accounts=three_accounts()[:1])
    fake.accounts[WORK].default = limited(5, "rate_limited")
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout), proxy.client() as client:
            client.post(f"{API}/chat/completions", json={"model": "gpt-4.1"}, timeout=0.5)
    until(lambda: len(proxy.lines()) == 2, "both to be over")
    assert len(fake.asked()) == 1


def test_quota_is_read_from_what_passes(start, fake):
    """The quota headers of an answer, and the snapshots at the end of a stream, are known without asking for them."""
    fake.accounts[WORK].quota = {"premium_interactions": Quota(42.0)}
    snapshots = {"5Hour-Session-RateLimits": {"percent_remaining": 17.0, "entitlement": 100, "unlimited": False}}
    end = json.dumps({"type": "response.completed", "copilot_quota_snapshots": snapshots})
    stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {}\n\ndata: %b\n\n"
    fake.accounts[SPARE].default = RawBytes(stream % end.encode(), close=True)
    proxy = start()
    for label in ("work", "spare"):
        with httpx.Client(
            proxy=proxy.url.replace("//", f"//{label}:@"), verify=proxy.context(), trust_env=False
        ) as client:
            assert client.post(f"{API}/responses", json={"model": "gpt-5-mini", "stream": True}).status_code == 200
    until(lambda: proxy.store.state_path.exists() and len(proxy.memory().accounts) == 3, "state.json")
    until(lambda: proxy.memory().accounts["github.com:3"].quota, "the quota to be written down")
    states = proxy.memory().accounts
    assert states["github.com:1"].quota["premium"].percent_left == 42.0
    assert states["github.com:3"].quota["session"].percent_left == 17.0
    assert len(fake.seen) == 2


def test_a_written_down_fallback(start, fake, tmp_path):
    """Another model is asked for only where the user wrote that down, and everything says so loudly."""
    home = tmp_path / "configured"
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('[[routes]]\nmodels = ["gpt-9*"]\nfallback = ["gpt-4.1"]\n')
    decisions = Decisions(accounts=three_accounts(), terms_accepted_at=1.0)
    Store(home / "state").edit_decisions(lambda _: decisions)
    proxy = start(home=home)
    for account in fake.accounts.values():
        account.models = ("gpt-4.1", "gpt-4o")
    proxy.post(model="gpt-9")
    got = proxy.post(model="gpt-9")
    assert got.status_code == 200
    assert got.headers["x-copilot-model-changed-to"] == "gpt-4.1"
    assert fake.asked()[-1].model == "gpt-4.1"
    until(lambda: len(proxy.lines()) == 2, "two lines")
    assert "MODEL CHANGED to gpt-4.1" in proxy.lines()[1]
    assert proxy.post(model="gpt-8").status_code == 400


def exchanging(label, token, number, **more):
    return an_account(label, token, number, credential="exchange", **more)


def test_an_exchanged_credential(start, fake):
    """An account whose GitHub token must be exchanged: fifty requests at once, one exchange, on the host named with it."""
    proxy = start(accounts=(exchanging("work", WORK, 1),))
    answers = []

    def ask():
        answers.append(proxy.post().status_code)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 50
    assert [seen.path for seen in fake.seen].count("/copilot_internal/v2/token") == 1
    assert all(seen.token != WORK for seen in fake.asked())


def test_an_expired_token_is_minted_once_more(start, fake):
    """A 401 for an exchanged token costs one more exchange and goes on with the same account, no cooldown."""
    proxy = start(accounts=(exchanging("work", WORK, 1), *three_accounts()[1:]), home_id="github.com:1")
    with proxy.client() as client:

        def ask(number):
            return client.post(f"{API}/chat/completions", json={"model": "gpt-4.1"}, headers={"x-session-id": "one"})

        first = ask(1)
        owner = first.headers["x-copilot-account"]
        if owner == "work":
            fake.expire_exchanged("work")
            again = ask(2)
            assert again.headers["x-copilot-account"] == "work"
            assert again.headers["x-copilot-attempts"] == "2"
    assert owner == "work"
    assert [seen.path for seen in fake.seen].count("/copilot_internal/v2/token") == 2


def test_a_revoked_token_is_tried_once(start, fake):
    """When GitHub refuses the exchange the account needs a login, others serve, and it is not asked again."""
    fake.accounts[WORK].at["/copilot_internal/v2/token"] = Refuse(401, body=b'{"message":"Bad credentials"}')
    proxy = start(accounts=(exchanging("work", WORK, 1), *three_accounts()[1:]))
    for _ in range(4):
        assert proxy.post().status_code == 200
    assert [seen.path for seen in fake.seen].count("/copilot_internal/v2/token") == 1
    until(lambda: len(proxy.lines()) == 4, "the lines")
    assert "before: work needs login" in " ".join(proxy.lines())


def test_a_misdirected_account_learns_its_host(start, fake):
    """A 421 asks GitHub where the account lives, sends the request there, and writes the host down; no cooldown."""
    wrong = an_account("work", WORK, 1, api_host="api.individual.githubcopilot.com")
    fake.accounts[WORK].api_host = "api.business.githubcopilot.com"
    fake.accounts[WORK].default = lambda seen: (
        Ok() if seen.host == "api.business.githubcopilot.com" else Refuse(421, message="Misdirected Request")
    )
    proxy = start(accounts=(wrong,))
    for attempts in ("2", "1"):
        got = proxy.post()
        assert (got.status_code, got.headers["x-copilot-attempts"]) == (200, attempts)
    until(lambda: proxy.store.read_decisions().accounts[0].api_host != wrong.api_host, "the host to be written down")
    assert proxy.store.read_decisions().accounts[0].api_host == "api.business.githubcopilot.com"
    assert [seen.host for seen in fake.asked()][1:] == ["api.business.githubcopilot.com"] * 2


def test_a_prefix_is_flipped_once_and_remembered(start, fake):
    """Where `Bearer` is badly formatted, `token` is tried once on the same account and kept."""
    fake.accounts[WORK].default = lambda seen: (
        Ok()
        if seen.authorization.startswith("token ")
        else Refuse(400, message="Authorization header is badly formatted", content_type="text/plain")
    )
    proxy = start(accounts=three_accounts()[:1])
    for attempts in ("2", "1"):
        got = proxy.post()
        assert (got.status_code, got.headers["x-copilot-attempts"]) == (200, attempts)


def test_a_login_of_a_clients_own_is_noticed_and_adopted(start, fake):
    """A credential that no account has is told once, by its hash; with the user's consent it is stored at its next use."""
    proxy = start(accounts=three_accounts()[:1])
    mark = fingerprint(CLIENT)
    for _ in range(3):
        proxy.post()
    assert proxy.log.count(f"accounts adopt {mark}") == 1
    until(lambda: proxy.store.read_memory().sightings, "the sighting to be written down")
    assert list(proxy.store.read_memory().sightings) == [mark]
    consent = Consent(label="mine", at=5.0)
    proxy.store.edit_decisions(lambda decisions: decisions.model_copy(update={"adopt": {mark: consent}}))
    until(lambda: "accounts.json was read again" in proxy.log, "the proxy to notice")
    proxy.post()
    until(lambda: len(proxy.store.read_decisions().accounts) == 2, "the account to be stored")
    adopted = proxy.store.read_decisions().find("mine")
    assert adopted.token.get_secret_value() == CLIENT
    assert proxy.store.read_decisions().adopt == {}
