"""``copilot-balancer completion``: what makes a shell complete our commands."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from copilot_balancer.terminal import World, pass_world

_INSTALLING = {
    "bash": '# to use it: put into ~/.bashrc:  eval "$(copilot-balancer completion bash)"',
    "fish": "# to use it: copilot-balancer completion fish > ~/.config/fish/completions/copilot-balancer.fish",
    "zsh": '# to use it: put into ~/.zshrc:  eval "$(copilot-balancer completion zsh)"',
}


@click.command("completion")
@click.argument("shell", type=click.Choice(sorted(_INSTALLING)), required=False)
@click.pass_context
@pass_world
def completion(world: World, context: click.Context, shell: str | None) -> None:
    """Print the script that completes commands in your shell."""
    named = Path(world.environ.get("SHELL", "")).name
    shell = shell or (named if named in _INSTALLING else "bash")
    completing = get_completion_class(shell)
    assert completing is not None
    root = context.find_root()
    script = completing(root.command, {}, "copilot-balancer", "_COPILOT_BALANCER_COMPLETE").source()
    click.echo(f"{script.strip()}{os.linesep}{_INSTALLING[shell]}")
