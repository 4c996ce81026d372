"""Auto mode: routes a request to the account of its session token, or to another account's session while it is limited.

The client asks for a selection and gets a session token that is valid with the account that served it
(docs/copilot-protocol.md#auto-mode). When that account is limited before the chat's first byte, the kept selection is
asked of one other account. Only if that session allows exactly the chat's model does the chat go there, with the new
token, which stands for the client's until one of the two expires.

Laws of this file:

1. The model of a chat is never changed, and its session token never left out: either would change its price.
2. A token that nobody fetched through this proxy goes out with the client's own credential, or not at all.
3. The selection is one send, within the chat's deadline and its number of attempts.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mitmproxy import http
from pydantic import SecretStr

from copilot_balancer.copilot import auto_mode
from copilot_balancer.copilot.auto_mode import read_selection
from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.protocol import Kind, read_body
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.github.https import Response, parsed
from copilot_balancer.github.tokens import ExchangeRefused
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.request.response_tap import ResponseTap
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.classify import classify, classify_error
from copilot_balancer.rules.give_up import LIMITS
from copilot_balancer.rules.sessions import Kept, StandIn, session_hash
from copilot_balancer.rules.types import SERVED, Attempt, Nobody, NobodyKind, Outcome, PoolRequest, Reason
from copilot_balancer.text import printable

DOCUMENT_LIMIT = 1024 * 1024
"""Bytes of the answer to a selection that are read, inflated; one has a few thousand."""

SELECT_SECONDS = 15.0
"""The longest that a selection which is asked again may take; the chat's deadline may leave less."""
SHORTEST = 0.1
"""Seconds for it when the deadline has come."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A selection that was asked of another account."""

    account: Account
    attempt: Attempt
    """The chat's, when `outcome` is served; else only what the log shows."""
    host: str
    outcome: Outcome


class AutoSession:
    """What the session token that one request carries means for it; without a token, nothing.

    Args:
        live: the runtime of the proxy.
        kind: of the request.
        request: as the client sent it, its credentials hidden.

    """

    def __init__(self, live: Runtime, kind: Kind, request: http.Request) -> None:
        self._live = live
        self._kind = kind
        self._request = request
        self._token: str | None = None
        self._session_hash = ""
        self._owner = ""
        """Id of the account that fetched the token; empty: nobody known did."""
        self._stand_in: StandIn | None = None
        self._asked = False
        """Whether another account was asked for a session already."""
        self.pinned = False
        """The user named the account: no other takes over."""
        self.foreign = False
        """The request means something with the client's own credential alone."""
        self.note = ""
        """Why no other account took over, for the log."""

    def read(self, request: PoolRequest, hidden: HiddenCredentials) -> PoolRequest:
        """`request` as its session token changes it: which account alone may serve it, or is asked first."""
        values = hidden.get(auto_mode.SESSION_TOKEN.encode())
        if not values:
            return replace(request, auto=self._kind is Kind.SELECTION)
        self._token = values[0].decode("latin-1")
        self._session_hash = session_hash(self._token)
        self._owner = self._live.ownership.of(self._session_hash) or ""
        request = replace(request, auto=True)
        path = self._request.path.partition("?")[0]
        if self._kind is Kind.SELECTION and path != auto_mode.INTENT:
            return replace(request, owner=self._owner or None)  # it asks for a new token: any account has one
        self._stand_in = self._live.selections.stand_in(self._session_hash, request.model, time.time())
        self.foreign = not self._owner
        return replace(request, only=self._stand_in.account_id if self._stand_in else self._owner or None)

    def elsewhere(self, request: PoolRequest) -> bool:
        """Whether the one account that may serve the request is not the one that its session token is valid with."""
        holds = {self._owner, self._stand_in.account_id if self._stand_in else None}
        return self._kind is Kind.BALANCED and self._token is not None and request.only not in holds

    def token_for(self, account_id: str) -> SecretStr | None:
        """What takes the place of the client's session token with this account; None: it is sent as it is."""
        if self._token is None or account_id == self._owner:
            return None
        if self._stand_in is not None and self._stand_in.account_id == account_id:
            return self._stand_in.token
        return SecretStr("")

    def learn(self, account: Account, document: object, headers: Mapping[str, str], body: bytes) -> None:
        """The answer to a selection, which `account` served: its token is that account's, and the request is kept.

        Args:
            account: that served it.
            document: the answer.
            headers: of the client's request, by lower-case name.
            body: of it.

        """
        selection = read_selection(document)
        if selection is None:
            return
        key, wall, expires_at = session_hash(selection.token), time.time(), selection.expires_at
        self._live.ownership.learn([key], account.id, wall, expires_at)
        if expires_at is not None and self._request.method == "POST":
            self._live.selections.keep(
                selection, path=self._request.path, body=body, headers=headers, expires_at=expires_at
            )

    async def select(self, request: PoolRequest, nobody: Nobody, seconds: float) -> Asked | None:
        """Ask the client's selection once more, of another account, when the session's own account is limited.

        Args:
            request: the chat, with what was tried so far.
            nobody: what the pool decided about it.
            seconds: what is left until the chat's deadline.

        Returns:
            What came of it; None: nobody was asked, or the model is not in the new session (`note` says so).

        """
        kept = self._kept_for(request, nobody)
        if kept is None:
            return None
        self._asked = True
        live = self._live
        attempt = live.pool.assign(replace(request, only=None), live.now())
        account = live.account(attempt.account_id) if isinstance(attempt, Attempt) else None
        if not isinstance(attempt, Attempt) or account is None:
            return None
        if account.id == self._owner:  # free again: the client's own token is good
            return Asked(account, attempt, account.api_host, SERVED)
        wall, host = time.time(), account.api_host
        try:
            bearer = live.mint.known(account, wall=wall) or await live.mint.bearer(account, wall=wall)
            host = bearer.host
            response = await live.select(account, bearer, kept, max(min(seconds, SELECT_SECONDS), SHORTEST))
        except ExchangeRefused as error:
            outcome = error.outcome
        except (UpstreamError, InvalidInput) as error:
            outcome = classify_error(str(error), sent=True)
        else:
            outcome = classify(response.status, response.headers, response.body, wall=time.time())
            if outcome.reason is Reason.SERVED and (why := self._take(kept, request.model, account, response)):
                self.note = f"{account.label} {why}"
                return None
        if outcome.reason is Reason.SERVED:
            attempt = replace(attempt, why=f"{attempt.why}, with an Auto session of its own")
        else:
            live.pool.record(attempt, outcome, live.now())
            attempt = replace(attempt, why="asked for an Auto session")
        return Asked(account, attempt, host, outcome)

    def _kept_for(self, request: PoolRequest, nobody: Nobody) -> Kept | None:
        """The selection that may be asked of another account; None: the refusal that `nobody` gives stands."""
        last = request.tried[-1].outcome.reason if request.tried else None
        limited = nobody.kind is NobodyKind.LIMITED and (last is None or last in LIMITS)
        # the selection is a send as well
        may_send = len(request.tried) + 2 <= self._live.settings.max_attempts and self._live.decisions.balancing
        is_chat = self._kind is Kind.BALANCED and self._session_hash and request.model
        if not (is_chat and limited and may_send) or self._asked or self.pinned:
            return None
        return self._live.selections.of(self._session_hash, time.time())

    def _take(self, kept: Kept, model: str | None, account: Account, response: Response) -> str:
        """Let the token of another account's selection stand in for the client's; why it cannot, or "" when it does."""
        selection = read_selection(parsed(response.body))
        if selection is None:
            return "gave no Auto session"
        if not selection.allows(model):
            return f"has no Auto session for {printable(model or '?', 80)}"
        expires_at = selection.expires_at or kept.expires_at
        self._stand_in = kept.stand_in = StandIn(account.id, SecretStr(selection.token), expires_at, selection.models)
        return ""


class SelectionTap(ResponseTap):
    """The answer to a selection: held back until it is whole, then streamed, so that no flow holds its session token.

    Args:
        response: whose head has come.
        served: called once it is known to be an answer.
        learn: called with its document as soon as that is whole, before the client has it.

    """

    def __init__(self, response: http.Response, served: Callable[[], None], learn: Callable[[object], None]) -> None:
        super().__init__(response, None, 0, served)
        self._encoding = response.headers.get("content-encoding", "")
        self._learn: Callable[[object], None] | None = learn
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Collect the next chunk."""
        if len(self._body) <= DOCUMENT_LIMIT:
            self._body.extend(data)

    @property
    def refused(self) -> bool:
        """Whether it is one is known at its end (`whole`)."""
        return False

    @property
    def watched(self) -> bool:
        """It is held back."""
        return True

    @property
    def opened(self) -> bool:
        """Only an answer that is far too long to be one is passed on before its end."""
        return len(self._body) > DOCUMENT_LIMIT

    @property
    def whole(self) -> bool:
        """It is a JSON object, and not one that only tells an error."""
        found = self._read()
        return self.opened or (found is not None and set(found) != {"error"})

    def shown(self) -> bytes:
        """The document as a person may see it: without its session token."""
        found = self._read() or {}
        selection = read_selection(found)
        text = json.dumps(found)
        return (text.replace(json.dumps(selection.token)[1:-1], "[session]") if selection else text).encode()

    def _read(self) -> dict[str, object] | None:
        return read_body(inflated(bytes(self._body), self._encoding, DOCUMENT_LIMIT)) if not self.opened else None

    def released(self) -> None:
        """The client begins to get it."""
        super().released()
        self.finish()

    def finish(self) -> None:
        """Hand over the document, once, as soon as it is whole."""
        if self._learn is not None and (document := self._read()) is not None:
            learn, self._learn = self._learn, None
            learn(document)
