"""The fake's reasoning and tool calls against the real clients: they run the tool, and send back what is bound."""

import json

import pytest

from copilot_balancer.fake.answers import Ok
from copilot_balancer.fake.reply import ToolCall, unsealed
from end_to_end.test_real_clients import assert_answered, copilot, home, is_title, opencode, prompts  # noqa: F401 - fixtures
from support.proxies import WORK, three_accounts

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

TOOLS = {"opencode": ("read", "filePath"), "copilot": ("view", "path")}
WORD = "xylophone-7491"


def bound(value):
    """What in a body some account made: its kinds, each once."""
    if isinstance(value, dict):
        return set().union(*map(bound, value.values()))
    if isinstance(value, list):
        return set().union(*map(bound, value))
    made = unsealed(value)
    return {made.kind} if made else set()


@pytest.mark.parametrize(
    ("client", "model", "endpoint", "kinds"),
    [
        ("opencode", "gpt-4.1", "/chat/completions", {"opaque"}),
        ("opencode", "gpt-5-mini", "/responses", set()),
        ("opencode", "claude-sonnet-4.6", "/v1/messages", {"signature"}),
        ("copilot", "gpt-5-mini", "/responses", {"item", "encrypted"}),
        ("copilot", "claude-sonnet-4.6", "/v1/messages", {"signature"}),
    ],
    ids=["opencode chat", "opencode responses", "opencode messages", "copilot responses", "copilot messages"],
)
def test_a_client_runs_a_tool_and_goes_on(client, model, endpoint, kinds, request, start, fake, tmp_path):
    """A client takes reasoning and a tool call, runs the tool, sends back what is bound, and is answered.

    opencode 1.18.33 leaves out ids and reasoning on /responses; Copilot CLI 1.0.102 sends the reasoning's own id, and
    ids of its own making for all else.
    """
    run = request.getfixturevalue(client)
    file = tmp_path / "project" / "a.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{WORD}\n")
    tool, argument = TOOLS[client]
    call = Ok("I look.", reasoning="Let me look.", tool_calls=(ToolCall(tool, json.dumps({argument: str(file)})),))
    fake.accounts[WORK].default = lambda seen: call if not is_title(seen) and WORD not in seen.body.decode() else Ok()
    proxy = start(accounts=three_accounts()[:1])
    ran = run(proxy, model)

    assert_answered(ran, proxy)
    first, second = prompts(fake)
    assert first.endpoint == second.endpoint == endpoint
    assert WORD in second.body.decode(), "the tool's output came back"
    assert (bound(first.json), bound(second.json)) == (set(), kinds)
    assert fake.lost == []
