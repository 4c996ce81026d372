"""A login by code inside the dashboard, by the same functions as ``accounts add`` and ``accounts login``.

Laws of this file:

1. Blocks; the app calls it in threads. Whoever closes the dialog is out within `PIECE` seconds, and nothing is stored.
2. Nothing is stored before GitHub has said who logged in and the user has agreed.
3. The token stays in a ``SecretStr`` and goes to GitHub and the store alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as Flag

from pydantic import SecretStr

from copilot_balancer.accounts import Account, Decisions
from copilot_balancer.admission import Admitted, admit
from copilot_balancer.cli_admission import remember, verified
from copilot_balancer.device_flow import Show
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github import Identity
from copilot_balancer.terminal import World

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
class Joined:
    """What became of a login."""

    account: Account
    new: bool
    decisions: Decisions
    notes: tuple[str, ...] = ()
    """What the user should know besides."""


def logged_in(world: World, host: str, show: Callable[[Show], None], closed: Flag) -> Person:
    """Let a person log in at `host` by a code that `show` tells them.

    Raises:
        ClosedError: `closed` was set meanwhile.
        InvalidInput: the settings cannot be used.
        UpstreamError: nobody logged in.

    """

    def sleep(seconds: float) -> None:
        left = seconds
        while left > 0 and not closed.is_set():
            world.sleep(min(left, PIECE))
            left -= PIECE
        if closed.is_set():
            raise ClosedError

    client_id = world.settings().settings.oauth_client_id
    token = world.github.log_in(host, client_id, show=show, sleep=sleep, clock=world.clock)
    identity = world.github.whoami(token, host)
    if closed.is_set():
        raise ClosedError
    return Person(token, identity)


def stored(world: World, person: Person, label: str | None, expected: str | None = None) -> Joined:
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
    arrival = verified(world, person.token, host, label, identity)
    admitted: list[Admitted] = []

    def change(decisions: Decisions) -> Decisions:
        admitted.clear()
        if expected is not None:
            decisions.find(expected)  # removed meanwhile: then it does not come back by this
        decisions, one = admit(decisions, arrival, world.now())
        admitted.append(one)
        return decisions

    decisions = world.store.edit_decisions(change)
    one = admitted[0]
    remember(world, arrival, one, world.settings().settings.model_ttl)
    access = arrival.access.warning if arrival.access else None
    kept = label is not None and one.account.label != label
    return Joined(
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
