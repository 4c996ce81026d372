"""Reads files of other programs: one bounded reader, and JSON objects and logins out of what it read.

Laws of this file:

1. A file is a regular file of at most `FILE_BYTES`; a pipe in its place is not waited for.
2. No error quotes content. Where the content may be a login, the reason is returned instead of raised, so that no frame
   of a traceback holds it.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from copilot_balancer.cli.clients.client import Found
from copilot_balancer.cli.clients.jsonc import parsed
from copilot_balancer.copilot.hosts import GITHUB, normalise_domain
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import check_token
from copilot_balancer.text import printable

FILE_BYTES = 1024 * 1024
"""A file of settings or logins has a few KB; one that is larger than this is something else."""


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def content_of(path: Path) -> bytes | str | None:
    """The bytes of a file of another program; a sentence where they cannot be read; None: there is no file."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return f"{shown(path)} is not a regular file"
            raw = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{shown(path)} cannot be read: {error.strerror}"
    if len(raw) > FILE_BYTES:
        return f"{shown(path)} is larger than {FILE_BYTES // 1024} KB"
    return raw


def read(path: Path) -> bytes | None:
    """The bytes of a file of another program; None: there is no file.

    Raises:
        InvalidInput: it cannot be read.

    """
    content = content_of(path)
    if isinstance(content, str):
        raise InvalidInput(content)
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def shown(path: Path) -> str:
    """A path for people."""
    return printable(str(path), 4096)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def object_in(path: Path, raw: bytes | None, *, comments: bool = False) -> dict[str, Any]:
    """The JSON object that the file at `path` holds, whose bytes are `raw`; an empty one for an empty or missing file.

    Raises:
        InvalidInput: it is not a JSON object.

    """
    if not raw or not raw.strip():
        return {}
    found = parsed(raw, comments=comments)
    if not isinstance(found, dict):
        raise InvalidInput(f"{shown(path)} is not a JSON object, so it is left alone")
    return found


def login_entries(path: Path, whose: str, *, comments: bool = False) -> dict[str, Any] | str:
    """The JSON object of a file of logins, or a sentence that says why there is none."""
    content = content_of(path)
    if content is None:
        return f"{whose} has no login here: {shown(path)} does not exist"
    if isinstance(content, str):
        return f"{content}, so no login was read from it"
    entries = parsed(content, comments=comments)
    if not isinstance(entries, dict):
        return f"{shown(path)} is not a JSON object, so no login was read from it"
    return entries


# ── logins ───────────────────────────────────────────────────────────────────────────────────────────────────────────

HOST_VARIABLES = ("COPILOT_GH_HOST", "GH_HOST")
"""The variables that name the login host of a token in a variable. Source: ``copilot help environment`` (1.0.102)."""


def login(token: object, host: object, where: str) -> Found | str:
    """A login, or why it is none. Returned, not raised: this frame and its callers' hold a file's content."""
    try:
        return Found(
            SecretStr(check_token(token if isinstance(token, str) else "")), normalise_domain(str(host)), where
        )
    except InvalidInput as error:
        return f"{where}: {error}"


def usable(logins: list[Found | str]) -> list[Found] | None:
    """The entries that are logins, if any: a program's file may name hosts that have nothing to do with Copilot."""
    return [one for one in logins if isinstance(one, Found)] or None


def login_in_variable(environ: Mapping[str, str], name: str) -> list[Found] | str:
    """The login in the variable `name`, for the host that `HOST_VARIABLES` name, else github.com."""
    host = next((environ[key] for key in HOST_VARIABLES if environ.get(key)), GITHUB)
    found = login(environ[name].strip(), host, f"the environment variable {name}")
    return found if isinstance(found, str) else [found]


def host_of(key: str) -> str:
    """``"https://github.com:octocat"``, ``"github.com:APP"`` or ``"github.com"`` -> ``"github.com"``."""
    return key.removeprefix("https://").partition(":")[0]
