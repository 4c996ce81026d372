"""What accounts spent, for people and programs: prices are prices, estimates are called so."""

import pytest

from copilot_balancer.store.ledger import Spent
from copilot_balancer.views.spending import Sum, spent_facts, spent_lines, spent_text, summed

PRICED = Spent("github.com:1", "gpt-5", 12, 0, 120_000, 90_000, 4_000, 100, 31_234_000_000, 0)
MIXED = Spent("github.com:1", "o9", 3, 2, 900, 0, 60, 0, 4_200_000, 8_400_000)
UNPRICED = Spent("github.com:1", "embed", 1, 1, 10, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        pytest.param([], "nothing", id="nothing"),
        pytest.param([PRICED], "31.2 credits, 12 requests, 120,000 tokens in (75% cached), 4,000 out", id="priced"),
        pytest.param(
            [MIXED],
            "0.0042 credits, 3 requests, 2 of them unpriced (about 0.0084 credits), 900 tokens in, 60 out",
            id="partly priced",
        ),
        pytest.param([UNPRICED], "1 request, all unpriced, 10 tokens in, 0 out", id="unpriced, no estimate"),
    ],
)
def test_texts(rows, text):
    """One line says credits, requests, what of them is unpriced, and tokens."""
    assert spent_text(summed(rows)) == text


def test_sums():
    """Models add up; a price and an estimate stay two numbers."""
    total = summed([PRICED, MIXED, UNPRICED])
    assert total == Sum(16, 3, 120_910, 90_000, 4_060, 31_238_200_000, 8_400_000)


@pytest.mark.parametrize(
    ("since", "label"),
    [("2026-11-01T00:00:00+00:00", "since 1 Nov"), ("2026-11-14T09:30:00+00:00", "since 14 Nov 09:30 UTC")],
)
def test_lines(since, label):
    """Today and the period stand under each other; a period that begins at an hour says it."""
    lines = spent_lines(summed([]), summed([PRICED]), since)
    assert lines[1].split() == ["today", "nothing"]
    assert lines[2].strip().startswith(f"{label}  31.2 credits")
    assert spent_lines(summed([]), summed([]), since) == [f"spent through this store's proxies {label}: nothing"]


def test_facts():
    """Programs get null where no response named a price, never 0."""
    assert [(one["credits"], one["estimated_credits"]) for one in spent_facts([PRICED, MIXED, UNPRICED])] == [
        (31.234, None),
        (0.0042, 0.0084),
        (None, None),
    ]
