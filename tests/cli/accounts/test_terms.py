"""``copilot-balancer terms``: shown in plain words, accepted once, by a person."""

import json

import pytest

from copilot_balancer.cli.accounts.terms import RULES
from support.command_line import CommandLine


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "one free GitHub account",
        "one person only",
        "shared to exceed",
        "ten tokens",
        '"multiple accounts to circumvent billing and usage limits"',
        "organisation's contract",
        "Terms of Service, B.3",
        "Terms of Service, H",
    ],
)
def test_rules(cli, words):
    """Each of GitHub's rules is told, with where it is said, in lines that fit a terminal."""
    shown = cli.run("terms").stdout

    assert words in " ".join(shown.split())
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert all(f"{number}. {rule.title}." in shown for number, rule in enumerate(RULES, 1))


def test_state(cli):
    """The rules end with whether and when they were accepted."""
    assert cli.run("terms").stdout.splitlines()[-1] == "You have not accepted yet: `copilot-balancer terms accept`"

    cli.run("terms", "accept", "--yes")

    assert cli.run("terms").stdout.splitlines()[-1] == "You accepted on 2026-09-21 14:13 UTC."


def test_json(cli):
    """Programs get the same."""
    told = json.loads(cli.run("terms", "--json").stdout)

    assert told["accepted_at"] is None
    assert [rule["title"] for rule in told["rules"]] == [rule.title for rule in RULES]

    cli.run("terms", "accept", "--yes")

    assert json.loads(cli.run("terms", "--json").stdout)["accepted_at"] == "2026-09-21T14:13:20Z"


def test_accept_at_a_terminal(cli):
    """A person is shown the rules, asked once, and the yes is stored with its date."""
    shown = cli.run("terms", "accept", typed="y\n", at_terminal=True).stdout

    assert RULES[0].title in shown
    assert shown.splitlines()[-1] == "Accepted on 2026-09-21 14:13 UTC: every account may serve."
    assert cli.decisions.terms_accepted_at == cli.now


@pytest.mark.parametrize(
    ("typed", "at_terminal", "said"),
    [
        pytest.param("n\n", True, "not accepted", id="no"),
        pytest.param("\n", True, "not accepted", id="just Enter"),
        pytest.param("y\n", False, "not a terminal", id="yes from a pipe"),
    ],
)
def test_not_accepted(cli, typed, at_terminal, said):
    """Nothing but a person's yes, or --yes, accepts."""
    assert said in cli.refused("terms", "accept", typed=typed, at_terminal=at_terminal)
    assert cli.decisions.terms_accepted_at is None


def test_left_in_the_middle(cli):
    """Who leaves at the question has not accepted."""
    cli.run("terms", "accept", typed="", at_terminal=True, exit_code=1)

    assert cli.decisions.terms_accepted_at is None


def test_accepted_already(cli):
    """The first date stays, and nobody is asked again."""
    cli.run("terms", "accept", "--yes")
    cli.now += 86400

    assert cli.run("terms", "accept", at_terminal=True).stdout == "You accepted on 2026-09-21 14:13 UTC already.\n"
    assert cli.decisions.terms_accepted_at == cli.now - 86400


def test_accepted_meanwhile(cli):
    """Where another program stored a yes while the question stood, its date stays."""
    cli.add("Work", "work")
    store = cli.env.store
    first = cli.now

    class Slow(type(store)):
        def read_decisions(self):
            before = super().read_decisions()
            store.edit_decisions(lambda decisions: decisions.model_copy(update={"terms_accepted_at": first}))
            return before

    cli.now += 60
    cli.env = type("SlowWorld", (type(cli.env),), {"store": property(lambda self: Slow(self.paths.state))})(
        **{name: getattr(cli.env, name) for name in cli.env.__dataclass_fields__}
    )

    assert "Accepted on 2026-09-21 14:13 UTC" in cli.run("terms", "accept", "--yes").stdout
    assert store.read_decisions().terms_accepted_at == first
