"""GitHub's own word about a token: whose it is, which Copilot plan it has, which API host serves it.

Laws of this file:

1. A token goes to ``api.github.com`` or ``api.NAME.ghe.com``, by verified TLS, and nowhere else: no redirect is
   followed, no proxy of the environment is used (it may be us), no TLS key log is written.
2. No exception that leaves here holds a token, has one in a local variable of its frames, or is chained to an exception
   that holds a request.
3. One question takes 30 seconds at most, name resolution and a trickling server included; an answer that is larger
   than 256 KB is not read.
4. What GitHub says is checked before it is believed: the API host above all (security.md 3.1).
"""

import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import httpx
from pydantic import SecretStr

from copilot_balancer import __version__
from copilot_balancer.accounts import GITHUB, check_api_host, check_token, default_api_host, normalise_domain
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.memory import QuotaWindow
from copilot_balancer.quota import read_snapshots

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 30.0
ANSWER_BYTES = 256 * 1024

REST_VERSION = "2022-11-28"
"""``/user`` is a public endpoint and answers 400 to a version that is not one of the REST API's own.

Source: GitHub docs, rest/overview/api-versions; seen with Copilot's version in QLHazyCoder/copilot-api#5.
"""
COPILOT_VERSION = "2025-04-01"
"""What clients send to ``/copilot_internal``. Source: copilot-protocol.md 7.1."""

_LOGIN = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Identity:
    """Whose token it is, in GitHub's words."""

    id: str
    """``host:numeric-user-id``, as in ``Account.id``."""
    login: str
    plan: str | None
    """``copilot_plan``: individual, individual_pro, business, enterprise ...; None when GitHub does not tell."""
    sku: str | None
    """``access_type_sku``: free_limited_copilot, monthly_subscriber_quota ...; None when GitHub does not tell."""
    api_host: str
    """Where its requests go; the default of the login host unless `api_host_named`."""
    api_host_named: bool = False
    """Whether GitHub itself named the API host."""
    quota: dict[str, QuotaWindow] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """Sentences for the user: what GitHub would not tell, and what was taken instead."""

    @property
    def plan_name(self) -> str | None:
        """What is stored as the account's plan; ``free`` says all that ``free_plan`` has to know later."""
        return "free" if free_plan(self.plan, self.sku) else self.plan or self.sku


def free_plan(plan: str | None, sku: str | None) -> bool:
    """Whether this is Copilot Free; a student's or a maintainer's free Pro is not.

    Source: VS Code tells Copilot Free by ``access_type_sku`` ``free_limited_copilot`` (chatEntitlementService.ts), also
    where ``copilot_plan`` says ``individual``.
    """
    return plan == "free" or (sku or "").startswith("free_limited")


def read_api_host(url: object, login_host: str) -> str:
    """The host in ``endpoints.api``: ``"https://api.business.githubcopilot.com"`` -> its host name.

    Raises:
        InvalidInput: it is not exactly ``https://HOST``, or an account of `login_host` may not be sent there.

    """
    if not isinstance(url, str) or not url.startswith("https://"):
        raise InvalidInput(f"{str(url)[:80]!r} is not the URL of an API host")
    return check_api_host(url.removeprefix("https://").removesuffix("/"), login_host)


class GitHub:
    """Asks GitHub, blocking. `transport` is the seam for the tests and the demo; names and ports stay real."""

    def __init__(self, transport: httpx.BaseTransport | None = None, *, total_seconds: float = TOTAL_SECONDS) -> None:
        self._transport = transport
        self._total_seconds = total_seconds

    def whoami(self, token: SecretStr, host: str = GITHUB) -> Identity:
        """Whose `token` it is, at the login host `host`.

        A token that may not ask about Copilot still has an identity: then plan and SKU are None and a warning says why.

        Raises:
            InvalidInput: `token` or `host` is none.
            UpstreamError: GitHub does not accept the token, cannot be reached, or makes no sense.

        """
        host = normalise_domain(host)
        check_token(token.get_secret_value())
        return self._in_time(lambda: self._whoami(token, host), f"api.{host}")

    def _whoami(self, token: SecretStr, host: str) -> Identity:
        api = f"api.{host}"
        transport = self._transport or httpx.HTTPTransport(verify=_verified_tls(), trust_env=False)
        with httpx.Client(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(self._total_seconds, connect=min(CONNECT_SECONDS, self._total_seconds)),
        ) as client:
            person = _get(client, token, f"https://{api}/user", REST_VERSION).object()
            copilot = _get(client, token, f"https://{api}/copilot_internal/user", COPILOT_VERSION)
        number, login = person.get("id"), person.get("login")
        if type(number) is not int or number <= 0 or not isinstance(login, str) or not _LOGIN.fullmatch(login):
            raise UpstreamError(f"{api} did not say whose token this is")
        account_id = f"{host}:{number}"
        if copilot.status in (403, 404) and not copilot.limited:
            warning = (
                f"{api} tells nothing about {login}'s Copilot plan (HTTP {copilot.status}): this account has no "
                "Copilot, or the token's app may not ask for it"
            )
            return Identity(account_id, login, None, None, default_api_host(host), warnings=(warning,))
        facts = copilot.object()
        api_host, named, warnings = _api_host(facts, host)
        now = time.time()
        return Identity(
            account_id,
            login,
            _word(facts.get("copilot_plan")),
            _word(facts.get("access_type_sku")),
            api_host,
            named,
            read_snapshots(facts, wall=now, now=now),
            warnings,
        )

    def _in_time(self, work: Callable[[], Identity], api: str) -> Identity:
        """Run `work` in a thread: no time-out of httpx bounds name resolution, or a server that trickles bytes."""
        future: Future[Identity] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread, whatever it is
                future.set_exception(error)

        threading.Thread(target=run, name="github", daemon=True).start()
        try:
            return future.result(self._total_seconds)
        except TimeoutError:
            pass
        raise UpstreamError(f"{api} did not answer within {self._total_seconds:g} seconds")


@dataclass(frozen=True)
class _Answer:
    """What came back from one question."""

    api: str
    status: int
    limited: bool
    """Whether the refusal is GitHub's rate limit, which says nothing about the token."""
    body: bytes

    def object(self) -> dict[str, object]:
        """The JSON object of a 200.

        Raises:
            UpstreamError: anything else, as one sentence.

        """
        if self.limited:
            raise UpstreamError(f"{self.api} takes no more questions for now (HTTP {self.status}): try again later")
        if self.status == 401:
            raise UpstreamError(f"GitHub does not accept this token ({self.api}, HTTP 401): log in again and import it")
        if 300 <= self.status < 400:
            raise UpstreamError(f"{self.api} answered with a redirect (HTTP {self.status}), which is not followed")
        if self.status >= 500:
            raise UpstreamError(f"{self.api} has trouble of its own (HTTP {self.status}): try again later")
        if self.status != 200:
            raise UpstreamError(f"{self.api} refuses to say whose token this is (HTTP {self.status})")
        try:
            answer = json.loads(self.body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise UpstreamError(f"{self.api} answered something that is not a JSON object")
        return answer


def _get(client: httpx.Client, token: SecretStr, url: str, version: str) -> _Answer:
    api = httpx.URL(url).host
    try:
        with client.stream("GET", url, headers=_headers(token, version)) as response:
            body = _read(response, api) if response.status_code == 200 else b""
            return _Answer(api, response.status_code, _rate_limited(response), body)
    except httpx.HTTPError as error:
        why = _why(error)
    raise UpstreamError(f"{api} {why}")  # out of the except block: httpx's exceptions hold the request


def _headers(token: SecretStr, version: str) -> dict[str, str]:
    return {
        "Authorization": f"token {token.get_secret_value()}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the cap on bytes is a cap on memory
        "User-Agent": f"copilot-balancer/{__version__}",
        "X-GitHub-Api-Version": version,
    }


def _read(response: httpx.Response, api: str) -> bytes:
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UpstreamError(f"{api} answered in an encoding that was not asked for")
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise UpstreamError(f"{api} answered more than {ANSWER_BYTES // 1024} KB, which is not read")
    return bytes(body)


def _rate_limited(response: httpx.Response) -> bool:
    """GitHub's REST limits: 429, or 403 with one of two headers. Source: GitHub docs, rate-limits-for-the-rest-api."""
    if response.status_code == 429:
        return True
    told = response.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in response.headers
    return response.status_code == 403 and told


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"cannot be reached within {CONNECT_SECONDS:g} seconds: is there a network?"
    if isinstance(error, httpx.TimeoutException):
        return "did not answer in time: try again later"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "shows a certificate that cannot be verified; nothing was sent"
    if isinstance(error, httpx.ConnectError):
        return "cannot be reached: is there a network?"
    return f"broke the connection off ({type(error).__name__})"


def _verified_tls() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.keylog_filename = None  # type: ignore[assignment] # SSLKEYLOGFILE would give the token away; None turns it off
    return context


def _api_host(facts: dict[str, object], host: str) -> tuple[str, bool, tuple[str, ...]]:
    """The API host, whether GitHub named it, and the warning when it did not or named one that is refused."""
    endpoints = facts.get("endpoints")
    url = endpoints.get("api") if isinstance(endpoints, dict) else None
    default = default_api_host(host)
    if url is None:
        return default, False, (f"api.{host} names no API host for this account: {default} is taken",)
    try:
        return read_api_host(url, host), True, ()
    except InvalidInput as error:
        return default, False, (f"{error}: {default} is taken instead",)


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
