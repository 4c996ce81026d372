"""Whose is what a request carries: which account made an item id, encrypted reasoning, a signature, a session token.

Laws of this file:

1. What is owned goes by its hash (``bound_state.state_hash``), a hash: no id and no word of a conversation stands here.
2. The newest word counts: who made it, or that even its maker refused it (``NOBODY``); from then on it is left out.
3. Bounded: the hashes that were seen least recently are forgotten first. Losing all of it costs one refusal a
   conversation, which is then asked once more without what is bound.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

from pydantic import Field

MAX_HASHES = 20_000
"""An agent that works all day makes some thousands."""

NOBODY = ""
"""The owner of what its own maker refused."""


@dataclass(frozen=True, slots=True)
class Owned:
    """Who made something, and when that was last seen."""

    account_id: str
    """``NOBODY``: its maker refused it."""
    seen_at: float
    """Seconds since the epoch, on the wall clock."""
    expires_at: float | None = None
    """A session token: when it ends by itself; seconds since the epoch, on the service's clock."""


@dataclass(slots=True)
class Ownership:
    """owners.json: hash -> its owner; the one that was seen last is last."""

    hashes: Annotated[dict[str, Owned], Field(alias="marks")] = field(default_factory=dict)

    def learn(self, hashes: Iterable[str], account_id: str, wall: float, expires_at: float | None = None) -> None:
        """These were made by this account (or are ``NOBODY``'s).

        Args:
            hashes: of what was made.
            account_id: its maker.
            wall: seconds since the epoch now, on the wall clock.
            expires_at: when it ends by itself (a session token); seconds since the epoch.

        """
        for state_hash in hashes:
            self.hashes.pop(state_hash, None)
            self.hashes[state_hash] = Owned(account_id, wall, expires_at)
        for state_hash in list(islice(self.hashes, max(0, len(self.hashes) - MAX_HASHES))):
            del self.hashes[state_hash]

    def since(self, wall: float) -> "Ownership":
        """What was learnt from then on."""
        news: dict[str, Owned] = {}
        for state_hash, owned in reversed(self.hashes.items()):
            if owned.seen_at < wall:
                break
            news[state_hash] = owned
        return Ownership(dict(reversed(news.items())))

    def of(self, state_hash: str) -> str | None:
        """Id of the account that made it; ``NOBODY``; None: it is not known."""
        owned = self.hashes.get(state_hash)
        return None if owned is None else owned.account_id

    def newest(self, hashes: Sequence[str]) -> str | None:
        """Who made the last of these that somebody is known to have made; None: nobody is known."""
        return next((owner for state_hash in reversed(hashes) if (owner := self.of(state_hash))), None)

    def keeps(self, state_hash: str, account_id: str, owner: str | None) -> bool:
        """Whether a request that goes to this account keeps this.

        What is not known goes along with its `owner` (who made the newest), and to whoever serves when that is not
        known either: it may well be theirs.
        """
        known = self.of(state_hash)
        return known == account_id if known is not None else owner in (None, account_id)


def newest(disk: Ownership, mine: Ownership) -> Ownership:
    """Both as one: the newest word about each hash, bounded."""
    found = dict(disk.hashes)
    for state_hash, owned in mine.hashes.items():
        known = found.get(state_hash)
        if known is None or (known.seen_at, known.account_id) < (owned.seen_at, owned.account_id):
            found[state_hash] = owned
    ordered = sorted(found.items(), key=lambda item: (item[1].seen_at, item[0]))
    return Ownership(dict(ordered[-MAX_HASHES:]))


def owner_of(owners: Ownership, hashes: Sequence[str], needed: Collection[str]) -> tuple[str | None, bool]:
    """Who is to be asked first for a request that carries these, and whether nobody else can go on with it.

    None and True: somebody's, whom nobody knows any more.

    Args:
        owners: what is known.
        hashes: all that the request carries, the newest last.
        needed: of these, what cannot be left out.

    """
    holder = owners.newest([state_hash for state_hash in hashes if state_hash in needed])
    owner = holder or owners.newest(hashes)
    return owner, holder is not None or (owner is None and any(owners.of(state_hash) is None for state_hash in needed))
