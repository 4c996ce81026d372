"""Who may come in: this machine, this user, and no web page."""

import asyncio
import errno
import logging
import os
import subprocess
import sys

import pytest
from mitmproxy import http
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.connection import Client
from mitmproxy.test import taddons

from copilot_balancer.config import Settings
from copilot_balancer.proxy.guard import client_access, peer_uid
from copilot_balancer.proxy.guard.client_access import ClientAccess, is_loopback, made_by_a_page
from proxy.guard.test_peer_uid import LINUX, ROOT

OURS = 1000
NOT_TOLD = OSError(24, "Too many open files")


@pytest.fixture
def told(monkeypatch):
    """What the system tells about a client: `told.owner`; None: it tells nothing at all."""

    class Told:
        owner: int | Exception | None = OURS
        way = "netlink"

        async def owner_of(self, client, server):
            assert (client, server) == (("127.0.0.1", 50000), ("127.0.0.1", 8080))
            if isinstance(self.owner, Exception):
                raise self.owner
            return self.owner

    told = Told()
    monkeypatch.setattr(client_access.peer_uid, "owner_of", told.owner_of)
    monkeypatch.setattr(client_access.peer_uid, "way", lambda: told.way)
    monkeypatch.setattr(client_access.os, "geteuid", lambda: OURS)
    return told


def a_client(host="127.0.0.1", transport="tcp") -> Client:
    more = (0, 0) if ":" in host else ()
    return Client(
        peername=(host, 50000, *more),
        sockname=("127.0.0.1", 8080, *more),
        timestamp_start=1.0,
        transport_protocol=transport,
    )


def knock(client: Client, settings: Settings | None = Settings(), password: str | None = None, **more) -> str | None:  # noqa: B008 - frozen
    """What the door says to a client; None: come in."""
    with taddons.context(ProxyAuth()) as tctx:
        if password:
            tctx.options.update(proxyauth=password)
        asyncio.run(ClientAccess(lambda: settings, **more).client_connected(client))
    return client.error


def test_a_lack_of_files_is_a_line_a_minute(caplog, monkeypatch):
    """Of connections that cannot be taken mitmproxy writes a traceback each; of them one line a minute is left."""
    now = [5.0]
    log = logging.getLogger("mitmproxy.master")
    monkeypatch.setattr(log, "filters", [])
    for _ in range(2):  # the script is run again
        ClientAccess(lambda: None, lambda: now[0]).load(None)
    assert len(log.filters) == 1
    for now[0] in (5.0, 6.0, 64.9, 65.0):
        log.error("Unhandled error in task.", exc_info=OSError(errno.EMFILE, "Too many open files"))
        log.error("Unhandled error in task.", exc_info=OSError(errno.ENFILE, "Too many open files in system"))
    log.error("Unhandled error in task.", exc_info=OSError(errno.EPIPE, "Broken pipe"))
    log.error("Unhandled error in task.")
    short = [record.getMessage().startswith("copilot: no connection can be taken now") for record in caplog.records]
    assert short == [True, True, False, False]
    assert [record.exc_info is not None for record in caplog.records] == [False, False, True, False]


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        pytest.param(OURS, None, id="our own user"),
        pytest.param(0, None, id="root"),
        pytest.param(1001, "another user of this machine (uid 1001)", id="another user"),
        pytest.param(65534, "another user", id="nobody"),
        pytest.param(None, "nobody on this system", id="a client that has left"),
        pytest.param(NOT_TOLD, "Too many open files", id="it cannot be told"),
        pytest.param(ZeroDivisionError(), "incident", id="a fault of ours"),
    ],
)
def test_users(told, owner, said, caplog):
    """Only our own user's clients and root's come in; what cannot be told is refused, and refused is said."""
    told.owner = owner
    error = knock(a_client())
    assert (error is None) is (said is None)
    assert (said or "") in (error or "")
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (said is not None)


@pytest.mark.parametrize(
    ("host", "served"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("192.168.1.5", False), ("8.8.8.8", False), ("fe80::1%eth0", False)],
)
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("password", [None, "any", "user:", ":", "user:secret", "ldap:host:dn:pw:tree"])
def test_machines(told, host, served, remote, password):
    """A client of another machine needs the user's leave and a real password, whatever the proxy listens on."""
    told.way = None
    real = password is not None and ("secret" in password or "ldap" in password)
    with taddons.context(Spec()) as tctx:
        tctx.options.update(proxyauth=password)
        door, client = ClientAccess(lambda: Settings(allow_remote=remote)), a_client(host)
        asyncio.run(door.client_connected(client))
        assert (client.error is None) is (served or (remote and real))
        assert door.is_admitted(client) is (served and not real)
        if client.error is None:
            door.authenticated(client)
        assert door.is_admitted(client) is (client.error is None and (served or real))


class Spec:
    """mitmproxy's option proxyauth, without what it would connect to."""

    def load(self, loader):
        loader.add_option("proxyauth", str | None, None, "")


def test_a_password_that_is_gone_admits_nobody(told):
    """Who came in for a password is not admitted when the option was taken away before the password was seen."""
    told.owner = 1001
    with taddons.context(ProxyAuth()) as tctx:
        tctx.options.update(proxyauth="user:secret")
        door, client = ClientAccess(Settings), a_client()
        asyncio.run(door.client_connected(client))
        assert client.error is None
        for without in (None, "any"):
            tctx.options.update(proxyauth=without)
            door.authenticated(client)
            assert not door.is_admitted(client)


def test_nobody_is_admitted_unseen(told):
    """A client whose connection was never judged gets no account, whoever it is."""
    with taddons.context(ProxyAuth()):
        assert not ClientAccess(Settings).is_admitted(a_client())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("localhost", True),
        ("127.0.0.1.evil.test", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(host, expected):
    """Loopback is an address that no other machine can have."""
    assert is_loopback(host) is expected


def test_nobody_comes_in_before_we_are_ready(told):
    """Without settings the addon does not run, and nobody is served."""
    assert "not ready" in knock(a_client(), settings=None)


@pytest.mark.parametrize(
    ("way", "password", "transport"),
    [
        pytest.param(None, None, "tcp", id="a system that does not tell"),
        pytest.param("netlink", "user:pass", "tcp", id="the user asks for a password"),
        pytest.param("netlink", None, "udp", id="no TCP: nothing of ours is there"),
    ],
)
def test_where_users_are_not_told_apart(told, way, password, transport):
    """Another user's client knocks where only a password could refuse it, or does."""
    told.way, told.owner = way, 1001
    assert knock(a_client(transport=transport), password=password) is None


@pytest.mark.parametrize(
    ("way", "password", "said"),
    [(None, None, True), (None, "user:pass", False), ("netlink", None, False)],
)
def test_what_is_not_told_is_said_at_the_start(told, caplog, way, password, said):
    """Where users cannot be told apart and no password is asked, the start says so."""
    told.way = way
    with caplog.at_level(logging.INFO), taddons.context(ProxyAuth()) as tctx:
        if password:
            tctx.options.update(proxyauth=password)
        ClientAccess(Settings).running()
    assert ("proxyauth" in caplog.text) is said


def test_a_flood_is_a_line_a_minute(told, caplog):
    """However many are refused: one line a minute, with a count of the others."""
    told.owner, now = 1001, 0.0
    door = ClientAccess(Settings, clock=lambda: now)
    with taddons.context(ProxyAuth()):
        for _ in range(300):
            now += 0.5
            asyncio.run(door.client_connected(a_client()))
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == 3
    assert "119 more were refused before" in lines[1]


@pytest.mark.parametrize(
    ("headers", "page"),
    [
        pytest.param({}, False, id="no sign of a browser"),
        pytest.param({"sec-fetch-mode": "cors"}, False, id="Node's fetch"),
        pytest.param(
            {"sec-fetch-site": "none", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"},
            False,
            id="Electron's net.fetch (VS Code)",
        ),
        pytest.param({"origin": "vscode-file://vscode-app"}, False, id="VS Code's window"),
        pytest.param({"origin": "chrome-extension://abc"}, False, id="an extension that the user installed"),
        pytest.param({"sec-fetch-mode": "websocket", "sec-fetch-dest": "websocket"}, False, id="Electron's WebSocket"),
        pytest.param({"referer": "https://opencode.ai/"}, False, id="a program that names its home page"),
        pytest.param({"origin": "https://evil.test"}, True, id="a page's fetch"),
        pytest.param({"origin": "HTTP://localhost:3000"}, True, id="a page of this machine"),
        pytest.param({"Origin": "https://api.githubcopilot.com"}, True, id="a page that came through us"),
        pytest.param({"origin": "null"}, True, id="a sandboxed frame, a data: page"),
        pytest.param({"origin": " Https://evil.test"}, True, id="odd spelling"),
        pytest.param({"sec-fetch-dest": "image"}, True, id="an image of a page"),
        pytest.param({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, True, id="a script of a page"),
        pytest.param({"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, True, id="the address bar"),
        pytest.param({"sec-fetch-mode": "navigate"}, True, id="a form's POST"),
        pytest.param(
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"},
            True,
            id="a page's no-cors fetch",
        ),
        pytest.param({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, True, id="a page of the same site"),
        pytest.param(
            {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, True, id="a page that came through us, GET"
        ),
        pytest.param({"Sec-Fetch-Site": " Cross-Site "}, True, id="cross-site, odd spelling"),
        pytest.param({"sec-purpose": "prefetch;prerender"}, True, id="a prefetch"),
        pytest.param({"purpose": "prefetch"}, True, id="an old prefetch"),
        pytest.param(
            {"origin": "vscode-file://vscode-app", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
            False,
            id="VS Code's window, with its site",
        ),
    ],
)
def test_pages(headers, page):
    """What only a web page's browser writes is a page's request; what programs write is not."""
    request = http.Request.make("POST", "https://api.githubcopilot.com/chat/completions", b"{}", headers)
    assert (made_by_a_page(request) is not None) is page


def test_two_origins():
    """A second Origin header hides nothing."""
    request = http.Request.make("POST", "https://api.githubcopilot.com/responses", b"{}")
    request.headers.fields = ((b"origin", b"vscode-file://vscode-app"), (b"origin", b"https://evil.test"))
    assert made_by_a_page(request)


SERVE = """
import asyncio, sys
from mitmproxy import options
from mitmproxy.tools.dump import DumpMaster
from copilot_balancer.config import Settings
from copilot_balancer.proxy.guard.client_access import ClientAccess

async def serve():
    master = DumpMaster(options.Options(listen_host="127.0.0.1", listen_port=0), with_dumper=False)
    master.addons.add(ClientAccess(Settings))
    serving = asyncio.create_task(master.run())
    while not (found := master.addons.get("proxyserver").listen_addrs()):
        await asyncio.sleep(0.01)
    print("PORT", found[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    master.shutdown()
    await serving

asyncio.run(serve())
"""
ASK = """
import os, socket, sys
"".encode("idna")  # loaded while we may still read Python's own folder
uid = int(sys.argv[2])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as client:
    try:
        client.sendall(b"GET http://mitm.it/ HTTP/1.1\\r\\nHost: mitm.it\\r\\nConnection: close\\r\\n\\r\\n")
        print(client.recv(65536)[:12].decode())
    except ConnectionError:
        print("")
"""


@LINUX
@ROOT
def test_a_real_stranger():
    """A process of another user gets not a byte from a real mitmproxy; ours and root's are answered."""
    assert peer_uid.way() is not None
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as proxy:
        while not (line := proxy.stdout.readline()).startswith("PORT"):
            assert line
        port = line.split()[1]
        answers = {
            uid: subprocess.run(
                [sys.executable, "-c", ASK, port, str(uid)], capture_output=True, text=True, check=True, cwd="/"
            ).stdout.strip()
            for uid in (os.geteuid(), 65534)
        }
        proxy.stdin.close()
        log = proxy.stdout.read()
    assert answers == {os.geteuid(): "HTTP/1.1 200", 65534: ""}
    assert log.count("a connection was refused") == 1
    assert "uid 65534" in log
