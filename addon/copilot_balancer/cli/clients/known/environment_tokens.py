"""GitHub tokens in environment variables, as a source of logins."""

from collections.abc import Mapping
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Found
from copilot_balancer.cli.clients.files import login_in_variable
from copilot_balancer.cli.clients.known.copilot_cli import TOKEN_VARIABLES
from copilot_balancer.copilot.protocol import PLACEHOLDER


def _find_logins(environ: Mapping[str, str], _home: Path) -> list[Found] | str:
    """The first variable that is set, in the Copilot CLI's order; its login host is that of `HOST_VARIABLES`."""
    name = next((name for name in TOKEN_VARIABLES if environ.get(name) not in (None, "", PLACEHOLDER)), None)
    if name is None:
        return f"there is no token in the environment: none of {', '.join(TOKEN_VARIABLES)} holds one"
    return login_in_variable(environ, name)


ENVIRONMENT_TOKENS = Client("env", find_logins=_find_logins, logins_at=", else ".join(TOKEN_VARIABLES))
