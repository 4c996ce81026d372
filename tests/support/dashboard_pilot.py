"""The dashboard under Textual's pilot: started, pressed, settled and read, without waiting for any clock."""

import asyncio
from contextlib import asynccontextmanager
from unittest.mock import patch

import pytest
from textual.widgets import Input

from copilot_balancer.cli.dashboard.app import Dashboard
from copilot_balancer.cli.env import Env
from support.dashboards import ZONE, Scene

COMPACT, FULL = (80, 24), (160, 48)
SIZES = pytest.mark.parametrize("size", [COMPACT, FULL], ids=["compact", "full"])


def filled(tmp_path):
    """For ``scene = pytest.fixture(filled)``: a store with everything in it."""
    made = Scene(tmp_path).filled()
    yield made
    made.live.close()


async def give_way(*_) -> None:
    """Textual's own wait watches the CPU until it is idle, which a busy machine never is; `settled` knows better."""
    await asyncio.sleep(0)


class Watched(Dashboard):
    """Remembers what it said, which goes from the screen by the clock."""

    def notify(self, message, **more):
        self.told = [*getattr(self, "told", []), message]
        super().notify(message, **more)


@asynccontextmanager
async def shown(env: Env, size=COMPACT, *, toasts=False, **more):
    app = Watched(env, every=None, zone=ZONE, **more)
    app.animation_level = "none"
    with patch("textual.app.wait_for_idle", give_way), patch("textual.pilot.wait_for_idle", give_way):
        async with app.run_test(size=size, notifications=toasts) as pilot:
            await settled(pilot)
            yield app, pilot
            assert "Canary" not in screen(app)


def run(story) -> None:
    asyncio.run(story)


def screen(app) -> str:
    """What stands on the screen, as plain text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips) + "\n"


async def settled(pilot) -> None:
    """Until nothing is under way but a dialog that waits for its answer, and the screen stays as it is."""
    app, before = pilot.app, ""
    for _ in range(2000):
        await pilot.pause(1 / 60)  # Textual lays out at this pace
        if not app.is_running:
            return
        still = not (app._editing.locked() or app._looking.locked())
        if still and (
            app.screen.query(".box") or (any(one.size for one in app.screen.query("FooterKey")) and idle(app))
        ):
            now = screen(app)
            if now == before:
                return
            before = now


def idle(app) -> bool:
    return all(one.is_finished for one in app.workers)


async def press(pilot, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        if len(key) > 1 or not isinstance(pilot.app.focused, Input):  # what is typed needs no pause
            await settled(pilot)


async def until(pilot, condition) -> None:
    for _ in range(2000):
        if condition():
            await settled(pilot)
            return
        await pilot.pause()
        await asyncio.sleep(0.005)
    raise AssertionError("it never came\n" + screen(pilot.app))


def said(app) -> str:
    return " | ".join(getattr(app, "told", []))
