"""Keeps a running proxy and its files in step: reads decisions, writes what was learnt, watches for changes of both.

Laws of this file:

1. Nothing here blocks the event loop: files are read and written in threads, from one task (``watch``).
2. A fault of the disk is logged once, as is its end, and stops nothing: the proxy goes on with what is in memory. An
   accounts.json that is gone counts as being replaced for a second.
3. What the user decided comes from disk; what was learnt is merged, since several proxies may run.
4. Modules that ask GitHub or store an account are imported in a thread when they are first needed: most proxies never
   need them, and all would start later for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import cast

from mitmproxy.options import Options
from pydantic import SecretStr

from copilot_balancer import config
from copilot_balancer.config import Settings
from copilot_balancer.copilot.hosts import copilot_hosts, login_host_of, plain_host
from copilot_balancer.copilot.usage import Usage
from copilot_balancer.errors import StoreError
from copilot_balancer.github.https import Response
from copilot_balancer.github.tokens import Asks, Bearer, TokenCache
from copilot_balancer.proxy.incident import log_incident
from copilot_balancer.proxy.journal import FaultLog, Journal
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules import edits
from copilot_balancer.rules.accounts import Account, Decisions, fingerprint
from copilot_balancer.rules.catalogue import Catalogue, Shelf
from copilot_balancer.rules.edits import Edit
from copilot_balancer.rules.ownership import Ownership, newest
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.sessions import Kept
from copilot_balancer.rules.state import MAX_SIGHTINGS, Memory, Sighting, restored, shifted
from copilot_balancer.store.ledger import QUOTA_STEP, Entry, Ledger, QuotaPoint, day_of, period_of
from copilot_balancer.store.line_log import LineLog
from copilot_balancer.store.request_log import RequestLog
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
from copilot_balancer.store.store import Paths, Store
from copilot_balancer.store.unknown_refusals import UnknownRefusalLog

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks at accounts.json: a change is in force within a second."""

SAVE_EVERY = 2
"""Looks between two writes of state.json, when there is something to write."""

GONE_LOOKS = 2
"""Looks for which an accounts.json that was there may be gone: an editor may save by removing and writing it."""

OWNERS_EVERY = 20
"""Looks between two writes of owners.json, which is long."""


MAX_UNCOUNTED = 10_000
"""Finished requests that wait for the ledger at most, while its file cannot be written."""


class Sync:
    """The proxy's side of the files on disk.

    Args:
        where: the folders of accounts and settings.
        changed: called after other decisions came into force.
        this_proxy: what this proxy tells the others about itself.

    """

    def __init__(self, where: Paths, changed: Callable[[], None], this_proxy: Callable[[], RunningProxy]) -> None:
        self.store = Store(where.state)
        self._ledger = Ledger(where.state)
        self._unknown = UnknownRefusalLog(self.store)
        self._to_count: list[Entry] = []
        self._points: list[QuotaPoint] = []
        self._noted: dict[tuple[str, str], tuple[float, float]] = {}
        """(account id, window) -> when the last of its points was seen, and what it said."""
        self.journal = Journal(RequestLog(where.state))
        self._live_file = RunningProxyFile(where.state)
        self._this_proxy = this_proxy
        self.sightings: dict[str, Sighting] = {}
        """Fingerprint -> a credential that a client uses and no account has."""
        self._changed = changed
        self._live: Runtime | None = None
        self._recording: LineLog | None = None
        """Takes the pool's decisions, once the user has asked for it."""
        self._unrecorded: Pool | None = None
        """The pool that a recorder stands around at this moment."""
        self._adoption: asyncio.Task[None] | None = None
        self._new_shelves: dict[str, Shelf] = {}
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._saved_version = (-1, 0)
        self._owners_saved = time.time()
        self._gone = 0
        """Looks for which accounts.json has been gone."""
        self._faults = FaultLog()

    @property
    def live(self) -> Runtime:
        """What requests share; `begin` makes it."""
        assert self._live is not None
        return self._live

    def begin(self, settings: Settings, options: Options) -> Runtime:
        """Read what stands on disk; blocks, since nothing is served before.

        Raises:
            StoreError: accounts.json cannot be used.

        """
        decisions, wall = self._read_decisions(), time.time()
        pool = Pool(config.policy(settings, decisions), decisions, wall)
        live = self._live = Runtime(
            pool,
            decisions,
            settings,
            options,
            frozenset(),
            TokenCache(_github),
            self._learn_host,
            self._notice,
            self._shelve,
            self._spent,
            self._read_catalogue(),
            self._read_owners(),
            _select,
        )
        learnt = self._read_memory(wall)
        pool.remember(learnt, live.now())
        self.sightings = dict(learnt.sightings)
        return live

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        live = self.live
        live.settings = settings
        self.journal.noise = settings.log
        live.unknown = self._unknown if settings.keep_unknown else None
        live.pool.set_policy(config.policy(settings, live.decisions))
        self._know_hosts()
        if settings.record_decisions != (self._unrecorded is not None):
            self._record(on=settings.record_decisions)

    def _record(self, *, on: bool) -> None:
        """Put a recorder around the pool, or take it away."""
        if not on:
            assert self._unrecorded is not None
            self.live.pool, self._unrecorded = self._unrecorded, None
            return
        from copilot_balancer.store.decision_log import DecisionLog, Recorder  # noqa: PLC0415 - for debugging alone

        log = self._recording if isinstance(self._recording, DecisionLog) else DecisionLog(self.store.folder)
        self._recording, self._unrecorded = log, self.live.pool
        self.live.pool = cast("Pool", Recorder(self.live.pool, log))

    async def watch(self) -> None:
        """Look at the files again and again, until cancelled."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_EVERY)
            looks += 1
            try:
                if self._is_new("accounts", self.store.stamp):
                    await self._reload()
                if looks % SAVE_EVERY == 0:
                    await self._save()
                    await self._count_spent()
                await self._keep_stops()
                await self._exchange_catalogues()
                if looks % OWNERS_EVERY == 0:
                    await self._exchange_owners()
                self.journal.tick(self.live.now())
                await self._do("live", partial(self._live_file.write, self._this_proxy()))
                if self.journal.events.waits:
                    await self._do("events", self.journal.events.drain)
                if self._recording is not None and self._recording.waits:
                    await self._do("decisions", self._recording.drain)
                if self._unknown.waits:
                    await self._do("unknown refusals", self._unknown.drain)
            except Exception as error:  # noqa: BLE001 - the watch must outlive any fault in it
                log_incident("the store's watch", error)

    def end(self) -> None:
        """Write down what was learnt; blocks, since mitmproxy waits for nobody when it ends or reads a script again."""
        self.journal.close()
        lasts: list[Callable[[], object]] = [
            partial(self.store.edit_decisions, stop) for stop in self._stops(self.live.now(), time.time())
        ]
        lasts += [self.journal.events.close, self._live_file.close, self._unknown.drain]
        if self._recording is not None:
            lasts.append(self._recording.close)
        if self._version() != self._saved_version:
            lasts.append(partial(self.store.merge_memory, self._learnt(self.live.now(), time.time())))
        if (news := self.live.ownership.since(self._owners_saved)).hashes:
            lasts.append(partial(self.store.merge_owners, news))
        if self._to_count or self._points:
            today = date.today()  # noqa: DTZ011 - the user's own day
            lasts.append(partial(self._ledger.add, self._to_count, today, self._points))
        for last in lasts:
            try:
                last()
            except StoreError as error:
                self._faults.failed("the end", error)

    # --- what the user decided ---------------------------------------------------------------------------------------

    def _read_decisions(self) -> Decisions:
        self._stamps["accounts"] = self.store.stamp()
        return self.store.read_decisions()

    async def _reload(self) -> None:
        before = self._stamps["accounts"]
        decisions = await self._do("accounts", self._read_decisions)
        if decisions is None:
            return
        if before is not None and self.live.decisions.accounts and not self.store.accounts_path.exists():
            self._gone += 1
            if self._gone == 1:
                logger.info("copilot: accounts.json is being replaced; its accounts go on for a second")
            if self._gone <= GONE_LOOKS:
                self._stamps["accounts"] = before
                return
        self._gone = 0
        if decisions != self.live.decisions:
            self._go_on_with(decisions)
            logger.info("copilot: accounts.json was read again")
            self._changed()

    def _stops(self, now: float, wall: float) -> list[Edit]:
        """What GitHub has stopped and accounts.json does not say yet: memory may be lost, a stop must not be."""
        return [
            edits.stopped(account_id, at - now + wall, why, enabled_at)
            for account_id, at, why, enabled_at in self.live.pool.stops()
        ]

    async def _keep_stops(self) -> None:
        for stop in self._stops(self.live.now(), time.time()):
            decisions = await self._do("edit", partial(self.store.edit_decisions, stop))
            if decisions is None:
                return
            self._go_on_with(decisions)

    def _go_on_with(self, decisions: Decisions) -> None:
        live = self.live
        live.decisions = decisions
        live.pool.set_policy(config.policy(live.settings, decisions))
        live.pool.replace(decisions, live.now())
        self._know_hosts()

    def _know_hosts(self) -> None:
        live = self.live
        for account in live.decisions.accounts:
            live.sent.add(account.token, f"[account:{account.label}]")
        live.hosts = copilot_hosts({*live.decisions.domains, *live.settings.hosts})

    # --- what was learnt ---------------------------------------------------------------------------------------------

    def _read_memory(self, wall: float) -> Memory:
        try:
            return restored(self.store.read_memory(), wall)
        except StoreError as error:
            logger.warning("copilot: %s; going on without what was learnt", error)
            aside = self.store.set_aside_memory()
            logger.warning("copilot: the unreadable file was moved to %s", aside)
            return restored(self.store.read_memory(), wall)

    def _version(self) -> tuple[int, int]:
        """Another one: there is something to write down."""
        return self.live.pool.version, len(self.sightings)

    def _learnt(self, now: float, wall: float) -> Memory:
        """What was learnt, times on the wall clock."""
        mine = shifted(self.live.pool.memory(now), wall - now)
        mine.sightings.update(self.sightings)
        return mine

    async def _save(self) -> None:
        """Write what is new in ours, and take in what another program has learnt."""
        live, version = self.live, self._version()
        now, wall = live.now(), time.time()
        mine = self._learnt(now, wall)
        if version == self._saved_version and not self._is_new("state", self.store.memory_stamp):
            return
        merged = await self._do("state", partial(self._merge_memory, mine))
        if merged is None:
            return
        self._keep_quota(mine)
        if merged != mine:
            live.pool.remember(shifted(merged, now - wall), live.now())
        self._saved_version = version

    def _merge_memory(self, mine: Memory) -> Memory:
        merged = self.store.merge_memory(mine)
        self._stamps["state"] = self.store.memory_stamp()
        return merged

    def _spent(self, account_id: str, model: str, usage: Usage | None) -> None:
        now, wall = self.live.now(), time.time()
        resets_at = self.live.pool.resets_at(account_id)
        period = period_of(wall, None if resets_at is None else resets_at - now + wall)
        if len(self._to_count) < MAX_UNCOUNTED:
            self._to_count.append(Entry(day_of(wall, None), period, account_id, model, usage))

    def _keep_quota(self, learnt: Memory) -> None:
        """Note for the ledger what is left of each quota window, where that has changed."""
        for account_id, state in learnt.accounts.items():
            for name, window in state.quota.items():
                seen = (window.seen_at // QUOTA_STEP, window.percent_left)
                if not window.unlimited and self._noted.get((account_id, name)) != seen:
                    self._noted[account_id, name] = seen
                    self._points.append(QuotaPoint(account_id, name, window.seen_at, window.percent_left))

    async def _count_spent(self) -> None:
        """Write the requests of the last moments into the ledger; after a fault they wait for the next time."""
        entries, points = self._to_count, self._points
        if not (entries or points):
            return
        self._to_count, self._points = [], []
        today = date.today()  # noqa: DTZ011 - the user's own day
        if await self._do("ledger", partial(_done, self._ledger.add, entries, today, points)) is None:
            self._to_count = [*entries, *self._to_count][:MAX_UNCOUNTED]
            self._points = [*points, *self._points][:MAX_UNCOUNTED]

    def _read_catalogue(self) -> Catalogue:
        self._stamps["models"] = self.store.catalogue_stamp()
        return self.store.read_catalogue()

    def _shelve(self, account: Account, seen: Shelf) -> None:
        """Keep an account's list of models; written down when something in it is new."""
        known = self.live.catalogue.accounts.get(account.id)
        self.live.catalogue.accounts[account.id] = seen
        if known is None or (known.credential, known.entries) != (seen.credential, seen.entries):
            self._new_shelves[account.id] = seen

    async def _exchange_catalogues(self) -> None:
        """Write down what is new in ours, and take in what another program has learnt."""
        mine, self._new_shelves = self._new_shelves, {}
        if mine:
            found = await self._do("models", partial(self._merge_catalogue, Catalogue(mine)))
            if found is None:
                self._new_shelves = {**mine, **self._new_shelves}
        elif self._is_new("models", self.store.catalogue_stamp):
            found = await self._do("models", self._read_catalogue)
        else:
            return
        self.live.catalogue = found or self.live.catalogue

    def _merge_catalogue(self, mine: Catalogue) -> Catalogue:
        merged = self.store.merge_catalogue(mine)
        self._stamps["models"] = self.store.catalogue_stamp()
        return merged

    def _read_owners(self) -> Ownership:
        self._stamps["owners"] = self.store.owners_stamp()
        return self.store.read_owners()

    async def _exchange_owners(self) -> None:
        """Write down whose is what, and take in what another proxy has learnt."""
        wall, news = time.time(), self.live.ownership.since(self._owners_saved)
        foreign = self._is_new("owners", self.store.owners_stamp)
        if news.hashes:
            found = await self._do("owners", partial(self._merge_owners, news))
            self._owners_saved = wall if found is not None else self._owners_saved
        elif foreign:
            found = await self._do("owners", self._read_owners)
        else:
            return
        if foreign and found is not None:
            self.live.ownership = newest(found, self.live.ownership)

    def _merge_owners(self, news: Ownership) -> Ownership:
        merged = self.store.merge_owners(news)
        self._stamps["owners"] = self.store.owners_stamp()
        return merged

    # --- accounts ----------------------------------------------------------------------------------------------------

    async def _learn_host(self, account: Account) -> Account:
        """An account's requests are misdirected: ask GitHub for its API host, and write that down."""
        host = await self.live.mint.host(account)
        if host != account.api_host:
            account = account.model_copy(update={"api_host": host})
            change = partial(_with_host, account=account)
            edited = await self._do("edit", partial(self.store.edit_decisions, change))
            self._go_on_with(edited or change(self.live.decisions))
            logger.info("copilot: %s lives on %s now", account.label, host)
        return account

    def _notice(self, token: SecretStr, api_host: str) -> None:
        """A client logged in by itself: say once that its account could be adopted; do so when the user wants it."""
        mark, host = fingerprint(token.get_secret_value()), login_host_of(plain_host(api_host))
        decisions = self.live.decisions
        if host is None or any(account.fingerprint == mark for account in decisions.accounts):
            return
        if mark in decisions.adopt:
            self._adoption = asyncio.get_running_loop().create_task(self._adopt(token, host))
        elif mark not in self.sightings and len(self.sightings) < MAX_SIGHTINGS:
            self.sightings[mark] = Sighting(host, time.time())
            logger.info(
                "copilot: a client uses a login that is no account: `copilot-balancer accounts adopt %s` makes it one",
                mark,
            )

    async def _adopt(self, token: SecretStr, host: str) -> None:
        def change(decisions: Decisions) -> Decisions:
            from copilot_balancer.github.admission import adopted  # noqa: PLC0415 - law 4

            return adopted(decisions, token, host, time.time()) or decisions

        await self._do("edit", partial(self.store.edit_decisions, change))

    # --- faults of the disk ------------------------------------------------------------------------------------------

    async def _do[T](self, what: str, work: Callable[[], T]) -> T | None:
        """The result of `work`, done in a thread; None when the disk does not let us, which is logged."""
        try:
            done = await asyncio.to_thread(work)
        except StoreError as error:
            self._faults.failed(what, error)
            return None
        self._faults.worked(what)
        return done

    def _is_new(self, what: str, look: Callable[[], tuple[int, int, int] | None]) -> bool:
        """Whether a file is another one than when we read it; not where the disk does not say, which is logged."""
        try:
            found = look()
        except StoreError as error:
            self._faults.failed(f"looking at {what}", error)
            return False
        self._faults.worked(f"looking at {what}")
        return found != self._stamps.get(what)


def _done(work: Callable[..., object], *arguments: object) -> bool:
    """True after `work`."""
    work(*arguments)
    return True


def _github() -> Asks:
    from copilot_balancer.github.api import GitHub  # noqa: PLC0415 - law 4

    return GitHub()


async def _select(account: Account, bearer: Bearer, kept: Kept, seconds: float) -> Response:
    def ask() -> Response:
        from copilot_balancer.github.api import GitHub  # noqa: PLC0415 - law 4

        return GitHub(total_seconds=seconds).select(
            account, bearer.token, api_host=bearer.host, path=kept.path, body=kept.body, headers=kept.headers
        )

    return await asyncio.to_thread(ask)


def _with_host(decisions: Decisions, account: Account) -> Decisions:
    """Only the host: whatever else was decided about the account meanwhile stands."""
    known = next((one for one in decisions.accounts if one.id == account.id), None)
    return decisions.with_account(known.model_copy(update={"api_host": account.api_host})) if known else decisions
