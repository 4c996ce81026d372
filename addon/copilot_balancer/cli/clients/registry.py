"""The list of clients. A new client is a file in `known` and its line in `CLIENTS`; every command reads this list."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from copilot_balancer.cli.clients.client import Client, Finder, Found
from copilot_balancer.cli.clients.known.codex import CODEX
from copilot_balancer.cli.clients.known.copilot_cli import COPILOT_CLI
from copilot_balancer.cli.clients.known.curl import CURL
from copilot_balancer.cli.clients.known.environment_tokens import ENVIRONMENT_TOKENS
from copilot_balancer.cli.clients.known.gh import GH
from copilot_balancer.cli.clients.known.neovim import EDITOR_PLUGINS, NEOVIM
from copilot_balancer.cli.clients.known.node import NODE
from copilot_balancer.cli.clients.known.opencode import OPENCODE
from copilot_balancer.cli.clients.known.python import PYTHON
from copilot_balancer.cli.clients.known.vscode import VSCODE
from copilot_balancer.errors import InvalidInput

CLIENTS = (
    OPENCODE,
    COPILOT_CLI,
    CODEX,
    CURL,
    PYTHON,
    NODE,
    VSCODE,
    NEOVIM,
    GH,
    EDITOR_PLUGINS,
    ENVIRONMENT_TOKENS,
)

PROXIED: tuple[Client, ...] = tuple(client for client in CLIENTS if client.trust)
"""The clients that can be run through the proxy."""

SOURCES: Mapping[str, Finder] = {client.name: client.find_logins for client in CLIENTS if client.find_logins}
"""Name of a client -> how its logins are found."""


def client_of(program: str) -> Client | None:
    """The row of an executable: ``"/usr/bin/python3.13"`` or ``"copilot.cmd"``; None: it is in no row."""
    name = re.sub(r"\.(exe|cmd|bat|ps1)$", "", PurePath(program.replace("\\", "/")).name.lower())
    name = re.sub(r"(?<=^python3)\.\d+$", "", name)
    return next((client for client in CLIENTS if name in client.programs), None)


def client_named(name: str) -> Client:
    """The row with this name."""
    return next(client for client in CLIENTS if client.name == name)


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
