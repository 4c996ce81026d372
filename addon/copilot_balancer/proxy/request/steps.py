"""What an `Exchange` decides to do with its request: frozen values, so that each decision is a return value.

`Outgoing` and `Answer` answer ``FailoverChooseHook``; `Again`, `Answer` and `PassOn` answer ``FailoverJudgeHook``.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import Server
from pydantic import SecretStr

from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.github.tokens import Bearer
from copilot_balancer.proxy.failover.hooks import Send
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.classify import written_of
from copilot_balancer.rules.types import Attempt, Hold, Outcome
from copilot_balancer.store.request_record import AttemptRecord
from copilot_balancer.store.unknown_refusals import SeenRefusal

type Authorize = Callable[[http.Request, Server], http.Response | None]
"""Puts a credential on the outgoing copy; an answer where that is refused."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What one attempt is sent with."""

    account: Account
    attempt: Attempt
    bearer: Bearer
    send: Send
    """The hook's value that the attempt was sent by."""
    session: SecretStr | None = None
    """What takes the place of the client's session token, empty: nothing does; None: the client's own is sent."""


def attempted(
    account: Account,
    attempt: Attempt,
    outcome: Outcome,
    *,
    host: str,
    status: int | None,
    body: str = "",
    rest: float | None = None,
) -> AttemptRecord:
    """What came of an attempt, for the log and the request's record.

    Args:
        account: that was asked.
        attempt: that was sent.
        outcome: what came of it.
        host: that it went to.
        status: of the response; None: there was none.
        body: the beginning of a refusal's body, without tokens.
        rest: seconds that the account, or the model on it, rests.

    """
    return AttemptRecord(
        account=account.label,
        account_id=account.id,
        host=host,
        why=attempt.why,
        reason=outcome.reason,
        status=status,
        rest=rest,
        text=written_of(outcome),
        body=body,
    )


def seen_refusal(
    request: http.Request, response: http.Response | None, outcome: Outcome, sent: bytes, accounts: Iterable[Account]
) -> SeenRefusal:
    """A refusal that no rule knew, as it is handed over to be written down for a report of the user's.

    Args:
        request: of the client.
        response: the refusal, without tokens; None: it came inside a stream.
        outcome: what it was judged to be.
        sent: the client's body, uncompressed.
        accounts: all that are stored; their logins and labels are left out of what is written.

    """
    raw = outcome.text.encode() if response is None else (response.raw_content or b"")
    encoding = response.headers.get("content-encoding", "") if response is not None else ""
    return SeenRefusal(
        at=time.time(),
        status=None if response is None else response.status_code,
        path=request.path.partition("?")[0],
        code=outcome.code,
        body=inflated(raw, encoding) if encoding else raw,
        request=sent,
        names=tuple(name for one in accounts for name in (one.login, one.label) if name),
    )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Send the request upstream."""

    host: str
    authorize: Authorize
    upstream: Upstream | None = None
    """None: with the client's own credential."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the client with `response`; nothing more is sent upstream."""

    response: http.Response
    note: str
    """Why, for the log."""
    account: str | None = None
    """Label of the account whose answer it is; None: the response was made here."""


@dataclass(frozen=True, slots=True)
class Again:
    """Ask once more: with this attempt, or after a hold."""

    then: Attempt | Hold


@dataclass(frozen=True, slots=True)
class PassOn:
    """The client gets what the upstream sent, or the failover stream's own error; no further attempt."""

    note: str = ""
