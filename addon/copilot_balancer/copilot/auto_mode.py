"""Auto mode's selections: which requests they are, and what an answer to one allows.

The client asks for a selection (``POST /auto``, ``POST /models/session``) and gets a session token; each chat that
follows carries it as ``Copilot-Session-Token``. Sources: docs/copilot-protocol.md#auto-mode.

Laws of this file:

1. What cannot be read allows nothing. A foreign document never raises.
2. A token has no place in a repr.
"""

import math
from dataclasses import dataclass, field

SESSION_TOKEN = "copilot-session-token"  # noqa: S105 - a header's name
"""The request header of a chat in Auto mode, in lower case."""

INTENT = "/models/session/intent"
"""Chooses among the models of a session that exists: it carries that session's token and mints none."""

IDENTITY = (
    "user-agent",
    "editor-version",
    "editor-plugin-version",
    "copilot-integration-id",
    "copilot-language-server-version",
    "openai-intent",
    "x-github-api-version",
    "x-initiator",
    "x-interaction-type",
)
"""Headers that say which program asks and in which form: a selection that is asked once more keeps them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What the answer to a selection request gives."""

    token: str = field(repr=False)
    expires_at: float | None
    """Seconds since the epoch, on the service's clock; None: the answer does not say."""
    models: frozenset[str]
    """The models that its chats may ask for."""

    def allows(self, model: str | None) -> bool:
        """Whether a chat for exactly this model may carry the token."""
        return model is not None and model in self.models


def read_selection(document: object) -> Selection | None:
    """The selection in a JSON document, or None when it holds no session token.

    ``selected_model`` is a name (``/models/session``) or an entry with an ``id`` (``/auto``); ``available_models`` is a
    list of either.
    """
    if not isinstance(document, dict):
        return None
    token, expires_at, others = document.get("session_token"), document.get("expires_at"), []
    if not isinstance(token, str) or not token:
        return None
    if isinstance(document.get("available_models"), list):
        others = document["available_models"]
    names = (_name(one) for one in (document.get("selected_model"), *others))
    return Selection(token, _date(expires_at), frozenset(name for name in names if name))


def _date(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        return None
    return float(value)


def _name(model: object) -> str | None:
    found = model.get("id") if isinstance(model, dict) else model
    return found if isinstance(found, str) else None
