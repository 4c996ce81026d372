"""Modal dialogs: a form, a confirmation, a choice, a text to read, a device code, and the editor of a route.

Laws of this file:

1. A dialog asks and returns what was answered, None when it was closed; it changes nothing itself.
2. Escape closes each; what is not allowed is said in the dialog, which stays.
3. Everything can be done with the keyboard alone and with the mouse alone, at 80 by 24.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from copilot_balancer.cli.dashboard.lines import Line, Span, Tone, fitted, words
from copilot_balancer.cli.dashboard.panes import content, paragraphs
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.device_flow import Show
from copilot_balancer.rules.accounts import RouteTable

ESCAPE = Binding("escape", "close", "Close")


class Dialog[T](ModalScreen[T | None]):
    """A box in the middle with a title; escape closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [ESCAPE]

    def __init__(self, title: str) -> None:
        super().__init__()
        self.heading = title

    def compose(self) -> ComposeResult:
        """The box."""
        with Vertical(classes="box") as box:
            box.border_title = self.heading
            yield from self.inside()

    def inside(self) -> ComposeResult:
        """What stands in the box."""
        yield from ()

    def action_close(self) -> None:
        """Answer nothing."""
        self.dismiss(None)

    @property
    def wrong(self) -> Static:
        """Where it is said what is wrong."""
        return self.query_one(".wrong", Static)

    def say_wrong(self, text: str) -> None:
        """Say what is wrong; an empty text: nothing is."""
        self.wrong.update(content(words(Span(text, Tone.BAD))) if text else "")


def buttons(**labels: str) -> Horizontal:
    """A line of buttons: id = label; the first one is the one that is meant."""
    made = [
        Button(label, id=name, compact=True, variant="primary" if index == 0 else "default")
        for index, (name, label) in enumerate(labels.items())
    ]
    return Horizontal(*made, classes="buttons")


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Field:
    """One line to fill in."""

    name: str
    value: str = ""
    hint: str = ""
    """What stands there while it is empty."""


class Form(Dialog[tuple[str, ...]]):
    """Fields to fill in. `check` gets the values and raises InvalidInput with what is wrong with them."""

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        *,
        said: Sequence[Line] = (),
        yes: str = "OK",
        check: Callable[[tuple[str, ...]], object] = lambda _: None,
    ) -> None:
        super().__init__(title)
        self.fields, self.said, self.yes, self.check = fields, said, yes, check

    def inside(self) -> ComposeResult:
        """A text, the fields, what is wrong, two buttons."""
        if self.said:
            yield Static(paragraphs(self.said), classes="said")
        for field in self.fields:
            yield Label(field.name, classes="field")
            yield Input(field.value, placeholder=field.hint, compact=True, select_on_focus=True)
        yield Static("", classes="wrong")
        yield buttons(yes=self.yes, no="Cancel")

    def on_input_submitted(self) -> None:
        """Enter answers."""
        self._answer()

    def on_input_changed(self) -> None:
        """What was wrong is not said any more once it is mended."""
        if self.wrong.content:
            self._checked()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """So does the button."""
        if event.button.id == "yes":
            self._answer()
        else:
            self.dismiss(None)

    def _answer(self) -> None:
        values = self._checked()
        if values is not None:
            self.dismiss(values)

    def _checked(self) -> tuple[str, ...] | None:
        """The values when they are allowed; else it is said what is wrong with them."""
        values = tuple(field.value.strip() for field in self.query(Input))
        try:
            self.check(values)
        except InvalidInput as error:
            self.say_wrong(str(error))
            return None
        self.say_wrong("")
        return values


# ── yes or no ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Confirm(Dialog[bool]):
    """A question; y or the button is yes, n and escape are no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ESCAPE,
        Binding("y", "yes", "Yes"),
        Binding("n", "close", "No"),
    ]

    def __init__(self, title: str, said: Sequence[Line], *, yes: str = "Yes", no: str = "No") -> None:
        super().__init__(title)
        self.said, self.yes, self.no = said, yes, no

    def inside(self) -> ComposeResult:
        """The text, which may scroll, and two buttons."""
        with VerticalScroll(classes="text", can_focus=len(self.said) > 8):
            yield Static(paragraphs(self.said))
        yield buttons(yes=f"{self.yes} (y)", no=f"{self.no} (n)")

    def on_mount(self) -> None:
        """A long text is read first: arrows scroll it."""
        if len(self.said) > 8:
            self.query_one(VerticalScroll).focus()

    def action_yes(self) -> None:
        """Yes."""
        self.dismiss(True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A click answers."""
        self.dismiss(True if event.button.id == "yes" else None)


# ── a choice ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Choose(Dialog[str]):
    """One of several: id and line of each."""

    def __init__(self, title: str, options: Sequence[tuple[str, Line]], chosen: str) -> None:
        super().__init__(title)
        self.options, self.chosen = options, chosen

    def inside(self) -> ComposeResult:
        """The list."""
        yield OptionList(*[Option(content(line), id=name) for name, line in self.options], compact=True)

    def on_mount(self) -> None:
        """The cursor begins on what holds now."""
        names = [name for name, _ in self.options]
        self.query_one(OptionList).highlighted = names.index(self.chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter or a click answers."""
        self.dismiss(event.option_id)


# ── a text ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Read(Dialog[bool]):
    """Something to read; any of escape, enter, q and ? closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [ESCAPE, Binding("enter,q,question_mark", "close", "Close")]

    def __init__(self, title: str, said: Sequence[Line]) -> None:
        super().__init__(title)
        self.said = said

    def inside(self) -> ComposeResult:
        """The text."""
        with VerticalScroll(classes="text"):
            yield Static(paragraphs(self.said))

    def on_mount(self) -> None:
        """Arrows scroll it."""
        self.query_one(VerticalScroll).focus()


# ── a code to type at GitHub's page ──────────────────────────────────────────────────────────────────────────────────


class CodeDialog(Dialog[bool]):
    """Where to type which code, while somebody waits for it in a thread. Escape: None. The app closes it with True."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ESCAPE,
        Binding("o", "open", "Open the page"),
        Binding("c", "copy", "Copy the code"),
    ]

    def __init__(self, host: str, open_page: Callable[[str], bool], copy: Callable[[str], bool]) -> None:
        super().__init__(f"Log in at {host}")
        self.host, self.open_page, self.copy_code = host, open_page, copy
        self.shown: Show | None = None

    def inside(self) -> ComposeResult:
        """Page and code, once they are known."""
        yield Static(content(words(Span(f"Asking {self.host} for a code ...", Tone.FAINT))), id="code")
        yield Static("", classes="wrong")
        yield buttons(open="Open the page (o)", copy="Copy the code (c)", no="Cancel (esc)")

    def show_code(self, shown: Show) -> None:
        """Tell the code."""
        self.shown = shown
        lines = [
            words("Open  ", Span(shown.url, Tone.KEY)),
            words("Type  ", Span(shown.user_code, Tone.STRONG)),
            (),
            words(Span(f"Waiting for you, {shown.seconds / 60:.0f} minutes at most ...", Tone.FAINT)),
        ]
        self.query_one("#code", Static).update(paragraphs(lines))

    def say(self, text: str) -> None:
        """Tell how it goes."""
        self.query_one(".wrong", Static).update(content(words(Span(text, Tone.FAINT))))

    def action_open(self) -> None:
        """Open GitHub's page in the user's browser, who asked for just that."""
        if self.shown is not None:
            worked = self.open_page(self.shown.url)
            self.say("The page was opened in your browser." if worked else "No browser could be opened.")

    def action_copy(self) -> None:
        """Put the code into the clipboard."""
        if self.shown is not None:
            if self.copy_code(self.shown.user_code):
                self.say("The code is in the clipboard.")
            else:
                self.app.copy_to_clipboard(self.shown.user_code)  # the terminal's own, where it lets programs do that
                self.say("Your terminal was asked to take the code into its clipboard.")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The same by mouse."""
        actions: dict[str | None, Callable[[], None]] = {"open": self.action_open, "copy": self.action_copy}
        actions.get(event.button.id, self.action_close)()


# ── a row of the matrix ──────────────────────────────────────────────────────────────────────────────────────────────


class AccountOrder(OptionList):
    """All accounts; those that are picked stand first, in the order in which they are asked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "select", "Pick"),
        Binding("shift+up,K", "shift(-1)", "Up"),
        Binding("shift+down,J", "shift(1)", "Down"),
    ]

    def __init__(self, labels: Sequence[str], picked: Sequence[str], **more: Any) -> None:
        super().__init__(compact=True, **more)
        self.picked = list(picked)
        self.others = [label for label in labels if label not in picked]
        self._paint(0)

    def _paint(self, cursor: int) -> None:
        lines = [words(Span(f"{n:2} ", Tone.GOOD), Span(label, Tone.STRONG)) for n, label in enumerate(self.picked, 1)]
        lines += [words(Span(" - ", Tone.FAINT), Span(label, Tone.FAINT)) for label in self.others]
        self.set_options([Option(content(line)) for line in lines])
        self.highlighted = cursor if lines else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Pick the account, or leave it out; the cursor goes with it, so that it can be put in its place."""
        event.stop()
        index = event.option_index
        if index < len(self.picked):
            self.others.insert(0, self.picked.pop(index))
            self._paint(len(self.picked))
        else:
            self.picked.append(self.others.pop(index - len(self.picked)))
            self._paint(len(self.picked) - 1)

    def action_shift(self, by: int) -> None:
        """Ask the account under the cursor earlier or later."""
        index = self.highlighted
        if index is None or index >= len(self.picked):
            return
        target = min(max(index + by, 0), len(self.picked) - 1)
        self.picked.insert(target, self.picked.pop(index))
        self._paint(target)


class RouteDialog(Dialog[RouteTable]):
    """One row of the matrix: models, accounts in their order, other models."""

    BINDINGS: ClassVar[list[BindingType]] = [ESCAPE, Binding("ctrl+s", "save", "Save")]

    def __init__(self, title: str, route: RouteTable | None, labels: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(title)
        self.route, self.labels, self.known = route, labels, known

    def inside(self) -> ComposeResult:
        """Three fields and two buttons."""
        route = self.route
        yield Label("Models: patterns such as gpt-5* with commas between", classes="field")
        yield Input(", ".join(route.models) if route else "", placeholder="gpt-5*, o3", compact=True, id="models")
        if self.known:
            known = fitted(words(Span(f"seen: {', '.join(self.known)}", Tone.FAINT)), 66)
            yield Static(content(known), classes="said")
        yield Label("Accounts: space picks, shift+up and shift+down order; none = all", classes="field")
        yield AccountOrder(self.labels, route.accounts if route else ())
        yield Label("When nobody can serve it, ask for these models instead", classes="field")
        yield Input(", ".join(route.fallback) if route else "", placeholder="none", compact=True, id="fallback")
        yield Static("", classes="wrong")
        yield buttons(yes="Save (ctrl+s)", no="Cancel (esc)")

    def on_input_submitted(self) -> None:
        """Enter in a field saves."""
        self.action_save()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The same by mouse."""
        if event.button.id == "yes":
            self.action_save()
        else:
            self.dismiss(None)

    def on_input_changed(self) -> None:
        """What was wrong is not said any more once it is mended."""
        if self.wrong.content:
            self._checked()

    def action_save(self) -> None:
        """Answer with the row, when it is one."""
        route = self._checked()
        if route is not None:
            self.dismiss(route)

    def _checked(self) -> RouteTable | None:
        """The row when it is one; else it is said what is wrong with it."""
        try:
            route = route_of(
                self.query_one("#models", Input).value,
                self.query_one(AccountOrder).picked,
                self.query_one("#fallback", Input).value,
                enabled=self.route.enabled if self.route else True,
            )
        except InvalidInput as error:
            self.say_wrong(str(error))
            return None
        self.say_wrong("")
        return route


def route_of(models: str, accounts: Sequence[str], fallback: str, *, enabled: bool) -> RouteTable:
    """The row that was written.

    Raises:
        InvalidInput: it is none.

    """
    wanted, instead = _patterns(models), _patterns(fallback)
    if not wanted:
        raise InvalidInput("name at least one model, or a pattern like gpt-5*")
    try:
        return RouteTable(models=wanted, accounts=tuple(accounts), fallback=instead, enabled=enabled)
    except ValueError:
        raise InvalidInput("a model pattern is 1 to 200 ASCII characters without spaces") from None


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.replace(",", " ").split()))
