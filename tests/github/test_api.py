"""GitHub's word about a token: every answer, good and bad, and what a token may never do."""

import gc
import json
import socket
import time
import traceback
from collections import deque

import certifi
import httpx
import pytest
from pydantic import SecretStr

from copilot_balancer.copilot.hosts import API_HOSTS
from copilot_balancer.errors import BalancerError, InvalidInput, UpstreamError
from copilot_balancer.fake.answers import FakeAccount
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.server import running
from copilot_balancer.github.api import Access, GitHub, Identity, free_plan, read_api_host
from copilot_balancer.github.tokens import ExchangeRefused
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.catalogue import Listed
from copilot_balancer.rules.types import Reason

CANARY = "gho_" + "Canary7Canary7Canary7Canary7Canary7x"
TOKEN = SecretStr(CANARY)
USER = {"login": "octocat", "id": 583231}
COPILOT = {
    "login": "octocat",
    "copilot_plan": "business",
    "access_type_sku": "copilot_for_business_seat_quota",
    "endpoints": {"api": "https://api.business.githubcopilot.com"},
    "quota_reset_date_utc": "2026-12-01T00:00:00.000Z",
    "quota_snapshots": {"premium_interactions": {"percent_remaining": 68.1, "entitlement": 300, "remaining": 204}},
}


MINTED = "tid=CanaryMinted;exp=1790001500;sku=x"
EXCHANGED = {
    "token": MINTED,
    "expires_at": 1790001500,
    "refresh_in": 1200,
    "endpoints": {"api": "https://api.business.githubcopilot.com"},
}
MODELS = {"data": [{"id": "gpt-4.1", "billing": {"is_premium": False}}, {"id": "o9"}]}


class Scripted:
    """A GitHub with one answer for each path (or a list, one for each question), and what it was asked."""

    def __init__(self, user=None, copilot=None, exchange=None, models=None):
        self.answers = {
            "/user": user,
            "/copilot_internal/user": copilot,
            "/copilot_internal/v2/token": exchange,
            "/models": deque(models) if isinstance(models, list) else models,
        }
        self.defaults = {
            "/user": USER,
            "/copilot_internal/user": COPILOT,
            "/copilot_internal/v2/token": EXCHANGED,
            "/models": MODELS,
        }
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[request.url.path]
        answer = answer.popleft() if isinstance(answer, deque) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else httpx.Response(200, json=self.defaults[request.url.path])

    @property
    def github(self):
        return GitHub(httpx.MockTransport(self))

    @property
    def told(self) -> list[str]:
        """Which credential went where."""
        return [
            f"{one.url.host} {one.headers['authorization'].replace(CANARY, 'RAW').replace(MINTED, 'MINTED')}"
            for one in self.asked
        ]

    def whoami(self, token: SecretStr = TOKEN, host: str = "github.com"):
        return GitHub(httpx.MockTransport(self)).whoami(token, host)


def whole_story(error: BaseException) -> str:
    """Everything that a traceback with locals could print about `error` and what it is chained to."""
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return f"{told}\n{error!r}\n{error.args}"


def refused(scripted: Scripted, ask=None, **question) -> str:
    with pytest.raises(BalancerError) as caught:
        (ask or scripted.whoami)(**question)
    story = whole_story(caught.value)
    assert CANARY not in story
    assert MINTED not in story
    assert caught.value.__context__ is None, "httpx's exceptions hold the request"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ── what is learnt ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_identity():
    """GitHub's two answers become id, login, plan, SKU, API host and quota."""
    identity = Scripted().whoami()

    assert (identity.id, identity.login) == ("github.com:583231", "octocat")
    assert (identity.plan, identity.sku) == ("business", "copilot_for_business_seat_quota")
    assert (identity.api_host, identity.api_host_named) == ("api.business.githubcopilot.com", True)
    assert identity.quota["premium"].percent_left == 68.1
    assert identity.warnings == ()
    assert CANARY not in repr(identity)


def test_requests():
    """Each question goes to the exact API host with our own name, the token in the form that GitHub asks for, and no more."""
    scripted = Scripted()

    scripted.whoami()

    assert [str(request.url) for request in scripted.asked] == [
        "https://api.github.com/user",
        "https://api.github.com/copilot_internal/user",
    ]
    for request in scripted.asked:
        assert request.method == "GET"
        assert request.headers["authorization"] == f"token {CANARY}"
        assert request.headers["accept"] == "application/json"
        assert request.headers["user-agent"].startswith("copilot-balancer/")
    assert [request.headers["x-github-api-version"] for request in scripted.asked] == ["2022-11-28", "2025-04-01"]


def test_enterprise_domain():
    """An account of NAME.ghe.com is asked about there, and lives on that domain's API host."""
    copilot = {**COPILOT, "endpoints": {"api": "https://copilot-api.acme.ghe.com/"}}
    scripted = Scripted(copilot=httpx.Response(200, json=copilot))

    identity = scripted.whoami(host="https://Acme.ghe.com/")

    assert {request.url.host for request in scripted.asked} == {"api.acme.ghe.com"}
    assert (identity.id, identity.api_host) == ("acme.ghe.com:583231", "copilot-api.acme.ghe.com")


@pytest.mark.parametrize("status", [403, 404])
def test_token_that_may_not_ask_about_copilot(status):
    """A token whose app may not ask about Copilot, as opencode's, still has an identity; a warning says what is unknown."""
    identity = Scripted(copilot=httpx.Response(status, json={"message": "Not Found"})).whoami()

    assert (identity.id, identity.plan, identity.sku) == ("github.com:583231", None, None)
    assert (identity.api_host, identity.api_host_named) == ("api.githubcopilot.com", False)
    (warning,) = identity.warnings
    assert "no Copilot, or the token's app may not ask for it" in warning


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        pytest.param({"endpoints": {"api": "https://api.githubcopilot.com.evil.test"}}, "evil", id="foreign host"),
        pytest.param({"endpoints": {"api": 7}}, "not the URL", id="not a string"),
        pytest.param({"endpoints": {}}, "names no API host", id="no api"),
        pytest.param({"endpoints": "https://api.githubcopilot.com"}, "names no API host", id="not an object"),
        pytest.param({}, "names no API host", id="no endpoints"),
    ],
)
def test_api_host_that_is_not_believed(facts, said):
    """An API host that is missing or not GitHub's is replaced by the default one, and a warning says so."""
    identity = Scripted(copilot=httpx.Response(200, json=facts)).whoami()

    assert (identity.api_host, identity.api_host_named) == ("api.githubcopilot.com", False)
    (warning,) = identity.warnings
    assert said in warning
    assert "api.githubcopilot.com is taken" in warning


@pytest.mark.parametrize(
    "word", [7, None, "", "x" * 65, "pro\x1b[31m", "a b", ["individual"]], ids=lambda word: repr(word)[:20]
)
def test_plan_that_is_no_word(word):
    """A plan or SKU that is not one short printable word is not taken over."""
    identity = Scripted(copilot=httpx.Response(200, json={**COPILOT, "copilot_plan": word, "access_type_sku": word}))

    assert (identity.whoami().plan, identity.whoami().sku) == (None, None)


@pytest.mark.parametrize(
    ("plan", "sku", "free", "name"),
    [
        ("free", None, True, "free"),
        ("individual", "free_limited_copilot", True, "free"),
        (None, "free_limited_copilot_quota", True, "free"),
        ("individual", "free_educational_quota", False, "individual"),
        ("individual_edu", "free_educational", False, "individual_edu"),
        ("individual", "monthly_subscriber_quota", False, "individual"),
        ("business", "copilot_for_business_seat_quota", False, "business"),
        (None, "copilot_enterprise_seat_quota", False, "copilot_enterprise_seat_quota"),
        (None, None, False, None),
    ],
)
def test_free_plan(plan, sku, free, name):
    """Copilot Free is told by plan or SKU, a student's free Pro is not it, and what is stored says the same later."""
    identity = Scripted(copilot=httpx.Response(200, json={"copilot_plan": plan, "access_type_sku": sku})).whoami()

    assert free_plan(plan, sku) is free
    assert identity.plan_name == name
    assert free_plan(identity.plan_name, None) is free


@pytest.mark.parametrize("host", sorted(API_HOSTS))
def test_api_urls_that_are_taken(host):
    """The URL of each of GitHub's API hosts is read."""
    assert read_api_host(f"https://{host}", "github.com") == host


@pytest.mark.parametrize(
    "url",
    [
        "http://api.githubcopilot.com",
        "https://api.githubcopilot.com.evil.test",
        "https://evil.test/api.githubcopilot.com",
        "https://api.githubcopilot.com:8443",
        "https://api.githubcopilot.com@evil.test",
        "https://user@api.githubcopilot.com",
        "https://api.githubcopilot.com/path",
        "https://api.githubcopilot.com//",
        "https://api.githubcopilot.com.",
        "https://127.0.0.1",
        "https://xn--pi-fga.githubcopilot.com",
        "https://proxy.individual.githubcopilot.com",
        "https://copilot-api.acme.ghe.com",
        "https://api.githubcopilot.com\r\nx: y",
        "",
        None,
        7,
    ],
    ids=repr,
)
def test_api_urls_that_are_refused(url):
    """No other URL names an API host of a github.com account."""
    with pytest.raises(InvalidInput):
        read_api_host(url, "github.com")


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(httpx.Response(401, json={}), "GitHub does not accept this token (api.github.com", id="401"),
        pytest.param(httpx.Response(429), "api.github.com takes no more questions for now (HTTP 429)", id="429"),
        pytest.param(httpx.Response(301), "api.github.com answered with a redirect", id="301"),
        pytest.param(httpx.Response(400), "api.github.com refuses (HTTP 400)", id="400"),
        pytest.param(httpx.Response(500), "api.github.com has trouble of its own (HTTP 500)", id="500"),
        pytest.param(httpx.Response(200, content=b"<html>"), "something that is not a JSON object", id="HTML"),
        pytest.param(httpx.Response(200, content=b" " * (1 << 19)), "more than 256 KB", id="huge"),
        pytest.param(httpx.ConnectError("no"), "api.github.com cannot be reached", id="no network"),
    ],
)
@pytest.mark.parametrize("path", ["user", "copilot"])
def test_refusals(path, answer, said):
    """Every refusal is one clear sentence that names the host and holds no token."""
    assert said in refused(Scripted(**{path: answer}))


@pytest.mark.parametrize("status", [403, 404])
def test_nobody(status):
    """Who may not even ask whose token it is gets a refusal, not an account without a name."""
    assert f"HTTP {status}" in refused(Scripted(user=httpx.Response(status)))


@pytest.mark.parametrize(
    "person",
    [
        {"login": "octocat"},
        {"login": "octocat", "id": "583231"},
        {"login": "octocat", "id": True},
        {"login": "octocat", "id": 1.5},
        {"login": "octocat", "id": -1},
        {"id": 583231},
        {"login": "octo\ncat", "id": 583231},
        {"login": "x" * 101, "id": 583231},
        {"login": ["octocat"], "id": 583231},
    ],
    ids=json.dumps,
)
def test_person_that_makes_no_sense(person):
    """An answer without a usable number and login is nobody."""
    assert "did not say whose token" in refused(Scripted(user=httpx.Response(200, json=person)))


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"token": SecretStr("short")}, "not a token"),
        ({"token": SecretStr(f"{CANARY}\r\nx: y")}, "not a token"),
        ({"host": "github.com.evil.test"}, "not a login host"),
        ({"host": "acme.ghe.com:8443"}, "not a login host"),
    ],
    ids=["short token", "token with a line break", "foreign host", "host with a port"],
)
def test_unusable_question(question, said):
    """A token that cannot stand in a header, and a host that is not GitHub's, are refused before anything is sent."""
    scripted = Scripted()

    assert said in refused(scripted, **question)
    assert scripted.asked == []


# ── quota ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_usage():
    """Quota, plan and the raw answer come back; what says more than that is named but not shown."""
    told = {**COPILOT, "analytics_tracking_id": "Canary", "organization_list": [{"login": "Canary"}], "new\n": 7}
    scripted = Scripted(copilot=httpx.Response(200, json=told))

    usage = scripted.github.usage(TOKEN)

    assert (usage.plan, usage.sku) == ("business", "copilot_for_business_seat_quota")
    assert usage.windows["premium"].percent_left == 68.1
    assert usage.raw["quota_snapshots"] == COPILOT["quota_snapshots"]
    assert usage.raw["analytics_tracking_id"] == usage.raw["organization_list"] == usage.raw["new\\n"] == "(not shown)"
    assert "Canary" not in repr(usage)
    assert [request.url.path for request in scripted.asked] == ["/copilot_internal/user"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(404), "tells nothing about quota (HTTP 404)"),
        (httpx.Response(403), "tells nothing about quota (HTTP 403)"),
        (httpx.Response(403, headers={"retry-after": "9"}), "no more questions for now"),
        (httpx.Response(401), "does not accept this token"),
        (httpx.ReadTimeout("late"), "did not answer in time"),
    ],
    ids=["404", "403", "rate limit", "401", "late"],
)
def test_no_usage(answer, said):
    """Where GitHub does not tell, one sentence says why."""
    scripted = Scripted(copilot=answer)

    assert said in refused(scripted, scripted.github.usage, token=TOKEN)


# ── exchange ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_exchange():
    """A GitHub token becomes a short-lived one with its end, its refresh and its own API host."""
    scripted = Scripted()

    found = scripted.github.exchange(TOKEN)

    assert (found.token.get_secret_value(), found.expires_at, found.refresh_in) == (MINTED, 1790001500.0, 1200.0)
    assert found.api_host == "api.business.githubcopilot.com"
    assert scripted.told == ["api.github.com token RAW"]
    assert scripted.asked[0].url.path == "/copilot_internal/v2/token"
    assert "Canary" not in repr(found)


@pytest.mark.parametrize(
    ("facts", "host"),
    [
        ({"endpoints": {"api": "https://api.githubcopilot.com.evil.test"}}, None),
        ({"endpoints": None}, None),
        ({}, "api.business.githubcopilot.com"),
    ],
    ids=["foreign", "none", "named"],
)
def test_host_of_an_exchange(facts, host):
    """An API host that is not GitHub's is none."""
    scripted = Scripted(exchange=httpx.Response(200, json={**EXCHANGED, **facts}))

    assert scripted.github.exchange(TOKEN).api_host == host


def test_exchange_without_a_refresh():
    """Without a word about the refresh it is five minutes before the end."""
    facts = {**EXCHANGED, "expires_at": time.time() + 1000, "refresh_in": None}
    found = Scripted(exchange=httpx.Response(200, json=facts)).github.exchange(TOKEN)

    assert found.refresh_in == pytest.approx(700, abs=5)


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        (httpx.Response(401, json={"message": "Bad credentials"}), Reason.NEEDS_LOGIN, "HTTP 401: Bad credentials"),
        (httpx.Response(404, json={"message": "Not Found"}), Reason.NO_ACCESS, "HTTP 404: Not Found"),
        (
            httpx.Response(403, json={"error_details": {"notification_id": "spammy_user", "message": "no"}}),
            Reason.BLOCKED,
            "HTTP 403: no",
        ),
        (httpx.Response(403, json={"message": f"not {CANARY}"}), Reason.NO_ACCESS, "not [token]"),
    ],
    ids=["dead", "app", "blocked", "echo"],
)
def test_refused_exchange(answer, reason, said):
    """A refusal carries what it means for the account, and quotes no token."""
    scripted = Scripted(exchange=answer)

    assert said in refused(scripted, scripted.github.exchange, token=TOKEN)
    with pytest.raises(ExchangeRefused) as caught:
        scripted.github.exchange(TOKEN)
    assert caught.value.outcome.reason is reason
    assert caught.value.outcome.sent is False


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, content=b"<html>"), "not a JSON object"),
        (httpx.Response(200, content=b" " * (1 << 19)), "more than 256 KB"),
        (httpx.Response(200, json={**EXCHANGED, "token": None}), "no Copilot token that can be used"),
        (httpx.Response(200, json={**EXCHANGED, "token": f"{MINTED}\r\nx: y"}), "no Copilot token that can be used"),
        (httpx.Response(200, json={**EXCHANGED, "expires_at": None}), "until when"),
        (httpx.Response(200, json={**EXCHANGED, "expires_at": True}), "until when"),
        (httpx.Response(200, json={**EXCHANGED, "expires_at": 1e12}), "until when"),
        (httpx.ConnectError("no"), "is there a network?"),
    ],
    ids=["HTML", "huge", "no token", "line break", "no end", "no number", "milliseconds", "no network"],
)
def test_exchange_that_makes_no_sense(answer, said):
    """An answer that cannot be read says nothing about the token: it is no refusal."""
    scripted = Scripted(exchange=answer)

    assert said in refused(scripted, scripted.github.exchange, token=TOKEN)
    with pytest.raises(UpstreamError) as caught:
        scripted.github.exchange(TOKEN)
    assert not isinstance(caught.value, ExchangeRefused)


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


LISTED = (Listed("gpt-4.1", included=True), Listed("o9"))
BADLY = httpx.Response(400, text="Bad Request: Authorization header is badly formatted")
DEAD = httpx.Response(401, json={"message": "Bad credentials"})


def account(**more) -> Account:
    return Account(id="github.com:583231", label="work", token=TOKEN, **more)


def test_models():
    """The account's own API host is asked, with the token as bearer."""
    scripted = Scripted()

    assert scripted.github.models(TOKEN, "github.com", "api.business.githubcopilot.com") == LISTED
    assert scripted.told == ["api.business.githubcopilot.com Bearer RAW"]
    assert "editor-version" not in scripted.asked[0].headers


def test_models_with_the_other_prefix():
    """A host that finds the header badly formatted is asked once more with the other prefix."""
    scripted = Scripted(models=[BADLY, None])

    assert scripted.github.models(TOKEN, "github.com", "api.enterprise.githubcopilot.com") == LISTED
    assert [told.split()[1] for told in scripted.told] == ["Bearer", "token"]


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([BADLY, BADLY], "HTTP 400"),
        (DEAD, "could not be listed: api.githubcopilot.com refuses (HTTP 401: Bad credentials)"),
        (httpx.Response(200, json=[]), "is no list of models"),
        (httpx.Response(200, content=b" " * (5 << 20)), "more than 4096 KB"),
        (httpx.ConnectError("no"), "api.githubcopilot.com cannot be reached"),
    ],
    ids=["both prefixes", "dead", "no list", "huge", "no network"],
)
def test_no_models(models, said):
    """Without a list one sentence says why."""
    scripted = Scripted(models=models)
    where = {"token": TOKEN, "host": "github.com", "api_host": "api.githubcopilot.com"}

    assert said in refused(scripted, scripted.github.models, **where)
    assert len(scripted.asked) <= 2


@pytest.mark.parametrize("api_host", ["evil.test", "copilot-api.acme.ghe.com", "api.github.com"])
def test_models_elsewhere(api_host):
    """A token goes to no other API host than those of its login host."""
    scripted = Scripted()

    assert "is not a Copilot API host" in refused(
        scripted, scripted.github.models, token=TOKEN, host="github.com", api_host=api_host
    )
    assert scripted.asked == []


def test_models_of_an_account():
    """An account's credential is exchanged first where it must be, and the exchanged one goes to its own host."""
    direct, exchange = Scripted(), Scripted()

    assert direct.github.models_of(account()) == exchange.github.models_of(account(credential="exchange")) == LISTED
    assert direct.told == ["api.githubcopilot.com Bearer RAW"]
    assert exchange.told == ["api.github.com token RAW", "api.business.githubcopilot.com Bearer MINTED"]
    assert exchange.asked[1].headers["editor-version"].startswith("copilot-balancer/")


# ── how the API takes a token ────────────────────────────────────────────────────────────────────────────────────────


NO_EXCHANGE = httpx.Response(404, json={"message": "Not Found"})
HOST = "api.business.githubcopilot.com"


@pytest.mark.parametrize(
    ("script", "credential", "host", "models", "said"),
    [
        pytest.param({}, "direct", None, LISTED, None, id="taken as it is"),
        pytest.param({"models": [DEAD, None]}, "exchange", HOST, LISTED, None, id="taken when exchanged"),
        pytest.param(
            {"models": [httpx.Response(421), None]}, "exchange", HOST, LISTED, None, id="another host's, exchanged"
        ),
        pytest.param(
            {"models": [DEAD, httpx.Response(400, text="missing Editor-Version header for IDE auth")]},
            "exchange", HOST, None, "missing Editor-Version", id="exchanged, not listed",
        ),
        pytest.param(
            {"models": [DEAD, DEAD]}, "direct", None, None, "nor does it take what the token was exchanged for",
            id="not taken either way",
        ),
        pytest.param(
            {"models": DEAD, "exchange": NO_EXCHANGE}, "direct", None, None, "nor can the token be exchanged",
            id="no exchange",
        ),
        pytest.param(
            {"models": httpx.Response(500)}, "direct", None, None, "could not be listed", id="trouble says nothing"
        ),
        pytest.param({"models": httpx.ConnectError("no")}, "direct", None, None, "cannot be reached", id="no network"),
        pytest.param(
            {"models": httpx.Response(403, text="Access to this endpoint is forbidden. Please review our Terms of Service")},
            "direct", None, None, "Terms of Service", id="blocked: nothing more is tried",
        ),
    ],
)  # fmt: skip
def test_access(script, credential, host, models, said):
    """As it is, if the API takes it so; exchanged, only where the API refuses the token as such and takes the other."""
    scripted = Scripted(**script)
    who = Identity("github.com:1", "octocat", None, None, "api.githubcopilot.com")

    found = scripted.github.access(TOKEN, who)

    assert found == Access(credential, host, models, found.warning)
    assert found.warning == said if said is None else said in found.warning
    assert "Canary" not in repr(found)
    if "blocked" in (said or "") or said in ("cannot be reached", "Terms of Service", "could not be listed"):
        assert len(scripted.asked) == 1


# ── on a real wire ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fake(monkeypatch):
    """The embedded fake behind real TLS; only the dialling leads to it, names and ports stay real."""
    work = FakeAccount("work", plan="enterprise", api_host="api.enterprise.githubcopilot.com")
    connect = socket.create_connection
    with running({CANARY: work}) as fake:
        monkeypatch.setattr(
            socket, "create_connection", lambda _, *rest, **options: connect(("127.0.0.1", fake.port), *rest, **options)
        )
        monkeypatch.setattr(certifi, "where", lambda: str(fake.ca_file))
        yield fake
    gc.collect()


def test_real_wire(fake):
    """Over real TLS: identity, quota, exchange and models, each asked where it belongs."""
    github = GitHub()

    identity = github.whoami(TOKEN)
    access = github.access(TOKEN, identity)
    minted = github.exchange(TOKEN)

    assert (identity.login, identity.plan_name) == ("work-login", "enterprise")
    assert (access.credential, access.warning) == ("direct", None)
    assert github.models(minted.token, "github.com", minted.api_host) == access.models
    assert github.usage(TOKEN).plan == "enterprise"
    assert {seen.host for seen in fake.seen} == {"api.github.com", "api.enterprise.githubcopilot.com"}


def test_login_on_the_wire(fake):
    """Over real TLS a person logs in by a code, and the token that comes of it is the account's; nobody waits here."""
    token = "gho_" + "New7" * 9
    fake.logins["github.com"] = FakeLogin(FakeAccount("new"), token, interval=0)
    shown, slept = [], []

    def clock():
        return float(sum(slept))

    found = GitHub().log_in("github.com", "Ov23liExample", show=shown.append, sleep=slept.append, clock=clock)

    assert found.get_secret_value() == token
    assert [prompt.user_code for prompt in shown] == ["ABCD-1234"]
    assert slept == [1.2, 1.2]
    assert GitHub().whoami(found).login == "new-login"


def test_login_without_a_network(monkeypatch):
    """A login that cannot begin is one sentence."""
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: (_ for _ in ()).throw(OSError(101, "no")))

    with pytest.raises(UpstreamError, match=r"^github\.com cannot be reached: is there a network\?$") as caught:
        GitHub().log_in("github.com", "Ov23liExample", show=print)
    assert caught.value.__context__ is None
