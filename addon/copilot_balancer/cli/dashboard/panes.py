"""Widgets of the dashboard: the panes with rows and their key bindings, and the details.

Laws of this file:

1. A pane shows what it is given. What its keys do is the app's business, by the names of actions.
2. Every key has a word for the footer and a sentence for help.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from copilot_balancer.cli.dashboard.lines import Line, Tone

STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.FAINT: "$faint",
    Tone.GOOD: "$good",
    Tone.CAUTION: "$caution",
    Tone.BAD: "$bad",
    Tone.KEY: "$name bold",
    Tone.TRACK: "$track",
    Tone.AREA: "$name 55%",
}
"""A tone in Textual's words; the colours are the theme's."""


def content(line: Line) -> Content:
    """`line` for a widget; nothing in it is read as markup."""
    return Content.assemble(*((span.text, STYLES[span.tone]) for span in line))


def paragraphs(lines: Sequence[Line]) -> Content:
    """Several lines for one widget."""
    return Content("\n").join([content(line) for line in lines])


class Rows(OptionList):
    """Rows with keys; `growing` at the top: a cursor on the newest row stays on the newest."""

    def __init__(self, *, growing: bool = False, **more: Any) -> None:
        super().__init__(**more)
        self.growing = growing
        self._shown: list[tuple[str, Line]] = []

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        return self._shown[self.highlighted][0] if self.highlighted is not None and self._shown else None

    @property
    def room(self) -> int:
        """How many cells a row has, beside the empty one before it and the scroll bar's, be there one or not."""
        return self.size.width - 2

    def show(self, rows: Sequence[tuple[str, Line]]) -> None:
        """Show these rows: key and line."""
        before, self._shown = self._shown, list(rows)
        if [key for key, _ in before] == [key for key, _ in rows]:
            for index, (old, new) in enumerate(zip(before, rows, strict=True)):
                if old != new:
                    self.replace_option_prompt_at_index(index, content(new[1]))
            return
        at = self.highlighted
        key = before[at][0] if at is not None and before else None
        top = self.scroll_offset.y
        self.set_options([Option(content(line)) for _, line in rows])
        if rows:
            self.highlighted = self._place(key, at or 0)
        self.scroll_to(y=top, animate=False, immediate=True)
        self.scroll_to_highlight()

    def _place(self, key: str | None, before: int) -> int:
        keys = [known for known, _ in self._shown]
        if self.growing and before == 0:
            return 0
        return keys.index(key) if key in keys else min(before, len(keys) - 1)

    def choose(self, key: str) -> None:
        """Put the cursor on the row with this key, when there is one."""
        keys = [known for known, _ in self._shown]
        if key in keys:
            self.highlighted = keys.index(key)


PaneName = Literal["accounts", "requests", "routes", "details"]
PANES: tuple[PaneName, ...] = get_args(PaneName)


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
