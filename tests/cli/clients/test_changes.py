"""Changing a client's file, and the way back."""

import os
import stat

import pytest

from copilot_balancer.cli.clients import changes as client_files
from copilot_balancer.cli.clients.changes import Changes, is_written
from copilot_balancer.errors import BalancerError


@pytest.fixture
def changes(tmp_path):
    return Changes(tmp_path / "ours" / "setup")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "theirs" / "app" / "file.json"


def test_a_new_file_and_back(changes, path, tmp_path):
    """A file that was not there is made for the user alone, with its folders; undone, all of it is gone."""
    assert changes.record("app") is None
    made = changes.apply("app", path, b"new", "note")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record = changes.record("app")
    assert record == made
    assert record.note == "note"
    assert is_written(record, b"new")
    assert not is_written(record, b"other")
    assert not is_written(record, None)
    assert changes.undo("app", record) == f"{path} is as it was before"
    assert not (tmp_path / "theirs").exists()
    assert changes.record("app") is None


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_an_old_file_and_back(changes, path, mode):
    """A file that was there keeps its mode; what stood there is kept for the user alone and comes back, byte for byte."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old \xff")
    path.chmod(mode)
    changes.apply("app", path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)
    kept = changes.folder / "app.before"
    assert (kept.read_bytes(), stat.S_IMODE(kept.stat().st_mode)) == (b"old \xff", 0o600)
    changes.undo("app", changes.record("app"))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"old \xff", mode)
    assert not kept.exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_a_link_stays_a_link(changes, path, tmp_path):
    """A file that is a link (as in a repository of dotfiles) is changed where it really is."""
    real = tmp_path / "dotfiles" / "file.json"
    real.parent.mkdir()
    real.write_bytes(b"old")
    path.parent.mkdir(parents=True)
    path.symlink_to(real)
    changes.apply("app", path, b"new")
    assert path.is_symlink()
    assert real.read_bytes() == b"new"
    changes.undo("app", changes.record("app"))
    assert path.is_symlink()
    assert real.read_bytes() == b"old"


def test_somebody_wrote_there_since(changes, path):
    """What somebody wrote since stays: only our words go, or, where nobody can tell them apart, nothing happens."""
    changes.apply("app", path, b"ours")
    path.write_bytes(b"ours and theirs")
    with pytest.raises(BalancerError, match=r"was changed by another program since.*app\.before"):
        changes.undo("app", changes.record("app"))
    assert path.read_bytes() == b"ours and theirs"
    told = changes.undo("app", changes.record("app"), lambda now: now.removeprefix(b"ours and "))
    assert "only what copilot-balancer wrote is removed" in told
    assert path.read_bytes() == b"theirs"
    assert changes.record("app") is None


def test_the_file_is_gone(changes, path):
    """A file that somebody deleted since is not made again."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    changes.apply("app", path, b"new")
    path.unlink()
    assert "gone already" in changes.undo("app", changes.record("app"))
    assert not path.exists()


def test_a_folder_that_is_used_since_stays(changes, path):
    """A folder that was made for our file stays when something else stands in it by then."""
    changes.apply("app", path, b"new")
    (path.parent / "theirs").write_text("x")
    changes.undo("app", changes.record("app"))
    assert [entry.name for entry in path.parent.iterdir()] == ["theirs"]


@pytest.mark.parametrize("undoing", [False, True])
def test_what_cannot_be_written(changes, path, monkeypatch, undoing):
    """A disk that refuses is one sentence: nothing was changed, nothing is left behind."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    if undoing:
        changes.apply("app", path, b"new")

    def full(_handle):
        raise OSError(28, "No space left on device")

    real = os.fsync
    monkeypatch.setattr(
        client_files.os,
        "fsync",
        lambda handle: full(handle) if "theirs" in os.readlink(f"/proc/self/fd/{handle}") else real(handle),
    )
    with pytest.raises(BalancerError, match=r"file\.json cannot be written: No space left on device"):
        changes.undo("app", changes.record("app")) if undoing else changes.apply("app", path, b"new")
    assert path.read_bytes() == (b"new" if undoing else b"old")
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    assert (changes.record("app") is not None) is undoing


def test_a_file_of_another_user(changes, path, monkeypatch):
    """A file that belongs to somebody else is left alone: replaced, it would be ours."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    real = os.geteuid()
    monkeypatch.setattr(
        client_files.os,
        "geteuid",
        lambda: real + 1 if changes.folder.exists() and (changes.folder / "app.json").exists() else real,
    )
    with pytest.raises(BalancerError, match="it belongs to another user"):
        changes.apply("app", path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"path": 1}'])
def test_a_record_that_somebody_edited(changes, path, content):
    """What is kept of a change is not guessed at when it is not as it was written."""
    changes.apply("app", path, b"new")
    (changes.folder / "app.json").write_text(content)
    with pytest.raises(BalancerError, match="undo the change by hand"):
        changes.record("app")


def test_the_folder_of_records_must_be_ours(changes, path):
    """A folder, or a record, that others may use is refused, and nothing is changed."""
    changes.apply("app", path, b"new")
    changes.folder.chmod(0o755)
    with pytest.raises(BalancerError, match="chmod 700"):
        changes.record("app")
    with pytest.raises(BalancerError, match="chmod 700"):
        changes.apply("app", path, b"newer")
    changes.folder.chmod(0o700)
    (changes.folder / "app.json").chmod(0o644)
    with pytest.raises(BalancerError, match="chmod 600"):
        changes.record("app")
    assert path.read_bytes() == b"new"


def test_the_folder_of_records_cannot_be_made(path, tmp_path):
    """Without a place to keep what stood there nothing is changed."""
    (tmp_path / "ours").write_text("a file")
    with pytest.raises(BalancerError, match="Remedy"):
        Changes(tmp_path / "ours" / "setup").apply("app", path, b"new")
    assert not path.exists()


def test_the_folder_of_records_is_removed_meanwhile(changes, path, monkeypatch):
    """What cannot be kept is not replaced, even when somebody removes the place for it at just that moment."""
    monkeypatch.setattr(client_files, "make", lambda _folder: None)
    with pytest.raises(BalancerError, match="removed meanwhile"):
        changes.apply("app", path, b"new")
    assert not path.exists()
