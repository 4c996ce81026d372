"""The events on disk: a line a finished request in ``events.jsonl``, and the file before it, ``events.1.jsonl``.

Laws of this file:

1. `EventFile.put` is called on the event loop and never waits; `drain` and `close` block and belong in a thread.
2. The two files together are never larger than twice `FILE_BYTES`. Several proxies may write: each holds the lock
   while it does.
3. A write that fails leaves the file as it was, and its lines wait; what no longer fits is counted and lost.
4. A reader takes no lock, and passes over a line that is cut or is none of ours; every word of an `Event` that was
   read is printable, whoever wrote the line.
5. Only the owner may read the files, and no link is followed out of the folder.
"""

import inspect
import json
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import AfterValidator, TypeAdapter

from copilot_balancer.errors import StoreBusy, StoreError, printable
from copilot_balancer.folder import Folder, Refusal, failed, make, opened

NAME = "events.jsonl"
BEFORE = "events.1.jsonl"

FILE_BYTES = 2 * 1024 * 1024
"""A file that would grow beyond this becomes the one before, and a new one begins."""
WAITING_BYTES = 1024 * 1024
"""So much waits for a disk that is slow or full."""
LINE_BYTES = 4096
"""No line is longer: the words of a longer one are cut."""
LOCK_SECONDS = 2.0
"""How long `drain` waits for another proxy."""

_MODES = os.name == "posix"
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))

type Identity = tuple[int, int]
"""Device and inode: a file keeps them when it gets another name."""


def _cleaned(text: str) -> str:
    return printable(text, 400)


Word = Annotated[str, AfterValidator(_cleaned)]


@dataclass(frozen=True, slots=True)
class EventAttempt:
    """One upstream attempt of a request."""

    account: Word
    """Label, as it was then."""
    host: Word
    why: Word
    """Why this account was chosen."""
    reason: Word
    """What came of it: a word of ``outcomes.Reason``."""
    status: int | None = None
    """None: there was no answer."""
    rest: float | None = None
    """Seconds that the account, or the model on it, rests because of this."""
    text: Word = ""
    """What the upstream said, shortened."""


@dataclass(frozen=True, slots=True)
class Event:
    """One finished request."""

    at: float
    """When it ended: seconds since the epoch on the wall clock. In the file: ``time``, as text in UTC."""
    id: Word
    """mitmproxy's id of the flow."""
    what: Word
    """The model that was asked for; for a request without one, method and path."""
    verdict: Word
    """How it ended: a key of ``attribution.MARKERS``."""
    status: int | None
    """What the client got; None when it left or was cut off."""
    ms: float
    """Milliseconds from the request's last byte to the answer's last."""
    account: Word | None = None
    """Label of the account that served it; None: nobody did."""
    host: Word | None = None
    model: Word | None = None
    """The model that was served, when it is another than was asked for."""
    attempts: tuple[EventAttempt, ...] = ()
    """Oldest first; the last one is the one that served it, when somebody did."""
    conversation: Word = ""
    """The beginning of a hash; empty: it belongs to none."""
    note: Word = ""
    """Why nobody served it, or what else a person must know."""
    moved: Word = ""
    """What was done to the request so that another account could take it."""
    error: Word = ""
    """The error that came inside the answer after some of it had been passed on."""


_EVENT = TypeAdapter(Event)


def moment(at: float) -> str:
    """A time for the file: ``2026-11-03T14:05:09.120Z``."""
    return f"{datetime.fromtimestamp(at, UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def document(event: Event) -> dict[str, Any]:
    """What stands in the file about an event; what is empty is left out."""
    content = _EVENT.dump_python(event, mode="json", exclude_defaults=True)
    return {"time": moment(content.pop("at")), **content}


def parsed(line: bytes | str) -> Event | None:
    """The event of a line; None when it is none."""
    try:
        content = json.loads(line)
        return _EVENT.validate_python({**content, "at": datetime.fromisoformat(content["time"]).timestamp()})
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None


# --- writing ----------------------------------------------------------------------------------------------------------


class EventFile:
    """Takes events and writes them when it is told to.

    Args:
        folder: the state folder; made when it is missing.
        file_bytes: no file is larger; at least one line.
        waiting_bytes: so much may wait between two `drain`.

    """

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, waiting_bytes: int = WAITING_BYTES) -> None:
        self.folder = folder
        self.file_bytes = max(file_bytes, LINE_BYTES)
        self.waiting_bytes = waiting_bytes
        self.lost = 0
        """Events for which there was no room."""
        self._waiting: deque[bytes] = deque()
        self._put = self._done = 0
        """Bytes so far: `put` alone counts the one, `drain` alone the other."""
        self._one_at_a_time = Lock()

    @property
    def waits(self) -> bool:
        """Whether there is something to `drain`."""
        return bool(self._waiting)

    def put(self, record: Mapping[str, Any]) -> bool:
        """Take an event as ``attribution.event`` makes it; False: there is no room, and it is lost."""
        line = _line(record)
        if self._put - self._done + len(line) > self.waiting_bytes:
            self.lost += 1
            return False
        self._put += len(line)
        self._waiting.append(line)
        return True

    def drain(self) -> None:
        """Write what waits. Blocks.

        Raises:
            StoreBusy: another proxy has held the lock for too long; the lines go on waiting.
            StoreError: the folder or the file cannot be used, or the disk is full; the lines go on waiting.

        """
        with self._one_at_a_time:
            if not self._waiting:
                return
            with self._locked() as folder:
                while self._waiting:
                    self._write(folder)

    def close(self) -> None:
        """Write what waits. Blocks; raises as `drain`."""
        self.drain()

    def _write(self, folder: Folder) -> None:
        """Append as many of the waiting lines as one file takes."""
        size = self._size(folder)
        if size + len(self._waiting[0]) + 1 > self.file_bytes:
            self._begin_anew(folder)
            size = 0
        handle = self._opened(folder)
        try:
            chunk, lines = bytearray(_end_of_a_cut_line(handle, size)), 0
            while lines < len(self._waiting) and size + len(chunk) + len(self._waiting[lines]) <= self.file_bytes:
                chunk += self._waiting[lines]
                lines += 1
            _append(handle, size, chunk)
        except OSError as error:
            raise self._error(failed(error, doing="writing it")) from None
        finally:
            os.close(handle)
        for _ in range(lines):
            self._done += len(self._waiting.popleft())

    def _size(self, folder: Folder) -> int:
        try:
            facts = os.stat(_at(folder, NAME), dir_fd=folder.handle, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise self._error(failed(error, doing="looking at it")) from None
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            raise self._error(Refusal("it is not a regular file with one name", "move it away"))
        return facts.st_size

    def _begin_anew(self, folder: Folder) -> None:
        try:
            os.replace(_at(folder, NAME), _at(folder, BEFORE), src_dir_fd=folder.handle, dst_dir_fd=folder.handle)
        except OSError as error:
            raise self._error(failed(error, doing="renaming it")) from None

    def _opened(self, folder: Folder) -> int:
        try:
            handle = os.open(
                _at(folder, NAME), os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600, dir_fd=folder.handle
            )
            if _MODES:
                os.fchmod(handle, 0o600)
        except OSError as error:
            raise self._error(failed(error, doing="opening it")) from None
        return handle

    @contextmanager
    def _locked(self) -> Iterator[Folder]:
        if failure := make(self.folder):
            raise self._error(failure)
        wishes: dict[str, Any] = {
            "mode": 0o600,
            "thread_local": False,
            "timeout": LOCK_SECONDS,
            "poll_interval": 0.003,
        }
        if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:  # not in filelock 3.20
            wishes["fallback_to_soft"] = False  # a lock that a killed process would leave behind is none
        with opened(self.folder) as folder:
            if not isinstance(folder, Folder):
                raise self._error(folder or Refusal("the folder was removed", "try again"))
            lock = FileLock(self.folder / "events.lock", **wishes)
            try:
                lock.acquire()
            except Timeout:
                raise StoreBusy(f"{_named(self.folder)}: another proxy has held its lock for too long") from None
            except (OSError, NotImplementedError):  # the latter: a file system without locks
                elsewhere = "put the folder on another disk: set COPILOT_BALANCER_HOME"
                raise self._error(Refusal("it cannot be locked", elsewhere)) from None
            try:
                yield folder
            finally:
                lock.release()

    def _error(self, refusal: Refusal) -> StoreError:
        return StoreError(f"{_named(self.folder)}: {refusal.why}. Remedy: {refusal.remedy}")


def _line(record: Mapping[str, Any]) -> bytes:
    """One line of at most `LINE_BYTES`: what the upstreams said goes first, then the attempts in the middle."""
    attempts = list(record.get("attempts", ()))
    told = {**record, "attempts": [{**attempt, "text": ""} for attempt in attempts]}
    few = {**told, "attempts": [*told["attempts"][:2], *told["attempts"][2:][-2:]]}
    short = {key: value[:100] if isinstance(value, str) else value for key, value in few.items()}
    forms: tuple[Mapping[str, Any], ...] = (record, told, few, short, {**short, "attempts": []})
    for form in forms:
        line = json.dumps(form, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
        if len(line) <= LINE_BYTES:
            break
    return line


def _append(handle: int, size: int, raw: bytes | bytearray) -> None:
    """Write all of `raw`, or leave the file as it was."""
    rest = memoryview(raw)
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
    except OSError:
        os.ftruncate(handle, size)
        raise


def _end_of_a_cut_line(handle: int, size: int) -> bytes:
    """What is missing after a proxy that was killed while it wrote."""
    if size == 0:
        return b""
    os.lseek(handle, size - 1, os.SEEK_SET)
    return b"" if os.read(handle, 1) == b"\n" else b"\n"


# --- reading ----------------------------------------------------------------------------------------------------------


class EventReader:
    """Reads the events of the state `folder`: at first what is there, then what has come since.

    Args:
        folder: the state folder.
        back: how many bytes of the newest file are looked at by the first `read`; None: all of both files.

    """

    def __init__(self, folder: Path, back: int | None = None) -> None:
        self.folder = folder
        self.back = back
        self._file: Identity | None = None
        """The file that was read last; None: none was."""
        self._offset = 0
        """The first byte of it that was not read."""
        self._begun = False

    def read(self) -> list[Event]:
        """The events since the last call, oldest first. Blocks.

        Raises:
            StoreError: the folder or a file cannot be used.

        """
        with opened(self.folder) as folder:
            if isinstance(folder, Refusal):
                raise StoreError(f"{_named(self.folder)}: {folder.why}. Remedy: {folder.remedy}")
            if folder is None:
                return []
            try:
                lines = self._lines(folder)
            except OSError as error:
                refusal = failed(error, doing="reading it")
                raise StoreError(f"{_named(self.folder)}: {refusal.why}. Remedy: {refusal.remedy}") from None
        self._begun = True
        return [event for line in lines if (event := parsed(line)) is not None]

    def _lines(self, folder: Folder) -> list[bytes]:
        newest = _open_to_read(folder, NAME)
        if newest is None:
            return []
        try:
            facts = os.fstat(newest)
            file: Identity = (facts.st_dev, facts.st_ino)
            lines: list[bytes] = []
            if file != self._file:
                lines = self._lines_before(folder, file, facts.st_size)
                self._offset = 0
                if not self._begun and self.back is not None:
                    self._offset = max(facts.st_size - self.back, 0)
            elif facts.st_size < self._offset:
                self._offset = 0  # somebody emptied it
            cut = self._offset > 0 and file != self._file
            raw = _whole_lines(newest, self._offset)
            self._file = file
            self._offset += len(raw)
        finally:
            os.close(newest)
        return [*lines, *raw.splitlines()[int(cut) :]]

    def _lines_before(self, folder: Folder, newest: Identity, size: int) -> list[bytes]:
        """What was not read of the file before, when a new one has begun or nothing was read yet."""
        if not self._begun and self.back is not None and size >= self.back:
            return []
        before = _open_to_read(folder, BEFORE)
        if before is None:
            return []
        try:
            facts = os.fstat(before)
            file: Identity = (facts.st_dev, facts.st_ino)
            if file == newest or (self._file is not None and file != self._file):
                return []  # it was renamed this very moment, or it is another than we have read
            offset = self._offset if file == self._file else 0
            cut = 0
            if not self._begun and self.back is not None:
                offset = max(facts.st_size + size - self.back, 0)
                cut = int(offset > 0)
            return _whole_lines(before, offset).splitlines()[cut:]
        finally:
            os.close(before)


def newest_events(folder: Path, limit: int) -> tuple[Event, ...]:
    """The last `limit` events or fewer, newest last; no more is read than they can take. Blocks.

    Raises:
        StoreError: the folder or a file cannot be used.

    """
    return tuple(EventReader(folder, max(limit, 1) * LINE_BYTES).read()[-max(limit, 1) :])


def _open_to_read(folder: Folder, name: str) -> int | None:
    """The open file; None when there is none of ours: whatever is no regular file is none."""
    try:
        handle = os.open(_at(folder, name), os.O_RDONLY | _FLAGS, dir_fd=folder.handle)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    return None


def _whole_lines(handle: int, offset: int) -> bytes:
    """From `offset` on as far as there are whole lines, within what a file of ours can hold."""
    os.lseek(handle, offset, os.SEEK_SET)
    parts, left = [], FILE_BYTES + LINE_BYTES
    while left and (part := os.read(handle, left)):
        parts.append(part)
        left -= len(part)
    raw = b"".join(parts)
    if not left and b"\n" not in raw:
        return raw  # no line of ours is as long: pass over it
    return raw[: raw.rfind(b"\n") + 1]


def _at(folder: Folder, name: str) -> str:
    return name if folder.handle is not None else str(folder.path / name)


def _named(folder: Path) -> str:
    return printable(str(folder / NAME), 4096)
