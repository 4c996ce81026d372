"""class CopilotBalancer: the script's addon object; it reads the options, starts the proxy's work and ends it.

The hooks of connections and requests are those of ``chain``, which stay in mitmproxy when the script goes.

Laws of this file:

1. A wrong option ends the start with one sentence and exit code 1: nobody takes a proxy without the addon for one with
   it. While the proxy runs it is mitmproxy's own OptionsError, and the old value stays.
2. Nothing here blocks the event loop; what goes to and from disk is ``sync``'s.
"""

import asyncio
import gc
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.exceptions import OptionsError
from mitmproxy.proxy.mode_specs import DnsMode, LocalMode, ProxyMode, ReverseMode, TunMode, WireGuardMode

from copilot_balancer import config
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.proxy.chain import hooks
from copilot_balancer.proxy.commands import Commands
from copilot_balancer.proxy.guard import credential_guard, log_filters
from copilot_balancer.proxy.guard.client_access import asks_for_a_password, is_loopback
from copilot_balancer.proxy.guard.script_watch import listening
from copilot_balancer.proxy.inspect import contentview
from copilot_balancer.proxy.network import Network
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.proxy.sync import Sync
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.store.store import Paths, paths
from copilot_balancer.views.names import known_models, unknown_names
from copilot_balancer.views.overview import running

logger = logging.getLogger(__name__)

KEEP_BODIES = 2 * 1024 * 1024
"""Bytes of a streamed answer kept where a person can look at it, unless `copilot_keep_bodies` says otherwise."""

_UNBALANCED = (ReverseMode, DnsMode, WireGuardMode, LocalMode, TunMode)
"""Modes in which no request is balanced: a reverse proxy knows no tunnel, and the clients of the others do not come
from a loopback address."""
_NOT_LISTENING = (LocalMode, TunMode)


class CopilotBalancer:
    """The addon. Build a new one each time: mitmproxy runs a script again when it is saved.

    Args:
        where: the folders of accounts and settings; by default the user's own.
        project: the folder whose ``.copilot-balancer.toml`` counts; by default where the proxy was started.

    """

    def __init__(self, where: Paths | None = None, project: Path | None = None) -> None:
        self.where = where or paths(os.environ)
        self.project = project or Path.cwd()
        self.sync = Sync(self.where, self._say_hello, self._this_proxy)
        self.began = time.time()
        self.live: Runtime | None = None
        """None until the first `configure`; and then what requests share."""
        self._commands = Commands(lambda: self.live, self.sync.store, self._this_proxy)
        self.network = Network(self.where.state, os.environ)
        self._watching: asyncio.Task[None] | None = None
        self._unnamed_host = False
        """Whether the user named no host to listen on, so that loopback is ours to choose."""

    # --- options and start-up ----------------------------------------------------------------------------------------

    def load(self, loader: Loader) -> None:
        """Declare the options; listen on loopback unless the user named a host."""
        self._declare_options(loader)
        ctx.master.commands.collect_commands(self._commands)
        hooks().door.load(loader)
        contentview.register(hooks().shown)
        log_filters.watch_log(hooks().shown)
        if "flow_detail" in ctx.options and not ctx.options.has_changed("flow_detail"):
            ctx.options.update(flow_detail=0)  # mitmdump's own lines would say less, twice
        if "web_columns" in ctx.options and not ctx.options.has_changed("web_columns"):
            # mitmweb hides comments, and ours say who served
            ctx.options.update(web_columns=["tls", "icon", "path", "comment", "method", "status", "size", "time"])
        self._unnamed_host = not ctx.options.listen_host
        if self._unnamed_host:
            ctx.options.update(listen_host="127.0.0.1")

    @staticmethod
    def _declare_options(loader: Loader) -> None:
        """Declare each option, and take over what the command line or mitmproxy's config.yaml set.

        mitmproxy would convert those values itself, and a value that it cannot convert would lose it the whole script
        without a word.
        """
        for option in config.options():
            # None means "not set by the user", so that a file below may set it; mitmproxy knows no float | None
            kind: Any = {"int": Optional[int], "list": Sequence[str]}.get(option.kind, Optional[str])  # noqa: UP045
            name = f"copilot_{option.name}"
            given = ctx.options.deferred.pop(name, None)
            loader.add_option(name, kind, [] if option.kind == "list" else None, option.help)
            if given is not None:
                try:
                    ctx.options.update(**{name: _given(option, getattr(given, "val", given))})
                except InvalidInput as error:
                    logger.error("copilot: %s", error)  # noqa: TRY400 - a sentence for the user, not a bug

    def configure(self, updated: set[str]) -> None:
        """Read the settings again; a bad one is one clear sentence."""
        try:
            self._configure()
            if self._watching is not None and "mode" in updated:
                _say_modes()
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
            self.live = self.sync.begin(loaded.settings, ctx.options)
        self.sync.use(loaded.settings)
        keep = loaded.settings.keep_bodies
        self.live.keep_bodies = (KEEP_BODIES if _is_looked_at() else 0) if keep is None else keep
        for host in _listen_hosts():
            if not is_loopback(host):
                self._check_remote(host or "all addresses")
        if not ctx.options.validate_inbound_headers:
            raise InvalidInput("validate_inbound_headers must stay on: without it requests can be smuggled")
        self.network.configure(loaded.settings, ctx.options)
        self._switch_off(credential_guard.unsafe_options(ctx.options))
        hooks().attach(self)

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
        if not asks_for_a_password():
            raise InvalidInput(
                f"listening on {host} with copilot_allow_remote needs mitmproxy's proxyauth option with a password: "
                "@PATH of an htpasswd file ('any' and an empty password are none)"
            )

    def running(self) -> None:
        """Look at what really listens; begin to watch the store."""
        if self.live is None or self._watching is not None:
            return
        hooks().door.running()
        hooks().watch.loaded(self)
        _say_modes()
        for name in ctx.options.deferred:
            if warning := config.misspelt(name):
                logger.warning("copilot: %s", warning)
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
        await self.sync.watch()

    def _say_hello(self) -> None:
        assert self.live is not None
        decisions = self.live.decisions
        serving = decisions.serving() if decisions.balancing else ()
        labels = ", ".join(account.label for account in serving if account.enabled)
        logger.info(
            "copilot: ready on %s; accounts: %s; strategy: %s",
            ", ".join(sorted(listening())) or "nothing",
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
        return running(pool, pid=os.getpid(), began=self.began, listening=listening(), off=self.live.off)

    def done(self) -> None:
        """Write down what was learnt; the hooks go on without us, and serve nothing until a script is back."""
        if ctx.master.should_exit.is_set():
            hooks().stopped()
        hooks().detach(self)
        if self.live is not None:
            self.live.ended = True
        if self._watching is not None:
            self._watching.cancel()
            self.sync.end()
            hooks().watch.gone(self.where.state, self.began)


def _overrides() -> Mapping[str, object]:
    """The options that the user set, by their name in config.toml."""
    found = {}
    for option in config.options():
        value = getattr(ctx.options, f"copilot_{option.name}")
        if value is not None and value != []:
            found[option.name] = value
    return found


def _is_looked_at() -> bool:
    """Whether somebody may look at bodies: mitmweb or the console, a dump (``-w``) or a HAR file."""
    options = ctx.options
    asked = getattr(options, "save_stream_file", None) or getattr(options, "hardump", None)
    return bool(asked) or ctx.master.addons.get("view") is not None


def _given(option: config.Option, value: object) -> object:
    """What the user set on the command line (a list of texts) or in mitmproxy's config.yaml, as our options take it.

    Raises:
        InvalidInput: it is no value of this option's form.

    """
    values = value if isinstance(value, list | tuple) else [value]
    if option.kind == "list":
        if all(isinstance(one, str) for one in values):
            return list(values)
    elif not values and option.kind == "bool":
        return "true"
    elif len(values) > 1:
        raise InvalidInput(f"--set copilot_{option.name} is given {len(values)} times: it takes one value")
    elif values and isinstance(values[0], str | int | float):
        text = str(values[0]).lower() if isinstance(values[0], bool) else str(values[0])
        if option.kind != "int":
            return text
        with suppress(ValueError):
            return int(text)
    raise InvalidInput(f"--set copilot_{option.name} must be {option.type}")


def _listen_hosts() -> Sequence[str]:
    """The host of each mode's own listener; empty text: all addresses."""
    modes = [ProxyMode.parse(spec) for spec in ctx.options.mode]
    hosts = [mode.listen_host(ctx.options.listen_host) for mode in modes if not isinstance(mode, _NOT_LISTENING)]
    return [host.strip("[]") for host in hosts]


def _say_modes() -> None:
    for spec in ctx.options.mode:
        if isinstance(ProxyMode.parse(spec), _UNBALANCED):
            logger.warning("copilot: mode %s: no request is balanced there; use regular, upstream or socks5", spec)
