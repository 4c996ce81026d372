"""Formats the state of all accounts for other programs: one line for a status bar, and Prometheus metrics.

Laws of this file:

1. One line, no escape sequences, at most `LINE_LIMIT` characters: tmux, starship and a client's status line print it as
   it is.
2. Prometheus text follows the exposition format 0.0.4 (prometheus.io, "Exposition formats"): label values are escaped,
   each metric has HELP and TYPE once, and a metric without samples is left out.
"""

from collections.abc import Iterable, Mapping

from copilot_balancer.copilot.usage import NANO_PER_CREDIT
from copilot_balancer.rules.snapshot import AccountView
from copilot_balancer.store.ledger import Spent
from copilot_balancer.text import duration, printable
from copilot_balancer.views.overview import Overview

LINE_LIMIT = 200
"""Characters of the status line."""

type Sample = tuple[Mapping[str, str], float]


def status_line(seen: Overview) -> str:
    """Who serves now, what is left of the quota that ends first, and until when the others rest.

    ``work 68% | spare limit 12 min``: an account without a cause of its own is ready. The home account comes first.
    """
    if not seen.pool.accounts:
        return "no account"
    views = sorted(seen.pool.accounts, key=lambda view: (view.why_not is not None, not view.home))
    parts = [_account(view) for view in views]
    if not seen.proxies:
        parts.append("no proxy runs")
    elif not seen.serves and all(proxy.off for proxy in seen.proxies):
        parts.append("proxy off")
    return printable(" | ".join(parts), LINE_LIMIT)


def _account(view: AccountView) -> str:
    if view.rests and view.why_not is not None:
        last = max(view.rests, key=lambda rest: (rest.model is None, rest.seconds))  # the account's own, if any
        return f"{view.label} {last.reason} {duration(last.seconds)}"
    if view.why_not is not None:
        return f"{view.label} {view.status}"
    left = [window.percent_left for window in view.quota.values() if not window.unlimited]
    return f"{view.label} {min(left):.0f}%" if left else view.label


def prometheus(seen: Overview, spent_today: Iterable[Spent]) -> str:
    """The same, and what was spent today, as metrics for a textfile collector."""
    views, labels = seen.pool.accounts, {view.id: view.label for view in seen.pool.accounts}
    rows = [row for row in spent_today if row.account_id in labels]
    metrics: list[tuple[str, str, str, list[Sample]]] = [
        ("proxies", "gauge", "Proxies of this store that run.", [({}, len(seen.proxies))]),
        (
            "account_ready",
            "gauge",
            "1: the account can serve now.",
            [(_of(v), float(v.why_not is None)) for v in views],
        ),
        (
            "account_cooldown_seconds",
            "gauge",
            "Seconds until the account, or a model on it, is asked again.",
            [
                ({**_of(view), "model": rest.model or "", "reason": str(rest.reason)}, round(rest.seconds, 3))
                for view in views
                for rest in view.rests
            ],
        ),
        (
            "quota_percent_left",
            "gauge",
            "Percent that is left of a quota, as last told by GitHub.",
            [
                ({**_of(view), "window": name}, window.percent_left)
                for view in views
                for name, window in view.quota.items()
                if not window.unlimited
            ],
        ),
        ("requests_in_flight", "gauge", "Requests under way.", [(_of(v), v.in_flight) for v in views]),
        ("requests_served_total", "counter", "Requests that the account served.", [(_of(v), v.served) for v in views]),
        ("requests_refused_total", "counter", "Attempts that it refused.", [(_of(v), v.refused) for v in views]),
        (
            "spent_today_credits",
            "gauge",
            "AI credits that responses named since midnight.",
            [
                ({"account": labels[row.account_id], "model": row.model}, row.nano_aiu / NANO_PER_CREDIT)
                for row in rows
                if row.requests > row.unpriced
            ],
        ),
        (
            "spent_today_unpriced_requests",
            "gauge",
            "Requests since midnight whose response named no price.",
            [({"account": labels[row.account_id], "model": row.model}, row.unpriced) for row in rows],
        ),
    ]
    return "".join(_metric(*metric) for metric in metrics)


def _of(view: AccountView) -> dict[str, str]:
    return {"account": view.label}


def _metric(name: str, kind: str, meaning: str, samples: list[Sample]) -> str:
    if not samples:
        return ""
    name = f"copilot_balancer_{name}"
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        told = ",".join(f'{key}="{_escaped(word)}"' for key, word in labels.items())
        lines.append(f"{name}{{{told}}} {value:.15g}" if told else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(word: str) -> str:
    return printable(word, 200).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
