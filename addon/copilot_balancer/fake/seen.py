"""One request as it arrived at the fake."""

import json
from dataclasses import dataclass, field
from functools import cached_property

from copilot_balancer.fake.bodies import Json


@dataclass(eq=False)
class Seen:
    """One request as it arrived."""

    host: str
    """The name asked for in the TLS handshake."""
    method: str
    """``FRAME`` for a ``response.create`` over a WebSocket."""
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

    @cached_property
    def json(self) -> Json:
        """The body as an object; empty when it is none."""
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
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
        """Whether this is a WebSocket handshake, or a frame on one."""
        return (self.header("upgrade") or "").lower() == "websocket"

    @property
    def socket(self) -> int:
        """The number of the WebSocket that it came over; 0: none."""
        return self.connection if self.method == "FRAME" else 0
