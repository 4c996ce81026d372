"""What all commands that bring an account in have in common."""

import pytest

from command_line import CommandLine, token

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
