"""How the commands show accounts: in a line, in JSON, and what keeps them from serving.

Laws of this file:

1. Nothing here changes anything, and no token is shown: a credential goes by its fingerprint, and only in JSON.
2. Who may serve is the pool's rule; what is shown of the past is what a proxy last wrote down.
"""

from collections.abc import Mapping

from copilot_balancer import config
from copilot_balancer.accounts import Account, Decisions
from copilot_balancer.assignment import duration
from copilot_balancer.explain import AccountView
from copilot_balancer.memory import QuotaWindow, restored
from copilot_balancer.pool import Pool
from copilot_balancer.terminal import World, bar, day, iso, note


def serves(account: Account, decisions: Decisions) -> bool:
    """Whether the user's decisions let `account` serve, by the pool's rule; what the proxy learnt stands elsewhere."""
    if decisions.balancing:
        return account.enabled and account in decisions.serving()
    return account.enabled and account is decisions.home


def tell_limits(decisions: Decisions) -> None:
    """Tell what keeps accounts from serving and is easily forgotten."""
    serving = [account.label for account in decisions.accounts if serves(account, decisions)]
    if not decisions.accounts:
        return
    if not any(account.enabled for account in decisions.accounts):
        why = f"until you enable one: `copilot-balancer accounts enable {decisions.accounts[0].label}`"
    elif not decisions.balancing:
        why = "while balancing is off: `copilot-balancer balancing on`"
    elif decisions.terms_missing:
        why = "until you accept GitHub's rules: `copilot-balancer terms accept`"
    else:
        return
    note(f"only {serving[0]} serves {why}" if serving else f"nobody serves {why}")


def who(account: Account) -> str:
    """Whose account it is: ``octocat on github.com``."""
    return f"{account.login or 'not verified'} on {account.host}"


def row(account: Account, decisions: Decisions) -> dict[str, object]:
    """What the user decided about an account, for programs."""
    return {
        "label": account.label,
        "id": account.id,
        "login": account.login,
        "host": account.host,
        "api_host": account.api_host,
        "credential": account.credential,
        "plan": account.plan,
        "enabled": account.enabled,
        "home": account is decisions.home,
        "serving": serves(account, decisions),
        "fence": account.fence,
        "priority": account.priority,
        "fingerprint": account.fingerprint,
        "added_at": iso(account.added_at),
    }


def seen_by_the_pool(world: World, decisions: Decisions) -> dict[str, AccountView]:
    """Account id -> the account as a proxy that started now would see it."""
    now = world.now()
    pool = Pool(config.policy(world.settings().settings, decisions), decisions, now)
    pool.remember(restored(world.store.read_memory(), now), now)
    return {view.id: view for view in pool.snapshot(now).accounts}


def state(view: AccountView) -> str:
    """The status of an account and, where it rests, for how long and why: ``cooling: limit, 12 min``."""
    rests = [
        f"{rest.reason}{f' ({rest.model})' if rest.model else ''}, {duration(rest.seconds)}" for rest in view.rests
    ]
    return f"{view.status}: {'; '.join(rests)}" if rests else str(view.status)


def quota_lines(windows: Mapping[str, QuotaWindow]) -> list[str]:
    """What is left of each quota, one a line: a bar, a percentage, numbers and the reset where they are known."""
    width = max(map(len, windows), default=0)
    return [f"{name.ljust(width)}  {_quota(window)}" for name, window in windows.items()]


def _quota(window: QuotaWindow) -> str:
    if window.unlimited:
        return "unlimited"
    told = f"{bar(window.percent_left)} {window.percent_left:3.0f} %"
    if window.remaining is not None and window.entitlement:
        told += f"  {_amount(window.remaining)} of {_amount(window.entitlement)}"
    if window.resets_at is not None:
        told += f"  resets {day(window.resets_at)}"
    return told


def _amount(number: float) -> str:
    """``9.7M``: a number in at most six characters."""
    for size, unit in ((1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e6 if unit == 'M' else 1e3):.1f}{unit}"
    return f"{number:.0f}"


def quota_facts(windows: Mapping[str, QuotaWindow]) -> dict[str, dict[str, object]]:
    """The same for programs: absolute times."""
    return {
        name: {
            "percent_left": window.percent_left,
            "unlimited": window.unlimited,
            "remaining": window.remaining,
            "entitlement": window.entitlement,
            "overage_permitted": window.overage_permitted,
            "resets_at": None if window.resets_at is None else iso(window.resets_at),
            "seen_at": iso(window.seen_at),
        }
        for name, window in windows.items()
    }
