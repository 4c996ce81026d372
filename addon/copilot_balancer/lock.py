"""A lock between programs: a file beside what it protects.

Laws of this file:

1. A lock ends with the program that holds it, however that ends: a lock that a killed program would leave behind is
   none, and is never taken in its place.
2. Lock files are never renamed or removed: two programs would hold two files of one name.
3. filelock is imported by the first lock: a proxy takes none before it listens, unless a file of it is broken.
"""

import errno
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copilot_balancer.folder import Refusal, failed

if TYPE_CHECKING:
    from filelock import FileLock

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
