"""Filters of mitmproxy's loggers: no credential in a line, no line too long, no message repeated without end."""

import errno
import logging
import math
import re
import time
from collections.abc import Callable

from copilot_balancer.proxy.failover.credentials import HIDDEN

SAY_EVERY = 60.0
"""Seconds between two lines about connections that were refused, or could not be taken."""


class Repeated:
    """Says the same thing once in `every` seconds, with the number of times that it was not said.

    Args:
        every: seconds.
        clock: seconds that never go back.

    """

    MAX_KEYS = 64

    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}
        """Key -> (when it was said, how often it was not said since)."""

    def say(self, log: logging.Logger, level: int, key: str, message: str) -> None:
        """Log `message` unless one with this key was logged a short time ago."""
        now = self._clock()
        said, unsaid = self._said.get(key, (-math.inf, 0))
        if now - said < self._every:
            self._said[key] = (said, unsaid + 1)
            return
        if key not in self._said and len(self._said) >= self.MAX_KEYS:
            self._said.clear()
        self._said[key] = (now, 0)
        log.log(level, "%s%s", message, f"; {unsaid} more were refused before" if unsaid else "")


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
    """Keeps credentials out of mitmproxy's own log lines, and those lines short.

    Args:
        shown: a text without the credentials that were sent.

    """

    def __init__(self, shown: Callable[[str], str] = str) -> None:
        super().__init__()
        self._shown = shown

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where needed; it is always logged."""
        message = record.getMessage()
        if (left := self._shown(message)) != message:
            record.msg, record.args, message = left, (), left
        if len(message) > LOGGED or _CREDENTIALS.search(message):
            record.msg, record.args = _CREDENTIALS.sub(r"\1\2[hidden]", message[: 8 * LOGGED])[:LOGGED], ()
        return True


def watch_log(shown: Callable[[str], str] = str) -> None:
    """Let mitmproxy's connections log nothing of a credential; `shown` takes out those that were sent."""
    put_filter("mitmproxy.proxy.server", LogFilter(shown))


def put_filter(logger: str, new: logging.Filter) -> None:
    """Filter a logger; again is harmless, since a script is run again."""
    log = logging.getLogger(logger)
    for known in [known for known in log.filters if type(known).__name__ == type(new).__name__]:
        log.removeFilter(known)
    log.addFilter(new)
