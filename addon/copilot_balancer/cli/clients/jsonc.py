"""JSON in files of other programs, with comments where they allow them.

Laws of this file:

1. No exception leaves here: its traceback would hold the content, which may be a login.
2. Taking comments out moves nothing: each is as many blanks, so a place in the one text is the same in the other.
"""

import json
import re


def parsed(raw: bytes, *, comments: bool) -> object:
    """The document; None when it is none. `comments`: comments and commas too many are allowed."""
    try:
        text = raw.decode("utf-8-sig")
        return json.loads(re.sub(r",(\s*[}\]])", r"\1", plain(text)) if comments else text)
    except (ValueError, RecursionError):
        return None


_JSONC = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def plain(text: str) -> str:
    """JSON with comments, each comment as blanks of its own length."""
    return _JSONC.sub(lambda part: part[0] if part[0].startswith('"') else re.sub(r"[^\n]", " ", part[0]), text)
