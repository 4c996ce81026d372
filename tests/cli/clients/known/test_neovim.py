"""Neovim: our Lua file, and the logins of its Copilot plugins."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies

from copilot_balancer.cli.clients.known.neovim import lua, plugin, plugin_file
from copilot_balancer.cli.clients.registry import find
from copilot_balancer.copilot.protocol import PLACEHOLDER
from support.client_logins import CANARY, TWO, not_found, told, write

HOME = Path("/home/x")
URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("environ", "platform", "found"),
    [
        ({}, "linux", "/home/x/.config/nvim/plugin/copilot-balancer.lua"),
        ({}, "darwin", "/home/x/.config/nvim/plugin/copilot-balancer.lua"),
        ({"XDG_CONFIG_HOME": "/c", "NVIM_APPNAME": "lazy"}, "linux", "/c/lazy/plugin/copilot-balancer.lua"),
        ({}, "win32", "/home/x/AppData/Local/nvim/plugin/copilot-balancer.lua"),
    ],
)
def test_plugin_file(environ, platform, found):
    """Our file for Neovim stands where Neovim runs what it finds."""
    assert str(plugin_file(environ, HOME, platform)) == found


@given(strategies.text(strategies.characters(blacklist_categories=["Cs"], blacklist_characters="\0")))
def test_lua_strings(text):
    """A path in Lua is one string on one line, whatever it holds."""
    quoted = lua(text)
    assert "\n" not in quoted
    assert "\r" not in quoted
    assert json.loads(quoted.replace("\t", "\\t"), strict=False) == text


def test_plugin():
    """What Neovim runs says who wrote it, the proxy, and the CA."""
    lines = plugin(URL, Path('/a "b"/ca.pem')).decode().splitlines()
    assert "copilot-balancer" in lines[0]
    assert lines[1:] == [
        'vim.g.copilot_proxy = "http://127.0.0.1:8080"',
        'vim.env.NODE_EXTRA_CA_CERTS = "/a \\"b\\"/ca.pem"',
    ]


# ── import ───────────────────────────────────────────────────────────────────────────────────────────────────────────


APPS = {
    "github.com:Iv1.b507a08c87ecfe98": {
        "user": "octocat",
        "oauth_token": CANARY,
        "githubAppId": "Iv1.b507a08c87ecfe98",
    },
    "acme.ghe.com:Iv1.b507a08c87ecfe98": {"user": "jane", "oauth_token": TWO},
}
HOSTS = {"github.com": {"user": "octocat", "oauth_token": TWO}}


@pytest.mark.parametrize(
    ("apps", "hosts", "expected"),
    [
        pytest.param(APPS, None, [(CANARY, "github.com"), (TWO, "acme.ghe.com")], id="newer file"),
        pytest.param(None, HOSTS, [(TWO, "github.com")], id="older file"),
        pytest.param(APPS, HOSTS, [(CANARY, "github.com"), (TWO, "acme.ghe.com")], id="both: the newer one counts"),
        pytest.param(
            {"github.com:a": {"oauth_token": CANARY}, "github.com:b": {"oauth_token": CANARY}},
            {"github.com": {"oauth_token": PLACEHOLDER}},
            [(CANARY, "github.com")],
            id="no users: the same token once",
        ),
    ],
)
def test_editor_logins(tmp_path, apps, hosts, expected):
    """The logins of editor plugins are found, each user once."""
    for name, content in (("apps.json", apps), ("hosts.json", hosts)):
        if content is not None:
            write(tmp_path / ".config" / "github-copilot" / name, content)

    assert told(find("vim", {}, tmp_path)) == expected


@pytest.mark.parametrize(
    ("environ", "folder"),
    [({"XDG_CONFIG_HOME": "x", "LOCALAPPDATA": "y"}, "x"), ({"LOCALAPPDATA": "y"}, "y")],
    ids=["XDG", "Windows"],
)
def test_editor_folder(tmp_path, environ, folder):
    """The plugins' folder is where they look themselves."""
    write(tmp_path / folder / "github-copilot" / "hosts.json", HOSTS)

    assert told(find("vim", {name: str(tmp_path / value) for name, value in environ.items()}, tmp_path))


@pytest.mark.parametrize(
    "content",
    [None, b"{", {}, {"github.com": CANARY}, {"github.com": {"user": "x"}}, {"evil.test": {"oauth_token": CANARY}}],
    ids=repr,
)
def test_no_editor_login(tmp_path, content):
    """Where there is none, both files are named."""
    folder = tmp_path / ".config" / "github-copilot"
    if content is not None:
        write(folder / "apps.json", content)

    sentence = not_found("vim", tmp_path)

    assert str(folder / "apps.json") in sentence
    assert str(folder / "hosts.json") in sentence


def test_pipe_in_a_files_place(tmp_path):
    """A pipe that nobody writes to is not waited for."""
    path = tmp_path / ".config" / "github-copilot" / "hosts.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    assert "is not a regular file" in not_found("vim", tmp_path)
