"""mitmproxy's commands ``copilot.*``, for its console and for mitmweb's command bar.

Laws of this file:

1. A command answers at once, from memory: mitmproxy calls it on the event loop. What it decides is written to the
   store in a thread, one decision after the other, and is in force within a second; a failure is told in the event log.
2. Names match ``[a-z.]+``: mitmweb can call no other. Every text that is returned is printable.
3. What has several lines fits into mitmproxy's console. mitmweb's command bar prints an answer as JSON, on one line:
   there the lines go to the event log, and the bar gets the first sentence and where the rest is.
4. It decides nothing that the command line could not decide in the same words. How those are printed is imported by
   the first command that is typed: a proxy of which nobody asks anything does without.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from mitmproxy import command, ctx
from mitmproxy.exceptions import CommandError
from mitmproxy.types import Choice

from copilot_balancer import config
from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.snapshot import AccountView
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.store.store import Store
from copilot_balancer.text import duration, printable
from copilot_balancer.views.overview import overview

logger = logging.getLogger(__name__)

type _Change = Callable[[Decisions], Decisions]


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
        live: what the requests of this proxy share; None before it runs.
        store: where decisions are written.
        this_proxy: what this proxy tells about itself.
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
        """Show accounts, quota, rests and what is under way."""
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

        def change(decisions: Decisions) -> Decisions:
            return decisions.model_copy(update={"home_id": _known(decisions, account.id).id})

        return self._decide(change, f"{account.label} is the home account now.")

    @_command("copilot.balancing", switch="copilot.switches")
    def balancing(self, switch: str) -> str:
        """Turn balancing on or off. Off: only the home account serves, and its refusals reach the client."""
        self._running()

        def change(decisions: Decisions) -> Decisions:
            return decisions.model_copy(update={"balancing": switch == "on"})

        return self._decide(change, f"Balancing is {switch} now.")

    @_command("copilot.account.enable", label="copilot.labels")
    def enable(self, label: str) -> str:
        """Let an account serve. This also ends the rest of one that GitHub blocked for abuse."""
        account = self._account(label)
        return self._decide(
            partial(_changed, account.id, enabled=True, enabled_at=self._wall()), f"{account.label} is on now."
        )

    @_command("copilot.account.disable", label="copilot.labels")
    def disable(self, label: str) -> str:
        """Keep an account, but send nothing with it."""
        account = self._account(label)
        return self._decide(partial(_changed, account.id, enabled=False), f"{account.label} is off now.")

    @_command("copilot.cooldown.clear", label="copilot.labels")
    def clear(self, label: str = "", model: str = "") -> str:
        """End the rests of an account, or of one model on it; without a label, of all accounts."""
        chosen = (self._account(label),) if label else self._running().decisions.accounts
        now = self._wall()

        def change(decisions: Decisions) -> Decisions:
            for known in decisions.accounts:
                if any(account.id == known.id for account in chosen):
                    over = {**known.cleared, model: now} if model else {"": now}
                    decisions = decisions.with_account(known.model_copy(update={"cleared": over}))
            return decisions

        if not chosen:
            return "Nothing to clear."
        what = f" ({printable(model, 60)})" if model else ""
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

    def _decide(self, change: _Change, told: str) -> str:
        """Write a decision down, in a thread; return what will be true then."""
        task = asyncio.get_running_loop().create_task(self._write(change, told))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return told

    async def _write(self, change: _Change, told: str) -> None:
        async with self._in_order:
            try:
                await asyncio.to_thread(self._store.edit_decisions, change)
            except BalancerError as error:
                logger.error("copilot: this was not done: %s %s", told, error)  # noqa: TRY400 - a sentence for the user
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


def _known(decisions: Decisions, account_id: str) -> Account:
    for account in decisions.accounts:
        if account.id == account_id:
            return account
    raise InvalidInput("this account was removed meanwhile")


def _changed(account_id: str, decisions: Decisions, **facts: object) -> Decisions:
    return decisions.with_account(_known(decisions, account_id).model_copy(update=facts))


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
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows)
    return "\n".join(lines)
