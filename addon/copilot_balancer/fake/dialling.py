"""How the proxy of a test or of the demo reaches the fake: the one function with which mitmproxy dials is replaced.

Only in this process, and only while ``dial`` lasts. Names, ports, Host, SNI and certificates stay those of the service:
rewriting the address in a hook would change all of them (docs/clients.md#running-a-client-in-a-test).
"""

import asyncio
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from mitmproxy.proxy import server

from copilot_balancer.fake.server import HOSTS, FakeCopilot


@dataclass(frozen=True)
class Faulty:
    """Hosts that cannot be spoken to; looked at anew with each connection."""

    refuse: Collection[str] = ()
    """Their connections fail."""
    swallow: Collection[str] = ()
    """Their connections are never answered."""
    mute: Collection[str] = ()
    """They are connected to, and say nothing: TLS does not begin."""


class _Dialling:
    """``asyncio`` as mitmproxy's server module sees it: the same, but for where some connections lead."""

    def __init__(self, port: int, hosts: Collection[str] | None, faulty: Faulty, deaf: int) -> None:
        self._port = port
        self._hosts = hosts
        self._faulty = faulty
        self._deaf = deaf

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def open_connection(
        self, host: str, port: int, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the fake where `host` is one of its hosts."""
        if host.lower() in self._faulty.refuse:
            raise ConnectionRefusedError(f"connection to {host}:{port} refused")
        if host.lower() in self._faulty.swallow:
            await asyncio.Event().wait()
        if host.lower() in self._faulty.mute:
            return await asyncio.open_connection("127.0.0.1", self._deaf, **options)
        if host == "127.0.0.1":  # a parent proxy of the test's
            return await asyncio.open_connection(host, port, **options)
        if self._hosts is None or host.lower() in self._hosts:
            return await asyncio.open_connection("127.0.0.1", self._port, **options)
        return await asyncio.open_connection(host, port, **options)


@contextmanager
def dial(
    to: FakeCopilot | int,
    *,
    everything: bool = False,
    faulty: Faulty = Faulty(),
) -> Iterator[None]:
    """Let mitmproxy, in this process, reach the fake (or the port of one) under the real names.

    Addresses, Host, SNI and certificates stay those of the service; only the one function that dials is replaced.

    Args:
        to: the fake, or the port of a fake that runs in another process.
        everything: lead every host here, not the fake's own alone.
        faulty: hosts that cannot be spoken to.

    """
    port, hosts = (to, HOSTS) if isinstance(to, int) else (to.port, to.hosts)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as deaf:  # nobody accepts here
        shim = _Dialling(port, None if everything else hosts, faulty, deaf.getsockname()[1])
        with patch.object(server, "asyncio", shim):
            yield
