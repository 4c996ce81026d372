"""A seeded simulation of the layer: no sockets, a virtual clock, and an oracle that knows what the client must see.

    python tests/layer_simulation.py SEED             prints everything that happened under one seed
    python tests/layer_simulation.py --many N START   runs seeds START to START + N - 1 and prints counts

One seed is one client connection (HTTP/1.1 keep-alive, sometimes pipelined, or HTTP/2 with requests side by side) with
one to four requests. Each request has a script: for each attempt what the addon says and what the upstream does, bytes
cut into chunks and delayed at random. Nothing here knows the layer's inside; the oracle reads the script alone.

What must hold, whatever the seed:

- none is lost: a client that stays sees exactly the answer that the script comes to, whole, or an abort where it was cut;
- none hangs: that happens before the client's patience, of virtual time, is at its end;
- none is sent after commitment: nothing goes upstream for a request of whose answer the client has seen a byte, nor once
  the client has left; and no attempt is sent twice;
- none is misattributed: what the client sees is of the attempt that was chosen last;
- no exception of ours, and none of mitmproxy's, but where the script has our own callbacks raise.
"""

import heapq
import itertools
import logging
import multiprocessing
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from unittest.mock import patch

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11
from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events

from copilot_balancer import layer, questions, steady, stream
from copilot_balancer.layer import FailoverLayer
from copilot_balancer.questions import Refusal, Send
from playbook import PlainTunnel, Playbook, make_context

FIRST_BYTE, IDLE = 20.0, 60.0
"""Seconds of virtual time, where a script has an upstream fall silent."""

PATIENCE = 900.0
"""Seconds after which a client gives up; nothing that a script does takes so long, but a silence nobody watches over."""

BUFFER_LIMIT = 4096
"""In the place of the layer's own limit, so that an endless refusal is a short one here."""

EVENTS = 20_000
"""More events than any seed has: beyond, something goes round in circles."""


class Ending(Enum):
    """What an attempt comes to."""

    WHOLE = "a whole answer, passed on as it comes"
    REFUSED = "a whole refusal, held back and judged"
    FAILED = "no answer"
    CUT = "cut off after the client has seen a byte"
    SILENT = "nothing, for ever"


@dataclass
class Plan:
    """What the upstream does with one attempt."""

    kind: str
    ending: Ending
    status: int = 200
    body: bytes = b""
    """What the client must see, whole or (cut off) a beginning of it."""
    steps: list[bytes | float | str] = field(default_factory=list)
    """Bytes to send, seconds to wait, ``close``."""
    connect: str | None = None
    """Why there is no connection."""
    silent: bool = False
    """Whether it needs a time-out to end."""
    last: bool = False
    """Whether the client's connection ends with this answer, by HTTP's own rules."""
    raw: bool = False
    """Whether the body is what comes after a 101."""
    opens: bool = True
    """Whether anything comes that a client should see."""
    complete: bool = True
    """Whether the stream says that it is done before it ends."""
    error: bool = False
    """Whether the stream opens with an error."""
    done: bool = False
    """Whether the stream has said that it is done, and then does not end well."""
    endless: bool = False
    """Whether the layer cuts it off; `body` is then what was judged of it."""

    @property
    def streams(self) -> bool:
        """Whether it is an event stream."""
        return b"text/event-stream" in self.head

    @property
    def head(self) -> bytes:
        """The head of its answer."""
        return next((step for step in self.steps if isinstance(step, bytes)), b"")


# --- what an upstream may do -----------------------------------------------------------------------------------------


def _chunked(pieces: list[bytes], *, end: bool = True) -> list[bytes | float | str]:
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + ([b"0\r\n\r\n"] if end else [])


DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def _pieces(rng: random.Random, tag: bytes) -> list[bytes]:
    """A stream's events: sometimes one that says nothing, some with output; its end is ``DONE``."""
    return [PING] * rng.randint(0, 1) + [
        b"data: %b piece %d\n\n" % (tag, number) for number in range(rng.randint(1, 5))
    ]


def _stream_head(status: int = 200) -> bytes:
    return b"HTTP/1.1 %d OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" % status


def _refusal(rng: random.Random, tag: bytes, kind: str, status: int) -> Plan:
    body = b'{"error":{"message":"%b"}}' % tag
    head = b"HTTP/1.1 %d No\r\nRetry-After: 3\r\n" % status
    match rng.randrange(3):
        case 0:
            steps: list[bytes | float | str] = [head + b"Content-Length: %d\r\n\r\n" % len(body) + body]
        case 1:
            steps = [head + b"Transfer-Encoding: chunked\r\n\r\n", *_chunked([body[:9], body[9:]])]
        case _:
            steps = [head + b"\r\n" + body, "close"]
    return Plan(kind, Ending.REFUSED, status, body, steps, last=steps[-1] == "close")


def served(rng: random.Random, tag: bytes) -> Plan:
    pieces = [*_pieces(rng, tag), DONE]
    return Plan("served", Ending.WHOLE, 200, b"".join(pieces), [_stream_head(), *_chunked(pieces)])


def served_slowly(rng: random.Random, tag: bytes) -> Plan:
    pieces = [*_pieces(rng, tag), DONE]
    dripping = [part for chunk in _chunked(pieces) for part in (chunk, rng.uniform(0, IDLE * 0.9))]
    return Plan(
        "slow", Ending.WHOLE, 200, b"".join(pieces), [rng.uniform(0, FIRST_BYTE * 0.9), _stream_head(), *dripping]
    )


def served_document(rng: random.Random, tag: bytes) -> Plan:
    body = b'{"id":"%b"}' % tag
    return Plan(
        "document", Ending.WHOLE, 200, body, [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]
    )


def until_close(rng: random.Random, tag: bytes) -> Plan:
    pieces = [*_pieces(rng, tag), DONE]
    steps = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *pieces, "close"]
    return Plan("until close", Ending.WHOLE, 200, b"".join(pieces), steps, last=True)


def connection_close(rng: random.Random, tag: bytes) -> Plan:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(tag)
    return Plan("connection: close", Ending.WHOLE, 200, tag, [head + tag, "close"], last=True)


def closes_when_idle(rng: random.Random, tag: bytes) -> Plan:
    plan = served(rng, tag)
    return Plan("closes when idle", Ending.WHOLE, 200, plan.body, [*plan.steps, rng.uniform(0, 2), "close"])


def empty(rng: random.Random, tag: bytes) -> Plan:
    status = rng.choice((200, 204, 304, 302))
    length = b"Content-Length: 0\r\n" if status in (200, 302) else b""
    return Plan("no body", Ending.WHOLE, status, b"", [b"HTTP/1.1 %d X\r\n%bX-Tag: %b\r\n\r\n" % (status, length, tag)])


def huge_head(rng: random.Random, tag: bytes) -> Plan:
    head = b"HTTP/1.1 200 OK\r\nX-Long: %b\r\nContent-Length: %d\r\n\r\n" % (b"x" * 8_000, len(tag))
    return Plan("huge head", Ending.WHOLE, 200, tag, [head + tag])


def early_hints(rng: random.Random, tag: bytes) -> Plan:
    plan = served(rng, tag)
    hints = b"HTTP/1.1 %b\r\n\r\n" % rng.choice((b"103 Early Hints\r\nLink: </x>", b"100 Continue", b"102 Processing"))
    # mitmproxy takes it for the answer, and what follows for garbage; so it can only count as none
    return Plan("informational", Ending.FAILED, steps=[hints, *plan.steps])


def garbage_after(rng: random.Random, tag: bytes) -> Plan:
    plan = served_document(rng, tag)
    more = rng.choice((b"garbage", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother", b"\r\n\r\n"))
    assert isinstance(plan.steps[-1], bytes)
    return Plan("garbage after the end", Ending.WHOLE, 200, plan.body, [*plan.steps[:-1], plan.steps[-1] + more])


def refused_limit(rng: random.Random, tag: bytes) -> Plan:
    return _refusal(rng, tag, "429", 429)


def refused_otherwise(rng: random.Random, tag: bytes) -> Plan:
    return _refusal(rng, tag, "4xx", rng.choice((400, 401, 402, 403, 404, 413, 421, 422)))


def refused_by_a_fault(rng: random.Random, tag: bytes) -> Plan:
    return _refusal(rng, tag, "5xx", rng.choice((500, 502, 503, 504, 529)))


def refused_without_body(rng: random.Random, tag: bytes) -> Plan:
    return Plan("refusal without a body", Ending.REFUSED, 429, b"", [b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n"])


def endless_refusal(rng: random.Random, tag: bytes) -> Plan:
    pieces = [tag + b"x" * 1000 for _ in range(8)]
    steps = [_stream_head(500), *_chunked(pieces)]
    return Plan("endless refusal", Ending.REFUSED, 500, b"".join(pieces), steps, endless=True)


def slow_refusal(rng: random.Random, tag: bytes) -> Plan:
    head = b"HTTP/1.1 429 No\r\nContent-Length: 1000\r\n\r\n" + tag
    drips = [part for _ in range(4) for part in (rng.uniform(3.0, 9.0), b"x")]
    return Plan("slow refusal", Ending.REFUSED, 429, tag + b"xxxx", [head, *drips], endless=True)


def connect_refused(rng: random.Random, tag: bytes) -> Plan:
    return Plan("connection refused", Ending.FAILED, connect="refused")


def connect_slow(rng: random.Random, tag: bytes) -> Plan:
    return Plan("connection times out", Ending.FAILED, connect="timed out after a while")


def tls_failure(rng: random.Random, tag: bytes) -> Plan:
    return Plan("TLS failure", Ending.FAILED, connect="TLS: the certificate is another's")


def reset(rng: random.Random, tag: bytes) -> Plan:
    return Plan("reset before the head", Ending.FAILED, steps=["close"])


def reset_in_head(rng: random.Random, tag: bytes) -> Plan:
    head = _stream_head()
    return Plan("reset in the head", Ending.FAILED, steps=[head[: rng.randrange(1, len(head) - 2)], "close"])


def malformed_head(rng: random.Random, tag: bytes) -> Plan:
    head = rng.choice(
        (b"nonsense\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"SSH-2.0-x\r\n\r\n")
    )
    return Plan("malformed head", Ending.FAILED, steps=[head])


def bad_length(rng: random.Random, tag: bytes) -> Plan:
    head = b"HTTP/1.1 %d OK\r\nContent-Length: %b\r\n\r\n" % (
        rng.choice((200, 429)),
        rng.choice((b"-5", b"abc", b"5, 6")),
    )
    return Plan("malformed length", Ending.FAILED, steps=[head + b"hello"])


def cut_refusal(rng: random.Random, tag: bytes) -> Plan:
    return Plan("refusal cut", Ending.FAILED, steps=[b"HTTP/1.1 429 No\r\nContent-Length: 99\r\n\r\n" + tag, "close"])


def malformed_refusal(rng: random.Random, tag: bytes) -> Plan:
    steps: list[bytes | float | str] = [b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"]
    return Plan("refusal malformed", Ending.FAILED, steps=steps)


def silent(rng: random.Random, tag: bytes) -> Plan:
    begun = _stream_head()
    return Plan("silent before the head", Ending.FAILED, steps=[begun[: rng.choice((0, 0, 9, 30))]], silent=True)


def _begun(rng: random.Random, tag: bytes) -> tuple[list[bytes], list[bytes | float | str]]:
    pieces = _pieces(rng, tag)
    return pieces, [_stream_head(), *_chunked(pieces, end=False)]


def stalls(rng: random.Random, tag: bytes) -> Plan:
    pieces, steps = _begun(rng, tag)
    return Plan("stalls in the middle", Ending.CUT, 200, b"".join(pieces), steps, silent=True)


def cut_middle(rng: random.Random, tag: bytes) -> Plan:
    pieces, steps = _begun(rng, tag)
    return Plan("cut in the middle", Ending.CUT, 200, b"".join(pieces), [*steps, "close"])


def cut_in_a_chunk(rng: random.Random, tag: bytes) -> Plan:
    pieces, steps = _begun(rng, tag)
    return Plan("cut in a chunk", Ending.CUT, 200, b"".join(pieces) + b"half", [*steps, b"20\r\nhalf", "close"])


def malformed_chunk(rng: random.Random, tag: bytes) -> Plan:
    pieces, steps = _begun(rng, tag)
    return Plan("malformed chunk", Ending.CUT, 200, b"".join(pieces), [*steps, b"not hex\r\n"])


def short_of_its_length(rng: random.Random, tag: bytes) -> Plan:
    steps: list[bytes | float | str] = [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", tag, "close"]
    return Plan("short of its length", Ending.CUT, 200, tag, steps)


def head_alone(rng: random.Random, tag: bytes) -> Plan:
    said = rng.choice((b"", PING))
    steps = [_stream_head(), *_chunked([said] if said else [], end=False), "close"]
    return Plan("cut before any output", Ending.CUT, 200, said, steps, opens=False)


def early_end(rng: random.Random, tag: bytes) -> Plan:
    pieces = _pieces(rng, tag)
    steps = [_stream_head(), *_chunked(pieces)]
    return Plan("clean end, too early", Ending.WHOLE, 200, b"".join(pieces), steps, complete=False)


def early_end_without_output(rng: random.Random, tag: bytes) -> Plan:
    said = rng.choice((b"", PING))
    steps = [_stream_head(), *_chunked([said] if said else [])]
    return Plan("clean end, no output", Ending.WHOLE, 200, said, steps, opens=False, complete=False)


def error_in_stream(rng: random.Random, tag: bytes) -> Plan:
    pieces = [PING] * rng.randint(0, 1) + [b"data: error %b\n\n" % tag]
    steps = [_stream_head(), *_chunked(pieces)]
    return Plan("error in the stream", Ending.WHOLE, 200, b"".join(pieces), steps, opens=False, error=True)


def done_and_lingers(rng: random.Random, tag: bytes) -> Plan:
    pieces, steps = _begun(rng, tag)
    ending = rng.choice((["close"], [b"zz\r\n"], []))
    steps = [*steps, *_chunked([DONE], end=False), *ending]
    return Plan("done, but no end", Ending.CUT, 200, b"".join([*pieces, DONE]), steps, silent=not ending, done=True)


KINDS: tuple[Callable[[random.Random, bytes], Plan], ...] = (
    *(served, served_slowly, served_document, until_close, connection_close, closes_when_idle, empty, huge_head),
    *(early_hints, garbage_after),
    *(refused_limit, refused_otherwise, refused_by_a_fault, refused_without_body, endless_refusal, slow_refusal),
    *(connect_refused, connect_slow, tls_failure, reset, reset_in_head, malformed_head, bad_length, cut_refusal),
    *(malformed_refusal, silent, stalls, cut_middle, cut_in_a_chunk, malformed_chunk, short_of_its_length, head_alone),
    *(early_end, early_end_without_output, error_in_stream, done_and_lingers),
)
"""What an upstream may do."""


def head_of_answer(rng: random.Random, tag: bytes) -> Plan:
    return Plan("answer to HEAD", Ending.WHOLE, 200, b"", [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])


def head_of_refusal(rng: random.Random, tag: bytes) -> Plan:
    return Plan("refusal of HEAD", Ending.REFUSED, 429, b"", [b"HTTP/1.1 429 No\r\nContent-Length: 99\r\n\r\n"])


HEAD_KINDS = (head_of_answer, head_of_refusal, connect_refused, reset, reset_in_head, malformed_head)
"""What it may do where an answer has no body."""


def upgraded(rng: random.Random, tag: bytes) -> Plan:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    frame = b"\x81%c%b" % (len(tag), tag)
    end = rng.choice(([b"\x88\x02\x03\xe8", "close"], ["close"]))
    return Plan("WebSocket", Ending.WHOLE, 101, frame, [head, frame, *end], last=True, raw=True)


# --- what the addon may say ------------------------------------------------------------------------------------------

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
    released: bool = False
    """The beginning of its stream was let go to the client."""


class Watch:
    """What the addon tells the layer about a stream that passes."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._seen = b""

    def feed(self, data: bytes) -> bytes:
        self._seen += data
        return data

    @property
    def opened(self) -> bool:
        return b"piece" in self._seen or self.refused

    @property
    def refused(self) -> bool:
        return b"error %b\n\n" % self._turn.tag in self._seen

    @property
    def whole(self) -> bool:
        return self._seen.endswith(DONE) or self.refused

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
            if turn.head == "raises later" and wanted.streams and plan.status < 400 and plan.body and not plan.raw:
                if _watched(plan, wanted) and not turn.released:
                    return Expected("whole", 502, holds=b"incident", incidents=1, turns=number)
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


def _watched(plan: Plan, wanted: Wanted) -> bool:
    return wanted.streams and wanted.watched and plan.streams and plan.status < 300


def _ending(turn: Turn, plan: Plan, wanted: Wanted) -> Ending:
    """What an attempt comes to, time-outs, streaming and watching considered."""
    if _watched(plan, wanted):
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


# --- the world -------------------------------------------------------------------------------------------------------


class FailingTunnel(PlainTunnel):
    """TLS to an upstream, which may fail after the connection stands."""

    def receive_handshake_data(self, data):
        if "tls" in self.conn.address[0]:
            yield from ()
            return False, "TLS: the certificate is another's"
        return (yield from super().receive_handshake_data(data))


class Clock:
    """Time for the layer."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    time = monotonic


class OnTheSpot:
    """Answers at once, mostly. The chance is its own: a seed keeps its story whatever changes here."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self.seed = seed

    def choose(self, send: Send) -> bool:
        """With what?"""
        at_once = self._rng.random() < 0.8
        if at_once:
            self._world.failover_choose(send)
        return at_once

    def tell(self, hook: commands.StartHook) -> Callable[[], None] | None:
        """Seldom does an addon wait for something."""
        if self._rng.random() < 0.8:
            self._world.tell_addons(hook)
            return None
        return lambda: self._world.tell_addons(hook)


class World(Playbook):
    """mitmproxy's server, the upstreams, the addon and the client of one seed."""

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.rng = random.Random(seed)
        self.tell = tell
        self.now = 1000.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.violations: list[str] = []
        self.upstreams: dict[Server, Upstream] = {}
        self.opening: dict[Server, commands.OpenConnection] = {}
        self.of_flow: dict[str, Wanted] = {}
        self.client_gone = False
        self.left_early = False
        self.happened = 0
        self.leaves_at = self.rng.randrange(1, 150) if self.rng.random() < 0.2 else None
        """After how many events the client leaves."""
        context = make_context()
        self.http2 = self.rng.random() < 0.25
        if self.http2:
            context.client.alpn = b"h2"
        self.wanted = [self._write(number) for number in range(self.rng.choice((1, 1, 2, 3, 4)))]
        self.person: Person1 | Person2 = Person2(self) if self.http2 else Person1(self)
        self.upstreams[context.server] = Upstream(self, context.server)
        self.spot = OnTheSpot(self, seed)
        super().__init__(FailoverLayer(context, lambda: self.spot if self.spot.seed % 4 else None))
        names = ("requestheaders", "failover_choose", "failover_judge", "responseheaders", "response", "error")
        self.hooks = {name: getattr(self, name) for name in names}
        self.hooks["failover_wait"] = lambda wait: wait.rest()

    # --- the script

    def _write(self, number: int) -> Wanted:
        rng = self.rng
        websocket = not self.http2 and rng.random() < 0.08
        wanted = Wanted(
            number,
            b"",
            b"",
            [],
            streams=rng.random() < 0.8,
            timed=rng.random() < 0.8,
            watched=rng.random() < 0.6,
            websocket=websocket,
        )
        wanted.method = b"GET" if websocket else rng.choice((b"POST",) * 14 + (b"HEAD",))
        for attempt in range(rng.choice((1, 2, 2, 3, 3, 4))):
            tag = b"r%da%d" % (number, attempt)
            plan = rng.choice(KINDS if wanted.method != b"HEAD" else HEAD_KINDS)(rng, tag)
            if websocket and plan.kind in ("served", "document"):
                plan = upgraded(rng, tag)
            wanted.turns.append(
                Turn(
                    tag=tag,
                    choice=rng.choice(CHOICES),
                    plan=plan,
                    judgement=rng.choice(JUDGEMENTS),
                    head=rng.choice(HEADS),
                    host=self._host(plan, tag),
                )
            )
        if wanted.turns[-1].judgement == "again":
            wanted.turns[-1].judgement = "no"
        if not websocket and wanted.method == b"POST":
            wanted.body = b'{"n":%d,"pad":"%b"}' % (number, b"y" * rng.choice((0, 10, 500)))
        wanted.head = self._head(wanted)
        return wanted

    def _host(self, plan: Plan, tag: bytes) -> str:
        """Where an attempt goes; one that cannot connect goes where nothing is connected yet."""
        if plan.connect is not None:
            return f"{'tls' if 'TLS' in plan.connect else 'down'}-{tag.decode()}.test"
        return self.rng.choice(("api.githubcopilot.com",) * 3 + ("api.business.githubcopilot.com",))

    def _head(self, wanted: Wanted) -> bytes:
        rng, lines = self.rng, [b"Host: api.githubcopilot.com", b"X-Number: %d" % wanted.number]
        if wanted.websocket:
            lines += [b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Version: 13"]
            lines += [b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="]
        if rng.random() < 0.5:
            lines.append(b"Authorization: Bearer clients-own")
        if wanted.body and rng.random() < 0.3:
            lines.append(b"Transfer-Encoding: chunked")
        elif wanted.body or rng.random() < 0.5:
            lines.append(b"Content-Length: %d" % len(wanted.body))
        if wanted.body and rng.random() < 0.1:
            lines.append(b"Expect: 100-continue")
        return wanted.method + b" /responses HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"

    # --- time

    def later(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.order), action))

    def moment(self) -> float:
        """A short delay, often none."""
        return self.rng.choice((0.0, 0.0, 0.001, 0.1, self.rng.uniform(0, 2)))

    def chunks(self, data: bytes) -> Iterator[bytes]:
        """The data as a network may cut it."""
        rng = self.rng
        how = rng.random()
        if how < 0.4 or len(data) < 2:
            yield data
        elif how < 0.5 and len(data) < 600:
            yield from (data[at : at + 1] for at in range(len(data)))
        else:
            cuts = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 5)))
            for start, end in itertools.pairwise([0, *cuts, len(data)]):
                if start < end:
                    yield data[start:end]

    def play(self) -> None:
        """Let everything happen."""
        self.person.begin()
        while self.queue:
            self.happened += 1
            if self.happened > EVENTS:
                raise AssertionError("it goes round in circles")
            if self.happened == self.leaves_at:
                self.client_goes("its own will")
            at, _, action = heapq.heappop(self.queue)
            self.now = max(self.now, at)
            action()
            if not self.queue and not self.client_gone:
                self.client_goes("it has what it wanted" if self.person.done() else "its patience is at its end")
        self._check_the_end()

    def say(self, text: str) -> None:
        if self.tell:
            self.tell(f"{self.now - 1000:9.3f}  {text}")

    def blame(self, text: str) -> None:
        self.say(f"VIOLATION: {text}")
        self.violations.append(text)

    # --- mitmproxy's server

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.StartHook():
                self.later(self.moment(), lambda: self._run_hook(command))
            case commands.OpenConnection():
                self.opening[command.connection] = command
                slow = 60.0 if command.connection.address[0].startswith("down") and self.rng.random() < 0.5 else 0.0
                self.later(self.moment() + slow, lambda: self._opened(command))
            case commands.SendData():
                self._send(command)
            case commands.CloseTcpConnection(half_close=True):
                command.connection.state &= ~ConnectionState.CAN_WRITE
            case commands.CloseConnection():
                self.close(command.connection)
            case commands.Log():
                self.say(f"log: {command.message[:150]}")
            case commands.RequestWakeup():
                self.later(command.delay, lambda: self.client_over or self.feed(events.Wakeup(command)))
            case _:
                raise AssertionError(f"mitmproxy's server does not know {command}")

    @property
    def client_over(self) -> bool:
        return self.context.client.state is ConnectionState.CLOSED

    def tell_addons(self, hook: commands.StartHook) -> None:
        if hook.name in self.hooks:
            self.hooks[hook.name](*hook.args())

    def _run_hook(self, hook: commands.StartHook) -> None:
        self.tell_addons(hook)
        if hook.blocking:
            self.later(self.moment(), lambda: self.feed(events.HookCompleted(hook)))

    def _opened(self, command: commands.OpenConnection) -> None:
        server = command.connection
        if self.opening.pop(server, None) is None:
            return  # cancelled meanwhile
        if server.address[0].startswith("down"):
            server.error = "refused"
        else:
            server.state = ConnectionState.OPEN
            self.upstreams[server] = Upstream(self, server)
        self.say(f"connection to {server.address[0]}: {server.error or 'stands'}")
        self.feed(events.OpenConnectionCompleted(command, server.error))

    def _send(self, command: commands.SendData) -> None:
        if not command.connection.state & ConnectionState.CAN_WRITE:
            return  # mitmproxy drops it
        if isinstance(command.connection, Client):
            if not self.client_gone:
                self.person.receive(command.data)
        else:
            self.upstreams[command.connection].receive(command.data)

    def close(self, connection) -> None:
        """What mitmproxy's server does to a connection; it tells the end of what it was reading."""
        if (command := self.opening.pop(connection, None)) is not None:
            connection.error = "connection cancelled"
            self.later(0.0, lambda: self.feed(events.OpenConnectionCompleted(command, connection.error)))
            return
        if connection.state is ConnectionState.CLOSED:
            return
        was_read = connection.state & ConnectionState.CAN_READ
        connection.state = ConnectionState.CLOSED
        self.say(f"we close {self._name(connection)}")
        if isinstance(connection, Client):
            self.person.closed()
            self.later(0.0, self._client_is_over)
        if was_read:
            self.later(0.0, lambda: self.feed(events.ConnectionClosed(connection)))

    def _client_is_over(self) -> None:
        """The client's connection has ended on both sides: mitmproxy ends all the others."""
        for server in [*self.opening, *self.upstreams]:
            self.close(server)

    def peer_closes(self, server: Server) -> None:
        """An upstream ends its side."""
        if server.state & ConnectionState.CAN_READ:
            server.state &= ~ConnectionState.CAN_READ
            self.say(f"{self._name(server)} closes")
            self.feed(events.ConnectionClosed(server))

    def client_goes(self, why: str) -> None:
        """The client ends its side."""
        if self.client_gone:
            return
        self.client_gone = True
        self.left_early = not why.startswith("it has")
        self.say(f"the client leaves: {why}")
        if why.startswith("its patience"):
            self.person.gives_up()
        client = self.context.client
        if client.state & ConnectionState.CAN_READ:
            client.state &= ~ConnectionState.CAN_READ
            self.feed(events.ConnectionClosed(client))

    def _name(self, connection) -> str:
        if isinstance(connection, Client):
            return "the client's connection"
        return f"upstream {list(self.upstreams).index(connection)} ({connection.address[0]})"

    # --- the addon

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.of_flow[flow.id] = self.wanted[int(flow.request.headers["x-number"])]
        if self.rng.random() < 0.2:
            flow.request.stream = True  # another addon's idea
        if "clients-own" in str(flow.get_state()):
            self.blame("the client's credential stands in the flow")

    def failover_choose(self, send: Send) -> None:
        wanted = self.of_flow[send.flow.id]
        if wanted.asked >= len(wanted.turns):
            self.blame(f"request {wanted.number}: asked with what? after it was told no")
            return
        turn = wanted.turns[wanted.asked]
        wanted.asked += 1
        wanted.send = send
        self.say(f"request {wanted.number}: attempt {turn.tag.decode()} ({turn.plan.kind}): {turn.choice}")
        match turn.choice:
            case "answers":
                send.flow.response = http.Response.make(418, b"local " + turn.tag)
                return
            case "says nothing":
                return
            case "kills":
                send.flow.kill()
        send.host = turn.host
        if wanted.timed:
            send.first_byte_timeout, send.idle_timeout = FIRST_BYTE, IDLE

        def authorize(request: http.Request, server: Server) -> http.Response | None:
            if turn.choice == "guard raises":
                raise RuntimeError("the guard is broken")
            if turn.choice == "guard refuses":
                return http.Response.make(403, b"guard " + turn.tag)
            if server.address != (turn.host, 443) or request.host != turn.host or not server.connected:
                self.blame(f"request {wanted.number}: sent to {server.address} instead of {turn.host}")
            request.headers["authorization"] = f"Bearer {turn.tag.decode()}"
            return None

        send.authorize = authorize

    def failover_judge(self, refusal: Refusal) -> None:
        wanted = self.of_flow[refusal.flow.id]
        turn = wanted.turns[wanted.asked - 1]
        response = refusal.flow.response
        self.say(
            f"request {wanted.number}: judged {response.status_code if response else refusal.error}: {turn.judgement}"
        )
        if wanted.status is not None:
            self.blame(f"request {wanted.number}: judged after the client has seen a byte")
        if (response is None) is (refusal.error is None):
            self.blame(f"request {wanted.number}: judged with neither or both of answer and error")
        if response is not None and turn.plan.endless and turn.plan.body.startswith(response.raw_content):
            turn.plan.body = response.raw_content
        if response is not None and (response.status_code, response.raw_content) != (turn.plan.status, turn.plan.body):
            self.blame(f"request {wanted.number}: judged another attempt's answer")
        if refusal.sent is not turn.sent:
            self.blame(f"request {wanted.number}: told sent={refusal.sent}, which it was not")
        kept = wanted.first = wanted.first or response
        match turn.judgement:
            case "again":
                refusal.again = True
            case "kills":
                refusal.flow.kill()
            case "replaces" if kept is not None:
                refusal.flow.response = wanted.given = kept

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        wanted = self.of_flow[flow.id]
        turn = wanted.turns[wanted.asked - 1]
        response = flow.response
        if response.status_code >= 400 or not turn.sent or response is wanted.given:
            return
        match turn.head:
            case "replaces":
                flow.response = http.Response.make(418, b"instead " + turn.tag)
                return
            case "kills":
                flow.kill()
        if wanted.streams and response.status_code != 101:
            response.stream = True
            if wanted.watched and turn.plan.streams:
                watch = wanted.send.watch = Watch(turn)
                response.stream = watch.feed
            if turn.head == "raises later":

                def broken(data: bytes) -> bytes:
                    if data:
                        raise RuntimeError("the watcher is broken")
                    return data

                response.stream = broken

    def response(self, flow: http.HTTPFlow) -> None:
        self._ended(flow, "response")

    def error(self, flow: http.HTTPFlow) -> None:
        self._ended(flow, "error")

    def _ended(self, flow: http.HTTPFlow, how: str) -> None:
        wanted = self.of_flow[flow.id]
        wanted.ends.append(how)
        self.say(f"request {wanted.number}: hook {how} {flow.error.msg[:80] if flow.error else ''}")

    # --- the end

    def _check_the_end(self) -> None:
        if self.context.client.state is not ConnectionState.CLOSED:
            self.blame("the client has left, and its connection is still open")
        if any(server.state is not ConnectionState.CLOSED for server in self.upstreams):
            self.blame("an upstream connection is left open")
        for wanted in self.wanted:
            if wanted.ends == ["error", "response"] and self.left_early:
                continue  # mitmproxy's own: an answer without a length ends, all the same, when its client has left
            if wanted.ends and len(wanted.ends) != 1 and not wanted.websocket:
                self.blame(f"request {wanted.number}: its end was told {len(wanted.ends)} times: {wanted.ends}")
            if not wanted.ends and wanted.number in self.of_numbers():
                self.blame(f"request {wanted.number}: its end was never told")

    def of_numbers(self) -> set[int]:
        return {wanted.number for wanted in self.of_flow.values()}


class Upstream:
    """One connection's other end: takes requests in, plays each attempt's plan."""

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server
        self.inbox = b""
        self.closing = False

    def receive(self, data: bytes) -> None:
        """Requests, and what else the layer sends."""
        self.inbox += data
        while True:
            head, found, rest = self.inbox.partition(b"\r\n\r\n")
            if not found:
                return
            body, used = self._body(head.lower(), rest)
            if used is None:
                return
            self.inbox = rest[used:]
            self._requested(head, body)

    @staticmethod
    def _body(head: bytes, rest: bytes) -> tuple[bytes, int | None]:
        if b"transfer-encoding: chunked" in head:
            body, at = b"", 0
            while (line := rest.find(b"\r\n", at)) >= 0:
                size = int(rest[at:line], 16)
                if len(rest) < line + 2 + size + 2:
                    break
                body += rest[line + 2 : line + 2 + size]
                at = line + 2 + size + 2
                if size == 0:
                    return body, at
            return b"", None
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return (rest[:length], length) if len(rest) >= length else (b"", None)

    def _requested(self, head: bytes, body: bytes) -> None:
        world = self.world
        tag = head.partition(b"Bearer ")[2].partition(b"\r\n")[0]
        number = int(head.lower().partition(b"x-number: ")[2].partition(b"\r\n")[0])
        wanted = world.wanted[number]
        turn = next((turn for turn in wanted.turns if turn.tag == tag), None)
        if turn is None:
            world.blame(f"request {number}: sent with {tag!r}, which is no attempt of it")
            return
        world.say(f"upstream {list(world.upstreams).index(self.server)} got {tag.decode()}")
        if wanted.status is not None:
            world.blame(f"request {number}: sent after the client has seen a byte")
        if world.client_gone or wanted.state == "left":
            world.blame(f"request {number}: sent after the client has left")
        if turn.sent or turn is not wanted.turns[wanted.asked - 1]:
            world.blame(f"request {number}: {tag.decode()} is sent twice, or late")
        if body != wanted.body:
            world.blame(f"request {number}: its body arrived as {body[:50]!r}")
        turn.sent = True
        turn.stale = self.closing
        if not self.closing:
            self._play(turn.plan)

    def _play(self, plan: Plan) -> None:
        world, after = self.world, 0.0
        for step in plan.steps:
            if isinstance(step, float):
                after += step
                continue
            if step == "close":
                # from now on whatever is sent here meets a closed door
                after += world.moment() / 4
                world.later(after, lambda: world.peer_closes(self.server))
                self.closing = self.closing or plan.kind == "closes when idle"
                continue
            chunks = list(world.chunks(step))
            for chunk in chunks:
                # what belongs to nobody comes before the next request can
                if plan.kind != "garbage after the end":
                    after += world.moment() / (3 + len(chunks))
                world.later(after, lambda chunk=chunk: self._deliver(chunk))

    def _deliver(self, chunk: bytes) -> None:
        if chunk and self.server.state & ConnectionState.CAN_READ:
            self.world.feed(events.DataReceived(self.server, chunk))


# --- the client ------------------------------------------------------------------------------------------------------


class Person1:
    """An HTTP/1.1 client: one request after the other on one connection; sometimes it does not wait."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=200_000)
        self.next = 0
        self.raw = b""
        self.over = False
        self.pipelines = world.rng.random() < 0.1
        self.written = 0.0
        """When the last byte of all requests so far is out; one that is begun sooner comes after it."""

    @property
    def current(self) -> Wanted | None:
        """Whose answer comes next."""
        return next((wanted for wanted in self.world.wanted[: self.next] if wanted.state == "waiting"), None)

    def begin(self) -> None:
        self._ask()

    def _ask(self) -> None:
        if self.over or self.world.client_gone or self.next >= len(self.world.wanted):
            return
        wanted = self.world.wanted[self.next]
        self.next += 1
        self.world.later(0.0, lambda: self.world.say(f"request {wanted.number}: {wanted.method.decode()}"))
        if self.current is wanted:
            self._expect(wanted)
        data = wanted.head + self._body(wanted)
        after = max(self.written - self.world.now, 0.0)
        for chunk in self.world.chunks(data):
            after += self.world.moment() / 4
            self.world.later(after, lambda chunk=chunk: self._deliver(chunk))
        self.written = self.world.now + after
        self.world.later(after + PATIENCE, lambda: self._impatient(wanted))
        if self.pipelines and not wanted.websocket:
            self.world.later(after, self._ask)

    def _body(self, wanted: Wanted) -> bytes:
        if b"chunked" not in wanted.head:
            return wanted.body
        half = len(wanted.body) // 2
        parts = [part for part in (wanted.body[:half], wanted.body[half:]) if part]
        return b"".join(part for part in _chunked(parts) if isinstance(part, bytes))

    def _expect(self, wanted: Wanted) -> None:
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        more = [("upgrade", "websocket")] if wanted.websocket else []
        self.http.send(h11.Request(method=wanted.method, target="/", headers=[("host", "x"), *more]))
        self.http.send(h11.EndOfMessage())

    def _deliver(self, chunk: bytes) -> None:
        client = self.world.context.client
        if not self.world.client_gone and client.state & ConnectionState.CAN_READ:
            self.world.feed(events.DataReceived(client, chunk))

    def _impatient(self, wanted: Wanted) -> None:
        if wanted.state == "waiting" and not self.over:
            self.world.client_goes("its patience is at its end")

    def gives_up(self) -> None:
        for wanted in self.world.wanted[: self.next]:
            if wanted.state == "waiting":
                wanted.state = "left"

    def receive(self, data: bytes) -> None:
        if self.http.their_state is h11.SWITCHED_PROTOCOL:
            self._upgraded(data)
            return
        try:
            self.http.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            self.world.blame(f"the client cannot read what it gets: {error}")

    def _read(self) -> None:
        while (wanted := self.current) is not None:
            event = self.http.next_event()
            match event:
                case h11.NEED_DATA | h11.PAUSED:
                    return
                case h11.InformationalResponse(status_code=101) | h11.Response(status_code=101):
                    wanted.status = 101
                    self.world.say(f"client: 101 for {wanted.number}")
                    self._upgraded(self.http.trailing_data[0])
                    return
                case h11.InformationalResponse():
                    self.world.say(f"client: {event.status_code} meanwhile")
                case h11.Response(status_code=status):
                    wanted.status = status
                    self.world.say(f"client: head {status} for {wanted.number}")
                case h11.Data(data=data):
                    wanted.got += bytes(data)
                case h11.EndOfMessage():
                    wanted.state = "whole"
                    self.world.say(f"client: all of {wanted.number}: {wanted.got[:60]!r}")
                    self._next()
                case h11.ConnectionClosed():
                    return

    def _next(self) -> None:
        if self.http.their_state is not h11.DONE:
            self.over = True  # it said that it closes
        elif (waiting := self.current) is not None:
            self._expect(waiting)
        else:
            self.world.later(0.001 + self.world.moment(), self._ask)

    def _upgraded(self, data: bytes) -> None:
        if (wanted := self.current) is not None:
            wanted.got += data

    def closed(self) -> None:
        """Our side of the connection was closed by the proxy."""
        self.over = True
        wanted = self.current
        if wanted is None or self.world.client_gone:
            return
        if wanted.status == 101:
            wanted.state = "whole"
            return
        try:
            self.http.receive_data(b"")
            self._read()
        except h11.RemoteProtocolError:
            pass
        for one in self.world.wanted[: self.next]:
            if one.state == "waiting":
                one.state = "aborted"
                self.world.say(f"client: {one.number} is cut off after {one.status} {one.got[:40]!r}")

    def done(self) -> bool:
        return self.over or all(wanted.state != "waiting" for wanted in self.world.wanted)


class Person2:
    """An HTTP/2 client: its requests run side by side; it may cancel one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.http.initiate_connection()
        self.of_stream: dict[int, Wanted] = {}
        self.over = False
        self.next = 0

    def begin(self) -> None:
        self._flush()
        for number in range(len(self.world.wanted)):
            self.world.later(self.world.moment() * number, lambda number=number: self._ask(number))

    def _ask(self, number: int) -> None:
        if self.over or self.world.client_gone:
            return
        wanted = self.world.wanted[number]
        self.next = max(self.next, number + 1)
        stream = self.http.get_next_available_stream_id()
        self.of_stream[stream] = wanted
        headers = [(b":method", wanted.method), (b":scheme", b"https"), (b":path", b"/responses")]
        headers += [(b":authority", b"api.githubcopilot.com"), (b"x-number", b"%d" % number)]
        if b"clients-own" in wanted.head:
            headers.append((b"authorization", b"Bearer clients-own"))
        if wanted.body:
            headers.append((b"content-length", b"%d" % len(wanted.body)))
        self.world.say(f"request {number}: {wanted.method.decode()} as stream {stream}")
        self.http.send_headers(stream, headers, end_stream=not wanted.body)
        if wanted.body:
            self.http.send_data(stream, wanted.body, end_stream=True)
        self._flush()
        self.world.later(PATIENCE, lambda: self._impatient(wanted))
        if self.world.rng.random() < 0.1:
            self.world.later(self.world.rng.uniform(0, 20), lambda: self._cancel(stream))

    def _cancel(self, stream: int) -> None:
        wanted = self.of_stream[stream]
        if self.over or self.world.client_gone or wanted.state != "waiting":
            return
        self.world.say(f"client: cancels {wanted.number}")
        wanted.state = "left"
        self.http.reset_stream(stream, 8)
        self._flush(at_once=True)

    def _flush(self, *, at_once: bool = False) -> None:
        data = self.http.data_to_send()
        if at_once:
            self._deliver(data)
            return
        # what was sent before must arrive before: one queue, so no delay of its own
        for chunk in self.world.chunks(data):
            self.world.later(0.0, lambda chunk=chunk: self._deliver(chunk))

    def _deliver(self, chunk: bytes) -> None:
        client = self.world.context.client
        if chunk and not self.world.client_gone and client.state & ConnectionState.CAN_READ:
            self.world.feed(events.DataReceived(client, chunk))

    def _impatient(self, wanted: Wanted) -> None:
        if wanted.state == "waiting" and not self.over:
            self.world.client_goes("its patience is at its end")

    def gives_up(self) -> None:
        for wanted in self.of_stream.values():
            if wanted.state == "waiting":
                wanted.state = "left"

    def receive(self, data: bytes) -> None:
        try:
            for event in self.http.receive_data(data):
                wanted = self.of_stream.get(getattr(event, "stream_id", 0))
                match event:
                    case h2.events.ResponseReceived() if wanted:
                        wanted.status = int(dict(event.headers)[b":status"])
                        self.world.say(f"client: head {wanted.status} for {wanted.number}")
                    case h2.events.DataReceived() if wanted:
                        wanted.got += event.data
                        self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded() if wanted and wanted.state == "waiting":
                        wanted.state = "whole"
                        self.world.say(f"client: all of {wanted.number}: {wanted.got[:60]!r}")
                    case h2.events.StreamReset() if wanted and wanted.state == "waiting":
                        wanted.state = "aborted"
                        self.world.say(f"client: {wanted.number} is reset")
        except h2.exceptions.ProtocolError as error:
            self.world.blame(f"the client cannot read what it gets: {error}")
        self.world.later(0.0, self._flush)

    def closed(self) -> None:
        self.over = True
        for wanted in self.of_stream.values():
            if wanted.state == "waiting" and not self.world.client_gone:
                wanted.state = "aborted"

    def done(self) -> bool:
        return self.over or all(wanted.state != "waiting" for wanted in self.world.wanted)


# --- judging a run ---------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of one seed."""

    seed: int
    violations: list[str]
    kinds: Counter[str]
    """What upstreams did, of attempts that were sent or failed to connect."""
    requests: int
    attempts: int


class _Incidents(logging.Handler):
    """Counts what the layer reports as a fault of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _set_up(world: list[World]) -> Iterator[_Incidents]:
    incidents = _Incidents()
    was = questions.logger.propagate
    questions.logger.addHandler(incidents)
    questions.logger.propagate = False
    clock = type("Time", (), {"monotonic": lambda: world[0].now, "time": lambda: world[0].now})
    try:
        with (
            patch("mitmproxy.proxy.layers.tls.ServerTLSLayer", FailingTunnel),
            patch.object(layer, "time", clock),
            patch.object(stream, "time", clock),
            patch.object(steady, "time", clock),
            patch.object(stream, "BUFFER_LIMIT", BUFFER_LIMIT),
        ):
            yield incidents
    finally:
        questions.logger.removeHandler(incidents)
        questions.logger.propagate = was


def simulate(seed: int, tell: Callable[[str], None] | None = None) -> Result:
    """Run one seed; the same seed does the same, whenever and wherever."""
    held: list[World] = []
    with _set_up(held) as incidents:
        world = World(seed, tell)
        held.append(world)
        try:
            world.play()
        except Exception as error:  # a crash is what we look for
            world.blame(f"{type(error).__name__}: {error}")
            world.say(traceback.format_exc())
    _judge(world, incidents)
    sent = [turn for wanted in world.wanted for turn in wanted.turns[: wanted.asked] if turn.choice == "go"]
    kinds = Counter(turn.plan.kind for turn in sent)
    return Result(seed, world.violations, kinds, world.person.next, len(sent))


def _judge(world: World, incidents: _Incidents) -> None:
    """Hold what the client saw against the oracle."""
    allowed, closed = 0, False
    for wanted in world.wanted:
        must = expected(wanted)
        allowed += must.incidents
        if wanted.number >= world.person.next or closed:
            if not closed and not world.leaves_at and not world.violations:
                world.blame(f"request {wanted.number}: the connection was closed before it could be asked")
            continue
        closed = must.state == "left" or (not world.http2 and must.last)
        if wanted.state == "left" or (world.client_gone and wanted.state == "waiting"):
            if must.state != "left" and wanted.state == "left" and not world.leaves_at and not world.http2:
                world.blame(f"request {wanted.number}: hung, instead of {must}")
            continue
        if world.leaves_at and wanted.state == "aborted":
            continue
        _compare(world, wanted, must)
    if len(incidents.lines) > allowed:
        world.blame(f"exceptions of ours: {incidents.lines}")


def _compare(world: World, wanted: Wanted, must: Expected) -> None:
    saw = f"request {wanted.number}: saw {wanted.seen()} instead of {must}"
    body = b"" if wanted.method == b"HEAD" else must.body
    whole = wanted.got == body or (must.holds and must.holds in wanted.got) or (must.holds and wanted.method == b"HEAD")
    if must.state == "whole" and must.status == 101:
        whole = wanted.got.startswith(must.body)
    if must.state == "aborted" and not world.http2 and wanted.turns[wanted.asked - 1].plan.kind == "until close":
        must.state = wanted.state  # an answer without a length ends with its connection: a cut one looks whole
    if must.state == "aborted":
        whole = (must.status is None and wanted.status is None) or must.body.startswith(wanted.got)
    if wanted.state != must.state or wanted.status != must.status or not whole:
        world.blame(saw)
    elif wanted.asked != must.turns:
        world.blame(f"request {wanted.number}: {wanted.asked} attempts instead of {must.turns}")


def _many(bounds: tuple[int, int]) -> tuple[int, int, Counter[str], list[Result]]:
    requests = attempts = 0
    kinds: Counter[str] = Counter()
    bad = []
    for seed in range(*bounds):
        result = simulate(seed)
        requests += result.requests
        attempts += result.attempts
        kinds += result.kinds
        if result.violations:
            bad.append(result)
    return requests, attempts, kinds, bad


def main(arguments: list[str]) -> int:
    """Print one seed's trace, or the counts of many."""
    if arguments and arguments[0] != "--many":
        result = simulate(int(arguments[0]), print)
        print("\n".join(f"VIOLATION: {text}" for text in result.violations) or "all holds")
        return bool(result.violations)
    number = int(arguments[1]) if len(arguments) > 1 else 1000
    start = int(arguments[2]) if len(arguments) > 2 else 0
    step = max(1, min(500, number // 8))
    parts = [(at, min(at + step, start + number)) for at in range(start, start + number, step)]
    began = time.monotonic()
    requests = attempts = 0
    kinds: Counter[str] = Counter()
    bad: list[Result] = []
    with multiprocessing.Pool() as pool:
        for more_requests, more_attempts, more_kinds, more_bad in pool.imap_unordered(_many, parts):
            requests += more_requests
            attempts += more_attempts
            kinds += more_kinds
            bad += more_bad
    seconds = time.monotonic() - began
    for kind, count in sorted(kinds.items()):
        print(f"{count:9} {kind}")
    print(f"{number} seeds from {start}: {requests} requests, {attempts} attempts, {len(kinds)} kinds, {seconds:.0f} s")
    for result in sorted(bad, key=lambda one: one.seed)[:50]:
        print(f"seed {result.seed}: {'; '.join(result.violations)[:300]}")
    print(f"{len(bad)} seeds in which something does not hold")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
