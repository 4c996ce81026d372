"""Who plays in the demo: three accounts of one person, as the fake Copilot knows them, and what they answer.

Laws of this file:

1. The first two requests are the story that ``demo`` tells and checks; what comes after them is only to be looked at.
2. A made-up account has what a real one has: a login, a plan, a quota that each answer leaves a bit smaller.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from copilot_balancer.fake import FakeAccount, Ok, limited, once
from copilot_balancer.fake.answers import Answer, Answering, chosen
from copilot_balancer.fake.bodies import Quota
from copilot_balancer.fake.seen import Seen

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
