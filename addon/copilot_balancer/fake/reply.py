"""The content of a model's response before it is written in the form of an API, and the parts of an event stream.

Laws of this file:

1. Pure. An event is an object, or the bytes that stand after ``data: `` when they are no JSON object.
2. Whatever is bound to the account is sealed by ``Reply``, so that it tells whose it is.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from copilot_balancer.fake.bodies import Json, Quota

type Kind = Literal["item", "response", "encrypted", "opaque", "signature", "redacted", "session"]

_KEY = b"the fake's own, the same in every fake: it guards nothing"
_TAG = 16
_SHORTEST = 96
"""Bytes inside, at least: the service's item ids are longer than 64 characters, which some clients cannot bear."""

_PREFIXES: dict[Kind, str] = {"response": "resp_", "encrypted": "gAAAAAB"}
"""What the service's own begin with."""


@dataclass(frozen=True)
class Made:
    """What a seal says."""

    kind: Kind
    account: str
    """The name of the account that made it."""
    part: str
    """Which answer, and which part of it."""


def seal(kind: Kind, account: str, part: str, variant: int = 0) -> str:
    """An opaque string for this thing; each `variant` looks different and means the same."""
    plain = json.dumps([kind, account, part, variant]).encode().ljust(_SHORTEST)
    tag = hmac.digest(_KEY, plain, "sha256")[:_TAG]
    return _PREFIXES.get(kind, "") + base64.b64encode(tag + _veiled(plain, tag)).decode()


def unsealed(value: object) -> Made | None:
    """What a string says that some fake sealed; None: no fake made it, or it was changed."""
    if not isinstance(value, str):
        return None
    bare = value.removeprefix("resp_").removeprefix("gAAAAAB")
    try:
        raw = base64.b64decode(bare, validate=True)
    except (ValueError, binascii.Error):
        return None
    tag, plain = raw[:_TAG], _veiled(raw[_TAG:], raw[:_TAG])
    if not hmac.compare_digest(tag, hmac.digest(_KEY, plain, "sha256")[:_TAG]):
        return None
    kind, account, part, _ = json.loads(plain)
    return Made(kind, account, part)


def owner_of(value: object) -> str | None:
    """The name of the account that made this id, signature or encrypted content; None: none did."""
    made = unsealed(value)
    return made.account if made else None


def call_id(account: str, part: str, prefix: str = "call_") -> str:
    """The id of a tool call: bound to nobody, so it is no seal."""
    return prefix + hashlib.sha256(f"{account}/{part}".encode()).hexdigest()[:24]


def _veiled(data: bytes, tag: bytes) -> bytes:
    stream = hashlib.shake_256(_KEY + tag).digest(len(data))
    return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))


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
    nano_aiu_per_token: int | None = None
    """What each of its tokens costs; None: the answer names no price."""
    socket: int = 0
    """The number of the WebSocket that it goes over; 0: none."""

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.pieces)

    @property
    def nano_aiu(self) -> int | None:
        """What the whole answer costs."""
        if self.nano_aiu_per_token is None:
            return None
        return self.nano_aiu_per_token * (self.input_tokens + len(self.pieces))

    @property
    def price(self) -> Json:
        """``copilot_usage``, which stands beside the last event of an answer that names its price."""
        return {} if self.nano_aiu is None else {"copilot_usage": {"total_nano_aiu": self.nano_aiu}}

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
