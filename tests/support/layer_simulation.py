"""A seeded simulation of the layer: no sockets, a virtual clock, and an oracle that knows what the client must see.

    scripts/soak --seed SEED       prints everything that happened under one seed
    scripts/soak N START           runs seeds START to START + N - 1 and prints counts

One seed is one client connection (HTTP/1.1 keep-alive, sometimes pipelined, or HTTP/2 with requests side by side) with
one to four requests. Each request has a script: for each attempt what the addon says and what the upstream does, bytes
cut into chunks and delayed at random. Nothing here knows the layer's inside; the oracle reads the script alone.

What must hold, whatever the seed:

- none is lost: a client that stays sees exactly the answer that the script comes to, whole, or an abort where it was cut;
- none hangs: that happens before the client's patience, of virtual time, is at its end;
- none is sent after commitment: nothing goes upstream for a request of whose answer the client has seen a byte, nor once
  the client has left; and no attempt is sent twice;
- none is misattributed: what the client sees is of the attempt that was chosen last;
- no exception of ours, and none of mitmproxy's, but where the script has our own callbacks raise.
"""

import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from copilot_balancer.proxy import clock, incident
from copilot_balancer.proxy.failover import (
    response,
)
from support.layer_plans import BUFFER_LIMIT
from support.layer_story import Expected, Wanted, expected
from support.layer_world import FailingTunnel, World


@dataclass
class Result:
    """What came of one seed."""

    seed: int
    violations: list[str]
    kinds: Counter[str]
    """What upstreams did, of attempts that were sent or failed to connect."""
    requests: int
    attempts: int


class _Incidents(logging.Handler):
    """Counts what the layer reports as a fault of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _set_up(world: list[World]) -> Iterator[_Incidents]:
    incidents = _Incidents()
    was = incident.logger.propagate
    incident.logger.addHandler(incidents)
    incident.logger.propagate = False
    try:
        with (
            patch("mitmproxy.proxy.layers.tls.ServerTLSLayer", FailingTunnel),
            patch.object(clock, "steady", lambda: world[0].now if world else 1000.0),
            patch.object(response, "BUFFER_LIMIT", BUFFER_LIMIT),
            patch.object(response, "HELD_BYTES", BUFFER_LIMIT),
        ):
            yield incidents
    finally:
        incident.logger.removeHandler(incidents)
        incident.logger.propagate = was


def simulate(seed: int, tell: Callable[[str], None] | None = None) -> Result:
    """Run one seed; the same seed does the same, whenever and wherever."""
    held: list[World] = []
    with _set_up(held) as incidents:
        world = World(seed, tell)
        held.append(world)
        try:
            world.play()
        except Exception as error:  # a crash is what we look for
            world.blame(f"{type(error).__name__}: {error}")
            world.say(traceback.format_exc())
    _judge(world, incidents)
    sent = [turn for wanted in world.wanted for turn in wanted.turns[: wanted.asked] if turn.choice == "go"]
    kinds = Counter(turn.plan.kind for turn in sent)
    return Result(seed, world.violations, kinds, world.person.next, len(sent))


def _judge(world: World, incidents: _Incidents) -> None:
    """Hold what the client saw against the oracle."""
    allowed, closed = 0, False
    for wanted in world.wanted:
        must = expected(wanted)
        allowed += must.incidents
        if wanted.number >= world.person.next or closed:
            if not closed and not world.leaves_at and not world.violations:
                world.blame(f"request {wanted.number}: the connection was closed before it could be asked")
            continue
        closed = must.state == "left" or (not world.http2 and must.last)
        if wanted.state == "left" or (world.client_gone and wanted.state == "waiting"):
            if must.state != "left" and wanted.state == "left" and not world.leaves_at and not world.http2:
                world.blame(f"request {wanted.number}: hung, instead of {must}")
            continue
        if world.leaves_at and wanted.state == "aborted":
            continue
        _compare(world, wanted, must)
    if len(incidents.lines) > allowed:
        world.blame(f"exceptions of ours: {incidents.lines}")


def _compare(world: World, wanted: Wanted, must: Expected) -> None:
    saw = f"request {wanted.number}: saw {wanted.seen()} instead of {must}"
    body = b"" if wanted.method == b"HEAD" else must.body
    whole = wanted.got == body or (must.holds and must.holds in wanted.got) or (must.holds and wanted.method == b"HEAD")
    if must.state == "whole" and must.status == 101:
        whole = wanted.got.startswith(must.body)
    if must.state == "aborted" and not world.http2 and wanted.turns[wanted.asked - 1].plan.kind == "until close":
        must.state = wanted.state  # an answer without a length ends with its connection: a cut one looks whole
    if must.state == "aborted":
        whole = (must.status is None and wanted.status is None) or must.body.startswith(wanted.got)
    if wanted.state != must.state or wanted.status != must.status or not whole:
        world.blame(saw)
    elif wanted.asked != must.turns:
        world.blame(f"request {wanted.number}: {wanted.asked} attempts instead of {must.turns}")


def _many(bounds: tuple[int, int]) -> tuple[int, int, Counter[str], list[Result]]:
    requests = attempts = 0
    kinds: Counter[str] = Counter()
    bad = []
    for seed in range(*bounds):
        result = simulate(seed)
        requests += result.requests
        attempts += result.attempts
        kinds += result.kinds
        if result.violations:
            bad.append(result)
    return requests, attempts, kinds, bad


def main(arguments: list[str]) -> int:
    """Print one seed's trace, or the counts of many."""
    if arguments and arguments[0] != "--many":
        result = simulate(int(arguments[0]), print)
        print("\n".join(f"VIOLATION: {text}" for text in result.violations) or "all holds")
        return bool(result.violations)
    number = int(arguments[1]) if len(arguments) > 1 else 1000
    start = int(arguments[2]) if len(arguments) > 2 else 0
    step = max(1, min(500, number // 8))
    parts = [(at, min(at + step, start + number)) for at in range(start, start + number, step)]
    began = time.monotonic()
    requests = attempts = 0
    kinds: Counter[str] = Counter()
    bad: list[Result] = []
    with multiprocessing.Pool() as pool:
        for more_requests, more_attempts, more_kinds, more_bad in pool.imap_unordered(_many, parts):
            requests += more_requests
            attempts += more_attempts
            kinds += more_kinds
            bad += more_bad
    seconds = time.monotonic() - began
    for kind, count in sorted(kinds.items()):
        print(f"{count:9} {kind}")
    print(f"{number} seeds from {start}: {requests} requests, {attempts} attempts, {len(kinds)} kinds, {seconds:.0f} s")
    for result in sorted(bad, key=lambda one: one.seed)[:50]:
        print(f"seed {result.seed}: {'; '.join(result.violations)[:300]}")
    print(f"{len(bad)} seeds in which something does not hold")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
