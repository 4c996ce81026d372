"""The ledger: every request is counted once, prices are what responses said, and its file is bounded and private."""

import os
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from copilot_balancer.copilot.usage import Usage
from copilot_balancer.errors import StoreError
from copilot_balancer.store import ledger as ledger_module
from copilot_balancer.store.ledger import (
    KEPT_DAYS,
    MODELS,
    NAME,
    OTHER,
    QUOTA_STEP,
    Entry,
    Ledger,
    QuotaPoint,
    Spent,
    day_of,
    period_of,
)

TODAY = date(2026, 11, 30)
DAY, PERIOD = "2026-11-30", "2026-11-01T00:00:00+00:00"
PRICED = Usage(1000, 800, 50, 20, 2_000_000)


def entry(usage: Usage | None = PRICED, *, account="github.com:1", model="gpt-5", day=DAY, period=PERIOD) -> Entry:
    return Entry(day, period, account, model, usage)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_sums(tmp_path):
    """Requests of one day, account and model add up; others stand beside them."""
    ledger = Ledger(tmp_path)
    ledger.add([entry(), entry(), entry(model="o9"), entry(account="github.com:2")], TODAY)
    ledger.add([entry(day="2026-11-29")], TODAY)

    assert [(day, one.account_id, one.model, one.requests) for day, one in ledger.days("2026-11-29", DAY)] == [
        ("2026-11-29", "github.com:1", "gpt-5", 1),
        (DAY, "github.com:1", "gpt-5", 2),
        (DAY, "github.com:1", "o9", 1),
        (DAY, "github.com:2", "gpt-5", 1),
    ]
    assert ledger.period("github.com:1", PERIOD) == [
        Spent("github.com:1", "gpt-5", 3, 0, 3000, 2400, 150, 60, 6_000_000, 0),
        Spent("github.com:1", "o9", 1, 0, 1000, 800, 50, 20, 2_000_000, 0),
    ]


@pytest.mark.parametrize(
    ("usage", "estimate"),
    [
        pytest.param(Usage(tokens_in=100, tokens_out=5), 210_000, id="tokens without a price"),
        pytest.param(None, 0, id="nothing told"),
    ],
)
def test_unpriced(tmp_path, usage, estimate):
    """Without a price a request is unpriced; its estimate is tokens times the model's last price, and no price."""
    ledger = Ledger(tmp_path)
    ledger.add([entry(usage)], TODAY)
    assert ledger.period("github.com:1", PERIOD)[0].estimated_nano_aiu == 0  # no price was seen yet
    ledger.add([entry(Usage(1000, 0, 50, 0, 2_100_000)), entry(usage), entry(usage, model="never priced")], TODAY)

    (found, never) = ledger.period("github.com:1", PERIOD)
    assert (found.requests, found.unpriced, found.nano_aiu) == (3, 2, 2_100_000)
    assert found.estimated_nano_aiu == estimate
    assert (never.unpriced, never.estimated_nano_aiu) == (1, 0)


@pytest.mark.parametrize(
    ("wall", "zone", "day"),
    [
        ("2026-11-30T23:30:00+00:00", "UTC", "2026-11-30"),
        ("2026-11-30T23:30:00+00:00", "Europe/Berlin", "2026-12-01"),
        ("2026-11-30T03:00:00+00:00", "America/New_York", "2026-11-29"),
        ("2026-11-30T18:31:00+00:00", "Asia/Kolkata", "2026-12-01"),
    ],
)
def test_days(wall, zone, day):
    """A day is the user's local day."""
    assert day_of(at(wall), ZoneInfo(zone)) == day


@pytest.mark.parametrize(
    ("wall", "resets", "period"),
    [
        pytest.param("2026-11-30T23:59:59+00:00", None, "2026-11-01T00:00:00+00:00", id="first of the month, UTC"),
        pytest.param("2026-12-01T00:00:00+00:00", None, "2026-12-01T00:00:00+00:00", id="the month begins"),
        pytest.param(
            "2026-11-30T12:00:00+00:00", "2026-12-14T00:00:00+00:00", "2026-11-14T00:00:00+00:00", id="named reset"
        ),
        pytest.param(
            "2027-03-15T12:00:00+00:00", "2027-03-31T00:00:00+00:00", "2027-02-28T00:00:00+00:00", id="short month"
        ),
        pytest.param(
            "2026-12-20T12:00:00+00:00", "2027-01-05T00:00:00+00:00", "2026-12-05T00:00:00+00:00", id="over new year"
        ),
        pytest.param(
            "2026-11-30T12:00:00+00:00", "2026-11-29T00:00:00+00:00", "2026-11-01T00:00:00+00:00", id="reset is past"
        ),
        pytest.param(
            "2026-11-30T12:00:00+00:00", "2028-01-01T00:00:00+00:00", "2026-11-01T00:00:00+00:00", id="reset too far"
        ),
    ],
)
def test_periods(wall, resets, period):
    """A period is GitHub's: to the reset that the account names, else from the first of the month at 00:00 UTC."""
    assert period_of(at(wall), resets and at(resets)) == period


def test_old_rows_go(tmp_path):
    """What is older than thirteen months is dropped with the next write."""
    ledger = Ledger(tmp_path)
    old = date.fromordinal(TODAY.toordinal() - KEPT_DAYS - 1).isoformat()
    kept = date.fromordinal(TODAY.toordinal() - KEPT_DAYS).isoformat()
    ledger.add([entry(day=old), entry(day=kept)], date.fromordinal(TODAY.toordinal() - 10))
    ledger.add([entry()], TODAY)
    assert [day for day, _ in ledger.days("2000-01-01", DAY)] == [kept, DAY]


def test_models_are_bounded(tmp_path):
    """A client that invents models fills no disk: past a number they share a row, and nothing is lost of the sums."""
    ledger = Ledger(tmp_path)
    ledger.add([entry(model=f"m{number}") for number in range(MODELS + 50)] + [entry(model="m1")], TODAY)
    found = {one.model: one.requests for one in ledger.period("github.com:1", PERIOD)}
    assert len(found) == MODELS + 1
    assert (found[OTHER], found["m1"], sum(found.values())) == (50, 2, MODELS + 51)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_modes(tmp_path):
    """The file and what SQLite puts beside it are for the owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        ledger = Ledger(tmp_path)
        ledger.add([entry()], TODAY)
        with sqlite3.connect(tmp_path / NAME) as reader:  # keeps the -wal and -shm files
            reader.execute("SELECT count(*) FROM spent").fetchone()
            ledger.add([entry()], TODAY)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        reader.close()
    finally:
        os.umask(before)
    assert modes == {NAME: 0o600, f"{NAME}-wal": 0o600, f"{NAME}-shm": 0o600}


def test_missing(tmp_path):
    """Reading a ledger that is not there finds nothing and makes no file."""
    assert Ledger(tmp_path).days("2026-01-01", DAY) == []
    assert Ledger(tmp_path).period("github.com:1", PERIOD) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(200)], ids=["text", "a broken head"])
def test_broken(tmp_path, content):
    """A broken file is one sentence with its path, for reader and writer, and stays as it is."""
    (tmp_path / NAME).write_bytes(content)
    for use in (lambda ledger: ledger.add([entry()], TODAY), lambda ledger: ledger.days(DAY, DAY)):
        with pytest.raises(StoreError, match="ledger cannot be used"):
            use(Ledger(tmp_path))
    assert (tmp_path / NAME).read_bytes() == content


def test_newer(tmp_path):
    """A file of a newer version is refused and stays as it is."""
    Ledger(tmp_path).add([entry()], TODAY)
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        Ledger(tmp_path).add([entry()], TODAY)
    with pytest.raises(StoreError, match="newer version"):
        Ledger(tmp_path).days(DAY, DAY)


def test_locked(tmp_path, monkeypatch):
    """While another process writes for long, adding fails with one sentence, and reading goes on."""
    monkeypatch.setattr(ledger_module, "WAIT_SECONDS", 0.0)
    Ledger(tmp_path).add([entry()], TODAY)
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        Ledger(tmp_path).add([entry()], TODAY)
    assert Ledger(tmp_path).days(DAY, DAY)[0][1].requests == 1
    other.execute("ROLLBACK")
    other.close()
    Ledger(tmp_path).add([entry()], TODAY)
    assert Ledger(tmp_path).days(DAY, DAY)[0][1].requests == 2


WRITER = """
import sys
from datetime import date
from pathlib import Path
from copilot_balancer.copilot.usage import Usage
from copilot_balancer.store.ledger import Entry, Ledger
for number in range(40):
    usage = Usage(10, 0, 1, 0, 7)
    Ledger(Path(sys.argv[1])).add([Entry("2026-11-30", sys.argv[2], "github.com:1", "gpt-5", usage)] * 5, date(2026, 11, 30))
    print(number, flush=True)
"""


def test_several_writers_and_a_kill(tmp_path):
    """Three processes write at once and one is killed: what each had finished is counted once, and the rest whole or not."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), PERIOD], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for _ in range(5):
        writers[0].stdout.readline()
    writers[0].kill()
    said = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers[1:]] == [0, 0]

    (found,) = Ledger(tmp_path).period("github.com:1", PERIOD)
    finished = 5 + len(said[0].split())
    assert found.requests in (400 + 5 * finished, 400 + 5 * (finished + 1))
    assert found.nano_aiu == 7 * found.requests


def test_a_moment_in_utc():
    """Days and periods of one moment may begin on different days; both are text that sorts by time."""
    wall = at("2026-12-01T00:30:00+00:00")
    assert (day_of(wall, ZoneInfo("America/New_York")), period_of(wall, None)[:10]) == ("2026-11-30", "2026-12-01")
    assert datetime.fromisoformat(period_of(wall, None)).tzinfo == UTC


# --- what was left of a quota -----------------------------------------------------------------------------------------


def test_points_of_a_quota(tmp_path):
    """One point a quarter of an hour is kept, the newest word of it; points of two months ago go."""
    ledger, now = Ledger(tmp_path), 1_790_000_100.0
    step = now // QUOTA_STEP * QUOTA_STEP
    ledger.add(
        [], TODAY, [QuotaPoint("a", "premium", now - 70 * 86400, 99.0), QuotaPoint("a", "premium", now - 3600, 60.0)]
    )
    ledger.add([], TODAY, [QuotaPoint("a", "premium", now, 50.0), QuotaPoint("a", "premium", now + 1, 49.5)])
    ledger.add([], TODAY, [QuotaPoint("b", "session", now, 10.0)])
    assert ledger.quota(0.0) == [
        QuotaPoint("a", "premium", step - 3600, 60.0),
        QuotaPoint("a", "premium", step, 49.5),
        QuotaPoint("b", "session", step, 10.0),
    ]
    assert [point.percent_left for point in ledger.quota(step)] == [49.5, 10.0]
    assert Ledger(tmp_path / "nowhere").quota(0.0) == []


def test_a_ledger_of_the_version_before(tmp_path):
    """What it counted is kept when the next write adds what is new."""
    ledger = Ledger(tmp_path)
    ledger.add([entry()], TODAY)
    with sqlite3.connect(ledger.path) as db:
        db.execute("DROP TABLE quota")
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert ledger.quota(0.0) == []
    ledger.add([entry()], TODAY, [QuotaPoint("a", "premium", 900.0, 5.0)])
    assert ledger.quota(0.0) == [QuotaPoint("a", "premium", 900, 5.0)]
    assert ledger.days(DAY, DAY)[0][1].requests == 2
