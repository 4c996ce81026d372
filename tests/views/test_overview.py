"""What is to be seen of everything at a moment."""

from dataclasses import replace

import pytest

from copilot_balancer import __version__
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import InvalidInput, StoreError
from copilot_balancer.rules.accounts import RouteTable
from copilot_balancer.rules.state import AccountState, Cooldown, Memory, Sighting
from copilot_balancer.rules.types import Policy, Route
from copilot_balancer.store.request_log import RequestLog
from copilot_balancer.store.request_record import RequestRecord, document
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
from copilot_balancer.store.store import Paths, Store
from copilot_balancer.views.overview import Overview, events, look, running
from support.pools import START, Bench, account, decisions

WORK, HOME = account("work", plan="business"), account("home")
PROXY = RunningProxy(pid=1, began=START - 60, listening=("127.0.0.1:8080",), version="0.1.0")


@pytest.fixture
def where(tmp_path):
    """Two accounts; work rests for ten minutes."""
    where = Paths(tmp_path / "state", tmp_path / "config")
    store = Store(where.state)
    store.edit_decisions(lambda _: decisions(WORK, HOME))
    rests = AccountState(
        credential=WORK.fingerprint,
        cooldowns=[Cooldown(START - 60, START + 600, "limit", source="server")],
        quota={"premium": QuotaWindow(30.0, seen_at=START - 60)},
        last_used=START - 60,
        served=7,
        refused=1,
    )
    store.merge_memory(Memory({WORK.id: rests}, sightings={"x": Sighting("github.com", START)}))
    return where


def test_nothing_yet(tmp_path):
    """Where nothing was ever written there is nothing, nothing can serve, and nothing is made by looking."""
    seen = look(Paths(tmp_path / "state", tmp_path / "config"), START)
    assert isinstance(seen, Overview)
    assert (seen.pool.accounts, seen.proxies, seen.in_flight, seen.serves) == ((), (), {}, False)
    assert seen.policy == Policy()
    assert list(tmp_path.iterdir()) == []


def test_as_a_proxy_would_see_it(where):
    """Accounts are shown with what was learnt, at the moment that is given."""
    seen = look(where, START)
    work, home = seen.pool.accounts
    assert (seen.at, seen.pool.at) == (START, START)
    assert (work.label, work.status, work.served, work.refused, work.last_used) == ("work", "cooling", 7, 1, START - 60)
    assert [(rest.reason, rest.seconds, rest.source) for rest in work.rests] == [("limit", 600.0, "server")]
    assert work.quota["premium"].percent_left == 30.0
    assert (home.status, home.why_not) == ("ready", None)
    assert seen.decisions == Store(where.state).read_decisions()
    assert look(where, START + 601).pool.accounts[0].status == "ready"


def test_running_proxies(where):
    """What is in flight is that of all running proxies together."""
    one, two = RunningProxyFile(where.state), RunningProxyFile(where.state)
    one.write(replace(PROXY, in_flight={WORK.id: 2, HOME.id: 1}, requests=4))
    two.write(replace(PROXY, pid=2, in_flight={WORK.id: 1}, requests=1))

    seen = look(where, START)

    assert seen.in_flight == {WORK.id: 3, HOME.id: 1}
    assert [view.in_flight for view in seen.pool.accounts] == [3, 1]
    assert seen.pool.requests == 5
    assert [proxy.pid for proxy in seen.proxies] == [1, 2]
    one.close()
    two.close()
    assert look(where, START).in_flight == {}


def test_what_a_proxy_tells(where):
    """A proxy tells the others what its own pool is busy with."""
    bench = Bench(WORK, HOME)
    for _ in range(3):
        bench.ask().sent()
    told = running(
        bench.pool.snapshot(START), pid=9, began=START - 5, listening={"[::1]:8080", "127.0.0.1:8080"}, off=None
    )
    assert told == RunningProxy(
        pid=9,
        began=START - 5,
        listening=("127.0.0.1:8080", "[::1]:8080"),
        version=__version__,
        in_flight={WORK.id: 2, HOME.id: 1},
        requests=3,
        strategy="hybrid",
    )
    assert running(bench.pool.snapshot(START), pid=9, began=0.0, listening=(), off="proxy_debug").off == "proxy_debug"


def test_serves(where):
    """Something can serve unless every account rests or is off, or every running proxy uses none."""
    assert look(where, START).serves
    off, on = RunningProxyFile(where.state), RunningProxyFile(where.state)
    off.write(replace(PROXY, off="ssl_insecure is on"))
    assert not look(where, START).serves
    on.write(PROXY)
    assert look(where, START).serves
    off.close()
    on.close()
    disabled = decisions(WORK, HOME.model_copy(update={"enabled": False}))
    assert not look(where, START, decisions=disabled).serves
    assert look(where, START + 601, decisions=disabled).serves


def test_settings(where, tmp_path):
    """Strategy and routes come from the settings and the project, and before them from what the dashboard wrote."""
    where.config.mkdir()
    (where.config / "config.toml").write_text('strategy = "sticky"\n')
    (tmp_path / ".copilot-balancer.toml").write_text('max_attempts = 9\n[[routes]]\nmodels = ["gpt-*"]\n')

    seen = look(where, START, tmp_path)

    assert (seen.policy.strategy, seen.pool.strategy, seen.policy.max_attempts) == ("sticky", "sticky", 3)
    assert seen.policy.routes == (Route(("gpt-*",)),)
    assert len(seen.warnings) == 1
    assert "max_attempts" in seen.warnings[0]
    assert look(where, START).policy.routes == ()

    changed = {"strategy": "quota", "routes": (RouteTable(models=("o3",), accounts=("work",)).model_dump(),)}
    store = Store(where.state)
    store.edit_decisions(lambda known: type(known).model_validate({**dict(known), **changed}))
    seen = look(where, START, tmp_path)
    assert (seen.policy.strategy, seen.pool.strategy) == ("quota", "quota")
    assert seen.policy.routes == (Route(("o3",), ("work",)),)


def test_unusable_files(where):
    """A file that cannot be used is an error that names it."""
    where.config.mkdir()
    (where.config / "config.toml").write_text("strategy = 1\n")
    with pytest.raises(InvalidInput, match=r"config\.toml: strategy"):
        look(where, START)
    (where.config / "config.toml").unlink()
    (where.state / "state.json").write_text("{")
    with pytest.raises(StoreError, match=r"state\.json"):
        look(where, START)


def test_events(where):
    """The newest events, newest last."""
    assert events(where, 5) == ()
    told = [RequestRecord(START + number, f"f{number}", "gpt-5", "served", 200, 1.0) for number in range(9)]
    file = RequestLog(where.state)
    for event in told:
        file.put(document(event))
    file.close()
    assert events(where, 3) == tuple(told[-3:])
