"""``copilot-balancer strategy`` and ``routes``: what the dashboard can decide, from the command line.

Laws of this file:

1. Every change is one ``Store.edit_decisions`` with an edit of ``rules/edits``; a running proxy uses it in a second.
2. The first change of routes takes those of the settings over; ``reset`` forgets the decision, not the settings.
3. A row is named by its number in ``routes list``; a row that changed meanwhile is not touched.
"""

from collections.abc import Sequence
from typing import get_args

import click

from copilot_balancer.cli.completion import labels, models
from copilot_balancer.cli.config import DECIDED, origins, route_text
from copilot_balancer.cli.env import Env, json_option, note, pass_world, show_json
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Decisions, RouteTable, Strategy, normalise_label
from copilot_balancer.rules.edits import Routes
from copilot_balancer.views.names import known_models, nearest, unknown_model

# ── strategy ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command()
@click.argument("name", type=click.Choice(get_args(Strategy)), required=False)
@click.option("--reset", is_flag=True, help="Use the strategy of the settings again.")
@json_option
@pass_world
def strategy(env: Env, name: Strategy | None, *, reset: bool, as_json: bool) -> None:
    """Choose how accounts are chosen; alone: show how."""
    if name and reset:
        raise click.UsageError("NAME or --reset, not both.")
    decisions = env.store.edit_decisions(edits.ordered_by(name)) if name or reset else env.store.read_decisions()
    used = origins(env.settings(with_project=True), decisions)["strategy"][-1]
    if as_json:
        show_json({"strategy": used.value, "source": used.source})
    else:
        click.echo(f"New conversations are assigned by {used.value} ({_from(used.source)}).")


def _from(source: str) -> str:
    return "decided" if source == DECIDED else source if source == "default" else f"from {source}"


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group(invoke_without_command=True)
@click.pass_context
def routes(context: click.Context) -> None:
    """Decide which accounts serve which models; alone: list."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


def _settings(env: Env) -> Routes:
    return env.settings(with_project=True).settings.routes


def _in_force(env: Env, decisions: Decisions) -> Routes:
    return _settings(env) if decisions.routes is None else decisions.routes


@routes.command("list")
@json_option
@pass_world
def list_command(env: Env, as_json: bool = False) -> None:
    """List the routes; the first that matches a model counts."""
    _show(env, env.store.read_decisions(), as_json=as_json)


def _show(env: Env, decisions: Decisions, *, as_json: bool) -> None:
    used = origins(env.settings(with_project=True), decisions)["routes"][-1]
    rows: Routes = used.value
    if as_json:
        show_json({"source": used.source, "routes": [row.model_dump(mode="json") for row in rows]})
        return
    if not rows:
        click.echo("There is no route: every account may serve every model.")
    for number, row in enumerate(rows, 1):
        click.echo(f"{number:3}  {route_text(row)}")
    if rows or used.source == DECIDED:
        click.echo(f"\n({_from(used.source)})")


_model_option = click.option("--model", "-m", "named", multiple=True, shell_complete=models, help="A model or pattern.")
_account_option = click.option(
    "--account", "-a", "accounts", multiple=True, shell_complete=labels, help="An account; the first one serves first."
)
_fallback_option = click.option(
    "--fallback", multiple=True, shell_complete=models, help="A model to use when no account can serve."
)
_switch_option = click.option("--on/--off", "enabled", default=None, help="Whether the route is used.")


@routes.command("add")
@_model_option
@_account_option
@_fallback_option
@json_option
@pass_world
def add_command(
    env: Env, named: Sequence[str], accounts: Sequence[str], fallback: Sequence[str], as_json: bool
) -> None:
    """Add a route for one or more --model.

    copilot-balancer routes add --model 'claude-*' --account work --account personal
    """
    if not named:
        raise click.UsageError("Say at least one --model.")
    row = _row(env, models=named, accounts=accounts, fallback=fallback)
    _show(env, env.store.edit_decisions(edits.route_added(_settings(env), row)), as_json=as_json)


@routes.command("edit")
@click.argument("number", type=click.IntRange(1))
@_model_option
@_account_option
@_fallback_option
@_switch_option
@json_option
@pass_world
def edit_command(
    env: Env,
    *,
    number: int,
    named: Sequence[str],
    accounts: Sequence[str],
    fallback: Sequence[str],
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Change a route; what is not named stays as it is."""
    old = _numbered(env, number)
    new = _row(
        env,
        models=named or old.models,
        accounts=accounts or old.accounts,
        fallback=fallback or old.fallback,
        enabled=old.enabled if enabled is None else enabled,
        known=old.accounts,
    )
    _show(env, env.store.edit_decisions(edits.route_replaced(_settings(env), old, new)), as_json=as_json)


@routes.command("move")
@click.argument("number", type=click.IntRange(1))
@click.argument("to", type=click.IntRange(1))
@json_option
@pass_world
def move_command(env: Env, number: int, to: int, as_json: bool) -> None:
    """Move route NUMBER to the place TO."""
    row = _numbered(env, number)
    _show(env, env.store.edit_decisions(edits.route_moved(_settings(env), row, to - number)), as_json=as_json)


@routes.command("remove")
@click.argument("number", type=click.IntRange(1))
@json_option
@pass_world
def remove_command(env: Env, number: int, as_json: bool) -> None:
    """Remove a route."""
    row = _numbered(env, number)
    _show(env, env.store.edit_decisions(edits.route_deleted(_settings(env), row)), as_json=as_json)


@routes.command("reset")
@json_option
@pass_world
def reset_command(env: Env, as_json: bool) -> None:
    """Use the routes of the settings again."""
    _show(env, env.store.edit_decisions(edits.routes_of_settings()), as_json=as_json)


def _numbered(env: Env, number: int) -> RouteTable:
    rows = _in_force(env, env.store.read_decisions())
    if number > len(rows):
        raise InvalidInput(f"there is no route {number} (there are {len(rows)}: `copilot-balancer routes list`)")
    return rows[number - 1]


def _row(
    env: Env,
    *,
    models: Sequence[str],
    accounts: Sequence[str],
    fallback: Sequence[str],
    enabled: bool = True,
    known: Sequence[str] = (),
) -> RouteTable:
    """A route of names that are allowed; `known`: accounts that the row named before, stored or not.

    Raises:
        InvalidInput: a name is not allowed, or no account is called so.

    """
    decisions = env.store.read_decisions()
    stored = [account.label for account in decisions.accounts]
    labels = tuple(normalise_label(name) for name in accounts)
    for label in labels:
        if label not in stored and label not in known:
            raise InvalidInput(f"no account is called {label} ({nearest(label, stored)})")
    try:
        row = RouteTable(models=tuple(models), accounts=labels, fallback=tuple(fallback), enabled=enabled)
    except ValueError:
        raise InvalidInput("a model or pattern is 1 to 200 printable ASCII characters without spaces") from None
    listed = known_models(env.store.read_memory(), decisions)
    for model in (*row.models, *row.fallback):
        if sentence := unknown_model(model, listed):
            note(sentence)
    return row
