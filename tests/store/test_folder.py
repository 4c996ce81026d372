"""The folder: files are read whole or refused, and replaced whole or not at all."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from copilot_balancer.store import folder as folder_module
from copilot_balancer.store.folder import KEEPERS, MAX_BYTES, Folder, Refusal, make, opened, replace_file
from support.faults import Faults

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes as POSIX has them")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "folder"


@pytest.fixture
def folder(path: Path):
    assert make(path) is None
    with opened(path) as folder:
        assert isinstance(folder, Folder)
        yield folder


def why(answer: object) -> str:
    assert isinstance(answer, Refusal)
    return answer.why


def pretend(monkeypatch: pytest.MonkeyPatch, kind: Callable[[int], bool], field: int, value: int, times: int = 10**6):
    """Let fstat of everything of a kind say another value, so many times; return how often it still would."""
    real, left = os.fstat, [times]

    def fstat(handle: int) -> os.stat_result:
        facts = list(real(handle))
        if kind(facts[stat.ST_MODE]) and left[0]:
            left[0] -= 1
            facts[field] = value
        return os.stat_result(facts)

    monkeypatch.setattr(os, "fstat", fstat)
    return left


# --- the folder itself ------------------------------------------------------------------------------------------------


def test_no_folder_is_none(path):
    """A folder that is not there is None, and is not made by looking."""
    with opened(path) as folder:
        assert folder is None
    assert not path.exists()


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777], ids="{:03o}".format)
def test_all_is_for_the_owner_alone(path, mask):
    """Whatever the umask, each folder that is made is 0700 and each file 0600."""
    old = os.umask(mask)
    try:
        assert make(path) is None
        with opened(path) as folder:
            assert folder.tidy(["x"]) is None
            assert folder.put("x", b"1") is None
    finally:
        os.umask(old)

    modes = {found: stat.S_IMODE(found.stat().st_mode) for found in (path.parent, *path.parent.rglob("*"))}
    assert modes == {found: 0o700 if found.is_dir() else 0o600 for found in modes}
    assert len(modes) == 5


def test_a_folder_that_is_there_stays_as_it_is(path):
    """Making a folder that exists changes nothing, its mode included."""
    path.mkdir(parents=True, mode=0o755)
    path.chmod(0o755)

    assert make(path) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    with opened(path) as folder:
        assert why(folder) == f"others may use it (owner {os.geteuid()}, mode 0755)"
        assert folder.remedy == f"chmod 700 {path}"


def test_two_programs_make_the_folder(path, monkeypatch):
    """Two programs that make the folder at once do not trip over each other."""
    path.parent.mkdir()
    missing = [path.parent, path]
    monkeypatch.setattr(os.path, "lexists", lambda asked: asked not in missing)

    assert make(path) is None
    assert path.is_dir()


def test_a_foreign_folder_is_refused(path, monkeypatch):
    """A folder of another user is refused, with owner, mode and remedy."""
    make(path)
    us = os.geteuid()
    pretend(monkeypatch, stat.S_ISDIR, stat.ST_UID, us + 1)

    with opened(path) as folder:
        assert why(folder) == f"it belongs to another user (owner {us + 1}, mode 0700; we are {us})"
        assert folder.remedy == f"chown {us} {path}"


def test_what_is_no_folder_is_refused(path):
    """A file, or a link to a folder, is not opened."""
    make(path)
    (path / "file").write_text("")
    (path / "link").symlink_to(path)

    for name in ("file", "link"):
        with opened(path / name) as folder:
            assert why(folder) == "it is no folder, or a symbolic link to one"


@pytest.mark.parametrize(("function", "doing"), [("mkdir", "making it"), ("open", "opening it")])
def test_a_folder_that_fails(path, monkeypatch, function, doing):
    """What the system says when the folder is made or opened is told."""
    Faults(monkeypatch, function, errno.EACCES)

    answer = make(path)
    if answer is None:
        with opened(path) as answer:
            pass

    assert why(answer) == f"{doing} failed (Permission denied)"
    assert answer.remedy == "look at owner and mode of the file and of the folders above it"


def test_the_way_of_the_folder_does_not_matter(folder, path):
    """A folder that is moved while it is open is still the one that is written: nobody puts another beneath a write."""
    path.rename(path.parent / "moved")
    path.mkdir()

    assert folder.put("x", b"1") is None
    assert list(path.iterdir()) == []
    assert (path.parent / "moved" / "x").read_bytes() == b"1"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_refusal_is_told(path):
    """What a user is told names the file, safe to be shown, the reason and the remedy."""
    told = Refusal("it is no file", "move it away").of(path / "x\n")

    assert told == f"{path}/x\\n: it is no file. Remedy: move it away"


def test_the_facts_of_a_file(folder, path):
    """A file's facts are its own: of a link its, of what is not there none."""
    assert folder.facts("x") is None
    folder.put("x", b"12")
    assert folder.facts("x").st_size == 2
    (path / "link").symlink_to("nowhere")
    assert stat.S_ISLNK(folder.facts("link").st_mode)


def test_what_was_put_is_read(folder):
    """A file reads as it was put, none is None, and an empty one is not none."""
    assert folder.read("x") is None
    for raw in (b"one", b"", b"\r\n\x00\xff", os.urandom(MAX_BYTES)):
        assert folder.put("x", raw) is None
        assert folder.read("x") == raw


UNFIT: list[tuple[str, Callable[[Path], object], str]] = [
    ("symbolic link", lambda x: x.symlink_to("target"), "it is a symbolic link"),
    ("hard link", lambda x: (x.write_text(""), os.link(x, x.parent / "other")), "it has 2 names (hard links)"),
    ("pipe", os.mkfifo, "it is not a regular file"),
    ("folder", Path.mkdir, "it is not a regular file"),
    (
        "a byte too large",
        lambda x: (x.write_text(""), os.truncate(x, MAX_BYTES + 1)),
        f"it is larger than {MAX_BYTES} bytes",
    ),
    (
        "open to the group",
        lambda x: (x.write_text(""), x.chmod(0o640)),
        f"others may use it (owner {os.geteuid()}, mode 0640)",
    ),
]


@pytest.mark.parametrize(("spoil", "reason"), [case[1:] for case in UNFIT], ids=[case[0] for case in UNFIT])
def test_what_is_not_ours_is_refused(folder, path, spoil, reason):
    """Nothing is read but a regular file of one name, of ours alone and of bounded size."""
    spoil(path / "x")

    answer = folder.read("x")

    assert why(answer) == reason
    assert answer.movable


def test_a_foreign_file_is_refused(folder, monkeypatch):
    """A file of another user is not read."""
    folder.put("x", b"1")
    pretend(monkeypatch, stat.S_ISREG, stat.ST_UID, os.geteuid() + 1)

    assert "it belongs to another user" in why(folder.read("x"))


def test_a_replaced_file_is_read_again(folder, monkeypatch):
    """A reader that opened the old file just before it was replaced reads the new one; it does not try for ever."""
    folder.put("x", b"1")
    left = pretend(monkeypatch, stat.S_ISREG, stat.ST_NLINK, 0, times=3)

    assert folder.read("x") == b"1"
    assert left == [0]
    left[0] = 10**6
    answer = folder.read("x")
    assert why(answer) == "it is being replaced all the time"
    assert not answer.movable


def test_a_file_that_grows_is_not_read_without_bound(folder, monkeypatch):
    """A file that is larger than it said is refused after the bound."""
    folder.put("x", b"1")
    monkeypatch.setattr(os, "read", lambda handle, size: b" " * min(size, 65536))

    assert why(folder.read("x")) == "it is larger than 4194304 bytes"


def test_a_file_comes_in_pieces(folder, monkeypatch):
    """A read that returns less than asked for is continued."""
    folder.put("x", b"0123456789")
    real = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: real(handle, min(size, 3)))

    assert folder.read("x") == b"0123456789"


@pytest.mark.parametrize(
    ("function", "doing"), [("open", "opening it"), ("read", "reading it"), ("fstat", "reading it")]
)
def test_a_read_that_fails_says_so(folder, monkeypatch, function, doing):
    """A disk that cannot be read does not make a file look broken: it is not to be set aside."""
    folder.put("x", b"1")
    Faults(monkeypatch, function, errno.EIO)

    answer = folder.read("x")

    assert answer == Refusal(f"{doing} failed (Input/output error)", "look at the health of the disk", movable=False)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_the_order_of_a_write(folder, path, monkeypatch):
    """Mode before content, content on disk before its name, the name on disk before `put` returns."""
    calls: list[str] = []
    names: dict[int, str] = {folder.handle: "folder"}
    real = {name: getattr(os, name) for name in ("open", "fchmod", "write", "fsync", "close", "replace")}

    def recording(name: str) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            result = real[name](*args, **more)
            if name == "open":
                names[result] = str(args[0])
                told = [names[result], f"{args[1] & (os.O_EXCL | os.O_NOFOLLOW | os.O_CREAT):o}", f"{args[2]:o}"]
            else:
                told = [str(names.get(args[0], args[0])), *map(str, args[1:] if name == "replace" else ())]
            calls.append(" ".join([name, *told]))
            return result

        return call

    for name in real:
        monkeypatch.setattr(os, name, recording(name))
    assert folder.put("x", b"1") is None

    assert calls == [
        f"open x.new {os.O_EXCL | os.O_NOFOLLOW | os.O_CREAT:o} 600",
        "fchmod x.new",
        "write x.new",
        "fsync x.new",
        "close x.new",
        "replace x.new x",
        "fsync folder",
    ]


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS], ids=errno.errorcode.get
)
@pytest.mark.parametrize(
    ("function", "nth", "stands"),
    [
        ("open", 0, b"old"),
        ("fchmod", 0, b"old"),
        ("write", 0, b"old"),
        ("fsync", 0, b"old"),
        ("close", 0, b"old"),
        ("replace", 0, b"old"),
        ("fsync", 1, b"new"),
    ],
    ids=["open", "fchmod", "write", "fsync", "close", "replace", "fsync of the folder"],
)
def test_a_write_that_fails(folder, monkeypatch, function, nth, stands, code):
    """Whichever step fails, the old file stands whole, or after its replacement the new one; no temporary file is left."""
    folder.put("x", b"old")
    faults = Faults(monkeypatch, function, code, nth)

    answer = folder.put("x", b"new")

    faults.undo()
    assert f"failed ({os.strerror(code)})" in why(answer)
    assert folder.read("x") == stands
    assert folder.read("x.new") is None
    assert not answer.movable


def test_no_other_file_is_written_through(folder, path):
    """What stands at the temporary name, were it only a link, stops the write; `tidy` removes it and not its target."""
    folder.put("victim", b"precious")
    for place in (lambda: (path / "x.new").symlink_to("victim"), lambda: os.link(path / "victim", path / "x.new")):
        place()
        assert why(folder.put("x", b"1")) == "writing it failed (File exists)"
        place()
        assert folder.tidy(["x"]) is None
        assert not os.path.lexists(path / "x.new")
        assert folder.read("victim") == b"precious"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_short_writes_are_continued(folder, monkeypatch, size):
    """A write that takes only some of the bytes is followed by the rest."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data[:size])))

    assert folder.put("x", b"0123456789" * 5) is None
    assert folder.read("x") == b"0123456789" * 5


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "COPILOT_BALANCER_HOME"), (errno.EMFILE, "try again")],
    ids=["full", "read-only", "no handle"],
)
def test_a_failing_disk_has_its_remedy(folder, monkeypatch, code, remedy):
    """What the system said comes with what to do about it."""
    Faults(monkeypatch, "write", code)

    assert remedy in folder.put("x", b"1").remedy


def test_a_folder_that_cannot_be_synced(folder, monkeypatch):
    """A file system without fsync of folders (EINVAL) is served all the same."""
    Faults(monkeypatch, "fsync", errno.EINVAL, 1)  # the second is the folder's

    assert folder.put("x", b"1") is None


def test_the_keepers_are_written_once(folder, path):
    """Tidying puts .gitignore and the backup tag there when they are missing, and leaves alone what is there."""
    (path / ".gitignore").symlink_to(path / "victim")

    assert folder.tidy([]) is None
    assert folder.tidy([]) is None

    assert sorted(found.name for found in path.iterdir()) == sorted(KEEPERS)
    assert folder.read("CACHEDIR.TAG") == KEEPERS["CACHEDIR.TAG"]
    assert KEEPERS[".gitignore"] == b"*\n"


def test_tidying_that_fails_says_so(folder, path, monkeypatch):
    """What cannot be removed or written is told, before anything else is changed."""
    (path / "x.new").mkdir()
    assert why(folder.tidy(["x"])).startswith("removing what a killed writer left (*.new) failed")

    Faults(monkeypatch, "write", errno.ENOSPC)
    assert why(folder.tidy([])) == "writing it failed (No space left on device)"


# --- setting aside ----------------------------------------------------------------------------------------------------


def test_three_are_kept_aside(folder, path):
    """Each file set aside gets mode 0600 and a name of its own; the newest three are kept."""
    names = []
    for number in range(5):
        (path / "x").write_text(str(number))
        (path / "x").chmod(0o666)
        names.append(folder.set_aside("x"))

    assert sorted(found.name for found in path.iterdir()) == names[-3:]
    assert [folder.read(name) for name in names[-3:]] == [b"2", b"3", b"4"]
    assert folder.read("x") is None


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe", "folder"])
def test_only_the_name_of_a_link_is_ours(folder, path, tmp_path, kind):
    """Setting aside what is no file of ours renames it; its target keeps content and mode."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    placing = {
        "symbolic link": lambda x: x.symlink_to(victim),
        "hard link": lambda x: os.link(victim, x),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
    }

    for _ in range(5):
        placing[kind](path / "x")
        assert isinstance(folder.set_aside("x"), str)

    assert not os.path.lexists(path / "x")
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_setting_aside_that_fails(folder, path, monkeypatch, function):
    """Setting aside that fails is told; the file is there under one name or the other."""
    folder.put("x", b"1")
    Faults(monkeypatch, function, errno.EIO)

    assert "failed (Input/output error)" in why(folder.set_aside("x"))
    assert [found.read_bytes() for found in path.iterdir()] == [b"1"]


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_without_owners_and_modes(path, monkeypatch):
    """Where there are no POSIX modes everything else works, by whole paths."""
    monkeypatch.setattr(folder_module, "_POSIX", False)
    with opened(path) as folder:
        assert folder is None
    assert make(path) is None

    with opened(path) as folder:
        assert folder.handle is None
        assert folder.tidy(["x"]) is None
        assert folder.put("x", b"1") is None
        (path / "x").chmod(0o666)
        assert folder.read("x") == b"1"
        assert folder.put("x", b"2") is None
        assert isinstance(folder.set_aside("x"), str)
        assert sorted(found.name[:12] for found in path.iterdir()) == [".gitignore", "CACHEDIR.TAG", "x.corrupt-20"]


# --- a file of another program ----------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path):
    """Folders that are missing are made; the file has the mode asked for, whatever the umask; nothing stays beside."""
    path, old = tmp_path / "a" / "b" / "settings.json", os.umask(0o077)
    try:
        replace_file(path, b"one", 0o644)
        replace_file(path, b"two", 0o640)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"two"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path):
    """The next write takes its place."""
    path = tmp_path / "settings.json"
    (tmp_path / ".settings.json.copilot-balancer").write_bytes(b"half")
    replace_file(path, b"whole")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(path.name, b"whole")]


def test_a_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    """On a full disk the old file is as it was, and nothing stays beside it."""
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")
    Faults(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(path.name, b"old")]
