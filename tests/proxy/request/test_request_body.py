"""The body of a client's request: what is read of it, and what of it goes upstream."""

import asyncio
import json

import pytest
from mitmproxy import http

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.copilot.jsontext import incremental
from copilot_balancer.proxy.request import request_body
from copilot_balancer.proxy.request.request_body import RequestBody

RAW = b'{ "model": "gpt-5", "stream": true,\n  "input": [{"type":"reasoning","id":"rs_1","encrypted_content":"x"}, {"role":"user","content":"hi"}]}'
SEALED = state_hash("sealed", "x")


def asked(raw: bytes = RAW, path: str = "/responses"):
    request = http.Request.make("POST", f"https://api.githubcopilot.com{path}", raw)
    body = RequestBody(request)
    asyncio.run(body.read({}))
    return request, body


@pytest.fixture(params=[128 * 1024, 0], ids=["at once", "in slices"])
def where(request, monkeypatch):
    monkeypatch.setattr(request_body, "AT_ONCE", request.param)
    monkeypatch.setattr(request_body, "PROSE_AT_ONCE", request.param)


@pytest.mark.usefixtures("where")
def test_what_is_read():
    """Model, stream flag, and what is bound."""
    _, body = asked()
    assert (body.model, body.streams, body.other_model) == ("gpt-5", True, "")
    assert SEALED in body.bound.hashes
    assert asyncio.run(body.can_go_bare())
    assert body.conversation == conversation_of({}, json.loads(RAW))


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize("raw", [b"", b"no json", b"[1]", b"\xff"])
def test_what_cannot_be_read(raw):
    """Goes on as it is, under no model, and nothing of it can be left out."""
    request, body = asked(raw)
    assert (body.model, body.streams, body.bound.hashes, body.conversation) == (None, False, (), None)
    assert not asyncio.run(body.can_go_bare())
    asyncio.run(body.dress("gpt-4.1", lambda _: False))
    assert request.raw_content == raw


@pytest.mark.usefixtures("where")
def test_each_account_starts_from_the_clients_own_bytes():
    """Another model, then without what is bound, then both, then the client's own again, byte for byte."""
    request, body = asked()
    renamed = RAW.replace(b"gpt-5", b"gpt-4.1")

    def sent(model: str | None, *, bare: bool) -> bytes:
        asyncio.run(body.dress(model, lambda _: not bare))
        assert request.headers["content-length"] == str(len(request.raw_content))
        return request.raw_content

    assert sent("gpt-4.1", bare=False) == renamed
    assert (body.other_model, body.left_out) == ("gpt-4.1", "")
    stripped = sent(None, bare=True)
    assert json.loads(stripped)["input"] == [{"role": "user", "content": "hi"}]
    assert (body.other_model, body.left_out) == ("", "1 reasoning item")
    assert stripped.startswith(b'{ "model": "gpt-5", "stream": true,\n  "input": [')
    assert sent("gpt-4.1", bare=True) == stripped.replace(b"gpt-5", b"gpt-4.1")
    assert sent("gpt-5", bare=False) == RAW
    assert body.left_out == ""


def test_embeddings_carry_nothing():
    """What is no conversation has nothing bound."""
    _, body = asked(b'{"model":"m","input":[{"id":"rs_1"}]}', "/embeddings")
    assert (body.api, body.bound.hashes, asyncio.run(body.can_go_bare())) == (None, (), False)


def test_a_compressed_body():
    """A known compression is looked into, with a bound, and kept when the body changes; an unknown one goes as it is."""
    request = http.Request.make("POST", "https://api.githubcopilot.com/responses", RAW)
    request.encode("gzip")
    body = RequestBody(request)
    asyncio.run(body.read({}))
    assert body.model == "gpt-5"
    asyncio.run(body.dress("gpt-4.1", lambda _: True))
    assert request.content == RAW.replace(b"gpt-5", b"gpt-4.1")

    strange = http.Request.make("POST", "https://api.githubcopilot.com/responses", RAW)
    strange.headers["content-encoding"] = "rot13"
    body = RequestBody(strange)
    asyncio.run(body.read({}))
    assert body.model is None
    asyncio.run(body.dress(None, lambda _: False))
    assert strange.raw_content == RAW


def long_body(turns=4000):
    said = [{"role": "user", "content": f"say {turn} " + "x" * 300} for turn in range(turns)]
    return json.dumps({"model": "gpt-5", "stream": True, "messages": said}).encode()


def test_a_long_body_leaves_the_loop_to_others(monkeypatch):
    """While long bodies are read everything else has its turn, again and again; all of them are read."""
    monkeypatch.setattr(request_body, "TURN", 0.0)
    url = "https://api.githubcopilot.com/chat/completions"
    bodies = [RequestBody(http.Request.make("POST", url, long_body())) for _ in range(3)]
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both():
        task = asyncio.create_task(others())
        await asyncio.gather(*(body.read({}) for body in bodies))
        task.cancel()

    asyncio.run(both())
    assert {(body.model, body.streams, body.conversation) for body in bodies} == {
        ("gpt-5", True, conversation_of({}, json.loads(long_body())))
    }
    assert turns >= 3 * len(long_body()) // incremental.WINDOW


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"model":"gpt-5","a":' + b"[" * 1_000_000, id="deep"),
        pytest.param(long_body()[:-1], id="cut off"),
        pytest.param(b"\xff" + long_body(), id="no UTF-8"),
        pytest.param(b'{"model":"gpt-5","a":' + b"1" * 300_000 + b"}", id="a number that Python refuses"),
        pytest.param(long_body().replace(b"say 3999", b"say\n3999"), id="a line break in a string"),
    ],
)
def test_a_long_body_that_cannot_be_read(raw):
    """It goes on as it is, under no model."""
    assert len(raw) > request_body.AT_ONCE
    request, body = asked(raw, "/chat/completions")
    assert (body.model, body.streams, body.bound.hashes, body.conversation) == (None, False, (), None)
    assert not asyncio.run(body.can_go_bare())
    assert request.raw_content == raw


@pytest.mark.parametrize(
    ("raw", "at_once"),
    [
        pytest.param(long_body(500), True, id="shorter than all that is read in slices"),
        pytest.param(long_body(2500), True, id="text"),
        pytest.param(long_body(), False, id="much text"),
        pytest.param(b'{"model":"gpt-5","stream":true,"input":[' + b"1," * 60_000 + b"1]}", True, id="few numbers"),
        pytest.param(b'{"model":"gpt-5","stream":true,"input":[' + b"1," * 150_000 + b"1]}", False, id="numbers"),
        pytest.param(b'{"model":"gpt-5","stream":true,"input":[' + b"[[]]," * 60_000 + b"1]}", False, id="arrays"),
    ],
)
def test_which_are_read_in_slices(raw, at_once, monkeypatch):
    """Long ones, and what would take long though it is short enough."""
    read = []
    monkeypatch.setattr(request_body, "read_body", lambda raw: read.append(raw) or json.loads(raw))
    _, body = asked(raw, "/chat/completions")
    assert (body.model, body.streams) == ("gpt-5", True)
    assert bool(read) is at_once


def test_a_body_that_is_too_long(monkeypatch):
    """It goes on unread."""
    monkeypatch.setattr(request_body, "PARSE_LIMIT", 500_000)
    _, body = asked(long_body(), "/chat/completions")
    assert body.model is None


def test_a_long_body_for_another_model():
    """Of a long body, too, only the model's name changes."""
    request, body = asked(long_body(), "/chat/completions")
    asyncio.run(body.dress("gpt-4.1", lambda _: True))
    assert request.raw_content == long_body().replace(b'"gpt-5"', b'"gpt-4.1"')
