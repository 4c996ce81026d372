"""Some hundreds of seeds of the layer's simulation, the bugs that it found once, and that it finds bugs at all."""

import itertools
import re

import pytest
from mitmproxy import http
from mitmproxy.proxy.layers.http import HttpStream

from copilot_balancer.proxy.failover import (
    credentials,
    hooks,
    layer,
    response,
    stream,
)
from proxy.failover.test_layer import END, LIMITED, REQUEST, STREAM, Addon, no_tls  # noqa: F401 - a fixture
from proxy.failover.test_response import Watching
from support.layer_plans import KINDS
from support.layer_simulation import main, simulate

SEEDS = 400
GROUPS = 8


@pytest.mark.parametrize("group", range(GROUPS))
def test_seeds(group):
    """Under every seed: none lost, none hung, none sent after commitment, none misattributed, no exception of ours."""
    found = [simulate(seed) for seed in range(group, SEEDS, GROUPS)]
    assert {result.seed: result.violations for result in found if result.violations} == {}


def test_every_fault_happens():
    """The seeds play every kind of fault that there is, and no upstream kind is written for nothing."""
    kinds = set()
    seed = 0
    while len(kinds) < len(KINDS) + 2 and seed < 1000:
        kinds |= simulate(seed).kinds.keys()
        seed += 1
    assert len(kinds) >= len(KINDS) + 2  # and the two of HEAD
    assert len(kinds) >= 24


def test_a_seed_is_repeatable(capsys):
    """The same seed tells the same story, and the command prints it."""

    def story(seed):
        lines = []
        simulate(seed, lines.append)
        return [re.sub(r"incident \w+", "incident", line) for line in lines]

    for seed in range(20):
        assert story(seed) == story(seed)
    assert main(["7"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[:-1] == story(7)
    assert told.endswith("all holds\n")


def _only_the_host(request, host):
    copied = credentials.outgoing(request, host)
    copied.headers.fields = tuple(
        (name, value)
        for name, value in copied.headers.fields
        if (name, value) in request.headers.fields or name == b"host"
    )
    return copied


BUGS = {
    "it never fails over": (stream.FailoverStream, "handle_protocol_error", HttpStream.handle_protocol_error),
    "failed connections are handed out again": (layer.FailoverLayer, "retire", lambda *_: None),
    "what the last upstream said late counts": (stream.FailoverStream, "_forget_upstream", lambda _: None),
    "nobody looks at the clock": (stream.FailoverStream, "time_left", lambda *_: None),
    "a client that has left is not noticed": (stream.FailoverStream, "check_killed", lambda *_: iter(())),
    "the client's credential stays in the flow": (credentials, "_masked", lambda name, value: (name, value)),
    "a refusal is never held back": (response, "BUFFER_LIMIT", -1),
    "a body goes out without a length": (stream, "outgoing", _only_the_host),
    "the next request goes out too early": (layer.FailoverLayer, "client_is_ahead", lambda _: False),
}


@pytest.mark.parametrize("bug", BUGS)
def test_bugs_are_found(bug, monkeypatch):
    """A layer with a bug does not pass: the oracle is worth something."""
    owner, name, broken = BUGS[bug]
    if name == "BUFFER_LIMIT":
        monkeypatch.setattr("support.layer_simulation.BUFFER_LIMIT", broken)
    else:
        monkeypatch.setattr(owner, name, broken)
    assert any(simulate(seed).violations for seed in itertools.chain(range(300), (565, 1275, 1415)))


# --- what it found, each in its smallest form


@pytest.mark.parametrize("again", [True, False])
def test_an_end_that_is_told_twice(again):
    """A connection that fails while a hook runs, and then is closed, is one failure: the next attempt is none of it."""
    addon = Addon(*["api.githubcopilot.com"] * (3 if again else 1))
    play = addon.play()
    play.hold = {"responseheaders"}
    play.client_sends(REQUEST)
    play.server_sends(b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    play.server_sends(b"zz\r\n")
    play.hold = set()
    play.resume("responseheaders")
    assert len(addon.refusals) == 1
    assert len(addon.sends) == (2 if again else 1)
    if again:
        play.server_sends(STREAM + END)
        assert play.to_client == STREAM + END
    else:
        assert play.to_client.startswith(b"HTTP/1.1 502")


def test_an_end_that_is_told_after_the_answer_was_replaced():
    """An answer that an addon puts in the place of one that fails meanwhile is sent, and the next request is served."""
    addon = Addon()

    def instead(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(418, b"ours")

    play = addon.play(responseheaders=instead)
    play.hold = {"responseheaders"}
    play.client_sends(REQUEST + REQUEST)
    play.server_sends(STREAM)
    play.server_sends(b"zz\r\n")
    play.resume("responseheaders")
    play.hold = set()
    assert play.to_client.startswith(b"HTTP/1.1 418")
    assert play.to_client.count(b"HTTP/1.1") == 1
    play.server_sends(LIMITED)
    assert b"HTTP/1.1 418" in play.to_client[20:]


def test_a_refusal_that_ends_because_the_client_has_left():
    """A refusal without a length ends with its connection, which we close when the client leaves: nobody is asked again."""
    addon = Addon()
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(b"HTTP/1.1 503 No\r\n\r\nhalf of")
    play.client_leaves()
    play.server_closes(play.opened[0])
    assert addon.refusals == []
    assert len(addon.sends) == 1


def test_a_stream_that_ends_because_the_client_has_left():
    """The same for a stream without a length of which nothing but an announcement had come."""
    addon = Watching()
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nready")
    play.client_leaves()
    play.server_closes(play.opened[0])
    assert addon.judged == []
    assert len(addon.sends) == 1


@pytest.mark.parametrize("seed", [139961, 166415])
def test_a_whole_answer_without_its_end_whose_client_has_left(seed):
    """Its end is told once: the upstream that is closed for it ends nothing more."""
    assert simulate(seed).violations == []


@pytest.mark.parametrize("fault", [False, True])
def test_an_answer_of_ours_to_head_has_no_body(fault):
    """An answer to HEAD has no body, also one that is made here: the next answer would be read from inside it."""

    def choose(send: hooks.Send) -> None:
        if fault:
            send.host, send.authorize = "api.githubcopilot.com", lambda *_: 1 / 0
        else:
            send.flow.response = http.Response.make(403, b"{}")

    play = Addon().play(failover_choose=choose)
    play.client_sends(b"HEAD /mcp HTTP/1.1\r\nHost: api.githubcopilot.com\r\n\r\n")
    assert play.to_client.startswith(b"HTTP/1.1 502" if fault else b"HTTP/1.1 403")
    assert play.to_client.endswith(b"\r\n\r\n")
