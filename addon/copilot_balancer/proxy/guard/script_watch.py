"""Watches for the script while mitmproxy has none of ours: says so, shows it in ``status``, loads it again.

Laws of this file:

1. mitmproxy drops a script whose file is missing for a moment, for good, and does not load one again that came back
   with an older time. What the user took out of the option ``scripts`` stays out.
2. It is said at once and each minute, as an ERROR, until the script is back.
3. A load that failed is tried again when a file of the script has changed, and once a minute.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mitmproxy import ctx
from mitmproxy.addonmanager import traverse

from copilot_balancer import __version__
from copilot_balancer.errors import StoreError
from copilot_balancer.proxy.guard.log_filters import SAY_EVERY
from copilot_balancer.proxy.incident import log_incident
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks at the script's files."""

_ENTRY = Path(__file__).parents[2] / "script.py"
"""What ``addon/balancer.py`` runs: a change of it is not seen by mitmproxy, which looks at its own file alone."""

type _Stamp = tuple[tuple[int, int, int], ...]


class ScriptWatch:
    """What is done while the script is not loaded.

    Args:
        is_back: whether an addon object of the script is loaded and configured.
        why: what is said.

    """

    def __init__(self, is_back: Callable[[], bool], why: str) -> None:
        self._is_back = is_back
        self._why = why
        self._scripts: list[str] = []
        """mitmproxy's option ``scripts`` when ours was last there."""
        self._path = ""
        """The script of ours in it; empty: the addon was not loaded as a script."""
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    def loaded(self, addon: object) -> None:
        """`addon` is running: note which script it came from."""
        loader = ctx.master.addons.get("scriptloader")
        for script in loader.addons if loader is not None else ():
            if any(one is addon for one in traverse([script])):
                self._scripts, self._path = list(ctx.options.scripts), script.path

    def gone(self, folder: Path, began: float) -> None:
        """The addon object was removed; another one may take its place at once.

        Args:
            folder: the state folder, in which the running proxies are listed.
            began: when this proxy began, in seconds since the epoch.

        """
        if self._ending or (self._task is not None and not self._task.done()):
            return
        with suppress(RuntimeError):  # there is no loop any more
            self._task = asyncio.get_running_loop().create_task(self._watch(folder, began))

    def end(self) -> None:
        """Mitmproxy ends."""
        self._ending = True
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, folder: Path, began: float) -> None:
        await asyncio.sleep(0)  # a script that was saved is loaded again in one go
        said, tried, file = -SAY_EVERY, (self._stamp(), time.monotonic()), RunningProxyFile(folder)
        missing = not self._file().is_file()
        try:
            while not self._is_back():
                now = time.monotonic()
                if now - said >= SAY_EVERY:
                    said = now
                    logger.error("copilot: %s", self._why)
                await asyncio.to_thread(_show, file, began, self._why)
                stamp = self._stamp()
                missing = missing or not self._file().is_file()
                if stamp and (stamp != tried[0] or now - tried[1] >= SAY_EVERY):
                    tried = (stamp, now)
                    self._load(missing=missing)
                    missing = False
                if not self._is_back():
                    await asyncio.sleep(LOOK_EVERY)
            logger.warning("copilot: the script is loaded again: Copilot hosts are served")
        except Exception as error:  # noqa: BLE001 - nothing else says that the script is not there
            log_incident("the watch for the script", error)
        finally:
            with suppress(StoreError):
                file.close()

    def _file(self) -> Path:
        return Path(self._path.strip("'\" ")).expanduser()

    def _stamp(self) -> _Stamp:
        """Inode, time and size of the script's files; empty while one of them is missing."""
        try:
            facts = [os.stat(path) for path in (self._file(), _ENTRY)] if self._path else []  # noqa: PTH116
        except OSError:
            return ()
        return tuple((fact.st_ino, fact.st_mtime_ns, fact.st_size) for fact in facts)

    def _load(self, *, missing: bool) -> None:
        """Let mitmproxy load the script: once more, or again in its old place if it was dropped for a missing file."""
        present = list(ctx.options.scripts)
        if self._path in present:
            present.remove(self._path)
            ctx.options.update(scripts=present)
        elif not missing:
            return  # the user took it out
        wanted = [path for path in self._scripts if path == self._path or path in present]
        ctx.options.update(scripts=[*wanted, *(path for path in present if path not in wanted)])


def _show(file: RunningProxyFile, began: float, why: str) -> None:
    with suppress(StoreError):
        file.write(RunningProxy(os.getpid(), began, tuple(sorted(listening())), __version__, off=why))


def listening() -> Iterable[str]:
    """``host:port`` of each address on which mitmproxy listens."""
    return {f"{host}:{port}" for host, port, *_ in ctx.master.addons.get("proxyserver").listen_addrs()}
