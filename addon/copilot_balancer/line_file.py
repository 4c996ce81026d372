"""A file that grows by whole lines, by the hand of whoever holds its lock.

Laws of this file:

1. What is appended stands whole, or the file is as it was.
2. A line begins on a line of its own, whatever a killed program left.
"""

import os
import stat

from copilot_balancer.folder import Refusal


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
