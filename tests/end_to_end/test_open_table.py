"""Refusals that people have reported, and some that nobody has: through a real mitmdump to a client.

Accounts work, personal and spare; work refuses, the others serve. Bodies are as reporters gave them.
"""

import json

import pytest

from copilot_balancer.fake.answers import Ok, Refuse, StreamError
from support.proxies import PERSONAL, SPARE, WORK, until

HTML = b"<!DOCTYPE html><html><head><title>Blocked</title></head></html>"
VISION = "vision is not enabled for this organization"


def refuse(status, message="", code="", *headers, kind="application/json", body=None):
    return Refuse(status, code, message, headers, kind, body)


ROWS = {
    "R1 400 nested": (refuse(400, VISION), ["work", "other"]),
    "R1 403 nested": (refuse(403, VISION), ["work", "other"]),
    "R1 403 text": (refuse(403, VISION, kind="text/plain"), ["work", "other"]),
    "R1 400 flat": (refuse(400, body=json.dumps({"message": VISION}).encode()), ["work", "other"]),
    "R2 403 forbidden": (refuse(403, "forbidden", "forbidden"), ["work", "work", "other"]),
    "R2 403 empty": (refuse(403, body=b""), ["work", "work", "other"]),
    "R2 403 token expired": (refuse(403, "token expired", kind="text/plain"), ["work", "work", "other"]),
    "R4 403 access denied": (refuse(403, "access denied"), ["work", "work", "other"]),
    "R5 400 Editor-Version": (
        refuse(400, "bad request: missing Editor-Version header for IDE auth", kind="text/plain"), ["work", "other"]
    ),
    "R6 400 PAT": (refuse(400, "Personal Access Tokens are not supported for this endpoint"), ["work", "other"]),
    "R6 401 HMAC": (refuse(401, "failed to validate HMAC for Integration-ID"), ["work", "other"]),
    "R6 403 integration": (refuse(403, "not authorized for this integration"), ["work", "other"]),
    "R6 400 unknown integration": (refuse(400, "unknown integration"), ["work", "other"]),
    "R7 403 new code": (refuse(403, "computer says no", "surprise_me"), ["work", "work", "other"]),
    "R7 429 new code": (refuse(429, "computer says no", "surprise_me"), ["work", "other"]),
    "R7 524": (refuse(524, "timeout", kind="text/plain"), ["work", "other"]),
    "R8 server_is_overloaded": (StreamError("server_is_overloaded", "busy"), ["work", "other"]),
    "R8 rate_limit_exceeded": (StreamError("rate_limit_exceeded", "no"), ["work", "other"]),
    "R8 slow_down": (StreamError("slow_down", "no"), ["work", "other"]),
    "R8 too_many_requests": (StreamError("too_many_requests", "no"), ["work", "other"]),
    "R8 insufficient_quota": (StreamError("insufficient_quota", "no"), ["work", "other"]),
    "R8 only a text": (StreamError("", "The server is overloaded"), ["work", "other"]),
    "R8 additional spend": (StreamError("additional_spend_limit_reached", "no"), ["work", "other"]),
    "410": (refuse(410, "gone", kind="text/plain"), ["work", "other"]),
    "404 model_not_found": (refuse(404, "no such model", "model_not_found"), ["work", "other"]),
    "S6 429 new code with a wait": (refuse(429, "no", "surprise_me", ("Retry-After", "30")), ["work", "other"]),
}  # fmt: skip


def asked(fake):
    return ["work" if seen.account == "work" else "other" for seen in fake.asked()]


@pytest.mark.parametrize("row", ROWS)
def test_another_account_serves(proxy, fake, row):
    """The client is served, after one repair at most, and the accounts that served are used again at once."""
    answer, order = ROWS[row]
    fake.accounts[WORK].default = answer
    served = proxy.post(model="gpt-4.1")
    assert (served.status_code, asked(fake)) == (200, order)
    assert "Hello" in served.text
    assert proxy.post(model="gpt-4.1").status_code == 200


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/v1/messages"])
def test_an_overload_inside_a_stream_is_asked_elsewhere(proxy, fake, path):
    """In each of the three forms, before any output."""
    fake.accounts[WORK].default = StreamError("server_is_overloaded", "busy", event="failed")
    body = {"input": "hi", "messages": None} if path == "/responses" else {"max_tokens": 9}
    assert "Hello" in proxy.post(path, **body).text
    assert asked(fake) == ["work", "other"]


def test_a_wait_of_the_server_is_kept_by_every_account(proxy, fake):
    """All accounts are asked to wait: six further requests send nothing upstream."""
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = refuse(429, "busy", "model_overloaded", ("Retry-After", "60"))
    proxy.post(model="gpt-4.1")
    proxy.post(model="gpt-4.1")
    sent = len(fake.asked())
    assert sent <= 3
    for _ in range(6):
        assert proxy.post(model="gpt-4.1").status_code == 429
    assert len(fake.asked()) == sent


def test_what_another_client_is_refused_is_no_fault_of_the_account(proxy, fake):
    """The account goes on serving clients with another identity."""
    refusal = refuse(400, "bad request: missing Editor-Version header for IDE auth", kind="text/plain")
    fake.accounts[WORK].default = lambda seen: Ok() if "editor-version" in seen.headers else refusal
    proxy.post(model="gpt-4.1")
    with proxy.client(SPARE) as client:
        body = {"model": "gpt-4.1", "stream": True}
        editor = {"editor-version": "vscode/1.104.0", "copilot-integration-id": "vscode-chat"}
        for number in range(3):
            body["messages"] = [{"role": "user", "content": f"hello {number}"}]
            client.post("https://api.githubcopilot.com/chat/completions", json=body, headers=editor)
    assert asked(fake)[:2] == ["work", "other"]
    assert "work" in asked(fake)[2:]


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (refuse(404, "nothing here", kind="text/plain"), "its status says that it is about the request"),
        (refuse(400, "no such field", "invalid_request_body"), "another account would answer the same"),
        (Refuse(403, content_type="text/html", body=HTML), "nothing is known about this refusal"),
    ],
    ids=["by its status", "by its code", "a page"],
)
def test_no_more_is_claimed_than_is_known(proxy, fake, refusal, why):
    """What reaches the client at once says in the log why no other account was asked."""
    fake.accounts[WORK].default = refusal
    answer = proxy.post(model="gpt-4.1")
    assert (answer.status_code, asked(fake)) == (refusal.status, ["work"])
    until(proxy.lines, "a line")
    assert why in proxy.lines()[0]


def test_an_unknown_refusal_of_everybody_reaches_the_client_and_is_kept(proxy, fake):
    """One other account is asked; the client gets the refusal as it came, nobody rests, and a report can tell it."""
    words = "the grandmother's secret recipe"
    refusal = refuse(403, f"computer says no to {words}", "surprise_me")
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = refusal
    answer = proxy.post(model="gpt-4.1", messages=[{"role": "user", "content": words}])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "surprise_me")
    assert asked(fake) == ["work", "work", "other"]
    path = proxy.store.folder / "unknown.json"
    until(path.exists, "the refusal on disk")
    assert "computer says no to" in path.read_text()
    assert "grandmother" not in path.read_text()
    events = proxy.store.folder / "events.jsonl"
    until(events.exists, "the event on disk")
    assert "surprise_me" in events.read_text()
    assert "grandmother" not in events.read_text()
    assert not any(state.cooldowns for state in proxy.memory().accounts.values())
