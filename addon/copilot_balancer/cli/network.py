"""The way that the commands' own questions to GitHub take: the settings' parent proxy or the environment's, never us.

The law of this file: nothing is read before a question is asked; settings that cannot be read leave the environment's.
"""

import os
from collections.abc import Iterator

from copilot_balancer import config
from copilot_balancer.cli.clients.client import PORT
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.github.parent_proxy import WayOut, way_out
from copilot_balancer.store.running_proxies import read_live
from copilot_balancer.store.store import paths

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def commands_way() -> WayOut:
    """The way out for a question that a command asks.

    Raises:
        InvalidInput: the CA that the settings name cannot be used.

    """
    where = paths(os.environ)
    try:
        settings = config.load(where.config, None, {}).settings
    except InvalidInput:
        settings = config.Settings()  # the command itself tells what is wrong with them
    way = way_out(settings.upstream_proxy, settings.ca, os.environ)
    return way.listening_on(_ours(default=way.source == "HTTPS_PROXY"))


def _ours(*, default: bool) -> Iterator[tuple[str, int]]:
    """Addresses of the proxies that run, and of the one that `env` and `exec` name by default."""
    ports = {PORT} if default else set()
    try:
        addresses = [one for proxy in read_live(paths(os.environ).state) for one in proxy.listening]
    except BalancerError:
        addresses = []
    ports.update(int(port) for _, _, port in (one.rpartition(":") for one in addresses) if port.isdigit())
    return ((host, port) for port in ports for host in _LOOPBACK)
