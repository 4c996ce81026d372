"""``copilot-balancer status``: accounts, quota, cooldowns and running proxies, printed once.

Laws of this file:

1. What is shown is what the dashboard shows (``overview``) and what ``copilot.status`` prints (``views.status``).
2. Exit code 0: some account can serve at this moment; 1: none can.
"""

import re
from collections.abc import Sequence

import click

from copilot_balancer.cli.env import Env, coloured, json_option, note, pass_world, show_json
from copilot_balancer.errors import StoreError
from copilot_balancer.rules.accounts import Decisions, Status
from copilot_balancer.rules.snapshot import AccountView
from copilot_balancer.store.ledger import Ledger, Spent, day_of
from copilot_balancer.views.metrics import prometheus, status_line
from copilot_balancer.views.overview import look
from copilot_balancer.views.status import limits, status_facts, status_text


def tell_limits(decisions: Decisions) -> None:
    """Print as a note what keeps accounts from serving and is easily forgotten."""
    if told := limits(decisions):
        note(told)


def seen_by_the_pool(env: Env, decisions: Decisions) -> dict[str, AccountView]:
    """Account id -> the account as a proxy that started now would see it."""
    seen = look(env.paths, env.now(), decisions=decisions)
    return {view.id: view for view in seen.pool.accounts}


_COLOURS = {Status.READY: "green", Status.COOLING: "yellow", Status.NEEDS_LOGIN: "red", Status.DISABLED: "red"}


def _coloured(text: str, labels: Sequence[str]) -> str:
    """The status text with each account's status, which follows its label on a line of its own, in a colour."""
    words = "|".join(re.escape(status) for status in _COLOURS)
    names = "|".join(re.escape(label) for label in labels)
    head = re.compile(rf"^((?:{names})(?: \(home\))? +)({words})(?= |$)", re.MULTILINE)
    return head.sub(lambda found: found[1] + coloured(found[2], _COLOURS[Status(found[2])]), text) if labels else text


@click.command()
@click.option("--line", "form", flag_value="line", help="One line for a status bar (tmux, starship).")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "line", "json", "prometheus")),
    help="How to print it. prometheus: metrics for a textfile collector.  [default: text]",
)
@json_option
@pass_world
@click.pass_context
def status(context: click.Context, env: Env, *, form: str | None, as_json: bool) -> None:
    """Show accounts, quota, cooldowns and running proxies.

    Exit code 1: no account can serve now.
    """
    seen = look(env.paths, env.now(), env.folder())
    if as_json or form == "json":
        show_json(status_facts(seen))
    elif form == "line":
        click.echo(status_line(seen))
    elif form == "prometheus":
        click.echo(prometheus(seen, _spent_today(env)), nl=False)
    else:
        click.echo(_coloured(status_text(seen), [view.label for view in seen.pool.accounts]))
    context.exit(int(not seen.serves))


def _spent_today(env: Env) -> list[Spent]:
    """What the ledger counted since midnight; a ledger that cannot be read is a note, and the rest is printed."""
    today = day_of(env.now(), env.zone)
    try:
        return [row for _, row in Ledger(env.paths.state).days(today, today)]
    except StoreError as error:
        note(str(error))
        return []
