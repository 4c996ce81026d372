"""Conversations of real clients: a tool call, a second run that goes on, and an account that fails in between.

Laws of this file:

1. The fake enforces ownership: whatever one account made and another is sent back stands in ``fake.lost``.
2. What a client sent back is read from what the fake saw (``makers``), never from what the product says of it.
3. What the proxy sent is counted by what the fake saw; what the client sent, by mitmdump's lines, one for each request.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from copilot_balancer.fake.answers import (
    Answer,
    Answering,
    CutMid,
    EmptyStream,
    Fault,
    NoTerminator,
    Ok,
    StreamError,
    limited,
    once,
)
from copilot_balancer.fake.faults import FORMS
from copilot_balancer.fake.reply import Reply, Streamed, ToolCall, cut, owner_of
from copilot_balancer.fake.seen import Seen
from copilot_balancer.rules.types import Reason
from support.proxies import PERSONAL, WORK, three_accounts, until
from support.real_clients import (
    accounts,
    assert_answered,
    assert_said,
    copilot,  # noqa: F401 - a fixture
    home,  # noqa: F401 - a fixture
    is_title,
    lines,
    opencode,  # noqa: F401 - a fixture
    prompts,
    to_prompts,
)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

WORK_FIRST = ("--set", "copilot_strategy=priority")
"""work is asked first, then personal, then spare."""

NOTE = "Buy canary seed and a yellow ladder."
"""What stands in the file that the model wants to read."""

CHAT, RESPONSES, MESSAGES = "/chat/completions", "/responses", "/v1/messages"
MODELS = {CHAT: "gpt-4.1", RESPONSES: "gpt-5-mini", MESSAGES: "claude-sonnet-4.6"}

ASKED, ASKED_AGAIN = "What does my note say?", "And what else?"
LOOKING = "I look into it."


@pytest.fixture
def note(tmp_path) -> Path:
    """A file in the client's project folder."""
    path = tmp_path / "project" / "note.txt"
    path.parent.mkdir()
    path.write_text(NOTE + "\n")
    return path


def reading(client: str, path: Path) -> ToolCall:
    """A call of the client's own tool for reading a file, as it declares it to the model."""
    name, argument = {"opencode": ("read", "filePath"), "copilot": ("view", "path")}[client]
    return ToolCall(name, json.dumps({argument: str(path)}))


def turns(seen: Seen) -> list[dict]:
    """The conversation as the request tells it."""
    return seen.json["input" if seen.endpoint == RESPONSES else "messages"]


def after_a_tool(seen: Seen) -> bool:
    """Whether its last word is a tool's."""
    last = turns(seen)[-1]
    results = last["content"] if isinstance(last.get("content"), list) else []
    return (
        last.get("role") == "tool"
        or last.get("type") == "function_call_output"
        or any(block["type"] == "tool_result" for block in results)
    )


def thinking(client: str, path: Path, label: str) -> Answering:
    """What an account of this name answers: it thinks, asks for the file, thinks again, and says what it read."""

    def answer(seen: Seen) -> Ok:
        if after_a_tool(seen):
            return Ok(f"Read for {label}.", reasoning="Now I know.")
        return Ok(LOOKING, reasoning="Where is it?", tool_calls=(reading(client, path),))

    return to_prompts(answer)


def limited_once(answering: Answering, when: Callable[[Seen], bool], seconds: int) -> Answering:
    """One refusal for so many seconds, the first time that this is asked; else as ever."""
    refused = once(limited(seconds), then=answering)
    return lambda seen: refused(seen) if when(seen) else answering(seen)


def makers(seen: Seen) -> set[str]:
    """The accounts that made something which the API reads in the request.

    opencode copies ``reasoning_opaque`` into fields of its own invention as well (``reasoningOpaque`` beside a tool
    call and its result); no API reads those.
    """

    def strings(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for name, one in value.items():
                if name != "reasoningOpaque":
                    yield from strings(one)
        elif isinstance(value, list):
            for one in value:
                yield from strings(one)

    return {owner for text in strings(seen.json) if (owner := owner_of(text))}


def rested(proxy) -> set[tuple[str, str]]:
    """Which accounts rest, and why, when the proxy has ended."""
    proxy.stop()
    return {
        (account.label, rest.reason)
        for account in three_accounts()
        if (state := proxy.memory().accounts.get(account.id))
        for rest in state.cooldowns
    }


# --- an account is limited in mid-conversation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "endpoint"),
    [("opencode", CHAT), ("opencode", MESSAGES), ("copilot", RESPONSES), ("copilot", MESSAGES)],
)
def test_a_conversation_outlives_its_account(client, endpoint, request, start, fake, note):
    """In a tool loop the client waits for its account; at a person's turn another goes on, without what is bound."""
    model, ask = MODELS[endpoint], request.getfixturevalue(client)
    for account in fake.accounts.values():
        account.default = thinking(client, note, account.name)
    fake.accounts[WORK].default = limited_once(fake.accounts[WORK].default, after_a_tool, 3)
    proxy = start(*WORK_FIRST)
    assert_answered(ask(proxy, model, ASKED), proxy, "Read for work.")
    fake.accounts[WORK].default = to_prompts(limited(3600))
    assert_answered(ask(proxy, model, ASKED_AGAIN, "--continue"), proxy, "Read for personal.")

    assert fake.lost == []
    assert {seen.endpoint for seen in prompts(fake)} == {endpoint}
    assert accounts(prompts(fake)) == ["work", "work", "work", "work", "personal", "personal"]
    begun, refused, waited, turn, moved, after = prompts(fake)
    assert makers(begun) == set()
    # the tool loop: the same once more, after the wait that work's own refusal told
    assert makers(refused) == makers(waited) == {"work"}
    assert turns(refused) == turns(waited)
    assert waited.at - refused.at >= 3
    assert_said(proxy, model, "<- nobody, 429", "work 429 session limit (rests 3 s)")
    # the second run: asked once, then moved with every word, and with nothing that is work's
    # (of what was said before, the Copilot CLI's second process keeps no reasoning and no id of a response)
    assert makers(turn) == (set() if (client, endpoint) == ("copilot", RESPONSES) else {"work"})
    assert makers(moved) == set()
    told = json.dumps(turns(moved))
    assert all(words in told for words in (ASKED, LOOKING, NOTE, "Read for work.", ASKED_AGAIN))
    # its own tool loop stays where it began, and what the client still holds of work's is left out again
    assert makers(after) == {"personal"}
    assert_said(proxy, model, "<- personal (", "without")
    assert rested(proxy) == {("work", Reason.SESSION_LIMIT)}


def test_what_is_bound_to_nobody_moves_at_once(opencode, start, fake, note):  # noqa: F811 - a fixture
    """On the responses wire opencode sends back neither ids nor reasoning: even a tool loop goes on with another."""
    for account in fake.accounts.values():
        account.default = thinking("opencode", note, account.name)
    fake.accounts[WORK].default = limited_once(fake.accounts[WORK].default, after_a_tool, 3600)
    proxy = start(*WORK_FIRST)
    assert_answered(opencode(proxy, MODELS[RESPONSES], ASKED), proxy, "Read for personal.")
    fake.accounts[PERSONAL].default = to_prompts(limited(3600))
    assert_answered(opencode(proxy, MODELS[RESPONSES], ASKED_AGAIN, "--continue"), proxy, "Read for spare.")

    assert fake.lost == []
    assert {seen.endpoint for seen in prompts(fake)} == {RESPONSES}
    assert accounts(prompts(fake)) == ["work", "work", "personal", "personal", "spare", "spare"]
    assert [makers(seen) for seen in prompts(fake)] == [set()] * 6
    assert all(NOTE in json.dumps(turns(seen)) for seen in prompts(fake)[1:])
    assert len(lines(proxy, MODELS[RESPONSES])) == 4
    assert rested(proxy) == {("work", Reason.SESSION_LIMIT), ("personal", Reason.SESSION_LIMIT)}


# --- opencode never hot-loops ----------------------------------------------------------------------------------------


def short(path: Path, number: int) -> Ok:
    """A short answer with a thought, a word and a tool call; each `number` reads other lines of the file.

    opencode asks its user when a model calls the same thing three times.
    """
    call = ToolCall("read", json.dumps({"filePath": str(path), "limit": number + 1}))
    return Ok("Hm.", reasoning="So.", tool_calls=(call,))


def streamed(endpoint: str, ok: Ok) -> Streamed:
    """The events of an answer, as the fake sends them."""
    thoughts = cut(ok.reasoning or "", None)
    return FORMS[endpoint].stream(Reply("x", "x", cut(ok.text, None), 0, 1, "work", thoughts, ok.tool_calls))


def forgive(proxy) -> None:
    """Three faults of the service in two minutes rest an account: forget them, as `accounts clear` does."""
    now = {"": time.time()}
    proxy.store.edit_decisions(
        lambda known: known.model_copy(
            update={"accounts": tuple(one.model_copy(update={"cleared": now}) for one in known.accounts)}
        )
    )


LINES = ("--set", "flow_detail=2")
"""mitmdump prints each request; by itself the addon turns that off."""


def requests_of_opencode(proxy, endpoint: str) -> int:
    """How many requests opencode made for what the person asked: mitmdump prints each one, whatever came of it."""
    titles = [seen for seen in proxy.fake.asked(endpoint=endpoint) if is_title(seen)]
    return proxy.log.count(f": POST https://api.githubcopilot.com{endpoint}\n") - len(titles)


@pytest.mark.parametrize(
    ("endpoint", "count", "hows"),
    [
        pytest.param(CHAT, 1, ("clean",), id="chat, one account, ended cleanly"),
        pytest.param(RESPONSES, 1, ("clean",), id="responses, one account, ended cleanly"),
        pytest.param(MESSAGES, 1, ("clean",), id="messages, one account, ended cleanly"),
        pytest.param(CHAT, 2, ("rst", "fin"), id="chat, two accounts, broken"),
        pytest.param(RESPONSES, 2, ("rst", "fin"), id="responses, two accounts, broken"),
    ],
)
def test_opencode_asks_once_more_wherever_an_answer_is_cut(
    opencode,  # noqa: F811 - a fixture
    start,
    fake,
    note,
    endpoint,
    count,
    hows,
):
    """Cut before any output, opencode notices nothing; cut after it, opencode asks once more, after its own wait.

    One run: every answer asks for a tool. The first begins with an error, the next ones are cut, each one event later.
    """
    events = streamed(endpoint, short(note, 0))
    cuts = len(events.whole) - (endpoint == CHAT)  # a chat without its last word, [DONE], is whole
    faults: list[Fault] = [StreamError("model_overloaded", "The model is overloaded.")]
    faults += [CutMid(after, hows[after % len(hows)], short(note, after)) for after in range(cuts)]
    # nobody else can be asked, so the error is passed on; an answer that has not begun is asked for once more
    noticed = [0] if count == 1 else []
    noticed += range(len(events.announced) + 2, len(faults))
    answers = [answer for number, fault in enumerate(faults) for answer in (fault, short(note, number))]
    if endpoint == CHAT:
        answers.append(NoTerminator(ok=short(note, len(faults))))
    following = once(*answers, then=Ok("Done."))
    proxy = start(*WORK_FIRST, *LINES, accounts=three_accounts()[:count])

    def answer(seen: Seen) -> Answer:
        forgive(proxy)
        return following(seen)

    for account in fake.accounts.values():
        account.default = to_prompts(answer)
    assert_answered(opencode(proxy, MODELS[endpoint], ASKED), proxy, "Done.")

    asked = prompts(fake)
    assert fake.lost == []
    assert len(asked) == len(answers) + 1
    made = len(asked) - len(faults) + len(noticed)
    until(lambda: requests_of_opencode(proxy, endpoint) >= made, "mitmdump's lines about the last requests")
    assert requests_of_opencode(proxy, endpoint) == made
    waits = [asked[2 * number + 1].at - asked[2 * number].at for number in noticed]
    assert min(waits) > 1.5, waits
    # what opencode does not notice, another account answers, unless a tool loop binds it to the one that began
    moved = [number for number in range(len(faults)) if asked[2 * number].account != asked[2 * number + 1].account]
    free = [number for number in range(len(faults)) if number not in noticed and (number == 0 or endpoint == RESPONSES)]
    assert [number for number in moved if number not in noticed] == (free if count == 2 else [])
    assert len(set(accounts(asked))) == count


@pytest.mark.parametrize(
    ("endpoint", "count", "fault"),
    [
        pytest.param(CHAT, 1, CutMid(4, "clean"), id="chat, one account, clean early end"),
        pytest.param(RESPONSES, 2, CutMid(12, "clean"), id="responses, two accounts, clean early end"),
        pytest.param(MESSAGES, 1, EmptyStream(), id="messages, one account, empty stream"),
    ],
)
def test_opencode_is_patient_with_a_service_that_never_ends_well(
    opencode,  # noqa: F811 - a fixture
    start,
    fake,
    endpoint,
    count,
    fault,
):
    """When no answer is ever whole, opencode makes a handful of requests in 15 s; without us it makes 112 in 24 s."""
    for account in fake.accounts.values():
        account.default = to_prompts(fault)
    proxy = start(*WORK_FIRST, *LINES, accounts=three_accounts()[:count])

    def enough() -> bool:
        asked = prompts(fake)
        return bool(asked) and time.monotonic() - asked[0].at > 15

    assert opencode(proxy, MODELS[endpoint], ASKED, enough=enough).status is None
    assert 2 <= requests_of_opencode(proxy, endpoint) <= 6
    assert len(prompts(fake)) <= 2 * requests_of_opencode(proxy, endpoint)
