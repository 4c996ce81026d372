"""The body of a client's request: what is read of it, and what of it goes upstream."""

import asyncio
import json

import pytest
from mitmproxy import http

from copilot_balancer import request_body
from copilot_balancer.bound import mark
from copilot_balancer.request_body import RequestBody

RAW = b'{ "model": "gpt-5", "stream": true,\n  "input": [{"type":"reasoning","id":"rs_1","encrypted_content":"x"}, {"role":"user","content":"hi"}]}'
SEALED = mark("sealed", "x")


def asked(raw: bytes = RAW, path: str = "/responses"):
    request = http.Request.make("POST", f"https://api.githubcopilot.com{path}", raw)
    body = RequestBody(request)
    return request, body, asyncio.run(body.read())


@pytest.fixture(params=[1024 * 1024, 0], ids=["on the loop", "in a thread"])
def where(request, monkeypatch):
    monkeypatch.setattr(request_body, "PARSE_ON_LOOP", request.param)


@pytest.mark.usefixtures("where")
def test_what_is_read():
    """Model, stream flag, and what is bound."""
    _, body, found = asked()
    assert found == json.loads(RAW)
    assert (body.model, body.streams, body.other_model) == ("gpt-5", True, "")
    assert SEALED in body.bound.marks
    assert body.can_go_bare()


@pytest.mark.parametrize("raw", [b"", b"no json", b"[1]", b"\xff"])
def test_what_cannot_be_read(raw):
    """Goes on as it is, under no model, and nothing of it can be left out."""
    request, body, found = asked(raw)
    assert found is None
    assert (body.model, body.streams, body.bound.marks, body.can_go_bare()) == (None, False, (), False)
    asyncio.run(body.dress("gpt-4.1", lambda _: False))
    assert request.raw_content == raw


@pytest.mark.usefixtures("where")
def test_each_account_starts_from_the_clients_own_bytes():
    """Another model, then without what is bound, then both, then the client's own again, byte for byte."""
    request, body, _ = asked()
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
    _, body, _ = asked(b'{"model":"m","input":[{"id":"rs_1"}]}', "/embeddings")
    assert (body.api, body.bound.marks, body.can_go_bare()) == (None, (), False)


def test_a_compressed_body():
    """A known compression is looked into, with a bound, and kept when the body changes; an unknown one goes as it is."""
    request = http.Request.make("POST", "https://api.githubcopilot.com/responses", RAW)
    request.encode("gzip")
    body = RequestBody(request)
    asyncio.run(body.read())
    assert body.model == "gpt-5"
    asyncio.run(body.dress("gpt-4.1", lambda _: True))
    assert request.content == RAW.replace(b"gpt-5", b"gpt-4.1")

    strange = http.Request.make("POST", "https://api.githubcopilot.com/responses", RAW)
    strange.headers["content-encoding"] = "rot13"
    body = RequestBody(strange)
    assert asyncio.run(body.read()) is None
    asyncio.run(body.dress(None, lambda _: False))
    assert strange.raw_content == RAW
