"""A real mitmdump or mitmweb, with the addon, in front of the embedded fake; and what such tests wait for."""

import contextlib
import itertools
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydantic import SecretStr

from copilot_balancer.fake.server import FakeCopilot
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.state import Memory
from copilot_balancer.store.store import Store, paths

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parent

WORK, PERSONAL, SPARE = "gho_work-canary-0001", "gho_personal-canary-0002", "gho_spare-canary-0003"
CLIENT = "gho_client-canary-0004"


def an_account(label: str, token: str, number: int, **more: object) -> Account:
    return Account(id=f"github.com:{number}", login=label, label=label, token=SecretStr(token), **more)


def three_accounts() -> tuple[Account, ...]:
    """work, personal and spare, as the fake's tokens name them."""
    return (an_account("work", WORK, 1), an_account("personal", PERSONAL, 2), an_account("spare", SPARE, 3))


@dataclass
class Proxy:
    """A mitmdump or mitmweb of its own process, with the addon, in front of a fake."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    store: Store
    fake: FakeCopilot
    used: set[str] = field(default_factory=lambda: {WORK, PERSONAL, SPARE, CLIENT})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca" / "mitmproxy-ca-cert.pem"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def lines(self) -> list[str]:
        """The addon's own lines about requests, without the time."""
        return [line.partition("copilot: ")[2] for line in self.log.splitlines() if " <- " in line]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def client(self, token: str | None = CLIENT, **more: object) -> httpx.Client:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.Client(proxy=self.url, verify=self.context(), headers=headers, timeout=30, trust_env=False, **more)

    def post(self, path: str = "/chat/completions", *, token: str | None = CLIENT, **body: object) -> httpx.Response:
        given = {
            "model": "gpt-4.1",
            "stream": True,
            "messages": [{"role": "user", "content": os.urandom(8).hex()}],
            **body,
        }
        with self.client(token) as client:
            return client.post(f"https://api.githubcopilot.com{path}", json=given)

    def memory(self) -> Memory:
        return self.store.read_memory()

    def stop(self) -> str:
        """End it as a person would (Ctrl-C); return everything it printed."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        return self.log


def until(condition: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for: {what}")
        time.sleep(0.02)


_first = 10_000 + os.getpid() * 131 % 20_000  # processes that test side by side begin at different ones
_ports = itertools.cycle([*range(_first, 30_000), *range(10_000, _first)])


def free_port() -> int:
    """A port on which nobody listens, below those that systems hand out: no connection that begins now takes it."""
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError


@contextlib.contextmanager
def proxies(fake: FakeCopilot, where_to: Path) -> Iterator[Callable[..., Proxy]]:
    """What starts `mitmdump -s addon/balancer.py` (or mitmweb) in front of a fake; all of them are ended at the end."""
    begun: list[Proxy] = []

    def start(
        *arguments: str,
        program: str = "mitmdump",
        accounts: tuple[Account, ...] | None = None,
        wait: bool = True,
        home: Path | None = None,
        env: dict[str, str] | None = None,
        script: Path = ROOT / "addon" / "balancer.py",
        scripts_before: tuple[Path, ...] = (),
        config_yaml: str = "",
        **decided: object,
    ) -> Proxy:
        folder = where_to / f"proxy{len(begun)}"
        folder.mkdir()
        if config_yaml:  # mitmproxy's own settings file
            (folder / "ca").mkdir(mode=0o700)
            (folder / "ca" / "config.yaml").write_text(config_yaml)
        accounts = () if home else accounts
        home = home or folder / "home"
        where = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",  # its log is read while it runs
            "COPILOT_BALANCER_HOME": str(home),
            "FAKE_PORT": str(fake.port),
            "FAKE_CA": str(fake.ca_file),
            **(env or {}),
        }
        store = Store(paths(where).state)
        stored = three_accounts() if accounts is None else accounts
        if stored:
            decisions = Decisions(**{"accounts": stored, "terms_accepted_at": 1.0, **decided})
            store.edit_decisions(lambda _: decisions)
        port = free_port()
        code = f"import sys; from mitmproxy.tools.main import {program}; sys.argv[0] = '{program}'; {program}()"
        if program == "mitmweb":
            arguments += ("--no-web-open-browser", "--web-port", str(free_port()))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", code, "-s", str(SUPPORT / "dial_fake.py")),
                    *(word for before in scripts_before for word in ("-s", str(before))),
                    *("-s", str(script), "-p", str(port)),
                    *("--set", f"confdir={folder / 'ca'}"),
                    *("--set", f"ssl_verify_upstream_trusted_ca={fake.ca_file}", *arguments),
                ],
                cwd=folder,
                env=where,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        proxy = Proxy(port, folder, process, store, fake)
        begun.append(proxy)
        if wait:
            until(lambda: "copilot: ready on" in proxy.log or process.poll() is not None, f"{program} to be ready", 60)
            assert process.poll() is None, proxy.log
        return proxy

    try:
        yield start
    finally:
        for proxy in begun:
            proxy.stop()
