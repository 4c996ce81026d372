"""Replaces a file of another program, and keeps what is needed to undo that.

Laws of this file:

1. A file of another program is replaced atomically, through its links, with its mode kept; what cannot be read is not
   changed. The old content is kept beside the accounts, for the user alone (it may hold a real login).
2. Undoing restores the same bytes, if nobody else wrote there since; else only what we wrote is removed.
3. No content of a file stands in an error.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from copilot_balancer.cli.clients.client import Record
from copilot_balancer.cli.clients.files import read, shown
from copilot_balancer.errors import BalancerError
from copilot_balancer.store.folder import Refusal, make, opened, replace_file


def is_written(record: Record, content: bytes | None) -> bool:
    """Whether `content` is what was written."""
    return content is not None and _digest(content) == record.after


class Changes:
    """The changes that were made to clients' files, one for each client, in a folder that only the user can read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, client: str) -> Record | None:
        """The change that is in force, if there is one.

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
            raise BalancerError(f"{self.folder / client}.json was edited: undo the change by hand") from None

    def apply(self, client: str, path: Path, after: bytes, note: str = "") -> Record:
        """Write `after` to `path`; the old content is kept first.

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
            raise BalancerError(f"{shown(path)} cannot be written: {error.strerror}") from None
        return record

    def undo(self, client: str, record: Record, without: Callable[[bytes], bytes] | None = None) -> str:
        """Restore the old content; returns what was done, in words.

        Args:
            client: the client's name.
            record: the change.
            without: removes what we wrote from content that somebody else changed since; None: that is not possible.

        Raises:
            BalancerError: it cannot be undone; nothing was changed.

        """
        path = Path(record.path)
        now = read(path)
        told = f"{shown(path)} is as it was before"
        if now is None:
            told = f"{shown(path)} is gone already"
        elif is_written(record, now):
            self._put_back(path, record.before)
        elif without is None:
            raise BalancerError(
                f"{shown(path)} was changed by another program since, so it is left alone; "
                f"its old content: {self.folder / client}.before"
            )
        else:
            self._put_back(path, without(now))
            told = f"{shown(path)} was changed since: only what copilot-balancer wrote is removed"
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
            raise BalancerError(f"{shown(path)} cannot be written: {error.strerror}") from None

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
        return BalancerError(f"{shown(self.folder)}: {refusal.why}. Remedy: {refusal.remedy}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Replace the file atomically, with its old mode; a new file is for the user alone."""
    mode = 0o600
    if path.exists():
        facts = path.stat()
        mode = stat.S_IMODE(facts.st_mode)
        if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
    replace_file(path, content, mode)
