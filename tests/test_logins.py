"""Where other programs keep their Copilot login."""

import json
import os
import traceback
from pathlib import Path

import pytest

from copilot_balancer.copilot import PLACEHOLDER
from copilot_balancer.errors import InvalidInput
from copilot_balancer.logins import FILE_BYTES, find_opencode

CANARY = "gho_" + "Canary7Canary7Canary7Canary7Canary7x"
LOGIN = {"type": "oauth", "refresh": CANARY, "access": CANARY, "expires": 0}


def opencode(home: Path, content: object, folder: str = ".local/share") -> Path:
    path = home / folder / "opencode" / "auth.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def not_found(home: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        find_opencode(environ or {}, home)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert CANARY not in "".join(told)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_opencode_login(tmp_path):
    """opencode's login is found with its host and its place, and its token is not shown."""
    path = opencode(tmp_path, {"anthropic": {"type": "api", "key": "x"}, "github-copilot": LOGIN})

    (found,) = find_opencode({}, tmp_path)

    assert (found.token.get_secret_value(), found.host) == (CANARY, "github.com")
    assert found.where == f"{path} (github-copilot)"
    assert CANARY not in repr(found)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        pytest.param({}, ".local/share", id="unset"),
        pytest.param({"XDG_DATA_HOME": ""}, ".local/share", id="empty"),
        pytest.param({"XDG_DATA_HOME": "elsewhere"}, "elsewhere", id="set"),
    ],
)
def test_opencode_folder(tmp_path, environ, folder):
    """$XDG_DATA_HOME says where opencode's file is, and ~/.local/share when it does not."""
    path = opencode(tmp_path, {"github-copilot": LOGIN}, folder)
    environ = {name: value and str(tmp_path / value) for name, value in environ.items()}

    (found,) = find_opencode(environ, tmp_path)

    assert found.where.startswith(str(path))


@pytest.mark.parametrize(
    ("extra", "host"),
    [
        ({}, "github.com"),
        ({"enterpriseUrl": None}, "github.com"),
        ({"enterpriseUrl": "acme.ghe.com"}, "acme.ghe.com"),
        ({"enterpriseUrl": "https://Acme.ghe.com/"}, "acme.ghe.com"),
    ],
    ids=["none", "null", "domain", "URL"],
)
def test_opencode_host(tmp_path, extra, host):
    """The enterprise domain in opencode's file is the login host."""
    opencode(tmp_path, {"github-copilot": {**LOGIN, **extra}})

    assert [found.host for found in find_opencode({}, tmp_path)] == [host]


def test_opencode_with_two_logins(tmp_path):
    """A login for a domain of its own, as older versions wrote it, is found beside the other one."""
    other = {**LOGIN, "refresh": CANARY + "2", "enterpriseUrl": "acme.ghe.com"}
    opencode(tmp_path, {"github-copilot": LOGIN, "github-copilot-enterprise": other})

    assert [found.host for found in find_opencode({}, tmp_path)] == ["github.com", "acme.ghe.com"]


def test_placeholder_beside_a_login(tmp_path):
    """The placeholder is passed over where there is a login beside it."""
    other = {**LOGIN, "enterpriseUrl": "acme.ghe.com"}
    opencode(tmp_path, {"github-copilot": {**LOGIN, "refresh": PLACEHOLDER}, "github-copilot-enterprise": other})

    assert [found.host for found in find_opencode({}, tmp_path)] == ["acme.ghe.com"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "does not exist", id="no file"),
        pytest.param(b"", "not a JSON object", id="empty"),
        pytest.param(b'{"github-copilot": ' + json.dumps(LOGIN).encode(), "not a JSON object", id="cut off"),
        pytest.param(b"\xff\xfe\xff", "not a JSON object", id="not text"),
        pytest.param(b"[" * 200_000, "not a JSON object", id="deep"),
        pytest.param(b" " * FILE_BYTES + b"{}", "larger than 1024 KB", id="huge"),
        pytest.param([LOGIN], "not a JSON object", id="an array"),
        pytest.param({}, "no login for GitHub Copilot", id="no providers"),
        pytest.param({"anthropic": LOGIN}, "no login for GitHub Copilot", id="another provider"),
        pytest.param({"github-copilot": CANARY}, "no login for GitHub Copilot", id="not an object"),
        pytest.param({"github-copilot": {**LOGIN, "type": "api"}}, "no login for GitHub Copilot", id="another type"),
        pytest.param({"github-copilot": {**LOGIN, "refresh": None}}, "not a token", id="no token"),
        pytest.param({"github-copilot": {**LOGIN, "refresh": f"{CANARY}\n"}}, "not a token", id="line break"),
        pytest.param(
            {"github-copilot": {**LOGIN, "refresh": PLACEHOLDER}}, "only the placeholder", id="the placeholder"
        ),
        pytest.param(
            {"github-copilot": {**LOGIN, "enterpriseUrl": "evil.test"}}, "'evil.test' is not a login host", id="host"
        ),
    ],
)
def test_no_login(tmp_path, content, said):
    """Where there is no login, one sentence says what was looked at and why it is none."""
    path = tmp_path / ".local/share/opencode/auth.json"
    if content is not None:
        opencode(tmp_path, content)

    sentence = not_found(tmp_path)

    assert said in sentence
    assert str(path) in sentence


def test_unreadable_file(tmp_path):
    """A place that cannot be read as a file is named with the system's reason."""
    (tmp_path / ".local/share/opencode/auth.json").mkdir(parents=True)

    assert f"auth.json cannot be read: {os.strerror(21)}" in not_found(tmp_path)
