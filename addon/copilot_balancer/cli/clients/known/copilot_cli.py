"""The Copilot CLI: its environment is enough to run it. Its login is in a variable, ``config.json`` or the keychain.

Sources: GitHub Docs, "Copilot CLI configuration directory" and "Authenticating GitHub Copilot CLI"; ``copilot help
environment`` (1.0.102).
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Found, Plan, SetupRequest, Trust
from copilot_balancer.cli.clients.files import (
    host_of,
    login,
    login_entries,
    login_in_variable,
    object_in,
    read,
    shown,
    usable,
)
from copilot_balancer.copilot.hosts import DEFAULT_API_HOST
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

VARIABLE = "COPILOT_GITHUB_TOKEN"
TOKEN_VARIABLES = (VARIABLE, "GH_TOKEN", "GITHUB_TOKEN")
"""The variables in which the Copilot CLI looks for a token, in its order."""


def state_file(environ: Mapping[str, str], home: Path) -> Path:
    """``config.json``, which names who is logged in, and holds tokens where the system has no keychain."""
    return Path(environ.get("COPILOT_HOME") or home / ".copilot") / "config.json"


def own_login(environ: Mapping[str, str], home: Path) -> str | None:
    """Where the Copilot CLI holds a login of its own, in words for people; None: nowhere that can be seen."""
    for name in TOKEN_VARIABLES:
        if environ.get(name) not in (None, "", PLACEHOLDER):
            return f"the environment variable {name}"
    path = state_file(environ, home)
    with suppress(InvalidInput):
        facts = object_in(path, read(path), comments=True)
        if facts.get("loggedInUsers") or facts.get("logged_in_users"):
            return shown(path)
    return None


def _wants_placeholder(environ: Mapping[str, str], home: Path) -> bool:
    return own_login(environ, home) is None


def _find_logins(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """``COPILOT_GITHUB_TOKEN``, else the tokens in ``config.json``.

    Their key was ``copilot_tokens``, then ``copilotTokens`` (seen in programs that read the file); comment lines stand
    above it.
    """
    if environ.get(VARIABLE, PLACEHOLDER) not in ("", PLACEHOLDER):
        return login_in_variable(environ, VARIABLE)
    path = state_file(environ, home)
    keychain = (
        f"{VARIABLE} holds none either. Where the system has a keychain, the Copilot CLI keeps its login there, which "
        "is not read: use `copilot-balancer accounts add`"
    )
    entries = login_entries(path, "the Copilot CLI", comments=True)
    if isinstance(entries, str):
        return f"{entries}; {keychain}"
    stored = entries.get("copilotTokens") or entries.get("copilot_tokens")
    logins = [
        login(value.get("token") if isinstance(value, dict) else value, host_of(key), str(path))
        for key, value in (stored.items() if isinstance(stored, dict) else ())
    ]
    return usable(logins) or f"{path} holds no token; {keychain}"


def _plan(request: SetupRequest) -> Plan:
    port = request.way.port_option
    own = own_login(request.environ, request.home)
    if own:
        how = f"It has a login of its own ({own}), which is used as it is; its requests are sent with your accounts."
    else:
        how = (
            "It has no login of its own that can be seen here, so it gets the placeholder. GitHub refuses that, which "
            "the CLI warns of: prompts are answered, but MCP servers that need GitHub's policy, and what acts as a "
            "person (GitHub's MCP server, cloud sessions), are not available. For those, `/login` with one of your "
            "accounts."
        )
    return Plan(
        f"The Copilot CLI needs no file of its own to be changed: its environment is enough. {how}",
        (
            f"Run it through the proxy: `copilot-balancer exec{port} -- copilot`",
            f'Or for a whole shell: `eval "$(copilot-balancer env --client copilot-cli{port})"`',
        ),
    )


COPILOT_CLI = Client(
    "copilot-cli",
    ("copilot",),
    {"NODE_EXTRA_CA_CERTS": Trust.MORE},
    "measured: Copilot CLI 1.0.102 (docs/clients.md)",
    # With the token alone GitHub's refusal of it is fatal (37 requests, exit 1). With the API's address it asks
    # api.github.com, is refused, and goes on: measured against 401 to each of its requests there.
    login={VARIABLE: PLACEHOLDER, "COPILOT_API_URL": f"https://{DEFAULT_API_HOST}"},
    wants_placeholder=_wants_placeholder,
    own_login=own_login,
    find_logins=_find_logins,
    logins_at=f"{VARIABLE}, else config.json in ~/.copilot",
    plan=_plan,
)
