"""The user's edits of accounts and routes, as functions from ``Decisions`` to ``Decisions``.

Laws of this file:

1. Pure: whoever changes something hands one of these to ``Store.edit_decisions``, so that two programs that change at
   once lose nothing.
2. An account goes by its id, which outlives a rename; a row of the matrix by what stands in it, since rows have no name
   and another program may have moved it meanwhile.
3. What cannot be done raises InvalidInput with one sentence, and nothing is changed.
"""

import re
from collections.abc import Callable
from typing import Any

from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import Account, Decisions, RouteTable, Strategy, normalise_label

type Edit = Callable[[Decisions], Decisions]
"""For ``Store.edit_decisions``."""

MAX_PRIORITY = 1000
MAX_WEIGHT = 1000
_PATTERN = re.compile(r"[\x21-\x7e]{1,200}")
MAX_ROUTES = 200
"""More rows than that no screen shows and nobody reads."""

# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _account(decisions: Decisions, account_id: str) -> Account:
    found = next((account for account in decisions.accounts if account.id == account_id), None)
    if found is None:
        raise InvalidInput("this account was removed meanwhile")
    return found


def _changed(account_id: str, **facts: object) -> Edit:
    def change(decisions: Decisions) -> Decisions:
        return decisions.with_account(_account(decisions, account_id).model_copy(update=facts))

    return change


def made_home(account_id: str) -> Edit:
    """Make an account the home account."""
    return lambda decisions: decisions.model_copy(update={"home_id": _account(decisions, account_id).id})


def renamed(account_id: str, wish: str) -> Edit:
    """Call an account `wish`; rows of the matrix that name it follow.

    Raises:
        InvalidInput: now, when `wish` is no label; on the edit, when another account has it.

    """
    label = normalise_label(wish)

    def change(decisions: Decisions) -> Decisions:
        account = _account(decisions, account_id)
        holder = next((one for one in decisions.accounts if one.label == label and one.id != account_id), None)
        if holder:
            raise InvalidInput(f"the label {label} is taken by {holder.login or 'an account'} on {holder.host}")
        after = decisions.with_account(account.model_copy(update={"label": label}))
        if after.routes is None:
            return after
        routes = tuple(
            route.model_copy(
                update={"accounts": tuple(label if name == account.label else name for name in route.accounts)}
            )
            for route in after.routes
        )
        return after.model_copy(update={"routes": routes})

    return change


def turned_on(account_id: str, now: float) -> Edit:
    """Let an account serve; this also ends an abuse stop."""
    return _changed(account_id, enabled=True, enabled_at=now, stopped_at=None, stopped_why="")


def stopped(account_id: str, at: float, why: str, enabled_at: float) -> Edit:
    """GitHub stopped an account for abuse at `at`, while it had this `enabled_at`: the user may have decided since."""

    def change(decisions: Decisions) -> Decisions:
        account = next((one for one in decisions.accounts if one.id == account_id), None)
        if account is None or account.stopped_at is not None or account.enabled_at != enabled_at:
            return decisions
        return decisions.with_account(account.model_copy(update={"stopped_at": at, "stopped_why": why[:200]}))

    return change


def turned_off(account_id: str) -> Edit:
    """Keep an account, but send nothing with it."""
    return _changed(account_id, enabled=False)


def ranked(account_id: str, priority: int) -> Edit:
    """Set the priority of an account, 0 to `MAX_PRIORITY`; lower is asked earlier."""
    return _changed(account_id, priority=priority)


def tuned(account_id: str, **wishes: Any) -> Edit:
    """Set ``weight``, ``reserve``, ``allow`` or ``block`` of an account; None puts one back to its default.

    Raises:
        InvalidInput: on the edit, when a value is not allowed; the sentence names it.

    """

    def change(decisions: Decisions) -> Decisions:
        account = _account(decisions, account_id)
        facts = {name: Account.model_fields[name].default if wish is None else wish for name, wish in wishes.items()}
        for name in ("allow", "block"):
            for pattern in facts.get(name, ()):
                if not _PATTERN.fullmatch(pattern):
                    raise InvalidInput(f"{name}: a model pattern is 1 to 200 printable characters without spaces")
        if not 0 < facts.get("weight", 1) <= MAX_WEIGHT:
            raise InvalidInput(f"weight: a number above 0 and up to {MAX_WEIGHT}")
        if not 0 <= facts.get("reserve", 0) <= 100:
            raise InvalidInput("reserve: a percentage from 0 to 100")
        return decisions.with_account(account.model_copy(update=facts))

    return change


def cleared(account_id: str, now: float, model: str | None = None) -> Edit:
    """End what keeps an account, or one `model` on it, from serving."""

    def change(decisions: Decisions) -> Decisions:
        account = _account(decisions, account_id)
        over = {**account.cleared, model: now} if model else {"": now}
        return decisions.with_account(account.model_copy(update={"cleared": over}))

    return change


def removed(account_id: str, now: float) -> Edit:
    """Delete an account and its token; rows of the matrix go on naming it, so that none becomes wider by this."""
    return lambda decisions: decisions.without(_account(decisions, account_id).id, now)


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


def balanced(*, on: bool) -> Edit:
    """Turn balancing on or off."""
    return lambda decisions: decisions.model_copy(update={"balancing": on})


def ordered_by(strategy: Strategy | None) -> Edit:
    """Choose an account for new conversations by `strategy`; None: as the settings say."""
    return lambda decisions: decisions.model_copy(update={"strategy": strategy})


def accepted(now: float) -> Edit:
    """The user accepts GitHub's rules; an earlier date is kept."""

    def change(decisions: Decisions) -> Decisions:
        if decisions.terms_accepted_at is not None:
            return decisions
        return decisions.model_copy(update={"terms_accepted_at": now})

    return change


# ── the priority matrix ──────────────────────────────────────────────────────────────────────────────────────────────

type Routes = tuple[RouteTable, ...]


def _routed(settings: Routes, change: Callable[[Routes], Routes]) -> Edit:
    """Change the rows that are in force: the user's own, else those of the settings, which are taken over by this."""

    def edit(decisions: Decisions) -> Decisions:
        rows = settings if decisions.routes is None else decisions.routes
        return decisions.model_copy(update={"routes": change(rows)})

    return edit


def place_of(rows: Routes, row: RouteTable) -> int:
    """Where `row` stands.

    Raises:
        InvalidInput: it does not any more.

    """
    if row not in rows:
        raise InvalidInput("this route was changed by another program meanwhile: look again")
    return rows.index(row)


def route_added(settings: Routes, row: RouteTable) -> Edit:
    """Append `row` to the matrix."""

    def change(rows: Routes) -> Routes:
        if row in rows:
            raise InvalidInput("there is such a route already")
        if len(rows) >= MAX_ROUTES:
            raise InvalidInput(f"there are {len(rows)} routes already: delete one first")
        return (*rows, row)

    return _routed(settings, change)


def route_replaced(settings: Routes, row: RouteTable, by: RouteTable) -> Edit:
    """Put `by` in the place of `row`."""

    def change(rows: Routes) -> Routes:
        place = place_of(rows, row)
        if by != row and by in rows:
            raise InvalidInput("there is such a route already")
        return (*rows[:place], by, *rows[place + 1 :])

    return _routed(settings, change)


def route_deleted(settings: Routes, row: RouteTable) -> Edit:
    """Delete `row`."""

    def change(rows: Routes) -> Routes:
        place = place_of(rows, row)
        return (*rows[:place], *rows[place + 1 :])

    return _routed(settings, change)


def route_moved(settings: Routes, row: RouteTable, by: int) -> Edit:
    """Move `row` by so many places, as far as there are any; the first row that matches a model counts."""

    def change(rows: Routes) -> Routes:
        place = place_of(rows, row)
        rest = (*rows[:place], *rows[place + 1 :])
        target = min(max(place + by, 0), len(rest))
        return (*rest[:target], row, *rest[target:])

    return _routed(settings, change)


def routes_of_settings() -> Edit:
    """Forget the rows of the dashboard: those of the settings are in force again."""
    return lambda decisions: decisions.model_copy(update={"routes": None})
