"""The dashboard app: key bindings and clicks that edit the stored decisions, on top of what ``screen`` paints.

Laws of this file:

1. Nothing is decided that ``edits`` does not decide, and a dialog asks before what cannot be taken back.
2. The event loop never waits for disk or network: both are touched in threads. Edits go one after the other, each is
   one ``Store.edit_decisions``, and after each the files are looked at again: what is shown is what is stored.
"""

import asyncio
from collections.abc import Sequence
from threading import Event as Flag
from typing import Any, ClassVar, get_args

from textual import work
from textual.binding import BindingType

from copilot_balancer.cli.dashboard.dialogs import Choose, CodeDialog, Confirm, Field, Form, Read, RouteDialog
from copilot_balancer.cli.dashboard.lines import Line, Span, Tone, words
from copilot_balancer.cli.dashboard.login import ClosedError, logged_in, person_text, stored
from copilot_balancer.cli.dashboard.panes import key
from copilot_balancer.cli.dashboard.rows import route_key
from copilot_balancer.cli.dashboard.screen import DashboardScreen
from copilot_balancer.cli.dashboard.texts import STRATEGIES, help_lines, terms_lines
from copilot_balancer.cli.env import Env
from copilot_balancer.copilot.hosts import GITHUB, normalise_domain
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.github.device_flow import Show
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Account, RouteTable, Strategy, normalise_label


class Dashboard(DashboardScreen):
    """The dashboard; its arguments are those of ``DashboardScreen``."""

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

    def __init__(self, env: Env, **how: Any) -> None:
        super().__init__(env, **how)
        self._editing = asyncio.Lock()
        self._logins: set[Flag] = set()

    def on_unmount(self) -> None:
        """Nobody waits for a login any more."""
        for closed in self._logins:
            closed.set()

    def on_pane_rows_opened(self) -> None:
        """A row of the matrix is edited; of anything else the details are shown."""
        if self.about == "routes":
            self.action_route_edit()
        else:
            self.action_pane("details")

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(Read("Keys", help_lines(self._readable, self.BINDINGS)))

    # ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @work
    async def edit(self, change: edits.Edit, said: str) -> None:
        """Store a decision, say so, and look."""
        await self._edit(change, said)

    async def _edit(self, change: edits.Edit, said: str) -> None:
        async with self._editing:
            try:
                await asyncio.to_thread(self.env.store.edit_decisions, change)
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
                self.edit(edits.turned_on(account.id, self.env.now()), f"{account.label} is on")

    def action_clear(self) -> None:
        """End what keeps an account from serving."""
        if account := self.account:
            self.edit(edits.cleared(account.id, self.env.now()), f"{account.label}: nothing keeps it from serving")

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
                await self._edit(edits.removed(account.id, self.env.now()), f"Removed {account.label}. {revoke}")

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
        chosen, in_force = self.overview.decisions.strategy or "", self.overview.policy.strategy
        options = [
            (
                name,
                words(
                    Span("● " if name == in_force else "  ", Tone.GOOD),
                    Span(f"{name or '(settings)':13}", Tone.STRONG if name == chosen else Tone.PLAIN),
                    Span(f"{text}: {in_force}" if not (name or chosen) else text, Tone.FAINT),
                ),
            )
            for name, text in STRATEGIES.items()
        ]
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
            await self._edit(edits.accepted(self.env.now()), "Accepted: every account may serve")

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
        dialog = CodeDialog(host, self.env.open_page, self.env.copy)
        done = self.push_screen(dialog, lambda _: closed.set())

        def show(shown: Show) -> None:
            self.call_from_thread(dialog.show_code, shown)

        await done
        try:
            person = await asyncio.to_thread(logged_in, self.env, host, show, closed)
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
            joined = await asyncio.to_thread(stored, self.env, person, label, expected.id if expected else None)
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


def _free_label(wish: str, taken: Sequence[str]) -> None:
    label = normalise_label(wish)
    if label in taken:
        raise InvalidInput(f"the label {label} is taken: choose another one")


def _priority(values: tuple[str, ...]) -> None:
    if not (values[0].isascii() and values[0].isdigit() and int(values[0]) <= edits.MAX_PRIORITY):
        raise InvalidInput(f"a priority is a whole number from 0 to {edits.MAX_PRIORITY}")


def _token_note(host: str) -> str:
    return f"GitHub goes on knowing the new token until you revoke it: https://{host}/settings/applications"
