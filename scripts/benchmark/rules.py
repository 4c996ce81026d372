"""What one request costs the pool (assign, record, finish): against accounts, conversations, and what is remembered.

A conversation that goes on looks at its own account alone. A new one, and a failover, look at every account once.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pydantic import SecretStr

from benchmark.figures import table
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.classify import classify
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.ranking import STRATEGIES
from copilot_balancer.rules.state import MAX_CONVERSATIONS
from copilot_balancer.rules.types import SERVED, Attempt, Outcome, Policy, PoolRequest, Tried

REFUSED = classify(429, {"retry-after": "30"}, b'{"error":{"code":"user_global_rate_limited:pro"}}', wall=0.0)
MODEL_REFUSED = classify(429, {"retry-after": "80000"}, b'{"error":{"code":"user_model_rate_limited:pro"}}', wall=0.0)
LONG_REFUSED = classify(429, {"retry-after": "80000"}, b'{"error":{"code":"user_global_rate_limited:pro"}}', wall=0.0)
MISSING = classify(400, {}, b'{"error":{"code":"model_not_supported"}}', wall=0.0)
ROUNDS, ROUND = 15, 50
"""How often it is measured, and how many requests `asked` is then about."""
LATER = 10.0
"""When the requests of `asked` come: what happened before still holds."""


def a_pool(accounts: int, strategy: str = "hybrid", fenced: int = 0) -> Pool:
    """A pool of ready accounts; so many of them stand in another fence than the requests."""
    stored = tuple(
        Account(
            id=f"github.com:{number}",
            label=f"a{number}",
            token=SecretStr(f"gho_{number:016}"),
            fence="default" if number >= fenced else "other",
        )
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


def cooling(pool: Pool, models: int) -> None:
    """Let one account rest for each of so many models, other than the one that is asked for."""
    for number in range(models):
        request = PoolRequest(f"m{number}", f"model-{number}", 0.0)
        attempt = pool.assign(request, 0.0)
        assert isinstance(attempt, Attempt)
        pool.record(attempt, MODEL_REFUSED, 0.0)
        pool.finish(request.id, 0.0)


def asked(pool: Pool, requests: int, first: int) -> None:
    """Requests of a conversation each; who is sent upstream is served."""
    for number in range(first, first + requests):
        request = PoolRequest(f"a{number}", "gpt-4.1", LATER, conversation=f"c{number}")
        found = pool.assign(request, LATER)
        if isinstance(found, Attempt):
            pool.record(found, SERVED, LATER)
        pool.finish(request.id, LATER)


def answered(pool: Pool, accounts: int, outcome: Outcome) -> Pool:
    """The pool after so many of its accounts have given this answer."""
    for number in range(accounts):
        request = PoolRequest(f"o{number}", "gpt-4.1", 0.0, only=f"github.com:{number}")
        attempt = pool.assign(request, 0.0)
        assert isinstance(attempt, Attempt)
        pool.record(attempt, outcome, 0.0)
        pool.finish(request.id, 0.0)
    return pool


def told(pool: Pool, accounts: int) -> Pool:
    """The pool after each account has told what is left of its quota."""
    for number in range(accounts):
        session, month = QuotaWindow(50.0 + 40.0 * number / accounts, 9000.0), QuotaWindow(60.0, 1e6)
        pool.learn_quota(f"github.com:{number}", {"session": session, "premium": month})
    return pool


def settled(pool: Pool, conversations: int) -> Pool:
    """The pool after so many conversations were served by its first account, which rests now."""
    for number in range(conversations):
        request = PoolRequest(f"p{number}", "gpt-4.1", 0.0, conversation=f"c{number}", only="github.com:0")
        attempt = pool.assign(request, 0.0)
        assert isinstance(attempt, Attempt)
        pool.finish(request.id, 0.0)
    return answered(pool, 1, LONG_REFUSED)


SITUATIONS: dict[str, Callable[[int], Pool]] = {
    **{f"a new conversation, {name}": partial(a_pool, strategy=name) for name in STRATEGIES},
    "every account tells its quota": lambda n: told(a_pool(n), n),
    "the conversation's own account rests": lambda n: settled(a_pool(n), ROUNDS * ROUND),
    "all but one account rest": lambda n: answered(a_pool(n), n - 1, LONG_REFUSED),
    "all accounts rest: the client is told": lambda n: answered(a_pool(n), n, LONG_REFUSED),
    "all but one lack the model": lambda n: answered(a_pool(n), n - 1, MISSING),
    "all but one stand in another fence": lambda n: a_pool(n, fenced=n - 1),
}
"""What may meet the first request of a conversation -> a pool of so many accounts where it does."""


def rules(*, quick: bool) -> None:
    """Print what one request costs the pool."""
    rounds = 3 if quick else ROUNDS

    def at_once(pool: Pool, conversations: int, requests: int) -> str:
        return _cell(
            lambda number: served(pool, requests, conversations, 1.0 + number * 0.01 * requests), requests, rounds
        )

    def twice(pool: Pool, requests: int) -> str:
        return _cell(lambda number: failed_over(pool, requests, 1.0 + number * 1000.0 * requests), requests, rounds)

    rows = []
    for accounts in (1, 10, 100, 1000):
        requests = max(50 if quick else 200, 2000 // accounts)
        over = twice(a_pool(accounts), requests) if accounts > 1 else "-"
        rows.append([f"{accounts} accounts, 8 conversations", at_once(a_pool(accounts), 8, requests), over])
    for conversations in (10**2, 10**3, 10**4) if quick else (10**2, 10**3, 10**4, 10**5, 10**6):
        pool = a_pool(10)
        served(pool, min(conversations, 2 * MAX_CONVERSATIONS), conversations, 0.0)
        rows.append([f"10 accounts, {conversations:,} conversations", at_once(pool, conversations, 2000), ""])
    for models in (10, 600) if quick else (10, 100, 600):  # an account keeps 64 rests at most
        pool = a_pool(10)
        cooling(pool, models)
        rows.append([f"10 accounts, {models:,} rests of other models", at_once(pool, 8, 500), ""])
    table(
        f"rules: microseconds a request in the pool, median of {rounds} rounds [fastest]",
        ["", "served at once", "failed over once"],
        rows,
    )
    rows = []
    for name, situation in SITUATIONS.items():
        pools = [situation(accounts) for accounts in (10, 100)]
        rows.append([name, *(_cell(partial(_asked_again, pool), ROUND, rounds) for pool in pools)])
    table(
        f"rules: microseconds a first request of a conversation, median of {rounds} rounds [fastest]",
        ["", "10 accounts", "100 accounts"],
        rows,
    )


def _asked_again(pool: Pool, number: int) -> None:
    asked(pool, ROUND, number * ROUND)


def _cell(work: Callable[[int], None], requests: int, rounds: int) -> str:
    """Microseconds a request: the median of the rounds, and the fastest."""
    found = []
    for number in range(rounds):
        began = time.perf_counter()
        work(number)
        found.append((time.perf_counter() - began) / requests * 1e6)
    return f"{statistics.median(found):.0f} [{min(found):.0f}]"
