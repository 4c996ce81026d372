"""``copilot-balancer accounts``: looking and deciding; ``command_line`` checks each time that no token came out."""

import json
from dataclasses import replace

import pytest

from command_line import OCTODOG, CommandLine, token
from copilot_balancer.memory import AccountState, Affinity, Cooldown, Memory, ModelFact, QuotaWindow


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture
def three(cli):
    """Three accounts, terms accepted."""
    cli.run("terms", "accept", "--yes")
    cli.add("Work", "work")
    cli.add("Dog", "personal")
    cli.add("Jane", "acme", "--host", "acme.ghe.com")
    return cli


# ── look ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_empty_list(cli):
    """Without an account it is said how to get one."""
    assert "To log in: copilot-balancer accounts add" in cli.run("accounts", "list").stdout
    assert cli.run("accounts", "list", "--json").stdout == "[]\n"
    assert cli.run("balancing", "off").stderr == ""


def test_list(three):
    """The table shows each account in one line of at most 80 columns, the home account marked."""
    three.run("accounts", "use", "personal")
    three.run("accounts", "disable", "acme")

    result = three.run("accounts", "list")

    assert result.stdout == (
        "  LABEL     LOGIN      HOST          API             PLAN        FENCE    STATE\n"
        "  work      octocat    github.com    api.business    business    default  on\n"
        "* personal  octodog    github.com    api.individual  individual  default  on\n"
        "  acme      jane_acme  acme.ghe.com  copilot-api     enterprise  default  off\n"
        "\n"
        "* home account\n"
    )
    assert result.stderr == ""
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_list_of_unknown_facts(cli):
    """What nobody knows is a dash."""
    cli.add("Work", "work", "--no-verify")

    assert "* work   -      github.com  api  -     default  on" in cli.run("accounts", "list").stdout


def test_accounts_alone_lists(three):
    """``accounts`` is ``accounts list``."""
    assert three.run("accounts").output == three.run("accounts", "list").output


def test_json_list(three):
    """Programs get every fact but the token, in the order in which the accounts were added, the same each time."""
    three.run("accounts", "disable", "work")
    rows = json.loads(three.run("accounts", "list", "--json").stdout)

    assert [row["label"] for row in rows] == ["work", "personal", "acme"]
    work = three.decisions.accounts[0]
    assert rows[0] == {
        "label": "work",
        "id": "github.com:1",
        "login": "octocat",
        "host": "github.com",
        "api_host": "api.business.githubcopilot.com",
        "credential": "direct",
        "plan": "business",
        "enabled": False,
        "home": True,
        "serving": False,
        "fence": "default",
        "priority": 0,
        "fingerprint": work.fingerprint,
        "added_at": "2026-09-21T14:13:20Z",
    }
    three.add("Dog", "personal")
    three.run("accounts", "enable", "work")
    again = json.loads(three.run("accounts", "list", "--json").stdout)
    assert [row["label"] for row in again] == ["work", "personal", "acme"]


def test_who_serves(three):
    """``serving`` in JSON is false for who is off, waits for the terms, or is not home while balancing is off."""

    def serving():
        return [row["serving"] for row in json.loads(three.run("accounts", "list", "--json").stdout)]

    assert serving() == [True, True, True]
    three.run("balancing", "off")
    assert serving() == [True, False, False]
    three.run("balancing", "on")
    three.world.store.edit_decisions(lambda decisions: decisions.model_copy(update={"terms_accepted_at": None}))
    assert serving() == [True, False, False]


def test_list_says_what_limits(three):
    """Below the table stands what is easily forgotten: balancing off, terms not accepted, nobody on."""
    three.run("balancing", "off")
    assert "only work serves while balancing is off" in three.run("accounts", "list").stderr
    three.run("accounts", "disable", "work")
    assert "nobody serves while balancing is off" in three.run("accounts", "list").stderr
    three.run("accounts", "disable", "personal")
    assert "nobody serves until you enable one" in three.run("accounts", "disable", "acme").stderr


def test_path(cli):
    """The places of all files are printed, and nothing is made there."""
    state, config = cli.world.paths.state, cli.world.paths.config

    shown = cli.run("accounts", "path").stdout
    told = json.loads(cli.run("accounts", "path", "--json").stdout)

    assert told == {
        "accounts": str(state / "accounts.json"),
        "state": str(state / "state.json"),
        "config": str(config / "config.toml"),
    }
    assert all(place in shown for place in told.values())
    assert not state.exists()


# ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_use(three):
    """``use`` makes another account home, by label or login."""
    assert three.run("accounts", "use", "acme").stdout == "acme is the home account.\n"
    assert three.decisions.home.label == "acme"
    assert three.run("accounts", "use", "OctoDog").stdout == "personal is the home account.\n"


def test_disable_and_enable(three):
    """An account is switched off and on; on tells when, which ends an abuse block."""
    assert three.run("accounts", "disable", "work").stdout == "work is off.\n"
    assert not three.decisions.find("work").enabled
    three.now += 60
    assert three.run("accounts", "enable", "work").stdout == "work is on.\n"
    assert (three.decisions.find("work").enabled, three.decisions.find("work").enabled_at) == (True, three.now)


def test_remove(three):
    """With --yes an account and its token are gone, and it is said that GitHub does not know that."""
    result = three.run("accounts", "remove", "acme", "--yes")

    assert result.stdout == "Removed account acme.\n"
    assert "https://acme.ghe.com/settings/applications" in result.stderr
    assert three.labels == ["work", "personal"]
    assert token("Jane") not in three.world.store.accounts_path.read_text()
    assert three.decisions.removed == {"acme.ghe.com:4": three.now}


def test_remove_by_typing_the_label(three):
    """A person is told what goes and types its label."""
    result = three.run("accounts", "remove", "work", typed="work\n", at_terminal=True)

    assert "This deletes work (octocat on github.com) and its token." in result.stderr
    assert "personal is the home account now" in result.stderr
    assert three.labels == ["personal", "acme"]


@pytest.mark.parametrize("typed", ["\n", "y\n", "yes\n", "personal\n", "WORK\n"], ids=repr)
def test_remove_with_another_word(three, typed):
    """Any other word removes nothing."""
    assert "nothing was removed" in three.refused("accounts", "remove", "work", typed=typed, at_terminal=True)


def test_remove_and_leave(three):
    """Who leaves at the question has removed nothing."""
    three.run("accounts", "remove", "work", typed="", at_terminal=True, exit_code=1)

    assert three.labels == ["work", "personal", "acme"]


def test_remove_without_anybody_to_ask(three):
    """From a pipe nothing is removed without --yes, whatever it says."""
    assert "say --yes" in three.refused("accounts", "remove", "work", typed="work\n")


def test_remove_unverified_and_last(cli):
    """The last account can go; of one that nobody verified no GitHub page is known."""
    cli.add("Work", "work", "--no-verify")

    result = cli.run("accounts", "remove", "work", typed="work\n", at_terminal=True)

    assert "work (not verified on github.com)" in result.stderr
    assert "note:" not in result.stderr
    assert cli.labels == []


def test_removed_and_back(three):
    """A removed account comes back when it is imported again, at the end."""
    three.run("accounts", "remove", "work", "--yes")
    three.now += 60

    three.add("Work", "again")

    assert three.labels == ["personal", "acme", "again"]
    assert three.decisions.removed == {}


@pytest.mark.parametrize("verb", ["use", "enable", "disable", "remove"])
def test_unknown_account(three, verb):
    """A name that nobody has is refused with the names that there are."""
    sentence = three.refused("accounts", verb, "nobody", *(["--yes"] if verb == "remove" else []))

    assert sentence == "there is no account 'nobody' (accounts: work, personal, acme)"


@pytest.mark.parametrize("verb", ["list", "use", "enable", "disable", "remove", "import"])
def test_store_that_others_can_read(three, verb):
    """A store with a wrong mode is refused by every command with path and remedy, and left as it is."""
    path = three.world.store.accounts_path
    path.chmod(0o644)
    before = path.read_bytes()
    more = {"list": [], "remove": ["work", "--yes"], "import": ["--from", "stdin", "--label", "x"]}.get(verb, ["work"])

    result = three.run("accounts", verb, *more, typed=token("Dog"), exit_code=1)

    assert result.stderr.startswith(f"error: {path}: ")
    assert "chmod 600" in result.stderr
    assert path.read_bytes() == before


def test_login_shared_by_two_hosts(cli):
    """The same login on two hosts is two accounts, told apart by their labels."""
    cli.run("terms", "accept", "--yes")
    cli.people[token("Dog2")] = replace(OCTODOG, api_host="copilot-api.acme.ghe.com")
    cli.add("Dog", "one")
    cli.add("Dog2", "two", "--host", "acme.ghe.com")

    assert "names 2 accounts; use a label" in cli.refused("accounts", "use", "octodog")
