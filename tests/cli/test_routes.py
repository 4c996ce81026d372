"""``strategy`` and ``routes``: what the dashboard can decide, from the command line."""

import json

import pytest

from copilot_balancer.rules.state import AccountState, Memory, ModelFact
from support.command_line import CommandLine

CONFIG = """
strategy = "sticky"
[[routes]]
models = ["gpt*"]
accounts = ["work"]
"""


@pytest.fixture
def cli(tmp_path):
    cli = CommandLine(tmp_path)
    cli.env.paths.config.mkdir(parents=True)
    (cli.env.paths.config / "config.toml").write_text(CONFIG)
    cli.add("Work", "work")
    cli.run("terms", "accept", "--yes")
    cli.add("Dog", "personal")
    return cli


def rows(cli):
    found = json.loads(cli.run("routes", "list", "--json").stdout)["routes"]
    return [(row["models"], row["accounts"], row["fallback"], row["enabled"]) for row in found]


def test_strategy(cli):
    """A strategy is chosen, shown with its origin, and given back to the settings."""
    path = cli.env.paths.config / "config.toml"
    assert cli.run("strategy").stdout == f"New conversations are assigned by sticky (from {path}).\n"
    assert cli.run("strategy", "quota").stdout == "New conversations are assigned by quota (decided).\n"
    assert cli.decisions.strategy == "quota"
    assert json.loads(cli.run("strategy", "--json").stdout) == {"strategy": "quota", "source": "decided"}
    assert "sticky" in cli.run("strategy", "--reset").stdout
    assert cli.decisions.strategy is None
    assert "not both" in cli.run("strategy", "quota", "--reset", exit_code=2).stderr
    assert "nonsense" in cli.run("strategy", "nonsense", exit_code=2).stderr


def test_routes(cli):
    """Rows are added, changed, moved and removed; the first change takes those of the settings over, reset undoes it."""
    settings = [(["gpt*"], ["work"], [], True)]
    claude = (["claude*", "o9"], ["personal", "work"], ["gpt-5.4"], True)
    assert rows(cli) == settings
    add = ("routes", "add", "-m", "claude*", "-m", "o9", "-a", "personal", "-a", "work", "--fallback", "gpt-5.4")
    shown = cli.run(*add).stdout
    assert "  2  claude* o9: personal work, else as gpt-5.4\n" in shown
    assert rows(cli) == [*settings, claude]
    assert "such a route already" in cli.refused(*add)
    cli.run("routes", "move", "2", "1")
    assert rows(cli) == [claude, *settings]
    cli.run("routes", "edit", "1", "--off", "--account", "work")
    assert rows(cli)[0] == (["claude*", "o9"], ["work"], ["gpt-5.4"], False)
    cli.run("routes", "remove", "1")
    cli.run("routes", "remove", "1")
    assert cli.run("routes").stdout.startswith("There is no route")
    assert cli.decisions.routes == ()
    cli.run("routes", "reset")
    assert cli.decisions.routes is None
    assert rows(cli) == settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "-m", "x", "-a", "wrk"), "no account is called wrk (did you mean work?)"),
        (("add", "-m", "two words"), "a model or pattern is 1 to 200 printable ASCII characters"),
        (("edit", "2", "--off"), "there is no route 2 (there are 1"),
        (("remove", "9"), "there is no route 9"),
        (("move", "9", "1"), "there is no route 9"),
    ],
)
def test_refused(cli, arguments, said):
    """A name that names nothing and a row that is not there change nothing."""
    assert said in cli.refused("routes", *arguments)
    assert cli.decisions.routes is None


def test_without_a_model(cli):
    """A route without a model is a wrong call."""
    assert "at least one --model" in cli.run("routes", "add", exit_code=2).stderr


def test_a_route_of_an_account_that_is_gone(cli):
    """A row that names a removed account can be edited without naming it anew."""
    cli.run("accounts", "remove", "work", "--yes")
    cli.run("routes", "edit", "1", "--off")
    assert rows(cli) == [(["gpt*"], ["work"], [], False)]


def test_a_model_that_nobody_has(cli):
    """A model that is on no account's list is told, with the nearest one, and stored all the same."""
    [work, _] = cli.decisions.accounts
    state = AccountState(
        credential=work.fingerprint, listed_at=cli.now, models={"gpt-5.4": ModelFact(True, cli.now + 99, cli.now)}
    )
    cli.env.store.merge_memory(Memory({work.id: state}))
    told = cli.run("routes", "add", "-m", "gpt-5.5", "-a", "work").stderr
    assert "gpt-5.5 is on no account's list (did you mean gpt-5.4?)" in " ".join(told.split())
    assert len(rows(cli)) == 2
