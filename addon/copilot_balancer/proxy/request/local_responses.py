"""The responses that are made here, in the service's shape.

Laws of this file:

1. Status, code and type are those of the refusal that a response stands for: they decide whether a client asks again
   (docs/clients.md#after-a-refusal). "rate limit" stands only where waiting helps.
2. A message says what waiting or a login would change, a sentence an account.
3. A wait is never invented: a used-up quota (402) names none, since clients stop at it or sleep for it.
"""

from collections.abc import Mapping

from mitmproxy import http

from copilot_balancer.copilot.protocol import error_body
from copilot_balancer.proxy.incident import own_request_id
from copilot_balancer.rules.types import Exclusion, Nobody, NobodyKind, Outcome, Reason, Tried, WhyNot, sentences

QUOTA_STATUS = 402
"""The status of a used-up quota: without a wait."""

type _Form = tuple[int, str, str]
"""Status, code and type of an error."""

_ERRORS: Mapping[NobodyKind, _Form] = {
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

_ROUTES_HINT = " A route names the accounts that may serve this model: `copilot-balancer routes`."

_QUOTA_HEADLINE = "every account that could serve this has used up its quota."

_REFUSALS: Mapping[str, _Form] = {
    Reason.LIMIT: (429, "rate_limited", "rate_limit_error"),
    Reason.SESSION_LIMIT: (429, "user_global_rate_limited", "rate_limit_error"),
    Reason.WEEKLY_LIMIT: (429, "user_weekly_rate_limited", "rate_limit_error"),
    Reason.MODEL_LIMIT: (429, "user_model_rate_limited", "rate_limit_error"),
    Reason.AGENT_LIMIT: (429, "agent_mode_limit_exceeded", "rate_limit_error"),
    Reason.QUOTA: (QUOTA_STATUS, "quota_exceeded", "quota_exceeded"),
    Reason.NO_ACCESS: (403, "no_copilot_access", "permission_error"),
    Reason.BLOCKED: (403, "access_revoked", "permission_error"),
    Reason.NEEDS_LOGIN: (401, "unauthorized", "authentication_error"),
}
"""What a refusal is told as that has no response of its own: it came in a stream or of a token exchange, or the account
rests since an earlier one."""


def own_answer(path: str, status: int, code: str, message: str, kind: str = "proxy_error") -> http.Response:
    """An answer of ours to a request at `path`; `message` is what a person reads."""
    body = error_body(path, message=f"copilot-balancer: {message}", code=code, kind=kind)
    return http.Response.make(
        status, body, {"content-type": "application/json", "x-github-request-id": own_request_id()}
    )


def refusal_of(
    path: str, nobody: Nobody, given: http.Response | None, tried: tuple[Tried, ...], now: float
) -> http.Response:
    """What the client gets when nobody (else) can serve it.

    Args:
        path: of the request; chooses the shape.
        nobody: what the pool decided.
        given: the upstream's response that `nobody` gives; None: it gives none, or the refusal had no response.
        tried: the refusals so far.
        now: seconds on the steady clock.

    """
    if given is not None:
        return given
    return nobody_serves(path, nobody, now) if nobody.give is None else no_answer(path, tried[nobody.give].outcome)


def nobody_serves(path: str, nobody: Nobody, now: float) -> http.Response:
    """Nobody could serve, and no answer was given that could be passed on."""
    form = _ERRORS.get(nobody.kind, (403, "no_account_available", "permission_error"))
    headline = _HEADLINES.get(nobody.kind, nobody.why)
    if nobody.kind is NobodyKind.LIMITED:
        form = _as_limited(nobody.accounts) or form
        headline = _QUOTA_HEADLINE if form is _REFUSALS[Reason.QUOTA] else headline
    status, code, kind = form
    reasons = " ".join(f"{sentence}." for sentence in sentences(nobody, now))
    if any(why.bar is Exclusion.ROUTE for why in nobody.accounts):
        reasons += _ROUTES_HINT
    return own_answer(path, status, code, f"{headline} {reasons}".strip(), kind)


def _as_limited(accounts: tuple[WhyNot, ...]) -> _Form | None:
    """What the limit of the account that frees first is told as; a used-up quota only when nobody frees sooner."""
    waiting = [why for why in accounts if why.free_at is not None and why.bar is Exclusion.COOLDOWN]
    first = min(waiting, key=lambda why: (why.free_at, why.cause == Reason.QUOTA), default=None)
    sooner = any(why.bar in (Exclusion.PROBED, Exclusion.RESERVE, Exclusion.UNASKED) for why in accounts)
    if first is None or (sooner and first.cause == Reason.QUOTA):
        return None
    return _REFUSALS.get(first.cause)


def no_answer(path: str, outcome: Outcome) -> http.Response:
    """The refusal that is to be given had no response of its own.

    It was an error in a stream, GitHub's refusal to exchange the account's token, or a connection that failed.
    """
    status, code, kind = _REFUSALS.get(outcome.reason, (502, "bad_gateway", "proxy_error"))
    said = outcome.text or outcome.reason
    if status in (401, 403):
        why = outcome.text or outcome.code or outcome.reason
        return own_answer(path, status, outcome.code or code, f"GitHub refuses this account: {why}", kind)
    return own_answer(path, status, code, said if status != 502 else f"no answer from upstream: {said}", kind)
