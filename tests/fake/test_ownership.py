"""The fake enforces ownership: what an account made is accepted from that account alone."""

import asyncio
import base64
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies

from copilot_balancer.fake.answers import FakeAccount, Ok
from copilot_balancer.fake.bodies import CHAT, MESSAGES, RESPONSES, Quota
from copilot_balancer.fake.ownership import Asker, wrong_with
from copilot_balancer.fake.reply import ToolCall, owner_of, seal, unsealed
from copilot_balancer.fake.server import running
from fake.test_server import MODELS, SPARE, THREE_APIS, WORK, Client, Socket, raw

TOOL = ToolCall("read_file", '{"path": "a.txt"}')
USE = Ok("", reasoning="Let me look.", tool_calls=(TOOL,))
DONE = Ok("It says hello.", reasoning="Good.")


# --- a client that keeps its history as the real ones do


@dataclass
class Conversation:
    """One conversation in the form of an API; what it was answered goes back as it came, ids and all."""

    path: str
    history: list[dict] = field(default_factory=list)
    more: dict = field(default_factory=dict)
    """What else stands in each body."""
    _calls: list[str] = field(default_factory=list)

    def say(self, words="hi"):
        """The person speaks."""
        self.history.append({"role": "user", "content": words})
        return self

    def results(self, output="hello"):
        """The tools that were asked for have run."""
        if self.path == RESPONSES:
            self.history += [
                {"type": "function_call_output", "call_id": call, "output": output} for call in self._calls
            ]
        elif self.path == CHAT:
            self.history += [{"role": "tool", "tool_call_id": call, "content": output} for call in self._calls]
        else:
            blocks = [{"type": "tool_result", "tool_use_id": call, "content": output} for call in self._calls]
            self.history.append({"role": "user", "content": blocks})
        self._calls = []
        return self

    @property
    def in_tool_loop(self):
        return bool(self._calls)

    def body(self, *, stream=True):
        key = "input" if self.path == RESPONSES else "messages"
        return {"model": MODELS[self.path], "stream": stream, key: list(self.history), **self.more}

    def take(self, text):
        """Read a whole event stream, and keep what it said as the assistant's turn."""
        sent = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        match self.path:
            case "/responses":
                self.history += sent[-1]["response"]["output"]
                self._calls = [item["call_id"] for item in self.history if item.get("type") == "function_call"]
                done = {item["call_id"] for item in self.history if item.get("type") == "function_call_output"}
                self._calls = [call for call in self._calls if call not in done]
            case "/chat/completions":
                self.history.append(_chat_turn(sent))
                self._calls = [call["id"] for call in self.history[-1].get("tool_calls", ())]
            case _:
                self.history.append({"role": "assistant", "content": _blocks(sent)})
                self._calls = [block["id"] for block in self.history[-1]["content"] if block["type"] == "tool_use"]
        return self


def _chat_turn(chunks):
    turn, calls = {"role": "assistant", "content": ""}, {}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        for key in ("content", "reasoning_text"):
            if key in delta:
                turn[key] = turn.get(key, "") + delta[key]
        if "reasoning_opaque" in delta:
            assert "reasoning_opaque" not in turn
            turn["reasoning_opaque"] = delta["reasoning_opaque"]
        for call in delta.get("tool_calls", ()):
            whole = calls.setdefault(call["index"], {"type": "function", "function": {"arguments": ""}})
            whole |= {"id": call["id"]} if "id" in call else {}
            name = {"name": call["function"]["name"]} if "name" in call["function"] else {}
            arguments = whole["function"]["arguments"] + call["function"]["arguments"]
            whole["function"] |= {**name, "arguments": arguments}
    return turn | ({"tool_calls": list(calls.values())} if calls else {})


def _blocks(events):
    blocks, arguments = {}, {}
    for event in events:
        index, delta = event.get("index"), event.get("delta", {})
        match event["type"], delta.get("type"):
            case "content_block_start", _:
                blocks[index] = dict(event["content_block"])
            case "content_block_delta", "input_json_delta":
                arguments[index] = arguments.get(index, "") + delta["partial_json"]
            case "content_block_delta", kind:
                key = kind.removesuffix("_delta")
                blocks[index][key] += delta[key]
    for index, text in arguments.items():
        blocks[index]["input"] = json.loads(text)
    return list(blocks.values())


def ask(client, conversation, token=WORK, **more):
    return client("POST", conversation.path, json=conversation.body(), token=token, **more)


def said(response):
    """Status and text of a refusal."""
    return response.status_code, response.json()["error"]["message"]


@pytest.fixture
def fake():
    accounts = {WORK: FakeAccount("work", default=DONE), SPARE: FakeAccount("spare", default=DONE)}
    with running(accounts) as fake:
        yield fake


@pytest.fixture
def client(fake):
    with Client(fake) as client:
        yield client


def told(client, fake, path, answer=DONE, token=WORK, **more):
    """A conversation after its first answer."""
    fake.accounts[token].script.append(answer)
    conversation = Conversation(path, more=more).say()
    response = ask(client, conversation, token)
    assert response.status_code == 200, response.text
    return conversation.take(response.text)


# --- what an account made is accepted from that account


@THREE_APIS
def test_a_conversation_with_tools_goes_on_with_its_account(client, fake, path):
    """Reasoning, a tool call, its result, an answer, a new question: the account that made it all accepts it all."""
    conversation = told(client, fake, path, USE)
    assert conversation.in_tool_loop
    for _ in range(2):
        response = ask(client, conversation.results())
        assert response.status_code == 200, response.text
        conversation.take(response.text).say("and now?")

    assert fake.lost == []
    assert not conversation.in_tool_loop


@THREE_APIS
def test_another_account_refuses_it_and_that_is_written_down(client, fake, path):
    """Sent to another account, the same conversation is refused; the script of that account does not move on."""
    conversation = told(client, fake, path, USE).results()
    fake.accounts[SPARE].script.append(DONE)
    status, text = said(ask(client, conversation, SPARE))
    [lost] = fake.lost

    assert status == 400
    assert (lost.account, lost.owner, lost.status, lost.text) == ("spare", "work", 400, text)
    assert lost.seen is fake.seen[-1]
    assert len(fake.accounts[SPARE].script) == 1
    assert {
        CHAT: "could not be verified. Reason: Encrypted content could not be decrypted or parsed.",
        RESPONSES: "input item ID does not belong to this connection",
        MESSAGES: "messages.1.content.0: Invalid `signature` in `thinking` block",
    }[path] in text


@THREE_APIS
def test_the_fake_can_be_told_to_accept_everything(client, fake, path):
    """With ``ownership`` off nothing of this kind is refused."""
    conversation = told(client, fake, path, USE).results()
    fake.ownership = False

    assert ask(client, conversation, SPARE).status_code == 200
    assert fake.lost == []


@pytest.mark.parametrize(
    ("path", "bound"),
    [
        (RESPONSES, lambda item: item.pop("id", None)),
        (CHAT, lambda turn: turn.pop("reasoning_opaque", None)),
        (MESSAGES, lambda turn: None),
    ],
    ids=["responses", "chat", "messages"],
)
def test_what_is_left_out_is_not_missed(client, fake, path, bound):
    """Without ids, reasoning, thinking and ``reasoning_opaque`` another account goes on, even inside a tool loop."""
    conversation = told(client, fake, path, USE).results()
    for entry in conversation.history:
        bound(entry)
    conversation.history = [entry for entry in conversation.history if entry.get("type") != "reasoning"]
    if path == MESSAGES:
        conversation.history[1]["content"] = conversation.history[1]["content"][1:]

    assert ask(client, conversation, SPARE).status_code == 200
    assert fake.lost == []


def test_a_limited_account_first_looks_whose_it_is(client, fake):
    """A request with another account's state is written down, whatever that account would have answered."""
    fake.accounts[SPARE].default = lambda _: pytest.fail("the script was asked")
    conversation = told(client, fake, RESPONSES)

    assert ask(client, conversation, SPARE).status_code == 400
    assert len(fake.lost) == 1


def test_a_model_that_the_account_lacks_comes_first(client, fake):
    """An account without the model says so, and nothing is written down as lost."""
    conversation = told(client, fake, RESPONSES)
    fake.accounts[SPARE].models = ["gpt-4.1"]

    assert ask(client, conversation, SPARE).json()["error"]["code"] == "model_not_supported"
    assert fake.lost == []


# --- the refusals one by one

ITEM, OTHER = seal("item", "work", "1/text"), seal("item", "spare", "1/text")
THOUGHT, THOUGHT_ID = seal("encrypted", "work", "1/reasoning"), seal("item", "work", "1/reasoning")
FOREIGN_THOUGHT = seal("encrypted", "spare", "1/reasoning")
NOT_MINE = "input item ID does not belong to this connection"
UNREADABLE = "The encrypted content gAAA...{} could not be verified. Reason: Encrypted content could not be decrypted"
MISMATCH = "Encrypted content item_id did not match the target item id."
NO_CALL = "No tool call found for function call output with call_id call_x."
OWN = seal("response", "work", "work-0001/0/1")
MADE_CALL = {"type": "function_call", "call_id": "call_x", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_x", "output": ""}


def message(item_id):
    return {"type": "message", "role": "assistant", "id": item_id, "content": []}


def reasoning(encrypted, **more):
    return {"type": "reasoning", "summary": [], "encrypted_content": encrypted, **more}


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (message(ITEM), None),
        (message(seal("item", "work", "1/text", 7)), None),
        ({"type": "message", "role": "assistant", "content": []}, None),
        (message("msg_0123456789abcdef"), None),
        (message(OTHER), NOT_MINE),
        (message(base64.b64encode(b"nobody made this one").decode()), NOT_MINE),
        (message(THOUGHT.removeprefix("gAAAAAB")), NOT_MINE),
        ({"type": "item_reference", "id": ITEM}, None),
        ({"type": "item_reference", "id": OTHER}, NOT_MINE),
        ({"type": "item_reference", "id": "msg_1"}, NOT_MINE),
        (reasoning(THOUGHT, id=THOUGHT_ID), None),
        (reasoning(THOUGHT), None),
        (reasoning(THOUGHT, id="rs_0123456789abcdef"), MISMATCH),
        (reasoning(THOUGHT, id=ITEM), MISMATCH),
        (reasoning(FOREIGN_THOUGHT), UNREADABLE.format(FOREIGN_THOUGHT[-4:])),
        (reasoning(FOREIGN_THOUGHT, id=THOUGHT_ID), UNREADABLE.format(FOREIGN_THOUGHT[-4:])),
        (reasoning("gAAAnonsenseQw=="), UNREADABLE.format("Qw==")),
        ({"type": "compaction", "encrypted_content": seal("encrypted", "work", "1/compaction")}, None),
        (
            {"type": "compaction", "encrypted_content": FOREIGN_THOUGHT},
            UNREADABLE.format(FOREIGN_THOUGHT[-4:]),
        ),
        (OUTPUT, NO_CALL),
        (
            {**OUTPUT, "type": "custom_tool_call_output"},
            "No tool call found for custom tool call output with call_id call_x.",
        ),
    ],
    ids=[
        "own id",
        "own id of another event",
        "no id",
        "the client's own id",
        "another's id",
        "unknown id",
        "no item's",
        "own reference",
        "another's reference",
        "a reference to nothing",
        "own pair",
        "own content, no id",
        "own content, the client's own id",
        "own content, another item",
        "another's content",
        "another's content, own id",
        "no content at all",
        "own compaction",
        "another's compaction",
        "output without call",
        "custom output without call",
    ],
)
def test_items_of_a_responses_request(item, text):
    """An item is accepted when what it carries is the account's own, or not there."""
    wrong = wrong_with(RESPONSES, {"input": [item]}, Asker("work"))

    assert (wrong is None) == (text is None)
    assert wrong is None or text in wrong.message
    assert wrong is None or wrong.status == 400


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"input": [MADE_CALL, OUTPUT]}, None),
        ({"input": [OUTPUT, MADE_CALL]}, NO_CALL),
        ({"input": "hi", "previous_response_id": OWN}, None),
        ({"input": [OUTPUT], "previous_response_id": OWN}, NO_CALL),
        ({"input": [], "previous_response_id": seal("response", "spare", "x/0/0")}, "not found."),
        ({"input": [], "previous_response_id": seal("response", "work", "x/7/0")}, "not found."),
        ({"input": [], "previous_response_id": "resp_nonsense"}, "Previous response with id 'resp...ense' not found."),
        ({"input": [], "previous_response_id": ITEM}, "not found."),
        ({"input": [], "previous_response_id": 5}, "not found."),
        ({"input": [], "previous_response_id": None}, None),
    ],
    ids=["call", "call after", "own", "another call", "another's", "socket's", "unknown", "item", "number", "null"],
)
def test_previous_response_and_calls(body, text):
    """A previous response is the account's own or not found; an output follows its call."""
    wrong = wrong_with(RESPONSES, body, Asker("work"))

    assert (wrong is None) == (text is None)
    assert wrong is None or text in wrong.message
    assert wrong is None or "not found" not in text or wrong.code == "previous_response_not_found"


def test_a_call_may_stand_in_the_previous_response_or_in_a_reference(client, fake):
    """An output needs no call beside it where the previous response or a reference has it."""
    conversation = told(client, fake, RESPONSES, USE).results()
    _, call, output = conversation.history[1:]
    previous = json.loads(ask(client, Conversation(RESPONSES, [{"role": "user"}])).text.splitlines()[1][6:])
    assert ask(client, Conversation(RESPONSES, [{"type": "item_reference", "id": call["id"]}, output])).is_success

    fake.accounts[WORK].script.append(USE)
    first = json.loads(ask(client, Conversation(RESPONSES, [{"role": "user"}])).text.splitlines()[-2][6:])["response"]
    then = Conversation(RESPONSES, [{**output, "call_id": first["output"][-1]["call_id"]}])
    then.more["previous_response_id"] = first["id"]
    assert ask(client, then).is_success
    assert fake.lost == []

    then.more["previous_response_id"] = previous["response"]["id"]
    assert "No tool call found" in said(ask(client, then))[1]


@pytest.mark.parametrize("status", [400, 401])
def test_an_item_id_of_another_can_be_401(client, fake, status):
    """The refusal of an item id is seen as 400 and as 401: a switch says which."""
    fake.wrong_id_status = status
    response = ask(client, told(client, fake, RESPONSES), SPARE)

    assert response.status_code == status
    assert response.json() == {"error": {"message": NOT_MINE, "code": ""}}
    assert fake.lost[0].status == status


def test_thinking_can_be_bound_to_a_conversation(client, fake):
    """A switch says which of the two texts about thinking comes."""
    fake.wrong_signature = "conversation"
    text = said(ask(client, told(client, fake, MESSAGES), SPARE))[1]

    assert text.startswith("messages.1.content.0: The block is bound to a different conversation")


SIGNED = {"type": "thinking", "thinking": "x", "signature": seal("signature", "work", "1/")}
FORGED = {"type": "thinking", "thinking": "x", "signature": seal("signature", "spare", "1/")}
REDACTED = {"type": "redacted_thinking", "data": seal("redacted", "work", "1/")}
USED = {"type": "tool_use", "id": "toolu_x", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_x", "content": ""}
TEXT = {"type": "text", "text": "x"}
ENABLED = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
EXPECTED = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found "


def turns(*assistant, then=RESULT):
    user = {"role": "user", "content": "hi"}
    return {"messages": [user, {"role": "assistant", "content": list(assistant)}, {"role": "user", "content": [then]}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (turns(SIGNED, USED), None),
        (turns(REDACTED, USED), None),
        (turns(USED), None),
        (turns(SIGNED, USED) | ENABLED, None),
        (turns(REDACTED, USED) | ENABLED, None),
        (turns(USED) | ENABLED, EXPECTED + "`tool_use`."),
        (turns(TEXT, USED) | ENABLED, EXPECTED + "`text`."),
        (turns(TEXT, then=TEXT) | ENABLED, None),
        (turns(USED) | {"thinking": {"type": "disabled"}}, None),
        (turns(USED) | {"thinking": {"type": "adaptive"}}, None),
        (turns(TEXT, FORGED), "messages.1.content.1: Invalid `signature` in `thinking` block"),
        (turns({"type": "thinking", "thinking": "x"}), "messages.1.content.0: Invalid `signature` in `thinking` block"),
        (
            turns({"type": "redacted_thinking", "data": FORGED["signature"]}),
            "messages.1.content.0: Invalid `data` in `redacted_thinking` block",
        ),
        (turns(TEXT), "messages.2.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_x."),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, "messages.0.content.0: unexpected `tool_use_id`"),
    ],
    ids=[
        "signed",
        "redacted",
        "thinking left out",
        "signed, enabled",
        "redacted, enabled",
        "left out, enabled",
        "text first, enabled",
        "a person's turn, enabled",
        "left out, disabled",
        "left out, adaptive",
        "another's",
        "no signature",
        "a signature for data",
        "result without use",
        "result without anything",
    ],
)
def test_blocks_of_a_messages_request(body, text):
    """Thinking is signed by the account; inside a tool loop it may only be missing where it is not enabled."""
    wrong = wrong_with(MESSAGES, body, Asker("work"))

    assert (wrong is None) == (text is None)
    assert wrong is None or (wrong.message.startswith(text), wrong.code) == (True, "invalid_request_body")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "assistant", "reasoning_opaque": seal("opaque", "work", "1/")}], None),
        ([{"role": "assistant", "reasoning_opaque": seal("opaque", "spare", "1/")}], "could not be verified"),
        ([{"role": "assistant", "reasoning_opaque": THOUGHT}], "could not be verified"),
        ([{"role": "assistant", "reasoning_opaque": None}], None),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}, {"role": "tool", "tool_call_id": "a"}], None),
        ([{"role": "tool", "tool_call_id": "a"}], "messages with role 'tool' must be a response"),
    ],
    ids=["own", "another's", "another kind", "null", "call", "no call"],
)
def test_turns_of_a_chat_request(messages, text):
    """``reasoning_opaque`` is the account's own, and a tool's answer follows its call."""
    wrong = wrong_with(CHAT, {"messages": messages}, Asker("work"))

    assert (wrong is None) == (text is None)
    assert wrong is None or text in wrong.message


ODD = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=5),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(
            strategies.sampled_from(
                ["type", "role", "id", "input", "messages", "content", "call_id", "thinking", "signature", "tool_calls"]
            ),
            inner
            | strategies.sampled_from(["thinking", "tool_result", "function_call", "function_call_output", "tool"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(
    strategies.sampled_from([CHAT, RESPONSES, MESSAGES]),
    strategies.dictionaries(strategies.sampled_from(["input", "messages", "previous_response_id", "thinking"]), ODD),
)
def test_no_body_is_too_odd_to_be_judged(path, body):
    """Whatever a body holds, judging it raises nothing."""
    wrong = wrong_with(path, body, Asker("work"))

    assert wrong is None or wrong.message


# --- seals


def test_ids_are_opaque_and_differ_from_event_to_event(client, fake):
    """An item has other ids in each event, long base64 all of them; the last two are the same; all are accepted."""
    text = ask(client, Conversation(RESPONSES).say()).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    of_text = [event for event in events if event.get("output_index") == 1]
    ids = [event.get("item_id") or event["item"]["id"] for event in of_text]
    final = events[-1]["response"]["output"][1]["id"]

    assert ids[-1] == final
    assert len(set(ids)) == len(ids)
    assert all(len(base64.b64decode(item_id, validate=True)) > 64 for item_id in ids)
    assert {owner_of(item_id) for item_id in ids} == {"work"}
    for item_id in ids:
        assert ask(client, Conversation(RESPONSES, [message(item_id)])).status_code == 200


@pytest.mark.parametrize("value", [None, 5, "", "abc", "gho_x", "QUJD" * 30, ITEM[:-4], "resp_", "é" * 30])
def test_nobody_made_it(value):
    """What no fake sealed has no owner."""
    assert unsealed(value) is None
    assert owner_of(value) is None


def test_a_changed_seal_is_nobodys():
    """Change one letter anywhere: nobody made it."""
    for place in range(0, len(ITEM) - 4, 7):
        other = "A" if ITEM[place] != "A" else "B"
        assert unsealed(ITEM[:place] + other + ITEM[place + 1 :]) is None
    assert unsealed(ITEM).account == "work"


# --- Auto mode


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_token_is_its_accounts(client, fake, method):
    """``/models/session`` gives a token that is accepted from that account alone."""
    session = client(method, "/models/session").json()
    token = {"copilot-session-token": session["session_token"]}
    conversation = Conversation(CHAT).say()

    assert session["expires_at"] > 0
    assert session["selected_model"] in session["available_models"]
    assert ask(client, conversation, headers=token).status_code == 200
    assert client("POST", "/models/session/intent", headers=token, json={}).json()["chosen_model"] == "gpt-5-mini"
    assert fake.lost == []

    def refused(value):
        return said(client("POST", CHAT, json=conversation.body(), headers={"copilot-session-token": value}))

    def as_spare(path):
        return client("POST", path, json=conversation.body(), headers=token, token=SPARE)

    assert said(as_spare(CHAT)) == (401, "Invalid Copilot-Session-Token")
    assert said(as_spare("/models/session/intent")) == (401, "Invalid Copilot-Session-Token")
    assert refused("nonsense") == (401, "Invalid Copilot-Session-Token")
    assert refused(ITEM)[0] == 401
    assert [lost.owner for lost in fake.lost] == ["work", "work", None, "work"]


# --- WebSocket


def over_socket(fake, story):
    async def run():
        async with raw(fake) as (reader, writer):
            socket = Socket(reader, writer)
            await socket.handshake()
            return await story(socket)

    return asyncio.run(run())


def test_a_previous_response_lives_on_its_websocket(client, fake):
    """``previous_response_id`` is known on the connection that made it, there alone; item ids are the account's."""
    work = fake.accounts[WORK]
    work.websocket, work.default = True, USE
    work.quota = {"premium_interactions": Quota(50.0)}

    async def twice(socket):
        first = (await socket.frames())[-1]["response"]
        output = {"type": "function_call_output", "call_id": first["output"][-1]["call_id"], "output": "x"}
        second = await socket.frames(input=[output], previous_response_id=first["id"])
        again = await socket.frames(input=[message(OTHER)])
        return first, second[-1], again[-1]

    async def elsewhere(socket):
        return (await socket.frames(previous_response_id=first["id"], input=[]))[-1]

    first, second, again = over_socket(fake, twice)
    assert second["type"] == "response.completed"
    assert again["error"] == {"code": "bad_request", "message": NOT_MINE}
    assert again["copilot_quota_snapshots"]["premium_interactions"]["percent_remaining"] == 50.0

    assert over_socket(fake, elsewhere)["error"]["code"] == "previous_response_not_found"
    over_http = Conversation(RESPONSES, more={"previous_response_id": first["id"]}).say()
    assert ask(client, over_http).json()["error"]["code"] == "previous_response_not_found"
    assert [lost.owner for lost in fake.lost] == ["spare", "work", "work"]

    assert ask(client, Conversation(RESPONSES, first["output"])).status_code == 200
    assert ask(client, Conversation(RESPONSES, first["output"]), SPARE).status_code == 400
