"""Paints the dashboard: four panes over one snapshot of the store, layout by size, filter, moves between panes.

Laws of this file:

1. It paints what ``data`` read; nothing is decided and nothing is formatted here.
2. The event loop never waits for disk: it is read in a thread.
3. Without an interval it looks only when it is told to: so it is tested without a clock.
"""

import asyncio
from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path

from rich.traceback import Traceback
from textual.app import App, ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import Footer, Input, OptionList, Static

from copilot_balancer.cli.dashboard.data import History, Snapshot, kept_quota, read_snapshot
from copilot_balancer.cli.dashboard.details import account_details, request_details, route_details
from copilot_balancer.cli.dashboard.lines import Line, Span, Tone, head, over, words
from copilot_balancer.cli.dashboard.panes import (
    PANES,
    AccountRows,
    Details,
    Pane,
    PaneName,
    Panes,
    RequestRows,
    RouteRows,
    content,
    paragraphs,
)
from copilot_balancer.cli.dashboard.rows import (
    ROUTES,
    account_columns,
    account_row,
    headline,
    labels,
    notice,
    picked,
    request_columns,
    request_key,
    request_row,
    route_key,
    route_row,
    routes_in_force,
)
from copilot_balancer.cli.dashboard.themes import DARK, LIGHT
from copilot_balancer.cli.env import Env
from copilot_balancer.rules.accounts import Account, RouteTable
from copilot_balancer.store.request_record import RequestRecord
from copilot_balancer.views.overview import Overview

EVERY = 0.5
"""Seconds between two looks."""
FULL = (150, 32)
"""From so many columns and rows on everything is shown at once; with fewer columns the causes would be cut."""


class DashboardScreen(App[None]):
    """The dashboard without its edits.

    Args:
        world: the outside world, as the commands have it.
        every: seconds between two looks; None: only when it is told to.
        zone: of the times that are shown; None: this computer's.
        light: begin with the light theme.

    """

    TITLE = "copilot-balancer"
    CSS_PATH = Path(__file__).with_name("dashboard.tcss")
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self, env: Env, *, every: float | None = EVERY, zone: tzinfo | None = None, light: bool = False
    ) -> None:
        super().__init__()
        self.env, self.every, self.zone = env, every, zone
        self.history = History()
        self.snapshot = Snapshot(None)
        self.overview: Overview | None = None
        """The last one that could be read."""
        self.below: PaneName = "requests"
        """What stands under the accounts in the compact layout."""
        self.about: PaneName = "accounts"
        """Which pane's row the details are about."""
        self.search = ""
        self.only_switches = False
        self._looking = asyncio.Lock()
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
        if self.snapshot.trouble:
            banner.update(content(words(Span(self.snapshot.trouble, Tone.BAD))))
        banner.display = bool(self.snapshot.trouble)
        if overview is None:
            return
        width = self.size.width - 2
        screen.query_one("#headline", Static).update(
            content(headline(overview, zone=self.zone, width=width, stale=self.snapshot.overview is None))
        )
        told = None if self.snapshot.trouble else notice(overview)
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
        columns = account_columns(room, overview.pool.accounts)
        rows = [
            (one.id, account_row(one, columns, at=overview.at, busy=overview.in_flight.get(one.id, 0), width=room))
            for one in overview.pool.accounts
        ]
        empty = [
            words("No account is stored yet."),
            words("Press ", Span("a", Tone.KEY), " to log in at GitHub with a code."),
            words(Span("Logins of other programs: copilot-balancer accounts import", Tone.FAINT)),
        ]
        pane.show(head(columns, room), rows, empty)

    def _paint_requests(self, overview: Overview) -> None:
        pane = self.pane("requests")
        room = self._room(pane)
        columns = request_columns(room, self.requests)
        rows = [(request_key(one), request_row(one, columns, zone=self.zone, width=room)) for one in self.requests]
        if self.snapshot.events:
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
        pane.show(head(columns, room), rows, empty)

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
        return account_details(view, overview, self.snapshot.events, self.history, zone=self.zone, width=width)

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
    def requests(self) -> list[RequestRecord]:
        """Those that are shown, newest first."""
        return picked(self.snapshot.events, self.search, switches=self.only_switches)

    @property
    def request(self) -> RequestRecord | None:
        """The request under the cursor."""
        chosen = self.pane("requests").rows.chosen
        return next((one for one in self.snapshot.events if request_key(one) == chosen), None)

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
        names = {event.what for event in self.snapshot.events if " " not in event.what}
        return sorted(names)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self) -> None:
        """Look at the files, and paint."""
        async with self._looking:
            self.snapshot = await asyncio.to_thread(read_snapshot, self.env)
            overview = self.snapshot.overview
            if overview is not None:
                if self.overview is None:
                    kept = await asyncio.to_thread(kept_quota, self.env, overview.at)
                    self.history.begin(kept, overview)
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
