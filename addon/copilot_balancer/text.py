"""text: split from its former room."""

import math
import re
import textwrap
from datetime import UTC, datetime

WIDTH = 80


def bar(percent: float, width: int = 20) -> str:
    """``[#####...............]``: how much of a whole is left; never empty or full when it is not."""
    filled = round(min(max(percent, 0.0), 100.0) * width / 100)
    if 0 < percent < 100:
        filled = min(max(filled, 1), width - 1)
    return f"[{'#' * filled}{'.' * (width - filled)}]"


def wrapped(text: str, first: str = "", width: int = WIDTH) -> str:
    """`text` in lines of at most `width` columns, hanging from `first`; what is in backticks stays on one line."""
    joined = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        joined,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def folded(text: str, width: int | None, hanging: int) -> str:
    """`text` in lines of at most `width` columns, all but the first indented; None: as it is."""
    if width is None or len(text) <= width:
        return text
    indent = " " * min(hanging, width // 2)
    return "\n".join(textwrap.wrap(text, max(width, 20), subsequent_indent=indent, break_on_hyphens=False))


def day(seconds: float) -> str:
    """A moment for people: ``2026-11-03 14:05 UTC``."""
    return f"{datetime.fromtimestamp(round(seconds), UTC):%Y-%m-%d %H:%M} UTC"


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
