"""class CopilotHooks: mitmproxy's hooks of connections and requests, in an entry of its addon chain beside the script.

mitmproxy calls all scripts as one entry of its chain: one that raises before ours would keep a hook from us, and a
script that is removed or saved broken is gone. This object stays, between mitmproxy's ``proxyauth`` and its scripts.

Laws of this file:

1. It translates between mitmproxy's hooks and our rooms; it decides nothing about accounts.
2. Only Copilot hosts are opened: everything else is tunnelled as it is, unseen (docs/security.md#what-is-opened).
3. While the script is not loaded, connections are judged as before, credentials are kept out of flows, and requests to
   Copilot hosts are answered with 503 (docs/security.md#when-the-script-is-not-loaded).
4. An exception of ours never lets a request through with anything but what was decided: the stream gets a 502.
"""

import asyncio
import ipaddress
import logging
import re
import weakref
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Protocol

from mitmproxy import ctx, http
from mitmproxy.addons.proxyauth import parse_http_basic_auth
from mitmproxy.connection import Client, Server
from mitmproxy.exceptions import AddonHalt
from mitmproxy.flow import Error
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.commands import StartHook
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, TCPLayer
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.modes import Socks5AuthData
from mitmproxy.proxy.layers.tls import parse_client_hello
from mitmproxy.proxy.mode_specs import RegularMode, ReverseMode, UpstreamMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData, TlsData

from copilot_balancer.config import Settings
from copilot_balancer.copilot.hosts import plain_host
from copilot_balancer.copilot.protocol import error_body
from copilot_balancer.proxy.failover import dispatch
from copilot_balancer.proxy.failover.connect_timeout import ConnectTimeout
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.failover.hooks import Refusal, Send, Wait
from copilot_balancer.proxy.failover.layer import FailoverLayer
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.guard.client_access import ClientAccess, ask_socks_for_a_name, password_user
from copilot_balancer.proxy.guard.log_filters import SAY_EVERY, Repeated
from copilot_balancer.proxy.guard.script_watch import ScriptWatch
from copilot_balancer.proxy.incident import log_incident
from copilot_balancer.proxy.network import Network
from copilot_balancer.proxy.request.completion import ended, frames_after
from copilot_balancer.proxy.request.exchange import Exchange
from copilot_balancer.proxy.request.local_responses import own_answer
from copilot_balancer.proxy.request.websocket import WebSocketFrames
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.proxy.sync import Sync
from copilot_balancer.text import printable

logger = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds beyond a request's deadline for a choice that should have been made by then."""

NOT_LOADED = "its script is missing or broken: Copilot hosts are not served until it is back"


class Script(Protocol):
    """What the hooks need of the script's own addon object."""

    live: Runtime | None
    sync: Sync
    network: Network


class CopilotHooks:
    """The hooks of connections and requests."""

    name = "copilothooks"

    def __init__(self) -> None:
        self.script: Script | None = None
        """The script's addon object, once it is configured; None while it is not loaded."""
        self.known: Runtime | None = None
        """What requests share now, or shared when the script was last there."""
        self.exchanges: weakref.WeakKeyDictionary[http.HTTPFlow, Exchange] = weakref.WeakKeyDictionary()
        """Objects stay beside the flow: ``flow.metadata`` takes plain values only."""
        self.sockets: weakref.WeakKeyDictionary[http.HTTPFlow, WebSocketFrames] = weakref.WeakKeyDictionary()
        self.proxy_users: weakref.WeakKeyDictionary[Client, str] = weakref.WeakKeyDictionary()
        """Client connection -> the user name in its proxy URL."""
        self._failover_flows: weakref.WeakSet[http.HTTPFlow] = weakref.WeakSet()
        """The flows of our own layer: only there credentials were taken out before any hook ran."""
        self._replaced: weakref.WeakKeyDictionary[Client, Server] = weakref.WeakKeyDictionary()
        """Client connection -> the upstream connection to the address that the client gave, which is not used."""
        self._refused = Repeated(SAY_EVERY)
        self.door = ClientAccess(self._settings)
        self.watch = ScriptWatch(lambda: self.live is not None, NOT_LOADED)
        self.network: Network | None = None
        """The way out of this machine: the script's, or the last one's."""
        self._timeouts = timeouts = ConnectTimeout(
            self._is_copilot, lambda host, port: self._is_copilot(host, port) or self._is_parent(host, port)
        )
        self.server_connected = timeouts.server_connected
        self.server_connect_error = timeouts.server_connect_error
        self.server_disconnected = timeouts.server_disconnected
        self.tls_failed_server = timeouts.tls_failed_server

    # --- the script comes and goes -----------------------------------------------------------------------------------

    @property
    def live(self) -> Runtime | None:
        """What requests share; None while the script is not loaded."""
        return self.script.live if self.script is not None else None

    def attach(self, script: Script) -> None:
        """The script is configured: serve requests with it."""
        self.script, self.known, self.network = script, script.live, script.network

    def detach(self, script: Script) -> None:
        """The script is removed, unless another object of it has taken over."""
        if self.script is script:
            self.script = None

    def stopped(self) -> None:
        """Record what is under way as this proxy ends: mitmproxy breaks it off only when nobody can write it down."""
        for flow, exchange in list(self.exchanges.items()):
            flow.error = flow.error or Error("the proxy was stopped")
            stream = flow.response.stream if flow.response else False
            self._record(flow, exchange, over=False)
            if flow.response:
                flow.response.stream = stream  # what still comes is looked at as before

    def done(self) -> None:
        """Mitmproxy ends: that the script goes now is no news."""
        self.watch.end()

    def _settings(self) -> Settings | None:
        return self.known.settings if self.known is not None else None

    # --- whose connections, and which hosts --------------------------------------------------------------------------

    async def client_connected(self, client: Client) -> None:
        """Judge who connects; a SOCKS client that has a user name is asked for it."""
        await self.door.client_connected(client)
        if client.error is None:
            ask_socks_for_a_name(client)

    def socks5_auth(self, data: Socks5AuthData) -> None:
        """Note the user name of a SOCKS client; mitmproxy's proxyauth, if it is on, has judged the password."""
        if not getattr(ctx.options, "proxyauth", None):
            data.valid = True
        if data.valid:
            self._note_user(data.client_conn, data.username)
            self.door.authenticated(data.client_conn)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Take the proxy user and password, if any, out of the CONNECT; the name says which fence or account."""
        if self.network is not None:
            self.network.http_connect(flow)
        told = flow.request.headers.pop("proxy-authorization", "")
        flow.metadata.pop("proxyauth", None)
        client = flow.client_conn
        if (user := password_user(client)) is not None:
            self._note_user(client, user)
            self.door.authenticated(client)
        elif told:
            self.proxy_users[client] = "?"  # a name that nobody has: no silent default, whatever happens here
            with suppress(ValueError):
                self._note_user(client, parse_http_basic_auth(told)[1])

    def _note_user(self, client: Client, user: str) -> None:
        self.proxy_users[client] = printable(user, 64)

    def http_connect_error(self, flow: http.HTTPFlow) -> None:
        """The Copilot host itself could not be reached: say so in JSON, not in HTML."""
        failed = flow.response is not None and flow.response.status_code == 502
        if failed and flow.response and self._is_copilot(flow.request.host, flow.request.port):
            message = f"copilot-balancer: {flow.request.host} cannot be reached from here"
            flow.response.content = error_body("", message=message, code="bad_gateway", kind="proxy_error")
            flow.response.headers["content-type"] = "application/json"

    def next_layer(self, nextlayer: NextLayer) -> None:
        """Put our layer into Copilot connections; leave every other one closed."""
        context = nextlayer.context
        if nextlayer.layer or not context.server.address or isinstance(context.client.proxy_mode, ReverseMode):
            return
        try:
            self._dial_by_name(nextlayer)
            if self.network is not None and (tunnel := self.network.tunnel(context)) is not None:
                nextlayer.layer = tunnel
                return
            self._choose_layer(nextlayer, *context.server.address[:2])
        except AddonHalt:
            raise
        except Exception as error:  # noqa: BLE001 - mitmproxy would go on without us
            log_incident("the choice of a layer", error)
            nextlayer.layer = TCPLayer(context, ignore=True)

    def _dial_by_name(self, nextlayer: NextLayer) -> None:
        """Lead a TLS connection that was asked for by IP address to the Copilot host that it names.

        The address that the client gave is not used: who wrote it is not known.
        """
        context, data = nextlayer.context, nextlayer.data_client()
        host, port = context.server.address[:2] if context.server.address else ("", 0)
        if isinstance(context.client.proxy_mode, RegularMode | UpstreamMode) or port != 443 or not _is_ip(host):
            return
        if isinstance(context.layers[-1], ClientTLSLayer) or not starts_like_tls_record(data):
            return
        try:
            hello = parse_client_hello(data)
        except ValueError:
            return
        if hello is None:
            raise AddonHalt  # asked again when more has come
        if hello.sni and self._is_copilot(hello.sni, port):
            self._replaced[context.client] = context.server
            context.server = Server(address=(plain_host(hello.sni), port))

    def _choose_layer(self, nextlayer: NextLayer, host: str, port: int) -> None:
        context = nextlayer.context
        if not self._is_copilot(host, port):
            if not _is_asked_for(host, port):
                nextlayer.layer = TCPLayer(context, ignore=True)
        elif isinstance(context.layers[-1], ClientTLSLayer):
            if plain_host(context.client.sni or "") == plain_host(host):
                nextlayer.layer = layer = FailoverLayer(context, lambda: self)
                if (unused := self._replaced.get(context.client)) is not None:
                    layer.retired.add(unused)
            else:
                nextlayer.layer = TCPLayer(context, ignore=True)
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
        await self._timeouts.server_connect(data)

    def tls_start_server(self, tls: TlsData) -> None:
        """TLS with an upstream begins."""
        credential_guard.tls_begins(tls, ctx.options)
        self._timeouts.tls_start_server(tls)

    def tls_established_server(self, tls: TlsData) -> None:
        """TLS with an upstream is established."""
        credential_guard.tls_established(tls, ctx.options)
        self._timeouts.tls_established_server(tls)

    def _is_copilot(self, host: str, port: int) -> bool:
        return self.known is not None and port == 443 and plain_host(host) in self.known.hosts

    def _is_parent(self, host: str, port: int) -> bool:
        return self.network is not None and self.network.is_parent(host, port)

    def _names_copilot(self, flow: http.HTTPFlow) -> bool:
        """Whether a request is for a Copilot host by its connection, its target or its Host header, on any port."""
        named: Sequence[str] = (flow.request.host, flow.request.pretty_host, (flow.server_conn.address or ("",))[0])
        return self.known is not None and any(plain_host(name or "") in self.known.hosts for name in named)

    # --- requests ----------------------------------------------------------------------------------------------------

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Keep passwords of the proxy out of flows; answer what would reach a Copilot host outside our layer.

        Other hosts' plain HTTP is streamed.
        """
        flow.metadata.pop("proxyauth", None)
        flow.request.headers.pop("proxy-authorization", None)
        if flow in self._failover_flows:
            return
        if not self._names_copilot(flow):
            flow.request.stream = not flow.is_replay
            return
        HiddenCredentials(flow.request.headers).masked(flow.request.headers)
        flow.request.stream = False
        host = printable(flow.request.pretty_host, 80)
        if flow.is_replay:
            why = f"a replay gets no account: nothing was sent to {host}"
        else:
            why = f"{host} is served through a CONNECT tunnel with TLS to port 443 alone: set the client's HTTPS proxy"
        flow.response = own_answer(flow.request.path, 403, "not_through_a_tunnel", why)
        self._refused.say(logger, logging.WARNING, why, f"copilot: a request was refused: {why}")

    def tell(self, hook: StartHook) -> Awaitable[None] | None:
        """Tell all addons of a hook about one of our flows; what is left of that, `failover_wait` waits for."""
        if isinstance(hook, HttpRequestHeadersHook):
            self._failover_flows.add(hook.flow)
        return dispatch.begun(dispatch.tell(ctx.master.addons, hook))

    async def failover_wait(self, wait: Wait) -> None:
        """An addon takes its time, or the flow is intercepted."""
        await wait.rest

    def choose(self, send: Send) -> bool:
        """With what is the request sent? False: it takes longer, and `failover_choose` waits for it.

        Ours, whatever happens: an exception becomes a 502 on this stream alone.
        """
        flow, live = send.flow, self.live
        if live is None:
            flow.response = own_answer(flow.request.path, 503, "not_loaded", NOT_LOADED)
            return True
        if not self.door.is_admitted(flow.client_conn):
            why = "this connection was not admitted: copilot-balancer could not tell whose it is, or saw no password"
            flow.response = own_answer(flow.request.path, 403, "not_admitted", why)
            self._refused.say(logger, logging.WARNING, why, f"copilot: a request was refused: {why}")
            return True
        exchange = self.exchanges.get(flow)
        if exchange is None:
            exchange = self.exchanges[flow] = Exchange(live, flow, self._user(flow.client_conn, live))
        exchange.choice = None
        try:
            exchange.choice = dispatch.begun(exchange.choose(send))
        except Exception as error:  # noqa: BLE001
            exchange.fault("the choice of an account", error)
        return exchange.choice is None

    def _user(self, client: Client, live: Runtime) -> str:
        """The name that must be that of a fence or an account; empty: the client gave none.

        Where `proxyauth` holds the one name that there is, the client had no choice: it counts only if it names
        something, or where there is another fence that the request could be meant for.
        """
        user = self.proxy_users.get(client, "")
        spec, accounts = getattr(ctx.options, "proxyauth", None) or "", live.decisions.accounts
        if user and spec.partition(":")[0] == user and not spec.startswith(("@", "ldap")):
            names = {name for account in accounts for name in (account.label, account.fence)}
            if user not in names and {account.fence for account in accounts} <= {live.settings.fence}:
                return ""
        return user

    async def failover_choose(self, send: Send) -> None:
        """With what is the request sent? It could not be said at once."""
        exchange = self.exchanges[send.flow]
        assert exchange.choice is not None
        try:
            async with asyncio.timeout(exchange.time_left() + GRACE):
                await exchange.choice
        except Exception as error:  # noqa: BLE001
            exchange.fault("the choice of an account", error)

    async def failover_judge(self, refusal: Refusal) -> None:
        """Is the request sent again?"""
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
            if flow.response and not self._names_copilot(flow):
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
        if flow.error is not None and self.known is not None and flow in self._failover_flows:
            flow.error.msg = self.known.sent.text(flow.error.msg)  # mitmproxy quotes what it could not read
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

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """A WebSocket is closed: its reason stays on the flow."""
        if flow in self.sockets and flow.websocket is not None and self.known is not None:
            flow.websocket.close_reason = self.known.sent.text(flow.websocket.close_reason or "")

    def shown(self, text: str) -> str:
        """A text for people, without the credentials that were sent."""
        return self.known.sent.text(text) if self.known is not None else text

    def _end(self, flow: http.HTTPFlow) -> None:
        exchange = self.exchanges.pop(flow, None)
        if exchange is None:
            return
        if self._record(flow, exchange, over=True):
            self.trim_view(exchange.live)

    def _record(self, flow: http.HTTPFlow, exchange: Exchange, *, over: bool) -> bool:
        """Write down a request, and let go of it when it is over; whether that worked."""
        try:
            record = ended(exchange)
            if over:
                if (frames := frames_after(exchange)) is not None:
                    self.sockets[flow] = frames
                exchange.let_go()
        except Exception as error:  # noqa: BLE001 - the client has its answer, and other requests are recorded
            log_incident("the record of a request", error)
            return False
        if self.script is not None:
            self.script.sync.journal.tell(record, exchange.live.now())
        return True

    def trim_view(self, live: Runtime) -> None:
        """Let mitmweb and the console forget the oldest finished flows: by themselves they keep every one."""
        view, limit = ctx.master.addons.get("view"), live.settings.keep_flows
        if view is not None and view.store_count() > limit + max(10, limit // 10):
            finished = [flow for flow in view.resolve("@all") if not flow.live and not flow.intercepted]
            view.remove(finished[: view.store_count() - limit])


def hooks() -> CopilotHooks:
    """The entry in mitmproxy's chain, put there by the first script object: before all scripts, after ``proxyauth``."""
    addons = ctx.master.addons
    found: CopilotHooks | None = addons.get(CopilotHooks.name)
    if found is None:
        found = CopilotHooks()
        addons.register(found)
        scripts = [place for place, addon in enumerate(addons.chain) if addon is addons.get("scriptloader")]
        addons.chain.insert(scripts[0] if scripts else len(addons.chain), found)
    return found


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_asked_for(host: str, port: int) -> bool:
    """Whether mitmproxy's own ``allow_hosts`` says that the user wants to look into this host too."""
    return any(re.search(pattern, f"{host}:{port}", re.IGNORECASE) for pattern in ctx.options.allow_hosts)
