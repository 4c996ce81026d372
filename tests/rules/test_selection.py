"""Who may serve a request, best first."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.eligibility import PoolAccount
from copilot_balancer.rules.ranking import (
    STRATEGIES,
    PoolState,
    Ranked,
    affinity_keys,
    bar,
    best,
    named,
    ranked,
    route_of,
    select,
    staying,
    stays_with,
    was_tried,
    why_not,
    whys,
)
from copilot_balancer.rules.state import AccountState, Affinity, Cooldown, ModelFact
from copilot_balancer.rules.types import Attempt, Exclusion, Policy, PoolRequest, Route, Tried
from support.pools import HOUR, LIMIT, START, account

REQUEST = PoolRequest("r1", "gpt", START, "talk")


def board(*members: PoolAccount, **changes) -> PoolState:
    found = {
        "policy": Policy(strategy="priority"), "balancing": True, "members": {one.account.id: one for one in members},
        "conversations": {}, "in_flight": {}, "scarce": {},
    }  # fmt: skip
    return PoolState(**{**found, **changes})


def member(
    label: str, position: int = 0, state: AccountState | None = None, *, home: bool = False, **changes
) -> PoolAccount:
    of = account(label, **changes)
    return PoolAccount(of, state or AccountState(), position, of.fingerprint, home=home, serving=True)


def tried(label: str) -> PoolRequest:
    attempt = Attempt("r1", 1, f"github.com:{label}", "fp", "gpt", "test", START)
    return replace(REQUEST, tried=(Tried(attempt, LIMIT, START),))


def in_order(on: PoolState, request: PoolRequest = REQUEST, route: Route | None = None) -> list[Ranked]:
    return ranked(on, request, START, route, select(on, request, START, route).ready)


def order(on: PoolState, request: PoolRequest = REQUEST, route: Route | None = None) -> list[str]:
    return [one.member.account.label for one in in_order(on, request, route)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_decides_between_equals(strategy):
    """The home account first, then the user's order."""
    on = board(member("a", 0), member("b", 1), member("c", 2, home=True), policy=Policy(strategy=strategy))
    assert order(on) == ["c", "a", "b"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_conversation_comes_before_everything(strategy):
    """Its own account for this model first, then its account, then the strategy's order."""
    on = board(
        member("a", 0, priority=-5), member("b", 1), member("c", 2),
        policy=Policy(strategy=strategy),
        conversations={"talk": Affinity("github.com:c", START), "talk gpt": Affinity("github.com:b", START)},
    )  # fmt: skip
    assert order(on) == ["b", "c", "a"]
    assert [one.stays for one in in_order(on)] == [True, True, False]
    assert order(on, replace(REQUEST, model="o9"))[0] == "c"
    assert order(on, replace(REQUEST, conversation=None))[0] == "a"


STATES = strategies.builds(
    AccountState,
    last_used=strategies.sampled_from([0.0, 5.0, 6.0]),
    turn=strategies.sampled_from([0.0, 1.0, 1.5]),
    backoff=strategies.sampled_from([{}, {"": (2, START)}]),
    quota=strategies.sampled_from([{}, {"session": QuotaWindow(50.0, START + HOUR)}, {"premium": QuotaWindow(5.0)}]),
    models=strategies.sampled_from([{}, {"gpt": ModelFact(False, START - 1)}]),
)


@given(
    strategy=strategies.sampled_from(sorted(STRATEGIES)),
    accounts=strategies.lists(
        strategies.tuples(STATES, strategies.sampled_from([0, 1]), strategies.sampled_from([1.0, 2.0])),
        min_size=1,
        max_size=5,
    ),
    stays=strategies.lists(strategies.integers(0, 5), max_size=2),
    places=strategies.none() | strategies.permutations(range(5)),
    busy=strategies.integers(0, 5),
    home=strategies.integers(0, 5),
)
def test_the_best_is_the_first(strategy, accounts, stays, places, busy, home):
    """Whom the pool asks is whom the explanation puts first, whatever is known."""
    on = board(
        *(
            member(f"a{number}", number, state, home=number == home, priority=priority, weight=weight)
            for number, (state, priority, weight) in enumerate(accounts)
        ),
        policy=Policy(strategy=strategy),
        conversations={
            key: Affinity(f"github.com:a{number}", START)
            for key, number in zip(("talk gpt", "talk"), stays, strict=False)
        },
        in_flight={f"github.com:a{busy}": 1},
    )
    route = Route(("*",), () if places is None else tuple(f"a{place}" for place in places))
    ready = select(on, REQUEST, START, route).ready
    assert best(on, REQUEST, START, route, ready) == ranked(on, REQUEST, START, route, ready)[0]


def test_a_conversation_is_remembered_for_a_while():
    """Both places of a conversation, the model's own first, as long as they are fresh."""
    assert affinity_keys("talk", "gpt") == ("talk gpt", "talk")
    assert affinity_keys("talk", None) == ("talk ", "talk")
    old, new = Affinity("old", START - HOUR), Affinity("new", START - HOUR + 1)
    on = board(conversations={"talk gpt": new, "talk": old})
    assert stays_with(on, REQUEST, START) == ["new"]
    assert stays_with(on, replace(REQUEST, conversation=None), START) == []
    on.policy = Policy(affinity=0)
    assert stays_with(on, REQUEST, START - HOUR + 1) == []


def test_a_route_orders_its_accounts():
    """Only the accounts of the row serve, in its order, under any strategy."""
    route = Route(("gpt*",), ("c", "a"))
    on = board(member("a", priority=-9), member("b"), member("c"))
    assert order(on, route=route) == ["c", "a"]
    assert select(on, REQUEST, START, route).barred["github.com:b"] is Exclusion.ROUTE
    assert order(on, route=Route(("gpt*",))) == ["a", "b", "c"]


def test_which_route_is_about_a_model():
    """The first enabled row that matches; none for a request without a model or with balancing off."""
    off, first, second = Route(("*",), enabled=False), Route(("GPT*",)), Route(("*",), ("a",))
    on = board(policy=Policy(routes=(off, first, second)))
    assert route_of(on, "gpt-x") is first
    assert route_of(on, "claude") is second
    assert route_of(on, None) is None
    on.balancing = False
    assert route_of(on, "claude") is None
    assert route_of(board(), "claude") is None


def test_why_the_others_may_not():
    """Each account that is left out has what keeps it, and words for it; a tried one that rests shows its rest."""
    rest = AccountState(cooldowns=[Cooldown(START, START + 60, "limit")])
    on = board(member("a"), member("b", state=rest), member("c", enabled=False))
    barred = select(on, tried("a"), START, None).barred
    assert {key[-1]: bar for key, bar in barred.items()} == {
        "a": Exclusion.TRIED,
        "b": Exclusion.COOLDOWN,
        "c": Exclusion.DISABLED,
    }
    told = whys(on, tried("a"), START, barred)
    assert [(why.label, why.reason, why.free_at) for why in told.values()] == [
        ("a", "was already asked", None),
        ("b", "rests after a rate limit", START + 60),
        ("c", "is turned off", None),
    ]
    assert select(on, tried("b"), START, None).barred["github.com:b"] is Exclusion.COOLDOWN
    again = select(on, tried("a"), START, None, frozenset({"github.com:a"}))
    assert [one.account.label for one in again.ready] == ["a"]


def test_what_keeps_one_account():
    """The same bar as in a selection, in a word and in words; that it was tried does not count."""
    rest = AccountState(cooldowns=[Cooldown(START, START + 60, "limit")])
    on = board(member("a"), member("b", state=rest), member("c", enabled=False))
    for one in on.members.values():
        found, told = bar(on, one, tried("a"), None, START), why_not(on, one, tried("a"), None, START)
        assert found is select(on, REQUEST, START, None).barred.get(one.account.id)
        assert told == whys(on, REQUEST, START, {one.account.id: found} if found else {}).get(one.account.id)
    on.balancing = False
    assert bar(on, on.members["github.com:b"], REQUEST, None, START) is Exclusion.HOME


def test_with_balancing_off_rests_do_not_count():
    """Off: the home account serves, whatever it was told before."""
    rest = AccountState(cooldowns=[Cooldown(START, START + 60, "limit")])
    on = board(member("a", state=rest, home=True), member("b"), balancing=False)
    assert order(on) == ["a"]


def test_a_reserve_is_kept_for_when_no_other_can():
    """An account at its reserve serves only when all others cannot, whatever the strategy says."""
    low = AccountState(quota={"premium": QuotaWindow(10.0)})
    on = board(member("a", 0, low, reserve=10.0, priority=-9), member("b", 1))
    assert order(on) == ["b"]
    assert select(on, REQUEST, START, None).barred["github.com:a"] is Exclusion.RESERVE
    assert order(on, tried("b")) == ["a"]
    on.conversations = {"talk": Affinity("github.com:a", START)}
    assert order(on) == ["b"]
    assert staying(on, REQUEST, START, None) is None


def test_what_a_strategy_is_told():
    """Load, health, quota, scarcity and turns reach the strategy."""
    weak = AccountState(backoff={"": (1, START)})
    on = board(
        member("a", 0, weak), member("b", 1, AccountState(quota={"session": QuotaWindow(50.0, START + 2.5 * HOUR)})), member("c", 2),
        member("d", 3), member("e", 4, AccountState(turn=3.0)), member("f", 5),
        member("g", 6, AccountState(models={"gpt": ModelFact(False, START - 1, times=2)})),
        policy=Policy(), in_flight={"github.com:c": 1}, scarce={"github.com:d": {"gpt": 1.0, "o9": 0.5}},
    )  # fmt: skip
    terms = {one.member.account.label: named("hybrid", one.member, one.at) for one in in_order(on)}
    assert {label: -found["-score"] for label, found in terms.items()} == {
        "a": 5.5, "b": 5.0, "c": 5.0, "d": 5.5, "e": 6.0, "f": 6.0, "g": -4.0,
    }  # fmt: skip
    assert (terms["e"]["turn"], terms["f"]["turn"]) == (3.0, 2.0)


def test_the_last_used_is_known():
    """``sticky`` is told who was used last among those that may serve."""
    on = board(
        member("a", 0, AccountState(last_used=5.0)), member("b", 1, AccountState(last_used=6.0)),
        policy=Policy(strategy="sticky"),
    )  # fmt: skip
    assert order(on) == ["b", "a"]
    assert order(on, tried("b")) == ["a"]


def test_the_short_cut_for_a_conversation():
    """It finds whom the selection would put first, and nobody when that one may not serve."""
    rest = AccountState(cooldowns=[Cooldown(START, START + 60, "limit")])
    on = board(member("a"), member("b", state=rest), conversations={"talk": Affinity("github.com:a", START)})
    assert staying(on, REQUEST, START, None).account.label == "a"
    assert staying(on, tried("a"), START, None) is None
    assert staying(on, replace(REQUEST, conversation="new"), START, None) is None
    for key in ("github.com:b", "github.com:gone"):
        on.conversations = {"talk": Affinity(key, START)}
        assert staying(on, REQUEST, START, None) is None


def test_who_was_tried():
    """Each account that was asked for this request."""
    assert was_tried(tried("a"), "github.com:a")
    assert not was_tried(tried("a"), "github.com:b")
