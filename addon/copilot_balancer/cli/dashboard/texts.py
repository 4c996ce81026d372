"""Texts of the dialogs: strategies, GitHub's rules about several accounts, key bindings.

Law of this file: pure; a width in cells in, lines out.
"""

from collections.abc import Callable, Sequence
from typing import Any

from textual.binding import BindingType

from copilot_balancer.cli.accounts.terms import RULES
from copilot_balancer.cli.dashboard.details import wrapped
from copilot_balancer.cli.dashboard.lines import Line, Span, Tone, words
from copilot_balancer.cli.dashboard.panes import AccountRows, Panes, RequestRows, RouteRows

STRATEGIES: dict[str, str] = {
    "": "as config.toml says",
    "hybrid": "health, quota against time, load, scarcity",
    "sticky": "one account as long as it can serve",
    "round-robin": "one after the other",
    "priority": "by priority; the next one when it cannot serve",
    "quota": "who has most left; then whose reset is soonest",
}
"""Strategy -> what it does; empty: what the settings say."""


def terms_lines(width: int) -> list[Line]:
    """GitHub's rules, as ``copilot-balancer terms`` tells them."""
    lines: list[Line] = []
    for number, rule in enumerate(RULES, 1):
        told = words(Span(f"{number}. {rule.title}. ", Tone.STRONG), rule.text, Span(f" [{rule.source}]", Tone.FAINT))
        lines += [*wrapped(told, width), ()]
    foot = "This program changes none of it. Until you accept, only the first account serves."
    return [*lines, *wrapped(words(foot), width), ()]


def help_lines(width: int, everywhere: Sequence[BindingType]) -> list[Line]:
    """All keys, by pane; `everywhere`: those that work in each."""
    groups: tuple[tuple[str, Any], ...] = (
        ("everywhere", everywhere),
        ("", Panes.BINDINGS),
        ("accounts", AccountRows.BINDINGS),
        ("requests", RequestRows.BINDINGS),
        ("routes", RouteRows.BINDINGS),
    )
    names: Callable[[str], str] = lambda text: (  # noqa: E731 - a table of two
        text.partition(",")[0].replace("question_mark", "?").replace("slash", "/")
    )
    lines: list[Line] = []

    def tell(sign: str, about: str) -> None:
        first, *more = wrapped(words(about), width - 14)
        lines.append((Span(f"  {sign:12}", Tone.KEY), *first))
        lines.extend((Span(" " * 14), *line) for line in more)

    for name, bindings in groups:
        lines += [words(Span(name, Tone.FAINT))] if name else []
        for one in bindings:
            tell(names(one.key), one.tooltip)
        if name not in ("everywhere", ""):
            tell("enter", "edit it" if name == "routes" else "everything about it")
        if name != "everywhere":
            lines += [()]
    signs = (("●", "ready"), ("◐", "rests"), ("!", "needs login"), ("○", "off"), ("*", "home account"))
    lines += [words(Span("signs", Tone.FAINT))]
    lines += [words("  ", "   ".join(f"{sign} {text}" for sign, text in signs))]
    lines += [words("  ✓ served   » after a failover   ✗ refused or cut off   - neither")]
    return lines
