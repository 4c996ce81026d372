"""``copilot-balancer usage``: what is left of each account's quota, asked for now.

Laws of this file:

1. GitHub is asked only because the user asks, once for each account; what it says goes into the memory.
2. An account that cannot be told about says why, in its place; the others are shown all the same. Where GitHub does
   not tell, what the proxy last saw in answers is shown with its age.
"""

from dataclasses import dataclass

import click

from copilot_balancer.accounts import Account
from copilot_balancer.cli_views import quota_facts, quota_lines, who
from copilot_balancer.errors import StoreError, UpstreamError
from copilot_balancer.github import Usage
from copilot_balancer.memory import AccountState, Memory, QuotaWindow, restored
from copilot_balancer.terminal import World, day, json_option, note, pass_world, show_json, wrapped


@dataclass(frozen=True)
class _Told:
    """What is known about one account's quota."""

    account: Account
    usage: Usage | None
    why_not: str | None
    """Why GitHub does not tell."""
    remembered: dict[str, QuotaWindow]
    """What a proxy last saw."""


@click.command()
@json_option
@pass_world
@click.pass_context
def usage(context: click.Context, world: World, as_json: bool) -> None:
    """Ask GitHub what is left of each account's quota. Exit code 1: it told about no account."""
    accounts = world.store.read_decisions().accounts
    memory = restored(world.store.read_memory(), world.now())
    told = [_ask(world, account, memory) for account in accounts]
    _remember(world, told)
    if as_json:
        show_json([_row(one) for one in told])
    elif not told:
        click.echo("No account is stored yet. To log in: copilot-balancer accounts add")
    else:
        click.echo("\n\n".join(_text(one) for one in told))
    context.exit(int(bool(told) and all(one.usage is None for one in told)))


def _ask(world: World, account: Account, memory: Memory) -> _Told:
    known = memory.accounts.get(account.id)
    remembered = dict(known.quota) if known else {}
    try:
        return _Told(account, world.github.usage(account.token, account.host), None, remembered)
    except UpstreamError as error:
        return _Told(account, None, str(error), remembered)


def _remember(world: World, told: list[_Told]) -> None:
    """Write down what was learnt; an account about which nothing is known yet begins with its credential."""
    states = {
        one.account.id: AccountState(credential=one.account.fingerprint, quota=dict(one.usage.windows))
        for one in told
        if one.usage is not None and one.usage.windows
    }
    if not states:
        return
    try:
        world.store.merge_memory(Memory(states))
    except StoreError as error:
        note(f"what was learnt is forgotten: {error}")


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
    return "\n".join([*lines, *(f"  {line}" for line in quota_lines(windows))])


def _row(told: _Told) -> dict[str, object]:
    return {
        "label": told.account.label,
        "id": told.account.id,
        "error": told.why_not,
        "plan": told.usage.plan if told.usage else told.account.plan,
        "sku": told.usage.sku if told.usage else None,
        "quota": quota_facts(told.usage.windows) if told.usage else None,
        "remembered": quota_facts(told.remembered),
        "raw": told.usage.raw if told.usage else None,
    }
