"""The answers that we make ourselves, in the service's shape.

The law of this file: an answer of ours says what waiting or a login would change, a sentence an account. Its status and
its words decide whether a client asks again (docs/clients.md#after-a-refusal).
"""

from collections.abc import Mapping

from mitmproxy import http

from copilot_balancer.copilot.protocol import error_body
from copilot_balancer.rules.types import Nobody, NobodyKind, Outcome, Reason, sentences

_ERRORS: Mapping[NobodyKind, tuple[int, str, str]] = {
    NobodyKind.LIMITED: (429, "rate_limited", "rate_limit_error"),
    NobodyKind.NO_MODEL: (400, "model_not_supported", "invalid_request_error"),
    NobodyKind.NEEDS_LOGIN: (401, "unauthorized", "authentication_error"),
    NobodyKind.NO_ACCOUNTS: (401, "unauthorized", "authentication_error"),
}
"""Status, code and type; anything else is a 403 ``no_account_available``."""

_HEADLINES: Mapping[NobodyKind, str] = {
    NobodyKind.LIMITED: "every account that could serve this has reached a rate limit.",
    NobodyKind.NO_MODEL: "no account can be asked for this model.",
    NobodyKind.NEEDS_LOGIN: "every account needs a new login.",
    NobodyKind.NO_ACCOUNTS: "no account is stored; `copilot-balancer accounts add` adds one.",
}

_IN_STREAM: Mapping[Reason, tuple[int, str, str]] = {
    Reason.LIMIT: (429, "rate_limited", "rate_limit_error"),
    Reason.SESSION_LIMIT: (429, "user_global_rate_limited", "rate_limit_error"),
    Reason.WEEKLY_LIMIT: (429, "user_weekly_rate_limited", "rate_limit_error"),
    Reason.MODEL_LIMIT: (429, "user_model_rate_limited", "rate_limit_error"),
    Reason.AGENT_LIMIT: (429, "agent_mode_limit_exceeded", "rate_limit_error"),
    Reason.QUOTA: (402, "quota_exceeded", "quota_exceeded"),
}
"""What a refusal that came inside a stream is told as, once the stream itself is gone."""


def own_answer(path: str, status: int, code: str, message: str, kind: str = "proxy_error") -> http.Response:
    """An answer of ours to a request at `path`; `message` is what a person reads."""
    body = error_body(path, message=f"copilot-balancer: {message}", code=code, kind=kind)
    return http.Response.make(status, body, {"content-type": "application/json"})


def nobody_serves(path: str, nobody: Nobody, now: float) -> http.Response:
    """Nobody could serve, and no answer was given that could be passed on."""
    status, code, kind = _ERRORS.get(nobody.kind, (403, "no_account_available", "permission_error"))
    reasons = " ".join(f"{sentence}." for sentence in sentences(nobody, now))
    message = f"{_HEADLINES.get(nobody.kind, nobody.why)} {reasons}".strip()
    return own_answer(path, status, code, message, kind)


def no_answer(path: str, outcome: Outcome) -> http.Response:
    """The refusal that is to be given had no answer of its own: a connection that failed, or an error in a stream."""
    status, code, kind = _IN_STREAM.get(outcome.reason, (502, "bad_gateway", "proxy_error"))
    told = outcome.text or outcome.reason
    return own_answer(path, status, code, told if status != 502 else f"no answer from upstream: {told}", kind)
