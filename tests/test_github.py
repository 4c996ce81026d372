"""Who is this token: every answer of GitHub, good and bad, and what a token may never do."""

import gc
import itertools
import json
import socket
import ssl
import threading
import traceback
from pathlib import Path

import certifi
import httpx
import pytest
from pydantic import SecretStr

from copilot_balancer import github as module
from copilot_balancer.accounts import API_HOSTS
from copilot_balancer.errors import BalancerError, InvalidInput, UpstreamError
from copilot_balancer.fake.answers import FakeAccount
from copilot_balancer.fake.server import running
from copilot_balancer.github import GitHub, free_plan, read_api_host

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


class Scripted:
    """A GitHub of two answers, and what it was asked."""

    def __init__(self, user=None, copilot=None):
        self.answers = {"/user": user, "/copilot_internal/user": copilot}
        self.defaults = {"/user": USER, "/copilot_internal/user": COPILOT}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[request.url.path]
        answer = answer() if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else httpx.Response(200, json=self.defaults[request.url.path])

    def whoami(self, token: SecretStr = TOKEN, host: str = "github.com"):
        return GitHub(httpx.MockTransport(self)).whoami(token, host)


def whole_story(error: BaseException) -> str:
    """Everything that a traceback with locals could print about `error` and what it is chained to."""
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return f"{told}\n{error!r}\n{error.args}"


def refused(scripted: Scripted, **question) -> str:
    with pytest.raises(BalancerError) as caught:
        scripted.whoami(**question)
    assert CANARY not in whole_story(caught.value)
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


class Endless(httpx.SyncByteStream):
    """A body without an end; `given` counts what was read of it."""

    def __init__(self):
        self.given = 0

    def __iter__(self):
        for _ in itertools.count():
            self.given += 16384
            yield b" " * 16384


LIMITED = {"x-ratelimit-remaining": "0"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(lambda: httpx.Response(401, json={}), "GitHub does not accept this token", id="401"),
        pytest.param(lambda: httpx.Response(403, headers=LIMITED), "no more questions for now", id="403 rate limit"),
        pytest.param(
            lambda: httpx.Response(403, headers={"retry-after": "60"}), "no more questions", id="403 retry-after"
        ),
        pytest.param(lambda: httpx.Response(429), "no more questions for now (HTTP 429)", id="429"),
        pytest.param(lambda: httpx.Response(301, headers={"location": "https://evil.test/"}), "redirect", id="301"),
        pytest.param(lambda: httpx.Response(400), "refuses to say whose token this is (HTTP 400)", id="400"),
        pytest.param(lambda: httpx.Response(204), "refuses to say whose token this is (HTTP 204)", id="204"),
        pytest.param(lambda: httpx.Response(500), "trouble of its own (HTTP 500)", id="500"),
        pytest.param(lambda: httpx.Response(200, content=b""), "not a JSON object", id="empty"),
        pytest.param(lambda: httpx.Response(200, content=b"<html>"), "not a JSON object", id="HTML"),
        pytest.param(lambda: httpx.Response(200, content=b"\xff\xfe\xff"), "not a JSON object", id="not text"),
        pytest.param(lambda: httpx.Response(200, content=b"[1]"), "not a JSON object", id="an array"),
        pytest.param(lambda: httpx.Response(200, content=b"[" * 200_000), "not a JSON object", id="deep"),
        pytest.param(lambda: httpx.Response(200, stream=Endless()), "more than 256 KB", id="endless"),
        pytest.param(
            lambda: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Endless()),
            "encoding",
            id="compressed",
        ),
        pytest.param(
            lambda: httpx.ConnectError("[Errno -2] Name or service not known"), "is there a network?", id="no name"
        ),
        pytest.param(lambda: httpx.ConnectTimeout("timed out"), "within 10 seconds", id="connect time-out"),
        pytest.param(lambda: httpx.ReadTimeout("timed out"), "did not answer in time", id="read time-out"),
        pytest.param(lambda: httpx.RemoteProtocolError("peer closed"), "broke the connection off", id="cut off"),
        pytest.param(
            lambda: httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            "nothing was sent",
            id="certificate",
        ),
    ],
)
@pytest.mark.parametrize("path", ["user", "copilot"])
def test_refusals(path, answer, said):
    """Every refusal is one clear sentence that names the host and holds no token."""
    sentence = refused(Scripted(**{path: answer}))

    assert said in sentence
    assert "api.github.com" in sentence


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


def test_redirect_is_not_followed():
    """A redirect leads nowhere: GitHub is asked once, and the other host never."""
    scripted = Scripted(user=httpx.Response(302, headers={"location": "https://evil.test/user"}))

    refused(scripted)

    assert [request.url.host for request in scripted.asked] == ["api.github.com"]


def test_endless_answer_is_not_read():
    """Of an endless answer no more is read than the cap and one piece."""
    body = Endless()

    refused(Scripted(user=httpx.Response(200, stream=body)))

    assert body.given <= module.ANSWER_BYTES + 16384


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


def test_total_time():
    """A server that holds the answer back beyond the total time is given up, whatever it is doing."""
    never = threading.Event()

    def hang(_request):
        never.wait(10)
        raise httpx.ReadError("released")

    with pytest.raises(UpstreamError, match=r"api\.github\.com did not answer within 0\.05 seconds") as caught:
        GitHub(httpx.MockTransport(hang), total_seconds=0.05).whoami(TOKEN)
    never.set()
    assert CANARY not in whole_story(caught.value)
    assert caught.value.__context__ is None


def test_bug_in_the_thread():
    """A fault that is nobody's answer comes out as it is, not as a time-out."""

    def broken(_request):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        GitHub(httpx.MockTransport(broken)).whoami(TOKEN)


# ── on a real wire ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fake(monkeypatch):
    """The embedded fake behind real TLS; only the dialling leads to it, names and ports stay real."""
    account = FakeAccount("work", plan="enterprise", api_host="api.enterprise.githubcopilot.com")
    connect = socket.create_connection
    with running({CANARY: account}) as fake:
        fake.dialled = []

        def dial(address, *rest, **options):
            fake.dialled.append(address)
            return connect(("127.0.0.1", fake.port), *rest, **options)

        monkeypatch.setattr(socket, "create_connection", dial)
        yield fake
    gc.collect()


def trust(fake, monkeypatch):
    monkeypatch.setattr(certifi, "where", lambda: str(fake.ca_file))


def test_real_wire(fake, monkeypatch):
    """Over real TLS the real names are dialled, and the identity comes back."""
    trust(fake, monkeypatch)

    identity = GitHub().whoami(TOKEN)

    assert (identity.login, identity.plan) == ("work-login", "enterprise")
    assert identity.api_host == "api.enterprise.githubcopilot.com"
    assert set(fake.dialled) == {("api.github.com", 443)}
    assert {seen.host for seen in fake.seen} == {"api.github.com"}


def test_environment_is_not_trusted(fake, monkeypatch, tmp_path):
    """A proxy, a CA or a key log that the environment names changes nothing."""
    trust(fake, monkeypatch)
    keys = tmp_path / "keys"
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__)))
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))

    assert GitHub().whoami(TOKEN).login == "work-login"
    assert set(fake.dialled) == {("api.github.com", 443)}
    assert not keys.exists() or "CLIENT" not in keys.read_text()


@pytest.mark.parametrize("case", ["unknown CA", "another host's certificate"])
def test_unverified_certificate(fake, monkeypatch, case):
    """To a server that cannot prove its name nothing is sent, and the sentence says that."""
    if case != "unknown CA":
        trust(fake, monkeypatch)
        fake.misnamed.add("api.github.com")

    with pytest.raises(UpstreamError, match="certificate that cannot be verified; nothing was sent") as caught:
        GitHub().whoami(TOKEN)
    assert fake.seen == []
    assert CANARY not in whole_story(caught.value)


def test_no_network(monkeypatch):
    """Without a network the sentence asks whether there is one."""

    def unreachable(*_rest, **_options):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(UpstreamError, match="is there a network"):
        GitHub().whoami(TOKEN)


def test_tls_verifies():
    """Our TLS asks for a certificate and for the right name in it."""
    context = module._verified_tls()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.keylog_filename is None
