"""An answer on its way to the client: what is read of it, and what of it is kept."""

import gzip
import json

import pytest
from mitmproxy import http

from copilot_balancer.copilot.bound_state import mark
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.proxy import response_tap
from copilot_balancer.proxy.response_tap import ResponseTap, beginning, is_stream
from copilot_balancer.views.requests import BODY_LIMIT

DELTA = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
DONE = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
ERROR = b'data: {"error":{"code":"rate_limited","message":"slow"}}\n\n'


def answer(kind="text/event-stream; charset=utf-8", body=b"", **headers):
    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return http.Response.make(200, body, named)


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


@pytest.mark.parametrize(
    ("api", "more"),
    [
        pytest.param(None, {}, id="no conversation"),
        pytest.param(Api.CHAT, {"content_encoding": "gzip"}, id="compressed"),
        pytest.param(Api.CHAT, {"kind": "text/html"}, id="a page"),
    ],
)
def test_what_cannot_be_read_is_judged_by_nothing(api, more):
    """It passes at once, and may end anywhere."""
    told, _ = taken_up(b"data: x", api=api, **more)
    assert not told.watched
    assert (told.opened, told.refused, told.whole) == (True, False, True)
    assert told.learnt() == ([], None)
    assert told.error is None


def test_a_document_teaches(monkeypatch):
    """An answer in one piece binds as a streamed one does; one that is too long is not looked at."""
    document = json.dumps({"choices": [{"message": {"reasoning_opaque": "sealed"}}]}).encode()
    told, _ = taken_up(document[:20], document[20:], kind="application/json")
    assert told.learnt()[0] == [mark("opaque", "sealed")]
    monkeypatch.setattr(response_tap, "DOCUMENT_LIMIT", 30)
    told, _ = taken_up(document, kind="application/json")
    assert told.learnt() == ([], None)


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
    assert told.learnt() == ([], None)
