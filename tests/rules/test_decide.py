"""What is done with a request: sent, held, or given up, and what the client is given then."""

from dataclasses import replace

import pytest

from copilot_balancer.rules.decide import FAILOVER_CLASS
from copilot_balancer.rules.give_up import _KINDS
from copilot_balancer.rules.types import SERVED, Action, Exclusion, NobodyKind, Policy, Reason, Route
from support.pools import (
    AGENT_LIMIT,
    BAD_CREDENTIALS,
    BLOCKED,
    CLIENT_LIMITED,
    CLIENT_REFUSED,
    CONVERSATION,
    DENIED,
    EXPIRED,
    FAULT,
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
    REFUSED,
    REQUEST,
    RESET,
    RETIRED,
    SESSION,
    START,
    UNKNOWN_403,
    UNKNOWN_429,
    VISION,
    WEEKLY,
    WRONG_HOST,
    Bench,
    account,
    hinted,
)

PLAIN = Policy(strategy="priority")


def through(bench: Bench, *outcomes, **changes):
    """A request that gets these answers; ready to be assigned once more."""
    ask = bench.ask(**changes)
    for outcome in outcomes:
        ask.sent()
        ask.answered(outcome)
    return ask


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (LIMIT, "limit"), (SESSION, "limit"), (WEEKLY, "limit"), (MODEL_LIMIT, "limit"), (AGENT_LIMIT, "limit"),
        (QUOTA, "quota"), (MISSING, "model"), (INTEGRATOR, "model"), (BAD_CREDENTIALS, "auth"), (NO_ACCESS, "auth"),
        (EXPIRED, "auth"), (DENIED, "auth"), (VISION, "auth"), (CLIENT_REFUSED, "auth"), (UNKNOWN_403, "auth"),
        (UNKNOWN_429, "limit"), (RETIRED, "model"), (FAULT, "transient"), (RESET, "transient"), (REFUSED, "transient"),
        (OVERLOADED, "transient"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.reason}",
)  # fmt: skip
def test_each_class_can_be_switched_off(outcome, name):
    """With its class on a refusal moves the request; with it off the refusal is given back as it is."""
    twice = (outcome, outcome) if outcome.action in (Action.SAME, Action.SAME_ONCE) else (outcome,)
    bench = Bench("a", "b", policy=PLAIN)
    assert through(bench, *twice).sent() == "b"

    alone = Bench("a", "b", policy=replace(PLAIN, failover=PLAIN.failover - {name}))
    nobody = through(alone, *twice).nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.NOT_RETRIED, len(twice) - 1, None)
    assert nobody.why == f"not retried, because failover for {name} is switched off"


def test_every_refusal_that_may_move_has_a_class():
    """A new reason must be given a class, or be one that never moves."""
    never = {Reason.SERVED, Reason.CLIENT_LIMITED, Reason.REQUEST, Reason.CONVERSATION, Reason.BLOCKED, Reason.UNKNOWN}
    assert set(FAILOVER_CLASS) == set(Reason) - never
    assert set(FAILOVER_CLASS.values()) == Policy().failover


@pytest.mark.parametrize("outcome", [REQUEST, CLIENT_LIMITED], ids=lambda outcome: f"{outcome.reason}")
def test_what_another_account_would_answer_as_well(outcome):
    """It goes to the client at once."""
    nobody = through(Bench("a", "b"), outcome).nobody()
    assert (nobody.kind, nobody.give) == (NobodyKind.NOT_RETRIED, 0)
    assert nobody.why == "not retried, because another account would answer the same"


def test_a_block_never_fails_over():
    """Stop, and say so."""
    nobody = through(Bench("a", "b"), BLOCKED).nobody()
    assert (nobody.kind, nobody.give) == (NobodyKind.BLOCKED, 0)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_sends_are_counted():
    """After as many sends as allowed the best refusal is given; the client hears that it may come back at once."""
    bench = Bench("a", "b", "c", "d", policy=replace(PLAIN, max_attempts=2))
    nobody = through(bench, hinted(LIMIT, 90), hinted(LIMIT, 40)).nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.LIMITED, 1, 1)
    assert nobody.why == "not retried, because it was sent 2 times; 2 more were ready (copilot_max_attempts)"
    assert nobody.accounts[2].reason == "was not asked"
    nobody = through(bench, FAULT, FAULT).nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.LIMITED, 1, None)


def test_one_deadline_covers_all_attempts():
    """A request whose time is over is not sent again."""
    bench = Bench("a", "b", policy=replace(PLAIN, deadline=20))
    ask = bench.ask()
    ask.sent()
    bench.now += 20
    ask.answered(LIMIT)
    assert ask.nobody().why == "not retried, because its time is over; 1 more was ready (copilot_deadline)"


def test_a_fault_is_sent_once_more():
    """To one other account, once; then it is passed down."""
    bench = Bench("a", "b", "c", policy=PLAIN)
    ask = through(bench, FAULT)
    assert ask.sent() == "b"
    ask.answered(OVERLOADED)
    nobody = ask.nobody()
    assert nobody.give == 1
    assert nobody.why == "not retried, because a second try met the same trouble"


def test_what_may_have_run_is_not_sent_again_unless_the_user_lets_it():
    """A fault after the request was sent may be running; one before it, or an overload, is not."""
    policy = replace(PLAIN, retry_ambiguous=False)
    for outcome in (FAULT, RESET):
        nobody = through(Bench("a", "b", policy=policy), outcome).nobody()
        assert nobody.why == "not retried, because it may already have run"
    for outcome in (REFUSED, OVERLOADED, LIMIT):
        assert through(Bench("a", "b", policy=policy), outcome).sent() == "b"


@pytest.mark.parametrize(("flights", "allowed"), [(3, 3), (10, 3), (20, 4), (50, 10)])
def test_the_budget_of_faults(flights, allowed):
    """At most three requests, or a fifth of those under way, are sent again at once after faults of the service."""
    bench = Bench("a", "b", policy=PLAIN)
    asks = [bench.ask() for _ in range(flights)]
    for ask in asks:
        ask.sent()
    for ask in asks:
        ask.answered(REFUSED)
        bench.pool.learn_models("github.com:a", [], bench.now)
    decisions = [ask.assign() for ask in asks]
    sent = [ask for ask, decision in zip(asks, decisions, strict=True) if hasattr(decision, "began")]
    assert len(sent) == min(flights, allowed)
    if flights > allowed:
        assert decisions[-1].why == "not retried, because too many requests are being sent again at this moment"
        sent[0].answered(SERVED)
        assert asks[-1].sent() == "b"


def test_refusals_of_an_account_need_no_budget():
    """Fifty requests that one account refused all go on: their refusals cost nothing."""
    bench = Bench("a", "b", policy=PLAIN)
    asks = [bench.ask() for _ in range(50)]
    for ask in asks:
        ask.sent()
    for ask in asks:
        ask.answered(LIMIT)
    assert {ask.sent() for ask in asks} == {"b"}


# --- repairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [EXPIRED, PREFIX, WRONG_HOST], ids=lambda outcome: f"{outcome.reason}")
def test_the_same_account_once_more_after_a_repair(outcome):
    """Minted again, the other prefix, the right host: the same account, once; then another one."""
    bench = Bench(account("a", credential="exchange"), account("b", credential="exchange"), policy=PLAIN)
    ask = through(bench, outcome)
    assert ask.sent() == "a"
    assert (ask.decision.repair, ask.decision.why, ask.decision.number) == (True, "repair", 2)
    ask.answered(outcome)
    assert ask.sent() == "b"
    assert not ask.decision.repair
    ask.answered(outcome)
    assert ask.nobody().why == "all accounts tried, all refused"


def test_one_repair_in_a_whole_request():
    """A second account's expired token is not minted for the same request."""
    exchange = [account(label, credential="exchange") for label in "abc"]
    bench = Bench(*exchange, policy=replace(PLAIN, max_attempts=9))
    ask = through(bench, EXPIRED, LIMIT)
    assert ask.sent() == "b"
    ask.answered(EXPIRED)
    assert ask.sent() == "c"


def test_a_direct_account_has_nothing_to_mint():
    """Its host is learnt again, once an hour; a GitHub token that was refused as such is asked no second time."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = through(bench, EXPIRED)
    assert (ask.sent(), ask.decision.renew) == ("a", True)
    ask.answered(EXPIRED)
    assert ask.sent() == "b"
    bench.now += 20 * MINUTE
    assert through(bench, EXPIRED, only="github.com:a").nobody()
    bench.now += HOUR
    assert through(bench, EXPIRED, only="github.com:a").sent() == "a"
    assert through(Bench("a", "b", policy=PLAIN), BAD_CREDENTIALS).sent() == "b"


def test_a_repair_happens_with_balancing_off():
    """It is not a failover."""
    bench = Bench(account("a", credential="exchange"), "b", balancing=False)
    ask = through(bench, EXPIRED)
    assert ask.sent() == "a"
    ask.answered(EXPIRED)
    assert ask.nobody().why == "not retried, because balancing is off"


def test_no_repair_of_an_account_that_may_not_serve():
    """Turned off, removed, or resting meanwhile: another account goes on."""
    for change in (
        lambda bench: bench.edit("a", enabled=False),
        lambda bench: bench.decide(accounts=bench.decisions.accounts[1:]),
        lambda bench: bench.refuse(LIMIT, only="github.com:a"),
    ):
        bench = Bench(account("a", credential="exchange"), "b", policy=PLAIN)
        ask = through(bench, EXPIRED)
        change(bench)
        assert ask.sent() == "b"


def test_no_repair_beyond_the_bounds():
    """A repair is a send as well."""
    bench = Bench(account("a", credential="exchange"), "b", policy=replace(PLAIN, max_attempts=1))
    nobody = through(bench, EXPIRED).nobody()
    assert (nobody.kind, nobody.retry_after) == (NobodyKind.LIMITED, 1)
    assert nobody.give is None


def test_a_repair_asks_for_the_model_that_was_asked_for():
    """After a fallback the repaired attempt keeps the other model."""
    bench = Bench(
        account("a", credential="exchange"), policy=replace(PLAIN, routes=(Route(("gpt",), fallback=("mini",)),))
    )
    bench.refuse(hinted(MODEL_LIMIT, HOUR))
    ask = through(bench, EXPIRED)
    ask.sent()
    assert (ask.decision.model, ask.decision.repair) == ("mini", True)


def test_what_an_account_made_goes_back_to_it():
    """The owner is asked before the conversation's account and before any strategy; without affinity as well."""
    for policy in (PLAIN, replace(PLAIN, affinity=0.0)):
        bench = Bench("a", "b", "c", policy=policy)
        assert bench.serve(conversation="talk") == "a"
        ask = bench.ask(conversation="talk", owner="github.com:c")
        assert ask.sent() == "c"
        assert ask.decision.why == "same conversation"
        assert bench.ask(owner="github.com:b").sent() == "b"
        assert bench.ask(owner="github.com:gone").sent() in "abc"


def test_at_a_user_turn_an_owner_that_rests_is_left():
    """What is bound can be left out there: another account goes on, and the owner's rest says why."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.refuse(hinted(LIMIT, HOUR), only="github.com:b")
    ask = bench.ask(owner="github.com:b")
    assert ask.sent() == "a"
    assert ask.decision.bare is False


def test_in_a_tool_loop_nobody_but_the_owner_is_asked():
    """The owner's refusal is given back with its wait; no other account sees the request."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = bench.ask(owner="github.com:b", bound=True)
    assert ask.sent() == "b"
    ask.answered(hinted(LIMIT, 30))
    nobody = ask.nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.LIMITED, 0, 30)
    assert nobody.why == "not retried, because no other account can go on with what this one began"
    later = bench.ask(owner="github.com:b", bound=True).nobody()
    assert (later.kind, later.give, later.retry_after) == (NobodyKind.LIMITED, None, 30)
    assert [(why.label, why.bar) for why in later.accounts] == [("a", Exclusion.BOUND), ("b", Exclusion.COOLDOWN)]
    bench.now += 30
    assert bench.ask(owner="github.com:b", bound=True).sent() == "b"


def test_in_a_tool_loop_a_fault_of_the_service_is_tried_again_with_the_owner():
    """It counts as alone: held for a moment, then sent once more."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = bench.ask(owner="github.com:b", bound=True)
    ask.sent()
    ask.answered(FAULT)
    bench.now += ask.held()
    assert ask.sent() == "b"
    assert ask.decision.repair


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"enabled": False}, id="turned off"),
        pytest.param({"fence": "other"}, id="another fence"),
        pytest.param({"block": ("gpt",)}, id="the user's pattern"),
    ],
)
def test_a_tool_loop_whose_owner_will_not_come_back_moves(change):
    """Turned off, fenced off or kept from the model: waiting would never end, so another account is asked."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.edit("b", **change)
    assert bench.ask(owner="github.com:b", bound=True).sent() == "a"
    assert bench.ask(owner="github.com:gone", bound=True).sent() == "a"


def test_a_tool_loop_whose_owner_lost_its_login_or_the_model_moves():
    """Nobody knows when these end."""
    for outcome in (BAD_CREDENTIALS, MISSING, NO_ACCESS):
        bench = Bench("a", "b", policy=PLAIN)
        ask = bench.ask(owner="github.com:b", bound=True)
        assert ask.sent() == "b"
        ask.answered(outcome)
        assert ask.sent() == "a"


def test_a_lost_conversation_goes_to_its_owner_and_then_once_bare():
    """The owner first, when it was not asked; then the one that refused last without what is bound; then passed down."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = through(bench, CONVERSATION)
    assert ask.nobody().why == "not retried, because the conversation is bound to its account"
    ask.request = replace(ask.request, owner="github.com:b", carries=True)
    assert ask.sent() == "b"
    assert (ask.decision.why, ask.decision.repair, ask.decision.bare) == ("owner of the conversation", False, False)
    ask.answered(CONVERSATION)
    assert ask.sent() == "b"
    assert (ask.decision.repair, ask.decision.bare) == (True, True)
    ask.answered(CONVERSATION)
    nobody = ask.nobody()
    assert (nobody.kind, nobody.give) == (NobodyKind.NOT_RETRIED, 2)
    assert bench.view("a").rests == bench.view("b").rests == ()


def test_a_lost_conversation_without_a_known_owner_is_asked_once_bare():
    """The same account, since nothing speaks against it; even while it rests meanwhile no other one."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = bench.ask(carries=True)
    ask.sent()
    ask.answered(CONVERSATION)
    assert ask.sent() == "a"
    assert (ask.decision.repair, ask.decision.bare) == (True, True)

    ask = bench.ask(carries=True)
    whom = ask.sent()
    ask.answered(CONVERSATION)
    bench.refuse(LIMIT, only=f"github.com:{whom}")
    assert ask.nobody().kind is NobodyKind.NOT_RETRIED


def test_a_tool_loop_whose_maker_is_forgotten():
    """It cannot go bare there: each account is asked whether it is its, and one that rests may be; then once bare."""
    bench = Bench("a", "b", "c", policy=replace(PLAIN, max_attempts=4))
    ask = bench.ask(bound=True, carries=True)
    for label in "abc":
        assert ask.sent() == label
        assert not ask.decision.bare
        ask.answered(CONVERSATION)
    assert ask.sent() == "c"
    assert ask.decision.bare
    ask.answered(CONVERSATION)
    assert ask.nobody().kind is NobodyKind.NOT_RETRIED

    bench.refuse(hinted(LIMIT, 30), only="github.com:c")
    ask = bench.ask(bound=True, carries=True)
    for label in "ab":
        assert ask.sent() == label
        ask.answered(CONVERSATION)
    nobody = ask.nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.LIMITED, None, 30)


def test_an_owner_that_rests_is_not_asked():
    """The owner's rest holds for its own conversations too."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.refuse(LIMIT, only="github.com:b")
    ask = through(bench, CONVERSATION)
    ask.request = replace(ask.request, owner="github.com:b")
    assert ask.nobody().kind is NobodyKind.NOT_RETRIED
    assert bench.view("a").rests == ()


# --- alone ------------------------------------------------------------------------------------------------------------


def test_the_only_account_is_asked_again_after_a_fault():
    """Held for one to two seconds, the same for the same request, then sent once more; then passed down."""
    bench = Bench("a")
    ask = through(bench, FAULT)
    wait = ask.held()
    assert 1 <= wait <= 2
    assert ask.held() == wait
    bench.now += 2
    assert ask.sent() == "a"
    assert (ask.decision.repair, ask.decision.why) == (True, "the same account once more")
    ask.answered(FAULT)
    nobody = ask.nobody()
    assert (nobody.give, nobody.retry_after) == (1, None)


def test_alone_means_that_no_other_may_serve():
    """An account that rests is of no help: the same one is asked again."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.refuse(hinted(LIMIT, HOUR), only="github.com:b")
    ask = through(bench, FAULT)
    assert 1 <= ask.held() <= 2
    bench.edit("a", enabled=False)
    nobody = ask.nobody()
    assert (nobody.kind, nobody.give) == (NobodyKind.LIMITED, 0)
    bench.decide(accounts=bench.decisions.accounts[1:])
    assert ask.nobody().give == 0


def test_an_overload_is_not_asked_again_alone():
    """The client backs off by itself."""
    nobody = through(Bench("a"), OVERLOADED).nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.LIMITED, 0, None)


def test_an_account_that_needs_a_fault_s_rest_is_not_asked_again():
    """A fault with the server's own time is nobody's when the account is alone: that time is not waited for."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = through(bench, LIMIT, hinted(FAULT, 30))
    nobody = ask.nobody()
    assert nobody.give == 1
    assert bench.rest("b") == 30


@pytest.mark.parametrize(
    ("outcome", "wait", "held"),
    [
        pytest.param(hinted(SESSION, 2), 0, 2, id="a burst limit"),
        pytest.param(hinted(SESSION, 2.5), 0, None, id="longer than a burst"),
        pytest.param(hinted(LIMIT, 2), 0, None, id="not a session limit"),
        pytest.param(SESSION, 0, None, id="no hint"),
        pytest.param(hinted(LIMIT, 30), 30, 30, id="within the patience"),
        pytest.param(hinted(LIMIT, 30.5), 30, None, id="beyond it"),
        pytest.param(hinted(MODEL_LIMIT, 5), 30, 5, id="a model's limit"),
        pytest.param(hinted(QUOTA, 5), 30, 5, id="quota"),
        pytest.param(NO_ACCESS, 9e9, None, id="no access"),
        pytest.param(MISSING, 9e9, None, id="a missing model"),
    ],
)
def test_what_is_waited_for(outcome, wait, held):
    """A rest that ends within the patience, if its end is likely to help."""
    ask = through(Bench("a", policy=Policy(wait=wait)), outcome)
    if held is None:
        ask.nobody()
    else:
        assert ask.held() == held


def test_after_the_wait_the_account_is_asked_once_more():
    """When its rest is over, as the one repair; a second refusal is given to the client."""
    bench = Bench("a")
    ask = through(bench, hinted(SESSION, 2))
    bench.now += ask.held()
    assert ask.sent() == "a"
    assert (ask.decision.repair, ask.decision.why) == (True, "the same account once more")
    ask.answered(hinted(SESSION, 2))
    assert ask.nobody().give == 1


def test_the_first_to_free_is_waited_for():
    """Of tried and untried accounts the one that frees first."""
    bench = Bench("a", "b", policy=replace(PLAIN, wait=60))
    bench.refuse(hinted(LIMIT, 20), only="github.com:b")
    ask = through(bench, hinted(LIMIT, 50))
    assert ask.held() == 20
    bench.now += 20
    assert ask.sent() == "b"


def test_a_probe_of_a_tried_account_is_not_waited_for():
    """Only an account that was not asked yet is worth the wait."""
    bench = Bench("a", policy=PLAIN)
    bench.refuse(hinted(LIMIT, HOUR))
    bench.now += HOUR
    first = bench.ask()
    first.sent()
    bench.now += 120
    second = bench.ask()
    second.sent()
    third = bench.ask()
    assert third.held() == 0.5
    first.answered(FAULT)
    assert first.nobody().give == 0


# --- routes -----------------------------------------------------------------------------------------------------------


def routed(*accounts, **changes) -> Bench:
    route = Route(("gpt*",), (), ("mini", "nano"))
    return Bench(*accounts, policy=replace(PLAIN, routes=(route,), **changes))


def test_a_fallback_model_is_the_last_resort():
    """Only when nobody can serve the model, in the order written down, and never with a refused class switched off."""
    bench = routed("a", "b")
    ask = through(bench, hinted(MODEL_LIMIT, HOUR))
    assert (ask.sent(), ask.decision.model) == ("b", "gpt")
    ask.answered(hinted(MODEL_LIMIT, HOUR))
    assert (ask.sent(), ask.decision.model, ask.decision.repair) == ("a", "mini", True)
    ask.answered(hinted(MODEL_LIMIT, HOUR))
    assert ask.nobody().why == "all accounts tried, all refused"
    assert bench.rest("a", "mini") == HOUR

    again = bench.ask()
    assert (again.sent(), again.decision.model, again.decision.repair) == ("b", "mini", False)
    bench.refuse(hinted(MODEL_LIMIT, HOUR), model="mini", only="github.com:b")
    last = bench.ask()
    assert (last.sent(), last.decision.model) == ("a", "nano")
    off = routed("a", failover=frozenset({"quota"}))
    assert through(off, MODEL_LIMIT).nobody().kind is NobodyKind.NOT_RETRIED


def test_a_fallback_is_no_second_repair():
    """An account that was repaired is not asked a third time; and a whole account's limit has no other model."""
    bench = routed(account("a", credential="exchange"), max_attempts=9)
    assert through(bench, EXPIRED, MISSING).nobody().kind is NobodyKind.NO_MODEL
    assert through(routed("a"), LIMIT).nobody().give == 0


def test_a_hold_comes_before_another_model():
    """The user's patience is tried first: the model asked for is better than another."""
    bench = routed("a", wait=30)
    bench.refuse(hinted(MODEL_LIMIT, 20))
    assert bench.ask().held() == 20


def test_why_a_conversation_goes_where_it_goes():
    """It is said that it stays, also when a model's own place in it is given up."""
    bench = Bench("a", "b", policy=PLAIN)
    through(bench, MISSING, SERVED, model="o9", conversation="talk").over()
    bench.serve(conversation="talk", only="github.com:a")
    through(bench, SERVED, model="o9", conversation="talk").over()
    bench.now += 60
    ask = through(bench, LIMIT, model="o9", conversation="talk")
    assert ask.request.tried[0].attempt.why == "same conversation"
    ask.sent()
    assert ask.decision.why == "same conversation"


def test_why_an_account_was_chosen():
    """A few words for the log line, the comment and the explanation."""
    bench = Bench("a", "b", policy=replace(PLAIN, routes=(Route(("gpt",), ("b", "a")),)))
    ask = bench.ask()
    ask.sent()
    assert ask.decision.why == "first in its route"
    ask.answered(LIMIT)
    ask.sent()
    assert ask.decision.why == "only one that can serve"
    bench.decide(accounts=bench.decisions.accounts[:1])
    other = bench.ask("o9")
    other.sent()
    assert other.decision.why == "only one that can serve"
    first = Bench("a", "b", policy=PLAIN).ask()
    first.sent()
    assert first.decision.why == "first by priority"


# --- giving up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "kind", "give"),
    [
        pytest.param((hinted(LIMIT, 90), hinted(LIMIT, 40)), NobodyKind.LIMITED, 1, id="who frees soonest"),
        pytest.param((hinted(LIMIT, 40), hinted(LIMIT, 90)), NobodyKind.LIMITED, 0, id="who frees soonest, first"),
        pytest.param((hinted(LIMIT, 40), hinted(LIMIT, 40)), NobodyKind.LIMITED, 1, id="equal: the last"),
        pytest.param((hinted(LIMIT, 90), BAD_CREDENTIALS), NobodyKind.LIMITED, 0, id="429 before 401"),
        pytest.param((NO_ACCESS, hinted(LIMIT, 90)), NobodyKind.LIMITED, 1, id="429 before 403"),
        pytest.param((MISSING, hinted(LIMIT, 90)), NobodyKind.LIMITED, 1, id="429 before 400"),
        pytest.param((hinted(LIMIT, 90), OVERLOADED), NobodyKind.LIMITED, 1, id="an overload ends soon"),
        pytest.param((QUOTA, hinted(LIMIT, 90)), NobodyKind.LIMITED, 1, id="429 before 402"),
        pytest.param((QUOTA, QUOTA), NobodyKind.LIMITED, 1, id="402"),
        pytest.param((MISSING, MISSING), NobodyKind.NO_MODEL, 1, id="no model"),
        pytest.param((MISSING, BAD_CREDENTIALS), NobodyKind.NO_MODEL, 0, id="400 before 401"),
        pytest.param((NO_ACCESS, BAD_CREDENTIALS), NobodyKind.NO_ACCESS, 0, id="403 before 401"),
        pytest.param((BAD_CREDENTIALS, BAD_CREDENTIALS), NobodyKind.NEEDS_LOGIN, 1, id="401"),
    ],
)
def test_which_refusal_the_client_gets(outcomes, kind, give):
    """The one of the account that frees soonest; nothing final while waiting helps."""
    nobody = through(Bench("a", "b", policy=PLAIN), *outcomes).nobody()
    assert (nobody.kind, nobody.give) == (kind, give)
    assert nobody.why == "all accounts tried, all refused"


@pytest.mark.parametrize("outcome", [BAD_CREDENTIALS, NO_ACCESS, MISSING], ids=lambda outcome: f"{outcome.reason}")
def test_nothing_final_while_another_account_merely_rests(outcome):
    """A client never gets one account's 401, 403 or 400 while another frees by itself: it gets our own 429."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.refuse(hinted(LIMIT, 45), only="github.com:b")
    nobody = through(bench, outcome).nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after, nobody.free_at) == (
        NobodyKind.LIMITED, None, 45, START + 45,
    )  # fmt: skip
    assert nobody.why == "all accounts that could serve were tried, all refused"


def test_what_nothing_tried_comes_to():
    """Without a refusal to give back the error is our own; its kind says what helps."""

    def kind(*accounts, policy=PLAIN, ask=(), **changes):
        bench = Bench(*accounts, policy=policy, **changes)
        nobody = bench.ask(**dict(ask)).nobody()
        assert nobody.give is None
        assert nobody.why in ("no account can serve this now", "no account is stored")
        return nobody.kind

    assert kind() is NobodyKind.NO_ACCOUNTS
    assert kind(account("a", enabled=False)) is NobodyKind.UNAVAILABLE
    assert kind(account("a", block=("gpt",))) is NobodyKind.NO_MODEL
    assert kind("a", policy=replace(PLAIN, routes=(Route(("*",), ("b",)),))) is NobodyKind.NO_MODEL
    assert kind("a", policy=replace(PLAIN, preseed={"a": ()})) is NobodyKind.NO_MODEL
    assert kind("a", ask={"fence": "work"}) is NobodyKind.FENCED
    assert kind(account("a", fence="work")) is NobodyKind.FENCED
    assert kind("a", ask={"only": "github.com:gone"}) is NobodyKind.UNAVAILABLE
    assert kind(account("a", enabled=False), "b", balancing=False) is NobodyKind.UNAVAILABLE


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (LIMIT, NobodyKind.LIMITED), (QUOTA, NobodyKind.LIMITED), (NO_ACCESS, NobodyKind.NO_ACCESS),
        (BAD_CREDENTIALS, NobodyKind.NEEDS_LOGIN), (BLOCKED, NobodyKind.BLOCKED), (MISSING, NobodyKind.NO_MODEL),
    ],
    ids=lambda value: str(getattr(value, "reason", value)),
)  # fmt: skip
def test_the_next_request_gets_it_without_a_send(outcome, kind):
    """A client that comes back before the time is answered by us."""
    bench = Bench("a", policy=PLAIN)
    bench.refuse(outcome)
    nobody = bench.ask().nobody()
    assert (nobody.kind, nobody.give) == (kind, None)
    assert (nobody.retry_after is not None) == (kind is NobodyKind.LIMITED)


def test_a_turned_off_account_gives_back_what_it_said():
    """A refusal of an account that may not serve any more is still the answer to its request."""
    bench = Bench("a", policy=PLAIN)
    ask = through(bench, LIMIT)
    bench.edit("a", enabled=False)
    assert (ask.nobody().kind, ask.nobody().give) == (NobodyKind.UNAVAILABLE, 0)


def test_every_bar_comes_to_a_kind():
    """Whatever keeps an account from serving has its place among the kinds of nobody."""
    assert {bar for _, bars in _KINDS for bar in bars} == set(Exclusion)


def test_fences_are_never_crossed():
    """Under any failure a request stays inside its fence."""
    bench = Bench(account("a", fence="work"), "b", policy=PLAIN)
    for outcome in (LIMIT, FAULT, MISSING, BAD_CREDENTIALS):
        fresh = Bench(account("a", fence="work"), "b", policy=PLAIN)
        ask = fresh.ask(fence="work")
        assert ask.sent() == "a"
        ask.answered(outcome)
        decision = ask.assign()
        assert getattr(decision, "account_id", "github.com:a") == "github.com:a"
    assert bench.serve() == "b"


# --- nobody's fault ---------------------------------------------------------------------------------------------------


def test_refusals_far_apart_are_not_one_event():
    """A minute between two faults: each counts against its account."""
    bench = Bench("a", "b", policy=PLAIN)
    ask = through(bench, hinted(OVERLOADED, 60))
    ask.sent()
    bench.now += 61
    ask.answered(OVERLOADED)
    ask.nobody()
    assert bench.rest("b") == 10


def test_different_refusals_are_not_one_event():
    """An overload and a fault say something about each account."""
    bench = Bench("a", "b", policy=PLAIN)
    through(bench, OVERLOADED, FAULT).nobody()
    assert bench.rest("a") == 10


def test_an_event_needs_all_accounts():
    """While a third one might have served, two faults are their accounts'."""
    bench = Bench("a", "b", "c", policy=PLAIN)
    through(bench, OVERLOADED, OVERLOADED).nobody()
    assert (bench.rest("a"), bench.rest("b")) == (10, 10)


def test_limits_are_never_nobodys_fault():
    """However alike, each account has its own limit."""
    bench = Bench("a", "b", policy=PLAIN)
    through(bench, LIMIT, LIMIT).nobody()
    assert (bench.rest("a"), bench.rest("b")) == (60, 60)


def test_a_model_that_no_account_supports_stays_known():
    """Not the client's fault but the accounts': the next request is answered without a send."""
    bench = Bench("a", "b", policy=PLAIN)
    through(bench, MISSING, MISSING).nobody()
    assert bench.ask().nobody().kind is NobodyKind.NO_MODEL


def test_settled_accounts_do_not_speak_for_the_model():
    """An account that the user turned off is not waited for when nobody is to blame."""
    bench = Bench("a", account("b", enabled=False), policy=PLAIN)
    through(bench, INTEGRATOR).nobody()
    assert bench.view("a").lacks == {}


@pytest.mark.parametrize(
    ("rest", "quota", "given", "wait"),
    [
        pytest.param(30, 7200, None, 30, id="another frees sooner"),
        pytest.param(7200, 30, 0, 30, id="this one frees first"),
    ],
)
def test_a_used_up_quota_is_not_shown_while_another_frees_sooner(rest, quota, given, wait):
    """A client stops at a 402, so it gets our own limit instead when waiting for another account helps."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.refuse(hinted(LIMIT, rest), SERVED)
    ask = bench.ask()
    assert ask.sent() == "b"
    nobody = ask.answered(hinted(QUOTA, quota)).nobody()
    assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.LIMITED, given, wait)


def test_a_used_up_quota_whose_account_is_gone_is_not_shown():
    """Nobody knows when that one would be free."""
    bench = Bench("a", "b", policy=PLAIN)
    bench.refuse(hinted(LIMIT, 30), SERVED)
    ask = bench.ask()
    assert ask.sent() == "b"
    ask.answered(QUOTA)
    bench.decide(accounts=bench.decisions.accounts[:1])
    assert ask.nobody().give is None
