"""Neovim's Copilot plugins: a Lua file of ours that Neovim runs at its start, and the login files of these plugins."""

from collections.abc import Mapping
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Found, Plan, SetupRequest, Trust
from copilot_balancer.cli.clients.files import host_of, login, login_entries, read
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

# ── setup ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def plugin_file(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    """A file of our own that Neovim runs at its start. Source: ``:help standard-path``, ``:help load-plugins``."""
    usual = home / "AppData" / "Local" if platform == "win32" else home / ".config"
    folder = Path(environ.get("XDG_CONFIG_HOME") or usual) / (environ.get("NVIM_APPNAME") or "nvim")
    return folder / "plugin" / "copilot-balancer.lua"


def plugin(url: str, certificates: Path) -> bytes:
    """Lua that points the Copilot plugins at the proxy."""
    return (
        "-- Written by `copilot-balancer setup neovim`; `copilot-balancer setup neovim --undo` deletes it.\n"
        f"vim.g.copilot_proxy = {lua(url)}\n"
        f"vim.env.NODE_EXTRA_CA_CERTS = {lua(str(certificates))}\n"
    ).encode()


def lua(text: str) -> str:
    """`text` as a Lua string."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{quoted}"'


def _plan(request: SetupRequest) -> Plan:
    way = request.way
    path = plugin_file(request.environ, request.home, request.platform)
    after = plugin(way.url, way.more)
    if read(path) not in (None, after):
        raise InvalidInput(f"{path} exists already and says something else: move it away first")
    port = way.port_option
    return Plan(
        "With it copilot.vim, copilot.lua and other plugins that read g:copilot_proxy use the proxy. This was tried "
        "with Neovim and with the language server that these plugins start, but not with the plugins.",
        (
            f"Keep the proxy running: `copilot-balancer run{port}`, or `copilot-balancer service install{port}`",
            (
                "Log in with the plugin as always, with one of your accounts: its language server exchanges that login "
                "at GitHub itself, so a placeholder does not work"
            ),
        ),
        path,
        after,
        after.decode().rstrip(),
    )


NEOVIM = Client(
    "neovim",
    ("nvim", "vim"),
    {"NODE_EXTRA_CA_CERTS": Trust.MORE},
    "measured: copilot-language-server 1.539.0, which the plugins start; the plugins were not tried",
    hint="the editor needs a login of its own: its language server exchanges it at GitHub, past the proxy",
    plan=_plan,
)

# ── import ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find_logins(environ: Mapping[str, str], home: Path) -> list[Found] | str:
    """The logins of copilot.vim, copilot.lua and other editor plugins: ``apps.json``, and the older ``hosts.json``.

    They stand in ``$XDG_CONFIG_HOME/github-copilot`` (Windows: ``%LOCALAPPDATA%``; else ``~/.config``) as
    ``{"github.com:APP": {"user": LOGIN, "oauth_token": TOKEN}}``, in the older one without ``:APP``. Of several for one
    user the first counts. Source: the plugins that read them, such as CopilotChat.nvim.
    """
    config = environ.get("XDG_CONFIG_HOME") or environ.get("LOCALAPPDATA") or home / ".config"
    folder = Path(config) / "github-copilot"
    found: dict[tuple[str, str], Found] = {}
    reasons = []
    for path in (folder / "apps.json", folder / "hosts.json"):
        entries = login_entries(path, "the editor plugin")
        if isinstance(entries, str):
            reasons.append(entries)
            continue
        before = len(found)
        for key, entry in entries.items():
            facts = entry if isinstance(entry, dict) else {}
            token = facts.get("oauth_token")
            one = login(token, host_of(key), str(path))
            if isinstance(one, Found) and token != PLACEHOLDER:
                found.setdefault((one.host, str(facts.get("user") or token)), one)
        if len(found) == before:
            reasons.append(f"{path} holds no login that can be used")
    return list(found.values()) or "; ".join(reasons)


EDITOR_PLUGINS = Client(
    "vim", find_logins=_find_logins, logins_at="apps.json and hosts.json in ~/.config/github-copilot"
)
