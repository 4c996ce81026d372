"""GitHub's side of the OAuth device flow, with a scripted person who types the code.

Laws of this file:

1. It is as strict as GitHub: another client, code or grant type is refused, and whoever polls too early is slowed down.
2. What each poll gets is a script; after its last word comes the token.
"""

from collections import deque
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from copilot_balancer.fake.answers import NOT_FOUND, Answer, Document, FakeAccount
from copilot_balancer.fake.seen import Seen

CODE_PATH, TOKEN_PATH = "/login/device/code", "/login/oauth/access_token"
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(eq=False)
class FakeLogin:
    """One login: who types the code, and what the program is told until then."""

    account: FakeAccount
    """Whose token it gives."""
    token: str = field(repr=False)
    polls: deque[str | Answer] = field(default_factory=lambda: deque(["authorization_pending"]))
    """What each poll gets before the token: a word of GitHub's, or any answer."""
    client_id: str | None = None
    """The only client that it knows; None: any."""
    code: Answer | None = None
    """Instead of a code."""
    user_code: str = "ABCD-1234"
    device_code: str = field(default="devicecode" * 4, repr=False)
    interval: float = 5
    expires_in: float = 900
    page: str | None = None
    """Where the person is sent; None: to the right page."""
    polled_at: list[float] = field(default_factory=list)
    """Monotonic seconds: when each poll came."""
    given: bool = False
    """The token was given away."""

    def answer(self, seen: Seen) -> Answer:
        """The answer to a request for the code or for the token."""
        form = dict(parse_qsl(seen.body.decode("ascii", "replace")))
        if seen.method != "POST" or seen.path not in (CODE_PATH, TOKEN_PATH):
            return NOT_FOUND
        if self.client_id not in (None, form.get("client_id")):
            refused = {"error": "Not Found"} if seen.path == CODE_PATH else {"error": "incorrect_client_credentials"}
            return Document(refused, 404 if seen.path == CODE_PATH else 200)
        return self._code(seen.host) if seen.path == CODE_PATH else self._poll(seen, form)

    def _code(self, host: str) -> Answer:
        return self.code or Document(
            {
                "device_code": self.device_code,
                "user_code": self.user_code,
                "verification_uri": self.page or f"https://{host}/login/device",
                "expires_in": self.expires_in,
                "interval": self.interval,
            }
        )

    def _poll(self, seen: Seen, form: dict[str, str]) -> Answer:
        if form.get("grant_type") != _GRANT_TYPE:
            return Document({"error": "unsupported_grant_type"})
        if form.get("device_code") != self.device_code:
            return Document({"error": "incorrect_device_code"})
        early = bool(self.polled_at) and seen.at - self.polled_at[-1] < self.interval
        self.polled_at.append(seen.at)
        if early:
            return self._slow_down()
        if not self.polls:
            self.given = True
            return Document({"access_token": self.token, "token_type": "bearer", "scope": "read:user"})
        match self.polls.popleft():
            case "slow_down":
                return self._slow_down()
            case str(word):
                return Document({"error": word, "error_description": f"The fake says {word}."})
            case other:
                return other

    def _slow_down(self) -> Answer:
        self.interval += 5
        return Document({"error": "slow_down", "interval": self.interval})
