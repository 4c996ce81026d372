"""What one answer teaches about one account, and how it ends."""

from dataclasses import replace

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.cooldowns import (
    Mark,
    backoff_step,
    blocked,
    clear,
    counted,
    distrust,
    forget_clients,
    health,
    is_long,
    learn,
    listed,
    prune,
    rejected,
    take_back,
)
from copilot_balancer.rules.eligibility import cooling
from copilot_balancer.rules.state import (
    MAX_CLIENT_COOLDOWNS,
    AccountState,
    Cooldown,
    Count,
    Memory,
    ModelFact,
    restored,
)
from copilot_balancer.rules.types import SERVED, Action, Attempt, CooldownKind, CooldownRule, Outcome, Reason, Scope
from support.pools import (
    AGENT_LIMIT,
    BAD_CREDENTIALS,
    BLOCKED,
    CLIENT_LIMITED,
    CLIENT_REFUSED,
    CONVERSATION,
    DAY,
    EXPIRED,
    FAULT,
    FORBIDDEN,
    HOUR,
    INTEGRATOR,
    LIMIT,
    MINUTE,
    MISSING,
    MODEL_LIMIT,
    NO_ACCESS,
    OVERLOADED,
    PREFIX,
    QUOTA,
    REQUEST,
    SESSION,
    START,
    UNKNOWN_403,
    WEEKLY,
    WRONG_HOST,
    Bench,
    answer,
    hinted,
)


def attempt(began: float = START, model: str | None = "gpt", **more) -> Attempt:
    return Attempt("r1", 1, "github.com:a", "fp", model, "test", began, **more)


def taught(outcome: Outcome, state: AccountState | None = None, *, at: float = START, direct: bool = True, **changes):
    """The state after this answer at `at`, to an attempt that began then unless ``began=`` says otherwise."""
    state = state or AccountState()
    renews = changes.pop("renews", False)
    began = attempt(**{"began": at, **changes})
    mark = learn(state, began, outcome, at, direct=direct, model_ttl=DAY, renews=renews)
    return state, mark


def rests(state: AccountState) -> list[tuple[str, str | None, float, str]]:
    return [(rest.reason, rest.model, rest.until - START, rest.source) for rest in state.cooldowns]


EXCHANGE_LIMIT = Outcome(Reason.TRANSIENT, Scope.ACCOUNT, Action.NEXT, CooldownRule(CooldownKind.SECONDS, 60.0))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(LIMIT, ("limit", None, 60, "ladder"), id="limit"),
        pytest.param(answer(400, "rate_limited"), ("limit", None, 60, "ladder"), id="400 rate_limited"),
        pytest.param(hinted(LIMIT, 7.5), ("limit", None, 7.5, "server"), id="hint"),
        pytest.param(hinted(LIMIT, 0), ("limit", None, 1, "server"), id="hint below the floor"),
        pytest.param(SESSION, ("session limit", None, 60, "ladder"), id="session limit"),
        pytest.param(WEEKLY, ("weekly limit", None, HOUR, "ladder"), id="weekly limit"),
        pytest.param(MODEL_LIMIT, ("model limit", "gpt", 60, "ladder"), id="model limit"),
        pytest.param(AGENT_LIMIT, ("agent limit", None, 300, "ladder"), id="agent limit"),
        pytest.param(QUOTA, ("quota", None, HOUR, "ladder"), id="quota without a reset"),
        pytest.param(OVERLOADED, ("overloaded", "gpt", 10, "ladder"), id="overloaded"),
        pytest.param(hinted(OVERLOADED, 25), ("overloaded", "gpt", 25, "server"), id="overloaded with a hint"),
        pytest.param(NO_ACCESS, ("no access", None, HOUR, "ladder"), id="no access"),
        pytest.param(hinted(FAULT, 5), ("transient", "gpt", 5, "server"), id="a fault with a hint"),
        pytest.param(EXCHANGE_LIMIT, ("transient", None, 60, "ladder"), id="a limit of the token exchange"),
        pytest.param(
            replace(QUOTA, rest=CooldownRule(CooldownKind.RESET, window="premium")),
            ("quota", None, HOUR, "ladder"),
            id="quota, plain",
        ),
    ],
)
def test_how_long_a_rest_is(outcome, expected):
    """The server's hint first, else as the row's rest says, for the account or for the model."""
    state, mark = taught(outcome)
    assert rests(state) == [expected]
    named = expected[-1] == "server"
    assert mark == (None if named and outcome.reason != "transient" else mark)
    assert (mark.cooldown if mark else None) == (None if named else state.cooldowns[0])
    assert state.cooldowns[0].told_until is None
    assert state.refused == 1


@pytest.mark.parametrize(
    "outcome",
    [REQUEST, CLIENT_LIMITED, CONVERSATION, FAULT, EXPIRED, PREFIX, WRONG_HOST, hinted(CLIENT_LIMITED, 30)],
    ids=lambda outcome: f"{outcome.reason}",
)
def test_what_never_rests_an_account(outcome):
    """Faults of the request, of the client or of nobody, and what a repair may mend, begin no rest."""
    state, _ = taught(outcome, direct=False, renews=outcome.action is Action.SAME)
    assert state.cooldowns == []
    assert state.rejected_at is None


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(hinted(LIMIT, 90_000), id="25 hours"),
        pytest.param(hinted(LIMIT, DAY + 1), id="a second more than a day"),
        pytest.param(hinted(WEEKLY, 384_495), id="four days and a half"),
        pytest.param(hinted(LIMIT, 587 * HOUR), id="weeks"),
        pytest.param(hinted(LIMIT, 366 * DAY), id="a year"),
        pytest.param(hinted(MODEL_LIMIT, 30 * HOUR), id="one model"),
        pytest.param(hinted(QUOTA, 10 * HOUR), id="quota"),
        pytest.param(hinted(replace(QUOTA, rest=CooldownRule(CooldownKind.RESET)), 10 * HOUR), id="quota, plain"),
        pytest.param(hinted(OVERLOADED, HOUR), id="nobody's fault"),
        pytest.param(hinted(FAULT, HOUR), id="fault"),
    ],
)
def test_a_wait_that_the_server_named_is_kept_whole(outcome):
    """No cap of ours shortens a wait that the server named, nor does a restart."""
    state, _ = taught(outcome)
    assert state.cooldowns[0].until == START + outcome.retry_after
    assert state.cooldowns[0].told_until is None
    restarted = restored(Memory({"a": state}), START + 1).accounts["a"]
    assert restarted.cooldowns == state.cooldowns


def test_a_missing_model_waits_as_long_as_the_server_says():
    """A wait that the server named for a model that an account lacks is kept whole as well."""
    state, _ = taught(hinted(MISSING, 30 * HOUR))
    assert state.models["gpt"].until == START + 30 * HOUR


@pytest.mark.parametrize(
    ("outcome", "name", "before", "window", "ends"),
    [
        pytest.param(
            WEEKLY, "weekly", None, QuotaWindow(90.0, seen_at=START + 9), True, id="weekly, never seen before"
        ),
        pytest.param(QUOTA, "premium", 0.0, QuotaWindow(90.0, seen_at=START + 9), True, id="quota filled up"),
        pytest.param(
            QUOTA, "premium", 0.0, QuotaWindow(0.0, unlimited=True, seen_at=START + 9), True, id="no bounds any more"
        ),
        pytest.param(SESSION, "session", 1.0, QuotaWindow(90.0, seen_at=START + 9), True, id="a new session"),
        pytest.param(QUOTA, "premium", 0.0, QuotaWindow(3.0, seen_at=START + 9), False, id="next to nothing left"),
        pytest.param(QUOTA, "premium", 90.0, QuotaWindow(90.0, seen_at=START + 9), False, id="no news"),
        pytest.param(QUOTA, "premium", 0.0, QuotaWindow(90.0, seen_at=START - 9), False, id="seen before the refusal"),
        pytest.param(WEEKLY, "premium", 0.0, QuotaWindow(90.0, seen_at=START + 9), False, id="another window"),
        pytest.param(LIMIT, "premium", 0.0, QuotaWindow(90.0, seen_at=START + 9), False, id="a limit of no quota"),
    ],
)
def test_quota_that_is_back_ends_the_wait(outcome, name, before, window, ends):
    """Quota that GitHub shows as back ends the cooldown that was for it, learnt here or by another program."""
    known = {} if before is None else {name: QuotaWindow(before, seen_at=START - 20)}
    bench = Bench("a", "b")
    state = bench.pool.memory(START).accounts["github.com:a"]
    state.quota.update(known)
    taught(hinted(outcome, 90_000), state)
    bench.pool.remember(Memory({"github.com:a": state}), START)
    assert bench.rest("a") == 90_000

    other = bench.restarted()  # learnt by another program, and merged
    theirs = AccountState(credential=state.credential, quota={name: window})
    other.remember(Memory({"github.com:a": theirs}), START + 10)
    bench.pool.learn_quota("github.com:a", {name: window})

    for pool in (bench.pool, other):
        assert (pool.cooldown_left("github.com:a", "gpt", START + 10) is None) == ends
    bench.pool.remember(Memory({"github.com:a": state}), START + 11)  # the copy on disk does not bring it back
    assert (bench.pool.cooldown_left("github.com:a", "gpt", START + 11) is None) == ends


@pytest.mark.parametrize(
    ("outcome", "window", "expected"),
    [
        pytest.param(SESSION, QuotaWindow(0.5, START + 900), (900, "reset"), id="session used up"),
        pytest.param(
            SESSION, QuotaWindow(60.0, START + 900), (60, "ladder"), id="session with much left: a burst limit"
        ),
        pytest.param(WEEKLY, QuotaWindow(60.0, START + 7200), (7200, "reset"), id="weekly, whatever is left"),
        pytest.param(WEEKLY, QuotaWindow(0.0, START - 1), (HOUR, "ladder"), id="a reset that has passed"),
        pytest.param(WEEKLY, QuotaWindow(0.0), (HOUR, "ladder"), id="no reset known"),
        pytest.param(QUOTA, QuotaWindow(0.0, START + 7200), (7200, "reset"), id="quota"),
        pytest.param(QUOTA, QuotaWindow(0.0, START + 20 * DAY), (6 * HOUR, "reset"), id="quota, checked again"),
        pytest.param(QUOTA, QuotaWindow(0.0, START + 7200, unlimited=True), (HOUR, "ladder"), id="an unlimited window"),
    ],
)
def test_a_rest_until_the_window_resets(outcome, window, expected):
    """Without a hint the last seen quota window says when it is over."""
    state = AccountState(quota=dict.fromkeys(("session", "weekly", "premium"), window))
    taught(outcome, state)
    assert (state.cooldowns[0].until - START, state.cooldowns[0].source) == expected
    told = None if expected[0] != 6 * HOUR else START + 20 * DAY
    assert state.cooldowns[0].told_until == told


def test_the_ladder():
    """60 s doubling to 15 min while each refusal follows the end of the last rest."""
    state, now, seen = AccountState(), START, []
    for _ in range(7):
        taught(LIMIT, state, at=now)
        rest = max(state.cooldowns, key=lambda one: one.until)
        seen.append(rest.until - now)
        now = rest.until
    assert seen == [60, 120, 240, 480, 900, 900, 900]


def test_the_ladder_decays():
    """One step down for each quarter of an hour since it was last raised; models have ladders of their own."""
    state = AccountState(backoff={"": (3, START), "gpt": (2, START)})
    assert [backoff_step(state, "", START + minutes * MINUTE) for minutes in (0, 14, 15, 29, 30, 45, 600)] == [
        3, 3, 2, 2, 1, 0, 0
    ]  # fmt: skip
    assert backoff_step(state, "gpt", START) == 2
    assert backoff_step(state, "o9", START) == 0
    taught(LIMIT, state, at=START + 31 * MINUTE)
    assert state.backoff[""] == (2, START + 31 * MINUTE)


def test_an_attempt_from_before_the_rest_does_not_raise_the_ladder():
    """Only an attempt that began after a cooldown began may raise it; its own hint counts all the same."""
    state, _ = taught(LIMIT, at=START + 10)
    for outcome in (LIMIT, OVERLOADED, AGENT_LIMIT):
        taught(outcome, state, at=START + 11, began=START + 9)
        taught(outcome, state, at=START + 12, began=START + 10)
    assert rests(state) == [
        ("agent limit", None, 311, "ladder"),
        ("limit", None, 70, "ladder"),
        ("overloaded", "gpt", 21, "ladder"),
    ]
    taught(hinted(LIMIT, 600), state, at=START + 13, began=START + 9)
    assert ("limit", None, 613, "server") in rests(state)
    assert state.backoff[""] == (1, START + 10)


def test_a_shorter_rest_never_replaces_a_longer():
    """Whatever comes later, the latest deadline stays."""
    state, _ = taught(hinted(LIMIT, 900))
    taught(hinted(LIMIT, 5), state, at=START + 1)
    assert max(rest.until for rest in state.cooldowns) == START + 900


def test_a_success_heals_what_began_before_it():
    """A success of an attempt that began after a cooldown ends it; for its account and its own model."""
    state = AccountState(
        cooldowns=[
            Cooldown(START, START + HOUR, "limit"),
            Cooldown(START, START + HOUR, "model limit", "gpt"),
            Cooldown(START, START + HOUR, "model limit", "o9"),
            Cooldown(START, START + HOUR, "quota"),
        ]
    )
    taught(SERVED, state, at=START + 9, began=START)
    assert len(state.cooldowns) == 4
    taught(SERVED, state, at=START + 9, began=START + 1)
    assert [rest.model for rest in state.cooldowns] == ["o9"]
    taught(SERVED, state, at=START + 9, began=START + 0.5)
    assert state.ended_by_success[""] == START + 1
    assert state.served == 3


def test_a_success_without_a_model():
    """A request that names no model heals the account all the same."""
    state = AccountState(cooldowns=[Cooldown(START, START + HOUR, "limit")])
    taught(SERVED, state, at=START + 9, model=None)
    assert state.cooldowns == []
    assert state.models == {}


# --- faults and health ------------------------------------------------------------------------------------------------


def test_three_faults_in_two_minutes_rest_the_account():
    """A third transient fault within two minutes is the account's; the burst it belongs to counts once."""
    state, first = taught(FAULT)
    assert first.fault == START
    taught(FAULT, state, at=START + 119)
    assert state.cooldowns == []
    _, third = taught(FAULT, state, at=START + 119.5)
    assert rests(state) == [("transient", None, 149.5, "ladder")]
    assert third.cooldown == state.cooldowns[0]
    taught(FAULT, state, at=START + 121, began=START + 100)
    assert rests(state) == [("transient", None, 149.5, "ladder")]


def test_old_faults_are_forgotten():
    """Faults further apart than two minutes never rest an account."""
    state = AccountState()
    for minute in range(10):
        taught(FAULT, state, at=START + minute * MINUTE * 1.01)
    assert len(state.faults) == 2
    assert state.cooldowns == []


def test_health_decays_and_heals():
    """1 / (1 + steps on the ladder + recent faults / 3)."""
    state = AccountState(backoff={"": (1, START), "gpt": (2, START)}, faults=[START - 200, START, START + 1, START + 2])
    assert health(state, "gpt", START + 60) == 1 / 5
    assert health(state, None, START + 60) == 1 / 3
    assert health(state, "o9", START + 60) == 1 / 3
    assert health(state, "gpt", START + HOUR) == 1.0


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "first", "again"),
    [
        pytest.param(MISSING, 30, 900, id="not supported"),
        pytest.param(INTEGRATOR, HOUR, HOUR, id="integrator"),
        pytest.param(hinted(MISSING, 44), 44, 44, id="hint"),
        pytest.param(replace(MISSING, rest=CooldownRule(CooldownKind.NONE)), 30, 900, id="not supported, plain"),
        pytest.param(replace(INTEGRATOR, rest=CooldownRule(CooldownKind.NONE)), HOUR, HOUR, id="integrator, plain"),
    ],
)
def test_how_long_a_model_is_missing(outcome, first, again):
    """A first refusal may pass in seconds; a repeated one is believed for longer."""
    state, mark = taught(outcome)
    assert state.models["gpt"] == ModelFact(False, START + first, START, 1)
    assert mark == (None if outcome.retry_after else Mark("github.com:a", model="gpt", after=state.models["gpt"]))
    taught(outcome, state, at=START + HOUR)
    assert state.models["gpt"] == ModelFact(False, START + HOUR + again, START + HOUR, 2)


def test_evidence_about_a_model_is_judged_by_when_it_began():
    """A refusal from before the last refusal, success or list counts for nothing."""
    state, _ = taught(MISSING, at=START + 10)
    for began in (START + 9, START + 10):
        taught(MISSING, state, at=START + 11, began=began)
    assert state.models["gpt"].times == 1
    listed(state, ["gpt"], START + 20, DAY)
    taught(MISSING, state, at=START + 21, began=START + 19)
    assert state.models["gpt"].has
    taught(MISSING, state, at=START + 21, began=START + 20)
    assert not state.models["gpt"].has
    taught(SERVED, state, at=START + 30, began=START + 21)
    assert not state.models["gpt"].has
    taught(SERVED, state, at=START + 30, began=START + 22)
    assert state.models["gpt"] == ModelFact(True, START + 30 + DAY, START + 22, 1)


def test_a_refusal_of_no_model_teaches_nothing():
    """Without a model's name there is nothing to note."""
    state, mark = taught(MISSING, model=None)
    assert (state.models, mark) == ({}, None)


def test_the_models_that_a_refusal_lists():
    """The list inside a refusal teaches what the credential has; never the model that was refused."""
    state, _ = taught(replace(INTEGRATOR, models=("gpt", "o9", "mini")))
    assert {model: fact.has for model, fact in state.models.items()} == {"gpt": False, "o9": True, "mini": True}


def test_a_list_keeps_how_often_a_model_was_served():
    """A list refreshes what is known and tells which models cost nothing."""
    state, _ = taught(SERVED)
    taught(MISSING, state, at=START + 1, model="o9")
    listed(state, ["gpt", "o9"], START + 2, DAY, frozenset({"o9"}))
    assert state.models == {
        "gpt": ModelFact(True, START + 2 + DAY, START + 2, 1, False),
        "o9": ModelFact(True, START + 2 + DAY, START + 2, 0, True),
    }
    taught(SERVED, state, at=START + 3, model="o9")
    assert state.models["o9"] == ModelFact(True, START + 3 + DAY, START + 3, 1, True)


def test_a_402_on_an_included_model():
    """What was believed to cost nothing does after all."""
    state = AccountState()
    listed(state, ["gpt"], START, DAY, frozenset({"gpt"}))
    taught(QUOTA, state, at=START + 1)
    assert not state.models["gpt"].included
    assert rests(state) == [("quota", None, HOUR + 1, "ladder")]


def test_a_quota_without_a_date_is_asked_about_ever_more_rarely():
    """Each rest that was too short is followed by one twice as long, six hours at most; a success begins anew."""
    state, now, lengths = AccountState(), START, []
    for _ in range(5):
        taught(QUOTA, state, at=now)
        taught(QUOTA, state, at=now, began=now)  # another request under way at that time
        lengths.append((state.cooldowns[0].until - now) / HOUR)
        assert state.cooldowns[0].told_until is None
        now = state.cooldowns[0].until + 1
    assert lengths == [1, 2, 4, 6, 6]
    taught(SERVED, state, at=now)
    taught(QUOTA, state, at=now + 1)
    assert rests(state) == [("quota", None, now + 1 + HOUR - START, "ladder")]


def test_an_included_success_does_not_end_a_quota_rest():
    """Only a model that costs shows that there is quota again."""
    state = AccountState(cooldowns=[Cooldown(START, START + HOUR, "quota")])
    listed(state, ["mini"], START, DAY, frozenset({"mini"}))
    taught(SERVED, state, at=START + 1, model="mini")
    assert len(state.cooldowns) == 1
    taught(SERVED, state, at=START + 1, model="gpt")
    assert state.cooldowns == []


# --- credentials and blocks -------------------------------------------------------------------------------------------


def test_a_dead_credential():
    """A refused GitHub token needs a login; a success of a later request, or the user, shows otherwise."""
    state, _ = taught(BAD_CREDENTIALS)
    assert rejected(state)
    taught(SERVED, state, at=START + 2, began=START + 1)
    assert not rejected(state)
    taught(BAD_CREDENTIALS, state, at=START + 3, began=START)
    assert not rejected(state)
    assert not rejected(AccountState())


def test_only_bad_credentials_prove_that_a_login_is_needed():
    """A refused bearer of another kind rests the account; of an exchanged token even those words do."""
    for outcome, direct, expected in (
        (EXPIRED, True, False),
        (BAD_CREDENTIALS, True, True),
        (BAD_CREDENTIALS, False, False),
    ):
        state, _ = taught(outcome, direct=direct)
        assert rejected(state) is expected
        assert bool(state.cooldowns) is not expected
    exchange, _ = taught(replace(BAD_CREDENTIALS, sent=False), direct=False)
    assert rejected(exchange), "the exchange judges the GitHub token itself"


def test_a_client_that_is_refused_rests_alone():
    """The account goes on with clients of another identity, and the credential's replacement forgets it."""
    state = AccountState()
    learn(state, replace(attempt(), client="old-editor"), CLIENT_REFUSED, START, direct=True, model_ttl=DAY)
    assert cooling(state, attempt(client="old-editor"), START).until == START + HOUR
    assert cooling(state, attempt(client="vscode-chat vscode/1.104"), START) is None
    forget_clients(state)
    assert cooling(state, attempt(client="old-editor"), START) is None


def test_a_flood_of_clients_displaces_no_other_cooldown():
    """Their names are the clients' choice: only the latest few are remembered."""
    state, _ = taught(hinted(LIMIT, HOUR))
    for number in range(200):
        who = replace(attempt(START + number), client=f"client {number}")
        learn(state, who, CLIENT_REFUSED, START + number, direct=True, model_ttl=DAY)
    assert [rest.reason for rest in state.cooldowns if rest.client is None] == ["limit"]
    assert len(state.cooldowns) == 1 + MAX_CLIENT_COOLDOWNS


def test_an_unknown_refusal_is_held_against_an_account_once_another_has_served():
    """Its model rests a moment; without a model nothing does; an older attempt than the last success changes nothing."""
    state = AccountState()
    distrust(state, attempt(), START)
    assert rests(state) == [("unknown", "gpt", 60, "ladder")]
    for fresh, one in (
        (AccountState(), attempt(model=None)),
        (AccountState(ended_by_success={"gpt": START + 1}), attempt()),
    ):
        distrust(fresh, one, START)
        assert fresh.cooldowns == []


def test_an_unknown_refusal_rests_only_as_long_as_the_server_says():
    """A wait that it names is kept, for the account and the model; without one nothing rests."""
    assert rests(taught(hinted(UNKNOWN_403, 40))[0]) == [("unknown", "gpt", 40, "server")]
    assert rests(taught(UNKNOWN_403)[0]) == []


@pytest.mark.parametrize("outcome", [EXPIRED, PREFIX, WRONG_HOST], ids=lambda outcome: f"{outcome.reason}")
def test_a_repair_that_did_not_help_rests_the_account(outcome):
    """The first refusal is for the repair to mend; the second begins a rest on the ladder."""
    state, mark = taught(outcome, direct=False, renews=True)
    assert (mark, state.cooldowns) == (None, [])
    taught(outcome, state, direct=False, repair=True)
    assert rests(state) == [(str(outcome.reason), None, 60, "ladder")]


def test_an_abuse_block():
    """Off until the user enables the account after it."""
    state, _ = taught(BLOCKED)
    assert state.blocked_why.startswith("Access to this endpoint is forbidden")
    assert blocked(state, 0.0)
    assert not blocked(state, START + 1)
    assert not blocked(state, START - 1), "whatever the clock said when the user did so"
    assert not blocked(AccountState(), 0.0)
    coded, _ = taught(replace(BLOCKED, text="", code="spammy_user"))
    assert coded.blocked_why == "spammy_user"


@pytest.mark.parametrize(
    ("answers", "stopped", "resting"),
    [
        pytest.param([("gpt", False)], False, [], id="once, not yet repaired"),
        pytest.param([("gpt", False), ("gpt", True)], False, ["gpt"], id="again on the right host"),
        pytest.param([("gpt", True), ("gpt", True)], False, ["gpt"], id="twice the same model"),
        pytest.param([("gpt", True), ("o3", False)], False, ["gpt"], id="another model, not yet repaired"),
        pytest.param([("gpt", True), ("o3", True)], True, ["gpt"], id="two models on the right host"),
        pytest.param([("gpt", True), (None, True)], False, ["gpt", None], id="no model is no other model"),
        pytest.param([(None, True), (None, True)], False, [None], id="twice no model"),
        pytest.param([("gpt", False), ("o3", False)], False, [], id="two models, not yet repaired"),
        pytest.param([("gpt", True), ("gpt", True), ("o3", True)], True, ["gpt"], id="a second model after two of one"),
        pytest.param([("gpt", True), "served", ("o3", True)], False, ["gpt", "o3"], id="it served in between"),
    ],
)
def test_a_hint_at_the_terms_stops_by_two_models_alone(answers, stopped, resting):
    """A 403 that points at the Terms of Service rests one model; a second model, repaired as well, stops the account."""
    state, now = AccountState(), START
    for said in answers:
        now += 1
        if said == "served":
            taught(SERVED, state, at=now, model="haiku")
        else:
            taught(FORBIDDEN, state, at=now, model=said[0], repair=said[1], renews=not said[1])
    assert blocked(state, 0.0) == stopped
    assert {rest.model for rest in state.cooldowns} == set(resting)
    assert all(rest.until - rest.began == HOUR for rest in state.cooldowns)


# --- taking back, clearing, forgetting --------------------------------------------------------------------------------


def test_a_cooldown_is_taken_back():
    """It is gone, and another program's copy of it is over as well; a longer one of the same kind stays."""
    state, mark = taught(OVERLOADED)
    take_back(state, mark, START + 1)
    assert state.cooldowns == []
    assert mark.cooldown.began < state.ended_by_success["gpt"]

    state = AccountState(cooldowns=[Cooldown(START, START + 900, "model limit", "gpt")])
    _, mark = taught(OVERLOADED, state)
    take_back(state, mark, START + 1)
    assert [rest.reason for rest in state.cooldowns] == ["model limit"]
    assert state.ended_by_success == {}
    take_back(state, mark, START + 1)
    assert len(state.cooldowns) == 1


def test_a_fault_is_taken_back():
    """Faults that were nobody's do not add up; taking back twice takes nothing else."""
    state, mark = taught(FAULT)
    take_back(state, mark, START + 1)
    assert state.faults == []
    take_back(state, mark, START + 1)
    assert state.faults == []
    assert state.cooldowns == []


def test_a_model_refusal_is_taken_back():
    """What was known before holds again; nothing known becomes nothing known, newer than any copy; newer facts stay."""
    state, mark = taught(INTEGRATOR)
    take_back(state, mark, START + 1)
    assert state.models["gpt"] == ModelFact(False, START + 1, START + 1, times=0)
    taught(MISSING, state, at=START + 2)
    assert state.models["gpt"].times == 1

    state = AccountState()
    listed(state, ["gpt"], START, DAY)
    _, mark = taught(INTEGRATOR, state, at=START + 1)
    take_back(state, mark, START + 2)
    assert state.models["gpt"] == ModelFact(True, START + DAY, START + 2, 0)

    _, mark = taught(INTEGRATOR, state, at=START + 3)
    listed(state, ["gpt"], START + 4, DAY)
    take_back(state, mark, START + 5)
    assert state.models["gpt"].began == START + 4

    state = AccountState(models={"gpt": ModelFact(False, START, START - 60, 1)})
    _, mark = taught(MISSING, state)
    take_back(state, mark, START + 1)
    assert state.models["gpt"].times == 0


def burdened() -> AccountState:
    """A state with something of each kind, all of it from START."""
    return AccountState(
        cooldowns=[
            Cooldown(START, START + 600, "limit"),
            Cooldown(START, START + 600, "model limit", "gpt"),
            Cooldown(START, START + 600, "model limit", "o9"),
            Cooldown(START + 50, START + 600, "agent limit"),
        ],
        backoff={"": (2, START), "gpt": (3, START), "o9": (1, START + 50)},
        faults=[START, START + 50],
        models={
            "gpt": ModelFact(False, START + 600, START),
            "o9": ModelFact(False, START + 600, START + 50),
            "has": ModelFact(True, START + 600, START),
        },
        rejected_at=START,
    )


def test_clearing_an_account():
    """All that began before ends; what began later stays."""
    state = burdened()
    clear(state, "", START + 10)
    assert [rest.reason for rest in state.cooldowns] == ["agent limit"]
    assert state.backoff == {"": (0, START + 10), "gpt": (0, START + 10), "o9": (1, START + 50)}
    assert state.faults == [START + 50]
    assert [state.models[model].times for model in ("gpt", "o9", "has")] == [0, 1, 1]
    assert not rejected(state)
    assert sorted(state.ended_by_success) == ["", "gpt", "o9"]


def test_clearing_a_model():
    """Only what kept this model from the account ends."""
    state = burdened()
    clear(state, "gpt", START + 10)
    assert [rest.model for rest in state.cooldowns] == [None, "o9", None]
    assert state.backoff == {"": (2, START), "gpt": (0, START + 10), "o9": (1, START + 50)}
    assert len(state.faults) == 2
    assert [state.models[model].times for model in ("gpt", "o9", "has")] == [0, 1, 1]
    assert rejected(state)
    clear(state, "unheard of", START + 10)
    assert "unheard of" not in state.models


def test_what_is_over_is_forgotten():
    """A short rest that ran out is dropped; a long one stays until an attempt has proved the account."""
    short, long = Cooldown(START, START + 60, "limit"), Cooldown(START, START + 900, "session limit")
    state = AccountState(cooldowns=[short, long])
    prune(state, START + 59)
    assert state.cooldowns == [short, long]
    prune(state, START + 900)
    assert state.cooldowns == [long]
    assert is_long(long)
    assert not is_long(short)
    state.ended_by_success = {"": START + 1}
    prune(state, START + 900)
    assert state.cooldowns == []
    prune(state, START)


def test_a_session_limit_measures_its_window():
    """What was served until then, for the time that we have seen, is what a whole window serves; then it begins anew."""
    state = AccountState()
    for minute in range(50):
        taught(SERVED, state, at=START + MINUTE * minute)
    assert state.count == Count(START, 50)
    taught(hinted(SESSION, 1.5 * HOUR), state, at=START + HOUR)
    assert state.count == Count(START, 50, START + 2.5 * HOUR, 100.0)

    taught(SERVED, state, at=START + 2.5 * HOUR)
    assert state.count == Count(START + 2.5 * HOUR, 1, START + 7.5 * HOUR, 100.0)
    taught(hinted(SESSION, 2 * HOUR), state, at=START + 5.5 * HOUR)
    assert state.count == Count(START + 2.5 * HOUR, 1, START + 7.5 * HOUR, (100.0 + 1.0) / 2)
    assert counted(state.count, START + 8 * HOUR) == Count(START + 7.5 * HOUR, 0, START + 12.5 * HOUR, 50.5)
    assert counted(state.count, START - 3 * HOUR) == Count(START - 3 * HOUR, capacity=50.5)  # a clock jumped
    assert counted(state.count, START + 18 * HOUR) == Count(START + 17.5 * HOUR, 0, START + 22.5 * HOUR, 50.5)


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(hinted(SESSION, 2.0), id="a burst limit"),
        pytest.param(hinted(SESSION, 6 * HOUR), id="longer than a window"),
        pytest.param(SESSION, id="no hint"),
        pytest.param(hinted(LIMIT, HOUR), id="another limit"),
    ],
)
def test_what_measures_no_window(outcome):
    """Only a session limit with a hint of a window's length tells about the window."""
    state, _ = taught(SERVED)
    taught(outcome, state, at=START + 1)
    assert state.count == Count(START, 1)


def test_a_first_session_limit_finds_nothing_served():
    """Somebody else used it up: one request is taken as its share."""
    state, _ = taught(hinted(SESSION, HOUR))
    assert state.count == Count(START, 0, START + HOUR, 5.0)


def test_a_model_that_stays_missing_is_asked_for_less_and_less():
    """30 s, 15 min, then twice as long each time, up to six hours."""
    state, lengths, at = AccountState(), [], START
    for _ in range(8):
        taught(MISSING, state, at=at)
        fact = state.models["gpt"]
        lengths.append(fact.until - at)
        at = fact.until
    assert lengths == [30, 900, 1800, 3600, 7200, 14400, 21600, 21600]
