"""The script beside the addon: what is not logged, and when a proxy of `exec` ends."""

import asyncio
import logging
import os
from types import SimpleNamespace

import pytest
from mitmproxy import ctx

from copilot_balancer.cli.clients.companion import ALIVE, QUIET, VERBOSE, Companion


@pytest.fixture
def levels():
    """The loggers of mitmproxy, as they were before."""
    before = {name: logging.getLogger(name).level for name in QUIET}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(("verbose", "logged"), [("", False), ("1", True)])
def test_connections_are_not_logged(monkeypatch, levels, verbose, logged):
    """What happens to connections is logged only with --verbose; warnings of the same loggers are, always."""
    monkeypatch.setenv(VERBOSE, verbose)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET)
    Companion()
    connections = logging.getLogger("mitmproxy.proxy.server")
    assert (connections.level == logging.NOTSET) is logged
    assert connections.isEnabledFor(logging.WARNING)
    assert "mitmproxy.proxy.server" in QUIET


@pytest.mark.parametrize("ended", [True, False])
def test_the_end_of_the_pipe(monkeypatch, levels, ended):
    """The proxy shuts down when the last write end of the pipe is closed, and not before."""
    read, write = os.pipe()
    other = os.dup(write)  # the client's
    monkeypatch.setenv(ALIVE, str(read))
    called = []
    monkeypatch.setattr(ctx, "master", SimpleNamespace(shutdown=lambda: called.append(1)), raising=False)

    async def run():
        Companion().running()
        os.close(write)
        if ended:
            os.close(other)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert called == ([1] if ended else [])
    os.close(read)
    if not ended:
        os.close(other)


@pytest.mark.parametrize("value", ["", "x", "-1"])
def test_without_a_pipe(monkeypatch, levels, value):
    """A proxy that nobody ties to a client watches nothing."""
    monkeypatch.setenv(ALIVE, value)

    async def run():
        Companion().running()

    asyncio.run(run())
