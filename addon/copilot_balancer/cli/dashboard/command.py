"""``copilot-balancer dashboard``: everything on one screen, live.

Laws of this file:

1. Where Textual is missing it says in one line how to install it here; nothing else of the program needs Textual.
2. A screen needs a terminal; for pipes there is ``status``.
"""

import shlex
import sys

import click

from copilot_balancer.cli.env import Env, pass_world
from copilot_balancer.errors import InvalidInput

_LIGHT = ("7", "15")
"""Background colours that a terminal names in ``COLORFGBG`` (rxvt's manual) when it is light."""


def _screen() -> bool:
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))  # Textual draws on stderr


@click.command()
@click.option("--light/--dark", default=None, help="Colours for a light or a dark terminal; t changes them.")
@pass_world
def dashboard(env: Env, light: bool | None) -> None:
    """Show and change everything on one screen, live. Accounts, requests, routes; press ? for the keys."""
    try:
        from copilot_balancer.cli.dashboard.app import Dashboard  # noqa: PLC0415 - an extra, which the others do not need
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise InvalidInput(
            f"the dashboard needs Textual: {shlex.quote(sys.executable)} -m pip install textual"
        ) from None
    if not _screen():
        raise InvalidInput("the dashboard needs a terminal; for pipes there is `copilot-balancer status`")
    if light is None:
        light = env.environ.get("COLORFGBG", "").rpartition(";")[2] in _LIGHT
    Dashboard(env, light=light).run()
