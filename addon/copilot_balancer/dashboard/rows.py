"""The list that a pane shows, one line a row; its cursor outlives every repaint.

Laws of this file:

1. A row has a key. The cursor stays with its key when rows come, go or move; on the first row of a list that grows at
   the top it stays on top.
2. Only what changed is painted again.
"""

from collections.abc import Sequence
from typing import Any

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from copilot_balancer.dashboard.lines import Line, Tone

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
