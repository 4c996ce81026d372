"""Admits clients to the proxy: those of this machine and this user, or with a password.

Laws of this file:

1. Nobody is served before it is known that they may be: mitmproxy waits for this hook before it reads a byte. It is
   asked again where an account is chosen: only a client that was admitted gets one, whatever became of the hook.
2. Loopback alone does not separate the users of a machine. Where the system tells whose a connection is, only our own
   user's and root's come in; what cannot be told there is refused. Root could read the store anyway.
3. A peer beyond this machine needs ``copilot_allow_remote`` and a real password, judged for each connection: what
   mitmproxy's ``proxyauth`` asks for. ``any`` and an empty password are none.
4. Whoever is let in for a password is admitted when mitmproxy has verified it, not before.
5. A web page gets nothing: a browser may be pointed at this proxy and trust its CA, and any page can then send a
   request to a Copilot host. It cannot hide what its browser writes into it.
6. A flood of connections, refused or more than the process may have, is a line a minute.
"""

import ipaddress
import logging
import os
import time
import weakref
from collections.abc import Callable

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.connection import Client
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.layers.modes import (
    SOCKS5_METHOD_USER_PASSWORD_AUTHENTICATION,
    SOCKS5_VERSION,
    Socks5Proxy,
)

from copilot_balancer.config import Settings
from copilot_balancer.proxy.guard import peer_uid
from copilot_balancer.proxy.guard.log_filters import SAY_EVERY, OutOfFiles, Repeated, put_filter
from copilot_balancer.proxy.incident import log_incident

logger = logging.getLogger(__name__)

PRIVATE = {Socks5Proxy: ("buf", "state", "state_greet", "state_auth"), ProxyAuth: ("authenticated",)}
"""What we use of mitmproxy and it does not promise to keep; tested as ``layer.PRIVATE`` is."""

ROOT = 0
"""The uid that may come in beside our own."""

_A_PAGES = frozenset({b"origin", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-site", b"sec-purpose", b"purpose"})
_WEB = ("http://", "https://")
_NOT_OF_A_PAGE = frozenset({"", "empty", "websocket"})
"""``Sec-Fetch-Dest`` of requests that programs make too (Node's and Electron's fetch). Every other one is an element of
a page, or an address that somebody opened. Source: https://www.w3.org/TR/fetch-metadata/."""
_NO_SITE = frozenset({"", "none"})
"""``Sec-Fetch-Site`` of what no page asked for."""


class ClientAccess:
    """The hooks of our addon that turn away connections of strangers.

    Args:
        settings: the settings in force; None while there are none, and then nobody comes in.
        clock: seconds that never go back.

    """

    def __init__(self, settings: Callable[[], Settings | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._refused = Repeated(SAY_EVERY, clock)
        self._admitted: weakref.WeakSet[Client] = weakref.WeakSet()

    def load(self, _: Loader) -> None:
        """Let a lack of files be told in a line."""
        put_filter("mitmproxy.master", OutOfFiles(self._clock))

    def running(self) -> None:
        """Say once where nothing but a password could tell users apart."""
        if peer_uid.way() is None and not asks_for_a_password():
            logger.info(
                "copilot: this system does not tell whose a connection is: every user of this machine can use your "
                "accounts while the proxy runs; mitmproxy's proxyauth option asks them for a password"
            )

    def is_admitted(self, client: Client) -> bool:
        """Whether this client may be served with an account."""
        return client in self._admitted

    def authenticated(self, client: Client) -> None:
        """Mitmproxy has verified the client's password: admit it, if there is one in force that deserves the name."""
        if asks_for_a_password():
            self._admitted.add(client)

    async def client_connected(self, client: Client) -> None:
        """Let the client in, or set its error: mitmproxy closes the connection then, unread."""
        try:
            reason, admitted = await self._judge(client)
        except OSError as error:
            reason, admitted = f"whose connection this is could not be told: {error.strerror or error}", False
        except Exception as error:  # noqa: BLE001 - a fault of ours must not open the door
            reason, admitted = f"incident {log_incident('the door', error)}", False
        if reason is not None:
            client.error = f"copilot-balancer: {reason}"
            self._refused.say(logger, logging.WARNING, "", f"copilot: a connection was refused: {reason}")
        elif admitted:
            self._admitted.add(client)

    async def _judge(self, client: Client) -> tuple[str | None, bool]:
        """Why the client does not come in (None: it does), and whether it is admitted without a password."""
        settings = self._settings()
        if settings is None:
            return "it is not ready", False
        password = asks_for_a_password()
        if not is_loopback(client.peername[0]):
            if not settings.allow_remote:
                return "only this machine is served; copilot_allow_remote opens it", False
            return None if password else "another machine needs a password, and proxyauth asks for none", False
        if password or client.transport_protocol != "tcp":
            return None, False
        reason = await _not_ours(client) if peer_uid.way() is not None else None
        return reason, reason is None


async def _not_ours(client: Client) -> str | None:
    """Why a loopback connection is neither our own user's nor root's; None: it is.

    Raises:
        OSError: it cannot be told.

    """
    owner = await peer_uid.owner_of((client.peername[0], client.peername[1]), (client.sockname[0], client.sockname[1]))
    if owner is None:
        return "nobody on this system holds the connection: its client has left, or sits in another namespace"
    if owner not in (ROOT, os.geteuid()):
        return f"it belongs to another user of this machine (uid {owner}); mitmproxy's proxyauth lets others in"
    return None


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can have this address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    if address.version == 6 and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def made_by_a_page(request: http.Request) -> str | None:
    """Why this request must be a web page's, which gets no account's credential; None: a program made it.

    A page cannot leave out or change these headers; programs do not send them so. An ``Origin`` of another scheme
    (``vscode-file:``, ``chrome-extension:``) is a program's; Node's fetch sends ``Sec-Fetch-Mode: cors`` alone, and
    Electron's ``net.fetch`` ``Sec-Fetch-Site: none``. Source: https://fetch.spec.whatwg.org/#origin-header.
    """
    headers = request.headers
    if _A_PAGES.isdisjoint(name.lower() for name, _ in headers.fields):
        return None
    origins = [origin.strip().lower() for origin in headers.get_all("origin")]
    if any(origin in ("null", "") or origin.startswith(_WEB) for origin in origins):
        return "a web page made this request (Origin), and pages get no account"
    if any(value.strip().lower() == "navigate" for value in headers.get_all("sec-fetch-mode")):
        return "a browser's address bar or a page's link made this request (Sec-Fetch-Mode), and they get no account"
    if any(value.strip().lower() not in _NOT_OF_A_PAGE for value in headers.get_all("sec-fetch-dest")):
        return "an element of a web page made this request (Sec-Fetch-Dest), and pages get no account"
    if not origins and any(value.strip().lower() not in _NO_SITE for value in headers.get_all("sec-fetch-site")):
        return "a web page made this request (Sec-Fetch-Site), and pages get no account"
    if any("prefetch" in value.lower() for name in ("sec-purpose", "purpose") for value in headers.get_all(name)):
        return "a browser made this request in advance (Sec-Purpose), and it gets no account"
    return None


def asks_for_a_password() -> bool:
    """Whether mitmproxy's ``proxyauth`` asks for a password that a stranger does not know."""
    spec = getattr(ctx.options, "proxyauth", None) or ""
    if spec == "any":
        return False
    return spec.startswith(("@", "ldap")) or bool(spec.partition(":")[2].strip())


def password_user(client: Client) -> str | None:
    """The user name with which mitmproxy's ``proxyauth`` knows a client; None: it knows none."""
    auth = ctx.master.addons.get("proxyauth")
    known = auth.authenticated.get(client) if auth is not None and getattr(ctx.options, "proxyauth", None) else None
    return known[0] if known is not None else None


def ask_socks_for_a_name(client: Client) -> None:
    """Take the user name of a SOCKS client that offers one, though mitmproxy wants no password.

    mitmproxy would choose "no authentication" then, and the name, which says a fence or an account, would be lost.
    """
    servers = ctx.master.addons.get("proxyserver")
    handler = servers.connections.get(client.id) if servers is not None else None
    top = getattr(handler, "layer", None)
    if isinstance(top, Socks5Proxy):
        top.state = lambda: _greet(top)


def _greet(top: Socks5Proxy) -> layer.CommandGenerator[None]:
    offered = top.buf[2 : 2 + top.buf[1]] if len(top.buf) > 1 else b""
    whole = len(top.buf) > 1 and len(offered) == top.buf[1] and top.buf[0] == SOCKS5_VERSION
    if whole and SOCKS5_METHOD_USER_PASSWORD_AUTHENTICATION in offered and not top.context.options.proxyauth:
        yield commands.SendData(top.context.client, bytes([SOCKS5_VERSION, SOCKS5_METHOD_USER_PASSWORD_AUTHENTICATION]))
        top.buf, top.state = top.buf[2 + len(offered) :], top.state_auth
        yield from top.state()
        return
    yield from top.state_greet()
