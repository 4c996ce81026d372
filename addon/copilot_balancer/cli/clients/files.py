"""files: split from its former room."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from copilot_balancer.cli.clients.jsonc import parsed
from copilot_balancer.copilot.hosts import GITHUB, normalise_domain
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import check_token
from copilot_balancer.text import printable

FILE_BYTES = 1024 * 1024
"""A file of settings or logins has a few KB; one that is larger than this is something else."""


# ── whether a login stands in them ───────────────────────────────────────────────────────────────────────────────────


class Login(Enum):
    """What a client holds."""

    NONE = "none"
    PLACEHOLDER = "the placeholder"
    OWN = "a login of its own"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> bytes | None:
    """What stands in a file of a client; None: there is none.

    Raises:
        InvalidInput: it cannot be read.

    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{_shown(path)} is not a regular file")
            raw = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput(f"{_shown(path)} cannot be read: {error.strerror}") from None
    if len(raw) > FILE_BYTES:
        raise InvalidInput(f"{_shown(path)} is larger than {FILE_BYTES // 1024} KB")
    return raw


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _shown(path: Path) -> str:
    return printable(str(path), 4096)


def _object(path: Path, raw: bytes | None, *, comments: bool = False) -> dict[str, Any]:
    """The JSON object in a file."""
    found = parsed(raw or b"", comments=comments)
    if not isinstance(found, dict):
        raise InvalidInput(f"{_shown(path)} is not a JSON object, so it is left alone")
    return found


HOST_VARIABLES = ("COPILOT_GH_HOST", "GH_HOST")
"""Which name the login host of such a token. Source: docs/copilot-protocol.md#hosts."""


@dataclass(frozen=True)
class Found:
    """A login that another program holds."""

    token: SecretStr
    host: str
    """The login host: github.com or NAME.ghe.com."""
    where: str
    """The file, and what it is called in there: for people."""


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


def _host_of(key: str) -> str:
    """``"https://github.com:octocat"``, ``"github.com:APP"`` or ``"github.com"`` -> ``"github.com"``."""
    return key.removeprefix("https://").partition(":")[0]


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
