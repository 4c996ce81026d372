"""Finds and removes bound state in a request: values that the service accepts only from the account that made them.

Source: docs/copilot-protocol.md#state-bound-to-an-account.

Laws of this file:

1. A piece of bound state is known by a short hash: no id, no signature and no sealed text is kept, and nothing here is
   ever logged.
2. Stripping edits the client's own bytes: what is left out is cut, with one comma each; every other byte stays.
3. The bound state of one response is removed as a whole or not at all: a reasoning item and the ids that follow it, the
   thinking blocks of one message. Half of a pair is refused ("provided without its required reasoning item",
   vercel/ai#10829), while ids that are left out everywhere are accepted (openclaw#72613).
4. State that carries the conversation's history stays, whichever account made it: a compaction item, another item's
   sealed content, and a ``previous_response_id`` whose history is not in the request. A refusal that the client can act
   on is better than a model that has silently forgotten everything.
5. Nothing here raises, whatever the bytes are; a body that cannot be parsed is left unchanged.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from copilot_balancer.copilot.jsontext.incremental import Steps, finish
from copilot_balancer.copilot.jsontext.spans import (
    MOST_PARTS,
    UNREADABLE,
    Part,
    Walked,
    document,
    named,
    spans,
    walk,
    without,
)
from copilot_balancer.copilot.protocol import PARSE_LIMIT, Api

_TURNS = {Api.CHAT: "messages", Api.MESSAGES: "messages", Api.RESPONSES: "input"}
"""Where the conversation stands in a request's body."""
_BINDING = {
    Api.CHAT: (b"reasoning_opaque",),
    Api.MESSAGES: (b"thinking",),
    Api.RESPONSES: (b'"id"', b"previous_response_id", b"encrypted_content"),
}
"""One of these words stands in every request with bound state; most chats have none."""
_HIDING = (b"\\u00", b"\0")
"""In a body with one of these, the words of `_BINDING` may be written with escapes or in UTF-16."""
_SLICE = 256
"""Turns that are read between two places to pause."""


def state_hash(kind: str, value: str) -> str:
    """Sixteen hex digits that stand for a piece of bound state.

    Args:
        kind: "id" (items and responses), "sealed" (``encrypted_content``), "signature" (thinking, and the data of
            ``redacted_thinking``), "opaque" (``reasoning_opaque``) or "session" (``Copilot-Session-Token``).
        value: as it stands on the wire, escapes resolved.

    """
    return hashlib.sha256(f"{kind}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class BoundState:
    """The bound state of one request; false when there is none."""

    hashes: tuple[str, ...] = ()
    """Each once, oldest first: the last one is the newest state."""
    needed: frozenset[str] = frozenset()
    """Hashes without which the request would say something else, or be refused: those of the running tool loop
    (Anthropic requires the thinking blocks there), and whatever carries the history itself."""

    def __bool__(self) -> bool:
        return bool(self.hashes)


@dataclass(frozen=True, slots=True)
class Stripped:
    """A request's body without the bound state of other accounts."""

    body: bytes = field(repr=False)
    left_out: int
    """How many pieces of state were removed."""
    what: str
    """For people, like "3 reasoning items, 5 ids"."""


def may_carry(api: Api, raw: bytes) -> bool:
    """Whether these bytes of a request can contain bound state; a quick test that spares reading each turn."""
    return any(raw.find(word) >= 0 for word in (*_BINDING[api], *_HIDING))


def read_bound(api: Api, body: dict[str, object]) -> BoundState:
    """The bound state in a request; `body` is the parsed request.

    Of more than `MOST_PARTS` turns nothing: they could not be stripped either, and are no conversation.
    """
    return finish(reading_bound(api, body))


def reading_bound(api: Api, body: dict[str, object]) -> Steps[BoundState]:
    """As `read_bound`, slice by slice."""
    turns = _turns(api, body)
    if len(turns) > MOST_PARTS:
        return BoundState()
    begins = _loop_begins(api, turns)
    hashes: dict[str, None] = {}
    needed: set[str] = set()

    def carry(found: Collection[str], *, needs: bool) -> None:
        for one in found:
            hashes.pop(one, None)  # seen again: it belongs where it is nearest to the end
            hashes[one] = None
        if needs:
            needed.update(found)

    loose = _LOOSE[api]
    previous = _previous(api, body)
    newest = previous is not None and not any(map(_is_said, turns))
    if previous is not None and not newest:
        carry([previous], needs=not _tells_all(turns))
    for place, turn in enumerate(turns):
        if isinstance(turn, dict):
            if found := loose(turn):
                carry(found, needs=place >= begins)
            if api is Api.RESPONSES and (found := _held(turn)):
                carry(found, needs=True)
        if place % _SLICE == _SLICE - 1:
            yield
    if previous is not None and newest:
        carry([previous], needs=True)
    return BoundState(tuple(hashes), frozenset(needed))


def stripped(api: Api, raw: bytes, keep: Callable[[str], bool]) -> Stripped | None:
    """The body without what `keep` refuses; None when nothing is to be left out, or the body cannot be read.

    A needed hash that is refused goes as well, where law 4 does not hold it: whether the request may be stripped at all
    is the caller's question. What goes:

    - chat: ``reasoning_opaque``, with the ``reasoning_text`` that belongs to it;
    - messages: the thinking blocks of an assistant message; the message too when nothing else stands in it;
    - responses: a reasoning item whole; an item's ``id``; an ``item_reference``, and then the outputs of tool calls
      that stand nowhere any more; ``previous_response_id`` when the input tells the whole history.

    Args:
        api: the request's form.
        raw: the body as the client sent it, uncompressed UTF-8.
        keep: whether the state with this hash may stay.

    """
    if len(raw) > PARSE_LIMIT:
        return None
    try:
        text = raw.decode("utf-8", "surrogatepass")  # as json.loads does with bytes
        body = document(text, _TURNS[api])
    except UNREADABLE:
        return None
    read = body.members
    walked = read.get(_TURNS[api])
    turns = walked.parts if isinstance(walked, Walked) else []
    plan = _PLANS[api](read, [part.value for part in turns], keep)
    if not plan.counted:
        return None
    try:
        left = without(text, sorted(_cuts(text, body, turns, plan)))
    except UNREADABLE:
        return None
    return Stripped(left.encode("utf-8", "surrogatepass"), plan.counted.total(), plan.what)


# --- what is bound ----------------------------------------------------------------------------------------------------


def _hashes(kind: str, value: object) -> list[str]:
    return [state_hash(kind, value)] if isinstance(value, str) and value else []


def _turns(api: Api, body: dict[str, object]) -> list[object]:
    turns = body.get(_TURNS[api])
    return turns if isinstance(turns, list) else []


def _previous(api: Api, body: dict[str, object]) -> str | None:
    found = _hashes("id", body.get("previous_response_id")) if api is Api.RESPONSES else []
    return found[0] if found else None


def _opaque(turn: dict[str, object]) -> list[str]:
    """Of a chat message: at most one hash."""
    return _hashes("opaque", turn.get("reasoning_opaque")) if turn.get("role") == "assistant" else []


def _thinking(turn: dict[str, object]) -> dict[int, str]:
    """Place in the content -> hash, of one message of the messages API."""
    content = turn.get("content")
    found: dict[int, str] = {}
    if turn.get("role") == "assistant" and isinstance(content, list):
        for place, block in enumerate(content):
            if isinstance(block, dict) and block.get("type") in ("thinking", "redacted_thinking"):
                value = block.get("signature" if block["type"] == "thinking" else "data")
                found.update((place, one) for one in _hashes("signature", value))
    return found


def _loose(turn: dict[str, object]) -> list[str]:
    """Of a responses item: what can be left out."""
    found = _hashes("id", turn["id"]) if "id" in turn else []
    if turn.get("type") == "reasoning":
        found += _hashes("sealed", turn.get("encrypted_content"))
    return found


def _held(turn: dict[str, object]) -> list[str]:
    """Of a responses item: sealed content that says what nothing else in the request says (law 4).

    Beside compaction items: encrypted tool outputs, which stand in the parts of an output (codex with several agents,
    caozhiyuan/copilot-api#339).
    """
    if turn.get("type") == "reasoning":
        return []
    found = _hashes("sealed", turn["encrypted_content"]) if "encrypted_content" in turn else []
    for key in ("content", "output"):
        if isinstance(parts := turn.get(key), list):
            for part in parts:
                if isinstance(part, dict) and "encrypted_content" in part:
                    found += _hashes("sealed", part["encrypted_content"])
    return found


_LOOSE: dict[Api, Callable[[dict[str, object]], Collection[str]]] = {
    Api.CHAT: _opaque,
    Api.MESSAGES: lambda turn: _thinking(turn).values(),
    Api.RESPONSES: _loose,
}


# --- turns, and whether a request contains its whole history ----------------------------------------------------------


def _loop_begins(api: Api, turns: list[object]) -> int:
    """The place after the last real message of the user; 0 when there is none."""
    for place in range(len(turns) - 1, -1, -1):
        if _asks(api, turns[place]):
            return place + 1
    return 0


def _asks(api: Api, turn: object) -> bool:
    """Whether a turn is the user speaking: a tool's result is none, though the messages API calls its role "user"."""
    if not isinstance(turn, dict) or turn.get("role") != "user":
        return False
    if api is Api.RESPONSES:
        return bool(turn.get("type", "message") == "message")
    content = turn.get("content")
    blocks = content if isinstance(content, list) else []
    return not any(isinstance(block, dict) and block.get("type") == "tool_result" for block in blocks)


def _is_said(turn: object) -> bool:
    """Whether a responses item holds what the model said: that is history, unlike its reasoning or a bare reference."""
    if not isinstance(turn, dict):
        return False
    kind = turn.get("type")
    return turn.get("role") == "assistant" or (
        isinstance(kind, str) and (kind.endswith("_call") or kind == "compaction")
    )


def _call_of(turn: object, *, output: bool) -> str | None:
    """The id that ties a tool call and its output together, when the item is of the one or the other kind."""
    if not isinstance(turn, dict):
        return None
    kind, call = turn.get("type"), turn.get("call_id")
    return call if isinstance(call, str) and (isinstance(kind, str) and kind.endswith("_output")) is output else None


def _orphans(turns: list[object]) -> list[int]:
    """The places of tool outputs whose call is not in the input."""
    calls = {_call_of(turn, output=False) for turn in turns} | {None}
    return [place for place, turn in enumerate(turns) if _call_of(turn, output=True) not in calls]


def _tells_all(turns: list[object]) -> bool:
    """Whether the history is complete without ``previous_response_id``.

    It is when the model has spoken in the input, after the user (or a compaction item stands for what was before), and
    no tool output lacks its call. VS Code sends only what came after the response that it names.
    """
    asked = False
    for turn in turns:
        if _is_said(turn):
            compacted = isinstance(turn, dict) and turn.get("type") == "compaction"
            return (asked or compacted) and not _orphans(turns)
        asked = asked or _asks(Api.RESPONSES, turn)
    return False


# --- what is removed --------------------------------------------------------------------------------------------------


class _Plan:
    """What is to be removed, by index of the turn; `counted` holds the numbers by kind, for `what`."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.bare: dict[int, tuple[str, ...]] = {}
        """Turn -> keys."""
        self.blocks: dict[int, Collection[int]] = {}
        """Message -> places in its content."""
        self.previous = False
        """``previous_response_id`` goes."""
        self.counted: Counter[str] = Counter()

    def count(self, thing: str, number: int) -> None:
        if number:
            self.counted[thing] += number

    @property
    def what(self) -> str:
        return ", ".join(f"{number} {thing}{'s' * (number > 1)}" for thing, number in self.counted.items())


def _plan_chat(_body: dict[str, object], turns: list[object], keep: Callable[[str], bool]) -> _Plan:
    plan = _Plan()
    for place, turn in enumerate(turns):
        if isinstance(turn, dict) and not all(map(keep, _opaque(turn))):
            plan.bare[place] = ("reasoning_opaque", "reasoning_text")
    plan.count("opaque reasoning", len(plan.bare))
    return plan


def _plan_messages(_body: dict[str, object], turns: list[object], keep: Callable[[str], bool]) -> _Plan:
    plan = _Plan()
    for place, turn in enumerate(turns):
        thinking = _thinking(turn) if isinstance(turn, dict) else {}
        if isinstance(turn, dict) and not all(map(keep, thinking.values())):
            plan.count("thinking block", len(thinking))
            if len(thinking) == len(turn["content"]):
                plan.gone.add(place)
            else:
                plan.blocks[place] = thinking
    return plan


def _plan_responses(body: dict[str, object], turns: list[object], keep: Callable[[str], bool]) -> _Plan:
    plan = _Plan()
    refused: list[tuple[int, dict[str, object]]] = []
    for answer in _answers(turns):
        if not all(keep(one) for _, turn in answer for one in _loose(turn)):
            refused += answer
    reasonings = {place for place, turn in refused if turn.get("type") == "reasoning"}
    references = {place for place, turn in refused if turn.get("type") == "item_reference"}
    previous = _previous(Api.RESPONSES, body)
    plan.previous = previous is not None and not keep(previous) and _tells_all(turns)
    orphans: set[int] = set()
    if references and (previous is None or plan.previous) and not _refers(turns, references):
        orphans = set(_orphans(turns))  # their calls stood behind the references
    plan.gone = reasonings | references | orphans
    plan.bare = {place: ("id",) for place, turn in refused if place not in plan.gone and _hashes("id", turn.get("id"))}
    plan.count("reasoning item", len(reasonings))
    plan.count("id", len(plan.bare))
    plan.count("item reference", len(references))
    plan.count("tool output", len(orphans))
    plan.count("previous response id", int(plan.previous))
    return plan


def _refers(turns: list[object], without: set[int]) -> bool:
    """Whether a reference stays: the call of an output may stand behind it."""
    return any(
        isinstance(turn, dict) and turn.get("type") == "item_reference" and place not in without
        for place, turn in enumerate(turns)
    )


def _answers(turns: list[object]) -> Iterator[list[tuple[int, dict[str, object]]]]:
    """The items by what stands or falls together (law 3): reasoning and what the model said after it; others alone."""
    answer: list[tuple[int, dict[str, object]]] = []
    open_ended = thinking = False
    for place, turn in enumerate(turns):
        if not isinstance(turn, dict):
            open_ended = False
            continue
        was_thinking, thinking = thinking, turn.get("type") == "reasoning"
        made = thinking or turn.get("type") == "item_reference" or _is_said(turn)
        if not (open_ended and made) or (thinking and not was_thinking):
            yield answer
            answer = []
        answer.append((place, turn))
        open_ended = made
    yield answer


_PLANS: dict[Api, Callable[[dict[str, object], list[object], Callable[[str], bool]], _Plan]] = {
    Api.CHAT: _plan_chat,
    Api.MESSAGES: _plan_messages,
    Api.RESPONSES: _plan_responses,
}


def _cuts(text: str, body: Walked, turns: list[Part], plan: _Plan) -> Iterator[tuple[int, int]]:
    """What is cut out of the text: from, to; in no order, and none within another."""
    if plan.previous:
        yield from spans(body.parts, named(body, ("previous_response_id",)))
    yield from spans(turns, plan.gone)
    for place, keys in plan.bare.items():
        turn = walk(text, turns[place].start)
        yield from spans(turn.parts, named(turn, keys))
    for place, blocks in plan.blocks.items():
        content = walk(text, turns[place].start, "content").members["content"]
        assert isinstance(content, Walked)
        yield from spans(content.parts, blocks)
