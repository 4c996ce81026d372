"""The sixteen scenarios of Failover Bench, with accounts in the place of models, and how each is scored.

Source: failoverbench/failoverbench at github.com, scenarios/catalogue.yaml and its METHODOLOGY (v0.1), read
2026-11-29: faults, checks and verdicts are the catalogue's. What is ours: the words, and that the primary and the
fallback are two accounts of one person, so that the model that is reported is the account in ``x-copilot-account``.

- *pass*: the client got the whole answer (S13: the error), and every check holds.
- *partial*: it did, and an advisory check fails.
- *safe*: it did not, but got a clean error in time, and every other check holds.
- *fail*: a check fails that is not advisory, it hung, or a truncated answer was presented as a success.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from copilot_balancer.fake.answers import Answering, CutMid, Drop, Malformed, NoTerminator, Ok, Refuse, Silent, once
from copilot_balancer.fake.seen import Seen

WORDS = (
    "A proxy that holds several accounts is trusted with more than traffic: it decides who answers, when to wait and "
    "what to say when nobody can. Kept promises are seldom noticed, broken ones always are. So every refusal is read "
    "with care, every rest is honoured, and no half of an answer is ever sold as though it were whole."
)
"""The answer: sixty words, each an event of its own."""
PROMPT = "Say in sixty words what a proxy for several accounts must never do."


@dataclass(frozen=True)
class Profile:
    """Seconds: of the faults, and the time-outs of the proxy."""

    down: float
    requests: int
    interval: float
    """S15: how many requests, and how far apart."""
    first_byte: float
    idle: float


FAST = Profile(down=6.0, requests=12, interval=1.2, first_byte=2.5, idle=2.5)
FULL = Profile(down=60.0, requests=20, interval=4.0, first_byte=10.0, idle=30.0)
"""The catalogue's own times. Its baseline is 30 s for any silence; ours is stricter before the first token: 10 s."""


@dataclass
class Got:
    """What the client saw of one request."""

    outcome: str
    """``success``, ``error`` or ``hang``."""
    text: str = ""
    error: str = ""
    seconds: float = 0.0
    account: str = ""
    usage: bool = False
    sent_at: float = 0.0
    """Seconds after the scenario began."""

    @property
    def complete(self) -> bool:
        """Whether it is the whole answer."""
        return self.outcome == "success" and self.text.split() == WORDS.split()


@dataclass
class Run:
    """All that is known about one scenario's run."""

    profile: Profile
    seen: list[Got]
    primary: list[float] = field(default_factory=list)
    """When the primary was asked; seconds after the scenario began."""
    fallback: list[float] = field(default_factory=list)
    served_by_primary: list[float] = field(default_factory=list)
    prefill_refusals: int = 0
    alive: bool = False
    """Whether a healthy request through the same proxy was answered afterwards."""

    @property
    def last(self) -> Got:
        """What the only request came to."""
        return self.seen[-1]

    @property
    def during(self) -> list[Got]:
        """S15: the requests that were sent during the outage."""
        return [one for one in self.seen if one.sent_at < self.profile.down]


@dataclass(frozen=True)
class Check:
    """One of a scenario's checks."""

    name: str
    holds: Callable[[Run], bool]
    advisory: bool = False


def attempts(least: int, most: int) -> Callable[[Run], bool]:
    """So often the primary was asked."""
    return lambda run: least <= len(run.primary) <= most


def within(seconds: float, most: int) -> Callable[[Run], bool]:
    """At most so many attempts on the primary in the first seconds."""
    return lambda run: sum(at - run.primary[0] < seconds for at in run.primary) <= most


def ended_in(seconds: float) -> Callable[[Run], bool]:
    """The call ended in time."""
    return lambda run: run.last.outcome != "hang" and run.last.seconds <= seconds


def _gap(run: Run) -> bool:
    return len(run.primary) > 1 and run.primary[1] - run.primary[0] >= 1.8


def _no_truncated_success(run: Run) -> bool:
    return run.last.outcome != "success" or run.last.complete


def _recovered(run: Run) -> bool:
    return bool(run.served_by_primary) and min(run.served_by_primary) - run.profile.down <= 30


NO_HANG = Check("no hang", lambda run: all(one.outcome != "hang" for one in run.seen))
NO_TRUNCATED_SUCCESS = Check("no truncated success", _no_truncated_success)
ALIVE = Check("alive after", lambda run: run.alive)
BOUNDED = Check("bounded attempts", attempts(0, 6))
ONCE = Check("no retry of the same", attempts(1, 1))


_OK = Ok(WORDS)


@dataclass(frozen=True)
class Scenario:
    """One row of the catalogue."""

    id: str
    title: str
    primary: Callable[[Profile], Answering]
    """What the first account does."""
    checks: tuple[Check, ...]
    verdict: str
    """What ours comes to."""
    limit: float
    """Seconds after which a call counts as hung."""
    fallback: Answering = _OK
    ideal: str = "success"
    sequence: bool = False


def _error(status: int, code: str, message: str, **headers: str) -> Refuse:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Refuse(status, code, message, named)


def _flapping(profile: Profile) -> Answering:
    began = time.monotonic()

    def answer(seen: Seen) -> Ok | Refuse:
        return OVERLOADED if seen.at - began < profile.down else Ok(WORDS)

    return answer


def _without_prefill(seen: Seen) -> Ok | Refuse:
    return PREFILL if seen.json["messages"][-1]["role"] == "assistant" else Ok(WORDS)


LIMITED = _error(429, "rate_limit_exceeded", "Rate limit reached for this model.")
LIMITED_FOR_TWO_SECONDS = _error(429, "rate_limit_exceeded", "Rate limit reached for this model.", retry_after="2")
OVERLOADED = _error(503, "overloaded", "The engine is overloaded now.")
SERVER_ERROR = _error(500, "", "The server had an error.")
TOO_LONG = _error(400, "context_length_exceeded", "The messages are longer than the context of this model.")
FILTERED = _error(400, "content_policy_violation", "The request was rejected by the safety system.")
PREFILL = _error(400, "invalid_prefill", "The conversation must end with a user's message.")
_CUT = CutMid(41, "rst", _OK)
"""The role, and 40 of 60 words."""

SCENARIOS = (
    Scenario(
        "S01", "429 with Retry-After, once", lambda _: once(LIMITED_FOR_TWO_SECONDS, then=_OK),
        (
            Check("retried", attempts(2, 99), advisory=True),
            Check("Retry-After honoured", _gap, advisory=True),
            Check("no hammering", within(1.5, 2)),
        ),
        "partial", 20,
    ),
    Scenario(
        "S02", "429 without Retry-After, for ever", lambda _: LIMITED,
        (Check("no hammering", within(3, 4)), BOUNDED, NO_HANG), "pass", 40,
    ),
    Scenario(
        "S03", "500 once", lambda _: once(SERVER_ERROR, then=_OK),
        (NO_HANG, Check("retried on the same", attempts(2, 99), advisory=True)), "partial", 20,
    ),
    Scenario("S04", "503 for ever", lambda _: OVERLOADED, (BOUNDED, NO_HANG), "pass", 40),
    Scenario("S05", "reset before the head, once", lambda _: once(Drop("rst"), then=_OK), (NO_HANG,), "pass", 20),
    Scenario(
        "S06", "no answer at all", lambda _: Silent(),
        (Check("in its time", ended_in(100)), NO_HANG, Check("asked once", attempts(0, 1), advisory=True)),
        "pass", 130,
    ),
    Scenario(
        "S07", "head at once, slow first token", lambda _: Ok(WORDS, wait=20.0),
        (NO_HANG, Check("first token in time", ended_in(15), advisory=True)), "pass", 60,
    ),
    Scenario("S08", "stream cut after 40 of 60 words", lambda _: _CUT, (NO_TRUNCATED_SUCCESS, NO_HANG), "safe", 40),
    Scenario(
        "S09", "stream stalls after 20 words", lambda _: CutMid(21, "stall", _OK),
        (Check("bounded", ended_in(45)), NO_TRUNCATED_SUCCESS, ALIVE, NO_HANG), "safe", 70,
    ),
    Scenario(
        "S10", "malformed event in the stream", lambda _: Malformed(10, ok=_OK),
        (ALIVE, NO_TRUNCATED_SUCCESS, NO_HANG, Check("recovered", lambda run: run.last.complete, advisory=True)),
        "pass", 30,
    ),
    Scenario(
        "S11", "no [DONE]", lambda _: NoTerminator("end", _OK),
        (Check("ended promptly", ended_in(8)), Check("usage", lambda run: run.last.usage, advisory=True)), "pass", 30,
    ),
    Scenario("S12", "context too long", lambda _: TOO_LONG, (ONCE, NO_HANG), "safe", 20),
    Scenario("S13", "content filter", lambda _: FILTERED, (ONCE, NO_HANG), "pass", 20, ideal="error"),
    Scenario(
        "S14", "stream cut, and the fallback takes no prefill", lambda _: _CUT,
        (
            Check("not masked", lambda run: run.last.outcome != "error" or not run.prefill_refusals),
            NO_TRUNCATED_SUCCESS,
        ),
        "safe", 40, fallback=_without_prefill,
    ),
    Scenario(
        "S15", "primary flaps: down, then healthy", _flapping,
        (
            NO_HANG,
            Check("served in the outage", lambda run: bool(run.during) and all(o.outcome == "success" for o in run.during)),
            Check("back on the primary", _recovered),
        ),
        "pass", 30, sequence=True,
    ),
    Scenario(
        "S16", "accounting", lambda _: OVERLOADED,
        (
            Check("reports the fallback", lambda run: run.last.account.endswith("fallback")),
            Check("usage", lambda run: run.last.usage, advisory=True),
            BOUNDED,
        ),
        "pass", 40,
    ),
)  # fmt: skip


def verdict(scenario: Scenario, run: Run) -> tuple[str, str]:
    """The verdict and why."""
    outcomes = {one.outcome for one in run.seen}
    if "hang" in outcomes:
        return "fail", "a hang"
    truncated = [one for one in run.seen if one.outcome == "success" and not one.complete]
    if truncated and scenario.ideal == "success":
        return "fail", "a truncated answer presented as a success"
    failed = [check for check in scenario.checks if not check.holds(run)]
    if required := [check.name for check in failed if not check.advisory]:
        return "fail", f"failed: {', '.join(required)}"
    if scenario.ideal == "error":
        return ("pass", "its error") if outcomes == {"error"} else ("partial", "answered all the same")
    if outcomes != {"success"}:
        return "safe", next(one.error for one in run.seen if one.outcome == "error")
    if failed:
        return "partial", f"the whole answer; advisory: {', '.join(check.name for check in failed)}"
    return "pass", "the whole answer"


def row(scenario: Scenario, run: Run) -> str:
    """A line of the table."""
    found, why = verdict(scenario, run)
    attempts_seen = f"{len(run.primary)} + {len(run.fallback)}"
    seconds = f"{run.last.seconds:.1f} s"
    return f"| {scenario.id} | {scenario.title} | {why} | {attempts_seen} | {seconds} | {found} |"


HEADER = "| | fault of the first account | the client got | attempts: first + second | time | verdict |\n|---|---|---|---|---|---|"
