"""Files of clients: where they are, whether a login stands in them, and how one is changed so that it can be undone.

Laws of this file:

1. A file of another program is replaced whole, through its links, with its mode kept; what cannot be read is not
   changed. What stood there before is kept beside the accounts, for the user alone (it may hold a real login).
2. Undoing gives back the very bytes, as long as nobody else wrote there since; else only our own words go.
3. No content of a file stands in an error.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from copilot_balancer.clients import OPENCODE_LOGIN
from copilot_balancer.copilot import PLACEHOLDER
from copilot_balancer.errors import BalancerError, InvalidInput, printable
from copilot_balancer.folder import Refusal, make, opened
from copilot_balancer.jsonc import parsed, plain

FILE_BYTES = 1024 * 1024
"""A file of settings or logins has a few KB; one that is larger than this is something else."""

OPENCODE_PROVIDER = "github-copilot"
"""The key of opencode's entry. Source: clients.md 7."""

_TOKEN_VARIABLES = ("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN")
"""Where the Copilot CLI looks for a token, in its order. Source: ``copilot help environment`` (1.0.102)."""


# ── where they are ───────────────────────────────────────────────────────────────────────────────────────────────────


def opencode_logins_file(environ: Mapping[str, str], home: Path) -> Path:
    """``auth.json``; opencode uses the XDG folders on every system. Source: clients.md 7."""
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "opencode" / "auth.json"


def copilot_cli_state_file(environ: Mapping[str, str], home: Path) -> Path:
    """``config.json``, which names who is logged in. Source: seen in 1.0.102; ``copilot help environment``."""
    return Path(environ.get("COPILOT_HOME") or home / ".copilot") / "config.json"


def vscode_settings_file(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    """The user's ``settings.json``. Source: VS Code docs, configure/settings."""
    if platform == "win32":
        folder = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return folder / "Code" / "User" / "settings.json"


def neovim_plugin_file(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    """A file of our own that Neovim runs at its start. Source: ``:help standard-path``, ``:help load-plugins``."""
    usual = home / "AppData" / "Local" if platform == "win32" else home / ".config"
    folder = Path(environ.get("XDG_CONFIG_HOME") or usual) / (environ.get("NVIM_APPNAME") or "nvim")
    return folder / "plugin" / "copilot-balancer.lua"


# ── whether a login stands in them ───────────────────────────────────────────────────────────────────────────────────


class Login(Enum):
    """What a client holds."""

    NONE = "none"
    PLACEHOLDER = "the placeholder"
    OWN = "a login of its own"


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


def copilot_cli_login(environ: Mapping[str, str], home: Path) -> str | None:
    """Where the Copilot CLI has a login of its own, in words for people; None: nowhere that we can see."""
    for name in _TOKEN_VARIABLES:
        if environ.get(name) not in (None, "", PLACEHOLDER):
            return f"the environment variable {name}"
    path = copilot_cli_state_file(environ, home)
    with suppress(InvalidInput):
        raw = read(path)
        facts = _object(path, raw, comments=True) if raw else {}
        if facts.get("loggedInUsers") or facts.get("logged_in_users"):
            return printable(str(path), 4096)
    return None


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


def with_vscode_proxy(path: Path, raw: bytes | None, url: str) -> bytes:
    """VS Code's settings with ``http.proxy``; every other byte, comments too, stays.

    Raises:
        InvalidInput: `raw` cannot be read, or names a proxy already.

    """
    text = (raw or b"").decode("utf-8", "surrogateescape")
    settings = _object(path, raw, comments=True) if text.strip() else {}
    if "http.proxy" in settings:
        raise InvalidInput(
            f'{_shown(path)} has an "http.proxy" already, which stays as it is: take it out, or set it to {url}'
        )
    if not text.strip():
        return f'{{\n    "http.proxy": {json.dumps(url)}\n}}\n'.encode()
    at = plain(text).index("{") + 1
    line = _vscode_line(url) if settings else _vscode_line(url).rstrip(",")
    return f"{text[:at]}{line}{text[at:]}".encode("utf-8", "surrogateescape")


def without_vscode_proxy(path: Path, raw: bytes, url: str) -> bytes:
    """VS Code's settings without the line that we wrote.

    Raises:
        InvalidInput: it is not there any more as we wrote it.

    """
    text = raw.decode("utf-8", "surrogateescape")
    line = _vscode_line(url)
    found = line if line in text else line.rstrip(",")
    if text.count(found) != 1:
        raise InvalidInput(f'the "http.proxy" in {_shown(path)} is not as it was written: take it out by hand')
    return text.replace(found, "").encode("utf-8", "surrogateescape")


def _vscode_line(url: str) -> str:
    return f'\n    "http.proxy": {json.dumps(url)},'


def neovim_plugin(url: str, certificates: Path) -> bytes:
    """Lua that points Copilot's plugins at the proxy."""
    return (
        "-- Written by `copilot-balancer setup neovim`; `copilot-balancer setup neovim --undo` takes it away.\n"
        f"vim.g.copilot_proxy = {_lua(url)}\n"
        f"vim.env.NODE_EXTRA_CA_CERTS = {_lua(str(certificates))}\n"
    ).encode()


def _lua(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{quoted}"'


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


# ── changing, and the way back ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Record:
    """What is kept of a change until it is undone."""

    path: str
    """The file itself, links followed."""
    before: bytes | None
    """What stood there; None: there was no file."""
    after: str
    """SHA-256 of what we wrote."""
    made: tuple[str, ...] = ()
    """Folders that were made for it, outermost first."""
    note: str = ""
    """What the change was made with: a URL."""

    def is_in(self, content: bytes | None) -> bool:
        """Whether `content` is what was written."""
        return content is not None and _digest(content) == self.after


class Changes:
    """The changes that were made to clients' files, one for each client, in a folder for the user alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, client: str) -> Record | None:
        """The change that stands, if one does.

        Raises:
            BalancerError: what is kept of it cannot be read.

        """
        with opened(self.folder) as folder:
            if folder is None:
                return None
            facts = self._checked(folder if isinstance(folder, Refusal) else folder.read(f"{client}.json"))
            before = self._checked(None if isinstance(folder, Refusal) else folder.read(f"{client}.before"))
        if facts is None:
            return None
        try:
            known = json.loads(facts)
            return Record(known["path"], before, known["after"], tuple(known["made"]), known["note"])
        except (ValueError, KeyError, TypeError):
            raise BalancerError(f"{self.folder / client}.json is not as it was written: undo by hand") from None

    def apply(self, client: str, path: Path, after: bytes, note: str = "") -> Record:
        """Write `after` to `path`; what stood there is kept first.

        Raises:
            BalancerError: it cannot be written; nothing was changed.

        """
        path = path.resolve()
        before = read(path)
        made = tuple(str(folder) for folder in reversed((path, *path.parents)) if not folder.exists())[:-1]
        record = Record(str(path), before, _digest(after), made if before is None else (), note)
        self._keep(client, record)
        try:
            _replace(path, after)
        except OSError as error:
            self._forget(client)
            raise BalancerError(f"{_shown(path)} cannot be written: {error.strerror}") from None
        return record

    def undo(self, client: str, record: Record, without: Callable[[bytes], bytes] | None = None) -> str:
        """Give back what stood there; what was done, in words.

        Args:
            client: whose.
            record: the change.
            without: makes the file of now one without our words, when somebody wrote there since; None: nobody can.

        Raises:
            BalancerError: it cannot be undone; nothing was changed.

        """
        path = Path(record.path)
        now = read(path)
        told = f"{_shown(path)} is as it was before"
        if now is None:
            told = f"{_shown(path)} is gone already"
        elif record.is_in(now):
            self._put_back(path, record.before)
        elif without is None:
            raise BalancerError(
                f"{_shown(path)} was changed by somebody since, so it is left alone; "
                f"what stood there before: {self.folder / client}.before"
            )
        else:
            self._put_back(path, without(now))
            told = f"{_shown(path)} was changed since: only what was written here is gone"
        for made in reversed(record.made):
            with suppress(OSError):  # somebody else uses it by now
                Path(made).rmdir()
        self._forget(client)
        return told

    @staticmethod
    def _put_back(path: Path, content: bytes | None) -> None:
        try:
            if content is None:
                path.unlink()
            else:
                _replace(path, content)
        except OSError as error:
            raise BalancerError(f"{_shown(path)} cannot be written: {error.strerror}") from None

    def _keep(self, client: str, record: Record) -> None:
        facts = {"path": record.path, "after": record.after, "made": record.made, "note": record.note}
        self._checked(make(self.folder))
        with opened(self.folder) as folder:
            if folder is None or isinstance(folder, Refusal):
                raise self._error(folder or Refusal("it was removed meanwhile", "try again"))
            self._checked(folder.tidy((f"{client}.before", f"{client}.json")))
            if record.before is not None:
                self._checked(folder.put(f"{client}.before", record.before))
            self._checked(folder.put(f"{client}.json", json.dumps(facts, indent=1).encode()))

    def _forget(self, client: str) -> None:
        for name in (f"{client}.json", f"{client}.before"):
            (self.folder / name).unlink(missing_ok=True)

    def _checked(self, found: bytes | Refusal | None) -> bytes | None:
        if isinstance(found, Refusal):
            raise self._error(found)
        return found

    def _error(self, refusal: Refusal) -> BalancerError:
        return BalancerError(f"{_shown(self.folder)}: {refusal.why}. Remedy: {refusal.remedy}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Let `content` be the file, whole, with the mode that it has; a new one is for the user alone."""
    mode = 0o600
    if path.exists():
        facts = path.stat()
        mode = stat.S_IMODE(facts.st_mode)
        if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.copilot-balancer")  # one name: a killed writer leaves one file at most
    beside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
