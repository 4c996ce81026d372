"""Text for people: one printable line out of foreign text, wrapped lines, tables, lengths of time, moments, bars.

Law of this file: pure, and no text from outside gets to a terminal without `printable`.
"""

import math
import re
import textwrap
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime, tzinfo

WIDTH = 80


def bar(percent: float, width: int = 20) -> str:
    """``[#####...............]``: how much of a whole is left; never empty or full when it is not."""
    filled = round(min(max(percent, 0.0), 100.0) * width / 100)
    if 0 < percent < 100:
        filled = min(max(filled, 1), width - 1)
    return f"[{'#' * filled}{'.' * (width - filled)}]"


def wrapped(
    text: str, first: str = "", width: int = WIDTH, *, hanging: int | None = None, long_words: bool = True
) -> str:
    """`text` in lines of at most `width` columns; what is in backticks stays on one line.

    Args:
        text: without line ends.
        first: stands before the first line.
        width: columns.
        hanging: spaces before every other line; None: as many as `first` has characters.
        long_words: words that are longer than a line stay whole (paths, commands); else they are broken.

    """
    joined = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", "\0"), text) if long_words else text
    lines = textwrap.wrap(
        joined,
        width,
        initial_indent=first,
        subsequent_indent=" " * (len(first) if hanging is None else hanging),
        break_long_words=not long_words,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def folded(text: str, width: int | None, hanging: int) -> str:
    """`text` in lines of at most `width` columns, all but the first indented; None: as it is."""
    if width is None or len(text) <= width:
        return text
    return wrapped(text, width=max(width, 20), hanging=min(hanging, width // 2), long_words=False)


def table(
    rows: Sequence[Sequence[str]], *, right: Container[int] = (), measure: Callable[[str], int] = len
) -> list[str]:
    """Rows as lines, each column as wide as its widest cell.

    Args:
        rows: all with as many cells.
        right: the columns whose cells stand to the right.
        measure: columns that a cell takes on the screen.

    """
    widths = [max(map(measure, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [(cell, " " * (width - measure(cell))) for cell, width in zip(row, widths, strict=True)]
        cells = (pad + cell if number in right else cell + pad for number, (cell, pad) in enumerate(padded))
        lines.append("  ".join(cells).rstrip())
    return lines


def day(seconds: float, zone: tzinfo | None = None) -> str:
    """A moment for people, on this computer's clock unless a `zone` is named: ``2026-11-03 14:05 CET``."""
    return f"{datetime.fromtimestamp(round(seconds), UTC).astimezone(zone):%Y-%m-%d %H:%M %Z}"


def iso(seconds: float) -> str:
    """A moment for programs: ``2026-11-03T14:05:09Z``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def printable(text: str, limit: int = 120) -> str:
    """Foreign `text` as one line for people: at most `limit` characters, and each unprintable one as its escape."""
    text = text[:limit]
    if text.isprintable():  # nearly all of it
        return text
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown[:limit]


def duration(seconds: float) -> str:
    """A length of time for people, rounded up: "45 s", "12 min", "5 h", "3 days"."""
    for unit, size, up_to in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        number = max(1, math.ceil(seconds / size))
        if number <= up_to:
            return f"{number} {unit}"
    return f"{math.ceil(seconds / 86400)} days"
