"""Styled lines of a fixed width in cells: spans, table rows, bars, countdowns, moments.

Laws of this file:

1. Pure: values in, lines out; ``at`` (seconds on the wall clock) and widths (cells) are arguments. Textual is not
   imported; only rich's count of cells is.
2. A line is as wide as it was asked to be, whatever stands in it: a row never breaks.
3. What matters is said in words as well as in colour; a tone names a meaning, the app gives it its colour.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum

from rich.cells import cell_len, set_cell_size

from copilot_balancer.copilot.quota import QuotaWindow


class Tone(StrEnum):
    """What a piece of text means; the app knows its colour in the light and in the dark."""

    PLAIN = ""
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    CAUTION = "caution"
    BAD = "bad"
    KEY = "key"
    """A name to look for: an account's label, a key to press."""
    TRACK = "track"
    """The empty part of a bar."""
    AREA = "area"
    """What is filled in a plot."""


@dataclass(frozen=True, slots=True)
class Span:
    """Some text in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


type Line = tuple[Span, ...]


def plain(line: Line) -> str:
    """The text of `line` alone."""
    return "".join(span.text for span in line)


def words(*parts: str | Span) -> Line:
    """A line of these parts; what is empty falls away."""
    spans = (Span(part) if isinstance(part, str) else part for part in parts)
    return tuple(span for span in spans if span.text)


def width_of(line: Line) -> int:
    """In cells."""
    return sum(cell_len(span.text) for span in line)


def fitted(line: Line, width: int, *, right: bool = False) -> Line:
    """`line` in exactly `width` cells: padded, or cut with an ellipsis."""
    missing = width - width_of(line)
    if missing >= 0:
        pad = Span(" " * missing)
        return words(pad, *line) if right else words(*line, pad)
    if width <= 0:
        return ()
    kept: list[Span] = []
    room = width - 1
    for span in line:
        size = cell_len(span.text)
        if size > room:
            kept += [Span(set_cell_size(span.text, room), span.tone), Span("…", span.tone)]
            break
        kept.append(span)
        room -= size
    return words(*kept)


# ── a table ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Column:
    """One column: as wide as `width`, plus its share of what is over."""

    name: str
    width: int
    title: str = ""
    right: bool = False
    grows: int = 0
    """Its share of the cells that are over."""
    most: int = 1000
    """It grows no wider."""


GAP = 1
"""Cells between two columns."""


def laid_out(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Each column with its width, so that a row fills `width` where it can."""
    widths = [column.width for column in columns]
    over = width - sum(widths) - GAP * (len(columns) - 1)
    while over > 0:
        growing = [i for i, column in enumerate(columns) if column.grows and widths[i] < column.most]
        if not growing:
            break
        shares = sum(columns[i].grows for i in growing)
        for i in growing:
            more = min(max(over * columns[i].grows // shares, 1), columns[i].most - widths[i], over)
            widths[i] += more
            over -= more
            shares -= columns[i].grows
            if not over:
                break
    return list(zip(columns, widths, strict=True))


def row(columns: Sequence[Column], cells: Mapping[str, Line], width: int) -> Line:
    """One row of a table, `width` cells wide."""
    parts: list[Span] = []
    for column, wide in laid_out(columns, width):
        if parts:
            parts.append(Span(" " * GAP))
        parts += fitted(cells.get(column.name, ()), wide, right=column.right)
    return fitted(tuple(parts), width)


def head(columns: Sequence[Column], width: int) -> Line:
    """The titles over a table's rows."""
    return row(columns, {column.name: words(Span(column.title, Tone.FAINT)) for column in columns}, width)


# ── moments and amounts ──────────────────────────────────────────────────────────────────────────────────────────────


def countdown(seconds: float) -> str:
    """What is left of a wait, rounded up, in at most seven characters: ``0:42``, ``12:05``, ``5h 12m``, ``12d 4h``."""
    left = max(math.ceil(seconds), 0)
    if left < 3600:
        return f"{left // 60}:{left % 60:02d}"
    minutes, hours = math.ceil(left / 60), math.ceil(left / 3600)
    if minutes < 48 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{hours // 24}d {hours % 24}h" if hours < 1000 * 24 else f"{min(hours // 24, 999999)}d"


def ago(seconds: float) -> str:
    """How long ago, in at most six characters: ``now``, ``42 s``, ``5 min``, ``3 h``, ``12 d``."""
    passed = max(seconds, 0.0)
    if passed < 1:
        return "now"
    for unit, size, up_to in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if passed < size * up_to:
            return f"{passed // size:.0f} {unit}"
    return f"{min(passed // 86400, 9999):.0f} d"


def since(seconds: float) -> str:
    """The same as part of a sentence: ``just now``, ``42 s ago``."""
    told = ago(seconds)
    return "just now" if told == "now" else f"{told} ago"


def clock(at: float, zone: tzinfo | None) -> str:
    """``14:05:09`` in `zone`; None: this computer's."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone(zone):%H:%M:%S}"


def moment(at: float, zone: tzinfo | None) -> str:
    """``2026-11-03 14:05`` in `zone`; None: this computer's."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone(zone):%Y-%m-%d %H:%M}"


def milliseconds(seconds: float) -> str:
    """How long a request took, in at most seven characters: ``840 ms``, ``12.4 s``, ``3:25``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 99.95 else countdown(seconds)


def amount(number: float) -> str:
    """``9.7M``: a number in at most six characters."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 10:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def counted(number: int, noun: str) -> str:
    """``1 account``, ``3 accounts``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


# ── quota ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LOW, SHORT = 10.0, 30.0
"""Percent: what is left is bad below the first, and to be watched below the second."""


def left_tone(percent: float) -> Tone:
    """How good it is that `percent` are left."""
    return Tone.BAD if percent < LOW else Tone.CAUTION if percent < SHORT else Tone.GOOD


def bar(percent: float, width: int) -> Line:
    """How much of a whole is left; never empty or full when it is not."""
    halves = round(min(max(percent, 0.0), 100.0) * width * 2 / 100)
    if 0 < percent < 100:
        halves = min(max(halves, 1), width * 2 - 1)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return words(Span(filled, left_tone(percent)), Span("─" * (width - len(filled)), Tone.TRACK))


def gauge(window: QuotaWindow, at: float, width: int) -> Line:
    """A bar and a percentage, ``width + 5`` cells; a window that has reset since tells nothing any more."""
    if window.unlimited:
        return fitted(words(Span("unlimited", Tone.GOOD)), width + 5)
    if over(window, at):
        return fitted(words(Span("has reset", Tone.FAINT)), width + 5)
    return words(*bar(window.percent_left, width), Span(f"{window.percent_left:4.0f}%", left_tone(window.percent_left)))


def percent(window: QuotaWindow, at: float) -> Line:
    """The number alone, where it tells something."""
    if window.unlimited or over(window, at):
        return ()
    return words(Span(f"{window.percent_left:.0f}%", left_tone(window.percent_left)))


def over(window: QuotaWindow, at: float) -> bool:
    """Whether `window` has reset since it was seen."""
    return window.resets_at is not None and window.resets_at <= at


def tightest(quota: Mapping[str, QuotaWindow], at: float) -> list[tuple[str, QuotaWindow]]:
    """The windows, the one with the least left first; those that tell nothing last."""

    def order(item: tuple[str, QuotaWindow]) -> tuple[bool, bool, float, str]:
        name, window = item
        return window.unlimited, over(window, at), window.percent_left, name

    return sorted(quota.items(), key=order)
