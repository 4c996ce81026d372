"""The user's own rules for refusals: one ``[[outcomes]]`` table of config.toml is a condition and what follows from it.

Laws of this file:

1. A pattern is literal text with ``*`` for anything, compared in any case. It is searched for piece by piece in at most
   2,048 characters, so a rule takes microseconds whatever the upstream sends; there are no regular expressions.
2. A rule never shortens a wait that the server named, and it cannot say "blocked", "needs login" or "conversation":
   these switch an account off or move bound state, and need proof.
3. It is asked by ``classify``, after the rows about abuse blocks, bound state and the authorization prefix.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from copilot_balancer.copilot.error_body import ErrorBody
from copilot_balancer.rules.outcome_table import Meaning
from copilot_balancer.rules.types import NO_COOLDOWN, Action, CooldownKind, CooldownRule, Reason, Scope

SEARCHED = 2048
"""Characters of a code, a header or a message that a pattern is searched in."""
MAX_RULES = 50

Pattern = Annotated[str, Field(min_length=1, max_length=200)]

_SCOPES = {
    Reason.LIMIT: Scope.ACCOUNT,
    Reason.SESSION_LIMIT: Scope.ACCOUNT,
    Reason.WEEKLY_LIMIT: Scope.ACCOUNT,
    Reason.AGENT_LIMIT: Scope.ACCOUNT,
    Reason.NO_ACCESS: Scope.ACCOUNT,
    Reason.QUOTA: Scope.ACCOUNT_PAID_MODELS,
    Reason.CLIENT_REFUSED: Scope.CREDENTIAL_CLIENT,
}
"""Who rests for a reason; for any other it is the account for the model that was asked for."""
_SAID = Literal[
    "limit", "session limit", "weekly limit", "model limit", "agent limit", "quota", "overloaded", "model missing",
    "no access", "policy", "client refused", "transient", "request",
]  # fmt: skip


class OutcomeRule(BaseModel):
    """One ``[[outcomes]]`` table: it matches a refusal when all that it names holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: tuple[Annotated[int, Field(ge=400, le=599)] | Literal["stream"], ...] = ()
    """HTTP statuses; "stream": an error inside a stream before any output. Empty: any refusal."""
    code: Pattern | None = None
    """The whole error code, or its type when it has none."""
    text: Pattern | None = None
    """Something in the error's message."""
    header: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,80}$")], Pattern] = Field({}, max_length=10)
    """Name of a response header -> its whole value."""
    reason: _SAID
    action: Literal["pass", "next", "next-once", "same"]
    rest: Literal["server", "none"] | Annotated[float, Field(ge=1, le=86400)] = "server"
    """"server": as long as the server says, else the ladder; "none": only as long as the server says; else seconds."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.status or self.code or self.text or self.header):
            raise ValueError("a rule names a status, a code, a text or a header")
        return self

    def matches(self, status: int | None, headers: Mapping[str, str], body: ErrorBody) -> bool:
        """Whether it is about this refusal; `status` is None inside a stream, names of `headers` are in lower case."""
        if self.status and ("stream" if status is None else status) not in self.status:
            return False
        if self.code is not None and not _fits(self.code, body.code or body.kind, whole=True):
            return False
        if self.text is not None and not _fits(self.text, body.text or body.message, whole=False):
            return False
        return all(_fits(value, headers.get(name.lower(), ""), whole=True) for name, value in self.header.items())

    @property
    def meaning(self) -> Meaning:
        """What follows from it."""
        reason = Reason(self.reason)
        if isinstance(self.rest, float):
            rest = CooldownRule(CooldownKind.SECONDS, self.rest)
        elif self.action == "pass" and self.rest == "server":
            rest = NO_COOLDOWN
        else:
            rest = CooldownRule(CooldownKind.SERVER if self.rest == "none" else CooldownKind.LADDER)
        scope = _SCOPES.get(reason, Scope.ACCOUNT_MODEL)
        return Meaning(reason, scope, Action(self.action.replace("-", " ")), rest)


def _fits(pattern: str, text: str, *, whole: bool) -> bool:
    """Whether the pieces of `pattern` between its stars stand in `text` in order; `whole`: from end to end."""
    text = text[:SEARCHED].casefold()
    first, *more = pattern.casefold().split("*")
    if not whole:
        first, more = "", [first, *more, ""]
    if not text.startswith(first):
        return False
    if not more:
        return text == first
    at = len(first)
    for piece in more[:-1]:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(text) - at >= len(more[-1]) and text.endswith(more[-1])
