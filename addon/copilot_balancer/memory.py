"""The nouns of what the proxy learnt: state.json, and how several writers' copies become one.

Laws of this file:

1. No secret stands here; losing all of it loses memory only. State is keyed by account id.
2. Every time is a float of seconds since the epoch. In memory it is read on the *steady* clock (the epoch time at
   start plus monotonic time since, so that it never jumps); on disk on the wall clock. ``shifted`` and ``restored``
   turn one into the other.
3. A limited account is computed from these facts and ``now``; there is no flag.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A rest that somebody asked for. Only an attempt that began after ``began`` may raise or end it."""

    began: float
    until: float
    reason: str
    """A word of ``outcomes.Reason``."""
    model: str | None = None
    """None: the whole account rests; else only for this model."""
    source: str = "ladder"
    """Who named the time: ``server`` (a hint), ``reset`` (a quota's reset) or ``ladder`` (our default)."""
    told_until: float | None = None
    """The server's own deadline, when it lies beyond our cap: shown, and re-checked earlier."""


@dataclass(frozen=True, slots=True)
class ModelFact:
    """Whether a credential has a model, as learnt."""

    has: bool
    until: float
    """The fact is forgotten then."""
    began: float = 0.0
    """When it was learnt."""
    times: int = 1
    """How often in a row it was refused."""


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    """One counter of an account: ``premium_interactions``, ``chat``, ``session``, ``weekly`` ..."""

    percent_left: float
    """0 to 100; the service counts late, so it is a hint."""
    resets_at: float | None = None
    unlimited: bool = False
    overage_permitted: bool = False
    entitlement: float | None = None
    remaining: float | None = None
    """Absolute number left, when the service says it."""
    seen_at: float = 0.0


@dataclass(slots=True)
class AccountState:
    """What the proxy learnt about one account, since when, and for how long it holds."""

    credential: str = ""
    """Fingerprint of the credential that ``rejected_at`` and ``models`` are about."""
    rejected_at: float | None = None
    """The credential was refused then: NEEDS_LOGIN until the token changes or the user clears it."""
    blocked_at: float | None = None
    """An abuse block was seen then: off until the user enables the account again."""
    blocked_why: str = ""
    cooldowns: list[Cooldown] = field(default_factory=list)
    healed: dict[str, float] = field(default_factory=dict)
    """Model (``""`` = account) -> began of the newest success: cooldowns that began before are over."""
    strikes: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Model (``""`` = account) -> (height on the cooldown ladder, when it was last raised)."""
    faults: list[float] = field(default_factory=list)
    """When the last transient faults happened (three in two minutes begin a cooldown)."""
    models: dict[str, ModelFact] = field(default_factory=dict)
    quota: dict[str, QuotaWindow] = field(default_factory=dict)
    last_used: float = 0.0
    served: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Affinity:
    """Which account a conversation stays with."""

    account_id: str
    used_at: float


@dataclass(slots=True)
class Memory:
    """state.json: what the proxy learnt about all accounts, and where each conversation stays."""

    accounts: dict[str, AccountState] = field(default_factory=dict)
    conversations: dict[str, Affinity] = field(default_factory=dict)
    """Hash of a conversation's id -> its account; oldest first, bounded."""
