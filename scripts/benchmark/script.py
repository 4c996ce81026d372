"""The mitmproxy script of scripts/bench, for the plain proxy and for ours alike.

Every connection of this process leads to the upstream of the bench; names, SNI and certificates stay the service's.
When its environment says so it also streams answers (for the plain proxy: ours does that itself), writes down how long
the event loop was held, or profiles.
"""

import asyncio
import cProfile
import json
import os
import time
from pathlib import Path
from typing import Any

from mitmproxy import http
from mitmproxy.proxy import server

PROBE = 0.002
"""Seconds between two looks of the loop probe."""


class Dialling:
    """``asyncio`` as mitmproxy's server module sees it: the same, but for where connections lead."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def open_connection(self, _host: str, _port: int, **options: Any) -> Any:
        return await asyncio.open_connection("127.0.0.1", self._port, **options)


class Streaming:
    """What the addon is compared with: mitmproxy that only streams."""

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        assert flow.response is not None
        flow.response.stream = True


class LoopProbe:
    """How late the event loop comes back to one that sleeps; written to a file at the end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._late: list[float] = []

    def running(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(PROBE)
            self._late.append(time.monotonic() - began - PROBE)

    def done(self) -> None:
        self._file.write_text(json.dumps(self._late))


class Profile:
    """cProfile of all that happens on the event loop; written to a file at the end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._profile = cProfile.Profile(time.process_time)  # what other programs take is not counted

    def running(self) -> None:
        self._profile.enable()

    def done(self) -> None:
        self._profile.disable()
        self._profile.dump_stats(self._file)


server.asyncio = Dialling(int(os.environ["BENCH_UPSTREAM"]))  # type: ignore[attr-defined]  # in this process alone
addons: list[object] = []
if os.environ.get("BENCH_STREAM"):
    addons.append(Streaming())
if os.environ.get("BENCH_LOOP"):
    addons.append(LoopProbe(Path(os.environ["BENCH_LOOP"])))
if os.environ.get("BENCH_PROFILE"):
    addons.append(Profile(Path(os.environ["BENCH_PROFILE"])))
