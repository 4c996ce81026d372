"""The dashboard under Textual's pilot: the cursor, the panes, the filter, the mouse, help."""

import pytest
from rich.color import Color, ColorSystem

from copilot_balancer.cli.dashboard.app import Dashboard
from copilot_balancer.cli.dashboard.dialogs import Read
from copilot_balancer.cli.dashboard.panes import AccountRows, Panes, RequestRows, RouteRows
from copilot_balancer.cli.dashboard.themes import DARK, LIGHT
from support.dashboard_pilot import FULL, SIZES, filled, press, run, screen, settled, shown
from support.dashboards import SPARE, attempt, event

scene = pytest.fixture(filled)


def test_cursor_stays_with_its_row(scene):
    """New requests come at the top: a cursor on the newest stays on the newest, another one stays with its request."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            rows = app.pane("requests").rows
            scene.add(event(97, -1, "gpt-7", attempt("work", "w")))
            await app.look()
            assert app.request.what == "gpt-7"
            await press(pilot, "2", "down", "down")
            before = rows.chosen
            scene.add(event(98, -2, "gpt-8", attempt("work", "w")))
            await app.look()
            await pilot.pause()
            assert rows.chosen == before
            assert rows.highlighted == 3

    run(story())


@SIZES
def test_panes(scene, size):
    """Numbers and tab go to each pane; enter opens the details of a row, escape goes back."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            for key, name in zip("2341", ("requests", "routes", "details", "accounts"), strict=True):
                await press(pilot, key)
                assert app.focused in app.query(f"#{name}, #{name} *")
            for name in ("requests", "routes", "details", "accounts"):
                await press(pilot, "tab")
                assert app.focused in app.query(f"#{name}, #{name} *")
            await press(pilot, "shift+tab")
            assert app.focused.id == "details"
            await press(pilot, "2", "down", "down", "enter")
            assert "nobody" in screen(app)
            await press(pilot, "end")
            assert "user_model_rate_limited" in screen(app)
            await press(pilot, "escape")
            assert isinstance(app.focused, RequestRows)
            await press(pilot, "1", "enter")
            assert "412 served, 9 refused" in screen(app)

    run(story())


@SIZES
def test_filter(scene, size):
    """A filter counts while it is typed; enter goes to the requests, escape ends it; each time the newest is on top."""

    async def story():
        async with shown(scene.env, size) as (app, pilot):
            await press(pilot, "slash", *"gemini")
            assert [one.what for one in app.requests] == ["gemini-3-pro"]
            await press(pilot, "enter")
            assert "2 Requests  'gemini'" in screen(app)
            assert isinstance(app.focused, RequestRows)
            await press(pilot, "slash", "end", *"x", "enter")
            assert "No request matches." in screen(app)
            await press(pilot, "escape")
            assert len(app.requests) == 12
            await press(pilot, "2", "down", "down", "down", "f")
            assert {one.verdict for one in app.requests} == {"failed over", "refused", "cut off", "left"}
            assert app.request == app.requests[0]
            await press(pilot, "end", "f")
            assert len(app.requests) == 12
            assert app.request == app.requests[0]

    run(story())


def test_mouse(scene):
    """A click puts the cursor on a row, a second one opens it; a pane's name and a key of the footer can be clicked."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            await pilot.click(AccountRows, offset=(5, 2))
            await settled(pilot)
            assert app.account.label == "acme"
            await pilot.click("Footer", offset=(1, 0))
            await settled(pilot)
            assert scene.decisions.home_id == SPARE
            lines = screen(app).splitlines()
            y = next(n for n, line in enumerate(lines) if "4 Details" in line)
            await pilot.click(offset=(lines[y].index("4 Details") + 2, y))
            await settled(pilot)
            assert app.focused.id == "details"
            await press(pilot, "2")
            await pilot.click(RequestRows, offset=(5, 2), times=2)
            await settled(pilot)
            assert app.focused.id == "details"
            assert "acme: rests after a limit for this model" in screen(app)
            await pilot.click(AccountRows, offset=(5, 3))
            await pilot.click(AccountRows, offset=(5, 300)) if False else None
            assert app.account.label == "old-seat"

    run(story())


def test_help_tells_every_key(scene):
    """Help names each key that does something, and any of its keys closes it."""

    async def story():
        async with shown(scene.env, FULL) as (app, pilot):
            await press(pilot, "question_mark")
            assert isinstance(app.screen, Read)
            text = str(app.screen.query("Static").last().content)
            for owner in (Dashboard, Panes, AccountRows, RequestRows, RouteRows):
                for one in owner.BINDINGS:
                    assert one.tooltip in " ".join(text.split())
            assert "\n  p           asked earlier or later, by the strategies that look\n              at it\n" in text
            await press(pilot, "q")
            assert len(app.screen_stack) == 1

    run(story())


def test_themes(scene):
    """It begins light or dark, and t changes that."""

    async def story():
        async with shown(scene.env, light=True) as (app, pilot):
            assert app.theme == LIGHT.name
            await press(pilot, "t")
            assert app.theme == DARK.name
            await press(pilot, "t")
            assert app.theme == LIGHT.name

    run(story())


def luminance(colour: Color) -> float:
    """As WCAG 2 defines it."""
    parts = [part / 255 for part in colour.get_truecolor()]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("system", "least"), [(None, 4.5), (ColorSystem.EIGHT_BIT, 4.0)], ids=["all colours", "256"])
@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_everything_can_be_read(theme, system, least):
    """Each colour of a text stands out from each ground that it can stand on, also in a terminal of 256 colours."""
    colours = {name: Color.parse(code) for name, code in theme.variables.items() if code.startswith("#")}
    colours |= {"foreground": Color.parse(theme.foreground), "background": Color.parse(theme.background)}
    colours["panel"] = Color.parse(theme.panel)
    if system is not None:
        colours = {name: colour.downgrade(system) for name, colour in colours.items()}
    for text in ("foreground", "good", "caution", "bad", "faint", "name"):
        for ground in ("background", "panel", "cursor", "quiet-cursor"):
            low, high = sorted(luminance(colours[one]) for one in (text, ground))
            assert (high + 0.05) / (low + 0.05) >= least, (text, ground)


@pytest.mark.parametrize("light", [False, True])
def test_sixteen_colours(scene, monkeypatch, light):
    """In a terminal of 16 colours the row under the cursor has another ground than its neighbours."""
    monkeypatch.setenv("TERM", "xterm-16color")
    monkeypatch.delenv("COLORTERM", raising=False)

    async def story():
        async with shown(scene.env, light=light) as (app, _):
            strips = app.screen._compositor.render_strips()
            rows = [next(strip for strip in strips if f" {label} " in strip.text) for label in ("work", "home")]
            grounds = [
                {
                    segment.style.bgcolor.downgrade(ColorSystem.STANDARD).number
                    for segment in row
                    if "4:32" in segment.text or "68%" in segment.text
                }
                for row in rows
            ]
            assert len(grounds[0]) == len(grounds[1]) == 1
            assert grounds[0] != grounds[1]

    run(story())


def test_quit(scene):
    """q leaves."""

    async def story():
        async with shown(scene.env) as (app, pilot):
            await pilot.press("q")
            await pilot.pause()
            assert not app.is_running

    run(story())
