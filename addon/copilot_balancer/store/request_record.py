"""One finished request, as it is told: in the events file, by ``copilot-balancer events`` and on the dashboard.

Laws of this file:

1. Every word of an `Event` that was read is printable, whoever wrote the line.
2. What is no event of ours is None; what a newer version says besides is passed over.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, TypeAdapter
from pydantic.config import with_config

from copilot_balancer.text import printable


def _cleaned(text: str) -> str:
    return printable(text, 400)


Word = Annotated[str, AfterValidator(_cleaned)]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One upstream attempt of a request."""

    account: Word
    """Label, as it was then."""
    host: Word
    why: Word
    """Why this account was chosen."""
    reason: Word
    """What came of it: a word of ``outcomes.Reason``."""
    status: int | None = None
    """None: there was no answer."""
    rest: float | None = None
    """Seconds that the account, or the model on it, rests because of this."""
    text: Word = ""
    """What the upstream said, shortened."""
    account_id: Word = ""
    """What stays when the label is changed."""

    def is_by(self, account_id: str, label: str) -> bool:
        """Whether this account made it; by its label where an older version wrote no id."""
        return self.account_id == account_id if self.account_id else self.account == label


@with_config(ConfigDict(defer_build=True))
@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished request."""

    at: float
    """When it ended: seconds since the epoch on the wall clock. In the file: ``time``, as text in UTC."""
    id: Word
    """mitmproxy's id of the flow."""
    what: Word
    """The model that was asked for; for a request without one, method and path."""
    verdict: Word
    """How it ended: a key of ``attribution.MARKERS``."""
    status: int | None
    """What the client got; None when it left or was cut off."""
    ms: float
    """Milliseconds from the request's last byte to the answer's last."""
    account: Word | None = None
    """Label of the account that served it; None: nobody did."""
    host: Word | None = None
    model: Word | None = None
    """The model that was served, when it is another than was asked for."""
    attempts: tuple[AttemptRecord, ...] = ()
    """Oldest first; the last one is the one that served it, when somebody did."""
    conversation: Word = ""
    """The beginning of a hash; empty: it belongs to none."""
    note: Word = ""
    """Why nobody served it, or what else a person must know."""
    moved: Word = ""
    """What was done to the request so that another account could take it."""
    error: Word = ""
    """The error that came inside the answer after some of it had been passed on."""


_EVENT = TypeAdapter(RequestRecord)


def moment(at: float) -> str:
    """A time for the file: ``2026-11-03T14:05:09.120Z``."""
    return f"{datetime.fromtimestamp(at, UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def document(event: RequestRecord) -> dict[str, Any]:
    """What stands in the file about an event; what is empty is left out."""
    content = _EVENT.dump_python(event, mode="json", exclude_defaults=True)
    return {"time": moment(content.pop("at")), **content}


def parsed(line: bytes | str) -> RequestRecord | None:
    """The event of a line; None when it is none."""
    try:
        content = json.loads(line)
        return _EVENT.validate_python({**content, "at": datetime.fromisoformat(content["time"]).timestamp()})
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None
