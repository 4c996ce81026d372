"""The way out of this machine: a parent proxy that connections go through, and a company's CA beside public ones.

Laws of this file:

1. The parent is the setting ``upstream_proxy``, else ``HTTPS_PROXY`` (or ``https_proxy``) of the environment; ``none``
   as the setting means no parent. ``NO_PROXY`` holds for both. This machine is never reached through a parent, and an
   address on which we listen ourselves is none.
2. A password comes from the environment (``COPILOT_BALANCER_PROXY_AUTH`` as ``user:password``, or inside
   ``HTTPS_PROXY``), never from a setting. No ``repr`` shows it.
3. Only ``http`` and ``https`` parents that answer CONNECT, with Basic authentication or none, are supported: no SOCKS,
   no NTLM or Kerberos, no PAC file.
"""

import base64
import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from copilot_balancer.errors import InvalidInput

AUTH_VARIABLE = "COPILOT_BALANCER_PROXY_AUTH"
_PORTS = {"http": 80, "https": 443}
_CA_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class ParentProxy:
    """One parent proxy."""

    scheme: str
    """``http`` or ``https``: how the parent itself is spoken to."""
    host: str
    port: int
    auth: SecretStr | None = None
    """``user:password``."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """Without a password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def authorization(self) -> bytes | None:
        """The value of ``Proxy-Authorization``; None: no password is known."""
        if self.auth is None:
            return None
        return b"Basic " + base64.b64encode(self.auth.get_secret_value().encode())


@dataclass(frozen=True)
class WayOut:
    """How this process reaches the outside."""

    parent: ParentProxy | None = None
    source: str = ""
    """Where the parent is named: ``upstream_proxy`` or ``HTTPS_PROXY``."""
    direct: tuple[str, ...] = ()
    """The entries of NO_PROXY."""
    own: frozenset[tuple[str, int]] = frozenset()
    """Addresses on which we listen ourselves."""
    ca: str | None = None
    """The path of a PEM file with further CAs."""
    warning: str = field(default="", compare=False)
    """What was ignored, as a sentence."""

    def parent_for(self, host: str, port: int) -> ParentProxy | None:
        """The parent that a connection to `host` goes through; None: it goes directly."""
        if self.parent is None or self.parent.address in self.own or _is_this_machine(host):
            return None
        return None if any(_matches(entry, host.lower(), port) for entry in self.direct) else self.parent

    def listening_on(self, own: Iterable[tuple[str, int]]) -> "WayOut":
        """The same for a process that listens there."""
        return replace(self, own=frozenset(own))


def way_out(upstream_proxy: str | None, ca: str | None, environ: Mapping[str, str]) -> WayOut:
    """The way out that settings and environment name.

    Raises:
        InvalidInput: the setting is no proxy's URL, or the CA's file cannot be used.

    """
    if ca is not None:
        check_ca(ca)
    direct = tuple(entry.strip().lower() for entry in _either(environ, "NO_PROXY").split(",") if entry.strip())
    auth = environ.get(AUTH_VARIABLE)
    if upstream_proxy == "none":
        return WayOut(direct=direct, ca=ca)
    if upstream_proxy:
        if "@" in upstream_proxy:
            raise InvalidInput(f"upstream_proxy holds no password: put user:password into {AUTH_VARIABLE}")
        parent = parsed(upstream_proxy)
        return WayOut(replace(parent, auth=SecretStr(auth) if auth else None), "upstream_proxy", direct, ca=ca)
    named = _either(environ, "HTTPS_PROXY")
    if not named:
        return WayOut(direct=direct, ca=ca)
    try:
        parent = parsed(named)
    except InvalidInput as error:
        return WayOut(direct=direct, ca=ca, warning=f"HTTPS_PROXY is ignored: {error}")
    return WayOut(replace(parent, auth=SecretStr(auth)) if auth else parent, "HTTPS_PROXY", direct, ca=ca)


def parsed(url: str) -> ParentProxy:
    """The proxy that a URL names; ``host:port`` is one of ``http``.

    Raises:
        InvalidInput: it names none that is supported.

    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise InvalidInput("a parent proxy is written http://HOST:PORT") from None
    if parts.scheme.startswith("socks"):
        raise InvalidInput("a SOCKS proxy cannot be the parent: only http and https proxies are supported")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput("a parent proxy is written http://HOST:PORT")
    auth = None
    if parts.username:
        auth = SecretStr(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return ParentProxy(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], auth)


def check_ca(path: str) -> bytes:
    """The further CAs in PEM.

    Raises:
        InvalidInput: the file cannot be read or holds no certificate.

    """
    try:
        with Path(path).expanduser().open("rb") as file:
            found = file.read(_CA_BYTES)
    except OSError as error:
        raise InvalidInput(f"the CA in {path} cannot be read: {os.strerror(error.errno or 0)}") from None
    if b"-----BEGIN CERTIFICATE-----" not in found:
        raise InvalidInput(f"{path} holds no certificate in PEM")
    return found


def _either(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.lower()) or environ.get(name) or ""


def _is_this_machine(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _matches(entry: str, host: str, port: int) -> bool:
    """``*``, a name (its subdomains too), an address or a network, with or without a port; as curl reads NO_PROXY."""
    if entry == "*":
        return True
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and ":" not in name:
        if int(digits) != port:
            return False
        entry = name
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.lstrip("*.")
        return bool(name) and (host == name or host.endswith(f".{name}"))
