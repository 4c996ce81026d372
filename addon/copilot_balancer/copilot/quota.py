"""Parses the quota that a response reports, from headers and bodies, into ``QuotaWindow``.

Laws of this file:

1. It is a hint: the service counts late and in batches (docs/copilot-protocol.md#quota-headers). Nothing here decides
   anything.
2. Names are normalised: ``premium``, ``chat``, ``completions``, ``session``, ``weekly``; a window with another name, or
   one that cannot be read, is left out. Malformed input never raises.
3. The service tells a reset as a date on the wall clock; a window holds it on the clock of ``now``.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from copilot_balancer.copilot.retry_after import LONGEST, epoch


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    """One counter of an account: ``premium_interactions``, ``chat``, ``session``, ``weekly`` ..."""

    percent_left: float
    """0 to 100; the service counts late, so it is a hint."""
    resets_at: float | None = None
    unlimited: bool = False
    overage_permitted: bool = False
    entitlement: float | None = None
    remaining: float | None = None
    """Absolute number left, when the service says it."""
    seen_at: float = 0.0


WINDOW_LENGTHS = {"session": 5 * 3600.0, "weekly": 7 * 86400.0, "premium": 30 * 86400.0, "chat": 30 * 86400.0}
"""Seconds from reset to reset: "5 hour session limits", weekly, monthly (docs/copilot-protocol.md#limits)."""

_HEADERS = ("x-quota-snapshot-", "x-usage-ratelimit-")

_WINDOWS = {
    "premium_models": "premium",
    "premium_interactions": "premium",
    "premium": "premium",
    "chat": "chat",
    "completions": "completions",
    "session": "session",
    "5hour-session-ratelimits": "session",
    "weekly": "weekly",
    "weekly-session-ratelimits": "weekly",
}
"""What the service calls a window, in lower case -> what we call it (docs/copilot-protocol.md#quota-headers). Of two
names for the same window the one that stands first here counts: VS Code reads ``premium_models ||
premium_interactions``."""

_PERCENT = ("rem", "percent_remaining")
_ENTITLEMENT = ("ent", "entitlement")
_REMAINING = ("totRem", "quota_remaining", "remaining")
_OVERAGE = ("ovPerm", "overage_permitted")
_RESET = ("rst", "reset_date", "quota_reset_at")
"""A field's names: in headers (docs/copilot-protocol.md#quota-headers), in ``copilot_quota_snapshots`` (VS Code's
``chatQuotaService.ts``: ``entitlement`` is a string there), in ``/copilot_internal/user``
(docs/copilot-protocol.md#account-document)."""

_LONGEST_VALUE = 2048
"""Characters of a header value that are read; real ones have about 100."""


def read_headers(headers: Mapping[str, str], *, wall: float, now: float) -> dict[str, QuotaWindow]:
    """The windows that the headers of an answer tell, by normalised name.

    Args:
        headers: of the answer, names in lower case.
        wall: seconds since the epoch now, on the wall clock.
        now: the same moment on the clock that the windows are kept in.

    """
    found = {}
    for header, value in headers.items():
        for beginning in _HEADERS:
            if header.startswith(beginning) and len(value) <= _LONGEST_VALUE:
                pairs = (pair.partition("=") for pair in value.split("&"))
                # unquote, not unquote_plus: the "+" of a zone stands for itself
                found[header.removeprefix(beginning)] = {key: unquote(text) for key, _, text in pairs}
    return _windows(found, None, wall, now)


def read_snapshots(obj: object, *, wall: float, now: float) -> dict[str, QuotaWindow]:
    """The windows that a JSON body tells, by normalised name.

    Args:
        obj: the value of ``copilot_quota_snapshots``, an event of a stream that holds it (on its own or in its
            ``response``), or the answer of ``/copilot_internal/user``.
        wall: seconds since the epoch now, on the wall clock.
        now: the same moment on the clock that the windows are kept in.

    """
    if not isinstance(obj, dict):
        return {}
    response = obj.get("response")
    places = (obj, response) if isinstance(response, dict) else (obj,)
    for place in places:
        snapshots = _first(place, ("copilot_quota_snapshots", "quota_snapshots"))
        if isinstance(snapshots, dict) and snapshots:
            return _windows(snapshots, _first(place, ("quota_reset_date_utc", "quota_reset_date")), wall, now)
    limited, monthly = obj.get("limited_user_quotas"), obj.get("monthly_quotas")
    if isinstance(limited, dict) and isinstance(monthly, dict):  # a free plan tells numbers, not percents
        counted = {name: {"remaining": left, "entitlement": monthly.get(name)} for name, left in limited.items()}
        return _windows(counted, obj.get("limited_user_reset_date"), wall, now)
    return _windows(obj, None, wall, now)


def _windows(found: Mapping[str, object], reset: object, wall: float, now: float) -> dict[str, QuotaWindow]:
    """Read each window that we have a name for; `reset` is for those that do not tell their own."""
    windows: dict[str, QuotaWindow] = {}
    by_name = {str(name).lower(): fields for name, fields in found.items()}
    for theirs, ours in _WINDOWS.items():
        fields = by_name.get(theirs)
        window = _window(fields, reset, wall, now) if isinstance(fields, dict) else None
        if window is not None:
            windows.setdefault(ours, window)
    return windows


def _window(fields: Mapping[str, object], reset: object, wall: float, now: float) -> QuotaWindow | None:
    percent = _number(_first(fields, _PERCENT))
    entitlement = _number(_first(fields, _ENTITLEMENT))
    remaining = _number(_first(fields, _REMAINING))
    unlimited = fields.get("unlimited") is True or entitlement == -1
    spent = fields.get("has_quota") is False
    if unlimited and spent and _first(fields, _OVERAGE) not in (True, "true"):
        # a pooled seat whose pool is empty (@vscode/chat-lib 0.66, chatQuotaServiceImpl)
        unlimited, percent, entitlement, remaining = False, 0.0, None, None
    elif unlimited:
        percent, entitlement, remaining = 100.0, None, None
    elif spent:  # blocked, whatever the numbers say
        percent = 0.0
    elif percent is None and remaining is not None and entitlement is not None and entitlement > 0:
        percent = 100 * remaining / entitlement
    if percent is None:
        return None
    resets_at = _reset(_first(fields, _RESET), wall, now)
    return QuotaWindow(
        percent_left=min(max(0.0, percent), 100.0),
        resets_at=_reset(reset, wall, now) if resets_at is None else resets_at,
        unlimited=unlimited,
        overage_permitted=_first(fields, _OVERAGE) in (True, "true"),
        entitlement=entitlement,
        remaining=remaining,
        seen_at=now,
    )


def _reset(value: object, wall: float, now: float) -> float | None:
    """A date or a number of epoch seconds -> that moment on the clock of `now`; None when it is not near."""
    moment = _number(value)
    if moment is None and isinstance(value, str):
        moment = epoch(value)
    if moment is None or abs(moment - wall) > LONGEST:  # "0001-01-01T00:00:00Z" is how Go writes "no date"
        return None
    return now + (moment - wall)


def _first(fields: Mapping[str, object], names: Iterable[str]) -> object:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _number(value: object) -> float | None:
    """A finite number, or a string that holds one in ASCII; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
