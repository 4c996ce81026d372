"""The optimum is a true one: no plan serves more, and a proxy that knows the plan serves as many."""

import itertools
import random
from collections import Counter

import pytest

from simulation.balancer import GiveUp, Send, Wait
from simulation.optimum import Network, optimum
from simulation.run import Simulation
from simulation.upstream import Upstream
from simulation.world import World
from support.worlds import demand, window


def tiny_world(seed: int):
    """Two accounts with a few windows, a quota, a limit for one model; at most seven requests."""
    chance = random.Random(seed)
    accounts = []
    for index in range(2):
        starts = (0.0, chance.choice((300.0, 500.0)), 900.0)
        windows = tuple(
            window(
                begins, ends, chance.randint(0, 2), of_model={"a": 1} if chance.random() < 0.3 else {}, period=period
            )
            for (begins, ends), period in zip(itertools.pairwise((*starts, 2000.0)), (0, 0, 1), strict=True)
        )
        quotas = (chance.choice((None, 1, 2)), chance.choice((None, 1)))
        models = frozenset("ab" if chance.random() < 0.6 else "a")
        accounts.append(Upstream(f"account{index + 1}", models, windows, quotas))
    wanted = (demand(n, chance.choice("ab"), chance.uniform(0, 1000)) for n in range(chance.randint(3, 7)))
    return World(tuple(accounts), tuple(wanted))


def best_plan(world) -> dict[int, tuple[int, int]]:
    """Demand -> (account, window) of a plan with the most served, found by trying all of them."""
    used: Counter = Counter()

    def limits(one, a, w):
        account = world.accounts[a]
        inside = account.windows[w]
        yield (a, w), inside.capacity
        if one.model in inside.of_model:
            yield (a, w, one.model), inside.of_model[one.model]
        if account.quotas[inside.period] is not None:
            yield (a, "quota", inside.period), account.quotas[inside.period]

    def plan(left):
        if not left:
            return {}
        one, *others = left
        best = plan(others)
        for a, account in enumerate(world.accounts):
            for w, inside in enumerate(account.windows):
                known = list(limits(one, a, w))
                reachable = inside.begins <= one.deadline and one.due < inside.ends and one.model in account.models
                if reachable and all(used[key] < limit for key, limit in known):
                    used.update(key for key, _ in known)
                    found = {one.id: (a, w), **plan(others)}
                    used.subtract(key for key, _ in known)
                    best = max(best, found, key=len)
        return best

    return plan(list(world.demands))


class Planned:
    """A proxy that knows everything and follows a plan: its own trip, too."""

    def __init__(self, world, plan):
        self.world, self.plan = world, plan

    def conversation_begins(self, now):
        pass

    def trip(self, wanted, name, now):
        return PlannedTrip(self.world, self.plan.get(wanted.id))


class PlannedTrip:
    def __init__(self, world, place):
        self.world, self.place = world, place

    def choose(self, now):
        if self.place is None:
            return GiveUp(400, None)
        account, index = self.place
        begins = self.world.accounts[account].windows[index].begins
        return Wait(begins) if now < begins else Send(self.world.accounts[account].label)

    def answered(self, answer, now):
        assert answer.status == 200

    def over(self, now):
        pass


@pytest.mark.parametrize("seed", range(60))
def test_maximum_flow_is_minimum_cut(seed):
    """What flows is what the narrowest cut lets through, found by trying every cut."""
    chance = random.Random(seed)
    nodes = ["source", "sink", *range(chance.randint(1, 5))]
    edges = [
        (tail, head, chance.randint(0, 9))
        for tail, head in itertools.permutations(nodes, 2)
        if tail != "sink" and head != "source" and chance.random() < 0.6
    ]
    network = Network()
    for edge in edges:
        network.edge(*edge)

    cuts = []
    for chosen in itertools.product((False, True), repeat=len(nodes) - 2):
        here = {"source", *itertools.compress(nodes[2:], chosen)}
        cuts.append(sum(room for tail, head, room in edges if tail in here and head not in here))

    assert network.max_flow("source", "sink") == min(cuts)


@pytest.mark.parametrize("seed", range(60))
def test_the_optimum_is_the_best_of_all_plans(seed):
    """The maximum flow finds as many as trying every plan does, and a proxy that knows the plan serves that many."""
    world = tiny_world(seed)
    plan = best_plan(world)

    tally = Simulation(world, Planned(world, plan), len(plan)).run()

    assert optimum(world) == len(plan) == tally.served
    assert not tally.refusals


def test_the_tiny_worlds_are_not_trivial():
    """Among them are worlds in which all can be served, some, and not all for want of a model or of room."""
    worlds = [tiny_world(seed) for seed in range(60)]
    shares = {optimum(world) / len(world.demands) for world in worlds}
    assert 1.0 in shares
    assert len(shares) > 5
