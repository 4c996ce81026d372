"""Where an account's credential goes, with a real mitmdump: to a Copilot host that proved its name, on a listed path.

One proxy serves every case. Copilot hosts on port 443 lead to the embedded fake; everything else, and where a case has
the name service poisoned the Copilot hosts too, leads to a stranger who takes down whatever arrives, in clear or by TLS,
under any name. Each case is one form in which a request may come; after each, and once more at the end, every account's
token must have arrived where it may, and nowhere else (docs/security.md#where-a-token-may-go).
"""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.copilot.protocol import PLACEHOLDER, Kind, kind_of
from copilot_balancer.fake.answers import FakeAccount, Refuse
from copilot_balancer.fake.authority import Authority
from copilot_balancer.fake.server import FakeCopilot, running
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.store.store import Store, paths
from support.proxies import CLIENT, PERSONAL, ROOT, SPARE, WORK, Proxy, free_port, three_accounts, until

HOST = "api.githubcopilot.com"
EVIL = "evil.test"
TOKENS = (WORK, PERSONAL, SPARE)

HELPER = '''
import asyncio, json, os
from pathlib import Path
from mitmproxy import ctx
from mitmproxy.proxy import server as mitmproxy_server
from copilot_balancer.copilot.hosts import copilot_hosts, plain_host

ORDERS = Path(os.environ["ORDERS"])
USUAL = {"ssl_insecure": False, "map_remote": [], "connection_strategy": "eager"}


def orders():
    return json.loads(ORDERS.read_text())


class Dialling:
    """asyncio, but for where connections lead."""

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def open_connection(self, host, port, **options):
        honest = port == 443 and plain_host(host) in copilot_hosts() and not orders().get("poisoned")
        to = os.environ["FAKE_PORT"] if honest else os.environ["STRANGERS_PORT"]
        return await asyncio.open_connection("127.0.0.1", int(to), **options)


mitmproxy_server.asyncio = Dialling()


class Helper:
    """Does in the proxy what a case wants another addon, or a person at mitmweb, to have done."""

    def client_connected(self, client):
        ctx.options.update(**{**USUAL, **orders().get("options", {})})

    def request(self, flow):
        if not flow.is_replay:
            for name, value in orders().get("edit", {}).items():
                if name == "host_header":
                    flow.request.headers["host"] = value
                else:
                    setattr(flow.request, name, value)

    def response(self, flow):
        if flow.is_replay:
            with ORDERS.with_suffix(".replayed").open("a") as file:
                print(flow.response.status_code, flow.response.text, file=file)
        edit = orders().get("replay")
        if edit is not None and not flow.is_replay:
            copy = flow.copy()
            for name, value in edit.items():
                setattr(copy.request, name, value)
            ctx.master.commands.call("replay.client", [copy])


addons = [Helper()]
'''


class Stranger:
    """A server that is whatever host it is asked for, and takes down all that it is told."""

    def __init__(self, trusted: Authority, untrusted: Authority) -> None:
        self.authorities = {"trusted": trusted, "misnamed": trusted, "untrusted": untrusted}
        self.shows = "trusted"
        """``trusted``: a certificate for the name asked for, by a CA that the proxy trusts; ``misnamed``: for another
        name; ``untrusted``: for the right name, by another CA."""
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            connected.settimeout(20)
            if connected.recv(1, socket.MSG_PEEK) == b"\x16":
                context = self.authorities[self.shows].context("stranger.test")
                context.sni_callback = self._certificate
                connected = context.wrap_socket(connected, server_side=True)
            with connected:
                said = b""
                while b"\r\n\r\n" not in said and (data := connected.recv(65536)):
                    said += data
                    self.heard.append(said)
                connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nstranger")

    def _certificate(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        shown = "somebody-else.test" if self.shows == "misnamed" else name or "stranger.test"
        connection.context = self.authorities[self.shows].context(f"{self.shows}-{name}", shown)


@dataclass
class Rig:
    """The proxy, the fake, the stranger."""

    proxy: Proxy
    fake: FakeCopilot
    stranger: Stranger
    orders: Path
    reverse: int
    """The port where the same proxy is a reverse proxy of the Copilot host."""
    socks: int

    def order(self, **what: object) -> None:
        new = self.orders.with_suffix(".new")
        new.write_text(json.dumps(what))
        new.replace(self.orders)  # the helper never reads half of it


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Iterator[Rig]:
    """One mitmdump for all cases."""
    folder = tmp_path_factory.mktemp("credentials")
    accounts = {
        token: FakeAccount(name, websocket=True)
        for token, name in zip(TOKENS, ("work", "personal", "spare"), strict=True)
    }
    with running(accounts) as fake:
        stranger = Stranger(fake._authority, Authority(folder))
        port, reverse, socks = free_port(), free_port(), free_port()
        (folder / "helper.py").write_text(HELPER)
        orders = folder / "orders.json"
        orders.write_text("{}")
        where = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "PYTHONUNBUFFERED": "1",
            "COPILOT_BALANCER_HOME": str(folder / "home"),
            "FAKE_PORT": str(fake.port),
            "STRANGERS_PORT": str(stranger.port),
            "ORDERS": str(orders),
        }
        store = Store(paths(where).state)
        store.edit_decisions(lambda _: Decisions(accounts=three_accounts(), terms_accepted_at=1.0))
        program = "import sys; from mitmproxy.tools.main import mitmdump; sys.argv[0] = 'mitmdump'; mitmdump()"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", program, "-s", str(folder / "helper.py")),
                    *("-s", str(ROOT / "addon" / "balancer.py"), "--mode", f"regular@{port}"),
                    *("--mode", f"reverse:https://{HOST}@{reverse}", "--mode", f"socks5@{socks}"),
                    *("--set", f"confdir={folder / 'ca'}", "--set", "copilot_websocket=allow"),
                    *("--set", f"ssl_verify_upstream_trusted_ca={fake.ca_file}"),
                ],
                cwd=folder,
                env=where,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        proxy = Proxy(port, folder, process, store, fake)
        try:
            until(lambda: "copilot: ready on" in proxy.log or process.poll() is not None, "mitmdump to be ready", 60)
            assert process.poll() is None, proxy.log
            yield Rig(proxy, fake, stranger, orders, reverse, socks)
        finally:
            proxy.stop()
            stranger.close()


# --- one request, in any form


def post(target: str = "/chat/completions", *, host: str | None = HOST, method: str = "POST", more: str = "") -> bytes:
    """A request as bytes."""
    body = b'{"model":"gpt-4.1"}'
    named = f"Host: {host}\r\n" if host is not None else ""
    head = (
        f"{method} {target} HTTP/1.1\r\n{named}{more}Authorization: Bearer {CLIENT}\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + b"Connection: close\r\n\r\n" + body


WEBSOCKET = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"


def handshake(target: str = "/responses", *, host: str = HOST) -> bytes:
    """A WebSocket's handshake as bytes."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\n{WEBSOCKET}\r\n".encode()


@dataclass
class Form:
    """How a request comes."""

    raw: bytes = field(default_factory=post)
    to: tuple[str, int] | None = (HOST, 443)
    """What is asked for in CONNECT; None: nothing, the request goes to the proxy's own port."""
    sni: str | None = HOST
    """The name in TLS inside; None: no TLS."""
    outer: bool = False
    """Whether the proxy's port is spoken to by TLS."""
    shows: str = "trusted"
    """Which certificate the stranger has."""
    orders: dict[str, object] = field(default_factory=dict)
    port: str = "port"
    """At which of the proxy's ports: ``port``, ``reverse``, ``socks``."""
    goes: bool = False
    """Whether an account's credential must arrive, where it may."""
    h2: dict[str, str] | None = None
    """Send this by HTTP/2 instead: pseudo-headers and headers."""


def anything(connected: socket.socket) -> ssl.SSLSocket:
    """TLS that believes every certificate: it is the proxy's belief that is tried here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connected)


def inner(connected: socket.socket, sni: str, *alpn: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(connected, server_hostname=sni)


def heard(connected: socket.socket, enough: Callable[[bytes], bool] = lambda _: False) -> bytes:
    answer = b""
    with contextlib.suppress(OSError):
        while not enough(answer) and (data := connected.recv(65536)):
            answer += data
    return answer


def speak(rig: Rig, form: Form) -> bytes:
    """Send a request in this form, to the end; what came back."""
    port = {"port": rig.proxy.port, "reverse": rig.reverse, "socks": rig.socks}[form.port]
    with contextlib.ExitStack() as stack:
        connected = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=15))
        try:
            if form.outer:
                connected = stack.enter_context(anything(connected))
            if form.to and form.port == "socks":
                name = form.to[0].encode()
                connected.sendall(b"\x05\x01\x00")
                heard(connected, lambda got: len(got) >= 2)
                connected.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + form.to[1].to_bytes(2, "big"))
                heard(connected, lambda got: len(got) >= 10)
            elif form.to:
                at = f"{form.to[0]}:{form.to[1]}"
                connected.sendall(f"CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n".encode())
                if b" 200 " not in (said := heard(connected, lambda got: b"\r\n\r\n" in got)):
                    return said
            if form.sni:
                connected = stack.enter_context(inner(connected, form.sni, *(["h2"] if form.h2 else [])))
            if form.h2:
                return by_h2(connected, form.h2)
            connected.sendall(form.raw)
            if b"Upgrade: websocket" in form.raw:
                return heard(connected, lambda got: b"\r\n\r\n" in got)
            return heard(connected)
        except OSError as error:
            return str(error).encode()


def by_h2(connected: ssl.SSLSocket, headers: dict[str, str]) -> bytes:
    assert connected.selected_alpn_protocol() == "h2"
    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    http = h2.connection.H2Connection(config)
    http.initiate_connection()
    usual = {":method": "POST", ":scheme": "https", ":path": "/chat/completions", ":authority": HOST}
    given = {**usual, "authorization": f"Bearer {CLIENT}", **headers}
    http.send_headers(1, list(given.items()))
    http.send_data(1, b'{"model":"gpt-4.1"}', end_stream=True)
    connected.sendall(http.data_to_send())
    answer = b""
    while data := connected.recv(65536):
        for event in http.receive_data(data):
            match event:
                case h2.events.ResponseReceived(headers=told):
                    answer += dict(told).get(b":status", b"")
                case h2.events.DataReceived(data=more):
                    answer += b" " + more
                case h2.events.StreamEnded() | h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    return answer
        connected.sendall(http.data_to_send())
    return answer


LAZY = {"options": {"connection_strategy": "lazy"}}
TO_EVIL = {"options": {"map_remote": [f"|https://{HOST}/|https://{EVIL}/"]}}
POISONED = {"poisoned": True}


FORMS = {
    # where it must arrive, so that the others mean something
    "as clients do": Form(goes=True),
    "Host with its port": Form(post(host=f"{HOST}:443"), goes=True),
    "the name in other letters, with the root's dot": Form(to=("API.GitHubCopilot.com.", 443), goes=True),
    "a query that looks like a path": Form(post("/chat/completions?x=/mcp/../agents"), goes=True),
    "a forwarded host is only a header": Form(post(more=f"X-Forwarded-Host: {EVIL}\r\n"), goes=True),
    "HTTP/2": Form(h2={":path": "/v1/messages"}, orders=LAZY, goes=True),
    "WebSocket": Form(handshake(), goes=True),
    "SOCKS": Form(port="socks", goes=True),
    # another server
    "CONNECT to a stranger, Host of Copilot": Form(to=(EVIL, 443), sni=EVIL),
    "CONNECT to a stranger, TLS name and Host of Copilot": Form(to=(EVIL, 443)),
    "CONNECT to an address": Form(to=("127.0.1.9", 443)),
    "a longer name": Form(to=(f"{HOST}.{EVIL}", 443), sni=f"{HOST}.{EVIL}"),
    "a name before it": Form(to=(f"evil-{HOST}", 443), sni=f"evil-{HOST}"),
    "a user before the name": Form(to=(f"x@{HOST}", 443)),
    "SOCKS to a stranger under Copilot's name": Form(to=(EVIL, 443), port="socks"),
    # a poisoned name service
    "poisoned, a certificate for another name": Form(orders=POISONED, shows="misnamed"),
    "poisoned, a certificate by another CA": Form(orders=POISONED, shows="untrusted"),
    "poisoned, the client's TLS for the stranger's own name": Form(orders=POISONED, sni=EVIL),
    "poisoned, in clear inside CONNECT": Form(orders=POISONED, sni=None),
    "poisoned, WebSocket": Form(handshake(), orders=POISONED, shows="misnamed"),
    "poisoned, lazily connected": Form(orders={**POISONED, **LAZY}, shows="untrusted"),
    "poisoned, certificates not checked": Form(
        orders={**POISONED, "options": {"ssl_insecure": True}}, shows="untrusted"
    ),
    "honest, but certificates not checked": Form(orders={"options": {"ssl_insecure": True}}),
    # in clear, or another port
    "http:// at the proxy's port": Form(post(f"http://{HOST}/chat/completions"), to=None, sni=None),
    "https:// at the proxy's port": Form(post(f"https://{HOST}/chat/completions"), to=None, sni=None),
    "no address at the proxy's port": Form(to=None, sni=None),
    "TLS to the proxy's port, https:// inside": Form(
        post(f"https://{HOST}/chat/completions"), to=None, sni=None, outer=True
    ),
    "CONNECT to port 80, in clear": Form(to=(HOST, 80), sni=None),
    "CONNECT to port 80, by TLS": Form(to=(HOST, 80)),
    "CONNECT to port 8443": Form(to=(HOST, 8443)),
    "CONNECT to port 443, in clear inside": Form(sni=None),
    "the reverse mode": Form(to=None, sni=None, port="reverse"),
    "the reverse mode, by TLS": Form(to=None, port="reverse"),
    # another name inside
    "Host of a stranger": Form(post(host=EVIL)),
    "two Hosts": Form(post(more=f"Host: {EVIL}\r\n")),
    "no Host": Form(post(host=None)),
    "Host with another port": Form(post(host=f"{HOST}:8443")),
    "the whole address of a stranger as the path": Form(post(f"https://{EVIL}/chat/completions")),
    "the whole address in clear as the path": Form(post(f"http://{HOST}/chat/completions")),
    "TLS for a stranger": Form(sni=EVIL),
    "WebSocket, Host of a stranger": Form(handshake(host=EVIL)),
    "HTTP/2, :authority of a stranger": Form(h2={":authority": EVIL}, orders=LAZY),
    "HTTP/2, Host of a stranger": Form(h2={"host": EVIL}, orders=LAZY),
    "HTTP/2, :scheme in clear": Form(h2={":scheme": "http", ":authority": f"{HOST}:80"}, orders=LAZY),
    # another path
    "two slashes": Form(post("//chat/completions")),
    "up and down again": Form(post("/chat/completions/../../mcp/")),
    "up, encoded": Form(post("/chat/completions/%2e%2e/mcp")),
    "a letter encoded": Form(post("/%63hat/completions")),
    "a parameter": Form(post("/chat/completions;x=1")),
    "a path's end": Form(post("/chat/completions/")),
    "other letters": Form(post("/Chat/Completions")),
    "a path that acts as a person": Form(post("/mcp/")),
    "an agent's path": Form(post("/agents/x/responses")),
    "a policy": Form(post("/models/gpt-4.1/policy")),
    "the token exchange": Form(post("/copilot_internal/v2/token", method="GET")),
    "PUT": Form(post(method="PUT")),
    "TRACE": Form(post(method="TRACE")),
    "OPTIONS": Form(post(method="OPTIONS")),
    "WebSocket elsewhere": Form(handshake("/mcp/")),
    "HTTP/2, a path that acts as a person": Form(h2={":path": "/mcp/"}, orders=LAZY),
    # two requests in one
    "two lengths": Form(post(more="Transfer-Encoding: chunked\r\n")),
    "two lengths that differ": Form(post(more="Content-Length: 3\r\n")),
    # another addon, or a person at mitmweb: an account's host is our choice alone
    "the host is edited": Form(orders={"edit": {"host": EVIL}}, goes=True),
    "the Host header is edited": Form(orders={"edit": {"host_header": EVIL}}),
    "the scheme is edited": Form(orders={"edit": {"scheme": "http", "port": 80}}),
    "the port is edited": Form(orders={"edit": {"port": 8443}}),
    "the path is edited": Form(orders={"edit": {"path": "/mcp/"}}),
    "map_remote": Form(orders=TO_EVIL, goes=True),
    "map_remote, a path that acts as a person": Form(post("/mcp/"), orders=TO_EVIL),
}


def arrived(rig: Rig, since: int) -> list[str]:
    """Where accounts' tokens arrived at the fake; a mistake is an error here."""
    found = []
    for seen in rig.fake.seen[since:]:
        everything = (
            b"\r\n".join(name + b": " + value for name, value in seen.headers) + seen.target.encode() + seen.body
        )
        carried = [token for token in TOKENS if token.encode() in everything]
        if not carried:
            continue
        assert seen.token in TOKENS
        assert seen.host in copilot_hosts()
        hosts = [value.decode() for name, value in seen.headers if name.lower() == b"host"]
        assert hosts in ([seen.host], [f"{seen.host}:443"]) or [host.lower().rstrip(".") for host in hosts] == [
            seen.host
        ]
        assert kind_of(seen.method, seen.target, websocket=seen.websocket) is not Kind.OTHER
        assert CLIENT.encode() not in everything
        found.append(seen.target)
    return found


def leaked(rig: Rig) -> list[bytes]:
    """What the stranger was told with an account's token in it."""
    return [data for data in rig.stranger.heard if any(token.encode() in data for token in TOKENS)]


@pytest.mark.parametrize("name", FORMS)
def test_forms(rig, name):
    """In whatever form a request comes: an account's token goes to a Copilot host that proved its name, or nowhere."""
    form = FORMS[name]
    rig.stranger.shows = form.shows
    rig.order(**form.orders)
    since = len(rig.fake.seen)
    answer = speak(rig, form)
    assert leaked(rig) == []
    tokens = arrived(rig, since)
    assert bool(tokens) is form.goes, answer
    assert not any(token.encode() in answer for token in TOKENS)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({}, id="as it was"),
        pytest.param({"host": EVIL}, id="to a stranger"),
        pytest.param({"path": "/mcp/"}, id="elsewhere"),
        pytest.param({"port": 8443}, id="another port"),
        pytest.param({"scheme": "http", "port": 80}, id="in clear"),
        pytest.param({"host": "api.business.githubcopilot.com"}, id="another Copilot host"),
    ],
)
def test_replayed(rig, edit):
    """A flow that is replayed, edited or not, is answered by the proxy: nothing is sent, to a Copilot host or elsewhere."""
    rig.order(replay=edit)
    since, before = len(rig.fake.seen), len(rig.stranger.heard)
    replayed = rig.orders.with_suffix(".replayed")
    replayed.unlink(missing_ok=True)
    speak(rig, Form())
    rig.order()
    until(lambda: replayed.exists() and replayed.read_text().endswith("\n"), "the answer to the replay")
    assert replayed.read_text().startswith("403 ")
    assert "a replay gets no account" in replayed.read_text()
    speak(rig, Form())  # whatever a replay sends has begun before this one
    assert len(arrived(rig, since)) == 2
    assert len(rig.fake.seen) == since + 2
    assert len(rig.stranger.heard) == before
    assert leaked(rig) == []


def test_a_redirect_is_not_followed(rig):
    """An upstream that points elsewhere is passed on; nothing of ours goes there."""
    rig.order()
    for account in rig.fake.accounts.values():
        account.script.append(Refuse(307, headers=(("location", f"https://{EVIL}/chat/completions"),)))
    before = len(rig.stranger.heard)
    answer = speak(rig, Form())
    for account in rig.fake.accounts.values():
        account.script.clear()
    assert answer.startswith(b"HTTP/1.1 307")
    assert len(rig.stranger.heard) == before


INSECURE = {"options": {"ssl_insecure": True}}


@pytest.mark.parametrize(
    ("steps", "outcomes"),
    [
        pytest.param([INSECURE, {}], ["own", "refused"], id="opened unchecked, then switched off"),
        pytest.param([INSECURE, {}, {}], ["own", "refused", "refused"], id="asked again"),
        pytest.param([INSECURE, {}, INSECURE, {}], ["own", "refused", "own", "refused"], id="to and fro"),
        pytest.param([{}, INSECURE, {}], ["account", "own", "account"], id="opened checked, switched on and off"),
    ],
)
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_certificates_unchecked_for_a_while(rig, steps, outcomes, http2):
    """`ssl_insecure` switched at run time: no account's credential on a connection that was opened unchecked, ever."""
    got = []
    with rig.proxy.client(http2=http2) as client:
        for step in steps:
            rig.order(**step)
            if got:
                speak(rig, Form(to=None, sni=None))  # the helper sets options when a client connects
            since = len(rig.fake.seen)
            answer = client.post(f"https://{HOST}/chat/completions", json={"model": "gpt-4.1"})
            sent = [seen.token for seen in rig.fake.seen[since:]]
            if answer.status_code == 403:
                assert answer.json()["error"]["code"] == "credential_refused"
                assert sent == []
                got.append("refused")
            else:
                got.append("own" if sent == [CLIENT] else "account" if arrived(rig, since) else "?")
    rig.order()
    assert got == outcomes
    assert leaked(rig) == []


def test_the_placeholder_goes_nowhere_as_a_person(rig):
    """Where no account's token may go, a client that holds none of its own is told so, and nothing is sent."""
    rig.order()
    since = len(rig.fake.seen)
    raw = post("/mcp/").replace(CLIENT.encode(), PLACEHOLDER.encode())
    assert speak(rig, Form(raw)).startswith(b"HTTP/1.1 403")
    assert len(rig.fake.seen) == since


def test_nothing_leaked_in_the_end(rig):
    """After all of it the proxy has ended: nothing arrived late, the stranger was told much, and no account's token."""
    for form in FORMS.values():  # all of them here: other processes may run the tests above
        rig.stranger.shows = form.shows
        rig.order(**form.orders)
        speak(rig, form)
    rig.proxy.stop()
    assert len(FORMS) >= 30
    assert len(rig.stranger.heard) >= 5
    assert leaked(rig) == []
    assert len(arrived(rig, 0)) >= 9
    assert "Traceback" not in rig.proxy.log
    assert "mitmproxy has crashed" not in rig.proxy.log
