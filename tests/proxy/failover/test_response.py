"""The layer and streamed answers, without sockets: what is held back, what is aborted, what ends well."""

import pytest
from mitmproxy import http
from mitmproxy.connection import ConnectionState

from copilot_balancer.proxy.failover.response import HOLD_LIMIT
from proxy.failover.test_layer import END, LIMITED, REQUEST, STREAM_HEAD, Addon, clock, no_tls

__all__ = ["clock", "no_tls"]


class Watch:
    """Knows three words: ``open`` opens an answer, ``error`` makes it one that is none, ``done`` completes it."""

    def __init__(self) -> None:
        self.heard = b""
        self.releases = 0
        self.held: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self.heard += data

    def completed(self, response: http.Response) -> None:
        self.held.append(response.raw_content)
        self.feed(response.raw_content)

    watched = True
    opened = property(lambda self: b"open" in self.heard)
    refused = property(lambda self: self.heard.startswith(b"error"))
    whole = over = property(lambda self: b"done" in self.heard)

    def released(self) -> None:
        self.releases += 1


class Watching(Addon):
    """Watches every answer, and streams it unless its length is told."""

    def streams(self, response: http.Response) -> bool:
        return "content-length" not in response.headers

    def __init__(self, *hosts: str) -> None:
        super().__init__(*hosts)
        self.watches: list[Watch] = []
        self.judged: list[tuple[int | None, bytes | None, str | None]] = []

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response.status_code < 300:
            self.sends[-1].watch = Watch()
            self.watches.append(self.sends[-1].watch)
            flow.response.stream = self.streams(flow.response)

    def failover_judge(self, refusal) -> None:
        response = refusal.flow.response
        self.judged.append(
            (response.status_code, response.raw_content, None) if response else (None, None, refusal.error)
        )
        super().failover_judge(refusal)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def asked(*hosts: str, **hooks):
    addon = Watching(*hosts)
    play = addon.play(**hooks)
    play.client_sends(REQUEST)
    return addon, play


def test_an_announcement_is_held_back():
    """Nothing reaches the client until the answer is one; then all of it, and each piece as it comes."""
    addon, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"ready "))
    assert play.to_client == b""
    play.server_sends(chunk(b"open"))
    assert play.to_client == STREAM_HEAD + chunk(b"ready open")
    play.server_sends(chunk(b"more"))
    assert play.to_client.endswith(chunk(b"more"))
    play.server_sends(chunk(b"done") + END)
    assert play.to_client.endswith(chunk(b"done") + END)
    assert addon.watches[0].releases == 1
    assert play.seen_hooks.count("response") == 1


@pytest.mark.parametrize("late", [b"", chunk(b"more of it"), chunk(b"more") + END], ids=["open", "goes on", "ended"])
def test_an_answer_that_opens_with_an_error_is_asked_again(late):
    """The client sees only the next account's answer, whatever the first one still says."""
    addon, play = asked()
    first = play.opened[-1]
    play.hold = {"failover_judge"}
    play.server_sends(STREAM_HEAD + chunk(b"error: limited"))
    if late:
        play.server_sends(late, first)
    play.hold = set()
    play.resume("failover_judge")
    assert addon.judged == [(200, b"error: limited", None)]
    assert first in play.closed
    second = play.opened[-1]
    assert second is not first
    play.server_sends(STREAM_HEAD + chunk(b"open done") + END, second)
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + END
    assert [watch.releases for watch in addon.watches] == [0, 1]


def test_the_last_error_is_passed_on_as_it_came():
    """Without another account the client gets the stream as it is, to its end."""
    addon, play = asked("api.githubcopilot.com")
    play.hold = {"failover_judge"}
    play.server_sends(STREAM_HEAD + chunk(b"error: limited"))
    play.server_sends(chunk(b" done") + END)
    play.resume("failover_judge")
    assert play.to_client == STREAM_HEAD + chunk(b"error: limited") + chunk(b" done") + END
    assert addon.watches[0].releases == 1


def test_an_error_in_a_stream_can_be_replaced():
    """The addon's own answer is sent whole, and the stream is given up."""

    def judge(refusal) -> None:
        refusal.flow.response = http.Response.make(429, b"wait", {"x": "1"})

    _, play = asked(failover_judge=judge)
    play.server_sends(STREAM_HEAD + chunk(b"error"))
    assert play.to_client.startswith(b"HTTP/1.1 429")
    assert play.to_client.endswith(b"wait")
    assert play.opened[0] in play.closed
    assert play.seen_hooks.count("response") == 1
    play.client_sends(REQUEST)  # the client's connection goes on
    assert len(play.opened) == 2


class Waiting(Watching):
    def failover_choose(self, send) -> None:
        super().failover_choose(send)
        send.first_byte_timeout = send.first_event_timeout = 10.0


def test_a_head_alone_is_silence(clock):
    """A head and then nothing is a silent upstream, and another account is asked; without the time-out it is let through."""
    play = (addon := Waiting()).play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD)
    for seconds in (2.0, 8.0):
        clock.now += seconds
        assert play.to_client == b""
        play.wake()
    assert addon.judged == [(None, None, "the upstream was silent for 10 s")]
    assert play.opened[0] in play.closed
    play.server_sends(STREAM_HEAD + chunk(b"open done") + END)
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + END


def test_what_is_only_announced_is_let_through_in_a_moment(clock):
    """Once anything came the answer is held back no longer than without a time-out."""
    play = (addon := Waiting()).play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD)
    clock.now += 1.0
    play.server_sends(chunk(b"ready"))
    clock.now += 2.0
    play.wakeups.sort(key=lambda wakeup: wakeup.delay)
    play.wake()
    assert play.to_client == STREAM_HEAD + chunk(b"ready")
    assert addon.judged == []


@pytest.mark.parametrize("how", ["ended", "closed"])
def test_an_answer_that_never_began_is_asked_again(how):
    """An announcement and then the end, or a broken connection: nothing was seen, so another account is asked."""
    addon, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"ready"))
    if how == "ended":
        play.server_sends(END)
    else:
        play.server_closes()
    assert addon.judged[0][:2] == (None, None)
    play.server_sends(STREAM_HEAD + chunk(b"open done") + END)
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + END


def test_an_answer_that_never_began_and_nobody_else():
    """The client gets an error instead of an empty success, which some ask for again without end."""
    _, play = asked("api.githubcopilot.com")
    play.server_sends(STREAM_HEAD + END)
    assert play.to_client.startswith(b"HTTP/1.1 502")
    assert b"ended before it began" in play.to_client


def test_a_whole_answer_without_output_is_one():
    """It says that it is complete: it goes to the client when it ends."""
    addon, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"done") + END)
    assert play.to_client == STREAM_HEAD + chunk(b"done") + END
    assert addon.judged == []


def test_what_is_held_is_bounded_in_size():
    """An announcement that is too long is passed on."""
    _, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"r" * HOLD_LIMIT))
    assert play.to_client == b""
    play.server_sends(chunk(b"r"))
    assert play.to_client.startswith(STREAM_HEAD)


def test_what_is_held_is_bounded_in_time(clock):
    """After two seconds the client sees what there is; then the answer may pause as long as any."""
    _, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"ready"))
    clock.now += 2.1
    play.wake()
    assert play.to_client == STREAM_HEAD + chunk(b"ready")
    play.server_sends(chunk(b"open done") + END)
    assert play.to_client.endswith(chunk(b"open done") + END)


@pytest.mark.parametrize("how", ["ended", "closed"])
def test_an_answer_that_is_cut_is_aborted(how):
    """The client's connection breaks off without the end of the message, whether the upstream's was well ended or not."""
    addon, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"open"))
    if how == "ended":
        play.server_sends(END)
    else:
        play.server_closes()
    assert play.to_client == STREAM_HEAD + chunk(b"open")
    assert play.context.client in play.closed
    assert play.seen_hooks.count("error") == 1
    assert play.seen_hooks.count("response") == 0
    assert addon.judged == []


def test_a_whole_answer_ends_well_though_its_connection_breaks():
    """All has been said: the client gets a proper end, and its connection goes on."""
    addon, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"open done"))
    play.server_closes()
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + END
    assert play.seen_hooks.count("response") == 1
    assert play.context.client not in play.closed
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD + chunk(b"open done") + END)
    assert len(addon.watches) == 2


def test_a_whole_answer_that_stays_open_is_ended(clock):
    """Two seconds after its last byte; the upstream is let go."""
    _, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"open done"))
    clock.now += 1
    play.server_sends(chunk(b"usage"))
    clock.now += 1.5
    play.wake()
    assert not play.to_client.endswith(END)
    clock.now += 1
    play.wake()
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + chunk(b"usage") + END
    assert play.opened[0] in play.closed
    play.client_sends(REQUEST)
    assert len(play.opened) == 2


def test_a_client_that_leaves_a_held_answer():
    """The upstream request is given up, and nobody is asked again."""
    addon, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"ready"))
    play.client_leaves()
    assert play.opened[0] in play.closed
    assert addon.judged == []
    assert play.seen_hooks.count("error") == 1
    assert play.opened[0].state is ConnectionState.CLOSED


def test_a_client_that_leaves_while_an_error_is_judged():
    """Nothing more is sent, to nobody."""
    addon, play = asked()
    play.hold = {"failover_judge"}
    play.server_sends(STREAM_HEAD + chunk(b"error"))
    play.client_leaves()
    play.resume("failover_judge")
    assert len(addon.sends) == 1
    assert play.to_client == b""


def test_a_refusal_and_then_a_held_answer():
    """Each attempt has its own watch."""
    addon, play = asked()
    play.server_sends(LIMITED)
    play.server_sends(STREAM_HEAD + chunk(b"error"))
    play.server_sends(STREAM_HEAD + chunk(b"open done") + END)
    assert play.to_client == STREAM_HEAD + chunk(b"open done") + END
    assert [judged[0] for judged in addon.judged] == [429, 200]


def test_a_watch_that_fails_becomes_a_502(monkeypatch):
    """An exception in what the addon set ends this stream alone, with an answer."""
    monkeypatch.setattr(Watch, "opened", property(lambda self: 1 / 0))
    _, play = asked()
    play.server_sends(STREAM_HEAD + chunk(b"ready"))
    assert play.to_client.startswith(b"HTTP/1.1 502")
    assert play.opened[0] in play.closed
