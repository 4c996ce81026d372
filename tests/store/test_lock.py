"""A lock between programs: held, or not, and never one that a killed program would leave behind."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from copilot_balancer.store.folder import Refusal, held


def test_one_at_a_time(tmp_path):
    """Who comes second gets none until the first one has let go; the file stays, for its owner alone."""
    path = tmp_path / "x.lock"
    first = held(path, 0)
    assert first is not None
    assert not isinstance(first, Refusal)

    assert held(path, 0.01) is None
    first.release()
    second = held(path, 0)
    assert second is not None
    second.release()
    assert path.exists()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_killed_program_holds_nothing(tmp_path):
    """A lock ends with the program that held it."""
    path = tmp_path / "x.lock"
    code = f"from pathlib import Path; from copilot_balancer.store.folder import held; lock = held(Path({str(path)!r}), 0); print('held', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        assert held(path, 0) is None
        child.kill()

    lock = held(path, 0)
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("old", [True, False], ids=["filelock 3.20", "filelock 4"])
def test_a_file_system_without_locks(tmp_path, monkeypatch, old):
    """Where the disk has no locks it is said where to put the folder; a soft lock is never taken."""
    wishes: dict[str, object] = {}

    class Older:
        def __init__(self, path, *, mode, thread_local, timeout, poll_interval) -> None:
            wishes.update(mode=mode, thread_local=thread_local, timeout=timeout, poll_interval=poll_interval)

        def acquire(self) -> None:
            raise NotImplementedError

    class Newer(Older):
        def __init__(self, path, fallback_to_soft: bool = True, **more) -> None:
            super().__init__(path, **more)
            wishes.update(fallback_to_soft=fallback_to_soft)

        def acquire(self) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("filelock.FileLock", Older if old else Newer)
    found = held(tmp_path / "x.lock", 0)

    assert isinstance(found, Refusal)
    assert found.why.startswith("locking it failed (")
    assert "COPILOT_BALANCER_HOME" in found.remedy
    assert wishes == {"mode": 0o600, "thread_local": False, "timeout": 0, "poll_interval": 0.003} | (
        {} if old else {"fallback_to_soft": False}
    )
