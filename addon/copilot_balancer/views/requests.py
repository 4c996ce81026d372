"""Formats the record of a finished request: log line, flow comment, marker, metadata and response headers.

Laws of this file:

1. A record is made once, at the end of a request; nothing is formatted before.
2. Every word in it (a model, a label, a host, an upstream's text) goes through ``printable`` when it is shown: no line
   can be forged and no terminal broken, whoever said it.
"""

import math
import re
from typing import TYPE_CHECKING

from copilot_balancer.copilot.usage import credits_text
from copilot_balancer.store.request_record import AttemptRecord, RequestRecord
from copilot_balancer.text import duration, printable

if TYPE_CHECKING:  # the commands that print events need no mitmproxy
    from mitmproxy import http

MARKERS = {
    "served": ":green_circle:",
    "failed over": ":yellow_circle:",
    "passed": "",
    "refused": ":red_circle:",
    "failed": ":red_circle:",
    "cut off": ":red_circle:",
    "left": "",
    "declined": "",
}
"""Flow markers: green, yellow after a failover, red when the client got no success or only a part of one."""

ENDED = {
    "addon": "ended by another addon",
    "timeout": "ended by mitmproxy's tcp_timeout",
    "shutdown": "ended because this proxy was stopped",
}
"""What else than the client or the upstream may end a request: the notes that say so."""

BODY_LIMIT = 2048
"""So much of a refusal can be inspected on the flow."""

LINE_LIMIT = 2000
"""No line of the event log has more characters (docs/security.md#foreign-text)."""


def ending(record: RequestRecord) -> str:
    """What the client got, in words: the status, or how the answer was cut short."""
    if record.verdict == "left":
        return "the client left"
    if record.status is not None:
        return str(record.status)
    if record.note in ENDED.values():
        return record.note
    return "ended early" if record.verdict == "failed" else "cut off by the upstream"


def log_line(record: RequestRecord) -> str:
    """One line for the event log: account, host, model, reason, attempts and why, status, milliseconds."""
    return printable(f"copilot: {summary(record)}", LINE_LIMIT)


def summary(record: RequestRecord) -> str:
    """`log_line` without the name in front."""
    head = printable(record.what, 80)
    if record.model:
        head += f" -> {printable(record.model, 80)} (another model, by your route)"
    before = "; ".join(_refused(attempt) for attempt in record.refused)
    ended = f"{ending(record)} in {record.ms:.0f} ms"
    if record.nano_aiu is not None:
        ended += f", {credits_text(record.nano_aiu)} credits"
    if last := record.served:
        parts = [f"{head} <- {_account(last)} ({printable(last.host, 100)}) {ended}"]
        parts[0] += f", {printable(last.why, 100)}" if last.why else ""
        before = before and f"before: {before}"
    elif record.verdict == "passed":
        parts = [f"{head} <- {printable(record.note, 300) or 'nobody'}, {ended}"]
    else:
        note = "" if record.note in ENDED.values() else record.note
        parts = [f"{head} <- nobody, {ended}" + (f": {printable(note, 300)}" if note else "")]
        before = before and f"tried: {before}"
    if record.error:
        parts.append(f"an error came in the answer: {printable(record.error, 200)}")
    parts.append(before)
    parts.append(printable(record.moved, 200))
    return printable("; ".join(part for part in parts if part), LINE_LIMIT)


def repeated_line(record: RequestRecord, times: int, seconds: float) -> str:
    """The line that stands for `times` failures like `record` in the last `seconds`."""
    who = _account(record.served) if record.served else "nobody"
    again = f"{times} time{'' if times == 1 else 's'} more in {seconds:.0f} s"
    return f"copilot: {printable(record.what, 80)} <- {who}, {ending(record)}: repeated {again}"


def comment(record: RequestRecord) -> str:
    """The flow's comment. It begins with what mitmweb's list, where it is narrow, does not show: account and model."""
    asked = "" if record.what.partition(" ")[2].startswith("/") else printable(record.what, 80)
    if record.model:
        asked += f" -> {printable(record.model, 80)} (ANOTHER MODEL)"
    before = ", ".join(
        f"{_account(attempt)} {attempt.status or printable(attempt.reason, 40)}" for attempt in record.refused
    )
    last = record.served
    why = printable(last.why if last else record.note, 300)
    if record.verdict == "passed":
        who, why = why, ""
    else:
        who = _account(last) if last else "nobody"
    who += f": {asked}" if asked else ""
    if record.status is None and (last or not why):
        who += f", {ending(record)}"
    chain = [who, f"after {before}" if before else "", f"({why})" if why else ""]
    besides = [
        f"an error came in the answer: {printable(record.error, 200)}" if record.error else "",
        printable(record.moved, 200),
    ]
    line = "; ".join([" ".join(one for one in chain if one), *(one for one in besides if one)])
    return printable(line, LINE_LIMIT)


def metadata(record: RequestRecord) -> dict[str, str | int]:
    """Plain values for ``flow.metadata``, the only ones that mitmproxy's dump format takes."""
    values: dict[str, str | int] = {"copilot": record.verdict, "copilot_attempts": len(record.attempts)}
    if record.served:
        values["copilot_account"] = _account(record.served)
    for name, word in (("model", record.model), ("moved", record.moved), ("error", record.error)):
        if word:
            values[f"copilot_{name}"] = printable(word, 200)
    for number, attempt in enumerate(record.attempts, 1):
        if attempt.reason != "served":
            # said once: without a status it stands in `_refused`, and with a body there
            text = "" if attempt.status is None or attempt.body else printable(attempt.text, 200)
            values[f"copilot_attempt_{number}"] = f"{_refused(attempt)} {text}".rstrip()
            if attempt.body:
                values[f"copilot_attempt_{number}_body"] = attempt.body[:BODY_LIMIT]
    return values


def put_headers(
    response: "http.Response",
    account: str | None,
    attempts: int,
    *,
    model: str = "",
    moved: str = "",
    refused_by: str | None = None,
) -> None:
    """Say in the response who served it, or whose refusal it is, and what was changed in the request.

    Args:
        response: that the client gets.
        account: label of the account that serves; None: nobody does.
        attempts: how often the request was sent.
        model: the other model that the user's route asked for.
        moved: what was left out of the request.
        refused_by: label of the account whose refusal the response is.

    """
    response.headers["x-copilot-attempts"] = str(attempts)
    told = (("account", account), ("refused-by", refused_by), ("model-changed-to", model), ("left-out", moved))
    for name, value in told:
        if value:
            response.headers[f"x-copilot-{name}"] = _header(value)


def _account(attempt: AttemptRecord) -> str:
    return printable(attempt.account, 64)


def _header(text: str) -> str:
    """A value that cannot end its header, whoever said it."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:200]).strip() or "?"


def _refused(attempt: AttemptRecord) -> str:
    words = [_account(attempt), str(attempt.status) if attempt.status else "", printable(attempt.reason, 40)]
    said = " ".join(word for word in words if word)
    if attempt.status is None and attempt.text:
        said += f": {printable(attempt.text, 100)}"
    return f"{said} (rests {duration(attempt.rest)})" if attempt.rest and math.isfinite(attempt.rest) else said
