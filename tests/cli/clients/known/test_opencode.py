"""opencode's login file: read, with the placeholder in it, and back."""

import json
import os
from pathlib import Path

import pytest

from copilot_balancer.cli.clients.client import Record
from copilot_balancer.cli.clients.files import FILE_BYTES, object_in, read
from copilot_balancer.cli.clients.known.opencode import (
    LOGIN_VARIABLE,
    OPENCODE,
    Login,
    held,
    logins_file,
    with_placeholder,
    without_placeholder,
)
from copilot_balancer.cli.clients.registry import find
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput
from support.client_logins import CANARY, not_found

HOME = Path("/home/x")
LOGIN = {"type": "oauth", "refresh": CANARY, "access": CANARY, "expires": 0}
OWN = {"type": "oauth", "refresh": "gho_CanaryOwn", "access": "", "expires": 0}
OTHER = {"anthropic": {"type": "api", "key": "Canary-Ä"}}


def record(before: bytes | None) -> Record:
    return Record("auth.json", before, "")


def test_logins_file():
    """opencode's logins are found by default and by the XDG variable."""
    assert str(logins_file({}, HOME)) == "/home/x/.local/share/opencode/auth.json"
    assert str(logins_file({"XDG_DATA_HOME": "/d"}, HOME)) == "/d/opencode/auth.json"


@pytest.mark.parametrize(
    ("content", "login"),
    [
        (None, Login.NONE),
        ("", Login.NONE),
        ("{}", Login.NONE),
        (json.dumps(OTHER), Login.NONE),
        (json.dumps({**OTHER, "github-copilot": OWN}), Login.OWN),
        (json.dumps({"github-copilot": {"refresh": PLACEHOLDER}}), Login.PLACEHOLDER),
        ('{"github-copilot": 3}', Login.NONE),
    ],
)
def test_held(tmp_path, content, login):
    """Which login opencode holds is known without a secret."""
    path = tmp_path / "opencode" / "auth.json"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    assert held(object_in(path, read(path))) is login
    own = OPENCODE.own_login({"XDG_DATA_HOME": str(tmp_path)}, HOME)
    assert own == (str(path) if login is Login.OWN else None)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[]", "not a JSON object"),
        (b'{"a": Canary}', "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b" " * (FILE_BYTES + 1), "larger than"),
    ],
)
def test_what_is_not_opencode_s(tmp_path, content, why):
    """A file that is not what opencode writes is an error that quotes none of it."""
    path = tmp_path / "opencode" / "auth.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=why) as caught:
        OPENCODE.own_login({"XDG_DATA_HOME": str(tmp_path)}, HOME)
    assert "Canary" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "before", [None, b"", b"{}", json.dumps(OTHER).encode(), json.dumps({"github-copilot": OWN, **OTHER}).encode()]
)
def test_placeholder_and_back(before):
    """The placeholder comes in and goes out again; every other login, and an old one for Copilot, is as before."""
    path = Path("auth.json")
    after = with_placeholder(path, before)
    entries = json.loads(before or b"{}")
    assert json.loads(after)["github-copilot"]["refresh"] == PLACEHOLDER
    assert {**json.loads(after), "github-copilot": None} == {**entries, "github-copilot": None}
    assert json.loads(without_placeholder(path, record(before), after)) == entries


def test_opencode_logged_in_since():
    """A login that opencode got since is not thrown away."""
    with pytest.raises(InvalidInput, match="opencode has logged in by itself since"):
        without_placeholder(Path("auth.json"), record(None), json.dumps({"github-copilot": OWN}).encode())


def test_the_variable_says_what_the_file_would():
    """What opencode is told by its environment is what its file of logins would say."""
    told = json.loads(OPENCODE.login[LOGIN_VARIABLE])
    assert told["github-copilot"]["refresh"] == PLACEHOLDER


# ── import ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def opencode(home: Path, content: object, folder: str = ".local/share") -> Path:
    path = home / folder / "opencode" / "auth.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_opencode_login(tmp_path):
    """opencode's login is found with its host and its place, and its token is not shown."""
    path = opencode(tmp_path, {"anthropic": {"type": "api", "key": "x"}, "github-copilot": LOGIN})

    (found,) = find("opencode", {}, tmp_path)

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

    (found,) = find("opencode", environ, tmp_path)

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

    assert [found.host for found in find("opencode", {}, tmp_path)] == [host]


def test_opencode_with_two_logins(tmp_path):
    """A login for a domain of its own, as older versions wrote it, is found beside the other one."""
    other = {**LOGIN, "refresh": CANARY + "2", "enterpriseUrl": "acme.ghe.com"}
    opencode(tmp_path, {"github-copilot": LOGIN, "github-copilot-enterprise": other})

    assert [found.host for found in find("opencode", {}, tmp_path)] == ["github.com", "acme.ghe.com"]


def test_placeholder_beside_a_login(tmp_path):
    """The placeholder is passed over where there is a login beside it."""
    other = {**LOGIN, "enterpriseUrl": "acme.ghe.com"}
    opencode(tmp_path, {"github-copilot": {**LOGIN, "refresh": PLACEHOLDER}, "github-copilot-enterprise": other})

    assert [found.host for found in find("opencode", {}, tmp_path)] == ["acme.ghe.com"]


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

    sentence = not_found("opencode", tmp_path)

    assert said in sentence
    assert str(path) in sentence


def test_unreadable_file(tmp_path):
    """A place that cannot be read as a file is named with the system's reason."""
    (tmp_path / ".local/share/opencode/auth.json").mkdir(parents=True)

    assert f"auth.json cannot be read: {os.strerror(21)}" in not_found("opencode", tmp_path)
