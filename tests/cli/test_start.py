"""``start``: from nothing to a client that runs through the proxy."""

import json
from dataclasses import replace

import pytest

from copilot_balancer.cli import start as start_command
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.answers import FakeAccount
from copilot_balancer.fake.device import FakeLogin
from support.command_line import CommandLine, token


@pytest.fixture
def cli(tmp_path, monkeypatch):
    cli = CommandLine(tmp_path)
    (tmp_path / "bin").mkdir()
    cli.env.environ["PATH"] = str(tmp_path / "bin")
    cli.ran = []
    monkeypatch.setattr(start_command.exec_command, "callback", lambda arguments, **_: cli.ran.append(arguments))
    return cli


def opencode_login(cli, name="Work"):
    path = cli.home / "data" / "opencode" / "auth.json"
    path.parent.mkdir(parents=True)
    secret = name if name == PLACEHOLDER else token(name)
    path.write_text(json.dumps({"github-copilot": {"type": "oauth", "refresh": secret, "expires": 0}}))
    return path


def install(cli, name):
    (cli.home / "bin" / name).write_text("#!/bin/sh\n")
    (cli.home / "bin" / name).chmod(0o755)


def test_logins_of_this_machine(cli):
    """Logins of all programs are listed and asked about, GitHub's rules after the second; then a client is offered."""
    path = opencode_login(cli)
    cli.env.environ.update(GH_TOKEN=token("Dog"), COPILOT_GITHUB_TOKEN=token("Dog"))
    install(cli, "opencode")

    result = cli.run("start", typed="y\ny\ny\ny\n", at_terminal=True, foreign=True)

    assert cli.labels == ["octocat", "octodog"]
    assert f"Found a login in {path} (github-copilot)" in result.stderr
    assert result.stderr.count("Found a login in") == 2, "the same token in two places is one login"
    assert "One free account" in result.stdout
    assert cli.decisions.terms_accepted_at is not None
    assert "Run opencode through the proxy now?" in result.stderr
    assert cli.ran == [("opencode",)]


def test_only_what_was_agreed_to(cli):
    """A login that the user does not want is not stored; a stored one is not asked about again."""
    opencode_login(cli)
    cli.env.environ["GH_TOKEN"] = token("Dog")
    cli.run("start", typed="n\ny\n", at_terminal=True, foreign=True)
    assert cli.labels == ["octodog"]
    result = cli.run("start", "--yes", foreign=True)
    assert cli.labels == ["octodog", "octocat"]
    assert "Stored accounts: octodog" in result.stderr
    assert "GH_TOKEN" not in result.stderr
    assert "until you accept GitHub's rules" in " ".join(result.stderr.split())


def test_a_dead_login(cli):
    """A login that GitHub refuses is left out, and the next one is stored."""
    opencode_login(cli, "Gone")
    cli.env.environ["GH_TOKEN"] = token("Dog")
    result = cli.run("start", "--yes", foreign=True)
    assert "auth.json (github-copilot) is left out" in " ".join(result.stderr.split())
    assert cli.labels == ["octodog"]
    assert cli.ran == []
    assert "Run a client through the proxy:  copilot-balancer exec -- opencode" in result.stdout
    assert "npm install --global opencode-ai" in " ".join(result.stdout.split())


def test_without_a_login(cli):
    """Where no program holds a login, the placeholder is none, and the user logs in with a code."""
    opencode_login(cli, PLACEHOLDER)
    cli.logins["github.com"] = FakeLogin(FakeAccount("x"), token("Work"), device_code="CanaryDeviceCode" * 3)
    result = cli.run("start", typed="y\n", at_terminal=True)
    assert "Found a login" not in result.stderr
    assert "Type  ABCD-1234" in result.stderr
    assert cli.labels == ["octocat"]


@pytest.mark.parametrize(
    ("found", "said"),
    [(True, "pass --yes to store the logins that were found"), (False, "accounts import --from stdin")],
)
def test_not_a_terminal(cli, found, said):
    """Without a terminal nothing is stored unasked, and the error says what to do."""
    if found:
        opencode_login(cli)
    assert said in cli.refused("start", foreign=True)
    assert cli.asked == []


def test_with_a_client(cli):
    """What is named is run, with its arguments, by `exec`."""
    cli.add("Work", "work")
    cli.run("start", "opencode", "run", "--model", "x")
    assert cli.ran == [("opencode", "run", "--model", "x")]


def test_interrupted(cli):
    """An interrupt while the code is shown stores nothing."""
    cli.logins["github.com"] = FakeLogin(FakeAccount("x"), token("Work"), device_code="CanaryDeviceCode" * 3)

    def interrupt(_seconds):
        raise KeyboardInterrupt

    cli.env = replace(cli.env, sleep=interrupt)
    cli.run("start", at_terminal=True, exit_code=1)
    assert not cli.env.store.accounts_path.exists()
