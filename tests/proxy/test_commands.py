"""mitmproxy's commands ``copilot.*``, called as its console and as mitmweb call them."""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from mitmproxy import types
from mitmproxy.exceptions import CommandError
from mitmproxy.test import taddons

from copilot_balancer import __version__, config
from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import StoreError
from copilot_balancer.proxy.commands import Commands
from copilot_balancer.rules.types import SERVED
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.store.store import Store
from support.pools import LIMIT, MISSING, START, Bench, hinted
from support.pools import decisions as deciding
from support.proxies import until

PROXY = RunningProxy(pid=7, began=START - 3600, listening=("127.0.0.1:8080",), version=__version__)


class Proxy:
    """The commands in a mitmproxy, over a pool and a store."""

    def __init__(self, folder, context, *accounts, **changes):
        self.store = Store(folder)
        self.store.edit_decisions(lambda _: deciding(*accounts, **changes))
        self.bench = Bench(*accounts, **changes)
        self.live = SimpleNamespace(
            pool=self.bench.pool,
            decisions=self.bench.decisions,
            settings=config.Settings(),
            now=lambda: self.bench.now,
        )
        self.commands = Commands(lambda: self.live, self.store, lambda: PROXY, lambda: START + 5)
        self.master = context.master
        self.master.addons.add(self.commands)

    def console(self, line):
        return self.master.commands.execute(line)

    def web(self, line):
        name, *arguments = line.split()
        return self.master.commands.call_strings(name, arguments)

    async def written(self):
        while self.commands._writing:
            await asyncio.sleep(0.001)
        return self.store.read_decisions()


def play(tmp_path, test, *accounts, **changes):
    async def run():
        with taddons.context() as context:
            await test(Proxy(tmp_path / "state", context, *(accounts or ("work", "home")), **changes))

    asyncio.run(run())


def test_names(tmp_path):
    """All of them are there, typed, explained, and callable from mitmweb, which takes no other names."""

    async def test(proxy):
        ours = {name: one for name, one in proxy.master.commands.commands.items() if name.startswith("copilot.")}
        assert set(ours) == {
            "copilot.status",
            "copilot.accounts",
            "copilot.use",
            "copilot.balancing",
            "copilot.account.enable",
            "copilot.account.disable",
            "copilot.cooldown.clear",
            "copilot.explain",
            "copilot.models",
            "copilot.labels",
            "copilot.switches",
        }
        for name, one in ours.items():
            assert re.fullmatch("[a-z.]+", name)
            assert one.help
            assert one.signature_help()

    play(tmp_path, test)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("copilot.use", ["work", "home"]),
        ("copilot.account.enable", ["work", "home"]),
        ("copilot.account.disable", ["work", "home"]),
        ("copilot.cooldown.clear", ["work", "home"]),
        ("copilot.balancing", ["on", "off"]),
    ],
)
def test_completion(tmp_path, name, options):
    """What can be typed is completed, and nothing else is taken."""

    async def test(proxy):
        manager = proxy.master.commands
        kind = manager.commands[name].parameters[0].type
        assert types.CommandTypes.get(kind).completion(manager, kind, "") == options
        with pytest.raises(CommandError, match="Invalid choice"):
            proxy.console(f"{name} nobody")

    play(tmp_path, test)


@pytest.mark.parametrize("way", ["console", "web"])
@pytest.mark.parametrize(
    ("line", "said", "expected"),
    [
        ("copilot.use home", "home is the home account now.", {"home_id": "github.com:home"}),
        ("copilot.balancing off", "Balancing is off now.", {"balancing": False}),
        ("copilot.balancing on", "Balancing is on now.", {"balancing": True}),
    ],
)
def test_decisions(tmp_path, way, line, said, expected):
    """What is decided is said at once and then stands in the store, as from the command line."""

    async def test(proxy):
        before = proxy.store.read_decisions()
        assert getattr(proxy, way)(line) == said
        assert await proxy.written() == before.model_copy(update=expected)

    play(tmp_path, test)


def test_enable_and_disable(tmp_path, caplog):
    """An account is switched off and on; what is done is told in the log."""
    caplog.set_level(logging.INFO)

    async def test(proxy):
        assert proxy.console("copilot.account.disable home") == "home is off now."
        assert not (await proxy.written()).find("home").enabled
        assert proxy.console("copilot.account.enable home") == "home is on now."
        home = (await proxy.written()).find("home")
        assert (home.enabled, home.enabled_at) == (True, START + 5)
        assert [r.getMessage() for r in caplog.records if "copilot" in r.getMessage()] == [
            "copilot: home is off now.",
            "copilot: home is on now.",
        ]

    play(tmp_path, test)


@pytest.mark.parametrize(
    ("line", "said", "cleared"),
    [
        ("copilot.cooldown.clear", "Cleared: work, home.", {"work": {"": START + 5}, "home": {"": START + 5}}),
        ("copilot.cooldown.clear work", "Cleared: work.", {"work": {"": START + 5}, "home": {}}),
        (
            "copilot.cooldown.clear work gpt-5",
            "Cleared: work (gpt-5).",
            {"work": {"gpt-5": START + 5}, "home": {}},
        ),
    ],
    ids=["all", "one", "one model"],
)
def test_clear(tmp_path, line, said, cleared):
    """The rests of all accounts, of one, or of a model on it are ended."""

    async def test(proxy):
        assert proxy.console(line) == said
        decisions = await proxy.written()
        assert {one.label: one.cleared for one in decisions.accounts} == cleared

    play(tmp_path, test)


def test_nothing_to_clear(tmp_path):
    """Without an account nothing is cleared, and nothing is listed."""

    async def run():
        with taddons.context() as context:
            proxy = Proxy(tmp_path / "state", context)
            assert proxy.console("copilot.cooldown.clear") == "Nothing to clear."
            assert "No account is stored yet" in proxy.console("copilot.accounts")
            assert "No account is stored yet" in proxy.console("copilot.status")
            assert proxy.console("copilot.labels") == []
            assert not proxy.commands._writing

    asyncio.run(run())


def test_the_loop_goes_on(tmp_path, monkeypatch):
    """A slow disk holds up neither the command nor the loop, and decisions are written in their order."""
    writing, go = threading.Event(), threading.Event()
    real = Store.edit_decisions

    def slow(store, change):
        writing.set()
        assert go.wait(10)
        return real(store, change)

    async def test(proxy):
        monkeypatch.setattr(Store, "edit_decisions", slow)
        began = time.monotonic()
        for number in range(10):
            proxy.console(f"copilot.balancing {'on' if number % 2 else 'off'}")
            proxy.console(f"copilot.use {'work' if number % 2 else 'home'}")
        assert time.monotonic() - began < 1
        while not writing.is_set():
            await asyncio.sleep(0.001)
        go.set()
        decisions = await proxy.written()
        assert (decisions.balancing, decisions.home_id) == (True, "github.com:work")

    play(tmp_path, test)


def test_removed_meanwhile(tmp_path, caplog):
    """An account that another program has removed this moment is told about in the log, and nothing is changed."""

    async def test(proxy):
        left = proxy.store.edit_decisions(lambda now: now.without("github.com:home", START))
        for line in ("copilot.use home", "copilot.account.enable home", "copilot.cooldown.clear home"):
            proxy.console(line)
        assert await proxy.written() == left
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        failed, why = "copilot: failed, nothing was changed:", "(this account was removed meanwhile)"
        assert told == [
            f'{failed} "home is the home account now." {why}',
            f'{failed} "home is on now." {why}',
            f'{failed} "Cleared: home." {why}',
        ]
        proxy.live.decisions = left
        proxy.console("copilot.cooldown.clear")
        assert [one.label for one in (await proxy.written()).accounts] == ["work"]

    play(tmp_path, test)


def test_known_to_us_no_more(tmp_path):
    """An account that is gone between completion and call is one sentence."""

    async def test(proxy):
        with pytest.raises(CommandError, match="there is no account 'nobody'"):
            proxy.commands.use("nobody")

    play(tmp_path, test)


def test_a_broken_store(tmp_path, monkeypatch, caplog):
    """A store that cannot be written is told in the log."""

    def refuse(*_):
        raise StoreError("accounts.json: it is empty. Remedy: restore it")

    async def test(proxy):
        monkeypatch.setattr(Store, "edit_decisions", refuse)
        proxy.console("copilot.use home")
        while proxy.commands._writing:
            await asyncio.sleep(0.001)
        assert 'nothing was changed: "home is the home account now." (accounts.json: it is empty' in caplog.text

    play(tmp_path, test)


def test_not_running(tmp_path):
    """Before the addon runs each command says so; completion has nothing to offer."""

    async def test(proxy):
        proxy.live = None
        assert proxy.console("copilot.labels") == []
        for line in ("copilot.status", "copilot.accounts", "copilot.models", "copilot.explain gpt-5"):
            with pytest.raises(CommandError, match="not running: the event log says why"):
                proxy.console(line)
        with pytest.raises(CommandError, match="not running"):
            proxy.commands.use("work")
        with pytest.raises(CommandError, match="not running"):
            proxy.console("copilot.balancing off")

    play(tmp_path, test)


@pytest.mark.parametrize("way", ["console", "web"])
def test_looking(tmp_path, way):
    """Status, accounts and explanations come from the proxy's own pool, at this moment."""

    async def test(proxy):
        bench, call = proxy.bench, getattr(proxy, way)
        ask = bench.ask("gpt-5", conversation_of({"x-session-id": "talk"}, None))
        assert ask.sent() == "work"
        ask.answered(hinted(LIMIT, 600))
        assert ask.sent() == "home"
        ask.answered(SERVED)
        state = bench.pool._states["github.com:home"]
        state.quota = {"premium": QuotaWindow(31.4, seen_at=START), "chat": QuotaWindow(100, unlimited=True)}

        status = call("copilot.status")
        assert "Balancing by hybrid; 1 of 2 accounts can serve now." in status
        assert "Proxy on 127.0.0.1:8080 (process 7, for 60 min): no request under way." in status
        assert "rests, free again in 10 min: limit, as the server said" in status
        assert "no proxy runs" not in status

        assert call("copilot.accounts") == (
            "   ACCOUNT  STATE                   LEFT          BUSY  SERVED  REFUSED\n"
            "*  work     cooling: limit, 10 min  -             0     0       1\n"
            "   home     ready                   premium 31 %  1     1       0"
        )
        assert "gpt-5 goes to home" in call("copilot.explain gpt-5")
        assert "the conversation is there already" in call("copilot.explain gpt-5 talk")

    play(tmp_path, test)


@pytest.mark.parametrize(
    ("line", "gist"),
    [
        ("copilot.status", "Balancing by hybrid; 2 of 2 accounts can serve now."),
        ("copilot.accounts", "2 accounts."),
        ("copilot.models", "1 model."),
        ("copilot.explain gpt-5", "gpt-5 goes to work: first by hybrid."),
    ],
)
def test_in_mitmweb(tmp_path, caplog, line, gist):
    """mitmweb's command bar would print lines as JSON: it gets one sentence, and the event log the lines."""
    caplog.set_level(logging.INFO)

    async def test(proxy):
        proxy.bench.pool.learn_models("github.com:work", ["gpt-5"], proxy.bench.now)
        lines = proxy.console(line)
        proxy.master.options.add_option("web_columns", Sequence[str], [], "as mitmweb has it")
        told = proxy.web(line)
        assert told == f"{gist} All of it stands in the event log: Options, Display Event Log."
        assert caplog.records[-1].getMessage() == f"copilot: the answer to a command:\n{lines}"
        assert "\n" in lines

    play(tmp_path, test)


@pytest.mark.parametrize(("columns", "room"), [(200, 80), (100, 78), (80, 62)])
def test_in_the_console(tmp_path, columns, room):
    """mitmproxy's console breaks lines between any two characters: none is longer than what it has room for."""

    async def test(proxy):
        state = proxy.bench.pool._states["github.com:home"]
        state.quota = {"premium": QuotaWindow(31.4, START + 9e5, entitlement=300, remaining=94, seen_at=START)}
        proxy.bench.refuse(LIMIT, SERVED)
        proxy.master.ui = SimpleNamespace(get_cols_rows=lambda: (columns, 40))
        for line in ("copilot.status", "copilot.explain gpt-5"):
            told = proxy.console(line)
            assert room - 12 < max(map(len, told.splitlines())) <= room
        heads = ["", "ACCOUNT", "STATE", "LEFT", "BUSY", "SERVED", "REFUSED"]
        assert proxy.console("copilot.accounts").splitlines()[0].split() == heads[1 : 7 if room > 70 else 6]

    play(tmp_path, test)


def test_models(tmp_path):
    """Which account has which model, as far as it is known now; names from requests break no terminal."""

    async def test(proxy):
        bench = proxy.bench
        assert proxy.console("copilot.models") == "Nothing is known about any model yet."
        bench.pool.learn_models("github.com:work", ["gpt-5", "o3"], bench.now)
        bench.pool.learn_models("github.com:home", ["gpt-5"], bench.now)
        bench.refuse(MISSING, SERVED, model="evil\x1b[2J\n\u202e")
        assert proxy.console("copilot.models").splitlines() == [
            "MODEL                HAS IT      LACKS IT",
            "evil\\x1b[2J\\n\\u202e  home        work (30 s)",
            "gpt-5                work, home  -",
            "o3                   work        -",
        ]
        bench.now += 90_000
        assert proxy.console("copilot.models") == "Nothing is known about any model yet."

    play(tmp_path, test)


CALLS = """
import asyncio
import json
import os
from pathlib import Path

from mitmproxy import ctx
from copilot_balancer.proxy.commands import Commands
from copilot_balancer.store.running_proxies import RunningProxy
from copilot_balancer.store.store import Store


class Calls:
    # waits for the addon, then calls what stands in $CALLS, a line each, as the console does

    def running(self):
        self.task = asyncio.get_running_loop().create_task(self.call())

    async def call(self):
        addons = ctx.master.addons
        balancer = addons.get("copilotbalancer")
        if addons.get("copilot_commands") is None:
            this = RunningProxy(os.getpid(), 0.0, (), "0")
            addons.add(Commands(lambda: balancer.live, Store(balancer.where.state), lambda: this))
        told = []
        for line in json.loads(os.environ["CALLS"]):
            told.append(ctx.master.commands.execute(line))
            await asyncio.sleep(1.2)
        Path(os.environ["CALLED"]).write_text(json.dumps(told))


addons = [Calls()]
"""


def test_in_a_real_proxy(start, fake, tmp_path):
    """In a real mitmdump a decision by command is in force for the next request, and what is looked at is true."""
    script, called = tmp_path / "calls.py", tmp_path / "called"
    script.write_text(CALLS)
    calls = [
        "copilot.account.disable work",
        "copilot.use spare",
        "copilot.accounts",
        "copilot.status",
        "copilot.explain gpt-4.1",
    ]
    proxy = start("-s", str(script), env={"CALLS": json.dumps(calls), "CALLED": str(called)})
    until(called.exists, "the commands", 30)
    until(called.read_text, "what they said")

    disabled, used, accounts, status, explained = json.loads(called.read_text())

    assert (disabled, used) == ("work is off now.", "spare is the home account now.")
    assert [line.split()[:3] for line in accounts.splitlines()[1:]] == [
        ["work", "disabled", "-"],
        ["personal", "ready", "-"],
        ["*", "spare", "ready"],
    ]
    assert "2 of 3 accounts can serve now" in status
    assert "does not serve: it is turned off" in status
    assert "work  " in explained.partition("The others:")[2]
    assert "copilot: spare is the home account now." in proxy.log
    for _ in range(3):
        assert proxy.post().status_code == 200
    assert "work" not in [seen.account for seen in fake.asked()]
