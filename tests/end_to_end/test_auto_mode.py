"""Auto mode through a real mitmdump: the request sequences of VS Code and opencode, with accounts that are limited."""

import json

import pytest

from copilot_balancer.fake.answers import Ok, Refuse, limited
from copilot_balancer.fake.bodies import AUTO_VERSION
from support.proxies import CLIENT, PERSONAL, SPARE, WORK, until

API = "https://api.githubcopilot.com"
PROMPT = "a-prompt-that-no-log-shows"
WEEKLY = Refuse(429, "user_weekly_rate_limited:pro", "You have reached your weekly limit.", (("retry-after", "90000"),))


class VsCode:
    """The newest one: ``POST /auto`` gives the model and the token of the chats that follow."""

    def __init__(self, client):
        self.client = client
        self.headers = {"x-github-api-version": AUTO_VERSION, "editor-version": "vscode/1.130.0"}

    def select(self):
        body = {"prompt": PROMPT, "has_image": False, "multi_turn": False, "tier": "balanced"}
        answer = self.client.post(f"{API}/auto", json=body, headers=self.headers)
        assert answer.status_code == 200, answer.text
        self.model = answer.json()["selected_model"]["id"]
        self.token = answer.json()["session_token"]
        return answer.headers["x-copilot-account"]

    def chat(self):
        body = {"model": self.model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
        headers = {**self.headers, "copilot-session-token": self.token}
        return self.client.post(f"{API}/chat/completions", json=body, headers=headers)


class Opencode(VsCode):
    """``POST /models/session``, then ``/models/session/intent`` with the token, then the chat. As older VS Code."""

    def __init__(self, client):
        super().__init__(client)
        self.headers = {"x-github-api-version": "2026-06-01", "user-agent": "opencode/1.18.33"}

    def select(self):
        hints = {"auto_mode": {"model_hints": ["auto"]}}
        session = self.client.post(f"{API}/models/session", json=hints, headers=self.headers)
        self.token = session.json()["session_token"]
        body = {"prompt": PROMPT, "available_models": session.json()["available_models"]}
        headers = {**self.headers, "copilot-session-token": self.token}
        intent = self.client.post(f"{API}/models/session/intent", json=body, headers=headers)
        assert intent.status_code == 200, intent.text
        assert intent.headers["x-copilot-account"] == session.headers["x-copilot-account"]
        self.model = intent.json()["chosen_model"]
        return session.headers["x-copilot-account"]


CLIENTS = [pytest.param(VsCode, id="vscode"), pytest.param(Opencode, id="opencode")]


@pytest.mark.parametrize("program", CLIENTS)
def test_a_limit_moves_the_chat(start, fake, program):
    """The session's account is limited: the same chat is served by another one, with that one's own session."""
    proxy = start("-w", "flows", "--set", "copilot_keep_bodies=100000")
    with proxy.client() as http:
        client = program(http)
        owner = client.select()
        first = client.chat()
        assert (first.status_code, first.headers["x-copilot-account"]) == (200, owner)
        token = next(key for key, account in fake.accounts.items() if account.name == owner)
        fake.accounts[token].default = limited(300)
        moved, again = client.chat(), client.chat()
        assert (moved.status_code, again.status_code) == (200, 200), moved.text
        assert moved.headers["x-copilot-account"] == again.headers["x-copilot-account"] != owner
        assert json.loads(fake.asked()[-1].body)["model"] == client.model
    assert fake.lost == [], "no account saw another one's token"
    selections = [seen for seen in fake.seen if seen.endpoint in ("/auto", "/models/session")]
    assert [seen.account for seen in selections] == [owner, moved.headers["x-copilot-account"]]
    assert selections[0].body == selections[1].body
    until(lambda: len(proxy.lines()) >= 4, "the lines")
    log = proxy.stop()
    kept = (proxy.folder / "flows").read_bytes()
    assert PROMPT not in log
    for secret in (client.token, fake.asked()[-1].header("copilot-session-token")):
        assert secret not in log
        assert secret.encode() not in kept
        assert all(
            secret not in path.read_text(errors="replace") for path in proxy.store.folder.iterdir() if path.is_file()
        )
    assert b"[session]" in kept


@pytest.mark.parametrize("program", CLIENTS)
def test_another_model_is_no_way_out(start, fake, program):
    """Another account's session does not allow the chat's model: the refusal reaches the client, then it selects anew."""
    fake.accounts[WORK].models = ("gpt-5.4",)
    for token in (PERSONAL, SPARE):
        fake.accounts[token].models = ("claude-sonnet-4.6",)
    proxy = start()
    with proxy.client() as http:
        client = program(http)
        while client.select() != "work":
            pass
        fake.accounts[WORK].default = limited(300)
        refused = client.chat()
        assert (refused.status_code, refused.json()["error"]["code"].partition(":")[0]) == (
            429,
            "user_global_rate_limited",
        )
        assert client.select() != "work"
        assert client.chat().status_code == 200
    assert fake.lost == []


def test_the_weekly_limit_leaves_auto(start, fake):
    """Every account is at its weekly limit: Auto goes on where the account still takes it."""
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = WEEKLY
    proxy = start()
    assert proxy.post().status_code == 429
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = Ok()
    assert proxy.post().status_code == 429
    with proxy.client() as http:
        client = VsCode(http)
        client.select()
        assert client.chat().status_code == 200


def test_a_foreign_session_token(start, fake):
    """A session that was not fetched through this proxy travels with the client's own credential."""
    proxy = start()
    with proxy.client() as http:
        client = VsCode(http)
        client.model, client.token = "gpt-4.1", "somebody-elses-session"
        client.chat()
    assert fake.seen[-1].token == CLIENT
    assert fake.seen[-1].header("copilot-session-token") == "somebody-elses-session"
