"""The pool's transactions: assign, record, finish, and what they remember."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.state import MAX_CONVERSATIONS, AccountState, Affinity, Cooldown, Memory, restored
from copilot_balancer.rules.types import SERVED, Attempt, Hold, NobodyKind, Policy, Route
from support.pools import (
    BAD_CREDENTIALS,
    BLOCKED,
    DAY,
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
    QUOTA,
    REQUEST,
    SESSION,
    START,
    WEEKLY,
    Bench,
    account,
    decisions,
    hinted,
)


def test_a_limited_account_hands_the_request_to_the_next():
    """The client of a limited account is served by the other one, and the next request does not ask the first."""
    bench = Bench("work", "home", policy=Policy(strategy="priority"))
    ask = bench.ask()
    assert ask.sent() == "work"
    ask.answered(LIMIT)
    assert ask.sent() == "home"
    ask.answered(SERVED).over()

    assert [bench.serve() for _ in range(3)] == ["home"] * 3
    bench.now += MINUTE
    assert bench.serve() == "work"


def test_each_account_is_asked_once():
    """A request asks each account at most once, then gets the refusal of the one that frees soonest."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    ask.answered(hinted(LIMIT, 500))
    ask.sent()
    ask.answered(hinted(LIMIT, 900))
    nobody = ask.nobody()

    assert (nobody.kind, nobody.give, nobody.free_at) == (NobodyKind.LIMITED, 0, START + 500)
    assert nobody.retry_after == 60
    assert nobody.why == "all accounts tried, all refused"


def test_a_burst_counts_once():
    """Twenty simultaneous 429s raise the ladder once; one that began after it raises it again."""
    bench = Bench("work")
    burst = [bench.ask() for _ in range(20)]
    for ask in burst:
        ask.sent()
    bench.now += 1
    for ask in burst:
        ask.answered(LIMIT).over()
    assert bench.rest("work") == 60

    bench.now += 60
    bench.refuse(LIMIT)
    assert bench.rest("work") == 120


def test_a_late_success_clears_nothing():
    """A success of a request that began before a cooldown does not end it; one that began after does."""
    bench = Bench("work")
    early, limited = bench.ask(), bench.ask()
    early.sent()
    limited.sent()
    bench.now += 1
    limited.answered(hinted(LIMIT, 2 * HOUR))
    bench.now += 1
    early.answered(SERVED)
    assert bench.rest("work") == 2 * HOUR - 1

    bench.now += 2 * HOUR
    bench.serve()
    assert bench.pool.memory(bench.now).accounts["github.com:work"].cooldowns == []


def test_evidence_about_an_older_credential_is_ignored():
    """A refusal that arrives after the user logged in again says nothing about the new token."""
    bench = Bench("work")
    ask = bench.ask()
    ask.sent()
    bench.edit("work", token=account("work", token="gho_new-canary").token)
    ask.answered(BAD_CREDENTIALS).over()

    assert bench.serve() == "work"
    assert bench.view("work").refused == 0


def test_a_new_credential_forgets_what_was_known_about_the_old_one():
    """A new token ends NEEDS_LOGIN and the models that the old one lacked; the cooldown of the account stays."""
    bench = Bench("work", "home")
    bench.refuse(MISSING, MISSING, model="o9")
    bench.refuse(BAD_CREDENTIALS, LIMIT)
    assert bench.view("work").status == "needs login"

    bench.edit("work", token=account("work", token="gho_new-canary").token)
    assert bench.view("work").status == "ready"
    assert bench.serve("o9") == "work"
    assert bench.rest("home") == 60


@pytest.mark.parametrize("refusal", [FAULT, OVERLOADED], ids=["transient", "overloaded"])
def test_nobody_is_to_blame_when_all_fail_alike(refusal):
    """When every account fails for the same passing reason, what the request marked is taken back."""
    bench = Bench("a", "b")
    for _ in range(4):
        ask = bench.ask()
        for _ in range(2):
            ask.sent()
            ask.answered(refusal)
        nobody = ask.nobody()
        ask.over()
        assert nobody.give == 1
        assert nobody.retry_after is None

    assert bench.rest("a") is None
    assert bench.rest("b") is None
    assert [view.health for view in bench.pool.snapshot(bench.now).accounts] == [1.0, 1.0]


def test_an_overloaded_model_rests_where_it_was_refused():
    """After one account's overload the next requests ask another one for ten seconds, for that model only."""
    bench = Bench("a", "b")
    bench.refuse(OVERLOADED, SERVED)

    assert bench.rest("a") == 10
    assert bench.rest("a", "other") is None


def test_a_model_that_the_integrator_may_not_use_blames_nobody_when_all_say_so():
    """All accounts refuse a model for the client's sake: the answer is passed down and nothing is remembered."""
    bench = Bench("a", "b")
    for _ in range(2):
        ask = bench.ask("o9")
        for _ in range(2):
            ask.sent()
            ask.answered(INTEGRATOR)
        nobody = ask.nobody()
        ask.over()
        assert (nobody.kind, nobody.give) == (NobodyKind.NO_MODEL, 1)
    assert [view.lacks for view in bench.pool.snapshot(bench.now).accounts] == [{}, {}]


def test_a_model_stays_marked_while_somebody_was_not_asked():
    """An integrator's refusal counts against its account while another one merely rests."""
    bench = Bench("a", "b")
    bench.refuse(hinted(LIMIT, HOUR), SERVED)
    bench.refuse(INTEGRATOR, model="o9").nobody()

    assert list(bench.view("b").lacks) == ["o9"]


def test_what_was_taken_back_after_a_removal_harms_nothing():
    """An account that was removed while its requests were under way is not missed."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    ask.answered(FAULT)
    assert ask.sent() == "b"
    kept = tuple(one for one in bench.decisions.accounts if one.label == "b")
    bench.decide(accounts=kept, removed={"github.com:a": bench.now})
    ask.answered(FAULT)
    assert ask.nobody().give == 1
    ask.over()


def test_a_request_of_a_removed_account_ends_quietly():
    """The account vanished between the send and the answer: nothing is learnt, nothing stays in flight."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    bench.decide(accounts=bench.decisions.accounts[1:], removed={"github.com:a": bench.now})
    ask.answered(LIMIT)
    assert ask.sent() == "b"
    ask.over()
    ask.over()

    assert bench.pool.snapshot(bench.now).requests == 0
    assert bench.view("b").in_flight == 0


def test_a_removed_account_that_still_flies_ends_quietly_too():
    """The client leaves while its account is already gone."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    bench.decide(accounts=bench.decisions.accounts[1:])
    ask.over()

    assert bench.serve() == "b"


# --- in flight --------------------------------------------------------------------------------------------------------


def test_an_account_is_busy_until_its_stream_ends():
    """In flight: from the send to the end of a success, or to the refusal."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    assert bench.view("a").in_flight == 1
    ask.answered(LIMIT)
    assert bench.view("a").in_flight == 0
    ask.sent()
    ask.answered(SERVED)
    assert bench.view("b").in_flight == 1
    ask.over()
    assert bench.view("b").in_flight == 0


def test_a_second_send_without_an_answer_moves_the_request():
    """Assigned again without a record (the send never happened), the first account is free again."""
    bench = Bench("a")
    ask = bench.ask()
    ask.sent()
    ask.sent()
    assert bench.view("a").in_flight == 1


def test_an_old_attempt_says_nothing_about_the_flight_of_a_newer_one():
    """A late record of the first attempt leaves the second one in flight."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    first = ask.decision
    ask.answered(LIMIT)
    ask.sent()
    bench.pool.record(first, LIMIT, bench.now)
    assert bench.view("b").in_flight == 1


def test_a_record_without_a_request_is_learnt_all_the_same():
    """What the home account said to /models was never assigned; a dead credential is noted."""
    bench = Bench("a", "b")
    attempt = Attempt("models", 1, "github.com:a", account("a").fingerprint, None, "home account", bench.now)
    bench.pool.record(attempt, BAD_CREDENTIALS, bench.now)
    assert bench.view("a").status == "needs login"


def test_twenty_at_once_over_four_equal_accounts_are_five_each():
    """Requests of one instant spread evenly over equal accounts."""
    for strategy in ("hybrid", "round-robin", "quota"):
        bench = Bench("a", "b", "c", "d", policy=Policy(strategy=strategy))
        assert Counter(bench.ask().sent() for _ in range(20)) == {"a": 5, "b": 5, "c": 5, "d": 5}, strategy


def test_a_hundred_refused_at_once_spread_over_the_others():
    """A hundred simultaneous 429s of one account: one cooldown, and the others' loads differ by at most one."""
    bench = Bench("a", "b", "c", "d", policy=Policy(strategy="priority"))
    asks = [bench.ask() for _ in range(100)]
    assert {ask.sent() for ask in asks} == {"a"}
    bench.pool.set_policy(Policy())
    for ask in asks:
        ask.answered(LIMIT)
    load = Counter(ask.sent() for ask in asks)

    assert sorted(load.values()) == [33, 33, 34]
    assert bench.rest("a") == 60


# --- conversations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["hybrid", "sticky", "round-robin", "priority", "quota"])
def test_a_conversation_stays_with_its_account(strategy):
    """Whatever the strategy, a conversation keeps its account while that one may serve."""
    bench = Bench("a", "b", "c", policy=Policy(strategy=strategy))
    first = {name: bench.serve(conversation=name) for name in "uvwxyz"}
    for _ in range(3):
        bench.now += 10
        assert {name: bench.serve(conversation=name) for name in "zyxwvu"} == first


def test_a_conversation_moves_on_refusal_and_stays_there():
    """A refused conversation goes on with the next account, also after the first one has healed."""
    bench = Bench("a", "b")
    ask = bench.ask(conversation="talk")
    assert ask.sent() == "a"
    ask.answered(LIMIT)
    assert ask.sent() == "b"
    assert ask.decision.why == "only one that can serve"
    ask.answered(SERVED).over()
    bench.now += HOUR / 2

    assert bench.serve(conversation="talk") == "b"


def test_a_conversation_keeps_its_account_for_the_models_that_it_has():
    """A model that the account lacks goes elsewhere and stays there; the other models stay."""
    bench = Bench("a", "b")
    assert bench.serve(conversation="talk") == "a"
    ask = bench.ask("o9", conversation="talk")
    assert ask.sent() == "a"
    ask.answered(MISSING)
    assert ask.sent() == "b"
    ask.answered(SERVED).over()

    assert bench.serve("gpt", conversation="talk") == "a"
    bench.now += MINUTE
    assert bench.serve("o9", conversation="talk") == "b"
    assert bench.serve("gpt", conversation="talk") == "a"


def test_a_conversation_returns_when_its_second_home_fails():
    """A model's own place in a conversation is given up for the conversation's account once that may serve it."""
    bench = Bench("a", "b")
    bench.serve(conversation="talk")
    ask = bench.ask("o9", conversation="talk")
    ask.sent()
    ask.answered(MISSING)
    ask.sent()
    ask.answered(SERVED).over()
    bench.now += MINUTE
    again = bench.ask("o9", conversation="talk")
    assert again.sent() == "b"
    again.answered(LIMIT)
    assert again.sent() == "a"
    assert again.decision.why == "same conversation"
    again.answered(SERVED).over()
    bench.now += MINUTE

    assert bench.serve("o9", conversation="talk") == "a"


def test_a_conversation_of_a_removed_account_moves():
    """Nothing keeps a conversation with an account that is gone."""
    bench = Bench("a", "b")
    bench.serve(conversation="talk")
    bench.decide(accounts=bench.decisions.accounts[1:])
    assert bench.serve(conversation="talk") == "b"


def test_a_conversation_forgets_its_account_in_time():
    """After its time without a request a conversation is a new one; with 0 every request is."""
    bench = Bench("a", "b", policy=Policy(strategy="round-robin", affinity=100))
    assert bench.serve(conversation="talk") == "a"
    bench.now += 99
    assert bench.serve(conversation="talk") == "a"
    bench.now += 100
    assert bench.serve(conversation="talk") == "b"
    assert bench.pool.snapshot(bench.now).conversations == 1
    bench.now += 100
    assert bench.pool.memory(bench.now).conversations == {}

    bench.pool.set_policy(Policy(strategy="round-robin", affinity=0))
    assert [bench.serve(conversation="other") for _ in range(4)] == ["a", "b", "a", "b"]


def test_conversations_are_bounded():
    """The least recently used conversation is forgotten first."""
    bench = Bench("a")
    for number in range(MAX_CONVERSATIONS):
        bench.serve(conversation=f"c{number}")
    bench.serve(conversation="c0")
    bench.serve(conversation="new")
    kept = bench.pool.memory(bench.now).conversations

    assert len(kept) == MAX_CONVERSATIONS
    assert "c0" in kept
    assert "c1" not in kept


# --- strategies, as the pool uses them -------------------------------------------------------------------------------


def test_round_robin_is_exact():
    """Three accounts, three hundred new conversations: a hundred each."""
    bench = Bench("a", "b", "c", policy=Policy(strategy="round-robin"))
    assert Counter(bench.serve(conversation=f"c{n}") for n in range(300)) == {"a": 100, "b": 100, "c": 100}


def test_round_robin_by_weight():
    """An account of weight 2 gets twice as many new conversations."""
    bench = Bench(account("a", weight=2.0), "b", policy=Policy(strategy="round-robin"))
    assert Counter(bench.serve(conversation=f"c{n}") for n in range(300)) == {"a": 200, "b": 100}


def test_round_robin_does_not_catch_up():
    """An account that rested gets its share from now on, not what it missed."""
    bench = Bench("a", "b", policy=Policy(strategy="round-robin"))
    bench.refuse(LIMIT, SERVED)
    assert [bench.serve() for _ in range(20)] == ["b"] * 20
    bench.now += MINUTE
    assert Counter(bench.serve() for _ in range(20)) == {"a": 11, "b": 9}, "one turn ahead, for the one it is behind"


def test_sticky_stays_until_it_cannot():
    """New conversations go to the account that was used last, until it is limited."""
    bench = Bench("a", "b", policy=Policy(strategy="sticky"))
    assert [bench.serve(conversation=str(n)) for n in range(3)] == ["a"] * 3
    ask = bench.ask()
    ask.sent()
    bench.now += 1
    ask.answered(LIMIT)
    ask.sent()
    ask.answered(SERVED).over()
    bench.now += HOUR
    assert [bench.serve(conversation=f"later {n}") for n in range(3)] == ["b"] * 3


def test_hybrid_spares_who_alone_has_another_model():
    """The account that alone has a model in use serves the common ones only when the others cannot."""
    bench = Bench("a", "b")
    bench.refuse(MISSING, MISSING, model="o9")
    bench.now += MINUTE
    bench.pool.learn_models("github.com:a", ["gpt", "o9"], bench.now)
    assert [bench.serve() for _ in range(6)] == ["b"] * 6
    assert bench.serve("o9") == "a"
    bench.refuse(LIMIT, SERVED)
    assert bench.serve() == "a"


def test_the_policy_must_name_a_strategy_that_exists():
    """A wrong strategy is refused at start and at run time; the old policy stays."""
    with pytest.raises(InvalidInput, match="hybrid, sticky, round-robin, priority, quota"):
        Pool(Policy(strategy="best"), decisions("a"), START)
    bench = Bench("a")
    with pytest.raises(InvalidInput):
        bench.pool.set_policy(Policy(strategy="best"))
    assert bench.pool.snapshot(bench.now).strategy == "hybrid"


# --- rests ------------------------------------------------------------------------------------------------------------


def test_a_healed_account_is_used_at_its_deadline():
    """Never earlier than told, and again at the very moment."""
    bench = Bench("a")
    bench.refuse(hinted(LIMIT, 90))
    bench.now += 89.999
    assert bench.ask().nobody().retry_after == 1
    bench.now = START + 90
    assert bench.serve() == "a"


def test_a_shorter_limit_never_replaces_a_longer():
    """Two answers of one burst: the later deadline holds, whichever came first."""
    for hints in ((900, 5), (5, 900)):
        bench = Bench("a")
        asks = [bench.ask(), bench.ask()]
        for ask in asks:
            ask.sent()
        for ask, hint in zip(asks, hints, strict=True):
            ask.answered(hinted(LIMIT, hint)).over()
        assert bench.rest("a") == 900


def test_one_probe_after_a_long_rest():
    """Fifty requests wait at the end of a long rest: one goes first, the others after its answer."""
    bench = Bench("a")
    bench.refuse(hinted(LIMIT, HOUR))
    bench.now += HOUR
    asks = [bench.ask() for _ in range(50)]
    assert asks[0].sent() == "a"
    assert asks[0].decision.probe
    assert asks[0].decision.why == "only one that can serve, first after its rest"
    assert [ask.held() for ask in asks[1:]] == [0.5] * 49
    asks[0].answered(SERVED)
    bench.now += 0.5

    assert [ask.sent() for ask in asks[1:]] == ["a"] * 49
    assert not any(ask.decision.probe for ask in asks[1:])


def test_a_probe_leaves_the_others_to_the_other_accounts():
    """While one request probes a healed account the others are served elsewhere."""
    bench = Bench("a", "b", policy=Policy(strategy="priority"))
    bench.refuse(hinted(LIMIT, HOUR), SERVED)
    bench.now += HOUR
    asks = [bench.ask() for _ in range(50)]
    assert [ask.sent() for ask in asks] == ["a"] + ["b"] * 49


@pytest.mark.parametrize("ending", ["refused", "left", "lost"])
def test_a_probe_that_fails_makes_room_for_the_next(ending):
    """A refused probe begins another rest; one whose client left, or that hangs for two minutes, lets another go."""
    bench = Bench("a")
    bench.refuse(hinted(LIMIT, HOUR))
    bench.now += HOUR
    probe, waiting = bench.ask(), bench.ask()
    probe.sent()
    assert waiting.held() == 0.5
    if ending == "refused":
        probe.answered(hinted(LIMIT, HOUR)).over()
        assert waiting.nobody().kind is NobodyKind.LIMITED
        bench.now += HOUR
        assert bench.ask().sent() == "a"
        return
    if ending == "left":
        probe.over()
    else:
        bench.now += 120
    assert waiting.sent() == "a"
    assert waiting.decision.probe


def test_a_model_is_asked_for_again_by_one():
    """When a refusal of a model runs out, one request finds out whether the account has it now."""
    bench = Bench("a", "b", policy=Policy(strategy="priority"))
    bench.refuse(MISSING, SERVED, model="o9")
    bench.now += 30
    bench.refuse(MISSING, SERVED, model="o9")
    assert bench.serve("o9") == "b"
    bench.now += 15 * MINUTE
    asks = [bench.ask("o9") for _ in range(5)]
    assert [ask.sent() for ask in asks] == ["a", "b", "b", "b", "b"]
    asks[0].answered(SERVED)
    assert bench.serve("o9") == "a"


def test_waiting_for_the_first_that_frees():
    """With a patience set, a request is held until the first account frees; beyond it, it is not."""
    bench = Bench("a", "b", policy=Policy(wait=30))
    bench.refuse(hinted(LIMIT, 20), hinted(LIMIT, 25))
    waiting = bench.ask()
    assert waiting.held() == 20
    bench.now += 20
    assert waiting.sent() == "a"

    bench.pool.set_policy(Policy(wait=4))
    assert bench.ask().sent() == "a"
    bench.refuse(hinted(LIMIT, 5))
    assert bench.ask().nobody().retry_after == 5


def test_a_refused_request_waits_for_its_only_account():
    """With a patience set, the only account is asked once more after the rest that it asked for."""
    bench = Bench("a", policy=Policy(wait=30))
    ask = bench.ask()
    ask.sent()
    ask.answered(hinted(LIMIT, 20))
    assert ask.held() == 20
    bench.now += 20
    assert ask.sent() == "a"
    assert ask.decision.repair
    ask.answered(hinted(LIMIT, 20))
    assert ask.nobody().give == 1


def test_a_burst_limit_of_two_seconds_is_waited_for():
    """A session limit that ends within two seconds is waited for on the same account when no other is free."""
    bench = Bench("a")
    ask = bench.ask()
    ask.sent()
    ask.answered(hinted(SESSION, 2))
    assert ask.held() == 2
    bench.now += 2
    assert ask.sent() == "a"
    ask.answered(SERVED).over()

    other = Bench("a", "b")
    ask = other.ask()
    ask.sent()
    ask.answered(hinted(SESSION, 2))
    assert ask.sent() == "b"


def test_no_hold_beyond_the_deadline():
    """One deadline covers all waiting of a request."""
    bench = Bench("a", policy=Policy(wait=100, deadline=50))
    bench.refuse(hinted(LIMIT, 60))
    assert bench.ask().nobody().retry_after == 60


# --- the user's decisions ---------------------------------------------------------------------------------------------


def test_only_the_first_serves_until_the_terms_are_accepted():
    """A second account changes nothing before the user has accepted the terms."""
    bench = Bench("a", "b", terms_accepted_at=None)
    ask = bench.ask()
    assert ask.sent() == "a"
    ask.answered(LIMIT)
    nobody = ask.nobody()
    assert nobody.give == 0
    assert nobody.accounts[1].reason == "waits for the terms to be accepted"

    bench.decide(terms_accepted_at=START)
    assert bench.serve() == "b"


def test_balancing_off_gives_the_refusal_back():
    """Off: the home account serves every request, its refusals reach the client, and its rests are not kept."""
    bench = Bench("a", "b", balancing=False, home_id="github.com:b")
    for _ in range(2):
        ask = bench.ask(conversation="talk")
        assert ask.sent() == "b"
        assert ask.decision.why == "balancing is off"
        ask.answered(LIMIT)
        nobody = ask.nobody()
        ask.over()
        assert (nobody.kind, nobody.give, nobody.retry_after) == (NobodyKind.NOT_RETRIED, 0, None)
        assert nobody.why == "not retried, because balancing is off"
    assert bench.pool.memory(bench.now).conversations == {}


def test_a_disabled_account_gets_nothing():
    """From the next request on."""
    bench = Bench("a", "b")
    bench.edit("a", enabled=False)
    assert {bench.serve() for _ in range(5)} == {"b"}
    bench.edit("b", enabled=False)
    assert bench.ask().nobody().kind is NobodyKind.UNAVAILABLE


def test_a_block_stops_everything_until_the_user_turns_it_on():
    """An abuse block is passed down without failover; the account is off until the user enables it again."""
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    ask.answered(BLOCKED)
    nobody = ask.nobody()
    ask.over()
    assert (nobody.kind, nobody.give) == (NobodyKind.BLOCKED, 0)
    assert nobody.why == "not retried, because GitHub blocked this account"
    assert {bench.serve() for _ in range(3)} == {"b"}
    assert bench.view("a").status == "disabled"
    assert bench.view("a").why_not.startswith("was blocked by GitHub (Access to this endpoint is forbidden")

    bench.now += 10
    bench.edit("a", enabled_at=1.0)  # the wall clock may have been set back: the edit itself counts
    assert bench.view("a").status == "ready"


def test_a_dead_credential_waits_for_a_login_or_for_the_user():
    """NEEDS_LOGIN ends with a new token, or when the user clears the account."""
    bench = Bench("a", "b")
    bench.refuse(BAD_CREDENTIALS, SERVED)
    bench.now += DAY
    assert bench.serve() == "b"
    bench.edit("a", cleared={"": 5.0})
    assert bench.view("a").status == "ready"


def test_clearing_by_hand_ends_what_began_before():
    """A clear of the account ends all of it, a clear of one model only that; attempts under way do not undo it."""
    bench = Bench("a")
    asks = [bench.ask() for _ in range(3)]
    for ask in asks:
        ask.sent()
    asks[0].answered(LIMIT)
    asks[1].answered(hinted(MODEL_LIMIT, 600))
    assert bench.rest("a") == 600
    bench.now += 1
    bench.edit("a", cleared={"gpt": START + 1})
    assert bench.rest("a") == 59
    bench.now += 1
    bench.edit("a", cleared={"gpt": START + 1, "": START + 2})
    assert bench.rest("a") is None
    asks[2].answered(LIMIT)
    assert bench.rest("a") is None
    bench.now += 1
    bench.refuse(LIMIT)
    assert bench.rest("a") == 60


def test_a_clear_survives_the_other_proxys_memory():
    """A cooldown that was cleared does not come back with another program's copy of it."""
    bench = Bench("a")
    bench.refuse(hinted(LIMIT, HOUR))
    theirs = bench.pool.memory(bench.now)
    bench.now += 1
    bench.edit("a", cleared={"": 7.0})
    bench.pool.remember(theirs, bench.now)
    assert bench.rest("a") is None


def test_a_clear_before_the_start_is_kept():
    """A restarted proxy compares the user's stamp with when each cooldown began."""
    bench = Bench("a", "b")
    bench.refuse(hinted(LIMIT, HOUR), hinted(LIMIT, HOUR))
    memory = bench.pool.memory(bench.now)
    bench.now += 10
    pool = Pool(Policy(), decisions(account("a", cleared={"": START + 5, "gpt": START + 5}), "b"), bench.now)
    pool.remember(memory, bench.now)
    assert pool.cooldown_left("github.com:a", "gpt", bench.now) is None
    assert pool.cooldown_left("github.com:b", "gpt", bench.now) == HOUR - 10


@pytest.mark.parametrize("jump", [-DAY, DAY, -10 * 365 * DAY])
def test_a_block_ends_by_the_user_alone(jump):
    """An enabling that was there before the block does not end it, however the clock jumps between restarts."""
    account_ = account("a", enabled_at=START - 5)
    bench = Bench(account_)
    bench.refuse(BLOCKED)
    now = bench.now + jump
    after = Pool(Policy(), decisions(account_), now)
    after.remember(restored(bench.pool.memory(bench.now), now), now)
    assert after.snapshot(now).accounts[0].status == "disabled"
    after.replace(decisions(account_.model_copy(update={"enabled_at": now})), now)
    assert after.snapshot(now).accounts[0].status == "ready"


def test_a_stamp_from_the_future_is_not_believed():
    """When the clock was set back, an old clear does not end what begins now."""
    later = account("a", cleared={"": START + DAY}, enabled_at=START + DAY)
    bench = Bench(later, "b")
    bench.refuse(hinted(LIMIT, HOUR), SERVED)
    bench.pool.remember(bench.pool.memory(bench.now), bench.now)
    assert bench.rest("a") == HOUR
    bench.refuse(BLOCKED)
    assert bench.view("b").status == "disabled"
    other = Bench(later)
    other.refuse(BLOCKED)
    assert other.view("a").status == "disabled"


def test_a_removed_account_is_forgotten_and_others_are_not():
    """A removal drops that account's state, and another proxy's memory does not bring it back."""
    bench = Bench("a", "b")
    bench.refuse(hinted(LIMIT, HOUR), hinted(LIMIT, 2 * HOUR))
    theirs = bench.pool.memory(bench.now)
    bench.decide(accounts=bench.decisions.accounts[1:], removed={"github.com:a": bench.now})
    bench.pool.remember(theirs, bench.now)
    assert list(bench.pool.memory(bench.now).accounts) == ["github.com:b"]
    assert bench.rest("b") == 2 * HOUR
    assert bench.rest("a") is None


# --- what is learnt elsewhere -----------------------------------------------------------------------------------------


def test_a_model_list_contradicts_at_once():
    """An account's own list ends a refusal of a model that it names."""
    bench = Bench("a", "b")
    bench.refuse(MISSING, SERVED, model="o9")
    assert bench.serve("o9") == "b"
    bench.pool.learn_models("github.com:a", ["o9"], bench.now)
    assert bench.ask("o9").sent() == "a"
    bench.pool.learn_models("github.com:gone", ["o9"], bench.now)


def test_included_models_stay_allowed_when_the_quota_is_used_up():
    """A 402 keeps the models that cost; one that the list calls free is served, and its success proves nothing."""
    bench = Bench("a")
    bench.pool.learn_models("github.com:a", ["gpt", "mini"], bench.now, included=["mini"])
    bench.refuse(QUOTA)
    assert bench.ask().nobody().kind is NobodyKind.LIMITED
    assert bench.serve("mini") == "a"
    assert bench.rest("a", "gpt") == HOUR
    bench.now += HOUR
    assert bench.serve("mini") == "a"
    assert bench.ask("gpt").sent() == "a"


def test_quota_is_remembered_by_its_age():
    """A window that was seen earlier does not replace a newer one; unknown accounts are ignored."""
    bench = Bench("a")
    bench.ask()
    window = QuotaWindow(70.0, seen_at=START)
    ask = bench.ask()
    ask.sent()
    ask.answered(SERVED, premium=window)
    bench.pool.learn_quota("github.com:a", {"premium": QuotaWindow(90.0, seen_at=START - 1)})
    bench.pool.learn_quota("github.com:gone", {"premium": window})
    assert bench.view("a").quota == {"premium": window}


def test_the_version_rises_with_what_is_worth_keeping():
    """Each change that should reach the disk raises the version; questions do not."""
    bench = Bench("a", "b")
    pool, seen = bench.pool, []

    def changed(what):
        seen.append(pool.version)
        what()
        return pool.version > seen[-1]

    ask = bench.ask()
    assert changed(ask.sent)
    assert changed(lambda: ask.answered(FAULT))
    assert changed(ask.sent)
    assert changed(lambda: ask.answered(FAULT))
    assert changed(ask.nobody), "marks were taken back"
    assert changed(lambda: pool.learn_models("github.com:a", ["gpt"], START))
    assert changed(lambda: pool.learn_quota("github.com:a", {}))
    assert changed(lambda: bench.edit("a", priority=3))
    for question in (
        lambda: pool.explain("gpt", None, START),
        lambda: pool.snapshot(START),
        lambda: pool.memory(START),
        lambda: pool.home(START),
        lambda: pool.remember(Memory(), START),
        ask.over,
    ):
        assert not changed(question)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_survives_a_restart():
    """A restarted pool knows the rests, the models, the conversations and the turns."""
    bench = Bench("a", "b", "c", policy=Policy(strategy="round-robin"))
    bench.serve(conversation="x")
    bench.serve(conversation="y")
    bench.refuse(hinted(LIMIT, HOUR), SERVED)
    bench.refuse(MISSING, SERVED, model="o9")
    pool = bench.restarted()

    assert pool.memory(bench.now) == bench.pool.memory(bench.now)
    for model, conversation in (("gpt", "x"), ("gpt", "y"), ("gpt", None), ("o9", None)):
        expected = bench.pool.explain(model, conversation, bench.now)
        assert pool.explain(model, conversation, bench.now) == expected


def test_memory_is_a_copy():
    """What happens later is not seen in a memory that was taken before."""
    bench = Bench("a")
    bench.refuse(FAULT, conversation="talk")
    memory = bench.pool.memory(bench.now)
    before = repr(memory)
    bench.refuse(MISSING, model="o9")
    bench.refuse(LIMIT, conversation="other")
    assert repr(memory) == before


def test_two_proxies_learn_from_each_other():
    """Another proxy's newer conversation and longer rest count; its older ones do not."""
    bench = Bench("a", "b")
    bench.serve(conversation="mine")
    theirs = Memory(
        {
            "github.com:a": AccountState(cooldowns=[Cooldown(START, START + 500, "limit")]),
            "github.com:x": AccountState(),
        },
        {"mine": Affinity("github.com:b", START - 5), "theirs": Affinity("github.com:b", START - 1)},
    )
    bench.pool.remember(theirs, bench.now)
    assert bench.rest("a") == 500
    merged = bench.pool.memory(bench.now)
    assert list(merged.conversations) == ["theirs", "mine"]
    assert merged.conversations["mine"].account_id == "github.com:a"
    assert "github.com:x" in merged.accounts, "another proxy may know an account that we do not know yet"


def test_a_memory_about_an_older_token_tells_nothing_about_this_one():
    """Models and refusals that were learnt with another credential are left out; cooldowns are the account's."""
    old = Bench(account("a", token="gho_old-canary"), "b")
    old.refuse(MISSING, SERVED, model="o9")
    old.refuse(LIMIT, SERVED)
    old.refuse(BAD_CREDENTIALS)
    new = Bench("a", "b")
    new.pool.remember(old.pool.memory(START), START)

    assert new.view("a").lacks == {}
    assert new.view("a").status == "cooling"
    assert new.view("b").status == "needs login"


# --- questions --------------------------------------------------------------------------------------------------------


def test_the_home_account_answers_what_only_one_may():
    """The home account, else the first that can; never one of another fence."""
    bench = Bench("a", "b", account("c", fence="work"), home_id="github.com:b")
    assert bench.pool.home(START).label == "b"
    assert bench.pool.home(START, "work").label == "c"
    assert bench.pool.home(START, "other") is None
    assert bench.pool.home(START, without=["github.com:b"]).label == "a"
    bench.edit("b", enabled=False)
    assert bench.pool.home(START).label == "a"


def test_how_long_an_account_still_rests():
    """Seconds for which it is not asked, or None."""
    bench = Bench("a")
    assert bench.rest("a") is None
    bench.refuse(WEEKLY)
    bench.now += 60
    assert bench.rest("a") == HOUR - 60
    assert bench.rest("gone") is None
    other = Bench("a", policy=Policy(preseed={"a": ("gpt*",)}))
    other.refuse(MISSING)
    assert other.rest("a") == 30, "or is known not to have the model"
    assert other.rest("a", "claude") is None, "what the user wrote does not end by itself"


def test_a_preseeded_account_is_not_asked_for_other_models():
    """What the user wrote about an account's models counts until its own list says otherwise."""
    bench = Bench("a", "b", policy=Policy(preseed={"a": ("claude*",)}))
    assert bench.serve("gpt") == "b"
    assert bench.serve("claude-x") == "a"
    bench.pool.learn_models("github.com:a", ["gpt"], bench.now)
    bench.edit("b", enabled=False)
    assert bench.serve("gpt") == "a"
    bench.pool.set_policy(Policy(preseed={"a": ()}))
    assert bench.ask("claude-y").nobody().kind is NobodyKind.NO_MODEL


def test_a_route_changes_the_model_only_as_written():
    """A model falls back only where the user wrote it, loudly, and only when nobody can serve the one asked for."""
    route = Route(("gpt*",), ("b", "a"), ("mini",))
    bench = Bench("a", "b", policy=Policy(routes=(route,)))
    assert bench.serve() == "b"
    bench.refuse(hinted(MODEL_LIMIT, HOUR), hinted(MODEL_LIMIT, HOUR))
    ask = bench.ask(conversation="talk")
    assert ask.sent() == "b"
    assert ask.decision.model == "mini"
    assert ask.decision.why == "MODEL CHANGED to mini, as your route says: nobody can serve gpt"
    bench.pool.set_policy(Policy(routes=(replace(route, fallback=()),)))
    assert bench.ask().nobody().kind is NobodyKind.LIMITED


def test_the_same_calls_give_the_same_decisions():
    """Two pools that are told the same decide the same, bit for bit."""

    def story():
        bench, seen = Bench("a", "b", "c", policy=Policy(wait=10)), []
        for number in range(60):
            bench.now += number * 0.37
            ask = bench.ask(model=f"m{number % 3}", conversation=f"c{number % 7}")
            for outcome in (FAULT, hinted(LIMIT, 7), MISSING, SERVED)[number % 4 :]:
                seen.append(ask.assign())
                if isinstance(ask.decision, Attempt):
                    ask.answered(outcome)
                elif isinstance(ask.decision, Hold):
                    bench.now = ask.decision.until
            ask.over()
        return repr(seen), repr(bench.pool.memory(bench.now))

    assert story() == story()


@pytest.mark.parametrize(
    ("outcomes", "kind", "status_words"),
    [
        pytest.param((MISSING, MISSING), NobodyKind.NO_MODEL, False, id="no model"),
        pytest.param((BAD_CREDENTIALS, BAD_CREDENTIALS), NobodyKind.NEEDS_LOGIN, False, id="needs login"),
        pytest.param((NO_ACCESS, NO_ACCESS), NobodyKind.NO_ACCESS, False, id="no access"),
        pytest.param((LIMIT, SESSION), NobodyKind.LIMITED, True, id="limited"),
        pytest.param((REQUEST,), NobodyKind.NOT_RETRIED, False, id="request"),
        pytest.param((EXPIRED, EXPIRED, EXPIRED), NobodyKind.NEEDS_LOGIN, False, id="a direct token expired"),
    ],
)
def test_words_that_make_clients_ask_again_stand_only_where_waiting_helps(outcomes, kind, status_words):
    """Clients decide by a pattern over the text (docs/clients.md#after-a-refusal): it must not match where waiting is of no use."""
    from copilot_balancer.rules.types import sentences

    bench = Bench("a", "b")
    ask = bench.ask()
    for outcome in outcomes:
        ask.sent()
        ask.answered(outcome)
    first = ask.nobody()
    ask.over()
    assert first.kind is kind
    nobody = bench.ask().assign()
    told = [] if isinstance(nobody, Attempt) else sentences(nobody, bench.now)
    text = " ".join(told)
    again = r"429|500|502|503|504|524|rate limit|overloaded|service unavailable|connection refused"
    assert bool(re.search(again, text)) == status_words
    assert not re.search("too long|exceed|maximum|token limit|context", text)


def test_what_an_account_may_have():
    """A model that it could be asked for in better times: only a refusal, a pattern or its removal speaks against it."""
    bench = Bench("a", "b")
    assert bench.pool.may_have("github.com:a", "gpt", bench.now)
    bench.refuse(hinted(LIMIT, 30), only="github.com:a")
    assert bench.pool.may_have("github.com:a", "gpt", bench.now), "a rest ends"
    bench.refuse(MISSING, only="github.com:b")
    assert not bench.pool.may_have("github.com:b", "gpt", bench.now)
    bench.edit("a", block=("gpt",))
    assert not bench.pool.may_have("github.com:a", "gpt", bench.now)
    assert not bench.pool.may_have("github.com:gone", "gpt", bench.now)
