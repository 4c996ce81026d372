"""Formats accounts, requests and routes as table rows, and the headline and notice above them.

Laws of this file:

1. Pure: frozen values in, lines out; ``at`` (seconds on the wall clock) and widths (cells) are arguments.
2. A row is as wide as it was asked to be (``lines``); where there are few cells it has fewer columns.
3. Foreign text (a model, a path, a refusal) has been through ``printable``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import tzinfo

from rich.cells import cell_len

from copilot_balancer.cli.dashboard.lines import (
    Column,
    Line,
    Span,
    Tone,
    ago,
    amount,
    clock,
    countdown,
    fitted,
    gauge,
    milliseconds,
    over,
    percent,
    row,
    tightest,
    words,
)
from copilot_balancer.rules.accounts import RouteTable, Status
from copilot_balancer.rules.snapshot import AccountView, CooldownView
from copilot_balancer.store.request_record import AttemptRecord, RequestRecord
from copilot_balancer.text import printable
from copilot_balancer.views.overview import Overview
from copilot_balancer.views.requests import ending

# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

NARROW = 69
"""In fewer cells a table shows only its first columns, and less wide."""

SHORT_ACCOUNTS = (
    Column("mark", 1),
    Column("label", 8, "account", grows=4),
    Column("state", 12, "state", grows=4),
    Column("percent", 5, "left", right=True),
)
"""For less than that."""

NARROW_ACCOUNTS = (
    Column("mark", 1),
    Column("label", 10, "account", grows=4),
    Column("state", 18, "state", grows=3),
    Column("left", 16, "left"),
    Column("resets", 7, "resets", right=True),
    Column("busy", 4, "busy", right=True),
    Column("counts", 7, "srv/ref", right=True),
)
"""For `NARROW` cells and more; the plan and the last use stand in the details."""

WIDE_ACCOUNTS = (
    Column("mark", 1),
    Column("label", 12, "account", grows=4),
    Column("plan", 10, "plan", grows=4),
    Column("state", 24, "state", grows=3),
    Column("left", 23, "left"),
    Column("resets", 7, "resets", right=True),
    Column("busy", 4, "busy", right=True),
    Column("counts", 7, "srv/ref", right=True),
    Column("used", 6, "used", right=True),
)
"""For `WIDE` cells and more."""

WIDE = 102


def account_columns(width: int, accounts: Iterable[AccountView] = ()) -> tuple[Column, ...]:
    """What fits into `width` cells; label and plan grow as far as the longest of these `accounts` needs it."""
    columns = WIDE_ACCOUNTS if width >= WIDE else NARROW_ACCOUNTS if width >= NARROW else SHORT_ACCOUNTS
    accounts = tuple(accounts)
    labels = (account.label + "  " * account.home for account in accounts)
    return grown(columns, label=labels, plan=(account.plan or "" for account in accounts))


def grown(columns: Sequence[Column], **texts: Iterable[str]) -> tuple[Column, ...]:
    """`columns`, of which the named ones grow as far as the longest of their `texts`."""
    longest = {name: max(map(cell_len, found), default=0) for name, found in texts.items()}
    return tuple(
        replace(column, most=max(column.width, longest[column.name])) if column.name in longest else column
        for column in columns
    )


MARKS = {
    Status.READY: Span("●", Tone.GOOD),
    Status.COOLING: Span("◐", Tone.CAUTION),
    Status.NEEDS_LOGIN: Span("!", Tone.BAD),
    Status.DISABLED: Span("○", Tone.FAINT),
}


def account_cooldown(account: AccountView) -> CooldownView | None:
    """The longest rest of the whole account."""
    return next((rest for rest in account.rests if rest.model is None), None)


def account_state(account: AccountView) -> Line:
    """What the account is at this moment and why, in a few words: ``rests 4:32 session limit``."""
    if account.status is Status.DISABLED:
        return words(Span("off", Tone.FAINT) if not account.enabled else Span("blocked by GitHub", Tone.BAD))
    if account.status is Status.NEEDS_LOGIN:
        return words(Span("needs login", Tone.BAD), Span(": press l", Tone.FAINT))
    rest = account_cooldown(account)
    if rest is not None:
        told = words(Span(f"rests {countdown(rest.seconds)}", Tone.CAUTION), Span(f" {rest.reason}", Tone.FAINT))
        return told if account.status is Status.COOLING else words(*told, Span(" (paid models)", Tone.FAINT))
    if account.why_not is not None:
        return words(Span(account.why_not, Tone.FAINT))
    if account.rests:
        model = account.rests[0]
        name = printable(model.model or "", 60)
        return words(Span("ready", Tone.GOOD), Span(f", {countdown(model.seconds)} until {name}", Tone.FAINT))
    return words(Span("ready", Tone.GOOD))


def account_row(account: AccountView, columns: Sequence[Column], *, at: float, busy: int, width: int) -> Line:
    """One account in `width` cells; `busy` is how many requests it serves at this moment."""
    wide = width >= WIDE
    mark = Span("●", Tone.FAINT) if account.status is Status.READY and account.why_not else MARKS[account.status]
    label = Tone.FAINT if account.status is Status.DISABLED else Tone.STRONG
    cells: dict[str, Line] = {
        "mark": words(mark),
        "label": words(Span(account.label, label), Span(" *" if account.home else "", Tone.KEY)),
        "plan": words(Span(printable(account.plan or "-", 60), Tone.FAINT)),
        "state": account_state(account),
        "counts": words(
            Span(amount(account.served), Tone.FAINT),
            Span(f"/{amount(account.refused)}", Tone.CAUTION if account.refused else Tone.FAINT),
        ),
        "busy": words(Span(str(busy), Tone.STRONG) if busy else Span("-", Tone.FAINT)),
        "used": words(
            Span("never", Tone.FAINT) if account.last_used is None else Span(ago(at - account.last_used), Tone.FAINT)
        ),
    }
    shown = tightest(account.quota, at)
    if shown:
        name, window = shown[0]
        short = name if wide else name[:4]
        cells["left"] = words(*gauge(window, at, 10 if wide else 6), Span(f" {short}", Tone.FAINT))
        cells["percent"] = percent(window, at)
        if window.resets_at is not None and not window.unlimited and not over(window, at):
            cells["resets"] = words(Span(countdown(window.resets_at - at), Tone.FAINT))
    else:
        cells["left"] = words(Span("not told yet", Tone.FAINT))
    return row(columns, cells, width)


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────

REQUESTS = (
    Column("mark", 1),
    Column("time", 8, "time"),
    Column("account", 9, "account", grows=4),
    Column("model", 15, "model", grows=4),
    Column("how", 20, "how", grows=5),
    Column("took", 7, "took", right=True),
)

SHORT_REQUESTS = (
    Column("mark", 1),
    Column("time", 8, "time"),
    Column("account", 8, "account", grows=1),
    Column("model", 12, "model", grows=3),
)
"""For less than `NARROW` cells."""


def request_columns(width: int, requests: Iterable[RequestRecord] = ()) -> tuple[Column, ...]:
    """What fits into `width` cells; names grow as far as the longest of these `requests` needs it, the rest is why."""
    if width < NARROW:
        return SHORT_REQUESTS
    requests = tuple(requests)
    models = (_model(event) for event in requests)
    return grown(REQUESTS, account=(event.account or "nobody" for event in requests), model=models)


def _model(event: RequestRecord) -> str:
    return event.what if event.model is None else f"{event.model} for {event.what}"


VERDICTS = {
    "served": Span("✓", Tone.GOOD),
    "failed over": Span("»", Tone.CAUTION),
    "refused": Span("✗", Tone.BAD),
    "failed": Span("✗", Tone.BAD),
    "cut off": Span("✗", Tone.BAD),
}
"""How a request ended; any other end (the client left, or was sent another way) is no fault of anybody's."""


def verdict_mark(event: RequestRecord) -> Span:
    """One sign for how a request ended."""
    return VERDICTS.get(event.verdict, Span("-", Tone.FAINT))


def refused(attempt: AttemptRecord) -> str:
    """``work 429 session limit``."""
    return " ".join(part for part in (attempt.account, str(attempt.status or ""), attempt.reason) if part)


def how(event: RequestRecord) -> Line:
    """Why this account, and what came before, in one line."""
    parts: list[Span] = []
    for attempt in event.refused:
        if parts:
            parts.append(Span(", ", Tone.FAINT))
        parts.append(Span(refused(attempt), Tone.CAUTION if event.account else Tone.BAD))
    if event.served is not None:
        why = event.served.why
        if event.verdict in ("cut off", "failed", "left"):
            parts.append(Span(f"{', ' if parts else ''}{ending(event)}", VERDICTS.get(event.verdict, _CALM).tone))
        else:
            parts.append(Span(f"{', then ' if parts else ''}{why}", Tone.FAINT))
    else:
        note = event.note or event.verdict
        parts.append(Span(f"{'; ' if parts else ''}{note}", Tone.FAINT if parts else verdict_mark(event).tone))
    return words(*parts)


_CALM = Span("", Tone.FAINT)


def request_row(event: RequestRecord, columns: Sequence[Column], *, zone: tzinfo | None, width: int) -> Line:
    """One finished request in `width` cells."""
    cells = {
        "mark": words(verdict_mark(event)),
        "time": words(Span(clock(event.at, zone), Tone.FAINT)),
        "account": words(Span(event.account, Tone.STRONG) if event.account else Span("nobody", Tone.BAD)),
        "model": words(Span(_model(event), Tone.CAUTION if event.model else Tone.PLAIN)),
        "how": how(event),
        "took": words(Span(milliseconds(event.ms / 1000), Tone.FAINT)),
    }
    return row(columns, cells, width)


def request_key(event: RequestRecord) -> str:
    """Names a request in the list."""
    return f"{event.id} {event.at}"


def picked(events: Iterable[RequestRecord], search: str, *, switches: bool) -> list[RequestRecord]:
    """Those that hold every word of `search`, newest first; `switches`: only what did not simply succeed."""
    wanted = search.lower().split()
    found = []
    for event in events:
        if switches and event.verdict == "served":
            continue
        said = " ".join(
            (
                event.what, event.model or "", event.account or "nobody", event.verdict, str(event.status or ""),
                event.note, *(refused(attempt) for attempt in event.attempts),
            )
        ).lower()  # fmt: skip
        if all(word in said for word in wanted):
            found.append(event)
    return found[::-1]


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ROUTES = (
    Column("place", 2, "#", right=True),
    Column("on", 3, "on"),
    Column("models", 16, "models", grows=2),
    Column("accounts", 20, "accounts, in this order", grows=2),
    Column("fallback", 14, "else these models", grows=1),
)


def route_row(route: RouteTable, place: int, labels: Iterable[str], width: int) -> Line:
    """One row of the matrix; an account that is not there (any more) is marked."""
    known = set(labels)
    tone = Tone.PLAIN if route.enabled else Tone.FAINT
    order: list[Span] = []
    for label in route.accounts:
        if order:
            order.append(Span(" > ", Tone.FAINT))
        order.append(Span(label, tone) if label in known else Span(f"{label}?", Tone.BAD))
    cells = {
        "place": words(Span(str(place), Tone.FAINT)),
        "on": words(Span("on", Tone.GOOD) if route.enabled else Span("off", Tone.FAINT)),
        "models": words(Span(printable(", ".join(route.models), 300), Tone.STRONG if route.enabled else tone)),
        "accounts": tuple(order) or words(Span("all of them", Tone.FAINT)),
        "fallback": words(
            Span(printable(", ".join(route.fallback), 300) or "-", tone if route.fallback else Tone.FAINT)
        ),
    }
    return row(ROUTES, cells, width)


def route_key(route: RouteTable) -> str:
    """Names a row of the matrix: what stands in it, without whether it is on."""
    return repr((route.models, route.accounts, route.fallback, route.enabled))


def routes_in_force(overview: Overview) -> tuple[RouteTable, ...]:
    """The rows of the matrix: the user's own, else those of the settings."""
    if overview.decisions.routes is not None:
        return overview.decisions.routes
    return tuple(
        RouteTable(models=row.models, accounts=row.accounts, fallback=row.fallback, enabled=row.enabled)
        for row in overview.policy.routes
    )


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


def headline(overview: Overview, *, zone: tzinfo | None, width: int, stale: bool = False) -> Line:
    """The first line: what is on, what runs, what time it is; `stale`: it was seen then, and cannot be seen now."""
    decisions = overview.decisions
    strategies = {proxy.strategy for proxy in overview.proxies if proxy.strategy}
    strategy = " and ".join(sorted(strategies)) or overview.policy.strategy
    parts = [Span("copilot-balancer", Tone.KEY), Span("  ")] if width >= NARROW else []
    if decisions.balancing:
        parts += [Span("balancing on", Tone.GOOD), Span(f", {strategy}", Tone.FAINT)]
    else:
        parts.append(Span("balancing off", Tone.CAUTION))
    parts.append(Span("  "))
    if overview.proxies:
        addresses = [address for proxy in overview.proxies for address in proxy.listening]
        more = f" +{len(addresses) - 1}" if len(addresses) > 1 else ""
        off = all(proxy.off for proxy in overview.proxies)
        where = addresses[0] if addresses else "a proxy runs"
        parts.append(Span(f"{where}{more}", Tone.BAD if off else Tone.PLAIN))
        running = overview.pool.requests
        parts += [Span("  "), Span(str(running), Tone.STRONG if running else Tone.FAINT), Span(" running", Tone.FAINT)]
    else:
        parts.append(Span("no proxy runs", Tone.CAUTION))
    time = f" {'as of ' if stale else ''}{clock(overview.at, zone)}"
    return (*fitted(words(*parts), max(width - len(time), 0)), Span(time, Tone.CAUTION if stale else Tone.FAINT))


def notice(overview: Overview) -> Line | None:
    """The one thing that the user should know or do first; None: nothing."""
    decisions, accounts = overview.decisions, overview.pool.accounts
    off = next((proxy for proxy in overview.proxies if proxy.off), None)
    if off is not None:
        return words(Span(f"The proxy with process id {off.pid} uses no account: {printable(off.off, 200)}", Tone.BAD))
    if not accounts:
        return None
    if decisions.terms_missing:
        return _todo(f"Only {accounts[0].label} serves until you accept GitHub's rules", "T", "read them")
    if not any(account.enabled for account in accounts):
        return _todo("Every account is off, so nobody serves", "e", "turn one on")
    if not decisions.balancing:
        home = decisions.home.label if decisions.home else "nobody"
        return _todo(f"Balancing is off: only {home} serves, and its refusals reach the client", "b", "turn it on")
    if not overview.serves:
        rests = [rest.seconds for account in accounts if account.enabled and (rest := account_cooldown(account))]
        return words(
            Span("Nobody can serve at this moment", Tone.BAD),
            Span(f"; the first rest ends in {countdown(min(rests))}" if rests else "", Tone.FAINT),
        )
    if overview.warnings:
        return words(Span(printable(overview.warnings[0], 300), Tone.CAUTION))
    if not overview.proxies:
        return words(Span("Start one: ", Tone.FAINT), Span("copilot-balancer run", Tone.KEY))
    return None


def _todo(what: str, key: str, then: str) -> Line:
    return words(Span(f"{what}: press ", Tone.CAUTION), Span(key, Tone.KEY), Span(f" to {then}", Tone.CAUTION))


def labels(overview: Overview) -> tuple[str, ...]:
    """Of all accounts, in the user's order."""
    return tuple(account.label for account in overview.decisions.accounts)
