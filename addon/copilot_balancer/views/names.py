"""Names in settings and decisions that name nothing: routes with unknown accounts, fences without an account, models
that no account is known to have.

Laws of this file:

1. Pure: policy, decisions and the models that are known come in, sentences for people come out.
2. A model is called unknown only when some account's list is known; a pattern, when no known model matches it.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from copilot_balancer.rules.accounts import Decisions, matches
from copilot_balancer.rules.state import Memory
from copilot_balancer.rules.types import Policy
from copilot_balancer.text import printable

_SHOWN = 6
"""At most this many known names are listed where none is near."""
_WILD = frozenset("*?[")


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean work?``, or which names there are; for the end of a sentence."""
    names = list(dict.fromkeys(known))
    near = get_close_matches(name.lower(), names, n=1)
    if near:
        return f"did you mean {printable(near[0])}?"
    more = ", ..." if len(names) > _SHOWN else ""
    return f"there are: {', '.join(map(printable, names[:_SHOWN]))}{more}" if names else "there are none"


def known_models(memory: Memory, decisions: Decisions) -> frozenset[str]:
    """The models that some stored account is known to have; empty when no list was seen yet."""
    return frozenset(
        name
        for account in decisions.accounts
        if (state := memory.accounts.get(account.id)) and state.credential == account.fingerprint and state.listed_at
        for name, fact in state.models.items()
        if fact.has
    )


def unknown_model(model: str, models: Collection[str]) -> str | None:
    """The sentence for a model, or a pattern, that no account is known to have; None: it is known, or nothing is."""
    if not models or any(matches(known, [model]) for known in models):
        return None
    what = "matches no model that an account is known to have" if _WILD & set(model) else "is on no account's list"
    return f"{printable(model)} {what} ({nearest(model, sorted(models))})"


def unknown_fence(fence: str, decisions: Decisions) -> str | None:
    """The sentence for a fence in which there is no account; None: there is one, or no account at all."""
    fences = [account.fence for account in decisions.accounts]
    if not fences or fence in fences:
        return None
    return f"no account is in the fence {printable(fence)} ({nearest(fence, fences)})"


def unknown_names(policy: Policy, decisions: Decisions, models: Collection[str]) -> tuple[str, ...]:
    """A sentence for each name in `policy` that names nothing, and for each name that is an account's and a fence's.

    Args:
        policy: the settings and decisions in force.
        decisions: the stored accounts.
        models: `known_models`.

    """
    if not decisions.accounts:
        return ()
    labels = [account.label for account in decisions.accounts]
    told = []
    for route in policy.routes:
        if not route.enabled:
            continue
        place = f"the route for {printable(' '.join(route.models))}"
        told += [
            f"{place} names the account {printable(name)}, which is not stored ({nearest(name, labels)})"
            for name in route.accounts
            if name not in labels
        ]
        if route.accounts and not set(route.accounts) & set(labels):
            told.append(f"{place} names no stored account, so no account can serve these models")
        told += [
            f"{place}: {sentence}"
            for model in (*route.models, *route.fallback)
            if (sentence := unknown_model(model, models))
        ]
    told += [
        f"the setting preseed names the account {printable(name)}, which is not stored ({nearest(name, labels)})"
        for name in policy.preseed
        if name not in labels
    ]
    if sentence := unknown_fence(policy.fence, decisions):
        told.append(f"{sentence}; requests that name no fence are in this one, so no account can serve them")
    told += [
        f"{account.label} is the name of an account and of a fence that holds other accounts: as a proxy user it means "
        "the fence"
        for account in decisions.accounts
        if account.fence != account.label and account.label in {one.fence for one in decisions.accounts}
    ]
    return tuple(dict.fromkeys(told))
