"""An answer, read: its parts in each of the three forms, its end, its errors and its cost; whole, cut, or very long."""

import json

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.fake.reply import as_sse
from copilot_balancer.proxy.inspect import transcript
from copilot_balancer.proxy.inspect.transcript import read, usage
from support.answers import CALL, CALLING, FORMS, a_document, any_json, any_key, any_kind, chat, response, sse, streamed


def told(*events):
    """What the events of a stream say: title and text of each part."""
    return parts(read(sse(*events), stream=True))


def parts(answer):
    return [(part.title, part.text) for part in answer.parts.values()]


# --- the three forms


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "answered",
    [
        pytest.param(lambda form: read(streamed(form), stream=True), id="stream"),
        pytest.param(
            lambda form: read(streamed(form).replace(b"\n", b"\r\n"), stream=True), id="lines that end with CRLF"
        ),
        pytest.param(lambda form: read(a_document(form), stream=False), id="document"),
    ],
)
def test_every_form_reads_the_same(form, answered):
    """Model, usage, end and text are read, whatever API the answer was given in, streamed or not."""
    answer = answered(form)

    assert (answer.model, answer.whole, answer.unread) == ("gpt-4.1", True, 0)
    assert usage(answer.usage).startswith("7 in, 3 out")
    assert parts(answer) == [("text", "Hello there, friend.")]
    assert [part.prose for part in answer.parts.values()] == [True]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_reasoning_text_and_tool_calls(form, stream):
    """What was thought, said and called stands in its order, with nothing else."""
    answer = read(streamed(form, CALLING) if stream else a_document(form, CALLING), stream=stream)
    found = [(title.partition(" (")[0], text) for title, text in parts(answer)]

    assert found[:2] == [("reasoning", "I think."), ("text", "Yes.")]
    assert [title for title, _ in found[2:]] == ["tool call read", "tool call stop"]
    assert [json.loads(text) for _, text in found[2:]] == [json.loads(CALL), {"a": 1}]
    assert [part.prose for part in answer.parts.values()] == [True, True, False, False]


@pytest.mark.parametrize(
    ("event", "part"),
    [
        pytest.param(chat(refusal="No."), ("refusal", "No."), id="chat refusal"),
        pytest.param(
            {"choices": [{"index": 1, "message": {"content": [{"type": "text", "text": "B"}]}}]},
            ("text of choice 1", "B"),
            id="another choice, and content in pieces",
        ),
        pytest.param(
            chat(tool_calls=[{"function": {"arguments": "ls"}}]), ("tool call", "ls"), id="call without a name"
        ),
        pytest.param(
            response("output_item.done", item={"type": "reasoning", "encrypted_content": "xxx"}),
            ("reasoning", "(encrypted)"),
            id="encrypted reasoning",
        ),
        pytest.param(
            response("output_item.done", item={"type": "compaction", "encrypted_content": "xxx"}),
            ("item of type compaction", "(encrypted)"),
            id="encrypted item of another type",
        ),
        pytest.param(
            response("output_item.done", item={"type": "custom_tool_call", "name": "patch", "input": "+a\n-b"}),
            ("tool call patch", "+a\n-b"),
            id="a call whose input is text",
        ),
        pytest.param(
            response("completed", response={"output": [{"type": "message", "content": [{"text": "Hi"}]}]}),
            ("text", "Hi"),
            id="an answer that is told at its end alone",
        ),
        pytest.param(
            response("output_item.done", item={"type": "web_search_call", "status": "completed"}),
            ("item of type web_search_call", '{"type": "web_search_call", "status": "completed"}'),
            id="responses item of another type",
        ),
        pytest.param(
            {"type": "content_block_start", "content_block": {"type": "redacted_thinking", "data": "xxx"}},
            ("reasoning", "(encrypted)"),
            id="redacted thinking",
        ),
        pytest.param(
            {"type": "content_block_start", "content_block": {"type": "web_search_tool_result", "content": []}},
            ("item of type web_search_tool_result", '{"type": "web_search_tool_result", "content": []}'),
            id="messages block of another type",
        ),
    ],
)
def test_the_rarer_pieces(event, part):
    """What stands beside text and tool calls is read, too."""
    assert told(event) == [part]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"type": "ping"}, id="ping"),
        pytest.param(response("new_thing", x=1), id="responses event of another kind"),
        pytest.param(response("output_item.done", item={}), id="responses item without a type"),
        pytest.param({"type": "content_block_start", "content_block": {}}, id="messages block without a type"),
    ],
)
def test_what_says_nothing(event):
    """An event of no interest has no part and is no end."""
    answer = read(sse(event), stream=True)

    assert (parts(answer), answer.whole, answer.unread) == ([], False, 0)


def test_paragraphs_of_one_part():
    """The second summary of a reasoning begins a paragraph; an item told at its end counts more than its pieces."""
    pieces = [
        response("reasoning_summary_part.added", summary_index=0),
        response("reasoning_summary_text.delta", delta="One"),
        response("reasoning_summary_part.added", summary_index=1),
        response("reasoning_summary_text.delta", delta="Two"),
    ]
    done = response("output_item.done", item={"type": "reasoning", "summary": [{"text": "Three"}, {"text": "Four"}]})
    nothing = response("output_item.done", item={"type": "reasoning", "summary": []})
    over = response("completed", response={"output": [{"type": "message", "content": [{"text": "late"}]}]})

    assert told(*pieces) == told(*pieces, nothing) == told(*pieces, over) == [("reasoning", "One\n\nTwo")]
    assert told(*pieces, done) == [("reasoning", "Three\n\nFour")]


def test_the_name_of_an_event_counts_when_its_data_says_none():
    """A stream whose data has no type is read by its event lines."""
    data = b'event: content_block_delta\ndata: {"index":0,"delta":{"text":"Hi"}}\n\n'

    assert parts(read(data, stream=True)) == [("text", "Hi")]


# --- how it ended, and what it cost


@pytest.mark.parametrize(
    ("event", "error"),
    [
        pytest.param({"error": {"code": "rate_limited", "message": "slow"}}, "rate_limited: slow", id="chat"),
        pytest.param({"copilot_errors": [{"code": "filtered", "message": "no"}]}, "filtered: no", id="copilot_errors"),
        pytest.param(
            {"type": "error", "code": "model_overloaded", "message": "busy"},
            "model_overloaded: busy",
            id="responses, flat",
        ),
        pytest.param(
            response("failed", response={"status": "failed", "error": {"code": "server_error", "message": "oh"}}),
            "server_error: oh",
            id="responses, failed",
        ),
        pytest.param(
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded_error: Overloaded",
            id="messages",
        ),
        pytest.param({"error": [1]}, '{"error": [1]}', id="of a shape that nobody knows"),
    ],
)
def test_errors_inside_a_stream(event, error):
    """An error after a 200 is told in one line, and is an end; of many only some are kept."""
    answer = read(sse(event) * 30, stream=True)

    assert answer.whole
    assert answer.errors == [error] * transcript.MAX_ERRORS


@pytest.mark.parametrize(
    ("end", "finish"),
    [
        pytest.param(b"data: [DONE]\n\n", "", id="the last word of a chat"),
        pytest.param(sse({"choices": [{"finish_reason": "stop"}]}), "stop", id="a reason of a chat"),
        pytest.param(sse({"type": "message_stop"}), "", id="the last word of messages"),
        pytest.param(sse({"type": "message_delta", "delta": {"stop_reason": "end"}}), "end", id="a reason of messages"),
        pytest.param(sse(response("completed", response={"status": "completed"})), "completed", id="responses"),
        pytest.param(
            sse(
                response(
                    "incomplete", response={"status": "incomplete", "incomplete_details": {"reason": "max_tokens"}}
                )
            ),
            "incomplete (max_tokens)",
            id="why it is incomplete",
        ),
    ],
)
def test_what_is_no_cut(end, finish):
    """The API's last word, or a reason for the end: nothing of the answer is missing then."""
    begun = sse(chat(content="Hi"), response("in_progress", response={"status": "in_progress"}))

    assert not read(begun, stream=True).whole
    assert read(begun + end, stream=True).whole
    assert read(begun + end, stream=True).finish == finish


def test_quota():
    """What is left of each window is told with the answer."""
    event = {"copilot_quota_snapshots": {"premium_interactions": {"percent_remaining": 61.5}}}

    assert read(sse(event), stream=True).quota == {"premium": 61.5}


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        pytest.param({"prompt_tokens": 1200, "completion_tokens": 3}, "1,200 in, 3 out", id="chat"),
        pytest.param(
            {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 5},
                "output_tokens": 4,
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            "9 in, 5 of them cached, 4 out, 2 of them reasoning",
            id="responses",
        ),
        pytest.param(
            {"input_tokens": 9, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 6, "output_tokens": 4},
            "9 in, 5 read from the cache, 6 written to the cache, 4 out",
            id="messages",
        ),
        pytest.param({"total_nano_aiu": 123_450_000}, "0.12345 AI units", id="what it cost"),
        pytest.param({"input_tokens": "many", "total_nano_aiu": 10**4000}, "", id="nonsense"),
    ],
)
def test_usage(told, shown):
    """How much was read and written, in the same words for each API."""
    assert usage(told) == shown


# --- cut and long answers


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_stream(form):
    """Wherever a stream is cut, what came is read, nothing is called broken, and it is not whole."""
    whole = form.stream(CALLING)
    data = b"".join(map(as_sse, (*whole.announced, *whole.output[:-1])))
    for end in range(0, len(data), 41):
        answer = read(data[:end], stream=True)
        assert (answer.whole, answer.unread, answer.silent) == (False, 0, False)
    assert ("text", "Yes.") in parts(read(data, stream=True))


def test_broken_events():
    """Events that are no JSON objects are counted; the last one may be torn, and is none."""
    answer = read(b"data: {oh\n\ndata: [1]\n\n" + sse(chat(content="Hi")) + b"data: {torn", stream=True)

    assert (answer.unread, answer.first_unread) == (2, "{oh")
    assert parts(answer) == [("text", "Hi")]


@pytest.fixture
def small(monkeypatch):
    """The limits, a hundredth of what they are."""
    for limit, value in {"READ_LIMIT": 20_000, "TAIL": 1000, "MAX_EVENTS": 200, "TAIL_EVENTS": 6}.items():
        monkeypatch.setattr(transcript, limit, value)


WORD = sse(chat(content="word "))
LATE = [
    response("output_item.done", output_index=1, item={"type": "message", "content": [{"text": "too late"}]}),
    chat(content="too late"),
    response("output_item.done", output_index=2, item={"type": "function_call", "name": "late"}),
]
END = sse(*LATE, {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WORD * 190 + b"data: " + b" " * 99_000 + b"\n\n" + END, id="bytes"),
        pytest.param(b"data: {}\n\n" * 300 + END, id="events"),
        pytest.param(b"data: {}\n\n" * 300 + b"x" * 20_000 + b"\n\n" + END, id="both"),
    ],
)
def test_a_long_answer(small, data):
    """Of a very long answer the beginning is read, and what its end says; no text from behind the gap."""
    answer = read(data, stream=True)

    assert (answer.finish, answer.usage, answer.done, answer.silent) == ("stop", {"prompt_tokens": 3}, True, True)
    assert "late" not in str(parts(answer))


def test_a_document_that_is_too_long(small):
    """A document that is longer than what is read says nothing: a part of it is no JSON."""
    assert read(json.dumps({"model": "x", "a": " " * 20_000}).encode(), stream=False).model == ""


# --- never raises


@settings(max_examples=30)
@given(
    strategies.lists(
        strategies.tuples(any_kind(), strategies.dictionaries(any_key(), any_json(), max_size=6)), max_size=5
    )
)
def test_no_event_breaks_it(events):
    """Whatever an event holds, where a text or a list was expected, it is read, streamed or not."""
    known = [{**more, "type": kind} for kind, more in events]

    read(sse(*known), stream=True)
    for one in known:
        usage(read(json.dumps(one).encode(), stream=False).usage)


@given(strategies.binary(max_size=300), strategies.booleans())
def test_no_bytes_break_it(data, stream):
    """Bytes that are no answer at all say nothing."""
    assert parts(read(data, stream=stream)) == []
