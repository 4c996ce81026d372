"""Measurements, printed as tables; nothing is asserted. Figures are of this machine, at this moment."""

import argparse
import os
import platform
import time
from datetime import UTC, datetime
from importlib import metadata

from benchmark.process import loop, memory, start
from benchmark.profiling import profile
from benchmark.rules import rules
from benchmark.traffic import hop, latency, streams

PARTS = {
    "rules": rules,
    "start": start,
    "hop": hop,
    "latency": latency,
    "streams": streams,
    "loop": loop,
    "memory": memory,
}
ASKED_FOR = {"profile": profile}
"""Parts that run only when they are named."""


def main() -> None:
    """Run the parts that are named, or all."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("part", nargs="*", help=f"what to measure: {', '.join([*PARTS, *ASKED_FOR])}; else all")
    arguments.add_argument("--quick", action="store_true", help="see that it runs; the figures are worth little")
    chosen = arguments.parse_args()
    parts = PARTS | ASKED_FOR
    if unknown := set(chosen.part) - parts.keys():
        arguments.error(f"no such part: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    print(
        f"{datetime.now(UTC).date()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores,",
        f"Python {platform.python_version()}, mitmproxy {metadata.version('mitmproxy')}",
    )
    if chosen.quick:
        print("quick: the figures are worth little")
    for part in chosen.part or PARTS:
        parts[part](quick=chosen.quick)
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
