"""A world of the simulation by chance: which accounts there are, and which requests are wanted when.

It follows from the seed alone, and is fixed before the first request: no answer changes what is wanted.
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from simulation.upstream import Upstream, Window, capacity

HOURS = 10.0
WINDOW = 5 * 3600.0
"""The service speaks of "5 hour session limits" (docs/copilot-protocol.md#limits)."""
REQUESTS = 2500
"""About what all accounts can serve in that time."""
LOAD = 0.95
SEATS = 8
"""Conversations at a time."""
PATIENCE = 300.0
"""Seconds from when a request is wanted to its deadline."""

SMALL_MODEL = "gpt-5-mini"
"""Every account has it; every conversation asks for it now and then (titles, summaries)."""
MODELS = {SMALL_MODEL: 1.0, "claude-sonnet-4.6": 0.75, "gpt-5.3-codex": 0.5, "claude-opus-4.6": 0.35}
"""Model -> how likely an account has it; at least one does."""
WANTED = {"claude-sonnet-4.6": 0.35, "gpt-5.3-codex": 0.2, "claude-opus-4.6": 0.1}
"""Model -> its share of the conversations, as far as those who have it can serve that much; the rest wants the small
one."""


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
