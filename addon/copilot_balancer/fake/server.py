"""The fake's server: accepts connections, records requests, chooses the response.

Laws of this file:

1. Who asks is the bearer token alone. The host (SNI) and the path say which of the service's doors was knocked at.
2. Everything that arrived whole is in ``FakeCopilot.seen``, as it arrived.
3. What belongs to another account is refused before the script is asked, and written down in ``FakeCopilot.lost``.
4. A bad request gets an answer or a closed connection. A fault of the fake's own is kept and raised by ``close``.
"""

import asyncio
import itertools
import math
import re
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from copilot_balancer.fake import bodies
from copilot_balancer.fake.answers import (
    BAD_CREDENTIALS,
    INVALID_BODY,
    MODEL_NOT_SUPPORTED,
    NOT_FOUND,
    TOKEN_EXPIRED,
    Answer,
    Document,
    FakeAccount,
    Ok,
    Refuse,
    SlowFirst,
    chosen,
)
from copilot_balancer.fake.authority import Authority
from copilot_balancer.fake.bodies import (
    AUTO,
    AUTO_VERSION,
    BALANCED,
    DEFAULT_MODELS,
    INTENT,
    MESSAGES,
    MODELS,
    RESPONSES,
    SESSION,
    Quota,
)
from copilot_balancer.fake.connection import Connection
from copilot_balancer.fake.device import FakeLogin
from copilot_balancer.fake.ownership import Asker, Lost, Wrong, wrong_session_token, wrong_with
from copilot_balancer.fake.reply import Reply, cut, seal
from copilot_balancer.fake.seen import Seen

HOSTS = frozenset(
    {
        "api.githubcopilot.com",
        "api.individual.githubcopilot.com",
        "api.business.githubcopilot.com",
        "api.enterprise.githubcopilot.com",
        "copilot-api.acme.ghe.com",
        "api.github.com",
        "github.com",
        "api.acme.ghe.com",
        "acme.ghe.com",
    }
)
"""The hosts that ``dial`` leads here by itself."""

_COPILOT_HOST = re.compile(r"api(\.[a-z]+)?\.githubcopilot\.com|copilot-api\.[a-z0-9-]+\.ghe\.com")
_GITHUB_HOST = re.compile(r"(api\.)?(github\.com|[a-z0-9-]+\.ghe\.com)")
_TELEMETRY_HOST = re.compile(
    r"(copilot-)?telemetry\..+|collector\.github\.com|default\.exp-tas\.com|origin-tracker\..+"
)

_CLIENT_START_UP: dict[str, object] = {
    "/repos/github/copilot-cli/releases": [],
    "/copilot_internal/managed_settings": {},
    "/copilot_internal/team_customizations": {},
    "/agents/swe/internal/memory/v0/enabled": {"enabled": False},
}
"""What the Copilot CLI asks when it starts, beside models and user. Source: docs/clients.md#copilot-cli."""


class FakeCopilot:
    """The server. ``async with FakeCopilot() as fake``, or in a thread of its own: ``with running() as fake``."""

    def __init__(
        self, accounts: Mapping[str, FakeAccount] | None = None, *, hosts: Collection[str] = (), port: int = 0
    ) -> None:
        self.accounts: dict[str, FakeAccount] = dict(accounts or {})
        """Token -> account."""
        self.logins: dict[str, FakeLogin] = {}
        """Login host -> who logs in there by a code; nobody at the others."""
        self.hosts = HOSTS | {host.lower() for host in hosts}
        """Where ``dial`` leads here; a certificate is made for any host that arrives."""
        self.seen: list[Seen] = []
        """Every request, in the order in which they had arrived whole."""
        self.misnamed: set[str] = set()
        """Hosts that show somebody else's certificate."""
        self.lost: list[Lost] = []
        """Every refusal because of what a request carried: an id, a signature and so on of another account."""
        self.ownership = True
        """False: whatever a request carries is accepted."""
        self.wrong_id_status: Literal[400, 401] = 400
        """The status for an item id of another account: both were seen
        (docs/copilot-protocol.md#state-bound-to-an-account)."""
        self.wrong_signature: Literal["signature", "conversation"] = "signature"
        """Which of the two texts says that thinking is another account's."""
        self.session_seconds = 1800
        """How long a token of ``/models/session`` or ``/auto`` says that it lives; it is accepted for ever."""
        self.billed: Counter[str] = Counter()
        """Account -> nano AIU of all that it answered, whether or not the client got it whole."""
        self.connections = 0
        """How many connections were accepted."""
        self.port = port
        self._exchanged: dict[str, tuple[FakeAccount, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: list[BaseException] = []
        self._names: dict[int, str] = {}
        self._numbers = itertools.count(1)

    @property
    def ca_file(self) -> Path:
        """PEM file of the CA: for ``ssl_verify_upstream_trusted_ca``, curl's ``--cacert`` and so on."""
        return self._authority.file

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Make the CA, listen on 127.0.0.1; ``port`` and ``ca_file`` stand afterwards."""
        self._folder = Path(tempfile.mkdtemp(prefix="copilot-balancer-fake-"))
        self._authority = Authority(self._folder)
        self._tls = self._authority.context("127.0.0.1")
        self._names[id(self._tls)] = "127.0.0.1"
        self._tls.sni_callback = self._choose_certificate
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """End every connection, forget the CA. A fault of the fake's own is raised here."""
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._faults:
            raise self._faults[0]

    def asked(self, account: str | None = None, endpoint: str | None = None) -> list[Seen]:
        """The balanced requests seen so far, of one account, to one endpoint, or all."""
        return [
            seen
            for seen in list(self.seen)
            if seen.endpoint in BALANCED and account in (None, seen.account) and endpoint in (None, seen.endpoint)
        ]

    def expire_exchanged(self, account: str) -> None:
        """The short-lived tokens of this account are over now."""
        self._exchanged = {
            token: (owner, 0.0 if owner.name == account else until) for token, (owner, until) in self._exchanged.items()
        }

    def _choose_certificate(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name is None:
            return
        host = name.lower()
        context = self._authority.context(host, "somebody-else.test" if host in self.misnamed else None)
        self._names[id(context)] = host
        connection.context = context

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connected, _ = await loop.sock_accept(self._listener)
            self.connections += 1
            task = asyncio.create_task(self._serve(connected, self.connections))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connected: socket.socket, number: int) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connected, ssl=self._tls, ssl_handshake_timeout=30, ssl_shutdown_timeout=1
            )
        except OSError:  # no TLS, or the client does not trust us
            connected.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        host = self._names[id(transport.get_extra_info("ssl_object").context)]
        try:
            await Connection(self, number, host, reader, writer).serve()
        except OSError:  # the client is gone
            pass
        except asyncio.CancelledError:
            transport.abort()
            raise
        except Exception as fault:  # noqa: BLE001 - ours or a script's: kept for close()
            self._faults.append(fault)
            transport.abort()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    # what to answer

    def answer(self, seen: Seen) -> Answer:
        """The answer to a request, by host, token and path."""
        account = self._whose(seen)
        seen.account = account.name if account else None
        match chosen(account.at.get(seen.endpoint, Ok()), seen) if account else Ok():
            case Ok():
                return self._usual(seen, account)
            case SlowFirst(seconds, Ok()):
                return SlowFirst(seconds, self._usual(seen, account))
            case other:
                return other

    def _usual(self, seen: Seen, account: FakeAccount | None) -> Answer:
        if _TELEMETRY_HOST.fullmatch(seen.host):
            return Document({})
        if _COPILOT_HOST.fullmatch(seen.host):
            return self._copilot(seen, account)
        if _GITHUB_HOST.fullmatch(seen.host):
            return self._github(seen, account)
        return Document({"host": seen.host}) if seen.path == "/" else NOT_FOUND

    def _whose(self, seen: Seen) -> FakeAccount | None:
        token = seen.token or ""
        return self.accounts.get(token) or self._exchanged.get(token, (None, 0.0))[0]

    def _copilot(self, seen: Seen, account: FakeAccount | None) -> Answer:
        if account is None:
            return BAD_CREDENTIALS
        _, until = self._exchanged.get(seen.token or "", (account, math.inf))
        if until <= time.time():
            return TOKEN_EXPIRED
        if wrong := self._wrong(seen, account):
            self.lost.append(Lost(account.name, wrong.owner, wrong.status, wrong.code, wrong.message, seen))
            return Refuse(wrong.status, wrong.code, wrong.message)
        if seen.method == "GET" and seen.endpoint == MODELS:
            return Document(bodies.models_document(account.models, websocket=account.websocket))
        if seen.method in ("GET", "POST") and seen.endpoint == SESSION:
            return self._session(account)
        if seen.method == "POST" and seen.endpoint == AUTO:
            return self._auto(seen, account)
        if seen.method == "POST" and seen.endpoint == INTENT:
            return Document(bodies.intent_document(account.models))
        if seen.method == "GET" and seen.websocket and seen.endpoint == RESPONSES:
            return self._scripted(seen, account) if account.websocket else NOT_FOUND
        if seen.method in ("POST", "FRAME") and seen.endpoint in BALANCED:
            if seen.model is None:
                return INVALID_BODY
            return self._scripted(seen, account) if seen.model in account.models else MODEL_NOT_SUPPORTED
        return self._start_up(seen)

    def _wrong(self, seen: Seen, account: FakeAccount) -> Wrong | None:
        """What the request carries that is another account's; a model that the account lacks is told first."""
        if not self.ownership or (seen.model is not None and seen.model not in account.models):
            return None
        asker = Asker(account.name, seen.socket, self.wrong_id_status, self.wrong_signature)
        wrong = wrong_session_token(seen.header("copilot-session-token"), account.name, seen.model)
        return wrong or wrong_with(seen.endpoint, seen.json, asker)

    def _session(self, account: FakeAccount) -> Document:
        token = seal("session", account.name, str(next(self._numbers)))
        until = int(time.time()) + self.session_seconds
        return Document(bodies.session_document(account.models, token, until))

    def _auto(self, seen: Seen, account: FakeAccount) -> Answer:
        if seen.header("x-github-api-version") != AUTO_VERSION:
            return Refuse(400, message="invalid apiVersion")
        model = next((name for name in account.models if "embedding" not in name), DEFAULT_MODELS[0])
        token = seal("session", account.name, f"{next(self._numbers)}/{model}")
        return Document(bodies.auto_document(model, token, int(time.time()) + self.session_seconds))

    def _scripted(self, seen: Seen, account: FakeAccount) -> Answer:
        return chosen(account.script.popleft() if account.script else account.default, seen)

    def _github(self, seen: Seen, account: FakeAccount | None) -> Answer:
        if login := self.logins.get(seen.host):
            answer = login.answer(seen)
            if login.given:
                self.accounts[login.token] = login.account
            return answer
        if not seen.host.startswith("api.") or seen.method != "GET":
            return NOT_FOUND
        if seen.path in ("/user", "/copilot_internal/user", "/copilot_internal/v2/token"):
            if account is None or seen.token in self._exchanged:
                return BAD_CREDENTIALS
            if seen.path == "/user":
                return Document(bodies.user_document(account.login, account.user_id))
            if seen.path == "/copilot_internal/user":
                user = bodies.copilot_user_document(account.login, account.plan, account.endpoints, account.quota)
                return Document(user)
            return self._exchange(account)
        return self._start_up(seen)

    def _exchange(self, account: FakeAccount) -> Document:
        until = int(time.time()) + account.exchange_seconds
        proxy = account.endpoints["proxy"].removeprefix("https://")
        token = f"tid={account.name}-{next(self._numbers)};exp={until};sku=fake;proxy-ep={proxy};st=dotcom:fake"
        self._exchanged[token] = (account, until)
        return Document(
            bodies.exchanged_document(token, until, max(account.exchange_seconds - 300, 0), account.endpoints)
        )

    @staticmethod
    def _start_up(seen: Seen) -> Answer:
        known = seen.method == "GET" and seen.path in _CLIENT_START_UP
        return Document(_CLIENT_START_UP[seen.path]) if known else NOT_FOUND

    def served(self, seen: Seen, ok: Ok) -> Reply:
        """The reply of an `Ok` to this request, with an id of its own."""
        thinking = seen.json.get("thinking")
        thinks = isinstance(thinking, dict) and thinking.get("type") == "enabled" and seen.endpoint == MESSAGES
        # a model whose thinking is enabled thinks before it calls a tool: its client must send that back
        reasoning = ok.reasoning or ("A tool will tell." if thinks and ok.tool_calls and not ok.redacted else "")
        silent = not ok.text and (reasoning or ok.tool_calls)
        reply = Reply(
            id=f"{seen.account}-{next(self._numbers):04}",
            model=seen.model or DEFAULT_MODELS[0],
            pieces=() if silent else cut(ok.text, ok.events),
            created=int(time.time()),
            input_tokens=len(seen.body) // 4,
            account=str(seen.account),
            thoughts=cut(reasoning, None) if reasoning else (),
            calls=ok.tool_calls,
            redacted=ok.redacted,
            compaction=ok.compaction,
            quota=self.quota_of(seen),
            nano_aiu_per_token=account.nano_aiu_per_token if (account := self._whose(seen)) else None,
            socket=seen.socket,
        )
        if reply.nano_aiu is not None:
            self.billed[reply.account] += reply.nano_aiu
        return reply

    def quota_of(self, seen: Seen) -> Mapping[str, Quota]:
        """The quotas of the account that is asked."""
        account = self._whose(seen)
        return account.quota if account else {}

    def served_headers(self, seen: Seen, ok: Ok) -> list[tuple[str, str]]:
        """The headers that only a served answer has: the account's quotas, and the script's own."""
        return [*bodies.quota_headers(self.quota_of(seen)), *ok.headers]


@contextmanager
def running(
    accounts: Mapping[str, FakeAccount] | None = None, *, hosts: Collection[str] = (), port: int = 0
) -> Iterator[FakeCopilot]:
    """Run a fake in a thread of its own, for programs that do not run an event loop."""
    fake = FakeCopilot(accounts, hosts=hosts, port=port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-copilot", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(10)
        try:
            yield fake
        finally:
            asyncio.run_coroutine_threadsafe(fake.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
