"""Where an account's credential may go; everything else is refused."""

import pytest
from mitmproxy import http, options
from mitmproxy import tls as tls_events
from mitmproxy.connection import Server
from mitmproxy.net import tls
from mitmproxy.test import tflow
from OpenSSL import SSL
from pydantic import SecretStr

import copilot_balancer
from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.proxy.failover.credentials import HiddenCredentials
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.guard.redaction import SentSecrets

HOST = "api.githubcopilot.com"
HOSTS = copilot_hosts(["acme.ghe.com"])
TOKEN = SecretStr("gho_canary-0123456789")
FIELDS = (
    (b"Host", HOST.encode()),
    (b"X-One", b"1"),
    (b"Authorization", b"Bearer [client]"),
    (b"cookie", b"[client]"),
    (b"x-api-key", b"[client]"),
    (b"proxy-authorization", b"[client]"),
    (b"X-Two", b"2"),
)
CLIENTS = http.Headers(
    [(b"authorization", b"Bearer own"), (b"cookie", b"a=b"), (b"x-api-key", b"key"), (b"proxy-authorization", b"p")]
)


def a_request(**changes) -> http.Request:
    request = http.Request.make("POST", f"https://{HOST}/chat/completions", b"{}")
    request.headers = http.Headers(FIELDS)
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def a_server(**changes) -> Server:
    server = Server(address=(HOST, 443), sni=HOST)
    server.tls, server.timestamp_tls_setup = True, 1.0
    server.certificate_list = tflow.tserver_conn().certificate_list or ["a certificate"]
    established(server)
    for name, value in changes.items():
        setattr(server, name, value)
    return server


def established(server, begins=None, ends=None, checks=SSL.VERIFY_PEER) -> Server:
    """TLS with an upstream, as mitmproxy tells of it."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(checks)
    data = tls_events.TlsData(server, None, SSL.Connection(context, None))
    credential_guard.tls_begins(data, begins or safe_options())
    credential_guard.tls_established(data, ends or safe_options())
    return server


def safe_options() -> options.Options:
    return options.Options()


def put_on(request, server, **more):
    given = {"token": TOKEN, "hidden": HiddenCredentials(CLIENTS), "hosts": HOSTS, "options": safe_options()}
    given |= {"sent": SentSecrets(), **more}
    return credential_guard.put_on(request, server, **given)


def test_put_on():
    """The account's credential takes the place of the client's; cookies are dropped; everything else stays in order."""
    request = a_request()
    assert put_on(request, a_server()) is None
    assert request.headers.fields == (
        (b"Host", HOST.encode()),
        (b"X-One", b"1"),
        (b"Authorization", b"Bearer gho_canary-0123456789"),
        (b"X-Two", b"2"),
    )


@pytest.mark.parametrize(
    "name", ["X-Api-Key", "x-github-token", "API-Key", "x-goog-api-key", "Cookie", "proxy-authorization"]
)
def test_no_credential_of_the_client_goes_beside_an_accounts(name):
    """Whatever credential the client brought, in whatever header, is not sent beside an account's, nor if none is."""
    for server in (a_server(), a_server(sni="evil.test")):
        request = a_request(headers=http.Headers([(b"Host", HOST.encode()), (name.encode(), b"[client]")]))
        put_on(request, server, hidden=HiddenCredentials(http.Headers([(name.encode(), b"gho_clients-own")])))
        assert b"gho_clients-own" not in b"".join(value for _, value in request.headers.fields)
        assert name.lower() not in request.headers


INSECURE = options.Options(ssl_insecure=True)


@pytest.mark.parametrize(
    ("how", "goes"),
    [
        pytest.param({}, True, id="checked"),
        pytest.param({"begins": INSECURE, "ends": INSECURE}, False, id="opened unchecked"),
        pytest.param({"begins": INSECURE}, False, id="switched back while it opened"),
        pytest.param({"ends": INSECURE}, False, id="switched on while it opened"),
        pytest.param({"checks": SSL.VERIFY_NONE}, False, id="another addon's TLS, which checks nothing"),
    ],
)
def test_verification_is_remembered_per_connection(how, goes):
    """No credential goes on a connection that was opened without a check, whatever the options say when it is sent."""
    server = a_server()
    established(server, **how)
    for own in (False, True):
        request = a_request()
        if own:
            reason = credential_guard.hand_on(
                request, server, hidden=HiddenCredentials(CLIENTS), options=safe_options()
            )
        else:
            reason = put_on(request, server)
        assert (reason is None) == goes
        assert ("authorization" in request.headers) == goes
    never = a_server()
    credential_guard._verified.discard(never)
    assert "the certificate was not checked" in put_on(a_request(), never)


def test_put_on_where_the_client_sent_none():
    """Without a header of the client's, the credential is added; with two, one is left."""
    request = a_request(headers=http.Headers([(b"Host", HOST.encode())]))
    assert put_on(request, a_server(), hidden=HiddenCredentials(http.Headers())) is None
    assert request.headers.fields[-1] == (b"Authorization", b"Bearer gho_canary-0123456789")

    request = a_request(headers=http.Headers([*FIELDS, (b"AUTHORIZATION", b"x")]))
    assert put_on(request, a_server(), prefix="token") is None
    assert request.headers.get_all("authorization") == ["token gho_canary-0123456789"]


def test_hand_on():
    """The client's own credentials go on unchanged, but for the one that was meant for us."""
    request = a_request()
    hidden = HiddenCredentials(CLIENTS)
    assert credential_guard.hand_on(request, a_server(), hidden=hidden, options=safe_options()) is None
    assert request.headers.fields == (
        (b"Host", HOST.encode()),
        (b"X-One", b"1"),
        (b"Authorization", b"Bearer own"),
        (b"cookie", b"a=b"),
        (b"x-api-key", b"key"),
        (b"X-Two", b"2"),
    )


@pytest.mark.parametrize("path", ["/responses", "/v1/messages?beta=true", "/embeddings", "/v1/chat/completions"])
def test_allowed_paths(path):
    """Every balanced path gets the credential."""
    assert put_on(a_request(path=path), a_server()) is None


def test_home_and_enterprise():
    """So does /models, and an enterprise's own host."""
    assert put_on(a_request(path="/models", method="GET"), a_server()) is None
    host = "copilot-api.acme.ghe.com"
    request = a_request(host=host)
    request.headers["host"] = host
    assert put_on(request, a_server(address=(host, 443), sni=host)) is None


def host(*values):
    return http.Headers([*((b"Host", value) for value in values), (b"authorization", b"x")])


@pytest.mark.parametrize(
    ("request_", "server"),
    [
        pytest.param({}, {"address": ("evil.test", 443), "sni": "evil.test"}, id="another host"),
        pytest.param({}, {"address": ("evil.test", 443)}, id="another host under our name"),
        pytest.param({}, {"address": (f"{HOST}.evil.test", 443)}, id="suffix"),
        pytest.param({}, {"address": (f"evil-{HOST}", 443)}, id="prefix"),
        pytest.param({}, {"address": ("20.1.2.3", 443)}, id="an address"),
        pytest.param({}, {"address": None}, id="no address"),
        pytest.param({}, {"address": (HOST, 8443)}, id="another port"),
        pytest.param({"port": 80}, {}, id="another port in the request"),
        pytest.param({"scheme": "http"}, {}, id="plain text"),
        pytest.param({}, {"tls": False}, id="no TLS"),
        pytest.param({}, {"timestamp_tls_setup": None}, id="TLS not established"),
        pytest.param({}, {"certificate_list": []}, id="no certificate"),
        pytest.param({}, {"sni": "evil.test"}, id="certificate for another name"),
        pytest.param({}, {"sni": None}, id="certificate for no name"),
        pytest.param({"host": "evil.test"}, {}, id="the copy is for another host"),
        pytest.param({"headers": host(b"evil.test")}, {}, id="foreign Host"),
        pytest.param({"headers": host(HOST.encode(), b"evil.test")}, {}, id="two Hosts"),
        pytest.param({"headers": host()}, {}, id="no Host"),
        pytest.param({"headers": host(HOST.encode() + b":8443")}, {}, id="another port in Host"),
        pytest.param({"headers": host(b"\xff" + HOST.encode())}, {}, id="Host is not ASCII"),
        pytest.param({"authority": HOST}, {}, id="absolute form"),
        pytest.param({"path": "/mcp/"}, {}, id="a path that acts as a person"),
        pytest.param({"path": "//chat/completions"}, {}, id="two slashes"),
        pytest.param({"method": "TRACE"}, {}, id="a method that echoes"),
        pytest.param({"method": "GET"}, {}, id="a method that is not balanced"),
        pytest.param({"http_version": "HTTP/2.0", "authority": "evil.test"}, {}, id="foreign :authority"),
    ],
)
def test_refused(request_, server):
    """Whatever is not exactly right gets a reason, and then no credential of anybody's is on the copy."""
    request = a_request(**request_)
    reason = put_on(request, a_server(**server))
    assert reason
    assert "authorization" not in request.headers
    assert b"canary" not in b"".join(value for _, value in request.headers.fields)


@pytest.mark.parametrize("name", [HOST, f"{HOST}:443", f"{HOST.upper()}", f"{HOST}."])
def test_ways_to_write_the_right_host(name):
    """The same host in another spelling is the same host."""
    assert put_on(a_request(headers=host(name.encode())), a_server()) is None


def test_http2_authority():
    """An HTTP/2 client names its host in :authority."""
    request = a_request(http_version="HTTP/2.0", authority=HOST, headers=http.Headers())
    request.data.host = HOST
    assert put_on(request, a_server()) is None


@pytest.mark.parametrize("option", ["ssl_insecure", "proxy_debug", "keylog"])
def test_unsafe_options(option, monkeypatch):
    """Where certificates are not checked or raw bytes are logged, no credential is used."""
    opts = safe_options()
    if option == "keylog":
        monkeypatch.setattr(tls, "log_master_secret", lambda *_: None)
    elif option in opts:
        opts.update(**{option: True})
    else:
        opts.add_option(option, bool, True, "as mitmproxy's own debug switch")
    reason = put_on(request := a_request(), a_server(), options=opts)
    assert reason
    assert "authorization" not in request.headers
    assert credential_guard.unsafe_options(opts) == reason


def sent() -> SentSecrets:
    """What was sent for two accounts."""
    found = SentSecrets()
    found.add(TOKEN, "[account:work]")
    found.add(SecretStr("gho_spare-0123456789"), "[account:spare]")
    return found


def test_what_was_sent_is_what_is_redacted():
    """A credential that went out is looked for afterwards, whatever became of its account; none that did not is added."""
    found, token = SentSecrets(), SecretStr("tid=abc;exp=1")
    assert put_on(a_request(), a_server(sni="evil.test"), token=token, sent=found) is not None
    assert found.text("tid=abc;exp=1") == "tid=abc;exp=1"
    assert put_on(a_request(), a_server(), token=token, sent=found, shown="[account:work]") is None
    assert found.text("you sent tid=abc;exp=1!") == "you sent [account:work]!"
    for number in range(SentSecrets.LIMIT - 1):
        found.add(SecretStr(f"gho_later-{number:06}"), "[account]")
    assert found.text("tid=abc;exp=1") == "[account:work]"
    assert "tid" not in repr(found)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda response, echo: setattr(response, "reason", echo), id="reason phrase"),
        pytest.param(
            lambda response, echo: response.headers.update({"location": f"https://x/?t={echo}"}), id="Location"
        ),
        pytest.param(lambda response, echo: response.headers.update({f"x-{echo}": "1"}), id="a header's name"),
        pytest.param(
            lambda response, echo: response.headers.update({"x-a": echo.replace("g", "%67")}),
            id="a header, URL-encoded",
        ),
        pytest.param(lambda response, echo: setattr(response, "trailers", http.Headers(x=echo)), id="trailers"),
        pytest.param(lambda response, echo: setattr(response, "text", f'{{"data":[{{"id":"{echo}"}}]}}'), id="a list"),
    ],
)
def test_every_place_of_a_response_is_looked_at(place):
    """A token that is echoed in an odd place of a response is taken out there too."""
    response = http.Response.make(200, b"{}")
    place(response, TOKEN.get_secret_value())
    credential_guard.redact(response, sent())
    state = str(response.get_state())
    assert "canary-0123456789" not in state
    assert "[account:work]" in state


def test_redact():
    """A token that an upstream echoes is taken out before anybody keeps it, whichever account's it is."""
    echo = f"you sent {TOKEN.get_secret_value()}, not gho_spare-0123456789".encode()
    response = http.Response.make(400, echo, {"x-echo": f"Bearer {TOKEN.get_secret_value()}"})
    credential_guard.redact(response, sent())
    assert response.content == b"you sent [account:work], not [account:spare]"
    assert response.headers["x-echo"] == "Bearer [account:work]"
    assert response.headers["content-length"] == str(len(response.content))


def test_redact_leaves_others_alone():
    """An answer without a token stays byte for byte."""
    response = http.Response.make(400, b"no")
    before = response.get_state()
    credential_guard.redact(response, sent())
    assert response.get_state() == before


def test_nobody_else_reads_a_token():
    """Only these places reveal a token's text."""
    from pathlib import Path

    rooms = Path(copilot_balancer.__file__).parent
    revealing = {
        path.relative_to(rooms).with_suffix("").as_posix()
        for path in rooms.rglob("*.py")
        if "get_secret_value" in path.read_text()
    }
    reading = {
        "rules/accounts",
        "proxy/sync",
        "github/admission",
        "cli/accounts/importing",
        "cli/start",
        "github/api",
    }  # to compare, to check, to name by its hash
    sending = {
        "github/parent_proxy",
        "proxy/guard/credential_guard",
        "proxy/guard/redaction",
        "github/https",
        "github/device_flow",
    }
    assert revealing == reading | sending


def test_mitmproxys_own_log_tells_no_credential(caplog):
    """A head that broke off is logged whole by mitmproxy: what credentials it held are left out, and it is cut short."""
    import logging

    from copilot_balancer.proxy.guard.log_filters import LOGGED, LogFilter, watch_log

    watch_log()
    watch_log()
    log = logging.getLogger("mitmproxy.proxy.server")
    assert sum(type(known).__name__ == LogFilter.__name__ for known in log.filters) == 1
    with caplog.at_level(logging.INFO, "mitmproxy.proxy.server"):
        log.info("closed: %r", b"POST / HTTP/1.1\r\nAuthorization : Bearer gho_secret\r\nX: 1\r\nCOOKIE:a=b")
        log.info("x" * 100_000)
        log.info("client connect")
    first, second, third = (record.getMessage() for record in caplog.records)
    assert "gho_secret" not in first
    assert "a=b" not in first
    assert "X: 1" in first
    assert len(second) == LOGGED
    assert third == "client connect"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_token_in_a_compressed_answer_is_taken_out(encoding):
    """It goes on inflated; an answer without a token keeps every byte."""
    echo, plain = http.Response.make(400, f"you sent {TOKEN.get_secret_value()}"), http.Response.make(400, "no")
    for response in (echo, plain):
        response.encode(encoding)
    before = plain.raw_content
    for response in (echo, plain):
        credential_guard.redact(response, sent())
    assert echo.raw_content == b"you sent [account:work]"
    assert "content-encoding" not in echo.headers
    assert echo.headers["content-length"] == str(len(echo.raw_content))
    assert (plain.raw_content, plain.headers["content-encoding"]) == (before, encoding)
