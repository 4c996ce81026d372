"""What all commands that bring an account in have in common: ask whose it is, let it in, tell what became of it.

Laws of this file:

1. GitHub is asked first, then the user where there is something to decide, and the store is changed last, once.
2. Who may come in is decided by ``admission`` alone.
3. What GitHub said in passing (models, quota) goes into the memory; losing that is no reason to fail.
"""

from collections.abc import Callable, Sequence

import click
from pydantic import SecretStr

from copilot_balancer.accounts import Account, Decisions
from copilot_balancer.admission import Admitted, Arrival, admit, moved, unusable
from copilot_balancer.catalogue import Catalogue, learnt, shelf
from copilot_balancer.cli_terms import ask
from copilot_balancer.cli_views import row, tell_limits, who
from copilot_balancer.errors import InvalidInput, StoreError
from copilot_balancer.github import Identity
from copilot_balancer.memory import AccountState, Memory
from copilot_balancer.terminal import World, note, show_facts, show_json


def checked(token: SecretStr) -> SecretStr:
    """`token`, before anybody is asked about it.

    Raises:
        InvalidInput: by its looks alone it can be nobody's.

    """
    if reason := unusable(token):
        raise InvalidInput(reason)
    return token


def verified(world: World, token: SecretStr, host: str, label: str | None, identity: Identity | None = None) -> Arrival:
    """Ask GitHub whose `token` it is (unless `identity` says so), and the Copilot API how it takes it."""
    identity = identity or world.github.whoami(checked(token), host)
    return Arrival(token, host, identity, label, world.github.access(token, identity))


def let_in(
    world: World,
    arrivals: Sequence[Arrival],
    *,
    as_json: bool,
    guard: Callable[[Decisions], object] | None = None,
) -> None:
    """Store what arrives, remember what was learnt about it, and tell both.

    Args:
        world: the outside world.
        arrivals: all or none of them come in.
        as_json: tell it to a program; then nobody is asked about GitHub's terms.
        guard: asked under the lock before anything changes; what it raises stops the change.

    Raises:
        InvalidInput: one of them may not come in.

    """
    model_ttl = world.settings().settings.model_ttl
    admitted: list[Admitted] = []

    def change(decisions: Decisions) -> Decisions:
        admitted.clear()
        if guard is not None:
            guard(decisions)
        for arrival in arrivals:
            decisions, one = admit(decisions, arrival, world.now())
            admitted.append(one)
        return decisions

    decisions = world.store.edit_decisions(change)
    told = list(zip(arrivals, admitted, strict=True))
    for arrival, one in told:
        remember(world, arrival, one, model_ttl)
    if as_json:
        show_json([row(decisions.find(one.account.id), decisions) for one in admitted])
    for arrival, one in told:
        if not as_json:
            _tell(world, arrival, one)
        _tell_what_is_unknown(arrival, one)
    new = any(one.new for one in admitted)
    tell_limits(decisions if as_json else _ask_for_terms(world, decisions, new=new))
    if not as_json and len(decisions.accounts) == 1 and new:
        click.echo("\nStart a client with the proxy:  copilot-balancer exec -- opencode")
        click.echo("Or the proxy alone:             copilot-balancer run")


def _tell(world: World, arrival: Arrival, admitted: Admitted) -> None:
    account = admitted.account
    click.echo(f"{'Added' if admitted.new else 'Refreshed'} account {account.label}")
    facts = {
        "login": who(account),
        "plan": account.plan or "unknown",
        "API host": account.api_host,
        "stored in": str(world.store.accounts_path),
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
            "GitHub was not asked whose token this is, so nothing here notices when it is an account that you have "
            "already, or a second one on Copilot Free"
        )
    if arrival.label not in (None, admitted.account.label):
        note(f"this account was here already and keeps its label, {admitted.account.label}")


def remember(world: World, arrival: Arrival, admitted: Admitted, model_ttl: float) -> None:
    """What was learnt under an older id goes with the account to its real one, and what GitHub said now is added."""
    account, old_id = admitted.account, admitted.old_id
    try:
        before = world.store.read_memory()
        if old_id is not None:
            before = world.store.merge_memory(moved(before, old_id, account.id))
        if arrival.identity is not None:
            world.store.merge_memory(Memory({account.id: _learnt(arrival, account, before, world.now(), model_ttl)}))
        if arrival.access is not None and arrival.access.models is not None:
            kept = shelf(account, arrival.access.models, world.now())
            world.store.merge_catalogue(Catalogue({account.id: kept}))
    except StoreError as error:
        note(f"what was learnt about this account is forgotten: {error}")


def _learnt(arrival: Arrival, account: Account, before: Memory, now: float, model_ttl: float) -> AccountState:
    models = arrival.access.models if arrival.access else None
    state = AccountState(credential=account.fingerprint)
    if models is not None:
        state = learnt(account, models, before.accounts.get(account.id), now, model_ttl)
    state.quota = dict(arrival.identity.quota) if arrival.identity else {}
    return state


def _ask_for_terms(world: World, decisions: Decisions, *, new: bool) -> Decisions:
    """With a second account that is new: show the rules and ask, where somebody can be asked."""
    if decisions.terms_missing and new and world.interactive():
        click.echo()
        ask(world)
        return world.store.read_decisions()
    return decisions
