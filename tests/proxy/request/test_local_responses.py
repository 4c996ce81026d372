"""The answers that we make ourselves: status, shape and words."""

import json

import pytest

from copilot_balancer.proxy.incident import fault_answer
from copilot_balancer.proxy.request.local_responses import no_answer, nobody_serves, own_answer
from copilot_balancer.rules.classify import classify_event, classify_exchange
from copilot_balancer.rules.types import Exclusion, Nobody, NobodyKind, Reason, WhyNot
from support.pools import RESET

COOLDOWN = WhyNot("github.com:1", "work", "rests after a session limit", 190.0, Exclusion.COOLDOWN)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (NobodyKind.LIMITED, 429, "rate_limited"),
        (NobodyKind.NO_MODEL, 400, "model_not_supported"),
        (NobodyKind.NEEDS_LOGIN, 401, "unauthorized"),
        (NobodyKind.NO_ACCOUNTS, 401, "unauthorized"),
        (NobodyKind.BLOCKED, 403, "no_account_available"),
        (NobodyKind.FENCED, 403, "no_account_available"),
    ],
)
def test_nobody(kind, status, code):
    """Waiting helps: 429; nobody has the model: 400; a login helps: 401; else 403. One sentence an account."""
    answer = nobody_serves("/responses", Nobody(kind, (COOLDOWN,), None, None, None, "because"), 100.0)
    error = json.loads(answer.content)["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert "work: rests after a session limit, free again in 90 s." in error["message"]
    assert ("rate limit" in error["message"]) == (kind is NobodyKind.LIMITED), "clients ask again where they read that"


def test_a_route_is_named():
    """Where a route keeps an account from serving, the error says where routes are."""
    outside = WhyNot("github.com:2", "personal", "is not in the route", None, Exclusion.ROUTE)
    for accounts, named in (((COOLDOWN,), False), ((COOLDOWN, outside), True)):
        answer = nobody_serves("/responses", Nobody(NobodyKind.LIMITED, accounts, None, None, None, "because"), 100.0)
        assert ("`copilot-balancer routes`" in json.loads(answer.content)["error"]["message"]) is named


def test_the_shape_is_that_of_the_api():
    """Anthropic's for messages, OpenAI's for the others."""
    assert json.loads(own_answer("/v1/messages", 403, "x", "no").content) == {
        "type": "error",
        "error": {"message": "copilot-balancer: no", "code": "x", "type": "proxy_error"},
    }
    assert "type" not in json.loads(own_answer("/responses", 403, "x", "no").content)


@pytest.mark.parametrize(
    ("outcome", "status", "words"),
    [
        (classify_event("user_weekly_rate_limited", "Weekly limit.", wall=0.0), 429, "Weekly limit."),
        (classify_event("quota_exceeded", "", wall=0.0), 402, "quota"),
        (classify_event("model_overloaded", "busy", wall=0.0), 502, "no answer from upstream: busy"),
        (RESET, 502, "no answer from upstream: server closed connection"),
    ],
)
def test_a_refusal_without_an_answer_of_its_own(outcome, status, words):
    """What came inside a stream, or as a broken connection, is told with the status that fits."""
    answer = no_answer("/responses", outcome)
    assert answer.status_code == status
    assert json.loads(answer.content)["error"]["message"] == f"copilot-balancer: {words}"


def resting(cause, free_at, bar=Exclusion.COOLDOWN):
    return WhyNot(f"github.com:{cause}", "work", f"rests ({cause})", free_at, bar, str(cause))


@pytest.mark.parametrize(
    ("accounts", "status", "code"),
    [
        pytest.param([resting(Reason.QUOTA, 9e5)], 402, "quota_exceeded", id="quota"),
        pytest.param([resting(Reason.QUOTA, 9e5), resting(Reason.QUOTA, 200.0)], 402, "quota_exceeded", id="quotas"),
        pytest.param(
            [resting(Reason.QUOTA, 200.0), resting(Reason.LIMIT, 300.0)], 402, "quota_exceeded", id="quota frees first"
        ),
        pytest.param(
            [resting(Reason.QUOTA, 9e5), resting(Reason.SESSION_LIMIT, 300.0)],
            429,
            "user_global_rate_limited",
            id="a limit frees first",
        ),
        pytest.param(
            [resting(Reason.QUOTA, 300.0), resting(Reason.WEEKLY_LIMIT, 300.0)],
            429,
            "user_weekly_rate_limited",
            id="both at once",
        ),
        pytest.param([resting(Reason.MODEL_LIMIT, 300.0)], 429, "user_model_rate_limited", id="model limit"),
        pytest.param([resting(Reason.TRANSIENT, 300.0)], 429, "rate_limited", id="faults"),
        pytest.param(
            [resting(Reason.QUOTA, 300.0), resting("", None, Exclusion.PROBED)], 429, "rate_limited", id="one is probed"
        ),
    ],
)
def test_a_limit_keeps_its_meaning(accounts, status, code):
    """What is told is the limit of the account that frees first; a used-up quota names no rate limit."""
    answer = nobody_serves("/responses", Nobody(NobodyKind.LIMITED, tuple(accounts), 1.0, 1, None, "why"), 100.0)
    error = json.loads(answer.content)["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert ("rate limit" in error["message"]) == (status == 429)


def test_a_refused_exchange_is_told_by_its_cause():
    """A token that GitHub does not exchange is a 403 with GitHub's code and words, not a bad gateway."""
    body = b'{"error_details":{"notification_id":"billing_locked","message":"Your billing is locked."}}'
    answer = no_answer("/responses", classify_exchange(403, {}, body, wall=0.0))
    error = json.loads(answer.content)["error"]
    assert (answer.status_code, error["code"]) == (403, "billing_locked")
    assert error["message"].count("Your billing is locked.") == 1


def test_ours_are_told_apart_from_githubs():
    """Each response of ours has a request id, which a client may ask for, with a beginning that GitHub's never have."""
    for answer in (own_answer("/responses", 403, "x", "no"), fault_answer("no")):
        assert answer.headers["x-github-request-id"].startswith("copilot-balancer-")
