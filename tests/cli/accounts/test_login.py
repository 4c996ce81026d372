"""``accounts add`` and ``accounts login`` against a scripted GitHub; no test waits, and each checks that no token came out."""

import json
import os
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from copilot_balancer.cli.accounts import login as cli_login
from copilot_balancer.config import OPENCODE_CLIENT_ID
from copilot_balancer.fake.answers import Document, FakeAccount, Refuse, SlowFirst
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.server import running
from copilot_balancer.store.store import Store
from support.command_line import FREE2, OCTODOG, CommandLine, token
from support.proxies import until

ADD = ("accounts", "add")
DEVICE_CODE = "CanaryDeviceCode" * 3


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


def somebody(cli: CommandLine, name: str, *polls, host: str = "github.com", **more) -> FakeLogin:
    """The owner of the token `name` logs in at `host`."""
    polls = deque(polls or ["authorization_pending"])
    cli.logins[host] = FakeLogin(FakeAccount("x"), token(name), polls, device_code=DEVICE_CODE, **more)
    return cli.logins[host]


def test_login_becomes_an_account(cli):
    """Code and page are shown, who logged in is told and asked about, and the account is stored; no browser is opened."""
    somebody(cli, "Work")

    result = cli.run(*ADD, typed="y\n", at_terminal=True)

    assert result.stderr == (
        "Open  https://github.com/login/device\n"
        "Type  ABCD-1234\n"
        "Waiting for you to log in, 15 minutes at most ...\n"
        "Logged in as octocat on github.com (id 1, plan business).\n"
        "Store this account? [Y/n]: y\n"
    )
    assert result.stdout.splitlines()[0] == "Added account octocat"
    assert cli.decisions.accounts[0].token.get_secret_value() == token("Work")
    assert cli.opened == []
    assert cli.clients == {OPENCODE_CLIENT_ID}


def test_polls_are_never_closer_than_wanted(cli):
    """Between two polls lies 1.2 times the interval, and after ``slow_down`` the server's new one, which stays."""
    login = somebody(cli, "Work", "authorization_pending", "slow_down", "authorization_pending")

    cli.run(*ADD, "--yes")

    assert login.polled_at == pytest.approx([6, 12, 24, 36])


def test_enterprise(cli):
    """A login of an enterprise domain happens on that domain alone, however it is written."""
    somebody(cli, "Jane", host="acme.ghe.com")

    result = cli.run(*ADD, "--host", "https://Acme.ghe.com/", "--label", "acme", "--yes")

    assert "Open  https://acme.ghe.com/login/device\n" in result.stderr
    hosts = {question.split("/")[0] for question in cli.asked}
    assert hosts == {"acme.ghe.com", "api.acme.ghe.com", "copilot-api.acme.ghe.com"}
    assert [(one.label, one.id) for one in cli.decisions.accounts] == [("acme", "acme.ghe.com:4")]


def test_other_oauth_client(cli):
    """The OAuth client is the one in config.toml."""
    cli.env.paths.config.mkdir(parents=True)
    (cli.env.paths.config / "config.toml").write_text('oauth_client_id = "Iv1.my-own-app"\n')
    somebody(cli, "Work", client_id="Iv1.my-own-app")

    cli.run(*ADD, "--yes")

    assert cli.clients == {"Iv1.my-own-app"}


def test_help_says_whose_app_it_is(cli):
    """The help says what it means to log in with opencode's app."""
    text = " ".join(cli.run(*ADD, "--help").stdout.split())

    for words in ("opencode's public one", "read:user", "toward the ten", "can depend on the app"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "copies", "said"),
    [
        pytest.param(("--copy",), True, "Type  ABCD-1234  (copied to the clipboard)", id="copied"),
        pytest.param(("--copy",), False, "the code was not copied", id="no clipboard"),
        pytest.param((), True, "Type  ABCD-1234\n", id="not asked for"),
    ],
)
def test_copy(cli, arguments, copies, said):
    """The code goes into the clipboard only on request, and it is said when that does not work."""
    copied = []
    cli.env = replace(cli.env, copy=lambda text: copied.append(text) or copies)
    somebody(cli, "Work")

    assert said in cli.run(*ADD, "--yes", *arguments).stderr
    assert copied == (["ABCD-1234"] if arguments else [])


@pytest.mark.parametrize("works", [True, False])
def test_open(cli, works):
    """The browser is opened on request, on GitHub's page and no other."""
    somebody(cli, "Work")
    opened = []
    cli.env = replace(cli.env, open_page=lambda page: opened.append(page) or works)

    result = cli.run(*ADD, "--yes", "--open")

    assert opened == ["https://github.com/login/device"]
    assert ("no browser could be opened" in result.stderr) is not works


def test_json(cli):
    """With --json stdout is JSON alone."""
    somebody(cli, "Work")

    (row,) = json.loads(cli.run(*ADD, "--yes", "--json").stdout)

    assert (row["label"], row["login"], row["credential"]) == ("octocat", "octocat", "direct")


def html(status=200):
    return Refuse(status, content_type="text/html", message="<!DOCTYPE html><title>Unicorn</title>")


@pytest.mark.parametrize(
    ("polls", "said"),
    [
        ("access_denied", "the login was refused at github.com"),
        ("expired_token", "nobody typed the code in time: begin again"),
        ("token_expired", "nobody typed the code in time: begin again"),
        ("device_flow_disabled", f"the OAuth client {OPENCODE_CLIENT_ID} takes no logins by code"),
        ("incorrect_client_credentials", f"github.com does not know the OAuth client {OPENCODE_CLIENT_ID}"),
        ("incorrect_device_code", "github.com does not know this login any more"),
        ("unsupported_grant_type", "github.com does not know logins by code"),
        (html(), "github.com answered with a web page (HTTP 200)"),
        (Refuse(200, content_type="text/plain", message="error=access_denied"), "not a JSON object"),
    ],
    ids=[
        "denied",
        "expired",
        "expired, other word",
        "disabled",
        "client",
        "device code",
        "grant",
        "HTML",
        "plain text",
    ],
)
def test_nine_bad_answers(cli, polls, said):
    """Each bad answer of GitHub is one sentence and exit code 1, and leaves nothing behind."""
    somebody(cli, "Work", polls)

    assert said in cli.refused(*ADD, "--yes")
    assert not cli.env.paths.state.exists()


def test_no_network(cli):
    """Without a network the sentence asks whether there is one."""
    somebody(cli, "Work")
    cli.down.add("github.com")

    assert "is there a network?" in cli.refused(*ADD, "--yes")


def test_a_code_runs_out(cli):
    """Polling ends with the code, also when the server says nothing else than to go on."""
    login = somebody(cli, "Work", *["authorization_pending"] * 100, expires_in=60)

    assert "nobody typed the code in time" in cli.refused(*ADD, "--yes")
    assert cli.passed == login.polled_at[-1] == pytest.approx(60)


def test_page_elsewhere(cli):
    """Nobody is sent to another page than GitHub's own."""
    somebody(cli, "Work", page="https://github.com.evil.test/login/device")

    sentence = cli.refused(*ADD, "--yes")

    assert "nobody is sent there" in sentence


def test_no_answer_no_account(cli):
    """A no stores nothing, and says where the token can be revoked."""
    somebody(cli, "Work")

    result = cli.run(*ADD, typed="n\n", at_terminal=True, exit_code=1)

    assert result.stderr.endswith("error: nothing was stored\n")
    assert "https://github.com/settings/applications" in result.stderr
    assert not cli.env.paths.state.exists()


def test_interrupted(cli):
    """Ctrl-C while waiting leaves nothing behind."""

    def interrupt(_seconds):
        raise KeyboardInterrupt

    somebody(cli, "Work")
    cli.env = replace(cli.env, sleep=interrupt)

    result = cli.run(*ADD, "--yes", exit_code=1)

    assert result.stderr.endswith("Aborted!\n")
    assert not cli.env.paths.state.exists()


def test_nobody_to_ask(cli):
    """Where nobody can be asked who it is, --yes is needed before anything begins."""
    somebody(cli, "Work")

    assert "pass --yes" in cli.refused(*ADD)
    assert cli.asked == []


@pytest.mark.parametrize("host", ["evil.test", "github.com.evil.test", "https://github.com/path", "acme.ghe.com:8443"])
def test_foreign_host(cli, host):
    """Only GitHub's hosts are asked for a login."""
    assert "is not a login host" in cli.refused(*ADD, "--yes", "--host", host)
    assert cli.asked == []


def test_taken_label(cli):
    """A label that is taken is refused before anybody logs in."""
    cli.add("Work", "work")
    cli.asked.clear()

    assert "the label work is taken by octocat on github.com" in cli.refused(*ADD, "--yes", "--label", "Work")
    assert cli.asked == []


def test_second_free_account(cli):
    """A second account on Copilot Free is refused, and where its new token can be revoked is said."""
    cli.add("Free", "free")
    cli.people[token("Other")] = FREE2
    somebody(cli, "Other")

    result = cli.run(*ADD, "--yes", exit_code=1)

    assert "octofree2 is on Copilot Free, and so is free" in result.stderr
    assert "until you revoke it" in result.stderr
    assert cli.labels == ["free"]


# ── again ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_login_again(cli):
    """The same person's new token takes the old one's place; everything that was decided stays."""
    cli.add("Work", "work")
    cli.run("accounts", "priority", "work", "7")
    cli.people[token("New")] = cli.people[token("Work")]
    somebody(cli, "New")

    result = cli.run("accounts", "login", "work")

    assert result.stdout.startswith("Refreshed account work\n")
    (account,) = cli.decisions.accounts
    assert (account.token.get_secret_value(), account.priority, account.label) == (token("New"), 7, "work")


def test_another_person(cli):
    """Somebody else's login changes nothing, and says so."""
    cli.add("Work", "work")
    cli.people[token("New")] = OCTODOG
    somebody(cli, "New")

    result = cli.run("accounts", "login", "work", exit_code=1)

    assert "you logged in as octodog on github.com (id 2, plan individual), but work is octocat" in result.stderr
    assert "until you revoke it" in result.stderr
    assert cli.decisions.accounts[0].token.get_secret_value() == token("Work")


def test_unverified_account(cli):
    """Nobody can log in again for an account of which nobody knows whose it is."""
    cli.add("Work", "work", "--no-verify")

    assert "it was never verified whose account work is" in cli.refused("accounts", "login", "work")


def test_removed_while_logging_in(cli, monkeypatch):
    """An account that is removed meanwhile does not come back."""
    cli.add("Work", "work")
    cli.people[token("New")] = cli.people[token("Work")]
    somebody(cli, "New")
    plain = cli_login.verified

    def removing(env, *rest):
        env.store.edit_decisions(lambda now: now.without("github.com:1", cli.now))
        return plain(env, *rest)

    monkeypatch.setattr(cli_login, "verified", removing)
    result = cli.run("accounts", "login", "work", exit_code=1)

    assert "there is no account" in result.stderr
    assert cli.labels == []


# ── as a program ─────────────────────────────────────────────────────────────────────────────────────────────────────


PROGRAM = """
import os, socket, time, certifi
connect = socket.create_connection
socket.create_connection = lambda _, *rest, **more: connect(("127.0.0.1", int(os.environ["FAKE_PORT"])), *rest, **more)
certifi.where = lambda: os.environ["FAKE_CA"]
time.sleep = lambda seconds: None
from copilot_balancer.cli.main import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_program(tmp_path):
    """As a program over real TLS: neither token nor device code in arguments, environment, output or any other file."""
    late = SlowFirst(0.6, Document({"error": "authorization_pending"}))
    account = FakeAccount("work")
    login = FakeLogin(account, token("Work"), deque([late]), device_code=DEVICE_CODE, interval=0)
    with running() as fake:
        fake.logins["github.com"] = login
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "COPILOT_BALANCER_HOME": str(tmp_path / "ours"),
            "FAKE_PORT": str(fake.port),
            "FAKE_CA": str(fake.ca_file),
        }
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "accounts", "add", "--label", "work", "--yes"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as run:
            until(lambda: login.polled_at, "the first poll")
            process = Path(f"/proc/{run.pid}")
            seen = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
            shown, _ = run.communicate(timeout=30)

    assert run.returncode == 0, shown
    assert b"Type  ABCD-1234" in shown
    assert b"Added account work" in shown
    assert b"Canary" not in seen + shown
    store = Store(tmp_path / "ours" / "state")
    assert store.read_decisions().accounts[0].token.get_secret_value() == token("Work")
    assert set(store.read_memory().accounts) == {f"github.com:{account.user_id}"}
    holders = [path.name for path in tmp_path.rglob("*") if path.is_file() and b"Canary" in path.read_bytes()]
    assert holders == ["accounts.json"]
    assert {(one.host, one.path) for one in fake.seen} == {
        ("github.com", "/login/device/code"),
        ("github.com", "/login/oauth/access_token"),
        ("api.github.com", "/user"),
        ("api.github.com", "/copilot_internal/user"),
        ("api.individual.githubcopilot.com", "/models"),
    }
