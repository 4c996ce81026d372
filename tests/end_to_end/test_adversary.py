"""What somebody tries who wants an account, a credential, or a way around a fence: real proxies on loopback.

One mitmdump stands behind a script that raises in every hook, one asks for passwords. Each attempt is a row of the
table; after each, every credential must have arrived where it may, and at the end none stands in a file of flows.
"""

import base64
import contextlib
import hashlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from copilot_balancer.fake.answers import CutMid, Drop, FakeAccount, Ok, Refuse, limited
from copilot_balancer.fake.server import running
from copilot_balancer.store.running_proxies import read_live
from support.proxies import CLIENT, PERSONAL, SPARE, WORK, free_port, proxies, three_accounts, until

HOST = "api.githubcopilot.com"
PROXY_PASSWORD = "canary-proxy-password"
TOKENS = {WORK: "work", PERSONAL: "personal", SPARE: "spare"}

RAISES = """
def raising(name):
    def hook(self, *_):
        raise RuntimeError(f"{name} is broken")
    return hook

names = ("client_connected", "http_connect", "next_layer", "tls_clienthello", "server_connect", "server_connected",
         "tls_start_server", "tls_established_server", "requestheaders", "request", "responseheaders", "response", "error")
addons = [type("Raises", (), {name: raising(name) for name in names})()]
"""
REPLAYS = """
from mitmproxy import ctx
class Replays:
    def response(self, flow):
        if b"replay-me" in flow.request.data.path and not flow.is_replay:
            ctx.master.commands.call("replay.client", [flow.copy()])
addons = [Replays()]
"""


@dataclass
class Rig:
    proxy: object
    fake: object
    ports: dict[str, int]
    folder: object


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adversary")
    work, personal, spare = three_accounts()
    accounts = (work, personal.model_copy(update={"fence": "private"}), spare)
    (folder / "raises.py").write_text(RAISES)
    (folder / "replays.py").write_text(REPLAYS)
    secret = base64.b64encode(hashlib.sha1(PROXY_PASSWORD.encode()).digest()).decode()
    (folder / "users").write_text("".join(f"{user}:{{SHA}}{secret}\n" for user in ("personal", "private", "nobody")))
    fakes = {token: FakeAccount(label) for token, label in TOKENS.items()}
    fakes[CLIENT] = FakeAccount("client")
    with running(fakes) as fake, proxies(fake, folder) as start:
        ports = {name: free_port() for name in ("reverse", "plain reverse", "socks", "secret", "secret socks")}
        # scripts of options come after ours in the chain of mitmproxy unless they are named before it
        plain = start(
            *("--mode", "regular", "--mode", f"reverse:https://{HOST}@{ports['reverse']}"),
            *("--mode", f"reverse:http://{HOST}@{ports['plain reverse']}", "--mode", f"socks5@{ports['socks']}"),
            *("-w", str(folder / "plain.mitm")),
            accounts=accounts,
            scripts_before=(folder / "replays.py", folder / "raises.py"),
        )
        secret_one = start(
            *("--mode", f"regular@{ports['secret']}", "--mode", f"socks5@{ports['secret socks']}"),
            *("--set", f"proxyauth=@{folder / 'users'}", "-w", str(folder / "secret.mitm")),
            accounts=accounts,
            scripts_before=(folder / "raises.py",),
        )
        ports["port"] = plain.port
        yield Rig(plain, fake, ports, folder)
        plain.stop()
        secret_one.stop()
        for name in ("plain.mitm", "secret.mitm"):
            kept = (folder / name).read_bytes()
            for secret_text in (
                *TOKENS,
                CLIENT,
                PROXY_PASSWORD,
                base64.b64encode(f"private:{PROXY_PASSWORD}".encode()).decode(),
            ):
                assert secret_text.encode() not in kept, f"a secret stands in {name}"


def basic(user: str, password: str = PROXY_PASSWORD) -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


def head(
    target="/chat/completions", *, host=HOST, method="POST", more="", body=b'{"model":"gpt-4.1","messages":[]}'
) -> bytes:
    own = f"Authorization: Bearer {CLIENT}\r\n"
    said = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{own}{more}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return said.encode() + body


def heard(connected, enough=lambda _: False) -> bytes:
    got = b""
    with contextlib.suppress(OSError):
        while not enough(got) and (data := connected.recv(65536)):
            got += data
    return got


def tls(connected, sni=HOST):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connected, server_hostname=sni)


def direct(raw: bytes, port="port", *, outer: str | None = None) -> Callable[[Rig], bytes]:
    """To a port of the proxy as it is, or by TLS."""

    def go(rig):
        with contextlib.ExitStack() as stack:
            connected = stack.enter_context(socket.create_connection(("127.0.0.1", rig.ports[port]), timeout=20))
            spoken = stack.enter_context(tls(connected, outer)) if outer else connected
            spoken.sendall(raw)
            return heard(spoken)

    return go


def tunnel(raw: bytes, *, at=f"{HOST}:443", sni=HOST, port="port", more="") -> Callable[[Rig], bytes]:
    """Through CONNECT and TLS."""

    def go(rig):
        with socket.create_connection(("127.0.0.1", rig.ports[port]), timeout=20) as connected:
            connected.sendall(f"CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n{more}\r\n".encode())
            if b" 200 " not in (said := heard(connected, lambda got: b"\r\n\r\n" in got)[:64]):
                return said
            with tls(connected, sni) as inside:
                inside.sendall(raw)
                return heard(inside)

    return go


def socks(
    raw: bytes, *, to="203.0.113.9", sni=HOST, methods=b"\x00", user: str | None = None, port="socks", at=443
) -> Callable[[Rig], bytes]:
    """Through SOCKS 5, by name or by address."""

    def go(rig):
        with socket.create_connection(("127.0.0.1", rig.ports[port]), timeout=20) as connected:
            connected.sendall(b"\x05" + bytes([len(methods)]) + methods)
            chosen = heard(connected, lambda got: len(got) >= 2)
            if chosen[1:2] == b"\x02":
                name, password = (user or "").encode(), PROXY_PASSWORD.encode()
                connected.sendall(b"\x01" + bytes([len(name)]) + name + bytes([len(password)]) + password)
                if heard(connected, lambda got: len(got) >= 2)[1:2] != b"\x00":
                    return b"refused: password"
            elif chosen[1:2] != b"\x00":
                return b"refused: method"
            packed = socket.inet_aton(to) if to[0].isdigit() else bytes([len(to)]) + to.encode()
            connected.sendall(
                b"\x05\x01\x00" + (b"\x01" if to[0].isdigit() else b"\x03") + packed + at.to_bytes(2, "big")
            )
            if heard(connected, lambda got: len(got) >= 10)[1:2] != b"\x00":
                return b"refused: connect"
            with tls(connected, sni) as inside:
                inside.sendall(raw)
                return heard(inside)

    return go


DEFAULT = "work, spare"
"""The accounts of the fence of requests that name none."""
NOBODY = "nobody"
"""No account's credential arrives anywhere."""


@dataclass(frozen=True)
class Attempt:
    how: Callable[[Rig], bytes]
    served_by: str = NOBODY
    """Whose credential arrives; of several it is one."""
    says: bytes = b""
    """Stands in what the client gets."""
    own: bool = False
    """Whether the client's own credential may arrive at the Copilot host."""


def page(**headers: str) -> str:
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())


REFUSED = b'"not_through_a_tunnel"'
ABSOLUTE = f"https://{HOST}/chat/completions"
ENCODED = f"https://{HOST}%2e/chat/completions"
SEC = {"cross": page(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"), "same": page(Sec_Fetch_Site="same-site")}

ATTEMPTS = {
    # the proxy works at all, behind a script that raises in each hook
    "an honest request": Attempt(tunnel(head()), DEFAULT),
    "an honest list": Attempt(tunnel(head("/models", method="GET", body=b"")), DEFAULT),
    "an honest request by SOCKS": Attempt(socks(head(), to=HOST), DEFAULT),
    # outside a tunnel
    "absolute form": Attempt(direct(head(ABSOLUTE)), says=REFUSED),
    "absolute form, a list": Attempt(direct(head(f"https://{HOST}/models", method="GET", body=b"")), says=REFUSED),
    "absolute form, in clear": Attempt(direct(head(f"http://{HOST}/chat/completions")), says=REFUSED),
    "absolute form, another port": Attempt(direct(head(f"http://{HOST}:8080/chat/completions")), says=REFUSED),
    "absolute form, other letters": Attempt(direct(head("https://API.GitHubCopilot.com/chat/completions")), says=REFUSED),
    "absolute form, the root's dot": Attempt(direct(head(f"https://{HOST}./chat/completions")), says=REFUSED),
    "absolute form, port named": Attempt(direct(head(f"https://{HOST}:443/chat/completions")), says=REFUSED),
    "absolute form, Host of a stranger": Attempt(direct(head(ABSOLUTE, host="evil.test")), says=REFUSED),
    "absolute form of a stranger, Copilot's Host": Attempt(direct(head("http://evil.test/chat/completions")), says=REFUSED),
    "absolute form, business host": Attempt(direct(head("https://api.business.githubcopilot.com/responses")), says=REFUSED),
    "absolute form, a proxy password": Attempt(direct(head(ABSOLUTE, more=basic("private"))), says=REFUSED),
    "absolute form, other credentials": Attempt(direct(head(ABSOLUTE, more=f"X-Api-Key: {CLIENT}\r\nCookie: a={CLIENT}\r\n")), says=REFUSED),
    "absolute form, expects 100": Attempt(direct(head(ABSOLUTE, more="Expect: 100-continue\r\n")), says=REFUSED),
    "absolute form, a WebSocket": Attempt(direct(head(f"https://{HOST}/responses", method="GET", body=b"", more="Upgrade: websocket\r\n")), says=REFUSED),
    "absolute form, a path that acts as a person": Attempt(direct(head(f"https://{HOST}/agents")), says=REFUSED),
    "absolute form by TLS to the proxy": Attempt(direct(head(ABSOLUTE), outer="127.0.0.1"), says=REFUSED),
    "absolute form in clear, from a page": Attempt(direct(head(f"http://{HOST}/models", method="GET", body=b"", more=SEC["cross"])), says=REFUSED),
    "absolute form, scheme in other letters": Attempt(direct(head(f"HTTPS://{HOST}/chat/completions")), says=REFUSED),
    "absolute form, a user in the address": Attempt(direct(head(f"https://me@{HOST}/chat/completions"))),
    "the reverse mode, a WebSocket": Attempt(direct(head("/responses", method="GET", body=b"", more="Upgrade: websocket\r\n"), "reverse"), says=REFUSED),
    "the reverse mode": Attempt(direct(head(), "reverse"), says=REFUSED),
    "the reverse mode, a list": Attempt(direct(head("/models", method="GET", body=b""), "reverse"), says=REFUSED),
    "the reverse mode, Host of a stranger": Attempt(direct(head(host="evil.test"), "reverse"), says=REFUSED),
    "the reverse mode, by TLS": Attempt(direct(head(), "reverse", outer=HOST), says=REFUSED),
    "the reverse mode, other credentials": Attempt(direct(head(more=f"X-GitHub-Token: {CLIENT}\r\n"), "reverse"), says=REFUSED),
    "the reverse mode in clear": Attempt(direct(head(), "plain reverse"), says=REFUSED),
    # a page
    "a page's no-cors GET": Attempt(tunnel(head("/models", method="GET", body=b"", more=SEC["cross"])), own=True),
    "a page's no-cors GET of a session": Attempt(tunnel(head("/models/session", method="GET", body=b"", more=SEC["cross"])), own=True),
    "a page's no-cors POST": Attempt(tunnel(head(more=SEC["cross"])), own=True),
    "a page of the same site": Attempt(tunnel(head(more=SEC["same"])), own=True),
    "a prefetch": Attempt(tunnel(head("/models", method="GET", body=b"", more=page(Sec_Purpose="prefetch"))), own=True),
    "a prerender": Attempt(tunnel(head("/models", method="GET", body=b"", more=page(Sec_Purpose="prefetch;prerender"))), own=True),
    "an old prefetch": Attempt(tunnel(head("/models", method="GET", body=b"", more=page(Purpose="prefetch"))), own=True),
    "a link": Attempt(tunnel(head("/models", method="GET", body=b"", more=page(Sec_Fetch_Mode="navigate"))), own=True),
    "a page's Origin": Attempt(tunnel(head(more=page(Origin="https://evil.test"))), own=True),
    "a sandboxed page": Attempt(tunnel(head(more=page(Origin="null"))), own=True),
    "two Origins": Attempt(tunnel(head(more=page(Origin="vscode-file://vscode-app") + page(origin="http://evil.test"))), own=True),
    "two modes": Attempt(tunnel(head(more=page(Sec_Fetch_Mode="cors") + page(sec_fetch_mode="navigate"))), own=True),
    "a page's image": Attempt(tunnel(head("/models", method="GET", body=b"", more=page(Sec_Fetch_Dest="image", Sec_Fetch_Mode="no-cors"))), own=True),
    "a page that came through us": Attempt(tunnel(head("/models/session", method="GET", body=b"", more=page(Sec_Fetch_Site="same-origin"))), own=True),
    "a page's form": Attempt(tunnel(head(more=page(Origin="http://localhost:3000", Content_Type="text/plain"))), own=True),
    "a program that looks like a page": Attempt(tunnel(head(more=page(Sec_Fetch_Site="none", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="empty"))), DEFAULT),
    # names
    "a fence in the proxy's URL": Attempt(tunnel(head(), more=basic("private")), "personal"),
    "an account in the proxy's URL": Attempt(tunnel(head(), more=basic("spare")), "spare"),
    "a name of nobody in the proxy's URL": Attempt(tunnel(head(), more=basic("nobody")), says=b'"unknown_proxy_user"'),
    "a fence in other letters": Attempt(tunnel(head(), more=basic("Private")), says=b'"unknown_proxy_user"'),
    "a fence and a blank": Attempt(tunnel(head(), more=basic("private ")), says=b'"unknown_proxy_user"'),
    "two names": Attempt(tunnel(head(), more=basic("work,spare")), says=b'"unknown_proxy_user"'),
    "a fence and a blank by SOCKS": Attempt(socks(head(), to=HOST, methods=b"\x00\x02", user="private "), says=b'"unknown_proxy_user"'),
    "a name that cannot be read": Attempt(tunnel(head(), more="Proxy-Authorization: Basic !!!\r\n"), says=b'"unknown_proxy_user"'),
    "a scheme that is not Basic": Attempt(tunnel(head(), more="Proxy-Authorization: Bearer private\r\n"), says=b'"unknown_proxy_user"'),
    "a fence by password": Attempt(tunnel(head(), port="secret", more=basic("private")), "personal"),
    "an account by password": Attempt(tunnel(head(), port="secret", more=basic("personal")), "personal"),
    "a name of nobody by password": Attempt(tunnel(head(), port="secret", more=basic("nobody")), says=b'"unknown_proxy_user"'),
    "a wrong password": Attempt(tunnel(head(), port="secret", more=basic("private", "guess")), says=b" 407 "),
    "no password": Attempt(tunnel(head(), port="secret"), says=b" 407 "),
    "no password, absolute form": Attempt(direct(head(ABSOLUTE), "secret"), says=b" 403 "),
    "the password in the wrong place": Attempt(tunnel(head(more=basic("private")), port="secret"), says=b" 407 "),
    "a fence by SOCKS": Attempt(socks(head(), to=HOST, methods=b"\x00\x02", user="private"), "personal"),
    "a fence by SOCKS, name alone": Attempt(socks(head(), to=HOST, methods=b"\x02", user="private"), "personal"),
    "an account by SOCKS": Attempt(socks(head(), to=HOST, methods=b"\x00\x02", user="spare"), "spare"),
    "a name of nobody by SOCKS": Attempt(socks(head(), to=HOST, methods=b"\x00\x02", user="nobody"), says=b'"unknown_proxy_user"'),
    "a fence by SOCKS and password": Attempt(socks(head(), to=HOST, methods=b"\x00\x02", user="private", port="secret socks"), "personal"),
    "a name of nobody by SOCKS and password": Attempt(socks(head(), to=HOST, methods=b"\x02", user="nobody", port="secret socks"), says=b'"unknown_proxy_user"'),
    "a wrong name by SOCKS": Attempt(socks(head(), to=HOST, methods=b"\x02", user="other", port="secret socks"), says=b"refused: password"),
    "SOCKS without the password": Attempt(socks(head(), to=HOST, port="secret socks"), says=b"refused: method"),
    # an address instead of a name
    "SOCKS by address": Attempt(socks(head()), DEFAULT),
    "SOCKS by address, a name of nobody": Attempt(socks(head(), methods=b"\x00\x02", user="nobody"), says=b'"unknown_proxy_user"'),
    "SOCKS by address, a fence": Attempt(socks(head(), methods=b"\x00\x02", user="private"), "personal"),
    "SOCKS by address, a loopback one": Attempt(socks(head(), to="127.0.1.9"), DEFAULT),
    "SOCKS by address, Host of a stranger": Attempt(socks(head(host="evil.test")), says=b'"credential_refused"'),
    "SOCKS by name of a stranger, Copilot's TLS name": Attempt(socks(head(), to="evil.test"), own=True),
    "SOCKS by address, port 8443": Attempt(socks(head(), at=8443), own=True),
    "SOCKS by address, a longer TLS name": Attempt(socks(head(), sni=f"{HOST}.evil.test"), own=True),
    "CONNECT to an address, Copilot's TLS name": Attempt(tunnel(head(), at="203.0.113.9:443"), own=True),
    # credentials beside an account's
    "X-Api-Key": Attempt(tunnel(head(more=f"X-Api-Key: {CLIENT}\r\n")), DEFAULT),
    "X-GitHub-Token": Attempt(tunnel(head(more=f"X-GitHub-Token: {CLIENT}\r\n")), DEFAULT),
    "api-key": Attempt(tunnel(head(more=f"api-key: {CLIENT}\r\n")), DEFAULT),
    "X-Goog-Api-Key": Attempt(tunnel(head(more=f"X-Goog-Api-Key: {CLIENT}\r\n")), DEFAULT),
    "a cookie": Attempt(tunnel(head(more=f"Cookie: t={CLIENT}\r\n")), DEFAULT),
    "Proxy-Authorization inside": Attempt(tunnel(head(more=f"Proxy-Authorization: Bearer {CLIENT}\r\n")), DEFAULT),
    "two Authorizations": Attempt(tunnel(head(more=f"authorization: Bearer {CLIENT}\r\n")), DEFAULT),
    "a replay": Attempt(tunnel(head("/chat/completions?replay-me")), DEFAULT),
    # an answer that says the credential
    "an echo in the answer": Attempt(tunnel(head("/chat/completions?echo")), DEFAULT),
}  # fmt: skip


def test_there_are_enough():
    """At least sixty attempts that no other test makes."""
    assert len(ATTEMPTS) >= 60


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(rig, name):
    """An account's credential arrives where it may, beside none of the client's, and the fence holds."""
    attempt, since = ATTEMPTS[name], len(rig.fake.seen)
    for token in (WORK, SPARE):
        rig.fake.accounts[token].default = Ok(f"you sent {token}") if "echo" in name else Ok("fine")
    got = attempt.how(rig)
    if name == "a replay":
        until(lambda: "a replay gets no account" in rig.proxy.log, "the answer to the replay")
        time.sleep(0.2)  # whatever it would send is sent by then
    used = []
    for seen in rig.fake.seen[since:]:
        everything = b"\r\n".join(value for _, value in seen.headers) + seen.target.encode() + seen.body
        here = [label for token, label in TOKENS.items() if token.encode() in everything]
        used += here
        assert not (here and CLIENT.encode() in everything), "the client's credential beside an account's"
        assert here or attempt.own or CLIENT.encode() not in everything, "the client's credential went out"
    assert len(used) == (attempt.served_by != NOBODY)
    assert all(label in attempt.served_by.split(", ") for label in used)
    assert attempt.says in got
    assert b" 200 " in got[:64] or attempt.served_by == NOBODY


WHOSE = """
import os
from pathlib import Path
from copilot_balancer.proxy.guard import peer_uid

async def owner_of(*_):
    return os.geteuid() + (4321 if Path(os.environ["STRANGER"]).exists() else 0)

peer_uid.way, peer_uid.owner_of = (lambda: "told by the test"), owner_of
addons = []
"""


def test_counters_behind_a_script_that_raises(start, fake, tmp_path):
    """Requests that end in whatever way leave no counter behind, another user stays out, flows hold no credential."""
    for name, text in (("raises", RAISES), ("whose", WHOSE)):
        (tmp_path / f"{name}.py").write_text(text)
    proxy = start(
        *("-w", "flows.mitm"),
        scripts_before=(tmp_path / "whose.py", tmp_path / "raises.py"),
        env={"STRANGER": str(tmp_path / "stranger")},
    )

    def under_way():
        return [(one.requests, sum(one.in_flight.values())) for one in read_live(proxy.store.folder)]

    def all_answer(how):
        for account in fake.accounts.values():
            account.default = how

    all_answer(CutMid(2, how="stall"))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(proxy.client())
        for _ in range(3):
            body = {"model": "gpt-4.1", "stream": True, "messages": []}
            stack.enter_context(client.stream("POST", f"https://{HOST}/chat/completions", json=body))
        until(lambda: under_way() == [(3, 3)], "three requests under way")
    for how in (Ok(), Refuse(307), Refuse(400, "invalid_request_body"), CutMid(2), Drop(), limited(60)):
        all_answer(how)
        with contextlib.suppress(httpx.HTTPError):
            proxy.post()
    until(lambda: len(proxy.lines()) >= 9, "the lines")
    until(lambda: under_way() == [(0, 0)], "nothing under way")

    all_answer(Ok())
    sent = len(fake.seen)
    (tmp_path / "stranger").touch()
    with pytest.raises(httpx.HTTPError):
        proxy.post()
    assert len(fake.seen) == sent
    until(lambda: "it belongs to another user of this machine" in proxy.log, "the refusal")
    assert under_way() == [(0, 0)]
    assert proxy.log.count("response is broken") >= 4
    proxy.stop()
    kept = (proxy.folder / "flows.mitm").read_bytes()
    assert b"chat/completions" in kept
    assert not any(token.encode() in kept for token in (*TOKENS, CLIENT))
