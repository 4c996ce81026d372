"""Builds the page of the content view: facts and blocks of foreign text, escaped, wrapped and bounded.

Laws of this file:

1. Foreign text stands indented below a heading of ours, and each character that is not printable is shown as its
   escape: no text can forge a heading, turn its direction, or speak to a terminal.
2. It is bounded: so many characters are shown, and what was left out is said.
3. Nothing here raises, whatever the text.
"""

import json
import re
import unicodedata
from collections.abc import Iterator

from copilot_balancer.copilot.jsontext.lenient import dumped, parsed
from copilot_balancer.text import printable

SHOWN = 200_000
"""Characters of foreign text that are shown in all."""

WIDTH = 72
"""Characters of a line of prose: with its indent it fits mitmweb's pane in a small window and a console of 80."""

FACT = 1000
"""Characters of a value that stands in the page's head."""


class Page:
    """Lines, until there are too many. An empty line holds a space: mitmweb shows no line without one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left = SHOWN
        """Characters of foreign text that still find room."""
        self.dropped = 0
        """Blocks that found none."""

    def fact(self, name: str, value: str) -> None:
        """One value, when there is one; it may be foreign."""
        if value:
            self.lines += _wrapped(f"{name}: {printable(value, FACT)}", indent=4, solid=len(name) + 2)

    def block(self, heading: str, text: str, *, wrap: bool = False) -> None:
        """Foreign text of any length, indented below a heading of ours; `wrap`: it is prose, with code in fences."""
        if self.left <= 0:
            self.dropped += 1
            return
        shown = text[: self.left]
        self.left -= len(heading) + len(shown)
        self.lines += [" ", f"{printable(heading, 240)}: {'|' if shown else '(nothing)'}"]
        if shown:
            lines = clean(shown).split("\n")
            self.lines += (f"    {line}" for line in (_prose(lines) if wrap else lines))
        if len(text) > len(shown):
            self.lines.append(f"    ... {len(text) - len(shown):,} characters more")

    def remark(self, text: str) -> None:
        """What a person must know about the page itself."""
        self.lines += [" ", *_wrapped(f"# ... {printable(text, FACT)}", indent=6)]


def _prose(lines: list[str]) -> Iterator[str]:
    fenced = False
    for line in lines:
        fence = line.lstrip().startswith("```")
        fenced = fenced != fence
        yield from [line] if fenced or fence else _wrapped(line, indent=len(line) - len(line.lstrip()))


def _wrapped(line: str, *, indent: int, solid: int = 0) -> Iterator[str]:
    """The line on several: mitmweb wraps none. Between words, after a comma (JSON), or where there are none anywhere.

    Args:
        line: without an end.
        indent: spaces before all but the first, at most half a line.
        solid: characters at its beginning that stay together.

    """
    begin, margin, room = 0, "", WIDTH
    solid = max(solid, indent)
    while len(line) - begin > room:
        end = line.rfind(" ", begin + solid + 1, begin + room + 1)
        if end < 0 and line[begin + room].isascii():
            end = line.rfind(",", begin + solid + 1, begin + room) + 1 or line.find(" ", begin + room)
            if end < 0:
                break
        elif end < 0:
            end = begin + room
        yield margin + line[begin:end]
        begin = end + (line[end] == " ")
        margin = " " * min(indent, WIDTH // 2)
        room, solid = WIDTH - len(margin), 0
    yield margin + line[begin:]


_NOT_SHOWN = re.compile(r"[^\n\x20-\x7e\xa1-\xac\xae-\u0377]")
"""What must be looked at one by one: all but a line's end and the letters that most texts are made of."""


def clean(text: str) -> str:
    """Foreign text of several lines, safe to be shown: unprintable characters as their escapes, spaces."""
    return _NOT_SHOWN.sub(_escaped, text.replace("\r\n", "\n").expandtabs(4)).strip("\n")


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable() or char in "\u200c\u200d":  # the joiners: without them emoji and Persian fall apart
        return char
    return " " if unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()


def arguments(text: str, limit: int) -> str:
    """What a tool is called with: each argument on a line, text of several lines as it is."""
    found = parsed(text) if len(text) <= limit else None
    if not found:
        return text
    told = []
    for name, value in found.items():
        if limit <= 0:
            told.append("...")
            break
        long = isinstance(value, str) and "\n" in value
        told.append(f"{name}: {_indented(value) if long else _pretty(value, limit)}")
        limit -= len(told[-1])
    return "\n".join(told)


def _indented(text: str) -> str:
    return "|\n" + "\n".join(f"    {line}" for line in text.strip("\n").split("\n"))


def _pretty(value: object, limit: int) -> str:
    """JSON on one line when it is short, else on several."""
    flat = dumped(value)
    if len(flat) <= 80 or not isinstance(value, dict | list):
        return flat
    pieces, length = [], 0
    try:
        for piece in json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(value):
            pieces.append(piece)
            length += len(piece)
            if length > limit:  # indentation makes a nest of lists far longer than it was
                return flat
    except RecursionError:
        return flat
    return "".join(pieces)
