"""Auto mode: whose a session token is, and which token stands for it while its account is limited."""

import asyncio
import json
import time
from dataclasses import replace

import pytest

from copilot_balancer import config
from copilot_balancer.copilot.auto_mode import read_selection
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.https import Response
from copilot_balancer.rules.sessions import MAX_BYTES, MAX_KEPT, Selections, session_hash
from support.exchanges import Rig, runtime
from support.pools import account

TWO = ("work", "home")
PROMPT = "a secret prompt"
DAY = 86400


def selected(token, model="gpt-5", expires_in=DAY, **more):
    """The answer to ``POST /auto``."""
    return {
        "session_token": token,
        "expires_at": time.time() + expires_in,
        "selected_model": {"id": model, "name": model},
        "hydra_scores": {},
        **more,
    }


class Others:
    """Answers the selections that the proxy asks once more."""

    def __init__(self, document=None, status=200, error=None):
        self.document, self.status, self.error = document, status, error
        self.asked = []

    async def __call__(self, account, _bearer, kept, seconds):
        assert 0 < seconds <= 15
        self.asked.append((account.label, kept.path, json.loads(kept.body), dict(kept.headers)))
        if self.error:
            raise self.error
        return Response("api.githubcopilot.com", self.status, {}, json.dumps(self.document).encode())


class Client:
    """A client in Auto mode, over one proxy."""

    def __init__(self, *accounts, others=None, **more):
        self.others = others or Others(selected("token-of-home"))
        self.live = runtime(*(accounts or TWO), select=self.others, **more)

    async def selection(self, document, path="/auto", token=None, **headers):
        """Ask for a selection, which is answered with `document`; the request."""
        fields = {"x-github-api-version": "2026-08-01", "user-agent": "GitHubCopilotChat/0.50", **headers}
        if token:
            fields["copilot-session-token"] = token
        rig = Rig(live=self.live, path=path, headers=fields.items(), body={"prompt": PROMPT, "tier": "balanced"})
        rig.whose = await rig.send()
        rig.dressed = rig.outgoing()
        rig.got = rig.answers(document)
        rig.record = rig.ends()
        return rig

    async def chat(self, token, *refusals, model="gpt-5", **more):
        """A chat that meets these refusals; the request, ``whose`` in the end."""
        body = {"model": model, "messages": [], "stream": True}
        headers = [("copilot-session-token", token), *more.pop("headers", ())]
        rig = Rig(live=self.live, headers=headers, body=body, **more)
        rig.whose = [await rig.send()]
        for refused in refusals:
            refusal = rig.arrives(*refused)
            await rig.exchange.judge(refusal)
            if not refusal.again:
                break
            rig.flow.response = None
            rig.whose.append(await rig.send())
        return rig


def play(test):
    return asyncio.run(test())


LIMITED = (429, "user_global_rate_limited:pro", "limit", [("retry-after", "300")])
WEEKLY = (429, "user_weekly_rate_limited:pro", "weekly", [("retry-after", "90000")])


def test_a_session_belongs_to_who_served_it():
    """A chat with a session token goes to the account that served the selection, with the client's own token."""

    async def run():
        client = Client()
        selection = await client.selection(selected("token-of-work"))
        chat = await client.chat("token-of-work")
        assert (selection.whose, chat.whose) == ("work", ["work"])
        assert chat.outgoing()["copilot-session-token"] == "token-of-work"

    play(run)


def test_the_flow_shows_no_token():
    """The client gets the session token; the flow shows ``[session]``, whatever the encoding of the response."""

    async def run():
        client = Client()
        selection = await client.selection(selected("token-of-work"))
        assert json.loads(selection.got)["session_token"] == "token-of-work"
        shown = selection.flow.response.text
        assert '"session_token": "[session]"' in shown
        assert "token-of-work" not in shown + repr(selection.flow) + repr(client.live.selections.__dict__)

    play(run)


def test_nothing_of_a_prompt_is_on_disk_or_in_a_repr():
    """What goes to disk is the hash of the token, its account and when it ends."""

    async def run():
        client = Client()
        await client.selection(selected("token-of-work"))
        kept = client.live.ownership.hashes
        assert list(kept) == [session_hash("token-of-work")]
        owned = kept[session_hash("token-of-work")]
        assert owned.account_id == "github.com:work"
        assert owned.expires_at == pytest.approx(time.time() + DAY, abs=60)
        assert PROMPT not in repr(client.live.selections.of(session_hash("token-of-work"), time.time()))

    play(run)


def test_another_account_takes_over():
    """The account is limited: the client's selection is asked of another one, and the chat goes there with its token.

    The client's token stands for that one from then on, without another selection.
    """

    async def run():
        client = Client()
        await client.selection(selected("token-of-work"))
        chat = await client.chat("token-of-work", LIMITED)
        assert chat.whose == ["work", "home"]
        assert chat.outgoing()["copilot-session-token"] == "token-of-home"
        assert client.others.asked == [
            (
                "home",
                "/auto",
                {"prompt": PROMPT, "tier": "balanced"},
                {
                    "user-agent": "GitHubCopilotChat/0.50",
                    "x-github-api-version": "2026-08-01",
                    "content-type": "application/json",
                },
            )
        ]
        assert "Auto session of its own" in chat.exchange.upstream.attempt.why
        chat.answers(content=b"data: {}\n\n", kind="text/html+x")
        again = await client.chat("token-of-work")
        assert (again.whose, again.outgoing()["copilot-session-token"]) == (["home"], "token-of-home")
        assert len(client.others.asked) == 1

    play(run)


def test_the_account_rests_already():
    """Nothing is sent with a limited account: the selection is asked of another one at once."""

    async def run():
        client = Client()
        await client.selection(selected("token-of-work"))
        await client.chat("token-of-work", LIMITED)
        client.live.selections.of(session_hash("token-of-work"), time.time()).stand_in = None
        assert (await client.chat("token-of-work")).whose == ["home"]
        assert len(client.others.asked) == 2

    play(run)


@pytest.mark.parametrize(
    ("others", "noted"),
    [
        pytest.param(Others(selected("t", "gpt-4.1")), "home has no Auto session for gpt-5", id="another model"),
        pytest.param(Others({"error": "no"}), "home gave no Auto session", id="no session"),
        pytest.param(Others({"error": {"code": "rate_limited"}}, 429), "", id="limited as well"),
        pytest.param(Others({}, 404), "", id="not there"),
        pytest.param(Others(error=UpstreamError("it is away")), "", id="no answer"),
    ],
)
def test_the_refusal_stands(others, noted):
    """Where no other account allows exactly this model, the client gets the refusal as it came, and its token stays."""

    async def run():
        client = Client(others=others)
        await client.selection(selected("token-of-work"))
        chat = await client.chat("token-of-work", LIMITED)
        assert chat.whose == ["work"]
        assert chat.flow.response.status_code == 429
        assert chat.flow.response.json()["error"]["code"] == "user_global_rate_limited:pro"
        assert noted in chat.exchange.note
        assert [label for label, *_ in others.asked] == ["home"]
        assert chat.flow.request.headers["copilot-session-token"] == "[client]"

    play(run)


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        pytest.param({"expires_in": -1}, LIMITED, id="past its end"),
        pytest.param({"expires_at": None}, LIMITED, id="no end named"),
        pytest.param({}, (400, "invalid_request_body"), id="a fault of the request"),
        pytest.param({}, (400, "", "Requested model not available for session"), id="not in its session"),
    ],
)
def test_nobody_else_is_asked(changed, refused):
    """Only a limit of an account whose session has not ended makes the proxy ask another account."""

    async def run():
        client = Client()
        await client.selection(selected("token-of-work", **changed))
        chat = await client.chat("token-of-work", refused)
        assert (chat.whose, chat.flow.response.status_code) == (["work"], refused[0])
        assert client.others.asked == []

    play(run)


def test_after_a_restart():
    """The account of a token is known after a restart; the selection is not, so the refusal reaches the client."""

    async def run():
        before = Client()
        await before.selection(selected("token-of-work"))
        after = Client()
        after.live.ownership = before.live.ownership
        chat = await after.chat("token-of-work", LIMITED)
        assert (chat.whose, chat.flow.response.status_code, after.others.asked) == (["work"], 429, [])

    play(run)


def test_the_next_selection_goes_elsewhere():
    """After a limit the client's next selection goes to another account."""

    async def run():
        client = Client(others=Others({}, 404))
        await client.selection(selected("token-of-work"))
        await client.chat("token-of-work", LIMITED)
        assert (await client.selection(selected("token-of-home"), token="token-of-work")).whose == "home"

    play(run)


def test_a_refresh_carries_its_token_to_its_account_alone():
    """A new selection that carries the old token is asked of its account with it, of another one without it."""

    async def run():
        client = Client(others=Others({}, 404))
        first = await client.selection(selected("t1"), path="/models/session")
        same = await client.selection(selected("t2"), path="/models/session", token="t1")
        await client.chat("t2", LIMITED)
        other = await client.selection(selected("t3"), path="/models/session", token="t2")
        assert [one.whose for one in (first, same, other)] == ["work", "work", "home"]
        assert same.dressed["copilot-session-token"] == "t1"
        assert "copilot-session-token" not in other.dressed

    play(run)


def test_the_intent_goes_where_its_session_is():
    """``/models/session/intent`` is about an existing session: its account alone is asked."""

    async def run():
        client = Client()
        await client.selection(selected("t1", available_models=["gpt-5"]), path="/models/session")
        client.live.decisions = client.live.decisions.model_copy(update={"home_id": "github.com:home"})
        client.live.pool.replace(client.live.decisions, client.live.now())
        intent = await client.selection({"chosen_model": "gpt-5"}, path="/models/session/intent", token="t1")
        assert (intent.whose, intent.dressed["copilot-session-token"]) == ("work", "t1")

    play(run)


@pytest.mark.parametrize(("own", "expected"), [("gho_own", "client's own"), (PLACEHOLDER, 403)], ids=["login", "none"])
def test_an_unknown_token(own, expected):
    """A session token that nobody fetched through this proxy goes out with the client's own credential, or not."""

    async def run():
        chat = await Client().chat("somebody else's", headers=[("authorization", f"Bearer {own}")])
        assert str(chat.whose[0]).startswith(str(expected))

    play(run)


def test_the_weekly_limit_does_not_bar_auto():
    """An account at its weekly limit serves Auto as long as it takes it; a refusal there ends that."""

    async def run():
        client = Client("work")
        plain = Rig(live=client.live, body={"model": "gpt-5"})
        assert await plain.send() == "work"
        await plain.exchange.judge(plain.arrives(*WEEKLY))
        refused = Rig(live=client.live, body={"model": "gpt-5"})
        assert await refused.send() == 429
        assert (await client.selection(selected("t"))).whose == "work"
        served = await client.chat("t")
        assert served.whose == ["work"]
        served.answers(content=b"x", kind="text/plain")
        assert await Rig(live=client.live, body={"model": "gpt-5"}).send() == 429, "it proves nothing about the rest"
        await client.chat("t", WEEKLY)
        assert (await client.chat("t")).whose == [429]

    play(run)


def test_a_free_account_before_a_limited_one():
    """A selection asks an account without any limit before one at its weekly limit."""

    async def run():
        client = Client(account("work", priority=1), account("home", priority=2), strategy="priority")
        plain = Rig(live=client.live, body={"model": "gpt-5"})
        await plain.send()
        await plain.exchange.judge(plain.arrives(*WEEKLY))
        assert (await client.selection(selected("t"))).whose == "home"

    play(run)


def test_a_websocket_changes_no_account():
    """The handshake goes to the account of its token; a limit there is not moved: no frame has named a model yet."""

    async def run():
        client = Client()
        await client.selection(selected("t"))
        headers = [("copilot-session-token", "t"), ("upgrade", "websocket")]
        socket = Rig(live=client.live, method="GET", path="/responses", headers=headers)
        assert await socket.send() == "work"
        assert socket.outgoing()["copilot-session-token"] == "t"
        refusal = socket.arrives(*LIMITED)
        await socket.exchange.judge(refusal)
        assert (refusal.again, client.others.asked) == (False, [])

    play(run)


def test_the_user_named_an_account():
    """A name in the proxy URL holds: no other account takes over, and another account's session is refused."""

    async def run():
        client = Client()
        await client.selection(selected("t"))
        named = await client.chat("t", LIMITED, proxy_user="work")
        assert (named.whose, client.others.asked) == (["work"], [])
        other = await client.chat("t", proxy_user="home")
        assert other.whose == [403]
        assert "another account's" in other.flow.response.text

    play(run)


def test_no_more_sends_than_allowed():
    """The selection counts as a send: where only one more is allowed the refusal stands."""

    async def run():
        client = Client(settings=config.Settings(max_attempts=2))
        await client.selection(selected("t"))
        chat = await client.chat("t", LIMITED)
        assert (chat.whose, client.others.asked) == (["work"], [])

    play(run)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_bounds():
    """At most 200 selections of at most 64 KB are kept, the newest."""
    kept = Selections()
    chosen = read_selection(selected("t"))
    for number in range(MAX_KEPT + 5):
        kept.keep(
            replace(chosen, token=f"t{number}"), path="/auto", body=b"x", headers={}, expires_at=chosen.expires_at
        )
    kept.keep(replace(chosen, token="big"), path="/auto", body=b"x" * MAX_BYTES, headers={}, expires_at=1e12)
    known = [number for number in range(MAX_KEPT + 5) if kept.of(session_hash(f"t{number}"), 0.0)]
    assert known == list(range(5, MAX_KEPT + 5))
    assert kept.of(session_hash("big"), 0.0) is None
