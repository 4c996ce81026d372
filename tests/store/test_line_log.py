"""Lines on disk: order, bounds, and what a bad disk or another program does to them."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.types import SERVED, Policy, PoolRequest
from copilot_balancer.store import decision_log, line_log
from copilot_balancer.store.decision_log import DecisionLog, Recorder
from copilot_balancer.store.decision_replay import replay
from copilot_balancer.store.folder import Refusal
from support.faults import Faults
from support.pools import START, decisions

NAME, BEFORE = DecisionLog.NAME, DecisionLog.BEFORE


class Lines(DecisionLog):
    """A log whose lines are text."""

    def put(self, line: str, begins: bool) -> bool:
        return self.put_line(line.encode() + b"\n", begins=begins)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "home" / "state"


@pytest.fixture
def file(folder):
    """A file that is changed for a new one at 60 bytes."""
    file = Lines(folder, file_bytes=60, waiting_bytes=300)
    yield file
    file.close()


def lines(folder: Path, name: str = NAME) -> list[str]:
    return (folder / name).read_text().splitlines()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_lines_stand_in_their_order(file, folder):
    """What was put is written when it is drained, for the owner alone; nothing is written before."""
    assert not file.waits
    assert file.put("begin 1", True)
    assert file.put("one", False)
    assert file.waits
    assert not folder.exists()
    file.drain()
    assert not file.waits
    assert file.put("two", False)
    file.drain()
    file.drain()
    assert lines(folder) == ["begin 1", "one", "two"]
    assert file.path == folder / NAME
    if os.name == "posix":
        assert (mode(folder), mode(file.path)) == (0o700, 0o600)


def test_a_new_file_begins_with_a_run(file, folder):
    """A file that a further run might make too large is put aside for a new one; the one before that is gone."""
    for run in range(9):
        file.put(f"begin {run}", True)
        file.put("a line of some length", False)
        file.drain()
        assert lines(folder)[0].startswith("begin")
        assert file.path.stat().st_size <= 100
    assert lines(folder, BEFORE) == ["begin 6", "a line of some length", "begin 7", "a line of some length"]
    assert lines(folder) == ["begin 8", "a line of some length"]
    assert sorted(path.name for path in folder.glob("decisions*.jsonl")) == [BEFORE, NAME]


def test_a_run_is_never_parted(file, folder):
    """However long a run is, it stays in one file."""
    file.put("begin 1", True)
    for number in range(20):
        file.put(f"line {number}", False)
    file.drain()
    assert len(lines(folder)) == 21
    file.put("begin 2", True)
    file.drain()
    assert (len(lines(folder, BEFORE)), lines(folder)) == (21, ["begin 2"])


def test_what_does_not_fit_is_refused(file, folder):
    """Only so much waits; there is room again when it was written."""
    assert file.put("b" * 199, True)
    assert file.put("l" * 99, False)
    assert not file.put("", False)
    file.drain()
    assert file.put("l" * 299, False)
    assert not file.put("", True)
    file.drain()
    assert [len(line) for line in lines(folder)] == [199, 99, 299]


@pytest.mark.parametrize("function", ["open", "write", "replace", "fchmod", "stat"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_fails(file, folder, monkeypatch, function, code):
    """One sentence; the file is as it was, and the lines are written when the disk is well again."""
    for run in range(2):
        file.put(f"begin {run} of some length", True)
        file.put("a line", False)
        file.drain()
    before = lines(folder)
    file.put("begin 2", True)
    file.put("another line", False)
    fault = Faults(monkeypatch, function, code, nth=1 if function == "open" else 0)  # the 0th is the folder's
    with pytest.raises(
        StoreError, match=r"decisions\.jsonl: (opening|writing|renaming|looking at) it failed .*\. Remedy: "
    ):
        file.drain()
    fault.undo()

    assert fault.hit
    found = lines(folder) if file.path.exists() else []
    assert (lines(folder, BEFORE) if (folder / BEFORE).exists() else []) + found == before
    file.drain()
    assert lines(folder) == ["begin 2", "another line"]
    assert lines(folder, BEFORE) == before


def test_one_program_writes(file, folder):
    """A second proxy is told so, and may go on when the first one has ended."""
    file.put("begin 1", True)
    file.drain()
    other = Lines(folder)
    other.put("begin 2", True)
    with pytest.raises(StoreBusy, match="another proxy records its decisions here"):
        other.drain()
    file.close()
    file.close()
    other.close()
    assert lines(folder) == ["begin 1", "begin 2"]


def test_a_file_system_without_locks(folder, monkeypatch):
    """Without a lock nothing is written: two proxies would mix their lines."""
    monkeypatch.setattr(line_log, "held", lambda *_: Refusal("it cannot be locked", "put it elsewhere"))
    file = Lines(folder)
    file.put("begin 1", True)
    with pytest.raises(StoreError, match=r"decisions\.jsonl: it cannot be locked. Remedy: put it elsewhere"):
        file.close()
    assert not file.path.exists()


@pytest.mark.parametrize("left", ["begin 1\nhalf of a li", "begin 1\na line\n", ""], ids=["cut", "whole", "empty"])
def test_after_a_proxy_that_was_killed(file, folder, left):
    """A run begins on a line of its own, whatever was left."""
    folder.mkdir(parents=True, mode=0o700)
    file.path.write_text(left)
    file.put("begin 2", True)
    file.drain()
    assert lines(folder) == [*left.splitlines(), "begin 2"]
    if os.name == "posix":
        assert mode(file.path) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="links and modes are told apart on POSIX alone")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda path: path.symlink_to("/etc/hostname"), "not a regular file with one name", id="symbolic link"),
        pytest.param(lambda path: os.link(path.parent / "other", path), "not a regular file with one name", id="hard link"),
        pytest.param(os.mkfifo, "not a regular file with one name", id="pipe"),
        pytest.param(lambda path: path.mkdir(), "not a regular file with one name", id="folder"),
        pytest.param(lambda path: path.parent.chmod(0o755), "others may use it", id="open folder"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_ours(file, folder, spoil, why):
    """Nothing is written where others could read it, or through a link."""
    folder.mkdir(parents=True, mode=0o700)
    (folder / "other").write_text("theirs")
    spoil(file.path)
    file.put("begin 1", True)
    with pytest.raises(StoreError, match=f"{why}.*Remedy: "):
        file.drain()
    assert (folder / "other").read_text() == "theirs"
    folder.chmod(0o700)
    if file.path.is_dir():
        file.path.rmdir()
    else:
        file.path.unlink(missing_ok=True)
    file.drain()
    assert lines(folder) == ["begin 1"]


def test_a_folder_that_cannot_be_made(tmp_path):
    """Its reason is the reason."""
    (tmp_path / "home").write_text("a file")
    file = Lines(tmp_path / "home" / "state")
    file.put("begin 1", True)
    with pytest.raises(StoreError, match="making it failed"):
        file.drain()


def test_a_folder_that_was_removed(file, folder):
    """A folder that somebody removes under a running proxy is made again."""
    file.put("begin 1", True)
    file.drain()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    file.put("a line", False)
    file.drain()
    assert lines(folder) == ["a line"]


def test_without_folder_handles(file, folder, monkeypatch):
    """Where folders have no handles (Windows) files are named by their path."""
    monkeypatch.setattr("copilot_balancer.store.folder._POSIX", False)
    for run in range(3):
        file.put(f"begin {run} of a certain length", True)
        file.drain()
    assert lines(folder) == ["begin 2 of a certain length"]
    assert len(lines(folder, BEFORE)) == 2


def test_put_while_another_thread_drains(folder):
    """The event loop goes on putting while a thread writes: no line is lost or changes its place."""
    file = Lines(folder)
    ready = threading.Event()

    def drain():
        while not ready.is_set():
            file.drain()

    threads = [threading.Thread(target=drain) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        assert file.put(str(number), number % 100 == 0)
    ready.set()
    for thread in threads:
        thread.join()
    file.close()
    assert lines(folder) == [str(number) for number in range(3000)]


def test_a_pool_is_recorded_and_replayed(folder, monkeypatch):
    """From a pool to both files and back: each file is replayed by itself, and neither is too large."""
    monkeypatch.setattr(decision_log, "RUN_BYTES", 8000)
    log = DecisionLog(folder, file_bytes=30_000)
    pool = Recorder(Pool(Policy(), decisions("a", "b"), START), log)
    for number in range(60):
        request = PoolRequest(f"r{number}", "gpt", START + number, f"talk{number % 7}")
        pool.record(pool.assign(request, request.began), SERVED, request.began)
        if number % 5:
            pool.finish(request.id, request.began)
        if number % 4 == 0:
            log.drain()
    log.close()
    for name in (BEFORE, NAME):
        raw = (folder / name).read_bytes()
        done = replay(raw.splitlines(keepends=True))
        assert (done.difference, done.broken) == (None, [])
        assert done.runs >= 1
        assert done.decisions > 3
        assert len(raw) < 40_000
        assert b"canary" not in raw
