"""VS Code: one line ``http.proxy`` in the user's ``settings.json``; every other byte, comments too, stays."""

import json
from collections.abc import Mapping
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Plan, Record, SetupRequest, Trust
from copilot_balancer.cli.clients.files import object_in, read, shown
from copilot_balancer.cli.clients.jsonc import plain
from copilot_balancer.errors import InvalidInput


def settings_file(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    """The user's ``settings.json``. Source: VS Code docs, configure/settings."""
    if platform == "win32":
        folder = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return folder / "Code" / "User" / "settings.json"


def with_proxy(path: Path, raw: bytes | None, url: str) -> bytes:
    """The settings with ``http.proxy``.

    Raises:
        InvalidInput: `raw` cannot be read, or names a proxy already.

    """
    text = (raw or b"").decode("utf-8", "surrogateescape")
    settings = object_in(path, raw, comments=True)
    if "http.proxy" in settings:
        raise InvalidInput(
            f'{shown(path)} has an "http.proxy" already, which stays as it is: take it out, or set it to {url}'
        )
    if not text.strip():
        return f'{{\n    "http.proxy": {json.dumps(url)}\n}}\n'.encode()
    at = plain(text).index("{") + 1
    line = _line(url) if settings else _line(url).rstrip(",")
    return f"{text[:at]}{line}{text[at:]}".encode("utf-8", "surrogateescape")


def without_proxy(path: Path, record: Record, now: bytes) -> bytes:
    """The settings as they are now, without the line that we wrote.

    Raises:
        InvalidInput: it is not there any more as we wrote it.

    """
    text = now.decode("utf-8", "surrogateescape")
    line = _line(record.note)
    found = line if line in text else line.rstrip(",")
    if text.count(found) != 1:
        raise InvalidInput(f'the "http.proxy" in {shown(path)} is not as it was written: take it out by hand')
    return text.replace(found, "").encode("utf-8", "surrogateescape")


def _line(url: str) -> str:
    return f'\n    "http.proxy": {json.dumps(url)},'


def _plan(request: SetupRequest) -> Plan:
    url = request.way.url
    path = settings_file(request.environ, request.home, request.platform)
    port = request.way.port_option
    trust = (
        f"Let it trust the proxy's certificate: close VS Code and start it with "
        f"`NODE_EXTRA_CA_CERTS={request.way.more} code`; if that is not enough, certs-howto.md says how the system can"
    )
    return Plan(
        "With it VS Code's extensions, Copilot among them, use the proxy, and reach nothing while it does not run. "
        "This was not tried with VS Code itself.",
        (
            f"Keep the proxy running: `copilot-balancer run{port}`, or `copilot-balancer service install{port}`",
            trust,
            (
                "Sign in to GitHub in VS Code with one of your accounts: it asks GitHub itself, so a placeholder does "
                "not work"
            ),
        ),
        path,
        with_proxy(path, read(path), url),
        f'"http.proxy": "{url}"',
        note=url,
    )


VSCODE = Client(
    "vscode",
    ("code", "code-insiders", "codium"),
    {"NODE_EXTRA_CA_CERTS": Trust.MORE},
    "documented: GitHub Docs, network settings for Copilot; not tried",
    hint="a window that is open already keeps its old environment: close VS Code first",
    plan=_plan,
    without=without_proxy,
)
