"""What an `Exchange` decides to do with its request: frozen values, so that each decision is a return value.

`Outgoing` and `Answer` answer ``FailoverChooseHook``; `Again`, `Answer` and `PassOn` answer ``FailoverJudgeHook``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import Server
from pydantic import SecretStr

from copilot_balancer.github.tokens import Bearer
from copilot_balancer.proxy.failover.hooks import Send
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.classify import written_of
from copilot_balancer.rules.types import Attempt, Hold, Outcome
from copilot_balancer.store.request_record import AttemptRecord

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
