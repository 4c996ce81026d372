"""Connections to upstreams: how long one to a Copilot host may take, how many there may be, and that each is closed.

Laws of this file:

1. A connection to a Copilot host and its TLS have `SECONDS` each; mitmproxy waits as long as the system does. The
   failure is reported as mitmproxy reports its own: the task that opens and reads the connection is cancelled.
2. A client's HTTP/2 connection may have as many upstream connections as it has requests. mitmproxy allows five to one
   address: the sixth request waits until one of them is over, and a task that is cancelled while it waits reports
   nothing, so that its request hangs (mitmproxy 12.3.1, ``proxy/server.py``).
3. A connection that mitmproxy is done with is closed. It forgets one that it cancels while more data of it waits for
   the lock of ``server_event``: socket and buffers stayed for ever (mitmproxy 12.3.1, ``proxy/server.py``).
4. Nothing else is decided here: what a failed connection means for a request is the layer's and the pool's.
"""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Literal

from mitmproxy import ctx
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData

PRIVATE = {Proxyserver: ("connections",), ConnectionHandler: ("client", "max_conns", "transports")}
"""What we use of mitmproxy and it does not promise to keep; tested as ``layer.PRIVATE`` is."""

SECONDS = 10.0
"""For the connection, and again for its TLS."""


class _Unbound(asyncio.Semaphore):
    """Lets everybody through; in the place of mitmproxy's semaphore of five."""

    async def acquire(self) -> Literal[True]:
        return True

    def release(self) -> None:
        pass


class ConnectTimeout:
    """The hooks of our addon that concern upstream connections.

    Args:
        is_copilot: whether a host and port are ours to watch.

    """

    def __init__(self, is_copilot: Callable[[str, int], bool]) -> None:
        self._is_copilot = is_copilot
        self._tasks: weakref.WeakKeyDictionary[Connection, asyncio.Task[object]] = weakref.WeakKeyDictionary()
        """Who opens a connection and then reads it."""
        self._timers: weakref.WeakKeyDictionary[Connection, asyncio.TimerHandle] = weakref.WeakKeyDictionary()

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection is about to be opened, by the task that runs this hook."""
        task = asyncio.current_task()
        if task is not None and data.server.address and self._is_copilot(*data.server.address[:2]):
            self._tasks[data.server] = task
            for handler in _handlers_of(data.client):
                handler.max_conns[data.server.address] = _Unbound()  # the client's own limit on streams bounds them
            self._begin(data.server, "connection")

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """It stands."""
        self._end(data.server)

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """It failed."""
        self._end(data.server)
        self._tasks.pop(data.server, None)

    def tls_start_server(self, tls: TlsData) -> None:
        """Its TLS begins."""
        self._begin(tls.conn, "TLS")

    def tls_established_server(self, tls: TlsData) -> None:
        """Its TLS stands."""
        self._end(tls.conn)

    def tls_failed_server(self, tls: TlsData) -> None:
        """Its TLS failed."""
        self._end(tls.conn)

    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        """It is over."""
        self._end(data.server)
        self._tasks.pop(data.server, None)
        for handler in _handlers_of(data.client):
            if (forgotten := handler.transports.pop(data.server, None)) is not None:
                forgotten.writer.close()

    def _begin(self, connection: Connection, what: str) -> None:
        task = self._tasks.get(connection)
        if task is not None:
            loop = asyncio.get_running_loop()
            self._timers[connection] = loop.call_later(SECONDS, task.cancel, f"no {what} within {SECONDS:g} s")

    def _end(self, connection: Connection) -> None:
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()


def _handlers_of(client: Client) -> list[Any]:
    """What mitmproxy serves a client's connection with: one, or none any more."""
    return [one for one in ctx.master.addons.get("proxyserver").connections.values() if one.client is client]
