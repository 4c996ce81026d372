"""A clock that never jumps and counts sleep: what cooldowns, deadlines and the age of connections are measured by.

Laws of this file:

1. `steady` is the only clock of the proxy room that measures how long something takes or rests.
2. `time.monotonic` stands while a machine sleeps, on Linux (CLOCK_MONOTONIC, clock_gettime(2)) and on macOS
   (``mach_absolute_time``): a cooldown of an hour would last an hour more after each night.
3. The event loop's timers stand as well. Whoever waits for a deadline looks at this clock again at least every
   `LOOK_EVERY` seconds.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

LOOK_EVERY = 10.0
"""Seconds of the event loop after which a deadline is judged again, whatever its timer says."""


def _counting_sleep(platform: str) -> Callable[[], float]:
    """CLOCK_BOOTTIME on Linux (clock_gettime(2)); on macOS CLOCK_MONOTONIC, which counts sleep there."""
    name = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}.get(platform)
    clock = getattr(time, name, None) if name else None
    return time.monotonic if clock is None else partial(time.clock_gettime, clock)


steady: Final[Callable[[], float]] = _counting_sleep(sys.platform)
"""Seconds since some moment in the past."""
