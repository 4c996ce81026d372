"""SQLite file of what requests used: tokens and price per local day, billing period, account and model.

Laws of this file:

1. It counts what went through proxies of this store, and nothing else; GitHub's own figures stand beside it.
2. A price is only what a response said. A request without one is *unpriced*; its estimate (tokens times the last price
   per token that the same model had) is a column of its own and never added to a price.
3. Several proxies write at once: each batch is one transaction. A killed process leaves whole transactions only.
4. For the owner alone: the file has mode 0600, and SQLite gives its ``-wal`` and ``-shm`` files the mode of the file
   (sqlite.org, "Temporary files used by SQLite").
5. Bounded: rows older than `KEPT_DAYS` go, and of one day and account at most `MODELS` models have a row of their own.

Everything here blocks: callers keep it off the event loop.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copilot_balancer.copilot.usage import Usage
from copilot_balancer.errors import StoreError
from copilot_balancer.text import printable

if TYPE_CHECKING:  # a proxy starts without it; the first write, in a thread, loads it
    import sqlite3

NAME = "ledger.sqlite3"
KEPT_DAYS = 396
"""Thirteen months."""
MODELS = 200
"""Model names of one day and account that are counted apart; the name is the client's choice."""
OTHER = "(other models)"
WAIT_SECONDS = 5.0
"""Seconds to wait for another process that writes."""
QUOTA_STEP = 900
"""Seconds: of one quota window so much time has one point."""
QUOTA_DAYS = 62
"""Points that are older go: two billing periods."""
SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    day TEXT NOT NULL, period TEXT NOT NULL, account TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, unpriced INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, cached INTEGER NOT NULL, tokens_out INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    nano_aiu INTEGER NOT NULL, estimated_nano_aiu INTEGER NOT NULL,
    PRIMARY KEY (day, period, account, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS price (
    model TEXT PRIMARY KEY, nano_aiu_per_token REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quota (
    account TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, percent_left REAL NOT NULL,
    PRIMARY KEY (account, name, at)
) WITHOUT ROWID;
"""

_ADD = """
INSERT INTO spent VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    requests = requests + 1, unpriced = unpriced + excluded.unpriced,
    tokens_in = tokens_in + excluded.tokens_in, cached = cached + excluded.cached,
    tokens_out = tokens_out + excluded.tokens_out, reasoning = reasoning + excluded.reasoning,
    nano_aiu = nano_aiu + excluded.nano_aiu,
    estimated_nano_aiu = estimated_nano_aiu + excluded.estimated_nano_aiu
"""

_SUMS = (
    "sum(requests), sum(unpriced), sum(tokens_in), sum(cached), sum(tokens_out), sum(reasoning), sum(nano_aiu),"
    " sum(estimated_nano_aiu)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that an account served."""

    day: str
    """The user's local day on which it ended: ``2026-11-30``."""
    period: str
    """When the account's billing period began, in UTC: ``2026-11-01T00:00:00+00:00``."""
    account_id: str
    model: str
    usage: Usage | None
    """None: the response told nothing (cut off, the client left, a WebSocket)."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What an account used of a model; amounts are sums over requests."""

    account_id: str
    model: str
    requests: int
    unpriced: int
    """Of ``requests``: those whose response named no price."""
    tokens_in: int
    cached: int
    tokens_out: int
    reasoning: int
    nano_aiu: int
    """Sum of the prices that responses named."""
    estimated_nano_aiu: int
    """Estimate for the unpriced ones of models whose price was seen; 0 where none was."""


def day_of(wall: float, zone: tzinfo | None) -> str:
    """The local day of a moment.

    Args:
        wall: seconds since the epoch.
        zone: of the user; None: this computer's.

    """
    return datetime.fromtimestamp(wall, zone).date().isoformat()


def period_of(wall: float, resets_at: float | None) -> str:
    """When the billing period of a moment began, in UTC.

    Args:
        wall: seconds since the epoch.
        resets_at: the next reset that GitHub named for the account, in seconds since the epoch. None, past, or more
            than 32 days ahead: the period begins on the first of the month at 00:00 UTC, as GitHub's documentation on
            billing of premium requests and credits says.

    """
    at = datetime.fromtimestamp(wall, UTC)
    if resets_at is None or not 0 < resets_at - wall <= 32 * 86400:
        return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0).isoformat()
    reset = datetime.fromtimestamp(resets_at, UTC).replace(microsecond=0)
    last_of_month_before = reset.replace(day=1) - timedelta(days=1)
    return reset.replace(
        year=last_of_month_before.year,
        month=last_of_month_before.month,
        day=min(reset.day, last_of_month_before.day),
    ).isoformat()


@dataclass(frozen=True, slots=True)
class QuotaPoint:
    """What was left of an account's quota window at a moment."""

    account_id: str
    name: str
    """A key of ``AccountState.quota``."""
    at: float
    """Seconds since the epoch, on the wall clock."""
    percent_left: float


class NewerFileError(Exception):
    """The file has a newer schema than this version knows."""


class Ledger:
    """The ledger in a state folder. Each call opens the file and closes it again.

    Args:
        folder: the state folder, which exists and belongs to the owner alone.

    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def add(self, entries: Iterable[Entry], today: date, points: Iterable[QuotaPoint] = ()) -> None:
        """Count these requests and keep these points, in one transaction; drop what is too old.

        Raises:
            StoreError: the file cannot be written; nothing of `entries` was counted.

        """
        with self._open(write=True) as db:
            for entry in entries:
                _count(db, entry)
            db.execute("DELETE FROM spent WHERE day < ?", ((today - timedelta(days=KEPT_DAYS)).isoformat(),))
            for point in points:
                row = (point.account_id, point.name, int(point.at // QUOTA_STEP) * QUOTA_STEP, point.percent_left)
                db.execute("INSERT OR REPLACE INTO quota VALUES (?, ?, ?, ?)", row)
                db.execute("DELETE FROM quota WHERE at < ?", (row[2] - QUOTA_DAYS * 86400,))

    def quota(self, since: float) -> list[QuotaPoint]:
        """What was left of each quota window from `since` (seconds since the epoch) on, oldest point first.

        Raises:
            StoreError: the file cannot be read. A missing file holds no point.

        """
        with self._open(write=False) as db:
            rows = db.execute("SELECT account, name, at, percent_left FROM quota WHERE at >= ? ORDER BY at", (since,))
            return [QuotaPoint(*row) for row in rows.fetchall()]

    def days(self, since: str, until: str) -> list[tuple[str, Spent]]:
        """What was used on each day from `since` to `until` (both included), by account and model, oldest day first.

        Raises:
            StoreError: the file cannot be read. A missing file is an empty ledger.

        """
        rows = self._sums("day, account, model", "day BETWEEN ? AND ?", (since, until))
        return [(day, Spent(*rest)) for day, *rest in rows]

    def period(self, account_id: str, period: str) -> list[Spent]:
        """What an account used in a billing period, by model.

        Raises:
            StoreError: the file cannot be read. A missing file is an empty ledger.

        """
        rows = self._sums("account, model", "account = ? AND period = ?", (account_id, period))
        return [Spent(*row) for row in rows]

    def _sums(self, keys: str, where: str, given: tuple[str, str]) -> list[tuple[Any, ...]]:
        """`keys` and the sums of each group, in their order; both texts are constants of this file."""
        with self._open(write=False) as db:
            query = f"SELECT {keys}, {_SUMS} FROM spent WHERE {where} GROUP BY {keys} ORDER BY {keys}"  # noqa: S608
            return db.execute(query, given).fetchall()

    @contextmanager
    def _open(self, *, write: bool) -> Iterator["sqlite3.Connection"]:
        import sqlite3  # noqa: PLC0415 - see above

        try:
            if write:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600))
            elif not self.path.exists():
                with _memory() as db:
                    yield db
                return
            db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from None
        try:
            if write:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("BEGIN IMMEDIATE")
            if _is_ready(db, write=write):
                yield db
            else:
                with _memory() as empty:
                    yield empty
            if write:
                db.execute("COMMIT")
        except (sqlite3.Error, NewerFileError) as error:
            raise self._failed(error) from None
        finally:
            db.close()  # an open transaction is rolled back

    def _failed(self, error: Exception) -> StoreError:
        why = printable(str(error), 200)
        return StoreError(f"{printable(str(self.path), 4096)}: the ledger cannot be used ({why})")


@contextmanager
def _memory() -> Iterator["sqlite3.Connection"]:
    import sqlite3  # noqa: PLC0415 - see above

    db = sqlite3.connect(":memory:")
    try:
        db.executescript(_SCHEMA)
        yield db
    finally:
        db.close()


def _is_ready(db: "sqlite3.Connection", *, write: bool) -> bool:
    """Whether the tables are there; a writer makes them. Raises NewerFileError."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise NewerFileError("it was written by a newer version of copilot-balancer: upgrade this one")
    if found < SCHEMA_VERSION and write:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return True
    return bool(found == SCHEMA_VERSION)


def _count(db: "sqlite3.Connection", entry: Entry) -> None:
    usage, model = entry.usage or Usage(), printable(entry.model, 200)
    known = db.execute(
        "SELECT 1 FROM spent WHERE day = ? AND account = ? AND model = ?", (entry.day, entry.account_id, model)
    )
    if known.fetchone() is None:
        (models,) = db.execute(
            "SELECT count(DISTINCT model) FROM spent WHERE day = ? AND account = ?", (entry.day, entry.account_id)
        ).fetchone()
        model = model if models < MODELS else OTHER
    tokens, estimate = usage.tokens_in + usage.tokens_out, 0
    if usage.nano_aiu is not None and tokens and model != OTHER:
        db.execute("INSERT OR REPLACE INTO price VALUES (?, ?)", (model, usage.nano_aiu / tokens))
    elif usage.nano_aiu is None and tokens:
        price = db.execute("SELECT nano_aiu_per_token FROM price WHERE model = ?", (model,)).fetchone()
        estimate = round(price[0] * tokens) if price else 0
    db.execute(
        _ADD,
        (
            *(entry.day, entry.period, entry.account_id, model, int(usage.nano_aiu is None)),
            *(usage.tokens_in, usage.cached, usage.tokens_out, usage.reasoning, usage.nano_aiu or 0, estimate),
        ),
    )
