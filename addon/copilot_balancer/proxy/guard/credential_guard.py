"""Decides whether a credential may go on an outgoing request, puts it there, and takes echoes of it out of responses.

Laws of this file:

1. An account's credential goes on a request only by ``put_on``, when the connection stands and the head is about to
   be sent. Elsewhere a token's text is read to check it, to name it by its hash, to write it to the store, or to send
   it to GitHub itself (``github``); a test lists the modules.
2. Everything is checked on what *is*: the connection's address, its TLS, its name, the copy that is about to be sent.
   Never on ``pretty_host``, the Host header or the SNI alone: each of them was fooled
   (docs/security.md#where-a-token-may-go).
3. What cannot be checked is refused, with a sentence that says what to change.
"""

import weakref
from collections.abc import Collection

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net import tls
from mitmproxy.options import Options
from mitmproxy.tls import TlsData
from OpenSSL import SSL
from pydantic import SecretStr

from copilot_balancer.copilot import auto_mode
from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.hosts import plain_host
from copilot_balancer.copilot.protocol import Kind, kind_of
from copilot_balancer.proxy.failover.credentials import HIDDEN, HiddenCredentials
from copilot_balancer.proxy.guard.redaction import SentSecrets

INFLATED = 1024 * 1024
"""Bytes of a compressed answer in which an echoed token is looked for."""

_NEVER_SENT_ON = frozenset({b"proxy-authorization"})
"""Meant for us, whoever else is asked."""

SESSION_TOKEN = auto_mode.SESSION_TOKEN.encode()

_NOT_WITH_AN_ACCOUNT = HIDDEN - {SESSION_TOKEN}
"""Somebody else's, once an account of ours serves the request (docs/security.md#flows-hold-no-credential)."""


def unsafe_options(options: Options) -> str | None:
    """Why no account's credential may be used with these options; None when it may.

    Source: docs/security.md#when-no-account-is-used.
    """
    if options.ssl_insecure:
        return "ssl_insecure is on: a server's certificate is not checked"
    if getattr(options, "proxy_debug", False):
        return "proxy_debug is on: raw requests are logged"
    if tls.log_master_secret is not None:
        return "a TLS key log is being written (MITMPROXY_SSLKEYLOGFILE or SSLKEYLOGFILE is set)"
    return None


def why_not(request: http.Request, server: Server, hosts: Collection[str]) -> str | None:
    """Why no account's credential may go on this outgoing request; None when it may
    (docs/security.md#where-a-token-may-go).

    Args:
        request: the copy that is about to be sent.
        server: the connection that it is about to be sent on.
        hosts: the Copilot hosts, exact, in lower case.

    """
    if server.address is None or plain_host(server.address[0]) not in hosts:
        return "the connection does not lead to a Copilot host"
    host = plain_host(server.address[0])
    if server.address[1] != 443 or request.port != 443 or request.scheme != "https":
        return "it is not HTTPS on port 443"
    if not (server.tls and server.tls_established and server.certificate_list):
        return "the connection is not secured by TLS"
    if not is_verified(server):
        return _UNVERIFIED
    if server.sni is None or plain_host(server.sni) != host or plain_host(request.host) != host:
        return "the certificate was checked for another name"
    named = [value for name, value in request.headers.fields if name.lower() == b"host"]
    if len(named) > 1 or (request.authority and not request.is_http2):
        return "it names its host twice"
    for name in [*named, *([request.data.authority] if request.authority else [])] or [b""]:
        if plain_host(name.decode("ascii", "replace").removesuffix(":443")) != host:
            return "its Host header names another host"
    websocket = request.headers.get("upgrade", "").lower() == "websocket"
    if kind_of(request.method, request.path, websocket=websocket) is Kind.OTHER:
        return f"{request.method} to this path never gets an account's credential"
    return None


def put_on(
    request: http.Request,
    server: Server,
    *,
    token: SecretStr,
    hidden: HiddenCredentials,
    hosts: Collection[str],
    options: Options,
    sent: SentSecrets,
    shown: str = "[account]",
    prefix: str = "Bearer",
    session: SecretStr | None = None,
) -> str | None:
    """Put an account's credential on the outgoing copy, in the place of the client's own.

    `session` takes the place of the client's ``Copilot-Session-Token``, empty: it goes without one; None: its own goes.

    `sent` notes what leaves, to be taken out of what comes back; `shown` stands there in its place.

    Returns:
        None when it is on; else why it may not be, and the copy holds no credential at all.

    """
    reason = unsafe_options(options) or why_not(request, server, hosts)
    if reason is None:
        sent.add(token, shown)
        if session:
            sent.add(session, "[session]")
    bearer = f"{prefix} {token.get_secret_value()}".encode("ascii") if reason is None else None
    drop = _NOT_WITH_AN_ACCOUNT if session is None else _NOT_WITH_AN_ACCOUNT | {SESSION_TOKEN}
    _dress(request, hidden, drop=drop, bearer=bearer)
    if session and reason is None:
        request.headers.fields += ((SESSION_TOKEN, session.get_secret_value().encode("latin-1")),)
    return reason


def hand_on(request: http.Request, server: Server, *, hidden: HiddenCredentials, options: Options) -> str | None:
    """Put the client's own credentials back: they go on unchanged.

    Returns:
        None when they are on; else why they may not be, and the copy holds none.

    """
    reason = None if options.ssl_insecure or is_verified(server) else _UNVERIFIED
    _dress(request, hidden, drop=_NEVER_SENT_ON if reason is None else HIDDEN)
    return reason


_verified: weakref.WeakSet[Server] = weakref.WeakSet()
"""Upstream connections whose certificate was checked while nothing switched the check off."""
_UNVERIFIED = "the certificate was not checked when this connection was opened; close it and connect again"


def tls_begins(tls: TlsData, options: Options) -> None:
    """TLS with an upstream begins: what holds now counts, whatever the options are when a request is sent."""
    if isinstance(tls.conn, Server):
        (_verified.discard if options.ssl_insecure else _verified.add)(tls.conn)


def tls_established(tls: TlsData, options: Options) -> None:
    """TLS with an upstream is established: it counts as verified only if OpenSSL was told to check the certificate."""
    checks = tls.ssl_conn is not None and tls.ssl_conn.get_context().get_verify_mode() & SSL.VERIFY_PEER
    if isinstance(tls.conn, Server) and (options.ssl_insecure or not checks):
        _verified.discard(tls.conn)


def is_verified(server: Server) -> bool:
    """Whether the certificate of this connection was checked when it was opened."""
    return server in _verified


def redact_head(response: http.Response, sent: SentSecrets) -> None:
    """Take credentials out of the reason phrase, the headers and the trailers of a response."""
    response.data.reason = sent.without(response.data.reason)
    for headers in (response.headers, response.trailers):
        if headers is None:
            continue
        values = b"\n".join(part for field in headers.fields for part in field)
        if sent.without(values) is not values:
            headers.fields = tuple((sent.without(name), sent.without(value)) for name, value in headers.fields)


def redact(response: http.Response, sent: SentSecrets) -> None:
    """Take credentials out of a whole response that echoes one, before anybody keeps it.

    Also in the disguises that `redaction` knows.
    """
    redact_head(response, sent)
    _open_up(response, sent)
    if response.raw_content and (left := sent.without(response.raw_content)) is not response.raw_content:
        response.raw_content = left
        if "content-length" in response.headers:
            response.headers["content-length"] = str(len(left))


def _open_up(response: http.Response, sent: SentSecrets) -> None:
    """A compressed answer that echoes a token goes on inflated, so that the token can be taken out."""
    encoding = response.headers.get("content-encoding", "")
    if not encoding:
        return
    plain = inflated(response.raw_content or b"", encoding, INFLATED)
    if sent.without(plain) is not plain:
        del response.headers["content-encoding"]
        response.raw_content = plain
        response.headers["content-length"] = str(len(plain))


def _dress(
    request: http.Request, hidden: HiddenCredentials, *, drop: Collection[bytes], bearer: bytes | None = None
) -> None:
    """Put the hidden values back in order, but for those in `drop`; `bearer` takes authorization's place."""
    left = {key: list(hidden.get(key)) for key in HIDDEN}
    fields: list[tuple[bytes, bytes]] = []
    for name, value in request.headers.fields:
        key = name.lower()
        if key == b"authorization" and bearer is not None:
            fields.append((name, bearer))
            bearer = None
        elif key not in HIDDEN:
            fields.append((name, value))
        elif key not in drop and left[key]:
            fields.append((name, left[key].pop(0)))
    if bearer is not None:
        fields.append((b"Authorization", bearer))
    request.headers.fields = tuple(fields)
