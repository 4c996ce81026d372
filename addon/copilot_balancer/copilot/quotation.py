"""Removes from an upstream's text what it quotes: words of the request, credentials, ids and addresses.

Laws of this file:

1. Every run of `RUN` or more characters that also stands in the request is replaced, whatever escapes and white space
   either side writes it with, and in any case.
2. What looks like a credential, an address or an id is replaced, whether the request holds it or not.
3. Nothing here raises. A request that is too long to be compared leaves nothing of the text.
"""

import re
from collections.abc import Collection, Iterator

from copilot_balancer.copilot.jsontext.lenient import parsed

RUN = 12
"""Characters; a shorter run in common is chance: "not supported", a parameter's name in part."""
LONGEST_REQUEST = 1024 * 1024
"""Characters of a request that a text is compared with; 500 comparisons with so many take 0.1 s."""
_ROUNDS = 4
"""How often one JSON document may stand inside another's string."""

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = dict.fromkeys("nrtbf", " ")
_TOKEN = re.compile(
    r"(?<![a-z])(?:gh[a-z]_|github_pat_)\w{8,}|gh[opusr]_[a-z0-9]{16,}|(?<![a-z])tid=[^\s\"']+"
    r"|(?<=bearer )[\x21-\x7e]{8,}|eyJ[\w-]{8,}\.[\w.-]+",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w.-]{1,200}")
_ID = re.compile(r"\b(?=[\w-]{0,200}\d)[\w-]{12,200}\b|\d{6,}")


def unquoted(text: str, request: bytes, names: Collection[str] = ()) -> str:
    """`text` on one line, without what it quotes.

    Args:
        text: what an upstream said.
        request: the body of the client's request, uncompressed.
        names: further words to be replaced, like logins.

    """
    text = _plain(text)
    if len(request) > LONGEST_REQUEST:
        return "[request too long to compare]" if text else ""
    text = _without(text, _lower(_plain(" ".join(_strings(request)))))
    text = _TOKEN.sub("[token]", text)
    text = _ADDRESS.sub("[address]", text)
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "[name]", text, flags=re.IGNORECASE)
    return _ID.sub("[id]", text)


def _strings(request: bytes) -> Iterator[str]:
    """All text of a request: every key and value of a JSON document, and the bytes as they are."""
    raw = request.decode("utf-8", "replace")
    yield raw
    waiting: list[object] = [parsed(raw)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def _plain(text: str) -> str:
    """Escapes resolved, however deep, and white space made single."""
    for _ in range(_ROUNDS):
        before, text = text, _ESCAPE.sub(_resolved, text)
        if text == before:
            break
    return " ".join(text.split())


def _resolved(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else _CONTROLS.get(found[2], found[2])


def _lower(text: str) -> str:
    """Lower case, a character for a character."""
    if text.isascii():
        return text.lower()
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _without(text: str, source: str) -> str:
    low = _lower(text)
    hidden = bytearray(len(text))
    for start in range(len(text) - RUN + 1):
        if low[start : start + RUN] in source:
            hidden[start : start + RUN] = b"\1" * RUN
    shown = ("\0" if hide else char for char, hide in zip(text.replace("\0", " "), hidden, strict=True))
    return re.sub("\0+", "[quoted]", "".join(shown))
