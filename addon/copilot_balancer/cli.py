"""The command ``copilot-balancer``: gathers the commands and says what a failure looks like.

Laws of this file:

1. A known error is one sentence on stderr and exit code 1; a wrong call is click's usage and 2; anything else is a bug
   and shows its traceback.
2. A noun with several verbs has a file of its own (``cli_accounts``, ``cli_terms``); what they share: ``terminal``.
"""

from pathlib import Path

import click

from copilot_balancer import __version__, edits
from copilot_balancer.cli_accounts import accounts, tell_limits
from copilot_balancer.cli_completion import completion
from copilot_balancer.cli_config import config
from copilot_balancer.cli_dashboard import dashboard
from copilot_balancer.cli_doctor import doctor
from copilot_balancer.cli_events import events
from copilot_balancer.cli_explain import explain, replay_command
from copilot_balancer.cli_models import models
from copilot_balancer.cli_run import console, env, exec_command, run, web
from copilot_balancer.cli_service import service
from copilot_balancer.cli_setup import setup
from copilot_balancer.cli_status import status
from copilot_balancer.cli_terms import terms
from copilot_balancer.cli_usage import usage
from copilot_balancer.errors import BalancerError, printable
from copilot_balancer.terminal import World, json_option, pass_world, show_json


class Program(click.Group):
    """A group whose known errors are one sentence each."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BalancerError as error:
            click.echo(f"error: {printable(str(error), 2000)}", err=True)
            raise click.exceptions.Exit(1) from None


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="copilot-balancer")
@click.pass_context
def cli(context: click.Context) -> None:
    """Answer Copilot requests with another of your own accounts when one is limited."""
    context.ensure_object(World)


@cli.command()
@click.argument("switch", type=click.Choice(["on", "off"]))
@json_option
@pass_world
def balancing(world: World, switch: str, *, as_json: bool) -> None:
    """Turn balancing on or off. Off: only the home account serves, and its refusals reach the client."""
    decisions = world.store.edit_decisions(edits.balanced(on=switch == "on"))
    if as_json:
        show_json({"balancing": decisions.balancing})
        return
    click.echo(f"Balancing is {switch}.")
    tell_limits(decisions)


@cli.command("addon-path")
def addon_path() -> None:
    """Print the path of the script for mitmproxy. Run it: mitmdump -s "$(copilot-balancer addon-path)"."""
    click.echo(Path(__file__).with_name("script.py"))


@cli.command()
@click.option("--stay", is_flag=True, help="Keep it up afterwards, and print a curl line to play with.")
@click.pass_context
def demo(context: click.Context, *, stay: bool) -> None:
    """Show a failover live: no account, no network."""
    from copilot_balancer.demo import run_demo  # noqa: PLC0415 - it brings mitmproxy, which the others do not need

    context.exit(run_demo(stay=stay))


# ── commands that stand in files of their own ────────────────────────────────────────────────────────────────────────

cli.add_command(accounts)
cli.add_command(completion)
cli.add_command(config)
cli.add_command(console)
cli.add_command(dashboard)
cli.add_command(doctor)
cli.add_command(env)
cli.add_command(events)
events.add_command(replay_command)
cli.add_command(exec_command)
cli.add_command(explain)
cli.add_command(models)
cli.add_command(run)
cli.add_command(service)
cli.add_command(setup)
cli.add_command(status)
cli.add_command(terms)
cli.add_command(usage)
cli.add_command(web)


def main() -> None:
    """Run the command line."""
    cli(prog_name="copilot-balancer")
