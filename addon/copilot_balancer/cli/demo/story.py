"""Who plays in the demo: three accounts of one person, as the fake Copilot knows them, and what they answer.

Laws of this file:

1. The first two requests are the story that ``demo`` tells and checks; what comes after them is only to be looked at.
2. A made-up account has what a real one has: a login, a plan, a quota that each answer leaves a bit smaller.
"""

import os
import shlex
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from copilot_balancer.fake.answers import Answer, Answering, FakeAccount, Ok, chosen, limited, once
from copilot_balancer.fake.bodies import Quota
from copilot_balancer.fake.seen import Seen
from copilot_balancer.text import wrapped

MODEL = "gpt-4.1"

FIRST = (
    "Hello from spare. I appear word by word, because the proxy hands on each piece of an answer "
    "as soon as it arrives. Two other accounts were asked before me and refused; you saw nothing of it."
)
SECOND = "Hello again from spare. This time nobody else was asked."

_GAP = 0.07
"""Seconds between two words."""
_DAYS = 9
"""Until the quotas are whole again."""
_PREMIUM = "premium_interactions"


def cast(now: float) -> dict[str, FakeAccount]:
    """Token -> account; `now`: seconds since the epoch."""
    work = _account("work", now, plan="business", left=41.0)
    work.default = once(limited(30), then=_says(work, "My limit is over, so I answer again."))
    personal = _account("personal", now, plan="individual", left=88.0, models=("gpt-5-mini",))
    personal.default = _says(personal, "gpt-5-mini is all that I have.")
    spare = _account("spare", now, plan="individual_pro", left=12.0)
    spare.script = deque([_paid(spare, Ok(FIRST, gap=_GAP)), _paid(spare, Ok(SECOND, gap=_GAP))])
    spare.default = _says(spare, "I am here.")
    return {f"gho_demo_{account.name}_0123456789": account for account in (work, personal, spare)}


def from_now_on(accounts: Iterable[FakeAccount], every: int = 6) -> None:
    """Let the account that was limited run into its limit again, each `every` requests."""
    for account in accounts:
        if account.name == "work":
            account.default = _in_turn([*[account.default] * (every - 1), limited(20)])


def _account(name: str, now: float, *, plan: str, left: float, models: Iterable[str] | None = None) -> FakeAccount:
    resets = datetime.fromtimestamp(now + _DAYS * 86400, UTC).strftime("%Y-%m-%dT00:00:00Z")
    account = FakeAccount(name, plan=plan, api_host=f"api.{plan.partition('_')[0]}.githubcopilot.com")
    account.quota = {_PREMIUM: Quota(left, resets=resets)}
    if models is not None:
        account.models = tuple(models)
    return account


def _says(account: FakeAccount, words: str) -> Answering:
    return _paid(account, Ok(f"Hello from {account.name}. {words}", gap=_GAP))


def _paid(account: FakeAccount, answering: Answering) -> Callable[[Seen], Answer]:
    """`answering`, which costs one of what is left."""

    def answer(seen: Seen) -> Answer:
        quota = account.quota[_PREMIUM]
        left = max(quota.percent_left - 100 / quota.entitlement, 0.0)
        account.quota = {_PREMIUM: replace(quota, percent_left=round(left, 1))}
        return chosen(answering, seen)

    return answer


def _in_turn(answers: Iterable[Answering]) -> Callable[[Seen], Answer]:
    """These answers, one after the other, again and again."""
    left = deque(answers)

    def answer(seen: Seen) -> Answer:
        left.rotate(-1)
        return chosen(left[-1], seen)

    return answer


WIDTH = 80


def echo(text: str, *, end: bool = True) -> None:
    """Print `text` as it is."""
    click.echo(text, nl=end, color=False if "NO_COLOR" in os.environ else None)


def say(text: str = "") -> None:
    """Print a paragraph."""
    echo(wrapped(text))


def title(text: str) -> None:
    """Print a heading."""
    echo(click.style(text, bold=True))


def account(name: str, words: str) -> None:
    """Print what there is to say about an account."""
    echo(f"  {click.style(f'{name:<10}', fg='cyan')}{words}")


def command(line: str) -> None:
    """Print something to type."""
    echo(f"  {click.style(line, fg='green')}")


def path_line() -> str | None:
    """What to type so that a shell finds this very program; None: it finds it already."""
    own = Path(sys.executable).absolute().parent
    found = shutil.which("copilot-balancer")
    return None if found and Path(found).parent == own else f"export PATH={shlex.quote(str(own))}:$PATH"


def times(count: str, what: str) -> str:
    """``1 attempt``, ``3 attempts``."""
    return f"{count} {what}" if count == "1" else f"{count} {what}s"


def _prefix(who: str) -> str:
    return click.style(f"  {who:<8}", fg="cyan" if who == "client" else "yellow")


def aside(who: str, text: str) -> None:
    """Print what a program said."""
    for line in wrapped(text, width=WIDTH - 10).splitlines():
        echo(_prefix(who) + line)


class Words:
    """Words that grow on the screen, broken at its edge."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._column = 0
        self._gap = ""
        """The white space before the next word."""

    def add(self, piece: str) -> None:
        """Print a piece now."""
        word = piece.rstrip()
        if self._column == 0 or self._column + len(self._gap + word) > WIDTH:
            echo(("\n" if self._column else "") + _prefix(self._who), end=False)
            self._column, self._gap = 10, ""
        echo(self._gap + word, end=False)
        self._column += len(self._gap + word)
        self._gap = piece[len(word) :]

    def end(self) -> None:
        """The stream is over."""
        echo("")
