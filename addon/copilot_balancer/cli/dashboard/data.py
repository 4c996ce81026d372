"""Reads the store for the dashboard: an overview and the last requests, or one sentence about what cannot be read.

Laws of this file:

1. Blocks; the app calls it in a thread, twice a second (some milliseconds each).
2. A look that fails is a sentence, never an exception: the dashboard goes on with what it saw last.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from copilot_balancer.cli.env import Env
from copilot_balancer.copilot.quota import WINDOW_LENGTHS
from copilot_balancer.errors import BalancerError
from copilot_balancer.store.ledger import Ledger, QuotaPoint
from copilot_balancer.store.request_record import RequestRecord
from copilot_balancer.views.overview import Overview, events, look

MAX_EVENTS = 200
"""So many requests are shown."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the files held at a moment."""

    overview: Overview | None
    """None: the files could not be used."""
    events: tuple[RequestRecord, ...] = ()
    """Newest last."""
    trouble: str = ""
    """One sentence: why something could not be read."""


def kept_quota(env: Env, at: float) -> list[QuotaPoint]:
    """What proxies have noted of quotas in the longest window's time before `at`; none where that cannot be read."""
    try:
        return Ledger(env.paths.state).quota(at - max(WINDOW_LENGTHS.values()))
    except BalancerError:
        return []


def read_snapshot(env: Env) -> Snapshot:
    """Read the files once."""
    where = env.paths
    try:
        overview = look(where, env.now())
    except BalancerError as error:
        return Snapshot(None, trouble=str(error))
    try:
        return Snapshot(overview, events(where, MAX_EVENTS))
    except BalancerError as error:
        return Snapshot(overview, trouble=str(error))


CAPACITY = 720
EVERY = 2.0
"""Seconds: points that follow faster replace each other."""

BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class History:
    """(account id, window) -> what was left then, in percent."""

    points: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)

    def begin(self, points: Iterable[QuotaPoint], overview: Overview) -> None:
        """Take what was noted before: of each window, what belongs to its present period."""
        resets = {(one.id, name): w.resets_at for one in overview.pool.accounts for name, w in one.quota.items()}
        for point in points:
            known, length = resets.get((point.account_id, point.name)), WINDOW_LENGTHS.get(point.name, 30 * 86400.0)
            if point.at >= (known or overview.at) - length:
                self.note(point.account_id, point.name, point.at, point.percent_left)

    def note(self, account_id: str, window: str, at: float, percent: float) -> None:
        """At `at` so many percent were left; what is older than the newest point is not taken."""
        line = self.points.setdefault((account_id, window), [])
        if line and at < line[-1][0]:
            return
        if len(line) > 1 and at - line[-2][0] < EVERY:
            line[-1] = (at, percent)
            return
        line.append((at, percent))
        if len(line) > CAPACITY:
            half = CAPACITY // 2
            line[:] = [*line[:half:2], *line[half:]]

    def since(self, account_id: str, window: str) -> float | None:
        """When the first point was noted; None: there is none."""
        line = self.points.get((account_id, window))
        return line[0][0] if line else None

    def sampled(self, account_id: str, window: str, columns: int, now: float) -> list[float | None]:
        """What was left at the end of each of `columns` equal spans from the first point until `now`."""
        line = self.points.get((account_id, window))
        if not line:
            return [None] * columns
        first, span = line[0][0], max(now - line[0][0], 1.0)
        values: list[float | None] = []
        index = 0
        for column in range(columns):
            end = first + span * (column + 1) / columns
            while index + 1 < len(line) and line[index + 1][0] <= end:
                index += 1
            values.append(line[index][1])
        return values

    def plot(self, account_id: str, window: str, columns: int, rows: int, now: float) -> list[str]:
        """`rows` lines of `columns` blocks, 0 to 100 percent from bottom to top."""
        lines = []
        values = self.sampled(account_id, window, columns, now)
        for row in range(rows - 1, -1, -1):
            cells = []
            for value in values:
                eighths = 0.0 if value is None else value / 100 * rows * 8 - row * 8
                least = 1 if row == 0 and value is not None else 0  # an empty quota is a line at the bottom, not a gap
                cells.append(BLOCKS[min(max(round(eighths), least), 8)])
            lines.append("".join(cells))
        return lines
