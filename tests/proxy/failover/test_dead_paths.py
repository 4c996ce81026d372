"""Kept upstream connections, without sockets: which are used again, and what becomes of a request on a dead one."""

import asyncio
import inspect
import socket

import pytest
from mitmproxy.connection import Server
from mitmproxy.proxy import server

from copilot_balancer.proxy.failover import connect_timeout, parent_tunnel
from copilot_balancer.proxy.failover.layer import MAX_AGE, MAX_IDLE
from copilot_balancer.proxy.failover.parent_tunnel import ParentTunnel
from copilot_balancer.proxy.failover.stream import DEAD_SECONDS
from proxy.failover.test_layer import END, LIMITED, REQUEST, STREAM, STREAM_HEAD, Addon, Impatient, clock, no_tls

__all__ = ["clock", "no_tls"]

EIGHT_HOURS = 8 * 3600.0


def served_once(addon=None):
    addon = addon or Addon(*["api.githubcopilot.com"] * 20)
    play = addon.play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM + END)
    return addon, play


@pytest.mark.parametrize(
    ("pauses", "connections"),
    [
        pytest.param((1.0, MAX_IDLE), 1, id="used soon"),
        pytest.param((MAX_IDLE + 1,), 2, id="silent for long"),
        pytest.param((EIGHT_HOURS,), 2, id="after a night's sleep"),
        pytest.param((MAX_IDLE,) * int(MAX_AGE // MAX_IDLE), 1, id="in use, and not old"),
        pytest.param((MAX_IDLE,) * int(MAX_AGE // MAX_IDLE + 1), 2, id="in use, and old"),
    ],
)
def test_a_connection_is_kept_for_a_time(clock, pauses, connections):
    """The next request goes on it, or on a new one when its path may be dead; the old one is closed then."""
    addon, play = served_once()
    for pause in pauses:
        clock.now += pause
        play.client_sends(REQUEST)
        play.server_sends(STREAM + END)
    assert len(play.opened) == connections
    assert (play.opened[0] in play.closed) is (connections == 2)
    assert addon.refusals == []
    assert play.to_client == (STREAM + END) * (len(pauses) + 1)


def test_a_connection_that_was_opened_long_ago(clock):
    """The one that mitmproxy opens when the client connects is as old as it is, used or not."""
    play = Addon().play()
    clock.now += MAX_IDLE + 1
    play.client_sends(REQUEST)
    assert play.sent[play.opened[0]] == b""
    assert play.opened[0] in play.closed
    play.server_sends(STREAM + END)
    assert play.to_client == STREAM + END


@pytest.mark.parametrize("seconds", [0.0, 21.0], ids=["as it is written", "the system gave the path up"])
def test_a_request_that_meets_a_dead_connection(clock, seconds):
    """It goes on a new one at once: same account, nobody is judged or chosen anew."""
    addon, play = served_once()
    play.client_sends(REQUEST)
    clock.now += seconds
    play.server_closes()
    assert len(play.opened) == 2
    assert play.sent[play.opened[1]].count(b"POST /chat/completions") == 1
    assert b"Bearer account-2" in play.sent[play.opened[1]]
    play.server_sends(STREAM + END)
    assert play.to_client == (STREAM + END) * 2
    assert (len(addon.sends), addon.refusals) == (2, [])


@pytest.mark.parametrize("what", ["twice", "late", "half a head", "a new one"])
def test_a_connection_that_was_not_dead(clock, what):
    """A connection that ends in another way is a failure of the upstream: it is judged."""
    addon, play = served_once() if what != "a new one" else (Addon(), None)
    play = play or addon.play()
    play.client_sends(REQUEST)
    if what == "late":
        clock.now += DEAD_SECONDS + 1
    if what == "half a head":
        play.server_sends(b"HTTP/1.1 200")
    play.server_closes()
    if what == "twice":
        play.server_closes()
    assert len(addon.refusals) == 1
    play.server_sends(STREAM + END)
    assert play.to_client.endswith(STREAM + END)


def test_a_refusal_on_the_new_connection(clock):
    """It is judged like any other, and the next account is asked."""
    addon, play = served_once()
    play.client_sends(REQUEST)
    play.server_closes()
    play.server_sends(LIMITED)
    assert addon.statuses == [429]
    play.server_sends(STREAM + END)
    assert play.to_client.endswith(STREAM + END)


def test_a_new_connection_that_fails(clock):
    """It is judged as a connection that fails, and the next account is asked."""
    addon, play = served_once()
    play.client_sends(REQUEST)
    dialled = []
    play.dial = lambda server: dialled.append(server) or ("no route" if len(dialled) == 1 else None)
    play.server_closes()
    assert [(refusal.error, refusal.sent) for refusal in addon.refusals] == [("no route", False)]
    play.server_sends(STREAM + END)
    assert play.to_client.endswith(STREAM + END)


def test_an_answer_that_sleep_interrupts(clock):
    """Timers stand in sleep, the clock does not: an answer that paused over it is cut within seconds."""
    play = Impatient().play()
    play.client_sends(REQUEST)
    play.server_sends(STREAM_HEAD + b"5\r\none\n\n\r\n")
    assert play.wakeups[0].delay <= 10.0
    clock.now += EIGHT_HOURS
    play.wake()
    assert play.context.client in play.closed


def test_a_silent_path_is_probed():
    """The system notices within about 20 seconds that nobody is there, and gives up what is not acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_connection(here.getsockname()) as there:
        connect_timeout._probe(there)
        assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        known = {name: value for name, value in connect_timeout._PROBES.items() if hasattr(socket, name)}
        assert {name: there.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in known} == known
    connect_timeout._probe(there)  # closed by now
    connect_timeout._probe(None)


def test_an_address_family_that_leads_nowhere():
    """The other family is tried in a moment; mitmproxy dials where we put ourselves in its way."""
    connect_timeout.dial_both_families()
    assert "asyncio.open_connection(" in inspect.getsource(server.ConnectionHandler.open_connection)

    class Loop(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host, port, **_):
            return [(family, socket.SOCK_STREAM, 6, "", (host, port)) for family in (socket.AF_INET6, socket.AF_INET)]

        async def sock_connect(self, sock, address):
            if sock.family == socket.AF_INET6:
                await asyncio.Event().wait()
            await super().sock_connect(sock, ("127.0.0.1", address[1]))

    async def connects() -> None:
        here = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = here.sockets[0].getsockname()[1]
        async with asyncio.timeout(30):
            _, writer = await vars(server)["asyncio"].open_connection("dual.example", port, local_addr=None)
        writer.close()
        here.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(connects())


def behind_a_parent(play) -> None:
    """Upstreams are reached through a parent proxy, and no connection stands yet."""
    server = play.context.server = Server(address=("api.githubcopilot.com", 443), sni="api.githubcopilot.com")
    server.tls, server.via = True, ("http", ("parent.example", 3128))


def test_a_parent_proxy_that_never_answers():
    """The tunnel through it is given up in its time: the request is answered as a failure of no account."""
    parent_tunnel.take_place()
    addon = Addon("copilot-api.acme.ghe.com")
    play = addon.play()
    behind_a_parent(play)
    play.client_sends(REQUEST)
    connect = play.sent[play.opened[-1]]
    assert connect.startswith(b"CONNECT copilot-api.acme.ghe.com:443 HTTP/1.1\r\n")
    play.wake()
    assert [(refusal.error, refusal.local) for refusal in addon.refusals] == [
        ("the parent proxy did not answer CONNECT within 10 s", True)
    ]
    assert play.opened[-1] in play.closed


def test_the_password_of_a_parent_proxy(monkeypatch):
    """It stands on the wire alone: no hook has seen it."""
    parent_tunnel.take_place()
    monkeypatch.setattr(ParentTunnel, "authorization", staticmethod(lambda _address: b"Basic c2VjcmV0"))
    heads = []
    addon = Addon("copilot-api.acme.ghe.com")
    play = addon.play(http_connect_upstream=lambda flow: heads.append(repr(flow.request.headers)))
    behind_a_parent(play)
    play.client_sends(REQUEST)
    parent = play.opened[-1]
    assert play.sent[parent].endswith(b"\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n")
    assert len(heads) == 1
    assert "c2VjcmV0" not in heads[0]
    play.server_sends(b"HTTP/1.1 200 OK\r\n\r\n", parent)
    assert b"POST /chat/completions" in play.sent[parent]
    play.wake()  # its time is over, and it stands
    play.server_sends(STREAM + END, parent)
    assert play.to_client == STREAM + END
