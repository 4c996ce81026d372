"""What an account's own list of models says: ``GET /models`` -> which models it has, and which of them cost nothing.

Laws of this file:

1. A listed model is one that the account has; one that is not listed may still be there, so nothing is held against
   it: the catalogue is not the same each time, and lists leave out what is legitimately called (copilot-protocol.md 6).
2. A model that the account's policy turned off is not one that it has.
3. A foreign document never raises; what cannot be read is left out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from copilot_balancer.accounts import Account
from copilot_balancer.cooldowns import listed
from copilot_balancer.memory import MAX_MODELS, AccountState, copied

_NAME = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that an account has."""

    name: str
    included: bool = False
    """It costs nothing, so a used-up quota does not stop it."""


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
    name, policy, billing = entry.get("id"), entry.get("policy"), entry.get("billing")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    if isinstance(policy, dict) and policy.get("state") == "disabled":
        return None
    free = isinstance(billing, dict) and (billing.get("is_premium") is False or billing.get("multiplier") == 0)
    return Listed(name, free)


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
