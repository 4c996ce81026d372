"""Measurements, printed as tables; nothing is asserted. Figures are of this machine, at this moment.

rules: what one request costs the pool (assign, record, finish), against the number of accounts and conversations.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from pydantic import SecretStr

from copilot_balancer.accounts import Account, Decisions
from copilot_balancer.outcomes import SERVED, classify
from copilot_balancer.pool import Attempt, Policy, Pool, PoolRequest, Tried

ROUNDS = 15
REFUSED = classify(429, {"retry-after": "30"}, b'{"error":{"code":"user_global_rate_limited:pro"}}', wall=0.0)


def a_pool(accounts: int, strategy: str = "hybrid") -> Pool:
    """A pool of ready accounts that have all served once."""
    stored = tuple(
        Account(id=f"github.com:{number}", label=f"a{number}", token=SecretStr(f"gho_{number:016}"))
        for number in range(accounts)
    )
    return Pool(Policy(strategy=strategy), Decisions(accounts=stored, terms_accepted_at=1.0), 0.0)


def served(pool: Pool, requests: int, conversations: int, start: float) -> None:
    """Requests that are served at once, in so many conversations in turn."""
    for number in range(requests):
        now = start + number * 0.01
        request = PoolRequest(f"r{start}-{number}", "gpt-4.1", now, conversation=f"c{number % conversations}")
        attempt = pool.assign(request, now)
        assert isinstance(attempt, Attempt)
        pool.record(attempt, SERVED, now)
        pool.finish(request.id, now)


def failed_over(pool: Pool, requests: int, start: float) -> None:
    """Requests that the first account refuses and the second one serves; every rest is over before the next one."""
    for number in range(requests):
        now = start + number * 1000.0
        request = PoolRequest(f"f{start}-{number}", "gpt-4.1", now)
        first = pool.assign(request, now)
        assert isinstance(first, Attempt)
        pool.record(first, REFUSED, now)
        request = replace(request, tried=(Tried(first, REFUSED, now),))
        second = pool.assign(request, now)
        assert isinstance(second, Attempt)
        pool.record(second, SERVED, now)
        pool.finish(request.id, now)


def microseconds(work: Callable[[float], None], requests: int) -> Iterator[float]:
    """Microseconds a request, each round."""
    for number in range(ROUNDS):
        began = time.perf_counter()
        work(1e6 * (number + 1))
        yield (time.perf_counter() - began) / requests * 1e6


def rules() -> None:
    """Print what one request costs the pool."""
    print("rules: microseconds a request in the pool (median of", ROUNDS, "rounds; fastest in brackets)")
    print(f"{'':34}{'served at once':>18}{'failed over once':>20}")
    for accounts in (1, 10, 100, 1000):
        pool = a_pool(accounts)
        requests = max(200, 5000 // accounts)
        once = list(microseconds(lambda at, p=pool, n=requests: served(p, n, 8, at), requests))
        twice: list[float] = []
        if accounts > 1:
            pool = a_pool(accounts)
            twice = list(microseconds(lambda at, p=pool, n=requests: failed_over(p, n, at), requests))
        cells = [f"{statistics.median(cell):.0f} [{min(cell):.0f}]" if cell else "-" for cell in (once, twice)]
        print(f"{f'{accounts} accounts, 8 conversations':34}{cells[0]:>18}{cells[1]:>20}")
    for conversations in (100, 10_000, 1_000_000):
        pool = a_pool(10)
        served(pool, min(conversations, 20_000), conversations, 0.0)
        once = list(microseconds(lambda at, p=pool, n=conversations: served(p, 2000, n, at), 2000))
        cell = f"{statistics.median(once):.0f} [{min(once):.0f}]"
        print(f"{f'10 accounts, {conversations} conversations':34}{cell:>18}")


PARTS = {"rules": rules}

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("part", nargs="*", choices=[[], *PARTS], help="what to measure; by default everything")
    for part in arguments.parse_args().part or PARTS:
        PARTS[part]()
