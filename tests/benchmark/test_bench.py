"""scripts/bench: what it measures with is sound. No figure is asserted."""

import asyncio
import math

import pytest

from benchmark import client as bench_client
from benchmark import figures, proxies, rules, traffic
from benchmark import upstream as bench_upstream
from copilot_balancer.rules.ranking import STRATEGIES


@pytest.fixture(scope="module")
def upstream():
    with proxies.upstream() as to:
        yield to


def asked(upstream, *asks) -> list:
    """What the upstream answers when it is asked without a proxy, on one connection."""

    async def ask() -> list:
        connection = await bench_client.Connection(upstream.port, upstream.ca_file).open(direct=True)
        try:
            return [await connection.ask(one.raw("talk")) for one in asks]
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("size", [1000, 100_000, 1_000_000])
def test_answers_are_as_large_as_they_say(size):
    """A JSON answer has the size to the byte, a stream about so many bytes."""
    assert len(bench_upstream.whole(size).partition(b"\r\n\r\n")[2]) == size
    assert sum(map(len, bench_upstream.burst(size))) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_requests_are_as_large_as_they_say(size):
    """The body of a request has about the size, and no header of the client's is missing."""
    head, _, body = bench_client.Ask("json 1", size).raw("talk").partition(b"\r\n\r\n")
    assert len(body) == pytest.approx(size, rel=0.2)
    assert f"content-length: {len(body)}".encode() in head


def test_a_kept_connection(upstream):
    """Answers of every kind come one after the other on one connection, each timed to its last byte."""
    kinds = ("json 1000", "sse 5000", "paced 5 2", "json 300000", "sse 300000")
    timings = asked(upstream, *map(bench_client.Ask, kinds))
    assert all(0 < timing.first <= timing.whole for timing in timings)
    paced = timings[2]
    assert (len(paced.late), len(paced.gaps)) == (5, 4)
    assert all(late >= 0 for late in paced.late)
    assert paced.whole >= sum(paced.gaps)


def test_a_hop(upstream):
    """A model is refused once, by a 429; the request that follows is served and told how long that took."""
    with pytest.raises(ConnectionError, match="user_model_rate_limited"):
        asked(upstream, bench_client.Ask("hop", model="a"))
    (timing,) = asked(upstream, bench_client.Ask("hop", model="a"))
    assert timing.hop > 0


def test_a_batch(upstream):
    """So many requests in all, however many at a time; or at least one, however short the time."""

    async def counts() -> list[int]:
        async with bench_client.Client(upstream.port, upstream.ca_file, direct=True) as client:
            batches = [
                await client.batch(bench_client.Ask("json 1000"), 3, requests=10),
                await client.batch(bench_client.Ask("json 1000"), 2, seconds=0.000001),
            ]
        return [len(batch.timings) for batch in batches]

    ten, some = asyncio.run(counts())
    assert ten == 10
    assert 1 <= some <= 2


def test_through_the_proxies():
    """The plain proxy, the one with the addon, and the plain one again all pass the same requests."""

    async def all_three() -> dict:
        async with traffic.running() as through:
            return await traffic.measured(through, bench_client.Ask("sse 2000", 2000), 2, 1, 0.01)

    sums = asyncio.run(all_three())
    assert set(sums) == {traffic.PLAIN, traffic.OURS, traffic.AGAIN}
    assert all(one.timings and one.seconds > 0 for one in sums.values())
    assert all(one.cpu > 0 or math.isnan(one.cpu) for one in sums.values())


@pytest.mark.parametrize(("share", "found"), [(0, 1), (10, 2), (50, 6), (99, 10), (100, 10)], ids=str)
def test_percentiles(share, found):
    """Of ten numbers."""
    assert figures.percentile(range(10, 0, -1), share) == found


def test_a_percentile_of_nothing():
    """It is no number, and no error."""
    assert math.isnan(figures.percentile([], 50))
    assert figures.ratio(1.0, math.nan) == figures.ratio(1.0, 0.0) == "-"


def test_the_rules_that_are_measured():
    """The pools of the bench do what their names say."""
    pool = rules.a_pool(3)
    rules.cooling(pool, 6)
    rules.served(pool, 5, 2, 1.0)
    rules.failed_over(pool, 4, 10_000.0)
    accounts = pool.snapshot(10_000.0).accounts
    assert sum(account.served for account in accounts) == 9
    assert sum(account.refused for account in accounts) == 10
    assert sum(len(account.rests) for account in accounts) >= 6


@pytest.mark.parametrize(
    ("name", "ready", "first"),
    [
        pytest.param("a new conversation, sticky", 3, "a0", id="sticky"),
        pytest.param("every account tells its quota", 3, "a2", id="quota told"),
        pytest.param("the conversation's own account rests", 2, "a1", id="its account rests"),
        pytest.param("all but one account rest", 1, "a2", id="rests"),
        pytest.param("all accounts rest: the client is told", 0, None, id="all rest"),
        pytest.param("all but one lack the model", 1, "a2", id="model missing"),
        pytest.param("all but one stand in another fence", 1, "a2", id="fenced"),
    ],
)
def test_the_situations_that_are_measured(name, ready, first):
    """Each is what its name says, for the first request that is measured and after it."""
    pool = rules.SITUATIONS[name](3)
    found = pool.explain("gpt-4.1", "c0", rules.LATER)
    assert (len(found.candidates), found.chosen) == (ready, first)
    before = [account.served for account in pool.snapshot(rules.LATER).accounts]
    rules.asked(pool, 2, 0)
    after = [account.served for account in pool.snapshot(rules.LATER).accounts]
    assert sum(after) - sum(before) == (2 if ready else 0)
    assert len(pool.explain("gpt-4.1", None, rules.LATER).candidates) == ready


def test_each_strategy_is_measured():
    """There is a row for each."""
    names = {pool(2).snapshot(0.0).strategy for name, pool in rules.SITUATIONS.items() if "a new conv" in name}
    assert names == set(STRATEGIES)
