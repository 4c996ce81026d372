"""The record of one finished request: a frozen value, and its JSON line in ``events.jsonl``.

The proxy makes a record at the end of each request; the log line, the flow's comment, ``copilot-balancer events`` and
the dashboard all format the same record, made just now or read from the file.

Laws of this file:

1. A record that was read holds printable words of bounded length only, whoever wrote the line; a record is written with
   the same bounds. No bound is applied to a record in memory.
2. A line that is no record reads as None. Fields that a newer version adds are ignored.
3. No secret can stand in a record: it is built from labels, hosts, and what ``rules.classify`` keeps of a refusal.
"""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, PlainSerializer, TypeAdapter
from pydantic.config import with_config

from copilot_balancer.text import printable

FAILURES = frozenset({"refused", "failed", "cut off"})
"""The verdicts that mean that the client did not get its answer."""


def _text(limit: int) -> Any:
    """Metadata of a text field: printable and at most `limit` characters, in the file and when read."""
    bounded = partial(printable, limit=limit)
    return AfterValidator(bounded), PlainSerializer(bounded)


def _seconds(rest: float | None) -> float | None:
    return round(rest, 1) if rest is not None and math.isfinite(rest) else None


def _milliseconds(ms: float) -> float:
    return round(ms, 1)


def _optional_milliseconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)


_TEXT_200, _TEXT_100, _TEXT_64 = _text(200), _text(100), _text(64)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One upstream attempt of a request."""

    account: Annotated[str, *_TEXT_64]
    """Label, as it was then."""
    host: Annotated[str, *_TEXT_100]
    why: Annotated[str, *_TEXT_100]
    """Why this account was chosen, in a few words."""
    reason: Annotated[str, *_text(40)]
    """What came of it: a ``rules.types.Reason``."""
    status: int | None = None
    """None: there was no answer."""
    rest: Annotated[float | None, PlainSerializer(_seconds)] = None
    """Seconds of cooldown that the account, or the model on it, got because of this; may be infinite in memory."""
    text: Annotated[str, *_TEXT_200] = ""
    """What the upstream said, shortened."""
    account_id: Annotated[str, *_TEXT_100] = ""
    """``Account.id``, which stays when the label is changed; empty in files of older versions."""
    body: Annotated[str, AfterValidator(lambda _foreign: ""), Field(exclude=True)] = ""
    """The beginning of a refusal as it came, for the flow's metadata; never in the file."""

    def is_by(self, account_id: str, label: str) -> bool:
        """Whether this account made it; by its label where an older version wrote no id."""
        return self.account_id == account_id if self.account_id else self.account == label


@with_config(ConfigDict(defer_build=True))
@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished request."""

    at: float
    """When it ended: seconds since the epoch on the wall clock. In the file: ``time``, as text in UTC."""
    id: Annotated[str, *_TEXT_100]
    """mitmproxy's id of the flow."""
    what: Annotated[str, *_TEXT_200]
    """The model that was asked for; for a request without one, method and path."""
    verdict: Annotated[str, *_TEXT_64]
    """How it ended: "served", "failed over", "passed" (with the client's own credential), "refused", "declined" (a
    refusal that the client expects), "failed", "cut off" or "left"."""
    status: int | None
    """What the client got; None when it left or was cut off."""
    ms: Annotated[float, PlainSerializer(_milliseconds)]
    """Milliseconds from the request's last byte to the answer's last."""
    account: Annotated[str, *_TEXT_64] | None = None
    """Label of the account that served it; None: nobody did."""
    host: Annotated[str, *_TEXT_100] | None = None
    """Where it was served."""
    model: Annotated[str, *_TEXT_200] | None = None
    """The model that was served, when it is another than was asked for."""
    attempts: tuple[AttemptRecord, ...] = ()
    """Oldest first; the last one is the one that served it, when somebody did."""
    conversation: Annotated[str, *_text(12)] = ""
    """The hash that names the conversation, in the file its beginning; empty: it belongs to none."""
    note: Annotated[str, *_text(300)] = ""
    """Why nobody served it, or what else a person must know."""
    moved: Annotated[str, *_TEXT_200] = ""
    """What was done to the request so that another account could take it; empty: nothing."""
    error: Annotated[str, *_TEXT_200] = ""
    """The error that came inside the answer after some of it had been passed on."""
    first_ms: Annotated[float | None, PlainSerializer(_optional_milliseconds)] = None
    """Milliseconds from the request's last byte to the first of the answer that the client got."""
    tokens_in: int = 0
    """Input tokens as the answer told them, cached ones included; see `copilot.usage.Usage` for all of these."""
    cached: int = 0
    tokens_out: int = 0
    reasoning: int = 0
    nano_aiu: int | None = None
    """The price that the answer named, in nano AIU; None: it named none."""
    client: Annotated[str, *_TEXT_64] = ""
    """The first product of the request's User-Agent: ``opencode/1.18.33``."""

    @property
    def served(self) -> AttemptRecord | None:
        """The attempt that answered; None when nobody served the request."""
        if self.account is None:
            return None
        if not self.attempts:  # a line that was too long for the file is written without them
            return AttemptRecord(self.account, self.host or "", "", "served", self.status)
        return self.attempts[-1]

    @property
    def refused(self) -> tuple[AttemptRecord, ...]:
        """The attempts that did not answer, oldest first."""
        return self.attempts if self.account is None else self.attempts[:-1]


def finished(
    attempts: tuple[AttemptRecord, ...],
    *,
    served: bool,
    status: int | None,
    error: str = "",
    client_left: bool = False,
    declined: bool = False,
    passed: bool = False,
    **facts: Any,
) -> RequestRecord:
    """The record of a request that is over, with its verdict.

    Args:
        attempts: oldest first.
        served: whether the last of them is the one that answered.
        status: what the client got; None when it left or was cut off.
        error: the error that came inside the answer after some of it had been passed on.
        client_left: the client did not wait for the end.
        declined: the proxy answered with a no that the client expects, or that brings it back in a better way.
        passed: it went out with the client's own credential, so its end is no account's.
        facts: further fields of `RequestRecord`.

    """
    last = attempts[-1] if served else None
    if last and error:
        verdict = "failed"
    elif client_left:
        verdict = "left"
    elif last is None:
        verdict = "declined" if declined else "passed" if passed else "refused"
    elif status is None:
        verdict = "cut off"
    else:
        verdict = "failed over" if len(attempts) > 1 else "served"
    account, host = (last.account, last.host) if last else (None, None)
    return RequestRecord(
        attempts=attempts, verdict=verdict, status=status, account=account, host=host, error=error, **facts
    )


_RECORD = TypeAdapter(RequestRecord)


def moment(at: float) -> str:
    """A time for the file: ``2026-11-03T14:05:09.120Z``; `at` in seconds since the epoch."""
    return f"{datetime.fromtimestamp(at, UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def document(record: RequestRecord) -> dict[str, Any]:
    """The JSON object of a record, as in the file; empty fields are left out."""
    content = _RECORD.dump_python(record, mode="json", exclude_defaults=True)
    return {"time": moment(content.pop("at")), **content}


def parsed(line: bytes | str) -> RequestRecord | None:
    """The record of a line; None when it is none."""
    try:
        content = json.loads(line)
        return _RECORD.validate_python({**content, "at": datetime.fromisoformat(content["time"]).timestamp()})
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None
