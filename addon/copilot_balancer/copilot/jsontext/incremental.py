"""Parses a long JSON text slice by slice, so that other tasks can run in between.

Laws of this file:

1. It knows JSON and nothing else: what becomes of a value is the caller's.
2. Every byte is read by json's own scanner: what that refuses is refused, with one of `spans.UNREADABLE`. So are
   arrays and objects longer than a window that stand more than `MOST_WITHIN` deep in each other.
3. Readers are generators. Each ``yield`` is a place to pause: what is done between two is a window's worth, or one
   string that is longer. What a reader returns is the value of its ``StopIteration``.
"""

import json
import re
from collections.abc import Callable, Generator

WINDOW = 65536
"""Bytes that are decoded at a time. json reads them in 0.3 ms; in 6 ms when they are nothing but small tokens."""
MOST_WITHIN = 12
"""How deep arrays and objects longer than a window may stand in each other: each level is looked at once more."""
_MOST_STEPS = 256
"""Elements that are read between two places to pause."""

type Steps[Result] = Generator[None, None, Result]

_scan: Callable[[str, int], tuple[object, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_MORE, LARGE = object(), object()


def finish[Result](steps: Steps[Result]) -> Result:
    """Read to the end without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


class LongText:
    """A JSON text, and the place up to which it has been read."""

    def __init__(self, raw: bytes) -> None:
        encoding = json.detect_encoding(raw)  # as json.loads does with bytes
        if encoding != "utf-8":
            raw = raw.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        self._raw = memoryview(raw)
        self._decoded = 0
        self._text, self._at = "", 0
        self._ahead, self._ahead_at = "", 0  # decoded for the end of a long string, and not wanted yet
        self._within = 0

    def document(self, take: Callable[[str, object], None], large: Callable[[str, object], Steps[None]]) -> Steps[None]:
        """Read the object that the whole text is, as `members` does.

        Raises:
            ValueError: it is none.

        """
        yield from self.members(take, large)
        if (yield from self._next()):
            raise ValueError("more than one document")

    def members(self, take: Callable[[str, object], None], large: Callable[[str, object], Steps[None]]) -> Steps[None]:
        """Read the object that begins here.

        Args:
            take: called with each member, in order; of a key that stands there twice the last one counts.
            large: called instead of `take` where the value is longer than a window: with the string, or with `LARGE` in
                the place of an array or object, which it must read.

        Raises:
            ValueError: it is none that can be read.

        """
        if not (yield from self._open("{", "}")):
            return
        count = 0
        while True:
            if (yield from self._next()) != '"':
                raise ValueError("a key that is no string")
            while (key := self._value()) is _MORE:
                yield
            assert isinstance(key, str)
            yield from self._colon()
            while (value := self._value()) is _MORE:
                yield
            if value is LARGE or (type(value) is str and len(value) > WINDOW):
                yield from large(key, value)
            else:
                take(key, value)
            if (yield from self._follows("}")):
                return
            count += 1
            if not count % _MOST_STEPS:
                yield

    def elements(self, take: Callable[[object], None], large: Callable[[object], Steps[None]]) -> Steps[None]:
        """Read the array that begins here; else as `members`."""
        if not (yield from self._open("[", "]")):
            return
        count = 0
        while True:
            try:  # the usual case, inlined: the element and its comma stand in the text
                value, end = _scan(self._text, self._at)
                followed = _COMMA.match(self._text, end)
            except (ValueError, StopIteration):
                followed, value = None, self._beyond()
            else:
                if followed is None or followed.end() == len(self._text):
                    followed, value = None, self._value()
            if followed:
                self._at = followed.end()
                take(value)
            else:
                while value is _MORE:
                    yield
                    value = self._value()
                if value is LARGE or (type(value) is str and len(value) > WINDOW):
                    yield from large(value)
                else:
                    take(value)
                if (yield from self._follows("]")):
                    return
            count += 1
            if not count % _MOST_STEPS:
                yield

    @property
    def is_array(self) -> bool:
        """Whether what begins here, and is large, is an array; else an object."""
        return self._text[self._at] == "["

    # --- one step -----------------------------------------------------------------------------------------------------

    def _value(self) -> object:
        """The value that begins here, and on behind it; `LARGE`, and the place stays; or `_MORE`: ask again."""
        try:
            value, end = _scan(self._text, self._at)
        except (ValueError, StopIteration):
            return self._beyond()
        if end < len(self._text) - 2 or self._all:  # else a number could go on: "1", "1." or "1e+" stands here
            self._at = end
            if len(self._text) - end > 2 * WINDOW:
                self._put_back()
            return value
        return self._beyond()

    def _beyond(self) -> object:
        """As `_value`, of a value that goes on beyond the text."""
        if self._all:
            raise ValueError("no JSON")
        seen = len(self._text) - self._at
        if seen >= WINDOW and self._text[self._at] in "[{":
            return LARGE
        self._decode(max(seen, WINDOW))
        return _MORE

    @property
    def _all(self) -> bool:
        return self._decoded == len(self._raw) and self._ahead_at >= len(self._ahead)

    def _put_back(self) -> None:
        """Have a window of the text, and the rest of it later."""
        self._ahead = self._text[self._at + WINDOW :] + self._ahead[self._ahead_at :]
        self._text, self._at, self._ahead_at = self._text[self._at : self._at + WINDOW], 0, 0

    def _decode(self, size: int) -> None:
        """Have about `size` bytes more of the text."""
        if self._ahead_at < len(self._ahead):
            self._text = self._text[self._at :] + self._ahead[self._ahead_at : self._ahead_at + size]
            self._at = 0
            self._ahead_at += size
            return
        raw, start = self._raw, self._decoded
        end = min(start + size, len(raw))
        for _ in range(3):  # not within a character
            end += end < len(raw) and raw[end] & 0xC0 == 0x80
        self._text = self._text[self._at :] + str(raw[start:end], "utf-8", "surrogatepass")
        self._at, self._decoded = 0, end

    def _next(self) -> Steps[str]:
        """The next character that is no white space, which stays; nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._all:
                return self._text[self._at : self._at + 1]
            self._decode(WINDOW)
            yield

    def _open(self, bracket: str, closing: str) -> Steps[bool]:
        """Go into an array or object; False, and behind it, when nothing is in it."""
        if (yield from self._next()) != bracket:
            raise ValueError("something else stands here")
        self._at += 1
        if (yield from self._next()) == closing:
            self._at += 1
            return False
        self._within += 1
        if self._within > MOST_WITHIN:
            raise ValueError("too much in each other")
        return True

    def _colon(self) -> Steps[None]:
        if (yield from self._next()) != ":":
            raise ValueError("no colon")
        self._at += 1
        yield from self._next()

    def _follows(self, closing: str) -> Steps[bool]:
        """Go over the comma, or the closing bracket, that stands here; True: over the bracket."""
        follows = yield from self._next()
        self._at += 1
        if follows == closing:
            self._within -= 1
            return True
        if follows != ",":
            raise ValueError("neither a comma nor an end")
        yield from self._next()
        return False
