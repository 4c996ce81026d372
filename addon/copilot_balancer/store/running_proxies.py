"""Files by which running proxies are found, ``live/1.json`` ..., each with its addresses and requests in flight.

Laws of this file:

1. A running proxy holds the lock beside its file (``live/1.lock``) until it ends, however it ends; only who holds the
   lock writes or removes the file. So a file whose lock is free is what a killed proxy left. Its process id would not
   tell: ids are given again, and every container counts its own.
2. Lock files are never renamed or removed.
3. A proxy takes the first number that is free. No secret stands in its file.
4. Everything here blocks: callers keep it off the event loop.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import ConfigDict, TypeAdapter
from pydantic.config import with_config

from copilot_balancer.errors import StoreBusy, StoreError
from copilot_balancer.store.folder import Folder, Refusal, failed, held, make, opened
from copilot_balancer.text import printable

if TYPE_CHECKING:
    from filelock import FileLock

MAX_PROXIES = 32
"""So many proxies of one user are told about."""


@with_config(ConfigDict(defer_build=True))
@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy that runs now."""

    pid: int
    began: float
    """Seconds since the epoch, on the wall clock."""
    listening: tuple[str, ...]
    """``host:port`` of each address that it listens on."""
    version: str
    """Of copilot-balancer."""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    """Account id -> requests that it is busy with."""
    requests: int = 0
    """Client requests under way; those that wait for an account as well."""
    strategy: str = ""
    """The one in force there: an option of its command line comes before what stands in files."""
    off: str = ""
    """Why it uses no account at all; empty in normal times."""


_CONTENT = TypeAdapter(RunningProxy)


class RunningProxyFile:
    """The file of this proxy in the state `folder` (absolute)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "live"
        self._one_at_a_time = Lock()
        self._lock: FileLock | None = None
        self._name = ""
        self._written: RunningProxy | None = None

    def write(self, proxy: RunningProxy) -> None:
        """Let others see `proxy`; nothing is written when it is what they see already.

        Raises:
            StoreBusy: `MAX_PROXIES` proxies run already.
            StoreError: the folder or the file cannot be used.

        """
        with self._one_at_a_time:
            if proxy == self._written:
                return
            if self._lock is None:
                self._take_a_number()
            raw = json.dumps(_CONTENT.dump_python(proxy, mode="json"), indent=1).encode() + b"\n"
            with _folder(self.folder) as folder:
                failure = folder.put(self._name, raw) if folder else None
                gone = folder is None
            if failure:
                raise _error(self.folder / self._name, failure)
            if gone:  # and our lock with it: the next time we begin anew
                self._let_go()
            else:
                self._written = proxy

    def close(self) -> None:
        """The proxy ends: nobody sees it any more."""
        with self._one_at_a_time:
            if self._lock is None:
                return
            try:
                with _folder(self.folder) as folder:
                    if folder:
                        _remove(folder, self._name)
            finally:
                self._let_go()

    def _let_go(self) -> None:
        assert self._lock is not None
        self._lock.release()
        self._lock = self._written = None

    def _take_a_number(self) -> None:
        if failure := make(self.folder):
            raise _error(self.folder, failure)
        for number in range(1, MAX_PROXIES + 1):
            lock = _held(self.folder, number)
            if lock is None:
                continue
            name = f"{number}.json"
            try:
                with _folder(self.folder) as folder:
                    if folder:
                        _remove(folder, f"{name}.new")  # of a writer that was killed
            except StoreError:
                lock.release()
                raise
            self._lock, self._name = lock, name
            return
        raise StoreBusy(f"{printable(str(self.folder), 4096)}: {MAX_PROXIES} proxies run; this one is not told about")


def read_live(folder: Path) -> tuple[RunningProxy, ...]:
    """The proxies that run now by the state `folder`, oldest first; what killed ones left is removed.

    Raises:
        StoreError: the folder cannot be used.

    """
    found = []
    with _folder(folder / "live") as live:
        for number in range(1, MAX_PROXIES + 1) if live else ():
            assert live is not None
            raw = live.read(f"{number}.json")
            if raw is not None and _runs(live, number) and (proxy := _parsed(raw)):
                found.append(proxy)
    return tuple(sorted(found, key=lambda proxy: (proxy.began, proxy.pid)))


def _runs(folder: Folder, number: int) -> bool:
    """Whether a proxy holds this number; what one left that does not run any more is removed."""
    lock = _held(folder.path, number)
    if lock is None:
        return True
    try:
        _remove(folder, f"{number}.json")
    finally:
        lock.release()
    return False


def _parsed(raw: bytes | Refusal) -> RunningProxy | None:
    if isinstance(raw, Refusal):
        return None
    try:
        return _CONTENT.validate_json(raw)
    except ValueError:
        return None


def _held(folder: Path, number: int) -> "FileLock | None":
    """The lock of this number, held; None: somebody else holds it."""
    path = folder / f"{number}.lock"
    lock = held(path, 0)
    if isinstance(lock, Refusal):
        raise _error(path, lock)
    return lock


def _remove(folder: Folder, name: str) -> None:
    try:
        folder.unlink(name)
    except OSError as error:
        raise _error(folder.path / name, failed(error, doing="removing it")) from None


@contextmanager
def _folder(path: Path) -> Iterator[Folder | None]:
    with opened(path) as folder:
        if isinstance(folder, Refusal):
            raise _error(path, folder)
        yield folder


def _error(path: Path, refusal: Refusal) -> StoreError:
    return StoreError(refusal.of(path))
