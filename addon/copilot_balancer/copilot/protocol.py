"""Facts of the Copilot wire: which hosts, which paths, what is read of a body, and the shape of our own errors.

Laws of this file:

1. A path that is not listed gets no account's credential: ``/mcp`` and ``/agents`` act as a person
   (docs/how-it-decides.md#which-requests-get-an-account).
2. Of a body we read the model, the stream flag and what names a conversation. A body that cannot be read is no error:
   it goes on as it is.
3. The words of our own errors are chosen with care: clients decide by regular expression on the text whether to try
   again (docs/clients.md#after-a-refusal).
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, StrEnum

from copilot_balancer.copilot.auto_mode import INTENT
from copilot_balancer.copilot.jsontext.incremental import finish
from copilot_balancer.copilot.jsontext.lenient import loads
from copilot_balancer.copilot.jsontext.spans import UNREADABLE
from copilot_balancer.copilot.request_digest import abridged
from copilot_balancer.text import printable

PLACEHOLDER = "ghu_" + "a" * 36
"""What a client may hold in the place of a credential. It has the shape that the Copilot CLI accepts.

Source: github/gh-aw-firewall/docs/api-proxy-sidecar.md.
"""

PARSE_LIMIT = 32 * 1024 * 1024
"""Bytes of a body that we are willing to parse; a longer one goes on unread."""

CLIENT_LENGTH = 80
"""Characters of a client program's identity that are compared."""

MODEL_LENGTH = 200
"""Characters of the longest model name that is one."""

_BALANCED = frozenset(
    prefix + path
    for path in ("/chat/completions", "/responses", "/messages", "/messages/count_tokens", "/embeddings")
    for prefix in ("", "/v1")
)
"""Source: docs/copilot-protocol.md#endpoints; each with and without a leading ``/v1``."""


_SESSIONS = ("/models/session", INTENT)
_SELECTIONS = ("/auto", *_SESSIONS)
"""Source: docs/copilot-protocol.md#auto-mode."""


class Kind(Enum):
    """What is done with a request to a Copilot host (docs/how-it-decides.md#which-requests-get-an-account)."""

    BALANCED = "balanced"
    """Any account may serve it, and another one after a refusal."""
    SELECTION = "selection"
    """Auto mode chooses a model and mints a session token: any account may serve it, as BALANCED."""
    HOME = "home"
    """The home account's answer, never failed over: the list of models."""
    OTHER = "other"
    """The client's own credential goes on unchanged; no account's is ever put here."""


class Api(StrEnum):
    """The three forms in which a model is spoken to (docs/copilot-protocol.md#endpoints)."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"


_APIS = {
    "/chat/completions": Api.CHAT,
    "/responses": Api.RESPONSES,
    "/messages": Api.MESSAGES,
    "/messages/count_tokens": Api.MESSAGES,  # the same messages, to be counted
}


def api_of(path: str) -> Api | None:
    """In which form a conversation is told at this path; None: in none of the three."""
    return _APIS.get(path.partition("?")[0].removeprefix("/v1"))


def kind_of(method: str, path: str, *, websocket: bool = False) -> Kind:
    """Which kind a request is. `path` is the request target, query included; it is compared as it stands."""
    bare = path.partition("?")[0]
    if method == "POST" and bare in _BALANCED:
        return Kind.BALANCED
    if websocket and method == "GET" and bare in ("/responses", "/v1/responses"):
        return Kind.BALANCED
    if method == "GET" and bare == "/models":
        return Kind.HOME
    if (method == "POST" and bare in _SELECTIONS) or (method == "GET" and bare in _SESSIONS):
        return Kind.SELECTION
    return Kind.OTHER


def client_identity(headers: Mapping[str, str]) -> str:
    """The identity by which the service tells client programs apart: "vscode-chat vscode/1.104.0"; may be empty.

    Some refusals hold for one kind of credential with one such identity alone, like ``Personal Access Tokens are not
    supported``. Source: microsoft/vscode-copilot-chat sends both headers; an exchanged token without ``Editor-Version``
    is refused with 400 "missing Editor-Version header for IDE auth" (BerriAI/litellm#18475).

    Args:
        headers: the request's, by lower-case name.

    """
    words = (headers.get(name, "").strip() for name in ("copilot-integration-id", "editor-version"))
    return printable(" ".join(word for word in words if word), CLIENT_LENGTH)


def read_body(body: bytes) -> dict[str, object] | None:
    """The JSON object in a request's body, or None when there is none that we can read."""
    if not body or len(body) > PARSE_LIMIT:
        return None
    try:
        found = loads(body)
    except (ValueError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


def model_of(body: dict[str, object] | None) -> str | None:
    """The model that a request names: always the top-level ``model`` (docs/copilot-protocol.md#endpoints).

    Something that is no name (not one line of printable characters, or longer than 200) is none: it is passed on as
    it is, and nothing is remembered under it.
    """
    model = body.get("model") if body else None
    named = isinstance(model, str) and 0 < len(model) <= MODEL_LENGTH and model.isprintable()
    return str(model) if named else None


def with_model(body: bytes, old: str, new: str) -> bytes:
    """`body` with another top-level model; every other byte as it was, where the old one stands there only once."""
    mention = re.compile(rb'("model"\s*:\s*)' + re.escape(json.dumps(old).encode()))
    named = json.dumps(new).encode()
    if len(mention.findall(body)) == 1 and (changed := mention.sub(lambda m: m[1] + named, body)) != body:
        with suppress(*UNREADABLE):
            if finish(abridged(changed, beginning=False)).get("model") == new:
                return changed
    return json.dumps({**(read_body(body) or {}), "model": new}).encode()


def error_body(path: str, *, message: str, code: str, kind: str) -> bytes:
    """An error of our own in the service's shape; for the messages API in Anthropic's
    (docs/copilot-protocol.md#error-bodies).

    Args:
        path: of the request; chooses the shape.
        message: what a person reads.
        code: what a client compares, like ``rate_limited``.
        kind: the error's ``type``, like ``rate_limit_error``.

    """
    error = {"message": message, "code": code, "type": kind}
    body: dict[str, object] = {"error": error}
    if "/messages" in path:
        body = {"type": "error", **body}
    return json.dumps(body).encode()
