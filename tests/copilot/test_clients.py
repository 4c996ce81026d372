"""Which wait a client is told, by what it calls itself."""

import pytest

from copilot_balancer.copilot.clients import UNKNOWN, Wait, told_wait, wait_rule

FIVE_HOURS = 18000.0


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        pytest.param(
            {"user-agent": "copilot/1.0.102 (linux v24.20.0) term/unknown client/github/cli"}, 18000, id="CLI"
        ),
        pytest.param({"user-agent": "GithubCopilot/1.550.0"}, 18000, id="language server"),
        pytest.param({"copilot-language-server-version": "1.550.0"}, 18000, id="language server by its own header"),
        pytest.param({"user-agent": "GitHubCopilotChat/0.54.0"}, 18000, id="VS Code"),
        pytest.param(
            {"user-agent": "GitHubCopilotChat/0.35.0", "x-stainless-lang": "js"},
            60,
            id="pi, which calls itself VS Code",
        ),
        pytest.param(
            {"x-stainless-lang": "python", "x-stainless-package-version": "2.54.0"}, 18000, id="litellm, openai 2.54"
        ),
        pytest.param(
            {"x-stainless-lang": "python", "x-stainless-package-version": "2.20.0"}, 60, id="aider, openai 2.20"
        ),
        pytest.param(
            {
                "user-agent": "AsyncAnthropic/Python 2.60.0",
                "x-stainless-lang": "python",
                "x-stainless-package-version": "2.60.0",
            },
            60,
            id="anthropic's library, which sleeps any wait",
        ),
        pytest.param({"x-stainless-lang": "python", "x-stainless-package-version": "x" * 99}, 60, id="no version"),
        pytest.param({"user-agent": "opencode/1.18.33 ai-sdk/provider-utils/3"}, 60, id="opencode"),
        pytest.param({"user-agent": "codex_cli_rs/0.169.0"}, 60, id="codex"),
        pytest.param({"user-agent": "Kilo-Code/7.7.9"}, 60, id="kilo"),
        pytest.param({"user-agent": "my copilot/1"}, 60, id="an agent that only mentions one"),
        pytest.param({}, 60, id="nothing"),
    ],
)
def test_waits(headers, told):
    """The true wait for clients that print or bound it, the cap for those that sleep and for unknown ones."""
    assert told_wait(wait_rule(headers), FIVE_HOURS, 60.0) == told


@pytest.mark.parametrize(("left", "told"), [(-5.0, 1), (0.2, 1), (19.2, 20), (59.0, 59)])
def test_never_less(left, told):
    """A wait is rounded up, and at least a second."""
    assert told_wait(UNKNOWN, left, 60.0) == told


def test_what_is_unknown_is_told_a_short_wait():
    """Nobody knows how long an unknown client sleeps."""
    assert wait_rule({"user-agent": "curl/8"}) is UNKNOWN
    assert UNKNOWN.wait is Wait.SHORT
