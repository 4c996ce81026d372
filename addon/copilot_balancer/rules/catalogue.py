"""What an account's own list of models says, and how one list is completed with what other accounts have.

Laws of this file:

1. A listed model is one that the account has; one that is not listed may still be there, so nothing is held against
   it: the catalogue is not the same each time, and lists leave out what is legitimately called
   (docs/copilot-protocol.md#models).
2. A model that the account's policy turned off is not one that it has.
3. A foreign document never raises; what cannot be read is left out.
4. A list is only ever completed, with whole entries as the service wrote them; one whose policy is disabled gives way
   to one that can be used.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.cooldowns import listed
from copilot_balancer.rules.state import MAX_MODELS, AccountState, copied
from copilot_balancer.text import printable

MAX_ENTRY = 20_000
"""Characters of the longest entry that is kept; the service's have about 1,500 (docs/copilot-protocol.md#models)."""

MAX_NESTED = 150
"""Objects and arrays of an entry; what is deeper cannot be written again."""

WARNING_LENGTH = 300
"""Characters of a warning that are shown."""
_RETIRES = re.compile("deprecat|retire|sunset")

_NAME = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that an account has."""

    name: str
    included: bool = False
    """It costs nothing, so a used-up quota does not stop it."""
    entry: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What the service said of it, as it was written."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The last list of one account, entry by entry."""

    credential: str
    """Fingerprint of the credential that it was shown to."""
    at: float
    """When; seconds since the epoch, on the wall clock."""
    entries: dict[str, dict[str, Any]]
    """Model -> its entry."""


@dataclass(slots=True)
class Catalogue:
    """models.json: the lists of all accounts, by account id. No secret; losing it loses memory only."""

    accounts: dict[str, Shelf] = field(default_factory=dict)


def shelf(account: Account, models: Iterable[Listed], at: float) -> Shelf:
    """`account`'s own list, seen at `at`, to be kept; an entry that is too long to be one is left out."""
    entries = {model.name: model.entry for model in models if _can_be_kept(model.entry)}
    return Shelf(account.fingerprint, at, entries)


def _can_be_kept(entry: dict[str, Any]) -> bool:
    """Whether it is short and flat enough, and of characters that a file can hold."""
    try:
        text = json.dumps(entry, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return len(text) <= MAX_ENTRY and text.count("{") + text.count("[") <= MAX_NESTED


def warning(entry: dict[str, Any]) -> str:
    """What the service warns of about a model in its entry, like the day on which it is retired; empty: nothing.

    Source: github community discussion #209212; ``info_messages`` with the code ``model_pending_deprecation`` and
    ``warning_text`` are shown by VS Code's model picker.
    """
    for key in ("warning_messages", "info_messages"):
        messages = entry.get(key)
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and (key == "warning_messages" or _RETIRES.search(str(message.get("code")))):
                told = next((text for name in ("warning_text", "message") if (text := message.get(name))), "")
                if isinstance(told, str) and told:
                    return printable(told, WARNING_LENGTH)
    told = entry.get("warning_text")
    return printable(told, WARNING_LENGTH) if isinstance(told, str) else ""


def warnings(catalogue: Catalogue, accounts: Iterable[Account]) -> dict[str, str]:
    """Model -> the service's warning, as far as the accounts' last lists hold one."""
    shelves = (catalogue.accounts.get(account.id) for account in accounts)
    entries = ((name, entry) for one in shelves if one is not None for name, entry in one.entries.items())
    return {name: told for name, entry in entries if (told := warning(entry))}


def newest(disk: Catalogue, mine: Catalogue) -> Catalogue:
    """For each account the list that was seen last."""
    merged = dict(disk.accounts)
    for key, ours in mine.accounts.items():
        if key not in merged or merged[key].at < ours.at:
            merged[key] = ours
    return Catalogue(merged)


def completed(document: dict[str, Any], others: Iterable[dict[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """`document`, an answer of ``GET /models``, with what `others` have and it lacks; None when it lacks nothing.

    An entry whose policy is disabled gives its place to the whole entry of the first of `others` that has the model:
    else a client would not offer it.
    """
    listed_entries = document.get("data")
    if not isinstance(listed_entries, list):
        return None
    has: dict[str, dict[str, Any]] = {}
    for entries in others:
        has |= {name: entry for name, entry in entries.items() if name not in has}
    kept = [has.get(_disabled(entry) or "", entry) for entry in listed_entries]
    ids = (entry.get("id") for entry in kept if isinstance(entry, dict))
    seen = {name for name in ids if isinstance(name, str)}
    data = [*kept, *(entry for name, entry in has.items() if name not in seen)]
    return {**document, "data": data} if data != listed_entries else None


def disabled_models(document: object) -> tuple[str, ...]:
    """The models in the answer of ``GET /models`` that the account's policy has turned off, at most `MAX_MODELS`."""
    entries = document.get("data") if isinstance(document, dict) else None
    names = (_disabled(entry) for entry in entries) if isinstance(entries, list) else ()
    return tuple(name for name in names if name and _NAME.fullmatch(name))[:MAX_MODELS]


def _disabled(entry: object) -> str | None:
    """The name of a model whose policy is disabled; None: the entry is none of one."""
    policy = entry.get("policy") if isinstance(entry, dict) else None
    off = isinstance(policy, dict) and policy.get("state") == "disabled"
    return str(entry["id"]) if off and isinstance(entry, dict) and isinstance(entry.get("id"), str) else None


def read_models(document: object) -> tuple[Listed, ...] | None:
    """The models in the answer of ``GET /models``, at most `MAX_MODELS`; None when it is no such answer."""
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return None
    found: dict[str, Listed] = {}
    for entry in entries:
        model = _model(entry) if isinstance(entry, dict) else None
        if model is not None and len(found) < MAX_MODELS:
            found[model.name] = model
    return tuple(found.values())


def _model(entry: dict[str, object]) -> Listed | None:
    name, billing = entry.get("id"), entry.get("billing")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or _disabled(entry) is not None:
        return None
    free = isinstance(billing, dict) and (billing.get("is_premium") is False or billing.get("multiplier") == 0)
    return Listed(name, free, entry)


def learnt(
    account: Account, models: Iterable[Listed], before: AccountState | None, now: float, model_ttl: float
) -> AccountState:
    """What `account`'s own list of `models`, seen at `now`, teaches: to be merged into what is known.

    Args:
        account: whose list it is; the facts are about its present credential.
        models: what it has.
        before: what is known about the account, of whatever credential.
        now: seconds, on the clock of `before`.
        model_ttl: seconds for which the facts hold.

    """
    state = AccountState(credential=account.fingerprint)
    if before is not None and before.credential == account.fingerprint:
        state = replace(state, models=copied(before).models)
    models = tuple(models)
    listed(
        state,
        (model.name for model in models),
        now,
        model_ttl,
        frozenset(model.name for model in models if model.included),
    )
    state.listed_at = now
    return state
