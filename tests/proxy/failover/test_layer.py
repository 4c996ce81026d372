"""The layer, without sockets: what goes upstream, what the client sees, and in which order."""

import inspect
import json
from types import SimpleNamespace

import pytest
from mitmproxy import http
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.options import Options
from mitmproxy.proxy import commands

from copilot_balancer.proxy.failover import (
    connect_timeout,
    dispatch,
    http1,
    layer,
    parent_tunnel,
    stream,
)
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.failover.layer import FailoverLayer
from copilot_balancer.proxy.failover.response import BUFFER_LIMIT, REFUSAL_SECONDS
from copilot_balancer.proxy.guard import client_access
from support.playbook import PlainTunnel, Playbook, make_context

REQUEST = (
    b"POST /chat/completions HTTP/1.1\r\nHost: api.githubcopilot.com\r\nX-One: 1\r\nauthorization: Bearer gho_clients-own\r\n"
    b"Cookie: a=b\r\nX-Two: 2\r\nContent-Length: 2\r\n\r\n{}"
)
LIMITED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 4\r\n\r\nslow"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = STREAM_HEAD + b"5\r\none\n\n\r\n"
END = b"0\r\n\r\n"


class Addon:
    """Stands in for the addon: asks the accounts in `hosts` in turn, and says *again* while there is one left."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts) or ["api.githubcopilot.com"] * 3
        self.sends: list[Send] = []
        self.refusals: list[Refusal] = []
        self.flows: list[http.HTTPFlow] = []

    def failover_choose(self, send: Send) -> None:
        self.sends.append(send)
        number = len(self.sends)
        send.host = self.hosts[number - 1]

        def authorize(request: http.Request, _server: object) -> None:
            request.headers["authorization"] = f"Bearer account-{number}"

        send.authorize = authorize

    def failover_judge(self, refusal: Refusal) -> None:
        status = refusal.flow.response.status_code if refusal.flow.response else None
        self.refusals.append(refusal)
        self.statuses = [*getattr(self, "statuses", []), status]
        refusal.again = len(self.sends) < len(self.hosts)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.flows.append(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response.status_code < 300:
            flow.response.stream = True

    def play(self, **more: object) -> Playbook:
        names = ("failover_choose", "failover_judge", "requestheaders", "responseheaders")
        return Playbook(FailoverLayer(make_context()), {**{name: getattr(self, name) for name in names}, **more})


@pytest.fixture(autouse=True)
def no_tls(monkeypatch):
    """Upstream TLS is played by a tunnel that changes nothing."""
    monkeypatch.setattr("mitmproxy.proxy.layers.tls.ServerTLSLayer", PlainTunnel)


@pytest.mark.parametrize(
    "private",
    [
        layer.PRIVATE,
        dispatch.PRIVATE,
        connect_timeout.PRIVATE,
        http1.PRIVATE,
        parent_tunnel.PRIVATE,
        client_access.PRIVATE,
    ],
    ids=["layer", "dispatch", "connections", "http1", "parent", "client_access"],
)
def test_private_names_are_there(private):
    """Everything private to mitmproxy that we touch exists in this version."""
    made = {
        AddonManager: AddonManager(SimpleNamespace(options=Options())),
        Proxyserver: Proxyserver(),
        ProxyAuth: ProxyAuth(),
    }
    for owner, names in private.items():
        declared = {name for base in owner.__mro__ for name in inspect.get_annotations(base)}
        one = made.get(owner, owner)
        assert [name for name in names if not hasattr(one, name) and name not in declared] == []


def test_the_same_flow_is_sent_again_and_streamed():
    """A refused request is sent again on the same flow, and the second answer is passed on chunk by chunk."""
    addon = Addon()
    play = addon.play()
    play.client_sends(REQUEST)
    server = play.opened[0]
    assert play.sent[server].count(b"POST /chat/completions") == 1

    play.server_sends(LIMITED)

    assert play.sent[server].count(b"POST /chat/completions") == 2
    assert play.to_client == b""
    play.server_sends(STREAM)
    assert play.to_client.endswith(b"5\r\none\n\n\r\n")
    play.server_sends(END)
    assert play.to_client == STREAM + END
    assert len({id(flow) for flow in addon.flows}) == 1
    assert addon.statuses == [429]
    assert play.seen_hooks.count("response") == 1
    assert play.seen_hooks.count("error") == 0


def test_the_connection_serves_the_next_request():
    """After a failover the client's connection goes on as any keep-alive connection."""
    play = (addon := Addon()).play()
    play.client_sends(REQUEST)
    play.server_sends(LIMITED)
    play.server_sends(STREAM + END)
    play.client_sends(REQUEST)
    play.server_sends(STREAM + END)
    assert play.to_client == (STREAM + END) * 2
    assert len(addon.sends) == 3


def test_bytes_upstream_are_the_clients_but_for_the_credential():
    """What goes upstream equals what the client sent, order included; only authorization differs."""
    play = Addon().play()
    play.client_sends(REQUEST)
    sent = play.sent[play.opened[0]]
    expected = REQUEST.replace(b"gho_clients-own", b"account-1").replace(b"Cookie: a=b", b"Cookie: [client]")
    assert sent == expected  # the cookie is the guard's to drop


def test_no_credential_stands_in_the_flow():
    """Before the first hook runs, the client's own credentials are out of the flow; an account's never get in."""
    addon = Addon()
    play = addon.play()
    play.client_sends(REQUEST)
    state = repr(addon.flows[0].get_state())
    assert "gho_clients-own" not in state
    assert "a=b" not in state
    assert "account-1" not in state
    assert "gho_clients-own" not in repr(addon.sends)
    assert addon.sends[0].hidden.get(b"authorization") == (b"Bearer gho_clients-own",)
    assert repr(HiddenCredentials(http.Headers())) == "<hidden headers: none>"


def test_another_host():
    """An account that lives elsewhere is sent to its own host, on a new connection, with its Host header."""
    play = Addon("api.githubcopilot.com", "copilot-api.acme.ghe.com").play()
    play.client_sends(REQUEST)
    play.server_sends(LIMITED)
    assert [server.address[0] for server in play.opened] == ["api.githubcopilot.com", "copilot-api.acme.ghe.com"]
    second = play.sent[play.opened[1]]
    assert b"Host: copilot-api.acme.ghe.com\r\n" in second
    assert b"Bearer account-2" in second
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END


def test_connect_error_fails_over():
    """A host that refuses the connection costs the client nothing while another account is left."""
    addon = Addon("copilot-api.acme.ghe.com", "api.githubcopilot.com")
    play = addon.play()
    play.dial = lambda server: "refused" if server.address[0].endswith("ghe.com") else None
    play.client_sends(REQUEST)
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END
    assert [(refusal.error, refusal.sent) for refusal in addon.refusals] == [("refused", False)]


@pytest.mark.parametrize(
    ("error", "local"),
    [
        ("[Errno 24] Too many open files", True),
        ("Multiple exceptions: [Errno 24] Too many open files, [Errno 101] Network is unreachable", True),
        ("[Errno 99] Cannot assign requested address", True),
        ("[Errno 111] Connect call failed ('127.0.0.1', 24)", False),
        ("connection cancelled", False),
    ],
)
def test_what_this_machine_lacks(error, local):
    """A connection that fails for it is told as this machine's own failure."""
    addon = Addon("copilot-api.acme.ghe.com")
    play = addon.play()
    play.dial = lambda _server: error
    play.client_sends(REQUEST)
    assert [(refusal.error, refusal.local) for refusal in addon.refusals] == [(error, local)]


def test_a_failed_connection_is_not_handed_out_again():
    """mitmproxy keeps a failed connection with its error; the next attempt at that host dials anew."""
    play = Addon("copilot-api.acme.ghe.com", "copilot-api.acme.ghe.com").play()
    dialled = []

    def dial(server):
        dialled.append(server.address)
        return "refused" if len(dialled) == 1 else None

    play.dial = dial
    play.client_sends(REQUEST)
    assert len(dialled) == 2
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="closed without a byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", id="closed inside the head"),
        pytest.param(b"nonsense\r\n\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 429 No\r\nContent-Length: 9\r\n\r\nhalf", id="closed inside a refusal's body"),
        pytest.param(
            b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="a refusal's chunk is malformed"
        ),
    ],
)
def test_reset_before_the_client_has_seen_a_byte(answer):
    """A connection that breaks before any byte went down is replaced, and its late noise harms nothing."""
    addon = Addon()
    play = addon.play()
    play.client_sends(REQUEST)
    if answer:
        play.server_sends(answer)
    if play.opened[-1].state & ConnectionState.CAN_READ and len(play.opened) == 1:
        play.server_closes()
    assert len(play.opened) == 2
    assert len(addon.refusals) == 1
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END
    assert len(addon.refusals) == 1


def test_reset_after_the_first_byte_is_never_sent_again():
    """Once the client has seen a byte there is no other attempt; a cut stream is cut for the client as well."""
    addon = Addon()
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM)
    play.server_closes()
    assert len(addon.sends) == 1
    assert play.to_client == STREAM
    assert play.context.client in play.closed
    assert play.seen_hooks.count("error") == 1


def test_the_last_refusal_goes_down_as_it_is():
    """When the addon says no, the client gets the upstream's own answer."""
    addon = Addon("api.githubcopilot.com")
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(LIMITED)
    assert play.to_client == LIMITED
    assert play.seen_hooks.count("response") == 1


def test_a_refusal_can_be_replaced():
    """The addon may give back an earlier refusal instead of the last one."""
    addon = Addon("api.githubcopilot.com", "api.githubcopilot.com")
    kept = []

    def judge(refusal: Refusal) -> None:
        kept.append(refusal.flow.response)
        addon.failover_judge(refusal)
        if not refusal.again:
            refusal.flow.response = kept[0]

    play = addon.play(failover_judge=judge)
    play.client_sends(REQUEST)
    play.server_sends(LIMITED)
    play.server_sends(LIMITED.replace(b"slow", b"last"))
    assert play.to_client == LIMITED


def test_local_answer():
    """The addon may answer itself instead of choosing."""

    def choose(send: Send) -> None:
        send.flow.response = http.Response.make(429, b"{}", {"x-ours": "1"})

    play = Addon().play(failover_choose=choose)
    play.client_sends(REQUEST)
    assert b"429" in play.to_client
    assert b"x-ours: 1" in play.to_client
    assert play.sent[play.opened[0]] == b""


def test_authorize_may_answer_instead():
    """When the guard refuses on the standing connection, its answer goes down and nothing goes up."""

    def choose(send: Send) -> None:
        send.host = "api.githubcopilot.com"
        send.authorize = lambda _request, _server: http.Response.make(403, b"no")

    play = Addon().play(failover_choose=choose)
    play.client_sends(REQUEST)
    assert play.to_client.startswith(b"HTTP/1.1 403")
    assert play.sent[play.opened[0]] == b""


def test_an_answer_in_the_place_of_the_upstreams():
    """An answer that an addon sets when the head has come is sent whole, and the upstream is cancelled."""

    def responseheaders(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(502, b"ours")

    play = Addon().play(responseheaders=responseheaders)
    play.client_sends(REQUEST)
    play.server_sends(STREAM + END)
    assert play.to_client == b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\nours"
    assert play.opened[0] in play.closed
    assert play.logs == []
    play.hooks.pop("responseheaders")
    play.client_sends(REQUEST)
    play.server_sends(STREAM + END)
    assert play.to_client.endswith(STREAM[len(STREAM_HEAD) :] + END)


def test_nobody_answers():
    """When no addon is there to choose, nothing is sent, and the client gets a JSON 502."""
    play = Playbook(FailoverLayer(make_context()))
    play.client_sends(REQUEST)
    assert play.sent[play.opened[0]] == b""
    assert b"502" in play.to_client.splitlines()[0]
    assert b"proxy_fault" in play.to_client


@pytest.mark.parametrize("hook", ["failover_choose", "failover_judge"])
def test_a_client_that_leaves_ends_it(hook):
    """A client that leaves while we decide costs no further upstream request."""
    addon = Addon()
    play = addon.play()
    play.hold = {hook}
    play.client_sends(REQUEST)
    if hook == "failover_judge":
        play.server_sends(LIMITED)
    before = play.sent[play.opened[0]]
    play.client_leaves()
    play.resume(hook)
    assert play.sent[play.opened[0]] == before
    assert len(play.opened) == 1
    assert play.seen_hooks.count("error") == 1
    assert play.to_client == b""


def test_a_client_that_leaves_cancels_upstream():
    """A client that leaves while the upstream works closes the upstream connection."""
    play = Addon().play()
    play.client_sends(REQUEST)
    play.client_leaves()
    assert play.opened[0] in play.closed


def test_a_client_that_leaves_while_we_connect():
    """A client that leaves while a connection is being opened costs no upstream request."""
    addon = Addon("copilot-api.acme.ghe.com")
    play = addon.play()
    play.dial = lambda _server: play.client_leaves()
    play.client_sends(REQUEST)
    assert all(data == b"" for server, data in play.sent.items() if server is not play.context.client)


@pytest.mark.parametrize("where", ["choose", "authorize", "judge", "head"])
def test_an_exception_becomes_a_502_on_this_stream_alone(where, monkeypatch, caplog):
    """A fault of ours in the stream is a JSON 502 with an id, one ERROR line, and the next request is served."""
    addon = Addon()
    play = addon.play()
    broken = {
        "choose": (stream.FailoverStream, "make_server_connection"),
        "authorize": (stream, "outgoing"),
        "judge": (stream.FailoverStream, "_again"),
        "head": (stream.FailoverStream, "start_response_stream"),
    }[where]

    def fail(*_args, **_kwargs):
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        play.client_sends(REQUEST)
        if where in ("judge", "head"):
            play.server_sends(LIMITED if where == "judge" else STREAM)

    head, _, body = play.to_client.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502")
    message = json.loads(body)["error"]["message"]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    incident = errors[0].getMessage().split("incident ")[1].split()[0]
    assert incident in message
    assert "secret detail" not in caplog.text + message
    assert play.seen_hooks.count("error") == 1

    before = len(play.to_client)
    play.client_sends(REQUEST)
    play.server_sends(STREAM + END)
    assert play.to_client[before:] == STREAM + END


def test_an_exception_after_the_first_byte_cuts_the_stream(monkeypatch, caplog):
    """After a byte went down a fault of ours cuts the answer off; it never looks complete."""
    play = Addon().play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM)
    with monkeypatch.context() as patch:
        patch.setattr(stream.FailoverStream, "_handle_event", lambda *_: 1 / 0)
        play.server_sends(END)
    assert play.to_client == STREAM
    assert play.context.client in play.closed
    assert "ZeroDivisionError" in caplog.text


ENDLESS = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("again", [True, False])
def test_an_endless_refusal_is_cut_off(again):
    """A refusal that does not end is judged by its beginning, and given with it; its connection is closed."""
    addon = Addon(*["api.githubcopilot.com"] * (2 if again else 1))
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(ENDLESS)
    for _ in range(BUFFER_LIMIT // 65536 + 1):
        play.server_sends(b"10000\r\n" + b"x" * 65536 + b"\r\n", play.opened[0])
    assert addon.statuses == [500]
    assert play.opened[0] in play.closed
    if again:
        play.server_sends(STREAM + END)
        assert play.to_client == STREAM + END
    else:
        head, _, body = play.to_client.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head
        assert b"ransfer-" not in head
        assert len(body) == BUFFER_LIMIT + 65536
    addon.hosts.append("api.githubcopilot.com")
    play.client_sends(REQUEST)
    assert len(addon.sends) == len(addon.hosts)  # the client's connection goes on


@pytest.mark.parametrize("drips", [True, False])
def test_a_slow_refusal_is_cut_off(clock, drips):
    """A refusal whose body takes too long is judged by what came of it, whether more comes or nothing."""
    play = (addon := Addon()).play()
    play.client_sends(REQUEST)
    play.server_sends(b"HTTP/1.1 429 No\r\nContent-Length: 999\r\n\r\nslow")
    clock.now += REFUSAL_SECONDS - 1.0
    if drips:
        play.server_sends(b"er")
    clock.now += 1.0
    play.wake()
    assert addon.statuses == [429]
    assert addon.refusals[0].error is None
    assert len(play.opened) == 2
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END


def test_a_request_is_whole_before_it_is_sent():
    """Whatever asks for streamed requests, ours are collected: they must be whole to be sent again."""
    addon = Addon()

    def requestheaders(flow: http.HTTPFlow) -> None:
        flow.request.stream = True

    play = addon.play(requestheaders=requestheaders)
    play.client_sends(REQUEST[:-1])
    assert play.sent[play.opened[0]] == b""
    play.client_sends(REQUEST[-1:])
    assert addon.sends[0].flow.request.stream is False
    play.server_sends(LIMITED)
    assert play.sent[play.opened[0]].endswith(b"\r\n\r\n{}")


class Clock:
    """Time for the layer, told by the test."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("copilot_balancer.proxy.clock.steady", lambda: clock.now)
    return clock


class Impatient(Addon):
    def failover_choose(self, send: Send) -> None:
        super().failover_choose(send)
        send.first_byte_timeout, send.idle_timeout = 10.0, 60.0


def test_a_silent_upstream_fails_over(clock):
    """An upstream that sends no head in time is given up, and another account is asked."""
    play = (addon := Impatient()).play()
    play.client_sends(REQUEST)
    clock.now += 10.0
    play.wake()
    assert play.opened[0] in play.closed
    assert [(refusal.error, refusal.sent) for refusal in addon.refusals] == [("the upstream was silent for 10 s", True)]
    assert len(play.opened) == 2
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END


def test_a_stalled_answer_is_cut(clock):
    """An answer that pauses for too long is cut off for the client as well, never sent again."""
    play = (addon := Impatient()).play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM)
    clock.now += 59.0
    play.server_sends(b"5\r\ntwo\n\n\r\n")
    for _ in range(20):
        clock.now += play.wakeups[0].delay
        play.wake()
        if play.context.client in play.closed:
            break
    assert clock.now >= 1000.0 + 59.0 + 60.0
    assert play.opened[0] in play.closed
    assert play.context.client in play.closed
    assert play.to_client.endswith(b"5\r\ntwo\n\n\r\n")
    assert len(addon.sends) == 1


def test_one_timer_a_connection(clock):
    """However many requests a connection serves, one timer watches over them, and a late one harms nobody."""
    play = Impatient(*["api.githubcopilot.com"] * 20).play()
    for _ in range(20):
        clock.now += 1.0
        play.client_sends(REQUEST)
        play.server_sends(STREAM + END)
    assert len(play.wakeups) == 1
    before = play.to_client
    while play.wakeups:
        clock.now += 100.0
        play.wake()
    assert play.to_client == before
    assert play.closed == []


def test_a_hook_that_runs_is_not_interrupted(clock):
    """While one of our hooks is being answered a timer waits for it."""
    play = (addon := Impatient()).play()
    play.client_sends(REQUEST)
    play.hold = {"failover_judge"}
    play.server_sends(LIMITED)
    clock.now += 100.0
    play.wake()
    play.hold = set()
    play.resume("failover_judge")
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END
    assert len(addon.refusals) == 1


def test_pieces_that_come_together_go_on_together():
    """What came in one go is sent in one go, at once and in order; what comes later is not waited for."""
    addon = Addon()

    def passes(flow: http.HTTPFlow) -> None:
        flow.response.stream = lambda data: data

    play = addon.play(responseheaders=passes)
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD)
    play.server_sends(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthr")
    seen = STREAM_HEAD + b"9\r\nonetwothr\r\n"
    assert play.to_client == seen
    play.server_sends(b"ee\r\n")
    seen += b"2\r\nee\r\n"
    assert play.to_client == seen
    play.server_sends(b"4\r\nfour\r\n4\r\nfive\r\n" + END)
    assert play.to_client == seen + b"8\r\nfourfive\r\n" + END


@pytest.mark.parametrize("end", [b"zz\r\n", b"4\r\noops\r\n"], ids=["of the upstream's", "of ours"])
def test_what_came_before_a_fault_is_sent(end):
    """Pieces that were gathered when the answer failed still reach the client, before it is aborted."""
    addon = Addon()

    def piece(data: bytes) -> bytes:
        assert data != b"oops"
        return data

    def passes(flow: http.HTTPFlow) -> None:
        flow.response.stream = piece

    play = addon.play(responseheaders=passes)
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD)
    play.server_sends(b"3\r\none\r\n3\r\ntwo\r\n" + end + b"5\r\nthree\r\n")
    assert play.to_client == STREAM_HEAD + b"6\r\nonetwo\r\n"
    assert play.context.client in play.closed


def test_a_piece_of_which_nothing_is_left():
    """An addon that keeps a piece back ends nothing: an empty chunk would be the last one."""
    addon = Addon()

    def passes(flow: http.HTTPFlow) -> None:
        flow.response.stream = lambda data: b"" if data == b"half" else data

    play = addon.play(responseheaders=passes)
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD)
    play.server_sends(b"4\r\nhalf\r\n")
    assert play.to_client == STREAM_HEAD
    play.server_sends(b"5\r\nwhole\r\n" + END)
    assert play.to_client == STREAM_HEAD + b"5\r\nwhole\r\n" + END


def test_who_answers_is_asked_each_time():
    """While the script is run again nobody answers on the spot: mitmproxy's hooks are asked, and nothing is left out."""
    addon, told, here = Addon(), [], True

    class Answering:
        def choose(self, send: Send) -> bool:
            addon.failover_choose(send)
            return True

        def tell(self, hook: commands.StartHook) -> None:
            told.append(hook.name)

    hooks_of = {name: getattr(addon, name) for name in ("failover_choose", "failover_judge", "responseheaders")}
    play = Playbook(FailoverLayer(make_context(), lambda: Answering() if here else None), hooks_of)
    play.client_sends(REQUEST)
    assert told == ["requestheaders", "request"]
    assert play.seen_hooks == []
    here = False
    play.server_sends(LIMITED)
    play.server_sends(STREAM + END)
    assert play.seen_hooks == ["responseheaders", "failover_judge", "failover_choose", "responseheaders", "response"]
    assert play.to_client == STREAM + END
    here = True
    play.client_sends(REQUEST)
    assert told == ["requestheaders", "request"] * 2
