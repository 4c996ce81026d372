"""Formats the details of the chosen account, request or route, as lines.

Laws of this file:

1. Pure, as ``rows`` is: frozen values in, lines out.
2. What a row cuts off stands here whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo

from rich.cells import cell_len, chop_cells

from copilot_balancer.cli.dashboard.data import History
from copilot_balancer.cli.dashboard.lines import (
    Line,
    Span,
    Tone,
    amount,
    clock,
    countdown,
    counted,
    fitted,
    gauge,
    milliseconds,
    moment,
    over,
    since,
    tightest,
    width_of,
    words,
)
from copilot_balancer.cli.dashboard.rows import account_state, how, refused, verdict_mark
from copilot_balancer.rules.accounts import Account, RouteTable, matches
from copilot_balancer.rules.snapshot import AccountView, CooldownView
from copilot_balancer.store.request_record import RequestRecord
from copilot_balancer.text import printable
from copilot_balancer.views.overview import Overview
from copilot_balancer.views.requests import ending

NAME = 12
"""Cells of a fact's name."""
_LAST_REQUESTS = 5
_SHOWN_AFTER = 30.0
"""Seconds of a history from which it is plotted."""
_SOURCES = {"server": "as the service said", "reset": "until its quota resets", "ladder": "our own guess"}


def wrapped(spans: Line, width: int) -> list[Line]:
    """`spans` in lines of at most `width` cells, broken between words; a longer word is broken anywhere."""
    lines: list[list[Span]] = [[]]
    used = 0
    for span in spans:
        for index, word in enumerate(span.text.split(" ")):
            piece = f" {word}" if index else word
            if index and used + cell_len(piece) > width:
                lines.append([])
                used, piece = 0, word
            for number, part in enumerate(chop_cells(piece, max(width, 2)) if cell_len(piece) > width else [piece]):
                if number:
                    lines.append([])
                    used = 0
                if part:
                    lines[-1].append(Span(part, span.tone))
                    used += cell_len(part)
    return [fitted(tuple(line), min(width, width_of(tuple(line)))) for line in lines]


def fact(name: str, value: Line | str, width: int) -> list[Line]:
    """A name and a value beside it, wrapped."""
    spans = words(value) if isinstance(value, str) else value
    lines = wrapped(spans, max(width - NAME - 1, 10))
    names = [Span(name.ljust(NAME), Tone.FAINT), *[Span(" " * NAME)] * (len(lines) - 1)]
    return [(start, Span(" "), *line) for start, line in zip(names, lines, strict=True)]


def title(text: str, *more: Span) -> Line:
    """The first line."""
    return words(Span(text, Tone.KEY), *more)


def section(text: str) -> list[Line]:
    """An empty line and a heading."""
    return [(), words(Span(text, Tone.FAINT))]


# ── an account ───────────────────────────────────────────────────────────────────────────────────────────────────────


def account_details(
    view: AccountView,
    overview: Overview,
    events: Sequence[RequestRecord],
    history: History,
    *,
    zone: tzinfo | None,
    width: int,
) -> list[Line]:
    """Everything about one account; `events` are newest last."""
    at = overview.at
    account = next(one for one in overview.decisions.accounts if one.id == view.id)
    home = (Span("  home account", Tone.FAINT),) if view.home else ()
    lines = [title(view.label, *home), ()]
    lines += fact("state", account_state(view), width)
    lines += fact("serves", "yes" if view.why_not is None else f"no: {view.why_not}", width)
    for rest in view.rests:
        lines += fact("rests", _rest(rest), width)
    busy = overview.in_flight.get(view.id, 0)
    lines += fact("in flight", counted(busy, "request") if busy else "nothing", width)
    used = "never" if view.last_used is None else f"{moment(view.last_used, zone)}, {since(at - view.last_used)}"
    lines += fact("last used", used, width)
    lines += fact("requests", f"{view.served} served, {view.refused} refused", width)
    lines += _quota(view, history, at=at, width=width)
    lines += section("account")
    lines += _decided(view, account, zone, width)
    if view.lacks:
        told = ", ".join(f"{printable(model, 80)} ({countdown(left)})" for model, left in sorted(view.lacks.items()))
        lines += fact("lacks", told, width)
    mine = [event for event in events if any(attempt.is_by(view.id, view.label) for attempt in event.attempts)]
    if mine:
        lines += section("last requests")
        lines += [_brief(event, zone, width) for event in mine[: -_LAST_REQUESTS - 1 : -1]]
    return lines


def _rest(rest: CooldownView) -> Line:
    model = f"{printable(rest.model, 80)}: " if rest.model else ""
    told = f"; the service said {countdown(rest.told)}" if rest.told is not None else ""
    source = _SOURCES.get(rest.source, rest.source)
    return words(
        Span(f"{model}{countdown(rest.seconds)}", Tone.CAUTION),
        f" {rest.reason}",
        Span(f", {source}{told}", Tone.FAINT),
    )


def _quota(view: AccountView, history: History, *, at: float, width: int) -> list[Line]:
    lines = section("quota")
    if not view.quota:
        return [*lines, *wrapped(words(Span("No answer has told it yet.", Tone.FAINT)), width)]
    for name, window in view.quota.items():
        told = list(gauge(window, at, 8))
        if window.remaining is not None and window.entitlement and not window.unlimited:
            told.append(Span(f" {amount(window.remaining)} of {amount(window.entitlement)}"))
        if window.resets_at is not None and not over(window, at):
            told.append(Span(f", resets in {countdown(window.resets_at - at)}", Tone.FAINT))
        lines += fact(name, tuple(told), width)
    seen = max(window.seen_at for window in view.quota.values())
    lines += fact("", words(Span(f"seen {since(at - seen)}", Tone.FAINT)), width)
    return [*lines, *_plot(view, history, at=at, width=width)]


def _plot(view: AccountView, history: History, *, at: float, width: int) -> list[Line]:
    """What was left of the tightest window in its present period, as far as a proxy has seen it."""
    name, _ = tightest(view.quota, at)[0]
    began = history.since(view.id, name)
    if began is None or at - began < _SHOWN_AFTER:
        return []
    columns = min(max(width - NAME - 1, 10), 60)
    plot = history.plot(view.id, name, columns, 4, at)
    scale = ["100%", "", "", "0%"]
    lines: list[Line] = [()]
    for number, cells in zip(scale, plot, strict=True):
        lines.append((Span(number.rjust(NAME), Tone.FAINT), Span("▕", Tone.TRACK), Span(cells, Tone.AREA)))
    told = f"{name}, the last {countdown(max(at - began, 1))}"
    return [*lines, *fact("", words(Span(told, Tone.FAINT)), width)]


def _decided(view: AccountView, account: Account, zone: tzinfo | None, width: int) -> list[Line]:
    exchanged = account.credential == "exchange"
    facts: Mapping[str, str] = {
        "login": f"{view.login or 'not verified'} on {view.host}",
        "plan": printable(view.plan or "unknown"),
        "API host": account.api_host,
        "credential": "is exchanged for a short-lived one" if exchanged else "is used as it is",
        "fence": view.fence,
        "priority": f"{view.priority}, weight {view.weight:g}, reserve {view.reserve:g}%",
        "models": _patterns(account),
        "health": f"{view.health:.2f}",
        "added": moment(account.added_at, zone) if account.added_at else "unknown",
    }
    return [line for name, value in facts.items() for line in fact(name, value, width)]


def _patterns(account: Account) -> str:
    told = f"only {', '.join(account.allow)}" if account.allow else "all"
    return f"{told}, but not {', '.join(account.block)}" if account.block else told


def _brief(event: RequestRecord, zone: tzinfo | None, width: int) -> Line:
    line = words(verdict_mark(event), Span(f" {clock(event.at, zone)} ", Tone.FAINT), f"{event.what}  ", *how(event))
    return fitted(line, width)


# ── a request ────────────────────────────────────────────────────────────────────────────────────────────────────────


def request_details(event: RequestRecord, *, at: float, zone: tzinfo | None, width: int) -> list[Line]:
    """Everything about one finished request."""
    lines = [title(event.what), ()]
    lines += fact("ended", words(verdict_mark(event), f" {event.verdict}, {ending(event)}"), width)
    lines += fact("when", f"{moment(event.at, zone)}, {since(at - event.at)}", width)
    lines += fact("took", milliseconds(event.ms / 1000), width)
    lines += fact("served by", f"{event.account} ({event.host})" if event.account else "nobody", width)
    if event.model:
        lines += fact("model", words(Span(f"{event.model}, by a fallback that you wrote", Tone.CAUTION)), width)
    for name, text, tone in (
        ("note", event.note, Tone.PLAIN),
        ("changed", event.moved, Tone.CAUTION),
        ("error", event.error, Tone.BAD),
    ):
        if text:
            lines += fact(name, words(Span(text, tone)), width)
    if event.attempts:
        lines += section(counted(len(event.attempts), "attempt"))
    for number, attempt in enumerate(event.attempts, 1):
        serving = event.account is not None and number == len(event.attempts)
        told = words(Span(refused(attempt), Tone.GOOD if serving else Tone.CAUTION))
        lines += fact(f"{number}", told, width)
        lines += fact("", words(Span(attempt.host, Tone.FAINT)), width)
        lines += fact("", f"chosen: {attempt.why}", width) if attempt.why else []
        lines += fact("", f"then rests {countdown(attempt.rest)}", width) if attempt.rest else []
        lines += fact("", words(Span(attempt.text, Tone.FAINT)), width) if attempt.text else []
    lines += section("names")
    lines += fact("flow", event.id, width)
    lines += fact("conversation", event.conversation or "none", width)
    return lines


# ── a route ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def route_details(
    route: RouteTable, overview: Overview, models: Iterable[str], *, place: int, width: int
) -> list[Line]:
    """One row of the matrix: who serves in which order and in what state; `models` are those that were seen."""
    own = overview.decisions.routes is not None
    lines = [title(f"route {place}", Span("" if route.enabled else "  off", Tone.CAUTION)), ()]
    lines += fact("models", printable(", ".join(route.models), 400), width)
    seen = sorted({model for model in models if matches(model, route.models)})
    if seen:
        lines += fact("matches", printable(", ".join(seen), 400), width)
    lines += fact("else", printable(", ".join(route.fallback), 400) or "no other model is asked for", width)
    lines += fact("stands in", "the dashboard" if own else "config.toml; an edit here takes all rows over", width)
    lines += section("accounts" if route.accounts else "every account, as the strategy orders them")
    by_label = {account.label: account for account in overview.pool.accounts}
    for number, label in enumerate(route.accounts or by_label, 1):
        account = by_label.get(label)
        state = account_state(account) if account else words(Span("there is no such account", Tone.BAD))
        name = words(Span(f"{number} " if route.accounts else "", Tone.FAINT), Span(label, Tone.STRONG))
        lines += [fitted(words(*fitted(name, min(20, width // 2)), " ", *state), width)]
    lines += [()]
    why = (
        "The first of them that can serve takes a new conversation; no other account is asked."
        if route.accounts
        else "This row only says which other models may take the place of the one that was asked for."
    )
    lines += wrapped(words(Span(f"{why} The first row that matches a model counts.", Tone.FAINT)), width)
    return lines
