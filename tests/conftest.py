"""What every test stands on: a home of its own, and a real mitmproxy in front of the embedded fake."""

import os
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from copilot_balancer.fake.answers import FakeAccount
from copilot_balancer.fake.server import FakeCopilot, running
from copilot_balancer.github import https
from support.proxies import PERSONAL, SPARE, WORK, Proxy, proxies

pytest_plugins = ["support.canary"]
"""The last step of each run: no token stands in anything that was written."""

if hasattr(time, "tzset"):  # moments are told on this computer's clock
    os.environ["TZ"] = "UTC"
    time.tzset()

settings.register_profile("small", deadline=None)
settings.load_profile("small")


@pytest.fixture(autouse=True)
def hermetic(tmp_path, monkeypatch):
    """No test sees or touches the home of whoever runs it."""
    monkeypatch.setenv("COPILOT_BALANCER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    https.use(None)  # an addon of another test has set the way out of its process
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("XDG_"):
            monkeypatch.delenv(name)


@pytest.fixture
def fake() -> Iterator[FakeCopilot]:
    """Three accounts that serve; a test changes `fake.accounts[TOKEN]`."""
    accounts = {WORK: FakeAccount("work"), PERSONAL: FakeAccount("personal"), SPARE: FakeAccount("spare")}
    with running(accounts) as server:
        yield server


@pytest.fixture
def start(fake, tmp_path) -> Iterator[Callable[..., Proxy]]:
    """Start `mitmdump -s addon/balancer.py` (or mitmweb) with these accounts and arguments; the test's end ends it."""
    with proxies(fake, tmp_path) as starting:
        yield starting


@pytest.fixture
def proxy(start) -> Proxy:
    """The usual one: three accounts, terms accepted."""
    return start()
