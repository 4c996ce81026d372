"""Values for the fake's responses and accounts.

Laws of this file:

1. An answer is a small frozen value; nothing here sends anything.
2. Who is asked follows a script: the next answer of ``FakeAccount.script``, then ``FakeAccount.default``. Either may be
   a function of the request, so that an answer can depend on path, model or anything else that arrived.
3. No ``repr`` shows a token.
"""

import json
import zlib
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from copilot_balancer.fake.bodies import DEFAULT_MODELS, Quota
from copilot_balancer.fake.reply import ToolCall
from copilot_balancer.fake.seen import Seen

# --- what is answered


@dataclass(frozen=True)
class Ok:
    """A served request in the form of its API: an event stream when it asked for one, else one document."""

    text: str = "Hello from the fake Copilot."
    events: int | None = None
    """In how many pieces the text is streamed; None: a word each."""
    gap: float = 0.0
    """Seconds between two events of the stream."""
    wait: float = 0.0
    """Seconds between the head of the stream and its first event."""
    headers: tuple[tuple[str, str], ...] = ()
    reasoning: str | None = None
    """What it thinks first: a reasoning item, a thinking block, ``reasoning_text``; bound to the account."""
    tool_calls: tuple[ToolCall, ...] = ()
    """What it asks to be run at the end. With ``text=""`` it says nothing beside."""
    redacted: bool = False
    """Messages API: a block of redacted thinking comes first."""
    compaction: bool = False
    """Responses API: a compaction item comes first."""


@dataclass(frozen=True)
class Refuse:
    """A refusal: ``{"error": {"message", "code"}}``, or exactly `body`; the message alone when it is not JSON."""

    status: int
    code: str = ""
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    body: bytes | None = None

    @property
    def content(self) -> bytes:
        """The body as sent."""
        if self.body is not None:
            return self.body
        if self.content_type != "application/json":
            return self.message.encode()
        return json.dumps({"error": {"message": self.message, "code": self.code}}).encode()

    @property
    def told(self) -> tuple[str, str]:
        """Code and message, from `body` where it tells them."""
        try:
            error = json.loads(self.body or b"")["error"]
            return str(error["code"]), str(error["message"])
        except (ValueError, LookupError, TypeError):
            return self.code, self.message


@dataclass(frozen=True)
class Document:
    """A JSON document as it stands, whatever was asked for."""

    body: object
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Drop:
    """The connection ends before any header: torn down (RST) or closed (FIN)."""

    how: Literal["rst", "fin"] = "rst"


@dataclass(frozen=True)
class CutMid:
    """A stream that breaks off after so many events of an `Ok`."""

    after: int = 2
    how: Literal["rst", "fin", "clean", "stall"] = "rst"
    """``clean``: HTTP ends the message well, the API's end is missing. ``stall``: nothing more comes."""
    ok: Ok = Ok()


# streams that go wrong; over a WebSocket "end" is a close frame, but for the ones that end in a word of the API

type Ending = Literal["end", "stall", "rst", "fin"]
"""``end``: HTTP ends the message well. ``stall``: nothing more comes, the connection stays. ``rst``, ``fin``: it is
torn down, or closed before HTTP's end."""


@dataclass(frozen=True)
class StreamError:
    """A 200 stream with an error in it, as the API says one."""

    code: str
    message: str
    after: int = 0
    """So many events of output come before it; 0: it follows what announces the answer."""
    then: Ending = "end"
    event: Literal["error", "failed"] = "error"
    """Responses API: an ``error`` event, or ``response.failed``."""
    announced: bool = True
    """False: the announcements are missing as well."""
    ok: Ok = Ok()


@dataclass(frozen=True)
class Malformed:
    """A whole stream, one of whose events is no JSON."""

    after: int = 0
    """So many events of output come before it."""
    data: bytes = b'{"broken": '
    ok: Ok = Ok()


@dataclass(frozen=True)
class Huge:
    """A whole stream with all its text in one event (the responses API repeats the text in later events)."""

    size: int
    """Characters of the text."""

    @property
    def ok(self) -> Ok:
        """The answer itself."""
        return Ok("x" * self.size, events=1)


@dataclass(frozen=True)
class NoTerminator:
    """A stream without its last event.

    Chat: ``finish_reason`` and usage came, only ``[DONE]`` is missing: to every client the answer is complete.
    Messages: ``stop_reason`` came, ``message_stop`` is missing. Responses: every item is done, but
    ``response.completed``, which alone has usage and end, is missing. Both are to their clients an early end.
    """

    how: Ending = "end"
    ok: Ok = Ok()


@dataclass(frozen=True)
class AnnounceOnly:
    """A stream that says no more than that an answer begins."""

    how: Ending = "end"
    ok: Ok = Ok()


@dataclass(frozen=True)
class EmptyStream:
    """A 200 event stream without any event."""

    how: Ending = "end"
    ok: Ok = Ok()


@dataclass(frozen=True)
class Unstreamed:
    """The whole answer as one JSON document, though a stream was asked for."""

    ok: Ok = Ok()


@dataclass(frozen=True)
class Silent:
    """No answer at all; the connection stays."""


@dataclass(frozen=True)
class SlowFirst:
    """The first byte of `then` comes after so many seconds."""

    seconds: float
    then: "Answer" = Ok()


@dataclass(frozen=True)
class EndlessError:
    """An error whose body never ends."""

    status: int = 500
    chunk: bytes = b"x" * 1024
    gap: float = 0.01


@dataclass(frozen=True)
class RawBytes:
    """These bytes instead of an HTTP answer; then the connection closes, or stays as it is."""

    data: bytes
    close: bool = True


@dataclass(frozen=True)
class Trickle:
    """These bytes instead of an HTTP answer, one by one with `gap` seconds between them; then the connection closes."""

    data: bytes
    gap: float = 0.05


type Fault = CutMid | StreamError | Malformed | Huge | NoTerminator | AnnounceOnly | EmptyStream | Unstreamed
"""An answer that is served, and goes wrong."""
type Answer = Ok | Fault | Refuse | Document | Drop | Silent | SlowFirst | EndlessError | RawBytes | Trickle
type Answering = Answer | Callable[[Seen], Answer]
"""An answer, or a function that chooses one for a request."""

BAD_CREDENTIALS = Refuse(401, body=b'{"message":"Bad credentials"}')
TOKEN_EXPIRED = Refuse(401, message="unauthorized: token expired\n", content_type="text/plain")
NOT_FOUND = Refuse(404, body=b'{"message":"Not Found"}')
MODEL_NOT_SUPPORTED = Refuse(
    400,
    body=b'{"error":{"message":"The requested model is not supported.","code":"model_not_supported",'
    b'"param":"model","type":"invalid_request_error"}}',
)
INVALID_BODY = Refuse(400, "invalid_request_body", "failed to parse request")


def limited(retry_after: float | None = 30, code: str = "user_global_rate_limited:pro") -> Refuse:
    """429 as the service says it; None: without ``Retry-After``."""
    headers = () if retry_after is None else (("retry-after", str(retry_after)),)
    return Refuse(429, code, "Sorry, you have exceeded your rate limit.", headers)


def always(answer: Answer) -> Callable[[Seen], Answer]:
    """This answer, whatever is asked."""
    return lambda _: answer


def once(*answers: Answering, then: Answering = Ok()) -> Callable[[Seen], Answer]:
    """Each of these once, in turn, and then `then` for ever."""
    left = deque(answers)
    return lambda seen: chosen(left.popleft() if left else then, seen)


def per_path(answers: Mapping[str, Answering], otherwise: Answering = Ok()) -> Callable[[Seen], Answer]:
    """By endpoint: ``{"/responses": Silent()}``."""
    return lambda seen: chosen(answers.get(seen.endpoint, otherwise), seen)


def per_model(answers: Mapping[str, Answering], otherwise: Answering = Ok()) -> Callable[[Seen], Answer]:
    """By the model that the body asks for."""
    return lambda seen: chosen(answers.get(seen.model or "", otherwise), seen)


def chosen(answering: Answering, seen: Seen) -> Answer:
    """The answer itself."""
    return answering(seen) if callable(answering) else answering


@dataclass(eq=False)
class FakeAccount:
    """One account of the fake: what it has, and what it answers."""

    name: str
    models: Collection[str] = DEFAULT_MODELS
    script: deque[Answering] = field(default_factory=deque)
    """The answers to the next balanced requests, one each."""
    default: Answering = Ok()
    """The answer when the script is empty."""
    at: dict[str, Answering] = field(default_factory=dict)
    """Answers for any other path: ``{"/models": Refuse(500)}``; they stand until taken away."""
    quota: Mapping[str, Quota] = field(default_factory=dict)
    """``premium_interactions`` and so on: sent with each served answer and told by ``/copilot_internal/user``."""
    nano_aiu_per_token: int | None = None
    """What a token costs, told with each served answer; None: answers name no price."""
    websocket: bool = False
    """Whether ``GET /responses`` is upgraded; then ``/models`` offers it as well."""
    plan: str = "individual"
    api_host: str = "api.individual.githubcopilot.com"
    """What ``endpoints.api`` says."""
    exchange_seconds: int = 1500
    """How long an exchanged token lives."""

    @property
    def login(self) -> str:
        """The GitHub login."""
        return f"{self.name}-login"

    @property
    def user_id(self) -> int:
        """A number that stays the same for a name."""
        return zlib.crc32(self.name.encode())

    @property
    def endpoints(self) -> dict[str, str]:
        """``endpoints`` of ``/copilot_internal/user`` and of the exchange."""
        kinds = {"proxy": "proxy", "telemetry": "telemetry", "origin-tracker": "origin-tracker"}
        head, _, domain = self.api_host.partition(".")
        prefix = "copilot-" if head.startswith("copilot-") else ""
        return {
            "api": f"https://{self.api_host}",
            **{key: f"https://{prefix}{name}.{domain}" for key, name in kinds.items()},
        }
