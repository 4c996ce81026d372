"""A made-up store for the dashboard's tests and its screenshot: four accounts at a moment, a dozen requests, a matrix."""

import os
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from copilot_balancer.cli.env import Env
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account, Decisions, RouteTable
from copilot_balancer.rules.state import AccountState, Cooldown, Memory, ModelFact
from copilot_balancer.store.request_log import RequestLog
from copilot_balancer.store.request_record import AttemptRecord, RequestRecord, document
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
from copilot_balancer.store.store import Store

NOW = 1_795_437_131.0
"""2026-11-23 12:32:11 UTC."""
ZONE = ZoneInfo("UTC")
DAY = 86400.0

WORK, HOME, SPARE, OLD = "github.com:101", "github.com:202", "acme.ghe.com:303", "github.com:404"


def token(name: str) -> str:
    """A token that no other text on a screen can be mistaken for."""
    return f"gho_Canary{name}Canary{name}Canary"


def account(account_id: str, label: str, login: str, plan: str, **more) -> Account:
    host = account_id.partition(":")[0]
    api = f"copilot-api.{host}" if host != "github.com" else f"api.{more.pop('seat', 'individual')}.githubcopilot.com"
    return Account(
        id=account_id, label=label, login=login, host=host, api_host=api, plan=plan, added_at=NOW - 90 * DAY,
        token=SecretStr(token(label)), **more,
    )  # fmt: skip


ACCOUNTS = (
    account(WORK, "work", "octocat-acme", "business", seat="business"),
    account(HOME, "home", "octocat", "individual_pro", priority=1),
    account(SPARE, "acme", "octo_acme", "enterprise", priority=2, reserve=20.0),
    account(OLD, "old-seat", "octodog", "business", seat="business"),
)

ROUTES = (
    RouteTable(models=("claude-*",), accounts=("acme", "work"), fallback=("gpt-5.4",)),
    RouteTable(models=("gpt-5*", "o4-mini"), accounts=("work", "home", "acme")),
    RouteTable(models=("gemini-*",), accounts=("home", "gone"), enabled=False),
)

DECISIONS = Decisions(
    accounts=ACCOUNTS, home_id=HOME, terms_accepted_at=NOW - 80 * DAY, routes=ROUTES, strategy="hybrid"
)


def window(percent: float, whole: float, resets_in: float, seen: float = 20) -> QuotaWindow:
    return QuotaWindow(
        percent, resets_at=NOW + resets_in, entitlement=whole, remaining=whole * percent / 100, seen_at=NOW - seen
    )


MEMORY = Memory(
    {
        WORK: AccountState(
            credential=ACCOUNTS[0].fingerprint,
            cooldowns=[Cooldown(NOW - 88, NOW + 272, "session limit", source="server")],
            quota={"premium": window(41, 300, 7 * DAY + 41_000), "session": window(2, 100, 272, 88)},
            models={"gemini-3-pro": ModelFact(has=False, until=NOW + 500, began=NOW - 400)},
            last_used=NOW - 88, served=412, refused=9,
        ),
        HOME: AccountState(
            credential=ACCOUNTS[1].fingerprint,
            quota={
                "premium": window(68, 1500, 7 * DAY + 41_000),
                "session": window(87, 100, 11_000),
                "chat": QuotaWindow(100, unlimited=True, seen_at=NOW - 20),
            },
            last_used=NOW - 2, served=1290, refused=3,
        ),
        SPARE: AccountState(
            credential=ACCOUNTS[2].fingerprint,
            cooldowns=[Cooldown(NOW - 30, NOW + 90, "model limit", model="claude-opus-4.6")],
            quota={"premium": window(24, 1000, 7 * DAY + 41_000)},
            last_used=NOW - 31, served=77, refused=2,
        ),
        OLD: AccountState(credential=ACCOUNTS[3].fingerprint, rejected_at=NOW - 9000, last_used=NOW - 9000, served=3),
    }
)  # fmt: skip


def attempt(label: str, why: str, reason: str = "served", status: int | None = 200, **more) -> AttemptRecord:
    host = {"work": "api.business.githubcopilot.com", "acme": "copilot-api.acme.ghe.com"}
    return AttemptRecord(label, host.get(label, "api.individual.githubcopilot.com"), why, reason, status, **more)


def event(number: int, ago: float, what: str, *attempts: AttemptRecord, served: bool = True, **more) -> RequestRecord:
    last = attempts[-1] if attempts else None
    facts = {
        "verdict": "served" if len(attempts) == 1 else "failed over",
        "status": 200,
        "ms": 700.0 + 613 * number % 9000,
        "account": last.account if served and last else None,
        "host": last.host if served and last else None,
        "attempts": attempts,
        "conversation": f"{number * 7919 % 4096:03x}f3a",
        **more,
    }
    return RequestRecord(NOW - ago, f"0b5e{number:04d}-1c", what, **facts)


STAYS = "its conversation is there"
EVENTS = (
    event(1, 640, "gpt-5.4", attempt("work", "most quota for its time")),
    event(2, 590, "gpt-5.4", attempt("work", STAYS)),
    event(3, 431, "claude-opus-4.6", attempt("acme", "first of its route")),
    event(
        4, 372, "gemini-3-pro",
        attempt("work", "least recently used", "model missing", 400, rest=900.0, text="The requested model is not supported"),
        attempt("home", "next of those that can"),
    ),
    event(5, 300, "GET /models", attempt("home", "the home account")),
    event(6, 210, "claude-opus-4.6", attempt("acme", STAYS)),
    event(7, 141, "gpt-5.4", attempt("work", STAYS), verdict="left", status=None),
    event(
        8, 88, "gpt-5.4",
        attempt("work", STAYS, "session limit", 429, rest=360.0, text="user_global_rate_limited: try again in 6 minutes"),
        attempt("home", "next of its route"),
        moved="what is bound to work was left out: encrypted reasoning",
    ),
    event(9, 60, "gpt-5.4", attempt("home", STAYS)),
    event(
        10, 31, "claude-opus-4.6",
        attempt("acme", STAYS, "model limit", 429, rest=120.0, text="user_model_rate_limited"),
        served=False, verdict="refused", status=429, ms=312.0,
        note="acme: rests after a limit for this model; work: rests after a session limit",
    ),
    event(11, 19, "gpt-5.4-mini", attempt("home", "most quota for its time"), verdict="cut off", status=None),
    event(12, 2, "gpt-5.4", attempt("home", STAYS)),
)  # fmt: skip

PROXY = RunningProxy(os.getpid(), NOW - 7000, ("127.0.0.1:8080",), "0.1.0", {HOME: 2}, 2, "hybrid")


class Scene:
    """A store in `home` with a clock that stands still until it is told to go on."""

    def __init__(self, home: Path, decisions: Decisions = DECISIONS) -> None:
        self.now = NOW
        self.env = Env(
            environ={"COPILOT_BALANCER_HOME": str(home)}, home=home, now=lambda: self.now, sleep=lambda _: None
        )
        self.store: Store = self.env.store
        self.live = RunningProxyFile(self.store.folder)
        self.store.edit_decisions(lambda _: decisions)

    def filled(self) -> "Scene":
        """With memory, requests and a running proxy."""
        self.store.merge_memory(MEMORY)
        self.add(*EVENTS)
        self.live.write(PROXY)
        return self

    def add(self, *events: RequestRecord) -> None:
        """Requests ended."""
        file = RequestLog(self.store.folder)
        for one in events:
            file.put(document(one))
        file.close()

    def quota(self, account_id: str, name: str, percent: float) -> None:
        """An answer said what is left."""
        known = self.store.read_memory().accounts[account_id].quota[name]
        told = replace(known, percent_left=percent, remaining=None, seen_at=self.now)
        self.store.merge_memory(Memory({account_id: replace_quota(self.store, account_id, {name: told})}))

    @property
    def decisions(self) -> Decisions:
        return self.store.read_decisions()


def replace_quota(store: Store, account_id: str, quota: dict[str, QuotaWindow]) -> AccountState:
    state = store.read_memory().accounts[account_id]
    return AccountState(credential=state.credential, quota=quota)
