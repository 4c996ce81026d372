"""The nouns of what came of an attempt: why it ended, whom that concerns, what to do, how long to rest.

Laws of this file:

1. Words only: nothing here knows statuses, codes or texts (that is the table in ``outcomes``), and nothing decides.
2. An ``Outcome`` says what the answer means, never what the pool does about it: caps, ladders and floors are policy.
3. ``code`` and ``text`` of an outcome are one printable line: they are for people, logs and headers.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why an attempt ended as it did, in the words that a user reads."""

    SERVED = "served"
    LIMIT = "limit"
    """429 on the account without a closer word."""
    SESSION_LIMIT = "session limit"
    """``user_global_rate_limited``: some hours, or a burst of two seconds."""
    WEEKLY_LIMIT = "weekly limit"
    MODEL_LIMIT = "model limit"
    """The account's limit for this model alone."""
    AGENT_LIMIT = "agent limit"
    QUOTA = "quota"
    """402: what was paid for is used up."""
    OVERLOADED = "overloaded"
    """The model's provider is busy, for every account."""
    CLIENT_LIMITED = "client limited"
    """The client program as such is limited, for every account."""
    MODEL_MISSING = "model missing"
    REQUEST = "request"
    """The request itself cannot be served, by any account."""
    CREDENTIAL = "credential"
    """The bearer was refused. An ``exchange`` account mints once more (SAME); on a ``direct`` account it was the GitHub
    token itself, and the account needs a login."""
    NEEDS_LOGIN = "needs login"
    CONVERSATION = "conversation"
    """The request carries state that another account owns; never a fault of the account."""
    PREFIX = "prefix"
    """``Bearer`` where this host wants ``token``, or the other way round."""
    NO_ACCESS = "no access"
    BLOCKED = "blocked"
    """GitHub stopped the account; it stays off until the user turns it on."""
    WRONG_HOST = "wrong host"
    TRANSIENT = "transient"
    UNKNOWN = "unknown"


class Scope(StrEnum):
    """Whom an outcome concerns."""

    NOBODY = "nobody"
    REQUEST = "request"
    CONVERSATION = "conversation"
    HOST = "host"
    """This credential on this host."""
    CREDENTIAL = "credential"
    CREDENTIAL_MODEL = "credential and model"
    ACCOUNT = "account"
    ACCOUNT_MODEL = "account and model"
    ACCOUNT_PAID_MODELS = "account, models that cost"


class Action(StrEnum):
    """What to do with the request that was refused."""

    PASS = "pass"  # noqa: S105 - no password: the answer passes
    """Give the answer to the client."""
    NEXT = "next"
    """Ask another account."""
    NEXT_ONCE = "next once"
    """Ask one other account, once; then pass."""
    SAME = "same"
    """Ask the same account after one repair: mint, flip the prefix, learn the host."""
    OWNER = "owner"
    """Ask the account that owns the conversation, else once stripped of what is bound."""
    STOP = "stop"
    """Give the answer to the client; the account is off, and no other is asked."""


class RestKind(StrEnum):
    """How long whoever is concerned rests when the server gave no hint (``Outcome.retry_after`` is the hint)."""

    NONE = "none"
    LADDER = "ladder"
    """60 s doubling to 15 min."""
    SECONDS = "seconds"
    RESET = "reset"
    """Until the quota window ``Rest.window`` resets; when that is unknown ``Rest.seconds``, else the ladder."""
    UNTIL_LOGIN = "until login"
    UNTIL_USER = "until the user"


@dataclass(frozen=True, slots=True)
class Rest:
    """How long to rest without a hint from the server."""

    kind: RestKind
    seconds: float | None = None
    """SECONDS: how long. RESET: how long when the reset is not known (None: the ladder)."""
    window: str | None = None
    """RESET: the name of the quota window as ``quota`` normalises it."""
    repeated: float | None = None
    """SECONDS: how long instead when the same was refused before."""
    recheck: float | None = None
    """Ask again after this many seconds at the latest, however far away the reset is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    reason: Reason
    scope: Scope
    action: Action
    rest: Rest
    retry_after: float | None = None
    """The server's own hint in seconds, finite and not negative; None when it gave none."""
    models: tuple[str, ...] = ()
    """The models that the refusal says *are* available."""
    code: str = ""
    """The error's code (or type), cleaned, at most 80 characters."""
    text: str = ""
    """The beginning of the message for people, cleaned, at most 200 characters."""
    status: int | None = None
    """The HTTP status; None for an error without one."""
    sent: bool = True
    """False: nothing of the client's request was sent upstream."""
    rule: str = ""
    """The name of the row of the table that matched."""


NO_REST = Rest(RestKind.NONE)
SERVED = Outcome(Reason.SERVED, Scope.NOBODY, Action.PASS, NO_REST)
