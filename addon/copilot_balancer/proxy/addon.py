"""class CopilotBalancer: what mitmproxy calls.

Laws of this file:

1. It translates between mitmproxy's hooks and our rooms; it decides nothing about accounts.
2. Only Copilot hosts are opened: everything else is tunnelled as it is, unseen (docs/security.md#what-is-opened).
3. Nothing here blocks the event loop; what goes to and from disk is ``upkeep``'s.
4. An exception of ours never lets a request through with anything but what was decided: the stream gets a 502.
"""

import asyncio
import contextlib
import gc
import logging
import os
import re
import time
import weakref
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Optional

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.proxyauth import parse_http_basic_auth
from mitmproxy.connection import Client
from mitmproxy.exceptions import OptionsError
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.commands import StartHook
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, TCPLayer
from mitmproxy.proxy.mode_specs import ReverseMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData

from copilot_balancer import config
from copilot_balancer.copilot.hosts import plain_host
from copilot_balancer.copilot.protocol import error_body
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.proxy.commands import Commands
from copilot_balancer.proxy.completion import ended, frames_after
from copilot_balancer.proxy.exchange import Exchange
from copilot_balancer.proxy.failover import dispatch
from copilot_balancer.proxy.failover.connect_timeout import ConnectTimeout
from copilot_balancer.proxy.failover.hooks import Refusal, Send, Wait
from copilot_balancer.proxy.failover.layer import FailoverLayer
from copilot_balancer.proxy.guard import credential_guard, log_filters
from copilot_balancer.proxy.guard.client_access import ClientAccess, is_loopback
from copilot_balancer.proxy.incident import log_incident
from copilot_balancer.proxy.inspect import contentview
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.proxy.sync import Sync
from copilot_balancer.proxy.websocket import WebSocketFrames
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.store.store import Paths, paths
from copilot_balancer.text import printable
from copilot_balancer.views.names import known_models, unknown_names
from copilot_balancer.views.overview import running

logger = logging.getLogger(__name__)

KEEP_BODIES = 2 * 1024 * 1024
"""Bytes of a streamed answer kept where a person can look at it, unless `copilot_keep_bodies` says otherwise."""


GRACE = 1.0
"""Seconds beyond a request's deadline for a choice that should have been made by then."""


class CopilotBalancer:
    """The addon. Build a new one each time: mitmproxy runs a script again when it is saved.

    Args:
        where: the folders of accounts and settings; by default the user's own.
        project: the folder whose ``.copilot-balancer.toml`` counts; by default where the proxy was started.

    """

    # connections live on when mitmproxy runs the script again: what is known of them is the new object's as well
    exchanges: ClassVar[weakref.WeakKeyDictionary[http.HTTPFlow, Exchange]] = weakref.WeakKeyDictionary()
    """Objects stay beside the flow: ``flow.metadata`` takes plain values only."""
    sockets: ClassVar[weakref.WeakKeyDictionary[http.HTTPFlow, WebSocketFrames]] = weakref.WeakKeyDictionary()
    proxy_users: ClassVar[weakref.WeakKeyDictionary[Client, str]] = weakref.WeakKeyDictionary()
    """Client connection -> the name in its proxy URL; a name only when the proxy asks for no password."""

    def __init__(self, where: Paths | None = None, project: Path | None = None) -> None:
        self.where = where or paths(os.environ)
        self.project = project or Path.cwd()
        self.upkeep = Sync(self.where, self._say_hello, self._this_proxy)
        self.began = time.time()
        self.live: Runtime | None = None
        """None until the first `configure`; and then what requests share."""
        self._commands = Commands(lambda: self.live, self.upkeep.store, self._this_proxy)
        self._door = ClientAccess(lambda: self.live.settings if self.live else None)
        self._upstreams = upstreams = ConnectTimeout(self._is_copilot)
        # their hooks are ours: an addon inside the addon would be looked at for each hook of each request
        self.client_connected = self._door.client_connected
        self.server_connected = upstreams.server_connected
        self.server_connect_error = upstreams.server_connect_error
        self.server_disconnected = upstreams.server_disconnected
        self.tls_start_server = upstreams.tls_start_server
        self.tls_established_server = upstreams.tls_established_server
        self.tls_failed_server = upstreams.tls_failed_server
        self._watching: asyncio.Task[None] | None = None
        self._unnamed_host = False
        """Whether the user named no host to listen on, so that loopback is ours to choose."""

    # --- options and start-up ----------------------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        """Declare the options; listen on loopback unless the user named a host."""
        for option in config.options():
            # None means "not set by the user", so that a file below may set it; mitmproxy knows no float | None
            kind: Any = {"int": Optional[int], "list": Sequence[str]}.get(option.kind, Optional[str])  # noqa: UP045
            loader.add_option(f"copilot_{option.name}", kind, [] if option.kind == "list" else None, option.help)
        ctx.master.commands.collect_commands(self._commands)
        self._door.load(loader)
        contentview.register()
        log_filters.watch_log()
        if "flow_detail" in ctx.options and not ctx.options.has_changed("flow_detail"):
            ctx.options.update(flow_detail=0)  # mitmdump's own lines would say less, twice
        if "web_columns" in ctx.options and not ctx.options.has_changed("web_columns"):
            # mitmweb hides comments, and ours say who served
            ctx.options.update(web_columns=["tls", "icon", "path", "comment", "method", "status", "size", "time"])
        self._unnamed_host = not ctx.options.listen_host
        if self._unnamed_host:
            ctx.options.update(listen_host="127.0.0.1")

    def configure(self, updated: set[str]) -> None:  # noqa: ARG002 - mitmproxy's signature
        """Read the settings again; a bad one is one clear sentence."""
        try:
            self._configure()
        except BalancerError as error:
            if self._watching is not None:
                raise OptionsError(str(error)) from None
            # at start-up an exception would be logged with its traceback; any ERROR ends mitmproxy there
            logger.error("copilot: %s", error)  # noqa: TRY400 - a sentence for the user, not a bug

    def _configure(self) -> None:
        loaded = config.load(self.where.config, self.project, _overrides())
        for warning in loaded.warnings:
            logger.warning("copilot: %s", warning)
        if self.live is None:
            self.live = self.upkeep.begin(loaded.settings, ctx.options)
        self.upkeep.use(loaded.settings)
        keep = loaded.settings.keep_bodies
        self.live.keep_bodies = (KEEP_BODIES if _is_looked_at() else 0) if keep is None else keep
        if not is_loopback(ctx.options.listen_host):
            self._check_remote(ctx.options.listen_host)
        if not ctx.options.validate_inbound_headers:
            raise InvalidInput("validate_inbound_headers must stay on: without it requests can be smuggled")
        self._switch_off(credential_guard.unsafe_options(ctx.options))

    def _switch_off(self, reason: str | None) -> None:
        """Use no account while there is a reason; at start-up the ERROR ends mitmproxy."""
        assert self.live is not None
        if reason and reason != self.live.off:
            logger.error("copilot: no account is used: %s", reason)
        self.live.off = reason

    def _check_remote(self, host: str) -> None:
        assert self.live is not None
        if not self.live.settings.allow_remote:
            raise InvalidInput(
                f"listening on {host} would lend your accounts to other machines; "
                "use 127.0.0.1, or set copilot_allow_remote and mitmproxy's proxyauth"
            )
        if not ctx.options.proxyauth:
            raise InvalidInput("copilot_allow_remote needs mitmproxy's proxyauth option: @PATH of an htpasswd file")

    def running(self) -> None:
        """Look at what really listens; begin to watch the store."""
        if self.live is None or self._watching is not None:
            return
        self._door.running()
        for server in ctx.master.addons.get("proxyserver").servers:
            chosen = server.mode.custom_listen_host is not None or not self._unnamed_host
            if chosen and not self.live.settings.allow_remote:
                for host, *_ in server.listen_addrs:
                    if not is_loopback(host):
                        self._switch_off(f"listening on {host} would lend your accounts to other machines")
        self._watching = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        assert self.live is not None
        servers = ctx.master.addons.get("proxyserver")
        if self._unnamed_host and not all(is_loopback(host) for host, *_ in servers.listen_addrs()):
            # mitmproxy reads listen_host before it loads scripts
            logger.info("copilot: listening once more, on this machine alone")
            await servers.servers.update([])
            if not await servers.setup_servers():
                self._switch_off("the proxy could not listen on loopback")
        self._say_hello()
        gc.freeze()  # what is loaded stays: the collector need not look at it again and again
        await self.upkeep.watch()

    def _say_hello(self) -> None:
        assert self.live is not None
        decisions = self.live.decisions
        serving = decisions.serving() if decisions.balancing else ()
        labels = ", ".join(account.label for account in serving if account.enabled)
        logger.info(
            "copilot: ready on %s; accounts: %s; strategy: %s",
            ", ".join(sorted(_listening())) or "nothing",
            labels or "none",
            config.policy(self.live.settings, decisions).strategy,
        )
        if not decisions.accounts:
            logger.warning(
                "copilot: no account is stored, requests go on as they are; `copilot-balancer accounts add` adds one"
            )
        if decisions.terms_missing:
            logger.warning(
                "copilot: only %s serves until you have accepted GitHub's rules: `copilot-balancer terms accept`",
                decisions.accounts[0].label,
            )
        if not decisions.balancing and decisions.home:
            logger.warning("copilot: balancing is off: %s serves everything", decisions.home.label)
        models = known_models(self.live.pool.memory(self.live.now()), decisions)
        for sentence in unknown_names(config.policy(self.live.settings, decisions), decisions, models):
            logger.warning("copilot: %s", sentence)

    def _this_proxy(self) -> RunningProxy:
        assert self.live is not None
        pool = self.live.pool.snapshot(self.live.now())
        return running(pool, pid=os.getpid(), began=self.began, listening=_listening(), off=self.live.off)

    def done(self) -> None:
        """Write down what was learnt."""
        if self._watching is not None:
            self._watching.cancel()
            self.upkeep.end()

    # --- whose connections, and which hosts --------------------------------------------------------------------------

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Take the proxy user and password, if any, out of the CONNECT; the name says which fence or account."""
        told = flow.request.headers.pop("proxy-authorization", "")
        if not told or getattr(ctx.options, "proxyauth", None):
            return
        self.proxy_users[flow.client_conn] = "?"  # a name that nobody has: no silent default, whatever happens here
        with contextlib.suppress(ValueError):
            _, user, _ = parse_http_basic_auth(told)
            self.proxy_users[flow.client_conn] = printable(user, 64)

    def http_connect_error(self, flow: http.HTTPFlow) -> None:
        """The Copilot host itself could not be reached: say so in JSON, not in HTML."""
        if self._is_copilot(flow.request.host, flow.request.port) and flow.response:
            message = f"copilot-balancer: {flow.request.host} cannot be reached from here"
            flow.response.content = error_body("", message=message, code="bad_gateway", kind="proxy_error")
            flow.response.headers["content-type"] = "application/json"

    def next_layer(self, nextlayer: NextLayer) -> None:
        """Put our layer into Copilot connections; leave every other one closed."""
        context = nextlayer.context
        if nextlayer.layer or not context.server.address or isinstance(context.client.proxy_mode, ReverseMode):
            return
        try:
            self._choose_layer(nextlayer, *context.server.address[:2])
        except Exception as error:  # noqa: BLE001 - mitmproxy would go on without us
            log_incident("the choice of a layer", error)
            nextlayer.layer = TCPLayer(context, ignore=True)

    def _choose_layer(self, nextlayer: NextLayer, host: str, port: int) -> None:
        context = nextlayer.context
        if not self._is_copilot(host, port):
            if not _is_asked_for(host, port):
                nextlayer.layer = TCPLayer(context, ignore=True)
        elif isinstance(context.layers[-1], ClientTLSLayer):
            if plain_host(context.client.sni or "") == plain_host(host):
                nextlayer.layer = FailoverLayer(context, _present)
        elif starts_like_tls_record(nextlayer.data_client()):
            tls = nextlayer.layer = ServerTLSLayer(context)
            tls.child_layer = ClientTLSLayer(context)
        else:
            nextlayer.layer = TCPLayer(context, ignore=True)

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """A Copilot tunnel whose client asks for another name inside is none: leave it closed."""
        address = data.context.server.address
        try:
            if address and self._is_copilot(*address[:2]):
                data.ignore_connection = plain_host(data.client_hello.sni or "") != plain_host(address[0])
        except Exception as error:  # noqa: BLE001 - mitmproxy would open it
            log_incident("a client's hello", error)
            data.ignore_connection = True

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """Pin HTTP/1.1: over HTTP/2 mitmproxy never times out, and a graceful GOAWAY cuts streams.

        Source: docs/security.md#http11-upstream.
        """
        if data.server.address and self._is_copilot(*data.server.address[:2]):
            data.server.alpn_offers = [b"http/1.1"]
        await self._upstreams.server_connect(data)

    def _is_copilot(self, host: str, port: int) -> bool:
        return self.live is not None and port == 443 and plain_host(host) in self.live.hosts

    # --- requests ----------------------------------------------------------------------------------------------------

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Mitmproxy notes the proxy password on the flow: take it away. Other hosts' plain HTTP just streams."""
        flow.metadata.pop("proxyauth", None)
        if not self._is_copilot(flow.request.host, flow.request.port):
            flow.request.stream = not flow.is_replay

    def tell(self, hook: StartHook) -> Awaitable[None] | None:
        """Tell all addons of a hook about one of our flows; what is left of that, `failover_wait` waits for."""
        return dispatch.begun(dispatch.tell(ctx.master.addons, hook))

    async def failover_wait(self, wait: Wait) -> None:
        """An addon takes its time, or the flow is intercepted."""
        await wait.rest

    def choose(self, send: Send) -> bool:
        """With what? False: it takes longer, and `failover_choose` waits for it.

        Ours, whatever happens: an exception becomes a 502 on this stream alone.
        """
        assert self.live is not None
        exchange = self.exchanges.get(send.flow)
        if exchange is None:
            user = self.proxy_users.get(send.flow.client_conn, "")
            exchange = self.exchanges[send.flow] = Exchange(self.live, send.flow, user)
        exchange.choice = None
        try:
            exchange.choice = dispatch.begun(exchange.choose(send))
        except Exception as error:  # noqa: BLE001
            exchange.fault("the choice of an account", error)
        return exchange.choice is None

    async def failover_choose(self, send: Send) -> None:
        """With what? It could not be said at once."""
        exchange = self.exchanges[send.flow]
        assert exchange.choice is not None
        try:
            async with asyncio.timeout(exchange.time_left() + GRACE):
                await exchange.choice
        except Exception as error:  # noqa: BLE001
            exchange.fault("the choice of an account", error)

    async def failover_judge(self, refusal: Refusal) -> None:
        """Again?"""
        exchange = self.exchanges[refusal.flow]
        try:
            await exchange.judge(refusal)
        except Exception as error:  # noqa: BLE001
            refusal.again = False
            exchange.fault("the judgement of a refusal", error)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Stream a success, hold back a refusal."""
        exchange = self.exchanges.get(flow)
        if exchange is None:
            if flow.response and not self._is_copilot(flow.request.host, flow.request.port):
                flow.response.stream = not flow.is_replay
            return
        try:
            exchange.head()
        except Exception as error:  # noqa: BLE001
            exchange.fault("the head of an answer", error)

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer is complete."""
        self._end(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """The answer was cut off, or the client has left."""
        self._end(flow)

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """A frame is about to be handed on."""
        frames = self.sockets.get(flow)
        if frames is None:
            return
        try:
            frames.passing(flow)
        except Exception as error:  # noqa: BLE001 - the frame goes on as it is
            log_incident("a frame", error)

    def _end(self, flow: http.HTTPFlow) -> None:
        exchange = self.exchanges.pop(flow, None)
        if exchange is None:
            return
        try:
            record = ended(exchange)
            if (frames := frames_after(exchange)) is not None:
                self.sockets[flow] = frames
            exchange.let_go()
        except Exception as error:  # noqa: BLE001 - the client has its answer
            log_incident("the record of a request", error)
            return
        assert self.live is not None
        self.upkeep.journal.tell(record, self.live.now())
        self._trim_view()

    def _trim_view(self) -> None:
        """Let mitmweb and the console forget the oldest finished flows: by themselves they keep every one."""
        assert self.live is not None
        view, limit = ctx.master.addons.get("view"), self.live.settings.keep_flows
        if view is not None and view.store_count() > limit + max(10, limit // 10):
            finished = [flow for flow in view.resolve("@all") if not flow.live and not flow.intercepted]
            view.remove(finished[: view.store_count() - limit])


def _present() -> CopilotBalancer | None:
    """Who answers at this moment: a script that is saved is run again, and there is none while it is broken."""
    found: CopilotBalancer | None = ctx.master.addons.get(CopilotBalancer.__name__.lower())
    return found if found is not None and found.live is not None else None


def _listening() -> set[str]:
    return {f"{host}:{port}" for host, port, *_ in ctx.master.addons.get("proxyserver").listen_addrs()}


def _overrides() -> Mapping[str, object]:
    """The options that the user set, by their name in config.toml."""
    found = {}
    for option in config.options():
        value = getattr(ctx.options, f"copilot_{option.name}")
        if value is not None and value != []:
            found[option.name] = value
    return found


def _is_asked_for(host: str, port: int) -> bool:
    """Whether mitmproxy's own ``allow_hosts`` says that the user wants to look into this host too."""
    return any(re.search(pattern, f"{host}:{port}", re.IGNORECASE) for pattern in ctx.options.allow_hosts)


def _is_looked_at() -> bool:
    """Whether somebody may look at bodies: mitmweb or the console, a dump (``-w``) or a HAR file."""
    options = ctx.options
    asked = getattr(options, "save_stream_file", None) or getattr(options, "hardump", None)
    return bool(asked) or ctx.master.addons.get("view") is not None
