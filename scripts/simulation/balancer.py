"""Who is compared: the very ``Pool`` of the product under a strategy, and ``naive``; both are asked in the same words.

The pool is driven as exchange.py drives it, through ``classify`` and ``read_headers``; time is a number.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import SecretStr

from copilot_balancer.copilot.quota import read_headers
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.classify import classify
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.ranking import STRATEGIES
from copilot_balancer.rules.types import Attempt, Hold, NobodyKind, Policy, PoolRequest, Tried
from simulation.upstream import EPOCH, Answer, Upstream
from simulation.world import Demand

NAIVE = "naive"
MAX_ATTEMPTS = 3
LONGEST_TOLD = 60.0
"""The longest ``Retry-After`` that a client is given: ``Policy.retry_after_cap``, and the same for ``naive``."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send it with this account."""

    label: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again then."""

    until: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The client gets this answer."""

    status: int
    retry_after: float | None


class Trip(Protocol):
    """One client request on its way through the proxy, as exchange.py sees it."""

    def choose(self, now: float) -> Send | Wait | GiveUp:
        """Where to now? Asked at first, after each wait and after each refusal."""

    def answered(self, answer: Answer, now: float) -> None:
        """A refusal, or the head of a success."""

    def over(self, now: float) -> None:
        """The client has its whole answer."""


class Balancer(Protocol):
    """The proxy of one run."""

    def trip(self, demand: Demand, name: str, now: float) -> Trip:
        """A request has come from a client."""

    def conversation_begins(self, now: float) -> None:
        """A client has started and asked for the list of models."""


OWN_ERRORS = {NobodyKind.LIMITED: 429, NobodyKind.NO_MODEL: 400, NobodyKind.NEEDS_LOGIN: 401}
"""As in exchange.py; anything else is a 403."""


class PoolTrip:
    """A request through the pool."""

    def __init__(self, pool: Pool, request: PoolRequest) -> None:
        self._pool, self._request = pool, request
        self._answers: list[Answer] = []
        self._attempt: Attempt | None = None

    def choose(self, now: float) -> Send | Wait | GiveUp:
        """As ``Exchange._an_account`` and ``Exchange._nobody``."""
        found = self._pool.assign(self._request, EPOCH + now)
        if isinstance(found, Attempt):
            self._attempt = found
            return Send(found.account_id.partition(":")[2])
        if isinstance(found, Hold):
            return Wait(found.until - EPOCH)
        given = self._answers[found.give] if found.give is not None else None
        told = given.headers.get("retry-after") if given else None
        retry_after = found.retry_after if found.retry_after is not None else told and float(told)
        return GiveUp(given.status if given else OWN_ERRORS.get(found.kind, 403), retry_after or None)

    def answered(self, answer: Answer, now: float) -> None:
        """As ``Exchange.head`` and ``Exchange.judge``."""
        assert self._attempt is not None
        moment = EPOCH + now
        outcome = classify(answer.status, answer.headers, answer.body, wall=moment)
        if answer.status == 200:
            windows = read_headers(answer.headers, wall=moment, now=moment)
            self._pool.record(self._attempt, outcome, moment, windows)
            return
        self._answers.append(answer)
        self._pool.record(self._attempt, outcome, moment)
        tried = Tried(self._attempt, outcome, moment)
        self._request = replace(self._request, tried=(*self._request.tried, tried))

    def over(self, now: float) -> None:
        """As ``Exchange.let_go``."""
        self._pool.finish(self._request.id, EPOCH + now)


class PoolBalancer:
    """The product's pool under one strategy."""

    def __init__(self, strategy: str, accounts: Sequence[Upstream]) -> None:
        stored = tuple(
            Account(id=f"github.com:{a.label}", label=a.label, token=SecretStr(f"simulated-{a.label}"))
            for a in accounts
        )
        policy = Policy(strategy=strategy, max_attempts=MAX_ATTEMPTS, retry_after_cap=LONGEST_TOLD)
        self._pool = Pool(policy, Decisions(accounts=stored, terms_accepted_at=1.0), EPOCH)
        self._home = (stored[0].id, sorted(accounts[0].models))

    def trip(self, demand: Demand, name: str, now: float) -> PoolTrip:
        """A request of the pool."""
        return PoolTrip(self._pool, PoolRequest(name, demand.model, EPOCH + now, demand.conversation))

    def conversation_begins(self, now: float) -> None:
        """The home account answers ``/models``, and the pool learns from it."""
        self._pool.learn_models(*self._home, EPOCH + now)


class NaiveTrip:
    """To the next account in turn, three at most; a 429 goes to the client rather than another refusal."""

    def __init__(self, order: list[str]) -> None:
        self._left = order[:MAX_ATTEMPTS]
        self._refusals: list[Answer] = []

    def choose(self, now: float) -> Send | Wait | GiveUp:  # noqa: ARG002 - as a trip is asked
        """The next one."""
        if self._left:
            return Send(self._left.pop(0))
        limits = [float(a.headers["retry-after"]) for a in self._refusals if a.status == 429]
        return GiveUp(429, min(*limits, LONGEST_TOLD)) if limits else GiveUp(self._refusals[-1].status, None)

    def answered(self, answer: Answer, now: float) -> None:  # noqa: ARG002 - as a trip is told
        """Refusals are kept for the client only."""
        if answer.status != 200:
            self._refusals.append(answer)

    def over(self, now: float) -> None:
        """Nothing is remembered."""


class NaiveBalancer:
    """Plain round-robin: whose turn is next is all that it knows."""

    def __init__(self, accounts: Sequence[Upstream]) -> None:
        self._turns = deque(account.label for account in accounts)

    def trip(self, demand: Demand, name: str, now: float) -> NaiveTrip:  # noqa: ARG002 - it looks at none of them
        """The next in turn first."""
        order = list(self._turns)
        self._turns.rotate(-1)
        return NaiveTrip(order)

    def conversation_begins(self, now: float) -> None:
        """It does not look at lists."""


STRATEGY_NAMES = (*STRATEGIES, NAIVE)


def make_balancer(strategy: str, accounts: Sequence[Upstream]) -> Balancer:
    """The proxy under this strategy."""
    return NaiveBalancer(accounts) if strategy == NAIVE else PoolBalancer(strategy, accounts)
