"""``POST /v1/messages``: the form of its answers (Anthropic's; docs/copilot-protocol.md#streams)."""

import json
from collections.abc import Iterator

from copilot_balancer.fake.bodies import Json
from copilot_balancer.fake.reply import Event, Reply, Streamed


def _stop_reason(reply: Reply) -> str:
    return "tool_use" if reply.calls else "end_turn"


def _content(reply: Reply) -> list[Json]:
    """The blocks of a whole answer, in turn."""
    thinking = {"type": "thinking", "thinking": reply.reasoning, "signature": reply.seal("signature")}
    return [
        *([{"type": "redacted_thinking", "data": reply.seal("redacted")}] if reply.redacted else []),
        *([thinking] if reply.thoughts else []),
        *([{"type": "text", "text": reply.text}] if reply.pieces else []),
        *(
            {
                "type": "tool_use",
                "id": reply.call_id(number, "toolu_"),
                "name": call.name,
                "input": json.loads(call.arguments),
            }
            for number, call in enumerate(reply.calls)
        ),
    ]


def document(reply: Reply) -> Json:
    """An Anthropic ``message``."""
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": _content(reply),
        "stop_reason": _stop_reason(reply),
        "stop_sequence": None,
        "usage": {"input_tokens": reply.input_tokens, "output_tokens": len(reply.pieces)},
        **reply.price,
    }


def _block(reply: Reply, block: Json, number: int) -> tuple[Json, Iterator[Json]]:
    """How a block begins, and what is added to it; `number`: of the tool call that it is."""
    match block["type"]:
        case "thinking":
            thoughts: list[Json] = [{"type": "thinking_delta", "thinking": thought} for thought in reply.thoughts]
            signed: Json = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, iter([*thoughts, signed])
        case "text":
            return {**block, "text": ""}, ({"type": "text_delta", "text": piece} for piece in reply.pieces)
        case "tool_use":
            pieces = reply.calls[number].pieces
            return {**block, "input": {}}, ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
        case _:
            return block, iter(())


def stream(reply: Reply) -> Streamed:
    """``message_start`` ... ``content_block_delta`` ... ``message_delta`` with reason and usage, ``message_stop``."""
    whole = document(reply)
    usage = {"input_tokens": reply.input_tokens, "output_tokens": 1}
    start = {**whole, "content": [], "stop_reason": None, "usage": usage}
    start.pop("copilot_usage", None)  # it is known at the end only
    output: list[Event] = []
    before_calls = len(whole["content"]) - len(reply.calls)
    for index, block in enumerate(whole["content"]):
        begun, deltas = _block(reply, block, index - before_calls)
        output.append({"type": "content_block_start", "index": index, "content_block": begun})
        output += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        output.append({"type": "content_block_stop", "index": index})
    stopped = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    output.append({"type": "message_delta", "delta": stopped, "usage": whole["usage"], **reply.price})
    announced: tuple[Event, ...] = ({"type": "message_start", "message": start}, {"type": "ping"})
    return Streamed(announced, tuple(output), ({"type": "message_stop"},))


def error(code: str, message: str) -> Json:
    """An error inside a stream."""
    return {"type": "error", "error": {"type": code, "message": message}}
