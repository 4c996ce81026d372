"""An answer on its way to the client: what is read of it, and what of it is kept."""

import gzip
import json
import zlib

import brotli
import pytest
from mitmproxy import http

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.encoding import zstd
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.proxy.request import response_tap
from copilot_balancer.proxy.request.response_tap import ResponseTap, beginning, is_stream
from copilot_balancer.views.requests import BODY_LIMIT

DELTA = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
DONE = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
ERROR = b'data: {"error":{"code":"rate_limited","message":"slow"}}\n\n'


def answer(kind="text/event-stream; charset=utf-8", body=b"", **headers):
    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    made = http.Response.make(200)
    made.headers.update(named)
    made.raw_content = body  # as it comes: `content` would be encoded
    return made


def taken_up(*pieces, api=Api.CHAT, keep=0, **more):
    served = []
    told = ResponseTap(answer(**more), api, keep, lambda: served.append(1))
    for piece in pieces:
        told.feed(piece)
    return told, served


def test_a_stream_is_read():
    """Held until it says something, whole once it says that it is complete."""
    told, served = taken_up()
    assert told.watched
    assert (told.opened, told.refused, told.whole) == (False, False, False)
    told.feed(DELTA)
    assert (told.opened, told.whole) == (True, False)
    told.released()
    assert served == [1]
    told.feed(DONE)
    assert told.whole


def test_an_error_first_is_no_answer():
    """It counts as served only when nobody else could be asked and it is passed on: even then it does not."""
    told, served = taken_up(ERROR)
    assert told.refused
    assert told.error.message == "slow"
    told.released()
    assert served == []
    assert not told.refused, "what was given to the client is refused no more"


def test_an_error_after_output_is_late():
    """The client has seen a part of the answer."""
    told, _ = taken_up(DELTA, ERROR)
    assert (told.refused, told.whole, told.error.code) == (False, True, "rate_limited")


def test_messages_have_one_last_word():
    """A stop reason alone does not end Anthropic's answers."""
    reason = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    stop = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    told, _ = taken_up(reason, api=Api.MESSAGES)
    assert not told.whole
    told.feed(stop)
    assert told.whole


def test_a_chat_of_two_choices():
    """The first one's end is neither the answer's nor a sign that nothing follows."""
    second = b'data: {"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    told, _ = taken_up(DELTA, DONE)
    assert (told.whole, told.over) == (True, False)
    told.feed(second)
    assert (told.whole, told.over) == (False, False)
    told.feed(second.replace(b"null", b'"stop"'))
    assert (told.whole, told.over) == (True, False)
    told.feed(b"data: [DONE]\n\n")
    assert (told.whole, told.over) == (True, True)


@pytest.mark.parametrize(
    ("api", "more"),
    [
        pytest.param(None, {}, id="no conversation"),
        pytest.param(Api.CHAT, {"content_encoding": "snappy"}, id="unknown encoding"),
        pytest.param(Api.CHAT, {"kind": "text/plain"}, id="a text"),
    ],
)
def test_what_cannot_be_read_is_judged_by_nothing(api, more):
    """It passes at once, and may end anywhere."""
    told, _ = taken_up(b"data: x", api=api, **more)
    assert not told.watched
    assert (told.opened, told.refused, told.whole) == (True, False, True)
    assert told.learnt() == ([], None, {})
    assert told.error is None


def test_a_document_teaches(monkeypatch):
    """An answer in one piece binds as a streamed one does; one that is too long is not looked at."""
    document = json.dumps({"choices": [{"message": {"reasoning_opaque": "sealed"}}]}).encode()
    told, _ = taken_up(document[:20], document[20:], kind="application/json")
    assert told.learnt()[0] == [state_hash("opaque", "sealed")]
    monkeypatch.setattr(response_tap, "DOCUMENT_LIMIT", 30)
    told, _ = taken_up(document, kind="application/json")
    assert told.learnt() == ([], None, {})


def test_what_is_kept_is_bounded():
    """So many bytes and no more, however they come."""
    told, _ = taken_up(b"abc", b"defg", b"h", keep=5)
    assert told.kept == b"abcde"


def test_the_beginning_of_a_refusal():
    """The first 2 KB as text; nothing of a compressed one, which may be a bomb."""
    assert beginning(None) == ""
    assert beginning(answer(body="é".encode() * 5000)) == "é" * BODY_LIMIT
    assert beginning(answer(body=gzip.compress(b"x"), content_encoding="gzip")) == ""


def test_what_a_stream_is():
    """By its type alone, whatever its case and parameters."""
    assert is_stream(answer("Text/Event-Stream;x=1"))
    assert not is_stream(answer("application/json"))
    assert not is_stream(http.Response.make(200))


def test_what_is_over_holds_no_bytes():
    """What mitmproxy still holds of a finished answer is small."""
    told, _ = taken_up(b'{"choices":[]}', kind="application/json", keep=100)
    assert told.kept
    told.let_go()
    assert not told.kept
    assert told.learnt() == ([], None, {})


ENCODED = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("cut", [1, 7, 100_000])
@pytest.mark.parametrize("name", ENCODED)
def test_a_compressed_stream_is_read(name, cut):
    """As a plain one: its error before output refuses it, its end makes it whole, and nothing is told of as unread."""

    def fed(*events):
        body = ENCODED[name](b"".join(events))
        return taken_up(*(body[at : at + cut] for at in range(0, len(body), cut)), content_encoding=name)[0]

    assert fed(ERROR).refused
    whole, cut_off = fed(DELTA, DONE), fed(DELTA)
    assert (whole.opened, whole.refused, whole.whole) == (True, False, True)
    assert (cut_off.opened, cut_off.whole) == (True, False)


@pytest.mark.parametrize("name", ENCODED)
def test_a_compressed_document_teaches(name):
    """As a plain one, held or streamed; beyond a megabyte it is not read."""
    document = json.dumps({"choices": [{"index": 0, "message": {"reasoning_opaque": "sealed"}}]}).encode()
    body = ENCODED[name](document)
    held, _ = taken_up(kind="application/json", content_encoding=name)
    held.completed(answer("application/json", body, content_encoding=name))
    streamed, _ = taken_up(body[:9], body[9:], kind="application/json", content_encoding=name)
    assert held.learnt() == streamed.learnt() == ([state_hash("opaque", "sealed")], None, {})
    long, _ = taken_up(kind="application/json", content_encoding=name)
    long.completed(answer("application/json", ENCODED[name](document + b" " * 2_000_000), content_encoding=name))
    assert long.learnt() == ([], None, {})


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_an_encoding_that_cannot_be_read_is_told_once(kind, caplog):
    """Nothing is learnt, the response may end anywhere, and one line says so however many come."""
    response_tap._unread.clear()
    caplog.set_level("INFO")
    for _ in range(3):
        told, _ = taken_up(b"these bytes", b"are not in it", kind=kind, content_encoding="gzip")
        assert (told.opened, told.refused, told.whole, told.learnt()) == (True, False, True, ([], None, {}))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "encoding is gzip" in caplog.text


ONLY_ERROR = b'{"error": {"code": "rate_limited", "message": "slow down"}}'


@pytest.mark.parametrize(
    ("kind", "body", "refused", "whole", "error"),
    [
        pytest.param("text/html", b"<html>", True, False, 502, id="a page"),
        pytest.param("text/html", b"", True, False, 502, id="an empty page"),
        pytest.param("application/json", b"", False, False, None, id="nothing"),
        pytest.param("", b"", False, False, None, id="nothing of no kind, as 204"),
        pytest.param("application/json", ONLY_ERROR, True, True, "rate_limited", id="only an error"),
        pytest.param(
            "application/json", b'{"type": "error", "error": {"type": "x"}}', True, True, "x", id="Anthropic's"
        ),
        pytest.param("application/json", b'{"error": "no"}', True, True, None, id="an error that is a text"),
        pytest.param("application/json", b'{"error": null, "data": []}', False, True, None, id="no error"),
        pytest.param("application/json", b'{"error": {}, "choices": []}', False, True, None, id="more than an error"),
        pytest.param("application/json", b"[]", False, True, None, id="something else"),
        pytest.param("text/plain", b"hello", False, True, None, id="a text"),
    ],
)
@pytest.mark.parametrize("api", [Api.CHAT, None])
def test_a_success_that_is_no_answer(kind, body, refused, whole, error, api):
    """A 200 that holds an HTML page, nothing, or only an error is none; what is not understood passes."""
    tap, _ = taken_up(api=api, kind=kind)
    tap.completed(answer(kind, body))
    assert (tap.refused, tap.whole) == (refused, whole)
    assert (tap.error and tap.error.code) == error


@pytest.mark.parametrize("status", [302, 304, 307])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("", b"", id="nothing"),
        pytest.param("text/event-stream", b"", id="an event stream of no bytes"),
        pytest.param("text/html", b"<html>", id="a page"),
        pytest.param("application/json", ONLY_ERROR, id="only an error"),
    ],
)
def test_what_is_no_success_passes(status, kind, body):
    """A redirect need not hold an answer: whatever it holds is passed on."""
    came = answer(kind, body)
    came.status_code = status
    tap = ResponseTap(came, Api.CHAT, 0, lambda: None)
    tap.completed(came)
    assert (tap.refused, tap.whole, tap.opened) == (False, True, True)
