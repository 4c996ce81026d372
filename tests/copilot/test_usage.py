"""Token counts and price: what each API form tells, and that nothing malformed counts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_balancer.copilot.usage import LARGEST, Usage, counts, usage_of

CHAT = {
    "usage": {
        "prompt_tokens": 1200,
        "completion_tokens": 80,
        "prompt_tokens_details": {"cached_tokens": 1000},
        "completion_tokens_details": {"reasoning_tokens": 30},
    },
    "copilot_usage": {"total_nano_aiu": 2_500_000},
}
RESPONSES = {
    "type": "response.completed",
    "response": {
        "usage": {
            "input_tokens": 1200,
            "output_tokens": 80,
            "input_tokens_details": {"cached_tokens": 1000},
            "output_tokens_details": {"reasoning_tokens": 30},
        }
    },
    "copilot_usage": {"total_nano_aiu": 2_500_000},
}
MESSAGES = (
    {
        "type": "message_start",
        "message": {
            "usage": {
                "input_tokens": 150,
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 50,
                "output_tokens": 1,
            }
        },
    },
    {"type": "message_delta", "usage": {"output_tokens": 80}, "copilot_usage": {"total_nano_aiu": 2_500_000}},
)


@pytest.mark.parametrize(
    ("events", "reasoning"),
    [
        pytest.param((CHAT,), 30, id="chat"),
        pytest.param((RESPONSES,), 30, id="responses"),
        pytest.param(MESSAGES, 0, id="messages"),
    ],
)
def test_forms(events, reasoning):
    """The three forms of one request come to the same counts and the same price."""
    told = {}
    for event in events:
        told.update(counts(event))
    assert usage_of(told) == Usage(1200, 1000, 80, reasoning, 2_500_000)


def test_nothing_told():
    """An event without usage tells nothing, and nothing told is no usage, which is not a usage of 0."""
    assert counts({"choices": []}) == {}
    assert usage_of({}) is None
    assert usage_of({"completion_tokens": 0}) == Usage()


def test_no_price():
    """Tokens without a price are unpriced: None, never 0."""
    assert usage_of(counts({"usage": {"prompt_tokens": 7}})) == Usage(tokens_in=7, nano_aiu=None)
    assert Usage(tokens_in=7).credits is None
    assert Usage(nano_aiu=1_500_000_000).credits == 1.5


@pytest.mark.parametrize(
    "wrong",
    [True, "7", -1, math.nan, math.inf, LARGEST * 10, 10**4000, None, [], {}],
    ids=lambda one: repr(one) if one != 10**4000 else "a number of 4,001 digits",
)
def test_wrong_values(wrong):
    """What is no count is not counted."""
    assert counts({"usage": {"prompt_tokens": wrong}, "copilot_usage": {"total_nano_aiu": wrong}}) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "response", "message", "copilot_usage", "total_nano_aiu", "input_tokens", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["usage", "response", "message", "copilot_usage"]), JSON, max_size=4))
def test_anything(event):
    """Whatever stands there: no exception, and only whole numbers from 0 on."""
    found = counts(event)
    assert all(isinstance(number, int) and 0 <= number <= LARGEST for number in found.values())
    usage_of(found)
