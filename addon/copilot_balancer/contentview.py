"""A Copilot answer as a person reads it, in mitmweb and in mitmproxy's console (features E2, E4).

Laws of this file:

1. It only looks: a flow is never changed, and nothing here raises. What cannot be read is shown as it came.
2. It is bounded, since mitmproxy calls it on the loop that serves requests: so many bytes are read, so many events are
   parsed, so many characters are shown, and what was left out is said.
3. Foreign text stands indented below a heading of ours, and each character that is not printable is shown as its
   escape: no answer can forge a heading, turn the direction of the text, or speak to a terminal.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mitmproxy import contentviews, http
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight

from copilot_balancer import error_body, quota
from copilot_balancer.copilot import api_of, copilot_hosts, plain_host
from copilot_balancer.errors import printable

READ_LIMIT = 2 * 1024 * 1024
"""Bytes of an answer that are read from its beginning: as many as are kept of one, unless the user keeps more."""

TAIL = 64 * 1024
"""Bytes of a longer answer that are read from its end, where finish reason and usage stand."""

MAX_ERRORS = 20
"""Errors inside one stream that are shown; real ones have one."""

MAX_EVENTS = 20_000
"""Events of a stream that are parsed from its beginning; 2 MB of real ones have some 8,000."""

TAIL_EVENTS = 100
"""Events that are parsed from the end of a stream that has more."""

SHOWN = 200_000
"""Characters that are shown in all."""

WIDTH = 72
"""Characters of a line of prose: with its indent it fits mitmweb's pane in a small window and a console of 80."""

FACT = 1000
"""Characters of a value that stands in the page's head."""

REFUSAL = 2048
"""Characters of a refusal's body that are shown as they came (features E2)."""

BROKEN = 160
"""Characters of an event that could not be read that are shown."""

type Json = dict[str, Any]


# --- an answer, read -------------------------------------------------------------------------------------------------


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

    # each method takes what one event says; a value of an unexpected type counts as not said

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
        self.model = _text(place.get("model")) or self.model
        for name in ("usage", "copilot_usage"):
            self.usage.update(_object(place.get(name)))
        if isinstance(snapshots := place.get("copilot_quota_snapshots"), dict):
            windows = quota.read_snapshots(snapshots, wall=0, now=0)
            self.quota.update({name: window.percent_left for name, window in windows.items()})

    def failed(self, error: object) -> None:
        """An error inside a stream, in any of its shapes (copilot-protocol.md 5.8)."""
        if len(self.errors) < MAX_ERRORS:
            said = error_body.read_json(error, "", {}, wall=0)
            words = [said.code or said.kind, said.message]
            self.errors.append(": ".join(word for word in words if word) or _dumped(error))

    # --- the three forms (copilot-protocol.md 3.5)

    def take(self, event: Json, name: str = "") -> None:
        """One event of a stream, or a document; `name`: of the event, when its data does not say."""
        kind = _text(event.get("type")) or name
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
        for error in _list(event.get("copilot_errors")):
            self.failed(error)
        for choice in map(_object, _list(event.get("choices"))):
            number = _number(choice.get("index"))
            which = f" of choice {number}" if number else ""
            said = _object(choice.get("delta")) or _object(choice.get("message"))
            for reasoning in ("reasoning_text", "reasoning_content", "reasoning"):
                self.say((number, "reasoning"), f"reasoning{which}", said.get(reasoning))
            content = said.get("content")
            self.say((number, "text"), f"text{which}", _joined(content) if isinstance(content, list) else content)
            self.say((number, "refusal"), f"refusal{which}", said.get("refusal"))
            for call in map(_object, _list(said.get("tool_calls"))):
                function = _object(call.get("function"))
                place = call.get("index")
                key = (number, "call", place if isinstance(place, int) else _text(call.get("id")))
                if function.get("name"):
                    self.begin(key, _call(function.get("name"), call.get("id")) + which)
                self.say(key, "tool call", function.get("arguments"))
            self.finish = _text(choice.get("finish_reason")) or self.finish

    def _responses(self, kind: str, event: Json) -> None:
        index = _number(event.get("output_index"))
        if response := _object(event.get("response")):
            self._response(response)
        if kind in ("output_item.added", "output_item.done"):
            self._item(index, _object(event.get("item")))
        elif kind.endswith("_part.added"):  # a message has several texts, a reasoning several summaries
            if _number(event.get("content_index")) or _number(event.get("summary_index")):
                self.say(index, "text", "\n\n")
        elif kind in _DELTAS:
            self.say(index, _DELTAS[kind], event.get("delta"))

    def _response(self, response: Json) -> None:
        """A whole response: in a document, and in the events that begin and end a stream."""
        self.head(response)
        status = _text(response.get("status"))
        if status not in ("", "queued", "in_progress"):
            why = _text(_object(response.get("incomplete_details")).get("reason"))
            self.finish = f"{status} ({why})" if why else status
        if response.get("error"):
            self.failed(response["error"])
        for index, item in enumerate(_list(response.get("output"))):
            if index not in self.parts or not self.parts[index].pieces:
                self._item(index, _object(item))

    def _item(self, index: int, item: Json) -> None:
        kind = _text(item.get("type"))
        if kind == "message":
            self.replace(index, "text", _joined(item.get("content")))
        elif kind == "reasoning":
            said = _joined(item.get("summary")) or _joined(item.get("content"))
            sealed = "" if said or not item.get("encrypted_content") else "(encrypted)"
            self.replace(index, "reasoning", said or sealed)
        elif kind in ("function_call", "custom_tool_call", "mcp_call"):
            said = _text(item.get("arguments")) or _text(item.get("input"))
            self.replace(index, _call(item.get("name"), item.get("call_id")), said)
        elif kind:
            sealed = "(encrypted)" if item.get("encrypted_content") else _dumped(item)
            self.replace(index, f"item of type {kind}", sealed)

    def _messages(self, kind: str, event: Json) -> None:
        index = _number(event.get("index"))
        if kind == "message":
            for number, block in enumerate(_list(event.get("content"))):
                self._block(number, _object(block))
            self.finish = _text(event.get("stop_reason"))
        elif kind == "message_start":
            self.head(_object(event.get("message")))
        elif kind == "content_block_start":
            self._block(index, _object(event.get("content_block")))
        elif kind == "content_block_delta":
            delta = _object(event.get("delta"))
            self.say(index, "text", delta.get("text"))
            self.say(index, "reasoning", delta.get("thinking"))
            self.say(index, "tool call", delta.get("partial_json"))
        elif kind == "message_delta":
            self.finish = _text(_object(event.get("delta")).get("stop_reason")) or self.finish
        elif kind == "message_stop":
            self.done = True

    def _block(self, index: int, block: Json) -> None:
        kind = _text(block.get("type"))
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
            self.replace(index, _call(block.get("name"), block.get("id")), _dumped(given) if given else "")
        elif kind:
            self.replace(index, f"item of type {kind}", _dumped(block))


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


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(content: object) -> str:
    """The texts of a message's or a reasoning's content, each a paragraph."""
    blocks = map(_object, _list(content))
    return "\n\n".join(text for block in blocks if (text := _text(block.get("text")) or _text(block.get("refusal"))))


def _call(name: object, call: object) -> str:
    words = [printable(_text(word), 100) for word in (name, call)]
    return f"tool call {words[0]}" + (f" ({words[1]})" if words[1] else "")


def _dumped(value: object) -> str:
    """As JSON again; it came from JSON, and no deeper than `json` could read."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(too deep to be shown)"


def _loaded(text: str) -> object:
    """JSON as an object; None when it is none, or too deep."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def read(data: bytes, *, stream: bool) -> Answer:
    """Read an answer, whole or cut; of a long one the beginning, and what its end says."""
    answer = Answer()
    if not stream:
        document = _loaded(data.decode("utf-8-sig", "replace")) if len(data) <= READ_LIMIT else None
        answer.take(_object(document))
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


def _blocks(data: bytes) -> list[str]:
    """What stands between blank lines; the last one may be torn."""
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    *blocks, last = text.split("\n\n")
    return [*filter(None, blocks), last]


def _take_events(answer: Answer, blocks: list[str]) -> None:
    for number, block in enumerate(blocks, 1):
        fields = [line.partition(":") for line in block.split("\n")]
        data = "\n".join(value.removeprefix(" ") for name, _, value in fields if name == "data")
        if data.strip() == "[DONE]":
            answer.done = True
        elif isinstance(event := _loaded(data), dict):
            answer.take(event, next((value.strip() for name, _, value in fields if name == "event"), ""))
        elif data and number < len(blocks):
            answer.unread += 1
            answer.first_unread = answer.first_unread or data[:BROKEN]


# --- an answer, shown ------------------------------------------------------------------------------------------------


class Page:
    """Lines for a person, until there are too many. An empty line holds a space: mitmweb shows no line without one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left = SHOWN
        """Characters of foreign text that still find room."""
        self.dropped = 0
        """Blocks that found none."""

    def fact(self, name: str, value: str) -> None:
        """One value, when there is one; it may be foreign."""
        if value:
            self.lines += _wrapped(f"{name}: {printable(value, FACT)}", indent=4, solid=len(name) + 2)

    def block(self, heading: str, text: str, *, wrap: bool = False) -> None:
        """Foreign text of any length, indented below a heading of ours; `wrap`: it is prose, with code in fences."""
        if self.left <= 0:
            self.dropped += 1
            return
        shown = text[: self.left]
        self.left -= len(heading) + len(shown)
        self.lines += [" ", f"{printable(heading, 240)}: {'|' if shown else '(nothing)'}"]
        if shown:
            lines = clean(shown).split("\n")
            self.lines += (f"    {line}" for line in (_prose(lines) if wrap else lines))
        if len(text) > len(shown):
            self.lines.append(f"    ... {len(text) - len(shown):,} characters more")

    def remark(self, text: str) -> None:
        """What a person must know about the page itself."""
        self.lines += [" ", *_wrapped(f"# ... {printable(text, FACT)}", indent=6)]


def _prose(lines: list[str]) -> Iterator[str]:
    fenced = False
    for line in lines:
        fence = line.lstrip().startswith("```")
        fenced = fenced != fence
        yield from [line] if fenced or fence else _wrapped(line, indent=len(line) - len(line.lstrip()))


def _wrapped(line: str, *, indent: int, solid: int = 0) -> Iterator[str]:
    """The line on several: mitmweb wraps none. Between words, or where there are none (Chinese) anywhere.

    Args:
        line: without an end.
        indent: spaces before all but the first, at most half a line.
        solid: characters at its beginning that stay together.

    """
    begin, margin, room = 0, "", WIDTH
    solid = max(solid, indent)
    while len(line) - begin > room:
        end = line.rfind(" ", begin + solid + 1, begin + room + 1)
        if end < 0 and line[begin + room].isascii():
            end = line.find(" ", begin + room)
            if end < 0:
                break
        elif end < 0:
            end = begin + room
        yield margin + line[begin:end]
        begin = end + (line[end] == " ")
        margin = " " * min(indent, WIDTH // 2)
        room, solid = WIDTH - len(margin), 0
    yield margin + line[begin:]


_NOT_SHOWN = re.compile(r"[^\n\x20-\x7e\xa1-\xac\xae-\u0377]")
"""What must be looked at one by one: all but a line's end and the letters that most texts are made of."""


def clean(text: str) -> str:
    """Foreign text of several lines, safe to be shown: unprintable characters as their escapes, spaces as spaces."""
    return _NOT_SHOWN.sub(_escaped, text.replace("\r\n", "\n").expandtabs(4)).strip("\n")


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable() or char in "\u200c\u200d":  # the joiners: without them emoji and Persian fall apart
        return char
    return " " if unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()


def arguments(text: str, limit: int) -> str:
    """What a tool is called with: each argument on a line, text of several lines as it is."""
    found = _loaded(text) if len(text) <= limit else None
    if not isinstance(found, dict) or not found:
        return text
    told = []
    for name, value in found.items():
        if limit <= 0:
            told.append("...")
            break
        long = isinstance(value, str) and "\n" in value
        told.append(f"{name}: {_indented(value) if long else _pretty(value, limit)}")
        limit -= len(told[-1])
    return "\n".join(told)


def _indented(text: str) -> str:
    return "|\n" + "\n".join(f"    {line}" for line in text.strip("\n").split("\n"))


def _pretty(value: object, limit: int) -> str:
    """JSON on one line when it is short, else on several."""
    flat = _dumped(value)
    if len(flat) <= 80 or not isinstance(value, dict | list):
        return flat
    pieces, length = [], 0
    try:
        for piece in json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(value):
            pieces.append(piece)
            length += len(piece)
            if length > limit:  # indentation makes a nest of lists far longer than it was
                return flat
    except RecursionError:
        return flat
    return "".join(pieces)


def show(data: bytes, metadata: Metadata) -> str:
    """The page of an answer."""
    flow = metadata.flow if isinstance(metadata.flow, http.HTTPFlow) else None
    message = metadata.http_message
    stream = (metadata.content_type or "").lower() == "text/event-stream" or data.startswith((b"data:", b"event:"))
    answer = read(data, stream=stream)
    page = Page()
    page.fact("model", answer.model)
    _tell_who(page, flow, message)
    page.fact("finish", answer.finish)
    page.fact("usage", usage(answer.usage))
    page.fact("quota left", ", ".join(f"{name} {left:g} %" for name, left in answer.quota.items()))
    for error in answer.errors:
        page.fact("error", error)
    for part in answer.parts.values():
        page.block(part.title, part.text if part.prose else arguments(part.text, page.left), wrap=part.prose)
    if page.dropped:
        page.remark(f"{page.dropped:,} parts more")
    refused = isinstance(message, http.Response) and message.status_code >= 400
    if refused or not (answer.parts or answer.errors):
        limit = REFUSAL if refused else SHOWN
        page.block("body", arguments(data[: 4 * limit].decode("utf-8", "replace")[:limit], limit))
    _remark(page, answer, data, flow, stream=stream)
    return "\n".join(page.lines) + "\n"


def _tell_who(page: Page, flow: http.HTTPFlow | None, message: http.Message | None) -> None:
    """Who served it, and each refusal before: the flow's metadata, else the headers that the client got."""
    told = {str(key): str(value) for key, value in flow.metadata.items()} if flow else {}
    headers = message.headers if message else {}
    attempts = told.pop("copilot_attempts", "") or headers.get("x-copilot-attempts", "")
    verdict = told.pop("copilot", "")
    account = told.pop("copilot_account", "") or headers.get("x-copilot-account", "") or ("nobody" if verdict else "")
    refused = int(attempts) - (account != "nobody") if re.fullmatch("[0-9]{1,3}", attempts) else 0
    count = f"after {refused} refusal{'s' * (refused > 1)}" if refused > 0 else ""
    how = "" if verdict in ("served", "failed over", "refused") else verdict
    page.fact("served by", ", ".join(word for word in (account, count, how) if word))
    changed = told.pop("copilot_model", "") or headers.get("x-copilot-model-changed-to", "")
    page.fact("ANOTHER MODEL, by your route", changed)
    # a flow that was read from a file has its metadata in any order
    for key, value in sorted(told.items(), key=lambda item: re.sub("[0-9]+", lambda n: n[0].zfill(6), item[0])):
        if key.startswith("copilot_"):
            name = key.removeprefix("copilot_").replace("_", " ")
            if "\n" in value or len(value) > FACT:
                page.block(name, value, wrap=True)
            else:
                page.fact(name, value)


def usage(told: Json) -> str:
    """How much was read and written, in the words of any of the three forms."""
    amounts = dict(told)
    for name in ("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details"):
        amounts.update(_object(told.get(name)))
    counted = ((amounts.get(name), unit) for name, unit in _AMOUNTS.items())
    words = [f"{amount:,} {unit}" for amount, unit in counted if isinstance(amount, int) and amount]
    units = amounts.get("total_nano_aiu")
    if isinstance(units, int | float) and 0 < units < 1e18:
        words.append(f"{units / 1e9:g} AI units")
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
"""Name of an amount in one of the three forms (copilot-protocol.md 3.5) -> what it is."""


def _remark(page: Page, answer: Answer, data: bytes, flow: http.HTTPFlow | None, *, stream: bool) -> None:
    if answer.unread:
        page.remark(f"{answer.unread:,} events could not be read; the first: {answer.first_unread}")
    if answer.silent:
        page.remark(f"only the beginning is shown: {len(data):,} bytes are too much")
    if stream and not answer.whole:
        why = flow.error.msg if flow and flow.error else "the rest was not kept (copilot_keep_bodies) or never came"
        page.remark(f"cut here, {len(data):,} bytes: {why}")


# --- what mitmproxy sees ---------------------------------------------------------------------------------------------


class CopilotContentview(Contentview):
    """The view "Copilot"; mitmproxy takes the name from the class."""

    @property
    def syntax_highlight(self) -> SyntaxHighlight:
        """The page looks enough like YAML: headings coloured, foreign text in one colour."""
        return "yaml"

    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """The page."""
        return show(data, metadata)

    def render_priority(self, data: bytes, metadata: Metadata) -> float:  # noqa: ARG002 - mitmproxy's signature
        """Above every view of mitmproxy's for what is ours to show; never for anything else."""
        return 2 if _is_ours(metadata) else -1


def _is_ours(metadata: Metadata) -> bool:
    flow = metadata.flow
    if not isinstance(flow, http.HTTPFlow) or flow.response is None or metadata.http_message is not flow.response:
        return False
    if any(key.startswith("copilot_attempt_") for key in flow.metadata):
        return True
    if api_of(flow.request.path) is None:
        return False
    host = plain_host(flow.request.host)
    if "copilot" not in flow.metadata and host not in copilot_hosts() and not _GHE_HOST.fullmatch(host):
        return False
    return (metadata.content_type or "").lower() in ("text/event-stream", "application/json")


_GHE_HOST = re.compile(r"copilot-api\.[a-z0-9-]+\.ghe\.com")


def register() -> None:
    """Offer the view; again is harmless, since a script is run again when it is saved."""
    view = CopilotContentview()
    if view.name not in contentviews.registry:
        contentviews.add(view)
