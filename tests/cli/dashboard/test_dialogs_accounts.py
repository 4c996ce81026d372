"""Every key of the dashboard that decides about accounts, at two sizes, and what stands in accounts.json after it."""

import pytest

from copilot_balancer.cli.dashboard.dialogs import Choose, Form, Read
from support.dashboard_pilot import SIZES, filled, press, run, said, screen, settled, shown
from support.dashboards import NOW, SPARE, WORK, token

scene = pytest.fixture(filled)


def of(scene, account_id):
    return next(one for one in scene.decisions.accounts if one.id == account_id)


@SIZES
def test_account_keys(scene, size):
    """Use, on and off, clear: each key changes the account under the cursor in accounts.json, at once."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            await press(pilot, "u")
            assert scene.decisions.home_id == WORK
            await press(pilot, "e")
            assert not of(scene, WORK).enabled
            assert "○ work *" in screen(app)
            scene.now += 5
            await press(pilot, "e")
            assert (of(scene, WORK).enabled, of(scene, WORK).enabled_at) == (True, NOW + 5)
            await press(pilot, "c")
            assert of(scene, WORK).cleared == {"": NOW + 5}
            assert "● work *" in screen(app)
            assert said(app).endswith("work: nothing keeps it from serving")

    run(story())


def test_a_blocked_account_is_turned_on(scene):
    """On an account that GitHub blocked, the switch means on: it is enabled in the file already."""
    memory = scene.store.read_memory()
    memory.accounts[SPARE].blocked_at = NOW - 50
    scene.store.merge_memory(memory)

    async def story():
        async with shown(scene.env) as (app, pilot):
            assert "blocked by GitHub" in screen(app)
            await press(pilot, "down", "down", "e")
            assert of(scene, SPARE).enabled_at == NOW
            assert "blocked" not in screen(app)

    run(story())


@SIZES
def test_rename_and_priority(scene, size):
    """What is not allowed is said in the dialog, which stays; escape changes nothing."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            await press(pilot, "r")
            assert isinstance(app.screen, Form)
            await press(pilot, "backspace", *"...", "enter")
            assert "cannot be a label" in screen(app)
            await press(pilot, "escape")
            assert of(scene, WORK).label == "work"
            await press(pilot, "r", *"My Job", "enter")
            assert of(scene, WORK).label == "my-job"
            assert scene.decisions.routes[0].accounts == ("acme", "my-job")
            assert "my-job" in screen(app)
            await press(pilot, "r", *"home", "enter")
            assert "the label home is taken: choose another one" in screen(app)
            await press(pilot, "escape")
            await press(pilot, "p", *"x", "enter")
            assert "a whole number from 0 to 1000" in screen(app)
            await press(pilot, "backspace", "7")
            assert "a whole number from 0 to 1000" not in screen(app), "mended, so it is not said any more"
            await press(pilot, "enter")
            assert of(scene, WORK).priority == 7

    run(story())


@SIZES
def test_remove_wants_the_label(scene, size):
    """Without its label typed nothing is removed; after it, the account and its token are gone, and other rows are not."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            await press(pilot, "x", *"home", "enter")
            assert "that is not its label" in screen(app)
            await press(pilot, "escape")
            await press(pilot, "x")
            await pilot.click("#no")
            await settled(pilot)
            assert len(scene.decisions.accounts) == 4
            await press(pilot, "x", *"work")
            await pilot.click("#yes")
            await settled(pilot)
            assert [one.label for one in scene.decisions.accounts] == ["home", "acme", "old-seat"]
            assert scene.decisions.removed == {WORK: NOW}
            assert token("work").encode() not in scene.store.accounts_path.read_bytes()
            assert "until you revoke it" in said(app)
            assert app.account.label == "home"

    run(story())


@SIZES
def test_balancing_and_strategy(scene, size):
    """b turns balancing off and on; s chooses a strategy, or the settings'; the headline follows."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            scene.live.close()
            await press(pilot, "b")
            assert not scene.decisions.balancing
            assert "Balancing is off: only home serves" in screen(app)
            await press(pilot, "b")
            assert scene.decisions.balancing
            await press(pilot, "s")
            assert isinstance(app.screen, Choose)
            await press(pilot, "down", "enter")
            assert scene.decisions.strategy == "sticky"
            assert "balancing on, sticky" in screen(app)
            await press(pilot, "s")
            assert [line for line in screen(app).splitlines() if "● sticky" in line], "the one in force is marked"
            await press(pilot, "escape")
            assert scene.decisions.strategy == "sticky"
            await press(pilot, "s", "home", "enter")
            assert scene.decisions.strategy is None

    run(story())


@SIZES
def test_terms(scene, size):
    """Until GitHub's rules are accepted the notice says who serves; they are asked about once, then only shown."""
    scene.store.edit_decisions(lambda now: now.model_copy(update={"terms_accepted_at": None}))

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            assert "Only work serves until you accept GitHub's rules: press T" in screen(app)
            await press(pilot, "T")
            assert "One free account" in screen(app)
            await press(pilot, "n")
            assert scene.decisions.terms_accepted_at is None
            await press(pilot, "T", "y")
            assert scene.decisions.terms_accepted_at == NOW
            await press(pilot, "T")
            assert isinstance(app.screen, Read)
            await press(pilot, "escape")

    run(story())
