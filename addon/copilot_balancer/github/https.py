"""Sends one HTTPS request to GitHub or the Copilot API, bounded in time and size, and returns its response.

Laws of this file:

1. A request goes by verified TLS to the host that it names, and nowhere else: no redirect is followed, no TLS key log
   is written. A parent proxy (``parent_proxy``) only carries it: by CONNECT, with TLS checked end to end.
2. No exception that leaves here holds a token, has one in a local variable of its frames, or is chained to an exception
   that holds a request.
3. One request takes 30 seconds at most, name resolution and a trickling server included; an answer that is larger than
   its cap is not read.
4. httpx is imported by the first request: a proxy whose accounts need no exchange never sends one, and would pay 4 MB
   and a tenth of a second of its start for it.
"""

import json
import os
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from copilot_balancer import __version__
from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.parent_proxy import WayOut, check_ca, way_out
from copilot_balancer.text import printable

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 30.0
ANSWER_BYTES = 256 * 1024

PROGRAM = f"copilot-balancer/{__version__}"
"""How we call ourselves, whomever we ask."""

_READ_ERROR_BYTES = 64 * 1024
"""Of a refusal's body more is of no use; what lies beyond is left unread."""


@dataclass(frozen=True)
class Request:
    """An HTTPS request."""

    url: str
    """``https://HOST/PATH``; the host was checked by whoever asks."""
    token: SecretStr | None = None
    scheme: str = "token"
    """What stands before the token: ``token`` or ``Bearer``."""
    version: str | None = None
    """``X-GitHub-Api-Version``."""
    form: Mapping[str, str] | None = field(default=None, repr=False)
    """A form to be posted; None and no `body`: a GET."""
    body: bytes | None = field(default=None, repr=False)
    """What else is posted, as it is."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further ones."""
    cap: int = ANSWER_BYTES
    """Bytes of an answer that are read; more is an error."""

    @property
    def host(self) -> str:
        """The host that is asked."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class Response:
    """The response, whatever its status."""

    host: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name."""
    body: bytes = field(repr=False)
    """Empty where it was cut, encoded in a way that was not asked for, or not worth reading."""
    fault: str | None = None
    """What is wrong with the body of a 200, as the end of a sentence; None: nothing."""

    @property
    def limited(self) -> bool:
        """Whether the refusal is GitHub's rate limit, which says nothing about the token.

        429, or 403 with one of two headers. Source: GitHub docs, rate-limits-for-the-rest-api.
        """
        told = self.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in self.headers
        return self.status == 429 or (self.status == 403 and told)

    @property
    def refusal(self) -> str | None:
        """Why this is no answer to go on with, as one sentence; None for a 200. The token is judged elsewhere."""
        if self.limited:
            return f"{self.host} takes no more questions for now (HTTP {self.status}): try again later"
        if 300 <= self.status < 400:
            return f"{self.host} answered with a redirect (HTTP {self.status}), which is not followed"
        if self.status >= 500:
            return f"{self.host} has trouble of its own (HTTP {self.status}): try again later"
        if self.status != 200:
            return f"{self.host} refuses (HTTP {self.status})"
        return f"{self.host} {self.fault}" if self.fault else None

    def object(self) -> dict[str, object]:
        """The JSON object in the body.

        Raises:
            UpstreamError: there is none.

        """
        found = parsed(self.body)
        if not isinstance(found, dict):
            raise UpstreamError(f"{self.host} answered something that is not a JSON object")
        return found


def parsed(body: bytes) -> object:
    """The JSON document in `body`; None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


_way_out: Callable[[], WayOut] = lambda: way_out(None, None, os.environ)  # noqa: E731 - the environment's, until told


def use(way: Callable[[], WayOut]) -> None:
    """Let each question of this process go the way that `way` names when it is asked."""
    global _way_out  # noqa: PLW0603 - one way out of a process
    _way_out = way


class Wire:
    """Asks, blocking. `transport` is the seam for the tests and the demo; names and ports stay real."""

    def __init__(self, transport: "httpx.BaseTransport | None" = None, *, total_seconds: float = TOTAL_SECONDS) -> None:
        self._transport = transport
        self._total_seconds = total_seconds

    def ask(self, question: Request) -> Response:
        """The answer to `question`.

        It is asked in a thread: no time-out of httpx bounds name resolution, or a server that trickles bytes.

        Raises:
            UpstreamError: there was none, or none that is read.

        """
        future: Future[Response | str] = Future()

        def run() -> None:
            try:
                future.set_result(self._ask(question))
            except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread, whatever it is
                future.set_exception(error)

        threading.Thread(target=run, name="asking", daemon=True).start()
        try:
            found = future.result(self._total_seconds)
        except TimeoutError:
            found = f"did not answer within {self._total_seconds:g} seconds"
        if isinstance(found, str):
            raise UpstreamError(f"{question.host} {found}")
        return found

    def _ask(self, question: Request) -> Response | str:
        """The answer, or why there is none. Returned, not raised: httpx's exceptions hold the request."""
        import httpx  # noqa: PLC0415 - law 4

        transport = self._transport or _transport(question.host)
        with httpx.Client(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(self._total_seconds, connect=min(CONNECT_SECONDS, self._total_seconds)),
        ) as client:
            method = "GET" if question.form is None and question.body is None else "POST"
            try:
                with client.stream(
                    method,
                    question.url,
                    headers=_headers(question),
                    data=question.form or None,
                    content=question.body,
                ) as response:
                    return _answer(response, question)
            except httpx.HTTPError as error:
                return _why(error)


def _transport(host: str) -> "httpx.HTTPTransport":
    import httpx  # noqa: PLC0415 - law 4

    way = _way_out()
    parent, proxy = way.parent_for(host, 443), None
    if parent is not None:
        user, _, password = parent.auth.get_secret_value().partition(":") if parent.auth else ("", "", "")
        tls = verified_tls(way.ca) if parent.scheme == "https" else None
        proxy = httpx.Proxy(parent.url, ssl_context=tls, auth=(user, password) if parent.auth else None)
    return httpx.HTTPTransport(verify=verified_tls(way.ca), trust_env=False, proxy=proxy)


def verified_tls(ca: str | None = None) -> ssl.SSLContext:
    """TLS that asks for a certificate and for the right name in it, and whose keys are written nowhere.

    Args:
        ca: the path of a PEM file with CAs that are trusted beside the public ones.

    """
    import httpx  # noqa: PLC0415 - law 4

    context = httpx.create_ssl_context(trust_env=False)
    if ca is not None:
        context.load_verify_locations(cadata=check_ca(ca).decode("ascii", "ignore"))
    context.keylog_filename = None  # type: ignore[assignment] # SSLKEYLOGFILE would give the token away; None turns it off
    return context


def _headers(question: Request) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the cap on bytes is a cap on memory
        "User-Agent": PROGRAM,
        **question.headers,
    }
    if question.version:
        headers["X-GitHub-Api-Version"] = question.version
    if question.token:
        headers["Authorization"] = f"{question.scheme} {question.token.get_secret_value()}"
    return headers


def _answer(response: "httpx.Response", question: Request) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    cap = question.cap if response.status_code == 200 else _READ_ERROR_BYTES
    fault, body = None, b""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        fault = "answered in an encoding that was not asked for"
    else:
        read = bytearray()
        for chunk in response.iter_bytes():
            read += chunk
            if len(read) > cap:
                fault = f"answered more than {cap // 1024} KB, which is not read"
                break
        body = b"" if fault else bytes(read)
    return Response(question.host, response.status_code, headers, body, fault)


def _why(error: "httpx.HTTPError") -> str:
    import httpx  # noqa: PLC0415 - law 4

    if isinstance(error, httpx.ConnectTimeout):
        return f"cannot be reached within {CONNECT_SECONDS:g} seconds: is there a network?"
    if isinstance(error, httpx.TimeoutException):
        return "did not answer in time: try again later"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            "shows a certificate that cannot be verified; nothing was sent. "
            "If a company's proxy inspects TLS, name its CA in the setting `ca`"
        )
    if isinstance(error, httpx.ProxyError):
        return f"cannot be reached through the parent proxy: {printable(str(error), 80)}"
    if isinstance(error, httpx.ConnectError):
        return "cannot be reached: is there a network?"
    return f"broke the connection off ({type(error).__name__})"
