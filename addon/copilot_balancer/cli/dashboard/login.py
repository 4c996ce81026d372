"""GitHub's device flow inside the dashboard, with the same functions as ``accounts add`` and ``accounts login``.

Laws of this file:

1. Blocks; the app calls it in threads. Whoever closes the dialog is out within `PIECE` seconds, and nothing is stored.
2. Nothing is stored before GitHub has said who logged in and the user has agreed.
3. The token stays in a ``SecretStr`` and goes to GitHub and the store alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as Flag

from pydantic import SecretStr

from copilot_balancer.cli.accounts.login import remember, verified
from copilot_balancer.cli.env import Env
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.admission import Admitted, admit
from copilot_balancer.github.api import Identity
from copilot_balancer.github.device_flow import Show
from copilot_balancer.rules.accounts import Account, Decisions

PIECE = 0.2
"""Seconds: a wait is slept in pieces of this, so that a dialog that was closed ends soon."""


class ClosedError(Exception):
    """The user closed the dialog."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who logged in."""

    token: SecretStr
    identity: Identity


@dataclass(frozen=True, slots=True)
class LoginResult:
    """The account that a login stored."""

    account: Account
    new: bool
    decisions: Decisions
    notes: tuple[str, ...] = ()
    """What the user should know besides."""


def logged_in(env: Env, host: str, show: Callable[[Show], None], closed: Flag) -> Person:
    """Let a person log in at `host` by a code that `show` tells them.

    Raises:
        ClosedError: `closed` was set meanwhile.
        InvalidInput: the settings cannot be used.
        UpstreamError: nobody logged in.

    """

    def sleep(seconds: float) -> None:
        left = seconds
        while left > 0 and not closed.is_set():
            env.sleep(min(left, PIECE))
            left -= PIECE
        if closed.is_set():
            raise ClosedError

    client_id = env.settings().settings.oauth_client_id
    token = env.github.log_in(host, client_id, show=show, sleep=sleep, clock=env.clock)
    identity = env.github.whoami(token, host)
    if closed.is_set():
        raise ClosedError
    return Person(token, identity)


def stored(env: Env, person: Person, label: str | None, expected: str | None = None) -> LoginResult:
    """Store who logged in, under `label` where it is a new account; `expected`: the id of the account that it must be.

    Raises:
        InvalidInput: it may not come in, or is somebody else.
        StoreError: the store cannot be changed.

    """
    identity = person.identity
    if expected is not None and identity.id != expected:
        raise InvalidInput(
            f"you logged in as {identity.login}, who is somebody else: nothing was changed. Log out there, or use a "
            "private window, and try again"
        )
    host = identity.id.partition(":")[0]
    arrival = verified(env, person.token, host, label, identity)
    admitted: list[Admitted] = []

    def change(decisions: Decisions) -> Decisions:
        admitted.clear()
        if expected is not None:
            decisions.find(expected)  # removed meanwhile: then it does not come back by this
        decisions, one = admit(decisions, arrival, env.now())
        admitted.append(one)
        return decisions

    decisions = env.store.edit_decisions(change)
    one = admitted[0]
    remember(env, arrival, one, env.settings().settings.model_ttl)
    access = arrival.access.warning if arrival.access else None
    kept = label is not None and one.account.label != label
    return LoginResult(
        one.account,
        one.new,
        decisions,
        (
            *identity.warnings,
            *((access,) if access else ()),
            *((f"it was here already and keeps its label, {one.account.label}",) if kept else ()),
        ),
    )


def person_text(identity: Identity) -> str:
    """``octocat on github.com, plan business``."""
    host = identity.id.partition(":")[0]
    return f"{identity.login} on {host}, plan {identity.plan_name or 'unknown'}"
