"""The dashboard's screen: four panes over one frozen overview, keys and clicks that become edits.

Laws of this file:

1. It paints what ``seen`` saw; nothing is decided and nothing is formatted here.
2. The event loop never waits for disk or network: both are touched in threads. Edits go one after the other, each is
   one ``Store.edit_decisions``, and after each the files are looked at again: what is shown is what is stored.
3. Without an interval it looks only when it is told to: so it is tested without a clock.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path
from threading import Event as Flag
from typing import Any, ClassVar, Literal, get_args

from rich.traceback import Traceback
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Click, DescendantFocus
from textual.message import Message
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import Footer, Input, OptionList, Static

from copilot_balancer import edits
from copilot_balancer.accounts import GITHUB, Account, RouteTable, Strategy, normalise_domain, normalise_label
from copilot_balancer.cli_terms import RULES
from copilot_balancer.dashboard.details import account_details, request_details, route_details, wrapped
from copilot_balancer.dashboard.dialogs import Choose, CodeDialog, Confirm, Field, Form, Read, RouteDialog
from copilot_balancer.dashboard.history import History
from copilot_balancer.dashboard.joining import ClosedError, logged_in, person_text, stored
from copilot_balancer.dashboard.rows import Rows, content, paragraphs
from copilot_balancer.dashboard.seen import Seen, see
from copilot_balancer.dashboard.view import (
    ROUTES,
    Line,
    Span,
    Tone,
    account_columns,
    account_row,
    head,
    headline,
    labels,
    notice,
    over,
    picked,
    request_columns,
    request_key,
    request_row,
    route_row,
    routes_in_force,
    words,
)
from copilot_balancer.device_flow import Show
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.event import Event
from copilot_balancer.overview import Overview
from copilot_balancer.terminal import World

EVERY = 0.5
"""Seconds between two looks."""
FULL = (120, 32)
"""From so many columns and rows on everything is shown at once."""

PaneName = Literal["accounts", "requests", "routes", "details"]
PANES: tuple[PaneName, ...] = get_args(PaneName)

DARK = Theme(
    name="balancer-dark",
    primary="#6cb6ff",
    secondary="#3d444d",
    accent="#79c0ff",
    success="#7ee787",
    warning="#e3b341",
    error="#ff7b72",
    foreground="#d7dde4",
    background="#0f1318",
    surface="#0f1318",
    panel="#1a2028",
    dark=True,
    variables={
        "good": "#7ee787",
        "caution": "#e3b341",
        "bad": "#ff7b72",
        "faint": "#8f99a5",
        "track": "#626d7a",
        "name": "#79c0ff",
        "frame": "#39414b",
        "cursor": "#2a3038",
        "cursor-of-sixteen": "#000080",
        "quiet-cursor": "#191f27",
        "footer-key-foreground": "#79c0ff",
    },
)
LIGHT = Theme(
    name="balancer-light",
    primary="#0969da",
    secondary="#c8d1da",
    accent="#0969da",
    success="#116329",
    warning="#8a5a00",
    error="#c01c28",
    foreground="#1f2328",
    background="#fcfcfd",
    surface="#fcfcfd",
    panel="#eef1f4",
    dark=False,
    variables={
        "good": "#116329",
        "caution": "#8a5a00",
        "bad": "#c01c28",
        "faint": "#5c6570",
        "track": "#8a949e",
        "name": "#0550ae",
        "frame": "#c3ccd5",
        "cursor": "#d8e8fb",
        "cursor-of-sixteen": "#c0c0c0",
        "quiet-cursor": "#eff3f7",
        "footer-key-foreground": "#0550ae",
    },
)


def key(keys: str, action: str, name: str, about: str, *, shown: bool = True, sign: str | None = None) -> Binding:
    """A key: what the footer calls it, and what help says about it; `sign` is how the key itself is written."""
    return Binding(keys, action, name, tooltip=about, show=shown, key_display=sign)


class Resized(Message):
    """A pane got another size, or was shown for the first time: what stands in it is painted anew."""


class Details(VerticalScroll):
    """Everything about what is chosen."""

    room = 0
    """Cells of a line, beside one at each side and the scroll bar's, be there one or not."""

    def on_resize(self) -> None:
        """Lines are as wide as the pane is."""
        if self.room != (room := self.size.width - 3):
            self.room = room
            self.post_message(Resized())


class PaneRows(Rows):
    """The rows of a pane: enter and a double click open what is under the cursor."""

    class Opened(Message):
        """A row was opened."""

    painted = 0
    """How wide the rows are."""

    def on_resize(self) -> None:
        """Rows are as wide as the pane is."""
        if self.painted != self.room:
            self.painted = self.room
            self.post_message(Resized())

    def action_select(self) -> None:
        """Enter."""
        self.post_message(self.Opened())

    async def _on_click(self, event: Click) -> None:
        """A click puts the cursor on a row; the second one opens it."""
        event.prevent_default()
        index = event.style.meta.get("option")
        if index is not None:
            self.highlighted = index
            if event.chain == 2:
                self.action_select()


class AccountRows(PaneRows):
    """All accounts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("u", "app.use", "Use", "make it the home account"),
        key("r", "app.rename", "Rename", "give it another label"),
        key("e", "app.switch", "On/off", "let it serve, or keep it without serving"),
        key("c", "app.clear", "Clear", "end what keeps it from serving: rests, missing models, a refused login"),
        key("l", "app.login", "Login", "log in again, when its login was refused", shown=False),
        key("p", "app.priority", "Priority", "asked earlier or later, by the strategies that look at it", shown=False),
        key("x,delete", "app.remove", "Remove", "delete it and its token; its label must be typed"),
    ]


class RequestRows(PaneRows):
    """The last requests."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("f", "app.switches", "Failovers", "show only what did not simply succeed, or everything"),
    ]


class RouteRows(PaneRows):
    """The priority matrix."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("n", "app.route_add", "New", "add a row: models, and which accounts serve them in which order"),
        key("e", "app.route_switch", "On/off", "turn a row on or off"),
        key(
            "shift+up,K",
            "app.route_shift(-1)",
            "Up",
            "move a row up: the first row that matches a model counts",
            sign="⇧↑",
        ),
        key("shift+down,J", "app.route_shift(1)", "Down", "move a row down", sign="⇧↓"),
        key("x,delete", "app.route_delete", "Delete", "delete a row"),
        key(
            "z",
            "app.route_reset",
            "Settings",
            "forget the rows of the dashboard: those of config.toml count again",
            shown=False,
        ),
    ]


class Pane(Vertical):
    """A frame with a title, the titles of the columns, the rows, and a text for when there are none."""

    def __init__(self, name: PaneName, rows: PaneRows) -> None:
        super().__init__(id=name, classes="pane")
        self.rows = rows

    def compose(self) -> ComposeResult:
        """The parts."""
        yield Static("", classes="head")
        yield self.rows
        yield Static("", classes="empty")

    def show(self, columns: Line, rows: Sequence[tuple[str, Line]], empty: Sequence[Line]) -> None:
        """Show rows, or what to do when there are none."""
        self.set_class(not rows, "-empty")
        self.query_one(".head", Static).update(content(columns))
        self.query_one(".empty", Static).update(paragraphs(empty))
        self.rows.show(rows)


class Panes(Screen[None]):
    """The one screen under all dialogs: tab goes from pane to pane."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("tab", "app.next(1)", "Next pane", "go to the next pane", shown=False),
        key("shift+tab", "app.next(-1)", "Pane before", "go to the pane before", shown=False),
    ]

    class Sized(Message):
        """The terminal has another size."""

    def on_resize(self) -> None:
        """Another layout, perhaps."""
        self.post_message(self.Sized())


class Dashboard(App[None]):
    """The dashboard.

    Args:
        world: the outside world, as the commands have it.
        every: seconds between two looks; None: only when it is told to.
        zone: of the times that are shown; None: this computer's.
        light: begin with the light theme.

    """

    TITLE = "copilot-balancer"
    CSS_PATH = Path(__file__).with_name("dashboard.tcss")
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        key("a", "add", "Add", "log in at GitHub with a code and store the account"),
        key("b", "balancing", "Balance", "turn balancing on or off"),
        key("s", "strategy", "Strategy", "how an account is chosen for a new conversation", shown=False),
        key("slash", "filter", "Filter", "show only the requests that hold some words"),
        key("question_mark", "help", "Help", "all keys"),
        key("q,ctrl+c", "quit", "Quit", "leave; the proxy goes on"),
        key("1", "pane('accounts')", "Accounts", "go to the accounts", shown=False),
        key("2", "pane('requests')", "Requests", "go to the requests", shown=False),
        key("3", "pane('routes')", "Routes", "go to the priority matrix", shown=False),
        key("4", "pane('details')", "Details", "go to the details", shown=False),
        key("T", "terms", "Terms", "GitHub's rules about several accounts", shown=False),
        key("t", "theme", "Light/dark", "light or dark", shown=False),
        key("escape", "leave", "Back", "end the filter, leave the details", shown=False),
    ]

    def __init__(
        self, world: World, *, every: float | None = EVERY, zone: tzinfo | None = None, light: bool = False
    ) -> None:
        super().__init__()
        self.world, self.every, self.zone = world, every, zone
        self.history = History()
        self.seen = Seen(None)
        self.overview: Overview | None = None
        """The last one that could be read."""
        self.below: PaneName = "requests"
        """What stands under the accounts in the compact layout."""
        self.about: PaneName = "accounts"
        """Which pane's row the details are about."""
        self.search = ""
        self.only_switches = False
        self._looking, self._editing = asyncio.Lock(), asyncio.Lock()
        self._logins: set[Flag] = set()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = LIGHT.name if light else DARK.name

    # ── the screen ───────────────────────────────────────────────────────────────────────────────────────────────────

    def get_default_screen(self) -> Panes:
        """Where the panes stand."""
        return Panes(id="_default")

    @property
    def whole(self) -> bool:
        """Whether all that is painted is there: not before it is made, and not while the dashboard is taken down."""
        parts = "#headline, #notice, #told, .head, .empty, PaneRows"
        return bool(self.screen_stack) and len(self.screen_stack[0].query(parts)) == 3 + 3 * 3

    def compose(self) -> ComposeResult:
        """Headline, notice, panes, filter, footer."""
        yield Static("", id="headline")
        yield Static("", id="notice")
        with Container(id="body"):
            with Vertical(id="left"):
                yield Pane("accounts", AccountRows())
                yield Pane("requests", RequestRows(growing=True))
                yield Pane("routes", RouteRows())
            with Details(id="details", classes="pane"):
                yield Static("", id="told")
        yield Input(placeholder="words to look for in the requests; escape ends the filter", id="filter", compact=True)
        yield Footer(show_command_palette=False, compact=True)

    async def on_mount(self) -> None:
        """Look at once, then again and again."""
        self.set_class(self.console.color_system == "standard", "-few-colours")
        self._arrange()
        self.pane("accounts").rows.focus()
        await self.look()
        if self.every is not None:
            self.set_interval(self.every, self._look_again)

    def on_unmount(self) -> None:
        """Nobody waits for a login any more."""
        for closed in self._logins:
            closed.set()

    def _fatal_error(self) -> None:
        """A bug ends it with a traceback. Textual's own would show the values of variables, a token among them."""
        self.panic(Traceback(show_locals=False, width=None))

    def on_panes_sized(self) -> None:
        """Another layout, perhaps."""
        self._arrange()

    def on_resized(self) -> None:
        """Another width."""
        self.paint()

    def pane(self, name: PaneName) -> Pane:
        """One of the three with rows."""
        return self.screen_stack[0].query_one(f"#{name}", Pane)

    @property
    def full(self) -> bool:
        """Whether everything is shown at once."""
        return self.size.width >= FULL[0] and self.size.height >= FULL[1]

    def _arrange(self) -> None:
        if not self.whole:
            return
        screen = self.screen_stack[0]
        screen.set_class(self.full, "-full")
        screen.set_class(not self.full, "-compact")
        screen.set_class(self.below == "details", "-details")
        for name in PANES:
            screen.query_one(f"#{name}").set_class(name == self.below, "-below")
        self._title()
        self.call_after_refresh(self.paint)

    def _title(self) -> None:
        shown = f"  {self.search!r}" if self.search else ""
        titles = {
            "accounts": "1 Accounts",
            "requests": f"2 Requests{'  failovers only' if self.only_switches else ''}{shown}",
            "routes": "3 Routes",
            "details": "4 Details",
        }
        screen = self.screen_stack[0]
        for name in PANES:
            box = screen.query_one(f"#{name}")
            box.border_title = Content(titles[name])
            others = [other for other in PANES[1:] if other != name] if not self.full and name != "accounts" else []
            box.border_subtitle = Content.from_markup(
                "  ".join(f"[@click=app.pane('{other}')]{titles[other].partition('  ')[0]}[/]" for other in others)
            )

    def paint(self) -> None:
        """Paint what was seen."""
        if not self.whole:
            return
        overview, screen = self.overview, self.screen_stack[0]
        banner = screen.query_one("#notice", Static)
        if self.seen.trouble:
            banner.update(content(words(Span(self.seen.trouble, Tone.BAD))))
        banner.display = bool(self.seen.trouble)
        if overview is None:
            return
        width = self.size.width - 2
        screen.query_one("#headline", Static).update(
            content(headline(overview, zone=self.zone, width=width, stale=self.seen.overview is None))
        )
        told = None if self.seen.trouble else notice(overview)
        if told is not None:
            banner.update(content(told))
            banner.display = True
        self._paint_accounts(overview)
        self._paint_requests(overview)
        self._paint_routes(overview)
        self._paint_details(overview)

    def _room(self, pane: Pane) -> int:
        """Cells of a row; a pane that is hidden is painted as wide as the accounts are."""
        return next((room for room in (pane.rows.room, self.pane("accounts").rows.room) if room > 0), 75)

    def _paint_accounts(self, overview: Overview) -> None:
        pane = self.pane("accounts")
        room = self._room(pane)
        rows = [
            (one.id, account_row(one, at=overview.at, busy=overview.in_flight.get(one.id, 0), width=room))
            for one in overview.pool.accounts
        ]
        empty = [
            words("No account is stored yet."),
            words("Press ", Span("a", Tone.KEY), " to log in at GitHub with a code."),
            words(Span("Logins of other programs: copilot-balancer accounts import", Tone.FAINT)),
        ]
        pane.show(head(account_columns(room), room), rows, empty)

    def _paint_requests(self, overview: Overview) -> None:
        pane = self.pane("requests")
        room = self._room(pane)
        rows = [(request_key(one), request_row(one, zone=self.zone, width=room)) for one in self.requests]
        if self.seen.events:
            empty = [words("No request matches."), words("Press ", Span("escape", Tone.KEY), " to see all of them.")]
        elif overview.proxies:
            empty = [
                words("No request has come yet."),
                words("Start a client: ", Span("copilot-balancer exec -- opencode", Tone.KEY)),
            ]
        else:
            empty = [
                words("No request has come yet, and no proxy runs."),
                words("Start both: ", Span("copilot-balancer exec -- opencode", Tone.KEY)),
            ]
        pane.show(head(request_columns(room), room), rows, empty)

    def _paint_routes(self, overview: Overview) -> None:
        pane = self.pane("routes")
        room = self._room(pane)
        known = labels(overview)
        rows = [
            (route_key(route), route_row(route, place, known, room))
            for place, route in enumerate(routes_in_force(overview), 1)
        ]
        empty = [
            words("No routes: for every model the strategy chooses among all accounts."),
            words("Press ", Span("n", Tone.KEY), " to send models to accounts of your choice."),
        ]
        pane.show(head(ROUTES, room), rows, empty)

    def _paint_details(self, overview: Overview) -> None:
        box = self.screen_stack[0].query_one(Details)
        if box.room >= 20:
            box.query_one("#told", Static).update(paragraphs(self._details(overview, box.room)))

    def _details(self, overview: Overview, width: int) -> Sequence[Line]:
        if self.about == "requests" and (event := self.request) is not None:
            return request_details(event, at=overview.at, zone=self.zone, width=width)
        if self.about == "routes" and (route := self.route) is not None:
            place = routes_in_force(overview).index(route) + 1
            return route_details(route, overview, self.models, place=place, width=width)
        chosen = self.pane("accounts").rows.chosen
        view = next((one for one in overview.pool.accounts if one.id == chosen), None)
        if view is None or self.about != "accounts":
            return [words(Span("Nothing is chosen.", Tone.FAINT))]
        return account_details(view, overview, self.seen.events, self.history, zone=self.zone, width=width)

    # ── what is chosen ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def account(self) -> Account | None:
        """The account under the cursor."""
        chosen = self.pane("accounts").rows.chosen
        accounts = self.overview.decisions.accounts if self.overview else ()
        return next((one for one in accounts if one.id == chosen), None)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all accounts."""
        return labels(self.overview) if self.overview else ()

    @property
    def requests(self) -> list[Event]:
        """Those that are shown, newest first."""
        return picked(self.seen.events, self.search, switches=self.only_switches)

    @property
    def request(self) -> Event | None:
        """The request under the cursor."""
        chosen = self.pane("requests").rows.chosen
        return next((one for one in self.seen.events if request_key(one) == chosen), None)

    @property
    def routes(self) -> tuple[RouteTable, ...]:
        """The matrix."""
        return routes_in_force(self.overview) if self.overview else ()

    @property
    def route(self) -> RouteTable | None:
        """The row of the matrix under the cursor."""
        chosen = self.pane("routes").rows.chosen
        return next((one for one in self.routes if route_key(one) == chosen), None)

    @property
    def models(self) -> list[str]:
        """Names of models that requests named."""
        names = {event.what for event in self.seen.events if " " not in event.what}
        return sorted(names)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self) -> None:
        """Look at the files, and paint."""
        async with self._looking:
            self.seen = await asyncio.to_thread(see, self.world)
            overview = self.seen.overview
            if overview is not None:
                self.overview = overview
                for account in overview.pool.accounts:
                    for name, window in account.quota.items():
                        if not window.unlimited and not over(window, overview.at):
                            self.history.note(account.id, name, overview.at, window.percent_left)
            self.paint()

    async def _look_again(self) -> None:
        if not self._looking.locked():
            await self.look()

    def on_option_list_option_highlighted(self, _event: OptionList.OptionHighlighted) -> None:
        """Another row: other details."""
        if self.overview is not None and self.whole:
            self._paint_details(self.overview)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """The details are about the pane that was last entered."""
        for name in PANES[:3] if self.whole else ():
            if event.widget is self.pane(name).rows:
                self.about = name
                if self.overview is not None:
                    self._paint_details(self.overview)

    def on_pane_rows_opened(self) -> None:
        """A row of the matrix is edited; of anything else the details are shown."""
        if self.about == "routes":
            self.action_route_edit()
        else:
            self.action_pane("details")

    # ── going around ─────────────────────────────────────────────────────────────────────────────────────────────────

    def action_pane(self, name: PaneName) -> None:
        """Go to a pane."""
        if name != "accounts":
            self.below = name
        self._arrange()
        if name == "details":
            self.query_one(Details).focus()
        else:
            self.pane(name).rows.focus()

    def action_next(self, by: int) -> None:
        """Go to the next pane, or to the one before."""
        focused = self.focused
        here = next((n for n, name in enumerate(PANES) if focused and focused in self.query(f"#{name}, #{name} *")), 0)
        self.action_pane(PANES[(here + by) % len(PANES)])

    def action_filter(self) -> None:
        """Ask for words to look for."""
        field = self.query_one("#filter", Input)
        field.value = self.search
        field.display = True
        field.focus()
        if not self.full:
            self.below = "requests"
            self._arrange()

    def on_input_changed(self, event: Input.Changed) -> None:
        """What is typed counts at once."""
        if event.input.id == "filter":
            self._pick(event.value.strip(), only_switches=self.only_switches)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: back to the requests."""
        if event.input.id == "filter":
            event.input.display = False
            self.action_pane("requests")

    def action_switches(self) -> None:
        """Show only what did not simply succeed, or everything."""
        self._pick(self.search, only_switches=not self.only_switches)

    def _pick(self, search: str, *, only_switches: bool) -> None:
        """Show other requests; the cursor begins on the newest of them."""
        if (search, only_switches) != (self.search, self.only_switches):
            self.search, self.only_switches = search, only_switches
            self.pane("requests").rows.highlighted = 0
            self._title()
            self.paint()

    def action_leave(self) -> None:
        """End the filter, or leave the details."""
        field = self.query_one("#filter", Input)
        if field.display or self.search or self.only_switches:
            self._pick("", only_switches=False)
            field.display, field.value = False, ""
            self.action_pane("requests")
        elif self.focused is self.query_one("#details"):
            self.action_pane(self.about)

    def action_theme(self) -> None:
        """Light or dark."""
        self.theme = DARK.name if self.theme == LIGHT.name else LIGHT.name

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(Read("Keys", help_lines(self._readable)))

    # ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @work
    async def edit(self, change: edits.Edit, said: str) -> None:
        """Store a decision, say so, and look."""
        await self._edit(change, said)

    async def _edit(self, change: edits.Edit, said: str) -> None:
        async with self._editing:
            try:
                await asyncio.to_thread(self.world.store.edit_decisions, change)
            except BalancerError as error:
                self.refuse(str(error))
            else:
                self.say(said)
        await self.look()

    def say(self, text: str) -> None:
        """Tell what was done."""
        self.notify(text, timeout=4, markup=False)

    def refuse(self, text: str) -> None:
        """Tell why something was not done."""
        self.notify(text, severity="error", timeout=10, markup=False)

    def action_use(self) -> None:
        """Make an account the home account."""
        if account := self.account:
            self.edit(edits.made_home(account.id), f"{account.label} is the home account")

    def action_switch(self) -> None:
        """Let an account serve, or not; one that GitHub blocked is let serve again."""
        if (account := self.account) and self.overview:
            view = next(one for one in self.overview.pool.accounts if one.id == account.id)
            if account.enabled and view.status != "disabled":
                self.edit(edits.turned_off(account.id), f"{account.label} is off")
            else:
                self.edit(edits.turned_on(account.id, self.world.now()), f"{account.label} is on")

    def action_clear(self) -> None:
        """End what keeps an account from serving."""
        if account := self.account:
            self.edit(edits.cleared(account.id, self.world.now()), f"{account.label}: nothing keeps it from serving")

    @work
    async def action_rename(self) -> None:
        """Give an account another label."""
        if account := self.account:
            others = [label for label in self.labels if label != account.label]
            form = Form(
                f"Rename {account.label}",
                [Field("New label", account.label)],
                yes="Rename",
                check=lambda values: _free_label(values[0], others),
            )
            if answer := await self.push_screen_wait(form):
                wish = normalise_label(answer[0])
                await self._edit(edits.renamed(account.id, wish), f"{account.label} is called {wish} now")

    @work
    async def action_priority(self) -> None:
        """Ask an account earlier or later."""
        if account := self.account:
            said = [words(Span("Lower is asked earlier, by the strategies priority and sticky.", Tone.FAINT))]
            fields = [Field(f"0 to {edits.MAX_PRIORITY}", str(account.priority))]
            form = Form(f"Priority of {account.label}", fields, said=said, check=_priority)
            if answer := await self.push_screen_wait(form):
                number = int(answer[0])
                await self._edit(edits.ranked(account.id, number), f"{account.label} has priority {number}")

    @work
    async def action_remove(self) -> None:
        """Delete an account, when its label is typed."""
        if account := self.account:

            def check(values: tuple[str, ...]) -> None:
                if values[0] != account.label:
                    raise InvalidInput("that is not its label: nothing was removed")

            said = [
                words(
                    "This deletes ",
                    Span(account.label, Tone.KEY),
                    f" ({account.login or 'not verified'} on {account.host}) and its token from this computer.",
                )
            ]
            form = Form(
                f"Remove {account.label}", [Field("Type its label to go on")], said=said, yes="Remove", check=check
            )
            if await self.push_screen_wait(form):
                revoke = f"GitHub goes on accepting its token until you revoke it: https://{account.host}/settings/applications"
                await self._edit(edits.removed(account.id, self.world.now()), f"Removed {account.label}. {revoke}")

    def action_balancing(self) -> None:
        """Turn balancing on or off."""
        if self.overview:
            on = not self.overview.decisions.balancing
            self.edit(edits.balanced(on=on), f"Balancing is {'on' if on else 'off'}")

    @work
    async def action_strategy(self) -> None:
        """Choose how accounts are chosen."""
        if self.overview is None:
            return
        options = [(name, words(f"{name:13}", Span(text, Tone.FAINT))) for name, text in STRATEGIES.items()]
        chosen = self.overview.decisions.strategy or ""
        answer = await self.push_screen_wait(Choose("How an account is chosen", options, chosen))
        if answer is not None:
            strategy: Strategy | None = next((name for name in get_args(Strategy) if name == answer), None)
            said = f"Strategy: {strategy}" if strategy else "Strategy: as config.toml says"
            await self._edit(edits.ordered_by(strategy), said)

    @work
    async def action_terms(self) -> None:
        """Show GitHub's rules, and ask once."""
        await self._terms()

    @property
    def _readable(self) -> int:
        """Cells of a line in a dialog."""
        return max(min(self.size.width - 6, 66), 20)

    async def _terms(self) -> None:
        if self.overview is None:
            return
        lines = terms_lines(self._readable)
        if self.overview.decisions.terms_accepted_at is not None:
            accepted: Line = words(Span("You have accepted these.", Tone.GOOD))
            await self.push_screen_wait(Read("GitHub's rules about several accounts", [*lines, accepted]))
            return
        question = words(Span("Do you accept, and are all these accounts your own?", Tone.STRONG))
        dialog = Confirm("GitHub's rules about several accounts", [*lines, question], yes="I accept", no="Not now")
        if await self.push_screen_wait(dialog):
            await self._edit(edits.accepted(self.world.now()), "Accepted: every account may serve")

    # ── logging in ───────────────────────────────────────────────────────────────────────────────────────────────────

    @work
    async def action_add(self) -> None:
        """Log in with a code, and store the account."""
        taken = self.labels

        def check(values: tuple[str, ...]) -> None:
            normalise_domain(values[0])
            if values[1]:
                _free_label(values[1], taken)

        fields = [Field("Log in at", GITHUB, "github.com or NAME.ghe.com"), Field("Call it", hint="its login")]
        form = Form("Add an account", fields, yes="Get a code", check=check)
        if answer := await self.push_screen_wait(form):
            label = normalise_label(answer[1]) if answer[1] else None
            await self._join(normalise_domain(answer[0]), label, None)

    @work
    async def action_login(self) -> None:
        """Log in again as the same person."""
        if (account := self.account) is None:
            return
        if account.login is None:
            self.refuse(
                f"nobody has verified whose account {account.label} is: add it anew with a, and remove this one"
            )
            return
        await self._join(account.host, None, account)

    async def _join(self, host: str, label: str | None, expected: Account | None) -> None:
        closed = Flag()
        self._logins.add(closed)
        dialog = CodeDialog(host, self.world.open_page, self.world.copy)
        done = self.push_screen(dialog, lambda _: closed.set())

        def show(shown: Show) -> None:
            self.call_from_thread(dialog.show_code, shown)

        await done
        try:
            person = await asyncio.to_thread(logged_in, self.world, host, show, closed)
        except ClosedError:
            self.say("Nobody was logged in")
            return
        except BalancerError as error:
            self.refuse(str(error))
            return
        finally:
            self._logins.discard(closed)
            if not closed.is_set():
                dialog.dismiss(True)
        if expected is None and not await self._agreed(person_text(person.identity), host):
            return
        try:
            joined = await asyncio.to_thread(stored, self.world, person, label, expected.id if expected else None)
        except BalancerError as error:
            self.refuse(f"{error}. {_token_note(host)}")
            return
        self.say(f"{'Added' if joined.new else 'Refreshed'} account {joined.account.label}")
        for note in joined.notes:
            self.notify(note, severity="warning", timeout=10, markup=False)
        await self.look()
        self.pane("accounts").rows.choose(joined.account.id)
        if joined.new and joined.decisions.terms_missing:
            await self._terms()

    async def _agreed(self, who: str, host: str) -> bool:
        said = [words("Logged in as ", Span(who, Tone.KEY), ".")]
        if await self.push_screen_wait(Confirm("Store this account?", said, yes="Store", no="Do not store")):
            return True
        self.say(f"Nothing was stored. {_token_note(host)}")
        return False

    # ── the matrix ───────────────────────────────────────────────────────────────────────────────────────────────────

    @work
    async def action_route_add(self) -> None:
        """Add a row."""
        if self.overview and (row := await self._ask_for_route("New route", None)):
            await self._edit(edits.route_added(self.routes, row), "Route added")
            self.pane("routes").rows.choose(route_key(row))

    @work
    async def action_route_edit(self) -> None:
        """Change a row."""
        if (route := self.route) and (row := await self._ask_for_route("Route", route)):
            await self._edit(edits.route_replaced(self.routes, route, row), "Route changed")
            self.pane("routes").rows.choose(route_key(row))

    async def _ask_for_route(self, title: str, route: RouteTable | None) -> RouteTable | None:
        return await self.push_screen_wait(RouteDialog(title, route, self.labels, self.models))

    @work
    async def action_route_switch(self) -> None:
        """Turn a row on or off."""
        if route := self.route:
            other = route.model_copy(update={"enabled": not route.enabled})
            said = f"Route {', '.join(route.models)} is {'on' if other.enabled else 'off'}"
            await self._edit(edits.route_replaced(self.routes, route, other), said)
            self.pane("routes").rows.choose(route_key(other))

    @work
    async def action_route_shift(self, by: int) -> None:
        """Move a row."""
        if route := self.route:
            await self._edit(edits.route_moved(self.routes, route, by), f"Moved {', '.join(route.models)}")

    @work
    async def action_route_delete(self) -> None:
        """Delete a row, after a question."""
        if route := self.route:
            said = [words("Delete the route for ", Span(", ".join(route.models), Tone.KEY), "?")]
            if await self.push_screen_wait(Confirm("Delete a route", said, yes="Delete", no="Keep")):
                await self._edit(edits.route_deleted(self.routes, route), "Route deleted")

    @work
    async def action_route_reset(self) -> None:
        """Let the rows of the settings count again, after a question."""
        if self.overview and self.overview.decisions.routes is not None:
            said = [words("Forget the routes of the dashboard, so that those of config.toml count again?")]
            if await self.push_screen_wait(Confirm("Routes of the settings", said, yes="Forget them", no="Keep")):
                await self._edit(edits.routes_of_settings(), "The routes of config.toml count again")


STRATEGIES: dict[str, str] = {
    "": "as config.toml says",
    "hybrid": "health, quota against time, load, scarcity",
    "sticky": "one account as long as it can serve",
    "round-robin": "one after the other",
    "priority": "by priority; the next one when it cannot serve",
    "quota": "who has most left; then whose reset is soonest",
}
"""Strategy -> what it does; empty: what the settings say."""


def route_key(route: RouteTable) -> str:
    """Names a row of the matrix: what stands in it, without whether it is on."""
    return repr((route.models, route.accounts, route.fallback, route.enabled))


def _free_label(wish: str, taken: Sequence[str]) -> None:
    label = normalise_label(wish)
    if label in taken:
        raise InvalidInput(f"the label {label} is taken: choose another one")


def _priority(values: tuple[str, ...]) -> None:
    if not (values[0].isascii() and values[0].isdigit() and int(values[0]) <= edits.MAX_PRIORITY):
        raise InvalidInput(f"a priority is a whole number from 0 to {edits.MAX_PRIORITY}")


def _token_note(host: str) -> str:
    return f"GitHub goes on knowing the new token until you revoke it: https://{host}/settings/applications"


def terms_lines(width: int) -> list[Line]:
    """GitHub's rules, as ``copilot-balancer terms`` tells them."""
    lines: list[Line] = []
    for number, rule in enumerate(RULES, 1):
        told = words(Span(f"{number}. {rule.title}. ", Tone.STRONG), rule.text, Span(f" [{rule.source}]", Tone.FAINT))
        lines += [*wrapped(told, width), ()]
    foot = "This program changes none of it. Until you accept, only the first account serves."
    return [*lines, *wrapped(words(foot), width), ()]


def help_lines(width: int) -> list[Line]:
    """All keys, by pane."""
    groups: tuple[tuple[str, Any], ...] = (
        ("everywhere", Dashboard),
        ("", Panes),
        ("accounts", AccountRows),
        ("requests", RequestRows),
        ("routes", RouteRows),
    )
    names: Callable[[str], str] = lambda text: (  # noqa: E731 - a table of two
        text.partition(",")[0].replace("question_mark", "?").replace("slash", "/")
    )
    lines: list[Line] = []

    def tell(sign: str, about: str) -> None:
        first, *more = wrapped(words(about), width - 14)
        lines.append((Span(f"  {sign:12}", Tone.KEY), *first))
        lines.extend((Span(" " * 14), *line) for line in more)

    for name, owner in groups:
        lines += [words(Span(name, Tone.FAINT))] if name else []
        for one in owner.BINDINGS:
            tell(names(one.key), one.tooltip)
        if name not in ("everywhere", ""):
            tell("enter", "edit it" if name == "routes" else "everything about it")
        if name != "everywhere":
            lines += [()]
    signs = (("●", "ready"), ("◐", "rests"), ("!", "needs login"), ("○", "off"), ("*", "home account"))
    lines += [words(Span("signs", Tone.FAINT))]
    lines += [words("  ", "   ".join(f"{sign} {text}" for sign, text in signs))]
    lines += [words("  ✓ served   » after a failover   ✗ refused or cut off   - neither")]
    return lines
