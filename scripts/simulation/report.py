"""How good is each strategy? Simulated working days, against the best that anyone could have done.

What is simulated:

- Accounts with hidden limits. Each has windows of five hours that follow one another, each serves so many requests,
  then comes a 429 with ``Retry-After`` = the true reset. Some have a limit for one model inside each window (429), some
  a quota over several windows (402, half of them without a hint). Models stand on some accounts only (400). Half of
  the accounts tell in the headers of a success what is left of the window, counted late, as the service does.
- Eight conversations at a time. Together they want 0.95 of what all accounts can serve. What they want and when is
  fixed in advance. A request does not wait for the one before it in its conversation: agents have sub-agents.
- Clients as they were measured (docs/clients.md#after-a-refusal): after a 429 they wait as long as ``Retry-After``
  says, come back five times at most, and show anything else to the user.
- The proxy: the very ``Pool`` of the product, driven as exchange.py drives it, through ``classify`` and
  ``read_headers``; time is a number. ``naive`` is plain round-robin without cooldowns, to compare with: each request
  goes to the next account in turn, after a refusal to the next, three at most; nothing else is remembered.

What is measured:

- optimum: the most requests that could have been accepted within 300 s after they were wanted, with everything known in
  advance: a maximum flow from the requests through the windows and quotas. Who knew could reach it, and nobody more.
- goodput: requests that an account accepted within 300 s after they were wanted, divided by the optimum.
- wasted: answers 4xx of accounts by 1000 requests. The first of a window counts too, though only by it a hidden limit
  can be known.
- in a window: of these the 429 and 402, by (account, model, window of the limit) in which there were any; 1 is the
  least. Refusals of requests that were under way at the same time count once: nobody could have known.
- model missing: of these the 400, by (account, model that it lacks) where there were any.
- switches: a request of a conversation was accepted by another account than the one before; by 100 accepted.
- attempts: sends upstream by accepted request.

Each number is a mean over the seeds, in brackets the worst of them. The same seed gives the same numbers, bit for bit.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulation.balancer import STRATEGY_NAMES
from simulation.optimum import optimum
from simulation.run import Tally, simulate
from simulation.world import make_world

PAGE = Path(__file__).resolve().parents[2] / "addon/docs/reliability.md"
BEGIN, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"


@dataclass(frozen=True, slots=True)
class Column:
    """A measure of one run, and how it is shown."""

    title: str
    of: Callable[[Tally], float]
    digits: int
    aim: str = ""
    """For ``hybrid``."""
    more_is_better: bool = False


COLUMNS = (
    Column("goodput", lambda run: run.served / run.optimum, 3, ">= 0.98", more_is_better=True),
    Column("wasted", lambda run: 1000 * run.refusals.total() / run.wanted, 1),
    Column("in a window", lambda run: _mean(run.limits()), 2, "<= 1"),
    Column("model missing", lambda run: _mean(run.missing()), 1),
    Column("switches", lambda run: 100 * run.switches / max(run.served, 1), 1, "<= 5"),
    Column("attempts", lambda run: run.attempts / max(run.served, 1), 2),
)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def cells(runs: Sequence[Tally]) -> list[str]:
    """One row: each measure's mean over the runs and its worst."""
    found = []
    for column in COLUMNS:
        values = [column.of(run) for run in runs]
        worst = min(values) if column.more_is_better else max(values)
        found.append(f"{_mean(values):.{column.digits}f} ({worst:.{column.digits}f})")
    return found


def table(results: Mapping[str, Sequence[Tally]]) -> list[list[str]]:
    """The head and one row a strategy."""
    return [["strategy", *(column.title for column in COLUMNS)], *([name, *cells(results[name])] for name in results)]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table for the documentation."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def verdicts(runs: Sequence[Tally]) -> list[str]:
    """Whether ``hybrid`` keeps what is asked of it, in the mean over the seeds."""
    found = []
    for column in COLUMNS:
        if column.aim:
            value = round(_mean([column.of(run) for run in runs]), column.digits)
            relation, _, bound = column.aim.partition(" ")
            met = value >= float(bound) if relation == ">=" else value <= float(bound)
            found.append(f"{column.title} {value:.{column.digits}f}, aim {column.aim}: {'met' if met else 'MISSED'}")
    return found


def causes(results: Mapping[str, Sequence[Tally]]) -> list[list[str]]:
    """What refused, by 1000 requests, and in brackets the most in one window; why requests were lost, by 1000."""
    refused = sorted({cause for runs in results.values() for run in runs for cause in run.refusals})
    lost = sorted({why for runs in results.values() for run in runs for why in run.lost})
    rows = [["strategy", *refused, *(f"lost: {why}" for why in lost)]]
    for name, runs in results.items():
        row = [name]
        for cause in refused:
            most = max(
                (times for run in runs for where, times in run.by_window.items() if where[2] == cause), default=0
            )
            row.append(f"{_mean([1000 * run.refusals[cause] / run.wanted for run in runs]):.1f} ({most})")
        row += [f"{_mean([1000 * run.lost[why] / run.wanted for run in runs]):.1f}" for why in lost]
        rows.append(row)
    return rows


def replaced(text: str, block: str) -> str:
    """`text` with `block` between the two markers.

    Raises:
        ValueError: they do not stand there exactly once, in order.

    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the text needs {BEGIN} and after it {END}, each once")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def run_all(strategies: Iterable[str], seeds: int) -> dict[str, list[Tally]]:
    """Every strategy in the same worlds."""
    results: dict[str, list[Tally]] = {name: [] for name in strategies}
    for seed in range(seeds):
        world = make_world(seed)
        best = optimum(world)
        for name, runs in results.items():
            runs.append(simulate(world, name, best))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many worlds (20)")
    parser.add_argument("--strategy", action="append", choices=STRATEGY_NAMES, help="only this one; may be repeated")
    parser.add_argument("--why", action="store_true", help="also what refused, and why requests were lost")
    parser.add_argument("--markdown", action="store_true", help="the table for the documentation, and nothing else")
    parser.add_argument("--write-docs", action="store_true", help=f"put that table between the markers in {PAGE.name}")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1:
        parser.error("--seeds is at least 1")
    began = time.perf_counter()
    results = run_all(chosen.strategy or STRATEGY_NAMES, chosen.seeds)
    rows = table(results)
    if chosen.write_docs:
        try:
            PAGE.write_text(replaced(PAGE.read_text("utf-8"), as_markdown(rows)), "utf-8")
        except (OSError, ValueError) as error:
            print(f"{PAGE.name} stays as it is: {error}", file=sys.stderr)
            return 1
    if chosen.markdown:
        print(as_markdown(rows))
        return 0
    print(__doc__[__doc__.index("What is measured") :])
    print(as_text(rows), end="\n\n")
    if chosen.why:
        print("What refused, by 1000 requests (the most in one window); what was lost, by 1000 requests:\n")
        print(as_text(causes(results)), end="\n\n")
    for verdict in verdicts(results.get("hybrid", ())) if "hybrid" in results else ():
        print(f"hybrid: {verdict}")
    print(f"{chosen.seeds} seeds, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
