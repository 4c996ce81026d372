"""The last refusals that no rule knew, in ``unknown.json``: what a report needs, and nothing that they quote.

Laws of this file:

1. `put` is called on the event loop and never waits; `drain` blocks, takes quotations out (`quotation.unquoted`) and
   writes. A request's body is held only until then, and never written.
2. At most `KEPT` refusals are kept and `WAITING` wait. The file is the store's: for the owner alone, replaced whole.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from pydantic import ConfigDict, TypeAdapter
from pydantic.config import with_config

from copilot_balancer.copilot.quotation import unquoted
from copilot_balancer.store.store import Format, Store
from copilot_balancer.text import printable

KEPT = 50
WAITING = 8
SHOWN_BYTES = 500
"""Of a refusal's body."""


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
@dataclass(frozen=True, slots=True)
class UnknownRefusal:
    """A refusal as it is kept."""

    at: float
    """Seconds since the epoch, on the wall clock."""
    status: int | None
    """None: an error inside a stream."""
    path: str
    code: str
    body: str
    """The first bytes, without what they quote."""


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
@dataclass(slots=True)
class UnknownRefusals:
    """unknown.json; oldest first."""

    refusals: list[UnknownRefusal] = field(default_factory=list)


UNKNOWN: Format[UnknownRefusals] = Format(
    "unknown.json",
    "refusals that no rule of copilot-balancer knew; words of requests, ids and credentials were replaced",
    TypeAdapter(UnknownRefusals),
    UnknownRefusals,
)


@dataclass(frozen=True, slots=True)
class SeenRefusal:
    """A refusal as it came, until it is written."""

    at: float
    status: int | None
    path: str
    code: str
    body: bytes = field(repr=False)
    """The refusal's, uncompressed."""
    request: bytes = field(repr=False)
    """The client's body, uncompressed."""
    names: Collection[str] = field(default=(), repr=False)
    """Logins and labels of the stored accounts."""


class UnknownRefusalLog:
    """Takes refusals and writes them when it is told to. `store`: the user's files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[SeenRefusal] = deque(maxlen=WAITING)

    @property
    def waits(self) -> bool:
        """Whether there is something to `drain`."""
        return bool(self._waiting)

    def put(self, seen: SeenRefusal) -> None:
        """Take a refusal; of more than `WAITING` the oldest is lost."""
        self._waiting.append(seen)

    def drain(self) -> None:
        """Write what waits. Blocks.

        Raises:
            StoreError: the file cannot be used; what waited is lost.

        """
        new = []
        while self._waiting:
            new.append(_kept(self._waiting.popleft()))
        if new:
            self._store.edit(UNKNOWN, lambda known: UnknownRefusals([*known.refusals, *new][-KEPT:]))


def read_unknown(store: Store) -> tuple[UnknownRefusal, ...]:
    """What is kept, oldest first. Blocks; raises StoreError."""
    return tuple(store.read(UNKNOWN).refusals)


def _kept(seen: SeenRefusal) -> UnknownRefusal:
    # more than is shown, so that no quotation is cut before it is found
    text = seen.body[: 4 * SHOWN_BYTES].decode("utf-8", "replace")
    code, body = (unquoted(one, seen.request, seen.names) for one in (seen.code, text))
    return UnknownRefusal(
        seen.at, seen.status, printable(seen.path, 80), printable(code, 80), printable(body, SHOWN_BYTES)
    )
