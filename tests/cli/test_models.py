"""``copilot-balancer models``: who has what, as remembered, and asked again."""

import json
from dataclasses import replace

import pytest

from copilot_balancer.rules.catalogue import Catalogue, Shelf
from copilot_balancer.rules.state import AccountState, Memory, ModelFact
from support.command_line import OCTOCAT, OCTODOG, CommandLine, token


@pytest.fixture
def cli(tmp_path):
    """work has two models by its list; personal is unverified, and nobody knows what it has."""
    cli = CommandLine(tmp_path)
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work")
    cli.add("Dog", "personal", "--no-verify")
    cli.asked.clear()
    return cli


def lacks(cli: CommandLine, model: str, seconds: float) -> None:
    personal = cli.decisions.find("personal")
    facts = {model: ModelFact(False, cli.now + seconds, cli.now), "long ago": ModelFact(True, cli.now - 1, 1.0)}
    cli.env.store.merge_memory(Memory({personal.id: AccountState(credential=personal.fingerprint, models=facts)}))


def test_models(cli):
    """Each model is a line with who has it and who lacks it for how long; nobody is asked, what is over is not shown."""
    lacks(cli, "gpt-5.4", 900)

    result = cli.run("models")

    assert result.stdout == (
        "MODEL    HAS IT  LACKS IT\n"
        "gpt-4.1  work    -\n"
        "gpt-5.4  work    personal (15 min)\n"
        "\n"
        "  work      listed its models on 2026-09-21 14:13 UTC\n"
        "  personal  its list is not known yet: `copilot-balancer models refresh`\n"
    )
    assert cli.asked == []


def test_json(cli):
    """Programs get the same for each account."""
    work, personal = json.loads(cli.run("models", "--json").stdout)

    assert work["models"]["gpt-4.1"] == {"has": True, "included": True, "until": "2026-09-22T14:13:20Z"}
    assert (work["label"], work["listed_at"]) == ("work", "2026-09-21T14:13:20Z")
    assert (personal["models"], personal["listed_at"]) == ({}, None)


def test_facts_about_an_older_credential(cli):
    """What was known of another credential of the account is not shown."""
    cli.people[token("New")] = replace(OCTOCAT, direct=False)
    cli.add("New", "work")

    assert "gpt-4.1" not in cli.run("models").stdout


def test_refresh(cli):
    """Each account is asked for its own list with its own credential, and what it lacked before is had now."""
    lacks(cli, "gpt-5.4", 900)
    cli.people[token("Dog")] = replace(OCTODOG, models=("gpt-5.4", "o9"))
    cli.now += 60

    result = cli.run("models", "refresh")

    assert "gpt-5.4  work, personal  -\n" in result.stdout
    assert "o9       personal        -\n" in result.stdout
    assert sorted(cli.asked) == ["api.business.githubcopilot.com/models", "api.githubcopilot.com/models"]
    state = cli.env.store.read_memory().accounts[cli.decisions.find("personal").id]
    assert state.listed_at == cli.now


def test_refresh_of_an_account_that_is_exchanged(cli):
    """An account whose credential is exchanged is asked with the exchanged one."""
    cli.people[token("Work")] = replace(OCTOCAT, direct=False, exchange=True)
    cli.add("Work", "work")
    cli.asked.clear()

    cli.run("models", "refresh")

    exchanged = [one for one in cli.asked if "api.githubcopilot.com" not in one]  # all are asked at once
    assert exchanged == ["api.github.com/copilot_internal/v2/token", "api.business.githubcopilot.com/models"]


def test_one_does_not_answer(cli):
    """Who does not answer says why; the others are asked all the same."""
    cli.down.add("api.business.githubcopilot.com")

    result = cli.run("models", "refresh", "--json")

    assert "work: api.business.githubcopilot.com cannot be reached" in " ".join(result.stderr.split())
    assert json.loads(result.stdout)[1]["listed_at"] is not None


def test_nobody_answers(cli):
    """When no account answers the exit code says so, and what was known is shown."""
    cli.down |= {"api.business.githubcopilot.com", "api.githubcopilot.com"}

    assert "gpt-4.1" in cli.run("models", "refresh", exit_code=1).stdout


def test_without_accounts(tmp_path):
    """Without an account it is said how to get one."""
    cli = CommandLine(tmp_path)

    assert "To add one: copilot-balancer start" in cli.run("models").stdout
    assert cli.run("models", "refresh", "--json").stdout == "[]\n"


def test_only_accounts_without_a_list(tmp_path):
    """As long as nothing is known, it is said how to learn it."""
    cli = CommandLine(tmp_path)
    cli.add("Dog", "personal", "--no-verify")

    assert cli.run("models").stdout == ("  personal  its list is not known yet: `copilot-balancer models refresh`\n")


def test_a_retired_model_is_warned_of(cli):
    """The service's warning reaches `models` and `explain`, for people and for programs."""
    work, *_ = cli.decisions.accounts
    warned = {"id": "gpt-5.4", "info_messages": [{"code": "model_pending_deprecation", "warning_text": "Ends soon."}]}
    cli.env.store.merge_catalogue(Catalogue({work.id: Shelf(work.fingerprint, cli.now + 1, {"gpt-5.4": warned})}))
    assert "gpt-5.4: Ends soon.\n" in cli.run("models").stdout
    rows = json.loads(cli.run("models", "--json").stdout)
    assert {row["models"]["gpt-5.4"].get("warning") for row in rows if "gpt-5.4" in row["models"]} == {"Ends soon."}
    cli.run("terms", "accept", "--yes")
    assert "gpt-5.4: Ends soon." in cli.run("explain", "gpt-5.4").stderr
