"""Answers as the fake gives them, and single events of each form, for the tests of what reads and shows them."""

import json
from dataclasses import replace

import pytest
from hypothesis import strategies

from copilot_balancer.fake import chat as fake_chat
from copilot_balancer.fake import messages, responses
from copilot_balancer.fake.reply import Reply, ToolCall, as_sse

FORMS = [
    pytest.param(fake_chat, id="chat"),
    pytest.param(responses, id="responses"),
    pytest.param(messages, id="messages"),
]
"""As the first column of a table."""

REPLY = Reply("1", "gpt-4.1", ("Hello ", "there, ", "friend."), created=0, input_tokens=7, account="work")

CALL = '{"path": "a.py", "text": "one\\ntwo\\n", "lines": [1, 2]}'
CALLING = replace(
    REPLY, pieces=("Yes.",), thoughts=("I ", "think."), calls=(ToolCall("read", CALL), ToolCall("stop", '{"a": 1}'))
)


def streamed(form, reply: Reply = REPLY) -> bytes:
    return b"".join(map(as_sse, form.stream(reply).whole))


def a_document(form, reply: Reply = REPLY) -> bytes:
    return json.dumps(form.document(reply)).encode()


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chat(**delta: object) -> dict[str, object]:
    return {"model": "gpt-4.1", "choices": [{"index": 0, "delta": delta}]}


def response(kind: str, **more: object) -> dict[str, object]:
    return {"type": f"response.{kind}", **more}


# --- any answer at all


def any_json() -> strategies.SearchStrategy[object]:
    leaf = (
        strategies.none()
        | strategies.booleans()
        | strategies.integers()
        | strategies.floats()
        | strategies.text(max_size=20)
    )
    return strategies.recursive(
        leaf, lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(any_key(), inner, max_size=4)
    )


def any_key() -> strategies.SearchStrategy[str]:
    names = (
        "type object error code message choices delta content tool_calls function name arguments index usage model "
        "response output item output_index status summary text content_block partial_json thinking copilot_errors "
        "copilot_quota_snapshots premium_interactions percent_remaining finish_reason stop_reason input id "
        "incomplete_details reason prompt_tokens input_tokens_details cached_tokens total_nano_aiu"
    )
    return strategies.sampled_from(names.split()) | strategies.text(max_size=3)


def any_kind() -> strategies.SearchStrategy[str]:
    names = (
        "response.completed response.failed response.output_item.done response.output_item.added message_start message "
        "response.output_text.delta response.content_part.added message_delta content_block_start content_block_delta "
        "response.function_call_arguments.delta message_stop error"
    )
    return strategies.sampled_from(names.split())
