"""opencode: split from its former room."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from copilot_balancer.cli.clients.environment import OPENCODE_LOGIN
from copilot_balancer.cli.clients.files import Found, Login, _login, _object, _read_object, _shown, read
from copilot_balancer.copilot.hosts import GITHUB
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

OPENCODE_PROVIDER = "github-copilot"
"""The key of opencode's entry. Source: docs/clients.md#login-files."""


# ── where they are ───────────────────────────────────────────────────────────────────────────────────────────────────


def opencode_logins_file(environ: Mapping[str, str], home: Path) -> Path:
    """``auth.json``; opencode uses the XDG folders on every system. Source: docs/clients.md#login-files."""
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "opencode" / "auth.json"


@dataclass(frozen=True)
class OpencodeLogins:
    """What stands in opencode's ``auth.json``; no secret."""

    copilot: Login
    others: int
    """How many logins of other providers."""


def opencode_logins(path: Path) -> OpencodeLogins:
    """Which logins opencode holds.

    Raises:
        InvalidInput: the file cannot be read.

    """
    raw = read(path)
    return _logins(_object(path, raw)) if raw and raw.strip() else OpencodeLogins(Login.NONE, 0)


def _logins(entries: Mapping[str, object]) -> OpencodeLogins:
    entry = entries.get(OPENCODE_PROVIDER)
    if not isinstance(entry, dict):
        held = Login.NONE
    else:
        held = Login.PLACEHOLDER if entry.get("refresh") == PLACEHOLDER else Login.OWN
    return OpencodeLogins(held, sum(key != OPENCODE_PROVIDER for key in entries))


# ── what is to stand in them ─────────────────────────────────────────────────────────────────────────────────────────


def with_opencode_login(path: Path, raw: bytes | None) -> bytes:
    """The logins of opencode with the placeholder as the one for GitHub Copilot; the others stay.

    Raises:
        InvalidInput: `raw` is not what opencode writes.

    """
    entries = _object(path, raw) if raw and raw.strip() else {}
    return _dumped({**entries, OPENCODE_PROVIDER: dict(OPENCODE_LOGIN)})


def without_opencode_login(path: Path, raw: bytes, before: bytes | None) -> bytes:
    """The logins of opencode as they are now, with the one for GitHub Copilot as it was in `before`.

    Raises:
        InvalidInput: `raw` is not what opencode writes, or the placeholder is not there any more.

    """
    entries = _object(path, raw)
    if _logins(entries).copilot is not Login.PLACEHOLDER:
        raise InvalidInput(f"{_shown(path)} does not hold the placeholder any more: opencode logged in by itself since")
    old = _object(path, before).get(OPENCODE_PROVIDER) if before and before.strip() else None
    kept = {key: value for key, value in entries.items() if key != OPENCODE_PROVIDER}
    return _dumped(kept if old is None else {**kept, OPENCODE_PROVIDER: old})


def _dumped(entries: Mapping[str, object]) -> bytes:
    """As opencode writes it: ``JSON.stringify(entries, null, 2)``."""
    return json.dumps(entries, indent=2, ensure_ascii=False).encode()


OPENCODE_PROVIDERS = ("github-copilot", "github-copilot-enterprise")
"""Keys of opencode's auth.json. The second one was written by older versions for ``*.ghe.com``."""


def find_opencode(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The Copilot logins of opencode, at least one.

    They stand in ``$XDG_DATA_HOME/opencode/auth.json`` (default, on every system: ``~/.local/share``) as
    ``{"github-copilot": {"type": "oauth", "refresh": TOKEN, "enterpriseUrl": DOMAIN}}``.
    Source: docs/clients.md#login-files.
    """
    data = environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    return _opencode_logins(Path(data) / "opencode" / "auth.json")


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
