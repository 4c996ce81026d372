"""Whose is what a request carries: which account made an item id, encrypted reasoning, a signature, a session token.

Laws of this file:

1. What is owned goes by its mark (``bound.mark``), a hash: no id and no word of a conversation stands here.
2. The newest word counts: who made it, or that even its maker refused it (``NOBODY``); from then on it is left out.
3. Bounded: the marks that were seen least recently are forgotten first. Losing all of it costs one refusal a
   conversation, which is then asked once more without what is bound.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

MAX_MARKS = 20_000
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
    """owners.json: mark -> its owner; the one that was seen last is last."""

    marks: dict[str, Owned] = field(default_factory=dict)

    def learn(self, marks: Iterable[str], account_id: str, wall: float, expires_at: float | None = None) -> None:
        """These were made by this account (or are ``NOBODY``'s).

        Args:
            marks: of what was made.
            account_id: its maker.
            wall: seconds since the epoch now, on the wall clock.
            expires_at: when it ends by itself (a session token); seconds since the epoch.

        """
        for mark in marks:
            self.marks.pop(mark, None)
            self.marks[mark] = Owned(account_id, wall, expires_at)
        for mark in list(islice(self.marks, max(0, len(self.marks) - MAX_MARKS))):
            del self.marks[mark]

    def since(self, wall: float) -> "Ownership":
        """What was learnt from then on."""
        news: dict[str, Owned] = {}
        for mark, owned in reversed(self.marks.items()):
            if owned.seen_at < wall:
                break
            news[mark] = owned
        return Ownership(dict(reversed(news.items())))

    def of(self, mark: str) -> str | None:
        """Id of the account that made it; ``NOBODY``; None: it is not known."""
        owned = self.marks.get(mark)
        return None if owned is None else owned.account_id

    def newest(self, marks: Sequence[str]) -> str | None:
        """Who made the last of these that somebody is known to have made; None: nobody is known."""
        return next((owner for mark in reversed(marks) if (owner := self.of(mark))), None)

    def keeps(self, mark: str, account_id: str, owner: str | None) -> bool:
        """Whether a request that goes to this account keeps this.

        What is not known goes along with its `owner` (who made the newest), and to whoever serves when that is not
        known either: it may well be theirs.
        """
        known = self.of(mark)
        return known == account_id if known is not None else owner in (None, account_id)


def newest(disk: Ownership, mine: Ownership) -> Ownership:
    """Both as one: the newest word about each mark, bounded."""
    found = dict(disk.marks)
    for mark, owned in mine.marks.items():
        known = found.get(mark)
        if known is None or (known.seen_at, known.account_id) < (owned.seen_at, owned.account_id):
            found[mark] = owned
    ordered = sorted(found.items(), key=lambda item: (item[1].seen_at, item[0]))
    return Ownership(dict(ordered[-MAX_MARKS:]))


def owner_of(owners: Ownership, marks: Sequence[str], needed: Collection[str]) -> tuple[str | None, bool]:
    """Who is to be asked first for a request that carries these, and whether nobody else can go on with it.

    None and True: somebody's, whom nobody knows any more.

    Args:
        owners: what is known.
        marks: all that the request carries, the newest last.
        needed: of these, what cannot be left out.

    """
    holder = owners.newest([mark for mark in marks if mark in needed])
    owner = holder or owners.newest(marks)
    return owner, holder is not None or (owner is None and any(owners.of(mark) is None for mark in needed))
