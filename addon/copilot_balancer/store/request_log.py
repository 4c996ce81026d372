"""The request log: one JSON line for each finished request in ``events.jsonl``, and the file before it.

Laws of this file:

1. The two files together are never larger than twice `FILE_BYTES`. Several proxies may write (``line_log``).
2. A reader takes no lock, and passes over a line that is cut or is none of ours.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from copilot_balancer.errors import StoreError
from copilot_balancer.store.folder import Folder, Refusal, failed, opened
from copilot_balancer.store.line_log import LineLog
from copilot_balancer.store.request_record import RequestRecord, parsed

NAME = "events.jsonl"
BEFORE = "events.1.jsonl"

FILE_BYTES = 2 * 1024 * 1024
"""A file that would grow beyond this becomes the one before, and a new one begins."""
WAITING_BYTES = 1024 * 1024
"""So much waits for a disk that is slow or full."""
LINE_BYTES = 4096
"""No line is longer: the words of a longer one are cut."""

type Identity = tuple[int, int]
"""Device and inode: a file keeps them when it gets another name."""


# --- writing ----------------------------------------------------------------------------------------------------------


class RequestLog(LineLog):
    """Takes the records of finished requests; neither file is larger than `file_bytes`, or a line."""

    NAME = NAME
    BEFORE = BEFORE
    LOCK = "events.lock"
    LOCK_SECONDS = 2.0
    BUSY = "another proxy has held its lock for too long"
    FILE_BYTES = FILE_BYTES
    WAITING_BYTES = WAITING_BYTES
    lost = 0
    """Records for which there was no room."""

    def put(self, record: Mapping[str, Any]) -> bool:
        """Take a record as ``request_record.document`` makes it; False: there is no room, and it is lost."""
        taken = self.put_line(_line(record))
        self.lost += not taken
        return taken


def _line(record: Mapping[str, Any]) -> bytes:
    """One line of at most `LINE_BYTES`: what the upstreams said goes first, then the attempts in the middle."""
    attempts = list(record.get("attempts", ()))
    told = {**record, "attempts": [{**attempt, "text": ""} for attempt in attempts]}
    few = {**told, "attempts": [*told["attempts"][:2], *told["attempts"][2:][-2:]]}
    short, shorter = ({key: v[:most] if isinstance(v, str) else v for key, v in few.items()} for most in (100, 25))
    forms: tuple[Mapping[str, Any], ...] = (
        record,
        told,
        few,
        short,
        {**short, "attempts": []},
        {**shorter, "attempts": []},
    )
    return next(line for line in map(_written, forms) if len(line) <= LINE_BYTES)


def _written(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


# --- reading ----------------------------------------------------------------------------------------------------------


class RequestLogReader:
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

    def read(self) -> list[RequestRecord]:
        """The events since the last call, oldest first. Blocks.

        Raises:
            StoreError: the folder or a file cannot be used.

        """
        with opened(self.folder) as folder:
            if isinstance(folder, Refusal):
                raise StoreError(folder.of(self.folder / NAME))
            if folder is None:
                return []
            try:
                lines = self._lines(folder)
            except OSError as error:
                raise StoreError(failed(error, doing="reading it").of(self.folder / NAME)) from None
        self._begun = True
        return [event for line in lines if (event := parsed(line)) is not None]

    def _lines(self, folder: Folder) -> list[bytes]:
        newest = _open_to_read(folder, NAME)
        if newest is None:
            return []
        try:
            file, now = _facts(newest)
            lines: list[bytes] = []
            if file != self._file:
                lines = self._lines_before(folder, file, now)
                self._offset = 0
                if not self._begun and self.back is not None:
                    self._offset = max(now - self.back, 0)
            elif now < self._offset:
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
            file, before_size = _facts(before)
            if file == newest or (self._file is not None and file != self._file):
                return []  # it was renamed this very moment, or it is another than we have read
            offset = self._offset if file == self._file else 0
            cut = 0
            if not self._begun and self.back is not None:
                offset = max(before_size + size - self.back, 0)
                cut = int(offset > 0)
            return _whole_lines(before, offset).splitlines()[cut:]
        finally:
            os.close(before)


def newest_events(folder: Path, limit: int) -> tuple[RequestRecord, ...]:
    """The last `limit` events or fewer, newest last; no more is read than they can take. Blocks.

    Raises:
        StoreError: the folder or a file cannot be used.

    """
    return tuple(RequestLogReader(folder, max(limit, 1) * LINE_BYTES).read()[-max(limit, 1) :])


def _open_to_read(folder: Folder, name: str) -> int | None:
    """The open file; None when there is none of ours: whatever is no regular file is none."""
    try:
        handle = folder.open(name, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    return None


def _facts(handle: int) -> tuple[Identity, int]:
    """Which file it is, and its size in bytes."""
    facts = os.fstat(handle)
    return (facts.st_dev, facts.st_ino), facts.st_size


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
