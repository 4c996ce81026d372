"""The simulation of scripts/simulate: a fair world, a true optimum, and runs in which nothing is lost from sight."""

import importlib.util
import itertools
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

_PATH = Path(__file__).resolve().parent.parent / "scripts" / "simulation.py"
_SPEC = importlib.util.spec_from_file_location("simulation", _PATH)
simulation = importlib.util.module_from_spec(_SPEC)
sys.modules["simulation"] = simulation  # dataclasses look their module up
_SPEC.loader.exec_module(simulation)

Answer, Demand, GiveUp, Network, Send, Upstream, Wait, Window, World = (
    getattr(simulation, name)
    for name in ("Answer", "Demand", "GiveUp", "Network", "Send", "Upstream", "Wait", "Window", "World")
)


def window(begins: float, ends: float, capacity: int, **changes):
    return Window(begins, ends, capacity, whole=changes.pop("whole", capacity), **changes)


def demand(number: int, model: str = "a", due: float = 0.0, patience: float = 300.0, **changes):
    fields = {"conversation": f"c{number}", "head": 1.0, "stream": 5.0, "client": "opencode", "luck": 0.5}
    return Demand(id=number, model=model, due=due, deadline=due + patience, **{**fields, **changes})


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


# --- the optimum ------------------------------------------------------------------------------------------------------


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

    tally = simulation.Simulation(world, Planned(world, plan), len(plan)).run()

    assert simulation.optimum(world) == len(plan) == tally.served
    assert not tally.refusals


def test_the_tiny_worlds_are_not_trivial():
    """Among them are worlds in which all can be served, some, and not all for want of a model or of room."""
    worlds = [tiny_world(seed) for seed in range(60)]
    shares = {simulation.optimum(world) / len(world.demands) for world in worlds}
    assert 1.0 in shares
    assert len(shares) > 5


# --- the world --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_world_is_what_was_announced(seed):
    """Load, deadlines, windows without a gap, and at least one account for each model."""
    world = simulation.make_world(seed)

    assert len(world.demands) == round(simulation.LOAD * simulation.capacity(world.accounts))
    assert [one.id for one in world.demands] == list(range(len(world.demands)))
    assert len({one.conversation.partition("-")[0] for one in world.demands}) == simulation.SEATS
    assert all(one.deadline == one.due + simulation.PATIENCE for one in world.demands)
    assert max(one.due for one in world.demands) <= simulation.HOURS * 3600
    for model in simulation.MODELS:
        assert any(model in account.models for account in world.accounts)
    for account in world.accounts:
        assert account.windows[0].begins == 0.0
        assert account.windows[-1].ends == simulation.HOURS * 3600 + simulation.PATIENCE
        for one, other in itertools.pairwise(account.windows):
            assert one.ends == other.begins
            assert one.period <= other.period
        assert len(account.quotas) == account.windows[-1].period + 1


def test_a_conversation_is_one_after_another():
    """A request is wanted when the one before it in its conversation could have ended."""
    for _, group in itertools.groupby(simulation.make_world(3).demands, key=lambda one: one.conversation):
        for one, other in itertools.pairwise(group):
            assert other.due >= one.due + one.stream


ACCOUNT = Upstream(
    "account1",
    frozenset("ab"),
    (window(0.0, 100.0, 3, of_model={"b": 1}), window(100.0, 200.0, 1), window(200.0, 300.0, 9, period=1)),
    quotas=(4, None),
    tells=True,
    hints=True,
)


def ask(service, model: str, now: float):
    answer = service.answer("account1", model, now)
    return answer.status, answer.cause, answer.window, answer.headers.get("retry-after")


def test_what_the_service_refuses():
    """Each limit refuses when it is used up, says when it resets, and a refusal uses nothing up."""
    service = simulation.Service([ACCOUNT])
    assert [
        ask(service, model, now) for model, now in (("c", 0.0), ("b", 1.0), ("b", 1.5), ("a", 2.0), ("a", 3.0))
    ] == [
        (400, "model missing", 0, None),
        (200, "", 0, None),
        (429, "model limit", 0, "99"),
        (200, "", 0, None),
        (200, "", 0, None),
    ]
    assert [ask(service, "a", now) for now in (4.0, 100.0, 150.0, 199.5, 200.0)] == [
        (429, "session limit", 0, "96"),
        (200, "", 0, None),
        (402, "quota", 0, "50"),
        (402, "quota", 0, "1"),
        (200, "", 0, None),
    ]


def test_what_the_service_tells():
    """A success says what is left of the window, as it was counted up to 30 s before."""
    service = simulation.Service([ACCOUNT])
    told = [service.answer("account1", "a", now).headers["x-usage-ratelimit-session"] for now in (0.0, 29.0, 31.0)]
    assert [text.partition("rem=")[2].partition("&")[0] for text in told] == ["66.7", "66.7", "0.0"]
    assert told[0].endswith("rst=2027-01-15T08%3A01%3A40Z")


# --- the clients ------------------------------------------------------------------------------------------------------


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
    """As it was measured (clients.md 6)."""
    assert simulation.comes_back_after(demand(1, client=client), status, told, retries) == pytest.approx(expected)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_worlds():
    worlds = [simulation.make_world(seed, requests=300, hours=3.0, seats=4) for seed in range(4)]
    return [(world, simulation.optimum(world)) for world in worlds]


@pytest.mark.parametrize("strategy", simulation.STRATEGY_NAMES)
def test_every_request_ends_once_and_nobody_beats_the_optimum(strategy, small_worlds):
    """Under each strategy: each request is served or lost, each send is a success or a refusal, within the optimum."""
    for world, best in small_worlds:
        run = simulation.Simulation(world, simulation.make_balancer(strategy, world.accounts), best)

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
        world = simulation.make_world(seed, requests=300, hours=3.0, seats=4)
        runs.append(simulation.simulate(world, strategy, simulation.optimum(world)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_pool_learns_from_a_refusal_and_naive_does_not():
    """With one of two accounts used up, the pool is refused once, and plain round-robin at every other request."""
    full, spare = (window(0.0, 2000.0, capacity) for capacity in (1, 100))
    accounts = tuple(
        Upstream(label, frozenset("a"), (one,)) for label, one in (("account1", full), ("account2", spare))
    )
    world = World(accounts, tuple(demand(n, due=10.0 * n) for n in range(20)))

    refused = {name: simulation.simulate(world, name, 20).refusals for name in ("round-robin", "naive")}

    assert refused == {"round-robin": {"session limit": 1}, "naive": {"session limit": 9}}


def test_a_conversation_that_goes_elsewhere_is_a_switch():
    """A conversation that stays has no switch; taken in turn by two accounts it switches each time."""
    accounts = tuple(Upstream(label, frozenset("a"), (window(0.0, 2000.0, 100),)) for label in ("account1", "account2"))
    world = World(accounts, tuple(demand(n, due=10.0 * n, conversation="one") for n in range(10)))
    switches = {name: simulation.simulate(world, name, 10).switches for name in ("hybrid", "naive")}
    assert switches == {"hybrid": 0, "naive": 9}


def test_a_client_that_has_to_wait_is_served_after_the_reset():
    """Told when the window resets, the client comes back then: two sends upstream, nothing lost."""
    account = Upstream("account1", frozenset("a"), (window(0.0, 50.0, 0), window(50.0, 1000.0, 5)))
    tally = simulation.simulate(World((account,), (demand(1),)), "hybrid", 1)
    assert (tally.served, tally.attempts, tally.refusals) == (1, 2, {"session limit": 1})


def test_a_request_that_comes_too_late_is_lost():
    """What cannot be begun within its time is lost: its user has gone, or its client has come back often enough."""
    account = Upstream("account1", frozenset("a"), (window(0.0, 400.0, 0), window(400.0, 1000.0, 5)))
    tally = simulation.simulate(World((account,), (demand(1), demand(2, due=10.0))), "hybrid", 0)
    assert (tally.served, tally.attempts) == (0, 1)
    assert tally.lost == {"too late": 1, "shown a 429": 1}


def test_refusals_at_the_same_time_count_once_in_a_window():
    """Of three at once and one later, all are wasted, and the window counts two."""
    run = simulation.Simulation(tiny_world(1), Planned(tiny_world(1), {}), 0)
    for now in (10.0, 10.1, 10.2, 10.3):
        run._refused(("account1", "a", "session limit", 0), now)
    assert run.tally.refusals == {"session limit": 4}
    assert run.tally.by_window.total() == 2


REFUSED = {status: Answer(status, headers) for status, headers in ((400, {}), (402, {}), (429, {"retry-after": "90"}))}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        pytest.param((400, 400, 400), GiveUp(400, None), id="nobody has the model"),
        pytest.param((400, 429, 402), GiveUp(429, 60.0), id="waiting helps"),
        pytest.param((402, 400, 400), GiveUp(400, None), id="the last one"),
    ],
)
def test_what_naive_gives_to_the_client(statuses, expected):
    """Three accounts in turn, then a 429 if there was one, else the last refusal."""
    trip = simulation.NaiveTrip(["a", "b", "c", "d"])
    asked = []
    for status in statuses:
        asked.append(trip.choose(0.0).label)
        trip.answered(REFUSED[status], 0.0)
    assert asked == ["a", "b", "c"]
    assert trip.choose(0.0) == expected


# --- the report -------------------------------------------------------------------------------------------------------


def tally(**changes):
    return simulation.Tally(**{"wanted": 1000, "optimum": 1000, "served": 990, "attempts": 1089, **changes})


MISSING, LIMIT = ("account1", "a", "model missing", 0), ("account1", "a", "session limit", 0)


def test_mean_and_worst():
    """A cell is the mean over the runs and the worst of them, which for goodput is the lowest."""
    runs = [
        tally(refusals=Counter({"session limit": 4}), by_window=Counter({LIMIT: 2, MISSING: 4}), switches=99),
        tally(served=970, lost=Counter({"too late": 30})),
    ]
    assert simulation.table({"hybrid": runs}) == [
        ["strategy", "goodput", "wasted", "in a window", "model missing", "switches", "attempts"],
        ["hybrid", "0.980 (0.970)", "2.0 (4.0)", "1.00 (2.00)", "2.0 (4.0)", "5.0 (10.0)", "1.11 (1.12)"],
    ]
    assert simulation.verdicts(runs) == [
        "goodput 0.980, aim >= 0.98: met",
        "in a window 1.00, aim <= 1: met",
        "switches 5.0, aim <= 5: met",
    ]
    assert simulation.verdicts([tally(served=979, switches=50)])[0] == "goodput 0.979, aim >= 0.98: MISSED"
    assert simulation.causes({"hybrid": runs}) == [
        ["strategy", "session limit", "lost: too late"],
        ["hybrid", "2.0 (2)", "15.0"],
    ]


def test_tables():
    """Text is aligned; Markdown has a rule under its head."""
    rows = [["strategy", "x"], ["hybrid", "1.0 (2.0)"]]
    assert simulation.as_text(rows) == "strategy  x\nhybrid    1.0 (2.0)"
    assert simulation.as_markdown(rows) == "| strategy | x |\n|---|---|\n| hybrid | 1.0 (2.0) |"


BEGIN, END = simulation.BEGIN, simulation.END


def test_the_block_in_readme_is_replaced():
    """What stands between the markers is replaced, and nothing else; again gives the same."""
    once = simulation.replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert simulation.replaced(once, "new") == once


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nothing", id="no marker"),
        pytest.param(f"{BEGIN} x", id="no end"),
        pytest.param(f"{END} x {BEGIN}", id="wrong order"),
        pytest.param(f"{BEGIN} x {END} {BEGIN} y {END}", id="twice"),
    ],
)
def test_a_readme_without_its_markers(text):
    """It is left alone."""
    with pytest.raises(ValueError, match="each once"):
        simulation.replaced(text, "new")


def test_the_program(tmp_path, monkeypatch, capsys):
    """It prints definitions, table and verdicts; with --write-readme the same table stands in README."""
    readme = tmp_path / "README.md"
    monkeypatch.setattr(simulation, "README", readme)

    assert simulation.main(["--seeds", "1", "--strategy", "hybrid", "--why"]) == 0
    text = capsys.readouterr().out
    for part in ("- optimum: ", "- goodput: ", "strategy  goodput", "hybrid    ", "lost: ", "hybrid: switches "):
        assert part in text

    arguments = ["--seeds", "1", "--strategy", "naive", "--markdown", "--write-readme"]
    assert simulation.main(arguments) == 1
    assert "README.md stays as it is" in capsys.readouterr().err
    readme.write_text(f"{BEGIN}\n{END}\n")
    assert simulation.main(arguments) == 0
    assert readme.read_text() == f"{BEGIN}\n{capsys.readouterr().out}{END}\n"


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--strategy", "fastest"]])
def test_wrong_arguments(arguments, capsys):
    """They are refused with a sentence."""
    with pytest.raises(SystemExit, match="2"):
        simulation.main(arguments)
    assert "error: argument" in capsys.readouterr().err or "at least 1"
