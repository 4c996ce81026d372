"""A mitmproxy script that `run`, `web`, `console` and `exec` load beside the addon.

Laws of this file:

1. Connections are not logged (connect, disconnect, TLS details at level INFO) unless `VERBOSE` is set; warnings are.
2. A proxy that `exec` started ends when the pipe `ALIVE` ends: when neither `exec` nor its client is running, however
   they ended, SIGKILL included. The write end is never written to.
3. Nothing here touches a flow.
"""

import asyncio
import logging
import os

ALIVE = "COPILOT_BALANCER_ALIVE"
"""Environment variable: the number of the read end of a pipe that `exec` and its client hold open."""
VERBOSE = "COPILOT_BALANCER_VERBOSE"
"""Environment variable: set by ``--verbose``."""

QUIET = ("mitmproxy.proxy.server", "mitmproxy.addons.script")
"""Loggers of mitmproxy that say at level INFO what happens to each connection, and which scripts are loaded."""


class Companion:
    """Sets the log level of `QUIET`, and ends mitmproxy with the programs that hold `ALIVE` open."""

    def __init__(self) -> None:
        if not os.environ.get(VERBOSE):
            for name in QUIET:
                logging.getLogger(name).setLevel(logging.WARNING)

    def running(self) -> None:
        """Watch the pipe, if there is one."""
        number = os.environ.get(ALIVE, "")
        if number.isdigit():
            asyncio.get_running_loop().add_reader(int(number), self._ended, int(number))

    def _ended(self, handle: int) -> None:
        from mitmproxy import ctx  # noqa: PLC0415 - the commands import this file for its names alone

        asyncio.get_running_loop().remove_reader(handle)
        ctx.master.shutdown()


addons = [Companion()] if __name__.startswith("__mitmproxy_script__") else []
