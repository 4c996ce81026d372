"""A run: one world under one balancer, event after event, and what came of it.

Between the two stand the clients as they were measured (docs/clients.md#after-a-refusal): they come back after a
refusal, or show it to their users.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from simulation.balancer import Balancer, GiveUp, Trip, Wait, make_balancer
from simulation.upstream import MISSING, Service
from simulation.world import PATIENCE, Demand, World

REFUSED_AFTER = 0.3
"""Seconds from sending a request to its refusal."""
BACKOFF = {"opencode": (2.4, 4.5, 8.9, 19.0, 36.0), "copilot-cli": (5.5, 6.0, 8.0, 15.0, 22.0)}
"""Seconds that a client waits after a 429 without ``Retry-After``, by how often it came back
(docs/clients.md#after-a-refusal)."""


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
