"""One event, one document, one frame: what each says, whatever its form, and that nothing of it raises."""

import itertools
import json
import os

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_event import (
    LONGEST,
    MAX_HASHES,
    ResponseEvent,
    StreamError,
    may_tell,
    read_document,
    read_event,
    read_frame,
    tells,
)
from copilot_balancer.rules.classify import classify_event
from copilot_balancer.rules.types import Reason
from support.stream_events import (
    CHAT,
    CHAT_ERROR,
    CREATED,
    DELTA,
    DONE,
    END_TURN,
    EVENTS,
    FILTER,
    FLAT_ERROR,
    ID,
    MESSAGE_STOP,
    MESSAGES,
    OVERLOADED,
    PING,
    QUEUED,
    QUOTA,
    RESPONSES,
    ROLE,
    SLOW_DOWN,
    START,
    STOP,
    TEXT,
    TEXT_BLOCK,
    TEXT_DELTA,
    block,
    chunk,
    data,
    item,
    named,
    response,
    signature,
    thinks,
)

EXAMPLES = 3000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 150


def case(name, api, event, **expected):
    return pytest.param(api, event.rstrip(b"\n"), ResponseEvent(**expected), id=f"{api}: {name}")


def failed(name, api, event, code, message, **more):
    return case(name, api, event, error=StreamError(code, message), complete=True, **more)


ANNOUNCED = {"opens": False}
OVER = {"complete": True, "final": True}

SAID = [
    # --- chat
    case("filter results", CHAT, FILTER, **ANNOUNCED),
    case("role", CHAT, ROLE, **ANNOUNCED, choices=(0,)),
    case("a choice without a delta", CHAT, data({"choices": [{"index": 0, "x": 1}]}), **ANNOUNCED, choices=(0,)),
    case("text", CHAT, TEXT, output=True, choices=(0,)),
    case("a refusal", CHAT, chunk({"refusal": "No."}), output=True, choices=(0,)),
    case("a message in the place of a delta", CHAT, data({"choices": [{"message": {"content": "x"}}]}), output=True, choices=(0,)),
    case("something without choices", CHAT, data({"copilot_references": []}), output=True),
    case("choices of another kind", CHAT, data({"choices": ["x"]}), output=True),
    case("an end", CHAT, STOP, complete=True, closes=(0,), choices=(0,)),
    case("an empty finish_reason is none", CHAT, chunk({"content": "x"}, finish=""), output=True, choices=(0,)),
    case("the last word", CHAT, DONE, **OVER),
    case(
        "opaque reasoning, of two choices",
        CHAT,
        chunk({"reasoning_opaque": "a"}, {"reasoning_opaque": "b"}),
        output=True,
        pieces=((0, "opaque", "a"), (1, "opaque", "b")),
        choices=(0, 1),
    ),
    case("usage alone, which comes last", CHAT, data({"choices": [], "usage": {"total_tokens": 3}}), opens=False, final=True),
    case("an end with usage", CHAT, chunk({}, finish="stop", usage={"x": 1}), closes=(0,), choices=(0,), **OVER),
    case("no usage yet", CHAT, data({"choices": [], "usage": None}), **ANNOUNCED),
    case("quota", CHAT, data({"choices": [], "copilot_quota_snapshots": QUOTA}), quota=QUOTA, **ANNOUNCED),
    failed("error", CHAT, CHAT_ERROR, "rate_limited", "Slow down"),
    failed("error with empty choices", CHAT, data({"choices": [], "error": {"message": "x"}}), None, "x"),
    failed("error as text", CHAT, data({"error": "busy"}), None, "busy"),
    failed("error by name", CHAT, b'event: error\ndata: {"code":429,"message":"x"}\n\n', 429, "x"),
    failed("copilot_errors", CHAT, data({"copilot_errors": [{"type": "agent", "code": "c", "message": "x"}]}), "c", "x"),
    case("copilot_errors empty", CHAT, data({"choices": [], "copilot_errors": []}), **ANNOUNCED),
    case("an error beside choices is none", CHAT, chunk({"content": "x"}, error={"code": "x"}), output=True, choices=(0,)),
    # --- the lines, whatever the form
    case("a comment", CHAT, b": keep-alive", **ANNOUNCED),
    case("no data", CHAT, b"event: error", **ANNOUNCED),
    case("empty data", CHAT, b"data:", **ANNOUNCED),
    case("no blank after the colon", CHAT, b"data:[DONE]", **OVER),
    failed("comments and ids between", CHAT, b": hi\nid: 7\nretry: 10\n" + CHAT_ERROR, "rate_limited", "Slow down"),
    failed("the last of two names", CHAT, b'event: ping\nevent: error\ndata: {"message":"x"}', None, "x"),
    failed("data in two lines", CHAT, b'data: {"error":\ndata: {"message":"x"}}', None, "x"),
    failed("byte order mark", CHAT, b"\xef\xbb\xbf" + CHAT_ERROR, "rate_limited", "Slow down"),
    failed("not UTF-8", CHAT, b'data: {"error":{"message":"\xff"}}', None, "\ufffd"),
    case("malformed", CHAT, b'data: {"choices":[{"delta"'),
    case("a number", CHAT, b"data: 7"),
    case("brackets without end", CHAT, b"data: " + b"[" * 100_000),
    # --- responses
    case("queued", RESPONSES, QUEUED, hashes=(ID,), **ANNOUNCED),
    case("created", RESPONSES, CREATED, hashes=(ID,), **ANNOUNCED),
    case("named by its line alone", RESPONSES, b'event: response.created\ndata: {"response":{"id":"resp_1"}}', hashes=(ID,), **ANNOUNCED),
    case("text", RESPONSES, DELTA, output=True),
    case("a type of its own", RESPONSES, named({"type": "response.new_thing"}), output=True),
    case("an item", RESPONSES, item("added", type="message"), output=True),
    case(
        "sealed reasoning",
        RESPONSES,
        item("done", id="rs", type="reasoning", encrypted_content="e"),
        output=True,
        hashes=(state_hash("id", "rs"), state_hash("sealed", "e")),
    ),
    case(
        "a sealed tool output",
        RESPONSES,
        item("done", type="x_output", output=[{"encrypted_content": "e"}, {"type": "t"}], content="text"),
        output=True,
        hashes=(state_hash("sealed", "e"),),
    ),
    case(
        "completed",
        RESPONSES,
        response("completed", output=[{"id": "m", "type": "message"}, "x"], copilot_quota_snapshots=QUOTA),
        hashes=(ID, state_hash("id", "m")),
        quota=QUOTA,
        **OVER,
    ),
    case("cancelled", RESPONSES, response("cancelled"), hashes=(ID,), **OVER),
    failed("flat error", RESPONSES, FLAT_ERROR, "rate_limited", "Slow down"),
    failed("nested error", RESPONSES, named({"type": "error", "error": {"type": "t", "code": "c", "message": "x"}}), "c", "x"),
    failed("error without a code", RESPONSES, named({"type": "error", "code": None, "message": "x"}), None, "x"),
    failed("error without a type", RESPONSES, data({"error": {"code": "c", "message": "x"}}), "c", "x"),
    failed("error by name alone", RESPONSES, b'event:error\ndata:{"code":"c","message":"x"}', "c", "x"),
    failed("error of another type", RESPONSES, b'event: error\ndata: {"type":"api_error","message":"x"}', "api_error", "x"),
    failed("error whose code is a list", RESPONSES, named({"type": "error", "code": [], "message": 7}), None, ""),
    failed("error with quota", RESPONSES, named({"type": "error", "code": "c", "copilot_quota_snapshots": QUOTA}), "c", "", quota=QUOTA),
    failed("failed", RESPONSES, response("failed", error={"code": "c", "message": "x"}), "c", "x", final=True, hashes=(ID,)),
    failed("failed and says nothing", RESPONSES, response("failed"), None, "", final=True, hashes=(ID,)),
    # --- messages
    case("start", MESSAGES, START, **ANNOUNCED),
    case("ping", MESSAGES, PING, **ANNOUNCED),
    case("a block begins", MESSAGES, TEXT_BLOCK, output=True),
    case("text", MESSAGES, TEXT_DELTA, output=True),
    case("a block is over", MESSAGES, block("stop", 3), output=True, closes=(3,)),
    case("a block begins with its signature", MESSAGES, block("start", 2, **thinks(signature="s")), output=True, pieces=((2, "signature", "s"),)),
    case("a signature", MESSAGES, block("delta", 1, **signature("s")), output=True, pieces=((1, "signature", "s"),)),
    case("an empty signature", MESSAGES, block("delta", **signature("")), output=True),
    case(
        "redacted thinking",
        MESSAGES,
        block("start", content_block={"type": "redacted_thinking", "data": "sealed"}),
        output=True,
        hashes=(state_hash("signature", "sealed"),),
    ),
    case("only usage", MESSAGES, named({"type": "message_delta", "delta": {"stop_reason": None}})),
    case("an end", MESSAGES, END_TURN, complete=True, used={"output_tokens": 3}),
    case("the last word", MESSAGES, MESSAGE_STOP, **OVER),
    case("quota", MESSAGES, named({"type": "message_stop", "copilot_quota_snapshots": QUOTA}), quota=QUOTA, **OVER),
    case("[DONE] is none of its words", MESSAGES, DONE),
    failed("error", MESSAGES, OVERLOADED, "overloaded_error", "Overloaded"),
]  # fmt: skip


@pytest.mark.parametrize(("api", "event", "expected"), SAID)
def test_what_an_event_says(api, event, expected):
    """An event says of itself what its clients would see in it."""
    assert expected == read_event(api, event)


@pytest.mark.parametrize(
    ("api", "event", "expected"), [row for row in SAID if row.values[2] != ResponseEvent(output=True)]
)
def test_what_tells_is_looked_at(api, event, expected):
    """An event that may say more than that something came is never taken for one that does not."""
    learns = (
        expected.error or expected.complete or expected.hashes or expected.pieces or expected.closes or expected.quota
    )

    assert tells(api, event) or not learns or not expected.opens


def test_an_error_means_what_its_code_means():
    """`StreamError` is what `classify.classify_event` takes."""
    error = read_event(RESPONSES, FLAT_ERROR).error

    assert classify_event(error.code, error.message, wall=0.0).reason == Reason.LIMIT


def test_a_long_message_is_cut():
    """Of an error's message no more is kept than `classify_event` reads."""
    assert len(read_event(CHAT, data({"error": {"message": "x" * 100_000}})).error.message) == 65536


# --- nothing raises ---------------------------------------------------------------------------------------------------

KEYS = [
    "type",
    "index",
    "error",
    "code",
    "message",
    "choices",
    "delta",
    "finish_reason",
    "response",
    "output",
    "item",
    "id",
    "content",
    "content_block",
    "signature",
    "copilot_quota_snapshots",
    "copilot_errors",
]
JSON = strategies.recursive(
    strategies.one_of(
        strategies.none(),
        strategies.booleans(),
        strategies.integers(),
        strategies.floats(),
        strategies.text(max_size=3),
    ),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=3),
        strategies.dictionaries(
            strategies.sampled_from(KEYS),
            inner,
        ),
    ),
    max_leaves=12,
)


@given(
    strategies.sampled_from(list(Api)),
    strategies.sampled_from([event for events in EVENTS.values() for event in events]),
    strategies.data(),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_shape_raises(api, event, draws):
    """No JSON in the place of what is expected makes a reader raise."""
    known = json.loads(event.partition(b"data: ")[2].replace(b"[DONE]", b"{}"))
    shape = {
        **known,
        **{
            key: draws.draw(JSON)
            for key in draws.draw(strategies.sets(strategies.sampled_from(sorted({*known, "index"}))))
        },
    }

    read_event(api, data(shape))
    read_document(api, json.dumps(shape).encode())
    read_frame(json.dumps(shape))


@given(strategies.sampled_from(list(Api)), strategies.binary(max_size=300))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_bytes_raise(api, raw):
    """No bytes make a reader raise."""
    read_event(api, raw)
    read_event(api, b"data: " + raw)
    read_document(api, raw)
    read_frame(raw.decode("latin-1"))


# --- one document, one frame ------------------------------------------------------------------------------------------

THINKING = [
    {"type": "thinking", "thinking": "Hm", "signature": "s1"},
    {"type": "redacted_thinking", "data": "s2"},
    {"type": "text", "text": "Hello", "signature": "none"},
]


@pytest.mark.parametrize(
    ("api", "document", "hashes"),
    [
        pytest.param(
            CHAT,
            {"choices": [{"message": {"content": "Hello", "reasoning_opaque": "o"}, "finish_reason": "stop"}]},
            [state_hash("opaque", "o")],
            id="chat",
        ),
        pytest.param(
            RESPONSES,
            {"id": "resp_1", "output": [{"id": "rs", "encrypted_content": "e"}, {"id": "rs"}]},
            [ID, state_hash("id", "rs"), state_hash("sealed", "e")],
            id="responses",
        ),
        pytest.param(
            MESSAGES,
            {"content": THINKING},
            [state_hash("signature", "s1"), state_hash("signature", "s2")],
            id="messages",
        ),
        pytest.param(CHAT, {}, [], id="chat, nothing in it"),
        pytest.param(RESPONSES, {}, [], id="responses, nothing in it"),
        pytest.param(MESSAGES, {}, [], id="messages, nothing in it"),
    ],
)
def test_a_document_says_the_same(api, document, hashes):
    """An answer that is one JSON document tells its hashes, each once, and its quota."""
    raw = json.dumps(document).encode()
    assert (hashes, None, {}) == read_document(api, raw)
    assert may_tell(api, [raw]) or not hashes
    more = {**document, "copilot_quota_snapshots": QUOTA, "copilot_usage": {"total_nano_aiu": 7}}
    assert (hashes, QUOTA, {"total_nano_aiu": 7}) == read_document(api, json.dumps(more).encode())


@given(
    strategies.sampled_from(["reasoning_opaque", "copilot_quota_snapshots", "content"]),
    strategies.lists(strategies.integers(0, 120)),
    strategies.data(),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_word_is_found_however_it_is_cut(word, cuts, data):
    """A document that comes in pieces tells as much as in one."""
    raw = json.dumps(
        {"x" * data.draw(strategies.integers(0, 60)): 1, word: "y" * data.draw(strategies.integers(0, 60))}
    ).encode()
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[begin:end] for begin, end in itertools.pairwise(places)]
    assert may_tell(CHAT, pieces) is (word != "content")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"choices":'])
def test_a_document_that_cannot_be_read_says_nothing(body):
    """What is no JSON object has no hashes."""
    assert read_document(CHAT, body) == ([], None, {})


@pytest.mark.parametrize(
    ("frame", "expected", "ends"),
    [
        pytest.param(
            {"type": "response.output_text.delta", "delta": "x"}, ResponseEvent(output=True), False, id="text"
        ),
        pytest.param({"type": "response.in_progress"}, ResponseEvent(opens=False), False, id="in progress"),
        pytest.param({"type": "response.queued"}, ResponseEvent(opens=False), False, id="queued"),
        pytest.param(
            {"type": "response.created", "response": {"id": "resp_1"}},
            ResponseEvent(opens=False, hashes=(ID,)),
            False,
            id="created",
        ),
        pytest.param(
            {"type": "response.completed", "response": {"id": "resp_1", "copilot_quota_snapshots": QUOTA}},
            ResponseEvent(complete=True, final=True, hashes=(ID,), quota=QUOTA),
            True,
            id="completed",
        ),
        pytest.param(
            {
                "type": "error",
                "error": {"code": "user_global_rate_limited:enterprise", "message": "Rate limit exceeded"},
                "copilot_quota_snapshots": QUOTA,
            },
            ResponseEvent(
                error=StreamError("user_global_rate_limited:enterprise", "Rate limit exceeded"),
                complete=True,
                quota=QUOTA,
            ),
            True,
            id="nested error",
        ),
        pytest.param(
            {"type": "error", "code": "rate_limited", "message": "Slow down"},
            ResponseEvent(error=SLOW_DOWN, complete=True),
            True,
            id="flat error",
        ),
        pytest.param(
            {"type": "response.failed", "response": {"error": {"code": "rate_limited", "message": "Slow down"}}},
            ResponseEvent(error=SLOW_DOWN, complete=True, final=True),
            True,
            id="failed",
        ),
    ],
)
def test_what_a_frame_says(frame, expected, ends):
    """A frame of the WebSocket says what the same event of a stream says, and whether a response is over with it."""
    found = read_frame(json.dumps(frame))

    assert expected == found
    assert ends == found.ends


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("response.created", ResponseEvent(), id="no JSON"),
        pytest.param('["response.created"]', ResponseEvent(), id="no object"),
        pytest.param(
            '{"type":"response.completed","x":"' + "x" * LONGEST, ResponseEvent(readable=False), id="too long"
        ),
        pytest.param('{"type":"x.delta","x":"' + "x" * LONGEST, ResponseEvent(output=True), id="long, of no interest"),
    ],
)
def test_a_frame_that_cannot_be_read(text, expected):
    """A frame that cannot be read opens the answer and ends nothing."""
    found = read_frame(text)

    assert expected == found
    assert not found.ends


def test_the_marks_of_a_document_are_bounded():
    """A document tells no more hashes than that."""
    many = [{"id": f"i{number}"} for number in range(MAX_HASHES + 10)]

    assert len(read_document(RESPONSES, json.dumps({"id": "r", "output": many}).encode())[0]) == MAX_HASHES
