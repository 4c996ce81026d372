"""mitmproxy's commands ``copilot.*``, for its console and for mitmweb's command bar.

Laws of this file:

1. A command returns at once, from memory: mitmproxy calls it on the event loop. An edit (``rules.edits``, the same as
   the command line's) is written to the store in a thread, one after the other, and is in force within a second; when
   it fails the event log says that nothing was changed.
2. Names match ``[a-z.]+``: mitmweb can call no other. Every returned text is printable.
3. Output of several lines fits into mitmproxy's console. mitmweb's command bar prints a result as JSON, on one line:
   there the lines go to the event log, and the bar gets the first sentence and where the rest is.
4. The formatters are imported by the first command that is typed: a proxy that is not asked anything never loads them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import cast

from mitmproxy import command, ctx
from mitmproxy.exceptions import CommandError
from mitmproxy.types import Choice

from copilot_balancer import config
from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.snapshot import AccountView
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.store.store import Store
from copilot_balancer.text import duration, printable, table
from copilot_balancer.views.overview import overview

logger = logging.getLogger(__name__)


def _command[F: Callable[..., object]](name: str, /, **choices: str) -> Callable[[F], F]:
    """Mitmproxy's decorators, with types.

    Args:
        name: of the command.
        choices: parameter -> the command that lists what can be typed there.

    """

    def decorate(function: F) -> F:
        for parameter, options in choices.items():
            command.argument(parameter, type=Choice(options))(function)
        return cast("F", command.command(name)(function))

    return decorate


class Commands:
    """What has the commands; mitmproxy collects them when our addon is loaded.

    Args:
        live: the runtime of this proxy; None before it runs.
        store: where decisions are written.
        this_proxy: this proxy's entry in the list of running proxies.
        wall: seconds since the epoch, on the wall clock: the time of a decision.

    """

    name = "copilot_commands"
    """mitmproxy's name for it; two addons of one name are refused."""

    def __init__(
        self,
        live: Callable[[], Runtime | None],
        store: Store,
        this_proxy: Callable[[], RunningProxy],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._live = live
        self._store = store
        self._this_proxy = this_proxy
        self._wall = wall
        self._in_order = asyncio.Lock()
        self._writing: set[asyncio.Task[None]] = set()
        """The loop holds its tasks by weak references only."""

    # --- look --------------------------------------------------------------------------------------------------------

    @_command("copilot.status")
    def status(self) -> str:
        """Show accounts, quota, cooldowns and requests under way."""
        from copilot_balancer.views.status import headline, status_text  # noqa: PLC0415 - law 4

        live = self._running()
        policy = config.policy(live.settings, live.decisions)
        seen = overview(live.pool.snapshot(live.now()), live.decisions, policy, (self._this_proxy(),))
        return _shown(status_text(seen, _columns()), headline(seen))

    @_command("copilot.accounts")
    def accounts(self) -> str:
        """List the accounts, a line each; * is the home account."""
        live = self._running()
        views = live.pool.snapshot(live.now()).accounts
        if not views:
            return "No account is stored yet. To log in: copilot-balancer accounts add"
        table = _table([("", "ACCOUNT", "STATE", "LEFT", "BUSY", "SERVED", "REFUSED"), *map(_row, views)], kept=4)
        return _shown(table, f"{len(views)} account{'' if len(views) == 1 else 's'}.")

    @_command("copilot.models")
    def models(self) -> str:
        """List which account has which model, as far as it is known."""
        live = self._running()
        now = live.now()
        learnt = live.pool.memory(now).accounts
        rows: dict[str, tuple[list[str], list[str]]] = {}
        for account in live.decisions.accounts:
            known = learnt.get(account.id)
            for model, fact in known.models.items() if known else ():
                has, lacks = rows.setdefault(model, ([], []))
                if fact.until > now and fact.has:
                    has.append(account.label)
                elif fact.until > now:
                    lacks.append(f"{account.label} ({duration(fact.until - now)})")
        told = [
            (printable(model, 60), ", ".join(has) or "-", ", ".join(lacks) or "-")
            for model, (has, lacks) in sorted(rows.items())
            if has or lacks
        ]
        if not told:
            return "Nothing is known about any model yet."
        table = _table([("MODEL", "HAS IT", "LACKS IT"), *told], kept=3)
        return _shown(table, f"{len(told)} model{'' if len(told) == 1 else 's'}.")

    @_command("copilot.explain")
    def explain(self, model: str, conversation: str = "") -> str:
        """Say which account would serve a model now, why, and why not the others; also for a client's conversation."""
        from copilot_balancer.views.explanation import explain_text, headline  # noqa: PLC0415 - law 4

        live = self._running()
        now = live.now()
        name = conversation_of({"x-session-id": conversation}, None) if conversation else None
        told = live.pool.explain(model, name, now)
        return _shown(explain_text(told, now, _columns()), headline(told, now))

    # --- decide ------------------------------------------------------------------------------------------------------

    @_command("copilot.use", label="copilot.labels")
    def use(self, label: str) -> str:
        """Make an account the home account. It answers /models, and serves alone while balancing is off."""
        account = self._account(label)
        return self._decide(edits.made_home(account.id), f"{account.label} is the home account now.")

    @_command("copilot.balancing", switch="copilot.switches")
    def balancing(self, switch: str) -> str:
        """Turn balancing on or off. Off: only the home account serves, and its refusals reach the client."""
        self._running()
        return self._decide(edits.balanced(on=switch == "on"), f"Balancing is {switch} now.")

    @_command("copilot.account.enable", label="copilot.labels")
    def enable(self, label: str) -> str:
        """Let an account serve. This also ends the cooldown of one that GitHub blocked for abuse."""
        account = self._account(label)
        return self._decide(edits.turned_on(account.id, self._wall()), f"{account.label} is on now.")

    @_command("copilot.account.disable", label="copilot.labels")
    def disable(self, label: str) -> str:
        """Keep an account, but send nothing with it."""
        account = self._account(label)
        return self._decide(edits.turned_off(account.id), f"{account.label} is off now.")

    @_command("copilot.cooldown.clear", label="copilot.labels")
    def clear(self, label: str = "", model: str = "") -> str:
        """End the cooldowns of an account, or of one model on it; without a label, of all accounts."""
        chosen = (self._account(label),) if label else self._running().decisions.accounts
        if not chosen:
            return "Nothing to clear."
        now, what = self._wall(), f" ({printable(model, 60)})" if model else ""
        if label:
            return self._decide(edits.cleared(chosen[0].id, now, model or None), f"Cleared: {chosen[0].label}{what}.")

        def change(decisions: Decisions) -> Decisions:
            for account in decisions.accounts:  # those that are stored at that moment
                decisions = edits.cleared(account.id, now, model or None)(decisions)
            return decisions

        return self._decide(change, f"Cleared: {', '.join(account.label for account in chosen)}{what}.")

    # --- what can be typed -------------------------------------------------------------------------------------------

    @_command("copilot.labels")
    def labels(self) -> Sequence[str]:
        """List the accounts' labels, for completion."""
        live = self._live()
        return [account.label for account in live.decisions.accounts] if live else []

    @_command("copilot.switches")
    def switches(self) -> Sequence[str]:
        """List what balancing can be, for completion."""
        return ["on", "off"]

    # --- how ---------------------------------------------------------------------------------------------------------

    def _running(self) -> Runtime:
        live = self._live()
        if live is None:
            raise CommandError("copilot-balancer is not running: the event log says why")
        return live

    def _account(self, label: str) -> Account:
        try:
            return self._running().decisions.find(label)
        except InvalidInput as error:
            raise CommandError(printable(str(error), 400)) from None

    def _decide(self, change: edits.Edit, told: str) -> str:
        """Write a decision to the store, in a thread; return `told`: what will be true then."""
        task = asyncio.get_running_loop().create_task(self._write(change, told))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return told

    async def _write(self, change: edits.Edit, told: str) -> None:
        async with self._in_order:
            try:
                await asyncio.to_thread(self._store.edit_decisions, change)
            except BalancerError as error:
                logger.error('copilot: failed, nothing was changed: "%s" (%s)', told, error)  # noqa: TRY400 - no traceback
            else:
                logger.info("copilot: %s", told)


# --- what the lines are shown on -------------------------------------------------------------------------------------

_OVERLAY, _FRAME = 0.8, 2
"""mitmproxy's console shows what a command returns in a frame over so much of its width (``DataViewerOverlay``)."""


def _columns() -> int:
    """Of a line: what fits into the console's frame, at most what the command line prints."""
    from copilot_balancer.text import WIDTH  # noqa: PLC0415 - law 4

    console = getattr(ctx.master, "ui", None)
    if console is None:
        return WIDTH
    return max(min(int(console.get_cols_rows()[0] * _OVERLAY) - _FRAME, WIDTH), 20)


def _shown(lines: str, gist: str) -> str:
    """What a command returns: `lines`; in mitmweb, whose event log is given them, `gist` and where they are."""
    if "web_columns" not in ctx.options:
        return lines
    logger.info("copilot: the answer to a command:\n%s", lines)
    return f"{gist} All of it stands in the event log: Options, Display Event Log."


def _row(view: AccountView) -> tuple[str, ...]:
    from copilot_balancer.views.status import state  # noqa: PLC0415 - law 4

    left = [f"{name} {window.percent_left:.0f} %" for name, window in view.quota.items() if not window.unlimited]
    return (
        "*" if view.home else "",
        view.label,
        printable(state(view), 100),
        printable(", ".join(left) or "-", 100),
        str(view.in_flight),
        str(view.served),
        str(view.refused),
    )


def _table(rows: Sequence[Sequence[str]], kept: int) -> str:
    """Columns as wide as their widest cell; where there is no room those after the first `kept` are left out."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    while len(widths) > kept and sum(widths) + 2 * (len(widths) - 1) > _columns():
        widths.pop()
    return "\n".join(table([row[: len(widths)] for row in rows]))
