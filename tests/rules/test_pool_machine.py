"""Laws of the pool that hold whatever happens, found out by chance: requests, answers, edits, restarts, clock jumps.

Two clocks: the steady one, which every call is given, and the wall clock, on which the user's decisions and the file are
stamped and which jumps. ``HYPOTHESIS_PROFILE=deep`` runs a million steps.
"""

import os
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.ranking import STRATEGIES
from copilot_balancer.rules.state import AccountState, restored, shifted
from copilot_balancer.rules.types import (
    SERVED,
    Attempt,
    Exclusion,
    Hold,
    Nobody,
    NobodyKind,
    Outcome,
    Policy,
    PoolRequest,
    Reason,
    Scope,
    Tried,
)
from support.pools import (
    AGENT_LIMIT,
    BAD_CREDENTIALS,
    BLOCKED,
    CLIENT_REFUSED,
    CONVERSATION,
    DAY,
    DENIED,
    EXPIRED,
    FAULT,
    FORBIDDEN,
    HOUR,
    INTEGRATOR,
    LIMIT,
    MISSING,
    MODEL_LIMIT,
    NO_ACCESS,
    OVERLOADED,
    QUOTA,
    REFUSED,
    REQUEST,
    RETIRED,
    SESSION,
    START,
    UNKNOWN_403,
    UNKNOWN_429,
    VISION,
    WEEKLY,
    account,
    decisions,
    hinted,
)

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
PROFILE = settings(
    max_examples=20_000 if DEEP else 60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

LABELS = ["a", "b", "c", "d"]
MODELS = ["gpt", "o9", None]
CONVERSATIONS = ["talk", "chat", None]
HINTS = [0.0, 1.0, 2.0, 30.0, 90.0, HOUR, 20 * HOUR, 60 * HOUR]
LIMITS = [LIMIT, SESSION, WEEKLY, MODEL_LIMIT, AGENT_LIMIT, QUOTA]
ASKING = [FAULT, OVERLOADED, UNKNOWN_403, UNKNOWN_429]
"""Nobody's fault, or a fault that nobody understands; with a wait, it is kept as any other."""
OTHERS = [
    DENIED, VISION, CLIENT_REFUSED, RETIRED, UNKNOWN_403, UNKNOWN_429, FORBIDDEN, FAULT, REFUSED, OVERLOADED, MISSING, INTEGRATOR, BAD_CREDENTIALS, EXPIRED, NO_ACCESS, BLOCKED, REQUEST,
    CONVERSATION,
]  # fmt: skip
ANSWERS = strategies.one_of(
    strategies.sampled_from(LIMITS),
    strategies.builds(hinted, strategies.sampled_from(LIMITS), strategies.sampled_from(HINTS)),
    strategies.builds(hinted, strategies.sampled_from(ASKING), strategies.sampled_from(HINTS)),
    strategies.sampled_from(OTHERS),
    strategies.just(SERVED),
)

REQUESTS = strategies.tuples(
    strategies.sampled_from(MODELS),
    strategies.sampled_from(CONVERSATIONS),
    strategies.sampled_from([None, None, None, "work"]),
    strategies.sampled_from([None, None, None, None, "a", "b", "gone"]),
    strategies.booleans(),
)
"""Model, conversation, fence, who made what the request carries, and whether only that one can go on."""
STORIES = strategies.one_of(
    strategies.lists(ANSWERS, min_size=1, max_size=4),
    strategies.builds(lambda outcome, n: [outcome] * n, ANSWERS, strategies.integers(2, 4)),
)
"""The answers that one request gets: any, or the same again and again."""
EDITS = strategies.one_of(
    strategies.tuples(strategies.just("turn_on_or_off"), strategies.booleans()),
    strategies.tuples(
        strategies.just("change"),
        strategies.sampled_from(["default", "default", "work"]),
        strategies.sampled_from([(), (), ("o*",)]),
    ),
    strategies.tuples(strategies.just("log_in_again"), strategies.integers(0, 2)),
    strategies.tuples(strategies.just("clear"), strategies.sampled_from(["", "gpt", "o9"])),
    strategies.tuples(strategies.just("add_or_remove")),
    strategies.tuples(
        strategies.just("its_list_passes_by"), strategies.lists(strategies.sampled_from(["gpt", "o9"]), unique=True)
    ),
)


def told_seconds(outcome: Outcome) -> float | None:
    """How long the server asked to be left alone by this account, within our caps."""
    if outcome.retry_after is None or outcome.reason not in {one.reason for one in (*LIMITS, *ASKING)}:
        return None
    return min(max(outcome.retry_after, 1.0), 6 * HOUR if outcome.reason is Reason.QUOTA else DAY)


class PoolMachine(RuleBasedStateMachine):
    """A pool, its clocks, and what an observer knows that it was told."""

    under_way = Bundle("under_way")
    held = Bundle("held")

    @initialize(
        labels=strategies.lists(strategies.sampled_from(LABELS), min_size=1, max_size=4, unique=True),
        strategy=strategies.sampled_from(sorted(STRATEGIES)),
        wait=strategies.sampled_from([0.0, 60.0]),
        deadline=strategies.sampled_from([50.0, 300.0]),
        exchange=strategies.booleans(),
    )
    def begin(self, labels, strategy, wait, deadline, exchange):
        self.now = self.wall = START
        self.jumped = False
        """Whether the wall clock ever did."""
        self.policy = Policy(strategy=strategy, wait=wait, deadline=deadline, model_ttl=HOUR)
        self.credential = "exchange" if exchange else "direct"
        self.decisions = decisions(*(account(label, credential=self.credential) for label in labels))
        self.pool = Pool(self.policy, self.decisions, self.now)
        self.count = self.gone = 0
        """How many requests there were, and how many of them ended with an earlier process."""
        self.holds: dict[str, tuple[PoolRequest, float]] = {}
        self.told: dict[tuple[str, str], tuple[float, float]] = {}
        """(label, model or "") -> (when it was said, until when)."""
        self.refused: dict[str, float] = {}
        """Label -> when its credential was refused."""
        self.blocked: set[str] = set()
        self.flying: dict[str, str] = {}
        """Request -> label of the account that is busy with it."""
        self.places: dict[tuple[str, str | None], tuple[str, float]] = {}
        """(conversation, model or "any") -> (label, when it was last sent there)."""

    # --- requests -----------------------------------------------------------------------------------------------------

    @rule(target=under_way, what=REQUESTS)
    def ask(self, what):
        return self.went_on(*self.begun(what))

    @rule(target=under_way, one=consumes(under_way), outcome=ANSWERS)
    def answer(self, one, outcome):
        request, attempt = one
        if int(request.id[1:]) <= self.gone:
            return multiple()
        return self.went_on(*self.answered(request, attempt, outcome))

    @rule(what=REQUESTS, outcomes=STORIES, seconds=strategies.sampled_from([0.0, 0.5, 40.0]))
    def a_whole_request(self, what, outcomes, seconds):
        """From the first choice to the end; each answer takes some time, and each hold is waited for."""
        request, decision = self.begun(what)
        for outcome in outcomes:
            while isinstance(decision, Hold):
                assert self.now < decision.until < request.began + self.policy.deadline
                self.time_passes(decision.until - self.now)
                decision = self.assign(request)
            if isinstance(decision, Nobody):
                break
            self.time_passes(seconds)
            request, decision = self.answered(request, decision, outcome)
            if outcome is SERVED:
                break
        self.pool.finish(request.id, self.now)
        self.flying.pop(request.id, None)

    @rule(one=consumes(under_way))
    def finish(self, one):
        request, _ = one
        self.pool.finish(request.id, self.now)
        self.flying.pop(request.id, None)

    @rule(target=under_way)
    def resume(self):
        ready = [request for request, until in self.waiting() if until <= self.now]
        if not ready:
            return multiple()
        self.holds.pop(ready[0].id)
        return self.went_on(ready[0], self.assign(ready[0]))

    def begun(self, what):
        model, conversation, fence, maker, bound = what
        self.count += 1
        owner = maker and account(maker).id
        request = PoolRequest(
            f"r{self.count}",
            model,
            self.now,
            conversation=conversation,
            fence=fence,
            owner=owner,
            bound=bound and owner is not None,
            carries=bound,
        )
        explained = self.pool.explain(model, conversation, self.now, fence)
        candidates = [one.label for one in explained.candidates]
        place, anywhere = self.places.get((conversation, model)), self.places.get((conversation, "any"))
        decision = self.assign(request)
        if isinstance(decision, Attempt):
            label = self.label(decision)
            assert explained.chosen == label or owner, "explain and assign are the same function"
            assert explained.chosen in candidates[:1], "whom the pool asks is the first of those it ranks"
            assert label == maker or maker not in candidates, "what an account made goes back to it"
            if place and place == anywhere and place[0] in candidates:
                fresh = self.now - place[1] < self.policy.affinity
                assert label == place[0] or not fresh or owner, "a conversation stays unless its account cannot serve"
        return request, decision

    def answered(self, request, attempt, outcome):
        before, state = self.rests(), self.pool.memory(self.now).accounts.get(attempt.account_id)
        self.pool.record(attempt, outcome, self.now)
        label = self.label(attempt)
        if all(one.fingerprint != attempt.credential for one in self.decisions.accounts):
            after = self.pool.memory(self.now).accounts.get(attempt.account_id)
            assert after == state, "evidence about an older credential is ignored"
        self.flying.pop(request.id, None)
        if outcome is SERVED:
            self.flying[request.id] = label
        self.observe(label, attempt, outcome)
        if outcome is SERVED:
            return request, attempt
        after = self.rests()
        for key, left in before.items():
            assert (after[key] or 0.0) >= (left or 0.0), "a refusal never shortens a rest"
        request = replace(request, tried=(*request.tried, Tried(attempt, outcome, self.now)))
        return request, self.assign(request)

    def waiting(self):
        return list(self.holds.values())

    def went_on(self, request, decision):
        if isinstance(decision, Attempt):
            return (request, decision)
        if isinstance(decision, Hold):
            assert self.now < decision.until < request.began + self.policy.deadline
            self.holds[request.id] = (request, decision.until)
            return multiple()
        self.pool.finish(request.id, self.now)
        self.flying.pop(request.id, None)
        return multiple()

    def assign(self, request):
        decision = self.pool.assign(request, self.now)
        if isinstance(decision, Attempt):
            self.check_attempt(request, decision)
        elif isinstance(decision, Nobody):
            self.check_nobody(request, decision)
        return decision

    # --- what must hold of each decision ------------------------------------------------------------------------------

    def check_attempt(self, request, attempt):
        label = self.label(attempt)
        chosen = next(one for one in self.decisions.accounts if one.label == label)
        tried = [one.attempt.account_id for one in request.tried]
        repairs = [one.attempt.repair for one in request.tried]
        if request.bound and attempt.account_id != request.owner:
            maker = self.why_not(request, request.owner)
            assert maker not in (None, Exclusion.COOLDOWN, Exclusion.PROBED), (
                "in a tool loop nobody but its maker, while it can come back"
            )
        assert not attempt.bare or (attempt.repair and request.tried[-1].outcome.reason is Reason.CONVERSATION)
        assert chosen.enabled
        assert chosen.fence == (request.fence or "default")
        assert chosen.takes(attempt.model) is None
        assert chosen in self.decisions.serving()
        assert attempt.credential == chosen.fingerprint
        assert attempt.model == request.model, "no model is changed unless the user wrote it"
        assert label not in self.blocked
        assert label not in self.refused
        for key in ("", attempt.model):
            assert self.told.get((label, key), (0.0, 0.0))[1] <= self.now, "never earlier than told"
        assert attempt.number == len(tried) + 1 <= self.policy.max_attempts
        assert attempt.repair or attempt.account_id not in tried, "each account once"
        assert sum(repairs) + attempt.repair <= 1, "plus one repair"
        assert self.now < request.began + self.policy.deadline or not request.tried
        self.flying[request.id] = label
        self.sent_to(request, label)

    def why_not(self, request, account_id):
        """What keeps this account from serving the request, tried or not; removed ones do not exist."""
        if all(one.id != account_id for one in self.decisions.accounts):
            return Exclusion.DISABLED
        explained = self.pool.explain(request.model, request.conversation, self.now, request.fence)
        return next((why.bar for why in explained.why_not if why.account_id == account_id), None)

    def sent_to(self, request, label):
        if request.conversation is not None:
            for model in (request.model, "any"):
                self.places[request.conversation, model] = (label, self.now)

    def check_nobody(self, request, nobody):
        if nobody.give is not None:
            given = request.tried[nobody.give].outcome
            if nobody.kind is NobodyKind.LIMITED:
                assert given.status not in (400, 401, 403), "nothing final while waiting helps"
        if nobody.retry_after is not None:
            assert 1 <= nobody.retry_after <= self.policy.retry_after_cap
        if not request.tried and nobody.free_at is not None and not request.bound:
            later = self.pool.explain(request.model, request.conversation, nobody.free_at + 1, request.fence)
            assert not isinstance(later.decision, Nobody), "a healed account is used again within a second"
        if not request.tried:
            assert nobody.give is None

    def observe(self, label, attempt, outcome):
        """What somebody who reads the answers knows about the account of `label`."""
        known = [one for one in self.decisions.accounts if one.label == label]
        if not known or known[0].fingerprint != attempt.credential:
            return
        seconds = told_seconds(outcome)
        if outcome is SERVED:
            for key in ("", attempt.model):
                if self.told.get((label, key), (self.now, 0.0))[0] < attempt.began:
                    del self.told[label, key]
            if self.refused.get(label, self.now) < attempt.began:
                del self.refused[label]
        elif outcome.reason is Reason.BLOCKED:
            self.blocked.add(label)
        elif outcome.reason is Reason.NEEDS_LOGIN:
            if attempt.began == self.now and known[0].credential == "direct":
                self.refused[label] = self.now
        elif seconds is not None:
            for_model = outcome.reason is Reason.MODEL_LIMIT or outcome.scope is Scope.NOBODY
            key = (label, (attempt.model or "") if for_model else "")
            self.told[key] = max(self.told.get(key, (0.0, 0.0)), (self.now, self.now + seconds), key=lambda it: it[1])

    # --- time ---------------------------------------------------------------------------------------------------------

    @rule(
        until=strategies.sampled_from(
            [0.5, 10.0, 60.0, 900.0, HOUR, 7 * HOUR, 2 * DAY, "somebody frees", "a hold ends"]
        )
    )
    def time(self, until):
        if until == "somebody frees":
            ends = [left for left in self.rests().values() if left]
        elif until == "a hold ends":
            ends = [end - self.now for _, end in self.waiting()]
        else:
            ends = [until]
        self.time_passes(max(0.0, min(ends, default=0.0)))

    def time_passes(self, seconds):
        self.now += seconds
        self.wall += seconds

    @rule(seconds=strategies.sampled_from([-10 * 365 * DAY, -DAY, -60.0, 60.0, DAY, 10 * 365 * DAY]))
    def the_wall_clock_jumps(self, seconds):
        self.jump(seconds)

    def jump(self, seconds):
        self.wall = max(self.wall + seconds, 1000.0)  # no clock reads less than 1970
        self.jumped = self.jumped or bool(seconds)

    @rule(meanwhile=strategies.sampled_from([0.0, 0.0, -10 * 365 * DAY, -DAY, -60.0, DAY]))
    def restart(self, meanwhile):
        """What is under way is lost; what was learnt is written, read, and decides as before."""
        for request, _ in self.waiting():
            self.pool.finish(request.id, self.now)
        for request_id in list(self.flying):
            self.pool.finish(request_id, self.now)
        self.holds, self.flying = {}, {}
        before = self.pool
        self.gone = self.count
        written = shifted(before.memory(self.now), self.wall - self.now)
        self.jump(meanwhile)
        kept = restored(written, self.wall)
        self.pool = Pool(self.policy, self.decisions, self.wall)
        self.pool.remember(kept, self.wall)
        old_now, self.now = self.now, self.wall
        if self.jumped:
            for key, state in before.memory(old_now).accounts.items():
                spans = [rest.until - rest.began for rest in state.cooldowns]
                spans += [fact.until - fact.began for fact in state.models.values()]
                for model in MODELS:
                    left = self.pool.cooldown_left(key, model, self.now) or 0.0
                    assert left <= max([*spans, 0.0]), "a clock jump makes no rest longer"
            self.told, self.refused, self.places = {}, {}, {}
            return
        assert self.pool.memory(self.now) == before.memory(self.now)
        for model in MODELS:
            for conversation in CONVERSATIONS:
                expected = before.explain(model, conversation, self.now)
                assert self.pool.explain(model, conversation, self.now) == expected, "persist + restore changes nothing"

    # --- the user -----------------------------------------------------------------------------------------------------

    def edit(self, label, **changes):
        accounts = tuple(
            one.model_copy(update=changes) if one.label == label else one for one in self.decisions.accounts
        )
        self.decisions = self.decisions.model_copy(update={"accounts": accounts})
        self.pool.replace(self.decisions, self.now)

    @rule(label=strategies.sampled_from(LABELS), what=EDITS)
    def the_user(self, label, what):
        action, *given = what
        known = next((one for one in self.decisions.accounts if one.label == label), None)
        if known is not None:
            getattr(self, action)(known, *given)
        elif action == "add_or_remove":
            self.decisions = self.decisions.with_account(account(label, credential=self.credential))
            self.pool.replace(self.decisions, self.now)

    def turn_on_or_off(self, known, enabled):
        if enabled and known.enabled_at != self.wall:
            self.edit(known.label, enabled=True, enabled_at=self.wall)
            self.blocked.discard(known.label)
        elif not enabled:
            self.edit(known.label, enabled=False)

    def change(self, known, fence, block):
        self.edit(known.label, fence=fence, block=block)

    def log_in_again(self, known, number):
        token = account(known.label, token=f"gho_{known.label}-canary-{number}").token
        if known.token != token:
            self.edit(known.label, token=token)
            self.refused.pop(known.label, None)

    def clear(self, known, model):
        label = known.label
        if known.cleared.get(model) == self.wall:
            return
        self.time_passes(0.5)  # what happened at this very moment may count or not
        self.edit(label, cleared={**known.cleared, model: self.wall})
        self.time_passes(0.5)
        self.told = {key: at for key, at in self.told.items() if key[0] != label or model not in ("", key[1])}
        if not model:
            self.refused.pop(label, None)
            assert not [rest for rest in self.view(label).rests if rest.model is None], "cleared by hand"

    def add_or_remove(self, known):
        before = self.pool.memory(self.now).accounts
        self.decisions = self.decisions.without(known.id, self.wall)
        self.pool.replace(self.decisions, self.now)
        before.pop(known.id)
        assert self.pool.memory(self.now).accounts == before, "the others' state does not move"
        self.told = {key: at for key, at in self.told.items() if key[0] != known.label}
        self.refused.pop(known.label, None)
        self.blocked.discard(known.label)

    def its_list_passes_by(self, known, models):
        self.pool.learn_models(known.id, models, self.now)

    def view(self, label):
        return next(view for view in self.pool.snapshot(self.now).accounts if view.label == label)

    # --- always -------------------------------------------------------------------------------------------------------

    @invariant()
    def the_load_is_known(self):
        if hasattr(self, "pool"):
            views = self.pool.snapshot(self.now).accounts
            load = {view.label: view.in_flight for view in views if view.in_flight}
            labels = {one.label for one in self.decisions.accounts}
            assert load == {label: n for label, n in Counter(self.flying.values()).items() if label in labels}

    def rests(self):
        return {
            (label, model): self.pool.cooldown_left(f"github.com:{label}", model, self.now)
            for label in LABELS
            for model in MODELS
        }

    def label(self, attempt):
        return attempt.account_id.partition(":")[2]


TestPoolMachine = pytest.mark.timeout(0 if DEEP else 120)(PoolMachine.TestCase)
TestPoolMachine.settings = PROFILE


@settings(PROFILE)
@given(
    accounts=strategies.integers(1, 6),
    rounds=strategies.integers(1, 20),
    turns=strategies.lists(strategies.integers(0, 9), min_size=6, max_size=6),
    gaps=strategies.lists(strategies.sampled_from([0.0, 0.5, 100.0]), min_size=1),
)
def test_round_robin_is_exact(accounts, rounds, turns, gaps):
    """Whatever went before and however time passes, each of n equal accounts gets k of n * k new conversations."""
    labels = [f"n{number}" for number in range(accounts)]
    pool = Pool(Policy(strategy="round-robin"), decisions(*labels), START)
    level = max(turns[:accounts])
    states = {f"github.com:{label}": AccountState(turn=float(level)) for label in labels}
    pool.remember(replace(pool.memory(START), accounts=states), START)
    now, counts = START, Counter()
    for number in range(accounts * rounds):
        now += gaps[number % len(gaps)]
        attempt = pool.assign(PoolRequest(f"r{number}", "gpt", now, f"c{number}"), now)
        counts[attempt.account_id] += 1
        pool.record(attempt, SERVED, now)
        if number % 3:
            pool.finish(attempt.request_id, now)

    assert set(counts.values()) == {rounds}
