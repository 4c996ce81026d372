"""What a request costs on its way: latency, throughput, processor time; streams; the hop of a failover.

Three proxies run side by side: plain mitmdump twice (the second one shows the noise) and mitmdump with the addon. They
get their batches in turn, in another order each round, so what else the machine does hits all alike.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from benchmark.client import Ask, Client, Timing
from benchmark.figures import milliseconds, percentile, ratio, table
from benchmark.proxies import Proxy, folder, proxies, upstream

SIZES = {"1 KB": 1000, "100 KB": 100_000, "1 MB": 1_000_000}
CONCURRENT = (1, 16, 64)
PLAIN, OURS, AGAIN = "plain", "with the addon", "plain again"


@dataclass
class Sum:
    """All batches of one cell through one proxy."""

    timings: list[Timing] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def throughput(self) -> float:
        """Requests a second."""
        return len(self.timings) / self.seconds

    @property
    def cpu_of_1000(self) -> float:
        """Seconds of processor time for 1,000 requests."""
        return self.cpu / len(self.timings) * 1000

    def at(self, share: float, what: str = "whole") -> float:
        """A percentile of one of ``Timing``'s facts."""
        return percentile((getattr(timing, what) for timing in self.timings), share)


@asynccontextmanager
async def running() -> AsyncIterator[dict[str, tuple[Proxy, Client]]]:
    """The three proxies, each with its client."""
    with upstream() as to, folder() as at:
        first = Proxy(PLAIN, at, to, addon=False)  # it makes the CA, so the others come after it
        started = (first, Proxy(OURS, at, to, addon=True), Proxy(AGAIN, at, to, addon=False))
        with proxies(*started):
            async with AsyncExitStack() as clients:
                yield {
                    proxy.name: (proxy, await clients.enter_async_context(Client(proxy.port, proxy.ca_file)))
                    for proxy in started
                }


async def measured(
    through: dict[str, tuple[Proxy, Client]], ask: Ask, concurrent: int, rounds: int, seconds: float
) -> dict[str, Sum]:
    """Batches of one kind through each proxy in turn."""
    sums = {name: Sum() for name in through}
    names = list(through)
    for client in (client for _, client in through.values()):
        await client.batch(ask, concurrent, requests=concurrent)  # connections are opened, caches are warm
    for number in range(rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            proxy, client = through[name]
            before = proxy.cpu()
            batch = await client.batch(ask, concurrent, seconds=seconds)
            sums[name].cpu += proxy.cpu() - before
            sums[name].seconds += batch.seconds
            sums[name].timings += batch.timings
    return sums


def latency(*, quick: bool) -> None:
    """Latency, throughput and processor time by size, kind and concurrency."""
    rounds, seconds = (2, 0.1) if quick else (9, 0.4)
    cells = itertools.product(("json", "sse"), SIZES.items(), CONCURRENT)
    if quick:
        cells = itertools.product(("json", "sse"), [("1 KB", SIZES["1 KB"])], (1, 16))

    async def all_cells() -> list[tuple[str, dict[str, Sum]]]:
        async with running() as through:
            return [
                (f"{kind.upper()}, {name}, {concurrent}", await measured(through, ask, concurrent, rounds, seconds))
                for kind, (name, size), concurrent in cells
                for ask in [Ask(f"{kind} {size}", size)]
            ]

    found = asyncio.run(all_cells())
    table(
        "latency: milliseconds from a request's last byte out to its answer's last byte in, p10 / p50 / p99",
        ["kind, size both ways, concurrent", PLAIN, OURS, "added p50", "p10", "p50", "p99", "noise p50"],
        [
            [
                cell,
                *(" / ".join(milliseconds(sums[name].at(share)) for share in (10, 50, 99)) for name in (PLAIN, OURS)),
                milliseconds(sums[OURS].at(50) - sums[PLAIN].at(50)),
                *(ratio(sums[OURS].at(share), sums[PLAIN].at(share)) for share in (10, 50, 99)),
                ratio(sums[AGAIN].at(50), sums[PLAIN].at(50)),
            ]
            for cell, sums in found
        ],
    )
    table(
        "throughput: requests a second; CPU: seconds of the proxy's processor time for 1,000 requests",
        ["kind, size both ways, concurrent", PLAIN, OURS, "ratio", "noise", "CPU plain", "CPU ours", "ratio", "noise"],
        [
            [
                cell,
                *(f"{sums[name].throughput:.0f}" for name in (PLAIN, OURS)),
                *(ratio(sums[name].throughput, sums[PLAIN].throughput) for name in (OURS, AGAIN)),
                *(f"{sums[name].cpu_of_1000:.2f}" for name in (PLAIN, OURS)),
                *(ratio(sums[name].cpu_of_1000, sums[PLAIN].cpu_of_1000) for name in (OURS, AGAIN)),
            ]
            for cell, sums in found
        ],
    )


def streams(*, quick: bool) -> None:
    """Streams as a model sends them: when the first event arrives, how late each is, how even."""
    events, gap = (10, 5) if quick else (40, 10)
    rounds, seconds = (2, 0.1) if quick else (6, 0.8)

    async def all_cells() -> list[tuple[int, dict[str, Sum]]]:
        async with running() as through:
            ask = Ask(f"paced {events} {gap}", 10_000)
            return [
                (concurrent, await measured(through, ask, concurrent, rounds, seconds))
                for concurrent in ((1, 16) if quick else CONCURRENT)
            ]

    found = asyncio.run(all_cells())
    rows = []
    for concurrent, sums in found:
        for name, one in sums.items():
            late = [value for timing in one.timings for value in timing.late]
            gaps = [value for timing in one.timings for value in timing.gaps]
            rows.append(
                [
                    f"{concurrent}, {name}",
                    *(milliseconds(one.at(share, "first")) for share in (50, 99)),
                    *(milliseconds(percentile(late, share)) for share in (50, 99)),
                    *(milliseconds(percentile(gaps, share)) for share in (50, 99)),
                ]
            )
    table(
        f"streams: {events} events, one every {gap} ms, request of 10 KB; milliseconds",
        ["concurrent", "first event p50", "p99", "on its way p50", "p99", "gap p50", "p99"],
        rows,
    )


def hop(*, quick: bool) -> None:
    """A failover: from the refusal's last byte in to the second request's first byte out, as the upstream sees it."""
    requests = 30 if quick else 500

    async def hops(size: int) -> tuple[list[float], list[float]]:
        with upstream() as to, folder() as at, proxies(Proxy(OURS, at, to, addon=True)) as (proxy,):
            timings = []
            async with Client(proxy.port, proxy.ca_file) as client:
                for number in range(requests):
                    # a model of its own for each request: the account that refuses it is not resting for the next one
                    ask = Ask("hop", size, model=f"model-{number}")
                    timings += (await client.batch(ask, 1, requests=1)).timings
        return [timing.hop for timing in timings if timing.hop is not None], [timing.whole for timing in timings]

    rows = []
    for name, size in SIZES.items():
        found, wholes = asyncio.run(hops(size))
        rows.append([f"request of {name}", *(milliseconds(percentile(found, share)) for share in (10, 50, 99))])
        rows[-1] += [milliseconds(percentile(wholes, 50)), str(len(found))]
    table(
        "failover: milliseconds from the refusal's last byte to the second request's first byte, at the upstream",
        ["", "p10", "p50", "p99", "whole request p50", "hops"],
        rows,
    )
