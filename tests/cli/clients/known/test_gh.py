"""The GitHub CLI's logins: in its file, and from ``gh auth token``."""

from pathlib import Path

import pytest

from copilot_balancer.cli.clients.known import gh as gh_file
from copilot_balancer.cli.clients.registry import find
from support.client_logins import CANARY, TWO, not_found, told, write

ONE_USER = f"github.com:\n    oauth_token: {CANARY}\n    user: octocat\n    git_protocol: https\n"
TWO_USERS = f"""\
# a comment
github.com:
    git_protocol: https
    users:
        octocat:
            oauth_token: "{CANARY}"
        octodog:
            oauth_token: {TWO}
    user: octocat
acme.ghe.com:
    users:
        jane_acme:
    oauth_token: {CANARY}3
    user: jane_acme
ghes.example.com:
    oauth_token: {CANARY}4
"""
KEYRING = "github.com:\n    users:\n        octocat:\n        octodog:\n    user: octocat\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(ONE_USER, [(CANARY, "github.com")], id="before gh 2.40"),
        pytest.param(
            TWO_USERS,
            [(CANARY, "github.com"), (TWO, "github.com"), (CANARY + "3", "acme.ghe.com")],
            id="several users, and a server of one's own",
        ),
        pytest.param(
            f"github.com:\n  oauth_token: {CANARY} # a comment\n  user: octocat\n",
            [(CANARY, "github.com")],
            id="a comment behind the token",
        ),
        pytest.param(
            f"github.com: {{oauth_token: '{CANARY}', user: octocat}}\n", [(CANARY, "github.com")], id="on one line"
        ),
        pytest.param(ONE_USER.replace("\n", "\r\n"), [(CANARY, "github.com")], id="Windows line ends"),
    ],
)
def test_gh_file(tmp_path, text, expected):
    """The tokens in gh's file are found, each with its host."""
    path = write(tmp_path / ".config" / "gh" / "hosts.yml", text.encode())

    found = find("gh", {}, tmp_path)

    assert told(found) == expected
    assert found[0].where == f"{path} (octocat)"


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"GH_CONFIG_DIR": "one", "XDG_CONFIG_HOME": "two", "APPDATA": "three"}, "one"),
        ({"XDG_CONFIG_HOME": "two", "APPDATA": "three"}, "two/gh"),
        ({"APPDATA": "three"}, "three/GitHub CLI"),
        ({}, ".config/gh"),
    ],
    ids=["its own variable", "XDG", "Windows", "default"],
)
def test_gh_folder(tmp_path, environ, folder):
    """The folder of gh's file is what gh takes it to be."""
    write(tmp_path / folder / "hosts.yml", ONE_USER.encode())

    assert told(find("gh", {name: str(tmp_path / value) for name, value in environ.items()}, tmp_path))


def gh(folder: Path, script: str) -> str:
    """A program `gh` of our own; its folder is what PATH is to be."""
    folder.mkdir(exist_ok=True)
    program = folder / "gh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_gh_keyring(tmp_path):
    """For each user whose token is in the keyring gh itself is asked, without the variables that it would tell instead."""
    write(tmp_path / ".config" / "gh" / "hosts.yml", KEYRING.encode())
    path = gh(tmp_path / "bin", f'echo "$@" >> {tmp_path}/asked; echo "{CANARY}$6$GH_TOKEN$GITHUB_TOKEN"')

    found = find("gh", {"PATH": path, "GH_TOKEN": "no", "GITHUB_TOKEN": "no"}, tmp_path)

    assert told(found) == [(f"{CANARY}octocat", "github.com"), (f"{CANARY}octodog", "github.com")]
    assert (tmp_path / "asked").read_text().splitlines() == [
        "auth token --hostname github.com --user octocat",
        "auth token --hostname github.com --user octodog",
    ]


def test_gh_keyring_of_an_older_gh(tmp_path):
    """An older gh knows no users: it is asked for the host."""
    write(tmp_path / ".config" / "gh" / "hosts.yml", b"github.com:\n    git_protocol: ssh\n")
    path = gh(tmp_path / "bin", f'test "$*" = "auth token --hostname github.com" && echo {CANARY}')

    assert told(find("gh", {"PATH": path}, tmp_path)) == [(CANARY, "github.com")]


@pytest.mark.parametrize(
    ("text", "script", "said"),
    [
        pytest.param(None, None, "does not exist", id="no file"),
        pytest.param("", None, "names no login", id="empty file"),
        pytest.param("github.com: yes\n", None, "names no login", id="no map"),
        pytest.param("- a\n", None, "names no login", id="other YAML"),
        pytest.param("- a\n\tx: y\n{}\n", None, "is not YAML", id="no YAML"),
        pytest.param("[" * 100_000, None, "is not YAML", id="deep"),
        pytest.param(KEYRING, None, "`gh auth token` prints none", id="no gh"),
        pytest.param(KEYRING, "exit 4", "`gh auth token` prints none", id="gh has none"),
        pytest.param(KEYRING, "exec sleep 9", "`gh auth token` prints none", id="gh hangs"),
        pytest.param(
            KEYRING.replace("octocat", "-x").replace("octodog", "a;b"), "echo no", "prints none", id="odd users"
        ),
        pytest.param(KEYRING.replace("github.com", "-h"), "echo no", "prints none", id="odd host"),
    ],
)
def test_no_gh_login(tmp_path, monkeypatch, text, script, said):
    """Where there is none, it is said where it was looked for."""
    monkeypatch.setattr(gh_file, "GH_SECONDS", 0.2)
    path = tmp_path / ".config" / "gh" / "hosts.yml"
    if text is not None:
        write(path, text.encode())
    environ = {"PATH": gh(tmp_path / "bin", script)} if script else {}

    sentence = not_found("gh", tmp_path, environ)

    assert said in sentence
    assert str(path) in sentence


def test_gh_that_cannot_be_run(tmp_path):
    """A gh that is no program is as none."""
    write(tmp_path / ".config" / "gh" / "hosts.yml", KEYRING.encode())
    path = gh(tmp_path / "bin", "")
    (tmp_path / "bin" / "gh").write_bytes(b"\x7fELF")

    assert "prints none" in not_found("gh", tmp_path, {"PATH": path})
