"""What the process costs: its start, its memory, and how long the event loop is held by large requests."""

import asyncio
import json
import time

from mitmproxy import http

from benchmark.client import HOST, Ask, Client
from benchmark.figures import milliseconds, percentile, table
from benchmark.proxies import Proxy, folder, proxies, upstream
from copilot_balancer.proxy.request.request_body import RequestBody

PLAIN, OURS = "plain", "with the addon"
LARGE = 10_000_000
"""Bytes of a large request."""


def start(*, quick: bool) -> None:
    """Seconds until it answers, and of processor time until then; nothing of the bench is loaded into these."""
    clock: dict[bool, list[float]] = {False: [], True: []}
    processor: dict[bool, list[float]] = {False: [], True: []}
    with folder() as at:
        Proxy("first", at, None, addon=True).stop()  # the CA is made, modules are compiled
        for _ in range(3 if quick else 15):
            for addon in (False, True):
                proxy = Proxy("start", at, None, addon=addon)
                clock[addon].append(proxy.started_in)
                processor[addon].append(proxy.started_with)
                proxy.stop()
    table(
        "start: milliseconds until it answers, fastest / median",
        ["", PLAIN, OURS, "added"],
        [_started("by the clock", clock), _started("of the processor", processor)],
    )


def _started(name: str, found: dict[bool, list[float]]) -> list[str]:
    plain, ours = ((min(found[addon]), percentile(found[addon], 50)) for addon in (False, True))
    added = ours[0] - plain[0], ours[1] - plain[1]
    return [name, *(" / ".join(map(milliseconds, pair)) for pair in (plain, ours, added))]


def memory(*, quick: bool, requests: int = 20_000) -> None:
    """Resident memory after the start and after many requests, 16 at a time."""
    requests = 500 if quick else requests
    grown: dict[str, tuple[float, float, float]] = {}

    async def one(name: str, *, addon: bool) -> None:
        with upstream() as to, folder() as at, proxies(Proxy(name, at, to, addon=addon)) as (proxy,):
            begun = proxy.memory()
            async with Client(proxy.port, proxy.ca_file) as client:
                await client.batch(Ask("json 1000"), 16, requests=requests // 10)
                warm = proxy.memory()
                await client.batch(Ask("json 1000"), 16, requests=requests - requests // 10)
                grown[name] = begun, warm, proxy.memory()

    for name, addon in ((PLAIN, False), (OURS, True)):
        asyncio.run(one(name, addon=addon))
    table(
        "memory: resident MB",
        ["", "started", f"after {requests // 10:,} requests", f"after {requests:,}"],
        [
            *([name, *(f"{value:.1f}" for value in values)] for name, values in grown.items()),
            ["added", *(f"{ours - plain:.1f}" for plain, ours in zip(*grown.values(), strict=True))],
        ],
    )


def loop(*, quick: bool) -> None:
    """How late the event loop comes back while ten large requests come at once."""
    rows = []

    async def one(name: str, *, addon: bool) -> None:
        with upstream() as to, folder() as at:
            file = at / "loop.json"
            with proxies(Proxy(name, at, to, addon=addon, environ={"BENCH_LOOP": str(file)})) as (proxy,):
                async with Client(proxy.port, proxy.ca_file) as client:
                    await client.batch(Ask("json 1000", LARGE), 10, requests=10 if quick else 50)
            late = json.loads(file.read_text())
        rows.append([name, *(milliseconds(percentile(late, share)) for share in (50, 99)), milliseconds(max(late))])

    for name, addon in ((PLAIN, False), (OURS, True)):
        asyncio.run(one(name, addon=addon))
    table(
        f"loop: milliseconds that the event loop is held, ten requests of {LARGE // 10**6} MB at a time",
        ["", "p50", "p99", "longest"],
        rows,
    )
    _reading(quick=quick)


def _reading(*, quick: bool) -> None:
    """What of that is reading the bodies: ten at once, with no proxy around them."""
    said = {
        "turns of 1 KB": [{"role": "user", "content": "x" * 1000}] * (LARGE // 1000),
        "one string": [{"role": "user", "content": "x" * LARGE}],
        "nothing but numbers": [{"role": "user", "content": [1] * (LARGE // 3)}],
    }
    rows = []
    for name, turns in said.items():
        raw = json.dumps({"model": "gpt-4.1", "messages": turns}).encode()
        held = asyncio.run(_held(raw, 2 if quick else 10))
        rows.append([name, *(milliseconds(percentile(held, share)) for share in (50, 99)), milliseconds(max(held))])
    table(
        f"loop: processor milliseconds between two turns while ten requests of {LARGE // 10**6} MB are read",
        ["", "p50", "p99", "longest"],
        rows,
    )


async def _held(raw: bytes, requests: int) -> list[float]:
    """Processor time between two turns of another task, while so many bodies are read."""
    url = f"https://{HOST}/chat/completions"
    bodies = [RequestBody(http.Request.make("POST", url, raw)) for _ in range(requests)]
    held = []

    async def others() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0)
            held.append(time.process_time() - began)

    task = asyncio.create_task(others())
    await asyncio.gather(*(body.read({}) for body in bodies))
    task.cancel()
    return held
