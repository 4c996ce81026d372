"""Leads mitmproxy's connections the way out of this machine: through the parent proxy, with a company's CAs.

Laws of this file:

1. The setting means what ``--mode upstream:`` means; given both, they must be the same. NO_PROXY holds for the setting.
2. It is done for each CONNECT, before mitmproxy dials: the tunnel stands below TLS, as in its own upstream mode.
3. Company CA and public CAs both count, at work and at home.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import certifi
from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, UpstreamMode
from pydantic import SecretStr

from copilot_balancer.config import Settings
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github import https
from copilot_balancer.github.parent_proxy import ParentProxy, WayOut, check_ca, way_out
from copilot_balancer.proxy.failover import parent_tunnel
from copilot_balancer.proxy.failover.parent_tunnel import ParentTunnel

logger = logging.getLogger(__name__)

_BUNDLE = "ca-bundle.pem"
_DEFAULT_PORT = 8080
"""mitmproxy's."""


def way_of(settings: Settings, options: Options, environ: Mapping[str, str]) -> WayOut:
    """The way out that settings, mitmproxy's modes and the environment name.

    Raises:
        InvalidInput: they contradict each other, or name what cannot be used.

    """
    way = way_out(settings.upstream_proxy, settings.ca, environ)
    modes = [ProxyMode.parse(spec) for spec in options.mode]
    ports = {mode.custom_listen_port or options.listen_port or _DEFAULT_PORT for mode in modes}
    way = way.listening_on((host, port) for port in ports for host in ("127.0.0.1", "localhost", "::1"))
    for mode in modes:
        if not isinstance(mode, UpstreamMode):
            continue
        given = getattr(options, "upstream_auth", None)
        parent = ParentProxy(mode.scheme, *mode.address[:2], auth=SecretStr(given) if given else None)
        if settings.upstream_proxy and way.parent is None:
            raise InvalidInput("--mode upstream: and copilot_upstream_proxy=none contradict each other")
        if way.source == "upstream_proxy" and way.parent is not None and way.parent.address != parent.address:
            raise InvalidInput(
                f"--mode upstream:{parent.url} and copilot_upstream_proxy={way.parent.url} name two parents: give one"
            )
        auth = parent.auth or (way.parent.auth if way.parent and way.parent.address == parent.address else None)
        way = WayOut(
            ParentProxy(parent.scheme, parent.host, parent.port, auth), "--mode upstream:", way.direct, way.own, way.ca
        )
    return way


class Network:
    """The way out of one proxy, kept up with its settings.

    Args:
        folder: keeps the CAs that mitmproxy trusts.
        environ: of the proxy's own start.

    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.way = WayOut()
        self._folder = folder
        self._environ = environ
        parent_tunnel.take_place()

    def configure(self, settings: Settings, options: Options) -> None:
        """Go on with these settings.

        Raises:
            InvalidInput: they contradict each other, or name what cannot be used.

        """
        way = way_of(settings, options, self._environ)
        if way.warning and way.warning != self.way.warning:
            logger.warning("copilot: %s", way.warning)
        if way.parent and way.parent != self.way.parent:
            logger.info("copilot: connections go through the parent proxy %s (%s)", way.parent.url, way.source)
        self.way = way
        https.use(lambda: way)
        parent = way.parent
        ParentTunnel.authorization = staticmethod(
            lambda address: parent.authorization if parent is not None and parent.address == address else None
        )
        _trust(way.ca, options, self._folder / _BUNDLE)

    def is_parent(self, host: str, port: int) -> bool:
        """Whether this is the parent's address."""
        return self.way.parent is not None and self.way.parent.address == (host, port)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Answer a CONNECT whose host is reached through the parent, so that mitmproxy does not dial it."""
        regular = isinstance(flow.client_conn.proxy_mode, RegularMode)
        if regular and flow.response is None and self.way.parent_for(flow.request.host, flow.request.port) is not None:
            # as mitmproxy's own (``HttpStream.handle_connect_finish``)
            flow.response = http.Response(
                b"HTTP/1.1", 200, b"Connection established", http.Headers(), b"", None, 0.0, 0.0
            )

    def tunnel(self, context: Context) -> Layer | None:
        """The tunnel through the parent for a connection whose address is known; None: it needs none, or has one."""
        if isinstance(context.client.proxy_mode, UpstreamMode) or not context.server.address:
            return None
        parent = self.way.parent_for(*context.server.address[:2])
        if parent is None or context.server.connected or any(isinstance(one, ParentTunnel) for one in context.layers):
            return None
        context.server.via = (parent.scheme, parent.address)  # type: ignore[assignment] # a Literal of the two schemes
        return ParentTunnel.make(context, True)[0]


def _trust(ca: str | None, options: Options, bundle: Path) -> None:
    """Let mitmproxy trust a company's CA beside those that it trusts anyway."""
    named = options.ssl_verify_upstream_trusted_ca
    if ca is None:
        if named == str(bundle):
            options.update(ssl_verify_upstream_trusted_ca=None)
        return
    public = Path(named).expanduser() if named and named != str(bundle) else Path(certifi.where())
    wanted = public.read_bytes() + b"\n" + check_ca(ca)
    if not bundle.exists() or bundle.read_bytes() != wanted:
        bundle.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = bundle.with_suffix(f".{os.getpid()}")
        beside.write_bytes(wanted)
        beside.replace(bundle)
    if named != str(bundle):
        options.update(ssl_verify_upstream_trusted_ca=str(bundle))
