"""The dashboard under Textual's pilot: what it shows at which size, and how it is started."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from textual.worker import WorkerFailed

from copilot_balancer.cli.dashboard import command
from copilot_balancer.cli.dashboard.app import Dashboard
from copilot_balancer.cli.dashboard.themes import DARK, LIGHT
from copilot_balancer.errors import BalancerError
from copilot_balancer.rules.accounts import Decisions
from support.dashboard_pilot import COMPACT, FULL, SIZES, filled, press, run, said, screen, settled, shown, until
from support.dashboards import ACCOUNTS, HOME, NOW, ZONE, Scene, attempt, event

scene = pytest.fixture(filled)

# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────


@SIZES
def test_screens(scene, size):
    """The whole screen, character by character; `GOLDEN=write` writes the files anew."""

    async def story():
        async with shown(scene.env, size) as (app, _):
            path = Path(__file__).with_name(f"test_app_{size[0]}x{size[1]}.txt")
            if os.environ.get("GOLDEN") == "write":
                path.write_text(screen(app))
            assert screen(app) == path.read_text()

    run(story())


@pytest.mark.parametrize("size", [(20, 6), (60, 15), (149, 31), (150, 32), (250, 70)], ids=str)
def test_any_size(scene, size):
    """However small or large the terminal is, the accounts stand on the screen and no line breaks."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            for key in "1234":
                await press(pilot, key)
            lines = screen(app).splitlines()
            assert len(lines) == size[1]
            assert any("work" in line and "rests" in line for line in lines) or size[0] < 40, screen(app)

    run(story())


def test_resizing(scene):
    """A terminal that grows shows everything at once; one that shrinks shows the accounts and one other pane."""

    async def story():
        async with shown(scene.env, COMPACT) as (app, pilot):
            await press(pilot, "3")
            assert "claude-*" in screen(app)
            assert "12:32:09" not in screen(app)
            await pilot.resize_terminal(*FULL)
            await settled(pilot)
            assert {"claude-*", "12:32:09"} <= set(screen(app).split())
            await pilot.resize_terminal(*COMPACT)
            await settled(pilot)
            assert "claude-*" in screen(app)
            assert "12:32:09" not in screen(app)

    run(story())


def test_nothing_yet(tmp_path):
    """Without accounts, requests and routes each pane says what to do next."""

    async def story():
        empty = Scene(tmp_path, Decisions())
        async with shown(empty.env) as (app, pilot):
            text = screen(app)
            assert "No account is stored yet." in text
            assert "Press a to log in at GitHub with a code." in text
            assert "No request has come yet, and no proxy runs." in text
            assert "copilot-balancer exec -- opencode" in text
            await press(pilot, "3")
            assert "Press n to send models to accounts of your choice." in screen(app)
            await press(pilot, "4")
            assert "Nothing is chosen." in screen(app)
            await press(pilot, "u", "r", "e", "c", "p", "x", "l")  # nothing to do it to, and nothing happens
            assert len(app.screen_stack) == 1

    run(story())


def test_it_is_live(scene):
    """What changes in the files is on the screen after the next look: requests, rests that run out, other programs' edits."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            scene.now += 200
            await app.look()
            await pilot.pause()
            assert "rests 1:12 session limit" in screen(app)
            scene.now += 100
            scene.add(event(99, -300, "gpt-9", attempt("work", "healed")))
            scene.store.edit_decisions(lambda now: now.with_account(ACCOUNTS[2].model_copy(update={"label": "other"})))
            await app.look()
            await pilot.pause()
            text = screen(app)
            assert "rests" not in text
            assert "● other" in text
            newest = next(line for line in text.splitlines() if "✓" in line)
            assert newest.split()[1:5] == ["✓", "12:37:11", "work", "gpt-9"]

    run(story())


def test_looking_again_and_again(scene):
    """With an interval it looks by itself, and leaves a look out while one is under way."""

    async def story():
        app = Dashboard(scene.env, every=0.02, zone=ZONE)
        async with app.run_test(size=COMPACT) as pilot:
            scene.add(event(99, -1, "gpt-9", attempt("work", "w")))
            await until(pilot, lambda: "gpt-9" in screen(app))
            async with app._looking:
                await app._look_again()  # would wait for ever

    run(story())


def test_unreadable_files(scene):
    """A file that cannot be used is told in one sentence; what was seen last stays, and an edit changes nothing."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            whole = scene.store.accounts_path.read_bytes()
            scene.store.accounts_path.write_text("{")
            await app.look()
            await pilot.pause()
            assert "accounts.json:itisnotJSON" in "".join(screen(app).split())  # wherever its path made it wrap
            assert "rests 4:32" in screen(app)
            assert screen(app).splitlines()[0].endswith("as of 12:32:11")
            await press(pilot, "b")
            assert "it is not JSON" in said(app)
            assert scene.store.accounts_path.read_text() == "{"
            scene.store.accounts_path.write_bytes(whole)
            await app.look()
            await pilot.pause()
            assert "not JSON" not in screen(app)
            assert "as of" not in screen(app)

    run(story())


def test_a_bug_shows_no_token(scene, capsys):
    """A bug ends the dashboard with a traceback in which no variable's value stands: a token may be one."""

    async def bug():
        token = "gho-in-a-variable".upper()
        raise RuntimeError(f"a bug near {len(token)} characters")

    async def story():
        app = Dashboard(scene.env, every=None, zone=ZONE)
        async with app.run_test() as pilot:
            app.run_worker(bug())
            while app.is_running:
                await pilot.pause(0.01)

    with pytest.raises(WorkerFailed):
        run(story())
    told = capsys.readouterr()
    assert "RuntimeError: a bug near 17 characters" in told.err
    assert "GHO-IN-A-VARIABLE" not in told.out + told.err


def test_what_was_done_needs_few_lines(scene):
    """A toast has no empty lines, and a long address in it is not broken: it stands over what is still needed."""

    async def story():
        async with shown(scene.env, COMPACT, toasts=True) as (app, pilot):
            app.notify("work is the home account", timeout=1000)
            await until(pilot, lambda: "work is the home account" in screen(app))
            assert sum("▌" in line for line in screen(app).splitlines()) == 1
            app.notify("Revoke it there: https://github.com/settings/applications", timeout=1000)
            await until(pilot, lambda: "https://github.com/settings/applications " in screen(app))

    run(story())


def test_unreadable_from_the_start(tmp_path):
    """The dashboard starts even when nothing can be read, and says why."""
    scene = Scene(tmp_path)
    scene.store.accounts_path.write_text("")

    async def story():
        async with shown(scene.env, FULL) as (app, pilot):
            assert "it is empty" in screen(app)
            await press(pilot, "u", "b", "s", "T", "3", "n", "z", "x", "e", "shift+up", "enter")
            assert len(app.screen_stack) == 1

    run(story())


def test_unreadable_events(scene, monkeypatch):
    """Requests that cannot be read hide no account."""

    def fail(*_):
        raise BalancerError("events.jsonl: no")

    monkeypatch.setattr("copilot_balancer.cli.dashboard.data.events", fail)

    async def story():
        async with shown(scene.env) as (app, _):
            assert "events.jsonl: no" in screen(app)
            assert "rests 4:32" in screen(app)

    run(story())


def test_history(scene):
    """What was left while the dashboard ran is plotted in the details of the account."""

    async def story():
        async with shown(scene.env, FULL) as (app, pilot):
            await press(pilot, "down")
            for percent in (40.0, 20.0):
                scene.now += 60
                scene.quota(HOME, "premium", percent)
                await app.look()
            await pilot.pause()
            assert "premium, the last 2:00" in screen(app)
            assert app.history.points[HOME, "premium"] == [(NOW, 68), (NOW + 60, 40), (NOW + 120, 20)]
            assert (HOME, "chat") not in app.history.points

    run(story())


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_command_without_textual(scene, monkeypatch):
    """Without Textual one line says how to get it; another missing module is a bug."""
    for name in ("textual", "rich", "other"):
        monkeypatch.delitem(sys.modules, "copilot_balancer.cli.dashboard.app", raising=False)

        class Missing:
            @staticmethod
            def find_spec(found, *_, name=name):
                if found == "copilot_balancer.cli.dashboard.app":
                    raise ModuleNotFoundError(f"No module named {name}", name=f"{name}.app")

        monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
        result = CliRunner().invoke(command.dashboard, [], obj=scene.env)
        if name == "other":
            assert isinstance(result.exception, ModuleNotFoundError)
        else:
            install = f"{shlex.quote(sys.executable)} -m pip install textual"
            assert str(result.exception) == f"the dashboard needs Textual: {install}"
        monkeypatch.undo()


def test_command_without_a_terminal(scene):
    """Where there is no screen it says what to use instead."""
    result = CliRunner().invoke(command.dashboard, [], obj=scene.env)
    assert str(result.exception) == "the dashboard needs a terminal; for pipes there is `copilot-balancer status`"


@pytest.mark.parametrize("other", ["stdin", "stdout", "stderr"])
def test_all_of_a_terminal(monkeypatch, other):
    """Keys come from stdin, Textual draws on stderr: each of the three must be the terminal."""

    class Stream:
        def __init__(self, name):
            self.name = name

        def isatty(self):
            return self.name != other

    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(command.sys, name, Stream(name))
    assert not command._screen()


@pytest.mark.parametrize(
    ("arguments", "colours", "theme"),
    [
        ([], "15;0", DARK), ([], "0;15", LIGHT), ([], "0;default;7", LIGHT), ([], None, DARK), (["--light"], "15;0", LIGHT),
        (["--dark"], "0;15", DARK),
    ],
)  # fmt: skip
def test_command_runs(scene, monkeypatch, arguments, colours, theme):
    """The command starts the dashboard in the terminal's colours, as far as the terminal tells them."""
    ran = []
    monkeypatch.setattr(command, "_screen", lambda: True)
    monkeypatch.setattr(Dashboard, "run", lambda self: ran.append((self.theme, self.every)))
    env = replace(scene.env, environ={**scene.env.environ, **({"COLORFGBG": colours} if colours else {})})
    result = CliRunner().invoke(command.dashboard, arguments, obj=env)
    assert result.exception is None
    assert ran == [(theme.name, 0.5)]


def test_it_imports_no_mitmproxy():
    """The dashboard starts fast: neither mitmproxy nor its TLS stack is imported."""
    code = "import sys, copilot_balancer.cli.dashboard.app; print([m for m in ('mitmproxy', 'OpenSSL', 'h2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
