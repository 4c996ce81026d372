"""Files of clients: what is read there, what is written, and that it can be undone."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, strategies

from copilot_balancer.cli.clients import (
    changes as client_files,
)
from copilot_balancer.cli.clients import (
    editors,
    files,
)
from copilot_balancer.cli.clients.changes import Changes
from copilot_balancer.cli.clients.copilot_cli import copilot_cli_login, copilot_cli_state_file
from copilot_balancer.cli.clients.editors import (
    neovim_plugin,
    neovim_plugin_file,
    vscode_settings_file,
    with_vscode_proxy,
    without_vscode_proxy,
)
from copilot_balancer.cli.clients.files import FILE_BYTES, Login, read
from copilot_balancer.cli.clients.opencode import (
    OpencodeLogins,
    opencode_logins,
    opencode_logins_file,
    with_opencode_login,
    without_opencode_login,
)
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import BalancerError, InvalidInput

HOME = Path("/home/x")
URL = "http://127.0.0.1:8080"
OWN = {"type": "oauth", "refresh": "gho_CanaryOwn", "access": "", "expires": 0}
OTHER = {"anthropic": {"type": "api", "key": "Canary-Ä"}}


# --- where they are


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
def test_vscode_settings_file(environ, platform, found):
    """VS Code's settings stand where each system keeps them."""
    assert str(vscode_settings_file(environ, HOME, platform)) == found


@pytest.mark.parametrize(
    ("environ", "platform", "found"),
    [
        ({}, "linux", "/home/x/.config/nvim/plugin/copilot-balancer.lua"),
        ({}, "darwin", "/home/x/.config/nvim/plugin/copilot-balancer.lua"),
        ({"XDG_CONFIG_HOME": "/c", "NVIM_APPNAME": "lazy"}, "linux", "/c/lazy/plugin/copilot-balancer.lua"),
        ({}, "win32", "/home/x/AppData/Local/nvim/plugin/copilot-balancer.lua"),
    ],
)
def test_neovim_plugin_file(environ, platform, found):
    """Our file for Neovim stands where Neovim runs what it finds."""
    assert str(neovim_plugin_file(environ, HOME, platform)) == found


def test_the_other_files():
    """opencode and the Copilot CLI are found by default and by their variables."""
    assert str(opencode_logins_file({}, HOME)) == "/home/x/.local/share/opencode/auth.json"
    assert str(opencode_logins_file({"XDG_DATA_HOME": "/d"}, HOME)) == "/d/opencode/auth.json"
    assert str(copilot_cli_state_file({}, HOME)) == "/home/x/.copilot/config.json"
    assert str(copilot_cli_state_file({"COPILOT_HOME": "/k"}, HOME)) == "/k/config.json"


# --- whether a login stands in them


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (None, OpencodeLogins(Login.NONE, 0)),
        ("", OpencodeLogins(Login.NONE, 0)),
        ("{}", OpencodeLogins(Login.NONE, 0)),
        (json.dumps(OTHER), OpencodeLogins(Login.NONE, 1)),
        (json.dumps({**OTHER, "github-copilot": OWN}), OpencodeLogins(Login.OWN, 1)),
        (json.dumps({"github-copilot": {"refresh": PLACEHOLDER}}), OpencodeLogins(Login.PLACEHOLDER, 0)),
        ('{"github-copilot": 3}', OpencodeLogins(Login.NONE, 0)),
    ],
)
def test_opencode_logins(tmp_path, content, held):
    """What opencode holds is told without a secret."""
    path = tmp_path / "auth.json"
    if content is not None:
        path.write_text(content)
    assert opencode_logins(path) == held


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
    path = tmp_path / "auth.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=why) as caught:
        opencode_logins(path)
    assert "Canary" not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_cannot_be_read(tmp_path):
    """A folder, a pipe, and a file in the place of a folder are errors, and nobody waits for a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInput, match="not a regular file"):
        read(pipe)
    with pytest.raises(InvalidInput, match=r"Is a directory|not a regular file"):
        read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="cannot be read: Not a directory"):
        read(tmp_path / "file" / "auth.json")


@pytest.mark.parametrize(
    ("environ", "config", "where"),
    [
        ({}, None, None),
        ({"COPILOT_GITHUB_TOKEN": ""}, None, None),
        ({"COPILOT_GITHUB_TOKEN": PLACEHOLDER}, None, None),
        ({"COPILOT_GITHUB_TOKEN": "gho_x"}, None, "the environment variable COPILOT_GITHUB_TOKEN"),
        ({"GH_TOKEN": "gho_x"}, None, "the environment variable GH_TOKEN"),
        ({"GITHUB_TOKEN": "gho_x"}, None, "the environment variable GITHUB_TOKEN"),
        ({}, '// managed\n{"firstLaunchAt": "now"}', None),
        ({}, '// managed\n{"loggedInUsers": []}', None),
        ({}, '// managed\n{"loggedInUsers": [{"login": "octocat"}]}', "config.json"),
        ({}, '{"logged_in_users": [{"login": "octocat"}],}', "config.json"),
        ({}, "garbage", None),
        ({}, "", None),
    ],
)
def test_copilot_cli_login(tmp_path, environ, config, where):
    """The Copilot CLI is logged in by its environment, or by who stands in its file; the placeholder is no login."""
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    found = copilot_cli_login({"COPILOT_HOME": str(tmp_path), **environ}, HOME)
    assert found is None if where is None else found.endswith(where)


# --- what is to stand in them


@pytest.mark.parametrize(
    "before", [None, b"", b"{}", json.dumps(OTHER).encode(), json.dumps({"github-copilot": OWN, **OTHER}).encode()]
)
def test_opencode_login_and_back(before):
    """The placeholder comes in and goes out again; every other login, and an old one for Copilot, is as before."""
    path = Path("auth.json")
    after = with_opencode_login(path, before)
    entries = json.loads(before or b"{}")
    assert json.loads(after)["github-copilot"]["refresh"] == PLACEHOLDER
    assert {**json.loads(after), "github-copilot": None} == {**entries, "github-copilot": None}
    assert json.loads(without_opencode_login(path, after, before)) == entries


def test_opencode_logged_in_since():
    """A login that opencode got since is not thrown away."""
    with pytest.raises(InvalidInput, match="opencode logged in by itself since"):
        without_opencode_login(Path("auth.json"), json.dumps({"github-copilot": OWN}).encode(), None)


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
def test_vscode_proxy_and_back(before):
    """The line comes in without touching another byte, the result is still JSON with comments, and it goes out again."""
    path = Path("settings.json")
    after = with_vscode_proxy(path, before, URL)
    settings = files._object(path, after, comments=True)
    assert settings.pop("http.proxy") == URL
    assert settings == files._object(path, before, comments=True)
    assert without_vscode_proxy(path, after, URL) == before


def test_vscode_without_settings():
    """Without settings a file of its own is written."""
    for before in (None, b"", b"\n"):
        assert json.loads(with_vscode_proxy(Path("settings.json"), before, URL)) == {"http.proxy": URL}


def test_vscode_has_a_proxy():
    """A proxy that the user set stays, even when it is ours by chance; so does what is not JSON."""
    for before in (b'{"http.proxy": "http://corp:3128"}', b"{// \n'a': 1}"):
        with pytest.raises(InvalidInput, match=r'"http\.proxy" already|not a JSON object'):
            with_vscode_proxy(Path("settings.json"), before, URL)


def test_vscode_proxy_was_changed_since():
    """A line that somebody edited is left to them."""
    with pytest.raises(InvalidInput, match="take it out by hand"):
        without_vscode_proxy(Path("settings.json"), b'{"http.proxy": "http://127.0.0.1:9"}', URL)


@given(strategies.text(strategies.characters(blacklist_categories=["Cs"], blacklist_characters="\0")))
def test_lua_strings(text):
    """A path in Lua is one string on one line, whatever it holds."""
    quoted = editors._lua(text)
    assert "\n" not in quoted
    assert "\r" not in quoted
    assert json.loads(quoted.replace("\t", "\\t"), strict=False) == text


def test_neovim_plugin():
    """What Neovim runs says who wrote it, the proxy, and the CA."""
    lines = neovim_plugin(URL, Path('/a "b"/ca.pem')).decode().splitlines()
    assert "copilot-balancer" in lines[0]
    assert lines[1:] == [
        'vim.g.copilot_proxy = "http://127.0.0.1:8080"',
        'vim.env.NODE_EXTRA_CA_CERTS = "/a \\"b\\"/ca.pem"',
    ]


# --- changing, and the way back


@pytest.fixture
def changes(tmp_path):
    return Changes(tmp_path / "ours" / "setup")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "theirs" / "app" / "file.json"


def test_a_new_file_and_back(changes, path, tmp_path):
    """A file that was not there is made for the user alone, with its folders; undone, all of it is gone."""
    assert changes.record("app") is None
    made = changes.apply("app", path, b"new", "note")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record = changes.record("app")
    assert record == made
    assert record.note == "note"
    assert record.is_in(b"new")
    assert not record.is_in(b"other")
    assert not record.is_in(None)
    assert changes.undo("app", record) == f"{path} is as it was before"
    assert not (tmp_path / "theirs").exists()
    assert changes.record("app") is None


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_an_old_file_and_back(changes, path, mode):
    """A file that was there keeps its mode; what stood there is kept for the user alone and comes back, byte for byte."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old \xff")
    path.chmod(mode)
    changes.apply("app", path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)
    kept = changes.folder / "app.before"
    assert (kept.read_bytes(), stat.S_IMODE(kept.stat().st_mode)) == (b"old \xff", 0o600)
    changes.undo("app", changes.record("app"))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"old \xff", mode)
    assert not kept.exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_a_link_stays_a_link(changes, path, tmp_path):
    """A file that is a link (as in a repository of dotfiles) is changed where it really is."""
    real = tmp_path / "dotfiles" / "file.json"
    real.parent.mkdir()
    real.write_bytes(b"old")
    path.parent.mkdir(parents=True)
    path.symlink_to(real)
    changes.apply("app", path, b"new")
    assert path.is_symlink()
    assert real.read_bytes() == b"new"
    changes.undo("app", changes.record("app"))
    assert path.is_symlink()
    assert real.read_bytes() == b"old"


def test_somebody_wrote_there_since(changes, path):
    """What somebody wrote since stays: only our words go, or, where nobody can tell them apart, nothing happens."""
    changes.apply("app", path, b"ours")
    path.write_bytes(b"ours and theirs")
    with pytest.raises(BalancerError, match=r"was changed by somebody since.*app\.before"):
        changes.undo("app", changes.record("app"))
    assert path.read_bytes() == b"ours and theirs"
    told = changes.undo("app", changes.record("app"), lambda now: now.removeprefix(b"ours and "))
    assert "only what was written here is gone" in told
    assert path.read_bytes() == b"theirs"
    assert changes.record("app") is None


def test_the_file_is_gone(changes, path):
    """A file that somebody deleted since is not made again."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    changes.apply("app", path, b"new")
    path.unlink()
    assert "gone already" in changes.undo("app", changes.record("app"))
    assert not path.exists()


def test_a_folder_that_is_used_since_stays(changes, path):
    """A folder that was made for our file stays when something else stands in it by then."""
    changes.apply("app", path, b"new")
    (path.parent / "theirs").write_text("x")
    changes.undo("app", changes.record("app"))
    assert [entry.name for entry in path.parent.iterdir()] == ["theirs"]


@pytest.mark.parametrize("undoing", [False, True])
def test_what_cannot_be_written(changes, path, monkeypatch, undoing):
    """A disk that refuses is one sentence: nothing was changed, nothing is left behind."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    if undoing:
        changes.apply("app", path, b"new")

    def full(_handle):
        raise OSError(28, "No space left on device")

    real = os.fsync
    monkeypatch.setattr(
        client_files.os,
        "fsync",
        lambda handle: full(handle) if "theirs" in os.readlink(f"/proc/self/fd/{handle}") else real(handle),
    )
    with pytest.raises(BalancerError, match=r"file\.json cannot be written: No space left on device"):
        changes.undo("app", changes.record("app")) if undoing else changes.apply("app", path, b"new")
    assert path.read_bytes() == (b"new" if undoing else b"old")
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    assert (changes.record("app") is not None) is undoing


def test_a_file_of_another_user(changes, path, monkeypatch):
    """A file that belongs to somebody else is left alone: replaced, it would be ours."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    real = os.geteuid()
    monkeypatch.setattr(
        client_files.os,
        "geteuid",
        lambda: real + 1 if changes.folder.exists() and (changes.folder / "app.json").exists() else real,
    )
    with pytest.raises(BalancerError, match="it belongs to another user"):
        changes.apply("app", path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"path": 1}'])
def test_a_record_that_somebody_edited(changes, path, content):
    """What is kept of a change is not guessed at when it is not as it was written."""
    changes.apply("app", path, b"new")
    (changes.folder / "app.json").write_text(content)
    with pytest.raises(BalancerError, match="undo by hand"):
        changes.record("app")


def test_the_folder_of_records_must_be_ours(changes, path):
    """A folder, or a record, that others may use is refused, and nothing is changed."""
    changes.apply("app", path, b"new")
    changes.folder.chmod(0o755)
    with pytest.raises(BalancerError, match="chmod 700"):
        changes.record("app")
    with pytest.raises(BalancerError, match="chmod 700"):
        changes.apply("app", path, b"newer")
    changes.folder.chmod(0o700)
    (changes.folder / "app.json").chmod(0o644)
    with pytest.raises(BalancerError, match="chmod 600"):
        changes.record("app")
    assert path.read_bytes() == b"new"


def test_the_folder_of_records_cannot_be_made(path, tmp_path):
    """Without a place to keep what stood there nothing is changed."""
    (tmp_path / "ours").write_text("a file")
    with pytest.raises(BalancerError, match="Remedy"):
        Changes(tmp_path / "ours" / "setup").apply("app", path, b"new")
    assert not path.exists()


def test_the_folder_of_records_is_removed_meanwhile(changes, path, monkeypatch):
    """What cannot be kept is not replaced, even when somebody removes the place for it at just that moment."""
    monkeypatch.setattr(client_files, "make", lambda _folder: None)
    with pytest.raises(BalancerError, match="removed meanwhile"):
        changes.apply("app", path, b"new")
    assert not path.exists()
