"""Reads the state of accounts, running proxies and settings from the files; ``status`` and the dashboard show it.

Laws of this file:

1. Reading changes nothing, except that files of killed proxies are removed (``running_proxies``).
2. The pool computes which accounts may serve and which have a cooldown, as in a proxy that starts now; requests in
   flight are added from the files of the running proxies.
3. Times are on the wall clock. Everything here blocks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from copilot_balancer import __version__, config
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.snapshot import PoolSnapshot
from copilot_balancer.rules.state import restored
from copilot_balancer.rules.types import Policy
from copilot_balancer.store.request_log import newest_events
from copilot_balancer.store.request_record import RequestRecord
from copilot_balancer.store.running_proxies import RunningProxy, read_live
from copilot_balancer.store.store import Paths, Store
from copilot_balancer.views.names import known_models, unknown_names


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at a moment."""

    at: float
    """Seconds since the epoch, on the clock of the times in `pool`."""
    pool: PoolSnapshot
    """The accounts in the user's order; what is in flight is that of all running proxies."""
    in_flight: Mapping[str, int]
    """Account id -> requests that the running proxies are busy with."""
    proxies: tuple[RunningProxy, ...]
    """Those that run, oldest first."""
    decisions: Decisions
    policy: Policy
    """Strategy, routes and the rest, as files and the dashboard say; ``--set`` of a running proxy is not seen."""
    warnings: tuple[str, ...] = ()
    """What the settings' files say that is ignored, and names in settings and decisions that name nothing."""

    @property
    def off(self) -> bool:
        """Whether proxies run, and none of them uses an account."""
        return bool(self.proxies) and all(proxy.off for proxy in self.proxies)

    @property
    def serves(self) -> bool:
        """Whether some account can serve something at this moment, if a proxy runs."""
        return not self.off and any(account.why_not is None for account in self.pool.accounts)


def look(where: Paths, wall: float, project: Path | None = None, *, decisions: Decisions | None = None) -> Overview:
    """Everything as it is now.

    Args:
        where: the folders of accounts and settings.
        wall: seconds since the epoch, on the wall clock.
        project: the folder whose ``.copilot-balancer.toml`` counts; None: no project's.
        decisions: those that the caller has read already; None: they are read.

    Raises:
        StoreError: a file of ours cannot be used.
        InvalidInput: a setting is not allowed.

    """
    store = Store(where.state)
    decisions = store.read_decisions() if decisions is None else decisions
    loaded = config.load(where.config, project, {})
    policy = config.policy(loaded.settings, decisions)
    pool = Pool(policy, decisions, wall)
    memory = restored(store.read_memory(), wall)
    pool.remember(memory, wall)
    proxies = read_live(where.state)
    warnings = (*loaded.warnings, *unknown_names(policy, decisions, known_models(memory, decisions)))
    return overview(pool.snapshot(wall), decisions, policy, proxies, warnings=warnings)


def overview(
    pool: PoolSnapshot,
    decisions: Decisions,
    policy: Policy,
    proxies: tuple[RunningProxy, ...],
    *,
    warnings: tuple[str, ...] = (),
) -> Overview:
    """Put together what is seen of the pool and of the running proxies."""
    in_flight: Counter[str] = Counter()
    for proxy in proxies:
        in_flight.update(proxy.in_flight)
    accounts = tuple(replace(account, in_flight=in_flight[account.id]) for account in pool.accounts)
    seen = replace(pool, accounts=accounts, requests=sum(proxy.requests for proxy in proxies))
    return Overview(pool.at, seen, dict(in_flight), proxies, decisions, policy, warnings)


def running(pool: PoolSnapshot, *, pid: int, began: float, listening: Iterable[str], off: str | None) -> RunningProxy:
    """The record of a running proxy for its file (``running_proxies``).

    Args:
        pool: its own pool, at this moment.
        pid: its process id.
        began: when it began, in seconds since the epoch on the wall clock.
        listening: ``host:port`` of each address that it listens on.
        off: why it uses no account at all; None: it does.

    """
    return RunningProxy(
        pid=pid,
        began=began,
        listening=tuple(sorted(listening)),
        version=__version__,
        in_flight={account.id: account.in_flight for account in pool.accounts if account.in_flight},
        requests=pool.requests,
        strategy=pool.strategy,
        off=off or "",
    )


def events(where: Paths, limit: int) -> tuple[RequestRecord, ...]:
    """The last `limit` finished requests or fewer, newest last.

    Raises:
        StoreError: the folder or a file cannot be used.

    """
    return newest_events(where.state, limit)
