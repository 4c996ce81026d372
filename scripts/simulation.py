"""How good is each strategy? Simulated working days, against the best that anyone could have done.

What is simulated:

- Accounts with hidden limits. Each has windows of five hours that follow one another, each serves so many requests,
  then comes a 429 with ``Retry-After`` = the true reset. Some have a limit for one model inside each window (429), some
  a quota over several windows (402, half of them without a hint). Models stand on some accounts only (400). Half of
  the accounts tell in the headers of a success what is left of the window, counted late, as the service does.
- Eight conversations at a time. Together they want 0.95 of what all accounts can serve. What they want and when is
  fixed in advance. A request does not wait for the one before it in its conversation: agents have sub-agents.
- Clients as they were measured (clients.md 6): after a 429 they wait as long as ``Retry-After`` says, come back five
  times at most, and show anything else to the user.
- The proxy: the very ``Pool`` of the product, driven as exchange.py drives it, through ``classify`` and
  ``read_headers``; time is a number. ``naive`` is plain round-robin without cooldowns, to compare with: each request
  goes to the next account in turn, after a refusal to the next, three at most; nothing else is remembered.

What is measured:

- optimum: the most requests that could have been accepted within 300 s after they were wanted, with everything known in
  advance: a maximum flow from the requests through the windows and quotas. Who knew could reach it, and nobody more.
- goodput: requests that an account accepted within 300 s after they were wanted, divided by the optimum.
- wasted: answers 4xx of accounts by 1000 requests. The first of a window counts too, though only by it a hidden limit
  can be known.
- in a window: of these the 429 and 402, by (account, model, window of the limit) in which there were any; 1 is the
  least. Refusals of requests that were under way at the same time count once: nobody could have known.
- model missing: of these the 400, by (account, model that it lacks) where there were any.
- switches: a request of a conversation was accepted by another account than the one before; by 100 accepted.
- attempts: sends upstream by accepted request.

Each number is a mean over the seeds, in brackets the worst of them. The same seed gives the same numbers, bit for bit.
"""

import argparse
import heapq
import json
import math
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from pydantic import SecretStr

from copilot_balancer.accounts import Account, Decisions
from copilot_balancer.outcomes import classify
from copilot_balancer.pool import Attempt, Hold, NobodyKind, Policy, Pool, PoolRequest, Tried
from copilot_balancer.quota import read_headers
from copilot_balancer.strategies import STRATEGIES

EPOCH = 1_800_000_000.0
"""Both clocks at the beginning; all other times here are seconds since then."""
HOURS = 10.0
WINDOW = 5 * 3600.0
"""The service speaks of "5 hour session limits" (copilot-protocol.md 5.2)."""
REQUESTS = 2500
"""About what all accounts can serve in that time."""
LOAD = 0.95
SEATS = 8
"""Conversations at a time."""
PATIENCE = 300.0
"""Seconds from when a request is wanted to its deadline."""
REFUSED_AFTER = 0.3
"""Seconds from sending a request to its refusal."""
COUNTED_EVERY = 30.0
"""The service counts late: what its headers tell is this old at most."""
MAX_ATTEMPTS = 3
LONGEST_TOLD = 60.0
"""The longest ``Retry-After`` that a client is given: ``Policy.retry_after_cap``, and the same for ``naive``."""

SMALL_MODEL = "gpt-5-mini"
"""Every account has it; every conversation asks for it now and then (titles, summaries)."""
MODELS = {SMALL_MODEL: 1.0, "claude-sonnet-4.6": 0.75, "gpt-5.3-codex": 0.5, "claude-opus-4.6": 0.35}
"""Model -> how likely an account has it; at least one does."""
WANTED = {"claude-sonnet-4.6": 0.35, "gpt-5.3-codex": 0.2, "claude-opus-4.6": 0.1}
"""Model -> its share of the conversations, as far as those who have it can serve that much; the rest wants the small
one."""

NAIVE = "naive"

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"


# --- the world: what is there and what is wanted ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """What an account serves between two resets."""

    begins: float
    ends: float
    capacity: int
    whole: int
    """What it would serve if our time did not cut it off: percentages are told of that."""
    of_model: Mapping[str, int] = field(default_factory=dict)
    """A limit for one model within it."""
    period: int = 0
    """Index into ``Upstream.quotas``."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One account as the service knows it."""

    label: str
    models: frozenset[str]
    windows: tuple[Window, ...]
    quotas: tuple[int | None, ...] = (None,)
    """Requests in each quota period; None: as many as the windows allow."""
    tells: bool = False
    """A success says what is left."""
    hints: bool = False
    """A 402 says when the quota resets."""
    missing: str = "model_not_supported"
    """The code with which it refuses a model that it does not have."""

    def at(self, now: float) -> int:
        """Index of the window that runs."""
        return next(i for i, window in enumerate(self.windows) if now < window.ends)

    def period_ends(self, period: int) -> float | None:
        """When the quota of `period` resets; None: not in our time."""
        return next((window.begins for window in self.windows if window.period > period), None)


@dataclass(frozen=True, slots=True)
class Demand:
    """A request that a user wants served."""

    id: int
    conversation: str
    model: str
    due: float
    """It is wanted from then on."""
    deadline: float
    head: float
    """Seconds until the head of its answer comes ..."""
    stream: float
    """... and until the answer ends."""
    client: str
    luck: float
    """0 to 1, for the client's jitter."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a strategy does not know."""

    accounts: tuple[Upstream, ...]
    demands: tuple[Demand, ...]


def make_world(seed: int, *, requests: int = REQUESTS, hours: float = HOURS, seats: int = SEATS) -> World:
    """A world by chance; `requests`: about how many all accounts can serve in `hours`."""
    chance = random.Random(f"copilot-balancer {seed}")
    span = hours * 3600
    count = chance.choice((3, 4, 4, 5))
    weights = [chance.uniform(0.5, 1.5) for _ in range(count)]
    shares = [weight / sum(weights) for weight in weights]
    has = _who_has_what(chance, count)
    accounts = tuple(
        _make_account(chance, index, requests * shares[index], span, frozenset(m for m in MODELS if index in has[m]))
        for index in range(count)
    )
    wanted = {model: min(share, 0.6 * sum(shares[i] for i in has[model])) for model, share in WANTED.items()}
    wanted[SMALL_MODEL] = 1 - sum(wanted.values())
    total = round(LOAD * capacity(accounts))
    demands: list[Demand] = []
    for seat in range(seats):
        count = total // seats + (seat < total % seats)
        demands += _make_seat(chance, seat, range(len(demands), len(demands) + count), span, wanted)
    return World(accounts, tuple(demands))


def _who_has_what(chance: random.Random, count: int) -> dict[str, set[int]]:
    return {
        model: {index for index in range(count) if chance.random() < likely} or {chance.randrange(count)}
        for model, likely in MODELS.items()
    }


def _make_account(chance: random.Random, index: int, serves: float, span: float, models: frozenset[str]) -> Upstream:
    kind = chance.choice(("windows only", "windows only", "quota", "quota that resets"))
    each = serves * WINDOW / span * (1.0 if kind == "windows only" else 1.3)
    limited = chance.choice(sorted(models - {SMALL_MODEL})) if chance.random() < 0.3 and len(models) > 1 else None
    opened, windows = -chance.uniform(0, WINDOW), []
    resets = span / 2 if kind == "quota that resets" else math.inf
    while opened < span + PATIENCE:
        # our time cuts off the first and the last, and what they serve likewise: the account is used elsewhere as well
        begins, ends = max(opened, 0.0), min(opened + WINDOW, span + PATIENCE)
        serve = round(each * (ends - begins) / WINDOW)
        of_model = {limited: max(1, serve // 3)} if limited else {}
        windows.append(Window(begins, ends, serve, round(each), of_model, int(opened >= resets)))
        opened += WINDOW
    quotas: tuple[int | None, ...] = (None,)
    if kind != "windows only":
        periods = range(windows[-1].period + 1)
        quotas = tuple(round(sum(w.capacity for w in windows if w.period == period) / 1.3) for period in periods)
    return Upstream(
        label=f"account{index + 1}",
        models=models,
        windows=tuple(windows),
        quotas=quotas,
        tells=chance.random() < 0.5,
        hints=chance.random() < 0.5,
        missing=chance.choice(("model_not_supported", "no_available_model_endpoints")),
    )


def _make_seat(
    chance: random.Random, seat: int, ids: Iterable[int], span: float, wanted: Mapping[str, float]
) -> list[Demand]:
    """Conversations one after another: turns of a few requests (tools), pauses of the user between them."""
    client = "opencode" if seat % 2 == 0 else "copilot-cli"
    drafts: list[tuple[float, float, Demand]] = []
    talk, left_in_talk, left_in_turn, main = 0, 0, 0, SMALL_MODEL
    for id_ in ids:
        pause, tool = 0.0, 0.0
        if not left_in_talk:
            talk, left_in_talk, left_in_turn = talk + 1, chance.randint(10, 60), 0
            main = chance.choices(list(wanted), list(wanted.values()))[0]
            pause += 3 * chance.expovariate(1.0)
        if left_in_turn:
            tool = chance.expovariate(1 / 4.0)
        else:
            left_in_turn = 1 + int(chance.expovariate(1 / 6.0))
            pause += chance.expovariate(1.0)
        left_in_talk, left_in_turn = left_in_talk - 1, left_in_turn - 1
        model = main if chance.random() < 0.92 else SMALL_MODEL
        head = 0.5 + chance.expovariate(1 / 1.5)
        stream = head + chance.expovariate(1 / 8.0)
        draft = Demand(id_, f"{seat}-{talk}", model, 0.0, 0.0, head, stream, client, chance.random())
        drafts.append((pause, tool, draft))
    # the pauses are as long as it takes to fill our time
    busy = sum(tool + draft.stream for _, tool, draft in drafts)
    scale, due, found = max(0.0, span - busy) / sum(pause for pause, _, _ in drafts), 0.0, []
    for pause, tool, draft in drafts:
        due += pause * scale + tool
        found.append(replace(draft, due=due, deadline=due + PATIENCE))
        due += draft.stream
    return found


def capacity(accounts: Iterable[Upstream]) -> int:
    """How many requests these accounts can serve in all, of whatever model they have."""
    total = 0
    for account in accounts:
        for period, quota_left in enumerate(account.quotas):
            inside = sum(window.capacity for window in account.windows if window.period == period)
            total += inside if quota_left is None else min(inside, quota_left)
    return total


# --- the optimum ------------------------------------------------------------------------------------------------------


class Network:
    """A network whose maximum flow is found by Dinic's algorithm: shortest paths first, all of a length at once."""

    def __init__(self) -> None:
        self._names: dict[object, int] = {}
        self._edges: list[list[int]] = []
        """Node -> its edges; edge ``i`` and its way back ``i ^ 1`` stand side by side."""
        self._to: list[int] = []
        self._room: list[int] = []

    def _node(self, name: object) -> int:
        if name not in self._names:
            self._names[name] = len(self._edges)
            self._edges.append([])
        return self._names[name]

    def edge(self, tail: object, head: object, capacity: int) -> None:
        """At most `capacity` flows from `tail` to `head`."""
        ends = (self._node(tail), self._node(head))
        for here, there, room in ((*ends, capacity), (*ends[::-1], 0)):
            self._edges[here].append(len(self._to))
            self._to.append(there)
            self._room.append(room)

    def max_flow(self, source: object, sink: object) -> int:
        """How much can flow in all; asked once, since the network is used up by it."""
        start, goal, total = self._node(source), self._node(sink), 0
        while (levels := self._levels(start))[goal] >= 0:
            nexts = [0] * len(self._edges)
            while pushed := self._push(start, goal, levels, nexts):
                total += pushed
        return total

    def _levels(self, start: int) -> list[int]:
        levels = [-1] * len(self._edges)
        levels[start], queue = 0, deque([start])
        while queue:
            here = queue.popleft()
            for edge in self._edges[here]:
                if self._room[edge] and levels[self._to[edge]] < 0:
                    levels[self._to[edge]] = levels[here] + 1
                    queue.append(self._to[edge])
        return levels

    def _push(self, start: int, goal: int, levels: list[int], nexts: list[int]) -> int:
        """One path down the levels; 0 when there is none any more."""
        path: list[int] = []
        here = start
        while here != goal:
            while nexts[here] < len(self._edges[here]):
                edge = self._edges[here][nexts[here]]
                if self._room[edge] and levels[self._to[edge]] == levels[here] + 1:
                    path.append(edge)
                    here = self._to[edge]
                    break
                nexts[here] += 1
            else:
                if not path:
                    return 0
                here = self._to[path.pop() ^ 1]
                nexts[here] += 1
        room = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= room
            self._room[edge ^ 1] += room
        return room


def optimum(world: World) -> int:
    """The most demands that could have been accepted by their deadlines; requests with the same choices are one."""
    alike: Counter[tuple[str, tuple[tuple[int, int], ...]]] = Counter()
    for demand in world.demands:
        choices = tuple(
            (a, w)
            for a, account in enumerate(world.accounts)
            if demand.model in account.models
            for w, window in enumerate(account.windows)
            if window.begins <= demand.deadline and demand.due < window.ends
        )
        alike[demand.model, choices] += 1
    network = Network()
    for (model, choices), count in alike.items():
        network.edge("source", (model, choices), count)
        for a, w in choices:
            own = model in world.accounts[a].windows[w].of_model
            network.edge((model, choices), (a, w, model) if own else (a, w), count)
    for a, account in enumerate(world.accounts):
        for w, window in enumerate(account.windows):
            for model, limit in window.of_model.items():
                network.edge((a, w, model), (a, w), limit)
            network.edge((a, w), ("quota", a, window.period), window.capacity)
        for period, limited in enumerate(account.quotas):
            inside = sum(window.capacity for window in account.windows if window.period == period)
            network.edge(("quota", a, period), "sink", inside if limited is None else limited)
    return network.max_flow("source", "sink")


# --- the service ------------------------------------------------------------------------------------------------------


MISSING = "model missing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an account answered."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cause: str = ""
    """What refused it ..."""
    window: int = 0
    """... and in which of its windows: both for our statistics."""


class Service:
    """Copilot, as far as it counts and refuses."""

    def __init__(self, accounts: Iterable[Upstream]) -> None:
        self.accounts = {account.label: account for account in accounts}
        self._used: Counter[tuple[object, ...]] = Counter()
        self._told: dict[str, tuple[float, int, dict[str, str]]] = {}
        """Label -> (when its headers were last brought up to date, in which window, the headers)."""

    def answer(self, label: str, model: str, now: float) -> Answer:
        """Serve a request that arrives now, or refuse it. A refusal costs nothing (copilot-protocol.md 5.3)."""
        account = self.accounts[label]
        index = account.at(now)
        window = account.windows[index]
        quota_left = account.quotas[window.period]
        by_window, by_model, by_quota = (label, index), (label, index, model), (label, "quota", window.period)
        if model not in account.models:
            return _refusal(400, account.missing, MISSING, 0)
        if quota_left is not None and self._used[by_quota] >= quota_left:
            resets = account.period_ends(window.period) if account.hints else None
            wait = None if resets is None else resets - now
            return _refusal(402, "quota_exceeded", "quota", window.period, wait)
        if self._used[by_window] >= window.capacity:
            return _refusal(429, "user_global_rate_limited:pro", "session limit", index, window.ends - now)
        if self._used[by_model] >= window.of_model.get(model, math.inf):
            return _refusal(429, f"user_model_rate_limited:{model}", "model limit", index, window.ends - now)
        self._used.update((by_window, by_model, by_quota))
        return Answer(200, self._headers(account, index, now) if account.tells else {})

    def _headers(self, account: Upstream, index: int, now: float) -> dict[str, str]:
        """What is left of the window, as on each success (copilot-protocol.md 7.2), counted late."""
        told = self._told.get(account.label)
        if told is None or told[1] != index or now - told[0] >= COUNTED_EVERY:
            window = account.windows[index]
            left = (window.capacity - self._used[account.label, index]) / window.whole
            date = quote(datetime.fromtimestamp(EPOCH + window.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            text = f"ent=0&ov=0.0&ovPerm=false&rem={100 * left:.1f}&rst={date}"
            told = self._told[account.label] = (now, index, {"x-usage-ratelimit-session": text})
        return told[2]


def _refusal(status: int, code: str, cause: str, window: int, wait: float | None = None) -> Answer:
    headers = {} if wait is None else {"retry-after": str(math.ceil(wait))}
    return Answer(status, headers, json.dumps({"error": {"message": code, "code": code}}).encode(), cause, window)


# --- the clients ------------------------------------------------------------------------------------------------------

BACKOFF = {"opencode": (2.4, 4.5, 8.9, 19.0, 36.0), "copilot-cli": (5.5, 6.0, 8.0, 15.0, 22.0)}
"""Seconds that a client waits after a 429 without ``Retry-After``, by how often it came back (clients.md 6)."""


def comes_back_after(demand: Demand, status: int, told: float | None, retries: int) -> float | None:
    """Seconds until the client sends the request again; None: it shows the answer to its user."""
    waits = BACKOFF[demand.client]
    if status != 429 or retries >= len(waits):
        return None
    if told is None:
        return waits[retries]
    if demand.client == "opencode":
        return told
    # the Copilot CLI waits 10 to 25 % longer, and gives up at once when that is too long (seen at 400 s)
    return told * (1.1 + 0.15 * demand.luck) if told <= PATIENCE else None


# --- who balances -----------------------------------------------------------------------------------------------------


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
        """As ``Exchange.end``."""
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


# --- a run ------------------------------------------------------------------------------------------------------------


Where = tuple[str, str, str, int]
"""(account, model, what refused, index of its window)."""


@dataclass(slots=True)
class Tally:
    """What came of one run."""

    wanted: int
    optimum: int
    served: int = 0
    """Accepted by their deadline."""
    lost: Counter[str] = field(default_factory=Counter)
    """Why the others were not."""
    attempts: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """By what refused."""
    by_window: Counter[Where] = field(default_factory=Counter)
    """Refusals, those at the same time once."""
    switches: int = 0

    def limits(self) -> list[int]:
        """How often each window refused that did."""
        return [times for (_, _, cause, _), times in self.by_window.items() if cause != MISSING]

    def missing(self) -> list[int]:
        """How often each account was asked for a model that it lacks, where it was."""
        return [times for (_, _, cause, _), times in self.by_window.items() if cause == MISSING]


class Simulation:
    """One world under one balancer, event after event."""

    def __init__(self, world: World, balancer: Balancer, best: int) -> None:
        self._world, self._balancer = world, balancer
        self._service = Service(world.accounts)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._begun: set[str] = set()
        """Conversations."""
        self._last: dict[str, str] = {}
        """Conversation -> the account that accepted its last request."""
        self._known: dict[Where, float] = {}
        """When the last counted refusal came back."""
        self.tally = Tally(len(world.demands), best)
        self.ended: Counter[int] = Counter()
        """Demand -> how often it ended."""

    def run(self) -> Tally:
        """Until everything has ended."""
        for demand in self._world.demands:
            self._at(demand.due, partial(self._wanted, demand))
        while self._events:
            now, _, act = heapq.heappop(self._events)
            act(now)
        return self.tally

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, act))

    def _wanted(self, demand: Demand, now: float) -> None:
        if demand.conversation not in self._begun:
            self._begun.add(demand.conversation)
            self._balancer.conversation_begins(now)
        self._sends(demand, 0, now)

    def _sends(self, demand: Demand, retries: int, now: float) -> None:
        """The client sends its request, for the first time or again."""
        trip = self._balancer.trip(demand, f"{demand.id}.{retries}", now)
        self._goes_on(trip, demand, retries, now)

    def _goes_on(self, trip: Trip, demand: Demand, retries: int, now: float) -> None:
        """Where the proxy sends it now."""
        if now > demand.deadline:
            trip.over(now)
            self._lost(demand, "too late")
            return
        found = trip.choose(now)
        if isinstance(found, Wait):
            self._at(found.until, partial(self._goes_on, trip, demand, retries))
        elif isinstance(found, GiveUp):
            trip.over(now)
            wait = comes_back_after(demand, found.status, found.retry_after, retries)
            if wait is None:
                self._lost(demand, f"shown a {found.status}")
            else:
                self._at(now + wait, partial(self._sends, demand, retries + 1))
        else:
            self._upstream(trip, found.label, demand, retries, now)

    def _upstream(self, trip: Trip, label: str, demand: Demand, retries: int, now: float) -> None:
        """The request reaches an account."""
        answer = self._service.answer(label, demand.model, now)
        self.tally.attempts += 1
        if answer.status != 200:
            self._refused((label, demand.model, answer.cause, answer.window), now)

            def go_on(then: float) -> None:
                trip.answered(answer, then)
                self._goes_on(trip, demand, retries, then)

            self._at(now + REFUSED_AFTER, go_on)
            return
        self.tally.served += 1
        self.tally.switches += self._last.get(demand.conversation, label) != label
        self._last[demand.conversation] = label
        self.ended[demand.id] += 1
        self._at(now + demand.head, partial(trip.answered, answer))
        self._at(now + demand.stream, trip.over)

    def _refused(self, where: Where, now: float) -> None:
        self.tally.refusals[where[2]] += 1
        if now >= self._known.get(where, 0.0):
            self.tally.by_window[where] += 1
            self._known[where] = now + REFUSED_AFTER

    def _lost(self, demand: Demand, why: str) -> None:
        self.tally.lost[why] += 1
        self.ended[demand.id] += 1


def simulate(world: World, strategy: str, best: int) -> Tally:
    """One run; `best` is the optimum of the world."""
    return Simulation(world, make_balancer(strategy, world.accounts), best).run()


# --- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A measure of one run, and how it is shown."""

    title: str
    of: Callable[[Tally], float]
    digits: int
    aim: str = ""
    """For ``hybrid``."""
    more_is_better: bool = False


COLUMNS = (
    Column("goodput", lambda run: run.served / run.optimum, 3, ">= 0.98", more_is_better=True),
    Column("wasted", lambda run: 1000 * run.refusals.total() / run.wanted, 1),
    Column("in a window", lambda run: _mean(run.limits()), 2, "<= 1"),
    Column("model missing", lambda run: _mean(run.missing()), 1),
    Column("switches", lambda run: 100 * run.switches / max(run.served, 1), 1, "<= 5"),
    Column("attempts", lambda run: run.attempts / max(run.served, 1), 2),
)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def cells(runs: Sequence[Tally]) -> list[str]:
    """One row: each measure's mean over the runs and its worst."""
    found = []
    for column in COLUMNS:
        values = [column.of(run) for run in runs]
        worst = min(values) if column.more_is_better else max(values)
        found.append(f"{_mean(values):.{column.digits}f} ({worst:.{column.digits}f})")
    return found


def table(results: Mapping[str, Sequence[Tally]]) -> list[list[str]]:
    """The head and one row a strategy."""
    return [["strategy", *(column.title for column in COLUMNS)], *([name, *cells(results[name])] for name in results)]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for README."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def verdicts(runs: Sequence[Tally]) -> list[str]:
    """Whether ``hybrid`` keeps what is asked of it, in the mean over the seeds."""
    found = []
    for column in COLUMNS:
        if column.aim:
            value = round(_mean([column.of(run) for run in runs]), column.digits)
            relation, _, bound = column.aim.partition(" ")
            met = value >= float(bound) if relation == ">=" else value <= float(bound)
            found.append(f"{column.title} {value:.{column.digits}f}, aim {column.aim}: {'met' if met else 'MISSED'}")
    return found


def causes(results: Mapping[str, Sequence[Tally]]) -> list[list[str]]:
    """What refused, by 1000 requests, and in brackets the most in one window; why requests were lost, by 1000."""
    refused = sorted({cause for runs in results.values() for run in runs for cause in run.refusals})
    lost = sorted({why for runs in results.values() for run in runs for why in run.lost})
    rows = [["strategy", *refused, *(f"lost: {why}" for why in lost)]]
    for name, runs in results.items():
        row = [name]
        for cause in refused:
            most = max(
                (times for run in runs for where, times in run.by_window.items() if where[2] == cause), default=0
            )
            row.append(f"{_mean([1000 * run.refusals[cause] / run.wanted for run in runs]):.1f} ({most})")
        row += [f"{_mean([1000 * run.lost[why] / run.wanted for run in runs]):.1f}" for why in lost]
        rows.append(row)
    return rows


def replaced(text: str, block: str) -> str:
    """`text` with `block` between the two markers.

    Raises:
        ValueError: they do not stand there exactly once, in order.

    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the text needs {BEGIN} and after it {END}, each once")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def run_all(strategies: Iterable[str], seeds: int) -> dict[str, list[Tally]]:
    """Every strategy in the same worlds."""
    results: dict[str, list[Tally]] = {name: [] for name in strategies}
    for seed in range(seeds):
        world = make_world(seed)
        best = optimum(world)
        for name, runs in results.items():
            runs.append(simulate(world, name, best))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many worlds (20)")
    parser.add_argument("--strategy", action="append", choices=STRATEGY_NAMES, help="only this one; may be repeated")
    parser.add_argument("--why", action="store_true", help="also what refused, and why requests were lost")
    parser.add_argument("--markdown", action="store_true", help="the table for README, and nothing else")
    parser.add_argument("--write-readme", action="store_true", help="put that table between the markers in README.md")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1:
        parser.error("--seeds is at least 1")
    began = time.perf_counter()
    results = run_all(chosen.strategy or STRATEGY_NAMES, chosen.seeds)
    rows = table(results)
    if chosen.write_readme:
        try:
            README.write_text(replaced(README.read_text("utf-8"), as_markdown(rows)), "utf-8")
        except (OSError, ValueError) as error:
            print(f"README.md stays as it is: {error}", file=sys.stderr)
            return 1
    if chosen.markdown:
        print(as_markdown(rows))
        return 0
    print(__doc__[__doc__.index("What is measured") :])
    print(as_text(rows), end="\n\n")
    if chosen.why:
        print("What refused, by 1000 requests (the most in one window); what was lost, by 1000 requests:\n")
        print(as_text(causes(results)), end="\n\n")
    for verdict in verdicts(results.get("hybrid", ())) if "hybrid" in results else ():
        print(f"hybrid: {verdict}")
    print(f"{chosen.seeds} seeds, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
