"""What an upstream response means: asks the table (``outcome_table``), then the user's own rules, for an ``Outcome``.

Laws of this file:

1. Nothing here raises, whatever the status, the headers and the bytes are.
2. The table comes first where it knows of an abuse block, bound state or the authorization prefix; otherwise the first
   of the user's rules that matches, then the table.
3. What no row is about is `UNKNOWN`: held against nobody.
4. A pattern of the user's is literal text with ``*`` for anything, compared in any case. It is searched for piece by
   piece in at most 2,048 characters, so a rule takes microseconds whatever the upstream sends; no regular expressions.
5. A rule of the user's never shortens a wait that the server named, and it cannot say "blocked", "needs login" or
   "conversation": these switch an account off or move bound state, and need proof.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from copilot_balancer.copilot.encoding import LIMIT as BODY_LIMIT
from copilot_balancer.copilot.error_body import ErrorBody, before_colon, read, read_json
from copilot_balancer.rules.outcome_table import (
    EXCHANGE_RULES,
    RULES,
    STREAM_STATUS,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    Rule,
)
from copilot_balancer.rules.types import NO_COOLDOWN, SERVED, Action, CooldownKind, CooldownRule, Outcome, Reason, Scope
from copilot_balancer.text import printable

__all__ = [
    "EXCHANGE_RULES",
    "RULES",
    "SERVED",
    "STREAM_STATUS",
    "Action",
    "CooldownKind",
    "CooldownRule",
    "Meaning",
    "Outcome",
    "Reason",
    "Rule",
    "Scope",
    "classify",
    "classify_error",
    "classify_event",
    "classify_exchange",
    "written_of",
]

CODE_LENGTH = 80
TEXT_LENGTH = 200


# --- the user's own rules ---------------------------------------------------------------------------------------------

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


USER_RULE = "your rule"
"""What ``Outcome.rule`` begins with where a rule of the user's spoke; its number in config.toml follows."""
CERTIFICATE_RULE, CONNECTION_RULE, NO_RULE = "certificate", "connection", "none"
"""``Outcome.rule`` where no row of a table spoke."""


# --- asking the table -------------------------------------------------------------------------------------------------


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    wall: float,
    bound: bool = False,
    own: Sequence[OutcomeRule] = (),
) -> Outcome:
    """What an answer means for the account that gave it and for the request.

    Args:
        status: of the answer. 101 and 2xx are SERVED; an error inside such a stream is for `classify_event`.
        headers: of the answer, names in lower case.
        body: as received, compressed or not; no more than 64 KB of it are looked at.
        wall: seconds since the epoch now, on the wall clock.
        bound: whether the request carries state that another account may own (`BoundState`).
        own: the user's rules.

    """
    if status == 101 or 200 <= status < 300:
        return SERVED
    error = read(headers, body, wall=wall)
    found = _outcome(RULES, UNKNOWN, status, error, bound=bound)
    return _by_user(found, status, headers, error, own)


def classify_event(
    code: object, message: str, *, wall: float, bound: bool = False, own: Sequence[OutcomeRule] = ()
) -> Outcome:
    """What an error inside a 200 stream or a WebSocket frame means: as its code.

    Args:
        code: the error's ``code``, else its ``type``: text, a number, or None.
        message: the error's message.
        wall: seconds since the epoch now, on the wall clock.
        bound: whether the request carries state that another account may own (`BoundState`).
        own: the user's rules.

    """
    body = read_json({"error": {"code": code, "message": message[:BODY_LIMIT]}}, "", {}, wall=wall)
    status = STREAM_STATUS.get(before_colon(body.code))
    body = replace(body, provider=body.provider or body.word == "rate_limit_error")  # Anthropic's word
    found = _by_user(_outcome(RULES, UNKNOWN, status, body, bound=bound), None, {}, body, own)
    return replace(found, status=None)


def classify_error(message: str, *, sent: bool) -> Outcome:
    """What a connection that failed means.

    Args:
        message: in mitmproxy's words.
        sent: whether the request had gone out (a reset before headers) or not (a failed connect).

    """
    # mitmproxy 12 proxy/layers/tls.py; a certificate that is not right is never tried again (docs/security.md#retries)
    body = ErrorBody(message=message)
    if "certificate verify failed" in message.lower():
        return _made(UNKNOWN, CERTIFICATE_RULE, None, body, sent=sent)
    return _made(TRANSIENT, CONNECTION_RULE, None, body, sent=sent)


def classify_exchange(status: int, headers: Mapping[str, str], body: bytes, *, wall: float) -> Outcome:
    """What an answer of the token exchange means for the account that asked; nothing of a client was sent.

    Args:
        status: of the answer.
        headers: of the answer, names in lower case.
        body: as received, compressed or not; no more than 64 KB of it are looked at.
        wall: seconds since the epoch now, on the wall clock.

    """
    if 200 <= status < 300:
        return SERVED
    return replace(_outcome(EXCHANGE_RULES, TRANSIENT, status, read(headers, body, wall=wall)), sent=False)


def written_of(outcome: Outcome) -> str:
    """What of a refusal may be written down: its code, where that is a word; of a connection mitmproxy's sentence.

    Never an upstream's text: it may quote the conversation.
    """
    if outcome.rule in (CERTIFICATE_RULE, CONNECTION_RULE):
        return outcome.text
    return outcome.code if _CODE.fullmatch(outcome.code) else ""


_CODE = re.compile(r"[A-Za-z0-9_.:/-]{1,80}")


def clean(text: str, length: int) -> str:
    """One printable line of a foreign text, at most `length` characters.

    White space becomes one space, and what looks like a credential ``[token]``: a service may quote the one it refused.
    """
    return printable(_CREDENTIAL.sub("[token]", " ".join(text[: 16 * length].split())), length)


_PROTECTED = frozenset({Reason.BLOCKED, Reason.FORBIDDEN, Reason.CONVERSATION, Reason.PREFIX})
"""What no rule of the user's is asked about: an abuse block, or a hint at one; bound state; the prefix."""


def _by_user(
    table: Outcome, status: int | None, headers: Mapping[str, str], body: ErrorBody, own: Sequence[OutcomeRule]
) -> Outcome:
    """What the first of the user's rules that matches says instead of the table."""
    if table.reason in _PROTECTED:
        return table
    for number, rule in enumerate(own, 1):
        if rule.matches(status, headers, body):
            found = _made(rule.meaning, f"{USER_RULE} {number}", status, body)
            if found.retry_after is not None and isinstance(rule.rest, float):
                found = replace(found, retry_after=max(found.retry_after, rule.rest))
            return found
    return table


_CREDENTIAL = re.compile(
    r"(?<![a-z])(?:gh[a-z]_|github_pat_)[a-z0-9_]{8,}"
    r"|gh[opusr]_[a-z0-9]{16,}"  # a letter may stand before it where another writing ends, like %2F
    r"|(?<![a-z])tid=[^\s\"']+|(?<=bearer )[\x21-\x7e]{8,}",
    re.IGNORECASE,
)


def _outcome(
    rules: Sequence[Rule], otherwise: Meaning, status: int | None, body: ErrorBody, *, bound: bool = False
) -> Outcome:
    for rule in rules:
        if rule.matches(status, body, bound=bound):
            return _made(rule.meaning, rule.name, status, body)
    return _made(otherwise, NO_RULE, status, body)


def _made(meaning: Meaning, rule: str, status: int | None, body: ErrorBody, *, sent: bool = True) -> Outcome:
    return Outcome(
        reason=meaning.reason,
        scope=meaning.scope,
        action=meaning.action,
        rest=meaning.rest,
        retry_after=body.retry_after,
        models=_available(body.text) if meaning.reason is Reason.MODEL_MISSING else (),
        code=clean(body.code or body.kind, CODE_LENGTH),
        text=clean(body.message, TEXT_LENGTH),
        status=status,
        sent=sent,
        rule=rule,
    )


_AVAILABLE = re.compile(r"available models: ?\[([^\]]{0,20000})\]", re.IGNORECASE)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")


def _available(text: str) -> tuple[str, ...]:
    """The models in ``Available models: [gpt-4.1 claude-opus-4.7]`` (docs/copilot-protocol.md#missing-models)."""
    found = _AVAILABLE.search(text)
    names = re.split(r"[\s,]+", found[1]) if found else []
    return tuple(dict.fromkeys(name for name in names if _MODEL.fullmatch(name)))[:200]
