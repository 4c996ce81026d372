"""How the commands show accounts."""

import pytest

from copilot_balancer.cli.status import tell_limits
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.views import status
from copilot_balancer.views.status import quota_facts, quota_lines
from support.command_line import CommandLine
from support.pools import decisions

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("window", "line"),
    [
        pytest.param(QuotaWindow(100, unlimited=True), "unlimited", id="unlimited"),
        pytest.param(QuotaWindow(0.4), "[#...................]   0 %", id="only a percentage"),
        pytest.param(QuotaWindow(50, NOW), "[##########..........]  50 %  resets 2026-09-21 14:13 UTC", id="reset"),
        pytest.param(
            QuotaWindow(97.1, remaining=9_719_759.1, entitlement=1e7),
            "[###################.]  97 %  9.7M of 10.0M",
            id="millions",
        ),
        pytest.param(
            QuotaWindow(50, remaining=15_000, entitlement=30_000),
            "[##########..........]  50 %  15.0k of 30.0k",
            id="thousands",
        ),
        pytest.param(
            QuotaWindow(0, remaining=-3, entitlement=300), "[....................]   0 %  -3 of 300", id="overdrawn"
        ),
        pytest.param(QuotaWindow(10, remaining=1, entitlement=0), "[##..................]  10 %", id="of nothing"),
    ],
)
def test_quota(window, line):
    """What is left is a bar, a percentage, and what else is known; a line has 80 columns at most."""
    (shown,) = quota_lines({"completions": window})

    assert shown == f"completions  {line}"
    assert len(f"    {shown}") <= 80


def test_no_quota():
    """Where nothing is known there is no line."""
    assert quota_lines({}) == []
    assert quota_facts({}) == {}


def test_quota_for_programs():
    """Programs get moments as text, and null for what is not known."""
    assert quota_facts({"chat": QuotaWindow(50.0, seen_at=NOW)}) == {
        "chat": {
            "percent_left": 50.0,
            "unlimited": False,
            "remaining": None,
            "entitlement": None,
            "overage_permitted": False,
            "resets_at": None,
            "seen_at": "2026-09-21T14:13:20Z",
        }
    }


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], ""),
        ([("balancing", "off")], "only work serves while balancing is off: `copilot-balancer balancing on`"),
        (
            [("balancing", "off"), ("accounts", "disable", "work")],
            "nobody serves while balancing is off: `copilot-balancer balancing on`",
        ),
        (
            [("accounts", "disable", "work"), ("accounts", "disable", "personal")],
            "nobody serves until you enable one: `copilot-balancer accounts enable work`",
        ),
    ],
    ids=["nothing", "balancing off", "home off", "all off"],
)
def test_limits(tmp_path, capsys, steps, said):
    """What keeps accounts from serving and is easily forgotten is told with its remedy."""
    cli = CommandLine(tmp_path)
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work")
    cli.add("Dog", "personal")
    for step in steps:
        cli.run(*step)
    capsys.readouterr()

    tell_limits(cli.decisions)

    assert " ".join(capsys.readouterr().err.split()).removeprefix("note: ") == said


def test_limits_of_nobody(tmp_path, capsys):
    """Without an account there is nothing to tell; without the terms the first one serves."""
    cli = CommandLine(tmp_path)
    tell_limits(cli.decisions)
    assert capsys.readouterr().err == ""

    cli.add("Work", "work")
    cli.add("Dog", "personal")
    tell_limits(cli.decisions)
    assert "only work serves until you accept" in capsys.readouterr().err


def test_no_limits():
    """Where nothing is forgotten nothing is told."""
    assert status.limits(decisions("work", "home")) is None
    assert status.limits(decisions("work", "home", balancing=False)) == (
        "only work serves while balancing is off: `copilot-balancer balancing on`"
    )
