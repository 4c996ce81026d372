"""The schema of accounts.json: ``Account`` and ``Decisions``, what the user decided.

Laws of this file:

1. What stands here was decided by the user, or by GitHub for good (an abuse stop), and holds tokens; what the proxy
   learnt stands in ``state``.
2. A status is computed from facts and ``now``, never stored beside them.
3. A token's text leaves its ``SecretStr`` here to be checked, hashed, or (for ``store`` alone) written; whoever sends
   it is listed in a test (``test_nobody_else_reads_a_token``).
4. Every time here is a decision's: seconds since the epoch on the wall clock.
"""

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_serializer, model_validator

from copilot_balancer.copilot.hosts import DEFAULT_API_HOST, GITHUB, check_api_host, normalise_domain
from copilot_balancer.errors import InvalidInput

DEFAULT_FENCE = "default"

_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[\x21-\x7e]{8,4096}")


def normalise_label(text: str) -> str:
    """``" Work (Acme) "`` -> ``"work-acme"``: lower case, runs of anything else become one ``-``.

    Raises:
        InvalidInput: nothing usable is left, or it is longer than 64 characters.

    """
    label = re.sub(r"[^a-z0-9._-]+", "-", text.strip().lower()).strip("-")
    if not _LABEL.fullmatch(label):
        raise InvalidInput(
            f"{text[:80]!r} cannot be a label: use 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
        )
    return label


def check_token(token: str) -> str:
    """Return `token` when it can stand in a header as it is.

    Raises:
        InvalidInput: it is empty, too long, or holds a space, a control or a non-ASCII character. It is never quoted.

    """
    if not _TOKEN.fullmatch(token):
        del token  # a traceback may show local variables
        raise InvalidInput("this is not a token: 8 to 4096 printable ASCII characters without spaces are expected")
    return token


def fingerprint(token: str) -> str:
    """Twelve hex digits that name a credential in logs and files without telling it."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def matches(model: str, patterns: Iterable[str]) -> bool:
    """Whether `model` matches one of the shell-like `patterns`, case-insensitively."""
    lowered = model.lower()
    return any(fnmatchcase(lowered, pattern.lower()) for pattern in patterns)


def _checked_label(label: str) -> str:
    if normalise_label(label) != label:
        raise InvalidInput(f"{label[:80]!r} is not a normalised label")
    return label


Label = Annotated[str, AfterValidator(_checked_label)]
Name = Annotated[str, AfterValidator(normalise_label)]
"""A label as a person writes it."""
ModelPattern = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
Strategy = Literal["hybrid", "sticky", "round-robin", "priority", "quota"]
"""The names of ``ranking.STRATEGIES``."""


class Account(BaseModel):
    """One account of the user, as decided by the user. Its ``repr`` and its JSON without context hold no token."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9.-]+:[a-z0-9]+$")
    """``host:numeric-user-id``; ``host:h<hash>`` for an account that was never verified."""
    label: Label
    """What the user calls it; unique."""
    login: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """The GitHub login, when it is known."""
    host: str = GITHUB
    """The login host: github.com or NAME.ghe.com."""
    api_host: str = DEFAULT_API_HOST
    """Where this account's requests go."""
    credential: Literal["direct", "exchange"] = "direct"
    """``direct``: the GitHub token itself is the bearer. ``exchange``: it buys a short-lived one."""
    token: SecretStr
    enabled: bool = True
    enabled_at: float = 0.0
    """When the user last turned it on."""
    stopped_at: float | None = None
    """When GitHub stopped it for abuse; None: it did not, or the user has turned the account on since. It stands here
    and not only in the proxy's memory, which may be lost: a stopped account serves again by the user's word alone."""
    stopped_why: str = Field(default="", max_length=200)
    """GitHub's sentence, or the code."""
    cleared: dict[str, float] = Field(default_factory=dict)
    """Model (``""`` = the whole account) -> when the user cleared its cooldowns: those that began before are over."""
    priority: int = 0
    """Lower is asked earlier, for the strategies that look at it."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Its share among equals, for the strategies that look at it."""
    fence: Label = DEFAULT_FENCE
    """A request never crosses from one fence into another."""
    allow: tuple[str, ...] = Field(default=(), strict=False)
    """Model patterns; when given, only these models are sent here."""
    block: tuple[str, ...] = Field(default=(), strict=False)
    """Model patterns that are never sent here."""
    reserve: float = Field(default=0.0, ge=0, le=100)
    """Percent of the quota that is kept for when no other account can serve."""
    plan: str | None = Field(default=None, max_length=64)
    """``copilot_plan`` / SKU as GitHub names it, when known."""
    added_at: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_token(self.token.get_secret_value())
        if normalise_domain(self.host) != self.host or not self.id.startswith(f"{self.host}:"):
            raise InvalidInput(f"account {self.label}: host and id do not fit together")
        check_api_host(self.api_host, self.host)
        return self

    @field_serializer("token")
    def _hide(self, token: SecretStr, info: object) -> str:
        """Tell the token only to the one caller that asks for it by context: the store, writing its file."""
        context = getattr(info, "context", None)
        return token.get_secret_value() if context == {"reveal": True} else "**********"

    @property
    def fingerprint(self) -> str:
        """Names the credential; changes when the token does."""
        return fingerprint(self.token.get_secret_value())

    def takes(self, model: str | None) -> str | None:
        """Why the user's own patterns keep `model` from this account; None when they do not."""
        if model is None:
            return None
        if self.allow and not matches(model, self.allow):
            return "not in its allow list"
        return "in its block list" if self.block and matches(model, self.block) else None


class RouteTable(BaseModel):
    """A row of the user's matrix: who serves these models, in which order.

    One ``[[routes]]`` table of a settings file, or a row that was changed in the dashboard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[ModelPattern, ...] = Field(min_length=1)
    accounts: tuple[Name, ...] = ()
    fallback: tuple[ModelPattern, ...] = ()
    enabled: bool = True


class Consent(BaseModel):
    """The user's word that a credential which a client was seen with may be stored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    label: Label
    """What the account is to be called."""
    at: float
    """When the user said so."""


class Decisions(BaseModel):
    """accounts.json: the accounts in the order in which they were added, and what was decided about all of them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    accounts: tuple[Account, ...] = Field(default=(), strict=False)
    home_id: str | None = None
    """The account that ``accounts use`` chose; None or unknown: the first."""
    balancing: bool = True
    """Off: the home account serves every request, and every refusal reaches the client."""
    terms_accepted_at: float | None = None
    """When the user accepted GitHub's rules about several accounts."""
    removed: dict[str, float] = Field(default_factory=dict)
    """Account id -> when it was removed: no other process's write brings it back."""
    adopt: dict[str, Consent] = Field(default_factory=dict)
    """Fingerprint of a credential that clients were seen with -> consent to store it when it is seen again."""
    strategy: Strategy | None = None
    """What was chosen while the proxy ran; None: what the settings say."""
    routes: tuple[RouteTable, ...] | None = Field(default=None, strict=False)
    """The matrix as it was changed while the proxy ran; None: what the settings say."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for what in ("id", "label"):
            values = [getattr(account, what) for account in self.accounts]
            if len(set(values)) != len(values):
                raise InvalidInput(f"two accounts have the same {what}")
        return self

    @property
    def domains(self) -> frozenset[str]:
        """The GitHub Enterprise domains (``NAME.ghe.com``) of the accounts, for `copilot.hosts.copilot_hosts`."""
        return frozenset(account.host for account in self.accounts if account.host != GITHUB)

    @property
    def home(self) -> Account | None:
        """The home account: what ``accounts use`` chose, else the first one."""
        chosen = (account for account in self.accounts if account.id == self.home_id)
        return next(chosen, self.accounts[0] if self.accounts else None)

    @property
    def terms_missing(self) -> bool:
        """Whether there is a second account and nobody has accepted the terms yet: then only the first serves."""
        return len(self.accounts) > 1 and self.terms_accepted_at is None

    def serving(self) -> tuple[Account, ...]:
        """The accounts that may serve at all; only the first one until the terms are accepted."""
        return self.accounts[:1] if self.terms_missing else self.accounts

    def find(self, name: str) -> Account:
        """The account with this label, login or id.

        Raises:
            InvalidInput: there is none, or a login that two of them share.

        """
        exact = [account for account in self.accounts if name in (account.label, account.id)]
        found = exact or [a for a in self.accounts if a.login and a.login.lower() == name.strip().lower()]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput(f"{name[:80]!r} names {len(found)} accounts; use a label")
        known = ", ".join(account.label for account in self.accounts) or "none is stored"
        raise InvalidInput(f"there is no account {name[:80]!r} (accounts: {known})")

    def with_account(self, account: Account) -> "Decisions":
        """Replace the account of this id, or append it; a removal of the same id is forgotten."""
        ids = [known.id for known in self.accounts]
        if account.id in ids:
            accounts = tuple(account if known.id == account.id else known for known in self.accounts)
        else:
            accounts = (*self.accounts, account)
        removed = {key: at for key, at in self.removed.items() if key != account.id}
        return Decisions.model_validate(
            {**dict(self), "accounts": accounts, "removed": removed}
        )  # validated again: labels stay unique

    def without(self, account_id: str, now: float) -> "Decisions":
        """Remove an account and remember that it was removed."""
        return self.model_copy(
            update={
                "accounts": tuple(known for known in self.accounts if known.id != account_id),
                "home_id": None if self.home_id == account_id else self.home_id,
                "removed": {**self.removed, account_id: now},
            }
        )


class Status(StrEnum):
    """What an account is at a moment; the first that holds."""

    DISABLED = "disabled"
    """The user turned it off, or an abuse block did."""
    NEEDS_LOGIN = "needs login"
    """Its credential was refused; a new token ends this."""
    COOLING = "cooling"
    """The whole account rests."""
    READY = "ready"
