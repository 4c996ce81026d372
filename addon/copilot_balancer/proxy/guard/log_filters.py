"""log_filters: split from its former room."""

import errno
import logging
import math
import re
import time
from collections.abc import Callable

from copilot_balancer.proxy.failover.credentials import HIDDEN

SAY_EVERY = 60.0
"""Seconds between two lines about connections that were refused, or could not be taken."""


class OutOfFiles(logging.Filter):
    """Tells in one line a minute that no connection can be taken: mitmproxy writes a traceback for each.

    Args:
        clock: seconds that never go back.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said_at = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; one about a lack of files is made short."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            return True
        if self._clock() - self._said_at < SAY_EVERY:
            return False
        self._said_at = self._clock()
        record.msg = "copilot: no connection can be taken now: as many files are open as may be (ulimit -n)"
        record.args, record.exc_info = (), None
        return True


LOGGED = 2000
"""Characters of a line of mitmproxy's own log about a connection; it writes a head that broke off whole."""
_CREDENTIALS = re.compile(
    rf"({'|'.join(sorted(name.decode() for name in HIDDEN))})(\s*:\s*)((?:(?!\\r|\\n)[^\r\n])*)", re.IGNORECASE
)


class LogFilter(logging.Filter):
    """Keeps what a client's head brought out of mitmproxy's own log lines, and those lines short."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where needed; it is always logged."""
        message = record.getMessage()
        if len(message) > LOGGED or _CREDENTIALS.search(message):
            record.msg, record.args = _CREDENTIALS.sub(r"\1\2[hidden]", message[: 8 * LOGGED])[:LOGGED], ()
        return True


def watch_log() -> None:
    """Let mitmproxy's connections log nothing of a credential."""
    put_filter("mitmproxy.proxy.server", LogFilter())


def put_filter(logger: str, new: logging.Filter) -> None:
    """Filter a logger; again is harmless, since a script is run again."""
    log = logging.getLogger(logger)
    for known in [known for known in log.filters if type(known).__name__ == type(new).__name__]:
        log.removeFilter(known)
    log.addFilter(new)
