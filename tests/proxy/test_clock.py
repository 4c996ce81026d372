"""The clock that counts sleep."""

import sys
import time

import pytest

from copilot_balancer.proxy import clock


@pytest.mark.parametrize(
    ("platform", "name"), [("linux", "CLOCK_BOOTTIME"), ("darwin", "CLOCK_MONOTONIC"), ("win32", None)]
)
def test_the_systems_own_clock(platform, name, monkeypatch):
    """Linux and macOS have a clock that counts sleep; where a system has none, the monotonic one is used."""
    if name is not None:
        monkeypatch.setattr(time, name, 77, raising=False)
        monkeypatch.setattr(time, "clock_gettime", {77: 5.0}.__getitem__, raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 3.0)
    assert clock._counting_sleep(platform)() == (5.0 if name else 3.0)


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME is Linux's")
def test_this_systems_clock():
    """It is the time since this machine was started, sleep included."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.steady() <= time.clock_gettime(time.CLOCK_BOOTTIME)
