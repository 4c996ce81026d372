"""``copilot-balancer models``: which account has which model, as stored; and refreshing that.

Laws of this file:

1. Without ``refresh`` no request is made: what is shown is what a proxy or a command last stored.
2. Facts about an older credential of an account are not shown: another one may have other models.
3. ``refresh`` asks all accounts at the same time; one that fails is a note.
"""

from collections.abc import Mapping, Sequence

import click

from copilot_balancer.cli.env import (
    Env,
    ask_all,
    coloured,
    json_option,
    note,
    pass_world,
    show_facts,
    show_json,
    show_table,
)
from copilot_balancer.errors import UpstreamError
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.catalogue import Catalogue, Listed, Shelf, learnt, shelf, warnings
from copilot_balancer.rules.state import AccountState, Memory, ModelFact, restored
from copilot_balancer.text import day, duration, iso, printable, wrapped


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
@pass_world
def models(env: Env, context: click.Context, as_json: bool) -> None:
    """List which account has which model, as far as known.

    No request is made; `models refresh` asks the accounts.
    """
    if context.invoked_subcommand is None:
        _show(env, as_json=as_json)


@models.command("refresh")
@json_option
@pass_world
@click.pass_context
def refresh_command(context: click.Context, env: Env, as_json: bool) -> None:
    """Ask each account for its list of models.

    Exit code 1: none answered.
    """
    ttl = env.settings().settings.model_ttl
    accounts = env.store.read_decisions().accounts
    memory = env.store.read_memory()
    learnt_now: dict[str, AccountState] = {}
    shelves: dict[str, Shelf] = {}

    def ask(account: Account) -> Sequence[Listed] | UpstreamError:
        try:
            return env.github.models_of(account)
        except UpstreamError as error:
            return error

    for account, listed in zip(accounts, ask_all(accounts, lambda one: one.label, ask), strict=True):
        if isinstance(listed, UpstreamError):
            note(f"{account.label}: {listed}")
        else:
            shelves[account.id] = shelf(account, listed, env.now())
            learnt_now[account.id] = learnt(account, listed, memory.accounts.get(account.id), env.now(), ttl)
    if learnt_now:
        env.store.merge_memory(Memory(learnt_now))
        env.store.merge_catalogue(Catalogue(shelves))
    _show(env, as_json=as_json)
    context.exit(int(bool(accounts) and not learnt_now))


def _show(env: Env, *, as_json: bool) -> None:
    now = env.now()
    accounts = env.store.read_decisions().accounts
    memory = restored(env.store.read_memory(), now)
    known = [(account, _facts(account, memory, now), _listed_at(account, memory)) for account in accounts]
    told = warnings(env.store.read_catalogue(), accounts)
    if as_json:
        show_json([_row(account, facts, listed_at, told) for account, facts, listed_at in known])
        return
    if not accounts:
        click.echo("No account is stored yet. To add one: copilot-balancer start")
        return
    names = sorted({name for _, facts, _ in known for name in facts})
    if names:
        show_table(("MODEL", "HAS IT", "LACKS IT"), [_line(name, known, now) for name in names])
        click.echo()
    for name in sorted(told):
        click.echo(wrapped(f"{printable(name, 60)}: {told[name]}"))
    show_facts({account.label: _age(listed_at) for account, _, listed_at in known})


def _age(listed_at: float | None) -> str:
    if listed_at is None:
        return "its list is not known yet: `copilot-balancer models refresh`"
    return f"listed its models on {day(listed_at)}"


type _Known = tuple[Account, dict[str, ModelFact], float | None]


def _state(account: Account, memory: Memory) -> AccountState | None:
    state = memory.accounts.get(account.id)
    return state if state and state.credential == account.fingerprint else None


def _facts(account: Account, memory: Memory, now: float) -> dict[str, ModelFact]:
    state = _state(account, memory)
    return {name: fact for name, fact in state.models.items() if fact.until > now} if state else {}


def _listed_at(account: Account, memory: Memory) -> float | None:
    state = _state(account, memory)
    return state.listed_at if state else None


def _line(name: str, known: Sequence[_Known], now: float) -> tuple[str, str, str]:
    has = [account.label for account, facts, _ in known if name in facts and facts[name].has]
    lacks = [
        f"{account.label} ({duration(facts[name].until - now)})"
        for account, facts, _ in known
        if name in facts and not facts[name].has
    ]
    return printable(name, 60), ", ".join(has) or "-", coloured(", ".join(lacks), "yellow") if lacks else "-"


def _row(
    account: Account, facts: dict[str, ModelFact], listed_at: float | None, told: Mapping[str, str]
) -> dict[str, object]:
    return {
        "label": account.label,
        "id": account.id,
        "listed_at": None if listed_at is None else iso(listed_at),
        "models": {
            name: {"has": fact.has, "included": fact.included, "until": iso(fact.until)}
            | ({"warning": told[name]} if name in told else {})
            for name, fact in sorted(facts.items())
        },
    }
