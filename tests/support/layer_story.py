"""What happens to one request of the layer's simulation, and what its client must see in the end: the oracle.

The law of this file: the oracle reads the script alone, and knows nothing of the layer.
"""

from dataclasses import dataclass, field

from mitmproxy import http

from copilot_balancer.proxy.failover.hooks import Send
from support.layer_plans import DONE, Ending, Plan

CHOICES = ("go",) * 40 + ("answers", "says nothing", "guard refuses", "guard raises", "kills")
"""What happens at *with what?*; a hook that raises leaves everything unset, and so says nothing."""

JUDGEMENTS = ("again",) * 8 + ("no", "no", "replaces", "kills")
"""What happens at *again?*."""

HEADS = ("passes",) * 20 + ("replaces", "raises later", "kills")
"""What happens when the head of an answer that is no refusal has come."""


@dataclass
class Turn:
    """One attempt of a script."""

    tag: bytes
    choice: str
    plan: Plan
    judgement: str
    head: str
    host: str
    stale: bool = False
    """The upstream closed the kept connection just when this was sent on it."""
    sent: bool = False
    redialled: bool = False
    """It was sent once more, on a new connection."""
    released: bool = False
    """The beginning of its stream was let go to the client."""


class Watch:
    """What the addon tells the layer about a stream that passes."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._seen = b""

    watched = True

    def feed(self, data: bytes) -> None:
        self._seen += data

    def completed(self, response) -> None:
        self.feed(response.raw_content)

    @property
    def opened(self) -> bool:
        return b"piece" in self._seen or self.refused

    @property
    def refused(self) -> bool:
        return b"error %b\n\n" % self._turn.tag in self._seen

    @property
    def whole(self) -> bool:
        return self._seen.endswith(DONE) or self.refused

    @property
    def over(self) -> bool:
        return self.whole

    def released(self) -> None:
        self._turn.released = True


@dataclass
class Wanted:
    """One request of the client's, and all that happens to it."""

    number: int
    head: bytes
    body: bytes
    turns: list[Turn]
    streams: bool
    """Whether the addon streams an answer below 400."""
    timed: bool
    """Whether time-outs are set."""
    watched: bool
    """Whether streams are watched."""
    websocket: bool = False
    method: bytes = b"POST"
    send: Send | None = None
    first: http.Response | None = None
    """The first refusal, which may be given back."""
    given: http.Response | None = None
    asked: int = 0
    """How many attempts were begun."""
    status: int | None = None
    got: bytes = b""
    state: str = "waiting"
    """``waiting``, ``whole``, ``aborted`` or ``left``: what the client saw last of it."""
    ends: list[str] = field(default_factory=list)
    """The hooks that told its end."""

    def seen(self) -> str:
        """What the client sees, in short."""
        return f"{self.state} {self.status} {self.got[:60]!r}"


@dataclass
class Expected:
    """What the client must see."""

    state: str
    status: int | None = None
    body: bytes = b""
    holds: bytes = b""
    """What a body that the layer made must hold."""
    last: bool = False
    """Whether the client's connection may end with it."""
    incidents: int = 0
    turns: int = 0
    """How many attempts were begun."""


def expected(wanted: Wanted) -> Expected:
    """The oracle: what a script comes to."""
    first: Plan | None = None
    for number, turn in enumerate(wanted.turns, 1):
        match turn.choice:
            case "answers":
                return Expected("whole", 418, b"local " + turn.tag, turns=number)
            case "says nothing":
                return Expected("whole", 502, holds=b"no addon said", turns=number)
            case "kills":
                return Expected("aborted", last=True, turns=number)
        plan = Plan("stale", Ending.FAILED) if turn.stale else turn.plan
        ending = _ending(turn, plan, wanted)
        if plan.connect is None and turn.choice == "guard refuses":
            return Expected("whole", 403, b"guard " + turn.tag, turns=number)
        if plan.connect is None and turn.choice == "guard raises":
            return Expected("whole", 502, holds=b"incident", incidents=1, turns=number)
        if plan.ending in (Ending.WHOLE, Ending.CUT):  # its head came
            if turn.head == "replaces" and plan.status < 400:
                return Expected("whole", 418, b"instead " + turn.tag, turns=number)
            if turn.head == "kills" and plan.status < 400:
                return Expected("aborted", last=True, turns=number)
            breaks = turn.head == "raises later" and wanted.streams and plan.status < 400 and plan.body and not plan.raw
            if breaks and not (watched(plan, wanted) and ending in (Ending.REFUSED, Ending.FAILED)):
                return Expected("aborted", plan.status, b"", last=True, incidents=1, turns=number)
        if ending is Ending.SILENT:
            return Expected("left", plan.status if plan.ending is Ending.CUT and wanted.streams else None, turns=number)
        if ending is Ending.WHOLE:
            return Expected("whole", plan.status, plan.body, last=plan.last, turns=number)
        if ending is Ending.CUT:
            return Expected("aborted", plan.status, plan.body, last=True, turns=number)
        first = first or (plan if ending is Ending.REFUSED else None)
        if turn.judgement == "kills":
            return Expected("aborted", last=True, turns=number)
        if turn.judgement == "again":
            continue
        if turn.judgement == "replaces" and first is not None:
            return Expected("whole", first.status, first.body, last=first.last, turns=number)
        if ending is Ending.REFUSED:
            return Expected("whole", plan.status, plan.body, last=plan.last, turns=number)
        return Expected("whole", 502, holds=b"no answer from upstream", turns=number)
    raise AssertionError("the last turn of a script is never judged with again")


def watched(plan: Plan, wanted: Wanted) -> bool:
    return wanted.streams and wanted.watched and plan.streams and plan.status < 300


def _ending(turn: Turn, plan: Plan, wanted: Wanted) -> Ending:
    """What an attempt comes to, time-outs, streaming and watching considered."""
    if watched(plan, wanted):
        if plan.error and not turn.released:
            return Ending.REFUSED
        if plan.done:
            return Ending.WHOLE
        if not plan.complete:
            return Ending.CUT if plan.opens or turn.released else Ending.FAILED
        if plan.ending is Ending.CUT and not plan.opens and not turn.released:
            return Ending.FAILED
    if plan.silent and not wanted.timed:
        return Ending.SILENT
    if plan.ending is Ending.CUT and plan.status < 400 and not wanted.streams:
        return Ending.FAILED  # all of it was still held back
    return plan.ending
