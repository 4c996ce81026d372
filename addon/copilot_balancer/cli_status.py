"""``copilot-balancer status``: the dull twin of the dashboard, printed once.

Laws of this file:

1. What is shown is what the dashboard shows (``overview``) and what ``copilot.status`` prints (``cli_views``).
2. Exit code 0: some account can serve at this moment; 1: none can.
"""

import click

from copilot_balancer.cli_views import status_facts, status_text
from copilot_balancer.overview import look
from copilot_balancer.terminal import World, json_option, pass_world, show_json


@click.command()
@json_option
@pass_world
@click.pass_context
def status(context: click.Context, world: World, as_json: bool) -> None:
    """Show accounts, quota, rests and running proxies. Exit code 1: nothing can serve now."""
    seen = look(world.paths, world.now(), world.folder())
    if as_json:
        show_json(status_facts(seen))
    else:
        click.echo(status_text(seen))
    context.exit(int(not seen.serves))
