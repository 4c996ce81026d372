"""Connections to upstreams: how long one to a Copilot host may take, how many there may be, and that each is closed.

Laws of this file:

1. A connection to a Copilot host and its TLS have `SECONDS` each; mitmproxy waits as long as the system does. The
   failure is reported as mitmproxy reports its own: the task that opens and reads the connection is cancelled.
2. A client's HTTP/2 connection may have as many upstream connections as it has requests. mitmproxy allows five to one
   address: the sixth request waits until one of them is over, and a task that is cancelled while it waits reports
   nothing, so that its request hangs (mitmproxy 12.3.1, ``proxy/server.py``).
3. A connection that mitmproxy is done with is closed. It forgets one that it cancels while more data of it waits for
   the lock of ``server_event``: socket and buffers stayed for ever (mitmproxy 12.3.1, ``proxy/server.py``).
4. A path that is dead is noticed in about 20 seconds: the system probes a connection that is silent, and gives up data
   that is not acknowledged (``TCP_USER_TIMEOUT``, tcp(7)).
5. Of a host's addresses of both families the second one is tried after `SECOND_FAMILY` seconds (RFC 8305): where IPv6
   leads nowhere, IPv4 answers at once.
6. Nothing else is decided here: what a failed connection means for a request is the layer's and the pool's.
"""

import asyncio
import contextlib
import socket
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from mitmproxy import ctx
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection, Server
from mitmproxy.proxy import server
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData

PRIVATE = {Proxyserver: ("connections",), ConnectionHandler: ("client", "max_conns", "transports")}
"""What we use of mitmproxy and it does not promise to keep; tested as ``layer.PRIVATE`` is."""

SECONDS = 10.0
"""For the connection, and again for its TLS."""


SECOND_FAMILY = 0.25
"""RFC 8305, section 5."""

DEAD_AFTER = 20
"""Seconds after which a silent path is given up."""

_PROBES = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPALIVE": 10,
    "TCP_KEEPINTVL": 3,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 1000 * DEAD_AFTER,
}
"""Socket options by name; a system knows some of them (``TCP_KEEPALIVE`` is the idle time of macOS)."""


def _probe(connection: socket.socket | None) -> None:
    """Let the system notice that nobody is at the other end any more."""
    if connection is None:
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


class _Dialling:
    """``asyncio`` as mitmproxy's server module sees it, which dials both address families of a host."""

    open_connection = staticmethod(partial(asyncio.open_connection, happy_eyeballs_delay=SECOND_FAMILY))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def dial_both_families() -> None:
    """Let mitmproxy, in this process, try both address families of each host that it connects to."""
    if vars(server)["asyncio"] is asyncio:
        vars(server)["asyncio"] = _Dialling()


class _Unbound(asyncio.Semaphore):
    """Lets everybody through; in the place of mitmproxy's semaphore of five."""

    async def acquire(self) -> Literal[True]:
        return True

    def release(self) -> None:
        pass


class ConnectTimeout:
    """The hooks of our addon that concern upstream connections.

    Args:
        is_copilot: whether a host and port are Copilot's.
        is_watched: whether they are that, or a parent proxy's.

    """

    def __init__(
        self, is_copilot: Callable[[str, int], bool], is_watched: Callable[[str, int], bool] | None = None
    ) -> None:
        dial_both_families()
        self._is_copilot = is_copilot
        self._is_watched = is_watched or is_copilot
        self._tunnels: weakref.WeakKeyDictionary[Client, list[Connection]] = weakref.WeakKeyDictionary()
        """Connections to a parent proxy through which TLS has not begun."""
        self._tasks: weakref.WeakKeyDictionary[Connection, asyncio.Task[object]] = weakref.WeakKeyDictionary()
        """Who opens a connection and then reads it."""
        self._timers: weakref.WeakKeyDictionary[Connection, asyncio.TimerHandle] = weakref.WeakKeyDictionary()

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection is about to be opened, by the task that runs this hook."""
        task = asyncio.current_task()
        if task is not None and data.server.address and self._is_watched(*data.server.address[:2]):
            self._tasks[data.server] = task
            if not self._is_copilot(*data.server.address[:2]):
                self._tunnels.setdefault(data.client, []).append(data.server)
            for handler in _handlers_of(data.client):
                handler.max_conns[data.server.address] = _Unbound()  # the client's own limit on streams bounds them
            self._begin(data.server, "connection")

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """It stands."""
        self._end(data.server)
        if data.server in self._tasks:
            for handler in _handlers_of(data.client):
                io = handler.transports.get(data.server)
                _probe(io.writer.get_extra_info("socket") if io is not None and io.writer is not None else None)

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """It failed."""
        self._end(data.server)
        self._tasks.pop(data.server, None)

    def tls_start_server(self, tls: TlsData) -> None:
        """Its TLS begins: over HTTP/1.1, also through a parent proxy, where ``server_connect`` sees the parent only.

        Over HTTP/2 mitmproxy never times out, and a graceful GOAWAY cuts running streams (mitmproxy 12.3.1).
        """
        conn = tls.conn
        if isinstance(conn, Server) and conn.address and self._is_copilot(*conn.address[:2]):
            conn.alpn_offers = [b"http/1.1"]
            if conn.via is not None and conn not in self._tasks and (outer := self._outer(tls.context.client)):
                self._tasks[conn] = outer
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

    def _outer(self, client: Client) -> asyncio.Task[object] | None:
        """The task of the newest connection to a parent proxy through which no TLS of an upstream has begun."""
        waiting = self._tunnels.get(client, [])
        return self._tasks.get(waiting.pop()) if waiting else None

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
