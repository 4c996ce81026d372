"""``copilot-balancer usage``: what is left of each account's quota, requested now.

Laws of this file:

1. GitHub is asked only by this command, once for each account, all at the same time; the answers are stored.
2. An account for which GitHub gives no answer shows the reason in its place; the others are shown all the same. Then
   what the proxy last saw in responses is shown with its age.
"""

from dataclasses import dataclass, replace

import click

from copilot_balancer.cli.env import Env, ask_all, json_option, note, pass_world, show_json
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import StoreError, UpstreamError
from copilot_balancer.github.api import Usage
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.state import AccountState, Memory, restored
from copilot_balancer.store.ledger import Ledger, Spent, day_of, period_of
from copilot_balancer.text import day, wrapped
from copilot_balancer.views.spending import spent_facts, spent_lines, summed
from copilot_balancer.views.status import quota_facts, quota_lines, who


@dataclass(frozen=True)
class _Told:
    """What is known about one account's quota."""

    account: Account
    usage: Usage | None
    why_not: str | None
    """Why GitHub does not tell."""
    remembered: dict[str, QuotaWindow]
    """What a proxy last saw."""
    period: str = ""
    """When its billing period began, as the ledger writes it."""
    today: tuple[Spent, ...] = ()
    """What the ledger counted since midnight, by model."""
    this_period: tuple[Spent, ...] = ()


@click.command()
@json_option
@pass_world
@click.pass_context
def usage(context: click.Context, env: Env, as_json: bool) -> None:
    """Ask GitHub what is left of each account's quota.

    Exit code 1: no account got an answer.
    """
    accounts = env.store.read_decisions().accounts
    memory = restored(env.store.read_memory(), env.now())
    told = _with_spending(env, ask_all(accounts, lambda one: one.label, lambda one: _ask(env, one, memory)))
    _remember(env, told)
    if as_json:
        show_json([_row(one) for one in told])
    elif not told:
        click.echo("No account is stored yet. To add one: copilot-balancer start")
    else:
        click.echo("\n\n".join(_text(one) for one in told))
    context.exit(int(bool(told) and all(one.usage is None for one in told)))


def _ask(env: Env, account: Account, memory: Memory) -> _Told:
    known = memory.accounts.get(account.id)
    remembered = dict(known.quota) if known else {}
    try:
        return _Told(account, env.github.usage(account.token, account.host), None, remembered)
    except UpstreamError as error:
        return _Told(account, None, str(error), remembered)


def _with_spending(env: Env, told: list[_Told]) -> list[_Told]:
    """Each account with what the ledger counted; a ledger that cannot be read is one note."""
    ledger, now = Ledger(env.paths.state), env.now()
    today = day_of(now, env.zone)
    try:
        rows = [row for _, row in ledger.days(today, today)]
        return [
            replace(
                one,
                period=period,
                today=tuple(row for row in rows if row.account_id == one.account.id),
                this_period=tuple(ledger.period(one.account.id, period)),
            )
            for one in told
            for period in [period_of(now, _resets_at(one))]
        ]
    except StoreError as error:
        note(f"{error}; what was spent is not shown")
        return told


def _resets_at(told: _Told) -> float | None:
    windows = (told.usage.windows if told.usage else None) or told.remembered
    window = windows.get("premium")
    return window.resets_at if window else None


def _remember(env: Env, told: list[_Told]) -> None:
    """Write down what was learnt; an account about which nothing is known yet begins with its credential."""
    states = {
        one.account.id: AccountState(credential=one.account.fingerprint, quota=dict(one.usage.windows))
        for one in told
        if one.usage is not None and one.usage.windows
    }
    if not states:
        return
    try:
        env.store.merge_memory(Memory(states))
    except StoreError as error:
        note(f"the answers were not stored: {error}")


def _text(told: _Told) -> str:
    lines = [f"{told.account.label}  {who(told.account)}, plan {told.account.plan or 'unknown'}"]
    windows = told.remembered
    if told.usage is not None:
        windows = told.usage.windows
        if not windows:
            lines.append("  GitHub names no quota")
    else:
        lines.append(wrapped(told.why_not or "", "  "))
        if windows:
            lines.append(f"  as the proxy saw it on {day(max(window.seen_at for window in windows.values()))}:")
    spent = spent_lines(summed(told.today), summed(told.this_period), told.period) if told.period else []
    return "\n".join([*lines, *(f"  {line}" for line in [*quota_lines(windows), *spent])])


def _row(told: _Told) -> dict[str, object]:
    return {
        "label": told.account.label,
        "id": told.account.id,
        "error": told.why_not,
        "plan": told.usage.plan if told.usage else told.account.plan,
        "sku": told.usage.sku if told.usage else None,
        "quota": quota_facts(told.usage.windows) if told.usage else None,
        "remembered": quota_facts(told.remembered),
        "spent_today": spent_facts(told.today),
        "period_began": told.period or None,
        "spent_this_period": spent_facts(told.this_period),
        "raw": told.usage.raw if told.usage else None,
    }
