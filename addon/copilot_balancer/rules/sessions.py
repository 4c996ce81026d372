"""Auto mode's sessions in memory: the selection that a session token came from, and the token that stands in for it.

A session token is valid with the account that fetched it alone (docs/copilot-protocol.md#auto-mode). While that account
is limited another account's token may stand for it; whose it is stands in ``ownership``, by its hash.

Laws of this file:

1. Nothing here is logged, written to disk or part of a repr: not a prompt, not a token.
2. Bounded: at most `MAX_KEPT` sessions, the oldest forgotten first; a selection of more than `MAX_BYTES` is not kept.
3. A session is found by the hash of the client's token.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from copilot_balancer.copilot.auto_mode import IDENTITY, Selection
from copilot_balancer.copilot.bound_state import state_hash

MAX_KEPT = 200
MAX_BYTES = 64 * 1024


def session_hash(token: str) -> str:
    """What a ``Copilot-Session-Token`` is remembered by."""
    return state_hash("session", token)


@dataclass(frozen=True, slots=True)
class StandIn:
    """Another account's session token, sent in the place of the client's."""

    account_id: str
    token: SecretStr
    expires_at: float
    """Seconds since the epoch, on the service's clock."""
    models: frozenset[str]


@dataclass(slots=True)
class Kept:
    """A selection request as the client sent it."""

    path: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Which program asked; no credential."""
    expires_at: float
    """Of the token that the client got; seconds since the epoch, on the service's clock."""
    stand_in: StandIn | None = None


class Selections:
    """The sessions that clients fetched through this proxy since it started."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def keep(
        self, selection: Selection, *, path: str, body: bytes, headers: Mapping[str, str], expires_at: float
    ) -> None:
        """Remember the request that `selection` came from; `headers`: the client's, by lower-case name."""
        identity = {name: headers[name] for name in IDENTITY if name in headers}
        identity["content-type"] = headers.get("content-type", "application/json")
        size = len(path) + len(body) + sum(len(name) + len(value) for name, value in identity.items())
        if size > MAX_BYTES:
            return
        self._kept[session_hash(selection.token)] = Kept(path, body, identity, expires_at)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def of(self, session: str, wall: float) -> Kept | None:
        """What is kept of the session with this hash; None: nothing, or its token has ended by `wall`."""
        kept = self._kept.get(session)
        return kept if kept is not None and wall < kept.expires_at else None

    def stand_in(self, session: str, model: str | None, wall: float) -> StandIn | None:
        """The token that stands for the session's in a chat for `model`, as long as both have not ended by `wall`."""
        kept = self.of(session, wall)
        found = kept.stand_in if kept is not None else None
        return found if found is not None and wall < found.expires_at and model in found.models else None
