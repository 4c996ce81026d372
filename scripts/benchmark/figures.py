"""How scripts/bench sums up and prints: percentiles, tables."""

import math
from collections.abc import Iterable, Sequence


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which so many percent lie; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def milliseconds(seconds: float) -> str:
    """For a cell."""
    return f"{seconds * 1000:.2f}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def ratio(one: float, other: float) -> str:
    """`one` / `other`, for a cell."""
    return "-" if not other or math.isnan(one / other) else f"{one / other:.2f}x"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, the first column to the left and numbers to the right."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    print(f"\n{title}")
    for first, *cells in lines:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *numbers]).rstrip(), flush=True)
