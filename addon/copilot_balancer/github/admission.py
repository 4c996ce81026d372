"""Decides whether a credential becomes a new account, renews a known one, or is refused.

Laws of this file:

1. Pure: decisions in, decisions out; the caller asks GitHub before and writes the file after.
2. One person at one host is one account. The id that GitHub gives decides; a credential that nobody verified goes by
   its own hash, until it is verified and takes its real id over.
3. Who comes again keeps label, place, priority and every other decision; credential and what GitHub says are renewed.
4. There is one account on Copilot Free at most (GitHub Terms of Service, B.3).
5. A credential that was only seen passing by comes in with the user's consent alone, and only once.
"""

from dataclasses import dataclass

from pydantic import SecretStr

from copilot_balancer.copilot.hosts import default_api_host
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.api import Access, Identity, free_plan
from copilot_balancer.rules.accounts import Account, Consent, Decisions, fingerprint, normalise_label
from copilot_balancer.rules.state import Affinity, Memory

_UNUSABLE = (
    (PLACEHOLDER, "this is the placeholder that clients hold instead of a login: it is nobody's token"),
    (
        "ghp_",
        (
            "this is a classic personal access token (ghp_...), which the Copilot API does not take: log in with "
            "`copilot-balancer accounts add`, or give it a fine-grained one (github_pat_...) with Copilot Requests"
        ),
    ),
    (
        "tid=",
        "this is a short-lived Copilot token, which is over in half an hour: give it the GitHub token it was made from",
    ),
)
"""How a token begins -> why it is none of an account. Source: docs/copilot-protocol.md#credentials."""


@dataclass(frozen=True)
class Arrival:
    """A credential on its way into accounts.json."""

    token: SecretStr
    host: str
    identity: Identity | None = None
    """What GitHub says about it; None: nobody asked."""
    label: str | None = None
    """What the user wants to call it; None: as the login."""
    access: Access | None = None
    """How the Copilot API takes it; None: nobody tried."""


@dataclass(frozen=True)
class Admitted:
    """What became of an arrival."""

    account: Account
    new: bool
    """Whether nobody knew it; else it was refreshed."""
    old_id: str | None = None
    """The hash that it went by until now; what was learnt under it belongs to ``account.id``."""


def unusable(token: SecretStr) -> str | None:
    """Why `token` can be nobody's account, by its looks alone; None when it can."""
    text = token.get_secret_value()
    return next((why for beginning, why in _UNUSABLE if text.startswith(beginning)), None)


def admit(decisions: Decisions, arrival: Arrival, now: float) -> tuple[Decisions, Admitted]:
    """Let `arrival` in: refresh the account that it is, else append a new one.

    Raises:
        InvalidInput: its token is `unusable`, its label is missing or taken, or it is a second account on Copilot Free.

    """
    if reason := unusable(arrival.token):
        raise InvalidInput(reason)
    mark = fingerprint(arrival.token.get_secret_value())
    twin = next((a for a in decisions.accounts if (a.host, a.fingerprint) == (arrival.host, mark)), None)
    identity = arrival.identity
    unverified_id = twin.id if twin else f"{arrival.host}:h{mark}"
    account_id = identity.id if identity else unverified_id
    known = next((account for account in decisions.accounts if account.id == account_id), None)
    old = twin if twin and twin.id != account_id else None
    others = [account for account in decisions.accounts if account not in (known, old)]
    if identity and identity.plan_name == "free":
        _refuse_second_free(identity, others)

    if before := known or old:
        account = _refreshed(before, arrival, account_id, now)
    else:
        account = _new(arrival, account_id, _free_label(arrival, others), now)
    if old:
        decisions = _rekeyed(decisions, old, account_id, now)
    return decisions.with_account(account), Admitted(account, before is None, old.id if old else None)


def consented(decisions: Decisions, mark: str, label: str | None, now: float) -> Decisions:
    """The user wants the credential with the fingerprint `mark` stored under `label` when it is seen again.

    Raises:
        InvalidInput: the label is unusable or taken, or an account has that credential already.

    """
    holder = next((account for account in decisions.accounts if account.fingerprint == mark), None)
    if holder:
        raise InvalidInput(f"{holder.label} has this credential already")
    wish = normalise_label(label or f"client-{mark[:6]}")
    waiting = {consent.label for other, consent in decisions.adopt.items() if other != mark}
    if wish in waiting or any(account.label == wish for account in decisions.accounts):
        raise InvalidInput(f"the label {wish} is taken: choose another one with --label")
    return decisions.model_copy(update={"adopt": {**decisions.adopt, mark: Consent(label=wish, at=now)}})


def adopted(
    decisions: Decisions, token: SecretStr, host: str, now: float, identity: Identity | None = None
) -> Decisions | None:
    """A client was seen with `token` at the login host `host`: the decisions with it as an account.

    None when the user did not consent to it: then nothing changes. A consent serves once, also where the credential
    cannot come in (it is stored already, or a second one on Copilot Free). Without `identity` nobody has verified it.
    """
    mark = fingerprint(token.get_secret_value())
    consent = decisions.adopt.get(mark)
    if consent is None:
        return None
    spent = decisions.model_copy(update={"adopt": {key: c for key, c in decisions.adopt.items() if key != mark}})
    taken = any(account.label == consent.label for account in decisions.accounts)
    label = f"{consent.label[:50]}-{mark}" if taken else consent.label
    try:
        return admit(spent, Arrival(token, host, identity, label), now)[0]
    except InvalidInput:
        return spent


def moved(memory: Memory, old_id: str, new_id: str) -> Memory:
    """What `memory` holds under `old_id`, under `new_id`: to be merged."""
    accounts = {new_id: memory.accounts[old_id]} if old_id in memory.accounts else {}
    conversations = {
        conversation: Affinity(new_id, affinity.used_at + 0.001)  # the newer one wins the merge
        for conversation, affinity in memory.conversations.items()
        if affinity.account_id == old_id
    }
    return Memory(accounts, conversations)


def _refuse_second_free(identity: Identity, others: list[Account]) -> None:
    free = next((account for account in others if free_plan(account.plan, None)), None)
    if free:
        raise InvalidInput(
            f"{identity.login} is on Copilot Free, and so is {free.label}: GitHub allows one free account per person, "
            "so a second one is not taken in (copilot-balancer terms)"
        )


def _free_label(arrival: Arrival, others: list[Account]) -> str:
    wish = arrival.label or (arrival.identity.login if arrival.identity else None)
    if wish is None:
        raise InvalidInput("an account that is not verified has no login to be called by: give it a --label")
    label = normalise_label(wish)
    holder = next((account for account in others if account.label == label), None)
    if holder:
        who = f"{holder.login} on {holder.host}" if holder.login else f"an unverified account on {holder.host}"
        raise InvalidInput(f"the label {label} is taken by {who}: choose another one with --label")
    return label


def _new(arrival: Arrival, account_id: str, label: str, now: float) -> Account:
    identity, access = arrival.identity, arrival.access
    told = access.api_host if access and access.api_host else identity.api_host if identity else None
    return Account(
        id=account_id,
        label=label,
        login=identity.login if identity else None,
        host=arrival.host,
        api_host=told or default_api_host(arrival.host),
        credential=access.credential if access else "direct",
        token=arrival.token,
        plan=identity.plan_name if identity else None,
        added_at=now,
    )


def _refreshed(account: Account, arrival: Arrival, account_id: str, now: float) -> Account:
    """`account` with the new credential; what GitHub did not tell this time stays as it was."""
    identity = arrival.identity
    if identity is None:
        return account
    facts: dict[str, object] = {
        "id": account_id,
        "added_at": account.added_at if account.id == account_id else now,  # newer than an old removal of this id
        "login": identity.login,
        "token": arrival.token,
        "plan": identity.plan_name or account.plan,
        "api_host": identity.api_host if identity.api_host_named else account.api_host,
    }
    if access := arrival.access:
        facts["credential"] = access.credential
        facts["api_host"] = access.api_host or facts["api_host"]
    if fingerprint(arrival.token.get_secret_value()) == account.fingerprint:
        # a new token ends "needs login" by itself; the same one, which GitHub has just accepted, needs the user's word
        facts["cleared"] = {**account.cleared, "": now}
    return account.model_copy(update=facts)


def _rekeyed(decisions: Decisions, old: Account, new_id: str, now: float) -> Decisions:
    """`old` under its real id, in its place; dropped when that id is stored already."""
    known = any(account.id == new_id for account in decisions.accounts)
    accounts = (a.model_copy(update={"id": new_id}) if a.id == old.id else a for a in decisions.accounts)
    return decisions.model_copy(
        update={
            "accounts": tuple(a for a in decisions.accounts if a.id != old.id) if known else tuple(accounts),
            "home_id": new_id if decisions.home_id == old.id else decisions.home_id,
            "removed": {**decisions.removed, old.id: now},
        }
    )
