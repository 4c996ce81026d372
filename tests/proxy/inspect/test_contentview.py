"""An answer as a person reads it: whole, cut, hostile; and which flows the view is picked for."""

import json
import re
import time

import pytest
from hypothesis import given, settings, strategies
from mitmproxy import contentviews, http
from mitmproxy.contentviews import Metadata
from mitmproxy.test import taddons, tflow, tutils

from copilot_balancer.fake import chat as fake_chat
from copilot_balancer.fake import messages, responses
from copilot_balancer.fake.reply import as_sse
from copilot_balancer.proxy.inspect import contentview, transcript
from copilot_balancer.proxy.inspect import page as page_module
from copilot_balancer.proxy.inspect.contentview import CopilotContentview, register, show
from copilot_balancer.store.request_record import AttemptRecord, finished
from copilot_balancer.views.requests import metadata
from support.answers import CALLING, FORMS, a_document, any_json, any_key, any_kind, chat, sse, streamed

STREAM = "text/event-stream"


@pytest.fixture(autouse=True)
def mitmproxy_options():
    """mitmproxy asks its options for a view's metadata."""
    with taddons.context():
        yield


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
        pytest.param(streamed(responses), STREAM, id="responses stream"),
        pytest.param(streamed(messages), STREAM, id="messages stream"),
        pytest.param(streamed(fake_chat).replace(b"\n", b"\r\n"), STREAM, id="lines that end with CRLF"),
        pytest.param(streamed(messages), None, id="stream of unknown type"),
        pytest.param(a_document(fake_chat), "application/json", id="chat document"),
        pytest.param(a_document(responses), "application/json", id="responses document"),
        pytest.param(a_document(messages), "application/json", id="messages document"),
    ],
)
def test_every_form_reads_the_same(data, kind):
    """Model, usage and text are shown, whatever API the answer was given in, streamed or not."""
    shown = page(data, kind=kind)

    assert "model: gpt-4.1\n" in shown
    assert "usage: 7 in, 3 out" in shown
    assert shown.endswith("text: |\n    Hello there, friend.\n")


@pytest.mark.parametrize("form", FORMS)
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


def test_an_error_inside_a_stream():
    """An error after a 200 is told in one line, and is an end: nothing is called cut."""
    told = page(sse({"error": {"code": "rate_limited", "message": "slow"}}))

    assert told == "error: rate_limited: slow\n"


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


def test_a_sentence_stands_once():
    """What an upstream said is shown once, however many places know it."""
    refused = AttemptRecord(
        "work", "h", "sticky", "limit", 429, 30.0, "slow down please", body='{"message": "slow down please"}'
    )
    lost = AttemptRecord("home", "h", "next", "transient", None, None, "server closed connection")
    record = finished((refused, lost), served=False, status=429, at=0.0, id="f", what="gpt-5", ms=1.0)
    shown = page(b'{"message": "slow down please"}', flow=a_flow(told=metadata(record)), kind="application/json")
    assert shown.count("slow down please") == 1
    assert shown.count("server closed connection") == 1

    late = {"copilot": "failed", "copilot_account": "work", "copilot_error": "rate_limited (rests 30 s): slow"}
    shown = page(sse({"error": {"code": "rate_limited", "message": "slow"}}), flow=a_flow(told=late))
    assert shown == "served by: work, failed\nerror: rate_limited (rests 30 s): slow\n"


@pytest.mark.parametrize(
    ("told", "headers", "shown"),
    [
        pytest.param(
            {"copilot": "refused", "copilot_attempts": 1},
            {"x-copilot-account": "work"},
            "nobody, after 1 refusal",
            id="nobody, whatever a header says",
        ),
        pytest.param({"copilot": "passed", "copilot_attempts": 0}, {}, "the client's own credential", id="passed on"),
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


@pytest.mark.parametrize("form", FORMS)
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
LATE = {
    "type": "response.output_item.done",
    "output_index": 1,
    "item": {"type": "message", "content": [{"text": "too late"}]},
}
END = sse(LATE) + sse({"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}) + b"data: [DONE]\n\n"


@pytest.fixture
def small(monkeypatch):
    """The limits, a hundredth of what they are."""
    for limit, value in {"READ_LIMIT": 20_000, "TAIL": 1000, "MAX_EVENTS": 200, "TAIL_EVENTS": 5}.items():
        monkeypatch.setattr(transcript, limit, value)
    for module in (page_module, contentview):
        monkeypatch.setattr(module, "SHOWN", 2000)


def test_a_long_answer(small):
    """Of a very long answer the beginning is shown, and what its end says; no text from behind the gap."""
    shown = page(WORD * 300 + END)

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
    assert shown.count("error:") <= transcript.MAX_ERRORS


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


# --- never raises


@settings(max_examples=30)
@given(
    strategies.lists(
        strategies.tuples(any_kind(), strategies.dictionaries(any_key(), any_json(), max_size=6)), max_size=5
    ),
    strategies.booleans(),
)
def test_no_event_breaks_it(events, document):
    """Whatever an event holds, where a text or a list was expected, there is a page of printable lines."""
    told = [{**more, "type": kind} for kind, more in events]
    data = json.dumps(told[0] if told else None).encode() if document else sse(*told)
    shown = page(data, kind="application/json" if document else STREAM)

    assert all(line.isprintable() for line in shown.replace("\u200c", "").replace("\u200d", "").split("\n"))


@given(strategies.binary(max_size=300), strategies.booleans())
def test_no_bytes_break_it(data, stream):
    """Bytes that are no answer at all are shown, too."""
    shown = page(data, kind=STREAM if stream else "application/json")

    assert all(line.isprintable() for line in shown.replace("\u200c", "").replace("\u200d", "").split("\n"))


@given(strategies.text(max_size=100), any_kind())
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
    for one in (
        request,
        Metadata(flow=waiting, http_message=waiting.request, content_type=STREAM),
        Metadata(flow=tflow.ttcpflow(), content_type=STREAM),
        Metadata(content_type=STREAM),
        Metadata(),
    ):
        assert VIEW.render_priority(b"data: {}", one) < 0


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


def test_a_token_that_is_spelt_over_several_events_is_not_shown():
    """The view shows no credential that was sent, though no event of the answer holds the whole of it."""
    from pydantic import SecretStr

    from copilot_balancer.proxy.guard.redaction import SentSecrets

    token, sent = "gho_canary-0123456789", SentSecrets()
    sent.add(SecretStr(token), "[account:work]")
    pieces = [f"you sent {token[:6]}", token[6:11], f"{token[11:]}, did you?"]
    chunks = ["".join(json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]})) for piece in pieces]
    data = "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()
    metadata = Metadata(content_type="text/event-stream")
    assert token in show(data, metadata)
    page = show(data, metadata, sent.text)
    assert token not in page
    assert "you sent [account:work], did you?" in page
