"""Faulty event streams in the form of each API: which events are sent, and how the stream ends.

Laws of this file:

1. Pure. ``connection`` sends what stands here.
2. A fault is a fault of a stream: it comes as an event stream whether or not one was asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from copilot_balancer.fake import chat, messages, responses
from copilot_balancer.fake.answers import (
    AnnounceOnly,
    CutMid,
    EmptyStream,
    Ending,
    Malformed,
    NoTerminator,
    Ok,
    StreamError,
)
from copilot_balancer.fake.bodies import CHAT, MESSAGES, RESPONSES, Json
from copilot_balancer.fake.reply import Event, Reply, Streamed

type Streamable = Ok | CutMid | StreamError | Malformed | NoTerminator | AnnounceOnly | EmptyStream


@dataclass(frozen=True)
class Form:
    """How an API says it."""

    stream: Callable[[Reply], Streamed]
    document: Callable[[Reply], Json]
    error: Callable[[str, str], Json]


FORMS = {
    CHAT: Form(chat.stream, chat.document, chat.error),
    RESPONSES: Form(responses.stream, responses.document, responses.error),
    MESSAGES: Form(messages.stream, messages.document, messages.error),
}


@dataclass(frozen=True)
class Outgoing:
    """What goes out."""

    events: tuple[Event, ...]
    ending: Ending
    whole: bool
    """The API's last word is among the events: over a WebSocket, the next question may come."""


def outgoing(answer: Streamable, endpoint: str, reply: Reply) -> Outgoing:
    """The events of an answer, and how its stream ends."""
    form = FORMS.get(endpoint, FORMS[CHAT])
    events = form.stream(reply)
    match answer:
        case Ok():
            return Outgoing(events.whole, "end", whole=True)
        case CutMid(after, how):
            return Outgoing(events.whole[:after], "end" if how == "clean" else how, whole=False)
        case StreamError(after=after, then=then, announced=announced):
            before = (*(events.announced if announced else ()), *events.output[:after])
            return Outgoing((*before, _error(answer, form, reply, len(before))), then, whole=True)
        case Malformed(after, data):
            output = (*events.output[:after], data, *events.output[after:])
            whole = replace(events, output=output).whole
            return Outgoing(whole, "end", whole=True)
        case NoTerminator(how):
            return Outgoing(events.announced + events.output, how, whole=False)
        case AnnounceOnly(how):
            return Outgoing(events.announced, how, whole=False)
        case EmptyStream(how=how):
            return Outgoing((), how, whole=False)


def _error(answer: StreamError, form: Form, reply: Reply, number: int) -> Event:
    """The error itself; `number`: how many events came before it."""
    if form is not FORMS[RESPONSES]:
        return form.error(answer.code, answer.message)
    failed = answer.event == "failed"
    event = responses.failed(reply, answer.code, answer.message) if failed else form.error(answer.code, answer.message)
    return {**event, "sequence_number": number}
