"""Parses a whole or cut response of each API form into its parts: text, reasoning, tool calls, errors, finish, usage.

Laws of this file:

1. It only reads, and nothing here raises: what cannot be read is counted, and a value of an unexpected type counts as
   not said.
2. It is bounded, since it is called on the loop that serves requests: so many bytes are read, so many events are
   parsed, and what was left out is known.
3. What it returns is foreign text: whoever shows it makes it safe first (``page``).
"""

from dataclasses import dataclass, field

from copilot_balancer.copilot import error_body, quota
from copilot_balancer.copilot.jsontext.lenient import (
    Json,
    as_list,
    as_number,
    as_object,
    as_text,
    dumped,
    objects,
    parsed,
)
from copilot_balancer.copilot.response_event import event_fields
from copilot_balancer.copilot.usage import NANO_PER_CREDIT, counts
from copilot_balancer.text import printable

READ_LIMIT = 2 * 1024 * 1024
"""Bytes of an answer that are read from its beginning: as many as are kept of one, unless the user keeps more."""

TAIL = 64 * 1024
"""Bytes of a longer answer that are read from its end, where finish reason and usage stand."""

MAX_ERRORS = 20
"""Errors inside one stream that are kept; real ones have one."""

MAX_EVENTS = 20_000
"""Events of a stream that are parsed from its beginning; 2 MB of real ones have some 8,000."""

TAIL_EVENTS = 100
"""Events that are parsed from the end of a stream that has more."""

BROKEN = 160
"""Characters of an event that could not be read that are kept."""


@dataclass
class Part:
    """One piece of an answer: a text, a reasoning, a call of a tool."""

    title: str
    """What it is, in our words; a tool's name may follow."""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that was said in it."""
        return "".join(self.pieces)

    @property
    def prose(self) -> bool:
        """Whether it is said to a person; else it is JSON, or what a tool takes in its place."""
        return self.title.partition(" ")[0] in ("text", "reasoning", "refusal")


@dataclass
class Answer:
    """What the events of a stream, or one JSON document, say."""

    model: str = ""
    finish: str = ""
    usage: Json = field(default_factory=dict)
    quota: dict[str, float] = field(default_factory=dict)
    """Name of a window -> percent left."""
    parts: dict[object, Part] = field(default_factory=dict)
    """In the order in which they began."""
    errors: list[str] = field(default_factory=list)
    unread: int = 0
    """Events that are no JSON objects."""
    first_unread: str = ""
    done: bool = False
    """Whether the API's last word has come."""
    silent: bool = False
    """Something was left out before: a text goes on somewhere else, so none is taken any more."""

    @property
    def whole(self) -> bool:
        """Whether nothing of it is missing; a client asks for no more than a reason for the end, either."""
        return self.done or bool(self.finish or self.errors)

    # each method takes what one event says

    def say(self, key: object, title: str, text: object) -> None:
        """Add `text` to the part with this key."""
        if isinstance(text, str) and text and not self.silent:
            self._part(key, title).pieces.append(text)

    def begin(self, key: object, title: str) -> None:
        """Let the part with this key stand where it begins, and learn its title."""
        if not self.silent:
            self._part(key, title).title = title

    def replace(self, key: object, title: str, text: str) -> None:
        """The whole part, told at its end: it counts more than its pieces."""
        self.begin(key, title)
        if text and not self.silent:
            self.parts[key].pieces = [text]

    def _part(self, key: object, title: str) -> Part:
        return self.parts.setdefault(key, Part(title))

    def head(self, place: Json) -> None:
        """Model, usage and quota, wherever they stand."""
        self.model = as_text(place.get("model")) or self.model
        for name in ("usage", "copilot_usage"):
            self.usage.update(as_object(place.get(name)))
        if isinstance(snapshots := place.get("copilot_quota_snapshots"), dict):
            windows = quota.read_snapshots(snapshots, wall=0, now=0)
            self.quota.update({name: window.percent_left for name, window in windows.items()})

    def failed(self, error: object) -> None:
        """An error inside a stream, in any of its shapes (docs/copilot-protocol.md#errors-inside-a-200)."""
        if len(self.errors) < MAX_ERRORS:
            said = error_body.read_json(error, "", {}, wall=0)
            words = [said.code or said.kind, said.message]
            self.errors.append(": ".join(word for word in words if word) or dumped(error))

    # --- the three forms (docs/copilot-protocol.md#streams)

    def take(self, event: Json, name: str = "") -> None:
        """One event of a stream, or a document; `name`: of the event, when its data does not say."""
        kind = as_text(event.get("type")) or name
        self.head(event)
        if event.get("object") == "response":
            self._response(event)
        elif kind.startswith("response."):
            self._responses(kind.removeprefix("response."), event)
        else:
            self._chat(event)
            self._messages(kind, event)
            if kind == "error" or event.get("error"):
                self.failed(event)

    def _chat(self, event: Json) -> None:
        for error in as_list(event.get("copilot_errors")):
            self.failed(error)
        for choice in objects(event.get("choices")):
            number = as_number(choice.get("index"))
            which = f" of choice {number}" if number else ""
            said = as_object(choice.get("delta")) or as_object(choice.get("message"))
            for reasoning in ("reasoning_text", "reasoning_content", "reasoning"):
                self.say((number, "reasoning"), f"reasoning{which}", said.get(reasoning))
            content = said.get("content")
            self.say((number, "text"), f"text{which}", _joined(content) if isinstance(content, list) else content)
            self.say((number, "refusal"), f"refusal{which}", said.get("refusal"))
            for call in objects(said.get("tool_calls")):
                function = as_object(call.get("function"))
                place = call.get("index")
                key = (number, "call", place if isinstance(place, int) else as_text(call.get("id")))
                if function.get("name"):
                    self.begin(key, _call(function.get("name"), call.get("id")) + which)
                self.say(key, "tool call", function.get("arguments"))
            self.finish = as_text(choice.get("finish_reason")) or self.finish

    def _responses(self, kind: str, event: Json) -> None:
        index = as_number(event.get("output_index"))
        if response := as_object(event.get("response")):
            self._response(response)
        if kind in ("output_item.added", "output_item.done"):
            self._item(index, as_object(event.get("item")))
        elif kind.endswith("_part.added"):  # a message has several texts, a reasoning several summaries
            if as_number(event.get("content_index")) or as_number(event.get("summary_index")):
                self.say(index, "text", "\n\n")
        elif kind in _DELTAS:
            self.say(index, _DELTAS[kind], event.get("delta"))

    def _response(self, response: Json) -> None:
        """A whole response: in a document, and in the events that begin and end a stream."""
        self.head(response)
        status = as_text(response.get("status"))
        if status not in ("", "queued", "in_progress"):
            why = as_text(as_object(response.get("incomplete_details")).get("reason"))
            self.finish = f"{status} ({why})" if why else status
        if response.get("error"):
            self.failed(response["error"])
        for index, item in enumerate(as_list(response.get("output"))):
            if index not in self.parts or not self.parts[index].pieces:
                self._item(index, as_object(item))

    def _item(self, index: int, item: Json) -> None:
        kind = as_text(item.get("type"))
        if kind == "message":
            self.replace(index, "text", _joined(item.get("content")))
        elif kind == "reasoning":
            said = _joined(item.get("summary")) or _joined(item.get("content"))
            sealed = "" if said or not item.get("encrypted_content") else "(encrypted)"
            self.replace(index, "reasoning", said or sealed)
        elif kind in ("function_call", "custom_tool_call", "mcp_call"):
            said = as_text(item.get("arguments")) or as_text(item.get("input"))
            self.replace(index, _call(item.get("name"), item.get("call_id")), said)
        elif kind:
            sealed = "(encrypted)" if item.get("encrypted_content") else dumped(item)
            self.replace(index, f"item of type {kind}", sealed)

    def _messages(self, kind: str, event: Json) -> None:
        index = as_number(event.get("index"))
        if kind == "message":
            for number, block in enumerate(as_list(event.get("content"))):
                self._block(number, as_object(block))
            self.finish = as_text(event.get("stop_reason"))
        elif kind == "message_start":
            self.head(as_object(event.get("message")))
        elif kind == "content_block_start":
            self._block(index, as_object(event.get("content_block")))
        elif kind == "content_block_delta":
            delta = as_object(event.get("delta"))
            self.say(index, "text", delta.get("text"))
            self.say(index, "reasoning", delta.get("thinking"))
            self.say(index, "tool call", delta.get("partial_json"))
        elif kind == "message_delta":
            self.finish = as_text(as_object(event.get("delta")).get("stop_reason")) or self.finish
        elif kind == "message_stop":
            self.done = True

    def _block(self, index: int, block: Json) -> None:
        kind = as_text(block.get("type"))
        if kind == "text":
            self.begin(index, "text")
            self.say(index, "text", block.get("text"))
        elif kind == "thinking":
            self.begin(index, "reasoning")
            self.say(index, "reasoning", block.get("thinking"))
        elif kind == "redacted_thinking":
            self.replace(index, "reasoning", "(encrypted)")
        elif kind.endswith("tool_use"):
            given = block.get("input")
            self.replace(index, _call(block.get("name"), block.get("id")), dumped(given) if given else "")
        elif kind:
            self.replace(index, f"item of type {kind}", dumped(block))


_DELTAS = {
    "output_text.delta": "text",
    "refusal.delta": "refusal",
    "reasoning_summary_text.delta": "reasoning",
    "reasoning_text.delta": "reasoning",
    "function_call_arguments.delta": "tool call",
    "custom_tool_call_input.delta": "tool call",
    "mcp_call_arguments.delta": "tool call",
}
"""Event of the responses API, without its ``response.`` -> what its ``delta`` is a piece of."""


def _joined(content: object) -> str:
    """The texts of a message's or a reasoning's content, each a paragraph."""
    told = (as_text(block.get("text")) or as_text(block.get("refusal")) for block in objects(content))
    return "\n\n".join(filter(None, told))


def _call(name: object, call: object) -> str:
    words = [printable(as_text(word), 100) for word in (name, call)]
    return f"tool call {words[0]}" + (f" ({words[1]})" if words[1] else "")


def usage(told: Json) -> str:
    """How much was read and written, in the words of any of the three forms."""
    amounts = counts({"usage": told, "copilot_usage": told})
    words = [f"{amounts[name]:,} {unit}" for name, unit in _AMOUNTS.items() if amounts.get(name)]
    if units := amounts.get("total_nano_aiu"):
        words.append(f"{units / NANO_PER_CREDIT:g} AI units")
    return ", ".join(words)


_AMOUNTS = {
    "prompt_tokens": "in",
    "input_tokens": "in",
    "cached_tokens": "of them cached",
    "cache_read_input_tokens": "read from the cache",
    "cache_creation_input_tokens": "written to the cache",
    "completion_tokens": "out",
    "output_tokens": "out",
    "reasoning_tokens": "of them reasoning",
}
"""Name of an amount in one of the three forms (docs/copilot-protocol.md#streams) -> what it is."""


# --- a whole answer, or what came of it -------------------------------------------------------------------------------


def read(data: bytes, *, stream: bool) -> Answer:
    """Read an answer, whole or cut; of a long one the beginning, and what its end says."""
    answer = Answer()
    if not stream:
        document = parsed(data.decode("utf-8-sig", "replace")) if len(data) <= READ_LIMIT else None
        answer.take(document or {})
        return answer
    blocks, end = _blocks(data[:READ_LIMIT]), []
    if len(data) > READ_LIMIT:
        end = _blocks(data[max(READ_LIMIT, len(data) - TAIL) :])[1:]
    if len(blocks) > MAX_EVENTS:
        blocks, end = blocks[:MAX_EVENTS], end or blocks[-TAIL_EVENTS:]
    _take_events(answer, blocks)
    answer.silent = len(data) > READ_LIMIT or bool(end)
    _take_events(answer, end)
    return answer


def _blocks(data: bytes) -> list[bytes]:
    """What stands between blank lines; the last one may be torn."""
    *blocks, last = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    return [*filter(None, blocks), last]


def _take_events(answer: Answer, blocks: list[bytes]) -> None:
    for number, block in enumerate(blocks, 1):
        data, name = event_fields(block)
        if data == b"[DONE]":
            answer.done = True
        elif (event := parsed(text := data.decode("utf-8", "replace"))) is not None:
            answer.take(event, name.strip())
        elif data and number < len(blocks):
            answer.unread += 1
            answer.first_unread = answer.first_unread or text[:BROKEN]
