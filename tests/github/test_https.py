"""One question over HTTPS: where it goes, its bounds, every way in which there is no answer, and what no token may do."""

import gc
import itertools
import socket
import ssl
import threading
import traceback
from pathlib import Path

import certifi
import httpx
import pytest
from pydantic import SecretStr

from copilot_balancer.errors import BalancerError, UpstreamError
from copilot_balancer.fake.answers import FakeAccount
from copilot_balancer.fake.server import running
from copilot_balancer.github import https
from copilot_balancer.github.https import ANSWER_BYTES, Request, Response, Wire, parsed, verified_tls
from support.parent_proxies import parent_proxy

CANARY = "gho_" + "Canary7Canary7Canary7Canary7Canary7x"
TOKEN = SecretStr(CANARY)
URL = "https://api.github.com/user"


def ask(answer, question: Request | None = None, **wire) -> Response:
    """Ask a scripted server: an answer, an exception, or a function of the request."""

    def serve(request: httpx.Request) -> httpx.Response:
        found = answer(request) if callable(answer) else answer
        if isinstance(found, Exception):
            raise found
        return found

    return Wire(httpx.MockTransport(serve), **wire).ask(question or Request(URL, TOKEN))


def whole_story(error: BaseException) -> str:
    """Everything that a traceback with locals could print about `error` and what it is chained to."""
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return f"{told}\n{error!r}\n{error.args}"


def lost(answer, question: Request | None = None, **wire) -> str:
    with pytest.raises(BalancerError) as caught:
        ask(answer, question, **wire)
    assert CANARY not in whole_story(caught.value)
    assert caught.value.__context__ is None, "httpx's exceptions hold the request"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "method", "headers", "body"),
    [
        pytest.param(Request(URL), "GET", {"authorization": None, "x-github-api-version": None}, b"", id="bare"),
        pytest.param(
            Request(URL, TOKEN, version="2022-11-28"),
            "GET",
            {"authorization": f"token {CANARY}", "x-github-api-version": "2022-11-28"},
            b"",
            id="token",
        ),
        pytest.param(
            Request(URL, TOKEN, "Bearer", headers={"Editor-Version": "x/1"}),
            "GET",
            {"authorization": f"Bearer {CANARY}", "editor-version": "x/1"},
            b"",
            id="Bearer",
        ),
        pytest.param(
            Request(URL, form={"a": "1&2", "b": ""}),
            "POST",
            {"content-type": "application/x-www-form-urlencoded"},
            b"a=1%262&b=",
            id="form",
        ),
        pytest.param(Request(URL, form={}), "POST", {"authorization": None}, b"", id="empty form"),
    ],
)
def test_request(question, method, headers, body):
    """A question is sent with our own name and what it says, and no more."""
    seen: list[httpx.Request] = []

    def serve(request):
        seen.append(request)
        return httpx.Response(200, json={})

    ask(serve, question)

    (request,) = seen
    assert (str(request.url), request.method, request.content) == (URL, method, body)
    wanted = {"accept": "application/json", "accept-encoding": "identity", **headers}
    assert {name: request.headers.get(name) for name in wanted} == wanted
    assert request.headers["user-agent"].startswith("copilot-balancer/")
    assert CANARY not in repr(question)
    assert "1&2" not in repr(question)


def test_answer():
    """An answer is its status, its headers by lower-case name, and its body, whatever the status."""
    answer = ask(httpx.Response(404, headers={"X-Some": "Canary7"}, content=b'{"a": "Canary7"}'))

    assert (answer.host, answer.status, answer.headers["x-some"]) == ("api.github.com", 404, "Canary7")
    assert answer.object() == {"a": "Canary7"}
    assert "Canary7" not in repr(answer)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe\xff", b"[1]", b"[" * 200_000, b"7"], ids=repr)
def test_body_that_is_no_object(body):
    """A body that is no JSON object is one sentence when an object is asked for."""
    answer = ask(httpx.Response(200, content=body))

    with pytest.raises(UpstreamError, match=r"^api\.github\.com answered something that is not a JSON object$"):
        answer.object()
    assert parsed(b"[1]") == [1]


LIMITED = {"x-ratelimit-remaining": "0"}


@pytest.mark.parametrize(
    ("answer", "limited", "said"),
    [
        pytest.param(httpx.Response(200, json={}), False, None, id="200"),
        pytest.param(httpx.Response(401), False, "refuses (HTTP 401)", id="401"),
        pytest.param(httpx.Response(403), False, "refuses (HTTP 403)", id="403"),
        pytest.param(httpx.Response(403, headers=LIMITED), True, "no more questions for now", id="403 rate limit"),
        pytest.param(
            httpx.Response(403, headers={"retry-after": "6"}), True, "no more questions", id="403 retry-after"
        ),
        pytest.param(httpx.Response(429), True, "no more questions for now (HTTP 429)", id="429"),
        pytest.param(httpx.Response(204), False, "refuses (HTTP 204)", id="204"),
        pytest.param(httpx.Response(500), False, "trouble of its own (HTTP 500)", id="500"),
        pytest.param(httpx.Response(301, headers={"location": "https://evil.test/"}), False, "redirect", id="301"),
    ],
)
def test_refusal(answer, limited, said):
    """What is not a 200 is one sentence; a rate limit is told from a refusal of the token."""
    found = ask(answer)

    assert found.limited is limited
    assert found.refusal == said if said is None else said in found.refusal
    assert said is None or found.refusal.startswith("api.github.com ")


def test_redirect_is_not_followed():
    """A redirect leads nowhere: the other host is never asked."""
    asked = []

    def serve(request):
        asked.append(request.url.host)
        return httpx.Response(302, headers={"location": "https://evil.test/user"})

    ask(serve)

    assert asked == ["api.github.com"]


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Endless(httpx.SyncByteStream):
    """A body without an end; `given` counts what was read of it."""

    def __init__(self):
        self.given = 0

    def __iter__(self):
        for _ in itertools.count():
            self.given += 16384
            yield b" " * 16384


@pytest.mark.parametrize(
    ("status", "cap", "read"),
    [(200, ANSWER_BYTES, ANSWER_BYTES), (200, 1 << 20, 1 << 20), (500, 1 << 20, 64 * 1024)],
    ids=["default", "a larger cap", "an error"],
)
def test_endless_answer(status, cap, read):
    """Of an endless answer no more is read than the cap and one piece; its body counts as none."""
    body = Endless()

    answer = ask(httpx.Response(status, stream=body), Request(URL, TOKEN, cap=cap))

    assert body.given <= read + 16384
    assert answer.body == b""
    assert f"more than {read // 1024} KB" in answer.fault
    assert answer.refusal == (f"api.github.com {answer.fault}" if status == 200 else answer.refusal)


def test_encoded_answer():
    """An answer in an encoding that was not asked for is not read: a small one can become a huge one."""
    body = Endless()

    answer = ask(httpx.Response(200, headers={"content-encoding": "gzip"}, stream=body))

    assert "encoding that was not asked for" in answer.refusal
    assert body.given == 0


def test_total_time():
    """A server that holds the answer back beyond the total time is given up, whatever it is doing."""
    never = threading.Event()

    def hang(_request):
        never.wait(10)
        raise httpx.ReadError("released")

    assert lost(hang, total_seconds=0.05) == "api.github.com did not answer within 0.05 seconds"
    never.set()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), "is there a network?"),
        (httpx.ConnectTimeout("timed out"), "within 10 seconds"),
        (httpx.ReadTimeout("timed out"), "did not answer in time"),
        (httpx.RemoteProtocolError("peer closed"), "broke the connection off (RemoteProtocolError)"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "nothing was sent"),
    ],
    ids=["no name", "connect time-out", "read time-out", "cut off", "certificate"],
)
def test_no_answer(error, said):
    """Every way in which there is no answer is one sentence that names the host."""
    sentence = lost(error)

    assert said in sentence
    assert sentence.startswith("api.github.com ")


def test_bug_in_the_thread():
    """A fault that is nobody's answer comes out as it is, not as a time-out."""
    with pytest.raises(ZeroDivisionError):
        ask(lambda _: 1 / 0)


# ── on a real wire ───────────────────────────────────────────────────────────────────────────────────────────────────


PASSWORD = "parent-canary-0007"


@pytest.fixture
def fake(monkeypatch):
    """The embedded fake behind real TLS; only the dialling leads to it, names and ports stay real."""
    connect = socket.create_connection
    with running({CANARY: FakeAccount("work")}) as fake:
        fake.dialled = []

        def dial(address, *rest, **options):
            if address[0] == "127.0.0.1":  # a parent proxy
                return connect(address, *rest, **options)
            fake.dialled.append(address)
            return connect(("127.0.0.1", fake.port), *rest, **options)

        monkeypatch.setattr(socket, "create_connection", dial)
        yield fake
    gc.collect()


def trust(fake, monkeypatch):
    monkeypatch.setattr(certifi, "where", lambda: str(fake.ca_file))


def test_environment_is_not_trusted(fake, monkeypatch, tmp_path):
    """A CA or a key log that the environment names changes nothing: the real name is dialled, over TLS."""
    trust(fake, monkeypatch)
    keys = tmp_path / "keys"
    for name in ("ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__)))
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))

    assert Wire().ask(Request(URL, TOKEN)).object()["login"] == "work-login"
    assert set(fake.dialled) == {("api.github.com", 443)}
    assert {seen.host for seen in fake.seen} == {"api.github.com"}
    assert not keys.exists() or "CLIENT" not in keys.read_text()


@pytest.mark.parametrize("password", [None, f"me:{PASSWORD}"])
def test_a_parent_proxy(fake, monkeypatch, password):
    """It carries the question by CONNECT; the token and the answer pass inside TLS that is checked end to end."""
    trust(fake, monkeypatch)
    with parent_proxy(fake.port) as parent:
        monkeypatch.setenv("HTTPS_PROXY", parent.url)
        if password:
            monkeypatch.setenv("COPILOT_BALANCER_PROXY_AUTH", password)
        assert Wire().ask(Request(URL, TOKEN)).object()["login"] == "work-login"
    assert parent.hosts == ["api.github.com"]
    assert TOKEN.get_secret_value().encode() not in parent.asked[0]
    assert (b"proxy-authorization: Basic " in parent.asked[0].replace(b"Proxy-A", b"proxy-a")) is bool(password)


def test_a_parent_proxy_that_refuses(fake, monkeypatch):
    """Its refusal is told, and no password."""
    with parent_proxy(fake.port, needs=b"nothing has this") as parent:
        monkeypatch.setenv("HTTPS_PROXY", parent.url)
        monkeypatch.setenv("COPILOT_BALANCER_PROXY_AUTH", f"me:{PASSWORD}")
        with pytest.raises(UpstreamError, match="through the parent proxy: 407") as caught:
            Wire().ask(Request(URL, TOKEN))
    assert PASSWORD not in whole_story(caught.value)
    assert CANARY not in whole_story(caught.value)


@pytest.mark.parametrize("case", ["unknown CA", "another host's certificate"])
def test_unverified_certificate(fake, monkeypatch, case):
    """To a server that cannot prove its name nothing is sent, and the sentence says that."""
    if case != "unknown CA":
        trust(fake, monkeypatch)
        fake.misnamed.add("api.github.com")

    with pytest.raises(UpstreamError, match="certificate that cannot be verified; nothing was sent") as caught:
        Wire().ask(Request(URL, TOKEN))
    assert fake.seen == []
    assert CANARY not in whole_story(caught.value)


def test_no_network(monkeypatch):
    """Without a network the sentence asks whether there is one."""

    def unreachable(*_rest, **_options):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(UpstreamError, match="is there a network"):
        Wire().ask(Request(URL, TOKEN))


def test_tls_verifies():
    """Our TLS asks for a certificate and for the right name in it."""
    context = verified_tls()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.keylog_filename is None
    assert https.TOTAL_SECONDS == 30
