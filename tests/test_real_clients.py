"""Real clients, end to end: opencode and the Copilot CLI, through a real mitmdump, against the embedded fake.

Laws of this file:

1. A client is the one on PATH, unchanged. A test whose client is missing is skipped, and says how to install it.
2. A client gets a home of its own, the proxy and a CA file, and nothing else of whoever runs the tests.
3. What counts is what a person sees (exit code, printed answer) and what the fake saw; never how long it took.

What each client needs to run without network, and what it sends: clients.md 2, 3, 4 and 7, which was measured with
opencode 1.18.33 and Copilot CLI 1.0.102.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import CLIENT, PERSONAL, SPARE, WORK, three_accounts, until
from copilot_balancer.copilot import PLACEHOLDER
from copilot_balancer.fake import Answering, FakeAccount, Ok, Refuse, Seen, limited, once
from test_secrets import leaks

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

PATIENCE = 90
"""Seconds until a client that has not ended is ended. It takes 2 to 8; the first run of an installation more."""

ANSWER = Ok().text
"""What the fake says."""

BY_PRIORITY = ("--set", "copilot_strategy=priority")
"""Every new conversation begins with the account of the lowest priority, whoever was used last."""

WORK_FIRST = tuple(
    account.model_copy(update={"priority": int(account.label != "work")}) for account in three_accounts()
)
"""For that strategy."""

LACKS = Refuse(400, "no_available_model_endpoints", "no endpoints available for this model under your current plan")
"""Model missing, for an hour: long enough for a second run of the slowest client."""


@dataclass(frozen=True)
class Run:
    """One run of a client, as a person sees it."""

    status: int
    """Exit code."""
    printed: str
    """Standard output."""
    complained: str
    """Standard error."""


def run(command: list[str], home: Path, environ: dict[str, str]) -> Run:
    """Run a client in an empty folder until it ends; one that does not end is ended, with all that it started."""
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
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"did not end: {out.read_text()}\n{err.read_text()}") from None
    return Run(status, out.read_text(errors="replace"), err.read_text(errors="replace"))


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

    def say_hi(proxy, model) -> Run:
        environ = {
            "HTTPS_PROXY": proxy.url,
            "NODE_EXTRA_CA_CERTS": str(proxy.ca_file),
            **{f"OPENCODE_DISABLE_{what}": "1" for what in ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "SHARE")},
        }
        return run([program, "run", "-m", f"github-copilot/{model}", "say hi"], home, environ)

    return say_hi


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

    def say_hi(proxy, model) -> Run:
        # api.github.com is not opened by the proxy, so the client sees the fake's own certificate there
        trusted = home.parent / "trusted.pem"
        trusted.write_bytes(proxy.ca_file.read_bytes() + proxy.fake.ca_file.read_bytes())
        environ = {
            "HTTPS_PROXY": proxy.url,
            "NODE_EXTRA_CA_CERTS": str(trusted),
            "COPILOT_GITHUB_TOKEN": CLIENT,
            **settings,
        }
        options = ["--model", model, "--allow-all-tools", "--disable-builtin-mcps"]
        return run([program, "-p", "say hi", *options], home, environ)

    return say_hi


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
    return [seen.account for seen in requests]


def lines(proxy, model: str) -> list[str]:
    """The proxy's log lines about requests for this model."""
    return [line for line in proxy.lines() if line.startswith(f"{model} <- ")]


def assert_said(proxy, model: str, *words: str) -> None:
    """Some line about this model holds all these words; it is written when the answer has ended."""
    until(lambda: any(all(word in line for word in words) for line in lines(proxy, model)), f"{words} about {model}")


def assert_answered(ran: Run, proxy) -> None:
    assert ran.status == 0, f"{ran}\n{proxy.log}"
    assert ANSWER in ran.printed, f"{ran}\n{proxy.log}"


# --- opencode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [("gpt-4.1", "/chat/completions"), ("gpt-5-mini", "/responses"), ("claude-sonnet-4.6", "/v1/messages")],
)
def test_opencode_fails_over(opencode, start, fake, model, endpoint):
    """On each wire opencode's prompt is answered by another account; the limited one is asked once."""
    fake.accounts[WORK].default = to_prompts(limited(30))
    proxy = start()
    assert_answered(opencode(proxy, model), proxy)
    first, second = prompts(fake)
    assert (first.account, second.account in ("personal", "spare")) == ("work", True)
    assert {first.endpoint, second.endpoint} == {endpoint}
    assert first.body == second.body
    assert_said(proxy, model, f"<- {second.account} (", " 200 ", "before: work 429 session limit (rests 30 s)")


def test_opencode_spares_a_limited_account(opencode, start, fake):
    """A limited account is asked once: neither the rest of that run nor a second one sends it anything."""
    fake.accounts[WORK].default = limited(3600)
    proxy = start(*BY_PRIORITY, accounts=WORK_FIRST)
    for _ in range(2):
        assert_answered(opencode(proxy, "gpt-5-mini"), proxy)
    assert accounts(fake.asked())[0] == "work"
    assert accounts(fake.asked()).count("work") == 1
    assert len(prompts(fake)) == 2


def test_opencode_with_an_account_that_lacks_the_model(opencode, start, fake):
    """An account without the model is asked once; a second run sends it titles, but nothing with that model."""
    fake.accounts[WORK].default = to_prompts(LACKS)
    proxy = start(
        *BY_PRIORITY, accounts=WORK_FIRST, home_id="github.com:2"
    )  # opencode uses only what its /models lists
    for _ in range(2):
        assert_answered(opencode(proxy, "gpt-5-mini"), proxy)
    assert len(prompts(fake)) == 3
    assert accounts(prompts(fake))[0] == "work"
    assert accounts(prompts(fake)).count("work") == 1
    assert accounts([seen for seen in fake.asked() if is_title(seen)]) == ["work", "work"]


def test_opencode_waits_when_everybody_is_limited(opencode, start, fake):
    """When every account is limited opencode gets a 429 that it understands: it waits, asks again and is answered."""
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = to_prompts(once(limited(1)))
    proxy = start()
    assert_answered(opencode(proxy, "gpt-5-mini"), proxy)
    *refused, served = accounts(prompts(fake))
    assert sorted(refused) == ["personal", "spare", "work"]
    assert served in refused
    assert_said(proxy, "gpt-5-mini", "<- nobody, 429")
    assert_said(proxy, "gpt-5-mini", f"<- {served} (", " 200 ")


def test_opencode_prints_our_own_error(opencode, start, fake):
    """When no account takes the model opencode prints our sentence, once, and does not try again."""
    proxy = start(accounts=tuple(a.model_copy(update={"block": ("gpt-5*",)}) for a in three_accounts()))
    ran = opencode(proxy, "gpt-5-mini")
    assert ran.status != 0
    (said,) = [line for line in ran.complained.splitlines() if "copilot-balancer: " in line]
    assert all(f"{label}: " in said for label in ("work", "personal", "spare"))
    assert "{" not in said  # a sentence, not a JSON body
    assert prompts(fake) == []
    assert len(lines(proxy, "gpt-5-mini")) == 1


# --- Copilot CLI -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "endpoint"), [("gpt-5-mini", "/responses"), ("claude-sonnet-4.6", "/v1/messages")])
def test_copilot_fails_over(copilot, start, fake, model, endpoint):
    """On each wire the Copilot CLI's prompt is answered by another account; the limited one is asked once."""
    fake.accounts[WORK].default = limited(30)
    proxy = start()
    assert_answered(copilot(proxy, model), proxy)
    first, second = prompts(fake)
    assert (first.account, second.account in ("personal", "spare")) == ("work", True)
    assert {first.endpoint, second.endpoint} == {endpoint}
    assert first.body == second.body
    assert_said(proxy, model, f"<- {second.account} (", " 200 ", "before: work 429 session limit (rests 30 s)")


def test_copilot_with_an_account_that_lacks_the_model(copilot, start, fake):
    """An account without the model is asked once by the Copilot CLI, and not at all by a second run."""
    fake.accounts[WORK].default = LACKS
    proxy = start(*BY_PRIORITY, accounts=WORK_FIRST, home_id="github.com:2")
    for _ in range(2):
        assert_answered(copilot(proxy, "gpt-5-mini"), proxy)
    assert accounts(prompts(fake))[0] == "work"
    assert accounts(prompts(fake)).count("work") == 1
    assert len(prompts(fake)) == 3


def test_copilot_waits_when_everybody_is_limited(copilot, start, fake):
    """When every account is limited the Copilot CLI waits as it is told, asks again and is answered."""
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = once(limited(1))
    proxy = start()
    assert_answered(copilot(proxy, "gpt-5-mini"), proxy)
    *refused, served = accounts(prompts(fake))
    assert sorted(refused) == ["personal", "spare", "work"]
    assert served in refused


def test_copilot_leaves_its_websocket_when_another_account_could_serve(copilot, start, fake):
    """A WebSocket cannot fail over, so it is declined; the Copilot CLI asks the same over HTTP, and that fails over."""
    for account in fake.accounts.values():
        account.websocket = True
    fake.accounts[WORK].default = limited(30)
    proxy = start()
    assert_answered(copilot(proxy, "gpt-5.4"), proxy)
    assert [seen.method for seen in prompts(fake)] == ["POST", "POST"]
    first, second = accounts(prompts(fake))
    assert (first, second in ("personal", "spare")) == ("work", True)


def test_copilot_keeps_its_websocket_with_a_single_account(copilot, start, fake):
    """With one account there is nothing to fail over to: the Copilot CLI completes its turn over the WebSocket."""
    fake.accounts[WORK].websocket = True
    proxy = start(accounts=three_accounts()[:1])
    assert_answered(copilot(proxy, "gpt-5.4"), proxy)
    assert [(seen.method, seen.account) for seen in prompts(fake)] == [("GET", "work"), ("FRAME", "work")]


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["opencode", "copilot"])
def test_no_credential_reaches_a_client(client, request, start, fake, home):
    """After a failover no account's token is in any file of the client's; opencode still holds only the placeholder."""
    client = request.getfixturevalue(client)
    before = {path: path.read_bytes() for path in home.rglob("auth.json")}
    fake.accounts[WORK].default = to_prompts(limited(30))
    proxy = start()
    ran = client(proxy, "gpt-5-mini")
    assert_answered(ran, proxy)
    assert set(accounts(prompts(fake))) > {"work"}
    assert [path for path in home.rglob("*") if path.is_file() and path not in before]
    assert leaks(home) == []
    assert {path: path.read_bytes() for path in home.rglob("auth.json")} == before
    assert not any(token in f"{ran}" for token in (WORK, PERSONAL, SPARE))
