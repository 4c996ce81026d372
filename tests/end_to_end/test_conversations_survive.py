"""Account-bound state through a real mitmdump: it goes back to its maker, or is left out; no conversation is bricked.

``OWNERSHIP_TURNS=10000 pytest tests/test_conversations_survive.py -k many_turns`` runs the long form.
"""

import os
import random
import time
from collections import Counter

import httpx
import pytest

from copilot_balancer.fake.answers import Ok, Refuse, limited
from copilot_balancer.rules.edits import turned_off, turned_on
from fake.test_ownership import DONE, USE, Conversation
from support.proxies import PERSONAL, SPARE, WORK, until

API = "https://api.githubcopilot.com"
PATHS = ("/chat/completions", "/responses", "/v1/messages")
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}


def begun(path: str, number: int = 0) -> Conversation:
    more = {"prompt_cache_key": f"conversation-{number}-{path}"}
    return Conversation(path, more=more | (THINKING if path == "/v1/messages" else {}))


def say(client: httpx.Client, talk: Conversation) -> httpx.Response:
    answer = client.post(API + talk.path, json=talk.body())
    if answer.status_code == 200:
        talk.take(answer.text)
    return answer


def others(fake, label: str) -> list[str]:
    return [token for token, account in fake.accounts.items() if account.name != label]


@pytest.fixture
def talking(start, fake):
    """work is asked first; every account thinks, and the first answer of each turn asks for a tool."""
    for account in fake.accounts.values():
        account.default = lambda seen: (
            DONE
            if b"tool_result" in seen.body or b'"tool"' in seen.body or b"function_call_output" in seen.body
            else USE
        )
    return start("--set", "copilot_strategy=priority")


@pytest.mark.parametrize("path", PATHS)
def test_a_tool_loop_stays_with_its_owner(talking, fake, path):
    """Limited in the middle of a tool loop, its refusal is given back with its wait; afterwards it goes on."""
    talk = begun(path).say()
    with talking.client() as client:
        assert say(client, talk).headers["x-copilot-account"] == "work"
        usual, fake.accounts[WORK].default = fake.accounts[WORK].default, limited(1)
        talk.results()
        refused = say(client, talk)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"].startswith("user_global_rate_limited")
        fake.accounts[WORK].default = usual
        again = say(client, talk)  # a client that does not wait: answered by us, with the wait
        assert again.status_code == 429
        assert "work: rests after a session limit" in again.text
        assert "personal: cannot go on with what another account began" in again.text
        until(lambda: say(client, talk).status_code == 200, "the owner to go on")
    assert {seen.account for seen in fake.asked()} == {"work"}
    assert fake.lost == []


@pytest.mark.parametrize("path", PATHS)
def test_at_a_user_turn_it_moves_without_what_is_bound(talking, fake, path):
    """Another account goes on with the words alone; what was left out stands in header, log and comment."""
    talk = begun(path).say()
    with talking.client() as client:
        say(client, talk)
        assert say(client, talk.results()).headers["x-copilot-account"] == "work"
        usual, fake.accounts[WORK].default = fake.accounts[WORK].default, limited(60)
        moved = say(client, talk.say("and then?"))
        assert (moved.status_code, moved.headers["x-copilot-account"]) == (200, "personal")
        assert moved.headers["x-copilot-left-out"]
        # the client's history keeps what work made: it is left out again, without another refusal
        fake.accounts[WORK].default = usual
        assert say(client, talk.results()).headers["x-copilot-account"] == "personal"
        assert say(client, talk.say("and?")).headers["x-copilot-account"] == "personal"
    assert fake.lost == []
    assert [seen.account for seen in fake.asked()].count("work") == 3
    until(lambda: len(talking.lines()) == 5, "the lines")
    assert f"sent without {moved.headers['x-copilot-left-out']}, which" in talking.lines()[2]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wrong_id_status", [400, 401])
def test_a_forgotten_owner_costs_one_attempt(start, fake, path, wrong_id_status):
    """Nobody knows whose it is: refused once, sent again bare, and remembered; no account rests for it."""
    fake.wrong_id_status = wrong_id_status
    for account in fake.accounts.values():
        account.default = DONE
    talk = begun(path).say()
    first = start("--set", "copilot_strategy=priority")
    with first.client() as client:
        say(client, talk)
    first.stop()
    (first.store.folder / "owners.json").unlink()
    (first.store.folder / "state.json").unlink()
    first.store.edit_decisions(lambda known: known.model_copy(update={"accounts": known.accounts[1:]}))
    second = start("--set", "copilot_strategy=priority", home=first.store.folder.parent)
    with second.client() as client:
        moved = say(client, talk.say("and then?"))
        assert (moved.status_code, moved.headers["x-copilot-attempts"]) == (200, "2")
        assert moved.headers["x-copilot-account"] == "personal"
        after = say(client, talk.say("and now?"))
        assert (after.status_code, after.headers["x-copilot-attempts"]) == (200, "1")
    assert len(fake.lost) == 1
    second.stop()
    assert not any(state.cooldowns for state in second.memory().accounts.values())


def test_what_is_owned_survives_a_restart(start, fake):
    """A tool loop goes back to its maker although another account is asked first."""
    fake.accounts[SPARE].default = lambda seen: DONE if b"function_call_output" in seen.body else USE
    for token in (WORK, PERSONAL):
        fake.accounts[token].default = limited(1)
    talk = begun("/responses").say()
    first = start("--set", "copilot_strategy=priority", "--set", "copilot_affinity=0")
    with first.client() as client:
        assert say(client, talk).headers["x-copilot-account"] == "spare"
    first.stop()
    for token in (WORK, PERSONAL):
        fake.accounts[token].default = DONE
    time.sleep(1)
    second = start("--set", "copilot_strategy=priority", "--set", "copilot_affinity=0", home=first.store.folder.parent)
    with second.client() as client:
        assert say(client, talk.results()).headers["x-copilot-account"] == "spare"
    assert fake.lost == []


def a_session(client):
    """A new session's token, and whose it is."""
    fetched = client.post(f"{API}/models/session", json={})
    return fetched.json()["session_token"], fetched.headers["x-copilot-account"]


def test_a_session_belongs_to_who_fetched_it(talking, fake):
    """A request with a session token goes to the account that fetched the session, whoever is next in order."""
    with talking.client() as client:
        token, first = a_session(client)
        talking.store.edit_decisions(lambda known: turned_off(known.find(first).id)(known))
        until(lambda: "read again" in talking.log, "the proxy to see that the account is off")
        other, second = a_session(client)
        talking.store.edit_decisions(lambda known: turned_on(known.find(first).id, 2.0)(known))
        until(lambda: talking.log.count("read again") == 2, "the proxy to see that the account is on")
        assert first != second
        for session, whose in ((token, first), (other, second), (token, first)):
            answer = client.post(
                f"{API}/chat/completions",
                json={"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]},
                headers={"copilot-session-token": session},
            )
            assert (answer.status_code, answer.headers["x-copilot-account"]) == (200, whose)
    assert fake.lost == []


def lost(fake, path: str) -> list[tuple]:
    """Who was asked for what, to the end: where a lost conversation comes from."""
    seen = [(one.account, one.body[-300:]) for one in fake.asked() if one.endpoint == path]
    return [(one.account, one.owner, one.text) for one in fake.lost] + seen[-6:]


@pytest.mark.timeout(1800)
def test_many_turns(start, fake):
    """Eight conversations in three API forms under random limits: nothing bound reaches an account that did not make it.

    A refusal reaches the client only inside a tool loop whose owner rests, or when everybody rests; after its time the
    conversation goes on. No account rests for a lost conversation.
    """
    turns, chance = int(os.environ.get("OWNERSHIP_TURNS", "300")), random.Random(7)
    told = Counter()

    def answer(seen):
        if chance.random() < 0.06:
            told["limits"] += 1
            return limited(1)
        if chance.random() < 0.02:
            told["faults"] += 1
            return Refuse(500, message="oops")
        return chance.choice([USE, DONE, DONE, Ok("Yes.", reasoning="Well.", redacted=True)])

    for account in fake.accounts.values():
        account.default = answer
    proxy = start("--set", "copilot_log=errors")
    talks = [begun(PATHS[number % 3], number) for number in range(8)]
    waits = dict.fromkeys(range(8), 0.0)
    stuck = Counter()
    with proxy.client() as client:
        while told["turns"] < turns:
            number = min(waits, key=waits.__getitem__)
            time.sleep(max(0.0, waits[number] - time.monotonic()))
            talk = talks[number]
            if len(talk.history) > 60 and not talk.in_tool_loop and not stuck[number]:
                talk = talks[number] = begun(talk.path, number + told["turns"])
            if not stuck[number]:  # else the same once more, as clients do
                talk.results() if talk.in_tool_loop else talk.say(f"turn {told['turns']}")
            got = say(client, talk)
            told["turns"] += 1
            told[got.status_code] += 1
            if got.status_code == 200:
                stuck[number], waits[number] = 0, time.monotonic()  # the others are next
                told["attempts"] += int(got.headers["x-copilot-attempts"])
                told["moved"] += "x-copilot-left-out" in got.headers
                continue
            assert got.status_code in (429, 500), (got.text, dict(got.headers), lost(fake, talk.path))
            stuck[number] += 1
            assert stuck[number] < 20, got.text
            waits[number] = time.monotonic() + float(got.headers.get("retry-after", 0.1))
    assert fake.lost == []
    assert told["moved"] > 0
    proxy.stop()
    reasons = {rest.reason for state in proxy.memory().accounts.values() for rest in state.cooldowns}
    assert "conversation" not in reasons
    print(dict(told))
