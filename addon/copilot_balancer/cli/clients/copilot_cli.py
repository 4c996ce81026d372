"""copilot_cli: split from its former room."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from copilot_balancer.cli.clients.files import (
    Found,
    _from_variable,
    _host_of,
    _login,
    _object,
    _read_object,
    _usable,
    read,
)
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput
from copilot_balancer.text import printable

_TOKEN_VARIABLES = ("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN")
"""Where the Copilot CLI looks for a token, in its order. Source: ``copilot help environment`` (1.0.102)."""


def copilot_cli_state_file(environ: Mapping[str, str], home: Path) -> Path:
    """``config.json``, which names who is logged in. Source: seen in 1.0.102; ``copilot help environment``."""
    return Path(environ.get("COPILOT_HOME") or home / ".copilot") / "config.json"


def copilot_cli_login(environ: Mapping[str, str], home: Path) -> str | None:
    """Where the Copilot CLI has a login of its own, in words for people; None: nowhere that we can see."""
    for name in _TOKEN_VARIABLES:
        if environ.get(name) not in (None, "", PLACEHOLDER):
            return f"the environment variable {name}"
    path = copilot_cli_state_file(environ, home)
    with suppress(InvalidInput):
        raw = read(path)
        facts = _object(path, raw, comments=True) if raw else {}
        if facts.get("loggedInUsers") or facts.get("logged_in_users"):
            return printable(str(path), 4096)
    return None


COPILOT_CLI_VARIABLE = "COPILOT_GITHUB_TOKEN"


def find_copilot_cli(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The login of the Copilot CLI: ``COPILOT_GITHUB_TOKEN``, else its ``config.json``.

    The file is in ``$COPILOT_HOME`` (default ``~/.copilot``) and holds tokens only where the system has no keychain.
    Their key was ``copilot_tokens``, then ``copilotTokens``; comment lines stand above it. Sources: GitHub docs,
    cli-config-dir-reference and authenticate-copilot-cli; the two keys: seen in programs that read the file.
    """
    if environ.get(COPILOT_CLI_VARIABLE, PLACEHOLDER) not in ("", PLACEHOLDER):
        return _from_variable(environ, COPILOT_CLI_VARIABLE)
    folder = environ.get("COPILOT_HOME") or home / ".copilot"
    return _copilot_cli_logins(Path(folder) / "config.json")


# ── the Copilot CLI ──────────────────────────────────────────────────────────────────────────────────────────────────


def _copilot_cli_logins(path: Path) -> list[Found] | str:
    keychain = (
        f"{COPILOT_CLI_VARIABLE} holds none either. Where the system has a keychain, the Copilot CLI keeps its login "
        "there, which is not read: use `copilot-balancer accounts add`"
    )
    entries = _read_object(path, "the Copilot CLI", comments=True)
    if isinstance(entries, str):
        return f"{entries}; {keychain}"
    stored = entries.get("copilotTokens") or entries.get("copilot_tokens")
    logins = [
        _login(value.get("token") if isinstance(value, dict) else value, _host_of(key), str(path))
        for key, value in (stored.items() if isinstance(stored, dict) else ())
    ]
    return _usable(logins) or f"{path} holds no token; {keychain}"
