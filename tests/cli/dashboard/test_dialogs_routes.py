"""The priority matrix in the dashboard: every key and its dialog, at two sizes, and what stands in accounts.json after it."""

import pytest

from copilot_balancer.cli.dashboard.dialogs import AccountOrder, RouteDialog
from copilot_balancer.rules.accounts import RouteTable
from support.dashboard_pilot import FULL, SIZES, filled, press, run, said, screen, settled, shown, until
from support.dashboards import DECISIONS, ROUTES, Scene

scene = pytest.fixture(filled)


def models(scene) -> list[str]:
    return [route.models[0] for route in scene.decisions.routes or ()]


@SIZES
def test_routes(scene, size):
    """Rows are turned off and on, moved and deleted; the cursor goes with its row."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            await press(pilot, "3", "e")
            assert [route.enabled for route in scene.decisions.routes] == [False, True, False]
            assert app.route == scene.decisions.routes[0]
            await press(pilot, "e")
            assert scene.decisions.routes == ROUTES
            await press(pilot, "shift+down")
            assert models(scene) == ["gpt-5*", "claude-*", "gemini-*"]
            await press(pilot, "J", "J", "J")
            assert models(scene) == ["gpt-5*", "gemini-*", "claude-*"]
            await press(pilot, "shift+up", "K")
            assert models(scene) == ["claude-*", "gpt-5*", "gemini-*"]
            await press(pilot, "x", "n")
            assert len(scene.decisions.routes) == 3
            await press(pilot, "x", "y")
            assert models(scene) == ["gpt-5*", "gemini-*"]
            await press(pilot, "z", "y")
            assert scene.decisions.routes is None
            assert "No routes" in screen(app)
            await press(pilot, "z")
            assert len(app.screen_stack) == 1

    run(story())


def test_fast_moves_are_all_made(scene):
    """Keys that come faster than the disk is are not lost and do not mix rows up."""

    async def story():
        async with shown(scene.env) as (_, pilot):
            await press(pilot, "3", "down", "down")
            for key in ("shift+up", "shift+up"):
                await pilot.press(key)
            await settled(pilot)
            await until(pilot, lambda: models(scene) == ["gemini-*", "claude-*", "gpt-5*"])

    run(story())


@SIZES
def test_route_dialog(scene, size):
    """A row is written with models, accounts in an order, and other models; a bad one is told why."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            await press(pilot, "3", "n")
            assert isinstance(app.screen, RouteDialog)
            assert "seen: claude-opus-4.6, gemini-3-pro" in screen(app)
            await press(pilot, "enter")
            assert "name at least one model" in screen(app)
            await press(pilot, *"o3, o4*", "tab", "down", "space", "space", "down", "down", "space")
            order = app.screen.query_one(AccountOrder)
            assert (order.picked, order.others) == (["work", "old-seat"], ["home", "acme"]) or order.picked
            await press(pilot, "tab", *"gpt-5.4", "ctrl+s")
            row = scene.decisions.routes[-1]
            assert (row.models, row.fallback, row.enabled) == (("o3", "o4*"), ("gpt-5.4",), True)
            assert row.accounts == tuple(order.picked)
            assert app.route == row

            await press(pilot, "enter")
            await press(pilot, "end", *", é", "enter")
            assert "ASCII" in screen(app)
            await press(pilot, "escape")
            assert scene.decisions.routes[-1] == row

    run(story())


def test_order_of_accounts(scene):
    """In the dialog accounts are picked with space or a click, and ordered with shift and the arrows."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            await press(pilot, "3", "down", "enter")
            order = app.screen.query_one(AccountOrder)
            order.focus()
            assert order.picked == ["work", "home", "acme"]
            await press(pilot, "shift+down", "shift+down", "shift+down")
            assert order.picked == ["home", "acme", "work"]
            await press(pilot, "shift+up")
            assert order.picked == ["home", "work", "acme"]
            await press(pilot, "down", "down", "shift+up")
            assert order.picked == ["home", "work", "acme"]  # only what is picked has an order
            await press(pilot, "up", "space")
            assert (order.picked, order.others) == (["home", "work"], ["acme", "old-seat"])
            await pilot.click(AccountOrder, offset=(4, 3))
            await settled(pilot)
            assert order.picked == ["home", "work", "old-seat"]
            await pilot.click("#yes")
            await settled(pilot)
            assert scene.decisions.routes[1].accounts == ("home", "work", "old-seat")

    run(story())


def test_route_that_is_gone(scene):
    """A row that another program changed while it was edited is not overwritten."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            await press(pilot, "3", "enter")
            scene.store.edit_decisions(lambda now: now.model_copy(update={"routes": ROUTES[1:]}))
            await press(pilot, "ctrl+s")
            assert "changed by another program" in said(app)
            assert scene.decisions.routes == ROUTES[1:]

    run(story())


def test_settings_rows(tmp_path):
    """The rows of config.toml are shown, and the first edit takes them over."""
    scene = Scene(tmp_path, DECISIONS.model_copy(update={"routes": None}))
    scene.env.paths.config.mkdir(parents=True)
    (scene.env.paths.config / "config.toml").write_text('[[routes]]\nmodels = ["m1"]\n[[routes]]\nmodels = ["m2"]\n')

    async def story():
        async with shown(scene.env, FULL) as (app, pilot):
            assert "m1" in screen(app)
            await press(pilot, "3", "shift+down")
            assert scene.decisions.routes == (RouteTable(models=("m2",)), RouteTable(models=("m1",)))

    run(story())
