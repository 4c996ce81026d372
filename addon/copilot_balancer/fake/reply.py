"""What an account answers, before it takes the form of an API, and the parts of an event stream.

Laws of this file:

1. Pure. An event is an object, or the bytes that stand after ``data: `` when they are no JSON object.
2. Whatever is bound to the account is sealed by ``Reply``, so that it tells whose it is.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from copilot_balancer.fake.bodies import Json, Quota
from copilot_balancer.fake.seals import Kind, call_id, seal

type Event = Json | bytes


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants to be run."""

    name: str
    arguments: str = "{}"
    """A JSON object, as text."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """The arguments as they are streamed."""
        return cut(self.arguments, min(3, len(self.arguments)))


@dataclass(frozen=True)
class Reply:
    """One answer of an account."""

    id: str
    """Letters, digits and ``-``: account and number, so that an id in a later request tells whose it is."""
    model: str
    pieces: tuple[str, ...]
    """The text in the pieces in which it is streamed; none: an answer without text."""
    created: int
    """Seconds since the epoch."""
    input_tokens: int
    account: str
    thoughts: tuple[str, ...] = ()
    """The reasoning in the pieces in which it is streamed; none: it does not reason."""
    calls: tuple[ToolCall, ...] = ()
    redacted: bool = False
    """Messages API: a block of redacted thinking comes first."""
    compaction: bool = False
    """Responses API: a compaction item comes first."""
    quota: Mapping[str, Quota] = field(default_factory=dict)
    socket: int = 0
    """The number of the WebSocket that it goes over; 0: none."""

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        """All that it thought."""
        return "".join(self.thoughts)

    def seal(self, kind: Kind, part: str = "", variant: int = 0) -> str:
        """Seal a part of this answer: ``unsealed`` tells it again."""
        return seal(kind, self.account, f"{self.id}/{part}", variant)

    def response_id(self) -> str:
        """What a later ``previous_response_id`` names: it tells its WebSocket and how many calls want an output."""
        return self.seal("response", f"{self.socket}/{len(self.calls)}")

    def call_id(self, number: int, prefix: str = "call_") -> str:
        """The id of its tool call of this number, from 0."""
        return call_id(self.account, f"{self.id}/call{number}", prefix)


def cut(text: str, pieces: int | None) -> tuple[str, ...]:
    """Cut `text` into that many pieces of about one length; None: a word each. Joined they are `text` again."""
    if pieces is None:
        return tuple(re.split(r"(?<=\s)(?=\S)", text))
    pieces = max(pieces, 1)
    return tuple(text[len(text) * index // pieces : len(text) * (index + 1) // pieces] for index in range(pieces))


@dataclass(frozen=True)
class Streamed:
    """One answer as a stream of events."""

    announced: tuple[Event, ...]
    """What says no more than that an answer begins: nothing of it can be shown."""
    output: tuple[Event, ...]
    """The answer."""
    end: tuple[Event, ...]
    """The API's last word: ``[DONE]``, ``response.completed``, ``message_stop``."""

    @property
    def whole(self) -> tuple[Event, ...]:
        """All events in turn."""
        return self.announced + self.output + self.end


def as_sse(event: Event) -> bytes:
    """One event of a server-sent event stream; what has a ``type`` is named by it."""
    if isinstance(event, bytes):
        return b"data: " + event + b"\n\n"
    name = f"event: {event['type']}\n".encode() if "type" in event else b""
    return name + b"data: " + as_text(event).encode() + b"\n\n"


def as_text(event: Event) -> str:
    """One event as the text of a WebSocket frame."""
    return event.decode() if isinstance(event, bytes) else json.dumps(event, separators=(",", ":"))
