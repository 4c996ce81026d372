"""opencode: its login file ``auth.json``, read for `import`, and with the placeholder in it for `setup`.

The file is ``{"github-copilot": {"type": "oauth", "refresh": TOKEN, "enterpriseUrl": DOMAIN}, ...}``.
Source: docs/clients.md#login-files.
"""

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from copilot_balancer.cli.clients.client import Client, Found, Plan, Record, SetupRequest, Trust
from copilot_balancer.cli.clients.files import login, login_entries, object_in, read, shown
from copilot_balancer.copilot.hosts import GITHUB
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

PROVIDER = "github-copilot"
PROVIDERS = (PROVIDER, "github-copilot-enterprise")
"""Keys of the entries for Copilot. The second one was written by older versions for ``*.ghe.com``."""

PLACEHOLDER_LOGIN: Mapping[str, object] = {
    "type": "oauth",
    "refresh": PLACEHOLDER,
    "access": PLACEHOLDER,
    "expires": 0,
}
"""The entry for Copilot without a credential."""

LOGIN_VARIABLE = "OPENCODE_AUTH_CONTENT"
"""Holds the content of ``auth.json``, which is then not read. Source: docs/clients.md#login-files."""


def logins_file(environ: Mapping[str, str], home: Path) -> Path:
    """``auth.json``; opencode uses the XDG folders on every system."""
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "opencode" / "auth.json"


class Login(Enum):
    """What stands in ``auth.json`` as the login for Copilot."""

    NONE = "none"
    PLACEHOLDER = "the placeholder"
    OWN = "a login of its own"


def held(entries: Mapping[str, Any]) -> Login:
    """Which login for Copilot the entries of ``auth.json`` hold."""
    entry = entries.get(PROVIDER)
    if not isinstance(entry, dict):
        return Login.NONE
    return Login.PLACEHOLDER if entry.get("refresh") == PLACEHOLDER else Login.OWN


def _own_login(environ: Mapping[str, str], home: Path) -> str | None:
    path = logins_file(environ, home)
    return shown(path) if held(object_in(path, read(path))) is Login.OWN else None


def _wants_placeholder(environ: Mapping[str, str], home: Path) -> bool:
    path = logins_file(environ, home)
    entries = object_in(path, read(path))
    if held(entries) is not Login.NONE or environ.get(LOGIN_VARIABLE):
        return False
    if entries:  # the variable would hide these logins
        raise InvalidInput(
            f"opencode has logins in {shown(path)}, but none for GitHub Copilot: run `copilot-balancer setup opencode` "
            "once"
        )
    return True


# ── import ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find_logins(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    path = logins_file(environ, home)
    entries = login_entries(path, "opencode")
    if isinstance(entries, str):
        return entries
    found = []
    placeholders = 0
    for provider in PROVIDERS:
        entry = entries.get(provider)
        if not isinstance(entry, dict) or entry.get("type") != "oauth":
            continue
        if entry.get("refresh") == PLACEHOLDER:
            placeholders += 1
            continue
        one = login(entry.get("refresh"), entry.get("enterpriseUrl") or GITHUB, f"{path} ({provider})")
        if isinstance(one, str):
            return one
        found.append(one)
    if found:
        return found
    if placeholders:
        return f"{path} holds only the placeholder, which is no login: opencode has no account of its own"
    return f"{path} holds no login for GitHub Copilot: log in with `opencode auth login` first"


# ── setup ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_placeholder(path: Path, raw: bytes | None) -> bytes:
    """``auth.json`` with the placeholder as the login for Copilot; the other logins stay.

    Raises:
        InvalidInput: `raw` is not what opencode writes.

    """
    return _dumped({**object_in(path, raw), PROVIDER: dict(PLACEHOLDER_LOGIN)})


def without_placeholder(path: Path, record: Record, now: bytes) -> bytes:
    """``auth.json`` as it is now, with the login for Copilot as it was before.

    Raises:
        InvalidInput: it is not what opencode writes, or the placeholder is not there any more.

    """
    entries = object_in(path, now)
    if held(entries) is not Login.PLACEHOLDER:
        raise InvalidInput(
            f"{shown(path)} does not hold the placeholder any more: opencode has logged in by itself since"
        )
    old = object_in(path, record.before).get(PROVIDER)
    kept = {key: value for key, value in entries.items() if key != PROVIDER}
    return _dumped(kept if old is None else {**kept, PROVIDER: old})


def _dumped(entries: Mapping[str, object]) -> bytes:
    """As opencode writes it: ``JSON.stringify(entries, null, 2)``."""
    return json.dumps(entries, indent=2, ensure_ascii=False).encode()


def _plan(request: SetupRequest) -> Plan:
    path = logins_file(request.environ, request.home)
    before = read(path)
    entries = object_in(path, before)
    if held(entries) is Login.OWN and not request.replace:
        raise InvalidInput(
            f"opencode has a login for GitHub Copilot of its own in {shown(path)}, and that works through the proxy as "
            "it is. To keep its token in the store only: `copilot-balancer accounts import --from opencode`, then add "
            "--replace here"
        )
    others = sum(key != PROVIDER for key in entries)
    more = f" Its {others} logins of other providers stay as they are." if others else ""
    return Plan(
        f"With it opencode offers Copilot's models.{more}",
        (f"Run it through the proxy: `copilot-balancer exec{request.way.port_option} -- opencode`",),
        path,
        before if before is not None and held(entries) is Login.PLACEHOLDER else with_placeholder(path, before),
        '"github-copilot": the placeholder, which is nobody\'s token',
    )


OPENCODE = Client(
    "opencode",
    ("opencode",),
    {"NODE_EXTRA_CA_CERTS": Trust.MORE},
    "measured: opencode 1.18.33 (docs/clients.md)",
    login={LOGIN_VARIABLE: json.dumps({PROVIDER: PLACEHOLDER_LOGIN})},
    wants_placeholder=_wants_placeholder,
    own_login=_own_login,
    find_logins=_find_logins,
    logins_at="auth.json in ~/.local/share/opencode",
    plan=_plan,
    without=without_placeholder,
)
