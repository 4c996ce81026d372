"""Tokens in the environment."""

import pytest

from copilot_balancer.cli.clients.registry import find
from copilot_balancer.copilot.protocol import PLACEHOLDER
from support.client_logins import CANARY, TWO, not_found, told


@pytest.mark.parametrize(
    ("environ", "expected", "where"),
    [
        ({"GITHUB_TOKEN": CANARY}, (CANARY, "github.com"), "GITHUB_TOKEN"),
        ({"GITHUB_TOKEN": TWO, "GH_TOKEN": f" {CANARY}\n"}, (CANARY, "github.com"), "GH_TOKEN"),
        ({"GH_TOKEN": TWO, "COPILOT_GITHUB_TOKEN": CANARY}, (CANARY, "github.com"), "COPILOT_GITHUB_TOKEN"),
        ({"GH_TOKEN": TWO, "COPILOT_GITHUB_TOKEN": PLACEHOLDER}, (TWO, "github.com"), "GH_TOKEN"),
        ({"GH_TOKEN": CANARY, "GH_HOST": "Acme.ghe.com"}, (CANARY, "acme.ghe.com"), "GH_TOKEN"),
        (
            {"GH_TOKEN": CANARY, "GH_HOST": "github.com", "COPILOT_GH_HOST": "acme.ghe.com"},
            (CANARY, "acme.ghe.com"),
            "GH_TOKEN",
        ),
    ],
    ids=["GITHUB_TOKEN", "GH_TOKEN first", "Copilot's own first", "never the placeholder", "host", "Copilot's host"],
)
def test_environment(tmp_path, environ, expected, where):
    """The variable that the Copilot CLI would take is taken, with the host that it would take."""
    found = find("env", environ, tmp_path)

    assert told(found) == [expected]
    assert found[0].where == f"the environment variable {where}"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "none of COPILOT_GITHUB_TOKEN, GH_TOKEN, GITHUB_TOKEN holds one"),
        ({"GH_TOKEN": ""}, "holds one"),
        ({"GH_TOKEN": PLACEHOLDER}, "holds one"),
        ({"GH_TOKEN": "two words"}, "the environment variable GH_TOKEN: this is not a token"),
        ({"GH_TOKEN": CANARY, "GH_HOST": "ghes.example.com"}, "'ghes.example.com' is not a login host"),
    ],
    ids=["unset", "empty", "the placeholder", "no token", "another host"],
)
def test_no_token_in_the_environment(tmp_path, environ, said):
    """Where there is none, the variables are named."""
    assert said in not_found("env", tmp_path, environ)
