"""What all commands that bring an account in have in common."""

import json
from dataclasses import replace

import pytest

from copilot_balancer.rules.state import Memory
from support.command_line import OCTOCAT, CommandLine, token

STDIN = ("accounts", "import", "--from", "stdin")


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


def test_second_account_from_a_pipe(cli):
    """Where nobody can be asked, the second account is stored, and it is said that only the first serves."""
    cli.add("Work", "work")

    result = cli.add("Dog", "personal")

    assert "only work serves until you accept GitHub's rules: `copilot-balancer terms accept`" in " ".join(
        result.stderr.split()
    )
    assert [account.label for account in cli.decisions.serving()] == ["work"]


@pytest.mark.parametrize(("answer", "serving"), [("y", ["work", "personal"]), ("n", ["work"])])
def test_second_account_at_a_terminal(cli, answer, serving):
    """At a terminal the rules are shown with the second account, and asked about; a no leaves the first one alone."""
    cli.add("Work", "work", at_terminal=True)

    result = cli.run(*STDIN, "--label", "personal", typed=f"{token('Dog')}\n{answer}\n", at_terminal=True)

    assert "GitHub's rules for a person with several accounts" in result.stdout
    assert [account.label for account in cli.decisions.serving()] == serving
    assert ("only work serves" in result.stderr) is (answer == "n")


def test_refreshed_account_asks_nothing(cli):
    """Only an account that is new brings the question up again."""
    cli.add("Work", "work")
    cli.add("Dog", "personal")

    result = cli.add("Dog", "personal", at_terminal=True)

    assert "GitHub's rules for" not in result.stdout
    assert "only work serves" in result.stderr


def test_accepted_once(cli):
    """Whoever has accepted is not asked again."""
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work", at_terminal=True)

    result = cli.add("Dog", "personal", at_terminal=True)

    assert "GitHub's rules" not in result.output
    assert len(cli.decisions.serving()) == 2


def test_second_free_account(cli):
    """A second account on Copilot Free is not taken in."""
    cli.add("Free", "free")

    assert "octofree2 is on Copilot Free, and so is free" in cli.refused(*STDIN, "--label", "x", typed=token("Free2"))


# ── what was learnt in passing ───────────────────────────────────────────────────────────────────────────────────────


def test_models_and_quota_are_remembered(cli):
    """What GitHub says when an account comes in, its models and its quota, is in the memory at once."""
    snapshots = {"premium_interactions": {"percent_remaining": 68.1, "entitlement": 300}}
    cli.people[token("Work")] = replace(OCTOCAT, quota={"quota_snapshots": snapshots})

    cli.add("Work", "work")

    state = cli.env.store.read_memory().accounts["github.com:1"]
    assert state.credential == cli.decisions.accounts[0].fingerprint
    assert {name: fact.until - cli.now for name, fact in state.models.items()} == {"gpt-4.1": 86400, "gpt-5.4": 86400}
    assert state.models["gpt-4.1"].included
    assert state.listed_at == cli.now
    assert state.quota["premium"].percent_left == 68.1


def test_unverified_account_teaches_nothing(cli):
    """Where nobody was asked nothing is remembered."""
    cli.add("Work", "work", "--no-verify")

    assert cli.env.store.read_memory() == Memory()


def test_token_that_is_exchanged(cli):
    """A token that the API does not take as it is, and GitHub exchanges, is stored as one to be exchanged; this is said."""
    cli.people[token("Work")] = replace(OCTOCAT, direct=False, exchange=True)

    result = cli.add("Work", "work")

    account = cli.decisions.accounts[0]
    assert (account.credential, account.api_host) == ("exchange", "api.business.githubcopilot.com")
    assert "credential  is exchanged for a short-lived one" in result.stdout
    assert result.stderr == ""
    assert cli.env.store.read_memory().accounts["github.com:1"].listed_at == cli.now


def test_token_that_the_api_refuses(cli):
    """A token that the API takes in neither way is stored as it is, with a word about it: the seat may come later."""
    cli.people[token("Work")] = replace(OCTOCAT, direct=False)

    result = cli.add("Work", "work")

    assert cli.decisions.accounts[0].credential == "direct"
    assert "nor can the token be exchanged" in " ".join(result.stderr.split())
    assert cli.env.store.read_memory().accounts["github.com:1"].listed_at is None


def test_api_that_cannot_be_reached(cli):
    """A Copilot API that cannot be reached does not hinder the account."""
    cli.down.add("api.business.githubcopilot.com")

    result = cli.add("Work", "work")

    assert cli.labels == ["work"]
    assert "cannot be reached" in result.stderr


def test_second_account_in_json(cli):
    """A program is not asked about the terms, at a terminal or not; that they are missing stands on stderr."""
    cli.add("Work", "work")

    result = cli.add("Dog", "personal", "--json", at_terminal=True)

    assert json.loads(result.stdout)[0]["serving"] is False
    assert "until you accept GitHub's rules" in " ".join(result.stderr.split())


def test_broken_settings(cli):
    """Settings that cannot be used stop the command before anything is stored."""
    cli.env.paths.config.mkdir(parents=True)
    (cli.env.paths.config / "config.toml").write_text("model_ttl = 0\n")

    assert "model_ttl must be a number of seconds" in cli.refused(*STDIN, typed=token("Work"))
    assert not cli.env.store.accounts_path.exists()
