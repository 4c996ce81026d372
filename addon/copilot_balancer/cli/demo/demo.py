"""The demo: a fake Copilot, the real proxy, a plain client, and a story that a newcomer understands in half a minute.

Laws of this file:

1. Everything but the fake is what a user runs: mitmproxy with the addon, TLS both ways, accounts in a store.
2. No network, no account, nothing left behind: all files are in one temporary folder, the proxy is on loopback.
3. It promises what it shows: each promise is checked, and a broken one is a sentence and exit code 1.
"""

import asyncio
import json
import logging
import signal
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from mitmproxy.addons import default_addons
from mitmproxy.master import Master
from mitmproxy.options import Options
from pydantic import SecretStr

from copilot_balancer.cli.demo import story
from copilot_balancer.cli.demo.story import FIRST, MODEL, SECOND, cast, from_now_on
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.dialling import dial
from copilot_balancer.fake.server import FakeCopilot
from copilot_balancer.proxy.addon import CopilotBalancer
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.store.store import Paths, Store

URL = "https://api.githubcopilot.com/chat/completions"

_SETTLED = 3.0
"""Seconds to wait for the proxy's line about a request that has ended."""


@dataclass(frozen=True)
class Told:
    """What the client was told in answer to one request."""

    status: int
    account: str
    attempts: str
    text: str
    complete: bool
    """Whether the stream came to its ``[DONE]``."""
    first: float
    """Seconds until its first word."""
    whole: float
    """Seconds until its end."""


def broken_promises(told: Sequence[Told], asked: Sequence[str]) -> list[str]:
    """What did not come out as the demo promised, a sentence each; `asked`: the accounts that the fake saw, in turn."""
    first, second = told
    promises = {
        "the first answer did not arrive whole": (first.status, first.text, first.complete) == (200, FIRST, True),
        "the second answer did not arrive whole": (second.status, second.text, second.complete) == (200, SECOND, True),
        "the first answer was not spare's, after two refusals": (first.account, first.attempts) == ("spare", "3"),
        "the second answer was not spare's at once": (second.account, second.attempts) == ("spare", "1"),
        "the first answer was collected, not streamed": first.first < first.whole / 2,
        "the fake saw other accounts asked than work, personal, spare, spare": (
            list(asked) == ["work", "personal", "spare", "spare"]
        ),
    }
    return [sentence for sentence, kept in promises.items() if not kept]


def run_demo(*, stay: bool) -> int:
    """Show the demo; `stay`: keep everything up for curl until Ctrl-C. Returns the exit code."""
    try:
        return asyncio.run(_demo(stay))
    except (KeyboardInterrupt, asyncio.CancelledError):
        story.say()
        story.say("Stopped; everything temporary is gone.")
        return 0 if stay else 130


async def _demo(stay: bool) -> int:
    with suppress(NotImplementedError, AttributeError):  # Windows has neither such handlers nor SIGHUP
        this = asyncio.current_task()
        assert this is not None
        for one in (signal.SIGTERM, signal.SIGHUP):  # a window that is closed hangs up
            asyncio.get_running_loop().add_signal_handler(one, this.cancel)
    log = _Log()
    with tempfile.TemporaryDirectory(prefix="copilot-balancer-demo-") as name, _listening(log):
        folder = Path(name)
        _introduce()
        async with FakeCopilot(cast(time.time())) as fake, _proxy(folder, fake) as port:
            log.show()
            story.say()
            ca = folder / "mitmproxy" / "mitmproxy-ca-cert.pem"
            try:
                told = await _story(_Client(port, ca), log)
            except httpx.HTTPError as error:
                log.show()
                story.say(f"This is not what was promised: the client got no whole answer ({error}).")
                return 1
            broken = broken_promises(told, [seen.account or "nobody" for seen in fake.asked()])
            _summary(fake, broken)
            if stay and not broken:
                from_now_on(fake.accounts.values())
                await _stay(port, ca, folder, log)
    return 1 if broken else 0


# --- the proxy: mitmproxy with the addon, as in real use, but for where it dials


class _Started:
    """Notices that mitmproxy is up."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def running(self) -> None:
        """What mitmproxy calls."""
        self.event.set()


@asynccontextmanager
async def _proxy(folder: Path, fake: FakeCopilot) -> AsyncIterator[int]:
    """Run the proxy on a free loopback port, with the three accounts in a store of its own."""
    now = time.time()
    accounts = tuple(
        Account(
            id=f"github.com:{account.user_id}",
            label=account.name,
            login=account.login,
            plan=account.plan,
            api_host=account.api_host,
            token=SecretStr(token),
            added_at=now,
        )
        for token, account in fake.accounts.items()
    )
    Store(folder / "state").edit_decisions(lambda _: Decisions(accounts=accounts, terms_accepted_at=now))
    (folder / "mitmproxy").mkdir(mode=0o700)
    options = Options()
    master = Master(options)
    started = _Started()
    ours = CopilotBalancer(Paths(state=folder / "state", config=folder / "config"), folder)
    master.addons.add(ours, *default_addons(), started)  # ours first, as a script is: before mitmproxy's own NextLayer
    options.update(  # only now, so that every addon is configured
        listen_host="127.0.0.1",
        listen_port=0,
        confdir=str(folder / "mitmproxy"),
        ssl_verify_upstream_trusted_ca=str(fake.ca_file),
    )
    running = asyncio.create_task(master.run())
    try:
        with dial(fake):
            await asyncio.wait(
                (running, asyncio.create_task(started.event.wait())), return_when=asyncio.FIRST_COMPLETED
            )
            yield master.addons.get("proxyserver").listen_addrs()[0][1]
    finally:
        master.shutdown()
        await running


class _Log(logging.Handler):
    """The lines of the addon, kept until the story has room for them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.live = False
        """Print at once."""
        self._shown = 0
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """What logging calls."""
        self.lines.append(record.getMessage())
        self._news.set()
        if self.live:
            self.show()

    async def settled(self, count: int) -> None:
        """Wait until so many requests have their line."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLED):
                while sum(f" {MODEL} <- " in line for line in self.lines) < count:
                    self._news.clear()
                    await self._news.wait()

    def show(self) -> None:
        """Print what was not printed yet."""
        for line in self.lines[self._shown :]:
            story.aside("proxy", line)
        self._shown = len(self.lines)


@contextmanager
def _listening(log: _Log) -> Iterator[None]:
    """Hear our own lines alone: mitmproxy's would drown them."""
    ours = logging.getLogger("copilot_balancer")
    level = ours.level
    ours.setLevel(logging.INFO)
    ours.addHandler(log)
    try:
        yield
    finally:
        ours.removeHandler(log)
        ours.setLevel(level)


# --- the client: knows the proxy and a dummy token, nothing of the accounts


class _Client:
    def __init__(self, port: int, ca: Path) -> None:
        self._proxy = f"http://127.0.0.1:{port}"
        self._tls = ssl.create_default_context(cafile=str(ca))

    async def ask(self, words: str) -> Told:
        """Ask for a streamed answer and print its words as they arrive."""
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": words}]}
        headers = {"authorization": f"Bearer {PLACEHOLDER}"}
        began = time.monotonic()
        first = None
        complete = False
        text = ""
        printed = story.Words("client")
        async with (
            httpx.AsyncClient(proxy=self._proxy, verify=self._tls, trust_env=False, timeout=20) as http,
            http.stream("POST", URL, json=body, headers=headers) as response,
        ):
            async for line in response.aiter_lines():
                complete = complete or line == "data: [DONE]"
                piece = _piece(line)
                if piece:
                    first = first or time.monotonic() - began
                    text += piece
                    printed.add(piece)
        printed.end()
        whole = time.monotonic() - began
        account, attempts = (response.headers.get(f"x-copilot-{name}", "?") for name in ("account", "attempts"))
        return Told(response.status_code, account, attempts, text, complete, first or whole, whole)


def _piece(line: str) -> str:
    """The words that one line of the stream brings; whatever is not an event is shown as it is."""
    if not line.startswith("data: "):
        return line
    if line == "data: [DONE]":
        return ""
    return "".join(choice["delta"].get("content", "") for choice in json.loads(line[6:])["choices"])


# --- the story


def _introduce() -> None:
    story.title("copilot-balancer: one client, three accounts, no network")
    story.say(
        "A fake GitHub Copilot runs on this machine. In front of it stands the real proxy: "
        "mitmproxy with our addon. It holds three accounts of one person:"
    )
    story.say()
    story.account("work", "has reached its limit: it answers 429, Retry-After: 30")
    story.account("personal", f"does not have the model {MODEL}")
    story.account("spare", "is fine")
    story.say()
    story.say("The client knows the proxy and a dummy token; it knows nothing of the accounts.")
    story.say()


async def _story(client: _Client, log: _Log) -> tuple[Told, Told]:
    story.title(f"1. The client asks {MODEL} for a streamed answer")
    first = await client.ask("Say hello.")
    await log.settled(1)
    log.show()
    story.say()
    story.say(
        f"{story.times(first.attempts, 'attempt')}, one answer. Its first word came after {first.first:.2f} s, its "
        f"last after {first.whole:.2f} s: it is streamed as the account sends it."
    )
    story.say()
    story.title("2. The client asks again")
    second = await client.ask("Say hello once more.")
    await log.settled(2)
    log.show()
    story.say()
    story.say(
        f"{story.times(second.attempts, 'attempt')}, first word after {second.first:.2f} s: work rests for the 30 "
        f"seconds that it asked for, and personal is known to lack {MODEL}."
    )
    story.say()
    return first, second


def _summary(fake: FakeCopilot, broken: Sequence[str]) -> None:
    story.title("What the fake Copilot saw")
    for account in fake.accounts.values():
        story.account(account.name, story.times(str(len(fake.asked(account.name))), "request"))
    story.say()
    if broken:
        for sentence in broken:
            story.say(f"This is not what was promised: {sentence}.")
        return
    story.title("For real use")
    if line := story.path_line():
        story.command(line)
    story.command("copilot-balancer accounts import --from opencode --label work")
    story.command('mitmdump -s "$(copilot-balancer addon-path)"')
    story.command("HTTPS_PROXY=http://127.0.0.1:8080 \\")
    story.command("  NODE_EXTRA_CA_CERTS=~/.mitmproxy/mitmproxy-ca-cert.pem opencode")
    story.say()


async def _stay(port: int, ca: Path, home: Path, log: _Log) -> None:
    story.title("It stays up; Ctrl-C ends it and removes everything")
    story.say("Ask it yourself, from another terminal; work runs into its limit every now and then:")
    story.say()
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hello"}]})
    story.command(
        f"curl -sSN --proxy http://127.0.0.1:{port} --cacert {ca} {URL} "
        f"-H 'authorization: Bearer {PLACEHOLDER}' -d '{body}'"
    )
    story.say()
    story.say("Look at it, from a third one; what you decide there, this proxy obeys within a second:")
    story.say()
    if line := story.path_line():
        story.command(line)
    story.command(f"export COPILOT_BALANCER_HOME={home}")
    story.command("copilot-balancer dashboard")
    story.command(f"copilot-balancer status; copilot-balancer explain {MODEL}")
    story.command("copilot-balancer events --follow")
    story.say()
    log.live = True
    await asyncio.Event().wait()
