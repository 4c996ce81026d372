"""The fake's reasoning and tool calls against the real clients: they run the tool, and send back what is bound."""

import json

import pytest

from conftest import WORK, three_accounts
from copilot_balancer.fake import Ok, ToolCall, owner_of
from test_real_clients import assert_answered, copilot, home, is_title, opencode, prompts  # noqa: F401 - fixtures

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

WIRES = [("gpt-4.1", "/chat/completions"), ("gpt-5-mini", "/responses"), ("claude-sonnet-4.6", "/v1/messages")]
TOOLS = {"opencode": ("read", "filePath"), "copilot": ("view", "path")}
WORD = "xylophone-7491"


def bound(value):
    """Every id, signature and encrypted content in a body that some account made."""
    if isinstance(value, dict):
        return [found for inner in value.values() for found in bound(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in bound(inner)]
    return [value] if owner_of(value) else []


@pytest.mark.parametrize(
    ("client", "model", "endpoint"),
    [("opencode", *wire) for wire in WIRES] + [("copilot", *wire) for wire in WIRES[1:]],
)
def test_a_client_runs_a_tool_and_goes_on(client, model, endpoint, request, start, fake, tmp_path):
    """A client takes reasoning and a tool call, runs the tool, sends all of it back, and is answered."""
    run = request.getfixturevalue(client)
    file = tmp_path / "project" / "a.txt"
    file.parent.mkdir()
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
    assert bound(first.json) == []
    (tmp_path.parent / "dump.json").write_text(second.body.decode())
    print(tmp_path.parent, client, endpoint, len(bound(second.json)))
    assert bound(second.json), "what is bound to the account came back"
    assert fake.lost == []
