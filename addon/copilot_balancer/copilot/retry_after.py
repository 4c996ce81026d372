"""Parses the wait that a response asks for, in each form that servers use: seconds, or None.

Laws of this file:

1. None when the server said nothing that can be used; never a default.
2. The most explicit place first: ``retry-after-ms``, ``Retry-After``, GitHub's ``x-ratelimit-reset``, the body's
   ``retry_after``, the text. In each place a number before a date: ``60`` is a minute, not the year 1960.
3. Digits are ASCII digits. NaN, infinity, exponents and underscores are not numbers here, though Python reads them.
4. What is returned is finite and never negative. A negative number or a past date says "now", 0.0; that does not
   outrank another place that asks to wait, so that nobody is asked earlier than told.
5. Floors and caps are policy and live in the pool. Only the absurd is cut here: beyond 366 days is read as 366 days,
   since to drop it would mean to ask earlier than told.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 366 * 86400.0
"""Seconds. The longest wait that was ever seen is 587 hours (docs/copilot-protocol.md#limits)."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_DATE = re.compile(r"[A-Za-z0-9 ,:.+-]{8,64}")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_UNITS = {"ms": 0.001, "mil": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
"""The beginning of a unit's name -> its seconds; the first that fits."""
_PART = (
    r"(an?\b|one\b|[0-9]{1,20}(?:\.[0-9]{1,20})?)\s{0,3}"
    r"(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)(?![a-z])"
)
_PARTS = re.compile(_PART, re.IGNORECASE | re.ASCII)
_SPAN = re.compile(
    # how a wait is announced: "try again in", "retrying in", "retry after", "wait for", "resets in". A bare span is not
    # one: "your 5 hour session limit" names the limit.
    r"\b(?:(?:try(?:ing)?\s{1,3}again|retry(?:ing)?|resets?|available(?:\s{1,3}again)?)[\s-]{1,3}(?:in|after)|wait)"
    r":?\s{1,3}(?:(?:for|about|around|approximately|another|at\s{1,3}least)\s{1,3}){0,3}"
    rf"({_PART}(?:\s{{0,3}},?\s{{0,3}}(?:and\s{{1,3}})?{_PART}){{0,5}})",
    re.IGNORECASE | re.ASCII,
)
"""Texts seen: "try again in 2 hours", "Please retry in 3.564818218s", "retrying in 10h 7m", "1d 21h"
(docs/copilot-protocol.md#limits)."""
_TEXT_READ = 65536
"""Characters of a text that are searched."""


def read(headers: Mapping[str, str], body_json: object | None, text: str, *, wall: float) -> float | None:
    """How many seconds the server asks to wait, from 0 to ``LONGEST``; None when it said nothing usable.

    Args:
        headers: of the answer, names in lower case.
        body_json: the parsed body, when it was JSON.
        text: the error's message, or the body when it was plain text.
        wall: seconds since the epoch now, on the wall clock, which is what a date is compared with.

    """
    said = None
    for seconds in _hints(headers, body_json, text, wall):
        if seconds:
            return seconds
        said = seconds if said is None else said
    return said


def epoch(text: str) -> float | None:
    """Seconds since the epoch of an HTTP-date (RFC 9110 5.6.7, all three forms) or an ISO 8601 date; else None.

    A date without a zone is read as UTC.
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text) if _ISO_DATE.match(text) else parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _hints(headers: Mapping[str, str], body_json: object | None, text: str, wall: float) -> Iterator[float | None]:
    milliseconds = _number(headers.get("retry-after-ms", ""))
    yield None if milliseconds is None else _bounded(milliseconds / 1000)
    yield _number_or_date(headers.get("retry-after", ""), wall)
    # GitHub's REST API: without requests left, not before this time in epoch seconds
    # (docs.github.com, "Rate limits for the REST API": primary limit). CAPI was not seen to send it.
    if _number(headers.get("x-ratelimit-remaining", "")) == 0:
        reset = _number(headers.get("x-ratelimit-reset", ""))
        yield None if reset is None else _bounded(reset - wall)
    nested = body_json.get("error") if isinstance(body_json, dict) else None
    for place in (body_json, nested):
        if isinstance(place, dict):
            yield _value(place.get("retry_after"), wall)
    yield _span(text[:_TEXT_READ])


def _value(value: object, wall: float) -> float | None:
    """A ``retry_after`` of a body: a JSON number, or a string as in the header."""
    if isinstance(value, str):
        return _number_or_date(value, wall)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):  # it may be too large for a float
        return _bounded(float(max(-1, min(value, int(LONGEST)))))
    return _bounded(value) if math.isfinite(value) else None


def _number_or_date(value: str, wall: float) -> float | None:
    value = value.strip(" \t")
    # two header lines arrive here as one, joined by a comma: the later moment counts
    numbers = [_number(part) for part in value.split(",")]
    usable = [number for number in numbers if number is not None]
    if len(usable) == len(numbers):
        return _bounded(max(usable))
    moment = epoch(value)
    return None if moment is None else _bounded(moment - wall)


def _number(text: str) -> float | None:
    text = text.strip(" \t")
    return float(text) if _NUMBER.fullmatch(text) else None


def _span(text: str) -> float | None:
    found = _SPAN.search(text)
    if found is None:
        return None
    return _bounded(sum(_amount(amount) * _unit(unit) for amount, unit in _PARTS.findall(found[1])))


def _amount(text: str) -> float:
    return 1.0 if text[0] in "aAoO" else float(text)


def _unit(text: str) -> float:
    return next(seconds for beginning, seconds in _UNITS.items() if text.lower().startswith(beginning))


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST)
