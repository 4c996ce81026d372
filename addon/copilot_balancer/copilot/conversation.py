"""Identifies the conversation of a request by a hash of fields that clients send.

Laws of this file:

1. Whatever a client says is hashed at once: no id and no word of a conversation is kept.
2. The most specific name wins; a sub-agent belongs to its parent, so that both stay with one account.
3. A request without such a field is identified by how the conversation began: system prompt and first user message.
"""

import hashlib
import re
from collections.abc import Mapping

from copilot_balancer.copilot.jsontext.incremental import Steps, finish
from copilot_balancer.copilot.request_digest import canonical

_HEADERS = (
    "x-parent-session-id",  # opencode, in a sub-agent's requests: the parent's session
    "x-session-affinity",  # opencode: one per session, kept by --continue
    "x-session-id",  # opencode, the same value
    "x-client-session-id",  # Copilot CLI: one per session, kept by --continue
    "session-id",  # codex
)
"""Headers that name a whole conversation, best first (docs/copilot-protocol.md#conversation-identity)."""

_PIECE = 1024 * 1024
"""Characters that are hashed at once."""

_SESSION = re.compile(r"session_[0-9a-fA-F-]{8,64}")
"""Claude Code puts this into ``metadata.user_id`` (docs/copilot-protocol.md#conversation-identity)."""


_LAST_HEADER = "x-interaction-id"
"""A whole session for some clients, one turn and its tool calls for VS Code; what a body says counts before it."""


def is_named(headers: Mapping[str, str]) -> bool:
    """Whether nobody has to look at how the conversation began."""
    return any(headers.get(name) for name in (*_HEADERS, _LAST_HEADER))


def conversation_of(headers: Mapping[str, str], body: dict[str, object] | None) -> str | None:
    """Twenty-four hex digits that name the conversation of a request, or None when nothing tells.

    Args:
        headers: the request's, looked up by lower-case name.
        body: the request's JSON object, when it has one.

    """
    return finish(naming(headers, body))


def naming(headers: Mapping[str, str], body: dict[str, object] | None) -> Steps[str | None]:
    """As `conversation_of`, slice by slice."""
    name = _named(headers, body or {}) or _beginning(body or {})
    if not name:
        return None
    hashed = hashlib.sha256()
    for start in range(0, len(name), _PIECE):
        hashed.update(name[start : start + _PIECE].encode("utf-8", "surrogatepass"))
        yield
    return hashed.hexdigest()[:24]


def _named(headers: Mapping[str, str], body: dict[str, object]) -> str | None:
    for header in _HEADERS:
        if value := headers.get(header):
            return f"id:{value}"
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and key:
        # VS Code: "<conversation>:<model family>"; the other clients: their session id
        return f"id:{key.partition(':')[0] or key}"
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if isinstance(user, str) and (session := _SESSION.search(user)):
        return f"id:{session.group()}"
    if value := headers.get(_LAST_HEADER):
        return f"id:{value}"
    return None


def _beginning(body: dict[str, object]) -> str | None:
    turns = body.get("messages", body.get("input"))
    if isinstance(turns, str):
        first: object = turns
    elif isinstance(turns, list):
        first = next((turn for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"), None)
    else:
        first = None
    if first is None:
        return None
    system: list[object] = [body.get("instructions"), body.get("system")]
    if isinstance(turns, list):
        system += [turn for turn in turns if isinstance(turn, dict) and turn.get("role") in ("system", "developer")][:1]
    try:
        return f"[[{', '.join(map(canonical, system))}], {canonical(first)}]"
    except RecursionError:  # as deep as JSON can be read
        return None
