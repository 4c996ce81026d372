"""VS Code's settings: where they are, with our line, and back."""

import json
from pathlib import Path

import pytest

from copilot_balancer.cli.clients.client import Record
from copilot_balancer.cli.clients.files import object_in
from copilot_balancer.cli.clients.known.vscode import settings_file, with_proxy, without_proxy
from copilot_balancer.errors import InvalidInput

HOME = Path("/home/x")
URL = "http://127.0.0.1:8080"
RECORD = Record("settings.json", b"", "", note=URL)


@pytest.mark.parametrize(
    ("environ", "platform", "found"),
    [
        ({}, "linux", "/home/x/.config/Code/User/settings.json"),
        ({"XDG_CONFIG_HOME": "/c"}, "linux", "/c/Code/User/settings.json"),
        ({}, "darwin", "/home/x/Library/Application Support/Code/User/settings.json"),
        ({"APPDATA": "/r"}, "win32", "/r/Code/User/settings.json"),
        ({}, "win32", "/home/x/AppData/Roaming/Code/User/settings.json"),
    ],
)
def test_settings_file(environ, platform, found):
    """VS Code's settings stand where each system keeps them."""
    assert str(settings_file(environ, HOME, platform)) == found


@pytest.mark.parametrize(
    "before",
    [
        b"{}",
        b"{ }\n",
        b'{\n    "a": 1\n}\n',
        b'{"a": 1, // "http.proxy": "x"\n "b": "{ // no comment"}',
        b'/* { */\n{\n    // {\n    "a": [1, 2,],\n}\n',
        b'\xef\xbb\xbf{"a": "\xc3\xa4"}',
    ],
)
def test_proxy_and_back(before):
    """The line comes in without touching another byte, the result is still JSON with comments, and it goes out again."""
    path = Path("settings.json")
    after = with_proxy(path, before, URL)
    settings = object_in(path, after, comments=True)
    assert settings.pop("http.proxy") == URL
    assert settings == object_in(path, before, comments=True)
    assert without_proxy(path, RECORD, after) == before


def test_without_settings():
    """Without settings a file of its own is written."""
    for before in (None, b"", b"\n"):
        assert json.loads(with_proxy(Path("settings.json"), before, URL)) == {"http.proxy": URL}


def test_has_a_proxy():
    """A proxy that the user set stays, even when it is ours by chance; so does what is not JSON."""
    for before in (b'{"http.proxy": "http://corp:3128"}', b"{// \n'a': 1}"):
        with pytest.raises(InvalidInput, match=r'"http\.proxy" already|not a JSON object'):
            with_proxy(Path("settings.json"), before, URL)


def test_proxy_was_changed_since():
    """A line that somebody edited is left to them."""
    with pytest.raises(InvalidInput, match="take it out by hand"):
        without_proxy(Path("settings.json"), RECORD, b'{"http.proxy": "http://127.0.0.1:9"}')
