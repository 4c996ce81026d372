"""Where other programs keep their Copilot login."""

import json
import os
import traceback
from pathlib import Path

import pytest

from copilot_balancer.cli.clients import gh as logins_gh
from copilot_balancer.cli.clients import logins
from copilot_balancer.cli.clients.files import FILE_BYTES
from copilot_balancer.cli.clients.logins import SOURCES, find
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput

CANARY = "gho_" + "Canary7Canary7Canary7Canary7Canary7x"
LOGIN = {"type": "oauth", "refresh": CANARY, "access": CANARY, "expires": 0}


def opencode(home: Path, content: object, folder: str = ".local/share") -> Path:
    path = home / folder / "opencode" / "auth.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def find_opencode(environ, home):
    return find("opencode", environ, home)


def find_copilot_cli(environ, home):
    return find("copilot-cli", environ, home)


def find_gh(environ, home):
    return find("gh", environ, home)


def find_vim(environ, home):
    return find("vim", environ, home)


def find_env(environ, home):
    return find("env", environ, home)


def not_found(home: Path, environ: dict[str, str] | None = None, find=find_opencode) -> str:
    with pytest.raises(InvalidInput) as caught:
        find(environ or {}, home)
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.tb), capture_locals=True)
    ours = [str(frame.locals) for frame in frames if frame.filename == logins.__file__]
    assert ours
    assert CANARY not in f"{ours} {caught.value!r}"
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


def told(found) -> list[tuple[str, str]]:
    """Token and host of each login."""
    return [(one.token.get_secret_value(), one.host) for one in found]


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


TWO = CANARY + "2"


# ── the Copilot CLI ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "tokens",
    [
        {"copilot_tokens": {"https://github.com:octocat": CANARY}},
        {"copilotTokens": {"https://github.com:octocat": CANARY}},
        {"copilotTokens": {"github.com": {"token": CANARY, "expiresAt": "2099-01-01T00:00:00Z"}}},
        {"copilotTokens": {"https://github.com:octocat": CANARY, "https://ghes.example.com:octocat": TWO}},
    ],
    ids=["older key", "newer key", "an object", "beside a server of one's own"],
)
@pytest.mark.parametrize(
    "comments", [b"", b"// User settings belong in settings.json.\n  // Managed.\n"], ids=["", "//"]
)
def test_copilot_cli_login(tmp_path, tokens, comments):
    """The login in config.json is found, whichever form that has, and where it stands is said."""
    path = write(tmp_path / ".copilot" / "config.json", comments + json.dumps(tokens).encode())

    found = find_copilot_cli({}, tmp_path)

    assert told(found) == [(CANARY, "github.com")]
    assert found[0].where == str(path)


def test_copilot_cli_folder(tmp_path):
    """$COPILOT_HOME moves the file."""
    write(tmp_path / "else" / "config.json", {"copilotTokens": {"https://acme.ghe.com:jane": CANARY}})

    assert told(find_copilot_cli({"COPILOT_HOME": str(tmp_path / "else")}, tmp_path)) == [(CANARY, "acme.ghe.com")]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"COPILOT_GITHUB_TOKEN": CANARY}, (CANARY, "github.com")),
        ({"COPILOT_GITHUB_TOKEN": CANARY, "GH_HOST": "acme.ghe.com"}, (CANARY, "acme.ghe.com")),
        ({"COPILOT_GITHUB_TOKEN": PLACEHOLDER}, (TWO, "github.com")),
        ({"COPILOT_GITHUB_TOKEN": ""}, (TWO, "github.com")),
        ({"GH_TOKEN": CANARY}, (TWO, "github.com")),
    ],
    ids=["set", "set with a host", "the placeholder", "empty", "another variable"],
)
def test_copilot_cli_variable(tmp_path, environ, expected):
    """Its own variable comes before its file, unless it holds nothing or the placeholder."""
    write(tmp_path / ".copilot" / "config.json", {"copilotTokens": {"https://github.com:octocat": TWO}})

    assert told(find_copilot_cli(environ, tmp_path)) == [expected]


@pytest.mark.parametrize(
    "content",
    [None, b"{", [], {}, {"copilotTokens": {}}, {"copilotTokens": CANARY}, {"copilotTokens": {"github.com": 7}}],
    ids=repr,
)
def test_no_copilot_cli_login(tmp_path, content):
    """Where there is none, it is said where it was looked for, and that the keychain is not read."""
    path = tmp_path / ".copilot" / "config.json"
    if content is not None:
        write(path, content)

    sentence = not_found(tmp_path, find=find_copilot_cli)

    assert str(path) in sentence
    assert "COPILOT_GITHUB_TOKEN holds none" in sentence
    assert "keychain" in sentence


# ── the GitHub CLI ───────────────────────────────────────────────────────────────────────────────────────────────────


ONE_USER = f"github.com:\n    oauth_token: {CANARY}\n    user: octocat\n    git_protocol: https\n"
TWO_USERS = f"""\
# a comment
github.com:
    git_protocol: https
    users:
        octocat:
            oauth_token: "{CANARY}"
        octodog:
            oauth_token: {TWO}
    user: octocat
acme.ghe.com:
    users:
        jane_acme:
    oauth_token: {CANARY}3
    user: jane_acme
ghes.example.com:
    oauth_token: {CANARY}4
- a: list
anchor: &a
    <<: *a
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(ONE_USER, [(CANARY, "github.com")], id="before gh 2.40"),
        pytest.param(
            TWO_USERS,
            [(CANARY, "github.com"), (TWO, "github.com"), (CANARY + "3", "acme.ghe.com")],
            id="several users, and a server of one's own",
        ),
        pytest.param(ONE_USER.replace("\n", "\r\n"), [(CANARY, "github.com")], id="Windows line ends"),
    ],
)
def test_gh_file(tmp_path, text, expected):
    """The tokens in gh's file are found, each with its host."""
    path = write(tmp_path / ".config" / "gh" / "hosts.yml", text.encode())

    found = find_gh({}, tmp_path)

    assert told(found) == expected
    assert found[0].where == f"{path} (octocat)"


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"GH_CONFIG_DIR": "one", "XDG_CONFIG_HOME": "two", "APPDATA": "three"}, "one"),
        ({"XDG_CONFIG_HOME": "two", "APPDATA": "three"}, "two/gh"),
        ({"APPDATA": "three"}, "three/GitHub CLI"),
        ({}, ".config/gh"),
    ],
    ids=["its own variable", "XDG", "Windows", "default"],
)
def test_gh_folder(tmp_path, environ, folder):
    """The folder of gh's file is what gh takes it to be."""
    write(tmp_path / folder / "hosts.yml", ONE_USER.encode())

    assert told(find_gh({name: str(tmp_path / value) for name, value in environ.items()}, tmp_path))


KEYRING = "github.com:\n    users:\n        octocat:\n        octodog:\n    user: octocat\n"


def gh(folder: Path, script: str) -> str:
    """A program `gh` of our own; its folder is what PATH is to be."""
    folder.mkdir(exist_ok=True)
    program = folder / "gh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_gh_keyring(tmp_path):
    """For each user whose token is in the keyring gh itself is asked, without the variables that it would tell instead."""
    write(tmp_path / ".config" / "gh" / "hosts.yml", KEYRING.encode())
    path = gh(tmp_path / "bin", f'echo "$@" >> {tmp_path}/asked; echo "{CANARY}$6$GH_TOKEN$GITHUB_TOKEN"')

    found = find_gh({"PATH": path, "GH_TOKEN": "no", "GITHUB_TOKEN": "no"}, tmp_path)

    assert told(found) == [(f"{CANARY}octocat", "github.com"), (f"{CANARY}octodog", "github.com")]
    assert (tmp_path / "asked").read_text().splitlines() == [
        "auth token --hostname github.com --user octocat",
        "auth token --hostname github.com --user octodog",
    ]


def test_gh_keyring_of_an_older_gh(tmp_path):
    """An older gh knows no users: it is asked for the host."""
    write(tmp_path / ".config" / "gh" / "hosts.yml", b"github.com:\n    git_protocol: ssh\n")
    path = gh(tmp_path / "bin", f'test "$*" = "auth token --hostname github.com" && echo {CANARY}')

    assert told(find_gh({"PATH": path}, tmp_path)) == [(CANARY, "github.com")]


@pytest.mark.parametrize(
    ("text", "script", "said"),
    [
        pytest.param(None, None, "does not exist", id="no file"),
        pytest.param("", None, "names no login", id="empty file"),
        pytest.param("github.com: yes\n", None, "names no login", id="no map"),
        pytest.param("- a\n\tx: y\n{}\n", None, "names no login", id="other YAML"),
        pytest.param(KEYRING, None, "`gh auth token` tells none", id="no gh"),
        pytest.param(KEYRING, "exit 4", "`gh auth token` tells none", id="gh has none"),
        pytest.param(KEYRING, "exec sleep 9", "`gh auth token` tells none", id="gh hangs"),
        pytest.param(
            KEYRING.replace("octocat", "-x").replace("octodog", "a;b"), "echo no", "tells none", id="odd users"
        ),
        pytest.param(KEYRING.replace("github.com", "-h"), "echo no", "tells none", id="odd host"),
    ],
)
def test_no_gh_login(tmp_path, monkeypatch, text, script, said):
    """Where there is none, it is said where it was looked for."""
    monkeypatch.setattr(logins_gh, "GH_SECONDS", 0.2)
    path = tmp_path / ".config" / "gh" / "hosts.yml"
    if text is not None:
        write(path, text.encode())
    environ = {"PATH": gh(tmp_path / "bin", script)} if script else {}

    sentence = not_found(tmp_path, environ, find_gh)

    assert said in sentence
    assert str(path) in sentence


def test_gh_that_cannot_be_run(tmp_path):
    """A gh that is no program is as none."""
    write(tmp_path / ".config" / "gh" / "hosts.yml", KEYRING.encode())
    path = gh(tmp_path / "bin", "")
    (tmp_path / "bin" / "gh").write_bytes(b"\x7fELF")

    assert "tells none" in not_found(tmp_path, {"PATH": path}, find_gh)


# ── editors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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

    assert told(find_vim({}, tmp_path)) == expected


@pytest.mark.parametrize(
    ("environ", "folder"),
    [({"XDG_CONFIG_HOME": "x", "LOCALAPPDATA": "y"}, "x"), ({"LOCALAPPDATA": "y"}, "y")],
    ids=["XDG", "Windows"],
)
def test_editor_folder(tmp_path, environ, folder):
    """The plugins' folder is where they look themselves."""
    write(tmp_path / folder / "github-copilot" / "hosts.json", HOSTS)

    assert told(find_vim({name: str(tmp_path / value) for name, value in environ.items()}, tmp_path))


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

    sentence = not_found(tmp_path, find=find_vim)

    assert str(folder / "apps.json") in sentence
    assert str(folder / "hosts.json") in sentence


# ── environment ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "expected", "where"),
    [
        ({"GITHUB_TOKEN": CANARY}, (CANARY, "github.com"), "GITHUB_TOKEN"),
        ({"GITHUB_TOKEN": TWO, "GH_TOKEN": f" {CANARY}\n"}, (CANARY, "github.com"), "GH_TOKEN"),
        ({"GH_TOKEN": TWO, "COPILOT_GITHUB_TOKEN": CANARY}, (CANARY, "github.com"), "COPILOT_GITHUB_TOKEN"),
        ({"GH_TOKEN": TWO, "COPILOT_GITHUB_TOKEN": PLACEHOLDER}, (TWO, "github.com"), "GH_TOKEN"),
        ({"GH_TOKEN": CANARY, "GH_HOST": "Acme.ghe.com"}, (CANARY, "acme.ghe.com"), "GH_TOKEN"),
        (
            {"GH_TOKEN": CANARY, "GH_HOST": "github.com", "COPILOT_GH_HOST": "acme.ghe.com"},
            (CANARY, "acme.ghe.com"),
            "GH_TOKEN",
        ),
    ],
    ids=["GITHUB_TOKEN", "GH_TOKEN first", "Copilot's own first", "never the placeholder", "host", "Copilot's host"],
)
def test_environment(tmp_path, environ, expected, where):
    """The variable that the Copilot CLI would take is taken, with the host that it would take."""
    found = find_env(environ, tmp_path)

    assert told(found) == [expected]
    assert found[0].where == f"the environment variable {where}"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "none of COPILOT_GITHUB_TOKEN, GH_TOKEN, GITHUB_TOKEN holds one"),
        ({"GH_TOKEN": ""}, "holds one"),
        ({"GH_TOKEN": PLACEHOLDER}, "holds one"),
        ({"GH_TOKEN": "two words"}, "the environment variable GH_TOKEN: this is not a token"),
        ({"GH_TOKEN": CANARY, "GH_HOST": "ghes.example.com"}, "'ghes.example.com' is not a login host"),
    ],
    ids=["unset", "empty", "the placeholder", "no token", "another host"],
)
def test_no_token_in_the_environment(tmp_path, environ, said):
    """Where there is none, the variables are named."""
    assert said in not_found(tmp_path, environ, find_env)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pipe_in_a_files_place(tmp_path):
    """A pipe that nobody writes to is not waited for."""
    path = tmp_path / ".config" / "github-copilot" / "hosts.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    assert "not a JSON object" in not_found(tmp_path, find=find_vim)


def test_sources():
    """Each source is found by the name that its program has."""
    assert set(SOURCES) == {"opencode", "copilot-cli", "gh", "vim", "env"}
