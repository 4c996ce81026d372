"""Appends lines to a file of the state folder from a thread, and starts a new file when the old one is full.

Laws of this file:

1. `LineLog.put` is called on the event loop and never waits; `drain` and `close` block and belong in a thread.
2. Lines stand in the order in which they were put. A full file becomes the one before; nothing older is kept.
3. A write that fails leaves the file as it was, and its lines wait; lines for which there is no room are refused.
4. Several programs may write: each holds the lock while it does, or, where lines must not mix, until `close`.
5. Only the owner may read the files, and no link is followed out of the folder.
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.store.folder import (
    Folder,
    Refusal,
    append,
    failed,
    for_the_owner_alone,
    held,
    make,
    missing_end,
    opened,
    unfit,
)
from copilot_balancer.text import printable

if TYPE_CHECKING:
    from filelock import FileLock


class LineLog:
    """Takes lines, and writes them when it is told to.

    Args:
        folder: the state folder; made when it is missing.
        file_bytes: a file that would grow beyond this is followed by a new one.
        waiting_bytes: so much may wait between two `drain`.

    """

    NAME: ClassVar[str]
    BEFORE: ClassVar[str]
    LOCK: ClassVar[str]
    LOCK_SECONDS: ClassVar[float]
    """How long `drain` waits for another program."""
    KEEPS_LOCK: ClassVar[bool] = False
    """The lock is held from the first line to `close`."""
    BUSY: ClassVar[str]
    """What is said when another program holds the lock."""
    FILE_BYTES: ClassVar[int]
    """Default of `file_bytes`."""
    WAITING_BYTES: ClassVar[int]
    """Default of `waiting_bytes`."""

    def __init__(self, folder: Path, *, file_bytes: int | None = None, waiting_bytes: int | None = None) -> None:
        self.folder = folder
        self.file_bytes = self.FILE_BYTES if file_bytes is None else file_bytes
        self.waiting_bytes = self.WAITING_BYTES if waiting_bytes is None else waiting_bytes
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._put = self._done = 0
        """Bytes so far: `put` alone counts the one, `drain` alone the other."""
        self._one_at_a_time = Lock()
        self._lock: FileLock | None = None

    @property
    def path(self) -> Path:
        """The newest file."""
        return self.folder / self.NAME

    @property
    def waits(self) -> bool:
        """Whether there is something to `drain`."""
        return bool(self._waiting)

    @property
    def room(self) -> int:
        """Bytes that may be `put` before the next `drain`."""
        return self.waiting_bytes - (self._put - self._done)

    def put_line(self, line: bytes, *, begins: bool = True) -> bool:
        """Take a line with its end; False: there is no room.

        Args:
            line: bytes that end with a newline.
            begins: a new file may begin with this line.

        """
        if len(line) > self.room:
            return False
        self._put += len(line)
        self._waiting.append((line, begins))
        return True

    def drain(self) -> None:
        """Write what waits. Blocks.

        Raises:
            StoreBusy: another program holds the lock; the lines go on waiting.
            StoreError: the folder or the file cannot be used, or the disk is full; the lines go on waiting.

        """
        with self._one_at_a_time:
            if not self._waiting:
                return
            with self._locked() as folder:
                while self._waiting:
                    self._write(folder)

    def close(self) -> None:
        """Write what waits, and release the lock. Blocks; raises as `drain`."""
        try:
            self.drain()
        finally:
            self._release()

    def _write(self, folder: Folder) -> None:
        """Append as many of the waiting lines as one file takes."""
        size = self._size(folder)
        first, begins = self._waiting[0]
        if begins and size > 0 and size + len(first) + 1 > self.file_bytes:
            self._begin_anew(folder)
            size = 0
        handle = self._opened(folder)
        try:
            for_the_owner_alone(handle)
            chunk, lines = bytearray(missing_end(handle, size)), 0
            while lines < len(self._waiting):
                line, begins = self._waiting[lines]
                if begins and lines and size + len(chunk) + len(line) > self.file_bytes:
                    break
                chunk += line
                lines += 1
            append(handle, size, chunk)
        except OSError as error:
            raise self._error(failed(error, doing="writing it")) from None
        finally:
            os.close(handle)
        for _ in range(lines):
            self._done += len(self._waiting.popleft()[0])

    def _size(self, folder: Folder) -> int:
        try:
            facts = folder.facts(self.NAME)
        except OSError as error:
            raise self._error(failed(error, doing="looking at it")) from None
        if facts is None:
            return 0
        if refusal := unfit(facts):
            raise self._error(refusal)
        return facts.st_size

    def _begin_anew(self, folder: Folder) -> None:
        try:
            folder.rename(self.NAME, self.BEFORE)
        except OSError as error:
            raise self._error(failed(error, doing="renaming it")) from None

    def _opened(self, folder: Folder) -> int:
        try:
            return folder.open(self.NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        except OSError as error:
            raise self._error(failed(error, doing="opening it")) from None

    @contextmanager
    def _locked(self) -> Iterator[Folder]:
        if failure := make(self.folder):
            raise self._error(failure)
        with opened(self.folder) as folder:
            if not isinstance(folder, Folder):
                raise self._error(folder or Refusal("the folder was removed", "try again"))
            if self._lock is None:
                lock = held(self.folder / self.LOCK, self.LOCK_SECONDS)
                if lock is None:
                    raise StoreBusy(f"{printable(str(self.path), 4096)}: {self.BUSY}")
                if isinstance(lock, Refusal):
                    raise self._error(lock)
                self._lock = lock
            try:
                yield folder
            finally:
                if not self.KEEPS_LOCK:
                    self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _error(self, refusal: Refusal) -> StoreError:
        return StoreError(refusal.of(self.path))
