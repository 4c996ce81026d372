"""Every way in which an upstream fails, as data: what the first account does, and what a client must get then.

The two faults that belong to HTTP/2 have another form here, since upstream is pinned to HTTP/1.1:
a dead peer is one that is silent, a GOAWAY is a connection that closes between two requests.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass

from copilot_balancer.fake.answers import (
    BAD_CREDENTIALS,
    MODEL_NOT_SUPPORTED,
    Answer,
    CutMid,
    Drop,
    EndlessError,
    Ok,
    RawBytes,
    Refuse,
    Silent,
    SlowFirst,
    StreamError,
    Trickle,
    limited,
)
from copilot_balancer.fake.bodies import CHAT
from copilot_balancer.fake.faults import FORMS
from copilot_balancer.fake.reply import Reply, as_sse
from copilot_balancer.fake.seen import Seen

REFUSES, SWALLOWS, MUTE = (f"api.{seat}.githubcopilot.com" for seat in ("business", "enterprise", "individual"))
"""Hosts that refuse connections, that never answer them, and that never begin TLS."""
SHORT_WAIT = 3.0
"""Seconds for the first byte and for a pause: short, and longer than a busy machine lets a healthy answer wait."""

MOVED, STAYED, PASSED, CUT = "moved", "stayed", "passed on", "cut"
"""Answered by the second account; by the first; the first one's refusal, as it is; the first one's answer, aborted."""


def word_of(seen: Seen) -> str:
    """The one word of a request that nobody else's has."""
    return str(seen.json["messages"][0]["content"])


def answer(seen: Seen) -> Ok:
    """A whole answer that tells whose request it answers, and in the model's id which account did."""
    return Ok(f"an answer to {word_of(seen)} in several words")


@dataclass(frozen=True)
class Fault:
    """One of them."""

    name: str
    expected: str
    answer: Callable[[Seen], Answer]
    """What the first account answers."""
    status: int = 200
    """What the client sees."""
    host: str = "api.githubcopilot.com"
    """The first account's own."""
    asked: bool = True
    """Whether the first account sees the request at all."""
    text: str = ""
    """What the body holds of a refusal that is passed on."""
    waits: bool = False
    """Whether a time-out ends it."""
    looks_dead: bool = False
    """Whether a kept connection looks as if it had been dead before: the first account is then sent it once more."""
    most_repairs: int = 1_000_000
    """How many of its requests may be sent to the first account twice."""
    repaired: bool = False
    """Whether the account's host may be wrong: it is learnt, once an hour, and the first account asked once more."""


def _always(given: Answer) -> Callable[[Seen], Answer]:
    return lambda _: given


def _stream(seen: Seen) -> list[bytes]:
    """An answer's events."""
    pieces = ("an answer to ", f"{word_of(seen)} ", "in ", "several ", "words")
    reply = Reply("raw-0001", str(seen.model), pieces, 1, 1, str(seen.account))
    return [as_sse(event) for event in FORMS[CHAT].stream(reply).whole]


def _chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_CHUNKED = _HEAD + b"transfer-encoding: chunked\r\n\r\n"
_LIMIT = ("user_model_rate_limited", "Sorry, you have exceeded your rate limit for this model.")
_ERROR = json.dumps({"error": {"message": "Sorry, slow down.", "code": "rate_limited"}}).encode()
_PAGE = Refuse(502, body=b"<html><body>Unicorn!</body></html>", content_type="text/html")
_NO_ACCESS = Refuse(403, "", "You are not authorized to use Copilot.")
_TOO_LONG = Refuse(400, "context_length_exceeded", "The prompt is too long.")
_MOVED_AWAY = Refuse(302, body=b"", headers=(("location", "https://github.com/login"),))
_BOMB = gzip.compress(bytes(64 * 1024 * 1024), 9)


def _refuse(status: int, **more: object) -> Callable[[Seen], Answer]:
    return _always(Refuse(status, message="Something went wrong.", **more))


def _hint(value: str) -> Callable[[Seen], Answer]:
    return _always(Refuse(429, "rate_limited", "Sorry, slow down.", (("retry-after", value),)))


def _closed_after(seen: Seen) -> Answer:
    """A whole answer on a connection that is kept, and closed all the same."""
    body = b"".join(_stream(seen))
    return RawBytes(_HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))


def _too_short(seen: Seen) -> Answer:
    """Content-Length says more than comes."""
    body = b"".join(_stream(seen)[:4])
    return RawBytes(_HEAD + b"content-length: %d\r\n\r\n%b" % (len(body) + 1000, body))


def _too_long(seen: Seen) -> Answer:
    """Content-Length says less than comes: what is over could be taken for the next answer."""
    body = b"".join(_stream(seen))
    smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled"
    return RawBytes(_HEAD + b"content-length: %d\r\n\r\n%b%b" % (len(body), body, smuggled))


def _bad_chunk_late(seen: Seen) -> Answer:
    return RawBytes(_CHUNKED + _chunked(*_stream(seen)[:4]) + b"zz\r\nnonsense\r\n")


def _with(**more: object) -> Callable[[Seen], Answer]:
    return lambda seen: Ok(answer(seen).text, **more)


def _cut(how: str) -> Callable[[Seen], Answer]:
    return lambda seen: CutMid(4, how, answer(seen))


FAULTS = (
    # the connection
    Fault("connect refused", MOVED, answer, host=REFUSES, asked=False),
    Fault("connect never answered", MOVED, answer, host=SWALLOWS, asked=False, waits=True),
    Fault("TLS never answered", MOVED, answer, host=MUTE, asked=False, waits=True),
    Fault("reset before the head", MOVED, _always(Drop("rst")), looks_dead=True),
    Fault("closed before the head", MOVED, _always(Drop("fin")), looks_dead=True),
    Fault("half a head, then closed", MOVED, _always(RawBytes(b"HTTP/1.1 200 OK\r\ncontent-ty"))),
    Fault(
        "half a head, then silence", MOVED, _always(RawBytes(b"HTTP/1.1 200 OK\r\ncontent-ty", close=False)), waits=True
    ),
    Fault(
        "a head that drips for ever",
        MOVED,
        _always(Trickle(b"HTTP/1.1 200 OK\r\n" + b"x-more: 1\r\n" * 1000)),
        waits=True,
    ),
    Fault("not HTTP", MOVED, _always(RawBytes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))),
    Fault("silent", MOVED, _always(Silent()), waits=True),
    Fault("slow head", STAYED, lambda seen: SlowFirst(0.3, answer(seen))),
    Fault("connection: close", STAYED, _with(headers=(("connection", "close"),))),
    Fault("closed between two requests", STAYED, _closed_after),
    # refusals
    Fault("429 with Retry-After", MOVED, _always(limited(30))),
    Fault("429, Retry-After huge", MOVED, _hint("99999999999999999999")),
    Fault("429, Retry-After negative", MOVED, _hint("-5")),
    Fault("429, Retry-After NaN", MOVED, _hint("NaN")),
    Fault("402", MOVED, _always(Refuse(402, "quota_exceeded", "You have no quota"))),
    Fault("401", MOVED, _always(BAD_CREDENTIALS)),
    Fault("403", MOVED, _always(_NO_ACCESS), repaired=True, most_repairs=1),
    Fault("400, no such model", MOVED, _always(MODEL_NOT_SUPPORTED)),
    Fault("400, the request's own", PASSED, _always(_TOO_LONG), status=400, text="The prompt is too long."),
    Fault("500", MOVED, _refuse(500)),
    Fault("502, an HTML page", MOVED, _always(_PAGE)),
    Fault("503", MOVED, _refuse(503)),
    Fault("504", MOVED, _refuse(504)),
    Fault("529", MOVED, _refuse(529)),
    Fault("302", PASSED, _always(_MOVED_AWAY), status=302),
    Fault("compression bomb", MOVED, _always(Refuse(429, body=_BOMB, headers=(("content-encoding", "gzip"),)))),
    Fault("endless error, fast", MOVED, _always(EndlessError(chunk=b"x" * 65536, gap=0.0))),
    Fault("endless error, slow", MOVED, _always(EndlessError(chunk=b"x", gap=0.1)), waits=True),
    Fault(
        "an error shorter than told",
        MOVED,
        _always(RawBytes(b"HTTP/1.1 429 X\r\ncontent-length: 999\r\n\r\n" + _ERROR)),
    ),
    # streams
    Fault("an error as the first event", MOVED, _always(StreamError(*_LIMIT, announced=False))),
    Fault("a head, then silence", MOVED, lambda seen: Ok(answer(seen).text, wait=3600), waits=True),
    Fault("bad chunk before output", MOVED, _always(RawBytes(_CHUNKED + b"zz\r\n"))),
    Fault("bad chunk after output", CUT, _bad_chunk_late),
    Fault("less than Content-Length", CUT, _too_short),
    Fault("more than Content-Length", STAYED, _too_long),
    Fault("reset in the answer", CUT, _cut("rst")),
    Fault("closed in the answer", CUT, _cut("fin")),
    Fault("ended early", CUT, _cut("clean")),
    Fault("stalled in the answer", CUT, _cut("stall"), waits=True),
    Fault("Set-Cookie", STAYED, _with(headers=(("set-cookie", "who=first"),))),
)
