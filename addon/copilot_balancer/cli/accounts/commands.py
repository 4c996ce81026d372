"""``copilot-balancer accounts``: list the accounts and change them.

Laws of this file:

1. Every change is one ``Store.edit_decisions``; a running proxy sees it within a second.
2. What is decided elsewhere is only shown here: who may be added (``login``, ``importing``), who may serve (the pool).
3. No token is printed: a credential is shown by its fingerprint, and only in JSON.
"""

from collections.abc import Callable

import click

from copilot_balancer.cli.accounts.importing import adopt_command, import_command
from copilot_balancer.cli.accounts.login import add_command, login_command
from copilot_balancer.cli.clients.local_proxy import own_authority
from copilot_balancer.cli.completion import fences, labels, models
from copilot_balancer.cli.env import Env, coloured, json_option, note, pass_world, show_facts, show_json, show_table
from copilot_balancer.cli.status import seen_by_the_pool, tell_limits
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Account, Decisions, normalise_label
from copilot_balancer.rules.snapshot import AccountView
from copilot_balancer.store.request_log import NAME as REQUEST_LOG
from copilot_balancer.text import day, iso
from copilot_balancer.views.status import quota_facts, quota_lines, row, serves, state, who

__all__ = ["accounts", "serves", "tell_limits"]

MAX_PRIORITY = 1000


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def accounts(context: click.Context, *, as_json: bool) -> None:
    """Add, list and change accounts; alone: list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_command, as_json=as_json)


for _command in (add_command, login_command, import_command, adopt_command):
    accounts.add_command(_command)


# ── look ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@accounts.command("list")
@json_option
@pass_world
def list_command(env: Env, as_json: bool = False) -> None:
    """List the accounts, oldest first; no token is shown."""
    decisions = env.store.read_decisions()
    if as_json:
        show_json([row(account, decisions) for account in decisions.accounts])
        return
    if not decisions.accounts:
        click.echo("No account is stored yet. To add one: copilot-balancer start")
        return
    head = ("  LABEL", "LOGIN", "HOST", "API", "PLAN", "FENCE", "STATE")
    show_table(head, [_cells(account, decisions) for account in decisions.accounts])
    click.echo("\n* home account")
    tell_limits(decisions)


def _cells(account: Account, decisions: Decisions) -> tuple[str, ...]:
    """One line of the table; the API host without its domain, which HOST or githubcopilot.com is."""
    return (
        f"{'*' if account is decisions.home else ' '} {account.label}",
        account.login or "-",
        account.host,
        account.api_host.removesuffix(".githubcopilot.com").removesuffix(f".{account.host}"),
        account.plan or "-",
        account.fence,
        coloured("on", "green") if account.enabled else coloured("off", "red"),
    )


@accounts.command("show")
@click.argument("label", shell_complete=labels)
@json_option
@pass_world
def show_command(env: Env, label: str, as_json: bool) -> None:
    """Show one account: your decisions and its state."""
    decisions = env.store.read_decisions()
    account = decisions.find(label)
    view = seen_by_the_pool(env, decisions)[account.id]
    if as_json:
        show_json({**row(account, decisions), **_details(account, view)})
        return
    click.echo(f"{account.label}{'  (home account)' if account is decisions.home else ''}")
    show_facts(_facts(account, view))
    for line in quota_lines(view.quota):
        click.echo(f"    {line}")


def _facts(account: Account, view: AccountView) -> dict[str, str]:
    facts = {
        "login": who(account),
        "plan": account.plan or "unknown",
        "API host": account.api_host,
        "credential": "is exchanged for a short-lived one" if account.credential == "exchange" else "is used as it is",
        "state": state(view) if account.enabled else "off",
        "serves": f"no: {view.why_not}" if view.why_not else "yes",
        "fence": account.fence,
        "priority": str(account.priority),
        "weight": f"{account.weight:g}",
        "reserve": f"{account.reserve:g} %",
        "allow": ", ".join(account.allow) or "all models",
        "block": ", ".join(account.block) or "no model",
        "lacks": ", ".join(view.lacks) or "no model that was asked for",
        "added": day(account.added_at),
        "last used": day(view.last_used) if view.last_used else "never",
        "requests": f"{view.served} served, {view.refused} refused",
    }
    if view.quota:
        facts["quota"] = f"as of {day(max(window.seen_at for window in view.quota.values()))}"
    return facts


def _details(account: Account, view: AccountView) -> dict[str, object]:
    return {
        "weight": account.weight,
        "reserve": account.reserve,
        "allow": account.allow,
        "block": account.block,
        "cleared": {model: iso(at) for model, at in account.cleared.items()},
        "status": view.status,
        "why_not": view.why_not,
        "rests": [
            {"reason": rest.reason, "model": rest.model, "seconds": rest.seconds, "source": rest.source}
            for rest in view.rests
        ],
        "lacks": dict(view.lacks),
        "quota": quota_facts(view.quota),
        "last_used": iso(view.last_used) if view.last_used else None,
        "served": view.served,
        "refused": view.refused,
    }


@accounts.command("path")
@json_option
@pass_world
def path_command(env: Env, as_json: bool) -> None:
    """Print where accounts, state, settings and logs are stored."""
    store = env.store
    places = {
        "accounts": str(store.accounts_path),
        "state": str(store.state_path),
        "config": str(env.paths.config / "config.toml"),
        "requests": str(env.paths.state / REQUEST_LOG),
        "proxy logs": str(env.paths.state / "logs"),
        "CA": str(own_authority(env.paths.state).folder),
    }
    if as_json:
        show_json(places)
    else:
        show_facts(places)


# ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@accounts.command("use")
@click.argument("label", shell_complete=labels)
@json_option
@pass_world
def use_command(env: Env, label: str, as_json: bool) -> None:
    """Make an account the home account.

    It answers /models, and serves alone while balancing is off.
    """
    decisions = _edit(env, label, edits.made_home)
    _tell(decisions, label, "is the home account", as_json=as_json)


@accounts.command("enable")
@click.argument("label", shell_complete=labels)
@json_option
@pass_world
def enable_command(env: Env, label: str, as_json: bool) -> None:
    """Let an account serve.

    This also ends the cooldown of an account that GitHub blocked for abuse.
    """
    decisions = _edit(env, label, lambda one: edits.turned_on(one, env.now()))
    _tell(decisions, label, "is on", as_json=as_json)


@accounts.command("disable")
@click.argument("label", shell_complete=labels)
@json_option
@pass_world
def disable_command(env: Env, label: str, as_json: bool) -> None:
    """Keep an account stored, but send nothing with it."""
    decisions = _edit(env, label, edits.turned_off)
    _tell(decisions, label, "is off", as_json=as_json)


@accounts.command("rename")
@click.argument("label", shell_complete=labels)
@click.argument("new")
@json_option
@pass_world
def rename_command(env: Env, label: str, new: str, as_json: bool) -> None:
    """Give an account the label NEW.

    Its history and its conversations stay with it.
    """
    wish = normalise_label(new)
    before = env.store.read_decisions().find(label)

    decisions = _edit(env, label, lambda one: edits.renamed(one, wish))
    _tell(decisions, wish, f"is the new label of {before.label}", as_json=as_json)
    if before.label != wish and (places := _named_in_settings(env, before.label)):
        note(f"{' and '.join(places)} in your settings still name {before.label}: change it there, too")


def _named_in_settings(env: Env, label: str) -> list[str]:
    """Which settings name an account by this label; none where they cannot be read."""
    try:
        settings = env.settings(with_project=True).settings
    except InvalidInput:
        return []
    places = ["routes"] if any(label in route.accounts for route in settings.routes) else []
    return [*places, *(["preseed"] if label in settings.preseed else [])]


@accounts.command("priority")
@click.argument("label", shell_complete=labels)
@click.argument("number", type=click.IntRange(0, MAX_PRIORITY))
@json_option
@pass_world
def priority_command(env: Env, label: str, number: int, as_json: bool) -> None:
    """Set the priority of an account; lower is used earlier.

    Only the strategies priority and sticky use it.
    """
    decisions = _edit(env, label, lambda one: edits.ranked(one, number))
    _tell(decisions, label, f"has priority {number}", as_json=as_json)


@accounts.command("set")
@click.argument("label", shell_complete=labels)
@click.option("--weight", type=float, help="Share among equal accounts: above 0, up to 1000.  [default: 1]")
@click.option("--reserve", type=float, help="Percent of the quota to keep for when no other account can serve.")
@click.option("--allow", multiple=True, metavar="PATTERN", help="Send only these models here; may be repeated.")
@click.option("--block", multiple=True, metavar="PATTERN", help="Never send these models here; may be repeated.")
@click.option(
    "--reset",
    multiple=True,
    type=click.Choice(("weight", "reserve", "allow", "block")),
    help="Put a setting back to its default; may be repeated.",
)
@json_option
@pass_world
def set_command(
    env: Env,
    *,
    label: str,
    weight: float | None,
    reserve: float | None,
    allow: tuple[str, ...],
    block: tuple[str, ...],
    reset: tuple[str, ...],
    as_json: bool,
) -> None:
    """Set weight, reserve and model patterns of an account.

    What is not named stays as it is. A pattern is a model's name with * and ? as wildcards, such as 'claude-*'.
    """
    given: dict[str, object] = {"weight": weight, "reserve": reserve, "allow": allow or None, "block": block or None}
    wishes = {name: wish for name, wish in given.items() if wish is not None}
    if both := sorted(set(reset) & set(wishes)):
        raise click.UsageError(f"{both[0]} is set and reset at once")
    wishes |= dict.fromkeys(reset)
    if not wishes:
        raise click.UsageError("nothing to set: name --weight, --reserve, --allow, --block or --reset")
    decisions = _edit(env, label, lambda one: edits.tuned(one, **wishes))
    _tell(decisions, label, f"has new settings: {', '.join(sorted(wishes))}", as_json=as_json)


@accounts.command("fence")
@click.argument("label", shell_complete=labels)
@click.argument("name", shell_complete=fences)
@json_option
@pass_world
def fence_command(env: Env, label: str, name: str, as_json: bool) -> None:
    """Put an account into the fence NAME.

    No request is ever moved from one fence into another.

    A client chooses a fence by the proxy's user name: HTTPS_PROXY=http://NAME@127.0.0.1:8080. Requests that name none
    stay in the fence that the setting `fence` names, which is `default`.
    """
    fence = normalise_label(name)
    decisions = _update(env, label, fence=fence)
    _tell(decisions, label, f"is in the fence {fence}", as_json=as_json)


@accounts.command("clear")
@click.argument("label", required=False, shell_complete=labels)
@click.argument("model", required=False, shell_complete=models)
@json_option
@pass_world
def clear_command(env: Env, label: str | None, model: str | None, as_json: bool) -> None:
    """End the cooldowns of an account, or of a MODEL on it.

    Without LABEL: of all accounts. A login that was refused is tried again. An account that GitHub blocked for abuse
    serves again only after `accounts enable`.
    """
    cleared: list[str] = []

    def change(decisions: Decisions) -> Decisions:
        chosen = decisions.accounts if label is None else (decisions.find(label),)
        cleared[:] = [account.label for account in chosen]
        for account in chosen:
            decisions = edits.cleared(account.id, env.now(), model)(decisions)
        return decisions

    decisions = env.store.edit_decisions(change)
    if as_json:
        show_json([row(decisions.find(one), decisions) for one in cleared])
    else:
        click.echo(
            f"Cleared: {', '.join(cleared)}{f' ({model})' if model else ''}." if cleared else "Nothing to clear."
        )


def _edit(env: Env, name: str, edit: Callable[[str], edits.Edit]) -> Decisions:
    """Store `edit` of the account that `name` names when the lock is held."""
    return env.store.edit_decisions(lambda now: edit(now.find(name).id)(now))


def _update(env: Env, label: str, **facts: object) -> Decisions:
    def change(decisions: Decisions) -> Decisions:
        return decisions.with_account(decisions.find(label).model_copy(update=facts))

    return env.store.edit_decisions(change)


def _tell(decisions: Decisions, label: str, what: str, *, as_json: bool) -> None:
    account = decisions.find(label)
    if as_json:
        show_json(row(account, decisions))
    else:
        click.echo(f"{account.label} {what}.")
    tell_limits(decisions)


@accounts.command("remove")
@click.argument("label", shell_complete=labels)
@click.option("--yes", is_flag=True, help="Remove without confirmation.")
@json_option
@pass_world
def remove_command(env: Env, label: str, yes: bool, as_json: bool) -> None:
    """Delete an account and its token from this computer."""
    before = env.store.read_decisions()
    account = before.find(label)
    if not yes:
        _confirm_removal(env, account)
    decisions = _edit(env, account.id, lambda one: edits.removed(one, env.now()))
    home = decisions.home.label if decisions.home else None
    if as_json:
        show_json({"removed": account.label, "id": account.id, "home": home})
    else:
        click.echo(f"Removed account {account.label}.")
    if account.login:
        note(f"GitHub accepts its token until you revoke it: https://{account.host}/settings/applications")
    if account is before.home and home:
        note(f"{home} is the home account now")


def _confirm_removal(env: Env, account: Account) -> None:
    if not env.interactive():
        raise InvalidInput("not a terminal: pass --yes to remove the account without confirmation")
    click.echo(f"This deletes {account.label} ({who(account)}) and its token.", err=True)
    answer = click.prompt("Type its label to go on", default="", show_default=False, err=True)
    if answer.strip() != account.label:
        raise InvalidInput("nothing was removed: this is not its label")
