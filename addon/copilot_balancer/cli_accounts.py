"""``copilot-balancer accounts``: bring accounts in, look at them, decide about them.

Laws of this file:

1. A token comes in by stdin, by a hidden prompt, or from another program's file; never by an argument or the
   environment. It never goes out: a credential is shown by its fingerprint, and only in JSON.
2. Every change is one ``Store.edit_decisions``; a running proxy sees it within a second.
3. What is decided elsewhere is only told here: who may come in stands in ``admission``.
"""

import sys

import click
from pydantic import SecretStr

from copilot_balancer.accounts import (
    GITHUB,
    Account,
    Decisions,
    check_token,
    normalise_domain,
    normalise_label,
)
from copilot_balancer.admission import Admitted, Arrival, admit, moved
from copilot_balancer.cli_terms import ask
from copilot_balancer.errors import InvalidInput, StoreError
from copilot_balancer.logins import Found, find_opencode
from copilot_balancer.terminal import World, iso, note, pass_world, show_facts, show_json, show_table

TOKEN_BYTES = 4096
"""The longest token that ``check_token`` takes."""


@click.group(invoke_without_command=True)
@click.pass_context
def accounts(context: click.Context) -> None:
    """Bring in, list and change accounts. Alone: list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


# ── bring in ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@accounts.command("import")
@click.option(
    "--from",
    "source",
    type=click.Choice(["stdin", "opencode"]),
    required=True,
    help="Where the token is: typed or piped in, or in opencode's own login file.",
)
@click.option("--label", help="What to call the account (with --from opencode: default is its login).")
@click.option("--host", help="The login host, for a token from stdin: github.com (default) or NAME.ghe.com.")
@click.option("--no-verify", is_flag=True, help="Do not ask GitHub whose token it is.")
@pass_world
def import_command(world: World, source: str, label: str | None, host: str | None, no_verify: bool) -> None:
    """Bring in an account by its token. GitHub is asked whose it is; the same account again is refreshed."""
    if label is not None:
        label = normalise_label(label)
    found = _from_stdin(world, label, host) if source == "stdin" else _from_opencode(world, label, host)
    arrivals = [
        Arrival(one.token, one.host, None if no_verify else world.github.whoami(one.token, one.host), label)
        for one in found
    ]
    admitted: list[Admitted] = []

    def change(decisions: Decisions) -> Decisions:
        admitted.clear()
        for arrival in arrivals:
            decisions, one = admit(decisions, arrival, world.now())
            admitted.append(one)
        return decisions

    decisions = world.store.edit_decisions(change)
    for arrival, one in zip(arrivals, admitted, strict=True):
        _tell(world, arrival, one)
    tell_limits(_ask_for_terms(world, decisions, new=any(one.new for one in admitted)))
    if len(decisions.accounts) == 1 and admitted[0].new:
        click.echo('\nStart the proxy:  mitmdump -s "$(copilot-balancer addon-path)"')


def _from_stdin(world: World, label: str | None, host: str | None) -> list[Found]:
    if label is None:
        raise InvalidInput("a token from stdin needs a --label: what do you call this account?")
    login_host = normalise_domain(host or GITHUB)
    token = _typed() if world.interactive() else _piped()
    check_token(token.get_secret_value())
    return [Found(token, login_host, "stdin")]


def _typed() -> SecretStr:
    return SecretStr(click.prompt("Token (not shown)", hide_input=True, err=True).strip())


def _piped() -> SecretStr:
    return SecretStr(sys.stdin.buffer.read(TOKEN_BYTES + 64).decode("ascii", "replace").strip())


def _from_opencode(world: World, label: str | None, host: str | None) -> list[Found]:
    if host is not None:
        raise InvalidInput("--host is for a token from stdin: opencode's file says where its token belongs")
    found = find_opencode(world.environ, world.home)
    if label is not None and len(found) > 1:
        raise InvalidInput(
            f"opencode holds {len(found)} logins, which cannot all be called {label}: leave --label away"
        )
    for one in found:
        click.echo(f"Found a login in {one.where}", err=True)
    return found


def _tell(world: World, arrival: Arrival, admitted: Admitted) -> None:
    account = admitted.account
    click.echo(f"{'Added' if admitted.new else 'Refreshed'} account {account.label}")
    show_facts(
        {
            "login": f"{account.login or 'not verified'} on {account.host}",
            "plan": account.plan or "unknown",
            "API host": account.api_host,
            "stored in": str(world.store.accounts_path),
        }
    )
    for warning in arrival.identity.warnings if arrival.identity else ():
        note(warning)
    if arrival.identity is None and admitted.new:
        note(
            "GitHub was not asked whose token this is, so nothing here notices when it is an account that you have "
            "already, or a second one on Copilot Free"
        )
    if arrival.label not in (None, account.label):
        note(f"this account was here already and keeps its label, {account.label}")
    if admitted.old_id:
        _keep_history(world, admitted.old_id, account.id)


def _keep_history(world: World, old_id: str, new_id: str) -> None:
    """What was learnt about the account goes with it to its real id; losing that is no reason to fail."""
    try:
        world.store.merge_memory(moved(world.store.read_memory(), old_id, new_id))
    except StoreError as error:
        note(f"what was learnt about this account is forgotten: {error}")


def _ask_for_terms(world: World, decisions: Decisions, *, new: bool) -> Decisions:
    """With a second account that is new: show the rules and ask, where somebody can be asked."""
    if decisions.terms_missing and new and world.interactive():
        click.echo()
        ask(world)
        return world.store.read_decisions()
    return decisions


def serves(account: Account, decisions: Decisions) -> bool:
    """Whether the user's decisions let `account` serve, by the pool's rule; what the proxy learnt stands elsewhere."""
    if decisions.balancing:
        return account.enabled and account in decisions.serving()
    return account.enabled and account is decisions.home


def tell_limits(decisions: Decisions) -> None:
    """Tell what keeps accounts from serving and is easily forgotten."""
    serving = [account.label for account in decisions.accounts if serves(account, decisions)]
    if not decisions.accounts:
        return
    if not any(account.enabled for account in decisions.accounts):
        why = f"until you enable one: `copilot-balancer accounts enable {decisions.accounts[0].label}`"
    elif not decisions.balancing:
        why = "while balancing is off: `copilot-balancer balancing on`"
    elif decisions.terms_missing:
        why = "until you accept GitHub's rules: `copilot-balancer terms accept`"
    else:
        return
    note(f"only {serving[0]} serves {why}" if serving else f"nobody serves {why}")


# ── look ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@accounts.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@pass_world
def list_command(world: World, as_json: bool = False) -> None:
    """List the accounts, oldest first. No token is shown."""
    decisions = world.store.read_decisions()
    if as_json:
        show_json([_row(account, decisions) for account in decisions.accounts])
        return
    if not decisions.accounts:
        click.echo("No account is stored yet. To bring one in: copilot-balancer accounts import --help")
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
        "on" if account.enabled else "off",
    )


def _row(account: Account, decisions: Decisions) -> dict[str, object]:
    home = account is decisions.home
    return {
        "label": account.label,
        "id": account.id,
        "login": account.login,
        "host": account.host,
        "api_host": account.api_host,
        "plan": account.plan,
        "enabled": account.enabled,
        "home": home,
        "serving": serves(account, decisions),
        "fence": account.fence,
        "fingerprint": account.fingerprint,
        "added_at": iso(account.added_at),
    }


@accounts.command("path")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@pass_world
def path_command(world: World, as_json: bool) -> None:
    """Print where accounts, memory and settings stand."""
    store = world.store
    places = {
        "accounts": str(store.accounts_path),
        "state": str(store.state_path),
        "config": str(world.paths.config / "config.toml"),
    }
    if as_json:
        show_json(places)
    else:
        show_facts(places)


# ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@accounts.command("use")
@click.argument("label")
@pass_world
def use_command(world: World, label: str) -> None:
    """Make an account the home account. It answers /models, and serves alone while balancing is off."""

    def change(decisions: Decisions) -> Decisions:
        return decisions.model_copy(update={"home_id": decisions.find(label).id})

    decisions = world.store.edit_decisions(change)
    click.echo(f"{decisions.find(label).label} is the home account.")
    tell_limits(decisions)


@accounts.command("enable")
@click.argument("label")
@pass_world
def enable_command(world: World, label: str) -> None:
    """Let an account serve. This also ends the rest of an account that GitHub blocked for abuse."""
    decisions = _update(world, label, enabled=True, enabled_at=world.now())
    click.echo(f"{decisions.find(label).label} is on.")
    tell_limits(decisions)


@accounts.command("disable")
@click.argument("label")
@pass_world
def disable_command(world: World, label: str) -> None:
    """Keep an account, but send nothing with it."""
    decisions = _update(world, label, enabled=False)
    click.echo(f"{decisions.find(label).label} is off.")
    tell_limits(decisions)


def _update(world: World, label: str, **facts: object) -> Decisions:
    def change(decisions: Decisions) -> Decisions:
        return decisions.with_account(decisions.find(label).model_copy(update=facts))

    return world.store.edit_decisions(change)


@accounts.command("remove")
@click.argument("label")
@click.option("--yes", is_flag=True, help="Remove without being asked.")
@pass_world
def remove_command(world: World, label: str, yes: bool) -> None:
    """Delete an account and its token from this computer. Without --yes its label must be typed."""
    before = world.store.read_decisions()
    account = before.find(label)
    if not yes:
        _confirm_removal(world, account)
    decisions = world.store.edit_decisions(lambda now: now.without(now.find(account.id).id, world.now()))
    click.echo(f"Removed account {account.label}.")
    if account.login:
        note(f"GitHub goes on accepting its token until you revoke it: https://{account.host}/settings/applications")
    if account is before.home and decisions.home:
        note(f"{decisions.home.label} is the home account now")


def _confirm_removal(world: World, account: Account) -> None:
    if not world.interactive():
        raise InvalidInput("nothing was removed: nobody can be asked here, so say --yes")
    click.echo(f"This deletes {account.label} ({account.login or 'not verified'} on {account.host}) and its token.")
    if click.prompt("Type its label to go on", default="", show_default=False).strip() != account.label:
        raise InvalidInput("nothing was removed: that is not its label")
