"""Streamed answers that go wrong, through a real mitmdump: what the client gets, in each API form."""

import gzip
import time
import zlib

import brotli
import httpx
import pytest

from copilot_balancer.copilot.encoding import zstd
from copilot_balancer.fake.answers import (
    AnnounceOnly,
    CutMid,
    EmptyStream,
    Huge,
    Malformed,
    NoTerminator,
    Ok,
    RawBytes,
    StreamError,
    Unstreamed,
    per_model,
)
from support.proxies import PERSONAL, SPARE, WORK, until

API = "https://api.githubcopilot.com"
PATHS = ("/chat/completions", "/responses", "/v1/messages")
LIMIT = ("user_model_rate_limited", "Sorry, you have exceeded your rate limit for this model.")
TEXT = "one two three four five"

MOVED, ABORTED, PASSED = "moved", "aborted", "passed on"
"""Another account's whole answer; broken off; the first one's, ended well."""

FAULTS = {
    "a limit before any output": (StreamError(*LIMIT), MOVED),
    "a limit as response.failed": (StreamError(*LIMIT, event="failed"), MOVED),
    "a limit as the first event": (StreamError(*LIMIT, announced=False), MOVED),
    "a limit, and the stream stays open": (StreamError(*LIMIT, then="stall"), MOVED),
    "an overload before any output": (StreamError("model_overloaded", "busy"), MOVED),
    "a limit after output": (StreamError(*LIMIT, after=3), PASSED),
    "a request's own fault": (StreamError("content_filter", "no"), PASSED),
    "an empty stream": (EmptyStream(), MOVED),
    "an announcement, then the end": (AnnounceOnly(), MOVED),
    "an announcement, then a reset": (AnnounceOnly("rst"), MOVED),
    "an announcement, then closed": (AnnounceOnly("fin"), MOVED),
    "reset after output": (CutMid(4, "rst"), ABORTED),
    "closed after output": (CutMid(4, "fin"), ABORTED),
    "a clean early end": (CutMid(4, "clean"), ABORTED),
    "a stall after output": (CutMid(4, "stall"), ABORTED),
    "an event that is no JSON": (Malformed(1), PASSED),
    "a huge event": (Huge(3_000_000), PASSED),
    "a document instead of a stream": (Unstreamed(), PASSED),
}


def clear(proxy) -> None:
    """Three faults of a service in two minutes would rest an account: forget them, as `accounts clear` does."""
    before = proxy.log.count("read again")
    work = proxy.store.read_decisions().accounts[0].model_copy(update={"cleared": {"": time.time()}})
    proxy.store.edit_decisions(lambda known: known.with_account(work))
    until(lambda: proxy.log.count("read again") > before, "the proxy to see it")


def ended(client: httpx.Client, path: str, model: str) -> tuple[httpx.Response, str, bool]:
    """The answer, its text as far as it came, and whether it was ended well."""
    text, words = "", f"hi, {model}"
    body = {"input": words} if path == "/responses" else {"messages": [{"role": "user", "content": words}]}
    with client.stream("POST", API + path, json={"model": model, "stream": True, "max_tokens": 9, **body}) as answer:
        try:
            for piece in answer.iter_text():
                text += piece
        except httpx.RemoteProtocolError:
            return answer, text, False
    return answer, text, True


@pytest.mark.parametrize("path", PATHS)
def test_every_fault_of_a_stream(start, fake, path):
    """Before any output another account answers; after it the client sees exactly what came, and a cut is an abort."""
    models = {name: f"model-{number}" for number, name in enumerate(FAULTS)}
    for account in fake.accounts.values():
        account.models = tuple(models.values())
        account.default = Ok(TEXT)
    fake.accounts[WORK].default = per_model({models[name]: fault for name, (fault, _) in FAULTS.items()})
    proxy = start("--set", "copilot_strategy=priority", "--set", "copilot_idle_timeout=3")
    for number, (name, (_, expected)) in enumerate(FAULTS.items()):
        if number % 2:
            clear(proxy)
        began = time.monotonic()
        with proxy.client() as client:  # a connection each: an abort ends it
            answer, text, well = ended(client, path, models[name])
        assert time.monotonic() - began < 20, name
        asked = [seen.account for seen in fake.asked() if seen.model == models[name]]
        told = (name, text[:2000], proxy.lines()[-1:])
        assert answer.status_code == 200, told
        if expected == MOVED:
            assert well, told
            assert asked == ["work", "personal"], told
            assert answer.headers["x-copilot-account"] == "personal", told
            assert all(word in text for word in TEXT.split()), told
            assert "error" not in text.replace('"error":null', ""), told
        else:
            assert asked == ["work"], told
            assert well is (expected == PASSED), told
            refused = name == "a request's own fault"  # nothing was served: the stream is a refusal, and says whose
            assert answer.headers.get("x-copilot-account") == (None if refused else "work"), told
            assert answer.headers.get("x-copilot-refused-by") == ("work" if refused else None), told
    until(lambda: len(proxy.lines()) == len(FAULTS), "the lines")
    lines = dict(zip(FAULTS, proxy.lines(), strict=True))
    assert f"before: work model limit: {LIMIT[0]} (rests" in lines["a limit before any output"]
    assert f"an error came in the answer: model limit (rests 60 s): {LIMIT[0]}" in lines["a limit after output"]
    assert LIMIT[1] not in proxy.log  # its code is written down, never its text
    assert "cut off by the upstream" in lines["a clean early end"]
    assert "before: work transient: the answer ended before it began" in lines["an empty stream"]


@pytest.mark.parametrize("how", ["end", "stall", "rst", "fin"])
def test_only_the_last_word_is_missing(start, fake, how):
    """A chat that lacks nothing but [DONE] ends well and soon; the other two are cut without theirs."""
    fake.accounts[WORK].default = NoTerminator(how)
    proxy = start("--set", "copilot_strategy=priority", "--set", "copilot_idle_timeout=4")
    began = time.monotonic()
    with proxy.client() as client:
        answer, text, well = ended(client, "/chat/completions", "gpt-4.1")
        assert (answer.status_code, well) == (200, True)
        assert '"finish_reason":"stop"' in text
    assert time.monotonic() - began < 12
    for path in ("/responses", "/v1/messages"):
        with proxy.client() as client:
            assert ended(client, path, "gpt-4.1")[2] is False


@pytest.mark.parametrize("path", PATHS)
def test_nobody_else_to_ask(start, fake, path):
    """The error that the last account's stream opened with reaches the client as the service said it."""
    for account in fake.accounts.values():
        account.default = StreamError(*LIMIT)
    proxy = start()
    with proxy.client() as client:
        answer, text, well = ended(client, path, "gpt-4.1")
    assert well
    assert len(fake.asked()) == 3
    if answer.status_code == 200:  # the last one's own stream
        assert "exceeded your rate limit" in text
    else:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) <= 60
        assert "exceeded your rate limit" in text


def test_an_empty_answer_of_the_only_account(start, fake):
    """Asked twice, then an error that the client can act on; never an empty success."""
    fake.accounts[WORK].default = EmptyStream()
    from support.proxies import three_accounts

    proxy = start(accounts=three_accounts()[:1])
    with proxy.client() as client:
        answer, text, well = ended(client, "/chat/completions", "gpt-4.1")
    assert (answer.status_code, well) == (502, True)
    assert "ended before it began" in text
    assert len(fake.asked()) == 2


ENCODED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_compressed_stream(start, fake, name):
    """An early error in it fails over, a cut one is aborted, and its bytes and the client's wishes pass as they are."""
    proxy = start()
    events = [b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n']
    ended = [b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"]
    error = [b'data: {"error":{"code":"user_model_rate_limited","message":"slow down"}}\n\n']

    def encoded(*blocks):
        body = ENCODED[name](b"".join(blocks))
        return body, RawBytes(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: %b\r\n"
            b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (name.encode(), len(body), body)
        )

    body, whole = encoded(*events, *ended)
    fake.accounts[WORK].default = encoded(*error)[1]
    fake.accounts[PERSONAL].default = fake.accounts[SPARE].default = whole
    asks = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with (
        proxy.client() as client,
        client.stream("POST", f"{API}/chat/completions", json=asks, headers={"accept-encoding": name}) as got,
    ):
        assert b"".join(got.iter_raw()) == body
    assert got.headers["x-copilot-attempts"] == "2"
    assert got.headers["content-encoding"] == name
    assert {seen.header("accept-encoding") for seen in fake.asked()} == {name}
    for account in fake.accounts.values():
        account.default = encoded(*events)[1]
    with pytest.raises(httpx.RemoteProtocolError):
        proxy.post()
