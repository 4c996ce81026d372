"""The events on disk: bounded, whole, for the owner alone, and read again whatever stands in the file."""

import os
import subprocess
import sys
from dataclasses import replace

import filelock
import pytest
from hypothesis import given, strategies

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.store import line_log, request_log
from copilot_balancer.store.folder import Refusal
from copilot_balancer.store.request_log import BEFORE, LINE_BYTES, NAME, RequestLog, RequestLogReader, newest_events
from copilot_balancer.store.request_record import document, parsed
from support.events import EVENT


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def write(folder, *numbers, **sizes):
    file = RequestLog(folder, **sizes)
    for number in numbers:
        assert file.put(document(replace(EVENT, id=str(number))))
    file.close()
    return file


def ids(events):
    return [int(event.id) for event in events]


def total(folder):
    return sum((folder / name).stat().st_size for name in (NAME, BEFORE) if (folder / name).exists())


def test_what_is_written_is_read(folder):
    """An event comes back as it was put."""
    file = RequestLog(folder)
    file.put(document(EVENT))
    assert file.waits
    file.drain()
    assert not file.waits
    assert newest_events(folder, 10) == (EVENT,)


def test_nothing_to_write(folder):
    """Where nothing waits nothing is made."""
    RequestLog(folder).drain()
    assert not folder.exists()
    assert newest_events(folder, 5) == ()
    assert RequestLogReader(folder).read() == []


def test_for_the_owner_alone(folder):
    """The files are 0600 whatever the umask, and whatever they were."""
    old = os.umask(0)
    try:
        write(folder, 1)
        (folder / NAME).chmod(0o644)
        write(folder, 2)
    finally:
        os.umask(old)
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_never_above_the_cap(folder):
    """Whatever is written, a file is never above its size, and the two never above twice of it; the newest stay."""
    cap = 3 * LINE_BYTES
    for first in range(0, 400, 7):
        write(folder, *range(first, first + 7), file_bytes=cap)
        assert (folder / NAME).stat().st_size <= cap
        assert total(folder) <= 2 * cap
    kept = ids(RequestLogReader(folder).read())
    assert kept == list(range(kept[0], 406))
    assert len(kept) > 20


def test_more_than_a_file_at_once(folder):
    """A batch that is larger than a file goes on in the next one."""
    write(folder, *range(60), file_bytes=3 * LINE_BYTES)
    kept = ids(RequestLogReader(folder).read())
    assert kept == list(range(kept[0], 60))
    assert total(folder) <= 6 * LINE_BYTES


def test_a_long_event(folder):
    """A line is never longer than its bound: what the upstreams said goes first, then attempts, then words."""
    said = replace(EVENT, attempts=(replace(EVENT.attempts[0], text="ü" * 400),) * 11)
    many = replace(EVENT, attempts=(replace(EVENT.attempts[0], why="ü" * 100),) * 300)
    words = replace(
        EVENT, note="ü" * 400, what="ü" * 400, moved="ü" * 400, error="ü" * 400, attempts=EVENT.attempts[:1] * 300
    )
    hosts = replace(words, attempts=(replace(EVENT.attempts[0], host="ü" * 400),) * 300)
    file = RequestLog(folder)
    labels = replace(
        hosts, id="😀" * 400, account="😀" * 400, host="😀" * 400, model="😀" * 400, what="😀" * 400, note="😀" * 400
    )
    for one in (said, many, words, hosts, labels):
        assert file.put(document(one))
    file.drain()
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    assert all(len(line) <= LINE_BYTES for line in lines)
    assert [len(event.attempts) for event in newest_events(folder, 9)] == [11, 4, 4, 0, 0]
    assert [event.what for event in newest_events(folder, 9)[3:]] == ["ü" * 100, "😀" * 25]


@given(strategies.text(max_size=10_000))
def test_foreign_words(text):
    """Whatever an event says, one line of ASCII holds it, and it can be read again."""
    raw = request_log._line({**document(EVENT), "what": text, "note": text, "account": text})
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert len(raw) <= LINE_BYTES
    assert parsed(raw) is not None


def test_half_lines_and_garbage(folder):
    """A line that a killed proxy left cut, and garbage, are passed over; what follows is read."""
    write(folder, 1)
    with (folder / NAME).open("ab") as file:
        file.write(b'{"time": "2026-09-21T14:13:20Z", "id"')
    assert ids(newest_events(folder, 9)) == [1]
    write(folder, 2)
    with (folder / NAME).open("ab") as file:
        file.write(b"\x00\xff garbage\n\n\r\n")
    write(folder, 3)
    assert ids(RequestLogReader(folder).read()) == [1, 2, 3]
    assert ids(newest_events(folder, 9)) == [1, 2, 3]


def test_the_newest(folder):
    """So many as are asked for, from both files, newest last."""
    write(folder, *range(50), file_bytes=4 * LINE_BYTES)
    kept = ids(RequestLogReader(folder).read())
    assert (folder / BEFORE).exists()
    for limit in (1, 2, 7, 20, 1000):
        assert ids(newest_events(folder, limit)) == kept[-limit:]
    assert ids(newest_events(folder, 0)) == kept[-1:]


def test_a_reader_follows(folder):
    """A reader gets each event once, over a new file too, and never half of a line."""
    reader = RequestLogReader(folder)
    assert reader.read() == []
    write(folder, 1, 2)
    assert ids(reader.read()) == [1, 2]
    assert reader.read() == []

    line = request_log._line(document(replace(EVENT, id="3")))
    with (folder / NAME).open("ab") as file:
        file.write(line[:40])
        file.flush()
        assert reader.read() == []
        file.write(line[40:])
    assert ids(reader.read()) == [3]

    write(folder, 4)
    size = (folder / NAME).stat().st_size
    assert size < LINE_BYTES
    many = range(5, 14)
    write(folder, *many, file_bytes=LINE_BYTES)
    seen = ids(reader.read())
    assert seen == list(range(4, 14)) or seen == [*range(4, seen[-1] + 1)]
    assert seen[-1] == 13


def test_a_reader_after_two_new_files(folder):
    """A reader that slept too long goes on with what is still there."""
    write(folder, 1)
    reader = RequestLogReader(folder)
    reader.read()
    with (folder / NAME).open():  # as long as it is open no new file gets its inode
        write(folder, *range(2, 60), file_bytes=LINE_BYTES)
        seen = ids(reader.read())
    assert seen == list(range(seen[0], 60))


def test_somebody_empties_the_file(folder):
    """A file that was emptied is read from its beginning."""
    write(folder, 1, 2)
    reader = RequestLogReader(folder)
    reader.read()
    (folder / NAME).write_bytes(b"")
    assert reader.read() == []
    write(folder, 3)
    assert ids(reader.read()) == [3]
    (folder / NAME).unlink()
    assert reader.read() == []


def test_a_line_without_end(folder):
    """A line that is longer than a file of ours is passed over."""
    write(folder, 1)
    with (folder / NAME).open("ab") as file:
        file.write(b"x" * (request_log.FILE_BYTES + 3 * LINE_BYTES))
    reader = RequestLogReader(folder)
    for _ in range(3):
        reader.read()
    write(folder, 2)
    (folder / BEFORE).unlink(missing_ok=True)
    assert ids(reader.read()) == [2]


WRITER = """
import sys
from pathlib import Path
from copilot_balancer.store.request_log import RequestLog
file = RequestLog(Path(sys.argv[1]), file_bytes=int(sys.argv[3]))
for number in range(100):
    line = {"time": "2026-09-21T14:13:20Z", "id": f"{sys.argv[2]}-{number}", "what": "x" * 200, "verdict": "served",
            "status": 200, "ms": 1}
    assert file.put(line)
    if number % 5 == 0:
        file.drain()
file.close()
"""


@pytest.mark.parametrize("cap", [request_log.FILE_BYTES, 30_000], ids=["one file", "new files all the time"])
def test_several_proxies(folder, cap):
    """Several proxies write at once: no line is cut or mixed, none is lost but the oldest, and the cap holds."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(number), str(cap)]) for number in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = [
        line
        for name in (BEFORE, NAME)
        if (folder / name).exists()
        for line in (folder / name).read_bytes().splitlines()
    ]
    events = [parsed(line) for line in lines]
    assert None not in events
    assert all((folder / name).stat().st_size <= cap for name in (NAME, BEFORE) if (folder / name).exists())
    if cap == request_log.FILE_BYTES:
        assert len(events) == 300
    for number in "012":
        mine = [int(event.id[2:]) for event in events if event.id[0] == number]
        assert mine == list(range(100 - len(mine), 100))


def test_no_room(folder):
    """What waits is bounded: what no longer fits is counted and lost, and what waits is written when it can be."""
    file = RequestLog(folder, waiting_bytes=1500)
    taken = [file.put(document(replace(EVENT, id=str(number)))) for number in range(10)]
    assert taken == sorted(taken, reverse=True)
    assert file.lost == taken.count(False) > 0
    file.drain()
    assert ids(newest_events(folder, 20)) == list(range(taken.count(True)))
    assert file.put(document(EVENT))


def test_the_disk_is_full(folder, monkeypatch):
    """A write that fails leaves the file as it was, and its lines wait for the next time."""
    write(folder, 1)
    before = (folder / NAME).read_bytes()
    file = RequestLog(folder)
    file.put(document(replace(EVENT, id="2")))
    real, calls = os.write, []

    def half(handle, raw):
        calls.append(len(raw))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, bytes(raw)[:10])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(StoreError, match=r"events\.jsonl: writing it failed .*free some space"):
            file.drain()
    assert (folder / NAME).read_bytes() == before
    assert file.waits
    file.close()
    assert ids(newest_events(folder, 5)) == [1, 2]


def test_another_proxy_hangs(folder, monkeypatch):
    """When another proxy holds the lock for too long the lines wait."""
    monkeypatch.setattr(RequestLog, "LOCK_SECONDS", 0.01)
    write(folder, 1)
    file = RequestLog(folder)
    file.put(document(replace(EVENT, id="2")))
    with filelock.FileLock(folder / "events.lock"), pytest.raises(StoreBusy, match="held its lock for too long"):
        file.drain()
    file.drain()
    assert ids(newest_events(folder, 5)) == [1, 2]


def test_a_disk_without_locks(folder, monkeypatch):
    """On a file system without locks nothing is written, and it is said why."""
    monkeypatch.setattr(line_log, "held", lambda *_: Refusal("it cannot be locked", "put it elsewhere"))
    with pytest.raises(StoreError, match=r"events\.jsonl: it cannot be locked. Remedy: put it elsewhere"):
        write(folder, 1)


def test_a_link(folder, tmp_path):
    """No link is followed, and no file with another name is written."""
    write(folder, 1)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / NAME).unlink()
    (folder / NAME).symlink_to(victim)
    with pytest.raises(StoreError, match="not a regular file"):
        write(folder, 2)
    with pytest.raises(StoreError, match="reading it failed"):
        newest_events(folder, 5)
    (folder / NAME).unlink()
    os.link(victim, folder / NAME)
    with pytest.raises(StoreError, match="not a regular file with one name"):
        write(folder, 2)
    assert victim.read_text() == "mine"


def test_a_pipe(folder):
    """A pipe in the file's place holds nobody up."""
    write(folder, 1)
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)
    assert newest_events(folder, 5) == ()
    with pytest.raises(StoreError, match="not a regular file"):
        write(folder, 2)


def test_others_may_use_the_folder(folder):
    """A folder that others may use is refused."""
    write(folder, 1)
    folder.chmod(0o755)
    with pytest.raises(StoreError, match="others may use it"):
        write(folder, 2)
    with pytest.raises(StoreError, match="others may use it"):
        newest_events(folder, 5)


@pytest.mark.parametrize("step", ["make", "stat", "replace", "open"])
def test_other_failures(folder, monkeypatch, step):
    """Whatever the system refuses is one sentence with a remedy, and the line waits."""
    write(folder, 1, 2, 3, 4)
    file = RequestLog(folder, file_bytes=LINE_BYTES)
    line = {**document(replace(EVENT, id="5")), "note": "x" * 3000}
    file.put(line)
    real = getattr(os, step, None)

    def refuse(path, *more, **kwargs):
        if path == NAME:
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **kwargs)

    with monkeypatch.context() as patched:
        if step == "make":
            refusal = Refusal("making it failed (Permission denied)", "look at owner and mode")
            patched.setattr(line_log, "make", lambda _: refusal)
        else:
            patched.setattr(os, step, refuse)
        with pytest.raises(StoreError, match=r"failed \(Permission denied\).*look at owner and mode"):
            file.drain()
    assert file.waits
    file.drain()
    assert ids(newest_events(folder, 1)) == [5]


def test_the_folder_goes(folder, monkeypatch):
    """A folder that is removed in this very moment is an error, and the line waits."""
    monkeypatch.setattr(line_log, "make", lambda _: None)
    file = RequestLog(folder)
    file.put(document(EVENT))
    with pytest.raises(StoreError, match="the folder was removed"):
        file.drain()
    assert file.waits
