"""Formats accounts and the whole state for the commands: lines of text, JSON, and what keeps an account from serving.

Laws of this file:

1. Nothing here changes anything, and no token is shown: a credential goes by its fingerprint, and only in JSON.
2. Who may serve is the pool's rule; what is shown of the past is what a proxy last wrote down.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from copilot_balancer import __version__
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account, Decisions, Status
from copilot_balancer.rules.snapshot import AccountView, CooldownView
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.text import WIDTH, bar, day, duration, iso, printable, wrapped
from copilot_balancer.views.overview import Overview

_SHOWN_MODELS = 3
"""So many models that an account lacks are named."""


def serves(account: Account, decisions: Decisions) -> bool:
    """Whether the user's decisions let `account` serve, by the pool's rule; what the proxy learnt stands elsewhere."""
    if decisions.balancing:
        return account.enabled and account in decisions.serving()
    return account.enabled and account is decisions.home


def limits(decisions: Decisions) -> str | None:
    """What keeps accounts from serving and is easily forgotten; None: nothing does."""
    serving = [account.label for account in decisions.accounts if serves(account, decisions)]
    if not decisions.accounts:
        return None
    if not any(account.enabled for account in decisions.accounts):
        why = f"until you enable one: `copilot-balancer accounts enable {decisions.accounts[0].label}`"
    elif not decisions.balancing:
        why = "while balancing is off: `copilot-balancer balancing on`"
    elif decisions.terms_missing:
        why = "until you accept GitHub's rules: `copilot-balancer terms accept`"
    else:
        return None
    return f"only {serving[0]} serves {why}" if serving else f"nobody serves {why}"


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


def state(view: AccountView) -> str:
    """The status of an account and, where it rests, for how long and why: ``cooling: limit, 12 min``."""
    rests = [
        f"{rest.reason}{f' ({rest.model})' if rest.model else ''}, {duration(rest.seconds)}" for rest in view.rests
    ]
    return f"{view.status}: {'; '.join(rests)}" if rests else str(view.status)


def quota_lines(windows: Mapping[str, QuotaWindow], *, cells: int = 20) -> list[str]:
    """What is left of each quota, one a line: a bar of `cells` if any, a percentage, numbers, the reset where known."""
    width = max(map(len, windows), default=0)
    return [f"{name.ljust(width)}  {_quota(window, cells)}" for name, window in windows.items()]


def _quota(window: QuotaWindow, cells: int) -> str:
    if window.unlimited:
        return "unlimited"
    told = f"{bar(window.percent_left, cells)} " if cells else ""
    told += f"{window.percent_left:3.0f} %"
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


# ── the status ───────────────────────────────────────────────────────────────────────────────────────────────────────

_SAID_BY = {"server": "as the server said", "reset": "until its quota resets"}
"""``CooldownView.source`` -> who named the time; what is not here is our own guess and needs no word."""


def status_text(seen: Overview, width: int = WIDTH) -> str:
    """Everything at a glance, in lines of at most `width` columns: what the dashboard shows, printed once."""
    head = [headline(seen), *(_proxy(proxy, seen) for proxy in seen.proxies)]
    parts = ["\n".join(_filled(line, width) for line in head)]
    named = max((len(_name(view)) for view in seen.pool.accounts), default=0)
    parts += ["\n".join(_account(view, min(named, 30), seen.at, width)) for view in seen.pool.accounts]
    parts += [wrapped(printable(warning, 1000), "note: ", width) for warning in warnings(seen)]
    return "\n\n".join(parts)


def warnings(seen: Overview) -> list[str]:
    """What a person should know who looks at the status, a sentence each."""
    told = [limits(seen.decisions), *seen.warnings]
    told += [f"the proxy on {_addresses(proxy)} uses no account: {proxy.off}" for proxy in seen.proxies if proxy.off]
    told += [
        f"the proxy on {_addresses(proxy)} is copilot-balancer {proxy.version}, this is {__version__}: restart it"
        for proxy in seen.proxies
        if proxy.version != __version__
    ]
    if not seen.proxies:
        told.append("no proxy runs: `copilot-balancer run` starts one")
    return [warning for warning in told if warning]


def headline(seen: Overview) -> str:
    """How many accounts can serve, and who is asked, in a sentence."""
    accounts, home = seen.pool.accounts, seen.decisions.home
    if not accounts or home is None:
        return "No account is stored yet. To add one: copilot-balancer start"
    able = 0 if seen.off else sum(view.why_not is None for view in accounts)
    can = f"{able} of {len(accounts)} account{'' if len(accounts) == 1 else 's'} can serve now"
    if not seen.pool.balancing:
        return f"Balancing is off, {home.label} is asked for everything; {can}."
    return f"Balancing by {seen.pool.strategy}; {can}."


_LONG_REST = 3600.0
"""Seconds: from this length on a rest comes with the command that ends it."""


def _addresses(proxy: RunningProxy) -> str:
    return printable(", ".join(proxy.listening) or "nothing", 200)


def _proxy(proxy: RunningProxy, seen: Overview) -> str:
    since = f"process {proxy.pid}, for {duration(seen.at - proxy.began)}"
    busy = "no request" if not proxy.requests else f"{proxy.requests} request{'' if proxy.requests == 1 else 's'}"
    other = proxy.strategy not in ("", seen.pool.strategy)
    by = f", but by {printable(proxy.strategy, 40)}" if other else ""
    return f"Proxy on {_addresses(proxy)} ({since}{by}): {busy} under way."


def _name(view: AccountView) -> str:
    return f"{view.label} (home)" if view.home else view.label


def _account(view: AccountView, named: int, now: float, width: int) -> Iterator[str]:
    whose = f"{view.login or 'not verified'} on {view.host}, plan {printable(view.plan or 'unknown', 64)}"
    first = f"{_name(view).ljust(named)}  {view.status:11}  "
    if len(first) + len(whose) <= width:
        yield f"{first}{whose}"
    else:
        yield first.rstrip()
        yield _filled(whose, width, "  ")
    yield from (f"  {line}" for line in quota_lines(view.quota, cells=20 if width >= WIDTH else 0))
    if view.why_not is not None and view.status is not Status.COOLING:
        yield _filled(f"does not serve: it {printable(view.why_not, 200)}", width, "  ")
    for rest in view.rests:
        yield _filled(_rest(rest), width, "  ")
    if any(rest.seconds >= _LONG_REST for rest in view.rests):
        yield _filled(f"to end that earlier: `copilot-balancer accounts clear {view.label}`", width, "  ")
    if view.lacks:
        names = [printable(model, 60) for model in view.lacks]
        more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
        yield _filled(f"does not have {', '.join(names[:_SHOWN_MODELS])}{more}", width, "  ")
    used = "never used" if view.last_used is None else f"last used {duration(now - view.last_used)} ago"
    yield _filled(f"{view.in_flight} in flight, {view.served} served, {view.refused} refused, {used}", width, "  ")


def _rest(rest: CooldownView) -> str:
    what = f" for {printable(rest.model, 60)}" if rest.model else ""
    said = f", {_SAID_BY[rest.source]}" if rest.source in _SAID_BY else ""
    told = "" if rest.told is None else f" (it said {duration(rest.told)}; it is asked again earlier)"
    return f"rests{what}, free again in {duration(rest.seconds)}: {printable(rest.reason, 60)}{said}{told}"


def _filled(text: str, width: int, first: str = "") -> str:
    return wrapped(text, first, width, hanging=len(first) + 2, long_words=False)


def status_facts(seen: Overview) -> dict[str, Any]:
    """The same for programs: moments as text, lengths of time in seconds."""
    home = seen.decisions.home
    return {
        "at": iso(seen.at),
        "serves": seen.serves,
        "balancing": seen.pool.balancing,
        "strategy": seen.pool.strategy,
        "home": None if home is None else home.label,
        "terms_missing": seen.decisions.terms_missing,
        "requests": seen.pool.requests,
        "conversations": seen.pool.conversations,
        "proxies": [
            {
                "pid": proxy.pid,
                "began": iso(proxy.began),
                "listening": list(proxy.listening),
                "version": proxy.version,
                "strategy": proxy.strategy,
                "requests": proxy.requests,
                "in_flight": dict(proxy.in_flight),
                "off": proxy.off or None,
            }
            for proxy in seen.proxies
        ],
        "accounts": [_facts(view, seen.at) for view in seen.pool.accounts],
        "warnings": warnings(seen),
    }


def _facts(view: AccountView, now: float) -> dict[str, Any]:
    return {
        "label": view.label,
        "id": view.id,
        "login": view.login,
        "host": view.host,
        "plan": view.plan,
        "fence": view.fence,
        "enabled": view.enabled,
        "home": view.home,
        "status": str(view.status),
        "why_not": view.why_not,
        "rests": [
            {
                "reason": rest.reason,
                "model": rest.model,
                "seconds": round(rest.seconds, 3),
                "until": iso(now + rest.seconds),
                "source": rest.source,
                "told_seconds": None if rest.told is None else round(rest.told, 3),
            }
            for rest in view.rests
        ],
        "quota": quota_facts(view.quota),
        "lacks": {model: round(seconds, 3) for model, seconds in view.lacks.items()},
        "in_flight": view.in_flight,
        "served": view.served,
        "refused": view.refused,
        "last_used": None if view.last_used is None else iso(view.last_used),
        "health": round(view.health, 3),
    }
