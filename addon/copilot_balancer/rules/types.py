"""Types of the pool's interface: its requests, its decisions, outcomes of attempts, and the policy.

Laws of this file:

1. Plain frozen values: each can be written to a decision log and read back, and holds no token.
2. Every time is in seconds on the steady clock (``state``); every length of time is in seconds.
3. Clients decide by a pattern over the text whether to ask again (docs/clients.md#after-a-refusal). So "limit" and
   "overloaded" stand only where waiting helps, status numbers never, and nothing here reads as a context that is too
   long.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from copilot_balancer.text import duration


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
    FORBIDDEN = "forbidden"
    """403 with a hint at the Terms of Service and no code: another plan's host, a gated model, an ended token, or a
    stop of the account. Only the second model that is refused so tells the last from the others."""
    POLICY = "policy"
    """The account's organisation or plan does not allow something that this request uses, like images; the account
    serves other requests."""
    CLIENT_REFUSED = "client refused"
    """This kind of credential is not taken from this client program; the account serves other clients."""
    BLOCKED = "blocked"
    """GitHub stopped the account; it stays off until the user turns it on."""
    WRONG_HOST = "wrong host"
    TRANSIENT = "transient"
    UNKNOWN = "unknown"
    """No row of the table is about it. It is held against nobody before another account has served the request."""


class Scope(StrEnum):
    """Whom an outcome concerns."""

    NOBODY = "nobody"
    REQUEST = "request"
    CONVERSATION = "conversation"
    HOST = "host"
    """This credential on this host."""
    CREDENTIAL = "credential"
    CREDENTIAL_MODEL = "credential and model"
    CREDENTIAL_CLIENT = "credential and client"
    """This credential, for clients with this identity (`PoolRequest.client`)."""
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
    """Ask the same account after one repair (mint again, learn the host, flip the prefix); then another account."""
    SAME_ONCE = "same once"
    """As SAME, then one other account, once; then pass."""
    OWNER = "owner"
    """Ask the account that owns the conversation, else once stripped of what is bound."""
    STOP = "stop"
    """Give the answer to the client; the account is off, and no other is asked."""


class CooldownKind(StrEnum):
    """How long whoever is concerned rests when the server gave no hint (``Outcome.retry_after`` is the hint)."""

    NONE = "none"
    SERVER = "server"
    """Only as long as the server says."""
    LADDER = "ladder"
    """60 s doubling to 15 min."""
    SECONDS = "seconds"
    RESET = "reset"
    """Until the quota window ``CooldownRule.window`` resets; if that is unknown ``seconds``, else the ladder."""
    UNTIL_LOGIN = "until login"
    UNTIL_USER = "until the user"


@dataclass(frozen=True, slots=True)
class CooldownRule:
    """How long to rest without a hint from the server."""

    kind: CooldownKind
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
    rest: CooldownRule
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


NO_COOLDOWN = CooldownRule(CooldownKind.NONE)
SERVED = Outcome(Reason.SERVED, Scope.NOBODY, Action.PASS, NO_COOLDOWN)


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the user's matrix: who serves these models, in which order."""

    models: tuple[str, ...]
    """Patterns (fnmatch, case-insensitive) of the models that this row is about."""
    accounts: tuple[str, ...] = ()
    """Labels: only these serve, and the first that can does. None given: every account, as the strategy orders them."""
    fallback: tuple[str, ...] = ()
    """Other models, in order, to ask for when nobody can serve the one that was asked for."""
    enabled: bool = True


ALL_CLASSES = frozenset({"limit", "quota", "model", "auth", "transient"})
"""The classes of refusals that may move a request to another account (option ``copilot_failover``)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user set, as far as it concerns the choice."""

    strategy: str = "hybrid"
    affinity: float = 3600.0
    """How long after its last request a conversation keeps its account; 0: not at all."""
    failover: frozenset[str] = ALL_CLASSES
    max_attempts: int = 3
    """Upstream sends a request."""
    deadline: float = 300.0
    """Over all attempts and all waiting of a request, since it began."""
    wait: float = 0.0
    """A request is held when everybody rests and the first one frees within this."""
    retry_after_cap: float = 60.0
    """The longest ``Retry-After`` that a client is given."""
    retry_ambiguous: bool = True
    """Send once more what may already have run (a reset or a 5xx after it was sent)."""
    model_ttl: float = 86400.0
    """How long an account is known to have a model."""
    fence: str = "default"
    """The fence of a request that names none."""
    routes: tuple[Route, ...] = ()
    preseed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label -> patterns of the models that it has; no other is asked of it until its own list says otherwise."""


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """A client's request, as far as it concerns the choice."""

    id: str
    model: str | None
    """None: the request names no model."""
    began: float
    conversation: str | None = None
    """A hash that names the conversation; None: it belongs to none."""
    fence: str | None = None
    """None: the policy's."""
    only: str | None = None
    """The id of the one account that may serve it."""
    owner: str | None = None
    """The id of the account that made the newest bound state in the request (item ids, encrypted reasoning,
    signatures); it is tried first. None: there is no bound state, or its account is not known."""
    bound: bool = False
    """It is in the middle of a tool loop of its owner's, or the history stands with the owner alone: no other may go
    on with it, as long as the owner will be able to. Without an owner: of somebody's whom nobody knows any more."""
    auto: bool = False
    """A request of Auto mode: a weekly limit does not keep an account from it, unless one of Auto's own was refused."""
    host: str | None = None
    """The login host whose accounts alone may serve it; None: any."""
    carries: bool = False
    """Its bound state can be removed: worth one more attempt with an account that has refused it."""
    client: str = ""
    """Which program asks (`protocol.client_identity`): one credential may be refused for one program alone."""
    tried: "tuple[Tried, ...]" = ()
    """What was tried so far, oldest first."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the request with this account."""

    request_id: str
    number: int
    """1 for the first send of a request."""
    account_id: str
    credential: str
    """Fingerprint of the account's credential: evidence about an older one is ignored."""
    model: str | None
    """The model to ask for; another than the request's only by a fallback that the user wrote."""
    why: str
    """Why this account, in a few words for people."""
    began: float
    probe: bool = False
    """The first attempt after a long rest: others wait for its answer."""
    repair: bool = False
    """The one further attempt with an account that was already asked (minted again, waited, another model)."""
    bare: bool = False
    """All bound state is to be removed: this account has just refused it."""
    auto: bool = False
    """Of a request of Auto mode."""
    renew: bool = False
    """What the account is sent with is to be got anew first: an exchanged token is minted again, the API host of a
    direct account is learnt again."""
    client: str = ""
    """``PoolRequest.client``."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt and what came of it."""

    attempt: Attempt
    outcome: Outcome
    ended: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Ask again at `until`: somebody will be free then."""

    until: float
    why: str


class Exclusion(StrEnum):
    """What keeps an account from serving a request; in the order in which it is looked for."""

    ONLY = "another account was asked for"
    HOST = "belongs to another GitHub host"
    FENCE = "stands in another fence"
    BOUND = "cannot go on with what another account began"
    TERMS = "waits for the terms to be accepted"
    DISABLED = "is turned off"
    BLOCKED = "was blocked by GitHub"
    LOGIN = "needs a login"
    ACCESS = "has no access"
    """Its seat or a policy refuses it; asked again after an hour."""
    CLIENT = "is not taken from this client program"
    """Its kind of credential, for this client; asked again after an hour."""
    CREDENTIAL = "cannot prove who it is"
    """Its credential was refused even after a repair; asked again soon."""
    PATTERN = "does not take the model"
    ROUTE = "is not in the route"
    TRIED = "was already asked"
    REFUSED = "refused it"
    """For a reason of which nothing is known."""
    MODEL = "does not have the model"
    COOLDOWN = "rests"
    PROBED = "is being tried by another request"
    RESERVE = "keeps its reserve"
    HOME = "is not the home account"
    UNASKED = "was not asked"
    """It could serve, but the request may not be sent again."""


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why an account does not serve a request."""

    account_id: str
    label: str
    reason: str
    """For people: "rests after a session limit"."""
    free_at: float | None = None
    """When that ends by itself; None: it does not, or nobody knows."""
    bar: Exclusion = Exclusion.COOLDOWN
    cause: str = ""
    """What it rests after, or was refused for: a word of `Reason`; empty: nothing of the kind keeps it."""


class NobodyKind(StrEnum):
    """Why nobody serves a request; the program answers 429, 400, 401 or 403 by it when no upstream answer is given."""

    NO_ACCOUNTS = "no accounts"
    LIMITED = "limited"
    """Waiting helps (429)."""
    NO_MODEL = "no model"
    """No account has the model (400)."""
    NO_ACCESS = "no access"
    """Seat or policy of every account refuse it (403)."""
    NEEDS_LOGIN = "needs login"
    """Everyone who could serve needs a login (401)."""
    BLOCKED = "blocked"
    """GitHub blocked the account (403)."""
    FENCED = "fenced"
    """No account stands in the fence of this request (403)."""
    UNAVAILABLE = "unavailable"
    """What the user decided leaves nobody: all are turned off, or kept from the model (403)."""
    NOT_RETRIED = "not retried"
    """The last answer is final; it is given to the client."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """No further attempt is made."""

    kind: NobodyKind
    accounts: tuple[WhyNot, ...]
    """Each account, in the user's order, with its reason."""
    free_at: float | None
    """When the first account frees; None: none does by itself."""
    retry_after: int | None
    """Whole seconds for the client's ``Retry-After``, capped; None: waiting does not help."""
    give: int | None
    """Index into ``PoolRequest.tried`` of the answer for the client; None: an error of our own."""
    why: str
    """One sentence: "all accounts tried, all refused", or "not retried, because ..."."""


def retry_after(free_at: float | None, now: float, cap: float) -> int | None:
    """Whole seconds for a client to wait: never less than the wait is, at least 1, at most `cap`.

    A client sleeps as long as it is told (opencode without any bound), so `cap` lets it see an account that frees, or
    is added, earlier.
    """
    if free_at is None:
        return None
    return max(1, math.ceil(min(free_at - now, cap)))


def sentences(nobody: Nobody, now: float) -> list[str]:
    """One sentence an account: "work: rests after a session limit, free again in 12 min"."""
    return [
        f"{account.label}: {account.reason}"
        + ("" if account.free_at is None else f", free again in {duration(account.free_at - now)}")
        for account in nobody.accounts
    ]
