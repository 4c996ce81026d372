"""editors: split from its former room."""

import json
from collections.abc import Mapping
from pathlib import Path

from copilot_balancer.cli.clients.files import Found, _host_of, _login, _object, _read_object, _shown
from copilot_balancer.cli.clients.jsonc import plain
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput


def vscode_settings_file(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    """The user's ``settings.json``. Source: VS Code docs, configure/settings."""
    if platform == "win32":
        folder = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return folder / "Code" / "User" / "settings.json"


def neovim_plugin_file(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    """A file of our own that Neovim runs at its start. Source: ``:help standard-path``, ``:help load-plugins``."""
    usual = home / "AppData" / "Local" if platform == "win32" else home / ".config"
    folder = Path(environ.get("XDG_CONFIG_HOME") or usual) / (environ.get("NVIM_APPNAME") or "nvim")
    return folder / "plugin" / "copilot-balancer.lua"


def with_vscode_proxy(path: Path, raw: bytes | None, url: str) -> bytes:
    """VS Code's settings with ``http.proxy``; every other byte, comments too, stays.

    Raises:
        InvalidInput: `raw` cannot be read, or names a proxy already.

    """
    text = (raw or b"").decode("utf-8", "surrogateescape")
    settings = _object(path, raw, comments=True) if text.strip() else {}
    if "http.proxy" in settings:
        raise InvalidInput(
            f'{_shown(path)} has an "http.proxy" already, which stays as it is: take it out, or set it to {url}'
        )
    if not text.strip():
        return f'{{\n    "http.proxy": {json.dumps(url)}\n}}\n'.encode()
    at = plain(text).index("{") + 1
    line = _vscode_line(url) if settings else _vscode_line(url).rstrip(",")
    return f"{text[:at]}{line}{text[at:]}".encode("utf-8", "surrogateescape")


def without_vscode_proxy(path: Path, raw: bytes, url: str) -> bytes:
    """VS Code's settings without the line that we wrote.

    Raises:
        InvalidInput: it is not there any more as we wrote it.

    """
    text = raw.decode("utf-8", "surrogateescape")
    line = _vscode_line(url)
    found = line if line in text else line.rstrip(",")
    if text.count(found) != 1:
        raise InvalidInput(f'the "http.proxy" in {_shown(path)} is not as it was written: take it out by hand')
    return text.replace(found, "").encode("utf-8", "surrogateescape")


def _vscode_line(url: str) -> str:
    return f'\n    "http.proxy": {json.dumps(url)},'


def neovim_plugin(url: str, certificates: Path) -> bytes:
    """Lua that points Copilot's plugins at the proxy."""
    return (
        "-- Written by `copilot-balancer setup neovim`; `copilot-balancer setup neovim --undo` takes it away.\n"
        f"vim.g.copilot_proxy = {_lua(url)}\n"
        f"vim.env.NODE_EXTRA_CA_CERTS = {_lua(str(certificates))}\n"
    ).encode()


def _lua(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{quoted}"'


def find_vim(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The logins of copilot.vim, copilot.lua and other editor plugins: ``apps.json``, and the older ``hosts.json``.

    They stand in ``$XDG_CONFIG_HOME/github-copilot`` (Windows: ``%LOCALAPPDATA%``; else ``~/.config``) as
    ``{"github.com:APP": {"user": LOGIN, "oauth_token": TOKEN}}``, in the older one without ``:APP``. Of several for one
    user the first counts. Source: the plugins that read them, such as CopilotChat.nvim.
    """
    config = environ.get("XDG_CONFIG_HOME") or environ.get("LOCALAPPDATA") or home / ".config"
    return _vim_logins(Path(config) / "github-copilot")


# ── editors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _vim_logins(folder: Path) -> list[Found] | str:
    found: dict[tuple[str, str], Found] = {}
    reasons = []
    for path in (folder / "apps.json", folder / "hosts.json"):
        entries = _read_object(path, "the editor plugin")
        if isinstance(entries, str):
            reasons.append(entries)
            continue
        before = len(found)
        for key, entry in entries.items():
            facts = entry if isinstance(entry, dict) else {}
            token = facts.get("oauth_token")
            login = _login(token, _host_of(key), str(path))
            if isinstance(login, Found) and token != PLACEHOLDER:
                found.setdefault((login.host, str(facts.get("user") or token)), login)
        if len(found) == before:
            reasons.append(f"{path} holds no login that can be used")
    return list(found.values()) or "; ".join(reasons)
