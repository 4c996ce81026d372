"""Who served a request, and why: one frozen record, and one formatter for each place where it is shown.

Laws of this file:

1. A record is made once, at the end of a request; nothing is formatted before.
2. Every foreign word in it (a model, a host, an upstream's text) has been through ``printable``: no line can be forged.
3. No secret can stand in it: it is built from labels, hosts and words of ours.
"""

from dataclasses import dataclass

from mitmproxy import http

from copilot_balancer.assignment import duration
from copilot_balancer.errors import printable

MARKERS = {
    "served": ":green_circle:",
    "failed over": ":yellow_circle:",
    "refused": ":red_circle:",
    "cut off": ":red_circle:",
    "left": "",
    "declined": "",
}
"""Flow markers: green, yellow after a failover, red when the client got no success or only a part of one."""


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

    @property
    def verdict(self) -> str:
        """How it ended, in a word or two: a key of ``MARKERS``."""
        if self.client_left:
            return "left"
        if not self.served:
            return "declined" if self.declined else "refused"
        if self.status is None:
            return "cut off"
        return "failed over" if len(self.tries) > 1 else "served"


def log_line(record: Attribution) -> str:
    """One line for the event log: account, host, model, reason, attempts and why, status, milliseconds."""
    status = _ending(record)
    head = f"copilot: {printable(record.what, 80)}"
    refused = record.tries[:-1] if record.served else record.tries
    before = "; ".join(_refused(attempt) for attempt in refused)
    took = f"in {record.seconds * 1000:.0f} ms"
    if record.served:
        last = record.tries[-1]
        line = f"{head} <- {last.account} ({last.host}) {status} {took}, {last.why}"
        return f"{line}; before: {before}" if before else line
    line = f"{head} <- nobody, {status} {took}"
    if record.note:
        line += f": {printable(record.note, 300)}"
    return f"{line}; tried: {before}" if before else line


def comment(record: Attribution) -> str:
    """The flow's comment: who served it, after whom; readable in mitmweb's list."""
    refused = record.tries[:-1] if record.served else record.tries
    chain = [f"{attempt.account} {attempt.status or attempt.reason}" for attempt in refused]
    if record.served:
        last = record.tries[-1]
        chain.append(f"{last.account} {_ending(record)} ({last.why})")
    elif record.note:
        chain.append(printable(record.note, 300))
    return " > ".join(chain)


def metadata(record: Attribution) -> dict[str, str | int]:
    """Plain values for ``flow.metadata``, the only ones that mitmproxy's dump format takes."""
    values: dict[str, str | int] = {"copilot": record.verdict, "copilot_attempts": len(record.tries)}
    if record.served:
        values["copilot_account"] = record.tries[-1].account
    for number, attempt in enumerate(record.tries, 1):
        if attempt.reason != "served":
            values[f"copilot_attempt_{number}"] = f"{_refused(attempt)} {printable(attempt.text, 200)}".rstrip()
    return values


def put_headers(response: http.Response, account: str | None, attempts: int) -> None:
    """Say in the answer who gave it. A label is ``[a-z0-9._-]`` and cannot forge a header."""
    if account is not None:
        response.headers["x-copilot-account"] = account
    response.headers["x-copilot-attempts"] = str(attempts)


def _ending(record: Attribution) -> str:
    if record.client_left:
        return "the client left"
    return "cut off by the upstream" if record.status is None else str(record.status)


def _refused(attempt: Try) -> str:
    words = [attempt.account, str(attempt.status) if attempt.status else "", attempt.reason]
    told = " ".join(word for word in words if word)
    if attempt.status is None and attempt.text:
        told += f": {printable(attempt.text, 100)}"
    return f"{told} (rests {duration(attempt.rest)})" if attempt.rest else told
