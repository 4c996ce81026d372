"""Short-lived tokens for accounts whose credential is ``exchange``, and the API host when it has to be learnt again.

Laws of this file:

1. One exchange at a time per credential: whoever comes meanwhile waits for it and takes what came of it, be it a token
   or a failure.
2. A token is replaced five minutes before it ends, or when GitHub asked for it, whichever is sooner; not before.
3. A token that was refused is replaced once: whoever reports the one before gets the new one without another exchange.
4. GitHub is asked in a thread, off the event loop. Minted tokens live in memory alone.
5. The GitHub client is made in that thread: a proxy whose accounts need no exchange never loads it.
"""

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr

from copilot_balancer.errors import UpstreamError
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.types import Outcome

EARLY = 300.0
"""Seconds before its end in which a token is not used any more; VS Code does the same
(docs/copilot-protocol.md#token-exchange)."""

JITTER = 60
"""Up to so many seconds earlier still, so that several accounts are not refreshed in one moment."""


@dataclass(frozen=True)
class Exchanged:
    """A short-lived token that a GitHub token was exchanged for."""

    token: SecretStr
    expires_at: float
    """Seconds since the epoch, on GitHub's clock."""
    refresh_in: float
    """Seconds from now after which GitHub wants it to be replaced."""
    api_host: str | None
    """The host that it is for; None when GitHub named none that is one."""


class ExchangeRefused(UpstreamError):  # noqa: N818 - reads as what it says
    """GitHub refuses to exchange this token; `outcome` is the refusal's meaning for the account."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class Located(Protocol):
    """The part of ``api.Identity`` that is needed here."""

    @property
    def api_host(self) -> str:
        """Where its requests go."""
        ...


class Asks(Protocol):
    """The part of ``api.GitHub`` that is needed here."""

    def exchange(self, token: SecretStr, host: str) -> Exchanged:
        """A short-lived token for a GitHub token."""
        ...

    def whoami(self, token: SecretStr, host: str) -> Located:
        """Whose a GitHub token is, and where its requests go."""
        ...


@dataclass(frozen=True)
class Bearer:
    """The token that is sent for an account, and the host it is sent to."""

    token: SecretStr
    host: str


@dataclass(frozen=True)
class _Minted:
    bearer: Bearer
    replaced_at: float


class TokenCache:
    """The bearer tokens of all accounts. `github` makes the client that asks GitHub (law 5)."""

    def __init__(self, github: Callable[[], Asks]) -> None:
        self._github = github
        self._minted: dict[str, _Minted] = {}
        """By fingerprint of the GitHub token."""
        self._flights: dict[str, asyncio.Task[Bearer]] = {}
        """Exchanges under way, by the same."""

    def known(self, account: Account, *, wall: float, refused: SecretStr | None = None) -> Bearer | None:
        """What to send for `account` at `wall` (seconds since the epoch), where nobody needs to be asked for it.

        Never the token that was `refused`.
        """
        if account.credential == "direct":
            return Bearer(account.token, account.api_host)
        key = account.fingerprint
        found = self._minted.get(key)
        if found is None or key in self._flights or wall >= found.replaced_at or found.bearer.token == refused:
            return None
        return found.bearer

    async def bearer(self, account: Account, *, wall: float, refused: SecretStr | None = None) -> Bearer:
        """As `known`; asks GitHub for a token if there is none.

        Raises:
            ExchangeRefused: GitHub does not exchange the account's token.
            UpstreamError: GitHub could not be asked.

        """
        if (known := self.known(account, wall=wall, refused=refused)) is not None:
            return known
        key = account.fingerprint
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._exchange(account, wall))
            flight.add_done_callback(lambda _: self._flights.pop(key))
        return await asyncio.shield(flight)  # a client that leaves does not take it away from the others

    async def _exchange(self, account: Account, wall: float) -> Bearer:
        self._minted.pop(account.fingerprint, None)
        found = await asyncio.to_thread(lambda: self._github().exchange(account.token, account.host))
        bearer = Bearer(found.token, found.api_host or account.api_host)
        until = min(found.expires_at - EARLY, wall + found.refresh_in) - zlib.crc32(account.id.encode()) % JITTER
        self._minted[account.fingerprint] = _Minted(bearer, until)
        return bearer

    async def host(self, account: Account) -> str:
        """The API host of an account whose requests were misdirected, as GitHub names it now.

        Raises:
            InvalidInput, UpstreamError: GitHub could not be asked, or does not know the token.

        """
        who = await asyncio.to_thread(lambda: self._github().whoami(account.token, account.host))
        return who.api_host

    def secrets(self) -> list[SecretStr]:
        """The exchanged tokens in use, for redaction."""
        return [minted.bearer.token for minted in self._minted.values()]
