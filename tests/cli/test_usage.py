"""``copilot-balancer usage``: each account's quota, told or not."""

import json
from dataclasses import replace

import pytest

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.errors import StoreError
from copilot_balancer.rules.state import AccountState, Memory
from support.command_line import OCTOCAT, CommandLine, token

PREMIUM = {"percent_remaining": 68.1, "entitlement": 300, "quota_remaining": 204.3, "quota_reset_at": 1_790_086_400}
QUOTA = {
    "quota_snapshots": {"premium_interactions": PREMIUM, "chat": {"unlimited": True}},
    "analytics_tracking_id": "secret-tracking-id",
}


@pytest.fixture
def cli(tmp_path):
    """work tells its quota; opencat's token may not ask; acme tells no quota."""
    cli = CommandLine(tmp_path)
    cli.people[token("Work")] = replace(OCTOCAT, quota=QUOTA)
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work")
    cli.add("Opencat", "opencat")
    cli.add("Jane", "acme", "--host", "acme.ghe.com")
    cli.asked.clear()
    return cli


def test_usage(cli):
    """Quota is shown as bars; who does not tell says why, and the others are shown all the same."""
    result = cli.run("usage")

    assert result.stdout == (
        "work  octocat on github.com, plan business\n"
        "  premium  [##############......]  68 %  204 of 300  resets 2026-09-22 14:13 UTC\n"
        "  chat     unlimited\n"
        "  spent through this store's proxies since 22 Aug 14:13 UTC: nothing\n"
        "\n"
        "opencat  opencat on github.com, plan unknown\n"
        "  api.github.com tells nothing about quota (HTTP 404): this account has no\n"
        "  Copilot, or the token's app may not ask for it\n"
        "  spent through this store's proxies since 1 Sep: nothing\n"
        "\n"
        "acme  jane_acme on acme.ghe.com, plan enterprise\n"
        "  GitHub names no quota\n"
        "  spent through this store's proxies since 1 Sep: nothing\n"
    )
    assert sorted(cli.asked) == [
        "api.acme.ghe.com/copilot_internal/user",
        *["api.github.com/copilot_internal/user"] * 2,
    ]


def test_json(cli):
    """Programs get quota and the raw answer, without what says more than plan and quota."""
    work, opencat, acme = json.loads(cli.run("usage", "--json").stdout)

    assert work["quota"]["premium"] | {"seen_at": ""} == {
        "percent_left": 68.1,
        "unlimited": False,
        "remaining": 204.3,
        "entitlement": 300.0,
        "overage_permitted": False,
        "resets_at": "2026-09-22T14:13:20Z",
        "seen_at": "",
    }
    assert (work["error"], work["plan"], work["sku"]) == (None, "business", "copilot_for_business_seat_quota")
    assert work["raw"]["quota_snapshots"]["premium_interactions"] == PREMIUM
    assert work["raw"]["analytics_tracking_id"] == "(not shown)"
    assert (opencat["quota"], opencat["raw"], opencat["sku"]) == (None, None, None)
    assert "tells nothing about quota" in opencat["error"]
    assert acme["quota"] == {}


def test_it_is_remembered(cli):
    """What GitHub says is written down for the proxy; what else is known about the account stays."""
    work = cli.decisions.find("work")
    cli.env.store.merge_memory(Memory({work.id: AccountState(credential=work.fingerprint, served=4)}))

    cli.run("usage")

    state = cli.env.store.read_memory().accounts[work.id]
    assert (state.quota["premium"].percent_left, state.served) == (68.1, 4)


def test_what_the_proxy_saw(cli):
    """Where GitHub does not tell, what the proxy saw in answers is shown with its age."""
    opencat = cli.decisions.find("opencat")
    window = QuotaWindow(12.5, seen_at=cli.now - 60)
    state = AccountState(credential=opencat.fingerprint, quota={"premium": window})
    cli.env.store.merge_memory(Memory({opencat.id: state}))

    assert (
        "  as the proxy saw it on 2026-09-21 14:12 UTC:\n  premium  [##..................]  12 %\n"
        in cli.run("usage").stdout
    )
    assert json.loads(cli.run("usage", "--json").stdout)[1]["remembered"]["premium"]["percent_left"] == 12.5


def test_nobody_tells(cli):
    """When GitHub tells about no account the exit code says so."""
    cli.down |= {"api.github.com", "api.acme.ghe.com"}

    result = cli.run("usage", exit_code=1)

    assert result.stdout.count("cannot be reached") == 3


def test_without_accounts(tmp_path):
    """Without an account it is said how to get one."""
    cli = CommandLine(tmp_path)

    assert "To add one: copilot-balancer start" in cli.run("usage").stdout
    assert cli.run("usage", "--json").stdout == "[]\n"


def test_memory_that_cannot_be_written(cli, monkeypatch):
    """A memory that cannot be written does not hinder the answer."""
    monkeypatch.setattr(type(cli.env.store), "merge_memory", lambda *_: (_ for _ in ()).throw(StoreError("locked")))

    result = cli.run("usage")

    assert "the answers were not stored: locked" in result.stderr
    assert "68 %" in result.stdout
