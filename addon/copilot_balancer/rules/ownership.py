"""Records which account made which bound state: item ids, encrypted reasoning, signatures, session tokens.

Laws of this file:

1. Only hashes of bound state are kept (``bound_state.state_hash``): no id and no text of a conversation.
2. The newest record of a hash counts: the account that made the state, or ``NOBODY`` when that account itself refused
   it; such state is left out of later requests.
3. Bounded: the least recently seen hashes are forgotten first. Losing all of them costs one refusal per conversation,
   after which the request is sent again without its bound state.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

from pydantic import Field

MAX_HASHES = 20_000
"""An agent that works all day makes some thousands."""

NOBODY = ""
"""The owner of state that was refused by the account that made it."""


@dataclass(frozen=True, slots=True)
class Owned:
    """The account that made a piece of bound state, and when that state was last seen."""

    account_id: str
    """``NOBODY``: the account that made it refused it."""
    seen_at: float
    """Seconds since the epoch, on the wall clock."""
    expires_at: float | None = None
    """A session token: when it expires; seconds since the epoch, on the service's clock."""


@dataclass(slots=True)
class Ownership:
    """owners.json: hash of bound state -> its owner, the most recently seen last."""

    hashes: Annotated[dict[str, Owned], Field(alias="marks")] = field(default_factory=dict)

    def learn(self, hashes: Iterable[str], account_id: str, wall: float, expires_at: float | None = None) -> None:
        """Record that this account made this state, or ``NOBODY``.

        Args:
            hashes: of the state.
            account_id: of the account that made it.
            wall: seconds since the epoch now, on the wall clock.
            expires_at: when it expires (a session token); seconds since the epoch.

        """
        for state_hash in hashes:
            self.hashes.pop(state_hash, None)
            self.hashes[state_hash] = Owned(account_id, wall, expires_at)
        for state_hash in list(islice(self.hashes, max(0, len(self.hashes) - MAX_HASHES))):
            del self.hashes[state_hash]

    def since(self, wall: float) -> "Ownership":
        """The hashes that were recorded at `wall` or later, oldest first."""
        news: dict[str, Owned] = {}
        for state_hash, owned in reversed(self.hashes.items()):
            if owned.seen_at < wall:
                break
            news[state_hash] = owned
        return Ownership(dict(reversed(news.items())))

    def of(self, state_hash: str) -> str | None:
        """The id of the account that made this state; ``NOBODY``; None: not known."""
        owned = self.hashes.get(state_hash)
        return None if owned is None else owned.account_id

    def newest(self, hashes: Sequence[str]) -> str | None:
        """The account that made the last of these whose account is known; None: none is known."""
        return next((owner for state_hash in reversed(hashes) if (owner := self.of(state_hash))), None)

    def keeps(self, state_hash: str, account_id: str, owner: str | None) -> bool:
        """Whether a request that is sent to this account keeps this state.

        State of an unknown account is kept for `owner` (the account that made the request's newest state), and for any
        account when that is unknown as well: it may be the one that made it.
        """
        known = self.of(state_hash)
        return known == account_id if known is not None else owner in (None, account_id)


def newest(disk: Ownership, mine: Ownership) -> Ownership:
    """Merge two records: the newest owner of each hash, bounded to `MAX_HASHES`."""
    found = dict(disk.hashes)
    for state_hash, owned in mine.hashes.items():
        known = found.get(state_hash)
        if known is None or (known.seen_at, known.account_id) < (owned.seen_at, owned.account_id):
            found[state_hash] = owned
    ordered = sorted(found.items(), key=lambda item: (item[1].seen_at, item[0]))
    return Ownership(dict(ordered[-MAX_HASHES:]))


def owner_of(owners: Ownership, hashes: Sequence[str], needed: Collection[str]) -> tuple[str | None, bool]:
    """The account to try first for a request with this bound state, and whether no other account can serve it.

    None and True: the account that made it is required, and is not known any more.

    Args:
        owners: which account made which state.
        hashes: of all bound state in the request, the newest last.
        needed: of these, the ones that cannot be left out.

    """
    holder = owners.newest([state_hash for state_hash in hashes if state_hash in needed])
    owner = holder or owners.newest(hashes)
    return owner, holder is not None or (owner is None and any(owners.of(state_hash) is None for state_hash in needed))
