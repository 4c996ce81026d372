"""``accounts add`` and ``accounts login``: GitHub's device flow, and how an account is stored.

Laws of this file:

1. No browser is opened, and nothing is put into the clipboard, unless an option asks for it.
2. Nothing is stored before GitHub has said who logged in and the user has agreed; an interrupt stores nothing.
3. ``login`` never gives an account to another GitHub user.
"""

from collections.abc import Callable, Sequence

import click
from pydantic import SecretStr

from copilot_balancer.cli.accounts.terms import ask
from copilot_balancer.cli.completion import labels
from copilot_balancer.cli.env import Env, json_option, note, pass_world, show_facts, show_json
from copilot_balancer.cli.status import tell_limits
from copilot_balancer.copilot.hosts import GITHUB, normalise_domain
from copilot_balancer.errors import BalancerError, InvalidInput, StoreError
from copilot_balancer.github.admission import Admitted, Arrival, admit, moved, unusable
from copilot_balancer.github.api import Identity
from copilot_balancer.github.device_flow import Show
from copilot_balancer.rules.accounts import Account, Decisions, normalise_label
from copilot_balancer.rules.catalogue import Catalogue, learnt, shelf
from copilot_balancer.rules.state import AccountState, Memory
from copilot_balancer.views.status import row, who


def checked(token: SecretStr) -> SecretStr:
    """`token`, checked before a request is made with it.

    Raises:
        InvalidInput: by its form it cannot be a GitHub token.

    """
    if reason := unusable(token):
        raise InvalidInput(reason)
    return token


def verified(env: Env, token: SecretStr, host: str, label: str | None, identity: Identity | None = None) -> Arrival:
    """Ask GitHub whose `token` it is (unless `identity` says so), and the Copilot API how it takes it."""
    identity = identity or env.github.whoami(checked(token), host)
    return Arrival(token, host, identity, label, env.github.access(token, identity))


def let_in(
    env: Env,
    arrivals: Sequence[Arrival],
    *,
    as_json: bool,
    guard: Callable[[Decisions], object] | None = None,
    last: bool = True,
) -> None:
    """Store accounts and what GitHub said about them, and print both.

    Args:
        env: the outside world.
        arrivals: all or none of them are stored.
        as_json: print JSON; then nobody is asked about GitHub's terms.
        guard: called under the lock before anything changes; what it raises stops the change.
        last: False: the caller asks about GitHub's terms and says what comes next.

    Raises:
        InvalidInput: one of them may not be stored.

    """
    model_ttl = env.settings().settings.model_ttl
    admitted: list[Admitted] = []

    def change(decisions: Decisions) -> Decisions:
        admitted.clear()
        if guard is not None:
            guard(decisions)
        for arrival in arrivals:
            decisions, one = admit(decisions, arrival, env.now())
            admitted.append(one)
        return decisions

    decisions = env.store.edit_decisions(change)
    told = list(zip(arrivals, admitted, strict=True))
    for arrival, one in told:
        remember(env, arrival, one, model_ttl)
    if as_json:
        show_json([row(decisions.find(one.account.id), decisions) for one in admitted])
    for arrival, one in told:
        if not as_json:
            _tell(env, arrival, one)
        _tell_what_is_unknown(arrival, one)
    new = any(one.new for one in admitted)
    if not last:
        return
    tell_limits(decisions if as_json else ask_for_terms(env, decisions, new=new))
    if not as_json and len(decisions.accounts) == 1 and new:
        click.echo("\nStart a client with the proxy:  copilot-balancer exec -- opencode")
        click.echo("Or the proxy alone:             copilot-balancer run")


def _tell(env: Env, arrival: Arrival, admitted: Admitted) -> None:
    account = admitted.account
    click.echo(f"{'Added' if admitted.new else 'Refreshed'} account {account.label}")
    facts = {
        "login": who(account),
        "plan": account.plan or "unknown",
        "API host": account.api_host,
        "stored in": str(env.store.accounts_path),
    }
    if account.credential == "exchange":
        facts["credential"] = "is exchanged for a short-lived one (the API does not take it as it is)"
    if arrival.access and arrival.access.models is not None:
        facts["models"] = str(len(arrival.access.models))
    show_facts(facts)


def _tell_what_is_unknown(arrival: Arrival, admitted: Admitted) -> None:
    for warning in arrival.identity.warnings if arrival.identity else ():
        note(warning)
    if arrival.access and arrival.access.warning:
        note(arrival.access.warning)
    if arrival.identity is None and admitted.new:
        note(
            "GitHub was not asked whose token this is, so it is not noticed when this account is stored already, or is "
            "a second one on Copilot Free"
        )
    if arrival.label not in (None, admitted.account.label):
        note(f"this account is stored already and keeps its label, {admitted.account.label}")


def remember(env: Env, arrival: Arrival, admitted: Admitted, model_ttl: float) -> None:
    """Store what GitHub said now; what was stored under an older id of the account is moved to its real one."""
    account, old_id = admitted.account, admitted.old_id
    try:
        before = env.store.read_memory()
        if old_id is not None:
            before = env.store.merge_memory(moved(before, old_id, account.id))
        if arrival.identity is not None:
            env.store.merge_memory(Memory({account.id: _learnt(arrival, account, before, env.now(), model_ttl)}))
        if arrival.access is not None and arrival.access.models is not None:
            kept = shelf(account, arrival.access.models, env.now())
            env.store.merge_catalogue(Catalogue({account.id: kept}))
    except StoreError as error:
        note(f"what GitHub said about this account was not stored: {error}")


def _learnt(arrival: Arrival, account: Account, before: Memory, now: float, model_ttl: float) -> AccountState:
    models = arrival.access.models if arrival.access else None
    state = AccountState(credential=account.fingerprint)
    if models is not None:
        state = learnt(account, models, before.accounts.get(account.id), now, model_ttl)
    state.quota = dict(arrival.identity.quota) if arrival.identity else {}
    return state


def ask_for_terms(env: Env, decisions: Decisions, *, new: bool) -> Decisions:
    """With a new second account at a terminal: show GitHub's rules and ask; returns the decisions afterwards."""
    if decisions.terms_missing and new and env.interactive():
        click.echo()
        ask(env)
        return env.store.read_decisions()
    return decisions


copy_option = click.option("--copy", is_flag=True, help="Copy the code to the clipboard.")
open_option = click.option("--open", "open_page", is_flag=True, help="Open GitHub's page in your browser.")


@click.command("add")
@click.option("--label", help="The account's label; default is its login.")
@click.option(
    "--host",
    default=GITHUB,
    help="The login host: github.com (default) or NAME.ghe.com, whose own API host only its accounts serve.",
)
@copy_option
@open_option
@click.option("--yes", is_flag=True, help="Store the account without confirmation.")
@json_option
@pass_world
def add_command(
    env: Env, *, label: str | None, host: str, copy: bool, open_page: bool, yes: bool, as_json: bool
) -> None:
    """Log in at GitHub with a code, and store the account.

    Shows the address of a page of GitHub's and a code to type there. The login belongs to the OAuth app that
    oauth_client_id in config.toml names; by default that is opencode's public one, with the scope read:user. So
    GitHub's page names that app, the token counts toward the ten that GitHub keeps for you and this app (an eleventh
    revokes the oldest), and which models you are offered can depend on the app.

    An account of NAME.ghe.com serves what clients send to its own API host, copilot-api.NAME.ghe.com, and no account of
    another host does; a client that names a fence or an account in its proxy URL decides that itself. What clients send
    to github.com's API hosts may be served by any account.
    """
    host = normalise_domain(host)
    if label is not None:
        label = normalise_label(label)
        taken = next((one for one in env.store.read_decisions().accounts if one.label == label), None)
        if taken:
            raise InvalidInput(
                f"the label {label} is taken by {who(taken)}: choose another one, or log in again with "
                f"`copilot-balancer accounts login {label}`"
            )
    if not yes and not env.interactive():
        raise InvalidInput("not a terminal: pass --yes to store the account without confirmation")
    log_in_and_store(env, host, label=label, copy=copy, open_page=open_page, yes=yes, as_json=as_json)


def log_in_and_store(
    env: Env,
    host: str,
    *,
    label: str | None = None,
    copy: bool = False,
    open_page: bool = False,
    yes: bool = False,
    as_json: bool = False,
    last: bool = True,
) -> None:
    """Log in with a code, ask whether the right person did unless `yes`, and store the account; else as `let_in`.

    Raises:
        BalancerError: nothing was stored; which token GitHub knows now is said.

    """
    token = log_in(env, host, copy=copy, open_page=open_page)
    identity = env.github.whoami(token, host)
    click.echo(f"Logged in as {_person(identity, host)}.", err=True)
    if not yes and not click.confirm("Store this account?", default=True, err=True):
        _tell_about_the_token(host)
        raise InvalidInput("nothing was stored")
    try:
        let_in(env, [verified(env, token, host, label, identity)], as_json=as_json, last=last)
    except BalancerError:
        _tell_about_the_token(host)
        raise


@click.command("login")
@click.argument("label", shell_complete=labels)
@copy_option
@open_option
@json_option
@pass_world
def login_command(env: Env, label: str, copy: bool, open_page: bool, as_json: bool) -> None:
    """Log in again with a code, as the same GitHub user."""
    account = env.store.read_decisions().find(label)
    if account.login is None:
        raise InvalidInput(
            f"it was never verified whose account {account.label} is: add it with `copilot-balancer accounts add`, and "
            f"remove {account.label}"
        )
    token = log_in(env, account.host, copy=copy, open_page=open_page)
    try:
        identity = env.github.whoami(token, account.host)
        if identity.id != account.id:
            raise InvalidInput(
                f"you logged in as {_person(identity, account.host)}, but {account.label} is {who(account)}: nothing "
                "was changed. Log out there, or use a private window, and try again"
            )
        arrival = verified(env, token, account.host, None, identity)
        let_in(env, [arrival], as_json=as_json, guard=lambda now: now.find(account.id))
    except BalancerError:
        _tell_about_the_token(account.host)
        raise


def log_in(env: Env, host: str, *, copy: bool, open_page: bool) -> SecretStr:
    """Run the device flow at `host` and return the token.

    Raises:
        InvalidInput: the settings cannot be used.
        UpstreamError: the login failed or timed out, as one sentence.

    """

    def show(prompt: Show) -> None:
        copied = copy and env.copy(prompt.user_code)
        click.echo(f"Open  {prompt.url}", err=True)
        click.echo(f"Type  {prompt.user_code}{'  (copied to the clipboard)' if copied else ''}", err=True)
        if copy and not copied:
            note("the code was not copied: no clipboard program works here (Linux needs xclip, xsel or wl-copy)")
        if open_page and not env.open_page(prompt.url):
            note("no browser could be opened")
        click.echo(f"Waiting for you to log in, {prompt.seconds / 60:.0f} minutes at most ...", err=True)

    client_id = env.settings().settings.oauth_client_id
    return env.github.log_in(host, client_id, show=show, sleep=env.sleep, clock=env.clock)


def _person(identity: Identity, host: str) -> str:
    number = identity.id.partition(":")[2]
    return f"{identity.login} on {host} (id {number}, plan {identity.plan_name or 'unknown'})"


def _tell_about_the_token(host: str) -> None:
    note(f"GitHub accepts the new token until you revoke it: https://{host}/settings/applications")
