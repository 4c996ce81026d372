"""The user's own rules for refusals."""

import json
import time

import pytest
from pydantic import ValidationError

from copilot_balancer.rules.classify import OutcomeRule, classify, classify_event
from copilot_balancer.rules.types import Action, CooldownKind, Policy, Reason
from support.pools import HOUR, START, Bench


def rule(**changes) -> OutcomeRule:
    return OutcomeRule(**{"reason": "limit", "action": "next", **changes})


def judged(*rules: OutcomeRule, status: int = 400, code: str = "new", text: str = "gated for a moment", **more):
    headers = {name.replace("_", "-"): value for name, value in more.pop("headers", {}).items()}
    raw = json.dumps({"error": {"code": code, "message": text}}).encode()
    return classify(status, headers, raw, wall=START, own=rules, **more)


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ({"status": (400,)}, True),
        ({"status": (403, 429)}, False),
        ({"code": "new"}, True),
        ({"code": "NEW"}, True),
        ({"code": "n*"}, True),
        ({"code": "*w"}, True),
        ({"code": "n*w"}, True),
        ({"code": "ne*ew"}, False),
        ({"code": "ew"}, False),
        ({"code": "*"}, True),
        ({"text": "gated"}, True),
        ({"text": "for a"}, True),
        ({"text": "gated*moment"}, True),
        ({"text": "moment*gated"}, False),
        ({"text": "a.moment"}, False),
        ({"header": {"X-Gate": "closed*"}}, True),
        ({"header": {"X-Gate": "open"}}, False),
        ({"header": {"X-Other": "closed"}}, False),
        ({"status": (400,), "code": "new", "text": "gated", "header": {"x-gate": "*"}}, True),
        ({"status": (400,), "code": "old"}, False),
        ({"status": ("stream",)}, False),
    ],
    ids=str,
)
def test_a_rule_matches_when_all_that_it_names_holds(condition, matches):
    """Status, whole code, part of the message, whole header: each with stars, in any case."""
    outcome = judged(rule(**condition), headers={"x_gate": "closed now"})
    assert (outcome.rule, outcome.reason) == (("your rule 1", Reason.LIMIT) if matches else ("request", Reason.REQUEST))


def test_the_first_rule_counts_and_names_its_place():
    """Rules stand in the user's order; its number is what the log says."""
    assert judged(rule(code="old"), rule(code="n*", reason="policy"), rule(text="gated")).rule == "your rule 2"


def test_an_error_inside_a_stream_has_a_word_of_its_own():
    """ "stream" is about errors that come before any output."""
    own = (rule(status=("stream",), code="new", action="pass"),)
    assert classify_event("new", "x", wall=START, own=own).action is Action.PASS
    assert classify(429, {}, b"x", wall=START, own=own).action is Action.NEXT


@pytest.mark.parametrize(
    ("rest", "hint", "kind", "seconds", "told"),
    [
        ("server", None, CooldownKind.LADDER, None, None),
        ("server", 30.0, CooldownKind.LADDER, None, 30.0),
        ("none", None, CooldownKind.SERVER, None, None),
        ("none", 30.0, CooldownKind.SERVER, None, 30.0),
        (90, None, CooldownKind.SECONDS, 90.0, None),
        (90, 30.0, CooldownKind.SECONDS, 90.0, 90.0),
        (90, 300.0, CooldownKind.SECONDS, 90.0, 300.0),
    ],
)
def test_a_rule_never_shortens_a_wait_of_the_server(rest, hint, kind, seconds, told):
    """The longer of the rule's time and the server's counts."""
    headers = {} if hint is None else {"retry_after": f"{hint:.0f}"}
    outcome = judged(rule(code="new", rest=rest), headers=headers)
    assert (outcome.rest.kind, outcome.rest.seconds, outcome.retry_after) == (kind, seconds, told)


@pytest.mark.parametrize(
    ("status", "code", "text", "bound", "reason"),
    [
        (403, "spammy_user", "x", False, Reason.BLOCKED),
        (403, "", "Please review our Terms of Service", False, Reason.FORBIDDEN),
        (400, "previous_response_not_found", "x", True, Reason.CONVERSATION),
        (404, "not_found", "", True, Reason.CONVERSATION),
        (400, "", "Authorization header is badly formatted", False, Reason.PREFIX),
    ],
)
def test_no_rule_is_asked_about_abuse_or_bound_state(status, code, text, bound, reason):
    """Neither an abuse block nor the state of a conversation is turned into a failover."""
    every = tuple(rule(status=(status,), action=action) for action in ("next", "pass"))
    assert judged(*every, status=status, code=code, text=text, bound=bound).reason is reason


@pytest.mark.parametrize("reason", ["served", "blocked", "needs login", "conversation", "surprise"])
def test_what_a_rule_cannot_say(reason):
    """What needs proof, or means that nothing was refused, is no reason of a rule."""
    with pytest.raises(ValidationError):
        rule(code="x", reason=reason)


def test_a_rule_needs_a_condition():
    """A rule about everything would switch the table off."""
    with pytest.raises(ValidationError, match="names a status"):
        rule()


@pytest.mark.parametrize(
    ("action", "served", "why"),
    [
        ("next", "b", None),
        ("next-once", "b", None),
        ("same", "b", None),
        ("pass", None, "not retried, because your rule 1 says so"),
    ],
)
def test_what_follows_from_a_rule(action, served, why):
    """The pool does with the request what the rule says, and rests whom its reason names."""
    bench = Bench("a", "b", policy=Policy(strategy="priority"))
    outcome = judged(rule(code="new", action=action, rest=3600))
    ask = bench.ask()
    assert ask.sent() == "a"
    ask.answered(outcome)
    if action == "same":
        assert ask.sent() == "a"
        ask.answered(outcome)
    assert bench.rest("a") == HOUR
    if served is None:
        assert ask.nobody().why == why
    else:
        assert ask.sent() == served


def test_patterns_take_bounded_time():
    """The worst pattern on the longest message that is looked at is done at once, whoever wrote either."""
    own = tuple(rule(text=("a*" * 99) + "b") for _ in range(50))
    began = time.process_time()
    judged(*own, text="a" * 100_000)
    assert time.process_time() - began < 1.0  # a backtracking matcher would take hours
