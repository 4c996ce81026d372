"""Reads and replaces files in a private folder: mode 0600, atomic replacement, no symbolic links followed, file locks.

Laws of this file:

1. Only a missing file is missing: what cannot be used as it is comes back as a `Refusal`, with the reason and the
   remedy, never as something empty; and it is never repaired in silence.
2. The new file replaces the old one whole, or nothing changes: temporary file beside it, fsync, replace, fsync of the
   folder. There is one temporary name for each file, so that a killed writer leaves at most that one behind.
3. Only the owner may read what stands here, whatever the umask; no link is followed out of the folder.
4. It knows bytes and names, not what they mean. Bytes may be secrets: a refusal is returned and raised elsewhere, so
   that no frame of its traceback holds them.

On Windows there are no owners and modes to check and no folder to hold open: there the folder's own access list is
what protects the files, and only the checks of kind and size remain.

The threats behind these rules: docs/security.md#files-on-disk.
"""

import errno
import inspect
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copilot_balancer.text import printable

if TYPE_CHECKING:
    from filelock import FileLock

MAX_BYTES = 4 * 1024 * 1024
"""A larger file is not one of ours: it is neither read nor written."""
KEPT_ASIDE = 3
"""So many unreadable files of one name are kept."""

_POSIX = os.name == "posix"
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Never through a link, never waiting for a pipe's other end, never handed to a child. Not every system has each."""
_FOLDER_FLAGS = getattr(os, "O_DIRECTORY", 0) | _FLAGS
_RACES = 100
"""So often a reader without the lock may find that its file was replaced between open and fstat."""

_REMEDIES = {
    errno.ENOSPC: "free some space on this disk",
    errno.EDQUOT: "free some of your disk quota",
    **dict.fromkeys((errno.ENOLCK, errno.ENOSYS), "put the folder on a disk that has locks: set COPILOT_BALANCER_HOME"),
    errno.EROFS: "put the folder on a disk that can be written: set COPILOT_BALANCER_HOME",
    errno.EACCES: "look at owner and mode of the file and of the folders above it",
    errno.EIO: "look at the health of the disk",
}


@dataclass(frozen=True)
class Refusal:
    """Why a file cannot be used, and what to do about it; no content of the file."""

    why: str
    remedy: str
    movable: bool = True
    """Whether the file may be set aside: not when it is fine and only we, or the disk, are at fault."""

    def of(self, path: Path) -> str:
        """What the user is told about the file or folder at `path`."""
        return f"{printable(str(path), 4096)}: {self.why}. Remedy: {self.remedy}"


AWAY = "restore it from a backup, or move it away"

KEEPERS = {
    ".gitignore": b"*\n",
    "CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55\n"  # the signature: https://bford.info/cachedir/
    b"# copilot-balancer keeps tokens here. This tag asks backup programs to leave the folder out.\n",
}
"""What keeps the folder out of repositories and backups."""


def failed(error: OSError, *, doing: str) -> Refusal:
    """What the system said, and the usual remedy for it."""
    remedy = _REMEDIES.get(error.errno or 0, "try again")
    return Refusal(f"{doing} failed ({error.strerror or type(error).__name__})", remedy, movable=False)


def _foreign(facts: os.stat_result, path: Path, mode: int) -> Refusal | None:
    """Whether others than we may read it; as ssh does, by the owner and the mode of what is open."""
    if not _POSIX:
        return None
    name = shlex.quote(printable(str(path), 4096))
    us, found = os.geteuid(), f"owner {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):04o}"
    if facts.st_uid != us:
        return Refusal(f"it belongs to another user ({found}; we are {us})", f"chown {us} {name}")
    if facts.st_mode & 0o077:
        return Refusal(f"others may use it ({found})", f"chmod {mode:o} {name}")
    return None


class Folder:
    """The open folder. Files are named relative to it, so that it cannot be exchanged between two steps.

    What changes a file here is called under the lock of whoever owns the folder.
    """

    def __init__(self, path: Path, handle: int | None) -> None:
        self.path = path
        self.handle = handle

    def at(self, name: str) -> str:
        """What the system is told with ``dir_fd=folder.handle``."""
        return name if self.handle is not None else str(self.path / name)

    def open(self, name: str, flags: int) -> int:
        """A handle; a file that is made is for the owner alone. Raises OSError."""
        return os.open(self.at(name), flags | _FLAGS, 0o600, dir_fd=self.handle)

    def facts(self, name: str) -> os.stat_result | None:
        """What the system knows of the file, or of a link in its place; None when there is none. Raises OSError."""
        try:
            return os.stat(self.at(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        return os.listdir(self.path if self.handle is None else self.handle)  # noqa: PTH208 - a path has no handle

    def unlink(self, name: str) -> None:
        """Remove a file that may be there. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self.at(name), dir_fd=self.handle)

    def rename(self, old: str, new: str) -> None:
        """Let a file take the place of another. Raises OSError."""
        os.replace(self.at(old), self.at(new), src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def _sync(self) -> Refusal | None:
        try:
            if self.handle is not None:
                os.fsync(self.handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that has nothing to sync here says EINVAL
                return failed(error, doing="the change stands, but its confirmation by the disk")
        return None

    def read(self, name: str) -> bytes | Refusal | None:
        """The bytes of a file that is what we would have written; None when there is none."""
        for _ in range(_RACES):
            try:
                handle = self.open(name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EMLINK):  # what Linux and macOS, and FreeBSD, say of O_NOFOLLOW
                    return Refusal("it is a symbolic link", "put the file itself in its place")
                return failed(error, doing="opening it")
            try:
                facts = os.fstat(handle)
                if facts.st_nlink == 0:
                    continue  # it was replaced since we opened it: the new one is at the same name
                return self._unfit(name, facts) or _bytes_of(handle)
            except OSError as error:
                return failed(error, doing="reading it")
            finally:
                os.close(handle)
        return Refusal("it is being replaced all the time", "try again", movable=False)

    def _unfit(self, name: str, facts: os.stat_result) -> Refusal | None:
        if not stat.S_ISREG(facts.st_mode):
            return Refusal("it is not a regular file", "move it away")
        if facts.st_nlink > 1:
            return Refusal(f"it has {facts.st_nlink} names (hard links)", "remove the other names, or move it away")
        if facts.st_size > MAX_BYTES:
            return Refusal(f"it is larger than {MAX_BYTES} bytes", AWAY)
        return _foreign(facts, self.path / name, 0o600)

    def put(self, name: str, raw: bytes) -> Refusal | None:
        """Let `raw` be the file of this name. What a killed writer left at its temporary name is gone: see `tidy`."""
        try:
            self.replace(name, raw, f"{name}.new")
        except OSError as error:
            return failed(error, doing="writing it")
        return self._sync()

    def replace(self, name: str, raw: bytes, beside: str, mode: int = 0o600) -> None:
        """Write `raw` to a new file `beside`, and let it take the place of `name`. Raises OSError."""
        try:
            handle = self.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                if _POSIX:  # whatever the umask was
                    os.fchmod(handle, mode)
                rest = memoryview(raw)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            self.rename(beside, name)
        except OSError:
            with suppress(OSError):
                self.unlink(beside)
            raise

    def tidy(self, names: Iterable[str]) -> Refusal | None:
        """Remove what killed writers of the files `names` left, and see to it that the folder's keepers are there."""
        try:
            for name in (*KEEPERS, *names):
                self.unlink(f"{name}.new")
            there = self._names()
        except OSError as error:
            return failed(error, doing="removing what a killed writer left (*.new)")
        for name, raw in KEEPERS.items():
            if name not in there and (failure := self.put(name, raw)):
                return failure
        return None

    def set_aside(self, name: str) -> str | Refusal:
        """Give the file another name, for its owner alone, and forget the oldest of its kind."""
        prefix = f"{name}.corrupt-"
        aside = f"{prefix}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        try:
            self.rename(name, aside)
            with suppress(OSError):  # a link: only its name is ours
                self._close_to_others(aside)
            for old in sorted(known for known in self._names() if known.startswith(prefix))[:-KEPT_ASIDE]:
                with suppress(OSError):
                    self.unlink(old)
        except OSError as error:
            return failed(error, doing="setting it aside")
        return self._sync() or aside

    def _close_to_others(self, name: str) -> None:
        handle = self.open(name, os.O_RDONLY)
        try:
            facts = os.fstat(handle)
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                for_the_owner_alone(handle)
        finally:
            os.close(handle)


def replace_file(path: Path, raw: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` whole, in a folder that may be another program's; it is made where it is missing.

    Raises:
        OSError: it cannot be written; the old file is as it was.

    """
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    folder, beside = Folder(path.parent, None), f".{path.name}.copilot-balancer"
    folder.unlink(beside)  # one name: a killed writer leaves one file at most
    folder.replace(path.name, raw, beside, mode)


def for_the_owner_alone(handle: int) -> None:
    """Whatever the umask was, and whatever the file's mode. Raises OSError."""
    if _POSIX:
        os.fchmod(handle, 0o600)


def _bytes_of(handle: int) -> bytes | Refusal:
    parts, left = [], MAX_BYTES + 1
    while left and (part := os.read(handle, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts) if left else Refusal(f"it is larger than {MAX_BYTES} bytes", AWAY)


def _folder_handle(path: Path) -> int | Refusal | None:
    """The open folder when it is ours alone; None when there is none."""
    try:
        handle = os.open(path, _FOLDER_FLAGS)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return Refusal("it is no folder, or a symbolic link to one", "name the folder itself")
    except OSError as error:
        return failed(error, doing="opening it")
    if (refusal := _foreign(os.fstat(handle), path, 0o700)) is not None:
        os.close(handle)
        return refusal
    return handle


@contextmanager
def opened(path: Path) -> Iterator[Folder | Refusal | None]:
    """The folder, when it is ours alone; None when there is none."""
    handle = _folder_handle(path) if _POSIX else None
    if handle is None:
        yield None if _POSIX or not path.is_dir() else Folder(path, None)
    elif isinstance(handle, Refusal):
        yield handle
    else:
        try:
            yield Folder(path, handle)
        finally:
            os.close(handle)


def make(path: Path) -> Refusal | None:
    """Make the folder and those above it, for us alone (the XDG base directory specification asks for 0700)."""
    try:
        missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another process was faster
                folder.mkdir(0o700)
                folder.chmod(0o700)  # by name: under umask 777 we could not even open it
    except OSError as error:
        return failed(error, doing="making it")
    return None


_POLL = 0.003
"""Seconds between two tries: slower polling starves a writer."""


def held(path: Path, timeout: float) -> "FileLock | Refusal | None":
    """The lock at `path`, held. Blocks for `timeout` seconds or less; None: another program holds it."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - law 3

    wishes: dict[str, Any] = {"mode": 0o600, "thread_local": False, "timeout": timeout, "poll_interval": _POLL}
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:  # not in filelock 3.20
        wishes["fallback_to_soft"] = False
    lock = FileLock(path, **wishes)
    try:
        lock.acquire()
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        cause = error if isinstance(error, OSError) else OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return failed(cause, doing="locking it")
    return lock


def unfit(facts: os.stat_result) -> Refusal | None:
    """Why nothing may be appended to it."""
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        return Refusal("it is not a regular file with one name", "move it away")
    return None


def missing_end(handle: int, size: int) -> bytes:
    """What must stand before the next line after a program that was killed while it wrote. Raises OSError."""
    if size == 0:
        return b""
    os.lseek(handle, size - 1, os.SEEK_SET)
    return b"" if os.read(handle, 1) == b"\n" else b"\n"


def append(handle: int, size: int, raw: bytes | bytearray) -> None:
    """Write all of `raw` behind the `size` bytes that are there. Raises OSError."""
    rest = memoryview(raw)
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
    except OSError:
        os.ftruncate(handle, size)
        raise
