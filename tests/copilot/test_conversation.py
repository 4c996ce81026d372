"""Which conversation a request belongs to."""

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot.conversation import conversation_of, is_named

CHAT = {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({"x-session-affinity": "ses_1"}, {}, id="opencode"),
        pytest.param({"x-session-id": "ses_1"}, {}, id="opencode, its other header"),
        pytest.param(
            {"x-parent-session-id": "ses_1", "x-session-id": "ses_2"}, {}, id="a sub-agent follows its parent"
        ),
        pytest.param({"x-client-session-id": "ses_1", "x-interaction-id": "turn"}, {}, id="Copilot CLI"),
        pytest.param({"session-id": "ses_1"}, {"prompt_cache_key": "other"}, id="codex"),
        pytest.param({}, {"prompt_cache_key": "ses_1"}, id="prompt_cache_key"),
        pytest.param({}, {"prompt_cache_key": "ses_1:gpt-5"}, id="prompt_cache_key of VS Code, without its family"),
        pytest.param({"x-interaction-id": "ses_1"}, CHAT, id="interaction id"),
    ],
)
def test_names_of_one_conversation(headers, body):
    """However a client names its session, the same name is the same conversation."""
    assert conversation_of(headers, body) == conversation_of({"x-session-id": "ses_1"}, None)


@pytest.mark.parametrize(
    ("headers", "named"),
    [({"session-id": "s"}, True), ({"x-interaction-id": "s"}, True), ({"x-session-id": ""}, False), ({}, False)],
    ids=["a session", "an interaction", "empty", "nothing"],
)
def test_who_needs_the_beginning(headers, named):
    """Where a header names the conversation nobody looks at how it began."""
    assert is_named(headers) is named
    other = {"messages": [{"role": "user", "content": "bye"}]}
    assert (conversation_of(headers, CHAT) == conversation_of(headers, other)) is named


def test_claude_code_session():
    """The session inside Claude Code's user id names the conversation."""
    one = {"metadata": {"user_id": "user_abc_account__session_0a1b2c3d-1111"}, **CHAT}
    two = {"metadata": {"user_id": "user_other_account__session_0a1b2c3d-1111"}}
    assert conversation_of({}, one) == conversation_of({}, two)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"messages": [*CHAT["messages"], {"role": "assistant", "content": "x"}]}, id="a later turn"),
        pytest.param({**CHAT, "model": "other"}, id="another model"),
        pytest.param({**CHAT, "metadata": {"user_id": "no session in it"}}, id="a user id without a session"),
        pytest.param({**CHAT, "prompt_cache_key": ""}, id="an empty key"),
    ],
)
def test_the_beginning_names_a_conversation(body):
    """Without any id a conversation is known by its system prompt and first user message, in every turn."""
    assert conversation_of({}, body) == conversation_of({}, CHAT)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"messages": [CHAT["messages"][0], {"role": "user", "content": "bye"}]}, id="first user message"),
        pytest.param({"messages": [CHAT["messages"][1]]}, id="system prompt"),
        pytest.param({**CHAT, "instructions": "x"}, id="instructions"),
        pytest.param({**CHAT, "system": "x"}, id="system of the messages API"),
        pytest.param({"input": "hello"}, id="plain input"),
    ],
)
def test_another_beginning_is_another_conversation(body):
    """Two chats that share only a part of how they began are two conversations."""
    assert conversation_of({}, body) not in (None, conversation_of({}, CHAT))


@pytest.mark.parametrize(
    "body",
    [None, {}, {"input": ["a", "b"]}, {"messages": []}, {"messages": 5}, {"messages": [{"role": "assistant"}]}],
    ids=str,
)
def test_nothing_tells(body):
    """A request that says nothing of a conversation has none; embeddings for instance."""
    assert conversation_of({}, body) is None


@given(strategies.text(min_size=1))
def test_no_id_is_kept(name):
    """Whatever the client's id is, what we keep is 24 hex digits."""
    found = conversation_of({"x-session-id": name}, None)
    assert found is not None
    assert len(found) == 24
    assert set(found) <= set("0123456789abcdef")


def test_a_beginning_as_deep_as_can_be_read():
    """It names no conversation instead of failing."""
    import sys

    deep: object = []
    for _ in range(sys.getrecursionlimit() * 10):
        deep = [deep]
    assert conversation_of({}, {"system": deep, "messages": [{"role": "user", "content": "hi"}]}) is None
