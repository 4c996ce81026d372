import gzip
import json
import unicodedata
from dataclasses import dataclass, field, replace

import brotli
import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.encoding import zstd
from copilot_balancer.rules.classify import (
    EXCHANGE_RULES,
    NO_RULE,
    RULES,
    STREAM_STATUS,
    Meaning,
    classify,
    classify_error,
    classify_event,
    classify_exchange,
)
from copilot_balancer.rules.types import SERVED, Action, CooldownKind, CooldownRule, Outcome, Reason, Scope

WALL = 1_790_000_000.0


def nested(code=None, message="", **more):
    return json.dumps({"error": {"message": message, "code": code, **more}})


def anthropic(kind, message=""):
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}})


UNICORN = "<!DOCTYPE html>\n<html><head><title>Unicorn!</title></head><body>See our Terms of Service</body></html>"
GOOGLE = nested(
    429,
    json.dumps(
        {"error": {"code": 429, "message": "Quota exceeded. Please retry in 3.5s.", "status": "RESOURCE_EXHAUSTED"}}
    ),
    status="Too Many Requests",
)


@dataclass(frozen=True)
class Case:
    """An answer, the row that it must find, and what that row says."""

    rule: str
    status: int
    body: str
    meaning: Meaning
    id: str = ""
    headers: dict = field(default_factory=dict)
    retry_after: float | None = None
    bound: bool = False

    def outcome(self, classify=classify):
        more = {"bound": True} if self.bound else {}
        return classify(self.status, self.headers, self.body.encode(), wall=WALL, **more)


def meaning(reason, scope, action, *rest, **more):
    return Meaning(reason, scope, action, CooldownRule(*rest, **more) if rest else CooldownRule(CooldownKind.NONE))


# the table of refusals, spelled out once more, so that a change of the table is seen here
LIMIT = meaning(Reason.LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownKind.LADDER)
SESSION = meaning(Reason.SESSION_LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownKind.RESET, window="session")
WEEKLY = meaning(Reason.WEEKLY_LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownKind.RESET, 3600.0, "weekly")
MODEL_LIMIT = meaning(Reason.MODEL_LIMIT, Scope.ACCOUNT_MODEL, Action.NEXT, CooldownKind.LADDER)
AGENT = meaning(Reason.AGENT_LIMIT, Scope.ACCOUNT, Action.NEXT, CooldownKind.SECONDS, 300.0)
QUOTA = meaning(
    Reason.QUOTA, Scope.ACCOUNT_PAID_MODELS, Action.NEXT, CooldownKind.RESET, 3600.0, "premium", recheck=21600.0
)
OVERLOADED = meaning(Reason.OVERLOADED, Scope.NOBODY, Action.NEXT_ONCE, CooldownKind.SECONDS, 10.0)
CLIENT = meaning(Reason.CLIENT_LIMITED, Scope.NOBODY, Action.PASS)
UNSUPPORTED = meaning(
    Reason.MODEL_MISSING, Scope.ACCOUNT_MODEL, Action.NEXT, CooldownKind.SECONDS, 30.0, repeated=900.0
)
UNAVAILABLE = meaning(Reason.MODEL_MISSING, Scope.CREDENTIAL_MODEL, Action.NEXT, CooldownKind.SECONDS, 3600.0)
REQUEST = meaning(Reason.REQUEST, Scope.REQUEST, Action.PASS)
NOBODY = meaning(Reason.REQUEST, Scope.NOBODY, Action.PASS)
CREDENTIAL = meaning(Reason.CREDENTIAL, Scope.CREDENTIAL, Action.SAME)
LOGIN = meaning(Reason.NEEDS_LOGIN, Scope.ACCOUNT, Action.NEXT, CooldownKind.UNTIL_LOGIN)
CONVERSATION = meaning(Reason.CONVERSATION, Scope.CONVERSATION, Action.OWNER)
PREFIX = meaning(Reason.PREFIX, Scope.HOST, Action.SAME)
NO_ACCESS = meaning(Reason.NO_ACCESS, Scope.ACCOUNT, Action.NEXT, CooldownKind.SECONDS, 3600.0)
FORBIDDEN = meaning(Reason.FORBIDDEN, Scope.ACCOUNT_MODEL, Action.SAME, CooldownKind.SECONDS, 3600.0)
NO_ACCESS_HERE = meaning(Reason.NO_ACCESS, Scope.ACCOUNT, Action.SAME, CooldownKind.SECONDS, 3600.0)
POLICY = meaning(Reason.POLICY, Scope.REQUEST, Action.NEXT)
CLIENT_REFUSED = meaning(Reason.CLIENT_REFUSED, Scope.CREDENTIAL_CLIENT, Action.NEXT, CooldownKind.SECONDS, 3600.0)
RETIRED = meaning(
    Reason.MODEL_MISSING, Scope.ACCOUNT_MODEL, Action.NEXT_ONCE, CooldownKind.SECONDS, 30.0, repeated=900.0
)
ATTACHMENT = meaning(Reason.CONVERSATION, Scope.CONVERSATION, Action.NEXT)
BLOCKED = meaning(Reason.BLOCKED, Scope.ACCOUNT, Action.STOP, CooldownKind.UNTIL_USER)
WRONG_HOST = meaning(Reason.WRONG_HOST, Scope.HOST, Action.SAME)
TRANSIENT = meaning(Reason.TRANSIENT, Scope.NOBODY, Action.NEXT_ONCE, CooldownKind.SECONDS, 30.0)
UNKNOWN = meaning(Reason.UNKNOWN, Scope.NOBODY, Action.PASS)
UNKNOWN_403 = meaning(Reason.UNKNOWN, Scope.NOBODY, Action.SAME_ONCE, CooldownKind.SERVER)
UNKNOWN_ONCE = meaning(Reason.UNKNOWN, Scope.NOBODY, Action.NEXT_ONCE, CooldownKind.SERVER)

CASES = [
    # limits
    Case("limit", 429, nested("rate_limited", "rate limit exceeded"), LIMIT),
    Case("limit", 400, nested("rate_limited", "slow down"), LIMIT, "as 400"),
    Case(
        "limit",
        429,
        nested(
            "rate_limited", "Sorry, you have exceeded your Copilot token usage. Please review our Terms of Service."
        ),
        LIMIT,
        "terms of service in a limit block nobody",
    ),
    Case("limit", 429, nested("rate_limited", "your weekly rate limit"), LIMIT, "a code beats a text"),
    Case("limit without a code", 429, nested("", "rate limit exceeded"), LIMIT, "empty code"),
    Case("limit without a code", 429, nested(None, "slow down", type="rate_limit_error"), LIMIT, "null code"),
    Case("limit without a code", 429, '{"message":"slow down"}', LIMIT, "flat"),
    Case("limit without a code", 429, "Too Many Requests\n", LIMIT, "text/plain"),
    Case("limit without a code", 429, "", LIMIT, "empty body", {"retry-after": "30"}, 30.0),
    Case("limit without a code", 429, UNICORN, LIMIT, "HTML page"),
    Case("limit without a code", 429, nested(":pro", "slow down"), LIMIT, "a suffix without a code"),
    Case("limit with a new code", 429, nested("user_daily_rate_limited:pro", "x"), LIMIT, "by the code"),
    Case("limit with a new code", 429, nested("new", "You have hit a rate limit"), LIMIT, "by the text"),
    Case(
        "limit, by text",
        429,
        nested("new", "Sorry, you have exceeded your Copilot token usage. Please review our Terms of Service."),
        LIMIT,
    ),
    Case(
        "limit, by text",
        403,
        "you have exceeded your Copilot token usage. Please review our Terms of Service.",
        LIMIT,
        "as 403 it blocks nobody",
    ),
    Case(
        "session limit",
        429,
        nested("user_global_rate_limited:pro_plus", "Sorry, you've exceeded your 5 hour session limits."),
        SESSION,
        "plan after the code",
        {"retry-after": "2"},
        2.0,
    ),
    Case("session limit", 429, nested("user_global_rate_limited"), SESSION, "no plan"),
    Case("session limit, by text", 429, nested("", "you've exceeded your 5 hour session limits"), SESSION),
    Case(
        "weekly limit",
        429,
        nested("user_weekly_rate_limited:edu", "Sorry, you've exceeded your 5 hour session limits."),
        WEEKLY,
        "with the session's text",
        {"retry-after": "208800"},
        208800.0,
    ),
    Case(
        "weekly limit, by text",
        429,
        nested("", "You've exceeded your weekly rate limit. Please try again in 1d 21h."),
        WEEKLY,
        retry_after=162000.0,
    ),
    Case("session limit, by text", 429, "You hit a session rate limit", SESSION, "short"),
    Case("weekly limit, by text", 429, "You've reached your weekly limit", WEEKLY, "short"),
    Case("model limit", 429, nested("user_model_rate_limited:gpt-5", "x"), MODEL_LIMIT),
    Case("model limit, by text", 429, nested("", "You've hit the rate limit for this model."), MODEL_LIMIT),
    Case("agent limit", 429, nested("agent_mode_limit_exceeded:pro", "x"), AGENT),
    Case("agent limit, by text", 429, "You have exceeded the agent mode rate limit. Please switch to ask mode", AGENT),
    # quota
    Case("quota", 402, nested("quota_exceeded", "You have no quota"), QUOTA),
    Case("quota", 402, nested("free_quota_exceeded"), QUOTA, "free"),
    Case("quota", 402, nested("session_quota_exceeded"), QUOTA, "session"),
    Case("quota", 402, nested("overage_limit_reached:business"), QUOTA, "overage"),
    Case("quota", 402, nested("billing_not_configured"), QUOTA, "billing"),
    Case("quota, by text", 429, "quota exceeded", QUOTA, "text/plain"),
    Case("quota, by text", 429, nested("", "quota exceeded, retrying in 10h 7m"), QUOTA, "JSON", retry_after=36420.0),
    Case("nothing left", 402, "Payment Required", QUOTA),
    # nobody's fault
    Case("overloaded", 429, nested("model_overloaded:gpt-5"), OVERLOADED),
    Case("overloaded", 429, nested("upstream_provider_rate_limit"), OVERLOADED, "provider"),
    Case(
        "overloaded, by text",
        429,
        nested("", "The upstream model provider is currently experiencing high demand."),
        OVERLOADED,
    ),
    Case("limit of the provider", 429, GOOGLE, OVERLOADED, "Google", retry_after=3.5),
    Case("limit of the provider", 429, nested(429, "Resource exhausted"), OVERLOADED, "a number"),
    Case(
        "limit of the provider", 429, nested("429", "Requests have exceeded the call rate limit"), OVERLOADED, "Azure"
    ),
    Case(
        "limit of the provider",
        429,
        anthropic("rate_limit_error", "This request would exceed"),
        OVERLOADED,
        "Anthropic",
    ),
    Case("service unavailable", 503, "", OVERLOADED, "503", {"retry-after": "5"}, 5.0),
    Case("service unavailable", 503, UNICORN, OVERLOADED, "503 with a page"),
    Case("service unavailable", 529, anthropic("overloaded_error", "Overloaded"), OVERLOADED, "529"),
    Case("integration limit", 429, nested("integration_rate_limited"), CLIENT),
    Case(
        "integration limit, by text",
        429,
        nested("", "GitHub Copilot Chat is currently experiencing high demand"),
        CLIENT,
    ),
    Case("extension blocked", 429, nested("extension_blocked", "x", type="rate_limit_error"), CLIENT, "nested"),
    Case(
        "extension blocked",
        429,
        '{"code":"extension_blocked","type":"rate_limit_error","message":"x"}',
        CLIENT,
        "flat",
    ),
    # models
    Case(
        "model not supported",
        400,
        nested("model_not_supported", "The requested model is not supported.", param="model"),
        UNSUPPORTED,
        "400",
    ),
    Case("model not supported", 404, nested("model_not_supported"), UNSUPPORTED, "404"),
    Case("model not supported", 422, nested("model_not_supported"), UNSUPPORTED, "422"),
    Case("model not supported, by text", 400, nested("", "The requested model is not supported."), UNSUPPORTED),
    Case("model not supported, by text", 404, "Model is not supported for this request.", UNSUPPORTED, "variant"),
    Case("model not available", 400, nested("model_not_available_for_integrator", "no"), UNAVAILABLE, "integrator"),
    Case(
        "model not available",
        400,
        nested("no_available_model_endpoints", "no endpoints available for this model under your current plan"),
        UNAVAILABLE,
        "no endpoints",
    ),
    Case("model not available, by text", 400, "no endpoints available for this model", UNAVAILABLE),
    Case(
        "model not available, by text",
        400,
        'The requested model is not available for integrator "x".',
        UNAVAILABLE,
        "integrator",
    ),
    Case("no access to the model", 403, nested("", "You do not have access to this model"), UNAVAILABLE),
    Case(
        "no access to the model",
        403,
        "This model is disabled by your organization's policy",
        UNAVAILABLE,
        "a model's policy is not the account's",
    ),
    Case(
        "wrong endpoint",
        400,
        nested("unsupported_api_for_model", 'model "x" is not accessible via the /chat/completions endpoint'),
        NOBODY,
    ),
    Case("wrong endpoint, by text", 400, 'model "x" is not accessible via the /responses endpoint', NOBODY),
    # conversations
    Case("conversation", 400, nested("previous_response_not_found", "x"), CONVERSATION, "previous response"),
    Case("conversation", 400, nested("invalid_encrypted_content", "x"), CONVERSATION, "encrypted content"),
    Case(
        "conversation, by text",
        400,
        nested("", "input item ID does not belong to this connection"),
        CONVERSATION,
        "item id",
    ),
    Case(
        "conversation, by text",
        401,
        nested("", "input item ID does not belong to this connection"),
        CONVERSATION,
        "item id as 401 is no question of credentials",
    ),
    Case("conversation, by text", 400, "Previous response with id 'resp_1' not found.", CONVERSATION, "no code"),
    Case(
        "conversation, by text",
        400,
        nested("bad_request", "The encrypted content gAAA...Qw== could not be verified. Reason: Encrypted content"),
        CONVERSATION,
        "could not be verified",
    ),
    Case(
        "conversation, by text",
        400,
        "Encrypted function output content could not be decrypted",
        CONVERSATION,
        "function output",
    ),
    Case(
        "conversation, by text",
        400,
        "Encrypted content item_id did not match the target item id",
        CONVERSATION,
        "item_id did not match",
    ),
    Case(
        "conversation, by text",
        400,
        "organization_id did not match the target organization.",
        CONVERSATION,
        "organization",
    ),
    Case(
        "conversation, by text",
        400,
        nested("invalid_request_body", "messages.1.content.0: Invalid `signature` in `thinking` block"),
        CONVERSATION,
        "thinking signature",
    ),
    Case("conversation, by text", 400, "The block is bound to a different conversation", CONVERSATION, "bound"),
    # who is asking
    Case("prefix", 400, "Bad Request: Authorization header is badly formatted", PREFIX),
    Case("wrong host", 421, "Misdirected Request", WRONG_HOST),
    Case("extension to authorise", 401, '{"authorize_url":"https://x"}', NOBODY),
    Case("auto mode is over", 401, nested("session_expired"), NOBODY),
    Case("auto mode is over, by text", 401, "401 Invalid auto-mode selector\n", NOBODY, "selector"),
    Case("auto mode is over, by text", 400, "Missing Copilot-Session-Token", NOBODY, "header"),
    Case("bearer refused", 401, "unauthorized: token expired\n", CREDENTIAL, "expired"),
    Case("bearer refused", 401, "IDE token expired: unauthorized: token expired", CREDENTIAL, "IDE"),
    Case("bearer refused", 401, "", CREDENTIAL, "nothing said"),
    Case("GitHub token refused", 401, '{"message":"Bad credentials","status":"401"}', LOGIN, "bad credentials"),
    Case(
        "no permission",
        401,
        "unauthorized: Personal Access Token does not have Copilot Requests permission",
        NO_ACCESS,
        "PAT without permission",
    ),
    Case(
        "client refused",
        400,
        "checking third-party user token: bad request: Personal Access Tokens are not supported for this endpoint",
        CLIENT_REFUSED,
        "classic PAT",
    ),
    Case(
        "client refused",
        403,
        "GitHub App Server-To-Server Tokens are not supported for this endpoint",
        CLIENT_REFUSED,
        "installation token",
    ),
    *(
        Case("client refused", status, text, CLIENT_REFUSED, text)
        for status, text in (
            (400, "bad request: missing Editor-Version header for IDE auth"),
            (401, "failed to validate HMAC for this Integration-ID"),
            (403, "not authorized for this integration"),
            (400, "unknown integration"),
            (400, "invalid Copilot-Integration-Id"),
            (400, "the editor version vscode/1.50 is no longer supported"),
        )
    ),
    Case("bearer refused", 401, "unauthorized: AuthenticateToken authentication failed\n", CREDENTIAL, "raw token"),
    Case("bearer refused, by text", 403, "token expired", CREDENTIAL, "ended, as 403"),
    Case("bearer refused, by text", 400, "AuthenticateToken authentication failed", CREDENTIAL, "raw token, as 400"),
    *(
        Case("policy", status, body, POLICY, f"{status} {name}")
        for status in (400, 403)
        for name, body in {
            "nested": nested("", "vision is not enabled for this organization"),
            "flat": json.dumps({"message": "vision is not enabled for this organization"}),
            "text": "vision is not enabled for this organization",
            "within a message": nested("", nested("", "vision is not enabled for this organization")),
            "another feature": nested("", "Web search has been disabled by your enterprise administrator"),
            "a plan": nested("", "Image input is not supported under your plan"),
        }.items()
    ),
    Case("no access, by text", 403, "unauthorized: not licensed to use Copilot", NO_ACCESS_HERE, "no licence"),
    Case(
        "no access, by text",
        403,
        "unauthorized: not authorized to use this Copilot feature\n",
        NO_ACCESS_HERE,
        "feature",
    ),
    Case("no access, by text", 403, nested("", "access denied by Copilot policy"), NO_ACCESS_HERE, "policy"),
    Case("no access, by text", 403, "forbidden: access denied", NO_ACCESS_HERE, "denied"),
    Case("no access, by text", 403, "Chat is off by your organization's policies", NO_ACCESS_HERE, "organisation"),
    Case(
        "no access, by text", 403, "Copilot is not enabled for this organization", NO_ACCESS_HERE, "Copilot as a whole"
    ),
    Case("no access", 403, nested("billing_locked"), NO_ACCESS, "billing"),
    Case("no access", 403, nested("no_copilot_access"), NO_ACCESS),
    Case(
        "forbidden",
        403,
        "Access to this endpoint is forbidden. Please review our Terms of Service",
        FORBIDDEN,
        "a text alone stops no account",
    ),
    Case("forbidden", 403, nested("", "Please review our Terms of Service"), FORBIDDEN, "nested"),
    Case("forbidden", 403, anthropic("forbidden", "See the GitHub Terms of Service"), FORBIDDEN, "Anthropic's form"),
    Case(
        "blocked", 403, nested("spammy_user", "Please review our Terms of Service"), BLOCKED, "a code beside the text"
    ),
    Case("blocked", 403, nested("access_revoked", "x"), BLOCKED),
    # servers and requests
    *(
        Case("server error", status, nested("", "oops"), TRANSIENT, str(status))
        for status in (408, 500, 501, 502, 504, 520, 524, 599)
    ),
    Case("server error", 500, anthropic("api_error", "oops"), TRANSIENT, "Anthropic"),
    Case("server error", 502, UNICORN, TRANSIENT, "page"),
    Case("server error", 520, UNICORN, TRANSIENT, "520 page"),
    *(Case("request", status, "no", REQUEST, str(status)) for status in (400, 404, 413, 422, 424, 466, 499)),
    Case(
        "request, by its code",
        400,
        nested("model_max_prompt_tokens_exceeded", "prompt token count of 138898 exceeds the limit of 64000"),
        REQUEST,
        "too long",
    ),
    Case("request, by its code", 400, nested("invalid_request_body", "x"), REQUEST, "malformed"),
    Case("request", 422, "Filtered by Responsible AI Service", REQUEST, "content filter"),
    Case("request", 404, UNICORN, REQUEST, "page"),
    Case("request", 400, nested(400, "Unable to submit request", status="INVALID_ARGUMENT"), REQUEST, "Google"),
    # retired models
    Case("model retired", 404, nested("model_not_found", "x"), RETIRED),
    Case("model retired, by text", 400, "The model `gpt-9` does not exist", RETIRED),
    Case("model retired, by text", 410, nested("", "This model has been retired"), RETIRED, "410"),
    Case("gone", 410, "", RETIRED),
    Case("model of another session", 400, "Requested model not available for session", NOBODY),
    # bound state
    Case("attachment of another account", 400, nested("vision_attachment_not_accessible", "x"), ATTACHMENT),
    Case("conversation not found", 404, nested("not_found", ""), CONVERSATION, "code alone", bound=True),
    Case("conversation not found", 404, "", CONVERSATION, "nothing said", bound=True),
    Case("request", 404, nested("not_found", ""), REQUEST, "not_found without state"),
    *(
        Case("conversation of a request that carries state", 400, nested(code, text), CONVERSATION, text, bound=True)
        for code, text in (
            ("", "messages.3: `thinking` or `redacted_thinking` blocks in the latest message cannot be modified"),
            ("invalid_request_body", "Item 'rs_123' of type 'reasoning' was provided without its required item"),
            ("", "the item reference is unknown"),
            ("", "thinking signature expired"),
        )
    ),
    Case("request", 400, "thinking.budget_tokens: invalid, must be at least 1024", REQUEST, "no state", bound=True),
    Case("bearer refused", 401, "", CREDENTIAL, "nothing said, with state", bound=True),
    # what no row knows
    Case("limit with a wait", 429, nested("surprise", "no"), LIMIT, "", {"retry-after": "30"}, 30.0),
    Case("limit with a new code", 403, nested("", "You have exceeded a secondary rate limit"), LIMIT, "as 403"),
    Case("quota in OpenAI's word", 429, nested("insufficient_quota", "x"), QUOTA),
    Case("unknown 429", 429, nested("surprise", "no"), UNKNOWN_ONCE, "a new code that speaks of no limit"),
    Case("unknown 403", 403, nested("surprise", "no"), UNKNOWN_403, "a new code"),
    Case("unknown 403", 403, "forbidden", UNKNOWN_403, "text"),
    Case("unknown 403", 403, "", UNKNOWN_403, "nothing said"),
    Case("unknown 403", 403, nested("", "violates our content policy"), UNKNOWN_403, "a policy about content"),
    Case(NO_RULE, 403, UNICORN, UNKNOWN, "403 page: its Terms of Service block nobody"),
    Case(NO_RULE, 401, UNICORN, UNKNOWN, "401 page"),
    Case(NO_RULE, 402, UNICORN, UNKNOWN, "402 page"),
    Case(NO_RULE, 302, "", UNKNOWN, "redirect"),
    Case(NO_RULE, 418, "no", UNKNOWN, "teapot"),
    Case(NO_RULE, 0, "", UNKNOWN, "no status at all"),
    Case(NO_RULE, -1, "", UNKNOWN, "impossible status"),
]


def parts(outcome):
    return Meaning(outcome.reason, outcome.scope, outcome.action, outcome.rest)


def named(cases):
    return [pytest.param(case, id=f"{case.rule}{case.id and ': '}{case.id}") for case in cases]


@pytest.mark.parametrize("case", named(CASES))
def test_row(case):
    """Each row: an answer as it was seen finds its row and says what the table says."""
    outcome = case.outcome()

    assert case.rule == outcome.rule
    assert case.meaning == parts(outcome)
    assert case.retry_after == outcome.retry_after
    assert case.status == outcome.status
    assert outcome.sent


def test_every_row_has_a_case_and_a_source():
    """No row stands in the table without a case here, a name of its own, and where it comes from."""
    names = [rule.name for rule in RULES]

    only_in_stream = {rule.name for rule in RULES if rule.in_stream and not rule.statuses}
    assert set(names) - only_in_stream == {case.rule for case in CASES} - {NO_RULE}
    assert only_in_stream == {event.values[2] for event in EVENTS} & only_in_stream
    assert len(set(names)) == len(names)
    assert all(rule.source for rule in (*RULES, *EXCHANGE_RULES))


CODES = [(code, rule) for rule in RULES for code in sorted(rule.codes)]


@pytest.mark.parametrize("shape", ["nested", "flat", "anthropic", "suffix", "capitals", "number outside", "event"])
@pytest.mark.parametrize(("code", "rule"), [pytest.param(*pair, id=pair[0]) for pair in CODES])
def test_codes_in_every_shape(code, rule, shape):
    """A code means the same in every shape of body, with a suffix, and in a stream."""
    bodies = {
        "nested": nested(code, "m"),
        "flat": json.dumps({"code": code, "message": "m"}),
        "anthropic": anthropic(code, "m"),
        "suffix": nested(f"{code}:pro_plus", "m"),
        "capitals": nested(code.upper(), "m"),
        "number outside": nested(429, nested(code, "m")),
    }
    everywhere = not rule.statuses and not rule.in_stream
    if shape == "event":
        if not (everywhere or rule.in_stream):
            return
        outcome = classify_event(f"{code}:edu", "m", wall=WALL)
    else:
        if not (everywhere or rule.statuses):
            return
        outcome = classify(min(rule.statuses, default=400), {}, bodies[shape].encode(), wall=WALL)

    assert (rule.name, rule.meaning) == (outcome.rule, parts(outcome))


@pytest.mark.parametrize("status", [101, 200, 201, 204, 299])
def test_served(status):
    """Two hundred and something, and a WebSocket that opens, is served; its body is not looked at."""
    assert classify(status, {}, nested("rate_limited").encode(), wall=WALL) is SERVED


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd.compress), ("br", brotli.compress)]
)
def test_compressed(encoding, pack):
    """A compressed refusal means what the plain one means."""
    body = pack(nested("model_not_supported", "m").encode())

    assert classify(400, {"content-encoding": encoding}, body, wall=WALL).rule == "model not supported"


@pytest.mark.parametrize(
    ("listed", "models"),
    [
        pytest.param("[gpt-4.1 claude-opus-4.7 gpt-5.5]", ("gpt-4.1", "claude-opus-4.7", "gpt-5.5"), id="as captured"),
        pytest.param("[gpt-4.1, gpt-5.5, gpt-4.1]", ("gpt-4.1", "gpt-5.5"), id="commas, twice the same"),
        pytest.param("[]", (), id="none"),
        pytest.param("[<script> \x00 gpt-5.5 " + "x" * 200 + "]", ("gpt-5.5",), id="what is no model's name"),
        pytest.param("gpt-4.1", (), id="no list"),
        pytest.param("[gpt-4.1", (), id="list without an end"),
        pytest.param("[" + " ".join(f"m{n}" for n in range(300)) + "]", tuple(f"m{n}" for n in range(200)), id="many"),
    ],
)
def test_available_models(listed, models):
    """The models that the refusal says are available are told."""
    message = f'The requested model is not available for integrator "x". Available models: {listed}. Verify the header.'
    outcome = classify(400, {}, nested("model_not_available_for_integrator", message).encode(), wall=WALL)

    assert models == outcome.models


def test_models_only_where_a_model_is_missing():
    """A list of models in another refusal teaches nothing."""
    assert classify(429, {}, nested("rate_limited", "Available models: [gpt-5]").encode(), wall=WALL).models == ()


# --- streams ----------------------------------------------------------------------------------------------------------

STREAM = "unknown in a stream"
EVENTS = [
    pytest.param(
        "user_global_rate_limited:enterprise", "Rate limit exceeded", "session limit", SESSION, id="WebSocket"
    ),
    pytest.param("quota_exceeded", "x", "quota", QUOTA, id="quota"),
    pytest.param("service_unavailable", "x", "service unavailable", OVERLOADED, id="service_unavailable"),
    pytest.param("overloaded_error", "Overloaded", "service unavailable", OVERLOADED, id="Anthropic overloaded"),
    pytest.param("rate_limit_error", "would exceed", "limit of the provider", OVERLOADED, id="Anthropic limit"),
    pytest.param("api_error", "x", "server error", TRANSIENT, id="Anthropic api_error"),
    pytest.param("internal_error", "x", "server error", TRANSIENT, id="internal_error"),
    pytest.param("server_error", "x", "server error", TRANSIENT, id="server_error"),
    pytest.param("timeout_error", "x", "server error", TRANSIENT, id="timeout_error"),
    pytest.param("content_filter", "x", "request, by its code", REQUEST, id="content_filter"),
    pytest.param("invalid_prompt", "x", "request, by its code", REQUEST, id="invalid_prompt"),
    pytest.param("image_too_large", "x", "request, by its code", REQUEST, id="image_too_large"),
    pytest.param("server_is_overloaded", "x", "overloaded", OVERLOADED, id="server_is_overloaded"),
    pytest.param("slow_down", "x", "overloaded", OVERLOADED, id="slow_down"),
    pytest.param("service_unavailable_error", "", "overloaded", OVERLOADED, id="only a type"),
    pytest.param("rate_limit_exceeded", "x", "limit in a stream", OVERLOADED, id="rate_limit_exceeded"),
    pytest.param("too_many_requests", "x", "limit in a stream", OVERLOADED, id="too_many_requests"),
    pytest.param("insufficient_quota", "x", "limit in a stream", OVERLOADED, id="insufficient_quota"),
    pytest.param("additional_spend_limit_reached", "x", "quota", QUOTA, id="additional_spend_limit_reached"),
    pytest.param("budget_exceeded", "x", "quota", QUOTA, id="budget_exceeded"),
    pytest.param("", "The server is overloaded", "overloaded in a stream, by text", OVERLOADED, id="only a text"),
    pytest.param("new", "too many requests", "overloaded in a stream, by text", OVERLOADED, id="a limit, only a text"),
    pytest.param("not_found", "x", "request", REQUEST, id="not_found"),
    pytest.param("request_too_large", "x", "request", REQUEST, id="request_too_large"),
    pytest.param("bad_request", "x", "request", REQUEST, id="bad_request"),
    pytest.param(
        "bad_request",
        "input item ID does not belong to this connection",
        "conversation, by text",
        CONVERSATION,
        id="bad_request that is a lost conversation",
    ),
    pytest.param(
        "",
        "The encrypted content gAAA could not be verified.",
        "conversation, by text",
        CONVERSATION,
        id="no code: the text",
    ),
    pytest.param(None, "The requested model is not supported.", "model not supported, by text", UNSUPPORTED, id="null"),
    pytest.param("new", "quota exceeded", "quota, by text", QUOTA, id="new code: the text"),
    pytest.param("session_expired", "x", "auto mode is over", NOBODY, id="session_expired"),
    pytest.param(429, "x", "limit of the provider", OVERLOADED, id="429"),
    pytest.param(503, "x", "service unavailable", OVERLOADED, id="503"),
    pytest.param("500", "x", "server error", TRANSIENT, id="500 as text"),
    pytest.param(400, "x", "request", REQUEST, id="400"),
    pytest.param(None, GOOGLE, "limit of the provider", OVERLOADED, id="Google's JSON in the message"),
    pytest.param(401, "Bad credentials", STREAM, UNKNOWN_ONCE, id="a provider's 401 is not our account's"),
    pytest.param(403, "see our Terms of Service", STREAM, UNKNOWN_ONCE, id="a provider's 403 blocks nobody"),
    pytest.param("new", "access denied by policy", STREAM, UNKNOWN_ONCE, id="unknown"),
    pytest.param("", "", STREAM, UNKNOWN_ONCE, id="nothing said"),
    pytest.param({"a": 1}, "x", STREAM, UNKNOWN_ONCE, id="a code of another kind"),
]


@pytest.mark.parametrize(("code", "message", "rule", "expected"), EVENTS)
def test_event(code, message, rule, expected):
    """An error inside a stream means what its code means, whatever the status of the answer was."""
    outcome = classify_event(code, message, wall=WALL)

    assert (rule, expected, None) == (outcome.rule, parts(outcome), outcome.status)


IN_STREAM = {
    "conversation, by text",
    "wrong endpoint, by text",
    "model not available, by text",
    "model not supported, by text",
    "model limit, by text",
    "weekly limit, by text",
    "session limit, by text",
    "agent limit, by text",
    "integration limit, by text",
    "overloaded, by text",
    "limit, by text",
    "quota, by text",
    "model retired, by text",
}


@pytest.mark.parametrize("case", named([case for case in CASES if case.rule.endswith(", by text")]))
def test_texts_in_a_stream(case):
    """A text about a limit, a model or a conversation counts in a stream too; one about who is asking does not."""
    body = json.loads(case.body) if case.body.startswith("{") else {"error": {"message": case.body}}
    outcome = classify_event("", body["error"]["message"], wall=WALL)

    assert (case.rule if case.rule in IN_STREAM else STREAM) == outcome.rule


def test_event_hint():
    """An event tells its wait in its message."""
    assert classify_event("rate_limited", "Please try again in 5 minutes", wall=WALL).retry_after == 300.0


def test_stream_codes_stand_for_known_statuses():
    """Each status that a stream's code stands for finds a row."""
    found = {classify(status, {}, b"x", wall=WALL).rule for status in STREAM_STATUS.values()}

    assert NO_RULE not in found


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True], ids=["not sent", "sent"])
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param("Certificate verify failed: hostname mismatch", UNKNOWN, id="certificate"),
        pytest.param("TLS: certificate verify failed: self-signed certificate", UNKNOWN, id="certificate, within"),
        pytest.param("[Errno 111] Connect call failed ('127.0.0.1', 443)", TRANSIENT, id="refused"),
        pytest.param("server closed connection", TRANSIENT, id="reset"),
        pytest.param("", TRANSIENT, id="nothing said"),
    ],
)
def test_connection(message, expected, sent):
    """A connection that failed is tried elsewhere; a certificate that is not right never is."""
    outcome = classify_error(message, sent=sent)

    assert (expected, sent, None, message) == (parts(outcome), outcome.sent, outcome.status, outcome.text)


# --- token exchange ---------------------------------------------------------------------------------------------------

EXCHANGE_LIMIT = meaning(Reason.TRANSIENT, Scope.ACCOUNT, Action.NEXT, CooldownKind.SECONDS, 60.0)


def refused(notification):
    details = {"message": "m", "notification_id": notification, "title": "t", "url": "https://x"}
    return json.dumps({"can_signup_for_limited": False, "error_details": details, "message": "m", "reason": "r"})


EXCHANGES = [
    *(
        Case("blocked", 403, refused(notification), BLOCKED, notification)
        for notification in sorted(
            {"spammy_user", "access_revoked", "trade_restricted", "programmatic_token_generation"}
        )
    ),
    *(
        Case("no access", 403, refused(notification), NO_ACCESS, notification)
        for notification in (
            "billing_locked",
            "no_copilot_access",
            "not_signed_up",
            "subscription_ended",
            "enterprise_managed_user_account",
            "feature_flag_blocked",
            "snippy_not_configured",
        )
    ),
    Case("server error", 403, refused("server_error"), TRANSIENT),
    Case(
        "limit",
        403,
        '{"message":"API rate limit exceeded for user ID 1.","documentation_url":"https://x"}',
        EXCHANGE_LIMIT,
        "403",
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(WALL) + 90)},
        90.0,
    ),
    Case("limit", 429, "You have exceeded a secondary rate limit.", EXCHANGE_LIMIT, "429", {"retry-after": "60"}, 60.0),
    Case("no access, by status", 403, "Please review our Terms of Service", NO_ACCESS, "a text alone stops no account"),
    Case("GitHub token refused", 401, '{"message":"Bad credentials"}', LOGIN),
    Case("no access, by status", 404, '{"message":"Not Found"}', NO_ACCESS, "404"),
    Case("no access, by status", 403, refused("something_new"), NO_ACCESS, "403 of a new kind"),
    Case("no access, by status", 403, '{"message":"Resource not accessible"}', NO_ACCESS, "403 without a notification"),
    Case(NO_RULE, 500, "", TRANSIENT, "500"),
    Case(NO_RULE, 503, UNICORN, TRANSIENT, "503"),
    Case(NO_RULE, 403, UNICORN, TRANSIENT, "403 page: its Terms of Service block nobody"),
    Case(NO_RULE, 401, UNICORN, TRANSIENT, "401 page"),
    Case(NO_RULE, 404, UNICORN, TRANSIENT, "404 page"),
    Case(NO_RULE, 302, "", TRANSIENT, "redirect"),
]


@pytest.mark.parametrize("case", named(EXCHANGES))
def test_exchange(case):
    """Each refusal of the token exchange is about the account, and nothing of the client's request was sent."""
    outcome = case.outcome(classify_exchange)

    assert (case.rule, case.meaning, case.retry_after) == (outcome.rule, parts(outcome), outcome.retry_after)
    assert not outcome.sent


def test_every_exchange_row_has_a_case():
    """No row stands in the exchange's table without a case here."""
    assert {rule.name for rule in EXCHANGE_RULES} == {case.rule for case in EXCHANGES} - {NO_RULE}


def test_exchange_served():
    """An exchange that answers is served."""
    assert classify_exchange(200, {}, b"{}", wall=WALL) is SERVED


# --- code and text are for people -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        pytest.param(
            "user_global_rate_limited:pro", "Slow  down\n", ("user_global_rate_limited:pro", "Slow down"), id="plain"
        ),
        pytest.param("a\nb", "a\r\n\tb", ("a b", "a b"), id="line breaks"),
        pytest.param("\x1b[31m", "\x1b]0;x\x07", ("\\x1b[31m", "\\x1b]0;x\\x07"), id="escapes"),
        pytest.param("c", "\u202eabc\u2066", ("c", "\\u202eabc\\u2066"), id="bidi"),
        pytest.param("c", "\ud800", ("c", "\\ud800"), id="lone surrogate"),
        pytest.param("c", "größer 漢字", ("c", "größer 漢字"), id="other letters stay"),
        pytest.param("x" * 100, "y" * 300, ("x" * 80, "y" * 200), id="long"),
        pytest.param("c", "\x00" * 300, ("c", "\\x00" * 50), id="escapes count"),
        pytest.param("c", "token gho_abcdefghij1234567890 is bad", ("c", "token [token] is bad"), id="gho_"),
        pytest.param("c", "github_pat_11AAAAAAA0 is bad", ("c", "[token] is bad"), id="github_pat_"),
        pytest.param("c", 'got "tid=abc;exp=1;sku=x:mac"', ("c", 'got "[token]"'), id="exchanged token"),
        pytest.param("ghu_aaaaaaaaaaaa", "Bearer abcdefghijkl", ("[token]", "Bearer [token]"), id="bearer"),
        pytest.param("c", "the thought_signature is missing", ("c", "the thought_signature is missing"), id="a word"),
        pytest.param("c", "partid=5", ("c", "partid=5"), id="a parameter"),
        pytest.param("c", "%2Fgho_abcdefghij12345678", ("c", "%2F[token]"), id="behind another writing"),
        pytest.param("c", "y" * 190 + " gho_abcdefghij1234567890", ("c", "y" * 190 + " [token]"), id="at the cut"),
    ],
)
def test_words_for_people(code, message, expected):
    """A code and a text are one printable line within their length, and quote no credential."""
    outcome = classify(400, {}, nested(code, message).encode(), wall=WALL)

    assert expected == (outcome.code, outcome.text)


def test_type_when_there_is_no_code():
    """Without a code people see the error's type."""
    assert classify(529, {}, anthropic("overloaded_error").encode(), wall=WALL).code == "overloaded_error"


def is_one_printable_line(text, length):
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return (
        len(text) <= length
        and (not text or text.isprintable())
        and not any(
            unicodedata.bidirectional(char) in bidi or unicodedata.category(char) in ("Cc", "Cs") for char in text
        )
    )


def is_sound(outcome):
    return (
        isinstance(outcome, Outcome)
        and is_one_printable_line(outcome.code, 80)
        and is_one_printable_line(outcome.text, 200)
        and (outcome.retry_after is None or 0 <= outcome.retry_after <= 366 * 86400)
        and all(is_one_printable_line(model, 100) for model in outcome.models)
    )


TEXTS = strategies.text(strategies.characters(), max_size=60)
CODES_AND_TEXTS = (
    strategies.sampled_from([code for code, _ in CODES])
    | TEXTS
    | strategies.integers()
    | strategies.floats()
    | strategies.none()
)
DOCUMENTS = strategies.recursive(
    CODES_AND_TEXTS | strategies.booleans(),
    lambda inner: (
        strategies.dictionaries(
            strategies.sampled_from(["error", "code", "message", "type", "status", "error_details", "x"]), inner
        )
        | strategies.lists(inner, max_size=2)
        | inner.map(json.dumps)
    ),
    max_leaves=8,
)
BODIES = strategies.binary(max_size=200) | DOCUMENTS.map(lambda value: json.dumps(value).encode())
HEADERS = strategies.dictionaries(
    strategies.sampled_from(["content-type", "content-encoding", "retry-after", "retry-after-ms", "x-ratelimit-reset"]),
    TEXTS | strategies.sampled_from(["gzip", "br", "zstd", "deflate", "text/html", "30", "-1", "nan"]),
)
STATUSES = strategies.sampled_from([400, 401, 402, 403, 404, 421, 429, 500, 503, 529]) | strategies.integers()


@settings(max_examples=600, deadline=None)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_any_answer_is_judged(status, headers, body):
    """Whatever status, headers and bytes come, the outcome is sound and nothing is raised."""
    assert is_sound(classify(status, headers, body, wall=WALL))
    assert is_sound(classify_exchange(status, headers, body, wall=WALL))


@settings(max_examples=400, deadline=None)
@given(code=CODES_AND_TEXTS | DOCUMENTS, message=TEXTS, sent=strategies.booleans())
def test_any_event_and_error_is_judged(code, message, sent):
    """Whatever an event or a connection's error says, the outcome is sound and nothing is raised."""
    assert is_sound(classify_event(code, message, wall=WALL))
    assert is_sound(classify_error(message, sent=sent))


def test_outcomes_are_values():
    """Two equal answers have equal outcomes, and an outcome can be copied with a change."""
    first, second = (CASES[0].outcome() for _ in range(2))

    assert first == second
    assert replace(first, retry_after=1.0) != second
