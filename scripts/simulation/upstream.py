"""The accounts of the simulation as the service knows them: their true limits, and what it counts and refuses.

No strategy sees any of it, except what an answer says.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

EPOCH = 1_800_000_000.0
"""Both clocks at the beginning; all other times of the simulation are seconds since then."""
COUNTED_EVERY = 30.0
"""The service counts late: what its headers tell is this old at most."""
MISSING = "model missing"


@dataclass(frozen=True, slots=True)
class Window:
    """What an account serves between two resets."""

    begins: float
    ends: float
    capacity: int
    whole: int
    """What it would serve if our time did not cut it off: percentages are told of that."""
    of_model: Mapping[str, int] = field(default_factory=dict)
    """A limit for one model within it."""
    period: int = 0
    """Index into ``Upstream.quotas``."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One account as the service knows it."""

    label: str
    models: frozenset[str]
    windows: tuple[Window, ...]
    quotas: tuple[int | None, ...] = (None,)
    """Requests in each quota period; None: as many as the windows allow."""
    tells: bool = False
    """A success says what is left."""
    hints: bool = False
    """A 402 says when the quota resets."""
    missing: str = "model_not_supported"
    """The code with which it refuses a model that it does not have."""

    def at(self, now: float) -> int:
        """Index of the window that runs."""
        return next(i for i, window in enumerate(self.windows) if now < window.ends)

    def period_ends(self, period: int) -> float | None:
        """When the quota of `period` resets; None: not in our time."""
        return next((window.begins for window in self.windows if window.period > period), None)

    def serves(self, period: int) -> int:
        """How many requests it can serve in a quota period: what its windows allow, and no more than the quota."""
        inside = sum(window.capacity for window in self.windows if window.period == period)
        quota = self.quotas[period]
        return inside if quota is None else min(inside, quota)


def capacity(accounts: Iterable[Upstream]) -> int:
    """How many requests these accounts can serve in all, of whatever model they have."""
    return sum(account.serves(period) for account in accounts for period in range(len(account.quotas)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What an account answered."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cause: str = ""
    """What refused it ..."""
    window: int = 0
    """... and in which of its windows: both for our statistics."""


class Service:
    """Copilot, as far as it counts and refuses."""

    def __init__(self, accounts: Iterable[Upstream]) -> None:
        self.accounts = {account.label: account for account in accounts}
        self._used: Counter[tuple[object, ...]] = Counter()
        self._told: dict[str, tuple[float, int, dict[str, str]]] = {}
        """Label -> (when its headers were last brought up to date, in which window, the headers)."""

    def answer(self, label: str, model: str, now: float) -> Answer:
        """Serve a request that arrives now, or refuse it. A refusal costs nothing (docs/copilot-protocol.md#quota)."""
        account = self.accounts[label]
        index = account.at(now)
        window = account.windows[index]
        quota_left = account.quotas[window.period]
        by_window, by_model, by_quota = (label, index), (label, index, model), (label, "quota", window.period)
        if model not in account.models:
            return _refusal(400, account.missing, MISSING, 0)
        if quota_left is not None and self._used[by_quota] >= quota_left:
            resets = account.period_ends(window.period) if account.hints else None
            wait = None if resets is None else resets - now
            return _refusal(402, "quota_exceeded", "quota", window.period, wait)
        if self._used[by_window] >= window.capacity:
            return _refusal(429, "user_global_rate_limited:pro", "session limit", index, window.ends - now)
        if self._used[by_model] >= window.of_model.get(model, math.inf):
            return _refusal(429, f"user_model_rate_limited:{model}", "model limit", index, window.ends - now)
        self._used.update((by_window, by_model, by_quota))
        return Answer(200, self._headers(account, index, now) if account.tells else {})

    def _headers(self, account: Upstream, index: int, now: float) -> dict[str, str]:
        """What is left of the window, as on each success (docs/copilot-protocol.md#quota-headers), counted late."""
        told = self._told.get(account.label)
        if told is None or told[1] != index or now - told[0] >= COUNTED_EVERY:
            window = account.windows[index]
            left = (window.capacity - self._used[account.label, index]) / window.whole
            date = quote(datetime.fromtimestamp(EPOCH + window.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            text = f"ent=0&ov=0.0&ovPerm=false&rem={100 * left:.1f}&rst={date}"
            told = self._told[account.label] = (now, index, {"x-usage-ratelimit-session": text})
        return told[2]


def _refusal(status: int, code: str, cause: str, window: int, wait: float | None = None) -> Answer:
    headers = {} if wait is None else {"retry-after": str(math.ceil(wait))}
    return Answer(status, headers, json.dumps({"error": {"message": code, "code": code}}).encode(), cause, window)
