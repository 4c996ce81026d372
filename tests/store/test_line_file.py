"""Lines that are appended: whole or not at all, each on a line of its own, and to a file of ours alone."""

import os

import pytest

from copilot_balancer.store.folder import Refusal, append, missing_end, unfit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.jsonl"


@pytest.fixture
def handle(path):
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    yield handle
    os.close(handle)


@pytest.mark.parametrize(
    ("left", "missing"),
    [
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"one\n", b"", id="whole"),
        pytest.param(b"one\nhal", b"\n", id="cut"),
    ],
)
def test_after_a_program_that_was_killed(path, handle, left, missing):
    """Only a line that was cut lacks its end; what is appended stands behind it."""
    path.write_bytes(left)

    assert missing_end(handle, len(left)) == missing
    append(handle, len(left), missing + b"two\n")
    assert path.read_bytes() == left + missing + b"two\n"


def test_a_write_in_pieces(path, handle, monkeypatch):
    """A system that takes little at a time gets all of it."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, raw: real(handle, bytes(raw)[:3]))

    append(handle, 0, bytearray(b"a line\n"))
    append(handle, 7, b"")
    assert path.read_bytes() == b"a line\n"


def test_a_write_that_fails(path, handle, monkeypatch):
    """A write that fails in the middle leaves the file as it was."""
    path.write_bytes(b"one\n")
    real, calls = os.write, []

    def half(handle, raw):
        calls.append(len(raw))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, bytes(raw)[:3])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        append(handle, 4, b"two and three\n")
    assert path.read_bytes() == b"one\n"


def other_name(path):
    path.touch()
    os.link(path, path.with_name("other"))


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.symlink_to("/etc/hostname"), id="symbolic link"),
        pytest.param(other_name, id="hard link"),
        pytest.param(os.mkfifo, id="pipe"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
    ],
)
def test_what_is_no_file_of_ours(path, spoil):
    """Nothing is appended to what is no regular file, or has another name."""
    spoil(path)

    assert unfit(path.lstat()) == Refusal("it is not a regular file with one name", "move it away")


def test_what_is_one(path):
    """A plain file may grow."""
    path.touch()

    assert unfit(path.lstat()) is None
