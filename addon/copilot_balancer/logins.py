"""Where other programs keep their Copilot login. They are read, never written.

Laws of this file:

1. A token that is found stands in a ``SecretStr``; no sentence quotes a file's content, and no exception is raised in a
   frame that holds it.
2. An importer that finds nothing says where it looked.
3. The placeholder that a client may hold instead of a login is never a login.
4. Of another program's YAML only nested ``key: value`` lines are understood; nothing in it is ever run or built.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from copilot_balancer.accounts import GITHUB, check_token, normalise_domain
from copilot_balancer.copilot import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

FILE_BYTES = 1024 * 1024
"""A login file is a few KB; one that is larger than this is something else."""

OPENCODE_PROVIDERS = ("github-copilot", "github-copilot-enterprise")
"""Keys of opencode's auth.json. The second one was written by older versions for ``*.ghe.com``."""

COPILOT_CLI_VARIABLE = "COPILOT_GITHUB_TOKEN"
VARIABLES = (COPILOT_CLI_VARIABLE, "GH_TOKEN", "GITHUB_TOKEN")
"""Environment variables that hold a GitHub token, in the Copilot CLI's order. Source: GitHub docs,
authenticate-copilot-cli."""
HOST_VARIABLES = ("COPILOT_GH_HOST", "GH_HOST")
"""Which name the login host of such a token. Source: copilot-protocol.md 1.2."""

GH_SECONDS = 10.0
"""How long ``gh`` may take to look into the system's keyring."""

_GH_VARIABLES = frozenset({"GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"})
"""``gh`` would tell these instead of its own login."""


@dataclass(frozen=True)
class Found:
    """A login that another program holds."""

    token: SecretStr
    host: str
    """The login host: github.com or NAME.ghe.com."""
    where: str
    """The file, and what it is called in there: for people."""


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


def find_opencode(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The Copilot logins of opencode, at least one.

    They stand in ``$XDG_DATA_HOME/opencode/auth.json`` (default, on every system: ``~/.local/share``) as
    ``{"github-copilot": {"type": "oauth", "refresh": TOKEN, "enterpriseUrl": DOMAIN}}``. Source: clients.md 7.
    """
    data = environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    return _opencode_logins(Path(data) / "opencode" / "auth.json")


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


def find_vim(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The logins of copilot.vim, copilot.lua and other editor plugins: ``apps.json``, and the older ``hosts.json``.

    They stand in ``$XDG_CONFIG_HOME/github-copilot`` (Windows: ``%LOCALAPPDATA%``; else ``~/.config``) as
    ``{"github.com:APP": {"user": LOGIN, "oauth_token": TOKEN}}``, in the older one without ``:APP``. Of several for one
    user the first counts. Source: the plugins that read them, such as CopilotChat.nvim.
    """
    config = environ.get("XDG_CONFIG_HOME") or environ.get("LOCALAPPDATA") or home / ".config"
    return _vim_logins(Path(config) / "github-copilot")


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


def _login(token: object, host: object, where: str) -> Found | str:
    """A login, or why it is none. Returned, not raised: this frame and its callers' hold a file's content."""
    try:
        return Found(
            SecretStr(check_token(token if isinstance(token, str) else "")), normalise_domain(str(host)), where
        )
    except InvalidInput as error:
        return f"{where}: {error}"


def _usable(logins: list[Found | str]) -> list[Found] | None:
    """Those that are logins, if any: a program's file may name hosts that have nothing to do with Copilot."""
    return [login for login in logins if isinstance(login, Found)] or None


def _from_variable(environ: Mapping[str, str], name: str) -> list[Found] | str:
    host = next((environ[key] for key in HOST_VARIABLES if environ.get(key)), GITHUB)
    found = _login(environ[name].strip(), host, f"the environment variable {name}")
    return found if isinstance(found, str) else [found]


# ── opencode ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _opencode_logins(path: Path) -> list[Found] | str:
    entries = _read_object(path, "opencode")
    if isinstance(entries, str):
        return entries
    found = []
    placeholders = 0
    for provider in OPENCODE_PROVIDERS:
        entry = entries.get(provider)
        if not isinstance(entry, dict) or entry.get("type") != "oauth":
            continue
        if entry.get("refresh") == PLACEHOLDER:
            placeholders += 1
            continue
        login = _login(entry.get("refresh"), entry.get("enterpriseUrl") or GITHUB, f"{path} ({provider})")
        if isinstance(login, str):
            return login
        found.append(login)
    if found:
        return found
    if placeholders:
        return f"{path} holds only the placeholder, which is no login: opencode has no account of its own"
    return f"{path} holds no login for GitHub Copilot: log in with `opencode auth login` first"


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


def _host_of(key: str) -> str:
    """``"https://github.com:octocat"``, ``"github.com:APP"`` or ``"github.com"`` -> ``"github.com"``."""
    return key.removeprefix("https://").partition(":")[0]


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


# ── editors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _vim_logins(folder: Path) -> list[Found] | str:
    found: dict[tuple[str, str], Found] = {}
    reasons = []
    for path in (folder / "apps.json", folder / "hosts.json"):
        entries = _read_object(path, "the editor plugin")
        if isinstance(entries, str):
            reasons.append(entries)
            continue
        before = len(found)
        for key, entry in entries.items():
            facts = entry if isinstance(entry, dict) else {}
            token = facts.get("oauth_token")
            login = _login(token, _host_of(key), str(path))
            if isinstance(login, Found) and token != PLACEHOLDER:
                found.setdefault((login.host, str(facts.get("user") or token)), login)
        if len(found) == before:
            reasons.append(f"{path} holds no login that can be used")
    return list(found.values()) or "; ".join(reasons)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_object(path: Path, whose: str, *, comments: bool = False) -> dict[str, object] | str:
    """The JSON object in `path`, lines with a comment left out if there may be `comments`; or why there is none."""
    content = _read(path, whose)
    if isinstance(content, str):
        return content
    if comments:
        content = b"\n".join(line for line in content.split(b"\n") if not line.lstrip().startswith(b"//"))
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict):
        return f"{path} is not a JSON object, so no login was read from it"
    return entries


def _read(path: Path, whose: str) -> bytes | str:
    """What stands in a regular file of a few KB, or why that is not read."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            content = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return f"{whose} has no login here: {path} does not exist"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if len(content) > FILE_BYTES:
        return f"{path} is larger than {FILE_BYTES // 1024} KB, so no login was read from it"
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe that stands in a file's place without waiting for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
