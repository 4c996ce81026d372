"""JSON in files of other programs, with comments where they allow them.

Laws of this file:

1. No exception leaves here: its traceback would hold the content, which may be a login.
2. Removing comments moves nothing: each is replaced by as many blanks, so an offset in one text is valid in the other.
"""

import json
import re


def parsed(raw: bytes, *, comments: bool) -> object:
    """The document; None when it is not JSON. `comments`: comments and trailing commas are allowed."""
    try:
        text = raw.decode("utf-8-sig")
        return json.loads(_without_trailing_commas(plain(text)) if comments else text)
    except (ValueError, RecursionError):
        return None


_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENT = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)


def plain(text: str) -> str:
    """JSON with comments, each comment as blanks of its own length."""
    return _COMMENT.sub(lambda part: part[0] if part[0].startswith('"') else re.sub(r"[^\n]", " ", part[0]), text)


def _without_trailing_commas(text: str) -> str:
    return _TRAILING_COMMA.sub(lambda part: part[0] if part[0].startswith('"') else " ", text)
