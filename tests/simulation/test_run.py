"""Runs of the simulation, in which nothing is lost from sight, and clients that come back as they were measured."""

from collections import Counter

import pytest

from simulation.balancer import STRATEGY_NAMES, make_balancer
from simulation.optimum import optimum
from simulation.run import Simulation, comes_back_after, simulate
from simulation.upstream import Upstream
from simulation.world import World, make_world
from support.worlds import demand, window


@pytest.mark.parametrize(
    ("client", "status", "told", "retries", "expected"),
    [
        pytest.param("opencode", 429, 3.0, 0, 3.0, id="opencode waits as told"),
        pytest.param("opencode", 429, 400.0, 4, 400.0, id="opencode waits without a bound"),
        pytest.param("opencode", 429, None, 0, 2.4, id="opencode backs off"),
        pytest.param("opencode", 429, None, 4, 36.0, id="opencode backs off, the last time"),
        pytest.param("opencode", 429, 3.0, 5, None, id="opencode comes back five times"),
        pytest.param("opencode", 402, None, 0, None, id="opencode shows a 402"),
        pytest.param("opencode", 400, None, 0, None, id="opencode shows a 400"),
        pytest.param("copilot-cli", 429, 60.0, 0, 60 * 1.175, id="the CLI waits longer than told"),
        pytest.param("copilot-cli", 429, 400.0, 0, None, id="the CLI does not wait for ever"),
        pytest.param("copilot-cli", 429, None, 1, 6.0, id="the CLI backs off"),
    ],
)
def test_when_a_client_comes_back(client, status, told, retries, expected):
    """As it was measured (docs/clients.md#after-a-refusal)."""
    assert comes_back_after(demand(1, client=client), status, told, retries) == pytest.approx(expected)


@pytest.fixture(scope="module")
def small_worlds():
    worlds = [make_world(seed, requests=300, hours=3.0, seats=4) for seed in range(4)]
    return [(world, optimum(world)) for world in worlds]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_request_ends_once_and_nobody_beats_the_optimum(strategy, small_worlds):
    """Under each strategy: each request is served or lost, each send is a success or a refusal, within the optimum."""
    for world, best in small_worlds:
        run = Simulation(world, make_balancer(strategy, world.accounts), best)

        tally = run.run()

        assert run.ended == Counter({one.id: 1 for one in world.demands})
        assert tally.served + tally.lost.total() == tally.wanted == len(world.demands)
        assert tally.attempts == tally.served + tally.refusals.total()
        assert 0 < tally.served <= best <= tally.wanted
        assert tally.by_window.total() <= tally.refusals.total()


@pytest.mark.parametrize("strategy", ["hybrid", "naive"])
def test_the_same_seed_gives_the_same_run(strategy):
    """World and run follow from the seed alone."""
    runs = []
    for seed in (1, 1, 2):
        world = make_world(seed, requests=300, hours=3.0, seats=4)
        runs.append(simulate(world, strategy, optimum(world)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_pool_learns_from_a_refusal_and_naive_does_not():
    """With one of two accounts used up, the pool is refused once, and plain round-robin at every other request."""
    full, spare = (window(0.0, 2000.0, capacity) for capacity in (1, 100))
    accounts = tuple(
        Upstream(label, frozenset("a"), (one,)) for label, one in (("account1", full), ("account2", spare))
    )
    world = World(accounts, tuple(demand(n, due=10.0 * n) for n in range(20)))

    refused = {name: simulate(world, name, 20).refusals for name in ("round-robin", "naive")}

    assert refused == {"round-robin": {"session limit": 1}, "naive": {"session limit": 9}}


def test_a_conversation_that_goes_elsewhere_is_a_switch():
    """A conversation that stays has no switch; taken in turn by two accounts it switches each time."""
    accounts = tuple(Upstream(label, frozenset("a"), (window(0.0, 2000.0, 100),)) for label in ("account1", "account2"))
    world = World(accounts, tuple(demand(n, due=10.0 * n, conversation="one") for n in range(10)))
    switches = {name: simulate(world, name, 10).switches for name in ("hybrid", "naive")}
    assert switches == {"hybrid": 0, "naive": 9}


def test_a_client_that_has_to_wait_is_served_after_the_reset():
    """Told when the window resets, the client comes back then: two sends upstream, nothing lost."""
    account = Upstream("account1", frozenset("a"), (window(0.0, 50.0, 0), window(50.0, 1000.0, 5)))
    tally = simulate(World((account,), (demand(1),)), "hybrid", 1)
    assert (tally.served, tally.attempts, tally.refusals) == (1, 2, {"session limit": 1})


def test_a_request_that_comes_too_late_is_lost():
    """What cannot be begun within its time is lost: its user has gone, or its client has come back often enough."""
    account = Upstream("account1", frozenset("a"), (window(0.0, 400.0, 0), window(400.0, 1000.0, 5)))
    tally = simulate(World((account,), (demand(1), demand(2, due=10.0))), "hybrid", 0)
    assert (tally.served, tally.attempts) == (0, 1)
    assert tally.lost == {"too late": 1, "shown a 429": 1}


def test_refusals_at_the_same_time_count_once_in_a_window():
    """Of three at once and one later, all are wasted, and the window counts two."""
    run = Simulation(World((), ()), make_balancer("naive", ()), 0)
    for now in (10.0, 10.1, 10.2, 10.3):
        run._refused(("account1", "a", "session limit", 0), now)
    assert run.tally.refusals == {"session limit": 4}
    assert run.tally.by_window.total() == 2
