"""The command ``copilot-balancer``: gathers the commands and says what a failure looks like.

Laws of this file:

1. A known error is one sentence on stderr and exit code 1; a wrong call is click's usage and 2; anything else is a bug
   and shows its traceback.
2. A noun with several verbs has a file of its own (``cli_accounts``, ``cli_terms``); what they share: ``terminal``.
"""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from copilot_balancer import __version__
from copilot_balancer.cli.accounts.commands import accounts
from copilot_balancer.cli.accounts.terms import terms
from copilot_balancer.cli.config import config
from copilot_balancer.cli.dashboard.command import dashboard
from copilot_balancer.cli.doctor import doctor
from copilot_balancer.cli.env import Env, json_option, pass_world, show_json
from copilot_balancer.cli.events import events
from copilot_balancer.cli.explain import explain, replay_command
from copilot_balancer.cli.models import models
from copilot_balancer.cli.run import console, env_command, exec_command, run, web
from copilot_balancer.cli.service import service
from copilot_balancer.cli.setup import setup
from copilot_balancer.cli.status import status, tell_limits
from copilot_balancer.cli.usage import usage
from copilot_balancer.errors import BalancerError
from copilot_balancer.rules import edits
from copilot_balancer.text import printable

_INSTALLING = {
    "bash": '# to use it: put into ~/.bashrc:  eval "$(copilot-balancer completion bash)"',
    "fish": "# to use it: copilot-balancer completion fish > ~/.config/fish/completions/copilot-balancer.fish",
    "zsh": '# to use it: put into ~/.zshrc:  eval "$(copilot-balancer completion zsh)"',
}


@click.command("completion")
@click.argument("shell", type=click.Choice(sorted(_INSTALLING)), required=False)
@click.pass_context
@pass_world
def completion(env: Env, context: click.Context, shell: str | None) -> None:
    """Print the script that completes commands in your shell."""
    named = Path(env.environ.get("SHELL", "")).name
    shell = shell or (named if named in _INSTALLING else "bash")
    completing = get_completion_class(shell)
    assert completing is not None
    root = context.find_root()
    script = completing(root.command, {}, "copilot-balancer", "_COPILOT_BALANCER_COMPLETE").source()
    click.echo(f"{script.strip()}{os.linesep}{_INSTALLING[shell]}")


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
    context.ensure_object(Env)


@cli.command()
@click.argument("switch", type=click.Choice(["on", "off"]))
@json_option
@pass_world
def balancing(env: Env, switch: str, *, as_json: bool) -> None:
    """Turn balancing on or off. Off: only the home account serves, and its refusals reach the client."""
    decisions = env.store.edit_decisions(edits.balanced(on=switch == "on"))
    if as_json:
        show_json({"balancing": decisions.balancing})
        return
    click.echo(f"Balancing is {switch}.")
    tell_limits(decisions)


@cli.command("addon-path")
def addon_path() -> None:
    """Print the path of the script for mitmproxy. Run it: mitmdump -s "$(copilot-balancer addon-path)"."""
    click.echo(Path(__file__).parent.parent / "script.py")


@cli.command()
@click.option("--stay", is_flag=True, help="Keep it up afterwards, and print a curl line to play with.")
@click.pass_context
def demo(context: click.Context, *, stay: bool) -> None:
    """Show a failover live: no account, no network."""
    from copilot_balancer.cli.demo.demo import run_demo  # noqa: PLC0415 - it brings mitmproxy, which the others do not need

    context.exit(run_demo(stay=stay))


# ── commands that stand in files of their own ────────────────────────────────────────────────────────────────────────

cli.add_command(accounts)
cli.add_command(completion)
cli.add_command(config)
cli.add_command(console)
cli.add_command(dashboard)
cli.add_command(doctor)
cli.add_command(env_command)
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
