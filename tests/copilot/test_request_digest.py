"""A long request body without what nobody looks at says all that the whole one says."""

import json

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot import bound_state, request_digest
from copilot_balancer.copilot.bound_state import read_bound
from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.copilot.jsontext import incremental, spans
from copilot_balancer.copilot.jsontext.incremental import finish
from copilot_balancer.copilot.jsontext.spans import MOST_PARTS, UNREADABLE
from copilot_balancer.copilot.protocol import Api, model_of
from copilot_balancer.copilot.request_digest import RequestDigest, abridged

NO_HEADERS: dict[str, str] = {}


def short(raw, **how):
    """The body as it is read in slices; None when it cannot be."""
    try:
        return finish(abridged(raw, **how))
    except UNREADABLE:
        return None


def whole(raw):
    """The body as json reads it."""
    try:
        found = json.loads(raw)
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def told(body, headers=NO_HEADERS):
    """All that anybody reads of a body."""
    if body is None:
        return None
    marks = [read_bound(api, body) for api in Api]
    return model_of(body), body.get("stream") is True, conversation_of(headers, body), marks


# --- texts, not values: keys stand twice, in any order, with any white space -------------------------------------------

SCALARS = strategies.sampled_from(
    [
        "1",
        "null",
        "true",
        "-0.0",
        "1E400",
        "NaN",
        '""',
        '"a"',
        '"\\u00e9\\ud800"',
        '"é"',
        '"' + "x" * 50 + '"',
        "[]",
        "{}",
    ]
)
SPACES = strategies.sampled_from(["", "", " ", "\n\t", " " * 20])


def strings(*values):
    return strategies.sampled_from([json.dumps(value) for value in values])


@strategies.composite
def listed(draw, inner, most=4):
    space = draw(SPACES)
    return f"[{space}{f'{space},{space}'.join(draw(strategies.lists(inner, max_size=most)))}{space}]"


@strategies.composite
def objects(draw, members, most=5):
    """An object of some of these members, key -> values; any of them may stand there twice."""
    space = draw(SPACES)
    keys = draw(strategies.lists(strategies.sampled_from(sorted(members)), max_size=most))
    pairs = [f'"{key}"{space}:{space}{draw(members[key])}' for key in keys]
    return f"{{{space}{f'{space},{space}'.join(pairs)}{space}}}"


KINDS = strings("thinking", "redacted_thinking", "tool_result", "reasoning", "message", "compaction", "item_reference")
ITEMS = strings("function_call", "function_call_output", "text")
PARTS = SCALARS | objects(
    {
        "type": KINDS | SCALARS,
        "signature": SCALARS,
        "data": SCALARS,
        "encrypted_content": SCALARS,
        "text": SCALARS | listed(SCALARS),
        "input": SCALARS | listed(listed(SCALARS)),
    }
)
ROLES = strings("user", "assistant", "system", "developer", "tool")
TURN = {
    "role": ROLES | SCALARS,
    "type": KINDS | ITEMS | SCALARS,
    "id": SCALARS,
    "call_id": strings("c1", "c2") | SCALARS,
    "encrypted_content": SCALARS,
    "reasoning_opaque": SCALARS,
    "reasoning_text": SCALARS,
    "content": listed(PARTS) | SCALARS | PARTS,
    "output": listed(PARTS) | SCALARS,
    "tool_calls": listed(PARTS),
}  # fmt: skip
TURNS = objects(TURN) | objects({"role": ROLES, "content": listed(PARTS) | SCALARS}) | PARTS
BODIES = objects(
    {
        "model": strings("gpt-5", "a\nb") | SCALARS | listed(SCALARS),
        "stream": SCALARS,
        "prompt_cache_key": SCALARS,
        "previous_response_id": strings("resp_1") | SCALARS,
        "metadata": objects({"user_id": strings("session_0a1b2c3d") | SCALARS, "x": SCALARS | listed(PARTS)}) | PARTS,
        "instructions": SCALARS | listed(PARTS),
        "system": SCALARS | listed(PARTS) | PARTS,
        "messages": listed(TURNS, 6) | SCALARS | PARTS,
        "input": listed(TURNS, 6) | SCALARS | PARTS,
        "tools": listed(PARTS),
    },
    most=8,
)


@given(BODIES, strategies.sampled_from([1, 5, 16, 60, 200, 1000]), strategies.booleans(), strategies.data())
def test_it_says_the_same(text, window, spoilt, data):
    """Model, stream flag, conversation and what is bound are those of the whole body, for any window; or both are none."""
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    if spoilt:
        place = data.draw(strategies.integers(0, len(raw)))
        raw[place : place + 1] = data.draw(
            strategies.sampled_from([b"", b'"', b"}", b"]", b",", b"\xff", b"\\", b"\n"])
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "WINDOW", window)
        patch.setattr(incremental, "MOST_WITHIN", 100)
        patch.setattr(request_digest, "_BATCH", 2)
        patch.setattr(request_digest, "_PIECE", 7)
        assert told(short(bytes(raw))) == told(whole(bytes(raw)))
        named = {"x-interaction-id": "one"}
        assert told(short(bytes(raw), beginning=False), named) == told(whole(bytes(raw)), named)


def chat(content, **more):
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


LONG = 100_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(chat("x" * LONG), id="a long first message"),
        pytest.param(chat([{"type": "text", "text": "é" * LONG}, {"b": [1, 2.5, None] * LONG}]), id="of long parts"),
        pytest.param(chat("hi", system=[{"type": "text", "text": "x" * LONG}]), id="a long system prompt"),
        pytest.param(chat("hi", instructions={"b": ["x"] * LONG, "a": {}}), id="odd instructions"),
        pytest.param({"input": "x" * LONG, "model": "m"}, id="plain input"),
        pytest.param(chat("hi", metadata={"x": ["y"] * LONG, "user_id": "session_0a1b2c3d"}), id="metadata"),
        pytest.param(chat("hi", prompt_cache_key="x" * LONG), id="a long key"),
        pytest.param(chat("hi", tools=[{"d": "x" * 500}] * 1000), id="many tools"),
        pytest.param({"messages": [[["x"] * LONG], {"role": "user", "content": "a"}]}, id="a turn that is none"),
    ],
)
def test_long_bodies(body):
    """With windows as they are, too; whether white space stands in the body or not."""
    for raw in (json.dumps(body).encode(), json.dumps(body, indent=1, ensure_ascii=False).encode()):
        assert told(short(raw)) == told(whole(raw))


def test_what_is_kept(monkeypatch):
    """Of all turns but those that name the conversation nothing is kept that nobody looks at."""
    monkeypatch.setattr(incremental, "WINDOW", 8)
    begun = [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    said = {
        "role": "assistant",
        "content": [{"type": "text", "text": "secret"}, {"type": "thinking", "signature": "s"}],
    }
    result = {"role": "user", "content": [{"type": "tool_result", "content": "secret"}], "x": "secret"}
    raw = json.dumps({"model": "m", "tools": ["secret"], "messages": [*begun, said, result, "secret"]}).encode()
    found = short(raw)
    assert found is not None
    assert "secret" not in repr(found)
    assert found["messages"][2:] == [
        {"role": "assistant", "content": [{"type": "thinking", "signature": "s"}]},
        {"role": "user", "content": [{"type": "tool_result"}]},
        None,
    ]
    first = found["messages"][1]
    assert isinstance(first, RequestDigest)
    assert first.text == json.dumps(begun[1], sort_keys=True)
    assert not any(isinstance(turn, RequestDigest) and turn.text for turn in found["messages"][2:])


def test_more_turns_than_a_conversation_has(monkeypatch):
    """They carry nothing, whoever reads them, and are not all kept; the beginning still names the conversation."""
    assert (request_digest.MOST_PARTS, bound_state.MOST_PARTS) == (MOST_PARTS, MOST_PARTS)
    for place in (request_digest, bound_state, spans):
        monkeypatch.setattr(place, "MOST_PARTS", 50)
    monkeypatch.setattr(incremental, "WINDOW", 100)
    turns = [{"role": "assistant", "reasoning_opaque": "x"}] * 200
    for more in ([], [{"role": "user", "content": "hi"}]):
        raw = json.dumps({"model": "m", "messages": [*turns, *more]}).encode()
        found = short(raw)
        assert found is not None
        assert len(found["messages"]) <= 52
        assert told(found) == told(whole(raw))
        assert not read_bound(Api.CHAT, found)
    raw = json.dumps({"model": "m", "messages": turns[:50]}).encode()
    assert told(short(raw)) == told(whole(raw))
    assert read_bound(Api.CHAT, whole(raw))
