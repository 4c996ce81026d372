"""An answer as a person reads it: whole, cut, hostile; and which flows the view is picked for."""

import json
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import contentviews, http
from mitmproxy.contentviews import Metadata
from mitmproxy.test import taddons, tflow, tutils

from copilot_balancer import contentview
from copilot_balancer.contentview import CopilotContentview, arguments, clean, read, register, show, usage
from copilot_balancer.fake import chat as fake_chat
from copilot_balancer.fake import messages as fake_messages
from copilot_balancer.fake import responses as fake_responses
from copilot_balancer.fake.reply import Reply, ToolCall, as_sse

STREAM = "text/event-stream"


@pytest.fixture(autouse=True)
def mitmproxy_options():
    """mitmproxy asks its options for a view's metadata."""
    with taddons.context():
        yield


REPLY = Reply("1", "gpt-4.1", ("Hello ", "there, ", "friend."), created=0, input_tokens=7, account="work")


def streamed(form, reply: Reply = REPLY) -> bytes:
    return b"".join(map(as_sse, form.stream(reply).whole))


def a_document(form, reply: Reply = REPLY) -> bytes:
    return json.dumps(form.document(reply)).encode()


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chat(**delta: object) -> dict[str, object]:
    return {"model": "gpt-4.1", "choices": [{"index": 0, "delta": delta}]}


def response(kind: str, **more: object) -> dict[str, object]:
    return {"type": f"response.{kind}", **more}


def page(data: bytes, *, kind: str = STREAM, **more: object) -> str:
    return show(data, Metadata(content_type=kind, **more))


def a_flow(path="/chat/completions", host="api.githubcopilot.com", kind=STREAM, status=200, told=(), content=b""):
    headers = http.Headers(content_type=kind)
    request = tutils.treq(method=b"POST", host=host, port=443, scheme=b"https", path=path.encode())
    found = tflow.tflow(req=request, resp=tutils.tresp(status_code=status, headers=headers, content=content))
    found.metadata.update(told)
    return found


def of(flow: http.HTTPFlow) -> Metadata:
    return Metadata(flow=flow, http_message=flow.response, content_type=flow.response.headers["content-type"])


# --- the three forms


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(streamed(fake_chat), STREAM, id="chat stream"),
        pytest.param(streamed(fake_responses), STREAM, id="responses stream"),
        pytest.param(streamed(fake_messages), STREAM, id="messages stream"),
        pytest.param(streamed(fake_chat).replace(b"\n", b"\r\n"), STREAM, id="lines that end with CRLF"),
        pytest.param(streamed(fake_messages), None, id="stream of unknown type"),
        pytest.param(a_document(fake_chat), "application/json", id="chat document"),
        pytest.param(a_document(fake_responses), "application/json", id="responses document"),
        pytest.param(a_document(fake_messages), "application/json", id="messages document"),
    ],
)
def test_every_form_reads_the_same(data, kind):
    """Model, usage and text are shown, whatever API the answer was given in, streamed or not."""
    shown = page(data, kind=kind)

    assert "model: gpt-4.1\n" in shown
    assert "usage: 7 in, 3 out" in shown
    assert shown.endswith("text: |\n    Hello there, friend.\n")


CALL = '{"path": "a.py", "text": "one\\ntwo\\n", "lines": [1, 2]}'
CALLING = replace(
    REPLY, pieces=("Yes.",), thoughts=("I ", "think."), calls=(ToolCall("read", CALL), ToolCall("stop", '{"a": 1}'))
)


@pytest.mark.parametrize("form", [fake_chat, fake_responses, fake_messages], ids=["chat", "responses", "messages"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_reasoning_text_and_tool_calls(form, stream):
    """What was thought, said and called stands in its order, with nothing else; a call's arguments are readable."""
    shown = page(streamed(form, CALLING)) if stream else page(a_document(form, CALLING), kind="application/json")
    head, _, parts = shown.partition(" \n")

    assert [line.partition(":")[0] for line in head.splitlines()] == ["model", "finish", "usage"]
    assert re.sub(r"\(.*\)", "(id)", parts) == (
        "reasoning: |\n    I think.\n \ntext: |\n    Yes.\n \n"
        'tool call read (id): |\n    path: "a.py"\n    text: |\n        one\n        two\n    lines: [1, 2]\n \n'
        "tool call stop (id): |\n    a: 1\n"
    )


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        pytest.param(chat(refusal="No."), "refusal: |\n    No.", id="chat refusal"),
        pytest.param(
            {"choices": [{"index": 1, "message": {"content": [{"type": "text", "text": "B"}]}}]},
            "text of choice 1: |\n    B",
            id="another choice, and content in pieces",
        ),
        pytest.param(
            response("output_item.done", item={"type": "reasoning", "encrypted_content": "xxx"}),
            "reasoning: |\n    (encrypted)",
            id="encrypted reasoning",
        ),
        pytest.param(
            response("output_item.done", item={"type": "compaction", "encrypted_content": "xxx"}),
            "item of type compaction: |\n    (encrypted)",
            id="encrypted item of another type",
        ),
        pytest.param(
            response("output_item.done", item={"type": "custom_tool_call", "name": "patch", "input": "+a\n-b"}),
            "tool call patch: |\n    +a\n    -b",
            id="a call whose input is text",
        ),
        pytest.param(
            response("completed", response={"output": [{"type": "message", "content": [{"text": "Hi"}]}]}),
            "text: |\n    Hi",
            id="an answer that is told at its end alone",
        ),
        pytest.param(
            {"type": "content_block_start", "content_block": {"type": "redacted_thinking", "data": "xxx"}},
            "reasoning: |\n    (encrypted)",
            id="redacted thinking",
        ),
        pytest.param(
            response("output_item.done", item={"type": "web_search_call", "status": "completed"}),
            'item of type web_search_call: |\n    type: "web_search_call"\n    status: "completed"',
            id="responses item of another type",
        ),
        pytest.param(
            {"type": "content_block_start", "content_block": {"type": "web_search_tool_result", "content": []}},
            'item of type web_search_tool_result: |\n    type: "web_search_tool_result"\n    content: []',
            id="messages block of another type",
        ),
        pytest.param(
            response("incomplete", response={"status": "incomplete", "incomplete_details": {"reason": "max_tokens"}}),
            "finish: incomplete (max_tokens)",
            id="why it is incomplete",
        ),
        pytest.param(
            chat(tool_calls=[{"function": {"arguments": "ls"}}]), "tool call: |\n    ls", id="call without a name"
        ),
        pytest.param(
            {"copilot_quota_snapshots": {"premium_interactions": {"percent_remaining": 61.5}}},
            "quota left: premium 61.5 %",
            id="quota",
        ),
    ],
)
def test_the_rarer_pieces(event, shown):
    """What stands beside text and tool calls is shown, too."""
    assert shown in page(sse(event))


def test_paragraphs_of_one_part():
    """The second summary of a reasoning begins a paragraph; an item told at its end counts more than its pieces."""
    pieces = [
        response("reasoning_summary_part.added", summary_index=0),
        response("reasoning_summary_text.delta", delta="One"),
        response("reasoning_summary_part.added", summary_index=1),
        response("reasoning_summary_text.delta", delta="Two"),
    ]
    assert "reasoning: |\n    One\n    \n    Two\n" in page(sse(*pieces))
    done = response("output_item.done", item={"type": "reasoning", "summary": [{"text": "Three"}, {"text": "Four"}]})
    assert "reasoning: |\n    Three\n    \n    Four\n" in page(sse(*pieces, done))
    nothing = response("output_item.done", item={"type": "reasoning", "summary": []})
    assert "reasoning: |\n    One\n    \n    Two\n" in page(sse(*pieces, nothing))


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        pytest.param({"error": {"code": "rate_limited", "message": "slow"}}, "error: rate_limited: slow", id="chat"),
        pytest.param(
            {"copilot_errors": [{"code": "filtered", "message": "no"}]}, "error: filtered: no", id="copilot_errors"
        ),
        pytest.param(
            {"type": "error", "code": "model_overloaded", "message": "busy"},
            "error: model_overloaded: busy",
            id="responses, flat",
        ),
        pytest.param(
            response("failed", response={"status": "failed", "error": {"code": "server_error", "message": "oh"}}),
            "finish: failed\nerror: server_error: oh",
            id="responses, failed",
        ),
        pytest.param(
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "error: overloaded_error: Overloaded",
            id="messages",
        ),
        pytest.param({"error": [1]}, 'error: {"error": [1]}', id="of a shape that nobody knows"),
    ],
)
def test_errors_inside_a_stream(event, shown):
    """An error after a 200 is told in one line, and is an end: nothing is called cut."""
    told = page(sse(event))

    assert f"{shown}\n" in told
    assert "cut here" not in told


def test_the_name_of_an_event_counts_when_its_data_says_none():
    """A stream whose data has no type is read by its event lines."""
    data = b'event: content_block_delta\ndata: {"index":0,"delta":{"text":"Hi"}}\n\n'

    assert "text: |\n    Hi" in page(data)


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


# --- who served it


def test_who_served_and_after_whom():
    """The page says the account, each refused attempt as it stands in the metadata, and a change of model."""
    told = {
        "copilot": "failed over",
        "copilot_attempts": 3,
        "copilot_account": "spare",
        "copilot_attempt_10": "last",
        "copilot_attempt_2": "personal 402 quota",
        "copilot_attempt_1": "work 429 limit (rests 30 s) slow down",
        "copilot_model": "gpt-4.1",
        "copilot_why": "first line\nserved by: forged",
        "other": "not ours",
    }
    shown = page(streamed(fake_chat), flow=a_flow(told=told))

    assert "served by: spare, after 2 refusals\nANOTHER MODEL, by your route: gpt-4.1\n" in shown
    assert (
        "attempt 1: work 429 limit (rests 30 s) slow down\nattempt 2: personal 402 quota\nattempt 10: last\n" in shown
    )
    assert "why: |\n    first line\n    served by: forged\n" in shown
    assert "not ours" not in shown


@pytest.mark.parametrize(
    ("told", "headers", "shown"),
    [
        pytest.param({}, {}, None, id="nothing is known"),
        pytest.param({"copilot": "served", "copilot_account": "work", "copilot_attempts": 1}, {}, "work", id="at once"),
        pytest.param({"copilot": "refused", "copilot_attempts": 1}, {}, "nobody, after 1 refusal", id="nobody"),
        pytest.param(
            {"copilot": "cut off", "copilot_account": "work", "copilot_attempts": 1}, {}, "work, cut off", id="cut off"
        ),
        pytest.param(
            {},
            {"x-copilot-account": "work", "x-copilot-attempts": "2", "x-copilot-model-changed-to": "m"},
            "work, after 1 refusal",
            id="from the headers alone",
        ),
        pytest.param({}, {"x-copilot-account": "work", "x-copilot-attempts": "-"}, "work", id="headers of nonsense"),
    ],
)
def test_served_by(told, headers, shown):
    """Account, refusals before, and how it ended when that is not plain."""
    flow = a_flow(told=told)
    flow.response.headers.update(headers)
    lines = show(b"", of(flow)).splitlines()

    assert [line for line in lines if line.startswith("served by")] == ([f"served by: {shown}"] if shown else [])
    assert ("ANOTHER MODEL, by your route: m" in lines) == ("x-copilot-model-changed-to" in headers)


@pytest.mark.parametrize(
    ("body", "kind", "shown"),
    [
        pytest.param(
            b'{"error":{"code":"rate_limited","message":"slow"}}',
            "application/json",
            'error: rate_limited: slow\n \nbody: |\n    error: {"code": "rate_limited", "message": "slow"}\n',
            id="json",
        ),
        pytest.param(b"quota exceeded\n", "text/plain", "body: |\n    quota exceeded\n", id="text"),
        pytest.param(b"", "text/plain", "body: (nothing)\n", id="nothing"),
        pytest.param(
            b"x" * 5000, "text/plain", f"body: |\n    {'x' * contentview.REFUSAL}\n", id="no more than its first 2 KB"
        ),
    ],
)
def test_a_refusal(body, kind, shown):
    """A refusal that the client got is shown with its code, and as it came."""
    flow = a_flow(kind=kind, status=429, content=body)

    assert show(body, of(flow)).endswith(shown)


# --- cut and long answers


@pytest.mark.parametrize("form", [fake_chat, fake_responses, fake_messages], ids=["chat", "responses", "messages"])
def test_a_cut_stream(form):
    """Wherever a stream is cut, what came is shown, that it was cut, and why; only a whole one is not called cut."""
    flow = a_flow()
    flow.error = tflow.terr("server closed connection")
    metadata = Metadata(flow=flow, content_type=STREAM)
    whole = form.stream(CALLING)
    data = b"".join(map(as_sse, (*whole.announced, *whole.output[:-1])))
    for end in range(0, len(data), 41):
        shown = show(data[:end], metadata)
        assert f"# ... cut here, {end:,} bytes: server closed connection\n" in shown
        assert "could not be read" not in shown
    assert "    Yes." in show(data, metadata)
    assert "cut here" not in show(streamed(form), metadata)
    assert "# ... cut here, 30 bytes: the rest was not kept" in page(streamed(form)[:30])


def test_what_is_no_cut():
    """The API's last word, a reason for the end, or an error: nothing of the answer is missing then."""
    for end in (b"data: [DONE]\n\n", sse({"choices": [{"finish_reason": "stop"}]}), sse({"type": "message_stop"})):
        assert "cut here" not in page(sse(chat(content="Hi")) + end)


WORD = sse(chat(content="word "))
LATE = response("output_item.done", output_index=1, item={"type": "message", "content": [{"text": "too late"}]})
END = sse(LATE) + sse({"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}) + b"data: [DONE]\n\n"


@pytest.fixture
def small(monkeypatch):
    """The limits, a hundredth of what they are."""
    for limit, value in {
        "READ_LIMIT": 20_000,
        "TAIL": 1000,
        "MAX_EVENTS": 200,
        "TAIL_EVENTS": 5,
        "SHOWN": 2000,
    }.items():
        monkeypatch.setattr(contentview, limit, value)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WORD * 190 + b"data: " + b" " * 99_000 + b"\n\n" + END, id="bytes"),
        pytest.param(b"data: {}\n\n" * 300 + END, id="events"),
        pytest.param(b"data: {}\n\n" * 300 + b"x" * 20_000 + b"\n\n" + END, id="both"),
    ],
)
def test_a_long_answer(small, data):
    """Of a very long answer the beginning is shown, and what its end says; no text from behind the gap."""
    shown = page(data)

    assert "finish: stop\nusage: 3 in\n" in shown
    assert "# ... only the beginning is shown: " in shown
    assert "cut here" not in shown
    assert "too late" not in shown


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(sse(chat(content="a b " * 4000)), STREAM, id="one long text"),
        pytest.param(sse(chat(content="\x1b" * 3000)), STREAM, id="escapes"),
        pytest.param(sse(chat(content=" " * 1000 + "a b " * 250)), STREAM, id="a deep indent"),
        pytest.param(b"[" * 30_000, "application/json", id="a document that is too long"),
        pytest.param(b"[" * 19_000, "application/json", id="a document of brackets"),
        pytest.param(b"data: " + b"[" * 19_000 + b"\n\n" + END, STREAM, id="an event of brackets"),
        pytest.param(b"\n" * 30_000, STREAM, id="nothing but lines"),
        pytest.param(
            sse({"choices": [{"index": number, "delta": {"content": "x"}} for number in range(300)]}),
            STREAM,
            id="many parts",
        ),
        pytest.param(sse({"error": "no"}) * 1000, STREAM, id="many errors"),
        pytest.param(
            sse(
                chat(
                    tool_calls=[{"function": {"arguments": '{"a": ' + "[" * 100 + "1," * 800 + "1" + "]" * 100 + "}"}}]
                )
            ),
            STREAM,
            id="arguments that grow when they are indented",
        ),
    ],
)
def test_bounded(small, data, kind):
    """However long or deep an answer is, the page has an end."""
    shown = page(data, kind=kind)

    assert len(shown) < 12_000
    assert shown.count("error:") <= contentview.MAX_ERRORS


def test_ten_megabytes():
    """With the limits as they are, an answer of 10 MB is a page of bounded length, in the time that 2 MB take."""
    data = WORD * (10_000_000 // len(WORD)) + END
    began = time.process_time()
    shown = page(data)

    assert time.process_time() - began < 30  # it takes 0.2 s, and some seconds where each line is traced
    assert "finish: stop\n" in shown
    assert len(shown) < 2 * contentview.SHOWN


def test_what_was_left_out_is_said(small):
    """Characters, parts and events that are not shown are counted."""
    long = sse(chat(content="a" * (contentview.SHOWN + 5)), *(chat(refusal="x"), chat(reasoning_text="y")))
    shown = page(long)
    assert "    ... 5 characters more\n" in shown
    assert "# ... 2 parts more\n" in shown

    broken = b"data: {oh\n\ndata: [1]\n\n" + WORD + b"data: {torn"
    assert "# ... 2 events could not be read; the first: {oh\n" in page(broken)


def test_a_document_that_is_none_of_ours():
    """Anything else is shown as it came, readable when it is JSON."""
    assert page(b'{"data": [{"id": "gpt"}]}', kind="application/json") == ' \nbody: |\n    data: [{"id": "gpt"}]\n'
    assert page(b"<html>", kind="text/html") == " \nbody: |\n    <html>\n"


# --- how it is written


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param("a\r\nb\n\n", "a\nb", id="lines stay"),
        pytest.param("\tx", "    x", id="tabs are spaces"),
        pytest.param("12\u202fkm\xa0", "12 km ", id="spaces are spaces"),
        pytest.param("\x1b[2J\x07\x00\x7f\x9b", "\\x1b[2J\\x07\\x00\\x7f\\x9b", id="nothing speaks to a terminal"),
        pytest.param("\u202eabc\u2066", "\\u202eabc\\u2066", id="nothing turns the text"),
        pytest.param("\ud800\u2028\x85\r", "\\ud800\\u2028\\x85\\r", id="no hidden line's end, no half character"),
        pytest.param("naïve → 漢字 👩\u200d💻", "naïve → 漢字 👩\u200d💻", id="letters and emoji stay"),
    ],
)
def test_clean(given, shown):
    """Text keeps its lines and its letters; everything that could do something is shown as its escape."""
    assert clean(given) == shown


def wrapped(text: str) -> list[str]:
    return [line[4:] for line in page(sse(chat(content=text))).split("text: |\n")[1].split("\n \n")[0].splitlines()]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("word " * 20, ["word " * 14 + "word"[:0], "word " * 6], id="between words"),
        pytest.param("  - " + "word " * 20, None, id="a list keeps its indent"),
        pytest.param("x" * 200, ["x" * 200], id="a long word stays whole"),
        pytest.param("x" * 200 + " y", ["x" * 200, "y"], id="behind a long word"),
        pytest.param("漢" * 100, ["漢" * 72, "漢" * 28], id="where there are no words"),
        pytest.param("```\n" + "code " * 30 + "\n```", ["```", "code " * 30, "```"], id="code stays"),
        pytest.param("a\n\nb", ["a", "", "b"], id="paragraphs"),
    ],
)
def test_prose_is_wrapped(text, lines):
    """Prose fits a small window, since mitmweb wraps no line; nothing of it is lost."""
    shown = wrapped(text)

    if lines is None:
        assert shown[0].startswith("  - word")
        assert all(line.startswith("  word") for line in shown[1:])
        assert all(len(line) <= contentview.WIDTH for line in shown)
    else:
        assert [line.rstrip() for line in shown] == [line.rstrip() for line in lines]


@given(st.text(st.characters(categories=["L", "Zs", "N", "P"]), max_size=400))
def test_wrapping_loses_nothing(text):
    """However a line is broken, its characters stand there in their order."""
    shown = "".join(contentview._wrapped(text, indent=2))

    assert shown.replace(" ", "") == text.replace(" ", "")


GROWING = json.dumps({"list": [1] * 40, "b": "x" * 100, "c": "x" * 100, "d": 1})
"""A list of 120 characters that takes more than twice as many on lines of its own."""


@pytest.mark.parametrize(
    ("given", "limit", "shown"),
    [
        pytest.param('{"a": 1, "b": "x"}', 100, 'a: 1\nb: "x"', id="an argument a line"),
        pytest.param("ls -l", 100, "ls -l", id="no JSON"),
        pytest.param("[1, 2]", 100, "[1, 2]", id="no object"),
        pytest.param("{}", 100, "{}", id="no arguments"),
        pytest.param('{"a": {"b": [1, "' + "x" * 80 + '"]}}', 999, None, id="a long value on lines"),
        pytest.param('{"a": 1, "b": 2, "c": 3}', 24, "a: 1\nb: 2\nc: 3", id="just fits"),
        pytest.param('{"a": "1\\n\\n\\n\\n\\n\\n", "b": 2}', 31, "a: |\n    1\nb: 2", id="lines"),
        pytest.param(GROWING, len(GROWING), None, id="more than fits"),
        pytest.param('{"a": 1}', 3, '{"a": 1}', id="too long to be looked at"),
    ],
)
def test_arguments(given, limit, shown):
    """Each argument on a line of its own, a text of several lines as such; long ones as indented JSON."""
    told = arguments(given, limit)

    assert told == shown if shown else told.count("\n") > 3
    assert told.endswith("...") == (given == GROWING)


def test_deep_arguments():
    """A nest that is too deep to be indented, or to be written again, is shown flat or not at all."""
    deep = '{"a": ' + "[" * 3000 + "]" * 3000 + "}"
    assert arguments(deep, 10**9).count("\n") == arguments(deep, 10_000).count("\n") == 0
    nest: list[object] = []
    for _ in range(100_000):
        nest = [nest]
    assert contentview._dumped(nest) == "(too deep to be shown)"


# --- never raises


def jsonish() -> st.SearchStrategy[object]:
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys(), inner, max_size=4))


def keys() -> st.SearchStrategy[str]:
    names = (
        "type object error code message choices delta content tool_calls function name arguments index usage model "
        "response output item output_index status summary text content_block partial_json thinking copilot_errors "
        "copilot_quota_snapshots premium_interactions percent_remaining finish_reason stop_reason input id "
        "incomplete_details reason prompt_tokens input_tokens_details cached_tokens total_nano_aiu"
    )
    return st.sampled_from(names.split()) | st.text(max_size=3)


def kinds() -> st.SearchStrategy[str]:
    names = (
        "response.completed response.failed response.output_item.done response.output_item.added message_start message "
        "response.output_text.delta response.content_part.added message_delta content_block_start content_block_delta "
        "response.function_call_arguments.delta message_stop error"
    )
    return st.sampled_from(names.split())


@settings(max_examples=30)
@given(st.lists(st.tuples(kinds(), st.dictionaries(keys(), jsonish(), max_size=6)), max_size=5), st.booleans())
def test_no_event_breaks_it(events, document):
    """Whatever an event holds, where a text or a list was expected, there is a page of printable lines."""
    told = [{**more, "type": kind} for kind, more in events]
    data = json.dumps(told[0] if told else None).encode() if document else sse(*told)
    shown = page(data, kind="application/json" if document else STREAM)

    assert all(line.isprintable() for line in shown.replace("\u200c", "").replace("\u200d", "").split("\n"))


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_it(data, stream):
    """Bytes that are no answer at all are shown, too."""
    shown = page(data, kind=STREAM if stream else "application/json")

    assert all(line.isprintable() for line in shown.replace("\u200c", "").replace("\u200d", "").split("\n"))


@given(st.text(max_size=100), kinds())
def test_no_answer_forges_a_heading(text, kind):
    """What an answer says stands indented, or behind a heading of ours."""
    events = [
        {"type": kind, "model": text, "delta": text, "content_block": {"type": text, "text": text}},
        {"type": kind, "item": {"type": text, "name": text}, "index": 1, "output_index": 1},
        chat(content=f"{text}\nserved by: forged"),
        chat(tool_calls=[{"function": {"name": text, "arguments": text}}]),
        {"copilot_errors": [{"message": f"{text}\nserved by: forged"}]},
    ]
    headings = ("model: ", "finish: ", "error: ", "text: |", "tool call", "item of type ", "reasoning: |", "# ...", " ")
    shown = page(b"data: served by\n\n" + sse(*events))

    assert [line for line in shown.split("\n") if line and not line.startswith(headings)] == []


# --- what mitmproxy sees

VIEW = CopilotContentview()


@pytest.mark.parametrize(
    ("flow", "ours"),
    [
        pytest.param(a_flow(), True, id="chat stream"),
        pytest.param(a_flow("/v1/messages?beta=true"), True, id="messages stream"),
        pytest.param(a_flow(host="copilot-api.acme.ghe.com"), True, id="enterprise"),
        pytest.param(a_flow(host="API.githubcopilot.com."), True, id="another spelling"),
        pytest.param(a_flow("/responses", kind="application/json"), True, id="document"),
        pytest.param(a_flow(host="copilot.example", told={"copilot": "served"}), True, id="a host that was set"),
        pytest.param(a_flow("/models", told={"copilot_attempt_1": "work 429"}), True, id="refused elsewhere"),
        pytest.param(a_flow("/models"), False, id="another path"),
        pytest.param(a_flow(host="api.openai.com"), False, id="another host"),
        pytest.param(a_flow(host="copilot-api.ghe.com.evil.example"), False, id="nearly a host"),
        pytest.param(a_flow(kind="text/html"), False, id="another type"),
    ],
)
def test_picked_by_itself(flow, ours):
    """The view is picked for answers of the Copilot API and for what was refused, and for nothing else."""
    register()
    picked = contentviews.prettify_message(flow.response, flow).view_name

    assert (VIEW.render_priority(b"", of(flow)) > 1) == ours
    assert (picked == "Copilot") == ours


def test_not_picked_for_anything_else():
    """Requests, flows without an answer, other protocols and data without a flow are left to mitmproxy's views."""
    flow = a_flow()
    request = Metadata(flow=flow, http_message=flow.request, content_type=STREAM)
    waiting = tflow.tflow(resp=False)
    for metadata in (
        request,
        Metadata(flow=waiting, http_message=waiting.request, content_type=STREAM),
        Metadata(flow=tflow.ttcpflow(), content_type=STREAM),
        Metadata(content_type=STREAM),
        Metadata(),
    ):
        assert VIEW.render_priority(b"data: {}", metadata) < 0


def test_shown_by_mitmproxy():
    """Through mitmproxy: the page under the view's name, and the flow as it was before."""
    register()
    flow = a_flow(content=streamed(fake_chat))
    before = flow.get_state()
    shown = contentviews.prettify_message(flow.response, flow)

    assert (shown.view_name, shown.syntax_highlight) == ("Copilot", "yaml")
    assert "    Hello there, friend." in shown.text
    assert flow.get_state() == before
    tcp = tflow.ttcpflow()
    assert "hello" in contentviews.prettify_message(tcp.messages[0], tcp, "copilot").text


def test_registered_once():
    """A script that runs again when it is saved does not add the view again."""
    seen: list[object] = []

    def listener(view: object) -> None:
        seen.append(view)

    contentviews.registry._by_name.pop("copilot", None)
    contentviews.registry.on_change.connect(listener)
    register()
    register()

    assert [view.name for view in seen] == ["Copilot"]


def test_reading_alone():
    """Without a page: what was read of an answer is a value."""
    answer = read(streamed(fake_chat), stream=True)

    assert (answer.model, answer.finish, answer.whole, answer.unread) == ("gpt-4.1", "stop", True, 0)
    assert [(part.title, part.text) for part in answer.parts.values()] == [("text", "Hello there, friend.")]
