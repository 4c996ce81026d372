"""Logging in inside the dashboard, against a scripted GitHub: nothing is stored before the user has agreed."""

import threading
from collections import deque
from dataclasses import replace

import pytest

from copilot_balancer.cli.dashboard.app import Dashboard
from copilot_balancer.cli.dashboard.dialogs import CodeDialog, Confirm, Form
from copilot_balancer.fake.answers import FakeAccount
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.github.device_flow import Show
from support.command_line import CommandLine, token
from support.dashboard_pilot import COMPACT, SIZES, filled, press, run, said, screen, settled, shown, until
from support.dashboards import ACCOUNTS

scene = pytest.fixture(filled)

# ── logging in ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def home(tmp_path):
    return CommandLine(tmp_path)


def somebody(home: CommandLine, name: str, *polls, host: str = "github.com") -> FakeLogin:
    made = FakeLogin(FakeAccount("x"), token(name), deque(polls or ["authorization_pending"]))
    home.logins[host] = made
    return made


class Gate:
    """Waits of a login that pass when the test says so."""

    def __init__(self, home: CommandLine) -> None:
        self.open, self.home = threading.Event(), home

    def sleep(self, seconds: float) -> None:
        self.open.wait(20)
        self.home.env.sleep(seconds)


@SIZES
def test_add(home, size):
    """The code is shown, opening and copying happen only on request, and nothing is stored before the user has agreed."""
    somebody(home, "Work")
    gate = Gate(home)
    env = replace(home.env, sleep=gate.sleep)

    async def story():
        async with shown(env, size) as (app, pilot):
            await press(pilot, "a", "enter")
            await until(pilot, lambda: isinstance(app.screen, CodeDialog) and app.screen.shown is not None)
            assert "https://github.com/login/device" in screen(app)
            assert "ABCD-1234" in screen(app)
            assert home.opened == []
            await press(pilot, "c")
            assert "clipboard" in screen(app)
            await press(pilot, "o")
            assert home.opened == ["https://github.com/login/device"]
            assert "The page was opened" in screen(app)
            gate.open.set()
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            assert "Logged in as octocat on github.com, plan business." in screen(app)
            assert home.decisions.accounts == ()
            await press(pilot, "y")
            await until(pilot, lambda: "Added account octocat" in said(app))
            assert home.decisions.accounts[0].token.get_secret_value() == token("Work")
            assert app.account.label == "octocat"
            assert env.store.read_memory().accounts.keys() == {"github.com:1"}

    run(story())


def test_second_account_asks_for_the_terms(home):
    """A second account shows GitHub's rules and asks once; with a no, only the first one serves."""
    home.run("accounts", "import", "--from", "stdin", "--label", "first", typed=token("Dog"))
    somebody(home, "Work")

    async def story():
        async with shown(home.env) as (app, pilot):
            await press(pilot, "a", "tab", *"My Job", "enter")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await press(pilot, "y")
            await until(pilot, lambda: "GitHub's rules" in str(app.screen.query(".box").first().border_title))
            await press(pilot, "escape")
            assert [one.label for one in home.decisions.accounts] == ["first", "my-job"]
            assert home.decisions.terms_accepted_at is None
            assert "Only first serves until you accept" in screen(app)

    run(story())


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        pytest.param(("tab", *"Work", "enter"), "the label work is taken", id="taken label"),
        pytest.param((*"evil.com", "enter"), "is not a login host", id="foreign host"),
        pytest.param(("tab", *"!!!", "enter"), "cannot be a label", id="no label"),
    ],
)
def test_add_says_what_is_wrong(scene, keys, wrong):
    """A host or a label that cannot be is told before anybody is asked."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            await press(pilot, "a", *keys)
            assert wrong in " ".join(screen(app).split())
            assert isinstance(app.screen, Form)
            await press(pilot, "escape")

    run(story())


def test_not_agreed(home):
    """Who does not agree has stored nothing, and is told that GitHub knows the token."""
    somebody(home, "Work")

    async def story():
        async with shown(home.env) as (app, pilot):
            await press(pilot, "a", "enter")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await press(pilot, "n")
            assert "Nothing was stored" in said(app)
            assert home.decisions.accounts == ()

    run(story())


def test_closed_while_waiting(home):
    """Closing the dialog ends the wait, and whoever types the code afterwards logs nobody in."""
    login = somebody(home, "Work", *["authorization_pending"] * 50)
    gate = Gate(home)
    env = replace(home.env, sleep=gate.sleep)

    async def story():
        async with shown(env) as (app, pilot):
            await press(pilot, "a", "enter")
            await until(pilot, lambda: isinstance(app.screen, CodeDialog) and app.screen.shown is not None)
            while isinstance(app.screen, CodeDialog):
                await pilot.press("escape")
                await pilot.pause(0.01)
            gate.open.set()
            await until(pilot, lambda: "Nobody was logged in" in said(app))
            assert login.polled_at == []
            assert home.decisions.accounts == ()

    run(story())


def test_quitting_while_waiting(home):
    """A dashboard that is left does not wait for a login."""
    somebody(home, "Work", *["authorization_pending"] * 50)
    slept = []

    async def story():
        app = Dashboard(
            replace(home.env, sleep=lambda seconds: slept.append(seconds) or threading.Event().wait(0.01)), every=None
        )
        async with app.run_test(size=COMPACT) as pilot:
            await press(pilot, "a", "enter")
            await until(pilot, lambda: bool(slept))

    run(story())
    assert home.decisions.accounts == ()
    assert len(slept) < 1000


@pytest.mark.parametrize(
    ("polls", "shown_text"),
    [(["access_denied"], "the login was refused"), (["expired_token"], "nobody typed the code in time")],
)
def test_refused_login(home, polls, shown_text):
    """A login that GitHub refuses is one sentence, and the dialog is gone."""
    somebody(home, "Work", *polls)

    async def story():
        async with shown(home.env) as (app, pilot):
            await press(pilot, "a", "enter")
            await until(pilot, lambda: shown_text in said(app))
            assert len(app.screen_stack) == 1

    run(story())


def test_second_free_account(home):
    """A second account on Copilot Free is refused, as by the command."""
    home.run("accounts", "import", "--from", "stdin", typed=token("Free"))
    somebody(home, "Free2")

    async def story():
        async with shown(home.env) as (app, pilot):
            await press(pilot, "a", "enter")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await press(pilot, "y")
            await until(pilot, lambda: "one free account per person" in said(app))
            assert len(home.decisions.accounts) == 1

    run(story())


def test_login_again(home):
    """Logging in again renews the token of the same person, and never makes an account another person's."""
    home.run("accounts", "import", "--from", "stdin", "--label", "job", typed=token("Work"))
    somebody(home, "Dog")

    async def story():
        async with shown(home.env) as (app, pilot):
            await press(pilot, "l")
            await until(pilot, lambda: "who is somebody else" in said(app))
            somebody(home, "Work")
            await press(pilot, "l")
            await until(pilot, lambda: "Refreshed account job" in said(app))
            assert [one.label for one in home.decisions.accounts] == ["job"]

    run(story())


def test_login_of_nobody(scene):
    """An account that nobody verified cannot be logged in again."""
    scene.store.edit_decisions(lambda now: now.with_account(ACCOUNTS[0].model_copy(update={"login": None})))

    async def story():
        async with shown(scene.env) as (app, pilot):
            await press(pilot, "l")
            assert "nobody has verified whose account work is" in said(app)

    run(story())


def test_no_browser_no_clipboard(scene):
    """Where no browser opens and no clipboard takes the code, the dialog says so."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            dialog = CodeDialog("github.com", lambda _: False, lambda _: True)
            app.push_screen(dialog)
            await settled(pilot)
            await pilot.press("o", "c")  # before there is a code
            dialog.show_code(Show("https://github.com/login/device", "ABCD-1234", 900))
            await settled(pilot)
            await pilot.click("#open")
            await settled(pilot)
            assert "No browser could be opened." in screen(app)
            await pilot.click("#copy")
            await settled(pilot)
            assert "The code is in the clipboard." in screen(app)
            await pilot.click("#no")
            await settled(pilot)
            assert len(app.screen_stack) == 1

    run(story())
