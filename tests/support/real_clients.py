"""Real clients in the tests: opencode and the Copilot CLI, each in a home of its own, through a real mitmdump.

Laws of this file:

1. A client is the one on PATH, unchanged. A test whose client is missing is skipped, and says how to install it.
2. A client gets a home of its own, the proxy and a CA file, and nothing else of whoever runs the tests.
3. A client runs in a process group of its own; one that does not end in time is ended with all that it started.

What each client needs to run without network, and what it sends: docs/clients.md#running-a-client-in-a-test,
which was measured with opencode 1.18.33 and Copilot CLI 1.0.102.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.answers import Answering, FakeAccount, Ok
from copilot_balancer.fake.seen import Seen
from support.proxies import CLIENT, until

PATIENCE = 270
"""Seconds until a client that has not ended is ended. It takes 2 to 8, on a busy machine 60, and its own waits."""

ANSWER = Ok().text
"""What the fake says."""


@dataclass(frozen=True)
class Run:
    """One run of a client, as a person sees it."""

    status: int | None
    """Exit code; None: it was ended by us, as the test wanted."""
    printed: str
    """Standard output."""
    complained: str
    """Standard error."""


def run(command: list[str], home: Path, environ: dict[str, str], enough: Callable[[], object] = lambda: False) -> Run:
    """Run a client in its project folder until it ends, or end it as soon as the test has seen enough."""
    folder = home.parent / "project"
    folder.mkdir(exist_ok=True)
    out, err = home.parent / "printed", home.parent / "complained"
    with out.open("wb") as printed, err.open("wb") as complained:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                **{f"XDG_{what}_HOME": str(home) for what in ("DATA", "CONFIG", "CACHE", "STATE")},
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=complained,
            start_new_session=True,  # a process group of its own, so that nothing else can be hit
        )
        end = time.monotonic() + PATIENCE
        while (status := process.poll()) is None and time.monotonic() < end and not enough():
            time.sleep(0.05)
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    ran = Run(status, out.read_text(errors="replace"), err.read_text(errors="replace"))
    assert status is not None or enough(), f"did not end: {ran}"
    return ran


@pytest.fixture
def home(tmp_path) -> Path:
    """The client's own: everything that it writes lies below."""
    folder = tmp_path / "client"
    folder.mkdir()
    return folder


@pytest.fixture
def opencode(home) -> Callable[..., Run]:
    """`opencode run`, logged in with the placeholder: opencode(proxy, model)."""
    program = shutil.which("opencode") or pytest.skip("opencode is not installed: npm install --global opencode-ai")
    login = home / "opencode" / "auth.json"
    login.parent.mkdir()
    login.write_text(
        json.dumps({"github-copilot": {"type": "oauth", "refresh": PLACEHOLDER, "access": PLACEHOLDER, "expires": 0}})
    )

    def ask(proxy, model, prompt="say hi", *options, enough=lambda: False) -> Run:
        environ = {
            "HTTPS_PROXY": proxy.url,
            "NODE_EXTRA_CA_CERTS": str(proxy.ca_file),
            **{f"OPENCODE_DISABLE_{what}": "1" for what in ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "SHARE")},
        }
        command = [program, "run", "-m", f"github-copilot/{model}", *options, prompt]
        return run(command, home, environ, enough)

    return ask


@pytest.fixture
def copilot(home, fake, tmp_path_factory) -> Callable[..., Run]:
    """`copilot -p`, logged in with an account that is none of the proxy's: copilot(proxy, model)."""
    program = shutil.which("copilot") or pytest.skip(
        "Copilot CLI is not installed: npm install --global @github/copilot"
    )
    fake.accounts[CLIENT] = FakeAccount("client")
    unpacked = tmp_path_factory.getbasetemp().parent / "copilot-cli"  # 235 MB, kept over the runs
    settings = {"COPILOT_AUTO_UPDATE": "false", "COPILOT_PKG_CACHE_HOME": str(unpacked)}
    if "GitHub Copilot CLI" not in run([program, "--version"], home, settings).printed:
        pytest.skip(f"{program} is another program: npm install --global @github/copilot")

    def ask(proxy, model, prompt="say hi", *options, enough=lambda: False) -> Run:
        # api.github.com is not opened by the proxy, so the client sees the fake's own certificate there
        trusted = home.parent / "trusted.pem"
        trusted.write_bytes(proxy.ca_file.read_bytes() + proxy.fake.ca_file.read_bytes())
        environ = {
            "HTTPS_PROXY": proxy.url,
            "NODE_EXTRA_CA_CERTS": str(trusted),
            "COPILOT_GITHUB_TOKEN": CLIENT,
            **settings,
        }
        command = [program, "-p", prompt, "--model", model, "--allow-all-tools", "--disable-builtin-mcps", *options]
        return run(command, home, environ, enough)

    return ask


def is_title(seen: Seen) -> bool:
    """Whether it asks for a name of the session: opencode's first request, with a small model of its own choice."""
    return seen.header("x-interaction-type") == "agent-session-name-generation"


def to_prompts(answering: Answering) -> Answering:
    """This answer to what the person asked; opencode's request for a title is served."""
    return lambda seen: Ok() if is_title(seen) else answering(seen) if callable(answering) else answering


def prompts(fake) -> list[Seen]:
    """What reached the fake of that which the person asked."""
    return [seen for seen in fake.asked() if not is_title(seen)]


def accounts(requests: list[Seen]) -> list[str | None]:
    """Who was asked, in turn."""
    return [seen.account for seen in requests]


def lines(proxy, model: str) -> list[str]:
    """The proxy's log lines about requests for this model."""
    return [line for line in proxy.lines() if line.startswith(f"{model} <- ")]


def assert_said(proxy, model: str, *words: str) -> None:
    """Some line about this model holds all these words; it is written when the answer has ended."""
    until(lambda: any(all(word in line for word in words) for line in lines(proxy, model)), f"{words} about {model}")


def assert_answered(ran: Run, proxy, text: str = ANSWER) -> None:
    """The client ended well, and the answer was printed."""
    assert ran.status == 0, f"{ran}\n{proxy.log}"
    assert text in ran.printed, f"{ran}\n{proxy.log}"
