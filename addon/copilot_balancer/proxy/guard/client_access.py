"""Who may come in: a client of this machine and of this user (docs/security.md#who-may-use-the-proxy).

Laws of this file:

1. Nobody is served before it is known that they may be: mitmproxy waits for this hook before it reads a byte.
2. Loopback alone does not separate the users of a machine. Where the system tells whose a connection is, only our own
   user's and root's come in; what cannot be told there is refused. Root could read the store anyway.
3. Where the system does not tell (macOS, Windows), or the user lets others in, mitmproxy's ``proxyauth`` is what keeps
   strangers out: whoever knows the password may come in.
4. A web page gets nothing: a browser may be pointed at this proxy and trust its CA, and any page can then send a
   request to a Copilot host. It cannot hide what its browser writes into it.
5. A flood of connections, refused or more than the process may have, is a line a minute.
"""

import ipaddress
import logging
import os
import time
from collections.abc import Callable

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client

from copilot_balancer.config import Settings
from copilot_balancer.proxy.guard import peer_uid
from copilot_balancer.proxy.guard.log_filters import SAY_EVERY, OutOfFiles, put_filter
from copilot_balancer.proxy.incident import log_incident

logger = logging.getLogger(__name__)

ROOT = 0
"""The uid that may come in beside our own."""

_A_PAGES = frozenset({b"origin", b"sec-fetch-mode", b"sec-fetch-dest"})
_WEB = ("http://", "https://")
_NOT_OF_A_PAGE = frozenset({"", "empty", "websocket"})
"""``Sec-Fetch-Dest`` of requests that programs make too (Node's and Electron's fetch). Every other one is an element of
a page, or an address that somebody opened. Source: https://www.w3.org/TR/fetch-metadata/."""


class ClientAccess:
    """The hooks of our addon that turn away connections of strangers.

    Args:
        settings: the settings in force; None while there are none, and then nobody comes in.
        clock: seconds that never go back.

    """

    def __init__(self, settings: Callable[[], Settings | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._said_at: float | None = None
        self._unsaid = 0

    def load(self, _: Loader) -> None:
        """Let a lack of files be told in a line."""
        put_filter("mitmproxy.master", OutOfFiles(self._clock))

    def running(self) -> None:
        """Say once where nothing but a password could tell users apart."""
        if peer_uid.way() is None and not _asks_for_a_password():
            logger.info(
                "copilot: this system does not tell whose a connection is: every user of this machine can use your "
                "accounts while the proxy runs; mitmproxy's proxyauth option asks them for a password"
            )

    async def client_connected(self, client: Client) -> None:
        """Let the client in, or set its error: mitmproxy closes the connection then, unread."""
        try:
            reason = await self._why_not(client)
        except OSError as error:
            reason = f"whose connection this is could not be told: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - a fault of ours must not open the door
            reason = f"incident {log_incident('the door', error)}"
        if reason is not None:
            client.error = f"copilot-balancer: {reason}"
            self._say(reason)

    async def _why_not(self, client: Client) -> str | None:
        settings = self._settings()
        if settings is None:
            return "it is not ready"
        if not is_loopback(client.peername[0]):
            return None if settings.allow_remote else "only this machine is served; copilot_allow_remote opens it"
        if _asks_for_a_password() or peer_uid.way() is None or client.transport_protocol != "tcp":
            return None
        owner = await peer_uid.owner_of(
            (client.peername[0], client.peername[1]), (client.sockname[0], client.sockname[1])
        )
        if owner is None:
            return "nobody on this system holds the connection: its client has left, or sits in another namespace"
        if owner not in (ROOT, os.geteuid()):
            return f"it belongs to another user of this machine (uid {owner}); mitmproxy's proxyauth lets others in"
        return None

    def _say(self, reason: str) -> None:
        now = self._clock()
        if self._said_at is not None and now - self._said_at < SAY_EVERY:
            self._unsaid += 1
            return
        more = f"; {self._unsaid} more were refused before" if self._unsaid else ""
        self._said_at, self._unsaid = now, 0
        logger.warning("copilot: a connection was refused: %s%s", reason, more)


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
    (``vscode-file:``, ``chrome-extension:``) is a program's, and Node's and Electron's own fetch send
    ``Sec-Fetch-Site`` and ``Sec-Fetch-Mode: cors`` too. Source: https://fetch.spec.whatwg.org/#origin-header.
    """
    headers = request.headers
    if _A_PAGES.isdisjoint(name.lower() for name, _ in headers.fields):
        return None
    for origin in headers.get_all("origin"):
        if origin.strip().lower() in ("null", "") or origin.strip().lower().startswith(_WEB):
            return "a web page made this request (Origin), and pages get no account"
    if headers.get("sec-fetch-mode", "").strip().lower() == "navigate":
        return "a browser's address bar or a page's link made this request (Sec-Fetch-Mode), and they get no account"
    if any(value.strip().lower() not in _NOT_OF_A_PAGE for value in headers.get_all("sec-fetch-dest")):
        return "an element of a web page made this request (Sec-Fetch-Dest), and pages get no account"
    return None


def _asks_for_a_password() -> bool:
    return bool(getattr(ctx.options, "proxyauth", None))
