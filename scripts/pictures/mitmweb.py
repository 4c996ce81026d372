"""Pictures of mitmweb for the README: the real one with the addon, in front of the fake, seen by a headless Chromium.

Nothing leaves the machine: GitHub is the embedded fake, and everything temporary is in one folder that is removed.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from tornado.websocket import WebSocketClientConnection, websocket_connect

from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.answers import FakeAccount, Ok, limited, per_path
from copilot_balancer.fake.reply import ToolCall
from copilot_balancer.fake.server import FakeCopilot, running
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.store.store import Store, paths

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PASSWORD = "look"
PATIENCE = 60.0
"""Seconds to wait for a program to be ready."""
LIMIT = 150_000
"""Bytes of a picture: a README is not waited for."""

TEXT = """The test fails because `total` starts at 1. This is the change, and I will run the tests with it:

```python
def total(prices: list[int]) -> int:
    return sum(prices)
```
"""
ANSWER = Ok(
    TEXT,
    reasoning="The loop adds each price to a total that is not 0 at first.",
    tool_calls=(ToolCall("run_tests", json.dumps({"path": "tests/test_total.py", "verbose": True})),),
)
SHORT = Ok("total: start at 0, not at 1")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--into", type=Path, default=ROOT / ".github" / "images", help="the folder they are put into")
    into = parser.parse_args().into
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(
            "scripts/screenshots: no Chromium was found. Debian, Ubuntu: apt install chromium fonts-noto-color-emoji; "
            "CHROMIUM=/path/to/chrome names one that is elsewhere."
        )
    if not _has_emoji():
        print("No font with emoji was found: the markers will be empty boxes. apt install fonts-noto-color-emoji")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="copilot-balancer-pictures-", ignore_cleanup_errors=True) as name:
        for file, picture in asyncio.run(_pictures(Path(name), browser)).items():
            (into / file).write_bytes(picture)
            print(f"{into / file}: {len(picture):,} bytes" + (", too many" if len(picture) > LIMIT else ""))


def _has_emoji() -> bool:
    try:
        found = subprocess.run(["fc-list", ":lang=und-zsye"], capture_output=True, check=False)
    except OSError:  # no fontconfig: nobody can tell
        return True
    return bool(found.stdout.strip())


async def _pictures(folder: Path, browser: str) -> dict[str, bytes]:
    accounts = {f"gho_picture_{label}": FakeAccount(label) for label in ("work", "personal", "spare")}
    work, personal, spare = accounts.values()
    work.script.extend([SHORT, limited(1800)])
    personal.models = ("gpt-4.1",)
    for account in (work, personal, spare):
        account.default = per_path({"/chat/completions": SHORT}, otherwise=ANSWER)
    with running(accounts) as fake, _mitmweb(folder, fake) as (proxy, web):
        await asyncio.to_thread(_requests, proxy, folder / "ca" / "mitmproxy-ca-cert.pem")
        async with httpx.AsyncClient(trust_env=False) as client:
            flows = (await client.get(f"{web}/flows", params={"token": PASSWORD})).json()
        moved = next(flow["id"] for flow in flows if flow["marked"] == "\N{LARGE YELLOW CIRCLE}")
        with _chromium(browser, folder) as port:
            page = await Page.open(port)
            pictures = {}
            await page.show(f"{web}/?token={PASSWORD}#/flows", width=1100, height=384, until=".flow-table .col-path")
            pictures["mitmweb-list.png"] = await page.picture()
            address = f"{web}/?token={PASSWORD}#/flows/{moved}/response"
            await page.show(address, width=1280, height=900, until=".contentview pre")
            pictures["mitmweb-answer.png"] = await page.picture()
            page.close()
    return pictures


def _requests(proxy: str, ca: Path) -> None:
    """What is seen in the list: served at once, served after a refusal, refused by all."""
    verify = ssl.create_default_context(cafile=str(ca))
    headers = {"authorization": f"Bearer {PLACEHOLDER}"}
    with httpx.Client(proxy=proxy, verify=verify, headers=headers, trust_env=False, timeout=PATIENCE) as client:
        for number, (path, model) in enumerate(
            [
                ("/chat/completions", "gpt-4.1"),
                ("/chat/completions", "gpt-4.1"),
                ("/v1/messages", "claude-sonnet-4.6"),
                ("/responses", "gpt-5-mini"),
                ("/chat/completions", "gpt-3"),
                ("/chat/completions", "gpt-4.1"),
            ]
        ):
            said = [{"role": "user", "content": f"question {number}"}]
            body = {"model": model, "stream": True, "input" if path == "/responses" else "messages": said}
            client.post(f"https://api.githubcopilot.com{path}", json=body)


# --- the programs ----------------------------------------------------------------------------------------------------


@contextmanager
def _mitmweb(folder: Path, fake: FakeCopilot) -> Iterator[tuple[str, str]]:
    """Run mitmweb with the addon and three accounts; the proxy's address and mitmweb's."""
    where = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "COPILOT_BALANCER_HOME": str(folder / "home"),
        "FAKE_PORT": str(fake.port),
        "FAKE_CA": str(fake.ca_file),
    }
    accounts = tuple(
        Account(
            id=f"github.com:{account.user_id}",
            label=account.name,
            login=account.login,
            plan=account.plan,
            token=SecretStr(token),
        )
        for token, account in fake.accounts.items()
    )
    Store(paths(where).state).edit_decisions(lambda _: Decisions(accounts=accounts, terms_accepted_at=1.0))
    port, web_port = _free_port(), _free_port()
    program = "import sys; from mitmproxy.tools.main import mitmweb; sys.argv[0] = 'mitmweb'; mitmweb()"
    options = {
        "confdir": folder / "ca",
        "ssl_verify_upstream_trusted_ca": fake.ca_file,
        "web_open_browser": "false",
        "web_password": PASSWORD,
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", program, "-s", str(ROOT / "tests" / "support" / "dial_fake.py")),
                *("-s", str(ROOT / "addon" / "balancer.py"), "-p", str(port), "--web-port", str(web_port)),
                *(word for name, value in options.items() for word in ("--set", f"{name}={value}")),
            ],
            cwd=folder,
            env=where,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    with _ended(process):
        _until(lambda: "copilot: ready on" in log.read_text(errors="replace"), process, f"mitmweb:\n{log}")
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}"


@contextmanager
def _chromium(browser: str, folder: Path) -> Iterator[int]:
    """Run a browser without a window; the port of its DevTools."""
    profile = folder / "chromium"
    process = subprocess.Popen(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = profile / "DevToolsActivePort"
    with _ended(process):
        _until(lambda: told.exists() and "\n" in told.read_text(), process, "Chromium")
        yield int(told.read_text().splitlines()[0])


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"scripts/screenshots: {what} did not start")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Page:
    """One page of the browser, spoken to in the DevTools protocol."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self._asked = 0

    @classmethod
    async def open(cls, port: int) -> "Page":
        """The page that the browser has open."""
        async with httpx.AsyncClient(trust_env=False) as client:
            targets = (await client.get(f"http://127.0.0.1:{port}/json")).json()
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        return cls(await websocket_connect(address, max_message_size=64 * 1024 * 1024))

    async def ask(self, method: str, **told: object) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._asked += 1
        await self._socket.write_message(json.dumps({"id": self._asked, "method": method, "params": told}))
        while True:
            message = json.loads(await self._socket.read_message() or "null")
            if message is None or "error" in message:
                sys.exit(f"scripts/screenshots: Chromium refused {method}: {message}")
            if message.get("id") == self._asked:
                result: dict[str, Any] = message["result"]
                return result

    async def show(self, address: str, *, width: int, height: int, until: str) -> None:
        """Go there; wait until something that the CSS selector `until` finds is on the page."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.ask("Page.navigate", url="about:blank")  # the same page with another #... would not be loaded
        await self.ask("Page.navigate", url=address)
        end = time.monotonic() + PATIENCE
        look = f"document.querySelector({json.dumps(until)}) !== null"
        while not (await self.ask("Runtime.evaluate", expression=look))["result"].get("value"):
            if time.monotonic() > end:
                sys.exit(f"scripts/screenshots: mitmweb shows no {until}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # fonts, and what is fetched after that

    async def picture(self) -> bytes:
        """What is seen, as PNG."""
        taken = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(taken["data"])

    def close(self) -> None:
        """Say goodbye."""
        self._socket.close()


if __name__ == "__main__":
    main()
