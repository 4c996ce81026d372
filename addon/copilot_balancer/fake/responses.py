"""``POST /responses``, and its WebSocket: the form of its answers (docs/copilot-protocol.md#streams).

An item has another id in each event, as the service has it. The id of ``output_item.done`` is that of
``response.completed`` too, and it is the one that a client sends back.
"""

import itertools
from collections.abc import Iterator, Mapping

from copilot_balancer.fake.bodies import Json, Quota
from copilot_balancer.fake.reply import Reply, Streamed

_LAST = 0
"""The variant of an item's last id."""


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(reply: Reply, status: str, content: list[Json], variant: int = _LAST) -> Json:
    item_id = reply.seal("item", "text", variant)
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _reasoning(reply: Reply, summary: list[Json], variant: int = _LAST) -> Json:
    encrypted = reply.seal("encrypted", "reasoning", variant)
    item_id = reply.seal("item", "reasoning", variant)
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": encrypted}


def _summary(reply: Reply) -> Json:
    return {"type": "summary_text", "text": reply.reasoning}


def _call(reply: Reply, number: int, status: str, arguments: str, variant: int = _LAST) -> Json:
    return {
        "id": reply.seal("item", f"call{number}", variant),
        "type": "function_call",
        "status": status,
        "call_id": reply.call_id(number),
        "name": reply.calls[number].name,
        "arguments": arguments,
    }


def _compaction(reply: Reply, variant: int = _LAST) -> Json:
    encrypted = reply.seal("encrypted", "compaction", variant)
    return {"id": reply.seal("item", "compaction", variant), "type": "compaction", "encrypted_content": encrypted}


def _output(reply: Reply) -> list[Json]:
    """The items of a whole answer, in turn."""
    return [
        *([_compaction(reply)] if reply.compaction else []),
        *([_reasoning(reply, [_summary(reply)])] if reply.thoughts else []),
        *([_message(reply, "completed", [_text(reply.text)])] if reply.pieces else []),
        *(_call(reply, number, "completed", call.arguments) for number, call in enumerate(reply.calls)),
    ]


def _response(reply: Reply, status: str, output: list[Json], error: Json | None = None) -> Json:
    tokens = len(reply.pieces)
    usage = {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": len(reply.thoughts)},
        "total_tokens": reply.input_tokens + tokens,
    }
    return {
        "id": reply.response_id(),
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "error": error,
        "incomplete_details": None,
        "instructions": None,
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": usage if status == "completed" else None,
    }


def document(reply: Reply) -> Json:
    """``response``, completed."""
    return {**_response(reply, "completed", _output(reply)), **reply.price}


def _events(reply: Reply, item: Json, index: int, items: int, variants: Iterator[int]) -> Iterator[Json]:
    """What comes between ``output_item.added`` and ``output_item.done`` of an item among so many, both included."""

    def at(kind: str, of: str, /, **more: object) -> Json:
        item_id = reply.seal("item", of, next(variants))
        return {"type": f"response.{kind}", "item_id": item_id, "output_index": index, **more}

    def added(item: Json) -> Json:
        return {"type": "response.output_item.added", "output_index": index, "item": item}

    match item["type"]:
        case "compaction":
            yield added(_compaction(reply, next(variants)))
        case "reasoning":
            yield added(_reasoning(reply, [], next(variants)))
            first = {"summary_index": 0}
            yield at("reasoning_summary_part.added", "reasoning", **first, part={"type": "summary_text", "text": ""})
            for thought in reply.thoughts:
                yield at("reasoning_summary_text.delta", "reasoning", **first, delta=thought)
            yield at("reasoning_summary_text.done", "reasoning", **first, text=reply.reasoning)
            yield at("reasoning_summary_part.done", "reasoning", **first, part=_summary(reply))
        case "message":
            yield added(_message(reply, "in_progress", [], next(variants)))
            first = {"content_index": 0}
            yield at("content_part.added", "text", **first, part=_text(""))
            for piece in reply.pieces:
                yield at("output_text.delta", "text", **first, delta=piece, logprobs=[])
            yield at("output_text.done", "text", **first, text=reply.text, logprobs=[])
            yield at("content_part.done", "text", **first, part=_text(reply.text))
        case _:
            number = index - items + len(reply.calls)  # calls come last
            yield added(_call(reply, number, "in_progress", "", next(variants)))
            for piece in reply.calls[number].pieces:
                yield at("function_call_arguments.delta", f"call{number}", delta=piece)
            yield at("function_call_arguments.done", f"call{number}", arguments=item["arguments"])
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def stream(reply: Reply) -> Streamed:
    """``response.created`` ... ``response.output_text.delta`` ... ``response.completed`` with the whole response."""
    variants = itertools.count(_LAST + 1)
    response = _response(reply, "completed", _output(reply))
    completed: Json = {"type": "response.completed", "response": response, **reply.price}
    if reply.quota:
        completed["copilot_quota_snapshots"] = quota_snapshots(reply.quota)
    begun = [{"type": f"response.{word}", "response": _response(reply, "in_progress", [])} for word in _BEGINNINGS]
    items = _output(reply)
    output = [event for index, item in enumerate(items) for event in _events(reply, item, index, len(items), variants)]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate([*begun, *output, completed])]
    return Streamed(tuple(numbered[: len(begun)]), tuple(numbered[len(begun) : -1]), tuple(numbered[-1:]))


_BEGINNINGS = ("created", "in_progress")


def error(code: str, message: str) -> Json:
    """An error inside a stream, flat as OpenAI documents it."""
    return {"type": "error", "code": code, "message": message, "param": None}


def failed(reply: Reply, code: str, message: str) -> Json:
    """An answer that the service gives up."""
    return {
        "type": "response.failed",
        "response": _response(reply, "failed", [], {"code": code, "message": message}),
    }


def frame_error(code: str, message: str, quota: Mapping[str, Quota]) -> Json:
    """A refusal as a frame of a WebSocket (docs/copilot-protocol.md#websocket)."""
    told: Json = {"type": "error", "error": {"code": code, "message": message}}
    return {**told, "copilot_quota_snapshots": quota_snapshots(quota)} if quota else told


def quota_snapshots(quotas: Mapping[str, Quota]) -> Json:
    """``copilot_quota_snapshots``: VS Code's ``chatQuotaService.ts`` reads these fields, the entitlement as text."""
    return {
        name: {
            "entitlement": str(quota.entitlement),
            "percent_remaining": quota.percent_left,
            "overage_permitted": False,
            "overage_count": 0,
            "reset_date": quota.resets,
        }
        for name, quota in quotas.items()
    }
