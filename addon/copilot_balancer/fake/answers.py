"""What arrived at the fake, what is answered, and the accounts that answer.

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

from copilot_balancer.fake.bodies import DEFAULT_MODELS, Json, Quota


@dataclass(eq=False)
class Seen:
    """One request as it arrived."""

    host: str
    """The name asked for in the TLS handshake."""
    method: str
    target: str
    """Path and query as sent."""
    authorization: str | None = field(repr=False)
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    """In the order and with the letters in which they came."""
    body: bytes = field(repr=False)
    at: float
    """Monotonic seconds: when it had arrived whole."""
    connection: int
    """Number of the connection, from 1."""
    account: str | None = None
    """Whose token it carried; None: nobody's."""
    client_gone: bool = False
    """The client went away before the answer was out."""

    @property
    def path(self) -> str:
        """The path without its query."""
        return self.target.partition("?")[0]

    @property
    def endpoint(self) -> str:
        """The path as the API documents it: with or without a leading ``/v1`` means the same."""
        bare = self.path.removeprefix("/v1")
        return f"/v1{bare}" if bare.startswith("/messages") else bare

    @property
    def token(self) -> str | None:
        """The credential without its ``Bearer`` or ``token``."""
        scheme, _, token = (self.authorization or "").partition(" ")
        return token.strip() if scheme.lower() in ("bearer", "token") else None

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    @property
    def json(self) -> Json:
        """The body as an object; empty when it is none."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def model(self) -> str | None:
        """The model that the body asks for."""
        model = self.json.get("model")
        return model if isinstance(model, str) else None

    @property
    def stream(self) -> bool:
        """Whether an event stream is asked for."""
        return self.json.get("stream") is True

    @property
    def websocket(self) -> bool:
        """Whether this is a WebSocket handshake."""
        return (self.header("upgrade") or "").lower() == "websocket"


# --- what is answered


@dataclass(frozen=True)
class Ok:
    """A served request in the form of its API: an event stream when it asked for one, else one document."""

    text: str = "Hello from the fake Copilot."
    events: int | None = None
    """In how many pieces the text is streamed; None: a word each."""
    gap: float = 0.0
    """Seconds between two events of the stream."""
    headers: tuple[tuple[str, str], ...] = ()


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


type Answer = Ok | Refuse | Document | Drop | CutMid | Silent | SlowFirst | EndlessError | RawBytes
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
