"""The answers that we make ourselves: status, shape and words."""

import json

import pytest

from copilot_balancer.proxy.local_responses import no_answer, nobody_serves, own_answer
from copilot_balancer.rules.classify import classify_event
from copilot_balancer.rules.types import Exclusion, Nobody, NobodyKind, WhyNot
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
