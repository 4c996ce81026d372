"""A mitmproxy script for tests alone: in this process, every connection leads to the fake at $FAKE_PORT.

Hosts in $FAKE_REFUSES refuse to be connected to, hosts in $FAKE_SWALLOWS never answer.
"""

import os
import ssl

import httpx
from httpcore._backends.sync import SyncBackend

from copilot_balancer.fake import dial
from copilot_balancer.github import GitHub

dialling = dial(
    int(os.environ["FAKE_PORT"]),
    everything=True,
    refuse=os.environ.get("FAKE_REFUSES", "").split(),
    swallow=os.environ.get("FAKE_SWALLOWS", "").split(),
)
dialling.__enter__()


# GitHub itself, which the addon asks with httpx, is the fake as well


class _ToTheFake(SyncBackend):
    def connect_tcp(self, host, port, *args, **more):
        return super().connect_tcp("127.0.0.1", int(os.environ["FAKE_PORT"]), *args, **more)


def _transport() -> httpx.HTTPTransport:
    transport = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=os.environ["FAKE_CA"]))
    transport._pool._network_backend = _ToTheFake()
    return transport


_init = GitHub.__init__
GitHub.__init__ = lambda self, transport=None, **more: _init(self, transport or _transport(), **more)
