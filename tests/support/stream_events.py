"""Events of a stream as they stand on the wire, in each of the three forms, for the tests of what reads them."""

import json

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_event import StreamError

CHAT, RESPONSES, MESSAGES = Api.CHAT, Api.RESPONSES, Api.MESSAGES
QUOTA = {"premium_interactions": {"entitlement": "300", "percent_remaining": 12.5}}


def data(obj):
    return b"data: " + json.dumps(obj, separators=(",", ":")).encode() + b"\n\n"


def named(obj):
    return f"event: {obj['type']}\n".encode() + data(obj)


def chunk(*deltas, finish=None, **more):
    choices = [{"index": index, "delta": delta, "finish_reason": finish} for index, delta in enumerate(deltas)]
    return data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, **more})


def response(kind, **fields):
    whole = {"id": "resp_1", "object": "response", "output": [], "error": None, **fields}
    return named({"type": f"response.{kind}", "response": whole})


def item(kind, **fields):
    return named({"type": f"response.output_item.{kind}", "output_index": 0, "item": fields})


def block(kind, index=0, **fields):
    return named({"type": f"content_block_{kind}", "index": index, **fields})


def thinks(**fields):
    return {"content_block": {"type": "thinking", "thinking": "", **fields}}


def signature(value):
    return {"delta": {"type": "signature_delta", "signature": value}}


FILTER = data({"choices": [], "prompt_filter_results": [{"content_filter_results": {}, "prompt_index": 0}]})
ROLE = chunk({"role": "assistant", "content": "", "padding": "abcdef"})
TEXT = chunk({"content": "Hello"})
STOP = chunk({}, finish="stop")
DONE = b"data: [DONE]\n\n"
CHAT_ERROR = data({"error": {"code": "rate_limited", "message": "Slow down", "metadata": {}}})

CREATED, RUNNING, COMPLETED = response("created"), response("in_progress"), response("completed")
QUEUED = response("queued")
DELTA = named({"type": "response.output_text.delta", "item_id": "m", "delta": "Hello"})
FLAT_ERROR = named({"type": "error", "code": "rate_limited", "message": "Slow down", "param": None})

START = named({"type": "message_start", "message": {"id": "msg_1", "content": [], "stop_reason": None}})
PING = named({"type": "ping"})
TEXT_BLOCK = block("start", content_block={"type": "text", "text": ""})
TEXT_DELTA = block("delta", delta={"type": "text_delta", "text": "Hello"})
BLOCK_STOP = block("stop")
END_TURN = named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}})
MESSAGE_STOP = named({"type": "message_stop"})
OVERLOADED = named({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})

SLOW_DOWN = StreamError("rate_limited", "Slow down")

ID = state_hash("id", "resp_1")

EVENTS = {
    CHAT: [FILTER, ROLE, STOP, DONE, CHAT_ERROR, chunk({"reasoning_opaque": "o"}, finish="stop"), chunk({}, copilot_quota_snapshots=QUOTA)],
    RESPONSES: [CREATED, QUEUED, COMPLETED, FLAT_ERROR, item("done", id="i", encrypted_content="e"), response("failed")],
    MESSAGES: [START, PING, END_TURN, MESSAGE_STOP, OVERLOADED, block("start", **thinks(signature="s")), block("delta", **signature("t")), BLOCK_STOP],
}  # fmt: skip
"""Of each form those that say something."""
