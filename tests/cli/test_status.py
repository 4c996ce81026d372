"""``status``: everything at a glance."""

import functools
import json
from dataclasses import replace
from datetime import date

import click
import pytest

from copilot_balancer import __version__
from copilot_balancer.cli.main import cli as program
from copilot_balancer.cli.status import status
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.copilot.usage import Usage
from copilot_balancer.rules.state import AccountState, Cooldown, Memory, ModelFact
from copilot_balancer.store.ledger import Entry, Ledger, day_of, period_of
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
from support.command_line import CommandLine


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """work (home) rests, private serves, acme needs a login."""
    monkeypatch.setitem(program.commands, "status", status)
    cli = CommandLine(tmp_path)
    (tmp_path / "project").mkdir()
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work")
    cli.add("Dog", "private")
    cli.add("Jane", "acme", "--host", "acme.ghe.com")
    now = cli.now
    learn(
        cli,
        "work",
        cooldowns=[
            Cooldown(now - 60, now + 540, "limit", source="server", told_until=now + 90_000),
            Cooldown(now - 60, now + 30, "overloaded", "gpt-5"),
        ],
        quota={
            "premium": QuotaWindow(68.1, now + 86_400, entitlement=300, remaining=204.3, seen_at=now),
            "chat": QuotaWindow(100, unlimited=True, seen_at=now),
        },
        last_used=now - 120,
        served=120,
        refused=3,
        models={f"model-{number}": ModelFact(has=False, until=now + 600, began=now) for number in range(5)},
    )
    learn(cli, "acme", rejected_at=now - 10)
    return cli


def learn(cli, label, **facts):
    account = cli.decisions.find(label)
    cli.env.store.merge_memory(Memory({account.id: AccountState(credential=account.fingerprint, **facts)}))


def a_proxy(cli, **changes):
    file = RunningProxyFile(cli.env.paths.state)
    work = cli.decisions.find("work").id
    proxy = RunningProxy(4242, cli.now - 7200, ("127.0.0.1:8080",), __version__, {work: 1}, 2, "hybrid")
    file.write(replace(proxy, **changes))
    return file


def test_status(cli):
    """Accounts with quota, rests and their causes, running proxies, and what else should be known."""
    proxy = a_proxy(cli)

    result = cli.run("status")

    assert result.stdout == (
        "Balancing by hybrid; 1 of 3 accounts can serve now.\n"
        "Proxy on 127.0.0.1:8080 (process 4242, for 2 h): 2 requests under way.\n"
        "\n"
        "work (home)  cooling      octocat on github.com, plan business\n"
        "  chat     unlimited\n"
        "  premium  [##############......]  68 %  204 of 300  resets 2026-09-22 14:13 UTC\n"
        "  rests, free again in 9 min: limit, as the server said (it said 25 h; it is\n"
        "    asked again earlier)\n"
        "  rests for gpt-5, free again in 30 s: overloaded\n"
        "  does not have model-0, model-1, model-2 and 2 more\n"
        "  1 in flight, 120 served, 3 refused, last used 2 min ago\n"
        "\n"
        "private      ready        octodog on github.com, plan individual\n"
        "  0 in flight, 0 served, 0 refused, never used\n"
        "\n"
        "acme         needs login  jane_acme on acme.ghe.com, plan enterprise\n"
        "  does not serve: it needs a login\n"
        "  0 in flight, 0 served, 0 refused, never used\n"
    )
    proxy.close()


def test_json(cli):
    """Programs get the same: moments as text, lengths of time in seconds."""
    proxy = a_proxy(cli)
    shown = json.loads(cli.run("status", "--json").stdout)
    proxy.close()

    work, private, acme = shown.pop("accounts")
    assert shown == {
        "at": "2026-09-21T14:13:20Z",
        "serves": True,
        "balancing": True,
        "strategy": "hybrid",
        "home": "work",
        "terms_missing": False,
        "requests": 2,
        "conversations": 0,
        "proxies": [
            {
                "pid": 4242,
                "began": "2026-09-21T12:13:20Z",
                "listening": ["127.0.0.1:8080"],
                "version": __version__,
                "strategy": "hybrid",
                "requests": 2,
                "in_flight": {work["id"]: 1},
                "off": None,
            }
        ],
        "warnings": [],
    }
    assert work["rests"][0] == {
        "reason": "limit",
        "model": None,
        "seconds": 540.0,
        "until": "2026-09-21T14:22:20Z",
        "source": "server",
        "told_seconds": 90_000.0,
    }
    assert (work["in_flight"], work["served"], work["last_used"]) == (1, 120, "2026-09-21T14:11:20Z")
    assert work["quota"]["premium"]["remaining"] == 204.3
    assert len(work["lacks"]) == 5
    assert (private["status"], private["why_not"], private["last_used"]) == ("ready", None, None)
    assert (acme["status"], acme["why_not"]) == ("needs login", "needs a login")


def test_exit_code(cli):
    """The exit code says whether something can serve now."""
    cli.run("status")
    cli.run("accounts", "disable", "private")
    assert "0 of 3 accounts can serve now" in cli.run("status", exit_code=1).stdout
    assert json.loads(cli.run("status", "--json", exit_code=1).stdout)["serves"] is False
    cli.now += 541
    cli.run("status")


def test_no_account(tmp_path, monkeypatch):
    """Without an account it is said how to get one; a new folder is not made by looking."""
    monkeypatch.setitem(program.commands, "status", status)
    cli = CommandLine(tmp_path)
    told = cli.run("status", exit_code=1).stdout
    assert "No account is stored yet. To add one: copilot-balancer start\n" in told
    assert "note: no proxy runs: `copilot-balancer run` starts one\n" in told
    assert json.loads(cli.run("status", "--json", exit_code=1).stdout)["accounts"] == []
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("step", "told", "exit_code"),
    [
        ("balancing off", "Balancing is off, work is asked for everything; 1 of 3 accounts can serve now.", 0),
        ("balancing off", "does not serve: it is not the home account", 0),
        ("balancing off", "only work serves while balancing is off: `copilot-balancer balancing on`", 0),
        ("accounts disable private", "does not serve: it is turned off", 1),
    ],
    ids=["headline", "not home", "balancing off", "off"],
)
def test_what_keeps_accounts_from_serving(cli, step, told, exit_code):
    """What keeps an account from serving stands in the status; while balancing is off a rest does not."""
    cli.run(*step.split())
    assert told in cli.run("status", exit_code=exit_code).stdout


def test_terms(tmp_path, monkeypatch):
    """Until the terms are accepted the second account is shown as waiting, and a note says what to do."""
    monkeypatch.setitem(program.commands, "status", status)
    cli = CommandLine(tmp_path)
    cli.add("Work", "work")
    cli.add("Dog", "private")
    told = cli.run("status").stdout
    assert "1 of 2 accounts can serve now" in told
    assert "does not serve: it waits for the terms to be accepted" in told
    assert "`copilot-balancer terms accept`" in told


def test_proxies_to_worry_about(cli):
    """A proxy that uses no account, or is of another version, is told about; nothing can serve through the first."""
    proxy = a_proxy(cli, off="the option ssl_insecure is on", version="0.0.9", listening=(), requests=0)
    told = cli.run("status", exit_code=1).stdout.replace("\n      ", " ")
    proxy.close()
    assert "note: the proxy on nothing uses no account: the option ssl_insecure is on\n" in told
    assert f"is copilot-balancer 0.0.9, this is {__version__}: restart it" in told
    assert "): no request under way." in told


def test_a_proxy_with_another_strategy(cli):
    """A strategy is told of a proxy only where it is not what the files say."""
    proxy = a_proxy(cli, strategy="sticky")
    told = cli.run("status").stdout
    proxy.close()
    assert "(process 4242, for 2 h, but by sticky): 2 requests" in told


def test_a_strange_project_file(cli):
    """What a project's file must not set is told about."""
    (cli.home / "project" / ".copilot-balancer.toml").write_text('max_attempts = 9\nstrategy = "sticky"\n')
    told = cli.run("status").stdout
    assert "Balancing by sticky" in told
    assert "ignored max_attempts" in told


def test_eighty_columns(cli):
    """No line is longer than 80 columns, whatever long or strange names stand in it."""
    label = "l" * 64
    cli.run("accounts", "rename", "work", label)
    model = "m" * 200 + "\x1b[2J\u202e\n"
    now = cli.now
    learn(cli, label, cooldowns=[Cooldown(now - 1, now + 900, "limit", model)])
    learn(cli, label, models={model: ModelFact(has=False, until=now + 600, began=now)})
    proxy = a_proxy_of(cli, listening=tuple(f"[fe80::{number}]:8080" for number in range(9)))
    told = cli.run("status").stdout
    proxy.close()
    assert max(map(len, told.splitlines())) <= 80
    assert all(line.isprintable() for line in told.splitlines())


def a_proxy_of(cli, **changes):
    file = RunningProxyFile(cli.env.paths.state)
    file.write(replace(RunningProxy(1, cli.now, (), __version__), **changes))
    return file


@pytest.mark.parametrize(
    ("seconds", "named"),
    [
        pytest.param(90_000, True, id="25 hours"),
        pytest.param(384_495, True, id="four days and a half"),
        pytest.param(3600, True, id="an hour"),
        pytest.param(3599, False, id="less than an hour"),
    ],
)
def test_a_long_rest_comes_with_the_command_that_ends_it(cli, seconds, named):
    """Who has to wait for long is told how to end that: the server's own wait is kept whole otherwise."""
    now = cli.now
    learn(cli, "work", cooldowns=[Cooldown(now, now + seconds, "limit", "o3", source="server")])
    assert ("copilot-balancer accounts clear work" in " ".join(cli.run("status").stdout.split())) == named


def test_line(cli):
    """One line for a status bar: who can serve first, then who rests and why, and that no proxy runs."""
    assert cli.run("status", "--line").stdout == "private | work limit 9 min | acme needs login | no proxy runs\n"
    a_proxy(cli)
    assert cli.run("status", "--format", "line").stdout.count("\n") == 1


def test_line_of_nobody(tmp_path):
    """Without an account the line says so, and the exit code says that nothing can serve."""
    assert CommandLine(tmp_path).run("status", "--line", exit_code=1).stdout == "no account\n"


def test_prometheus(cli):
    """Metrics in the exposition format: every sample has its TYPE, and what is spent is counted by model."""
    cli.run("accounts", "rename", "private", "my-own")
    work = cli.decisions.find("work").id
    entry = Entry(
        day_of(cli.now, cli.env.zone), period_of(cli.now, None), work, 'gpt"5\\', Usage(10, 0, 1, 0, 2_500_000_000)
    )
    Ledger(cli.env.paths.state).add([entry], date(2026, 9, 1))

    lines = cli.run("status", "--format", "prometheus").stdout.splitlines()

    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name.partition("{")[0] for name in samples} == typed
    assert samples['copilot_balancer_account_ready{account="my-own"}'] == "1"
    assert samples['copilot_balancer_account_ready{account="work"}'] == "0"
    assert samples['copilot_balancer_account_cooldown_seconds{account="work",model="",reason="limit"}'] == "540"
    assert samples['copilot_balancer_quota_percent_left{account="work",window="premium"}'] == "68.1"
    assert samples['copilot_balancer_spent_today_credits{account="work",model="gpt\\"5\\\\"}'] == "2.5"
    assert not any("chat" in name for name in samples)


def test_colours(cli, monkeypatch):
    """In a terminal the status of each account has a colour; never in a pipe, nor with NO_COLOR."""
    cli.run("accounts", "disable", "acme")
    assert "\x1b" not in cli.run("status").stdout
    monkeypatch.setattr(click, "echo", functools.partial(click.echo, color=True))
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, shown = cli.run("status", "--json").stdout, cli.run("status").stdout
    assert "\x1b" not in plain
    assert "\x1b[32mready\x1b[0m" in shown
    assert "\x1b[31mdisabled\x1b[0m" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in cli.run("status").stdout
