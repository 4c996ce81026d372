"""The table of refusals: from (status, code, text) to what a refusal means for the request and for the account.

Laws of this file:

1. The first row that matches counts, and each row names where its case was seen. A code says more than a text, a text
   more than a status: in that order the rows stand.
2. A row says no more than its source: "needs login" only for ``Bad credentials``, "off until the user" only for a code
   of an abuse block, "the request" only where a code, a text or the status says so.
3. The table is open. A 403, a 429 or a 5xx that no row is about is asked of one other account, and held against nobody
   (`UNKNOWN_FORBIDDEN`, `UNKNOWN_LIMIT`, the row "server error").
"""

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from copilot_balancer.copilot.error_body import ErrorBody, before_colon
from copilot_balancer.rules.types import NO_COOLDOWN, Action, CooldownKind, CooldownRule, Reason, Scope


@dataclass(frozen=True, slots=True)
class Meaning:
    """What several rows have in common."""

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
    """The response has one of these; empty: any, or none where `in_stream`."""
    codes: AbstractSet[str] = frozenset()
    """``ErrorBody.word`` is one of these."""
    text: str = ""
    """This regular expression is found in ``ErrorBody.text``, in any case."""
    when: Callable[[ErrorBody], bool] | None = None
    in_stream: bool = False
    """Whether the row also holds for an error inside a stream whose code stands for no status; without `statuses`: for
    such an error alone."""
    bound: bool = False
    """The row holds only for a request that carries state which another account may own."""

    def matches(self, status: int | None, body: ErrorBody, *, bound: bool) -> bool:
        """Whether this row is about a refusal; `status` is None inside a stream, `bound`: the request carries state."""
        named = status in self.statuses or (status is None and self.in_stream)
        if (self.statuses or self.in_stream) and not named:
            return False
        if self.codes and body.word not in self.codes:
            return False
        if self.bound and not bound:
            return False
        if self.text and not re.search(self.text, body.text, re.IGNORECASE):
            return False
        return self.when is None or self.when(body)


BY_STATUS = "request"
"""The row that blames the request only because its status does."""

# --- what there is to say ---------------------------------------------------------------------------------------------

_LADDER = CooldownRule(CooldownKind.LADDER)
_HOUR = CooldownRule(CooldownKind.SECONDS, 3600.0)

UNKNOWN = Meaning(Reason.UNKNOWN, Scope.NOBODY, Action.PASS)
UNKNOWN_FORBIDDEN = Meaning(Reason.UNKNOWN, Scope.NOBODY, Action.SAME_ONCE, CooldownRule(CooldownKind.SERVER))
"""Perhaps the exchanged token has ended, or the account lives on another host: renewed once, then one other account."""
UNKNOWN_LIMIT = Meaning(Reason.UNKNOWN, Scope.NOBODY, Action.NEXT_ONCE, CooldownRule(CooldownKind.SERVER))
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
RETIRED = Meaning(
    Reason.MODEL_MISSING,
    Scope.ACCOUNT_MODEL,
    Action.NEXT_ONCE,
    CooldownRule(CooldownKind.SECONDS, 30.0, repeated=900.0),
)
NOT_AVAILABLE = Meaning(Reason.MODEL_MISSING, Scope.CREDENTIAL_MODEL, Action.NEXT, _HOUR)
REQUEST = Meaning(Reason.REQUEST, Scope.REQUEST, Action.PASS)
NOBODYS_FAULT = Meaning(Reason.REQUEST, Scope.NOBODY, Action.PASS)
CREDENTIAL = Meaning(Reason.CREDENTIAL, Scope.CREDENTIAL, Action.SAME)
CLIENT_REFUSED = Meaning(Reason.CLIENT_REFUSED, Scope.CREDENTIAL_CLIENT, Action.NEXT, _HOUR)
NEEDS_LOGIN = Meaning(Reason.NEEDS_LOGIN, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.UNTIL_LOGIN))
CONVERSATION = Meaning(Reason.CONVERSATION, Scope.CONVERSATION, Action.OWNER)
ATTACHMENT = Meaning(Reason.CONVERSATION, Scope.CONVERSATION, Action.NEXT)
"""Another account may have uploaded it; nothing of it can be left out of the request."""
PREFIX = Meaning(Reason.PREFIX, Scope.HOST, Action.SAME)
POLICY = Meaning(Reason.POLICY, Scope.REQUEST, Action.NEXT)
NO_ACCESS = Meaning(Reason.NO_ACCESS, Scope.ACCOUNT, Action.NEXT, _HOUR)
NO_ACCESS_HERE = Meaning(Reason.NO_ACCESS, Scope.ACCOUNT, Action.SAME, _HOUR)
"""Also what an account is told on another plan's host, so the host is learnt before it counts."""
FORBIDDEN = Meaning(Reason.FORBIDDEN, Scope.ACCOUNT_MODEL, Action.SAME, _HOUR)
BLOCKED = Meaning(Reason.BLOCKED, Scope.ACCOUNT, Action.STOP, CooldownRule(CooldownKind.UNTIL_USER))
WRONG_HOST = Meaning(Reason.WRONG_HOST, Scope.HOST, Action.SAME)
TRANSIENT = Meaning(Reason.TRANSIENT, Scope.NOBODY, Action.NEXT_ONCE, CooldownRule(CooldownKind.SECONDS, 30.0))
EXCHANGE_LIMIT = Meaning(Reason.TRANSIENT, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.SECONDS, 60.0))

# --- the table --------------------------------------------------------------------------------------------------------

_BLOCKED_CODES = {"spammy_user", "access_revoked", "trade_restricted", "programmatic_token_generation"}
_NO_ACCESS_CODES = {
    "billing_locked",
    "no_copilot_access",
    "not_signed_up",
    "subscription_ended",
    "enterprise_managed_user_account",
    "feature_flag_blocked",
    "snippy_not_configured",
}

_WHOSE = (
    r"(?:this|your|the|an?) (?:copilot |github )?"
    r"(?:organi[sz]ation|enterprise|account|user|plan|subscription|licen[sc]e|admin)"
)
"""Whose decision a policy is, as the texts of refusals name it."""
_OFF = (
    rf"(?:not|n't) (?:enabled|allowed|permitted|available|supported) (?:for|by|in|on|under|with) {_WHOSE}"
    rf"|(?:disabled|blocked|forbidden|restricted|turned off) (?:for|by|in) {_WHOSE}"
)
_LIMIT_WORDS = r"rate.?limit|too.?many.?requests"
_BOUND_NOUNS = r"thinking|signature|encrypted|reasoning item|item.?reference|previous.?response|\b(?:rs|msg|fc|resp)_"
_LOST = (
    r"not found|no longer|expired|missing|unknown|invalid|mismatch|cannot be modified|can't be modified"
    r"|must (?:remain|match)|could not be|failed to|(?:does|did|do) not (?:belong|match|exist)|without its required"
)
"""A refusal of bound state names one of the nouns and, before or behind it, one of these; the wordings are many."""


def _by_provider(body: ErrorBody) -> bool:
    return body.provider


def _without_code(body: ErrorBody) -> bool:
    return not before_colon(body.code)


def _speaks_of_a_limit(body: ErrorBody) -> bool:
    return re.search(_LIMIT_WORDS, f"{body.code} {body.text}", re.IGNORECASE) is not None


def _names_a_wait(body: ErrorBody) -> bool:
    return body.retry_after is not None


def _asks_to_authorize(body: ErrorBody) -> bool:
    return body.authorize_url


def _no_page(body: ErrorBody) -> bool:
    """Not an HTML page, which somebody in between wrote: it says nothing about an account."""
    return not body.html


def _no_feature_of_copilot(body: ErrorBody) -> bool:
    """Whether the policy is about something in the request, not about Copilot as a whole."""
    return re.search(r"copilot(?: chat)? (?:is|has been|was|isn)", body.text, re.IGNORECASE) is None


def _says_only_not_found(body: ErrorBody) -> bool:
    """Whether a 404 says nothing but that: no message of its own."""
    return body.word in ("", "not_found", "not_found_error") and body.message[:1] in ("", "{", "[")


def _is_lost(body: ErrorBody) -> bool:
    """Whether a text says that bound state is not there, or is not what it was."""
    text = body.text
    return (
        re.search(_BOUND_NOUNS, text, re.IGNORECASE) is not None
        and re.search(_LOST, text, re.IGNORECASE) is not None
        and re.search(r"budget|max_tokens|thinking\.(?:type|enabled|display)", text, re.IGNORECASE) is None
    )


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
    Rule("conversation not found", CONVERSATION, "opencode#37389",
         statuses={404}, bound=True, when=_says_only_not_found),
    Rule("conversation of a request that carries state", CONVERSATION,
         "copilot-intellij-feedback#1976 (thinking blocks cannot be modified)",
         statuses={400, 404, 422}, in_stream=True, bound=True, when=_is_lost),
    Rule("attachment of another account", ATTACHMENT, "@vscode/chat-lib 0.66",
         codes={"vision_attachment_not_accessible"}),
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
    Rule("quota", QUOTA, "VS Code, copilot-sdk; opencode#48330; vscode#320829 (additional_spend_limit_reached)",
         codes={"quota_exceeded", "free_quota_exceeded", "session_quota_exceeded", "overage_limit_reached",
                "billing_not_configured", "additional_spend_limit_reached", "budget_exceeded"}),
    Rule("overloaded", OVERLOADED, "VS Code chatMLFetcher.ts; cockpit-tools#1651 (OpenAI's own codes)",
         codes={"model_overloaded", "upstream_provider_rate_limit", "server_is_overloaded", "slow_down",
                "service_unavailable_error"}),
    Rule("limit", LIMIT, "copilot-cli#138; copilot-api-js (as 400)", codes={"rate_limited"}),
    Rule("model not supported", NOT_SUPPORTED, "gh-aw-firewall", codes={"model_not_supported"}),
    Rule("model not available", NOT_AVAILABLE, "gh-aw-firewall upstream-response.js",
         codes={"model_not_available_for_integrator", "no_available_model_endpoints"}),
    Rule("model retired", RETIRED, "github community discussion #209212; OpenAI's model_not_found",
         codes={"model_not_found"}),
    Rule("wrong endpoint", NOBODYS_FAULT, "gh-aw-firewall: permanent", codes={"unsupported_api_for_model"}),
    Rule("auto mode is over", NOBODYS_FAULT, "VS Code chatMLFetcher.ts", codes={"session_expired"}),
    Rule("blocked", BLOCKED, "VS Code copilotToken.ts", codes=_BLOCKED_CODES),
    Rule("no access", NO_ACCESS, "VS Code copilotToken.ts; vscode#288988 (billing_locked is no abuse)",
         codes=_NO_ACCESS_CODES),
    # texts about a model
    Rule("model of another session", NOBODYS_FAULT, "VS Code automodeService.ts", statuses={400},
         text="model (?:is )?not available for (?:this |the )?session"),
    Rule("wrong endpoint, by text", NOBODYS_FAULT, "gh-aw-firewall",
         statuses={400, 404, 422}, in_stream=True, text="not accessible via the .{0,80}endpoint"),
    Rule("model not available, by text", NOT_AVAILABLE, "gh-aw-firewall",
         statuses={400, 403, 404, 422}, in_stream=True,
         text="model is not available for integrator|no endpoints available for this model"),
    Rule("model not supported, by text", NOT_SUPPORTED, "opencode provider/transform.ts; hermes-agent",
         statuses={400, 404, 422}, in_stream=True,
         text="requested model is not supported|model is not supported for this request"),
    Rule("no access to the model", NOT_AVAILABLE, "copilot-cli#4390; the 403 was found in no source",
         statuses={400, 403},
         text=f"access to this model|model (?:\\S{{1,80}} )?is (?:{_OFF})|model is disabled by your"),
    Rule("model retired, by text", RETIRED, "github community discussion #209212",
         statuses={400, 404, 410, 422}, in_stream=True,
         text="model .{0,100}(?:does not exist|not found|has been (?:deprecated|retired|removed))"),
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
    Rule("quota in OpenAI's word", QUOTA, "platform.openai.com, Error codes",
         statuses={402, 403, 429}, codes={"insufficient_quota"}),
    Rule("limit without a code", LIMIT, "docs/copilot-protocol.md#limits", statuses={429}, when=_without_code),
    Rule("limit with a new code", LIMIT, "docs/copilot-protocol.md#limits: the text where the code says nothing",
         statuses={403, 429}, when=_speaks_of_a_limit),
    Rule("limit with a wait", LIMIT, "docs/copilot-protocol.md#limits", statuses={429}, when=_names_a_wait),
    Rule("limit in a stream", OVERLOADED, "cockpit-tools#1651: OpenAI's codes say nothing of Copilot's account",
         in_stream=True, codes={"rate_limit_exceeded", "too_many_requests", "insufficient_quota"}),
    Rule("overloaded in a stream, by text", OVERLOADED, "cockpit-tools#1651: an error without a code",
         in_stream=True,
         text=f"{_LIMIT_WORDS}|overloaded|at capacity|high demand|temporarily unavailable|server is busy"),
    # who is asking
    Rule("extension to authorise", NOBODYS_FAULT, "VS Code", statuses={401}, when=_asks_to_authorize),
    Rule("auto mode is over, by text", NOBODYS_FAULT, "copilot-cli#2818 (401 Invalid auto-mode selector)",
         statuses={400, 401}, text="auto-mode selector|copilot-session-token"),
    Rule("client refused", CLIENT_REFUSED,
         "litellm#18475, bastani-inc/atomic#2522, headroom#3164, codecompanion.nvim#189, opencode#20759",
         statuses={400, 401, 403, 422},
         text="for ide auth|missing (?:the )?(?:required )?[a-z0-9-]{1,40} header"
              "|(?:personal access|server-to-server) tokens? (?:is|are) not supported"
              "|tokens? of this kind|hmac .{0,80}integration"
              "|(?:unknown|invalid|unsupported|unrecogni[sz]ed) (?:copilot[- ])?integration"
              "|not (?:authori[sz]ed|allowed|permitted|supported) (?:for|by|to use|with) this (?:integration|client)"
              "|(?:editor|ide|client|extension|plugin) version .{0,60}(?:not supported|too old|outdated|no longer)"),
    Rule("GitHub token refused", NEEDS_LOGIN, "copilot-cli#18", statuses={400, 401, 403}, text="bad credentials"),
    Rule("no permission", NO_ACCESS, "copilot-cli#18 (a PAT without Copilot Requests)",
         statuses={400, 401, 403}, text="tokens? (?:does|do) not have"),
    Rule("bearer refused, by text", CREDENTIAL, "copilot-cli#829 (AuthenticateToken); hermes-agent#108022 (403)",
         statuses={400, 403},
         text="authenticatetoken authentication failed|token (?:has |is )?expired|expired token"),
    Rule("bearer refused", CREDENTIAL, "caozhiyuan/copilot-api (token expired); copilot-cli 1.0.63 retries every 401",
         statuses={401}, when=_no_page),
    Rule("policy", POLICY, "caozhiyuan/copilot-api#161 (vision is not enabled for this organization)",
         statuses={400, 403, 422}, text=_OFF, when=_no_feature_of_copilot),
    Rule("forbidden", FORBIDDEN, "hermes-agent#61746, #11035, opencode#26344, CopilotChat.nvim#1417",
         statuses={403}, text="terms of service"),
    Rule("no access, by text", NO_ACCESS_HERE,
         "hermes-agent#10715, copilot-cli#552, #3101, #149; oh-my-pi#2876 (another plan's host)",
         statuses={403},
         text="not licen[sc]ed|not authori[sz]ed|access denied|(?:copilot|organi[sz]ation|enterprise)(?:'s)? polic"
              f"|copilot(?: chat)? (?:is|has been|was) (?:{_OFF})"),
    Rule("nothing left", QUOTA, "docs/copilot-protocol.md#quota: a 402 says nothing else",
         statuses={402}, when=_no_page),
    # statuses
    Rule("unknown 403", UNKNOWN_FORBIDDEN, "hermes-agent#108022: 403 for an ended token",
         statuses={403}, when=_no_page),
    Rule("unknown 429", UNKNOWN_LIMIT, "docs/copilot-protocol.md#limits", statuses={429}),
    Rule("service unavailable", OVERLOADED, "VS Code reads every 503 so; Anthropic's 529", statuses={503, 529}),
    Rule("server error", TRANSIENT, "docs/copilot-protocol.md#server-errors", statuses={408, *range(500, 600)}),
    Rule("gone", RETIRED, "github community discussion #209212", statuses={410}, when=_no_page),
    Rule("request, by its code", REQUEST, "OpenAI's response.error codes; docs.anthropic.com, Errors",
         statuses={400, 404, 413, 422}, in_stream=True,
         when=lambda body: re.match(
             r"(?:invalid|image|unsupported|empty|failed_to|context|content|string|array|token_limit|model_max)_"
             r"(?!api_key|token$|auth)|prompt|missing_required", body.word) is not None),
    Rule(BY_STATUS, REQUEST, "docs/copilot-protocol.md#faulty-requests", statuses={400, 404, 413, 422, 424, 466, 499}),
    Rule("unknown in a stream", UNKNOWN_LIMIT, "docs/copilot-protocol.md#errors-inside-a-200", in_stream=True),
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
    Rule("no access", NO_ACCESS, "VS Code copilotToken.ts; vscode#288988", codes=_NO_ACCESS_CODES),
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
