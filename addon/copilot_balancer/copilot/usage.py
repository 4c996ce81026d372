"""Token counts and price that a response tells: JSON of any of the three API forms -> ``Usage``.

Laws of this file:

1. Only what the response says: nothing is estimated here, and what is malformed counts as not said.
2. ``tokens_in`` counts every input token, cached ones included. Chat and Responses report it so; the Messages form
   reports ``input_tokens`` without the cached ones, which stand beside it
   (Anthropic's Messages API reference, object ``usage``).
3. ``nano_aiu`` is ``copilot_usage.total_nano_aiu``, which GitHub puts beside the last event of a response since it
   bills by AI credits (2026-06). One credit is 10^9 nano AIU: the Copilot CLI's status line and session store, as read
   by public tools, use this factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from copilot_balancer.copilot.jsontext.lenient import Json, as_object

NANO_PER_CREDIT = 1_000_000_000
"""Nano AIU of one AI credit."""

LARGEST = 10**18
"""No count above this is believed."""

_DETAILS = ("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details")
_COUNTS = (
    "prompt_tokens",
    "input_tokens",
    "completion_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one response used, in tokens; all of it as the response said."""

    tokens_in: int = 0
    """Input tokens, cached ones included."""
    cached: int = 0
    """Of ``tokens_in``: read from the provider's prompt cache."""
    tokens_out: int = 0
    """Output tokens, reasoning included."""
    reasoning: int = 0
    """Of ``tokens_out``: reasoning."""
    nano_aiu: int | None = None
    """The price in nano AIU; None: the response did not say."""

    @property
    def credits(self) -> float | None:
        """The price in AI credits; None: the response did not say."""
        return None if self.nano_aiu is None else self.nano_aiu / NANO_PER_CREDIT


def counts(event: Json) -> dict[str, int]:
    """The counts that one event or document tells, by the service's own names; empty when it tells none.

    A stream tells them in several events (the Messages form its input first and its output last): update one dict with
    each, then call `usage_of`.
    """
    found: dict[str, int] = {}
    for place in (event, as_object(event.get("response")), as_object(event.get("message"))):
        told = as_object(place.get("usage"))
        for part in (told, *(as_object(told.get(name)) for name in _DETAILS)):
            found.update((name, number) for name in _COUNTS if (number := _count(part.get(name))) is not None)
        price = _count(as_object(place.get("copilot_usage")).get("total_nano_aiu"))
        if price is not None:
            found["total_nano_aiu"] = price
    return found


def usage_of(told: Mapping[str, int]) -> Usage | None:
    """The usage that `counts` of a whole response add up to; None when it told nothing."""
    if not told:
        return None
    read, written = told.get("cache_read_input_tokens", 0), told.get("cache_creation_input_tokens", 0)
    return Usage(
        tokens_in=told.get("prompt_tokens", told.get("input_tokens", 0)) + read + written,
        cached=told.get("cached_tokens", 0) + read,
        tokens_out=told.get("completion_tokens", told.get("output_tokens", 0)),
        reasoning=told.get("reasoning_tokens", 0),
        nano_aiu=told.get("total_nano_aiu"),
    )


def credits_text(nano_aiu: int) -> str:
    """An amount of AI credits for people: ``0.0042``, ``1.25``, ``310``."""
    amount = nano_aiu / NANO_PER_CREDIT
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(value) if 0 <= value <= LARGEST else None  # no comparison holds for NaN
