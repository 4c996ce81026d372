"""Checks bound state as the service does: it is accepted only from the account that made it.

Laws of this file:

1. Pure. Of what is wrong with a request the first thing is told, in the service's own words
   (docs/copilot-protocol.md#state-bound-to-an-account; the texts about tool calls and thinking are OpenAI's and
   Anthropic's).
2. What is left out is accepted: ids, reasoning, thinking. The one exception is Anthropic's: where thinking is enabled,
   the assistant's turn before tool results begins with thinking.
3. An item id of the client's own making is accepted where no encrypted content stands beside it: Copilot CLI 1.0.102
   sends ``msg_<uuid>`` and ``fc_<call id>``, others repair histories that way (xuangong/copilot-api-gateway,
   connection-mismatch.ts). What looks like the service's own must be the account's.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from copilot_balancer.fake.bodies import CHAT, MESSAGES, RESPONSES, Json
from copilot_balancer.fake.reply import Kind, Made, call_id, unsealed
from copilot_balancer.fake.seen import Seen

_OPAQUE_ID = 20
"""Characters from which on base64 is taken for an id of Copilot's (xuangong/copilot-api-gateway)."""

_DIFFERENT_CONVERSATION = "The block is bound to a different conversation and cannot be used in this one."
"""How the service says it since September 2026; only its beginning was seen (opencode#48637)."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a request, as the service says it."""

    message: str
    code: str = ""
    status: int = 400
    owner: str | None = None
    """Whose it is; None: nobody's, or it is only missing."""


@dataclass(frozen=True)
class Lost:
    """One refusal of this family: state that reached an account which had not made it, or not whole."""

    account: str
    """Who was asked."""
    owner: str | None
    """Whose it was; None: nobody's, or something was only missing."""
    status: int
    code: str
    text: str
    """What the client was told."""
    seen: Seen
    """The request."""


@dataclass(frozen=True)
class Asker:
    """Who asks, and how the service puts it when it says no."""

    account: str
    socket: int = 0
    """The number of the WebSocket that it came over; 0: none."""
    wrong_id_status: Literal[400, 401] = 400
    """Both were seen for an item id of somebody else's."""
    wrong_signature: Literal["signature", "conversation"] = "signature"
    """Both texts were seen for thinking of somebody else's."""

    def made(self, value: object, kind: Kind) -> Made | None:
        """What the value says, when this account made it as such."""
        made = unsealed(value)
        return made if made and (made.account, made.kind) == (self.account, kind) else None


def wrong_with(endpoint: str, body: Json, asker: Asker) -> Wrong | None:
    """What the service would refuse in this request because of who sends it; None: nothing."""
    judge = _JUDGES.get(endpoint)
    return next(judge(body, asker), None) if judge else None


def wrong_session_token(token: str | None, account: str, model: str | None) -> Wrong | None:
    """What is wrong with a ``Copilot-Session-Token`` on a request for `model`; None: nothing, or there is none.

    The token of ``/auto`` is good for the model that it chose alone (docs/copilot-protocol.md#auto-mode).
    """
    made = unsealed(token)
    if token is None:
        return None
    if made and (made.account, made.kind) == (account, "session"):
        chosen = made.part.partition("/")[2]
        if not chosen or model in (None, chosen):
            return None
        return Wrong("Requested model not available for session", owner=account)
    return Wrong("Invalid Copilot-Session-Token", status=401, owner=_owner(token))


def _owner(value: object) -> str | None:
    made = unsealed(value)
    return made.account if made else None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# --- POST /responses


def _in_responses(body: Json, asker: Asker) -> Iterator[Wrong]:
    answered: set[str] = set()
    """Ids of the calls whose output may stand here."""
    previous = body.get("previous_response_id")
    if previous is not None:
        made = asker.made(previous, "response")
        reply, socket, calls = made.part.rsplit("/", 2) if made else ("", "", "0")
        if not made or int(socket) != asker.socket:
            text = f"Previous response with id '{_short(previous)}' not found."
            yield Wrong(text, "previous_response_not_found", owner=_owner(previous))
        answered |= {call_id(asker.account, f"{reply}/call{number}") for number in range(int(calls))}
    for item in _dicts(body.get("input")):
        yield from _in_item(item, asker)
        kind = str(item.get("type"))
        if kind == "item_reference" and (made := asker.made(item.get("id"), "item")):
            answered.add(call_id(asker.account, made.part))
        elif kind.endswith("_call"):
            answered.add(str(item.get("call_id")))
        elif kind.endswith("_call_output") and str(item.get("call_id")) not in answered:
            what = kind.replace("_", " ")
            yield Wrong(f"No tool call found for {what} with call_id {item.get('call_id')}.", "invalid_request_body")


def _in_item(item: Json, asker: Asker) -> Iterator[Wrong]:
    item_id, encrypted = item.get("id"), item.get("encrypted_content")
    made_id = asker.made(item_id, "item")
    reference = item.get("type") == "item_reference"
    if item_id is not None and not made_id and (reference or _looks_like_ours(item_id)):
        code = "bad_request" if asker.socket else ""
        text = "input item ID does not belong to this connection"
        yield Wrong(text, code, asker.wrong_id_status, _owner(item_id))
    if encrypted is not None:
        made = asker.made(encrypted, "encrypted")
        if not made:
            yield _unreadable(encrypted)
        elif item_id is not None and (not made_id or made_id.part != made.part):
            yield Wrong(
                f"The encrypted content for item {_short(item_id)} could not be verified. "
                "Reason: Encrypted content item_id did not match the target item id.",
                "invalid_encrypted_content",
                owner=_owner(item_id),
            )


def _unreadable(encrypted: object) -> Wrong:
    return Wrong(
        f"The encrypted content {_short(encrypted)} could not be verified. "
        "Reason: Encrypted content could not be decrypted or parsed.",
        "invalid_encrypted_content",
        owner=_owner(encrypted),
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 12 else f"{text[:4]}...{text[-4:]}"


def _looks_like_ours(item_id: object) -> bool:
    if not isinstance(item_id, str) or len(item_id) < _OPAQUE_ID:
        return False
    try:
        base64.b64decode(item_id, validate=True)
    except (ValueError, binascii.Error):
        return False
    return True


# --- POST /chat/completions


def _in_chat(body: Json, asker: Asker) -> Iterator[Wrong]:
    called: set[str] = set()
    for message in _dicts(body.get("messages")):
        opaque = message.get("reasoning_opaque")
        if opaque is not None and not asker.made(opaque, "opaque"):
            yield _unreadable(opaque)
        called |= {str(call.get("id")) for call in _dicts(message.get("tool_calls"))}
        if message.get("role") == "tool" and str(message.get("tool_call_id")) not in called:
            yield Wrong(
                "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                "invalid_request_body",
            )


# --- POST /v1/messages


def _in_messages(body: Json, asker: Asker) -> Iterator[Wrong]:
    messages = _dicts(body.get("messages"))
    for index, message in enumerate(messages):
        for place, block in enumerate(_dicts(message.get("content"))):
            yield from _in_block(block, f"messages.{index}.content.{place}", asker)
    turns = [(index, message) for index, message in enumerate(messages) if message.get("role") == "assistant"]
    thinks = body.get("thinking")
    if turns and isinstance(thinks, dict) and thinks.get("type") == "enabled" and _results(messages[-1]):
        index, turn = turns[-1]
        blocks = _dicts(turn.get("content"))
        found = str(blocks[0].get("type")) if blocks else "text"
        if found not in ("thinking", "redacted_thinking"):
            yield Wrong(
                f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{found}`. "
                "When `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding "
                "the lastmost set of `tool_use` and `tool_result` blocks).",
                "invalid_request_body",
            )
    for index, message in enumerate(messages):
        before = [turn for place, turn in turns if place < index][-1:]
        called = {str(block.get("id")) for turn in before for block in _dicts(turn.get("content"))}
        for place, tool in _results(message):
            if tool not in called:
                yield Wrong(
                    f"messages.{index}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{tool}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
                    "message.",
                    "invalid_request_body",
                )


def _results(message: Json) -> list[tuple[int, str]]:
    """Place and ``tool_use_id`` of each tool result."""
    blocks = enumerate(_dicts(message.get("content")))
    return [(place, str(block.get("tool_use_id"))) for place, block in blocks if block.get("type") == "tool_result"]


def _in_block(block: Json, where: str, asker: Asker) -> Iterator[Wrong]:
    kind: Kind
    match block.get("type"):
        case "thinking" as name:
            kind, key = "signature", "signature"
        case "redacted_thinking" as name:
            kind, key = "redacted", "data"
        case _:
            return
    if asker.made(block.get(key), kind):
        return
    text = f"{where}: Invalid `{key}` in `{name}` block"
    if asker.wrong_signature == "conversation":
        text = f"{where}: {_DIFFERENT_CONVERSATION}"
    yield Wrong(text, "invalid_request_body", owner=_owner(block.get(key)))


_JUDGES: dict[str, Callable[[Json, Asker], Iterator[Wrong]]] = {
    CHAT: _in_chat,
    RESPONSES: _in_responses,
    MESSAGES: _in_messages,
}
