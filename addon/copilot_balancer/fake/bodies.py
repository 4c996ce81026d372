"""What the service's answers look like, for the fake: bodies and event streams, made from a reply's text.

Laws of this file:

1. Pure: an event stream is a tuple of bytes, one entry for each event as it goes over the wire. ``fake`` sends them.
2. A shape is complete enough that the real opencode and the real Copilot CLI take it. Sources: copilot-protocol.md
   3.5, 5.1, 6 and 7; what the two clients read was tried with opencode 1.18.33 and Copilot CLI 1.0.102.
3. Whatever belongs to one account (answer and item ids) is minted from ``Reply.id``, so that it tells whose it is.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

type Json = dict[str, Any]

CHAT = "/chat/completions"
RESPONSES = "/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
EMBEDDINGS = "/embeddings"

BALANCED = (CHAT, RESPONSES, MESSAGES, COUNT_TOKENS, EMBEDDINGS)
"""The paths on which an account is chosen (design.md 5), as the API documents them."""

DEFAULT_MODELS = (
    "gpt-5-mini",
    "gpt-5.4",
    "gpt-4.1",
    "claude-sonnet-4.6",
    "gemini-3-pro-preview",
    "text-embedding-3-small",
)
"""One model or more for each wire, and those that the two real clients ask for on their own."""


@dataclass(frozen=True)
class Reply:
    """What an account answers, before it takes the form of an API."""

    id: str
    """Letters, digits and ``-``: account and number, so that an id in a later request tells whose it is."""
    model: str
    pieces: tuple[str, ...]
    """The text in the pieces in which it is streamed."""
    created: int
    """Seconds since the epoch."""
    input_tokens: int

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.pieces)


def cut(text: str, pieces: int | None) -> tuple[str, ...]:
    """Cut `text` into that many pieces of about one length; None: a word each. Joined they are `text` again."""
    if pieces is None:
        return tuple(re.split(r"(?<=\s)(?=\S)", text))
    return tuple(
        text[len(text) * index // pieces : len(text) * (index + 1) // pieces] for index in range(max(pieces, 1))
    )


def _data(obj: Json) -> bytes:
    return b"data: " + json.dumps(obj, separators=(",", ":")).encode() + b"\n\n"


def _named(obj: Json) -> bytes:
    return f"event: {obj['type']}\n".encode() + _data(obj)


# --- POST /chat/completions


def _chat_usage(reply: Reply) -> Json:
    output = len(reply.pieces)
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": output,
        "total_tokens": reply.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def chat_events(reply: Reply) -> tuple[bytes, ...]:
    """``chat.completion.chunk`` for each piece, the last one with ``finish_reason`` and usage, then ``[DONE]``."""

    def chunk(delta: Json, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": f"chatcmpl-{reply.id}", "object": "chat.completion.chunk", "created": reply.created}
        return _data({**head, "model": reply.model, "choices": [choice], **more})

    return (
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in reply.pieces),
        chunk({}, "stop", usage=_chat_usage(reply)),
        b"data: [DONE]\n\n",
    )


def chat_document(reply: Reply) -> Json:
    """``chat.completion``: the same, not streamed."""
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": "stop"},
        ],
        "usage": _chat_usage(reply),
    }


# --- POST /responses


def _output_item(reply: Reply, status: str, content: list[Json]) -> Json:
    return {"id": f"msg_{reply.id}", "type": "message", "status": status, "role": "assistant", "content": content}


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(reply: Reply, status: str, output: list[Json]) -> Json:
    done = status == "completed"
    tokens = len(reply.pieces)
    usage = {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.input_tokens + tokens,
    }
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "error": None,
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
        "usage": usage if done else None,
    }


def responses_document(reply: Reply) -> Json:
    """``response``, completed."""
    return _response(reply, "completed", [_output_item(reply, "completed", [_output_text(reply.text)])])


def responses_frames(reply: Reply) -> tuple[Json, ...]:
    """The events of one answer as objects: what a WebSocket carries as text frames."""
    place = {"item_id": f"msg_{reply.id}", "output_index": 0, "content_index": 0}
    frames: list[Json] = [
        {"type": "response.created", "response": _response(reply, "in_progress", [])},
        {"type": "response.in_progress", "response": _response(reply, "in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": _output_item(reply, "in_progress", [])},
        {"type": "response.content_part.added", **place, "part": _output_text("")},
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in reply.pieces),
        {"type": "response.output_text.done", **place, "text": reply.text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": _output_text(reply.text)},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": _output_item(reply, "completed", [_output_text(reply.text)]),
        },
        {"type": "response.completed", "response": responses_document(reply)},
    ]
    return tuple({**frame, "sequence_number": number} for number, frame in enumerate(frames))


def responses_events(reply: Reply) -> tuple[bytes, ...]:
    """``response.created`` ... ``response.output_text.delta`` ... ``response.completed`` with the whole response."""
    return tuple(_named(frame) for frame in responses_frames(reply))


# --- POST /v1/messages


def messages_document(reply: Reply) -> Json:
    """An Anthropic ``message``."""
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": reply.input_tokens, "output_tokens": len(reply.pieces)},
    }


def messages_events(reply: Reply) -> tuple[bytes, ...]:
    """``message_start`` ... ``content_block_delta`` ... ``message_delta`` with reason and usage, ``message_stop``."""
    usage = {"input_tokens": reply.input_tokens, "output_tokens": 1}
    start = {**messages_document(reply), "content": [], "stop_reason": None, "usage": usage}
    return (
        _named({"type": "message_start", "message": start}),
        _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
            for piece in reply.pieces
        ),
        _named({"type": "content_block_stop", "index": 0}),
        _named(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"input_tokens": reply.input_tokens, "output_tokens": len(reply.pieces)},
            }
        ),
        _named({"type": "message_stop"}),
    )


# --- the rest of the Copilot API


def embeddings_document(model: str, count: int) -> Json:
    """``count`` short vectors."""
    vectors = [
        {"object": "embedding", "index": index, "embedding": [0.25, -0.5, index / 8, 1.0]} for index in range(count)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": vectors, "model": model, "usage": usage}


def supported_endpoints(model: str, *, websocket: bool) -> list[str]:
    """On which wire a model is spoken to: what opencode and the Copilot CLI decide by."""
    if model.startswith("claude"):
        return [MESSAGES, CHAT]
    if model.startswith("gpt-5"):
        return [RESPONSES, "ws:/responses"] if websocket else [RESPONSES]
    return [CHAT]


def models_document(models: Iterable[str], *, websocket: bool = False) -> Json:
    """``GET /models``: entries as in copilot-protocol.md section 6."""
    return {"data": [_model(model, websocket) for model in models], "object": "list"}


def _model(model: str, websocket: bool) -> Json:
    entry: Json = {
        "id": model,
        "name": model.replace("-", " ").title(),
        "object": "model",
        "vendor": "Anthropic" if model.startswith("claude") else "Google" if model.startswith("gemini") else "OpenAI",
        "version": model,
        "preview": False,
    }
    if "embedding" in model:
        capabilities = {
            "family": model,
            "limits": {"max_inputs": 512},
            "object": "model_capabilities",
            "supports": {"dimensions": True},
            "tokenizer": "cl100k_base",
            "type": "embeddings",
        }
        billing: Json = {"is_premium": False, "multiplier": 0}
        return {**entry, "billing": billing, "capabilities": capabilities, "model_picker_enabled": False}
    included = model in ("gpt-5-mini", "gpt-4.1", "gpt-4o")
    return {
        **entry,
        "billing": {"is_premium": not included, "multiplier": 0 if included else 1},
        "capabilities": {
            "family": model,
            "limits": {
                "max_context_window_tokens": 200000,
                "max_non_streaming_output_tokens": 16000,
                "max_output_tokens": 32000,
                "max_prompt_tokens": 168000,
            },
            "object": "model_capabilities",
            "supports": {
                "parallel_tool_calls": True,
                "streaming": True,
                "structured_outputs": True,
                "tool_calls": True,
            },
            "tokenizer": "o200k_base",
            "type": "chat",
        },
        "is_chat_default": model == "gpt-4.1",
        "is_chat_fallback": model == "gpt-4.1",
        "model_picker_category": "versatile",
        "model_picker_enabled": True,
        "policy": {"state": "enabled", "terms": "The fake's terms."},
        "supported_endpoints": supported_endpoints(model, websocket=websocket),
    }


# --- GitHub's side


@dataclass(frozen=True)
class Quota:
    """One quota of an account, as it stands in headers and in ``/copilot_internal/user``."""

    percent_left: float
    entitlement: int = 300
    """-1: unlimited."""
    resets: str = "2030-01-01T00:00:00Z"

    @property
    def remaining(self) -> float:
        """Absolute number left; -1 when there is no limit."""
        return -1 if self.entitlement < 0 else round(self.entitlement * self.percent_left / 100, 1)


def quota_headers(quotas: Mapping[str, Quota]) -> list[tuple[str, str]]:
    """``x-quota-snapshot-NAME: ent=...&rem=...`` (copilot-protocol.md 7.2)."""
    return [
        (
            f"x-quota-snapshot-{name}",
            urlencode(
                {
                    "ent": quota.entitlement,
                    "ov": 0.0,
                    "ovPerm": "false",
                    "rem": quota.percent_left,
                    "rst": quota.resets,
                    "totRem": quota.remaining,
                }
            ),
        )
        for name, quota in quotas.items()
    ]


def user_document(login: str, user_id: int) -> Json:
    """``GET /user``: who a token is."""
    return {"login": login, "id": user_id, "type": "User", "name": login, "site_admin": False}


def copilot_user_document(login: str, plan: str, endpoints: Mapping[str, str], quotas: Mapping[str, Quota]) -> Json:
    """``GET /copilot_internal/user``: plan, endpoints, quotas (copilot-protocol.md 7.1)."""
    snapshots = {
        name: {
            "quota_id": name,
            "entitlement": quota.entitlement,
            "remaining": int(quota.remaining),
            "quota_remaining": quota.remaining,
            "percent_remaining": quota.percent_left,
            "unlimited": quota.entitlement < 0,
            "overage_count": 0,
            "overage_permitted": False,
            "has_quota": quota.percent_left > 0,
        }
        for name, quota in quotas.items()
    }
    reset = next((quota.resets for quota in quotas.values()), Quota(100).resets)
    return {
        "login": login,
        "access_type_sku": "monthly_subscriber_quota",
        "copilot_plan": plan,
        "chat_enabled": True,
        "is_mcp_enabled": True,
        "assigned_date": None,
        "can_signup_for_limited": False,
        "organization_login_list": [],
        "organization_list": [],
        "endpoints": dict(endpoints),
        "quota_reset_date": reset[:10],
        "quota_reset_date_utc": reset,
        "quota_snapshots": snapshots,
    }


def exchanged_document(token: str, expires_at: int, refresh_in: int, endpoints: Mapping[str, str]) -> Json:
    """``GET /copilot_internal/v2/token``: a short-lived token (copilot-protocol.md 2.2)."""
    return {
        "token": token,
        "expires_at": expires_at,
        "refresh_in": refresh_in,
        "sku": "monthly_subscriber_quota",
        "individual": True,
        "chat_enabled": True,
        "endpoints": dict(endpoints),
        "limited_user_quotas": None,
        "limited_user_reset_date": None,
    }
