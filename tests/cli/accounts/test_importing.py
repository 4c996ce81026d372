"""``accounts import`` and ``accounts adopt``; ``command_line`` checks each time that no token came out."""

import json
import stat

import pytest

from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.rules.state import AccountState, Affinity, Memory, Sighting
from support.command_line import JANE, OCTODOG, CommandLine, token

STDIN = ("accounts", "import", "--from", "stdin")
OPENCODE = ("accounts", "import", "--from", "opencode")


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


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


def test_first_account(cli):
    """The first account is stored with what GitHub says, told, and how to go on is said."""
    result = cli.add("Work", " Work ")

    assert result.stdout == (
        "Added account work\n"
        "  login      octocat on github.com\n"
        "  plan       business\n"
        "  API host   api.business.githubcopilot.com\n"
        f"  stored in  {cli.env.store.accounts_path}\n"
        "  models     2\n"
        "\n"
        "Start a client with the proxy:  copilot-balancer exec -- opencode\n"
        "Or the proxy alone:             copilot-balancer run\n"
    )
    assert result.stderr == ""
    (account,) = cli.decisions.accounts
    assert (account.id, account.label, account.token.get_secret_value()) == ("github.com:1", "work", token("Work"))
    assert account.added_at == cli.now


def test_token_is_in_one_file_with_its_mode(cli):
    """The token is in accounts.json alone, which is for its owner alone, as is its folder."""
    cli.add("Work", "work")

    path = cli.env.store.accounts_path
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
    assert {question.split("/")[0] for question in cli.asked} == {"api.acme.ghe.com", "copilot-api.acme.ghe.com"}


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
        pytest.param(("--no-verify",), "x" * 40, "give it a --label", id="no label"),
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
        pytest.param(("--label", "work"), "ghp_" + "x" * 36, "classic personal access token", id="classic token"),
        pytest.param(("--label", "work"), "tid=x;exp=1;y", "short-lived Copilot token", id="exchanged token"),
        pytest.param(("--label", "work", "--no-verify"), PLACEHOLDER, "placeholder", id="the placeholder, unverified"),
    ],
)
def test_refused_import(cli, arguments, typed, said):
    """What cannot be used is refused with a sentence, and nothing is stored."""
    cli.people[PLACEHOLDER] = cli.people["ghp_" + "x" * 36] = OCTODOG

    assert said in cli.refused(*STDIN, *arguments, typed=typed)
    assert not cli.env.store.accounts_path.exists()
    assert cli.asked == [] or said == "does not accept this token"


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
    assert "copilot-balancer run" not in result.stdout
    (account,) = cli.decisions.accounts
    assert (account.label, account.token.get_secret_value()) == ("work", token("WorkNew"))


def test_verified_later(cli):
    """An unverified account that is verified later is the same account, with what was learnt about it."""
    cli.add("Work", "work", "--no-verify")
    old = cli.decisions.accounts[0].id
    state = AccountState(credential=cli.decisions.accounts[0].fingerprint, served=3)
    cli.env.store.merge_memory(Memory({old: state}, {"hash": Affinity(old, cli.now)}))

    result = cli.add("Work", "work")

    assert result.stderr == ""
    assert [(account.id, account.label) for account in cli.decisions.accounts] == [("github.com:1", "work")]
    memory = cli.env.store.read_memory()
    assert memory.accounts["github.com:1"].served == 3
    assert memory.conversations["hash"].account_id == "github.com:1"


def test_verified_later_with_a_broken_memory(cli):
    """A memory that cannot be read does not hinder the account; that it was not stored is said."""
    cli.add("Work", "work", "--no-verify")
    state = cli.env.store.state_path
    state.write_text("{")
    state.chmod(0o600)

    result = cli.add("Work", "work")

    assert "was not stored" in result.stderr
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
        pytest.param(("Nobody", "Nobody"), (), "none of these logins can be used", id="both are refused"),
        pytest.param(("Dog", "Work"), ("--label", "both"), "cannot all have the label both", id="one label for two"),
        pytest.param(("Dog",), ("--no-verify",), "give it a --label", id="nobody asked for the login"),
    ],
)
def test_refused_opencode(cli, names, arguments, said):
    """What cannot be taken from opencode is said, and nothing is stored."""
    opencode(cli, *names)

    assert said in cli.refused(*OPENCODE, *arguments)


def test_opencode_without_a_file(cli):
    """An importer that finds nothing says where it looked."""
    assert str(cli.home / "data" / "opencode" / "auth.json") in cli.refused(*OPENCODE)


def test_one_dead_login_of_two(cli):
    """A login that GitHub refuses is left out with its reason, and does not hinder the other one."""
    opencode(cli, "Dog", "Nobody")

    result = cli.run(*OPENCODE)

    assert cli.labels == ["octodog"]
    assert "is left out: GitHub does not accept this token" in " ".join(result.stderr.split())


def test_without_a_label(cli):
    """A token from stdin is called by its login, when nothing else is said."""
    cli.run(*STDIN, typed=token("Dog"))

    assert cli.labels == ["octodog"]


def test_json(cli):
    """Programs get the stored accounts as JSON; notes stay on stderr."""
    rows = json.loads(cli.add("Work", "work", "--json").stdout)

    assert [(row["label"], row["credential"], row["serving"]) for row in rows] == [("work", "direct", True)]


# ── other programs ───────────────────────────────────────────────────────────────────────────────────────────────────


def gh(cli):
    folder = cli.home / ".config" / "gh"
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text(f"github.com:\n    user: octodog\n    oauth_token: {token('Dog')}\n")
    return folder / "hosts.yml"


def copilot_cli(cli):
    path = cli.home / ".copilot" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"copilotTokens": {"https://github.com:octodog": token("Dog")}}))
    return path


def vim(cli):
    path = cli.home / ".config" / "github-copilot" / "apps.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"github.com:Iv1.x": {"user": "octodog", "oauth_token": token("Dog")}}))
    return path


def env(cli):
    cli.env.environ["GH_TOKEN"] = token("Dog")
    return "the environment variable GH_TOKEN"


@pytest.mark.parametrize("make", [gh, copilot_cli, vim, env], ids=lambda make: make.__name__)
def test_login_of_another_program(cli, make):
    """Each program's login becomes an account, and where it was found is said; nothing of the program's is changed."""
    place = make(cli)
    before = None if make is env else place.read_bytes()

    source = make.__name__.replace("_", "-")
    result = cli.run("accounts", "import", "--from", source, "--label", "mine", foreign=True)

    assert [(one.label, one.login) for one in cli.decisions.accounts] == [("mine", "octodog")]
    assert f"Found a login in {place}" in result.stderr
    assert before is None or place.read_bytes() == before


@pytest.mark.parametrize("source", ["gh", "copilot-cli", "vim", "env", "opencode"])
def test_nothing_found(cli, source):
    """An importer that finds nothing says where it looked, and nobody is asked."""
    sentence = cli.refused("accounts", "import", "--from", source)

    assert str(cli.home) in sentence or "GH_TOKEN" in sentence
    assert cli.asked == []


# ── adopt ────────────────────────────────────────────────────────────────────────────────────────────────────────────


HASH, OTHER = "0123456789ab", "01fedcba9876"


@pytest.fixture
def noticed(cli):
    """A proxy that noticed two credentials, and the one of an account that is stored."""
    cli.add("Work", "work")
    seen = {HASH: Sighting("github.com", cli.now), OTHER: Sighting("acme.ghe.com", cli.now + 60)}
    seen[cli.decisions.accounts[0].fingerprint] = Sighting("github.com", cli.now)
    cli.env.store.merge_memory(Memory(sightings=seen))
    return cli


def test_nothing_noticed(cli):
    """Where nothing was noticed, that is said."""
    assert cli.run("accounts", "adopt").stdout == "No client was seen with a credential that no account has.\n"
    assert cli.run("accounts", "adopt", "--json").stdout == "[]\n"


def test_list_of_what_was_noticed(noticed):
    """The list shows hash, host and time of what no account has, and what waits for its next use."""
    noticed.run("accounts", "adopt", OTHER, "--label", "Acme")

    assert noticed.run("accounts", "adopt").stdout == (
        "HASH          HOST          FIRST SEEN            STATE\n"
        "0123456789ab  github.com    2026-09-21 14:13 UTC  noticed\n"
        "01fedcba9876  acme.ghe.com  2026-09-21 14:14 UTC  waiting to be seen again, as acme\n"
        "\n"
        "To store one: copilot-balancer accounts adopt HASH --label LABEL\n"
    )
    first, second = json.loads(noticed.run("accounts", "adopt", "--json").stdout)
    assert first == {"hash": HASH, "host": "github.com", "first_seen": "2026-09-21T14:13:20Z", "consent": None}
    assert second["consent"] == {"label": "acme", "at": "2026-09-21T14:13:20Z"}


def test_consent(noticed):
    """The consent is written down and no account is made; that a second account needs the terms is said."""
    result = noticed.run("accounts", "adopt", HASH[:6])

    assert result.stdout == "client-012345 is stored when a client uses it through the proxy again.\n"
    assert "serves only after `copilot-balancer terms accept`" in " ".join(result.stderr.split())
    assert noticed.labels == ["work"]
    consent = noticed.decisions.adopt[HASH]
    assert (consent.label, consent.at) == ("client-012345", noticed.now)
    noticed.run("terms", "accept", "--yes")
    (row,) = json.loads(noticed.run("accounts", "adopt", HASH, "--label", "mine", "--json").stdout)
    assert row["consent"]["label"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("ffffff",), "does not name one credential", id="unknown"),
        pytest.param(("01",), "does not name one credential", id="too short"),
        pytest.param(("",), "does not name one credential", id="empty"),
        pytest.param((HASH, "--label", "work"), "the label work is taken", id="taken label"),
        pytest.param((HASH, "--label", "!"), "cannot be a label", id="unusable label"),
        pytest.param(("--label", "x"), "name its HASH", id="label without a hash"),
    ],
)
def test_refused_consent(noticed, arguments, said):
    """What does not name one credential, or one free label, changes nothing."""
    assert said in noticed.refused("accounts", "adopt", *arguments)


def test_hash_of_an_account(noticed):
    """A credential that is an account's already is not offered."""
    assert "does not name one" in noticed.refused("accounts", "adopt", noticed.decisions.accounts[0].fingerprint)
