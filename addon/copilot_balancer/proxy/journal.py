"""Logs finished requests (a line in mitmproxy's event log, a record in the request log) and faults of the disk.

Laws of this file:

1. The event log gets what the setting ``log`` asks for; the events file gets everything.
2. Equal failures that come together are one line and a count; the first is told at once. Equal: the same model, end,
   accounts and reasons. Successes are never counted together.
3. A fault of the disk is one warning, and its end another, however many files it keeps from being written.
4. The time is an argument: seconds on the steady clock. Nothing here waits or touches the disk.
"""

import logging
import re
from dataclasses import dataclass

from copilot_balancer.config import Noise
from copilot_balancer.errors import StoreError
from copilot_balancer.store.request_log import RequestLog
from copilot_balancer.store.request_record import FAILURES, RequestRecord, document
from copilot_balancer.views import requests

logger = logging.getLogger(__name__)

WINDOW = 5.0
"""Seconds for which failures that equal the first one are only counted."""
MAX_WINDOWS = 64
"""So many different failures are counted at once; the model's name in them is the client's choice."""

type _Failure = tuple[object, ...]


@dataclass(slots=True)
class _Window:
    """A failure that was told, and how often it has come again since."""

    first: RequestRecord
    began: float
    last: float
    again: int = 0


class Journal:
    """Tells about finished requests.

    Args:
        events: takes every event; somebody else drains it.
        noise: the setting ``log``; may be changed at any time.

    """

    def __init__(self, events: RequestLog, noise: Noise = "all") -> None:
        self.events = events
        self.noise: Noise = noise
        self._windows: dict[_Failure, _Window] = {}
        """Oldest first."""

    def tell(self, record: RequestRecord, now: float) -> None:
        """A request is over.

        Args:
            record: what came of it.
            now: seconds on the steady clock.

        """
        self.events.put(document(record))
        self.tick(now)
        if not self._is_wanted(record):
            return
        if record.verdict not in FAILURES:
            logger.info("%s", requests.log_line(record))
            return
        failure = _failure(record)
        window = self._windows.get(failure)
        if window is not None:
            window.again += 1
            window.last = now
            return
        if len(self._windows) >= MAX_WINDOWS:
            self._end(next(iter(self._windows)))
        self._windows[failure] = _Window(record, now, now)
        logger.warning("%s", requests.log_line(record))

    def tick(self, now: float) -> None:
        """Tell about what was counted long enough; to be called about once a second."""
        for failure in [key for key, window in self._windows.items() if now - window.began >= WINDOW]:
            self._end(failure)

    def close(self) -> None:
        """The proxy ends: tell about all that was counted."""
        for failure in list(self._windows):
            self._end(failure)

    def _is_wanted(self, record: RequestRecord) -> bool:
        if self.noise == "switches":
            return record.verdict in FAILURES or record.verdict == "failed over"
        return self.noise == "all" or (self.noise == "errors" and record.verdict in FAILURES)

    def _end(self, failure: _Failure) -> None:
        window = self._windows.pop(failure)
        if window.again:
            took = max(window.last - window.began, 1.0)
            logger.warning("%s", requests.repeated_line(window.first, window.again, took))


def _failure(record: RequestRecord) -> _Failure:
    """What makes two failures equal; the accounts may have been asked in another order."""
    attempts = sorted((attempt.account, attempt.reason) for attempt in record.attempts)
    return (record.what, record.verdict, record.model, *attempts)


class FaultLog:
    """Logs each fault of the disk once, when the first file meets it, and its end, once the last file is well again."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}
        """What cannot be done -> the cause."""

    def failed(self, what: str, error: StoreError) -> None:
        """`what` (a file, or what is done with it) met a fault, maybe again."""
        cause = _cause(error)
        known = cause in self._failing.values()
        self._failing[what] = cause
        if not known:
            logger.warning("copilot: %s; going on with what is in memory", error)

    def worked(self, what: str) -> None:
        """`what` was done."""
        cause = self._failing.pop(what, None)
        if cause is not None and cause not in self._failing.values():
            logger.warning("copilot: the store can be used again (it was: %s)", cause)


def _cause(error: StoreError) -> str:
    """The system's own words, which are the same for all files; else the whole sentence."""
    found = re.search(r" failed \(([^()]+)\)", str(error))
    return found[1] if found else str(error)
