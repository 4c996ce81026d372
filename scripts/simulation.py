"""How good is each strategy? Simulated working days, against the best that anyone could have done.

What is simulated:

- Accounts with hidden limits. Each has windows that follow one another (a session limit: so many requests, then 429
  with ``Retry-After`` = the true reset), some have a window of their own for one model inside each (429), some a quota
  over several windows (402; with or without a hint, with or without a reset). Models stand on some accounts only (400).
  Half of the accounts tell in the headers of a success what is left, rounded and 30 s late, as the service does.
- Eight conversations at a time, each one request after another. Together they want 0.95 of what all accounts can
  serve. What a conversation wants, and from when on, is fixed in advance; it waits for its own request before.
- Clients as they were measured (clients.md 6): after a 429 they wait as long as ``Retry-After`` says, come back five
  times at most, and show anything else to the user. A request that was not begun 300 s after it was wanted is lost.
- The proxy: the very ``Pool`` of the product, driven as exchange.py drives it, through ``classify`` and
  ``read_headers``; time is a number. ``naive`` is what it is compared with: each request goes to the next account in
  turn, after a refusal to the next, three at most; it remembers no refusal and no conversation.

What is measured:

- goodput: different requests of the users that an account accepted by their deadline, divided by the optimum.
- optimum: the most that could have been accepted by their deadlines with everything known in advance (every limit,
  every request), whatever the conversations' order: a maximum flow from requests through windows and quotas. No
  strategy can be above it.
- wasted refusals: all answers 4xx of an account, each one round trip for nothing; the first of a window too, though
  only by it a hidden limit can be known.
- in one window: the same by (account, model, window of the account). Refusals of requests that were under way at the
  same time count once: nobody could have known.
- switches: a conversation's request was accepted by another account than the one before.
- attempts: sends upstream by request of the users.

The same seed gives the same numbers, bit for bit.
"""

import argparse
import heapq
import json
import math
import random
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
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
AIMS = {"goodput": 0.98, "switches": 5.0, "in one window": 1}
"""For ``hybrid``: at least, at most, at most."""

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
    per_seat = [total // seats + (seat < total % seats) for seat in range(seats)]
    first = [sum(per_seat[:seat]) for seat in range(seats)]
    found = (_make_seat(chance, seat, first[seat], per_seat[seat], span, wanted) for seat in range(seats))
    return World(accounts, tuple(demand for seat in found for demand in seat))


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
        # the first and the last are cut off by our time, and what they serve likewise: the account is used elsewhere too
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
    chance: random.Random, seat: int, first: int, count: int, span: float, wanted: Mapping[str, float]
) -> tuple[Demand, ...]:
    """Conversations one after another: turns of a few requests (tools), pauses of the user between them."""
    client = "opencode" if seat % 2 == 0 else "copilot-cli"
    drafts: list[tuple[str, str, float, float, float, float]] = []
    talk, left_in_talk, left_in_turn, main = 0, 0, 0, SMALL_MODEL
    for _ in range(count):
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
        head = 0.5 + chance.expovariate(1 / 1.5)
        stream = head + chance.expovariate(1 / 8.0)
        drafts.append((f"{seat}-{talk}", main if chance.random() < 0.92 else SMALL_MODEL, pause, tool, head, stream))
    busy, paused = sum(d[3] + d[5] for d in drafts), sum(d[2] for d in drafts)
    scale, due, found = max(0.0, span - busy) / max(paused, 1e-9), 0.0, []
    for index, (conversation, model, pause, tool, head, stream) in enumerate(drafts):
        due += pause * scale + tool
        luck = chance.random()
        found.append(Demand(first + index, conversation, model, due, due + PATIENCE, head, stream, client, luck))
        due += stream
    return tuple(found)


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What an account answered."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cause: str = ""
    """What refused it, for our statistics."""


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
            return _refusal(400, account.missing, "model missing")
        if quota_left is not None and self._used[by_quota] >= quota_left:
            resets = account.period_ends(window.period) if account.hints else None
            return _refusal(402, "quota_exceeded", "quota", None if resets is None else resets - now)
        if self._used[by_window] >= window.capacity:
            return _refusal(429, "user_global_rate_limited:pro", "session limit", window.ends - now)
        if self._used[by_model] >= window.of_model.get(model, math.inf):
            return _refusal(429, f"user_model_rate_limited:{model}", "model limit", window.ends - now)
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


def _refusal(status: int, code: str, cause: str, wait: float | None = None) -> Answer:
    headers = {} if wait is None else {"retry-after": str(math.ceil(wait))}
    return Answer(status, headers, json.dumps({"error": {"message": code, "code": code}}).encode(), cause)


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


@dataclass(slots=True)
class Tally:
    """What came of one run."""

    wanted: int
    windows: int
    """How many (account, model, window) there are."""
    optimum: int = 0
    served: int = 0
    """Accepted by their deadline."""
    lost: Counter[str] = field(default_factory=Counter)
    """Why the others were not."""
    attempts: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """By what refused."""
    in_window: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """(account, model, window) -> refusals, those at the same time once."""
    switches: int = 0

    @property
    def goodput(self) -> float:
        return self.served / self.optimum

    @property
    def refused(self) -> float:
        """A thousand requests."""
        return 1000 * self.refusals.total() / self.wanted

    @property
    def mean_in_window(self) -> float:
        return self.in_window.total() / self.windows

    @property
    def most_in_window(self) -> int:
        return max(self.in_window.values(), default=0)

    @property
    def switched(self) -> float:
        """A hundred requests that were served."""
        return 100 * self.switches / max(self.served, 1)

    @property
    def attempts_each(self) -> float:
        return self.attempts / self.wanted


class Simulation:
    """One world under one balancer, event after event."""

    def __init__(self, world: World, balancer: Balancer) -> None:
        self._world, self._balancer = world, balancer
        self._service = Service(world.accounts)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._begun: set[str] = set()
        """Conversations."""
        self._last: dict[str, str] = {}
        """Conversation -> the account that accepted its last request."""
        self._known: dict[tuple[str, str, int], float] = {}
        """(account, model, window) -> when its last counted refusal came back."""
        names = sum(len(account.windows) for account in world.accounts) * len({d.model for d in world.demands})
        self.tally = Tally(wanted=len(world.demands), windows=names)
        self.ended: Counter[int] = Counter()
        """Demand -> how often it ended."""

    def run(self) -> Tally:
        """Until everything has ended."""
        for demand in self._world.demands:
            self._at(demand.due, lambda now, demand=demand: self._wanted(demand, now))
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
        """The client sends its request, or its user has lost patience."""
        if now > demand.deadline:
            self._lost(demand, "too late")
            return
        trip = self._balancer.trip(demand, f"{demand.id}.{retries}", now)
        self._goes_on(trip, demand, retries, now)

    def _goes_on(self, trip: Trip, demand: Demand, retries: int, now: float) -> None:
        found = trip.choose(now)
        if isinstance(found, Wait):
            self._at(found.until, lambda then: self._goes_on(trip, demand, retries, then))
        elif isinstance(found, GiveUp):
            trip.over(now)
            wait = comes_back_after(demand, found.status, found.retry_after, retries)
            if wait is None:
                self._lost(demand, f"shown a {found.status}")
            else:
                self._at(now + wait, lambda then: self._sends(demand, retries + 1, then))
        else:
            self._upstream(trip, found.label, demand, retries, now)

    def _upstream(self, trip: Trip, label: str, demand: Demand, retries: int, now: float) -> None:
        """The request reaches an account."""
        answer = self._service.answer(label, demand.model, now)
        self.tally.attempts += 1
        if answer.status != 200:
            self._refused((label, demand.model, self._service.accounts[label].at(now)), answer, now)

            def go_on(then: float) -> None:
                trip.answered(answer, then)
                self._goes_on(trip, demand, retries, then)

            self._at(now + REFUSED_AFTER, go_on)
            return
        if now <= demand.deadline:
            self.tally.served += 1
            self.tally.switches += self._last.get(demand.conversation, label) != label
            self._last[demand.conversation] = label
            self.ended[demand.id] += 1
        else:
            self._lost(demand, "too late")
        self._at(now + demand.head, lambda then: trip.answered(answer, then))
        self._at(now + demand.stream, trip.over)

    def _refused(self, key: tuple[str, str, int], answer: Answer, now: float) -> None:
        self.tally.refusals[answer.cause] += 1
        if now >= self._known.get(key, 0.0):
            self.tally.in_window[key] += 1
            self._known[key] = now + REFUSED_AFTER

    def _lost(self, demand: Demand, why: str) -> None:
        self.tally.lost[why] += 1
        self.ended[demand.id] += 1


def simulate(world: World, strategy: str, best: int | None = None) -> Tally:
    """One run; `best` is the optimum, when it is known already."""
    tally = Simulation(world, make_balancer(strategy, world.accounts)).run()
    tally.optimum = optimum(world) if best is None else best
    return tally
