"""gh: split from its former room."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from copilot_balancer.cli.clients.files import Found, _login, _read, _usable

GH_SECONDS = 10.0
"""How long ``gh`` may take to look into the system's keyring."""

_GH_VARIABLES = frozenset({"GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"})
"""``gh`` would tell these instead of its own login."""


def find_gh(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The logins of the GitHub CLI, for each host and user in its ``hosts.yml``.

    A token stands in that file, or in the system's keyring; then ``gh auth token`` is asked for it. Source:
    ``gh help environment``, ``gh help auth token``.
    """
    if environ.get("GH_CONFIG_DIR"):
        folder = Path(environ["GH_CONFIG_DIR"])
    elif environ.get("XDG_CONFIG_HOME"):
        folder = Path(environ["XDG_CONFIG_HOME"]) / "gh"
    elif environ.get("APPDATA"):
        folder = Path(environ["APPDATA"]) / "GitHub CLI"
    else:
        folder = home / ".config" / "gh"
    return _gh_logins(folder / "hosts.yml", environ)


# ── the GitHub CLI ───────────────────────────────────────────────────────────────────────────────────────────────────


def _gh_logins(path: Path, environ: Mapping[str, str]) -> list[Found] | str:
    content = _read(path, "the GitHub CLI")
    if isinstance(content, str):
        return content
    logins = []
    for host, entry in _nested(content.decode(errors="replace")).items():
        for user, token in _gh_users(entry):
            logins.append(_login(token or _ask_gh(environ, host, user), host, f"{path} ({user or host})"))
    if not logins:
        return f"{path} names no login: log in with `gh auth login` first"
    return _usable(logins) or (
        f"{path} names logins, but holds no token that can be used, and `gh auth token` tells none: is gh installed "
        "and logged in?"
    )


def _gh_users(entry: object) -> Iterator[tuple[str | None, str | None]]:
    """Each user of a host with the token, where that stands in the file."""
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
        yield name, token if isinstance(token, str) else None


def _ask_gh(environ: Mapping[str, str], host: str, user: str | None) -> str:
    """What ``gh auth token`` says; nothing when there is no gh, or it has none."""
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


_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_PAIR = re.compile(r"( *)([^\s:#'\"][^:#]*):(?: +(.*?))? *")

type _Nested = dict[str, "str | _Nested"]


def _nested(text: str) -> _Nested:
    """The ``key: value`` lines of a YAML file, nested by how far they are indented; other lines are passed over."""
    root: _Nested = {}
    open_maps: list[tuple[int, _Nested]] = [(-1, root)]
    for line in text.splitlines():
        pair = _PAIR.fullmatch(line)
        if pair is None:
            continue
        indent, key, value = len(pair[1]), pair[2].strip(), (pair[3] or "").strip("\"'")
        while open_maps[-1][0] >= indent:
            open_maps.pop()
        inside = open_maps[-1][1]
        if value:
            inside[key] = value
        else:
            opened: _Nested = {}
            inside[key] = opened
            open_maps.append((indent, opened))
    return root
