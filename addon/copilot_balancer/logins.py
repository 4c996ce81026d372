"""Where other programs keep their Copilot login. They are read, never written.

Laws of this file:

1. A token that is found stands in a ``SecretStr``; no sentence quotes a file's content, and no exception is raised in a
   frame that holds it.
2. An importer that finds nothing says where it looked.
3. The placeholder that a client may hold instead of a login is never a login.
"""

import json
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Found:
    """A login that another program holds."""

    token: SecretStr
    host: str
    """The login host: github.com or NAME.ghe.com."""
    where: str
    """The file, and what it is called in there: for people."""


def find_opencode(environ: Mapping[str, str], home: Path) -> list[Found]:
    """The Copilot logins of opencode, at least one.

    They stand in ``$XDG_DATA_HOME/opencode/auth.json`` (default, on every system: ``~/.local/share``) as
    ``{"github-copilot": {"type": "oauth", "refresh": TOKEN, "enterpriseUrl": DOMAIN}}``. Source: clients.md 7.

    Raises:
        InvalidInput: there is none; the sentence says where it was looked for.

    """
    data = environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    found = _opencode_logins(Path(data) / "opencode" / "auth.json")
    if isinstance(found, str):
        raise InvalidInput(found)
    return found


def _opencode_logins(path: Path) -> list[Found] | str:
    """The logins in `path`, or why there are none. Returned, not raised: this frame holds the file's content."""
    entries = _read(path)
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
        where = f"{path} ({provider})"
        try:
            token = check_token(str(entry.get("refresh") or ""))
            host = normalise_domain(str(entry.get("enterpriseUrl") or GITHUB))
        except InvalidInput as error:
            return f"{where}: {error}"
        found.append(Found(SecretStr(token), host, where))
    if found:
        return found
    if placeholders:
        return f"{path} holds only the placeholder, which is no login: opencode has no account of its own"
    return f"{path} holds no login for GitHub Copilot: log in with `opencode auth login` first"


def _read(path: Path) -> dict[str, object] | str:
    """The JSON object in `path`, or why there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return f"opencode has no login here: {path} does not exist"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    try:
        entries = json.loads(content) if len(content) <= FILE_BYTES else None
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict):
        return f"{path} is not a JSON object, so no login was read from it"
    return entries
