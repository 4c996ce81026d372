"""Who served a request, and why: one frozen record, and one formatter for each place where it is shown.

Laws of this file:

1. A record is made once, at the end of a request; nothing is formatted before.
2. Every word in it (a model, a label, a host, an upstream's text) goes through ``printable`` when it is shown: no line
   can be forged and no terminal broken, whoever said it.
3. No secret can stand in it: it is built from labels, hosts and words of ours.
"""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from copilot_balancer.store.request_record import AttemptRecord, RequestRecord, document
from copilot_balancer.text import duration, printable

if TYPE_CHECKING:  # the commands that print events need no mitmproxy
    from mitmproxy import http

MARKERS = {
    "served": ":green_circle:",
    "failed over": ":yellow_circle:",
    "refused": ":red_circle:",
    "failed": ":red_circle:",
    "cut off": ":red_circle:",
    "left": "",
    "declined": "",
}
"""Flow markers: green, yellow after a failover, red when the client got no success or only a part of one."""

FAILURES = frozenset({"refused", "failed", "cut off"})
"""The verdicts that mean that the client did not get its answer."""

ENDED = {
    "addon": "ended by another addon",
    "timeout": "ended by mitmproxy's tcp_timeout",
    "shutdown": "ended because this proxy was stopped",
}
"""What else than the client or the upstream may end a request: the notes that say so."""

BODY_LIMIT = 2048
"""So much of a refusal can be inspected on the flow (features E2)."""

LINE_LIMIT = 2000
"""No line of the event log has more characters (security.md, T17)."""


@dataclass(frozen=True, slots=True)
class Try:
    """One upstream attempt of a request."""

    account: str
    """Label."""
    host: str
    why: str
    """Why this account was chosen, in a few words."""
    reason: str
    """What came of it: a word of ``outcomes.Reason``."""
    status: int | None = None
    """None: there was no answer."""
    rest: float | None = None
    """Seconds that the account, or the model on it, rests because of this."""
    text: str = ""
    """What the upstream said, shortened."""
    body: str = ""
    """The beginning of a refusal as it came, for whoever inspects the flow."""
    account_id: str = ""


@dataclass(frozen=True, slots=True)
class Attribution:
    """One client request, told at its end."""

    what: str
    """The model; for requests without one, method and path."""
    tries: tuple[Try, ...]
    status: int | None
    """What the client got; None when it left or was cut off."""
    seconds: float
    """From the request's last byte to the answer's last."""
    served: bool
    """Whether the last of the tries is the one that answered."""
    note: str = ""
    """Why nobody served it, or what else a person must know."""
    declined: bool = False
    """We answered with a no that is meant to bring the client back in a better way."""
    client_left: bool = False
    """The client did not wait for the end."""
    request_id: str = ""
    """mitmproxy's id of the flow."""
    conversation: str = ""
    """The hash that names the conversation; empty: it belongs to none."""
    served_model: str = ""
    """The model that the answer comes from, when it is another than was asked for."""
    moved: str = ""
    """What was done to the request so that another account could take it; empty: nothing."""
    error: str = ""
    """The error that came inside the answer after some of it had been passed on."""

    @property
    def verdict(self) -> str:
        """How it ended, in a word or two: a key of ``MARKERS``."""
        if self.served and self.error:
            return "failed"
        if self.client_left:
            return "left"
        if not self.served:
            return "declined" if self.declined else "refused"
        if self.status is None:
            return "cut off"
        return "failed over" if len(self.tries) > 1 else "served"


def log_line(record: Attribution) -> str:
    """One line for the event log: account, host, model, reason, attempts and why, status, milliseconds."""
    return printable(f"copilot: {told(record)}", LINE_LIMIT)


def told(record: Attribution) -> str:
    """The same without the name in front."""
    head = printable(record.what, 80)
    if record.served_model:
        head += f" -> {printable(record.served_model, 80)} (another model, by your route)"
    refused = record.tries[:-1] if record.served else record.tries
    before = "; ".join(_refused(attempt) for attempt in refused)
    ending = f"{_ending(record)} in {record.seconds * 1000:.0f} ms"
    if record.served:
        last = record.tries[-1]
        parts = [f"{head} <- {_account(last)} ({printable(last.host, 100)}) {ending}, {printable(last.why, 100)}"]
        before = before and f"before: {before}"
    else:
        note = "" if record.note in ENDED.values() else record.note
        parts = [f"{head} <- nobody, {ending}" + (f": {printable(note, 300)}" if note else "")]
        before = before and f"tried: {before}"
    if record.error:
        parts.append(f"an error came in the answer: {printable(record.error, 200)}")
    parts.append(before)
    parts.append(printable(record.moved, 200))
    return printable("; ".join(part for part in parts if part), LINE_LIMIT)


def repeated_line(record: Attribution, times: int, seconds: float) -> str:
    """The line that stands for `times` failures like `record` in the last `seconds`."""
    who = _account(record.tries[-1]) if record.served else "nobody"
    again = f"{times} time{'' if times == 1 else 's'} more in {seconds:.0f} s"
    return f"copilot: {printable(record.what, 80)} <- {who}, {_ending(record)}: repeated {again}"


def comment(record: Attribution) -> str:
    """The flow's comment: who served it, then after whom; mitmweb's list shows the first words only."""
    refused = record.tries[:-1] if record.served else record.tries
    before = ", ".join(f"{_account(attempt)} {attempt.status or printable(attempt.reason, 40)}" for attempt in refused)
    last = record.tries[-1] if record.served else None
    head = f"{_account(last)} {_ending(record)}" if last else "nobody" if before or record.note else ""
    why = printable(last.why if last else record.note, 300)
    chain = [head, f"after {before}" if before else "", f"({why})" if why else ""]
    besides = [
        f"ANOTHER MODEL: {printable(record.served_model, 80)}" if record.served_model else "",
        f"an error came in the answer: {printable(record.error, 200)}" if record.error else "",
        printable(record.moved, 200),
    ]
    line = "; ".join([" ".join(one for one in chain if one), *(one for one in besides if one)])
    return printable(line, LINE_LIMIT)


def metadata(record: Attribution) -> dict[str, str | int]:
    """Plain values for ``flow.metadata``, the only ones that mitmproxy's dump format takes."""
    values: dict[str, str | int] = {"copilot": record.verdict, "copilot_attempts": len(record.tries)}
    if record.served:
        values["copilot_account"] = _account(record.tries[-1])
    for name, word in (("model", record.served_model), ("moved", record.moved), ("error", record.error)):
        if word:
            values[f"copilot_{name}"] = printable(word, 200)
    for number, attempt in enumerate(record.tries, 1):
        if attempt.reason != "served":
            values[f"copilot_attempt_{number}"] = f"{_refused(attempt)} {printable(attempt.text, 200)}".rstrip()
            if attempt.body:
                values[f"copilot_attempt_{number}_body"] = attempt.body[:BODY_LIMIT]
    return values


def put_headers(
    response: "http.Response", account: str | None, attempts: int, *, model: str = "", moved: str = ""
) -> None:
    """Say in the answer who gave it and, when it was changed, which model and what was left out of the request."""
    response.headers["x-copilot-attempts"] = str(attempts)
    for name, value in (("account", account), ("model-changed-to", model), ("left-out", moved)):
        if value:
            response.headers[f"x-copilot-{name}"] = _header(value)


def event(record: Attribution, wall: float) -> dict[str, Any]:
    """What ``events.jsonl`` says about a request that ended at `wall` (seconds since the epoch)."""
    served = record.tries[-1] if record.served else None
    return document(
        RequestRecord(
            at=wall,
            id=record.request_id,
            what=printable(record.what, 200),
            verdict=record.verdict,
            status=record.status,
            ms=round(record.seconds * 1000, 1),
            account=None if served is None else printable(served.account, 64),
            host=None if served is None else printable(served.host, 100),
            model=printable(record.served_model, 200) or None,
            attempts=tuple(_attempt(attempt) for attempt in record.tries),
            conversation=printable(record.conversation, 12),
            note=printable(record.note, 300),
            moved=printable(record.moved, 200),
            error=printable(record.error, 200),
        )
    )


def recorded(event: RequestRecord) -> Attribution:
    """The record of an event that was read again."""
    return Attribution(
        what=event.what,
        tries=tuple(
            Try(one.account, one.host, one.why, one.reason, one.status, one.rest, one.text) for one in event.attempts
        ),
        status=event.status,
        seconds=event.ms / 1000,
        served=event.account is not None and bool(event.attempts),
        note=event.note,
        declined=event.verdict == "declined",
        client_left=event.verdict == "left",
        request_id=event.id,
        conversation=event.conversation,
        served_model=event.model or "",
        moved=event.moved,
        error=event.error,
    )


def _attempt(attempt: Try) -> AttemptRecord:
    rest = attempt.rest
    return AttemptRecord(
        account=printable(attempt.account, 64),
        host=printable(attempt.host, 100),
        why=printable(attempt.why, 100),
        reason=printable(attempt.reason, 40),
        status=attempt.status,
        rest=round(rest, 1) if rest is not None and math.isfinite(rest) else None,
        text=printable(attempt.text, 200),
        account_id=printable(attempt.account_id, 100),
    )


def _account(attempt: Try) -> str:
    return printable(attempt.account, 64)


def _header(text: str) -> str:
    """A value that cannot end its header, whoever said it."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:200]).strip() or "?"


def _ending(record: Attribution) -> str:
    if record.client_left:
        return "the client left"
    if record.status is not None:
        return str(record.status)
    return record.note if record.note in ENDED.values() else "cut off by the upstream"


def _refused(attempt: Try) -> str:
    words = [_account(attempt), str(attempt.status) if attempt.status else "", printable(attempt.reason, 40)]
    said = " ".join(word for word in words if word)
    if attempt.status is None and attempt.text:
        said += f": {printable(attempt.text, 100)}"
    return f"{said} (rests {duration(attempt.rest)})" if attempt.rest and math.isfinite(attempt.rest) else said
