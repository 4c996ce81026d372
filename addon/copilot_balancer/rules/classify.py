"""What an upstream answer means: a table from (status, code, text) to ``Outcome``.

Laws of this file:

1. The table is the law: ``RULES``, first match wins, each row carries its source. What is not in it is passed
   through untouched (``UNKNOWN``). A code says more than a text, a text more than a status: so stand the rows.
2. Nothing here raises, whatever the status, the headers and the bytes are.
3. The nouns are those of ``outcome``; who asks the table finds them here too.
"""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from copilot_balancer.copilot.encoding import LIMIT as BODY_LIMIT
from copilot_balancer.copilot.error_body import ErrorBody, before_colon, read, read_json
from copilot_balancer.rules.types import NO_COOLDOWN, SERVED, Action, CooldownKind, CooldownRule, Outcome, Reason, Scope
from copilot_balancer.text import printable

__all__ = [
    "EXCHANGE_RULES",
    "RULES",
    "SERVED",
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
]

CODE_LENGTH = 80
TEXT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Meaning:
    """What rows have in common that mean the same."""

    reason: Reason
    scope: Scope
    action: Action
    rest: CooldownRule = NO_COOLDOWN


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: it matches when all that it names holds."""

    name: str
    meaning: Meaning
    source: str
    """Public source: a file or (``#``) a thread of a repository that docs/copilot-protocol.md names in full."""
    statuses: AbstractSet[int] = frozenset()
    """The answer has one of these; empty: any."""
    codes: AbstractSet[str] = frozenset()
    """``ErrorBody.word`` is one of these."""
    text: str = ""
    """This regular expression is found in ``ErrorBody.text``, in any case."""
    when: Callable[[ErrorBody], bool] | None = None
    in_stream: bool = False
    """A row with statuses: whether it also holds for an error inside a stream whose code stands for no status."""

    def matches(self, status: int | None, body: ErrorBody) -> bool:
        """Whether this row is about an answer; `status` is None inside a stream."""
        if self.statuses and status not in self.statuses and not (status is None and self.in_stream):
            return False
        if self.codes and body.word not in self.codes:
            return False
        if self.text and not re.search(self.text, body.text, re.IGNORECASE):
            return False
        return self.when is None or self.when(body)


# --- what there is to say ---------------------------------------------------------------------------------------------

_LADDER = CooldownRule(CooldownKind.LADDER)
_HOUR = CooldownRule(CooldownKind.SECONDS, 3600.0)

UNKNOWN = Meaning(Reason.UNKNOWN, Scope.NOBODY, Action.PASS)
LIMIT = Meaning(Reason.LIMIT, Scope.ACCOUNT, Action.NEXT, _LADDER)
SESSION_LIMIT = Meaning(
    Reason.SESSION_LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.RESET, window="session")
)
WEEKLY_LIMIT = Meaning(
    Reason.WEEKLY_LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.RESET, 3600.0, window="weekly")
)
MODEL_LIMIT = Meaning(Reason.MODEL_LIMIT, Scope.ACCOUNT_MODEL, Action.NEXT, _LADDER)
AGENT_LIMIT = Meaning(Reason.AGENT_LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.SECONDS, 300.0))
QUOTA = Meaning(
    Reason.QUOTA,
    Scope.ACCOUNT_PAID_MODELS,
    Action.NEXT,
    # an admin can raise a budget at any time, so it is asked again every six hours
    CooldownRule(CooldownKind.RESET, 3600.0, window="premium", recheck=6 * 3600.0),
)
OVERLOADED = Meaning(Reason.OVERLOADED, Scope.NOBODY, Action.NEXT_ONCE, CooldownRule(CooldownKind.SECONDS, 10.0))
CLIENT_LIMITED = Meaning(Reason.CLIENT_LIMITED, Scope.NOBODY, Action.PASS)
NOT_SUPPORTED = Meaning(
    Reason.MODEL_MISSING, Scope.ACCOUNT_MODEL, Action.NEXT, CooldownRule(CooldownKind.SECONDS, 30.0, repeated=900.0)
)
NOT_AVAILABLE = Meaning(Reason.MODEL_MISSING, Scope.CREDENTIAL_MODEL, Action.NEXT, _HOUR)
REQUEST = Meaning(Reason.REQUEST, Scope.REQUEST, Action.PASS)
NOBODYS_FAULT = Meaning(Reason.REQUEST, Scope.NOBODY, Action.PASS)
CREDENTIAL = Meaning(Reason.CREDENTIAL, Scope.CREDENTIAL, Action.SAME)
NEEDS_LOGIN = Meaning(Reason.NEEDS_LOGIN, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.UNTIL_LOGIN))
CONVERSATION = Meaning(Reason.CONVERSATION, Scope.CONVERSATION, Action.OWNER)
PREFIX = Meaning(Reason.PREFIX, Scope.HOST, Action.SAME)
NO_ACCESS = Meaning(Reason.NO_ACCESS, Scope.ACCOUNT, Action.NEXT, _HOUR)
FORBIDDEN = Meaning(Reason.FORBIDDEN, Scope.ACCOUNT_MODEL, Action.SAME, _HOUR)
BLOCKED = Meaning(Reason.BLOCKED, Scope.ACCOUNT, Action.STOP, CooldownRule(CooldownKind.UNTIL_USER))
WRONG_HOST = Meaning(Reason.WRONG_HOST, Scope.HOST, Action.SAME)
TRANSIENT = Meaning(Reason.TRANSIENT, Scope.NOBODY, Action.NEXT_ONCE, CooldownRule(CooldownKind.SECONDS, 30.0))
EXCHANGE_LIMIT = Meaning(Reason.TRANSIENT, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.SECONDS, 60.0))

# --- the table --------------------------------------------------------------------------------------------------------

_BLOCKED_CODES = {
    "spammy_user",
    "access_revoked",
    "billing_locked",
    "trade_restricted",
    "programmatic_token_generation",
}
_NO_ACCESS_CODES = {
    "no_copilot_access",
    "not_signed_up",
    "subscription_ended",
    "enterprise_managed_user_account",
    "feature_flag_blocked",
    "snippy_not_configured",
}


def _by_provider(body: ErrorBody) -> bool:
    return body.provider


def _without_code(body: ErrorBody) -> bool:
    return not before_colon(body.code)


def _speaks_of_a_limit(body: ErrorBody) -> bool:
    return re.search("rate.?limit|too.?many.?requests", f"{body.code} {body.text}", re.IGNORECASE) is not None


def _asks_to_authorize(body: ErrorBody) -> bool:
    return body.authorize_url


def _page(body: ErrorBody) -> bool:
    return body.html


def _no_page(body: ErrorBody) -> bool:
    """Not an HTML page, which somebody in between wrote: it says nothing about an account."""
    return not body.html


# A row a line or two: this table is read more often than it is changed, so the formatter leaves it alone.
# fmt: off
RULES: tuple[Rule, ...] = (
    # what is repaired; a lost conversation also comes as a 401, so it stands before all that speaks of credentials
    Rule("conversation", CONVERSATION, "VS Code chatMLFetcher.ts; caozhiyuan/copilot-api#363",
         codes={"previous_response_not_found", "invalid_encrypted_content"}),
    Rule("conversation, by text", CONVERSATION, "opencode#31236, hermes-agent#32725 (401), caozhiyuan/copilot-api#208",
         statuses={400, 401}, in_stream=True,
         text="does not belong to this connection"
              "|previous response .{0,200}not found"
              "|encrypted .{0,400}(?:could not be (?:verified|decrypted)|did not match)"
              "|organization_id did not match the target organization"
              "|invalid .?(?:signature|data).? in .?(?:redacted_)?thinking"
              "|bound to a different conversation"),
    Rule("prefix", PREFIX, "github/gh-aw-firewall/docs/auth-matrix.md",
         statuses={400}, text="authorization header is badly formatted"),
    Rule("wrong host", WRONG_HOST, "copilot-api#7, copilot-cli#173", statuses={421}),
    # codes, whatever the status
    Rule("extension blocked", CLIENT_LIMITED, "VS Code", codes={"extension_blocked"}),
    Rule("integration limit", CLIENT_LIMITED, "VS Code commonTypes.ts", codes={"integration_rate_limited"}),
    Rule("session limit", SESSION_LIMIT, "VS Code commonTypes.ts", codes={"user_global_rate_limited"}),
    Rule("weekly limit", WEEKLY_LIMIT, "copilot-sdk; copilot-cli#2696", codes={"user_weekly_rate_limited"}),
    Rule("model limit", MODEL_LIMIT, "VS Code commonTypes.ts", codes={"user_model_rate_limited"}),
    Rule("agent limit", AGENT_LIMIT, "VS Code", codes={"agent_mode_limit_exceeded"}),
    Rule("quota", QUOTA, "VS Code, copilot-sdk; opencode#48330",
         codes={"quota_exceeded", "free_quota_exceeded", "session_quota_exceeded", "overage_limit_reached",
                "billing_not_configured"}),
    Rule("overloaded", OVERLOADED, "VS Code chatMLFetcher.ts",
         codes={"model_overloaded", "upstream_provider_rate_limit"}),
    Rule("limit", LIMIT, "copilot-cli#138; copilot-api-js (as 400)", codes={"rate_limited"}),
    Rule("model not supported", NOT_SUPPORTED, "gh-aw-firewall", codes={"model_not_supported"}),
    Rule("model not available", NOT_AVAILABLE, "gh-aw-firewall upstream-response.js",
         codes={"model_not_available_for_integrator", "no_available_model_endpoints"}),
    Rule("wrong endpoint", NOBODYS_FAULT, "gh-aw-firewall: permanent", codes={"unsupported_api_for_model"}),
    Rule("auto mode is over", NOBODYS_FAULT, "VS Code chatMLFetcher.ts", codes={"session_expired"}),
    Rule("blocked", BLOCKED, "VS Code copilotToken.ts", codes=_BLOCKED_CODES),
    Rule("no access", NO_ACCESS, "VS Code copilotToken.ts", codes=_NO_ACCESS_CODES),
    # texts about a model
    Rule("wrong endpoint, by text", NOBODYS_FAULT, "gh-aw-firewall",
         statuses={400, 404, 422}, in_stream=True, text="not accessible via the .{0,80}endpoint"),
    Rule("model not available, by text", NOT_AVAILABLE, "gh-aw-firewall",
         statuses={400, 403, 404, 422}, in_stream=True,
         text="model is not available for integrator|no endpoints available for this model"),
    Rule("model not supported, by text", NOT_SUPPORTED, "opencode provider/transform.ts; hermes-agent",
         statuses={400, 404, 422}, in_stream=True,
         text="requested model is not supported|model is not supported for this request"),
    Rule("no access to the model", NOT_AVAILABLE, "copilot-cli#4390; the 403 was found in no source",
         statuses={403}, text="access to this model|model is disabled by your"),
    # texts about a limit
    Rule("model limit, by text", MODEL_LIMIT, "VS Code",
         statuses={429}, in_stream=True, text="rate limit for this model"),
    Rule("weekly limit, by text", WEEKLY_LIMIT, "copilot-cli#2740",
         statuses={429}, in_stream=True, text="weekly (?:rate )?limit"),
    Rule("session limit, by text", SESSION_LIMIT, "copilot-cli 1.0.34",
         statuses={429}, in_stream=True, text="hour session limit|session rate limit"),
    Rule("agent limit, by text", AGENT_LIMIT, "VS Code",
         statuses={429}, in_stream=True, text="agent mode rate limit"),
    Rule("integration limit, by text", CLIENT_LIMITED, "VS Code commonTypes.ts",
         statuses={429}, in_stream=True, text="copilot chat is currently experiencing high demand"),
    Rule("overloaded, by text", OVERLOADED, "VS Code commonTypes.ts",
         statuses={429}, in_stream=True, text="model provider is currently experiencing high demand"),
    Rule("limit, by text", LIMIT, "vscode-copilot-release#5795; it names the Terms of Service",
         statuses={403, 429}, in_stream=True, text="exceeded your copilot token usage"),
    Rule("limit of the provider", OVERLOADED, "vscode#303628 (Google); docs.anthropic.com, Errors",
         statuses={429}, when=_by_provider),
    Rule("quota, by text", QUOTA, "copilot-intellij-feedback#331, oh-my-openagent#3737",
         statuses={429}, in_stream=True, text="quota exceeded"),
    Rule("limit without a code", LIMIT, "docs/copilot-protocol.md#limits", statuses={429}, when=_without_code),
    Rule("limit with a new code", LIMIT, "docs/copilot-protocol.md#limits: the text where the code says nothing",
         statuses={429}, when=_speaks_of_a_limit),
    # who is asking
    Rule("extension to authorise", NOBODYS_FAULT, "VS Code", statuses={401}, when=_asks_to_authorize),
    Rule("auto mode is over, by text", NOBODYS_FAULT, "copilot-cli#2818 (401 Invalid auto-mode selector)",
         statuses={400, 401}, text="auto-mode selector|copilot-session-token"),
    Rule("GitHub token refused", NEEDS_LOGIN, "copilot-cli#18; copilot-cli#829 (AuthenticateToken)",
         statuses={400, 401, 403},
         text="bad credentials"
              "|personal access tokens? (?:does not have|are not supported)"
              "|server-to-server tokens are not supported"
              "|authenticatetoken authentication failed"),
    Rule("bearer refused", CREDENTIAL, "caozhiyuan/copilot-api (token expired); copilot-cli 1.0.63 retries every 401",
         statuses={401}, when=_no_page),
    Rule("forbidden", FORBIDDEN, "hermes-agent#61746, #11035, opencode#26344, CopilotChat.nvim#1417",
         statuses={403}, text="terms of service"),
    Rule("no access, by text", NO_ACCESS, "hermes-agent#10715, copilot-cli#552, #3101, #149",
         statuses={403},
         text="not licen[sc]ed|not authori[sz]ed|access denied|(?:copilot|organi[sz]ation|enterprise)(?:'s)? polic"),
    Rule("nothing left", QUOTA, "docs/copilot-protocol.md#quota: a 402 says nothing else",
         statuses={402}, when=_no_page),
    # statuses
    Rule("service unavailable", OVERLOADED, "VS Code reads every 503 so; Anthropic's 529", statuses={503, 529}),
    Rule("server error", TRANSIENT, "docs/copilot-protocol.md#server-errors", statuses={408, 500, 502, 504}),
    Rule("error page", TRANSIENT, "copilot-api-js refs/error.html", statuses=set(range(500, 600)), when=_page),
    Rule("request", REQUEST, "docs/copilot-protocol.md#faulty-requests", statuses={400, 404, 413, 422, 424, 466, 499}),
)
"""What a refusal of a client's request means; the first row that matches."""
# fmt: on

STREAM_STATUS = {
    # the WebSocket's and the Responses API's (docs/copilot-protocol.md#websocket)
    "content_filter": 422,
    "not_found": 404,
    "request_too_large": 413,
    "bad_request": 400,
    "service_unavailable": 503,
    "internal_error": 500,
    "server_error": 500,
    # Anthropic's (docs.anthropic.com, "Errors")
    "invalid_request_error": 400,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # a number is the status that a provider would have answered with; its 401, 402 and 403 are not about an account
    **{str(status): status for status in (400, 404, 408, 413, 422, 429, 499, 500, 502, 503, 504, 529)},
}
"""The code of an error inside a stream -> the HTTP status that it stands for."""

# fmt: off
EXCHANGE_RULES: tuple[Rule, ...] = (
    Rule("blocked", BLOCKED, "VS Code copilotToken.ts", codes=_BLOCKED_CODES),
    Rule("no access", NO_ACCESS, "VS Code copilotToken.ts", codes=_NO_ACCESS_CODES),
    Rule("server error", TRANSIENT, "VS Code copilotToken.ts", codes={"server_error"}),
    Rule("limit", EXCHANGE_LIMIT, "docs/copilot-protocol.md#token-exchange",
         statuses={403, 429}, text="rate limit"),
    Rule("GitHub token refused", NEEDS_LOGIN, "docs/copilot-protocol.md#refused-credentials",
         statuses={401}, when=_no_page),
    Rule("no access, by status", NO_ACCESS, "docs/copilot-protocol.md#token-exchange: 404 for another app",
         statuses={403, 404}, when=_no_page),
)
"""What a refusal of the token exchange means; what is not here is TRANSIENT, since there is nothing to pass through."""
# fmt: on

CERTIFICATE_RULE, CONNECTION_RULE, NO_RULE = "certificate", "connection", "none"
"""``Outcome.rule`` where no row of a table spoke."""


# --- asking the table -------------------------------------------------------------------------------------------------


def classify(status: int, headers: Mapping[str, str], body: bytes, *, wall: float) -> Outcome:
    """What an answer means for the account that gave it and for the request.

    Args:
        status: of the answer. 101 and 2xx are SERVED; an error inside such a stream is for `classify_event`.
        headers: of the answer, names in lower case.
        body: as received, compressed or not; no more than 64 KB of it are looked at.
        wall: seconds since the epoch now, on the wall clock.

    """
    if status == 101 or 200 <= status < 300:
        return SERVED
    return _outcome(RULES, UNKNOWN, status, read(headers, body, wall=wall))


def classify_event(code: object, message: str, *, wall: float) -> Outcome:
    """What an error inside a 200 stream or a WebSocket frame means: as its code.

    Args:
        code: the error's ``code``, else its ``type``: text, a number, or None.
        message: the error's message.
        wall: seconds since the epoch now, on the wall clock.

    """
    body = read_json({"error": {"code": code, "message": message[:BODY_LIMIT]}}, "", {}, wall=wall)
    status = STREAM_STATUS.get(before_colon(body.code))
    body = replace(body, provider=body.provider or body.word == "rate_limit_error")  # Anthropic's word
    return replace(_outcome(RULES, UNKNOWN, status, body), status=None)


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


def clean(text: str, length: int) -> str:
    """One printable line of a foreign text, at most `length` characters.

    White space becomes one space, and what looks like a credential ``[token]``: a service may quote the one it refused.
    """
    return printable(_CREDENTIAL.sub("[token]", " ".join(text[: 16 * length].split())), length)


_CREDENTIAL = re.compile(
    r"(?:gh[a-z]_|github_pat_)[A-Za-z0-9_]{8,}|tid=[^\s\"']+|(?<=bearer )[\x21-\x7e]{8,}", re.IGNORECASE
)


def _outcome(rules: tuple[Rule, ...], otherwise: Meaning, status: int | None, body: ErrorBody) -> Outcome:
    for rule in rules:
        if rule.matches(status, body):
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
