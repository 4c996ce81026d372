"""``copilot-balancer completion``, and what the shell is offered for labels, models, fences and ``--as``.

Laws of this file:

1. A completion never fails: files that cannot be read offer nothing.
2. Only names are offered; no token is read into one.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from copilot_balancer.cli.env import Env, pass_world
from copilot_balancer.errors import BalancerError

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


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(names: Callable[[Env], Iterable[str]]) -> Completer:
    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        env = context.find_object(Env) or Env()
        try:
            return sorted({name for name in names(env) if name.startswith(incomplete)})
        except BalancerError:
            return []

    return complete


def _labels(env: Env) -> Iterable[str]:
    return (account.label for account in env.store.read_decisions().accounts)


def _fences(env: Env) -> Iterable[str]:
    return (account.fence for account in env.store.read_decisions().accounts)


def _models(env: Env) -> Iterable[str]:
    for state in env.store.read_memory().accounts.values():
        yield from state.models


labels: Completer = _completer(_labels)
fences: Completer = _completer(_fences)
models: Completer = _completer(_models)
users: Completer = _completer(lambda env: [*_labels(env), *_fences(env)])
"""What ``--as`` takes: an account or a fence."""
