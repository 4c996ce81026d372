import gzip
import os
import tracemalloc
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot import response_reader
from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_event import LONGEST, MAX_HASHES, StreamError
from copilot_balancer.copilot.response_reader import KEPT, ResponseReader
from support.stream_events import (
    BLOCK_STOP,
    CHAT,
    CHAT_ERROR,
    COMPLETED,
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
    RUNNING,
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


@dataclass
class State:
    """What a reader says; the defaults are those of an answer of which nothing has come."""

    opened: bool = False
    output: bool = False
    error: StreamError | None = None
    complete: bool = False
    final: bool = False
    hashes: list = field(default_factory=list)
    quota: dict | None = None
    readable: bool = True


def state_of(reader):
    return State(*(getattr(reader, name) for name in State.__dataclass_fields__))


def read(api, *pieces):
    reader = ResponseReader(api)
    for piece in pieces:
        reader.feed(piece)
    return state_of(reader)


def case(name, api, *pieces, hashes=(), **expected):
    return pytest.param(api, pieces, State(hashes=list(hashes), **expected), id=f"{api}: {name}")


SECOND, SECOND_STOP = (
    data({"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": finish}]}) for finish in (None, "stop")
)
USAGE = data({"choices": [], "usage": {"total_tokens": 3}})
WELL = {"opened": True, "output": True, "complete": True, "final": True}
FAILED = {"opened": True, "complete": True}

STREAMS = [
    # --- chat
    case("nothing", CHAT),
    case("normal", CHAT, FILTER, ROLE, TEXT, TEXT, STOP, DONE, **WELL),
    case("announcements", CHAT, b": keep-alive\n\n", FILTER, ROLE, chunk({"content": None, "role": "assistant"})),
    case("begun", CHAT, ROLE, TEXT, opened=True, output=True),
    case("cut after its text", CHAT, ROLE, TEXT, STOP[:-20], opened=True, output=True),
    case("its last event lacks the empty line", CHAT, ROLE, TEXT, STOP[:-1], opened=True, output=True),
    case("no [DONE]", CHAT, ROLE, TEXT, STOP, opened=True, output=True, complete=True),
    case("usage after the end", CHAT, TEXT, STOP, data({"choices": [], "usage": {}}), DONE, **WELL),
    case("finish_reason with a blank", CHAT, TEXT, STOP.replace(b":", b": "), opened=True, output=True, complete=True),
    case("only an end", CHAT, ROLE, STOP, opened=True, complete=True),
    case("only [DONE]", CHAT, DONE, opened=True, complete=True, final=True),
    case(
        "tool call",
        CHAT,
        ROLE,
        chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "sh", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({}, finish="tool_calls"),
        DONE,
        **WELL,
    ),
    case(
        "reasoning",
        CHAT,
        ROLE,
        chunk({"reasoning_text": "Hm"}),
        chunk({"reasoning_opaque": "op1"}),
        TEXT,
        STOP,
        DONE,
        hashes=[state_hash("opaque", "op1")],
        **WELL,
    ),
    case(
        "reasoning in pieces, of two choices",
        CHAT,
        chunk({"reasoning_opaque": "a1"}, {"reasoning_opaque": "b1"}),
        chunk({"reasoning_opaque": "a2"}, {"reasoning_opaque": "b2"}),
        chunk({"reasoning_opaque": "a3"}, {}, finish="tool_calls"),
        DONE,
        hashes=[state_hash("opaque", value) for value in ("a1", "b1", "a2", "b2", "a3", "a1a2a3", "b1b2")],
        **WELL,
    ),
    case("one of two choices has ended", CHAT, TEXT, SECOND, STOP, opened=True, output=True),
    case("each of two choices has ended", CHAT, TEXT, SECOND, STOP, SECOND_STOP, opened=True, output=True, complete=True),
    case("the second choice begins late", CHAT, TEXT, STOP, SECOND, opened=True, output=True),
    case("[DONE] before the second choice's end", CHAT, TEXT, SECOND, STOP, DONE, opened=True, output=True, final=True),
    case("usage before [DONE]", CHAT, TEXT, STOP, USAGE, **WELL),
    case("error first", CHAT, FILTER, CHAT_ERROR, error=SLOW_DOWN, **FAILED),
    case("error first, then [DONE]", CHAT, ROLE, CHAT_ERROR, DONE, error=SLOW_DOWN, final=True, **FAILED),
    case("error after output", CHAT, ROLE, TEXT, CHAT_ERROR, output=True, error=SLOW_DOWN, **FAILED),
    case("output after an error", CHAT, CHAT_ERROR, TEXT, error=SLOW_DOWN, **FAILED),
    case("the first of two errors", CHAT, CHAT_ERROR, data({"error": "busy"}), error=SLOW_DOWN, **FAILED),
    case("quota", CHAT, TEXT, STOP, data({"choices": [], "copilot_quota_snapshots": QUOTA}), DONE, quota=QUOTA, **WELL),
    case("the last quota", CHAT, chunk({}, copilot_quota_snapshots={"chat": {}}), chunk({}, copilot_quota_snapshots=QUOTA), chunk({}, copilot_quota_snapshots=None), quota=QUOTA),
    case("malformed", CHAT, ROLE, b'data: {"choices":[{"delta"\n\n', opened=True),
    case("malformed, then an error", CHAT, b"data: {]\n\n", CHAT_ERROR, error=SLOW_DOWN, **FAILED),
    case("malformed after output", CHAT, TEXT, b'data: {"error"\n\n', STOP, DONE, **WELL),
    # --- the lines, whatever the form
    case("CRLF", CHAT, (ROLE + TEXT + STOP + DONE).replace(b"\n", b"\r\n"), **WELL),
    case("CR", CHAT, (ROLE + TEXT + STOP + DONE).replace(b"\n", b"\r"), **WELL),
    case("CRLF in two", CHAT, b"data: [DONE]\r", b"\n", b"\r", b"\n", opened=True, complete=True, final=True),
    case("CRLF in two, in an event", CHAT, b"event: error\r", b'\ndata: {"message":"x"}\r\n\r\n', error=StreamError(None, "x"), **FAILED),
    case("CR in two", CHAT, b"data: [DONE]\r", b"\rdata", opened=True, complete=True, final=True),
    case("byte order mark", CHAT, b"\xef\xbb\xbf" + CHAT_ERROR, error=SLOW_DOWN, **FAILED),
    case("empty lines first", CHAT, b"\n\n\n" + CHAT_ERROR, error=SLOW_DOWN, **FAILED),
    case("many empty lines", CHAT, ROLE + b"\n\n\n" + TEXT + b"\n" + STOP, DONE, **WELL),
    case("no blank after the colon", CHAT, b"data:[DONE]\n\n", opened=True, complete=True, final=True),
    # --- responses
    case("nothing", RESPONSES),
    case("announcements", RESPONSES, QUEUED, CREATED, RUNNING, b": ping\n\n", hashes=[ID]),
    case(
        "normal",
        RESPONSES,
        CREATED,
        RUNNING,
        item("added", id="m1", type="message", content=[]),
        DELTA,
        item("done", id="m2", type="message", content=[{"type": "output_text", "text": "Hello"}]),
        response("completed", id="resp_2", output=[{"id": "m3", "type": "message"}, "x"], copilot_quota_snapshots=QUOTA),
        hashes=[ID, *(state_hash("id", value) for value in ("m1", "m2", "resp_2", "m3"))],
        quota=QUOTA,
        **WELL,
    ),
    case(
        "reasoning and a tool call",
        RESPONSES,
        CREATED,
        item("added", id="rs1", type="reasoning", summary=[]),
        item("done", id="rs2", type="reasoning", encrypted_content="gAAA", summary=[]),
        item("added", id="fc1", type="function_call", call_id="c", name="sh", arguments=""),
        named({"type": "response.function_call_arguments.delta", "delta": "{}"}),
        COMPLETED,
        hashes=[ID, state_hash("id", "rs1"), state_hash("id", "rs2"), state_hash("sealed", "gAAA"), state_hash("id", "fc1")],
        **WELL,
    ),
    case("begun", RESPONSES, CREATED, DELTA, hashes=[ID], opened=True, output=True),
    case("cut", RESPONSES, CREATED, DELTA, COMPLETED[:-30], hashes=[ID], opened=True, output=True),
    case("incomplete", RESPONSES, CREATED, DELTA, response("incomplete"), hashes=[ID], **WELL),
    case("cancelled", RESPONSES, CREATED, response("cancelled"), hashes=[ID], opened=True, complete=True, final=True),
    case("only an end", RESPONSES, COMPLETED, hashes=[ID], opened=True, complete=True, final=True),
    case("error first", RESPONSES, CREATED, FLAT_ERROR, hashes=[ID], error=SLOW_DOWN, **FAILED),
    case("failed first", RESPONSES, CREATED, response("failed", error={"code": "rate_limited", "message": "Slow down"}), hashes=[ID], error=SLOW_DOWN, final=True, **FAILED),
    case("error after output", RESPONSES, CREATED, DELTA, FLAT_ERROR, hashes=[ID], output=True, error=SLOW_DOWN, **FAILED),
    case("malformed", RESPONSES, CREATED, b"event: error\ndata: oh\n\n", hashes=[ID], opened=True),
    case("quota beside an error", RESPONSES, named({"type": "error", "error": {"code": "rate_limited", "message": "Slow down"}, "copilot_quota_snapshots": QUOTA}), error=SLOW_DOWN, quota=QUOTA, **FAILED),
    case("a text about all this", RESPONSES, DELTA, DELTA.replace(b"Hello", b'\\"error\\" response.completed event: error'), opened=True, output=True),
    # --- messages
    case("nothing", MESSAGES),
    case("normal", MESSAGES, START, PING, TEXT_BLOCK, TEXT_DELTA, BLOCK_STOP, END_TURN, MESSAGE_STOP, **WELL),
    case("announcements", MESSAGES, START, PING, b":\n\n", PING),
    case("ping only", MESSAGES, PING),
    case("begun", MESSAGES, START, TEXT_BLOCK, opened=True, output=True),
    case("cut", MESSAGES, START, TEXT_BLOCK, TEXT_DELTA, END_TURN[:-1], opened=True, output=True),
    case("no message_stop", MESSAGES, START, TEXT_DELTA, END_TURN, opened=True, output=True, complete=True),
    case("nothing but an end", MESSAGES, START, END_TURN, MESSAGE_STOP, opened=True, complete=True, final=True),
    case(
        "tool call",
        MESSAGES,
        START,
        block("start", content_block={"type": "tool_use", "id": "t1", "name": "sh", "input": {}}),
        block("delta", delta={"type": "input_json_delta", "partial_json": "{}"}),
        BLOCK_STOP,
        END_TURN,
        MESSAGE_STOP,
        **WELL,
    ),
    case(
        "thinking, its signature in pieces",
        MESSAGES,
        START,
        block("start", 0, **thinks(signature="")),
        block("delta", 0, delta={"type": "thinking_delta", "thinking": "Hm"}),
        block("delta", 0, **signature("s1")),
        block("delta", 0, **signature("s2")),
        block("stop", 0),
        block("start", 1, **thinks(signature="s3")),
        block("delta", 1, **signature("s4")),
        block("delta", 1, **signature("")),
        END_TURN,
        MESSAGE_STOP,
        hashes=[state_hash("signature", value) for value in ("s1", "s2", "s1s2", "s3", "s4", "s3s4")],
        **WELL,
    ),
    case("error first", MESSAGES, START, PING, OVERLOADED, error=StreamError("overloaded_error", "Overloaded"), **FAILED),
    case("error after output", MESSAGES, START, TEXT_BLOCK, OVERLOADED, output=True, error=StreamError("overloaded_error", "Overloaded"), **FAILED),
    case("malformed", MESSAGES, START, b"event: message_delta\ndata: {\n\n", opened=True),
    case("[DONE] is none of its words", MESSAGES, DONE, opened=True),
    case("quota", MESSAGES, TEXT_DELTA, named({"type": "message_stop", "copilot_quota_snapshots": QUOTA}), quota=QUOTA, **WELL),
    # --- no event stream
    case("a JSON document", CHAT, b'{"choices":[]}', opened=True, readable=False),
    case("a page", RESPONSES, b"<!doctype html>\n\n", DELTA, opened=True, readable=False),
    case("compressed", MESSAGES, gzip.compress(START), opened=True, readable=False),
]  # fmt: skip


@pytest.mark.parametrize(("api", "pieces", "expected"), STREAMS)
def test_what_a_stream_says(api, pieces, expected):
    """A reader says of an answer what its clients would see, whether it comes event by event, whole or byte by byte."""
    whole = b"".join(pieces)

    assert expected == read(api, *pieces)
    assert expected == read(api, whole)
    assert expected == read(api, *(bytes([byte]) for byte in whole[:5000]), whole[5000:])


# --- chunks do not matter, nothing raises -----------------------------------------------------------------------------

WORDS = ['"error"', "finish_reason", "[DONE]", "response.completed", "message_stop", "event: error", "\n", "\\", '"']
TEXTS = strategies.lists(strategies.sampled_from(["Hello", "", "x" * 90, "y" * 500, *WORDS]), max_size=4).map("".join)
NOISE = [
    b": c\n\n",
    b"\n",
    b"\r",
    b"\r\n",
    b"data: ",
    b"data\n",
    b"data: {]\n\n",
    b"event: error\n",
    b"id: 1\n",
    b"\xff",
    b"{",
]


def with_text(api, text):
    if api is CHAT:
        return chunk({"content": text})
    if api is RESPONSES:
        return named({"type": "response.output_text.delta", "delta": text})
    return block("delta", delta={"type": "text_delta", "text": text})


@strategies.composite
def streams(draw, noise=True):
    api = draw(strategies.sampled_from(list(Api)))
    events = [strategies.sampled_from(EVENTS[api]), TEXTS.map(lambda text: with_text(api, text))]
    if noise:
        events += [strategies.sampled_from(NOISE), strategies.binary(max_size=8)]
    stream = b"".join(draw(strategies.lists(strategies.one_of(events), max_size=10)))
    return api, stream.replace(b"\n", b"\r\n") if draw(strategies.booleans()) else stream


def in_chunks(draw, stream):
    cuts = sorted({0, len(stream), *draw(strategies.lists(strategies.integers(0, len(stream)), max_size=12))})
    return [stream[start:end] for start, end in pairwise(cuts)]


@pytest.fixture
def small(monkeypatch):
    """Limits so small that a test can reach them."""
    monkeypatch.setattr(response_reader, "KEPT", 150)
    monkeypatch.setattr(response_reader, "LONGEST", 400)


@given(strategies.data(), streams())
@settings(max_examples=EXAMPLES, deadline=None)
def test_chunks_do_not_matter(data, stream):
    """However the bytes of an answer are cut, the reader says the same."""
    api, whole = stream

    assert read(api, whole) == read(api, *in_chunks(data.draw, whole))


def test_chunks_do_not_matter_at_the_limits(small):
    """However the bytes of a long event are cut, it is skipped, read or given up on as if it had come whole."""

    @given(strategies.data(), streams())
    @settings(max_examples=EXAMPLES, deadline=None)
    def holds(data, stream):
        api, whole = stream
        assert read(api, whole) == read(api, *in_chunks(data.draw, whole))
        assert read(api, whole) == read(api, *(bytes([byte]) for byte in whole))

    holds()


@pytest.mark.parametrize("begun", [b"", DELTA], ids=["at the head", "after output"])
def test_an_end_is_never_missed_unnoticed(small, begun):
    """Wherever in a long event its type stands, the answer is complete or nobody may say that it is not."""
    for length in range(50, 450, 3):
        stream = begun + data({"x": "x" * length, "type": "response.completed"})
        found = read(RESPONSES, stream)

        assert found.complete or not found.readable
        assert found == read(RESPONSES, *(bytes([byte]) for byte in stream))
        assert found == read(RESPONSES, stream[:-1], stream[-1:])


@pytest.mark.parametrize("begun", [b"", TEXT], ids=["at the head", "after output"])
def test_what_is_too_long_is_so_in_any_pieces(small, begun):
    """An event of a chat is too long from the same byte on, however it comes."""
    for length in range(350, 400):
        stream = data({"choices": [{"delta": {"content": "x" * length}}]})
        found = read(CHAT, begun, stream)

        assert found.readable == (len(stream) - 2 <= 400)
        assert found == read(CHAT, begun, *(bytes([byte]) for byte in stream))
        assert found == read(CHAT, begun, stream[:-1], stream[-1:])


def test_each_long_event_is_judged_alone(small):
    """An event that was worth keeping does not make the next one so."""
    kept = item("done", id="i", content=[{"text": "x" * 100}])
    skipped = named({"type": "response.new_thing", "x": "x" * 500})

    assert State(opened=True, output=True, hashes=[state_hash("id", "i")]) == read(
        RESPONSES, kept[:200], kept[200:], *pieces_of(skipped, 100)
    )


def test_haste_loses_nothing(monkeypatch):
    """What is not parsed for the sake of speed would have said nothing."""

    @given(streams(noise=False))
    @settings(max_examples=EXAMPLES, deadline=None)
    def holds(stream):
        hasty = read(*stream)
        with monkeypatch.context() as patch:
            patch.setattr(response_reader, "tells", lambda _api, _data: True)
            assert hasty == read(*stream)

    holds()


@given(strategies.sampled_from(list(Api)), strategies.lists(strategies.binary(max_size=60), max_size=6))
@settings(max_examples=EXAMPLES, deadline=None)
def test_nothing_raises(api, pieces):
    """No bytes make a reader raise, with or without a beginning that is right."""
    read(api, *pieces)
    read(api, b"data: ", *pieces, b"\n\n")


# --- what is long -----------------------------------------------------------------------------------------------------


def pieces_of(stream, size=65536):
    return [stream[start : start + size] for start in range(0, len(stream), size)]


LONG = "x" * (KEPT + 1000)
PICTURE = named({"type": "response.image_generation_call.partial_image", "partial_image_b64": LONG})


@pytest.mark.parametrize("cut", [lambda stream: [stream], pieces_of], ids=["whole", "in pieces"])
class TestLong:
    def test_a_long_event_of_no_interest_is_skipped(self, cut):
        """An event longer than a megabyte that says nothing is output; what follows it is read."""
        stream = PICTURE + COMPLETED + b": over\n\n"

        assert State(hashes=[ID], **WELL) == read(RESPONSES, *cut(stream))

    def test_a_long_event_of_interest_is_read(self, cut):
        """`response.completed` is read, though it carries the whole output."""
        whole = response("completed", output=[{"id": "m1", "content": [{"text": LONG}]}])

        assert State(hashes=[ID, state_hash("id", "m1")], **WELL) == read(RESPONSES, *cut(DELTA + whole))

    def test_a_long_chunk_of_a_chat_is_read(self, cut):
        """The end of a long chat chunk may hold its ``finish_reason``."""
        stream = chunk({"content": LONG}, finish="stop")

        assert State(opened=True, output=True, complete=True) == read(CHAT, *cut(stream))

    def test_a_long_event_that_may_have_said_something_is_given_up(self, cut):
        """When the word stands only behind the first megabyte nobody judges by what was read."""
        stream = data({"x": LONG, "type": "response.completed"})

        assert State(opened=True, output=True, readable=False) == read(RESPONSES, *cut(DELTA + stream + FLAT_ERROR))

    def test_an_event_that_is_too_long_is_given_up(self, cut):
        """An event of interest that is longer than eight megabytes makes the answer unreadable, and is not waited for."""
        stream = response("completed", output=[{"content": "x" * LONGEST}])

        assert State(hashes=[ID], opened=True, readable=False) == read(RESPONSES, *cut(CREATED + stream + FLAT_ERROR))


@pytest.mark.parametrize(
    ("api", "head", "limit"),
    [
        pytest.param(MESSAGES, b"data: {", 4 * KEPT, id="of no interest"),
        pytest.param(RESPONSES, b"event: response.completed\ndata: {", 4 * LONGEST, id="of interest"),
        pytest.param(CHAT, b"data: {", 4 * LONGEST, id="chat"),
    ],
)
def test_memory_is_bounded(api, head, limit):
    """An event that never ends takes no more memory than the longest that is kept."""
    reader, more = ResponseReader(api), b"x" * 65536
    tracemalloc.start()
    try:
        reader.feed(head)
        for _ in range(40 * KEPT // len(more)):
            reader.feed(more)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reader.opened
    assert limit > peak
    assert now < KEPT / 2


def test_marks_are_bounded():
    """A reader keeps no more hashes than that, and still sees the end."""
    many = [{"id": f"i{number}"} for number in range(MAX_HASHES + 10)]
    found = read(RESPONSES, response("completed", output=many))

    assert len(found.hashes) == MAX_HASHES
    assert state_hash("id", "i1") in found.hashes
    assert found.complete


def test_waiting_pieces_are_bounded(monkeypatch):
    """Pieces that do not fit are not joined, and a block that is over makes room again."""
    monkeypatch.setattr(response_reader, "PIECES", 200)
    signed = [block("delta", **signature("a")), block("delta", **signature("b")), BLOCK_STOP]
    long = [block("delta", **signature("c" * 150)), block("delta", **signature("d")), BLOCK_STOP]
    found = read(MESSAGES, *signed, *long, *signed, block("delta", **signature("e")), block("delta", **signature("f")), MESSAGE_STOP).hashes  # fmt: skip

    assert [state_hash("signature", value) for value in ("a", "b", "ab", "c" * 150, "d", "e", "f", "ef")] == found
