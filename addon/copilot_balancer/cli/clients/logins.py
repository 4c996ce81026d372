"""Where other programs keep their Copilot login. They are read, never written.

Laws of this file:

1. A token that is found stands in a ``SecretStr``; no sentence quotes a file's content, and no exception is raised in a
   frame that holds it.
2. An importer that finds nothing says where it looked.
3. The placeholder that a client may hold instead of a login is never a login.
4. Of another program's YAML only nested ``key: value`` lines are understood; nothing in it is ever run or built.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from copilot_balancer.cli.clients.copilot_cli import COPILOT_CLI_VARIABLE, find_copilot_cli
from copilot_balancer.cli.clients.editors import find_vim
from copilot_balancer.cli.clients.files import Found, _from_variable
from copilot_balancer.cli.clients.gh import find_gh
from copilot_balancer.cli.clients.opencode import find_opencode
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

VARIABLES = (COPILOT_CLI_VARIABLE, "GH_TOKEN", "GITHUB_TOKEN")
"""Environment variables that hold a GitHub token, in the Copilot CLI's order. Source: GitHub docs,
authenticate-copilot-cli."""


type Finder = Callable[[Mapping[str, str], Path], list[Found] | str]
"""Given environment and home: the logins of a program, at least one, or a sentence that says where it looked."""


def find(source: str, environ: Mapping[str, str], home: Path) -> list[Found]:
    """The logins of one of `SOURCES`, at least one.

    Raises:
        InvalidInput: there is none; the sentence says where it was looked for.

    """
    found = SOURCES[source](environ, home)
    del environ  # a traceback may show local variables
    if isinstance(found, str):
        raise InvalidInput(found)
    return found


def find_env(environ: Mapping[str, str], _home: Path) -> list[Found] | str:
    """The first of `VARIABLES` that is set; its login host is the first of `HOST_VARIABLES`, else github.com."""
    name = next((name for name in VARIABLES if environ.get(name) not in (None, "", PLACEHOLDER)), None)
    if name is None:
        return f"there is no token in the environment: none of {', '.join(VARIABLES)} holds one"
    return _from_variable(environ, name)


SOURCES: Mapping[str, Finder] = {
    "opencode": find_opencode,
    "copilot-cli": find_copilot_cli,
    "gh": find_gh,
    "vim": find_vim,
    "env": find_env,
}
"""What a person calls a program -> where its login is."""
