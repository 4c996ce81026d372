"""A mitmproxy script for tests alone: in this process, every connection leads to the fake at $FAKE_PORT.

Hosts in $FAKE_REFUSES refuse to be connected to, those in $FAKE_SWALLOWS never answer, those in $FAKE_MUTE say nothing.
"""

import os
import ssl

import httpx
from httpcore._backends.sync import SyncBackend

from copilot_balancer.fake.dialling import Faulty, dial
from copilot_balancer.github.api import GitHub

faulty = Faulty(*(os.environ.get(name, "").split() for name in ("FAKE_REFUSES", "FAKE_SWALLOWS", "FAKE_MUTE")))
dialling = dial(int(os.environ["FAKE_PORT"]), everything=True, faulty=faulty)
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
