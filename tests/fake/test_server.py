import asyncio
import json
import re
import ssl
import time
from collections import deque
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from mitmproxy.proxy import server
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, RejectConnection, Request, TextMessage

from copilot_balancer.fake.answers import (
    BAD_CREDENTIALS,
    MODEL_NOT_SUPPORTED,
    CutMid,
    Document,
    Drop,
    EndlessError,
    FakeAccount,
    Ok,
    RawBytes,
    Refuse,
    Silent,
    SlowFirst,
    Trickle,
    always,
    limited,
    once,
    per_model,
    per_path,
)
from copilot_balancer.fake.bodies import DEFAULT_MODELS, Quota
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.dialling import Faulty, dial
from copilot_balancer.fake.server import FakeCopilot, running

WORK, SPARE = "gho_work_0123456789", "gho_spare_0123456789"
API = "api.githubcopilot.com"
ANSWER = "One two three."
MODELS = {"/chat/completions": "gpt-4.1", "/responses": "gpt-5-mini", "/v1/messages": "claude-sonnet-4.6"}
THREE_APIS = pytest.mark.parametrize("path", MODELS, ids=["chat", "responses", "messages"])


@pytest.fixture
def work():
    return FakeAccount("work", default=Ok(ANSWER))


@pytest.fixture
def fake(work):
    with running({WORK: work, SPARE: FakeAccount("spare", models=["gpt-4.1"])}, hosts=["other.test"]) as fake:
        yield fake


class Client:
    """httpx, to the fake's port under real names, trusting the fake's CA alone; a pool of connections a name."""

    def __init__(self, fake):
        self.fake = fake
        self.context = ssl.create_default_context(cafile=str(fake.ca_file))
        self.https = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for http in self.https.values():
            http.close()

    def http(self, host):
        if host not in self.https:
            self.https[host] = httpx.Client(verify=self.context, trust_env=False)
        return self.https[host]

    def arguments(self, method, path, *, host=API, token=WORK, **more):
        return {
            "method": method,
            "url": f"https://127.0.0.1:{self.fake.port}{path}",
            "headers": {"host": host, "authorization": f"Bearer {token}"} | more.pop("headers", {}),
            "extensions": {"sni_hostname": host},
            **more,
        }

    def __call__(self, method, path, *, host=API, **more):
        return self.http(host).request(**self.arguments(method, path, host=host, **more))

    def ask(self, path, *, stream=True, **more):
        body = {"model": MODELS.get(path, "gpt-4.1"), "stream": stream} | more.pop("body", {})
        return self("POST", path, json=body, **more)


@pytest.fixture
def client(fake):
    with Client(fake) as client:
        yield client


def events(response):
    """The data of each event of a stream, parsed where it is JSON."""
    data = [re.search(r"^data: (.*)$", event, re.MULTILINE)[1] for event in response.text.strip().split("\n\n")]
    return [json.loads(item) if item.startswith("{") else item for item in data]


def until(condition):
    """Look again until it holds, for five seconds at most."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@asynccontextmanager
async def raw(fake, host=API):
    """A bare TLS connection to the fake."""
    context = ssl.create_default_context(cafile=str(fake.ca_file))
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port, ssl=context, server_hostname=host)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def chat(token=WORK, more=b"", model=b"gpt-4.1"):
    """One streaming chat request as bytes."""
    body = b'{"model":"%s","stream":true}' % model
    head = b"POST /chat/completions HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n" % (
        API.encode(),
        token.encode(),
    )
    return head + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


# --- the forms of the APIs


def test_chat_streams_chunks_and_ends_with_done(client):
    """A chat stream is chunks with one choice each, then a finish reason with usage, then ``[DONE]``."""
    response = client.ask("/chat/completions")
    *chunks, last, done = events(response)

    assert response.headers["content-type"] == "text/event-stream"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {("chatcmpl-work-0001", "gpt-4.1")}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == ANSWER
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    assert done == "[DONE]"


def test_responses_stream_is_whole_and_numbered(client):
    """A responses stream goes from ``response.created`` to ``response.completed``, which holds the whole response."""
    sent = events(client.ask("/responses"))
    types = [event["type"] for event in sent]
    done = sent[-1]["response"]

    assert list(dict.fromkeys(types)) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    assert "".join(event.get("delta", "") for event in sent) == ANSWER
    assert done["output"][0]["content"][0]["text"] == ANSWER
    assert (done["status"], sent[0]["response"]["status"]) == ("completed", "in_progress")
    assert done["usage"]["output_tokens"] == 3
    assert sent[0]["response"]["usage"] is None


def test_messages_stream_ends_with_reason_and_message_stop(client):
    """A messages stream opens one text block, closes it, says why it stopped, and stops."""
    response = client.ask("/v1/messages")
    sent = events(response)

    assert list(dict.fromkeys(event["type"] for event in sent)) == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event["delta"]["text"] for event in sent if event["type"] == "content_block_delta") == ANSWER
    assert sent[-2]["delta"]["stop_reason"] == "end_turn"
    assert sent[-2]["usage"]["output_tokens"] == 3
    assert sent[0]["message"]["content"] == []
    assert [line for line in response.text.splitlines() if line.startswith("event: ")] == [
        f"event: {event['type']}" for event in sent
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/chat/completions", lambda body: body["choices"][0]["message"]["content"]),
        ("/responses", lambda body: body["output"][0]["content"][0]["text"]),
        ("/v1/messages", lambda body: body["content"][0]["text"]),
    ],
    ids=["chat", "responses", "messages"],
)
def test_not_streamed(client, path, text):
    """Without ``stream: true`` the same answer is one JSON document."""
    response = client.ask(path, stream=False)

    assert response.headers["content-type"] == "application/json"
    assert text(response.json()) == ANSWER


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/messages"])
def test_leading_v1_makes_no_difference(client, path):
    """Each path is served with and without a leading ``/v1``."""
    assert client.ask(path, body={"model": "gpt-4.1"}).status_code == 200


def test_embeddings_and_count_tokens(client):
    """Embeddings give a vector an input; counting gives a number."""
    model = "text-embedding-3-small"
    many = client("POST", "/embeddings", json={"model": model, "input": ["a", "b"]}).json()
    one = client("POST", "/v1/embeddings", json={"model": model, "input": "a"}).json()
    count = client("POST", "/v1/messages/count_tokens", json={"model": "claude-sonnet-4.6", "stream": True}).json()

    assert [item["index"] for item in many["data"]] == [0, 1]
    assert len(one["data"]) == 1
    assert count["input_tokens"] > 0


def test_models_are_the_accounts_own_and_choose_the_wire(client, work):
    """``/models`` lists what the account has; its endpoints tell a client on which wire to speak."""
    mine = client("GET", "/models").json()["data"]
    endpoints = {model["id"]: model.get("supported_endpoints") for model in mine}

    assert tuple(endpoints) == DEFAULT_MODELS
    assert endpoints["gpt-4.1"] == ["/chat/completions"]
    assert endpoints["gpt-5-mini"] == ["/responses"]
    assert endpoints["claude-sonnet-4.6"] == ["/v1/messages", "/chat/completions"]
    assert endpoints["text-embedding-3-small"] is None
    assert all(model["capabilities"]["limits"] for model in mine)
    assert [model["id"] for model in client("GET", "/models", token=SPARE).json()["data"]] == ["gpt-4.1"]

    work.websocket = True

    assert client("GET", "/models").json()["data"][0]["supported_endpoints"] == ["/responses", "ws:/responses"]


@pytest.mark.parametrize("pieces", [None, 1, 5, 40])
def test_an_answer_is_cut_into_as_many_pieces_as_asked(client, work, pieces):
    """However many pieces an answer is streamed in, joined they are the answer."""
    work.default = Ok(ANSWER, events=pieces)
    sent = events(client.ask("/chat/completions"))
    texts = [event["choices"][0]["delta"].get("content", "") for event in sent[1:-2]]

    assert len(texts) == (pieces or 3)
    assert "".join(texts) == ANSWER


# --- who asks


def test_the_token_tells_the_account(client, fake):
    """The bearer alone decides whose answer it is; ``token X`` is a bearer as well."""
    client.ask("/chat/completions")
    client.ask("/chat/completions", token=SPARE)
    client.ask("/chat/completions", headers={"authorization": f"token {SPARE}"})

    assert [seen.account for seen in fake.seen] == ["work", "spare", "spare"]
    assert len(fake.asked("spare")) == 2
    assert len(fake.asked(endpoint="/chat/completions")) == 3
    assert fake.asked("spare", "/responses") == []


@pytest.mark.parametrize("value", ["Bearer gho_nobody", "Basic abc", ""], ids=["unknown", "other scheme", "empty"])
@pytest.mark.parametrize("path", ["/chat/completions", "/models"])
def test_an_unknown_token_is_refused(client, fake, value, path):
    """A token that no account has gets 401 Bad credentials."""
    response = client("POST", path, headers={"authorization": value}, json={"model": "gpt-4.1"})

    assert (response.status_code, response.content) == (401, BAD_CREDENTIALS.body)
    assert fake.seen[0].account is None


def test_a_model_that_the_account_lacks_is_refused_before_its_script(client, fake):
    """An account without the model says so in the service's own words, and its script does not move on."""
    fake.accounts[SPARE].script = deque([limited()])
    response = client.ask("/responses", token=SPARE)

    assert (response.status_code, response.content) == (400, MODEL_NOT_SUPPORTED.body)
    assert response.json()["error"]["code"] == "model_not_supported"
    assert len(fake.accounts[SPARE].script) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"{}", b'{"model": 5}', b"\xff\xfe"],
    ids=["empty", "cut", "list", "string", "no model", "odd model", "no text"],
)
def test_a_body_that_names_no_model_is_a_bad_request(client, body):
    """A body that is no object with a model gets 400, and the next request on the connection is served."""
    assert client("POST", "/responses", content=body).status_code == 400
    assert client.ask("/responses").status_code == 200


def test_repr_shows_no_token(client, fake):
    """What the fake prints about a request holds no credential."""
    client.ask("/chat/completions", body={"echo": WORK})

    assert WORK not in repr(fake.seen)


# --- scripts


def test_script_first_then_default(client, work):
    """The script's answers come once each, the default ever after."""
    work.script += [limited(30), Refuse(503)]

    assert [client.ask("/chat/completions").status_code for _ in range(4)] == [429, 503, 200, 200]


@pytest.mark.parametrize(
    ("answering", "statuses"),
    [
        (always(limited()), [429, 429, 429]),
        (once(limited(), then=Ok()), [429, 200, 200]),
        (once(limited(), Refuse(500), then=Refuse(402)), [429, 500, 402]),
        (once(lambda seen: Refuse(404) if seen.stream else Ok()), [404, 200, 200]),
        (per_path({"/chat/completions": limited()}), [429, 429, 429]),
        (per_path({"/responses": limited()}, Refuse(418)), [418, 418, 418]),
        (per_model({"gpt-4.1": once(limited())}), [429, 200, 200]),
        (per_model({"gpt-5-mini": limited()}), [200, 200, 200]),
    ],
    ids=["always", "once", "in turn", "function", "this path", "other path", "this model", "other model"],
)
def test_answers_can_be_chosen(client, work, answering, statuses):
    """An answer may be a function of the request; the usual ones have names."""
    work.default = answering

    assert [client.ask("/chat/completions").status_code for _ in statuses] == statuses


def test_refusals_say_what_they_are_told(client, work):
    """A refusal's status, headers, content type and body are the script's, byte for byte."""
    work.script += [
        limited(30),
        limited(None),
        Refuse(402, "quota_exceeded", "You have no quota"),
        Refuse(401, message="unauthorized: token expired\n", content_type="text/plain"),
        Refuse(502, body=b"<html>Unicorn!</html>", content_type="text/html", headers=(("x-a", "1"),)),
    ]
    hinted, plain, quota, text, page = [client.ask("/chat/completions") for _ in range(5)]

    assert (hinted.status_code, hinted.headers["retry-after"]) == (429, "30")
    assert hinted.json()["error"]["code"] == "user_global_rate_limited:pro"
    assert "retry-after" not in plain.headers
    assert (quota.status_code, quota.json()) == (
        402,
        {"error": {"message": "You have no quota", "code": "quota_exceeded"}},
    )
    assert (text.headers["content-type"], text.text) == ("text/plain", "unauthorized: token expired\n")
    assert (page.status_code, page.headers["x-a"], page.content) == (502, "1", b"<html>Unicorn!</html>")


def test_other_paths_can_be_scripted_too(client, work):
    """Any path can be given another answer; `Ok` there means the usual one."""
    work.at = {"/models": once(Refuse(500), SlowFirst(0.01), Document({"data": []}), then=Ok())}
    answers = [client("GET", "/models") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [500, 200, 200, 200]
    assert [len(answer.json()["data"]) for answer in answers[1:]] == [len(DEFAULT_MODELS), 0, len(DEFAULT_MODELS)]


def test_quota_headers_stand_on_served_answers_alone(client, work):
    """A served answer tells the account's quotas; a refusal and ``/models`` do not."""
    work.quota = {"premium_interactions": Quota(68.1), "chat": Quota(100.0, entitlement=-1)}
    work.script += [Ok(headers=(("x-usage-ratelimit-session", "rem=99.6"),)), limited()]
    served, refused, models = client.ask("/responses"), client.ask("/responses"), client("GET", "/models")

    assert (
        "rem=68.1&rst=2030-01-01T00%3A00%3A00Z&totRem=204.3" in served.headers["x-quota-snapshot-premium_interactions"]
    )
    assert served.headers["x-quota-snapshot-chat"].startswith("ent=-1&")
    assert served.headers["x-usage-ratelimit-session"] == "rem=99.6"
    assert not [name for name in (*refused.headers, *models.headers) if name.startswith("x-quota")]


# --- answers that go wrong


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_dropped_before_any_header(client, work, how):
    """A dropped connection gives the client no header; the next request is served."""
    work.script.append(Drop(how))

    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.ask("/chat/completions")
    assert client.ask("/chat/completions").status_code == 200


@THREE_APIS
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_cut_in_the_middle(client, work, path, how):
    """A cut stream breaks off after that many events, and not as HTTP ends a message."""
    work.default = CutMid(after=3, how=how)
    asked = client.arguments("POST", path, json={"model": MODELS[path], "stream": True})
    got = ""
    broken = pytest.raises((httpx.ReadError, httpx.RemoteProtocolError))
    with client.http(API).stream(**asked) as response, broken:
        for text in response.iter_text():
            got += text

    assert got.count("\n\n") == 3


@THREE_APIS
def test_a_clean_early_end_is_whole_for_http(client, work, path):
    """A stream that ends cleanly too early is a whole message without the API's own end."""
    work.default = CutMid(after=3, how="clean")
    response = client.ask(path)

    assert len(events(response)) == 3
    assert not re.search(r"\[DONE\]|response\.completed|message_stop|\"finish_reason\":\"stop\"", response.text)


@pytest.mark.parametrize("answer", [Silent(), CutMid(how="stall")], ids=["silent", "stalled"])
def test_nothing_more_comes(client, work, fake, answer):
    """A silent account answers nothing, a stalled one nothing more; a client that gives up is noticed."""
    work.default = answer

    with pytest.raises(httpx.ReadTimeout):
        client.ask("/responses", timeout=0.2)
    until(lambda: fake.seen[0].client_gone)


def test_slow_first_byte(client, work):
    """The first byte comes late, then the answer is whole."""
    work.default = SlowFirst(0.1, Ok(ANSWER))
    began = time.monotonic()
    response = client.ask("/chat/completions")

    assert time.monotonic() - began >= 0.1
    assert events(response)[-1] == "[DONE]"


def test_an_endless_error_goes_on_until_the_client_leaves(fake, work):
    """An error whose body never ends is sent as long as somebody reads it."""
    work.default = EndlessError(500, chunk=b"y" * 100, gap=0.0)

    async def read_some():
        async with raw(fake) as (reader, writer):
            writer.write(chat())
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 500 ")
            await reader.readexactly(5000)

    asyncio.run(read_some())
    until(lambda: fake.seen[0].client_gone)


@pytest.mark.parametrize("close", [True, False], ids=["closed after", "left open"])
def test_raw_bytes(fake, work, close):
    """A script may send any bytes instead of HTTP, and leave the connection as it is."""
    work.default = RawBytes(b"HTTP/1.1 999 \x00\r\n", close=close)

    async def read():
        async with raw(fake) as (reader, writer):
            writer.write(chat())
            got = await reader.readuntil(b"\r\n")
            rest = asyncio.ensure_future(reader.read())
            done, _ = await asyncio.wait([rest], timeout=2 if close else 0.1)
            rest.cancel()
            return got, bool(done)

    assert asyncio.run(read()) == (b"HTTP/1.1 999 \x00\r\n", close)


def test_bytes_can_drip(fake, work):
    """A script may send bytes one by one; then the connection closes."""
    work.default = Trickle(b"HTTP/1.1 20", gap=0.01)

    async def read():
        async with raw(fake) as (reader, writer):
            began = time.monotonic()
            writer.write(chat())
            return await reader.readexactly(1) + await reader.read(), time.monotonic() - began

    got, seconds = asyncio.run(read())
    assert got == b"HTTP/1.1 20"
    assert seconds >= 0.1


def test_a_head_can_come_long_before_the_first_event(fake, work):
    """A script may send the head of a stream at once, and its first event later."""
    work.default = Ok(ANSWER, wait=3600)

    async def read():
        async with raw(fake) as (reader, writer):
            writer.write(chat())
            head = await reader.readuntil(b"\r\n\r\n")
            done, _ = await asyncio.wait([asyncio.ensure_future(reader.read())], timeout=0.1)
            return head, done

    head, done = asyncio.run(read())
    assert head.startswith(b"HTTP/1.1 200 ")
    assert not done


def test_a_status_without_a_name(client, work):
    """A status that HTTP does not name is sent all the same."""
    work.default = Refuse(529, message="overloaded")
    assert client.ask("/chat/completions").status_code == 529


def test_plain_json_to_a_stream_request(client, work):
    """A script may answer a stream request with a plain document."""
    work.default = Document({"a": 1}, headers=(("x-b", "2"),))
    response = client.ask("/chat/completions")

    assert (response.json(), response.headers["x-b"]) == ({"a": 1}, "2")


# --- what is recorded


def test_headers_and_body_are_recorded_as_they_came(fake):
    """Order, letters and repetition of headers are kept, and the body's bytes."""

    async def send():
        async with raw(fake) as (reader, writer):
            writer.write(chat(more=b"X-Zed: 1\r\nx-a: \xe9\r\nX-Zed: 2\r\n"))
            await reader.readuntil(b"[DONE]")

    asyncio.run(send())
    [seen] = fake.seen

    assert seen.headers == [
        (b"Host", API.encode()),
        (b"Authorization", f"Bearer {WORK}".encode()),
        (b"X-Zed", b"1"),
        (b"x-a", b"\xe9"),
        (b"X-Zed", b"2"),
        (b"Content-Length", b"33"),
    ]
    assert seen.body == b'{"model":"gpt-4.1","stream":true}'
    assert (seen.authorization, seen.token, seen.header("x-zed")) == (f"Bearer {WORK}", WORK, "1")
    assert (seen.host, seen.method, seen.target) == (API, "POST", "/chat/completions")
    assert seen.header("x-none") is None


def test_connections_are_numbered_and_kept_alive(client, fake):
    """Requests on one connection carry its number; the query stands in the target alone."""
    client.ask("/responses?x=1")
    client.ask("/responses?x=1")
    with Client(fake) as other:
        other.ask("/responses")

    assert [seen.connection for seen in fake.seen] == [1, 1, 2]
    assert (fake.seen[0].target, fake.seen[0].path) == ("/responses?x=1", "/responses")
    assert fake.connections == 2
    assert fake.seen[0].at <= fake.seen[1].at


def test_a_client_that_leaves_mid_stream_is_noticed(fake, work):
    """A client that goes away before the answer is out is written down; one that stays is not."""
    work.script += [Ok(gap=0.0), Ok("x " * 1000, gap=0.01)]

    async def leave():
        async with raw(fake) as (reader, writer):
            writer.write(chat())
            await reader.readuntil(b"[DONE]")
            writer.write(chat())
            await reader.readuntil(b"data: ")

    asyncio.run(leave())
    until(lambda: fake.seen[1].client_gone)

    assert not fake.seen[0].client_gone


# --- robustness


def test_requests_sent_at_once_are_answered_in_turn(fake):
    """Two requests in one write get two answers, in order."""

    async def pipeline():
        async with raw(fake) as (reader, writer):
            writer.write(chat() + chat(model=b"nobody-has-it"))
            first = await reader.readuntil(b"[DONE]")
            return first, await reader.readuntil(b"model_not_supported")

    first, _ = asyncio.run(pipeline())

    assert first.startswith(b"HTTP/1.1 200 ")


def test_a_request_that_arrives_while_the_last_is_answered_is_kept(fake, work):
    """What a client sends during an answer is the next request."""
    work.script.append(Ok("x " * 20, gap=0.005))

    async def overlap():
        async with raw(fake) as (reader, writer):
            writer.write(chat())
            await reader.readuntil(b"data: ")
            writer.write(chat())
            await reader.readuntil(b"[DONE]")
            await reader.readuntil(b"[DONE]")

    asyncio.run(overlap())

    assert [seen.client_gone for seen in fake.seen] == [False, False]


@pytest.mark.parametrize(
    "data",
    [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"],
    ids=["not HTTP", "no Host", "odd length"],
)
def test_a_request_that_is_not_http_gets_400_or_nothing(fake, client, data):
    """Bytes that are not HTTP end that connection alone."""

    async def send():
        async with raw(fake) as (reader, writer):
            writer.write(data)
            return await reader.read()

    assert asyncio.run(send()).startswith(b"HTTP/1.1 400 ")
    assert client.ask("/responses").status_code == 200


def test_a_client_that_waits_for_100_continue_gets_it(fake):
    """``Expect: 100-continue`` is answered before the body is read."""

    async def send():
        async with raw(fake) as (reader, writer):
            head, body = chat(more=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(body)
            await reader.readuntil(b"[DONE]")

    asyncio.run(send())


def test_a_client_without_tls_or_without_trust_harms_nobody(fake, client):
    """A connection that never becomes TLS, or does not trust the CA, is dropped."""

    async def probe():
        reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", fake.port, ssl=ssl.create_default_context(), server_hostname=API)

    asyncio.run(probe())

    assert client.ask("/responses").status_code == 200


def test_a_hundred_streams_at_once(fake, work):
    """A hundred connections stream at the same time and all end well."""
    work.default = Ok("word " * 5, gap=0.005)

    async def one():
        async with raw(fake) as (reader, writer):
            writer.write(chat())
            await reader.readuntil(b"[DONE]")

    async def all_of_them():
        await asyncio.gather(*(one() for _ in range(100)))

    asyncio.run(all_of_them())

    assert len({seen.connection for seen in fake.asked("work")}) == 100


def test_closing_takes_no_time_with_streams_running():
    """``close`` ends within a second whatever runs: streams, silence, unfinished handshakes; the CA is gone then."""

    async def run():
        async with FakeCopilot(
            {WORK: FakeAccount("work", default=once(Silent(), then=Ok("x " * 9999, gap=0.01)))}
        ) as fake:
            folder = fake.ca_file.parent
            _, bare = await asyncio.open_connection("127.0.0.1", fake.port)
            connected = [raw(fake) for _ in range(5)]
            for connection in connected:
                _, writer = await connection.__aenter__()
                writer.write(chat())
            while len(fake.seen) < 5:
                await asyncio.sleep(0.005)
            began = time.monotonic()
        took = time.monotonic() - began
        for connection in connected:
            await connection.__aexit__(None, None, None)
        bare.close()
        return took, folder

    took, folder = asyncio.run(run())

    assert took < 1
    assert not folder.exists()


def test_a_fault_of_a_script_is_raised_at_the_end():
    """A script that raises ends its connection, and the fake tells at the end."""

    def broken(seen):
        raise ZeroDivisionError

    gone = pytest.raises((httpx.ReadError, httpx.RemoteProtocolError))
    account = FakeAccount("work", default=broken)
    with pytest.raises(ZeroDivisionError), running({WORK: account}) as fake, Client(fake) as client, gone:
        client.ask("/responses")


# --- names and certificates


@pytest.mark.parametrize("host", ["api.business.githubcopilot.com", "copilot-api.acme.ghe.com", "brand-new.test"])
def test_every_host_has_its_own_certificate(client, fake, host):
    """The certificate is for the name that was asked for, known or not, and the name is recorded."""
    client("GET", "/", host=host)

    assert fake.seen[0].host == host


def test_a_host_can_show_somebody_elses_certificate(client, fake):
    """A misnamed host fails verification; then nothing has arrived."""
    fake.misnamed.add(API)

    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        client.ask("/responses")
    assert fake.seen == []


def test_without_sni_the_name_is_the_address(fake):
    """curl on the bare address works: the certificate is for 127.0.0.1."""
    context = ssl.create_default_context(cafile=str(fake.ca_file))
    with httpx.Client(verify=context, trust_env=False) as http:
        assert http.get(f"https://127.0.0.1:{fake.port}/").json() == {"host": "127.0.0.1"}


# --- GitHub's side, and what clients ask when they start


@pytest.mark.parametrize("host", ["api.github.com", "api.acme.ghe.com"])
def test_github_tells_who_a_token_is(client, work, host):
    """``/user`` and ``/copilot_internal/user`` tell login, number, plan, API host and quota of the account."""
    work.quota = {"premium_interactions": Quota(50.0)}
    user = client("GET", "/user", host=host).json()
    copilot = client("GET", "/copilot_internal/user", host=host).json()

    assert (user["login"], user["id"]) == ("work-login", work.user_id)
    assert (copilot["copilot_plan"], copilot["endpoints"]["api"]) == ("individual", f"https://{work.api_host}")
    assert copilot["quota_snapshots"]["premium_interactions"]["percent_remaining"] == 50.0
    assert client("GET", "/user", host=host, token="gho_nobody").status_code == 401


def test_endpoints_follow_the_api_host():
    """The other endpoints of an account are on the domain of its API host."""
    ghe = FakeAccount("acme", api_host="copilot-api.acme.ghe.com").endpoints

    assert ghe["proxy"] == "https://copilot-proxy.acme.ghe.com"
    assert FakeAccount("work").endpoints["telemetry"] == "https://telemetry.individual.githubcopilot.com"


def test_an_exchanged_token_is_the_account_until_it_expires(client, fake, work):
    """The exchange gives a short-lived token for the API alone, which can be made to expire."""
    bought = client("GET", "/copilot_internal/v2/token", host="api.github.com").json()
    token = bought["token"]

    assert bought["expires_at"] > time.time()
    assert client.ask("/responses", token=token).status_code == 200
    assert fake.seen[-1].account == "work"
    assert client("GET", "/user", host="api.github.com", token=token).status_code == 401

    fake.expire_exchanged("work")
    late = client.ask("/responses", token=token)

    assert (late.status_code, late.text) == (401, "unauthorized: token expired\n")
    assert client.ask("/responses").status_code == 200


@pytest.mark.parametrize(
    ("host", "method", "path", "status"),
    [
        ("api.github.com", "GET", "/repos/github/copilot-cli/releases", 200),
        ("api.github.com", "GET", "/copilot_internal/managed_settings?client_id=x", 200),
        (API, "GET", "/agents/swe/internal/memory/v0/enabled", 200),
        ("telemetry.individual.githubcopilot.com", "POST", "/telemetry", 200),
        ("copilot-telemetry.githubusercontent.com", "POST", "/telemetry", 200),
        ("default.exp-tas.com", "GET", "/anything", 200),
        ("github.com", "POST", "/login/device/code", 404),
        ("api.github.com", "POST", "/user", 404),
        ("api.github.com", "GET", "/rate_limit", 404),
        (API, "POST", "/models/session/other", 404),
        (API, "GET", "/responses", 404),
        ("packages.example.org", "GET", "/package", 404),
        ("other.test", "GET", "/", 200),
    ],
)
def test_every_other_door(client, host, method, path, status):
    """What clients ask when they start is answered plausibly, telemetry is swallowed, the rest is 404 in JSON."""
    response = client(method, path, host=host)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    response.json()


# --- logging in by a code


GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def post(fake, path, **form):
    """Post a form to the login host."""
    context = ssl.create_default_context(cafile=str(fake.ca_file))
    with httpx.Client(verify=context, trust_env=False, headers={"host": "github.com"}) as http:
        url = f"https://127.0.0.1:{fake.port}{path}"
        return http.post(url, data=form, extensions={"sni_hostname": "github.com"})


def poll(fake, **form):
    given = {"client_id": "x", "device_code": fake.logins["github.com"].device_code, "grant_type": GRANT, **form}
    return post(fake, "/login/oauth/access_token", **given).json()


def test_a_login_by_code(fake, client):
    """A code is given, polls get what the script says, and then the token, which is an account's from then on."""
    login = fake.logins["github.com"] = FakeLogin(
        FakeAccount("new"), "gho_new", deque(["authorization_pending"]), interval=0
    )
    assert client("GET", "/user", host="api.github.com", token="gho_new").status_code == 401

    code = post(fake, "/login/device/code", client_id="x", scope="read:user").json()

    assert code == {
        "device_code": login.device_code,
        "user_code": "ABCD-1234",
        "verification_uri": "https://github.com/login/device",
        "expires_in": 900,
        "interval": 0,
    }
    assert poll(fake)["error"] == "authorization_pending"
    assert poll(fake) == {"access_token": "gho_new", "token_type": "bearer", "scope": "read:user"}
    assert client("GET", "/user", host="api.github.com", token="gho_new").json()["login"] == "new-login"
    assert "gho_new" not in repr(login) + repr(fake.seen)


def test_a_login_is_strict(fake):
    """Another client, code or grant type is refused in GitHub's words, and whoever polls too early is slowed down."""
    script = deque(["slow_down", Refuse(500)])
    fake.logins["github.com"] = FakeLogin(FakeAccount("new"), "gho_new", script, client_id="x", interval=0)

    assert post(fake, "/login/device/code", client_id="y").status_code == 404
    assert poll(fake, client_id="y") == {"error": "incorrect_client_credentials"}
    assert poll(fake, device_code="other") == {"error": "incorrect_device_code"}
    assert poll(fake, grant_type="other") == {"error": "unsupported_grant_type"}
    assert poll(fake) == {"error": "slow_down", "interval": 5}
    assert poll(fake) == {"error": "slow_down", "interval": 10}, "five seconds have not passed"
    assert len(script) == 1
    assert post(fake, "/login/oauth/authorize").status_code == 404


def test_instead_of_a_poll(fake):
    """What a poll gets can be anything."""
    fake.logins["github.com"] = FakeLogin(FakeAccount("new"), "gho_new", deque([Refuse(502)]), interval=0)

    given = {"device_code": fake.logins["github.com"].device_code, "grant_type": GRANT}
    assert post(fake, "/login/oauth/access_token", **given).status_code == 502


def test_instead_of_a_code(fake):
    """The first answer can be anything."""
    fake.logins["github.com"] = FakeLogin(FakeAccount("new"), "gho_new", code=Refuse(503))

    assert post(fake, "/login/device/code", client_id="x").status_code == 503


# --- WebSocket


class Socket:
    """A WebSocket client on a raw connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.ws = WSConnection(ConnectionType.CLIENT)

    def send(self, event):
        self.writer.write(self.ws.send(event))

    async def handshake(self):
        headers = [(b"Authorization", f"Bearer {WORK}".encode())]
        self.send(Request(host=API, target="/responses", extra_headers=headers))
        return await self.next()

    async def next(self):
        """The next event; None: the connection ended without one."""
        while True:
            for event in self.ws.events():
                return event
            try:
                data = await self.reader.read(65536)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self.ws.receive_data(data)

    @staticmethod
    def created(model="gpt-5-mini", **body):
        """A ``response.create``."""
        return TextMessage(json.dumps({"type": "response.create", "model": model, **body}))

    async def frames(self, model="gpt-5-mini", **body):
        """What one ``response.create`` gets, up to its last frame."""
        self.send(self.created(model, **body))
        got, text = [], ""
        while (event := await self.next()) is not None:
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    got.append(json.loads(text))
                    text = ""
                    if got[-1]["type"] in ("response.completed", "response.failed", "error"):
                        break
        return got


def with_socket(fake, story):
    """Run `story` with a fresh WebSocket client."""

    async def run():
        async with raw(fake) as (reader, writer):
            return await story(Socket(reader, writer))

    return asyncio.run(run())


def test_websocket_is_not_there_unless_asked_for(fake):
    """The handshake of ``GET /responses`` gets 404 as long as the account has no WebSocket."""
    answer = with_socket(fake, Socket.handshake)

    assert isinstance(answer, RejectConnection)
    assert answer.status_code == 404


def test_websocket_answers_each_frame_from_the_script(fake, work):
    """One answer of the script is for the handshake, one for each ``response.create``; all are recorded."""
    work.websocket = True
    work.script += [Ok(), Ok(ANSWER), limited(), CutMid(2)]

    async def story(socket):
        assert isinstance(await socket.handshake(), AcceptConnection)
        served, refused = await socket.frames(), await socket.frames()
        lacking = await socket.frames("nobody-has-it")
        socket.send(Ping(b"?"))
        pong = await socket.next()
        return served, refused, lacking, pong, await socket.frames()

    served, refused, lacking, pong, cut = with_socket(fake, story)

    assert served[-1]["response"]["output"][0]["content"][0]["text"] == ANSWER
    assert refused[0]["error"]["code"] == "user_global_rate_limited:pro"
    assert lacking[0]["type"] == "error"
    assert pong == Pong(b"?")
    assert len(cut) <= 2
    assert [(seen.method, seen.account) for seen in fake.seen] == [("GET", "work"), *[("FRAME", "work")] * 4]


def test_websocket_closes_when_asked(fake, work):
    """A close frame is answered with one."""
    work.websocket = True

    async def story(socket):
        await socket.handshake()
        socket.send(CloseConnection(1000))
        return await socket.next()

    assert isinstance(with_socket(fake, story), CloseConnection)
    assert not fake.seen[0].client_gone


@pytest.mark.parametrize("answer", [Refuse(429), Refuse(403)], ids=["429", "403"])
def test_websocket_handshake_can_be_refused(fake, work, answer):
    """A refusal in the script refuses the handshake in HTTP."""
    work.websocket = True
    work.script.append(answer)

    assert with_socket(fake, Socket.handshake).status_code == answer.status


# --- how mitmproxy gets here


async def _host_reached(host, port, context):
    """Who answers when mitmproxy dials `host`."""
    dialled = server.asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    reader, writer = await dialled
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    ("by_port", "everything", "host", "reached"),
    [
        (False, False, API, True),
        (False, False, "API.githubcopilot.com", True),
        (False, False, "other.test", True),
        (False, False, "elsewhere.invalid", False),
        (False, True, "elsewhere.invalid", True),
        (True, False, API, True),
        (True, False, "elsewhere.invalid", False),
    ],
)
def test_dial_leads_the_fakes_hosts_to_the_fake(fake, by_port, everything, host, reached):
    """Inside `dial` mitmproxy reaches the fake under the real name, with the real name's certificate."""
    context = ssl.create_default_context(cafile=str(fake.ca_file))
    with dial(fake.port if by_port else fake, everything=everything):
        if reached:
            assert asyncio.run(_host_reached(host, 443, context))
            assert fake.seen[0].host == host.lower()
        else:
            with pytest.raises(OSError):
                asyncio.run(_host_reached(host, 443, context))


@pytest.mark.parametrize("faulty", [Faulty(swallow={API}), Faulty(mute={API})], ids=["never answers", "says nothing"])
def test_dial_can_wait_for_ever(fake, faulty):
    """A host may leave its connections unanswered, or stand and never begin TLS."""

    async def connecting():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                _, writer = await server.asyncio.open_connection(API, 443)
                assert faulty.mute
                await writer.start_tls(ssl.create_default_context(), server_hostname=API)

    with dial(fake, faulty=faulty):
        asyncio.run(connecting())
    assert fake.connections == 0


def test_dial_can_refuse_and_ends(fake):
    """A refused host fails to connect, live; everything else of asyncio is asyncio's own; afterwards all is as before."""
    refuse, before = {API}, server.asyncio  # which an addon that was made in this process has replaced
    with dial(fake, faulty=Faulty(refuse)):
        assert server.asyncio is not before
        assert server.asyncio.sleep is asyncio.sleep
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(server.asyncio.open_connection(API, 443))
        refuse.clear()
        context = ssl.create_default_context(cafile=str(fake.ca_file))
        assert asyncio.run(_host_reached(API, 443, context))

    assert server.asyncio is before
