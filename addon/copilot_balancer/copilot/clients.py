"""Which wait a client is told when all accounts wait: a table from what a client calls itself to a policy.

Laws of this file:

1. A client that prints a wait, or bounds how long it sleeps, is told the true one: no time is printed that is not the
   time. One that sleeps as long as it is told, and every unknown one, is told a short wait: it would miss an account
   that frees, or is added, meanwhile.
2. Each row names its source. Only the client's own headers are read: nothing else tells who asks.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Wait(StrEnum):
    """What is told of a wait."""

    TRUE = "the true wait"
    SHORT = "a short wait"


@dataclass(frozen=True, slots=True)
class WaitRule:
    """One row: which client, and what it is told."""

    client: str
    """For people."""
    wait: Wait
    source: str
    agent: str = ""
    """A regular expression at the start of ``User-Agent``, in any case."""
    when: Callable[[Mapping[str, str]], bool] | None = None
    """What else holds of its headers, by lower-case name."""

    def matches(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers (by lower-case name) is this client's."""
        if self.agent and not re.match(self.agent, headers.get("user-agent", ""), re.IGNORECASE):
            return False
        return self.when is None or self.when(headers)


_BOUNDED = (2, 54)
"""The openai library for Python from here on does not retry after more than 120 s; 2.20 asks again at once."""


def _bounded_openai(headers: Mapping[str, str]) -> bool:
    version = re.match(r"(\d{1,4})\.(\d{1,4})", headers.get("x-stainless-package-version", ""))
    python = headers.get("x-stainless-lang") == "python"
    return python and version is not None and (int(version[1]), int(version[2])) >= _BOUNDED


def _is_language_server(headers: Mapping[str, str]) -> bool:
    return "copilot-language-server-version" in headers


def _without_library(headers: Mapping[str, str]) -> bool:
    return "x-stainless-lang" not in headers


_MEASURED = "docs/clients.md#which-wait-each-client-needs"
_PRINTED = "microsoft/vscode-copilot-chat commonTypes.ts: getRateLimitMessage"

WAIT_RULES: tuple[WaitRule, ...] = (
    WaitRule("openai library for Python (litellm, llm)", Wait.TRUE, _MEASURED, when=_bounded_openai),
    WaitRule("Copilot CLI", Wait.TRUE, _MEASURED, agent=r"copilot/\d"),
    WaitRule("copilot-language-server", Wait.TRUE, _MEASURED, agent=r"GithubCopilot/\d", when=_without_library),
    WaitRule("copilot-language-server", Wait.TRUE, _MEASURED, when=_is_language_server),
    WaitRule("VS Code", Wait.TRUE, _PRINTED, agent=r"GitHubCopilotChat/\d", when=_without_library),
    WaitRule("opencode", Wait.SHORT, _MEASURED, agent="opencode/"),
    WaitRule("kilo", Wait.SHORT, _MEASURED, agent="kilo"),
    WaitRule("codex", Wait.SHORT, _MEASURED, agent="codex"),
)
"""The first row that matches counts."""

UNKNOWN = WaitRule("unknown client", Wait.SHORT, "nothing is known: it may sleep without a bound")


def wait_rule(headers: Mapping[str, str]) -> WaitRule:
    """The row for the client that sent these headers (by lower-case name); `UNKNOWN` when there is none."""
    return next((rule for rule in WAIT_RULES if rule.matches(headers)), UNKNOWN)


def told_wait(rule: WaitRule, left: float, cap: float) -> int:
    """Whole seconds for a client's ``Retry-After``: never less than a wait that is told in full, at least 1.

    Args:
        rule: the client's row.
        left: seconds until an account can serve.
        cap: the longest wait, in seconds, that a client which sleeps is told.

    """
    return max(1, math.ceil(left if rule.wait is Wait.TRUE else min(left, cap)))
