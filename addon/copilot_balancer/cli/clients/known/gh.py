"""The GitHub CLI, as a source of logins: its ``hosts.yml``, and ``gh auth token`` for tokens in the system's keyring.

Source: ``gh help environment``, ``gh help auth token``.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Found
from copilot_balancer.cli.clients.files import content_of, login, shown, usable

GH_SECONDS = 10.0
"""How long ``gh`` may take to read the system's keyring."""

_GH_VARIABLES = frozenset({"GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"})
"""``gh`` would print these instead of its own login."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
"""A host or a user that may be an argument of ``gh``."""


def hosts_file(environ: Mapping[str, str], home: Path) -> Path:
    """``hosts.yml``, which names each host and user, and holds tokens where the system has no keyring."""
    if environ.get("GH_CONFIG_DIR"):
        folder = Path(environ["GH_CONFIG_DIR"])
    elif environ.get("XDG_CONFIG_HOME"):
        folder = Path(environ["XDG_CONFIG_HOME"]) / "gh"
    elif environ.get("APPDATA"):
        folder = Path(environ["APPDATA"]) / "GitHub CLI"
    else:
        folder = home / ".config" / "gh"
    return folder / "hosts.yml"


def _find_logins(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    path = hosts_file(environ, home)
    content = content_of(path)
    if content is None:
        return f"the GitHub CLI has no login here: {shown(path)} does not exist"
    if isinstance(content, str):
        return f"{content}, so no login was read from it"
    hosts = _parsed(content)
    if hosts is None:
        return f"{shown(path)} is not YAML, so no login was read from it"
    logins = [
        login(token or _ask_gh(environ, str(host), user), host, f"{path} ({user or host})")
        for host, entry in (hosts.items() if isinstance(hosts, dict) else ())
        for user, token in _users(entry)
    ]
    if not logins:
        return f"{path} names no login: log in with `gh auth login` first"
    return usable(logins) or (
        f"{path} names logins, but holds no token that can be used, and `gh auth token` prints none: is gh installed "
        "and logged in?"
    )


def _parsed(content: bytes) -> object:
    """The YAML document, of plain values only; None when it is not YAML. The error would quote the content."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - only this command needs it
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return YAML(typ="safe", pure=True).load(content.decode(errors="replace")) or {}
    except (YAMLError, ValueError, RecursionError):
        return None


def _users(entry: object) -> Iterator[tuple[str | None, str | None]]:
    """Each user of a host, with the token where that stands in the file."""
    if not isinstance(entry, dict):
        return
    users = entry.get("users")
    if not isinstance(users, dict) or not users:  # before gh 2.40 there was one user for each host
        user, token = entry.get("user"), entry.get("oauth_token")
        yield user if isinstance(user, str) and user else None, token if isinstance(token, str) else None
        return
    for name, facts in users.items():
        token = facts.get("oauth_token") if isinstance(facts, dict) else None
        if token is None and name == entry.get("user"):
            token = entry.get("oauth_token")
        yield str(name), token if isinstance(token, str) else None


def _ask_gh(environ: Mapping[str, str], host: str, user: str | None) -> str:
    """The output of ``gh auth token``; nothing when there is no gh, or it has no token."""
    gh = shutil.which("gh", path=environ.get("PATH", ""))
    if gh is None or not _WORD.fullmatch(host) or (user is not None and not _WORD.fullmatch(user)):
        return ""
    whose = ["--user", user] if user else []
    try:
        run = subprocess.run(  # noqa: S603 - the program that the user named, with words that were checked
            [gh, "auth", "token", "--hostname", host, *whose],
            env={name: value for name, value in environ.items() if name not in _GH_VARIABLES},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.decode("ascii", "replace").strip() if run.returncode == 0 else ""


GH = Client("gh", find_logins=_find_logins, logins_at="hosts.yml in ~/.config/gh, and `gh auth token`")
