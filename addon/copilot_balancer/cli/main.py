"""The command ``copilot-balancer``: the list of commands, grouped for ``--help``, and how a failure is shown.

Laws of this file:

1. A known error is one sentence on stderr and exit code 1; a wrong call is click's usage and exit code 2; anything else
   is a bug and shows its traceback.
2. A noun with several verbs has a file of its own; what the files share is in ``env``.
"""

from collections.abc import Mapping
from pathlib import Path

import click

from copilot_balancer import __version__
from copilot_balancer.cli.accounts.commands import accounts
from copilot_balancer.cli.accounts.terms import terms
from copilot_balancer.cli.clients.setup import setup
from copilot_balancer.cli.completion import completion
from copilot_balancer.cli.config import config
from copilot_balancer.cli.dashboard.command import dashboard
from copilot_balancer.cli.doctor import doctor
from copilot_balancer.cli.env import Env, json_option, pass_world, show_json
from copilot_balancer.cli.events import events
from copilot_balancer.cli.explain import explain, explain_answer, replay_command
from copilot_balancer.cli.models import models
from copilot_balancer.cli.network import commands_way
from copilot_balancer.cli.routes import routes, strategy
from copilot_balancer.cli.run import console, env_command, exec_command, run, web
from copilot_balancer.cli.service import service
from copilot_balancer.cli.start import start
from copilot_balancer.cli.status import status, tell_limits
from copilot_balancer.cli.uninstall import uninstall
from copilot_balancer.cli.usage import usage
from copilot_balancer.errors import BalancerError
from copilot_balancer.github import https
from copilot_balancer.rules import edits
from copilot_balancer.text import printable


class Program(click.Group):
    """A group whose known errors are one sentence each, and whose help is grouped."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BalancerError as error:
            click.echo(f"error: {printable(str(error), 2000)}", err=True)
            raise click.exceptions.Exit(1) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under the titles of `SECTIONS`."""
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for title, names in SECTIONS.items():
            with formatter.section(title):
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
                formatter.write_dl(rows)
        del ctx


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="copilot-balancer")
@click.pass_context
def cli(context: click.Context) -> None:
    """Answer Copilot requests with another of your own accounts when one is limited.

    Start with `copilot-balancer start`, or without an account: `copilot-balancer demo`.
    """
    context.ensure_object(Env)


@cli.command()
@click.argument("switch", type=click.Choice(["on", "off"]), required=False)
@json_option
@pass_world
def balancing(env: Env, switch: str | None, *, as_json: bool) -> None:
    """Turn balancing on or off; alone: show which. Off: only the home account serves.

    While it is off, a refusal of the home account reaches the client.
    """
    if switch is None:
        decisions = env.store.read_decisions()
    else:
        decisions = env.store.edit_decisions(edits.balanced(on=switch == "on"))
    if as_json:
        show_json({"balancing": decisions.balancing})
        return
    click.echo(f"Balancing is {'on' if decisions.balancing else 'off'}.")
    tell_limits(decisions)


@cli.command("addon-path")
def addon_path() -> None:
    """Print the path of the script for mitmproxy.

    Run it: mitmdump -s "$(copilot-balancer addon-path)"
    """
    click.echo(Path(__file__).parent.parent / "script.py")


@cli.command()
@click.option("--stay", is_flag=True, help="Keep it running, and print a curl line to try.")
@click.pass_context
def demo(context: click.Context, *, stay: bool) -> None:
    """Show a failover: no account and no network needed."""
    from copilot_balancer.cli.demo.demo import run_demo  # noqa: PLC0415 - it imports mitmproxy, which the others do not

    context.exit(run_demo(stay=stay))


@cli.command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help_command(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command."""
    at = context.find_root()
    for word in words:
        group = at.command
        found = group.get_command(at, word) if isinstance(group, click.Group) else None
        if found is None:
            at.fail(f"No such command {word!r}.")
        at = click.Context(found, info_name=word, parent=at, **found.context_settings)
    click.echo(at.get_help())


# ── commands that have files of their own ────────────────────────────────────────────────────────────────────────────

for _command in (
    accounts,
    completion,
    config,
    console,
    dashboard,
    doctor,
    env_command,
    events,
    exec_command,
    explain,
    explain_answer,
    models,
    routes,
    run,
    service,
    setup,
    start,
    status,
    strategy,
    terms,
    uninstall,
    usage,
    web,
):
    cli.add_command(_command)
events.add_command(replay_command)

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Start here": ("start", "accounts", "terms", "exec", "setup", "doctor"),
    "The proxy": ("run", "web", "console", "env", "service", "addon-path"),
    "What happens": ("status", "dashboard", "events", "explain", "explain-answer", "models", "usage"),
    "What you decide": ("balancing", "strategy", "routes", "config"),
    "More": ("demo", "completion", "help", "uninstall"),
}
"""Title -> commands; a test checks that each command has its place."""


def main() -> None:
    """Run the command line."""
    https.use(commands_way)
    cli(prog_name="copilot-balancer")
