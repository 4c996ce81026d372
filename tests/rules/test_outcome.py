"""The nouns of what came of an attempt."""

from dataclasses import FrozenInstanceError, fields

import pytest

from copilot_balancer.rules.types import NO_COOLDOWN, SERVED, Action, CooldownKind, CooldownRule, Outcome, Reason, Scope


def test_a_served_request_concerns_nobody():
    """Nothing rests, nothing is done."""
    assert (SERVED.reason, SERVED.scope, SERVED.action, SERVED.rest) == (
        Reason.SERVED, Scope.NOBODY, Action.PASS, CooldownRule(CooldownKind.NONE),
    )  # fmt: skip
    assert (SERVED.retry_after, SERVED.models, SERVED.status, SERVED.sent) == (None, (), None, True)


@pytest.mark.parametrize("value", [SERVED, NO_COOLDOWN], ids=["outcome", "rest"])
def test_values_are_frozen(value):
    """They stand in decisions and logs, so nobody changes them later."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, None)


@pytest.mark.parametrize("words", [Reason, Scope, Action, CooldownKind])
def test_words_are_for_people(words):
    """Each word is printed as it is: lower case, unlike every other."""
    assert all(str(word) == word.value == word.value.lower() for word in words)
    assert len({word.value for word in words}) == len(words.__members__)


def test_an_outcome_needs_its_four_words():
    """What an answer means is never half said."""
    assert [field.name for field in fields(Outcome)][:4] == ["reason", "scope", "action", "rest"]
    with pytest.raises(TypeError):
        Outcome(Reason.LIMIT, Scope.ACCOUNT)
