"""How each client is pointed at the proxy: a table, and the environment that follows from it.

Laws of this file:

1. It asks nobody: an environment comes in, variables come out. What stands in files is told by the caller.
2. Each row says how it is known: *measured* here with the version that is named, or *documented* by whom.
3. No credential stands in what is made here. A client without a login of its own gets the placeholder.
4. Only the way to the Copilot hosts is changed: what the user keeps from a proxy (``NO_PROXY``) stays kept from it.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePath

from copilot_balancer.copilot.hosts import DEFAULT_API_HOST
from copilot_balancer.copilot.protocol import PLACEHOLDER

PORT = 8080
"""Where mitmproxy listens when nobody says anything else."""

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy")
"""Programs read one or the other. ``HTTP_PROXY`` is left alone: nothing that is ours goes without TLS."""
BYPASS_VARIABLES = ("NO_PROXY", "no_proxy")

_ANY_PASSWORD = "x"  # noqa: S105 - it is none
"""A user without a password is dropped in silence by opencode 1.18.33, fetch of Node 24.21 and urllib of Python 3.13
(measured), and the request would leave its fence; the proxy asks for no password."""

_ALWAYS_DIRECT = ("localhost", "127.0.0.1", "::1")
"""A client's own servers on this machine."""


class Trust(Enum):
    """Which certificates a variable's file must hold."""

    MORE = "more"
    """Some, in addition to those that the program knows by itself."""
    ALL = "all"
    """All: the file takes the place of those that the program knows by itself."""


@dataclass(frozen=True)
class Client:
    """One row: a program, or programs that read the same variables."""

    name: str
    """What a person calls it."""
    programs: tuple[str, ...]
    """The names of its executables."""
    trust: Mapping[str, Trust]
    """The variable that makes it trust the proxy's CA, for this process alone."""
    known: str
    """How we know, with the source."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further variables that it needs to use a proxy at all."""
    login: Mapping[str, str] = field(default_factory=dict)
    """What makes it believe that it is logged in, where it holds no login of its own."""
    hint: str = ""
    """What it needs besides its environment."""


OPENCODE_LOGIN: Mapping[str, object] = {
    "type": "oauth",
    "refresh": PLACEHOLDER,
    "access": PLACEHOLDER,
    "expires": 0,
}
"""The entry ``github-copilot`` of opencode's logins, without a credential. Source: docs/clients.md#login-files."""

_NODE = {"NODE_EXTRA_CA_CERTS": Trust.MORE}

CLIENTS = (
    Client(
        "opencode",
        ("opencode",),
        _NODE,
        "measured: opencode 1.18.33 (docs/clients.md)",
        login={"OPENCODE_AUTH_CONTENT": json.dumps({"github-copilot": OPENCODE_LOGIN})},
    ),
    Client(
        "copilot-cli",
        ("copilot",),
        _NODE,
        "measured: Copilot CLI 1.0.102 (docs/clients.md)",
        # With the token alone GitHub's refusal of it is fatal (37 questions, exit 1). With the API's address it asks
        # api.github.com, is refused, and goes on: measured against 401 to each of its questions there.
        login={"COPILOT_GITHUB_TOKEN": PLACEHOLDER, "COPILOT_API_URL": f"https://{DEFAULT_API_HOST}"},
    ),
    Client(
        "codex",
        ("codex",),
        {"SSL_CERT_FILE": Trust.ALL, "CODEX_CA_CERTIFICATE": Trust.ALL},
        "measured: codex 0.169.0 with a custom provider (docs/clients.md)",
    ),
    Client(
        "curl",
        ("curl",),
        {"CURL_CA_BUNDLE": Trust.ALL},
        "measured: curl 7.88 (certs-howto.md)",
    ),
    Client(
        "python",
        ("python", "python3", "llm", "litellm", "aider"),
        {"SSL_CERT_FILE": Trust.ALL, "REQUESTS_CA_BUNDLE": Trust.ALL},
        "measured: Python 3.13 with urllib, httpx, requests and openai (certs-howto.md); litellm, llm: docs/clients.md",
    ),
    Client(
        "node",
        ("node", "npx", "pi", "copilot-api", "copilot-language-server"),
        _NODE,
        "measured: Node 24.21 (certs-howto.md); pi, copilot-api and the language server: docs/clients.md",
        more={"NODE_USE_ENV_PROXY": "1"},
        hint="older Node (20 was measured) knows no proxy variables; copilot-api has its own --proxy-env",
    ),
    Client(
        "vscode",
        ("code", "code-insiders", "codium"),
        _NODE,
        "documented: GitHub Docs, network settings for Copilot; not tried",
        hint="a window that is open already keeps its old environment: close VS Code first",
    ),
    Client(
        "neovim",
        ("nvim", "vim"),
        _NODE,
        "measured: copilot-language-server 1.539.0, which the plugins start; the plugins were not tried",
        hint="the editor needs a login of its own: its language server exchanges it at GitHub, past the proxy",
    ),
)


def client_of(program: str) -> Client | None:
    """The row of an executable: ``"/usr/bin/python3.13"`` or ``"copilot.cmd"``; None: a program that we do not know."""
    name = re.sub(r"\.(exe|cmd|bat|ps1)$", "", PurePath(program.replace("\\", "/")).name.lower())
    name = re.sub(r"(?<=^python3)\.\d+$", "", name)
    return next((client for client in CLIENTS if name in client.programs), None)


def client_named(name: str) -> Client:
    """The row that a person means."""
    return next(client for client in CLIENTS if client.name == name)


@dataclass(frozen=True)
class Way:
    """Where the proxy is, and what proves that it is the user's own."""

    port: int
    more: Path
    """PEM file: the proxy's CA, and whatever ``NODE_EXTRA_CA_CERTS`` named before."""
    all: Path | None
    """PEM file: the CAs of this system and the proxy's; None: those of this system were not found."""
    user: str | None = None
    """A fence or an account that alone may serve; None: as the settings say."""

    @property
    def url(self) -> str:
        """The proxy's URL."""
        name = f"{self.user}:{_ANY_PASSWORD}@" if self.user else ""
        return f"http://{name}127.0.0.1:{self.port}"


def environment(
    client: Client | None, way: Way, environ: Mapping[str, str], *, hosts: Collection[str], placeholder: bool = False
) -> dict[str, str]:
    """The variables that point a client at the proxy.

    Args:
        client: its row; None: a program that we do not know gets what any of them reads.
        way: the proxy.
        environ: the environment that they are added to.
        hosts: the Copilot hosts, which must not pass the proxy by.
        placeholder: whether it holds no login of its own, so that it must believe that it has one.

    """
    direct = kept_direct(environ, hosts)
    found = dict.fromkeys(PROXY_VARIABLES, way.url) | dict.fromkeys(BYPASS_VARIABLES, direct)
    rows = (client,) if client else CLIENTS
    for row in rows:
        found |= row.more
    for row in CLIENTS:
        for name, trust in row.trust.items():
            file = way.more if trust is Trust.MORE else way.all
            # a variable that is set already could hide the one that the client was measured with
            if file is not None and (row in rows or environ.get(name)):
                found[name] = str(file)
    if client and placeholder:
        found |= client.login
    return found


def other_proxy(environ: Mapping[str, str]) -> str | None:
    """The proxy beyond this machine that the user's environment names, without a password; None: there is none."""
    for name in PROXY_VARIABLES:
        scheme, slashes, rest = environ.get(name, "").rpartition("://")
        login, at, place = rest.rpartition("@")
        if place and not place.startswith(("127.0.0.1:", "localhost:")):
            return f"{scheme}{slashes}{'...@' if login or at else ''}{place}"
    return None


def kept_direct(environ: Mapping[str, str], hosts: Collection[str]) -> str:
    """The value of ``NO_PROXY``: what the user wrote there, without what would let a Copilot host pass the proxy by."""
    written = [entry for entry in _entries(environ) if not _matches(entry, hosts)]
    return ",".join(dict.fromkeys([*_ALWAYS_DIRECT, *written]))


def bypasses(environ: Mapping[str, str], hosts: Collection[str]) -> list[str]:
    """The entries of ``NO_PROXY`` that let a Copilot host pass the proxy by."""
    return list(dict.fromkeys(entry for entry in _entries(environ) if _matches(entry, hosts)))


def _entries(environ: Mapping[str, str]) -> Iterable[str]:
    for name in BYPASS_VARIABLES:
        yield from re.findall(r"[^,\s]+", environ.get(name, ""))


def _matches(entry: str, hosts: Collection[str]) -> bool:
    """Whether a program that is generous in reading `entry` would call one of `hosts` directly.

    Programs differ: with or without a leading dot or star, with a port, for the domain itself or only below it.
    """
    domain = re.sub(r":\d+$", "", entry.lower()).removeprefix("*").strip(".")
    if not domain:
        return entry.startswith("*")
    return any(host == domain or host.endswith(f".{domain}") for host in hosts)
