"""``copilot-balancer accounts``: every command, every refusal; ``command_line`` checks each time that no token came out."""

import json
import stat
from dataclasses import replace

import pytest

from command_line import JANE, OCTODOG, CommandLine, token
from copilot_balancer.copilot import PLACEHOLDER
from copilot_balancer.memory import AccountState, Affinity, Memory

STDIN = ("accounts", "import", "--from", "stdin")
OPENCODE = ("accounts", "import", "--from", "opencode")


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


def opencode(cli: CommandLine, *names: str, domain: str | None = None) -> None:
    path = cli.home / "data" / "opencode" / "auth.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("github-copilot", "github-copilot-enterprise")
    entries = {
        key: {"type": "oauth", "refresh": token(name), "expires": 0} for key, name in zip(keys, names, strict=False)
    }
    if domain:
        entries[keys[len(names) - 1]]["enterpriseUrl"] = domain
    path.write_text(json.dumps(entries))


# ── bring in ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_first_account(cli):
    """The first account is stored with what GitHub says, told, and how to go on is said."""
    result = cli.add("Work", " Work ")

    assert result.stdout == (
        "Added account work\n"
        "  login      octocat on github.com\n"
        "  plan       business\n"
        "  API host   api.business.githubcopilot.com\n"
        f"  stored in  {cli.world.store.accounts_path}\n"
        "\n"
        'Start the proxy:  mitmdump -s "$(copilot-balancer addon-path)"\n'
    )
    assert result.stderr == ""
    (account,) = cli.decisions.accounts
    assert (account.id, account.label, account.token.get_secret_value()) == ("github.com:1", "work", token("Work"))
    assert account.added_at == cli.now


def test_token_is_in_one_file_with_its_mode(cli):
    """The token is in accounts.json alone, which is for its owner alone, as is its folder."""
    cli.add("Work", "work")

    path = cli.world.store.accounts_path
    holders = [file for file in cli.home.rglob("*") if file.is_file() and token("Work") in file.read_text()]
    assert holders == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["{}", "{}\n", "  {}\r\n\n", "\n{}"], ids=repr)
def test_piped_token(cli, text):
    """Blanks and line breaks around a piped token are no part of it."""
    cli.run(*STDIN, "--label", "work", typed=text.format(token("Work")))

    assert cli.decisions.accounts[0].token.get_secret_value() == token("Work")


def test_typed_token(cli):
    """A person is asked for the token, on stderr, and types it unseen."""
    result = cli.add("Work", "work", at_terminal=True)

    assert result.stderr == "Token (not shown): \n"
    assert cli.labels == ["work"]


def test_enterprise_account(cli):
    """--host is the login host, in whatever way it is written."""
    cli.add("Jane", "acme", "--host", "https://Acme.ghe.com/")

    (account,) = cli.decisions.accounts
    assert (account.id, account.host, account.api_host) == ("acme.ghe.com:4", "acme.ghe.com", JANE.api_host)
    assert {question.split("/")[0] for question in cli.asked} == {"api.acme.ghe.com"}


def test_unverified_account(cli):
    """--no-verify asks nobody, takes the id from the token's hash, and says what that means."""
    result = cli.add("Work", "work", "--no-verify")

    (account,) = cli.decisions.accounts
    assert cli.asked == []
    assert account.id == f"github.com:h{account.fingerprint}"
    assert "GitHub was not asked" in result.stderr
    assert "not verified on github.com" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        pytest.param((), "x" * 40, "needs a --label", id="no label"),
        pytest.param(("--label", "!!"), "x" * 40, "cannot be a label", id="unusable label"),
        pytest.param(("--label", "work", "--host", "evil.test"), "x" * 40, "not a login host", id="foreign host"),
        pytest.param(("--label", "work"), "", "not a token", id="nothing on stdin"),
        pytest.param(("--label", "work"), "short", "not a token", id="too short"),
        pytest.param(("--label", "work"), "x" * 4097, "not a token", id="too long"),
        pytest.param(("--label", "work"), "two words here", "not a token", id="two words"),
        pytest.param(("--label", "work"), "tökentökentöken", "not a token", id="not ASCII"),
        pytest.param(("--label", "work"), b"\xff\xfe" * 20, "not a token", id="not text"),
        pytest.param(("--label", "work"), token("Nobody"), "does not accept this token", id="unknown to GitHub"),
        pytest.param(("--label", "work"), PLACEHOLDER, "placeholder", id="the placeholder"),
        pytest.param(("--label", "work", "--no-verify"), PLACEHOLDER, "placeholder", id="the placeholder, unverified"),
    ],
)
def test_refused_import(cli, arguments, typed, said):
    """What cannot be used is refused with a sentence, and nothing is stored."""
    cli.people[PLACEHOLDER] = OCTODOG

    assert said in cli.refused(*STDIN, *arguments, typed=typed)
    assert not cli.world.store.accounts_path.exists()


def test_taken_label(cli):
    """A label is one account's."""
    cli.add("Work", "work")

    assert "label work is taken by octocat" in cli.refused(*STDIN, "--label", "Work", typed=token("Dog"))


def test_same_identity_twice(cli):
    """The same person again is one account still: new token, old label, and the label that was asked for is told as unused."""
    cli.add("Work", "work")
    cli.people[token("WorkNew")] = cli.people[token("Work")]

    result = cli.add("WorkNew", "other")

    assert result.stdout.startswith("Refreshed account work\n")
    assert "keeps its label, work" in result.stderr
    assert "Start the proxy" not in result.stdout
    (account,) = cli.decisions.accounts
    assert (account.label, account.token.get_secret_value()) == ("work", token("WorkNew"))


def test_verified_later(cli):
    """An unverified account that is verified later is the same account, with what was learnt about it."""
    cli.add("Work", "work", "--no-verify")
    old = cli.decisions.accounts[0].id
    state = AccountState(credential=cli.decisions.accounts[0].fingerprint, served=3)
    cli.world.store.merge_memory(Memory({old: state}, {"hash": Affinity(old, cli.now)}))

    result = cli.add("Work", "work")

    assert result.stderr == ""
    assert [(account.id, account.label) for account in cli.decisions.accounts] == [("github.com:1", "work")]
    memory = cli.world.store.read_memory()
    assert memory.accounts["github.com:1"].served == 3
    assert memory.conversations["hash"].account_id == "github.com:1"


def test_verified_later_with_a_broken_memory(cli):
    """A memory that cannot be read does not hinder the account; that it is forgotten is said."""
    cli.add("Work", "work", "--no-verify")
    state = cli.world.store.state_path
    state.write_text("{")
    state.chmod(0o600)

    result = cli.add("Work", "work")

    assert "is forgotten" in result.stderr
    assert cli.decisions.accounts[0].id == "github.com:1"


def test_opencode(cli):
    """opencode's login becomes an account called by its login, and what its token may not ask is said."""
    opencode(cli, "Opencat")

    result = cli.run(*OPENCODE)

    assert cli.labels == ["opencat"]
    assert "Found a login in" in result.stderr
    assert "or the token's app may not ask for it" in " ".join(result.stderr.split())


def test_opencode_with_a_label(cli):
    """--label names opencode's account."""
    opencode(cli, "Opencat")

    cli.run(*OPENCODE, "--label", "Mine")

    assert cli.labels == ["mine"]


def test_two_logins_of_opencode(cli):
    """Both logins of opencode come in, in one change."""
    opencode(cli, "Dog", "Jane", domain="acme.ghe.com")

    cli.run(*OPENCODE)

    assert [account.host for account in cli.decisions.accounts] == ["github.com", "acme.ghe.com"]


@pytest.mark.parametrize(
    ("names", "arguments", "said"),
    [
        pytest.param((), (), "auth.json holds no login", id="no login"),
        pytest.param(("Dog",), ("--host", "github.com"), "--host is for a token from stdin", id="host"),
        pytest.param(("Dog", "Work"), ("--label", "both"), "cannot all be called both", id="one label for two"),
        pytest.param(("Dog",), ("--no-verify",), "give it a --label", id="nobody asked for the login"),
        pytest.param(("Dog", "Nobody"), (), "does not accept this token", id="one of two is refused"),
    ],
)
def test_refused_opencode(cli, names, arguments, said):
    """What cannot be taken from opencode is said, and nothing is stored, not even the half of it."""
    opencode(cli, *names)

    assert said in cli.refused(*OPENCODE, *arguments)


def test_opencode_without_a_file(cli):
    """An importer that finds nothing says where it looked."""
    assert str(cli.home / "data" / "opencode" / "auth.json") in cli.refused(*OPENCODE)


# ── the second account ───────────────────────────────────────────────────────────────────────────────────────────────


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


# ── look ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_empty_list(cli):
    """Without an account it is said how to get one."""
    assert "accounts import --help" in cli.run("accounts", "list").stdout
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
        "plan": "business",
        "enabled": False,
        "home": True,
        "serving": False,
        "fence": "default",
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

    assert "This deletes work (octocat on github.com) and its token." in result.stdout
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

    assert "work (not verified on github.com)" in result.stdout
    assert result.stderr == ""
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
