"""The store: whatever happens to it, the old or the new file stands whole, and its tokens stay in it."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.rules import edits
from copilot_balancer.rules import state as memory_module
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.catalogue import Catalogue, Shelf
from copilot_balancer.rules.ownership import MAX_HASHES, Owned, Ownership
from copilot_balancer.rules.state import AccountState, Affinity, Cooldown, Memory, ModelFact
from copilot_balancer.store import store as store_module
from copilot_balancer.store.folder import MAX_BYTES, Refusal
from copilot_balancer.store.store import ACCOUNTS, OWNERS, STATE, Format, Store, paths
from support.faults import Faults

TOKEN = "gho_CanaryCanaryCanaryCanaryCanary123456"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners, modes and signals as POSIX has them")


def account(number: int = 1, label: str = "work", **more: object) -> Account:
    return Account(id=f"github.com:{number}", label=label, token=TOKEN, **more)


ONE = Decisions(accounts=(account(),))
TWO = Decisions(accounts=(account(), account(2, "home")))
LEARNT = Memory(
    accounts={
        "github.com:1": AccountState(
            credential="0123456789ab",
            rejected_at=5.0,
            cooldowns=[Cooldown(1.0, 2.5, "limit", model="gpt-5", told_until=9.0)],
            ended_by_success={"": 3.0},
            backoff={"": (2, 4.0)},
            faults=[1.0, 2.0],
            models={"gpt-5": ModelFact(has=False, until=7.0, began=1.0, times=2)},
            quota={"premium": QuotaWindow(12.5, resets_at=99.0)},
            served=3,
        )
    },
    conversations={"abc": Affinity("github.com:1", 8.0)},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


@pytest.fixture
def umask():
    old = os.umask(0o022)
    yield os.umask
    os.umask(old)


def keep(value: Decisions) -> Callable[[Decisions], Decisions]:
    return lambda _: value


def temps(store: Store) -> list[str]:
    return [name for name in os.listdir(store.folder) if name.endswith(".new")]


# --- where, and the plain way -----------------------------------------------------------------------------------------


def test_home_moves_all(tmp_path, monkeypatch):
    """COPILOT_BALANCER_HOME moves every folder, also when it is relative or begins with a tilde."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))

    for home, folder in [("/srv/x", Path("/srv/x")), ("y", tmp_path / "y"), ("~/z", tmp_path / "me" / "z")]:
        found = paths({"COPILOT_BALANCER_HOME": home})
        assert found == store_module.Paths(state=folder / "state", config=folder / "config")


@pytest.mark.parametrize("environ", [{}, {"COPILOT_BALANCER_HOME": ""}], ids=["unset", "empty"])
def test_without_home_the_user_folders(environ):
    """Without COPILOT_BALANCER_HOME secrets stand in the state folder, settings in the config folder."""
    found = paths(environ)

    assert found.state != found.config
    assert found.state.name == found.config.name == "copilot-balancer"


def test_missing_is_empty(store):
    """A missing file is the empty value, and reading makes nothing."""
    assert store.read_decisions() == Decisions()
    assert store.read_memory() == Memory()
    assert store.stamp() is None
    assert not store.folder.exists()

    store.folder.mkdir(mode=0o700)

    assert store.read_decisions() == Decisions()
    assert store.read_memory() == Memory()
    assert list(store.folder.iterdir()) == []


def test_what_was_written_is_read(store):
    """What one store wrote another one reads, tokens included."""
    returned = store.edit_decisions(keep(TWO))

    found = Store(store.folder).read_decisions()
    assert returned == found == TWO
    assert found.accounts[0].token.get_secret_value() == TOKEN


def test_a_file_begins_with_its_note(store):
    """Both files begin with a note for who finds them, and with their schema version."""
    store.edit_decisions(keep(ONE))
    store.merge_memory(LEARNT)

    for path, word in [(store.accounts_path, "do not share"), (store.state_path, "may be lost")]:
        content = json.loads(path.read_text())
        assert list(content)[:2] == ["_", "version"]
        assert word in content["_"]
        assert content["version"] == 1


def test_an_equal_value_is_not_written(store):
    """A change that changes nothing leaves the very same file."""
    store.edit_decisions(keep(ONE))
    merged = store.merge_memory(LEARNT)
    before = store.stamp(), store.state_path.stat()

    assert store.edit_decisions(lambda decisions: decisions.model_copy()) == ONE
    assert store.merge_memory(Memory()) == merged
    assert (store.stamp(), store.state_path.stat()) == before


def test_stamp_sees_each_change(store):
    """The stamp is another one after each change of accounts.json, and only then."""
    seen = set()
    for number in range(5):
        store.edit_decisions(lambda old, n=number: old.with_account(account(n, f"a{n}")))
        store.merge_memory(Memory(conversations={str(number): Affinity("x", 1.0)}))
        seen.add(store.stamp())
        assert store.stamp() in seen

    assert len(seen) == 5


def test_stamp_of_what_cannot_be_looked_at(tmp_path):
    """Where the folder is a file, the stamp is a StoreError."""
    (tmp_path / "state").write_text("")

    with pytest.raises(StoreError, match="looking at it failed"):
        Store(tmp_path / "state").stamp()


def test_the_folder_stays_out_of_repositories_and_backups(store):
    """Beside the files stand a .gitignore for everything and a tag that backup programs know."""
    store.edit_decisions(keep(ONE))

    assert (store.folder / ".gitignore").read_text() == "*\n"
    assert (store.folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert {path.name for path in store.folder.iterdir()} == {
        ".gitignore",
        "CACHEDIR.TAG",
        "accounts.json",
        "store.lock",
    }


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids="{:03o}".format)
def test_modes_under_any_umask(tmp_path, umask, mask):
    """Files are 0600 and every folder that we make is 0700, whatever the umask."""
    store = Store(tmp_path / "made" / "by us" / "state")
    umask(mask)
    store.edit_decisions(keep(ONE))
    store.merge_memory(LEARNT)
    store.edit_decisions(keep(TWO))
    store.state_path.write_bytes(b"{")
    store.set_aside_memory()
    umask(0o022)

    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "made", *(tmp_path / "made").rglob("*"))}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}
    assert len(modes) == 8
    assert store.read_decisions() == TWO


# --- what is refused --------------------------------------------------------------------------------------------------


def content(**more: object) -> str:
    document = json.loads(ACCOUNTS.dump(TWO))
    return json.dumps(document | more)


def with_account(**more: object) -> str:
    document = json.loads(ACCOUNTS.dump(TWO))
    document["accounts"][1] |= more
    return json.dumps(document)


TAMPERED_TEXT = {
    "empty": "",
    "blank": " \n",
    "garbage": f"\x00\x01{TOKEN}\xff",
    "not UTF-8": b'{"version": 1, "_": "\xff\xfe"}',
    "byte order mark": b"\xef\xbb\xbf" + content().encode(),
    "UTF-16": content().encode("utf-16"),
    "cut short": content()[:-20],
    "two documents": content() + content(),
    "a list": "[1]",
    "a text": '"version"',
    "nested deeply": "[" * 200_000 + "]" * 200_000,
    "nested deeply inside": content(home_id=json.loads("[" * 400 + "]" * 400)),
    "a key twice": f'{{"version": 1, "home_id": null, "home_id": "{TOKEN}"}}',
    "no version": "{}",
    "version as text": content(version="1"),
    "version true": content(version=True),
    "version 0": content(version=0),
    "newer version": content(version=3, invented=TOKEN),
    "NaN": content(terms_accepted_at=float("nan")),
    "Infinity": content(terms_accepted_at=float("inf")),
    "number too large": content(terms_accepted_at=0.0).replace(
        '"terms_accepted_at": 0.0', '"terms_accepted_at": 1e999'
    ),
    "5000 digits": content(terms_accepted_at=0.0).replace(
        '"terms_accepted_at": 0.0', '"terms_accepted_at": ' + "9" * 5000
    ),
    "lone surrogate": content(home_id="\ud800"),
    "unknown key": content(**{TOKEN: TOKEN}),
    "wrong type": content(balancing=TOKEN),
    "key in a map": content(removed={TOKEN: "x"}),
    "duplicate label": with_account(label="work"),
    "duplicate id": with_account(id="github.com:1"),
    "label not normalised": with_account(label=TOKEN),
    "label as terminal code": with_account(label="\x1b[31m"),
    "unknown key of an account": with_account(**{TOKEN: 1}),
    "foreign API host": with_account(api_host="api.githubcopilot.com.evil.test"),
    "token with a line break": with_account(token=TOKEN + "\r\nX: y"),
    "token missing": with_account(token=None),
}


def as_text(text: str | bytes) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return tamper


def as_symlink(path: Path) -> None:
    path.rename(path.parent.parent / "victim")
    path.symlink_to("../victim")


def as_dangling_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("../nothing")


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def as_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    path.chmod(0o600)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


TAMPERED_FILE: dict[str, Callable[[Path], object]] = {
    **{name: as_text(text) for name, text in TAMPERED_TEXT.items()},
    "symbolic link": as_symlink,
    "dangling link": as_dangling_symlink,
    "hard link": lambda path: os.link(path, path.parent.parent / "victim"),
    "pipe": as_fifo,
    "socket": as_socket,
    "folder": as_folder,
    "mode 644": lambda path: path.chmod(0o644),
    "mode 620": lambda path: path.chmod(0o620),
    "mode 601": lambda path: path.chmod(0o601),
    "5 GB": lambda path: os.truncate(path, 5 * 1024**3),
    "a byte too large": lambda path: path.write_bytes(b" " * (MAX_BYTES + 1)),
}


def look(path: Path) -> list[object]:
    """Everything about a path but its access time; the content only where it can be read without harm."""
    facts = path.lstat()
    seen: list[object] = [facts.st_mode, facts.st_uid, facts.st_ino, facts.st_nlink, facts.st_size, facts.st_mtime_ns]
    if stat.S_ISLNK(facts.st_mode):
        seen.append(os.readlink(path))
    elif stat.S_ISREG(facts.st_mode) and facts.st_size < 10**7:
        seen.append(path.read_bytes())
    return seen


def everything_that_fails(store: Store) -> list[StoreError]:
    errors = []
    for act in (store.read_decisions, lambda: store.edit_decisions(keep(TWO)), lambda: store.edit_decisions(keep(ONE))):
        with pytest.raises(StoreError) as caught:
            act()
        errors.append(caught.value)
    return errors


@pytest.mark.parametrize("tamper", TAMPERED_FILE.values(), ids=TAMPERED_FILE)
def test_a_tampered_file_is_refused(store, tamper):
    """A file that is not as we wrote it is refused with path and remedy, for reading and writing, and stays as it is."""
    store.edit_decisions(keep(TWO))
    tamper(store.accounts_path)
    victim = store.folder.parent / "victim"
    there = [path for path in (store.accounts_path, victim) if os.path.lexists(path)]
    before = [look(path) for path in there]

    for error in everything_that_fails(store):
        assert str(error).startswith(f"{store.accounts_path}: ")
        assert ". Remedy: " in str(error)
        assert TOKEN not in str(error)
        assert str(error).isprintable()
        frames = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert TOKEN not in "".join(frames.format())

    assert [look(path) for path in there] == before
    assert temps(store) == []
    assert store.read_memory() == Memory()


def test_the_table_is_long_enough():
    """At least 17 ways to tamper are tried."""
    assert len(TAMPERED_FILE) >= 17


REMEDIES = [
    ("mode 644", "mode 0644", "chmod 600 "),
    ("newer version", "a newer copilot-balancer wrote it; this one knows version 2", "upgrade"),
    ("symbolic link", "symbolic link", "put the file itself"),
    ("hard link", "2 names", "remove the other names"),
    ("pipe", "not a regular file", "move it away"),
    ("empty", "it is empty", "restore it"),
    ("cut short", "it is not JSON (line ", "restore it"),
    ("unknown key", "?: Extra inputs are not permitted", "restore it"),
    ("label not normalised", "accounts.1.label: is not allowed", "restore it"),
    ("duplicate label", "the whole: is not allowed", "restore it"),
    ("wrong type", "balancing: Input should be a valid boolean", "restore it"),
    ("key in a map", "removed.?: Input should be a valid number", "restore it"),
]


@pytest.mark.parametrize(("case", "why", "remedy"), REMEDIES, ids=[case for case, _, _ in REMEDIES])
def test_a_refusal_says_why_and_what_to_do(store, case, why, remedy):
    """The sentence names what is wrong and what to do, never what stands in the file."""
    store.edit_decisions(keep(TWO))
    TAMPERED_FILE[case](store.accounts_path)

    with pytest.raises(StoreError) as caught:
        store.read_decisions()

    assert why in str(caught.value)
    assert remedy in str(caught.value).split("Remedy: ")[1]


def foreign(monkeypatch, kind: Callable[[int], bool]) -> None:
    """Let everything of one kind seem to belong to somebody else."""
    real = os.fstat

    def fstat(handle: int) -> os.stat_result:
        facts = list(real(handle))
        if kind(facts[stat.ST_MODE]):
            facts[stat.ST_UID] += 1
        return os.stat_result(facts)

    monkeypatch.setattr(os, "fstat", fstat)


@pytest.mark.parametrize("kind", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "folder"])
def test_a_foreign_owner_is_refused(store, monkeypatch, kind):
    """What belongs to another user is refused, naming owner, mode and remedy."""
    store.edit_decisions(keep(ONE))
    before = look(store.accounts_path)
    foreign(monkeypatch, kind)
    path, mode = (store.accounts_path, "0600") if kind is stat.S_ISREG else (store.folder, "0700")
    us = os.geteuid()

    for error in everything_that_fails(store):
        assert str(error) == (
            f"{path}: it belongs to another user (owner {us + 1}, mode {mode}; we are {us}). Remedy: chown {us} {path}"
        )

    assert look(store.accounts_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_was_given_away_is_refused(store):
    """A file of another user is refused, also for root."""
    store.edit_decisions(keep(ONE))
    os.chown(store.accounts_path, 65534, 65534)

    for error in everything_that_fails(store):
        assert "it belongs to another user (owner 65534" in str(error)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777], ids="{:o}".format)
def test_an_open_folder_is_refused(store, mode):
    """A folder that others may enter is refused, and not repaired in silence."""
    store.edit_decisions(keep(ONE))
    store.folder.chmod(mode)

    for error in everything_that_fails(store):
        assert str(error).startswith(f"{store.folder}: others may use it (owner {os.geteuid()}, mode 0{mode:o})")
        assert str(error).endswith(f"Remedy: chmod 700 {store.folder}")

    assert stat.S_IMODE(store.folder.stat().st_mode) == mode
    store.folder.chmod(0o700)
    assert store.read_decisions() == ONE


@pytest.mark.parametrize("kind", ["symbolic link", "file"])
def test_the_folder_is_a_folder(tmp_path, store, kind):
    """A link to a folder, or a file in its place, is refused; what the link leads to stays untouched."""
    store.edit_decisions(keep(ONE))
    before = look(store.accounts_path)
    other = Store(tmp_path / "other")
    other.folder.symlink_to(store.folder) if kind == "symbolic link" else other.folder.write_text("")

    for error in everything_that_fails(other):
        assert "it is no folder, or a symbolic link to one" in str(error)

    assert look(store.accounts_path) == before


def test_the_path_in_an_error_is_one_line(tmp_path):
    """A folder whose name holds control characters does not write to the terminal with them."""
    store = Store(tmp_path / "a\nb \x1b[31m")
    store.edit_decisions(keep(ONE))
    store.folder.chmod(0o755)

    with pytest.raises(StoreError) as caught:
        store.read_decisions()

    assert str(caught.value).isprintable()
    assert "[31m: others may use it" in str(caught.value)


@pytest.mark.parametrize("name", ["accounts.json.new", "state.json.new", ".gitignore.new", "CACHEDIR.TAG.new"])
@pytest.mark.parametrize("kind", ["file", "symbolic link", "hard link"])
def test_a_stale_temporary_file_goes(store, tmp_path, name, kind):
    """What a killed writer left is removed at the next edit, and never written through."""
    store.edit_decisions(keep(ONE))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    stale = store.folder / name
    {"file": lambda: stale.write_text(TOKEN), "symbolic link": lambda: stale.symlink_to(victim)}.get(
        kind, lambda: os.link(victim, stale)
    )()

    store.edit_decisions(keep(ONE))
    assert temps(store) == []
    store.edit_decisions(keep(TWO))
    assert store.read_decisions() == TWO
    assert victim.read_text() == "precious"


def test_a_folder_at_the_temporary_name(store):
    """What cannot be removed stops the edit before anything is changed."""
    store.edit_decisions(keep(ONE))
    (store.folder / "accounts.json.new").mkdir()

    with pytest.raises(StoreError, match="removing what a killed writer left"):
        store.edit_decisions(keep(TWO))

    assert store.read_decisions() == ONE


@pytest.mark.parametrize("kind", ["symbolic link", "folder"])
def test_the_lock_is_a_file_of_ours(store, tmp_path, kind):
    """A lock file that leads elsewhere is refused; the victim stays untouched."""
    store.folder.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    store.lock_path.symlink_to(victim) if kind == "symbolic link" else store.lock_path.mkdir()

    with pytest.raises(StoreError, match=r"store\.lock: locking it failed"):
        store.edit_decisions(keep(ONE))

    assert victim.read_text() == "precious"
    assert not store.accounts_path.exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "it is empty"),
        ('{"version": 1, "accounts": {"a": {"served": "x"}}}', "accounts.?.served: Input should be a valid integer"),
        ('{"version": 1, "accounts": {"a": {"served": "7"}}}', "accounts.?.served: Input should be a valid integer"),
        ('{"version": 1, "accounts": {"a": {"faults": [NaN]}}}', "it is not JSON as we write it"),
        ('{"version": 1, "accounts": {"a": {"more": 1}}}', "accounts.?.?: Unexpected keyword argument"),
        ('{"version": 1, "conversations": {"a": {"account_id": "x"}}}', "conversations.?.used_at: Field required"),
    ],
    ids=["empty", "wrong type", "number as text", "NaN", "unknown key", "missing key"],
)
def test_a_broken_memory_is_refused(store, text, place):
    """state.json is read as strictly as accounts.json, and never overwritten when it is broken."""
    store.merge_memory(LEARNT)
    store.state_path.write_text(text)

    for act in (store.read_memory, lambda: store.merge_memory(LEARNT)):
        with pytest.raises(StoreError) as caught:
            act()
        assert str(caught.value).startswith(f"{store.state_path}: ")
        assert place in str(caught.value)

    assert store.state_path.read_text() == text


# --- setting aside ----------------------------------------------------------------------------------------------------


def test_setting_aside_keeps_three(store):
    """An unreadable file gets another name with mode 0600; the newest three of them are kept, and a new file begins."""
    store.edit_decisions(keep(ONE))
    asides = []
    for number in range(5):
        store.state_path.write_bytes(b"broken %d" % number)
        store.state_path.chmod(0o644)
        asides.append(store.set_aside_memory())
        assert store.read_memory() == Memory()

    kept = sorted(path for path in store.folder.iterdir() if ".corrupt-" in path.name)
    assert kept == asides[-3:]
    assert [path.read_bytes() for path in kept] == [b"broken 2", b"broken 3", b"broken 4"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert store.merge_memory(LEARNT) == store.read_memory()
    assert store.read_decisions() == ONE


@pytest.mark.parametrize("there", [True, False], ids=["readable", "missing"])
def test_only_what_is_unreadable_is_set_aside(store, there):
    """A file that can be read stays: the program that asked was slower than the one that repaired it."""
    if there:
        store.edit_decisions(keep(ONE))
        store.merge_memory(LEARNT)

    assert store.set_aside_memory() is None
    assert store.accounts_path.exists() == store.state_path.exists() == there


def test_a_newer_file_is_never_set_aside(store):
    """What a newer version wrote is not broken: the older program leaves it where it is."""
    store.merge_memory(LEARNT)
    store.state_path.write_text('{"version": 2}')

    with pytest.raises(StoreError, match="a newer copilot-balancer wrote it"):
        store.set_aside_memory()

    assert store.state_path.read_text() == '{"version": 2}'


def test_a_link_is_set_aside_alone(store, tmp_path):
    """Setting a link aside leaves what it leads to, its mode included."""
    store.merge_memory(LEARNT)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "victim").chmod(0o644)
    store.state_path.unlink()
    store.state_path.symlink_to(tmp_path / "victim")

    assert store.set_aside_memory() is not None
    store.merge_memory(LEARNT)
    os.link(tmp_path / "victim", tmp_path / "linked")
    os.replace(tmp_path / "linked", store.state_path)
    assert store.set_aside_memory() is not None

    assert (tmp_path / "victim").read_text() == "precious"
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o644


@pytest.mark.parametrize("function", ["replace", "listdir", "fsync"])
def test_setting_aside_that_fails(store, monkeypatch, function):
    """Setting aside that fails is a StoreError; the broken file is under one name or the other."""
    store.edit_decisions(keep(ONE))
    store.state_path.write_text("broken")
    store.state_path.chmod(0o600)
    calls = Faults(monkeypatch, function, errno.EIO, nth=1 if function == "listdir" else 0)  # tidying lists first

    with pytest.raises(StoreError):
        store.set_aside_memory()

    calls.undo()
    assert [path.read_text() for path in store.folder.iterdir() if path.name.startswith("state.json")] == ["broken"]


# --- changes by several programs --------------------------------------------------------------------------------------


def test_a_removed_account_stays_removed(store):
    """A program that still holds a removed account does not bring it back; adding it anew does."""
    old = account(added_at=100.0)
    store.edit_decisions(keep(Decisions(accounts=(old, account(2, "home", added_at=100.0)))))
    stale = store.read_decisions()
    removed = store.edit_decisions(lambda decisions: decisions.without(old.id, 200.0))

    for change in (keep(stale), lambda decisions: decisions.with_account(old.model_copy(update={"plan": "pro"}))):
        with pytest.raises(StoreError, match=r"account github.com:1 was removed meanwhile"):
            store.edit_decisions(change)
        assert store.read_decisions() == removed

    again = account(added_at=201.0)
    assert store.edit_decisions(lambda decisions: decisions.with_account(again)).find("work") == again
    assert store.edit_decisions(lambda decisions: decisions.with_account(old)).find("work") == old


def test_a_change_that_fails_changes_nothing(store):
    """An exception of the change itself passes through, and the lock is free again."""
    store.edit_decisions(keep(ONE))

    with pytest.raises(ZeroDivisionError):
        store.edit_decisions(lambda decisions: 1 / 0)

    assert store.edit_decisions(keep(TWO)) == TWO


def test_memories_are_merged(store):
    """Two proxies' memories become one on disk, and each gets the whole back."""
    store.merge_memory(LEARNT)
    other = Memory(accounts={"github.com:2": AccountState(served=1)})

    merged = store.merge_memory(other)

    assert merged == store.read_memory() == memory_module.merge(LEARNT, other)
    assert set(merged.accounts) == {"github.com:1", "github.com:2"}


def test_no_secret_in_the_memory(store):
    """state.json holds no token, and neither does anybody's repr."""
    store.edit_decisions(keep(TWO))
    store.merge_memory(LEARNT)

    assert TOKEN in store.accounts_path.read_text()
    assert TOKEN not in store.state_path.read_text()
    assert repr(store) == f"Store({str(store.folder)!r})"
    assert TOKEN not in repr((store, store.read_decisions(), ACCOUNTS, STATE))


def fork(work: Callable[[], None]) -> int:
    """Let a child do `work`; it leaves with 0 only when that returns."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # a child must never return into pytest
        traceback.print_exc()
    finally:
        os._exit(code)


def add_marks(store: Store, who: str, count: int) -> None:
    for number in range(count):
        store.edit_decisions(
            lambda old, n=number: old.model_copy(update={"removed": {**old.removed, f"{who}{n}": float(n)}})
        )


def test_two_writers_lose_nothing(store):
    """Two processes of 200 edits each: all 400 stand."""
    children = [fork(lambda who=who: add_marks(store, who, 200)) for who in "ab"]

    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    assert set(store.read_decisions().removed) == {f"{who}{number}" for who in "ab" for number in range(200)}
    assert temps(store) == []


def test_two_threads_lose_nothing(store):
    """Two threads that share one Store exclude each other like two programs do."""
    threads = [threading.Thread(target=add_marks, args=(store, who, 30)) for who in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.read_decisions().removed) == 60


def test_a_reader_needs_no_lock(store):
    """While another process edits, each read is a whole file, and never an older one than the read before."""
    store.edit_decisions(keep(TWO))

    def count_up() -> None:
        for number in range(300):
            store.edit_decisions(lambda old, n=number: old.model_copy(update={"terms_accepted_at": float(n + 1)}))

    child = fork(count_up)
    seen = [0.0]
    while seen[-1] < 300:
        seen.append(store.read_decisions().terms_accepted_at or 0.0)
        assert seen[-2] <= seen[-1]
        if os.waitpid(child, os.WNOHANG)[0]:
            child = 0
            break

    if child:
        os.waitpid(child, 0)
    assert store.read_decisions().terms_accepted_at == 300.0


def test_a_held_lock_is_said(store):
    """When another program holds the lock for too long, that is said, and nothing changes."""
    store.edit_decisions(keep(ONE))
    other = Store(store.folder, lock_timeout=0.0)

    with store._locked(), pytest.raises(StoreBusy, match=r"held this lock for 0 s; nothing was changed"):
        other.edit_decisions(keep(TWO))

    assert store.read_decisions() == ONE
    assert other.edit_decisions(keep(TWO)) == TWO


@pytest.mark.parametrize("old", [True, False], ids=["filelock 3.20", "filelock 4"])
def test_no_lock_that_a_killed_process_leaves(store, monkeypatch, old):
    """Where the disk has no locks that is an error; a soft lock is never taken, in old and new filelock."""
    wishes = {}

    class Older:
        def __init__(self, path: Path, timeout: float, mode: int, thread_local: bool, poll_interval: float) -> None:
            wishes.update(mode=mode, thread_local=thread_local, timeout=timeout, poll_interval=poll_interval)

        def acquire(self) -> None:
            raise NotImplementedError

    class Newer(Older):
        def __init__(self, path: Path, fallback_to_soft: bool = True, **more: object) -> None:
            super().__init__(path, **more)
            wishes.update(fallback_to_soft=fallback_to_soft)

        def acquire(self) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("filelock.FileLock", Older if old else Newer)

    with pytest.raises(StoreError, match=r"store\.lock: locking it failed"):
        store.edit_decisions(keep(ONE))

    assert wishes == {"mode": 0o600, "thread_local": False, "timeout": 5.0, "poll_interval": 0.003} | (
        {} if old else {"fallback_to_soft": False}
    )


# --- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS], ids=errno.errorcode.get
)
@pytest.mark.parametrize(
    "function", ["open", "fchmod", "write", "fsync", "replace", "mkdir", "chmod", "read", "unlink"]
)
@pytest.mark.parametrize("first", [True, False], ids=["first edit", "later edit"])
def test_any_call_may_fail(tmp_path, monkeypatch, function, code, first):
    """Whichever call fails, and however, the old or the new file stands whole and the next edit leaves no temp."""
    old = Decisions() if first else ONE
    for nth in itertools.count():
        store = Store(tmp_path / str(nth) / "state")
        if not first:
            store.edit_decisions(keep(ONE))
        faults = Faults(monkeypatch, function, code, nth)
        try:
            store.edit_decisions(keep(TWO))
        except StoreError as error:
            done = {"old", "new"}
            assert TOKEN not in "".join(
                traceback.TracebackException.from_exception(error, capture_locals=True).format()
            )
            assert "Remedy: " in str(error)
        else:
            done = {"new"}
        faults.undo()

        assert store.read_decisions() in [value for name, value in [("old", old), ("new", TWO)] if name in done]
        assert store.edit_decisions(keep(TWO)) == TWO
        assert temps(store) == []
        if not faults.hit:
            break

    assert nth >= (0 if function in {"mkdir", "chmod", "unlink", "read", "fchmod"} else 1)


def test_the_folder_may_vanish(store, monkeypatch):
    """A folder that is removed between two steps is an error, not an empty store."""
    monkeypatch.setattr(store_module, "make", lambda path: None)

    with pytest.raises(StoreError, match="removed meanwhile"):
        store.edit_decisions(keep(ONE))


def test_what_could_not_be_read_back_is_not_written(store):
    """A change that breaks the schema, is no number or is too large is refused before the disk is touched."""
    store.edit_decisions(keep(TWO))
    before = look(store.accounts_path)
    twice = TWO.model_copy(update={"accounts": (account(), account())})
    no_number = TWO.model_copy(update={"terms_accepted_at": float("nan")})
    no_type = TWO.model_copy(update={"balancing": [1]})
    too_large = TWO.model_copy(update={"removed": {f"{n:0100}": 1.0 for n in range(40_000)}})

    for value, why in [
        (twice, "could not be read back (the whole: is not allowed)"),
        (no_number, "is not finite"),
        (no_type, "not of its type"),
        (too_large, "larger than 4194304 bytes"),
    ]:
        with pytest.raises(StoreError) as caught:
            store.edit_decisions(keep(value))
        assert why in str(caught.value)
        ours = caught.value.__traceback__.tb_next  # this test's own frame holds the file
        frames = traceback.TracebackException(StoreError, caught.value, ours, capture_locals=True)
        assert TOKEN not in "".join(frames.format())
        assert look(store.accounts_path) == before


ROUNDS = int(os.environ.get("COPILOT_BALANCER_KILLS", "200"))


@pytest.mark.timeout(600)
def test_kill_at_any_moment(store):
    """kill -9 at random points of an edit: the file is whole, what was acknowledged stands, at most one temp is left."""
    chance = random.Random(20)
    padding = tuple(f"model-{number}-*" for number in range(500))
    store.edit_decisions(keep(Decisions(accounts=(account(allow=padding),), terms_accepted_at=0.0)))

    def count_up(told: int) -> None:
        os.write(told, b"\n")  # it runs: on a busy machine that takes longer than an edit
        while True:
            after = store.edit_decisions(
                lambda old: old.model_copy(update={"terms_accepted_at": (old.terms_accepted_at or 0.0) + 1.0})
            )
            os.write(told, b"%d\n" % int(after.terms_accepted_at or 0))

    acknowledged = 0
    for _ in range(ROUNDS):
        told, tell = os.pipe()
        child = fork(lambda tell=tell: count_up(tell))
        os.close(tell)
        assert os.read(told, 1) == b"\n"
        time.sleep(chance.uniform(0.0, 0.02))  # the moment of the kill is what is tested
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(told, "rb") as pipe:
            numbers = pipe.read().split()
        acknowledged = int(numbers[-1]) if numbers else acknowledged
        found = store.read_decisions()
        assert found.terms_accepted_at in (acknowledged, acknowledged + 1)
        assert found.accounts[0].allow == padding
        acknowledged = int(found.terms_accepted_at or 0)
        assert len(temps(store)) <= 1

    assert acknowledged > 0
    store.edit_decisions(lambda old: old)
    assert temps(store) == []


# --- the codec --------------------------------------------------------------------------------------------------------

numbers = strategies.floats(allow_nan=False, allow_infinity=False)
texts = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=8)
labels = strategies.from_regex(r"[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?", fullmatch=True)
accounts = strategies.builds(
    Account,
    id=strategies.integers(0, 10**9).map(lambda number: f"github.com:{number}"),
    label=labels,
    login=strategies.none() | strategies.from_regex(r"[A-Za-z0-9_-]{1,10}", fullmatch=True),
    api_host=strategies.sampled_from(["api.githubcopilot.com", "api.business.githubcopilot.com"]),
    host=strategies.just("github.com"),
    credential=strategies.sampled_from(["direct", "exchange"]),
    token=strategies.text(strategies.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=30),
    enabled=strategies.booleans(),
    enabled_at=numbers,
    cleared=strategies.dictionaries(texts, numbers, max_size=3),
    priority=strategies.integers(-5, 5),
    weight=strategies.floats(0.01, 1000),
    fence=labels,
    allow=strategies.lists(texts, max_size=3).map(tuple),
    block=strategies.lists(texts, max_size=3).map(tuple),
    reserve=strategies.floats(0, 100),
    plan=strategies.none() | texts,
    added_at=numbers,
)
decisions = strategies.builds(
    Decisions,
    accounts=strategies.lists(accounts, max_size=3, unique_by=(lambda a: a.id, lambda a: a.label)).map(tuple),
    home_id=strategies.none() | texts,
    balancing=strategies.booleans(),
    terms_accepted_at=strategies.none() | numbers,
    removed=strategies.dictionaries(texts, numbers, max_size=3),
)
states = strategies.builds(
    AccountState,
    credential=texts,
    rejected_at=strategies.none() | numbers,
    cooldowns=strategies.lists(
        strategies.builds(
            Cooldown, began=numbers, until=numbers, reason=texts, model=strategies.none() | texts, told_until=numbers
        ),
        max_size=2,
    ),
    ended_by_success=strategies.dictionaries(texts, numbers, max_size=2),
    backoff=strategies.dictionaries(texts, strategies.tuples(strategies.integers(0, 20), numbers), max_size=2),
    faults=strategies.lists(numbers, max_size=3),
    models=strategies.dictionaries(
        texts, strategies.builds(ModelFact, has=strategies.booleans(), until=numbers, began=numbers), max_size=2
    ),
    quota=strategies.dictionaries(
        texts, strategies.builds(QuotaWindow, percent_left=numbers, remaining=strategies.none() | numbers), max_size=2
    ),
    last_used=numbers,
    served=strategies.integers(0, 2**70),
)
memories = strategies.builds(
    Memory,
    accounts=strategies.dictionaries(texts, states, max_size=2),
    conversations=strategies.dictionaries(
        texts, strategies.builds(Affinity, account_id=texts, used_at=numbers), max_size=3
    ),
)


@settings(deadline=None, database=None, max_examples=60)
@given(decisions)
def test_decisions_survive_the_file(value):
    """Whatever decisions there are, they read as they were written."""
    assert ACCOUNTS.load(ACCOUNTS.dump(value)) == value


@settings(deadline=None, database=None, max_examples=60)
@given(memories)
def test_a_memory_survives_the_file(value):
    """Whatever was learnt, it reads as it was written."""
    assert STATE.load(STATE.dump(value)) == value


@settings(deadline=None, database=None, max_examples=200)
@given(strategies.binary(max_size=60) | texts.map(str.encode))
def test_any_bytes_are_refused_in_words(raw):
    """No bytes raise anything; they are a value or a refusal."""
    assert isinstance(ACCOUNTS.load(raw), Decisions | Refusal)


def test_migrations_run_in_order():
    """An old file goes through each later migration once; a file of today through none; a newer one is refused."""
    form = Format("x.json", "a note", STATE.content, Memory)
    steps = []

    @form.migration
    def second(document):
        steps.append("1 to 2")
        return document | {"accounts": {"a": document["old"]}}

    @form.migration
    def third(document):
        steps.append("2 to 3")
        return {"accounts": document["accounts"]}

    expected = Memory(accounts={"a": AccountState(served=7)})
    for version, document, taken in [
        (1, {"old": {"served": 7}}, ["1 to 2", "2 to 3"]),
        (2, {"old": 0, "accounts": {"a": {"served": 7}}}, ["2 to 3"]),
        (3, {"accounts": {"a": {"served": 7}}}, []),
    ]:
        steps.clear()
        assert form.load(json.dumps({"version": version, **document}).encode()) == expected
        assert steps == taken
    newer = form.load(b'{"version": 4}')
    assert isinstance(newer, Refusal)
    assert (newer.why, newer.movable) == ("a newer copilot-balancer wrote it; this one knows version 3", False)
    assert json.loads(form.dump(expected))["version"] == 3
    assert STATE.migrations == []
    assert (ACCOUNTS.version, STATE.version) == (2, 1)


# --- other systems ----------------------------------------------------------------------------------------------------


def test_it_imports_where_flags_are_missing(tmp_path):
    """The module loads on a system whose ``os`` lacks the POSIX names."""
    code = (
        "import os, filelock, platformdirs, pydantic\n"
        "for name in ('O_NOFOLLOW', 'O_NONBLOCK', 'O_DIRECTORY', 'O_CLOEXEC', 'fchmod', 'geteuid', 'getuid'):\n"
        "    delattr(os, name)\n"
        "from copilot_balancer.store import folder, store\n"
        "folder._POSIX = False\n"
        "from pathlib import Path\n"
        f"s = store.Store(Path({str(tmp_path)!r}) / 'x')\n"
        "print(len(s.read_decisions().accounts))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("0\n", "")


def test_it_works_after_a_copy(store, tmp_path):
    """A folder that was copied whole with its modes is a store like the first."""
    store.edit_decisions(keep(TWO))
    shutil.copytree(store.folder, tmp_path / "copy")

    assert Store(tmp_path / "copy").read_decisions() == TWO


# --- models.json


def test_owners(tmp_path):
    """Whose is what: merged under the lock, full to the brim as well; an unusable file counts as none and stays."""
    store = Store(tmp_path / "state")
    assert store.read_owners() == Ownership()
    one, two = Ownership(), Ownership()
    one.learn((f"{number:016x}" for number in range(MAX_HASHES)), "github.com:1", 1.0)
    two.learn(["f" * 16], "github.com:2", 2.0)
    assert store.merge_owners(one) == one
    merged = store.merge_owners(two)
    assert len(merged.hashes) == MAX_HASHES
    assert Store(tmp_path / "state").read_owners() == merged
    path = tmp_path / "state" / "owners.json"
    before = path.stat().st_mtime_ns
    assert store.merge_owners(two) == merged
    assert path.stat().st_mtime_ns == before
    path.write_text('{"version": 1, "marks": {"x": {"account_id": 7, "seen_at": 1.0}}}')
    assert store.read_owners() == Ownership()
    with pytest.raises(StoreError, match=r"owners\.json"):
        store.merge_owners(one)
    assert "7" in path.read_text()


def test_keys_in_files():
    """Fields that code calls by newer names keep their keys in state.json and owners.json: older programs read them."""
    state = {"credential": "0123456789ab", "healed": {"": 3.0, "gpt-5": 4.0}, "strikes": {"": [2, 4.0]}}
    owners = {"ffffffffffffffff": {"account_id": "github.com:1", "seen_at": 1.0, "expires_at": None}}
    memory = STATE.load(json.dumps({"version": 1, "accounts": {"github.com:1": state}}).encode())
    owned = OWNERS.load(json.dumps({"version": 1, "marks": owners}).encode())
    assert memory == Memory(
        {
            "github.com:1": AccountState(
                credential="0123456789ab", ended_by_success={"": 3.0, "gpt-5": 4.0}, backoff={"": (2, 4.0)}
            )
        }
    )
    assert owned == Ownership({"ffffffffffffffff": Owned("github.com:1", 1.0)})
    written = json.loads(STATE.dump(memory))["accounts"]["github.com:1"]
    assert {key: written[key] for key in state} == state
    assert not {"ended_by_success", "backoff"} & set(written)
    written = json.loads(OWNERS.dump(owned))
    assert (written["marks"], "hashes" in written) == (owners, False)
    wrong = STATE.load(b'{"version": 1, "accounts": {"github.com:1": {"strikes": 7}}}')
    assert isinstance(wrong, Refusal) and "strikes" in wrong.why


def test_catalogue(tmp_path):
    """The accounts' lists of models are kept; the newest of each account stays, and nothing is written twice."""
    store = Store(tmp_path / "state")
    assert store.read_catalogue() == Catalogue()
    assert store.catalogue_stamp() is None
    old, new = Shelf("f1", 1.0, {"gpt": {"id": "gpt", "deep": [1, {"x": None}]}}), Shelf("f1", 2.0, {})
    assert store.merge_catalogue(Catalogue({"github.com:1": old})) == Catalogue({"github.com:1": old})
    stamp = store.catalogue_stamp()
    assert stamp is not None
    store.merge_catalogue(Catalogue({"github.com:1": old}))
    assert store.catalogue_stamp() == stamp
    store.merge_catalogue(Catalogue({"github.com:1": new, "github.com:2": old}))
    assert Store(tmp_path / "state").read_catalogue() == Catalogue({"github.com:1": new, "github.com:2": old})


def test_a_broken_catalogue_is_no_trouble(tmp_path):
    """An unreadable models.json counts as none, since the service says it all again; it is never overwritten."""
    store = Store(tmp_path / "state")
    store.merge_catalogue(Catalogue({"github.com:1": Shelf("f1", 1.0, {})}))
    path = tmp_path / "state" / "models.json"
    path.write_text("{")
    assert store.read_catalogue() == Catalogue()
    with pytest.raises(StoreError, match=r"models\.json"):
        store.merge_catalogue(Catalogue({"github.com:2": Shelf("f1", 1.0, {})}))
    assert path.read_text() == "{"


def test_a_stop_is_told_to_no_older_version(store):
    """accounts.json is version 1 while nobody is stopped, so an older proxy goes on; with a stop it is version 2."""
    account_id = TWO.accounts[0].id
    store.edit_decisions(keep(TWO))
    first = json.loads(store.accounts_path.read_text())
    assert first["version"] == 1
    assert not {"stopped_at", "stopped_why"} & set(first["accounts"][0])

    store.edit_decisions(edits.stopped(account_id, 9.0, "spammy_user", TWO.accounts[0].enabled_at))
    second = json.loads(store.accounts_path.read_text())
    assert second["version"] == 2
    assert (second["accounts"][0]["stopped_at"], second["accounts"][0]["stopped_why"]) == (9.0, "spammy_user")
    assert store.read_decisions().accounts[0].stopped_at == 9.0

    store.edit_decisions(edits.turned_on(account_id, 12.0))
    third = json.loads(store.accounts_path.read_text())
    assert third["version"] == 1
    assert third["accounts"][0]["token"] == first["accounts"][0]["token"]
    assert store.read_decisions().accounts[0].stopped_at is None


def test_a_file_of_version_1_opens(store):
    """What an older copilot-balancer wrote opens unchanged: nobody is stopped in it."""
    store.edit_decisions(keep(TWO))
    document = json.loads(store.accounts_path.read_text())
    assert document["version"] == 1
    assert Store(store.folder).read_decisions() == TWO


def test_an_older_program_stops_at_a_stop(store):
    """An older version that meets a stop says that a newer one wrote the file, changes nothing, and serves nobody."""
    old = replace(ACCOUNTS, migrations=[])  # as version 1 was
    store.edit_decisions(keep(TWO))
    store.edit_decisions(edits.stopped(TWO.accounts[0].id, 9.0, "spammy_user", TWO.accounts[0].enabled_at))
    found = old.load(store.accounts_path.read_bytes())
    assert isinstance(found, Refusal)
    assert "a newer copilot-balancer wrote it" in found.why
    assert not found.movable


# --- a disk that does not let us write, a user without a home ---------------------------------------------------------


def test_a_trial_leaves_nothing(store):
    """Whether the disk can be written is found out, also after a program that was killed meanwhile."""
    store.edit_decisions(keep(ONE))
    before = sorted(path.name for path in store.folder.iterdir())
    (store.folder / "trial.new").write_bytes(b"half")
    store.try_write()
    assert sorted(path.name for path in store.folder.iterdir()) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_trial_on_a_disk_that_is_full_or_read_only(store, monkeypatch, code):
    """It fails as a write of a running proxy would, with the remedy."""
    store.edit_decisions(keep(ONE))
    Faults(monkeypatch, "write", code)
    with pytest.raises(StoreError, match=r"failed \(.*\)\. Remedy: "):
        store.try_write()


def test_a_killed_writer_of_owners_is_tidied_up(store):
    """What it left is gone with the next write."""
    store.edit_decisions(keep(ONE))
    (store.folder / "owners.json.new").write_bytes(b"half")
    mine = Ownership({"0123": Owned("github.com:1", 5.0)})
    assert store.merge_owners(mine) == mine == store.read_owners()


def test_without_a_home(monkeypatch):
    """A user without HOME and without an entry in passwd needs COPILOT_BALANCER_HOME, and is told so."""

    def nobody(_uid):
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match=r"no home directory\. Remedy: set COPILOT_BALANCER_HOME"):
        paths({})
    assert paths({"COPILOT_BALANCER_HOME": "/srv/ours"}).state == Path("/srv/ours/state")
