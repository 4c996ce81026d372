"""Reads and writes accounts.json (decisions, with tokens), state.json, models.json and owners.json under a lock.

Laws of this file:

1. A file that cannot be read is an error that names path, cause and remedy, never an empty file, and it is never
   overwritten. How files are read and replaced is the business of ``folder``.
2. A change is a function of what stands on disk now: lock, read, change, write. Readers take no lock.
3. What could not be read back is not written.
4. No content of a file stands in an error, nor in a local variable of the frames of its traceback.
5. Times in files are read on the wall clock; whoever keeps another clock shifts them before and after.

Everything here blocks (fsync can take seconds on a busy disk): callers keep it off the event loop.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.config import with_config

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.rules import catalogue, ownership
from copilot_balancer.rules import state as memory
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.catalogue import Catalogue
from copilot_balancer.rules.ownership import Ownership
from copilot_balancer.rules.state import Memory
from copilot_balancer.store.folder import AWAY, MAX_BYTES, Folder, Refusal, failed, held, make, opened
from copilot_balancer.text import printable

type Document = dict[str, Any]
"""A file of ours, parsed, without its note and its version."""
type Migration = Callable[[Document], Document]
"""From one schema version to the next."""


@dataclass(frozen=True)
class Paths:
    """Where the files of this user live."""

    state: Path
    """accounts.json, state.json and what else the proxy keeps: secrets, so never where people keep dotfiles."""
    config: Path
    """config.toml: settings without secrets."""


def paths(environ: Mapping[str, str]) -> Paths:
    """The folders of this user; ``COPILOT_BALANCER_HOME`` in `environ` moves both, as its ``state`` and ``config``.

    Raises:
        StoreError: nobody knows where: there is neither that variable, nor ``HOME``, nor an entry in passwd.

    """
    if home := environ.get("COPILOT_BALANCER_HOME"):
        folder = Path(home).expanduser().absolute()
        return Paths(state=folder / "state", config=folder / "config")
    name = "copilot-balancer"
    try:
        state = platformdirs.user_state_path(name, appauthor=False)
        config = platformdirs.user_config_path(name, appauthor=False)
    except RuntimeError:  # older versions leave a "~"
        state = config = Path("~")
    if not state.is_absolute():
        raise StoreError("this user has no home directory. Remedy: set COPILOT_BALANCER_HOME")
    return Paths(state, config)


_FIELDS = {*Decisions.model_fields, *Account.model_fields, "healed", "strikes", "marks"}
"""The words of a location that are ours to tell; a key that stands in a file may be anything, even a token."""

for _noun in (*vars(memory).values(), *vars(ownership).values()):  # they say nothing about how strictly they are read
    if is_dataclass(_noun) and isinstance(_noun, type):
        with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))(_noun)
        _FIELDS.update(part.name for part in fields(_noun))


def _unique(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _told(error: ValidationError) -> str:
    """The first thing that is wrong, by place and kind; what a validator of ours says may quote the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) if isinstance(part, int) or part in _FIELDS else "?" for part in first["loc"])
    what = "is not allowed" if first["type"] == "value_error" else first["msg"]
    return f"{place or 'the whole'}: {what}"


@dataclass(frozen=True)
class Format[T]:
    """What stands in one file, and how it is written."""

    name: str
    note: str
    """The first line of the file, for people who find it."""
    content: TypeAdapter[T]
    empty: Callable[[], T]
    migrations: list[Migration] = field(default_factory=list)
    older: Callable[[Document], Document | None] = lambda _: None
    """The content as the version before wrote it; None: something in it is not to be told so. Then an older program
    that meets the file says that a newer one wrote it, and stops."""
    indent: int | None = 1
    """None: one line; for what is long and read by nobody."""

    @property
    def version(self) -> int:
        """The newest schema version: one more than there are migrations."""
        return len(self.migrations) + 1

    def migration(self, function: Migration) -> Migration:
        """Append the step from the newest version to the next; a decorator."""
        self.migrations.append(function)
        return function

    def dump(self, value: T) -> bytes:
        """The file's bytes: the one place where tokens are written out.

        Raises:
            ValueError: a number in it is not finite, or something in it is not of its type.

        """
        content = self.content.dump_python(
            value, mode="json", by_alias=True, context={"reveal": True}, warnings="error"
        )
        older = self.older(content)
        version = self.version if older is None else self.version - 1
        document = {"_": self.note, "version": version, **(content if older is None else older)}
        return json.dumps(document, indent=self.indent, allow_nan=False).encode() + b"\n"

    def load(self, raw: bytes) -> T | Refusal:
        """The value that `raw` holds, of this or of an older version."""
        if not raw.strip():
            return Refusal("it is empty", AWAY)
        try:
            document = json.loads(raw.decode(), object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            return Refusal(f"it is not JSON (line {error.lineno})", AWAY)
        except (ValueError, RecursionError):
            return Refusal("it is not JSON as we write it", AWAY)
        version = document.pop("version", None) if isinstance(document, dict) else None
        if type(version) is not int or version < 1:
            return Refusal("it holds no schema version", AWAY)
        if version > self.version:
            return Refusal(
                f"a newer copilot-balancer wrote it; this one knows version {self.version}",
                "upgrade copilot-balancer",
                movable=False,
            )
        document.pop("_", None)
        for migrate in self.migrations[version - 1 :]:
            document = migrate(document)
        try:
            return self.content.validate_json(json.dumps(document, allow_nan=False))
        except ValidationError as error:
            return Refusal(_told(error), AWAY)
        except (ValueError, RecursionError):
            return Refusal("it is not JSON as we write it", AWAY)


_STOP = ("stopped_at", "stopped_why")


def _without_stops(document: Document) -> Document | None:
    """accounts.json as version 1 knew it; None: an account is stopped, which version 1 would let serve."""
    if any(account["stopped_at"] is not None for account in document["accounts"]):
        return None
    accounts = [{key: account[key] for key in account if key not in _STOP} for account in document["accounts"]]
    return {**document, "accounts": accounts}


ACCOUNTS: Format[Decisions] = Format(
    "accounts.json",
    "copilot-balancer's accounts; holds tokens: do not share",
    TypeAdapter(Decisions),
    Decisions,
    older=_without_stops,
)


@ACCOUNTS.migration
def _with_stops(document: Document) -> Document:
    """Version 2 says of an account that GitHub stopped it; where nothing is said it did not."""
    return document


STATE: Format[Memory] = Format(
    "state.json", "copilot-balancer's memory; holds no secret and may be lost", TypeAdapter(Memory), Memory
)

MODELS: Format[Catalogue] = Format(
    "models.json",
    "the models that each account has; holds no secret and may be lost",
    TypeAdapter(Catalogue),
    Catalogue,
)

OWNERS: Format[Ownership] = Format(
    "owners.json",
    "hashes of what each account made in conversations; holds no secret and may be lost",
    TypeAdapter(Ownership),
    Ownership,
    indent=None,
)


_TRIAL = "trial"


class Store:
    """The files of one user in `folder` (absolute). Every method blocks, and raises StoreError.

    `lock_timeout` is how many seconds a change waits for another program's.
    """

    def __init__(self, folder: Path, *, lock_timeout: float = 5.0) -> None:
        self.folder = folder
        self.lock_timeout = lock_timeout

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r})"

    @property
    def accounts_path(self) -> Path:
        """Where the decisions stand."""
        return self.folder / ACCOUNTS.name

    @property
    def state_path(self) -> Path:
        """Where the memory stands."""
        return self.folder / STATE.name

    @property
    def lock_path(self) -> Path:
        """The file whose lock a writer of either file holds."""
        return self.folder / "store.lock"

    def stamp(self) -> tuple[int, int, int] | None:
        """What changes when accounts.json does (inode, modification time in ns, size); None when there is none.

        Cheap enough to ask each second: one stat.
        """
        return self._stamp(self.accounts_path)

    def catalogue_stamp(self) -> tuple[int, int, int] | None:
        """As `stamp`, for models.json."""
        return self._stamp(self.folder / MODELS.name)

    def _stamp(self, path: Path) -> tuple[int, int, int] | None:
        try:
            facts = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(path, failed(error, doing="looking at it")) from None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def read_decisions(self) -> Decisions:
        """What the user decided; nothing yet when there is no file."""
        return self.read(ACCOUNTS)

    def edit_decisions(self, change: Callable[[Decisions], Decisions]) -> Decisions:
        """Replace what the user decided by what `change` makes of it, and return that. Nothing else comes between.

        An account that was removed comes back only when it was added (``added_at``) after its removal: a program
        that still held the old account in its hands does not revive it.
        """
        with self._locked() as folder:
            before = self._load(folder, ACCOUNTS)
            after = change(before)
            known = {account.id for account in before.accounts}
            for account in after.accounts:
                if account.id not in known and account.added_at < before.removed.get(account.id, account.added_at):
                    why = f"account {account.id} was removed meanwhile, and this change is older"
                    raise self._error(self.accounts_path, Refusal(why, "add the account again"))
            if after != before:
                self._save(folder, ACCOUNTS, after)
            return after

    def read_memory(self) -> Memory:
        """What the proxy learnt; nothing yet when there is no file."""
        return self.read(STATE)

    def merge_memory(self, mine: Memory) -> Memory:
        """Add `mine` (times on the wall clock) to what other proxies learnt, and return both."""
        with self._locked() as folder:
            disk = self._load(folder, STATE)
            merged = memory.merge(disk, mine)
            if merged != disk:
                self._save(folder, STATE, merged)
            return merged

    def memory_stamp(self) -> tuple[int, int, int] | None:
        """As `stamp`, for state.json."""
        return self._stamp(self.state_path)

    def read_catalogue(self) -> Catalogue:
        """The accounts' lists of models; none yet when there is no file, or when it cannot be used."""
        try:
            return self.read(MODELS)
        except StoreError:
            return Catalogue()  # it is only ever a copy of what the service says again

    def merge_catalogue(self, mine: Catalogue) -> Catalogue:
        """Add `mine` to the lists on disk, and return both; a file that cannot be used is left as it is."""
        with self._locked() as folder:
            disk = self._load(folder, MODELS)
            merged = catalogue.newest(disk, mine)
            if merged != disk:
                self._save(folder, MODELS, merged)
            return merged

    def read_owners(self) -> Ownership:
        """The owners of bound state; nothing yet when there is no file, or when it cannot be used."""
        try:
            return self.read(OWNERS)
        except StoreError:
            return Ownership()  # what is forgotten costs one refusal a conversation

    def merge_owners(self, mine: Ownership) -> Ownership:
        """Add `mine` to what is on disk, and return both; a file that cannot be used is left as it is."""
        with self._locked() as folder:
            disk = self._load(folder, OWNERS)
            merged = ownership.newest(disk, mine)
            if merged != disk:
                self._save(folder, OWNERS, merged)
            return merged

    def owners_stamp(self) -> tuple[int, int, int] | None:
        """As `stamp`, for owners.json."""
        return self._stamp(self.folder / OWNERS.name)

    def edit[T](self, form: Format[T], change: Callable[[T], T]) -> None:
        """Replace what stands in one file by what `change` makes of it. Nothing else comes between."""
        with self._locked() as folder:
            before = self._load(folder, form)
            if (after := change(before)) != before:
                self._save(folder, form, after)

    def try_write(self) -> None:
        """Write a file of a page's size and remove it again, so that a full or read-only disk is an error now."""
        with self._locked() as folder:
            if failure := folder.put(_TRIAL, b"\0" * 4096):
                raise self._error(self.folder, failure)
            folder.unlink(_TRIAL)

    def set_aside_memory(self) -> Path | None:
        """Give an unreadable state.json another name and return that; None when there is nothing unreadable."""
        with self._locked() as folder:
            found = _found(folder, STATE)
            if not isinstance(found, Refusal):
                return None  # another program was faster, or somebody repaired it
            aside = folder.set_aside(STATE.name) if found.movable else found
        if isinstance(aside, Refusal):
            raise self._error(self.state_path, aside)
        return self.folder / aside

    def read[T](self, form: Format[T]) -> T:
        """What stands in one file; empty when there is none."""
        with self._opened() as folder:
            return self._load(folder, form) if folder else form.empty()

    def _load[T](self, folder: Folder, form: Format[T]) -> T:
        found = _found(folder, form)
        if isinstance(found, Refusal):
            raise self._error(self.folder / form.name, found)
        return found

    def _save[T](self, folder: Folder, form: Format[T], value: T) -> None:
        if failure := _written(folder, form, value):
            raise self._error(self.folder / form.name, failure)

    @contextmanager
    def _opened(self) -> Iterator[Folder | None]:
        with opened(self.folder) as folder:
            if isinstance(folder, Refusal):
                raise self._error(self.folder, folder)
            yield folder

    @contextmanager
    def _locked(self) -> Iterator[Folder]:
        """The folder, made when it is missing, while no other program writes."""
        if failure := make(self.folder):
            raise self._error(self.folder, failure)
        with self._opened() as folder:
            if folder is None:
                raise self._error(self.folder, Refusal("it was removed meanwhile", "try again"))
            lock = held(self.lock_path, self.lock_timeout)
            if lock is None:
                raise StoreBusy(
                    f"{printable(str(self.lock_path), 4096)}: another copilot-balancer has held this lock for "
                    f"{self.lock_timeout:g} s; nothing was changed. Remedy: try again, or end the program that hangs"
                )
            if isinstance(lock, Refusal):
                raise self._error(self.lock_path, lock)
            try:
                names = [_TRIAL, "unknown.json", *(form.name for form in (ACCOUNTS, STATE, MODELS, OWNERS))]
                if failure := folder.tidy(names):
                    raise self._error(self.folder, failure)
                yield folder
            finally:
                lock.release()

    @staticmethod
    def _error(path: Path, refusal: Refusal) -> StoreError:
        name = printable(str(path), 4096)
        return StoreError(f"{name}: {refusal.why}. Remedy: {refusal.remedy}")


def _found[T](folder: Folder, form: Format[T]) -> T | Refusal:
    raw = folder.read(form.name)
    if raw is None:
        return form.empty()
    return raw if isinstance(raw, Refusal) else form.load(raw)


def _written[T](folder: Folder, form: Format[T], value: T) -> Refusal | None:
    wrong = "fix the program that made this change; the file is as it was"
    try:
        raw = form.dump(value)
    except ValueError:
        return Refusal("something in what was to be written is not finite, or not of its type", wrong)
    if len(raw) > MAX_BYTES:
        return Refusal(f"what was to be written is larger than {MAX_BYTES} bytes", wrong)
    if isinstance(read_back := form.load(raw), Refusal):
        return Refusal(f"what was to be written could not be read back ({read_back.why})", wrong)
    return folder.put(form.name, raw)
