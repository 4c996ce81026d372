"""A pool to play with: accounts by label, answers by status and code, a clock that is a number."""

import json
from dataclasses import replace

from pydantic import SecretStr

from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.classify import classify, classify_error
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.types import SERVED, Attempt, Hold, Nobody, Outcome, Policy, PoolRequest, Tried

START = 1_800_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def account(label: str, **changes) -> Account:
    """An account whose id follows from its label; its token can be changed by ``token=``."""
    token = changes.pop("token", f"gho_{label}-canary")
    return Account(id=f"github.com:{label}", label=label, token=SecretStr(token), **changes)


def decisions(*accounts: Account | str, **changes) -> Decisions:
    """Decisions with the terms accepted."""
    found = tuple(account(one) if isinstance(one, str) else one for one in accounts)
    return Decisions(accounts=found, **{"terms_accepted_at": 1.0, **changes})


def answer(status: int, code: str = "", text: str = "", **headers: str) -> Outcome:
    """What an answer with this status and error code means."""
    body = {"error": {"code": code, "message": text or code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status, named, json.dumps(body).encode(), wall=START)


LIMIT = answer(429, "rate_limited")
SESSION = answer(429, "user_global_rate_limited:pro")
WEEKLY = answer(429, "user_weekly_rate_limited:pro")
MODEL_LIMIT = answer(429, "user_model_rate_limited:gpt")
AGENT_LIMIT = answer(429, "agent_mode_limit_exceeded")
QUOTA = answer(402, "quota_exceeded")
OVERLOADED = answer(429, "model_overloaded")
CLIENT_LIMITED = answer(429, "integration_rate_limited")
MISSING = answer(400, "model_not_supported")
INTEGRATOR = answer(400, "no_available_model_endpoints")
REQUEST = answer(400, "invalid_request_body")
EXPIRED = answer(401, "", "unauthorized: token expired")
BAD_CREDENTIALS = answer(401, "", "Bad credentials")
NO_ACCESS = answer(403, "no_copilot_access", "unauthorized: not licensed to use Copilot")
DENIED = answer(403, "", "access denied")
UNKNOWN_403 = answer(403, "surprise", "forbidden")
UNKNOWN_429 = answer(429, "surprise", "no")
VISION = answer(403, "", "vision is not enabled for this organization")
CLIENT_REFUSED = answer(400, "", "bad request: missing Editor-Version header for IDE auth")
RETIRED = answer(404, "model_not_found")
BLOCKED = answer(403, "spammy_user", "Access to this endpoint is forbidden. Please review our Terms of Service")
FORBIDDEN = answer(403, "", "Access to this endpoint is forbidden. Please review our Terms of Service")
PREFIX = answer(400, "", "Authorization header is badly formatted")
WRONG_HOST = answer(421)
CONVERSATION = answer(400, "previous_response_not_found")
FAULT = answer(502)
RESET = classify_error("server closed connection", sent=True)
REFUSED = classify_error("connection refused", sent=False)


def hinted(outcome: Outcome, seconds: float) -> Outcome:
    """The same answer with a hint of the server."""
    return replace(outcome, retry_after=seconds)


class Bench:
    """A pool and its clock."""

    def __init__(self, *accounts: Account | str, policy: Policy | None = None, now: float = START, **changes) -> None:
        self.decisions = decisions(*accounts, **changes)
        self.policy = policy or Policy()
        self.now = now
        self.pool = Pool(self.policy, self.decisions, now)
        self.count = 0

    def label(self, account_id: str) -> str:
        return account_id.partition(":")[2]

    def ask(self, model: str | None = "gpt", conversation: str | None = None, **changes) -> "Ask":
        """A client's request; nothing is assigned yet."""
        self.count += 1
        return Ask(self, PoolRequest(f"r{self.count}", model, self.now, conversation, **changes))

    def serve(self, model: str | None = "gpt", conversation: str | None = None, **changes) -> str:
        """A whole request that is served at once; the label of the account."""
        ask = self.ask(model, conversation, **changes)
        label = ask.sent()
        ask.answered(SERVED).over()
        return label

    def refuse(self, *outcomes: Outcome, model: str | None = "gpt", **changes) -> "Ask":
        """A request that gets these answers in turn; then it is over."""
        ask = self.ask(model, **changes)
        for outcome in outcomes:
            ask.sent()
            ask.answered(outcome)
        ask.over()
        return ask

    def edit(self, label: str, **changes) -> None:
        """The user edits an account."""
        accounts = tuple(
            one.model_copy(update=changes) if one.label == label else one for one in self.decisions.accounts
        )
        self.decide(accounts=accounts)

    def decide(self, **changes) -> None:
        self.decisions = self.decisions.model_copy(update=changes)
        self.pool.replace(self.decisions, self.now)

    def restarted(self) -> Pool:
        """A pool of another process that was given this one's memory."""
        pool = Pool(self.policy, self.decisions, self.now)
        pool.remember(self.pool.memory(self.now), self.now)
        return pool

    def rest(self, label: str, model: str | None = "gpt") -> float | None:
        left = self.pool.cooldown_left(f"github.com:{label}", model, self.now)
        return None if left is None else round(left, 3)

    def view(self, label: str):
        return next(view for view in self.pool.snapshot(self.now).accounts if view.label == label)


class Ask:
    """One client request on a bench."""

    def __init__(self, bench: Bench, request: PoolRequest) -> None:
        self.bench, self.request = bench, request
        self.decision: Attempt | Hold | Nobody | None = None

    def assign(self) -> Attempt | Hold | Nobody:
        self.decision = self.bench.pool.assign(self.request, self.bench.now)
        return self.decision

    def sent(self) -> str:
        """Assign; the label of the account that it goes to."""
        decision = self.assign()
        assert isinstance(decision, Attempt), decision
        return self.bench.label(decision.account_id)

    def held(self) -> float:
        """Assign; for how many seconds it is held."""
        decision = self.assign()
        assert isinstance(decision, Hold), decision
        return round(decision.until - self.bench.now, 3)

    def nobody(self) -> Nobody:
        """Assign; nobody serves."""
        decision = self.assign()
        assert isinstance(decision, Nobody), decision
        return decision

    def answered(self, outcome: Outcome, **quota) -> "Ask":
        """The last attempt ended like this."""
        assert isinstance(self.decision, Attempt)
        self.bench.pool.record(self.decision, outcome, self.bench.now, quota)
        self.request = replace(self.request, tried=(*self.request.tried, Tried(self.decision, outcome, self.bench.now)))
        return self

    def over(self) -> None:
        self.bench.pool.finish(self.request.id, self.bench.now)
