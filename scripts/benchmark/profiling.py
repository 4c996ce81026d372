"""Where the proxy's processor time goes: cProfile of its event loop while requests pass. Not part of the usual run."""

import asyncio
import pstats
from pathlib import Path

from benchmark.client import Ask, Client
from benchmark.figures import table
from benchmark.proxies import Proxy, folder, proxies, upstream

SHOWN = 45


def profile(*, quick: bool) -> None:
    """Print the dearest functions of the proxy with the addon, for small and for large requests and for streams."""
    for what, ask in {
        "JSON of 1 KB": Ask("json 1000", 1000),
        "JSON of 1 MB": Ask("json 1000000", 1_000_000),
        "a stream of 100 KB": Ask("sse 100000", 1000),
    }.items():
        for name, addon in (("plain", False), ("with the addon", True)):
            asyncio.run(_one(what, name, ask, 300 if quick else 1000, addon=addon))


async def _one(what: str, name: str, ask: Ask, requests: int, *, addon: bool) -> None:
    with upstream() as to, folder() as at:
        file = at / "profile"
        with proxies(Proxy(name, at, to, addon=addon, environ={"BENCH_PROFILE": str(file)})) as (proxy,):
            async with Client(proxy.port, proxy.ca_file) as client:
                await client.batch(ask, 8, requests=requests)
        found = pstats.Stats(str(file))
    facts = found.stats  # type: ignore[attr-defined]  # as pstats prints them, but for a table of our own
    dearest = sorted(facts.items(), key=lambda item: -item[1][2])[:SHOWN]
    table(
        f"profile of {what}, {name}: microseconds a request (with cProfile's own cost)",
        ["function", "calls", "itself", "with what it calls"],
        [
            [
                f"{_short(path)}:{line} {function}",
                f"{calls / requests:.1f}",
                f"{itself / requests * 1e6:.0f}",
                f"{all_of_it / requests * 1e6:.0f}",
            ]
            for (path, line, function), (_, calls, itself, all_of_it, _) in dearest
        ],
    )


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])
