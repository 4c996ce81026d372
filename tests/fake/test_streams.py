"""The fake's answers in full: reasoning, tool calls, quota; and streams that go wrong, in the form of each API."""

import asyncio
import json
import time

import httpx
import pytest
from wsproto.events import CloseConnection

from copilot_balancer.fake.answers import (
    AnnounceOnly,
    CutMid,
    Drop,
    EmptyStream,
    FakeAccount,
    Huge,
    Malformed,
    NoTerminator,
    Ok,
    Refuse,
    Silent,
    SlowFirst,
    StreamError,
    Unstreamed,
)
from copilot_balancer.fake.bodies import CHAT, MESSAGES, RESPONSES, Quota
from copilot_balancer.fake.reply import ToolCall, owner_of
from copilot_balancer.fake.server import running
from fake.test_ownership import Conversation
from fake.test_server import ANSWER, API, MODELS, THREE_APIS, WORK, Client, Socket, events, raw, until

TOOLS = (ToolCall("read_file", '{"path": "a.txt"}'), ToolCall("stop"))
FULL = Ok("I look.", reasoning="Let me see.", tool_calls=TOOLS)
LAST = {CHAT: "[DONE]", RESPONSES: "response.completed", MESSAGES: "message_stop"}
ANNOUNCED = {
    CHAT: ["chat.completion.chunk"],
    RESPONSES: ["response.created", "response.in_progress"],
    MESSAGES: ["message_start", "ping"],
}


@pytest.fixture
def work():
    return FakeAccount("work", default=Ok(ANSWER))


@pytest.fixture
def fake(work):
    with running({WORK: work}) as fake:
        yield fake


@pytest.fixture
def client(fake):
    with Client(fake) as client:
        yield client


def name(event):
    """What an event is."""
    return event if isinstance(event, str) else event.get("type") or event.get("object") or next(iter(event))


def names(sent):
    return [name(event) for event in sent]


# --- reasoning and tool calls


def test_chat_reasons_and_calls_tools(client, work):
    """Chat: ``reasoning_text``, one ``reasoning_opaque``, text, each call's head and its arguments in pieces."""
    work.default = FULL
    turn = Conversation(CHAT).take(client.ask(CHAT).text).history[-1]
    sent = events(client.ask(CHAT))
    whole = client.ask(CHAT, stream=False).json()["choices"][0]

    assert (turn["content"], turn["reasoning_text"]) == ("I look.", "Let me see.")
    assert owner_of(turn["reasoning_opaque"]) == "work"
    assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in turn["tool_calls"]] == [
        ("read_file", {"path": "a.txt"}),
        ("stop", {}),
    ]
    assert len({call["id"] for call in turn["tool_calls"]}) == 2
    assert sent[-2]["choices"][0]["finish_reason"] == whole["finish_reason"] == "tool_calls"
    assert set(whole["message"]) == set(turn)
    assert whole["message"]["tool_calls"][0]["function"] == turn["tool_calls"][0]["function"]


def test_responses_reason_and_call_tools(client, work):
    """Responses: a reasoning item with its encrypted content, a message, function calls; added, grown, done."""
    work.default = FULL
    sent = events(client.ask(RESPONSES))
    output = sent[-1]["response"]["output"]
    done = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    added = [event["item"] for event in sent if event["type"] == "response.output_item.added"]
    arguments = [e["delta"] for e in sent if e["type"] == "response.function_call_arguments.delta"]
    summary = [e["delta"] for e in sent if e["type"] == "response.reasoning_summary_text.delta"]
    whole = client.ask(RESPONSES, stream=False).json()

    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert [item["type"] for item in whole["output"]] == [item["type"] for item in output]
    assert done == output
    assert not {item["id"] for item in added} & {item["id"] for item in done}
    assert output[0]["summary"][0]["text"] == "".join(summary) == "Let me see."
    assert owner_of(output[0]["encrypted_content"]) == "work"
    assert "".join(arguments) == TOOLS[0].arguments + TOOLS[1].arguments
    assert [added[2]["arguments"], output[2]["arguments"]] == ["", TOOLS[0].arguments]
    assert added[2]["call_id"] == output[2]["call_id"] != output[3]["call_id"]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))


def test_messages_reason_and_call_tools(client, work):
    """Messages: a thinking block with its signature, text, tools with their input in pieces; the reason is tool use."""
    work.default = FULL
    sent = events(client.ask(MESSAGES))
    blocks = Conversation(MESSAGES).take(client.ask(MESSAGES).text).history[-1]["content"]
    whole = client.ask(MESSAGES, stream=False).json()

    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert [set(block) for block in blocks] == [set(block) for block in whole["content"]]
    assert (blocks[0]["thinking"], owner_of(blocks[0]["signature"])) == ("Let me see.", "work")
    assert [block["input"] for block in blocks[2:]] == [{"path": "a.txt"}, {}]
    assert sent[-2]["delta"]["stop_reason"] == whole["stop_reason"] == "tool_use"
    assert [event["index"] for event in sent if event["type"] == "content_block_start"] == [0, 1, 2, 3]


@THREE_APIS
def test_without_text_only_the_call_is_said(client, work, path):
    """An empty text beside a tool call is no message of its own."""
    work.default = Ok("", tool_calls=TOOLS[:1])
    turns = Conversation(path).take(client.ask(path).text).history

    if path == CHAT:
        assert turns[0]["content"] == ""
    kinds = [item["type"] for item in (turns if path == RESPONSES else turns[0].get("content") or ())]
    assert kinds == {CHAT: [], RESPONSES: ["function_call"], MESSAGES: ["tool_use"]}[path]


def test_a_model_that_thinks_thinks_before_a_tool(client, work):
    """Where thinking is enabled a tool call comes after thinking, asked for by the script or not."""
    work.default = Ok("", tool_calls=TOOLS)
    enabled = client.ask(MESSAGES, stream=False, body={"thinking": {"type": "enabled"}}).json()["content"]
    plain = client.ask(MESSAGES, stream=False).json()["content"]

    assert [block["type"] for block in enabled] == ["thinking", "tool_use", "tool_use"]
    assert [block["type"] for block in plain] == ["tool_use", "tool_use"]


def test_redacted_thinking_and_compaction(client, work):
    """A script may let an answer begin with redacted thinking, or with a compaction item."""
    work.default = Ok(ANSWER, redacted=True, compaction=True)
    block = Conversation(MESSAGES).take(client.ask(MESSAGES).text).history[-1]["content"][0]
    item = Conversation(RESPONSES).take(client.ask(RESPONSES).text).history[0]

    assert (block["type"], owner_of(block["data"])) == ("redacted_thinking", "work")
    assert (item["type"], owner_of(item["encrypted_content"])) == ("compaction", "work")


def test_quota_stands_in_the_last_event(client, work):
    """``response.completed`` tells the account's quotas, when it has some."""
    without = events(client.ask(RESPONSES))[-1]
    work.quota = {"premium_interactions": Quota(68.1), "Weekly-Session-RateLimits": Quota(40.0)}
    told = events(client.ask(RESPONSES))[-1]["copilot_quota_snapshots"]

    assert "copilot_quota_snapshots" not in without
    assert told["premium_interactions"] == {
        "entitlement": "300",
        "percent_remaining": 68.1,
        "overage_permitted": False,
        "overage_count": 0,
        "reset_date": "2030-01-01T00:00:00Z",
    }
    assert told["Weekly-Session-RateLimits"]["percent_remaining"] == 40.0


# --- streams that go wrong

ERROR = StreamError("user_global_rate_limited:pro", "Rate limit exceeded")


def told_error(event):
    """Code and message of an error event."""
    error = event.get("error") or event.get("response", {}).get("error") or event
    return error.get("code") or error["type"], error["message"]


@THREE_APIS
def test_an_error_comes_as_the_first_event(client, work, path):
    """An error inside a 200 follows the announcements at once, in the words of the API."""
    work.default = ERROR
    response = client.ask(path)
    *before, error = events(response)

    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
    assert names(before) == ANNOUNCED[path]
    assert name(error) == "error"
    assert told_error(error) == ("user_global_rate_limited:pro", "Rate limit exceeded")
    assert ("event: error\n" in response.text) == (path != CHAT)


@THREE_APIS
def test_an_error_comes_after_output(client, work, path):
    """An error may come after some events of output; nothing follows it."""
    work.default = StreamError("internal_error", "x", after=3)
    sent = events(client.ask(path))

    assert names(sent[: len(ANNOUNCED[path])]) == ANNOUNCED[path]
    assert len(sent) == len(ANNOUNCED[path]) + 4
    assert name(sent[-1]) == "error"
    assert path != RESPONSES or [event["sequence_number"] for event in sent] == list(range(len(sent)))


def test_an_error_may_come_bare(client, work):
    """The announcements may be missing as well."""
    work.default = StreamError("x", "y", announced=False)

    assert names(events(client.ask(RESPONSES))) == ["error"]


def test_a_response_may_fail(client, work):
    """The responses API has a second way to say it: ``response.failed``."""
    work.default = StreamError("rate_limited", "y", event="failed")
    *_, failed = events(client.ask(RESPONSES))

    assert failed["type"] == "response.failed"
    assert (failed["response"]["status"], failed["response"]["output"]) == ("failed", [])
    assert (told_error(failed), failed["sequence_number"]) == (("rate_limited", "y"), 2)
    assert name(events(client.ask(CHAT))[-1]) == "error"


@THREE_APIS
def test_a_malformed_event_stands_in_a_whole_stream(client, work, path):
    """One event is no JSON; before and after it stands a whole answer."""
    work.default = Malformed(after=2)
    data = [line[6:] for line in client.ask(path).text.splitlines() if line.startswith("data: ")]
    at = len(ANNOUNCED[path]) + 2
    broken = data.pop(at)

    with pytest.raises(ValueError):
        json.loads(broken)
    assert name(json.loads(data[-1]) if data[-1][0] == "{" else data[-1]) == LAST[path]
    assert all(json.loads(item) for item in data[:-1])


@THREE_APIS
def test_a_huge_event(client, work, path):
    """All text comes in one event as large as wanted."""
    work.default = Huge(200_000)
    longest = max(len(line) for line in client.ask(path).text.splitlines())

    assert longest > 200_000
    assert names(events(client.ask(path)))[-1] == LAST[path]


@THREE_APIS
def test_only_the_last_event_is_missing(client, work, path):
    """Everything comes but the API's last word; in chat and messages the reason to stop has been said."""
    whole = names(events(client.ask(path)))
    work.default = NoTerminator(ok=Ok(ANSWER))
    text = client.ask(path).text

    assert names(events(client.ask(path))) == whole[:-1]
    assert LAST[path] not in text
    assert path != CHAT or '"finish_reason":"stop"' in text
    assert path != MESSAGES or '"stop_reason":"end_turn"' in text


@THREE_APIS
def test_nothing_but_announcements(client, work, path):
    """A stream may announce an answer and end."""
    work.default = AnnounceOnly()

    assert names(events(client.ask(path))) == ANNOUNCED[path]


@THREE_APIS
def test_an_event_stream_without_events(client, work, path):
    """A 200 event stream may be empty."""
    work.default = EmptyStream()
    response = client.ask(path)

    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
    assert response.content == b""


@THREE_APIS
def test_a_document_though_a_stream_was_asked_for(client, work, path):
    """The answer may come whole as JSON, stream or not."""
    work.default = Unstreamed(Ok(ANSWER))
    response = client.ask(path)

    assert response.headers["content-type"] == "application/json"
    assert ANSWER in response.text
    assert response.json()["model"] == MODELS[path]


@THREE_APIS
@pytest.mark.parametrize("fault", [StreamError, NoTerminator, AnnounceOnly, EmptyStream])
@pytest.mark.parametrize("how", ["end", "stall", "rst", "fin"])
def test_every_fault_ends_as_it_is_told(client, work, fake, path, fault, how):
    """A faulty stream ends well for HTTP, stalls, or is torn: after that the fake serves as before."""
    work.script.append(StreamError("x", "y", then=how) if fault is StreamError else fault(how))
    asked = client.arguments("POST", path, json={"model": MODELS[path], "stream": True}, timeout=30)
    torn = how in ("rst", "fin")
    got = b""
    try:
        with client.http(API).stream(**asked) as response:
            for data in response.iter_raw() if how != "stall" or fault is not EmptyStream else ():
                got += data
                if how == "stall":
                    break  # the client leaves: there was nothing more to come
        assert not torn
    except (httpx.ReadError, httpx.RemoteProtocolError):
        assert torn
    until(lambda: fake.seen[0].client_gone == (how == "stall"))

    assert bool(got) == (fault is not EmptyStream) or how == "rst"  # which may overtake what was sent
    assert names(events(client.ask(path)))[-1] == LAST[path]


def test_a_gap_stands_between_the_events_of_a_fault(client, work):
    """A fault's own `Ok` says what is streamed before, and how fast."""
    work.default = StreamError("x", "y", after=2, ok=Ok("a b", gap=0.02))
    began = time.monotonic()
    sent = events(client.ask(RESPONSES))

    assert time.monotonic() - began >= 0.02 * (len(sent) - 1)


# --- the same over a WebSocket


def over_socket(fake, *answers):
    """What a ``response.create`` gets for each answer, and what else comes when its frames stop."""
    work = fake.accounts[WORK]
    work.websocket = True
    work.script += [Ok(), *answers]

    async def run():
        async with raw(fake) as (reader, writer):
            socket = Socket(reader, writer)
            await socket.handshake()
            return [await socket.frames() for _ in answers]

    return asyncio.run(run())


def test_websocket_serves_what_http_serves(fake):
    """Reasoning, tool calls, late answers, errors and failures are frames; the socket stays for the next question."""
    answers = [FULL, SlowFirst(0.01, Ok(ANSWER)), ERROR, StreamError("x", "y", event="failed"), Huge(99_000), Ok()]
    full, late, error, failed, huge, served = over_socket(fake, *answers)

    assert [item["type"] for item in full[-1]["response"]["output"]][-1] == "function_call"
    assert late[-1]["type"] == huge[-1]["type"] == served[-1]["type"] == "response.completed"
    assert told_error(error[-1]) == ("user_global_rate_limited:pro", "Rate limit exceeded")
    assert failed[-1]["type"] == "response.failed"


@pytest.mark.parametrize(
    "answer",
    [NoTerminator(), AnnounceOnly(), EmptyStream(), CutMid(3, "clean")],
    ids=lambda answer: type(answer).__name__,
)
def test_websocket_that_ends_early_is_closed(fake, answer):
    """Where the API's last word is missing and the end is clean, the service closes the WebSocket."""

    async def run():
        async with raw(fake) as (reader, writer):
            socket = Socket(reader, writer)
            await socket.handshake()
            socket.send(socket.created())
            while not isinstance(event := await socket.next(), CloseConnection | None):
                pass
            return event

    fake.accounts[WORK].websocket = True
    fake.accounts[WORK].script += [Ok(), answer]

    assert isinstance(asyncio.run(run()), CloseConnection)


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_websocket_that_is_torn(fake, how):
    """A WebSocket may break in the middle of an answer, without a close frame."""
    [frames] = over_socket(fake, AnnounceOnly(how))

    assert names(frames) in (["response.created", "response.in_progress"], [])
    assert not [seen for seen in fake.seen if seen.client_gone]


def test_websocket_that_stalls(fake):
    """Nothing more comes over a stalled WebSocket; whoever leaves it is written down."""
    fake.accounts[WORK].websocket = True
    fake.accounts[WORK].script += [Ok(), AnnounceOnly("stall")]

    async def run():
        async with raw(fake) as (reader, writer):
            socket = Socket(reader, writer)
            await socket.handshake()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await socket.frames()

    asyncio.run(run())

    until(lambda: [seen.client_gone for seen in fake.seen] == [False, True])


def test_a_refusals_own_body_is_told_in_a_frame(fake):
    """A refusal that brings its own body tells its code and message in the frame; others tell their own."""
    lacking = Refuse(400, body=b'{"error":{"code":"model_not_supported","message":"No."}}')
    frames = over_socket(fake, lacking, Refuse(500, "a", "b", body=b"<html>"), Refuse(500, body=b"[]"))

    assert [told_error(got[-1]) for got in frames[:2]] == [("model_not_supported", "No."), ("a", "b")]
    assert frames[2][-1]["error"] == {"code": "", "message": ""}


@pytest.mark.parametrize("answer", [Silent(), Drop()], ids=["silent", "dropped"])
def test_websocket_without_a_form_is_torn(fake, answer):
    """An answer that has no form in frames tears the connection down."""
    assert over_socket(fake, answer) == [[]]
