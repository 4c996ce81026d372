"""Logging in by a code that a person types at GitHub's own page: OAuth's device flow (RFC 8628), without any I/O.

Laws of this file:

1. A login is a generator: it yields what to post, what to show and how long to wait, is sent what came back, and
   returns the token. Whoever drives it has clock, network and screen.
2. The person is sent to ``https://HOST/login/device`` and nowhere else, whatever the server says.
3. It asks no oftener than the server wants (a fifth slower even: clocks in virtual machines run fast, cli/oauth), and
   ends when the code does.
4. Every refusal is one sentence. Neither a token nor the device code stands in it, or in the ``repr`` of anything here.
"""

import json
import math
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from copilot_balancer.copilot.hosts import normalise_domain
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.rules.accounts import check_token
from copilot_balancer.text import printable

SCOPE = "read:user"
"""All that a login may do besides Copilot: read who its user is. What opencode and the editors ask for
(docs/copilot-protocol.md#oauth-clients)."""

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"

PATIENCE = 1.2
SLOWER_SECONDS = 5.0
"""After ``slow_down`` without a new interval. Source: RFC 8628 3.5."""
USUAL_INTERVAL, SHORTEST_INTERVAL, LONGEST_INTERVAL = 5.0, 1.0, 60.0
USUAL_LIFE, SHORTEST_LIFE, LONGEST_LIFE = 900.0, 60.0, 1800.0
"""Seconds that a code lives."""
MAX_LOST = 3
"""So many polls in a row may come to nothing (no network, a 5xx) before the login is given up."""

_PENDING, _SLOW_DOWN = "authorization_pending", "slow_down"

_REFUSALS = {
    "access_denied": "the login was refused at {host}",
    "expired_token": "nobody typed the code in time: begin again",
    "token_expired": "nobody typed the code in time: begin again",
    "device_flow_disabled": "the OAuth client {client} takes no logins by code: set another oauth_client_id",
    "incorrect_client_credentials": "{host} does not know the OAuth client {client}: look at oauth_client_id",
    "unauthorized_client": "the OAuth client {client} takes no logins by code: set another oauth_client_id",
    "Not Found": "{host} does not know the OAuth client {client}: look at oauth_client_id",
    "incorrect_device_code": "{host} does not know this login any more: begin again",
    "unsupported_grant_type": "{host} does not know logins by code",
}
"""GitHub's words for no -> ours. Source: docs/copilot-protocol.md#device-login; an unknown
client gets
``Not Found``."""

_USER_CODE = re.compile(r"[A-Z0-9][A-Z0-9-]{3,31}")
_DEVICE_CODE = re.compile(r"[\x21-\x7e]{8,512}")
_WORD = re.compile(r"[A-Za-z_ ]{1,64}")


@dataclass(frozen=True, slots=True)
class Post:
    """Post `form` to `url`, and send the `Reply`."""

    url: str
    form: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Show:
    """Tell the person where to type which code, and within how many seconds."""

    url: str
    user_code: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from a `Post`, at a moment of any steady clock, in seconds."""

    at: float
    status: int = 0
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    lost: str | None = None
    """Why nothing came back, as a sentence."""


type Step = Post | Show | Wait
type Login = Generator[Step, Reply | None, SecretStr]


@dataclass(frozen=True, slots=True)
class _Grant:
    """What GitHub gave to log in with."""

    device_code: SecretStr
    user_code: str
    seconds: float
    interval: float


def device_login(host: str, client_id: str) -> Login:
    """Log somebody in at the login host `host`, as the OAuth app `client_id`.

    Raises:
        InvalidInput: `host` is none.
        UpstreamError: GitHub, or the person, refused; or the code ran out.

    """
    host = normalise_domain(host)
    words = {"host": host, "client": client_id}
    reply = yield Post(f"https://{host}/login/device/code", {"client_id": client_id, "scope": SCOPE})
    grant = _grant(reply, words)
    if isinstance(grant, str):
        raise UpstreamError(grant)
    yield Show(f"https://{host}/login/device", grant.user_code, grant.seconds)

    assert reply is not None
    at, end, interval, lost = reply.at, reply.at + grant.seconds, grant.interval, 0
    while at + interval * PATIENCE <= end:
        yield Wait(interval * PATIENCE)
        reply = yield Post(
            f"https://{host}/login/oauth/access_token",
            {
                "client_id": client_id,
                "device_code": grant.device_code.get_secret_value(),
                "grant_type": GRANT_TYPE,
            },
        )
        found = _poll(reply, words)
        if isinstance(found, SecretStr):
            return found
        if isinstance(found, str):
            raise UpstreamError(found)
        assert reply is not None
        at, interval = reply.at, _slower(interval, found)
        lost = lost + 1 if found.lost else 0
        if lost >= MAX_LOST:
            raise UpstreamError(found.lost or "")
    raise UpstreamError(_REFUSALS["expired_token"])


@dataclass(frozen=True, slots=True)
class _NotYet:
    """Ask again."""

    slower: bool = False
    interval: float | None = None
    """The server's new interval, when it named one."""
    lost: str | None = None
    """Why this poll came to nothing."""


def _slower(interval: float, found: _NotYet) -> float:
    if not found.slower:
        return interval
    asked = interval + SLOWER_SECONDS if found.interval is None else max(found.interval, interval)
    return min(asked, LONGEST_INTERVAL)


def _grant(reply: Reply | None, words: Mapping[str, str]) -> _Grant | str:
    """What the first answer gives, or why it gives nothing. Returned, not raised: this frame reads the device code."""
    said = _said(reply, words)
    if isinstance(said, _NotYet):
        return said.lost or f"{words['host']} takes no logins for now: try again later"
    if isinstance(said, str):
        return said
    device_code, user_code = said.get("device_code"), said.get("user_code")
    if not isinstance(device_code, str) or not _DEVICE_CODE.fullmatch(device_code):
        return f"{words['host']} gave no device code that can be used"
    if not isinstance(user_code, str) or not _USER_CODE.fullmatch(user_code):
        return f"{words['host']} gave no code that a person can type"
    page = check_verification_url(said.get("verification_uri"), words["host"])
    if page is not None:
        return page
    return _Grant(
        SecretStr(device_code),
        user_code,
        _bounded(said.get("expires_in"), USUAL_LIFE, SHORTEST_LIFE, LONGEST_LIFE),
        _bounded(said.get("interval"), USUAL_INTERVAL, SHORTEST_INTERVAL, LONGEST_INTERVAL),
    )


def check_verification_url(url: object, host: str) -> str | None:
    """Why a person who logs in at `host` is not sent to `url`; None when it is the one page.

    Source: docs/security.md#login-page.
    """
    if url == f"https://{host}/login/device":
        return None
    return f"{host} wants the code to be typed at {printable(str(url), 80)!r}: nobody is sent there"


def _poll(reply: Reply | None, words: Mapping[str, str]) -> SecretStr | _NotYet | str:
    """The token, or that there is none yet, or why there never will be."""
    said = _said(reply, words)
    if not isinstance(said, dict):
        return said
    token, kind = said.get("access_token"), said.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return f"{words['host']} gave a token of a kind that is not known"
    try:
        return SecretStr(check_token(token if isinstance(token, str) else ""))
    except InvalidInput:
        return f"{words['host']} gave no token that can be used"


def _said(reply: Reply | None, words: Mapping[str, str]) -> dict[str, object] | _NotYet | str:
    """What stands in an answer without an error; else that it is to be asked again, or why it is a refusal."""
    host = words["host"]
    assert reply is not None
    if reply.lost is not None:
        return _NotYet(slower=True, lost=reply.lost)
    if reply.status >= 500 or reply.status == 429:
        return _NotYet(slower=True, lost=f"{host} has trouble of its own (HTTP {reply.status}): try again later")
    if 300 <= reply.status < 400:
        return f"{host} answered with a redirect (HTTP {reply.status}), which is not followed"
    kind = reply.content_type.partition(";")[0].strip().lower()
    document = _document(reply.body) if kind == "application/json" else None
    if not isinstance(document, dict):
        what = "a web page" if kind == "text/html" else "something that is not a JSON object"
        return f"{host} answered with {what} (HTTP {reply.status}), so nobody was logged in"
    error = document.get("error")
    if error is None:
        return document if reply.status == 200 else f"{host} refuses the login (HTTP {reply.status})"
    if error == _PENDING:
        return _NotYet()
    if error == _SLOW_DOWN:
        return _NotYet(slower=True, interval=_number(document.get("interval")))
    word = error if isinstance(error, str) and _WORD.fullmatch(error) else "something unknown"
    return _REFUSALS.get(word, f"{{host}} refuses the login: {word}").format_map(words)


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _bounded(value: object, usual: float, low: float, high: float) -> float:
    number = _number(value)
    return usual if number is None else min(max(number, low), high)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return None if math.isnan(number) else number
