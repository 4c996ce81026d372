"""Other addons beside ours, without sockets: whatever they set, edit or kill, ours reads first and theirs is kept."""

import pytest
from mitmproxy import http

from copilot_balancer.proxy.failover.response import HELD_BYTES
from proxy.failover.test_layer import END, LIMITED, REQUEST, STREAM_HEAD, no_tls
from proxy.failover.test_response import Watching, chunk

__all__ = ["no_tls"]

HELD_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Neighbours(Watching):
    """Ours, and another addon whose `responseheaders` and `response` come after it."""

    def __init__(self, responseheaders=lambda _flow: None, response=lambda _flow: None, hosts: int = 3) -> None:
        super().__init__(*["api.githubcopilot.com"] * hosts)
        self.theirs = responseheaders
        self.response = response

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        super().responseheaders(flow)
        self.theirs(flow)

    def asked(self):
        play = self.play(response=self.response)
        play.client_sends(REQUEST)
        return play


def sets(stream):
    def responseheaders(flow: http.HTTPFlow) -> None:
        flow.response.stream = stream

    return responseheaders


def body_of(sent: bytes) -> bytes:
    """The chunks of a body, joined; one without a byte would be the last."""
    body, rest = b"", sent.partition(b"\r\n\r\n")[2]
    while rest and not rest.startswith(END):
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        assert length
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def held(body: bytes) -> bytes:
    return HELD_HEAD % len(body) + body


@pytest.mark.parametrize(
    ("stream", "seen"),
    [
        pytest.param(True, (b"open", b"more", b"done"), id="True"),
        pytest.param(lambda data: data.upper(), (b"OPEN", b"MORE", b"DONE"), id="a function"),
        pytest.param(lambda data: [data, data] if data else [], (b"openopen", b"moremore", b"donedone"), id="several"),
        pytest.param(lambda data: b"" if data == b"more" else data, (b"open", b"", b"done"), id="keeps one back"),
        pytest.param(lambda data: data or b"last", (b"open", b"more", b"done", b"last"), id="adds one at the end"),
    ],
)
@pytest.mark.parametrize("limited", [False, True], ids=["first account", "second account"])
def test_what_another_addon_sets_is_kept(stream, seen, limited):
    """A stream passes through their function, chunk by chunk, and ours has read what the upstream sent."""
    addon = Neighbours(sets(stream))
    play = addon.asked()
    if limited:
        play.server_sends(LIMITED)
    play.server_sends(STREAM_HEAD)
    for number, word in enumerate((b"open", b"more", b"done"), 1):
        play.server_sends(chunk(word))
        assert body_of(play.to_client) == b"".join(seen[:number])
    play.server_sends(END)
    assert play.to_client.startswith(STREAM_HEAD)
    assert play.to_client.endswith(b"\r\n" + END)
    assert body_of(play.to_client) == b"".join(seen)
    assert addon.watches[-1].heard == b"openmoredone"
    assert play.seen_hooks.count("response") == 1


@pytest.mark.parametrize("stream", [True, lambda data: data.upper()], ids=["True", "a function"])
def test_a_refusal_is_never_streamed(stream):
    """Whoever asked for a stream: the refusal is judged, and the last one goes down through their function, whole."""
    addon = Neighbours(sets(stream), hosts=2)
    play = addon.asked()
    play.server_sends(LIMITED[:-1])
    assert play.to_client == b""
    play.server_sends(LIMITED[-1:])
    assert addon.statuses == [429]
    play.server_sends(LIMITED)
    assert play.to_client == LIMITED if stream is True else LIMITED.replace(b"slow", b"SLOW")


def test_an_error_in_a_stream_that_another_addon_edits():
    """The error is read before their function sees the stream: another account answers."""
    seen = []
    addon = Neighbours(sets(lambda data: seen.append(data) or data))
    play = addon.asked()
    play.server_sends(STREAM_HEAD + chunk(b"error"))
    play.server_sends(STREAM_HEAD + chunk(b"open done") + END)
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + END
    assert seen == [b"open done", b""]


def test_an_answer_in_one_piece_can_be_edited():
    """It is held until its end, and what the client gets is what the last addon left, with its length."""

    def response(flow: http.HTTPFlow) -> None:
        flow.response.text = flow.response.text.replace("done", "edited")

    addon = Neighbours(response=response)
    play = addon.asked()
    whole = held(b'{"open": "done"}')
    play.server_sends(whole[:-1])
    assert play.to_client == b""
    play.server_sends(whole[-1:])
    assert play.to_client == held(b'{"open": "edited"}')
    assert addon.watches[0].held == [b'{"open": "done"}']
    assert addon.watches[0].releases == 1
    assert addon.judged == []


def test_an_event_stream_that_another_addon_holds():
    """Set back to False it is held to its end, judged whole, and can be edited like any other."""

    def response(flow: http.HTTPFlow) -> None:
        flow.response.content = flow.response.content.upper()

    addon = Neighbours(sets(False), response)
    play = addon.asked()
    play.server_sends(STREAM_HEAD + chunk(b"error") + END)
    assert addon.judged == [(200, b"error", None)]
    play.server_sends(STREAM_HEAD + chunk(b"open ") + chunk(b"done") + END)
    assert play.to_client == STREAM_HEAD + chunk(b"OPEN DONE") + END
    assert [watch.releases for watch in addon.watches] == [0, 1]


def test_a_held_answer_that_is_none():
    """An error in spite of its status is asked again; the last one goes down as it came."""
    addon = Neighbours(hosts=2)
    play = addon.asked()
    play.server_sends(held(b"error 1"))
    assert addon.judged == [(200, b"error 1", None)]
    assert len(play.opened) == 1, "the connection is as good as before"
    play.server_sends(held(b"error 22"))
    assert play.to_client == held(b"error 22")
    assert play.seen_hooks.count("response") == 1


@pytest.mark.parametrize("how", ["closed", "not whole"])
def test_a_held_answer_that_is_cut(how):
    """The client has seen nothing of it: another account is asked."""
    addon = Neighbours()
    play = addon.asked()
    play.server_sends(held(b"open")[: -1 if how == "closed" else None])
    if how == "closed":
        play.server_closes()
    assert [status for status, _, _ in addon.judged] == [None]
    play.server_sends(held(b"done"))
    assert play.to_client == held(b"done")


@pytest.mark.parametrize("stream", [False, True], ids=["by content", "of an event stream"])
def test_a_long_answer_is_not_held_for_ever(stream):
    """Beyond what is held it is streamed, from its first byte, and nothing of it is lost or read twice."""
    addon = Neighbours(sets(False))
    play = addon.asked()
    size = HELD_BYTES + 3
    play.server_sends((STREAM_HEAD + b"%x\r\n" % size) if stream else HELD_HEAD % size)
    play.server_sends(b"x" * HELD_BYTES)
    assert play.to_client == b""
    play.server_sends(b"y")
    play.server_sends(b"zz")
    sent = play.to_client
    assert (body_of(sent) if stream else sent.partition(b"\r\n\r\n")[2]) == b"x" * HELD_BYTES + b"yzz"
    watch = addon.watches[0]
    assert (len(watch.heard), watch.releases, watch.held) == (size, 1, [])


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_another_addon_kills(hook):
    """The client's connection is closed, no account is asked any more, and the error hook tells it."""

    def kill(flow: http.HTTPFlow) -> None:
        flow.kill()

    addon = Neighbours()
    play = addon.play(**{hook: kill})
    play.client_sends(REQUEST)
    if hook.startswith("response"):
        play.server_sends(held(b"done"))
    assert play.context.client in play.closed
    assert b"done" not in play.to_client
    assert addon.refusals == []
