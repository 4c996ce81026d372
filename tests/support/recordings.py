"""Pools that are recorded, and a chance-driven story of calls on one beside a twin that is not."""

import json
from dataclasses import replace

from hypothesis import strategies
from pydantic import SecretStr

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.ranking import STRATEGIES
from copilot_balancer.rules.state import Memory
from copilot_balancer.rules.types import SERVED, Attempt, Hold, Policy, PoolRequest, Route, Tried
from copilot_balancer.store.decision_log import Recorder
from support.pools import (
    BAD_CREDENTIALS,
    BLOCKED,
    EXPIRED,
    FAULT,
    HOUR,
    INTEGRATOR,
    LIMIT,
    MISSING,
    NO_ACCESS,
    OVERLOADED,
    QUOTA,
    REQUEST,
    RESET,
    SESSION,
    START,
    account,
    decisions,
    hinted,
)

OUTCOMES = [
    SERVED, LIMIT, hinted(LIMIT, 2 * HOUR), hinted(SESSION, 1.5), QUOTA, MISSING, INTEGRATOR, OVERLOADED, FAULT, RESET,
    NO_ACCESS, EXPIRED, BAD_CREDENTIALS, BLOCKED, REQUEST,
]  # fmt: skip
MODELS = ["gpt", "claude", "o9", "\ud800odd", None]
POLICIES = [
    Policy(strategy=name, wait=wait, routes=routes, preseed=preseed)
    for name, wait, routes, preseed in zip(
        sorted(STRATEGIES),
        (0.0, 30.0, 0.0, 0.1, 7.0),
        ((), (), (Route(("gpt*",), ("b", "a"), ("claude",)),), (), ()),
        ({}, {"a": ("gpt", "o*")}, {}, {}, {"c": ()}),
        strict=True,
    )
]


class Tape:
    """Where the lines of a recorder go; `left` is how many more it takes."""

    waiting_bytes = 0
    room = 0

    def __init__(self, left: float = float("inf")) -> None:
        self.left = left
        self.lines: list[str] = []

    def put_line(self, line: bytes, *, begins: bool) -> bool:
        assert line.count(b"\n") == 1
        assert line.isascii()
        assert begins == line.startswith(b'{"begin"')
        if len(self.lines) >= self.left:
            return False
        self.lines.append(line.decode().removesuffix("\n"))
        return True

    @property
    def raw(self) -> list[bytes]:
        """As they stand in a file."""
        return [line.encode() + b"\n" for line in self.lines]

    @property
    def read(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]

    def calls(self) -> list[str]:
        """The calls, and what stands between them."""
        return [line.get("call") or next(iter(line)) for line in self.read]


class Story:
    """Calls on a recorded pool and on its twin, which must answer alike."""

    def __init__(self, policy: Policy, tape: Tape) -> None:
        self.now, self.count, self.calls = START, 0, 0
        self.decisions = decisions("a", account("b", weight=3.0, reserve=20.0), "c")
        self.policy = policy
        self.inner = Pool(policy, self.decisions, self.now)
        self.pool = Recorder(self.inner, tape)
        self.twin = Pool(policy, self.decisions, self.now)
        self.open: list[tuple[PoolRequest, Attempt | None]] = []
        self.memories: list[Memory] = []

    def call(self, name: str, *arguments, **more):
        self.calls += 1
        ours = getattr(self.pool, name)(*arguments, **more)
        theirs = getattr(self.twin, name)(*arguments, **more)
        if name == "home":  # without its token an account is another one
            ours, theirs = ours and ours.id, theirs and theirs.id
        assert ours == theirs
        return ours

    def ask(self, model: str | None, conversation: str | None) -> None:
        self.count += 1
        self.assign(PoolRequest(f"r{self.count}", model, self.now, conversation))

    def assign(self, request: PoolRequest) -> None:
        found = self.call("assign", request, self.now)
        if isinstance(found, Attempt | Hold):
            self.open.append((request, found if isinstance(found, Attempt) else None))
        else:
            self.call("finish", request.id, self.now)

    def answer(self, index: int, outcome) -> None:
        request, attempt = self.open.pop(index % len(self.open))
        if attempt is not None:
            window = {"premium": QuotaWindow(float(self.count % 90), START + HOUR, seen_at=self.now)}
            self.call("record", attempt, outcome, self.now, window if self.count % 3 else {})
            request = replace(request, tried=(*request.tried, Tried(attempt, outcome, self.now)))
        if outcome is SERVED and attempt is not None:
            self.call("finish", request.id, self.now)
        else:
            self.assign(request)

    def decide(self, **changes) -> None:
        self.decisions = self.decisions.model_copy(update=changes)
        self.call("replace", self.decisions, self.now)

    def edit(self, index: int, **changes) -> None:
        accounts = list(self.decisions.accounts)
        if accounts:
            place = index % len(accounts)
            accounts[place] = accounts[place].model_copy(update=changes)
        self.decide(accounts=tuple(accounts))

    def remember(self, index: int) -> None:
        if self.memories:
            self.call("remember", self.memories[index % len(self.memories)], self.now)

    def step(self, what: str, number: int, outcome, model: str | None, conversation: str | None) -> None:
        match what:
            case "ask":
                self.ask(model, conversation)
            case "answer" if self.open:
                self.answer(number, outcome)
            case "leave" if self.open:
                request, _ = self.open.pop(number % len(self.open))
                self.call("finish", request.id, self.now)
            case "wait":
                self.now += (0.1, 1.7, 61.0, 900.3, 8000.0)[number % 5]
            case "token":
                self.edit(number, token=SecretStr(f"gho_another-canary-{number}"))
            case "switch":
                self.edit(number, enabled=number % 2 == 0, enabled_at=self.now)
            case "clear":
                self.edit(number, cleared={model or "": self.now + number - 3})
            case "balancing":
                self.decide(balancing=number % 2 == 0, home_id=f"github.com:{'abc'[number % 3]}")
            case "remove" if len(self.decisions.accounts) > 1:
                gone = self.decisions.accounts[number % len(self.decisions.accounts)]
                self.decide(
                    accounts=tuple(one for one in self.decisions.accounts if one is not gone),
                    removed={**self.decisions.removed, gone.id: self.now},
                )
            case "policy":
                self.policy = POLICIES[number % len(POLICIES)]
                self.call("set_policy", self.policy)
            case "models":
                names = [name for name in MODELS if name][number % 3 :]
                self.call("learn_models", f"github.com:{'abc'[number % 3]}", names, self.now, included=names[:1])
            case "quota":
                self.call("learn_quota", "github.com:a", {"session": QuotaWindow(0.1 * number, seen_at=self.now)})
            case "save":
                self.memories.append(self.call("memory", self.now))
            case "load":
                self.remember(number)
            case "home":
                self.call("home", self.now, None if number % 2 else "default")
            case _:
                self.ask(model, conversation)


STEPS = ["ask", "answer", "leave", "wait", "token", "switch", "clear", "balancing", "remove", "policy", "models",
         "quota", "save", "load", "home"]  # fmt: skip

steps = strategies.lists(
    strategies.tuples(
        strategies.sampled_from([*["ask", "answer"] * 6, *["wait"] * 3, *STEPS]),
        strategies.integers(0, 9),
        strategies.sampled_from([*[SERVED] * 5, *OUTCOMES]),
        strategies.sampled_from(MODELS),
        strategies.sampled_from(["talk", "chat", None]),
    ),
    max_size=60,
)


def told(policy: Policy, story, tape: Tape) -> Story:
    """Live through these steps."""
    lived = Story(policy, tape)
    for one in story:
        lived.step(*one)
    return lived
