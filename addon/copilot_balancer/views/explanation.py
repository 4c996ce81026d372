"""Formats the pool's explanation of a choice, as text and as JSON; the same text in the CLI and in mitmproxy.

Laws of this file:

1. The explanation comes from ``Pool.explain``; nothing is decided here.
2. Lines have at most as many columns as are asked for, else 80. Names that come from requests are printed without what
   could break a terminal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from copilot_balancer.copilot.clients import WAIT_RULES, Wait
from copilot_balancer.rules.snapshot import CandidateView, Explanation
from copilot_balancer.rules.types import (
    Action,
    Attempt,
    CooldownKind,
    Hold,
    Nobody,
    NobodyKind,
    Outcome,
    Reason,
    WhyNot,
)
from copilot_balancer.text import WIDTH, duration, iso, printable, table, wrapped

_SHORT = 24
"""A label that is longer has a line of its own."""


def _ago(moment: float, now: float) -> str:
    return f"{duration(now - moment)} ago" if moment else "never"


def _in(moment: float, now: float) -> str:
    return "unknown" if math.isinf(moment) else f"in {duration(moment - now)}"


Cell = Callable[[float, float], str]
"""A term's value and the moment -> what is printed."""

PARTS: Mapping[str, str] = {
    "health": "HEALTH",
    "pace": "PACE",
    "idle": "IDLE",
    "scarcity": "SCARCE",
    "doubt": "DOUBT",
}
"""What a score is the sum of (``ranking.parts``): head of the column."""

TERMS: Mapping[str, tuple[str, str, Cell]] = {
    "-score": ("SCORE", "the highest score", lambda value, _: f"{-value:.3f}"),
    "-quota": ("QUOTA LEFT", "the most quota left", lambda value, _: f"{-value:.0f} %"),
    "turn": ("TURN", "the lowest turn", lambda value, _: f"{value:g}"),
    "last used": ("LAST USED", "the longest unused", _ago),
    "not the last used": ("USED LAST", "the one used last", lambda value, _: "no" if value else "yes"),
    "priority": ("PRIORITY", "the lowest priority number", lambda value, _: f"{value:g}"),
    "resets at": ("RESETS", "the soonest reset", _in),
    "in flight": ("IN FLIGHT", "the least busy", lambda value, _: f"{value:g}"),
}
"""The terms of the strategies: head of the column, what is preferred, how a value is printed."""


def explain_text(explanation: Explanation, now: float, width: int = WIDTH) -> str:
    """An explanation for people, in lines of at most `width` columns; `now` is what it was made for."""
    parts = [wrapped(headline(explanation, now), width=width, long_words=False)]
    if explanation.candidates:
        parts.append(_candidates(explanation, now, width))
    if explanation.why_not:
        head = "The others:" if explanation.candidates else "Why not:"
        named = max((len(one.label) for one in explanation.why_not if len(one.label) <= _SHORT), default=_SHORT)
        parts.append("\n".join([head, *(_line(one, named, now, width) for one in explanation.why_not)]))
    if (told := waits(explanation, now)) is not None:
        parts.append(wrapped(told, width=width, long_words=False))
    return "\n\n".join(parts)


def headline(explanation: Explanation, now: float) -> str:
    """Who serves it and why, or why nobody does, in a sentence."""
    decision, model = explanation.decision, printable(explanation.model or "A request without a model", 60)
    if isinstance(decision, Attempt):
        told = f"{model} goes to {explanation.chosen}: {decision.why}."
        if decision.model != explanation.model:
            told = f"{explanation.chosen} serves another model than {model}: {decision.why}."
    elif isinstance(decision, Hold):
        told = f"{model} waits {duration(decision.until - now)}, and is then served: {decision.why}."
    elif decision.kind is NobodyKind.NO_ACCOUNTS:
        told = "No account is stored; `copilot-balancer accounts add` adds one."
    else:
        free = "" if decision.free_at is None else f"; the first is free in {duration(decision.free_at - now)}"
        told = f"Nobody can serve {model} now ({decision.kind}){free}."
    return told


def waits(explanation: Explanation, now: float) -> str | None:
    """Which wait clients are told, as a sentence; None: somebody serves it, or no wait is known."""
    decision = explanation.decision
    if not isinstance(decision, Nobody) or decision.retry_after is None or decision.free_at is None:
        return None
    true = dict.fromkeys(rule.client for rule in WAIT_RULES if rule.wait is Wait.TRUE)
    return (
        f"Retry-After: {duration(decision.free_at - now)} for clients that print a wait or bound their sleep "
        f"({', '.join(true)}); {decision.retry_after} s for all others, which may sleep as long as they are told; "
        "none with a used-up quota (402)."
    )


def _candidates(explanation: Explanation, now: float, width: int) -> str:
    """Who can serve, best first, with what they were compared by."""
    names = list(explanation.candidates[0].terms)
    shown = [TERMS.get(name, (name.upper(), f"the lowest {name}", lambda value, _: f"{value:g}")) for name in names]
    summands = explanation.candidates[0].parts if width >= WIDTH else {}
    parts = [PARTS.get(name, name.upper()) for name in summands]
    rows = [["", "ACCOUNT", *parts, *(head for head, _, _ in shown)]]
    for place, one in enumerate(explanation.candidates, 1):
        cells = (cell(one.terms[name], now) for name, (_, _, cell) in zip(names, shown, strict=True))
        values = (f"{one.parts[name]:.2f}" for name in summands)
        rows.append([str(place), one.label + (" *" if one.stays else "") + " -" * one.asked_last, *values, *cells])
    preferred = f"{explanation.strategy} prefers {', then '.join(words for _, words, _ in shown)}"
    order = preferred if _is_by_terms(explanation.candidates) else "a route, or a doubt, gives the order"
    lines = [wrapped(f"Who can serve it, best first; {order}:", width=width, long_words=False), *_table(rows, width)]
    if parts:
        lines.append(f"  SCORE = {' + '.join(parts)}")
    if any(one.stays for one in explanation.candidates):
        lines.append("  * the conversation is there already, which comes first")
    if any(one.asked_last for one in explanation.candidates):
        lines.append("  - asked last: its own list lacks the model, or names it as turned off")
    return "\n".join(lines)


def _is_by_terms(candidates: Sequence[CandidateView]) -> bool:
    """Whether the strategy alone gives this order; else a row of the user's routes comes before it."""
    order = [(not one.stays, one.asked_last, *one.terms.values()) for one in candidates]
    return order == sorted(order)


def _table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The rows, with numbers to the right; the names are cut where `width` is too little."""
    others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = width - 2 - sum(others) - 2 * (len(others) - 1) + others[1]
    cut = [[place, name if len(name) <= room else f"{name[: room - 1]}…", *cells] for place, name, *cells in rows]
    return [f"  {line}" for line in table(cut, right=[column for column in range(len(others)) if column != 1])]


def _line(one: WhyNot, named: int, now: float, width: int) -> str:
    free = "" if one.free_at is None else f", free again in {duration(one.free_at - now)}"
    first = f"  {one.label.ljust(named)}  "
    if len(one.label) > named:
        first = f"  {one.label}\n  {' ' * named}  "
    hanging = " " * (named + 4)
    told = wrapped(f"{printable(one.reason, 300)}{free}", hanging, width, long_words=False)
    return first + told.removeprefix(hanging)


_ACTIONS = {
    Action.PASS: "The client gets it as it is.",
    Action.NEXT: "Every other account that can serve is asked in turn.",
    Action.NEXT_ONCE: "One other account is asked, once.",
    Action.SAME: "Token or host are got anew and the same account is asked once more; then every other account.",
    Action.SAME_ONCE: "Token or host are got anew and the same account is asked once more; then one other, once.",
    Action.OWNER: "The account that owns the conversation is asked; else once more without what is bound to it.",
    Action.STOP: "The client gets it, and the account is off until you enable it.",
}
_COOLDOWNS = {
    CooldownKind.NONE: "Nothing rests.",
    CooldownKind.SERVER: "Nothing rests unless the server names a wait.",
    CooldownKind.LADDER: "It rests 60 s, doubled each time up to 15 min.",
    CooldownKind.RESET: "It rests until the quota resets.",
    CooldownKind.UNTIL_LOGIN: "The account is not used before a new login.",
    CooldownKind.UNTIL_USER: "The account is not used before you enable it.",
}


def judged_text(outcome: Outcome) -> str:
    """What a refusal means and what follows, for people."""
    rest = _COOLDOWNS.get(outcome.rest.kind, f"It rests {duration(outcome.rest.seconds or 0.0)}.")
    if outcome.retry_after is not None and outcome.rest.kind is not CooldownKind.NONE:
        rest = f"It rests {duration(outcome.retry_after)}, as the server asked."
    if outcome.reason is Reason.SERVED:
        return "This is no refusal: the answer reaches the client."
    rows = {
        "rule": outcome.rule,
        "reason": outcome.reason,
        "concerns": outcome.scope,
        "code": outcome.code,
        "text": outcome.text,
        "then": _ACTIONS[outcome.action],
        "cooldown": rest,
    }
    return "\n".join(wrapped(printable(str(text), 300), f"{name:9} ") for name, text in rows.items() if text)


def explained(explanation: Explanation, now: float) -> dict[str, Any]:
    """An explanation for programs: times as text, lengths of time in seconds."""
    decision = explanation.decision
    facts: dict[str, Any] = {"kind": type(decision).__name__.lower(), "why": decision.why}
    if isinstance(decision, Attempt):
        facts["model"] = decision.model
        facts["probe"] = decision.probe
    elif isinstance(decision, Hold):
        facts["seconds"] = decision.until - now
    else:
        facts["nobody"] = decision.kind
        facts["retry_after"] = decision.retry_after
        facts |= _free(decision.free_at, now)
    return {
        "model": explanation.model,
        "conversation": explanation.conversation,
        "strategy": explanation.strategy,
        "account": explanation.chosen,
        "decision": facts,
        "candidates": [
            {
                "account": one.label,
                "stays": one.stays,
                "asked_last": one.asked_last,
                "terms": {name: None if math.isinf(value) else value for name, value in one.terms.items()},
                "parts": dict(one.parts),
            }
            for one in explanation.candidates
        ],
        "why_not": [
            {"account": one.label, "bar": one.bar, "reason": one.reason, **_free(one.free_at, now)}
            for one in explanation.why_not
        ],
    }


def _free(moment: float | None, now: float) -> dict[str, object]:
    return {"free_at": None if moment is None else iso(moment), "free_in": None if moment is None else moment - now}
