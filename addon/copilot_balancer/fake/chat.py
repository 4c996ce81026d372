"""``POST /chat/completions``: the form of its answers (docs/copilot-protocol.md#streams)."""

from copilot_balancer.fake.bodies import Json
from copilot_balancer.fake.reply import Event, Reply, Streamed


def _usage(reply: Reply) -> Json:
    output = len(reply.pieces)
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": output,
        "total_tokens": reply.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _call(reply: Reply, number: int, arguments: str) -> Json:
    function = {"name": reply.calls[number].name, "arguments": arguments}
    return {"id": reply.call_id(number), "type": "function", "function": function}


def stream(reply: Reply) -> Streamed:
    """``chat.completion.chunk`` for each piece, the last one with ``finish_reason`` and usage, then ``[DONE]``."""

    def chunk(delta: Json, finish: str | None = None, **more: object) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": f"chatcmpl-{reply.id}", "object": "chat.completion.chunk", "created": reply.created}
        return {**head, "model": reply.model, "choices": [choice], **more}

    output = [chunk({"reasoning_text": thought}) for thought in reply.thoughts]
    if reply.thoughts:  # once in an answer: opencode takes a second one for a fault of the service
        output.append(chunk({"reasoning_opaque": reply.seal("opaque")}))
    output += [chunk({"content": piece}) for piece in reply.pieces]
    for number, call in enumerate(reply.calls):
        output.append(chunk({"tool_calls": [{"index": number, **_call(reply, number, "")}]}))
        output += [
            chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}) for piece in call.pieces
        ]
    output.append(chunk({}, _finish(reply), usage=_usage(reply), **reply.price))
    return Streamed((chunk({"role": "assistant", "content": ""}),), tuple(output), (b"[DONE]",))


def document(reply: Reply) -> Json:
    """``chat.completion``: the same, not streamed."""
    message: Json = {"role": "assistant", "content": reply.text or None}
    if reply.thoughts:
        message |= {"reasoning_text": reply.reasoning, "reasoning_opaque": reply.seal("opaque")}
    if reply.calls:
        message["tool_calls"] = [_call(reply, number, call.arguments) for number, call in enumerate(reply.calls)]
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(reply)}],
        "usage": _usage(reply),
        **reply.price,
    }


def error(code: str, message: str) -> Json:
    """An error inside a stream: a chunk without ``choices``."""
    return {"error": {"message": message, "code": code}}
