"""What an upstream may do with one attempt, by chance: the kinds of answers and faults of the layer's simulation.

The law of this file: a plan says what it comes to when nobody interferes; it knows no layer and no addon.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

FIRST_BYTE, IDLE = 20.0, 60.0
"""Seconds of virtual time, where a script has an upstream fall silent."""

BUFFER_LIMIT = 4096
"""In the place of the layer's own limit, so that an endless refusal is a short one here."""


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


def chunked(pieces: list[bytes], *, end: bool = True) -> list[bytes | float | str]:
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
            steps = [head + b"Transfer-Encoding: chunked\r\n\r\n", *chunked([body[:9], body[9:]])]
        case _:
            steps = [head + b"\r\n" + body, "close"]
    return Plan(kind, Ending.REFUSED, status, body, steps, last=steps[-1] == "close")


def served(rng: random.Random, tag: bytes) -> Plan:
    pieces = [*_pieces(rng, tag), DONE]
    return Plan("served", Ending.WHOLE, 200, b"".join(pieces), [_stream_head(), *chunked(pieces)])


def served_slowly(rng: random.Random, tag: bytes) -> Plan:
    pieces = [*_pieces(rng, tag), DONE]
    dripping = [part for chunk in chunked(pieces) for part in (chunk, rng.uniform(0, IDLE * 0.9))]
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
    return replace(plan, kind="informational", steps=[hints, *plan.steps])


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
    steps = [_stream_head(500), *chunked(pieces)]
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
    return pieces, [_stream_head(), *chunked(pieces, end=False)]


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
    steps = [_stream_head(), *chunked([said] if said else [], end=False), "close"]
    return Plan("cut before any output", Ending.CUT, 200, said, steps, opens=False)


def early_end(rng: random.Random, tag: bytes) -> Plan:
    pieces = _pieces(rng, tag)
    steps = [_stream_head(), *chunked(pieces)]
    return Plan("clean end, too early", Ending.WHOLE, 200, b"".join(pieces), steps, complete=False)


def early_end_without_output(rng: random.Random, tag: bytes) -> Plan:
    said = rng.choice((b"", PING))
    steps = [_stream_head(), *chunked([said] if said else [])]
    return Plan("clean end, no output", Ending.WHOLE, 200, said, steps, opens=False, complete=False)


def error_in_stream(rng: random.Random, tag: bytes) -> Plan:
    pieces = [PING] * rng.randint(0, 1) + [b"data: error %b\n\n" % tag]
    steps = [_stream_head(), *chunked(pieces)]
    return Plan("error in the stream", Ending.WHOLE, 200, b"".join(pieces), steps, opens=False, error=True)


def done_and_lingers(rng: random.Random, tag: bytes) -> Plan:
    pieces, steps = _begun(rng, tag)
    ending = rng.choice((["close"], [b"zz\r\n"], []))
    steps = [*steps, *chunked([DONE], end=False), *ending]
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
