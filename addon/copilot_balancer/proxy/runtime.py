"""What all requests of a running proxy share."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from mitmproxy.options import Options
from pydantic import SecretStr

from copilot_balancer.config import Settings
from copilot_balancer.copilot.usage import Usage
from copilot_balancer.github.https import Response
from copilot_balancer.github.tokens import Bearer, TokenCache
from copilot_balancer.proxy import clock
from copilot_balancer.proxy.guard.redaction import SentSecrets
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.catalogue import Catalogue, Shelf
from copilot_balancer.rules.ownership import Ownership
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.sessions import Kept, Selections
from copilot_balancer.store.unknown_refusals import UnknownRefusalLog


class Select(Protocol):
    """Asks a selection of Auto mode once more, with another account."""

    async def __call__(self, account: Account, bearer: Bearer, kept: Kept, seconds: float) -> Response:
        """The answer, within so many seconds.

        Raises:
            InvalidInput, UpstreamError: there was none.

        """
        ...


@dataclass
class Runtime:
    """What all requests of a running proxy share. The addon keeps it up to date."""

    pool: Pool
    decisions: Decisions
    settings: Settings
    options: Options
    hosts: frozenset[str]
    mint: TokenCache
    learn_host: Callable[[Account], Awaitable[Account]]
    """Ask GitHub where an account's requests go now, and write it down."""
    notice: Callable[[SecretStr, str], None]
    """A client was seen with this credential, at this API host."""
    shelve: Callable[[Account, Shelf], None]
    """An account's own list of models has passed."""
    spent: Callable[[str, str, Usage | None], None]
    """An account (id) has answered a request for a model, and the answer told this usage."""
    catalogue: Catalogue
    ownership: Ownership
    """Whose is what requests carry."""
    select: Select
    """Ask for a selection of Auto mode with an account."""
    selections: Selections = field(default_factory=Selections)
    sent: SentSecrets = field(default_factory=SentSecrets)
    """What may be echoed by an upstream, and stands in nothing that is kept."""
    unknown: UnknownRefusalLog | None = None
    """Takes refusals that no rule knew; None: none are kept."""
    keep_bodies: int = 0
    """Bytes of a streamed answer that are kept for mitmweb, the console and dumps."""
    off: str | None = None
    """Why no account's credential is used at all; None in normal times."""
    ended: bool = False
    """The script has gone: what still waits is not sent."""
    prefixes: dict[tuple[str, str], str] = field(default_factory=dict)
    """(credential, host) -> ``token``, where ``Bearer`` was refused as badly formatted
    (docs/copilot-protocol.md#prefix-of-a-github-token)."""
    _epoch: float = field(default_factory=lambda: time.time() - clock.steady())

    def now(self) -> float:
        """Seconds on the steady clock: the epoch at start plus the time since, sleep included."""
        return self._epoch + clock.steady()

    def account(self, account_id: str) -> Account | None:
        """The account with this id, unless it was removed meanwhile."""
        return next((account for account in self.decisions.accounts if account.id == account_id), None)
