"""``copilot-balancer terms``: show GitHub's rules about several accounts, and store that the user accepted them.

Laws of this file:

1. The rules are GitHub's; each names its source. They are in our words, except for what stands in quotation marks.
2. Nothing accepts for the user: ``--yes`` is typed by a person, and until then only the first account serves.
"""

from dataclasses import asdict, dataclass

import click

from copilot_balancer.cli.env import Env, pass_world, show_json
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules import edits
from copilot_balancer.text import day, iso, wrapped


@dataclass(frozen=True)
class Rule:
    """One rule, in plain words."""

    title: str
    text: str
    source: str


RULES = (
    Rule(
        "One free account",
        "A person or a company may have one free GitHub account, not more. A second account on Copilot Free is not "
        "taken in here.",
        "GitHub Terms of Service, B.3",
    ),
    Rule(
        "No account sharing",
        "A login may be used by one person only. Add accounts that are yours; never a colleague's or a friend's.",
        "GitHub Terms of Service, B.3",
    ),
    Rule(
        "No shared tokens",
        "API tokens may not be shared to exceed GitHub's rate limits.",
        "GitHub Terms of Service, H",
    ),
    Rule(
        "Ten tokens",
        "GitHub keeps ten tokens for each user, app and scope. An eleventh login takes the oldest one away, on "
        "whatever machine it is in use.",
        "GitHub Docs, OAuth token limit",
    ),
    Rule(
        "Suspension",
        'GitHub has warned people, and then taken Copilot from them, for "multiple accounts to circumvent billing and '
        'usage limits". Sending a request on with another account because the first one is limited can be seen as '
        "that. The risk falls on every account that takes part, an employer's seat included.",
        "mails quoted in ericc-ch/copilot-api#84 and jjleng/copilot-more#50",
    ),
    Rule(
        "A seat from an organisation",
        "Copilot Business and Enterprise stand under the organisation's contract and policies: which content is "
        "excluded, which models are allowed, where data goes. Private code on the company's seat, or company code on "
        "a private one, can break the employer's rules even where GitHub's allow it.",
        "your organisation",
    ),
)

_HEAD = "GitHub's rules for a person with several accounts, in plain words:"
_FOOT = (
    "copilot-balancer changes none of this: it uses your accounts as you would by hand, and you answer for them. Until "
    "you accept, only the first account serves."
)


def show_rules() -> None:
    """Print the rules for people."""
    click.echo(wrapped(_HEAD))
    for number, rule in enumerate(RULES, 1):
        click.echo()
        click.echo(wrapped(f"{rule.title}. {rule.text} [{rule.source}]", f"{number}. "))
    click.echo()
    click.echo(wrapped(_FOOT))
    click.echo()


def ask(env: Env) -> bool:
    """Show the rules, ask once, store a yes with its date, and return whether it was one."""
    show_rules()
    accepted = click.confirm("Do you accept, and are all these accounts your own?")
    if accepted:
        accept(env)
    return accepted


def accept(env: Env) -> None:
    """Store that the user accepted, now; an earlier date is kept."""
    accepted = env.store.edit_decisions(edits.accepted(env.now())).terms_accepted_at
    click.echo(f"Accepted on {day(accepted or 0.0)}: every account may serve.")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@pass_world
def terms(env: Env, context: click.Context, as_json: bool) -> None:
    """Show or accept GitHub's rules about several accounts.

    Until they are accepted, only the first account serves.
    """
    if context.invoked_subcommand is not None:
        return
    accepted = env.store.read_decisions().terms_accepted_at
    if as_json:
        show_json(
            {"accepted_at": None if accepted is None else iso(accepted), "rules": [asdict(rule) for rule in RULES]}
        )
        return
    show_rules()
    if accepted is None:
        click.echo("You have not accepted yet: `copilot-balancer terms accept`")
    else:
        click.echo(f"You accepted on {day(accepted)}.")


@terms.command("accept")
@click.option("--yes", is_flag=True, help="Accept without confirmation.")
@pass_world
def accept_command(env: Env, yes: bool) -> None:
    """Accept GitHub's rules, so that a second account may serve."""
    accepted = env.store.read_decisions().terms_accepted_at
    if accepted is not None:
        click.echo(f"You accepted on {day(accepted)} already.")
    elif yes:
        accept(env)
    elif not env.interactive():
        raise InvalidInput("not a terminal: read `copilot-balancer terms`, then `copilot-balancer terms accept --yes`")
    elif not ask(env):
        raise InvalidInput("not accepted: only the first account serves")
