"""A lock between programs: a file beside what it protects.

Laws of this file:

1. A lock ends with the program that holds it, however that ends: a lock that a killed program would leave behind is
   none, and is never taken in its place.
2. Lock files are never renamed or removed: two programs would hold two files of one name.
"""

import inspect
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from copilot_balancer.folder import Refusal

_POLL = 0.003
"""Seconds between two tries: slower polling starves a writer."""


def held(path: Path, timeout: float) -> FileLock | Refusal | None:
    """The lock at `path`, held. Blocks for `timeout` seconds or less; None: another program holds it."""
    wishes: dict[str, Any] = {"mode": 0o600, "thread_local": False, "timeout": timeout, "poll_interval": _POLL}
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:  # not in filelock 3.20
        wishes["fallback_to_soft"] = False
    lock = FileLock(path, **wishes)
    try:
        lock.acquire()
    except Timeout:
        return None
    except (OSError, NotImplementedError):  # the latter: a file system without locks
        return Refusal("it cannot be locked", "put the folder on another disk: set COPILOT_BALANCER_HOME")
    return lock
