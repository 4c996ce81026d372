"""A connection to a Copilot host does not take longer than it may, and none is left open."""

import asyncio
from types import SimpleNamespace

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import taddons

from copilot_balancer.proxy.failover import connect_timeout
from copilot_balancer.proxy.failover.connect_timeout import ConnectTimeout


@pytest.fixture(autouse=True)
def tctx():
    """The proxy server of mitmproxy is asked for its connections."""
    with taddons.context(Proxyserver()) as tctx:
        yield tctx


HOST = ("api.githubcopilot.com", 443)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(connect_timeout, "SECONDS", 0.05)


def watched(steps, address=HOST):
    """What becomes of the task that opens a connection and reads it, with a pause after each of these hooks."""
    limit = ConnectTimeout(lambda host, port: (host, port) == HOST)
    client = Client(peername=("127.0.0.1", 50000), sockname=("127.0.0.1", 8080), timestamp_start=1.0)
    server = Server(address=address)
    data = ServerConnectionHookData(client=client, server=server)

    async def connecting():
        await limit.server_connect(data)
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                getattr(limit, step)(SimpleNamespace(conn=server) if step.startswith("tls") else data)
        return "done"

    async def watch():
        try:
            return await asyncio.create_task(connecting())
        except asyncio.CancelledError as error:
            return str(error)

    return asyncio.run(watch())


TLS = ("server_connected", 0.3, "tls_start_server")


@pytest.mark.parametrize(
    ("steps", "became"),
    [
        pytest.param((5.0,), "no connection within 0.05 s", id="never connected"),
        pytest.param((*TLS, 5.0), "no TLS within 0.05 s", id="no TLS"),
        pytest.param((*TLS, "tls_established_server", 0.3), "done", id="stands"),
        pytest.param((*TLS, "tls_failed_server", 0.3), "done", id="TLS failed"),
        pytest.param((*TLS, "server_disconnected", 0.3), "done", id="closed before its TLS"),
        pytest.param(("server_connect_error", 0.3), "done", id="refused"),
        pytest.param(("server_connected", 0.3), "done", id="a tunnel that is not opened"),
    ],
)
def test_limit(steps, became):
    """Each of connection and TLS has its time; who waits in vain is told what failed; what is over is not touched."""
    assert watched(steps) == became


def test_what_mitmproxy_forgets_is_closed(tctx):
    """A connection that is over is closed where mitmproxy has not done that; nobody else's is touched."""
    mine, other, gone = (Server(address=HOST) for _ in range(3))
    client, stranger = (
        Client(peername=("127.0.0.1", port), sockname=("127.0.0.1", 8080), timestamp_start=1.0) for port in (5, 6)
    )
    closed = []

    def transports(*servers):
        writers = {server: SimpleNamespace(close=lambda server=server: closed.append(server)) for server in servers}
        return {server: SimpleNamespace(writer=writer) for server, writer in writers.items()}

    handler = SimpleNamespace(client=client, transports=transports(mine, other))
    strange = SimpleNamespace(client=stranger, transports=transports(mine))
    tctx.master.addons.get("proxyserver").connections = {1: strange, 2: handler}
    limit = ConnectTimeout(lambda *_: True)
    for server in (mine, gone):
        limit.server_disconnected(ServerConnectionHookData(client=client, server=server))
    assert closed == [mine]
    assert list(handler.transports) == [other]
    assert list(strange.transports) == [mine]


def test_another_host_is_left_alone():
    """What is none of Copilot's waits as long as mitmproxy lets it."""
    assert watched((0.3,), ("example.org", 443)) == "done"
    assert watched((*TLS, 0.3), ("example.org", 443)) == "done"
    assert watched((0.3,), None) == "done"
