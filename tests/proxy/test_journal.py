"""What is told about finished requests, and how often."""

import logging
from dataclasses import replace

import pytest

from copilot_balancer.errors import StoreError
from copilot_balancer.proxy import journal
from copilot_balancer.proxy.journal import MAX_WINDOWS, FaultLog, Journal
from copilot_balancer.store.request_log import RequestLog, newest_events
from copilot_balancer.store.request_record import AttemptRecord, finished
from copilot_balancer.views.requests import log_line

WORK = AttemptRecord("work", "api.githubcopilot.com", "sticky", "limit", 429, 30.0, "slow down")
SPARE = AttemptRecord("spare", "api.githubcopilot.com", "least recently used", "served", 200)


def record(*attempts, what="gpt-5", served=True, status=200, **facts):
    return finished(attempts, served=served, status=status, at=1000.0, id="f1", what=what, ms=800.0, **facts)


SERVED = record(SPARE)
OVER = record(WORK, SPARE)
REFUSED = record(WORK, status=429, served=False, note="all accounts tried, all refused")
CUT = record(SPARE, status=None)
FAILED = record(SPARE, error="overloaded")
LEFT = record(SPARE, status=None, client_left=True)
DECLINED = record(what="GET /responses", status=426, served=False, declined=True)
EVERY = (SERVED, OVER, REFUSED, CUT, FAILED, LEFT, DECLINED)


@pytest.fixture
def told(tmp_path, caplog):
    """A journal, and the lines it has told."""
    caplog.set_level(logging.DEBUG, logger=journal.__name__)

    class Told(Journal):
        def lines(self):
            return [record.getMessage().removeprefix("copilot: ") for record in caplog.records]

    return Told(RequestLog(tmp_path / "state"))


@pytest.mark.parametrize(
    ("noise", "wanted"),
    [
        ("all", {"served", "failed over", "refused", "cut off", "failed", "left", "declined"}),
        ("switches", {"failed over", "refused", "cut off", "failed"}),
        ("errors", {"refused", "cut off", "failed"}),
        ("none", set()),
    ],
)
def test_noise(told, caplog, noise, wanted, tmp_path):
    """The setting says which requests get a line; failures are warnings; the events file gets everything."""
    told.noise = noise
    for record in EVERY:
        told.tell(record, 10.0)
    assert [record.getMessage() for record in caplog.records] == [log_line(r) for r in EVERY if r.verdict in wanted]
    loud = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert loud == {log_line(r) for r in (REFUSED, CUT, FAILED) if r.verdict in wanted}
    assert all(record.levelno in (logging.INFO, logging.WARNING) for record in caplog.records)
    told.events.drain()
    assert [event.verdict for event in newest_events(tmp_path / "state", 9)] == [r.verdict for r in EVERY]


def test_a_hundred_equal_failures(told, tmp_path):
    """A hundred equal failures in five seconds are one line at once and a count; each one is an event."""
    for number in range(100):
        told.tell(replace(REFUSED, ms=number / 7, note=f"free again in {number} s"), 10.0 + number * 0.045)
        assert len(told.lines()) == 1
    told.tick(14.9)
    assert len(told.lines()) == 1
    told.tick(15.0)
    assert told.lines()[1:] == ["gpt-5 <- nobody, 429: repeated 99 times more in 4 s"]
    told.tick(30.0)
    assert len(told.lines()) == 2
    told.events.drain()
    assert len(newest_events(tmp_path / "state", 500)) == 100


def test_the_next_one_closes_the_window(told):
    """Without a tick the count is told before the next line."""
    told.tell(REFUSED, 10.0)
    told.tell(REFUSED, 11.0)
    told.tell(SERVED, 16.0)
    told.tell(REFUSED, 17.0)
    assert [line.split(" in ")[0] for line in told.lines()] == [
        "gpt-5 <- nobody, 429",
        "gpt-5 <- nobody, 429: repeated 1 time more",
        "gpt-5 <- spare (api.githubcopilot.com) 200",
        "gpt-5 <- nobody, 429",
    ]


def test_a_single_failure(told):
    """A failure that does not come again is one line."""
    told.tell(REFUSED, 10.0)
    told.tick(20.0)
    told.close()
    assert len(told.lines()) == 1


def test_at_the_end(told):
    """What was counted is told when the proxy ends."""
    for now in (10.0, 10.1, 10.2):
        told.tell(CUT, now)
    told.close()
    told.close()
    assert told.lines()[1:] == ["gpt-5 <- spare, cut off by the upstream: repeated 2 times more in 1 s"]


def test_successes_are_not_counted(told):
    """Each success has its line."""
    for _ in range(3):
        told.tell(SERVED, 10.0)
        told.tell(OVER, 10.0)
    assert len(told.lines()) == 6


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        pytest.param(replace(REFUSED, what="gpt-4.1"), 2, id="another model"),
        pytest.param(CUT, 2, id="another end"),
        pytest.param(replace(REFUSED, attempts=(replace(WORK, account="home"),)), 2, id="another account"),
        pytest.param(replace(REFUSED, attempts=(replace(WORK, reason="quota"),)), 2, id="another reason"),
        pytest.param(replace(REFUSED, attempts=(WORK, replace(WORK, account="home"))), 2, id="one account more"),
        pytest.param(replace(CUT, attempts=REFUSED.attempts, model="gpt-4.1"), 2, id="another model served"),
        pytest.param(replace(REFUSED, note="x", ms=9.0, id="f2"), 1, id="equal"),
    ],
)
def test_equal(told, other, lines):
    """Equal failures have the same model, end, accounts and reasons."""
    told.tell(REFUSED, 10.0)
    told.tell(other, 10.0)
    assert len(told.lines()) == lines


def test_the_order_of_accounts(told):
    """Accounts that were asked in another order make no other failure."""
    home = replace(WORK, account="home")
    told.tell(replace(REFUSED, attempts=(WORK, home)), 10.0)
    told.tell(replace(REFUSED, attempts=(home, WORK)), 10.0)
    assert len(told.lines()) == 1


def test_bounded(told):
    """So many different failures are counted; for one more the oldest count is told."""
    told.tell(REFUSED, 10.0)
    told.tell(REFUSED, 10.0)
    for number in range(MAX_WINDOWS):
        told.tell(replace(REFUSED, what=f"model-{number}"), 11.0)
    assert "gpt-5 <- nobody, 429: repeated 1 time more in 1 s" in told.lines()
    assert len(told._windows) == MAX_WINDOWS


# --- faults of the disk -----------------------------------------------------------------------------------------------


def fault(path, doing="writing it failed (No space left on device)"):
    return StoreError(f"{path}: {doing}. Remedy: free some space on this disk")


def test_one_fault_of_the_disk_is_one_warning_and_its_end(caplog):
    """However many files a full disk stops, and however often, it is said once; and once that it is over."""
    faults = FaultLog()
    for _ in range(50):
        for what in ("events", "state", "owners"):
            faults.failed(what, fault(f"/home/{what}.json"))
    assert len(caplog.records) == 1
    faults.worked("events")
    faults.worked("state")
    faults.worked("models")
    assert len(caplog.records) == 1
    faults.worked("owners")
    faults.worked("owners")
    assert [record.getMessage() for record in caplog.records] == [
        f"copilot: {fault('/home/events.json')}; going on with what is in memory",
        "copilot: the store can be used again (it was: No space left on device)",
    ]
    faults.failed("events", fault("/home/events.json"))
    assert len(caplog.records) == 3


def test_another_fault_is_another_warning(caplog):
    """A broken file and a full disk are two things."""
    faults = FaultLog()
    faults.failed("accounts", StoreError("accounts.json: it is not JSON (line 1). Remedy: restore it"))
    faults.failed("events", fault("events.jsonl"))
    faults.worked("accounts")
    assert len(caplog.records) == 3
    assert "it is not JSON" in caplog.records[-1].getMessage()
