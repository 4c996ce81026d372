"""The Copilot CLI's login: in its environment and in its file."""

import json
from pathlib import Path

import pytest

from copilot_balancer.cli.clients.known.copilot_cli import own_login, state_file
from copilot_balancer.cli.clients.registry import find
from copilot_balancer.copilot.protocol import PLACEHOLDER
from support.client_logins import CANARY, TWO, not_found, told, write

HOME = Path("/home/x")


def test_state_file():
    """The Copilot CLI's file is found by default and by its variable."""
    assert str(state_file({}, HOME)) == "/home/x/.copilot/config.json"
    assert str(state_file({"COPILOT_HOME": "/k"}, HOME)) == "/k/config.json"


@pytest.mark.parametrize(
    ("environ", "config", "where"),
    [
        ({}, None, None),
        ({"COPILOT_GITHUB_TOKEN": ""}, None, None),
        ({"COPILOT_GITHUB_TOKEN": PLACEHOLDER}, None, None),
        ({"COPILOT_GITHUB_TOKEN": "gho_x"}, None, "the environment variable COPILOT_GITHUB_TOKEN"),
        ({"GH_TOKEN": "gho_x"}, None, "the environment variable GH_TOKEN"),
        ({"GITHUB_TOKEN": "gho_x"}, None, "the environment variable GITHUB_TOKEN"),
        ({}, '// managed\n{"firstLaunchAt": "now"}', None),
        ({}, '// managed\n{"loggedInUsers": []}', None),
        ({}, '// managed\n{"loggedInUsers": [{"login": "octocat"}]}', "config.json"),
        ({}, '{"logged_in_users": [{"login": "octocat"}],}', "config.json"),
        ({}, "garbage", None),
        ({}, "", None),
    ],
)
def test_own_login(tmp_path, environ, config, where):
    """The Copilot CLI is logged in by its environment, or by who stands in its file; the placeholder is no login."""
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    found = own_login({"COPILOT_HOME": str(tmp_path), **environ}, HOME)
    assert found is None if where is None else found.endswith(where)


# ── import ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "tokens",
    [
        {"copilot_tokens": {"https://github.com:octocat": CANARY}},
        {"copilotTokens": {"https://github.com:octocat": CANARY}},
        {"copilotTokens": {"github.com": {"token": CANARY, "expiresAt": "2099-01-01T00:00:00Z"}}},
        {"copilotTokens": {"https://github.com:octocat": CANARY, "https://ghes.example.com:octocat": TWO}},
    ],
    ids=["older key", "newer key", "an object", "beside a server of one's own"],
)
@pytest.mark.parametrize(
    "comments", [b"", b"// User settings belong in settings.json.\n  // Managed.\n"], ids=["", "//"]
)
def test_login_in_the_file(tmp_path, tokens, comments):
    """The login in config.json is found, whichever form that has, and where it stands is said."""
    path = write(tmp_path / ".copilot" / "config.json", comments + json.dumps(tokens).encode())

    found = find("copilot-cli", {}, tmp_path)

    assert told(found) == [(CANARY, "github.com")]
    assert found[0].where == str(path)


def test_folder(tmp_path):
    """$COPILOT_HOME moves the file."""
    write(tmp_path / "else" / "config.json", {"copilotTokens": {"https://acme.ghe.com:jane": CANARY}})

    assert told(find("copilot-cli", {"COPILOT_HOME": str(tmp_path / "else")}, tmp_path)) == [(CANARY, "acme.ghe.com")]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"COPILOT_GITHUB_TOKEN": CANARY}, (CANARY, "github.com")),
        ({"COPILOT_GITHUB_TOKEN": CANARY, "GH_HOST": "acme.ghe.com"}, (CANARY, "acme.ghe.com")),
        ({"COPILOT_GITHUB_TOKEN": PLACEHOLDER}, (TWO, "github.com")),
        ({"COPILOT_GITHUB_TOKEN": ""}, (TWO, "github.com")),
        ({"GH_TOKEN": CANARY}, (TWO, "github.com")),
    ],
    ids=["set", "set with a host", "the placeholder", "empty", "another variable"],
)
def test_variable(tmp_path, environ, expected):
    """Its own variable comes before its file, unless it holds nothing or the placeholder."""
    write(tmp_path / ".copilot" / "config.json", {"copilotTokens": {"https://github.com:octocat": TWO}})

    assert told(find("copilot-cli", environ, tmp_path)) == [expected]


@pytest.mark.parametrize(
    "content",
    [None, b"{", [], {}, {"copilotTokens": {}}, {"copilotTokens": CANARY}, {"copilotTokens": {"github.com": 7}}],
    ids=repr,
)
def test_no_login(tmp_path, content):
    """Where there is none, it is said where it was looked for, and that the keychain is not read."""
    path = tmp_path / ".copilot" / "config.json"
    if content is not None:
        write(path, content)

    sentence = not_found("copilot-cli", tmp_path)

    assert str(path) in sentence
    assert "COPILOT_GITHUB_TOKEN holds none" in sentence
    assert "keychain" in sentence
