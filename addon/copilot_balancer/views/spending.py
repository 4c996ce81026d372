"""Formats what accounts spent, as text lines and as JSON, from the sums of the ledger.

Laws of this file:

1. A price is credits that responses named; an estimate says that it is one ("about"); the two are never added up.
2. Nothing spent is said as such, so that a missing line never means "nothing".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from copilot_balancer.copilot.usage import NANO_PER_CREDIT, credits_text
from copilot_balancer.store.ledger import Spent


@dataclass(frozen=True)
class Sum:
    """What one account spent in one stretch of time."""

    requests: int = 0
    unpriced: int = 0
    tokens_in: int = 0
    cached: int = 0
    tokens_out: int = 0
    nano_aiu: int = 0
    estimated_nano_aiu: int = 0


def summed(rows: Iterable[Spent]) -> Sum:
    """The rows of one account added up, over all models."""
    rows = list(rows)
    return Sum(*(sum(getattr(row, name) for row in rows) for name in Sum.__dataclass_fields__))


def spent_text(spent: Sum) -> str:
    """One account's spending in a line: ``31.2 credits, 14 requests, 2 of them unpriced (about 0.4 credits)``."""
    if not spent.requests:
        return "nothing"
    priced = spent.requests - spent.unpriced
    parts = [f"{credits_text(spent.nano_aiu)} credits"] if priced else []
    parts.append(f"{spent.requests:,} request{'' if spent.requests == 1 else 's'}")
    if spent.unpriced:
        about = f" (about {credits_text(spent.estimated_nano_aiu)} credits)" if spent.estimated_nano_aiu else ""
        parts.append(f"{f'{spent.unpriced:,} of them' if priced else 'all'} unpriced{about}")
    tokens = f"{spent.tokens_in:,} tokens in"
    if spent.cached:
        tokens += f" ({spent.cached / spent.tokens_in:.0%} cached)"
    return ", ".join([*parts, f"{tokens}, {spent.tokens_out:,} out"])


def spent_lines(today: Sum, period: Sum, since: str) -> list[str]:
    """Both stretches of time, aligned; `since`: the period's beginning as the ledger writes it."""
    began = datetime.fromisoformat(since)
    label = f"since {began:%-d %b}" if began.hour == began.minute == 0 else f"since {began:%-d %b %H:%M} UTC"
    head = "spent through this store's proxies"
    if not period.requests:
        return [f"{head} {label}: nothing"]
    return [f"{head}:", f"  {'today':<{len(label)}}  {spent_text(today)}", f"  {label}  {spent_text(period)}"]


def spent_facts(rows: Iterable[Spent]) -> list[dict[str, object]]:
    """The rows for ``--json``, one a model; credits are null where no response named a price."""
    return [
        {
            "model": row.model,
            "requests": row.requests,
            "unpriced": row.unpriced,
            "tokens_in": row.tokens_in,
            "cached": row.cached,
            "tokens_out": row.tokens_out,
            "reasoning": row.reasoning,
            "credits": row.nano_aiu / NANO_PER_CREDIT if row.requests > row.unpriced else None,
            "estimated_credits": row.estimated_nano_aiu / NANO_PER_CREDIT if row.estimated_nano_aiu else None,
        }
        for row in rows
    ]
