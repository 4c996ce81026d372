"""The decision log on disk: ``decisions.jsonl`` in the state folder, and the file before it, ``decisions.1.jsonl``.

Laws of this file:

1. `DecisionFile.put` is called on the event loop and never waits; `drain` and `close` block and belong in a thread.
2. Lines stand in the order in which they were put, none in between is missing, and one program writes at a time.
3. A new file is begun only with a run, so that each file can be replayed by itself; nothing older than the file before
   is kept.
4. A write that fails leaves the file as it was, and its lines wait; those that no longer fit are refused, not queued.
5. Only the owner may read it, and no link is followed out of the folder.
"""

import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.store.decision_log import LINE_BYTES, RUN_BYTES
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

NAME = "decisions.jsonl"
BEFORE = "decisions.1.jsonl"

FILE_BYTES = 8 * 1024 * 1024
"""No file is larger, unless a run alone is."""
WAITING_BYTES = 8 * 1024 * 1024
"""So much waits for a disk that is slow or full."""


class DecisionFile:
    """Takes the lines of a `RecordedPool` and writes them when it is told to.

    Args:
        folder: the state folder; made when it is missing.
        file_bytes: a file of this size is followed by a new one.
        waiting_bytes: so much may wait between two `drain`.

    """

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, waiting_bytes: int = WAITING_BYTES) -> None:
        self.folder = folder
        self.file_bytes = file_bytes
        self.waiting_bytes = waiting_bytes
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._put = self._done = 0
        """Bytes so far: `put` alone counts the one, `drain` alone the other."""
        self._refuses = False
        """The run in the file has ended, so only a new one is of use."""
        self._one_at_a_time = Lock()
        self._lock: FileLock | None = None
        self._chunks: deque[tuple[bytearray, bool]] = deque()
        """Taken from what waits: lines that are written together, and whether a run begins with them."""
        self._size: int | None = None
        """The file's, as we left it in the middle of a run; None: there is no run to go on with."""

    @property
    def path(self) -> Path:
        """The newest file."""
        return self.folder / NAME

    @property
    def waits(self) -> bool:
        """Whether there is something to `drain`."""
        return self._put > self._done

    def put(self, line: str, begins: bool) -> bool:
        """Take a line without its end; False: there is no room for it, or only a run's beginning is of use."""
        raw = line.encode("ascii") + b"\n"
        if (self._refuses and not begins) or self._put - self._done + len(raw) > self.waiting_bytes:
            return False
        self._refuses = False
        self._put += len(raw)
        self._waiting.append((raw, begins))
        return True

    def drain(self) -> None:
        """Write what waits. Blocks.

        Raises:
            StoreBusy: another proxy records here.
            StoreError: the folder or the file cannot be used, or the disk is full; the lines go on waiting.

        """
        with self._one_at_a_time:
            while self._waiting:
                raw, begins = self._waiting.popleft()
                if begins or not self._chunks:
                    self._chunks.append((bytearray(), begins))
                self._chunks[-1][0].extend(raw)
            if self._chunks:
                self._hold()
                with self._opened() as folder:
                    while self._chunks:
                        self._write(folder, *self._chunks[0])
                        self._done += len(self._chunks.popleft()[0])

    def close(self) -> None:
        """Write what waits, and let another proxy record here. Blocks; raises as `drain`."""
        try:
            self.drain()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _hold(self) -> None:
        """Be the one program that writes, from the first line to `close`."""
        if self._lock is not None:
            return
        if failure := make(self.folder):
            raise self._error(failure)
        lock = held(self.folder / "decisions.lock", 0)
        if lock is None:
            path = printable(str(self.path), 4096)
            raise StoreBusy(f"{path}: another proxy records its decisions here; this one's are not kept")
        if isinstance(lock, Refusal):
            raise self._error(lock)
        self._lock = lock

    @contextmanager
    def _opened(self) -> Iterator[Folder]:
        with opened(self.folder) as folder:
            if not isinstance(folder, Folder):
                raise self._error(folder or Refusal("the folder was removed", "start the proxy again"))
            yield folder

    def _write(self, folder: Folder, chunk: bytearray, begins: bool) -> None:
        try:
            if begins and self._is_full(folder, len(chunk)):
                folder.rename(NAME, BEFORE)
            handle = folder.open(NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        except OSError as error:
            raise self._error(failed(error, doing="opening it")) from None
        try:
            facts = os.fstat(handle)
            if refusal := unfit(facts):
                raise self._error(refusal)
            for_the_owner_alone(handle)
            if begins:
                self._append(handle, facts.st_size, missing_end(handle, facts.st_size) + chunk)
            elif facts.st_size == self._size:
                self._append(handle, facts.st_size, chunk)
            else:  # somebody emptied or removed the file: without its beginning the rest of a run is of no use
                self._size, self._refuses = None, True
        except OSError as error:
            raise self._error(failed(error, doing="writing it")) from None
        finally:
            os.close(handle)

    def _is_full(self, folder: Folder, more: int) -> bool:
        facts = folder.facts(NAME)
        if facts is None:
            return False
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0  # what is none is refused, not put aside
        return size > 0 and size + more + RUN_BYTES + LINE_BYTES > self.file_bytes

    def _append(self, handle: int, size: int, raw: bytes | bytearray) -> None:
        append(handle, size, raw)
        self._size = size + len(raw)

    def _error(self, refusal: Refusal) -> StoreError:
        return StoreError(refusal.of(self.path))
