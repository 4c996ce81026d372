"""What a request carries that is bound to an account, and how it is left out."""

import json
import re

import pytest
from hypothesis import example, given, strategies

from copilot_balancer.copilot.bound_state import BoundState, Stripped, may_carry, read_bound, state_hash, stripped
from copilot_balancer.copilot.jsontext.spans import MOST_PARTS
from copilot_balancer.copilot.protocol import PARSE_LIMIT, Api, read_body

USER = {"role": "user", "content": "hello"}
SYSTEM = {"role": "system", "content": "be kind"}


def i(name):
    return state_hash("id", name)


def sealed(name):
    return state_hash("sealed", name)


def signed(name):
    return state_hash("signature", name)


def opaque(name):
    return state_hash("opaque", name)


def reasoning(name, **more):
    return {"type": "reasoning", "id": f"rs_{name}", "encrypted_content": f"gAAA{name}", "summary": [], **more}


def call(name, **more):
    return {"type": "function_call", "call_id": f"call_{name}", "name": "ls", "arguments": "{}", **more}


def output(name, **more):
    return {"type": "function_call_output", "call_id": f"call_{name}", "output": "a b", **more}


def said(name, **more):
    return {"type": "message", "role": "assistant", "id": f"msg_{name}", "content": [], **more}


def reference(name):
    return {"type": "item_reference", "id": name}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def thinking(name):
    return {"type": "thinking", "thinking": "hm", "signature": name}


def redacted(name):
    return {"type": "redacted_thinking", "data": name}


TEXT = {"type": "text", "text": "yes"}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a b"}]}


def chat(name, **more):
    return {"role": "assistant", "content": "x", "reasoning_text": "hm", "reasoning_opaque": name, **more}


def body_of(api, *turns, **more):
    return {"model": "m", "input" if api is Api.RESPONSES else "messages": list(turns), **more}


def strip(api, body, *refused):
    """The parsed body after the strip; the body itself when there was nothing to do."""
    found = stripped(api, json.dumps(body).encode(), lambda one: one not in refused)
    return body if found is None else json.loads(found.body)


# --- hashes ------------------------------------------------------------------------------------------------------------


def test_a_mark_is_a_short_hash():
    """A hash is sixteen hex digits that differ by kind and by value."""
    assert state_hash("id", "rs_1") == "63d5c3f8850769cc"
    assert len({state_hash("id", "a"), state_hash("sealed", "a"), state_hash("id", "b"), state_hash("i", "da")}) == 4


@given(strategies.text(strategies.characters(), max_size=20))
@example("\ud800")
def test_every_string_has_a_mark(value):
    """Whatever a string holds, lone surrogates included, it has a hash that does not show it."""
    assert re.fullmatch("[0-9a-f]{16}", state_hash("id", value))


# --- what a request carries -------------------------------------------------------------------------------------------

CARRIED = [
    pytest.param(Api.RESPONSES, [USER, reasoning("1"), said("1"), USER],
                 [i("rs_1"), sealed("gAAA1"), i("msg_1")], id="responses: an answer"),
    pytest.param(Api.RESPONSES, [USER, reference("x"), output("1", id="o"), USER], [i("x"), i("o")],
                 id="responses: a reference and an output's id"),
    pytest.param(Api.RESPONSES, [USER, said("1"), said("2"), said("1"), USER], [i("msg_2"), i("msg_1")],
                 id="responses: a mark stands where it is nearest to the end"),
    pytest.param(Api.RESPONSES, [{"type": "compaction", "id": "c", "encrypted_content": "s"}, USER],
                 [i("c"), sealed("s")], id="responses: compaction"),
    pytest.param(Api.RESPONSES, [USER, call("1"), output("1", output=[{"encrypted_content": "s"}, "x"]), USER],
                 [sealed("s")], id="responses: an encrypted part of a tool's output"),
    pytest.param(Api.RESPONSES, [USER, {"type": "agent_message", "content": [{"encrypted_content": "s"}]}, USER],
                 [sealed("s")], id="responses: an encrypted part of a message"),
    pytest.param(Api.RESPONSES, [USER, {"id": ""}, {"id": 5}, reasoning("1", id=None, encrypted_content=""), 5, "x", USER],
                 [], id="responses: nothing that is a string"),
    pytest.param(Api.MESSAGES, [USER, assistant(thinking("a"), redacted("b"), TEXT), USER], [signed("a"), signed("b")],
                 id="messages: thinking"),
    pytest.param(Api.MESSAGES, [USER, assistant({"type": "thinking"}, thinking(""), redacted(5), "x", {}, TEXT), USER],
                 [], id="messages: thinking that is not signed"),
    pytest.param(Api.MESSAGES, [{"role": "user", "content": [thinking("a")]}, {"role": "assistant", "content": "x"}, 5, USER],
                 [], id="messages: no blocks of the model's"),
    pytest.param(Api.MESSAGES, [USER, {**assistant({"encrypted_content": "s"}), "encrypted_content": "s"}, USER], [],
                 id="messages: nothing sealed in the manner of the responses form"),
    pytest.param(Api.CHAT, [USER, chat("a"), USER, chat("b"), USER], [opaque("a"), opaque("b")], id="chat"),
    pytest.param(Api.CHAT, [chat("a", role="user"), chat(""), chat(None), 5, USER], [], id="chat: nothing"),
    pytest.param(Api.CHAT, [USER, reasoning("1"), assistant(thinking("a")), USER], [], id="chat: the other forms"),
]  # fmt: skip


@pytest.mark.parametrize(("api", "turns", "hashes"), CARRIED)
def test_what_is_carried(api, turns, hashes):
    """Each form's bound state is found, oldest first, and nothing else."""
    found = read_bound(api, body_of(api, *turns))
    assert found.hashes == tuple(hashes)
    assert bool(found) is bool(hashes)


@pytest.mark.parametrize("api", Api)
@pytest.mark.parametrize("body", [{}, {"input": 5, "messages": "x"}, {"input": [], "messages": []}], ids=str)
def test_nothing_is_carried(api, body):
    """A request without turns carries nothing."""
    assert read_bound(api, body) == BoundState()
    assert not BoundState()


@pytest.mark.parametrize(
    ("api", "turns", "needed"),
    [
        pytest.param(Api.RESPONSES, [USER, reasoning("1"), said("1"), USER, reasoning("2"), call("2"), output("2")],
                     {i("rs_2"), sealed("gAAA2")}, id="responses: the loop"),
        pytest.param(Api.RESPONSES, [USER, reasoning("1"), said("1"), USER], set(), id="responses: a user turn"),
        pytest.param(Api.RESPONSES, [reasoning("1"), call("1"), output("1")], {i("rs_1"), sealed("gAAA1")},
                     id="responses: no user message"),
        pytest.param(Api.RESPONSES, [{"type": "compaction", "id": "c", "encrypted_content": "s"}, USER], {sealed("s")},
                     id="responses: compaction is the history, its id is not"),
        pytest.param(Api.RESPONSES, [USER, call("1"), output("1", output=[{"encrypted_content": "s"}]), said("1"), USER],
                     {sealed("s")}, id="responses: an encrypted output"),
        pytest.param(Api.MESSAGES, [USER, assistant(thinking("a"), TEXT), USER, assistant(thinking("b"), TOOL_USE), RESULT],
                     {signed("b")}, id="messages: the loop"),
        pytest.param(Api.MESSAGES, [USER, assistant(thinking("a"), TOOL_USE), RESULT, assistant(TEXT), USER], set(),
                     id="messages: a user turn after a loop"),
        pytest.param(Api.CHAT, [USER, chat("a"), USER, chat("b"), {"role": "tool"}, chat("c"), {"role": "tool"}],
                     {opaque("b"), opaque("c")}, id="chat: the loop"),
    ],
)  # fmt: skip
def test_what_is_needed(api, turns, needed):
    """What the running loop made is needed, and what holds the history; the rest is not."""
    assert read_bound(api, body_of(api, *turns)).needed == needed


PREVIOUS = [
    pytest.param([USER, said("1", id=None), USER], False, id="assistant message"),
    pytest.param([USER, call("1"), output("1")], False, id="call and output"),
    pytest.param([SYSTEM, USER, reasoning("1", id=None, encrypted_content=None), call("1"), output("1"), USER], False,
                 id="reasoning and call"),
    pytest.param([{"type": "compaction"}, USER], False, id="a compaction item stands for what was before"),
    pytest.param([], True, id="nothing"),
    pytest.param("hello", True, id="plain input"),
    pytest.param([USER], True, id="a user message alone"),
    pytest.param([5, {"type": 5}, USER], True, id="nonsense"),
    pytest.param([output("1")], True, id="an output alone"),
    pytest.param([USER, reasoning("1", id=None, encrypted_content=None), USER], True, id="reasoning alone says nothing"),
    pytest.param([said("1", id=None), USER], True, id="the model speaks first"),
    pytest.param([output("1"), USER, said("1", id=None), USER], True, id="an output without its call"),
]  # fmt: skip


@pytest.mark.parametrize(("turns", "needed"), PREVIOUS)
def test_when_the_previous_response_is_needed(turns, needed):
    """A request that does not tell the whole history needs the response it goes on from, and keeps it."""
    body = {"input": turns, "previous_response_id": "resp_1"}
    found = read_bound(Api.RESPONSES, body)
    assert (found.hashes, found.needed) == ((i("resp_1"),), {i("resp_1")} if needed else frozenset())
    left = {"input": turns, "previous_response_id": "resp_1"} if needed else {"input": turns}
    assert strip(Api.RESPONSES, body, i("resp_1")) == left


@pytest.mark.parametrize(
    ("turns", "hashes"),
    [
        pytest.param([USER, said("1"), USER], [i("resp_1"), i("msg_1")], id="older than what the input tells"),
        pytest.param([output("1", id="o")], [i("o"), i("resp_1")], id="newer than what the user's side has made"),
    ],
)
def test_where_the_previous_response_stands(turns, hashes):
    """The previous response comes before what the model says in the input, and else it is the newest state."""
    assert read_bound(Api.RESPONSES, {"input": turns, "previous_response_id": "resp_1"}).hashes == tuple(hashes)


@pytest.mark.parametrize(("api", "previous"), [(Api.CHAT, "resp_1"), (Api.RESPONSES, 5), (Api.RESPONSES, "")])
def test_what_is_no_previous_response(api, previous):
    """A previous response is named by a string, in the responses form."""
    assert read_bound(api, {"previous_response_id": previous, "input": [], "messages": []}) == BoundState()


# --- what is left out -------------------------------------------------------------------------------------------------

C1 = {"type": "compaction", "id": "c", "encrypted_content": "s"}

STRIPPED = [
    pytest.param(
        Api.RESPONSES, [USER, said("1"), USER], [i("msg_1")],
        [USER, {"type": "message", "role": "assistant", "content": []}, USER], "1 id", id="an id",
    ),
    pytest.param(
        Api.RESPONSES, [USER, reasoning("1"), reasoning("2"), call("1", id="fc_1"), output("1"), said("1"), USER], [i("rs_2")],
        [USER, call("1"), output("1"), said("1"), USER], "2 reasoning items, 1 id", id="an answer falls together",
    ),
    pytest.param(
        Api.RESPONSES, [USER, reasoning("1"), call("1", id="fc_1"), output("1"), USER], [i("fc_1")],
        [USER, call("1"), output("1"), USER], "1 reasoning item, 1 id", id="reasoning without the id that follows it",
    ),
    pytest.param(
        Api.RESPONSES, [USER, reasoning("1"), said("1"), reasoning("2"), said("2"), USER], [sealed("gAAA1")],
        [USER, {"type": "message", "role": "assistant", "content": []}, reasoning("2"), said("2"), USER],
        "1 reasoning item, 1 id", id="reasoning begins another part of the answer",
    ),
    pytest.param(
        Api.RESPONSES, [USER, said("1"), 5, said("2"), USER, said("3")], [i("msg_2")],
        [USER, said("1"), 5, {"type": "message", "role": "assistant", "content": []}, USER, said("3")], "1 id",
        id="answers stand for themselves",
    ),
    pytest.param(
        Api.RESPONSES, [USER, {**USER, "id": "u"}, output("1", id="o")], [i("u")], [USER, USER, output("1", id="o")],
        "1 id", id="what the user's side made stands for itself",
    ),
    pytest.param(Api.RESPONSES, [C1, USER], [i("c"), sealed("s")], [{"type": "compaction", "encrypted_content": "s"}, USER],
                 "1 id", id="a compaction item stays, without its id"),
    pytest.param(Api.RESPONSES, [C1, USER], [sealed("s")], None, None, id="what holds the history stays"),
    pytest.param(
        Api.RESPONSES, [USER, reference("a"), output("1"), call("2"), output("2"), {"type": "custom_tool_call_output"}, USER],
        [i("a")], [USER, call("2"), output("2"), {"type": "custom_tool_call_output"}, USER],
        "1 item reference, 1 tool output", id="a reference and the output of the call behind it",
    ),
    pytest.param(
        Api.RESPONSES, [USER, reference("a"), output("1", id="o"), USER], [i("a"), i("o")], [USER, USER],
        "1 item reference, 1 tool output", id="an output goes whole, not its id first",
    ),
    pytest.param(
        Api.RESPONSES, [USER, reference("a"), output("1"), reference("b"), output("2"), USER], [i("a")],
        [USER, output("1"), reference("b"), output("2"), USER], "1 item reference",
        id="a call may stand behind a reference that stays",
    ),
    pytest.param(Api.RESPONSES, [5, "x", {}, {"type": 5}, {"id": 7}], [i("7")], None, None, id="nonsense"),
    pytest.param(Api.RESPONSES, [5, reference("a"), "x"], [i("a")], [5, "x"], "1 item reference", id="nonsense beside it"),
    pytest.param(
        Api.RESPONSES, [USER, call("1", id="fc_1"), output("1"), reasoning("2"), said("2"), USER, reasoning("3"), reference("a")],
        [i("fc_1"), i("rs_2"), i("a")],
        [USER, call("1"), output("1"), {"type": "message", "role": "assistant", "content": []}, USER],
        "2 reasoning items, 2 ids, 1 item reference", id="ids and whole items by turns",
    ),
    pytest.param(
        Api.MESSAGES, [USER, assistant(thinking("a"), redacted("b"), TEXT), USER], [signed("b")],
        [USER, assistant(TEXT), USER], "2 thinking blocks", id="the thinking of one message falls together",
    ),
    pytest.param(
        Api.MESSAGES, [USER, assistant(thinking("a"), TEXT), USER, assistant(TEXT, thinking("b")), USER], [signed("b")],
        [USER, assistant(thinking("a"), TEXT), USER, assistant(TEXT), USER], "1 thinking block",
        id="the thinking of another message stays",
    ),
    pytest.param(
        Api.MESSAGES, [USER, assistant(thinking("a"), TEXT, thinking("b")), USER, assistant(thinking("a")), USER],
        [signed("a")], [USER, assistant(TEXT), USER, USER], "3 thinking blocks", id="blocks and whole messages by turns",
    ),
    pytest.param(Api.MESSAGES, [USER, assistant(thinking("a")), USER], [signed("a")], [USER, USER], "1 thinking block",
                 id="a message that held nothing else"),
    pytest.param(Api.MESSAGES, [USER, assistant(), assistant({"type": "thinking"}), 5], [signed("a")], None, None,
                 id="nothing signed"),
    pytest.param(
        Api.CHAT, [USER, chat("a"), chat("b"), {"role": "tool"}, chat("b"), 5], [opaque("b")],
        [USER, chat("a"), {"role": "assistant", "content": "x"}, {"role": "tool"}, {"role": "assistant", "content": "x"}, 5],
        "2 opaque reasonings", id="chat",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("api", "turns", "refused", "left", "what"), STRIPPED)
def test_what_is_left_out(api, turns, refused, left, what):
    """What is refused goes, with what cannot stand without it; everything else stays."""
    found = stripped(api, json.dumps(body_of(api, *turns)).encode(), lambda one: one not in refused)
    if left is None:
        assert found is None
    else:
        assert found is not None
        assert json.loads(found.body) == body_of(api, *left)
        assert found.what == what
        assert found.left_out == sum(int(number) for number in re.findall(r"\d+", what))


def test_outputs_may_belong_to_the_previous_response():
    """While the previous response stays, a tool output whose call is nowhere else stays too."""
    body = {"previous_response_id": "resp_1", "input": [reference("a"), output("1"), USER]}
    assert strip(Api.RESPONSES, body, i("a")) == {"previous_response_id": "resp_1", "input": [output("1"), USER]}


def test_the_previous_response_goes_with_the_rest():
    """Where the input tells the history, the previous response goes beside what else is refused."""
    body = {"previous_response_id": "resp_1", "input": [USER, reference("a"), said("1"), USER], "stream": True}
    found = stripped(Api.RESPONSES, json.dumps(body).encode(), lambda one: False)
    assert found is not None
    assert json.loads(found.body) == {"input": [USER, strip_id(said("1")), USER], "stream": True}
    assert (found.left_out, found.what) == (3, "1 id, 1 item reference, 1 previous response id")


def strip_id(item):
    return {key: value for key, value in item.items() if key != "id"}


def test_a_body_is_not_shown():
    """What a strip returns does not print the conversation."""
    assert "secret" not in repr(Stripped(b"secret", 1, "1 id"))


# --- the bytes --------------------------------------------------------------------------------------------------------

ALL = {i("x"), i("y"), i("p"), sealed("s"), signed("s"), opaque("s")}

BYTES = [
    (
        Api.RESPONSES,
        '{"input":[{"role":"assistant" ,\n "id" : "x"}]}',
        '{"input":[{"role":"assistant"}]}',
        "an id",
    ),
    (
        Api.RESPONSES,
        '{"input":[{"id":"y","a":{"id":"x"},"id":"x","id":"x"}]}',
        '{"input":[{"a":{"id":"x"}}]}',
        "an id that stands there thrice",
    ),
    (Api.RESPONSES, '{"input":[{"id":"x","id":5}]}', None, "the last one wins, and it is none"),
    (Api.RESPONSES, '{"input":[{"\\u0069d":"\\u0078","a":1}]}', '{"input":[{"a":1}]}', "escaped key and value"),
    (Api.RESPONSES, '\ufeff {"input":[{"id":"x"}]} \n', '\ufeff {"input":[{}]} \n', "byte order mark"),
    (Api.RESPONSES, '{"input":[{"id":"x"}],"input":[{"id":"y"}]}', '{"input":[{"id":"x"}],"input":[{}]}', "two inputs"),
    (Api.RESPONSES, '{"input":[{"id":"x"}],"input":"plain"}', None, "the last input is no list"),
    (Api.RESPONSES, '{"input":[ ]}', None, "an empty input"),
    (Api.RESPONSES, "{ }", None, "an empty body"),
    (Api.RESPONSES, '{"x":{"input":[{"id":"x"}]},"messages":[{"id":"x"}]}', None, "not the input"),
    (
        Api.RESPONSES,
        '{"previous_response_id":"q","a":1e2,"input":[{"role":"user"},{"role":"assistant"}] , "previous_response_id":"p"}',
        '{"a":1e2,"input":[{"role":"user"},{"role":"assistant"}]}',
        "the previous response twice",
    ),
    (
        Api.RESPONSES,
        '{"input":[ 1.50 , {"type":"reasoning","id":"x"} , {"type":"reasoning","id":"y"} , -0 ]}',
        '{"input":[ 1.50 , -0 ]}',
        "items",
    ),
    (
        Api.MESSAGES,
        '{"messages":[{"content":7,"content":[ {"type":"thinking","signature":"s"}, {"a":[]} ],"role":"assistant"}]}',
        '{"messages":[{"content":7,"content":[ {"a":[]} ],"role":"assistant"}]}',
        "a block",
    ),
    (
        Api.CHAT,
        '{"messages":[{"role":"assistant","reasoning_text":"","content":"","reasoning_opaque":"s"}]}',
        '{"messages":[{"role":"assistant","content":""}]}',
        "a message's keys",
    ),
    (
        Api.CHAT,
        '{"messages":[{"reasoning_opaque":"s","reasoning_text":"","role":"assistant"}]}',
        '{"messages":[{"role":"assistant"}]}',
        "a message's first keys",
    ),
]


@pytest.mark.parametrize(("api", "raw", "left", "name"), [pytest.param(*row, id=row[-1]) for row in BYTES])
def test_the_bytes_that_stay(api, raw, left, name):
    """Exactly the span goes, with one comma and the white space beside it."""
    found = stripped(api, raw.encode(), lambda one: one not in ALL)
    assert (found.body.decode() if found else None) == left


def test_bytes_of_lone_surrogates_stay():
    """Surrogates that are encoded though they should not be, as json reads them, come out as they came in."""
    raw = b'{"input":[{"id":"\xed\xa0\x80","t":"\xed\xa0\x80\xed\xb0\x80"}]}'
    found = stripped(Api.RESPONSES, raw, lambda one: one != state_hash("id", "\ud800"))
    assert found is not None
    assert found.body == b'{"input":[{"t":"\xed\xa0\x80\xed\xb0\x80"}]}'


VALID = b'{"input":[{"id":"x"}],"a":[]}'


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(VALID + b"x", id="more behind it"),
        pytest.param(VALID[:-1], id="cut off"),
        pytest.param(b'{"input":[{"id":"x"}],}', id="a comma too many"),
        pytest.param(b'{"a":' + b"1" * 5000 + b',"input":[{"id":"x"}]}', id="a number that Python refuses"),
        pytest.param(VALID.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"input":[{"id":"x","t":"\xff"}]}', id="no UTF-8"),
        pytest.param(b'{"input":[' + b"[" * 300_000, id="a depth bomb"),
        pytest.param(b'{"input":[{"id":"x"}],"a":' + b'{"a":' * 300_000, id="a depth bomb of objects"),
        pytest.param(b'{"input":[{"id":"x"}' + b",0" * MOST_PARTS + b"]}", id="too many turns"),
        pytest.param(b'{"input":[{"id":"x"' + b',"a":0' * MOST_PARTS + b"}]}", id="too many keys"),
        pytest.param(b'{"input":[{"id":"x"}]}' + b" " * PARSE_LIMIT, id="too long"),
    ],
)
def test_what_cannot_be_read_is_left_alone(raw):
    """Bytes that are no such body are no error, and nothing is cut out of them."""
    assert stripped(Api.RESPONSES, raw, lambda one: False) is None


@pytest.mark.parametrize("depth", [50, 900, 990, 1000, 1010, 3000, 9000, 10_000, 11_000, 50_000, 100_000, 200_000])
@pytest.mark.parametrize("api", Api)
def test_depth_ends_somewhere(api, depth):
    """However deep a body is, it is stripped or left alone, and nothing is raised."""
    deep = b"[" * depth + b"]" * depth
    raw = (
        b'{"input":[{"id":"x","a":%b}],"messages":[{"role":"assistant","reasoning_opaque":"s","content":[%b,'
        b'{"type":"thinking","signature":"s"}]}]}'
    ) % (deep, deep)
    found = stripped(api, raw, lambda one: False)
    assert found is None or len(found.body) < len(raw)
    assert found is not None or depth > 900


def test_a_fault_of_the_callers_is_not_hidden():
    """What `keep` raises is its own affair: it does not pass for a body that cannot be read."""

    def keep(one):
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        stripped(Api.RESPONSES, VALID, keep)


def test_a_huge_body():
    """Ten megabytes are cut like ten bytes."""
    turns = [USER, reasoning("1"), said("1", content="x" * 10_000_000), *[call(str(n), id="fc") for n in range(1000)]]
    left = strip(Api.RESPONSES, body_of(Api.RESPONSES, *turns), i("rs_1"), i("fc"))
    assert left["input"] == [USER, *map(strip_id, turns[2:])]


# --- laws over random bodies ------------------------------------------------------------------------------------------

names = strategies.sampled_from(["a", "b", "c", "d", "é", "\ud800", ""])
junk = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | names,
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(names | strategies.just("id"), inner, max_size=3)
    ),
    max_leaves=4,
)
calls = strategies.sampled_from(["1", "2", "3"])
ids = strategies.one_of(strategies.just({}), strategies.builds(lambda name: {"id": name}, names | junk))
parts = strategies.lists(strategies.builds(lambda name: {"encrypted_content": name}, names) | junk, max_size=2)
items = strategies.one_of(
    strategies.just(USER),
    strategies.builds(lambda more: {**USER, **more}, ids),
    strategies.builds(lambda name, more: {"type": "reasoning", "encrypted_content": name, **more}, names, ids),
    strategies.builds(lambda name, more: {"type": "compaction", "encrypted_content": name, **more}, names, ids),
    strategies.builds(lambda name, more: {**call(name), **more}, calls, ids),
    strategies.builds(lambda name, more, out: {**output(name), **more, "output": out}, calls, ids, parts),
    strategies.builds(lambda more, out: {"role": "assistant", "content": out, **more}, ids, parts),
    strategies.builds(reference, names),
    junk,
)
block = strategies.one_of(
    strategies.builds(thinking, names),
    strategies.builds(redacted, names),
    strategies.just(TEXT),
    strategies.just(TOOL_USE),
    junk,
)
message = strategies.one_of(
    strategies.just(USER),
    strategies.just(RESULT),
    strategies.builds(lambda blocks: assistant(*blocks), strategies.lists(block, max_size=4)),
    strategies.builds(lambda blocks: {"role": "user", "content": blocks}, strategies.lists(block, max_size=2)),
    junk,
)
said_in_chat = strategies.one_of(
    strategies.just(USER),
    strategies.builds(chat, names | junk),
    strategies.just({"role": "tool"}),
    strategies.just(chat("a", role="user")),
    junk,
)
bodies = strategies.one_of(
    strategies.tuples(
        strategies.just(Api.RESPONSES),
        strategies.fixed_dictionaries(
            {"input": strategies.lists(items, max_size=10)}, optional={"previous_response_id": names, "a": junk}
        ),
    ),
    strategies.tuples(
        strategies.just(Api.MESSAGES),
        strategies.fixed_dictionaries({"messages": strategies.lists(message, max_size=6), "a": junk}),
    ),
    strategies.tuples(
        strategies.just(Api.CHAT),
        strategies.fixed_dictionaries({"a": junk, "messages": strategies.lists(said_in_chat, max_size=6)}),
    ),
    strategies.tuples(
        strategies.sampled_from(Api), strategies.fixed_dictionaries({}, optional={"input": junk, "messages": junk})
    ),
)
refusals = strategies.sets(
    strategies.builds(state_hash, strategies.sampled_from(["id", "id", "sealed", "signature", "opaque"]), names),
    max_size=8,
) | strategies.just(None)  # None: all


def written(value, random):
    """JSON that reads as `value`, with white space anywhere, escapes or none, and dead keys before those that count."""

    def space():
        return random.choice(["", "", "", " ", "\n  ", "\t\r\n"])

    def joined(opening, parts, closing):
        between = ",".join(f"{space()}{part}{space()}" for part in parts)
        return opening + (between or space()) + closing

    if isinstance(value, dict):
        members = []
        for key, inner in value.items():
            name = written(key, random)
            if random.random() < 0.15:
                members.append(f"{name}:{random.choice(['1', '[]', chr(34) + 'a' + chr(34), '[{}]'])}")
            members.append(f"{name}{space()}:{space()}{written(inner, random)}")
        return joined("{", members, "}")
    if isinstance(value, list):
        return joined("[", [written(inner, random) for inner in value], "]")
    return json.dumps(value, ensure_ascii=random.random() < 0.5)


def sealing(kind, value):
    return {state_hash(kind, value)} if isinstance(value, str) and value else set()


def left_of_responses(body, refuses):
    """The same law, told of parsed objects: labels for the items, and a regular expression for what an answer is."""
    turns = body.get("input") if isinstance(body.get("input"), list) else []
    kinds = [turn.get("type") if isinstance(turn, dict) else None for turn in turns]
    speaks = [
        isinstance(turn, dict)
        and (turn.get("role") == "assistant" or kind == "compaction" or str(kind).endswith("_call"))
        for turn, kind in zip(turns, kinds, strict=True)
    ]
    labels = "".join(
        "r" if kind == "reasoning" else "m" if spoke or kind == "item_reference" else "x"
        for kind, spoke in zip(kinds, speaks, strict=True)
    )
    refused = set()
    for answer in re.finditer("r+m*|m+|x", labels):
        places = range(*answer.span())
        state = set()
        for place in places:
            if isinstance(turns[place], dict):
                state |= sealing("id", turns[place].get("id"))
                state |= sealing("sealed", turns[place].get("encrypted_content")) if labels[place] == "r" else set()
        refused |= set(places) if any(map(refuses, state)) else set()
    have = {
        t.get("call_id")
        for t, kind in zip(turns, kinds, strict=True)
        if isinstance(t, dict) and kind == "function_call"
    }
    lost = {
        place
        for place, kind in enumerate(kinds)
        if kind == "function_call_output" and turns[place]["call_id"] not in have
    }
    previous = sealing("id", body.get("previous_response_id"))
    first = speaks.index(True) if True in speaks else 0
    told = any(speaks) and (kinds[first] == "compaction" or any(map(is_user, turns[:first])))
    drop_previous = any(map(refuses, previous)) and told and not lost
    references = {place for place, kind in enumerate(kinds) if kind == "item_reference"}
    gone = {place for place in refused if labels[place] == "r"} | (refused & references)
    if refused & references and references <= refused and (not previous or drop_previous):
        gone |= lost
    left = [
        strip_id(turn) if place in refused and isinstance(turn, dict) and sealing("id", turn.get("id")) else turn
        for place, turn in enumerate(turns)
        if place not in gone
    ]
    return {
        **{key: value for key, value in body.items() if not (drop_previous and key == "previous_response_id")},
        **({"input": left} if isinstance(body.get("input"), list) else {}),
    }


def is_user(turn):
    return isinstance(turn, dict) and turn.get("role") == "user" and turn.get("type", "message") == "message"


def left_of_messages(body, refuses):
    def left(turn):
        if not isinstance(turn, dict) or turn.get("role") != "assistant" or not isinstance(turn.get("content"), list):
            return [turn]
        state = [
            sealing("signature", one.get("signature" if one["type"] == "thinking" else "data"))
            if isinstance(one, dict) and one.get("type") in ("thinking", "redacted_thinking")
            else set()
            for one in turn["content"]
        ]
        if not any(map(refuses, set().union(*state))):
            return [turn]
        content = [one for one, hashes in zip(turn["content"], state, strict=True) if not hashes]
        return [{**turn, "content": content}] if content else []

    turns = body.get("messages")
    return {**body, "messages": [one for turn in turns for one in left(turn)]} if isinstance(turns, list) else body


def left_of_chat(body, refuses):
    def left(turn):
        if not isinstance(turn, dict) or turn.get("role") != "assistant":
            return turn
        if not any(map(refuses, sealing("opaque", turn.get("reasoning_opaque")))):
            return turn
        return {key: value for key, value in turn.items() if key not in ("reasoning_opaque", "reasoning_text")}

    turns = body.get("messages")
    return {**body, "messages": [left(turn) for turn in turns]} if isinstance(turns, list) else body


LEFT = {Api.RESPONSES: left_of_responses, Api.MESSAGES: left_of_messages, Api.CHAT: left_of_chat}


@given(bodies, refusals, strategies.randoms(use_true_random=False))
def test_the_strip_of_any_body(case, refused, random):
    """What is left is what the law says of the parsed body, cut from the client's bytes, and nothing more can be cut."""
    api, value = case
    raw = written(value, random).encode("utf-8", "surrogatepass")

    def refuses(one):
        return refused is None or one in refused

    def keep(one):
        return not refuses(one)

    body = read_body(raw)
    assert body is not None
    left = LEFT[api](body, refuses)
    found = stripped(api, raw, keep)
    if left == body:
        assert found is None
        return
    assert found is not None
    after = read_body(found.body)
    assert after == left
    remaining = iter(raw)
    assert all(byte in remaining for byte in found.body), "bytes that the client did not send"
    assert stripped(api, found.body, keep) is None
    state = read_bound(api, after)
    assert {one for one in state.hashes if refuses(one)} <= holding_history(after)


def holding_history(body):
    """Hashes that may stay though they are refused."""
    history = sealing("id", body.get("previous_response_id"))
    for turn in body["input"] if isinstance(body.get("input"), list) else []:
        if isinstance(turn, dict) and turn.get("type") != "reasoning":
            inner = [part for key in ("output", "content") if isinstance(turn.get(key), list) for part in turn[key]]
            for one in [turn, *inner]:
                history |= sealing("sealed", one.get("encrypted_content")) if isinstance(one, dict) else set()
    return history


@given(bodies)
def test_the_marks_of_any_body(case):
    """What is needed is carried, each hash once, and reading changes nothing."""
    api, body = case
    before = json.dumps(body)
    found = read_bound(api, body)
    assert found.needed <= set(found.hashes)
    assert len(set(found.hashes)) == len(found.hashes)
    assert json.dumps(body) == before


@given(bodies, strategies.sampled_from(["utf-8", "utf-16"]), strategies.booleans())
def test_bytes_that_can_carry_nothing_carry_nothing(case, encoding, plain):
    """However a body is written, one with hashes is never taken for one without."""
    api, body = case
    raw = json.dumps(body, ensure_ascii=plain).encode(encoding, "surrogatepass")
    if not may_carry(api, raw):
        assert read_bound(api, body).hashes == ()


@pytest.mark.parametrize(
    ("api", "body", "expected"),
    [
        pytest.param(Api.CHAT, {"messages": [USER]}, False, id="a plain chat"),
        pytest.param(Api.CHAT, {"messages": [chat("a")]}, True, id="a chat with sealed reasoning"),
        pytest.param(Api.MESSAGES, {"messages": [USER]}, False, id="plain messages"),
        pytest.param(Api.MESSAGES, {"messages": [assistant(redacted("a"))]}, True, id="redacted thinking"),
        pytest.param(Api.RESPONSES, {"input": [USER]}, False, id="plain input"),
        pytest.param(Api.RESPONSES, {"input": [reference("a")]}, True, id="a reference"),
    ],
)
def test_bytes_that_can_carry_something(api, body, expected):
    """A look at the bytes tells most requests without anything bound; a key in escapes counts as if it were there."""
    raw = json.dumps(body).encode()
    assert may_carry(api, raw) is expected
    assert may_carry(api, raw.replace(b"role", b"\\u0072ole"))


@given(bodies)
def test_who_keeps_everything_strips_nothing(case):
    """While every hash may stay there is nothing to do."""
    api, body = case
    assert stripped(api, json.dumps(body).encode(), lambda one: True) is None


@given(strategies.sampled_from(Api), strategies.binary(max_size=200))
@example(Api.RESPONSES, b'{"input":')
def test_any_bytes(api, raw):
    """No bytes make it raise."""
    stripped(api, raw, lambda one: False)


@given(strategies.sampled_from(Api), strategies.data())
def test_bytes_that_are_nearly_a_body(api, data):
    """A body with some bytes changed is stripped when json can read it, and left alone when it cannot."""
    raw = bytearray(
        b'{"previous_response_id":"p","input":[{"role":"user"},{"type":"reasoning","id":"x"},{"role":"assistant","id":"y"}],'
        b'"messages":[{"role":"assistant","reasoning_opaque":"s","content":[{"type":"thinking","signature":"s"},{}]}]}'
    )
    for place in data.draw(strategies.lists(strategies.integers(0, len(raw) - 1), max_size=3)):
        raw[place] = data.draw(strategies.integers(0, 255))
    found = stripped(api, bytes(raw), lambda one: False)
    body = read_body(bytes(raw))
    assert found is None or (body is not None and read_body(found.body) not in (None, body))
    assert body is not None or found is None


def test_the_limit_is_where_it_says():
    """A conversation is read up to the bound of turns."""
    raw = b'{"input":[{"id":"x"}' + b",0" * (MOST_PARTS - 1) + b"]}"
    assert stripped(Api.RESPONSES, raw, lambda one: False) is not None
