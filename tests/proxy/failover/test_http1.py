"""HTTP/1 at its edges, without sockets: 1xx before the final response, trailers, heads without end."""

import pytest
from mitmproxy import http

from copilot_balancer.proxy.failover.http1 import HEAD_BYTES
from proxy.failover.test_layer import END, REQUEST, STREAM, STREAM_HEAD, Addon, no_tls

__all__ = ["no_tls"]

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def asked(*hosts: str):
    addon = Addon(*hosts)
    play = addon.play()
    play.client_sends(REQUEST)
    return addon, play


@pytest.mark.parametrize("cut", [1, 20, 10_000])
@pytest.mark.parametrize("before", [CONTINUE, HINTS, CONTINUE + HINTS * 3], ids=["100", "103", "several"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["first connection", "new connection"])
def test_the_final_response_counts(before, cut, elsewhere):
    """What is sent before it is skipped, however it is cut: one attempt, and the connection serves the next request."""
    addon, play = asked(*["copilot-api.acme.ghe.com" if elsewhere else "api.githubcopilot.com"] * 3)
    for _ in range(2):
        sent = before + STREAM + END
        for at in range(0, len(sent), cut):
            play.server_sends(sent[at : at + cut])
        play.client_sends(REQUEST)
    assert play.to_client.count(STREAM_HEAD) == 2
    assert b"103" not in play.to_client
    assert addon.refusals == []
    assert len(play.opened) == (2 if elsewhere else 1)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", id="two lengths"),
        pytest.param(b"Content-Length: 2\r\nContent-Length: 3\r\n", id="lengths that differ"),
        pytest.param(b"no colon\r\n", id="a line that is none"),
    ],
)
def test_a_head_that_mitmproxy_refuses(head):
    """It is a fault before the first byte: another account is asked, and its late bytes harm nothing."""
    addon, play = asked()
    first = play.opened[-1]
    play.server_sends(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n{}")
    assert len(addon.refusals) == 1
    assert first in play.closed
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(b"2\r\n{}\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", id="trailers"),
        pytest.param(b'2;a=b;c="d e"\r\n{}\r\n0\r\n\r\n', id="extensions"),
        pytest.param(b"0002 \r\n{}\r\n000\r\n\r\n", id="leading zeros"),
        pytest.param(b"1\r\n{\r\n1\r\n}\r\n0;last\r\nX-Sum: 1\r\n\r\n", id="several, and an extension of the last"),
    ],
)
@pytest.mark.parametrize("cut", [1, 10_000])
def test_rare_forms_of_a_chunked_body(chunks, cut):
    """A response and a request arrive in each form that RFC 9112, 7.1 allows; the connections go on."""
    addon = Addon()
    play = addon.play(responseheaders=lambda _flow: None)
    head = b"POST /chat/completions HTTP/1.1\r\nHost: api.githubcopilot.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(2):
        for sends, data in ((play.client_sends, head + chunks), (play.server_sends, answer + chunks)):
            for at in range(0, len(data), cut):
                sends(data[at : at + cut])
    assert play.sent[play.opened[0]].count(b"2\r\n{}\r\n0\r\n\r\n") == 2
    assert play.to_client == (answer + b"2\r\n{}\r\n0\r\n\r\n") * 2
    assert len(play.opened) == 1
    assert addon.refusals == []


@pytest.mark.parametrize("trailers", [False, True], ids=["head", "trailers"])
def test_a_response_head_without_end(trailers):
    """It is cut off where it is larger than it may be: a fault of the upstream, not a gigabyte."""
    addon, play = asked()
    play.server_sends(
        STREAM.replace(b"text/event-stream", b"application/json") + b"0\r\n" if trailers else b"HTTP/1.1 200 OK\r\n"
    )
    for _ in range(HEAD_BYTES // 8192 + 1):
        play.server_sends(b"X-More: " + b"x" * 8182 + b"\r\n", play.opened[0])
    assert play.opened[0] in play.closed
    if trailers:
        assert play.context.client in play.closed
    else:
        assert "of more than 256 KB" in addon.refusals[0].error
        assert len(play.opened) == 2


def test_a_request_head_without_end():
    """The client gets a 431, and nothing of it goes upstream."""
    play = Addon().play()
    play.client_sends(b"POST / HTTP/1.1\r\n")
    for _ in range(HEAD_BYTES // 8192 + 2):
        play.client_sends(b"X-More: " + b"x" * 8182 + b"\r\n")
    assert play.to_client.startswith(b"HTTP/1.1 431 ")
    assert play.context.client in play.closed
    assert play.sent[play.opened[0]] == b""


def test_a_websocket_is_no_informational_response():
    """101 is final."""
    addon = Addon()
    flows: list[http.HTTPFlow] = addon.flows
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    assert flows[0].response.status_code == 101
