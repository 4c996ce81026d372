"""``setup``: what is written into a client's files, what is told, and the way back."""

import json
import shutil
import stat
import subprocess
import sys

import pytest

from copilot_balancer.copilot.protocol import PLACEHOLDER
from support.machine import machine, made_ca  # noqa: F401 - fixtures

URL = "http://127.0.0.1:8080"
OTHERS = {"anthropic": {"type": "api", "key": "sk-Canary"}, "x": {"type": "oauth", "refresh": "Canary"}}
OWN = {"type": "oauth", "refresh": "gho_CanaryOwn", "access": "gho_CanaryOwn", "expires": 0}


@pytest.fixture
def ready(machine, made_ca):  # noqa: F811 - fixtures
    """A machine with a CA."""
    return machine.with_ca(made_ca)


@pytest.fixture
def auth(ready):
    """opencode's file of logins; write to it to let it be there."""
    path = ready.home / ".local/share/opencode/auth.json"
    path.parent.mkdir(parents=True)
    return path


def everything(home):
    """Each file below `home` but our own: mode and bytes."""
    return {
        str(path): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in sorted(home.rglob("*"))
        if path.is_file() and home / "ours" not in path.parents
    }


# --- every client


@pytest.mark.parametrize("client", ["opencode", "vscode", "neovim"])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_there_and_back(ready, monkeypatch, client, platform):
    """On an empty machine a client is set up and undone, and nothing is left; a dry run does neither."""
    monkeypatch.setattr(sys, "platform", platform)
    empty = everything(ready.home)
    dry = ready.run("setup", client, "--dry-run").stdout
    assert everything(ready.home) == empty
    assert dry.startswith("Would write to ")
    assert dry.endswith("Nothing was written.\n")

    told = ready.run("setup", client).stdout
    (path,) = set(everything(ready.home)) - set(empty)
    assert f"Wrote to {path}:" in told
    assert f"To undo: copilot-balancer setup {client} --undo" in told
    there = everything(ready.home)
    assert "is set up already" in ready.run("setup", client).stdout
    assert "Nothing was changed" in ready.run("setup", client, "--undo", "--dry-run").stdout
    assert everything(ready.home) == there

    assert ready.run("setup", client, "--undo").stdout == f"{path} is as it was before.\n"
    assert everything(ready.home) == empty
    assert "nothing to undo" in ready.run("setup", client, "--undo").stdout


@pytest.mark.parametrize("client", ["opencode", "copilot-cli", "vscode", "neovim"])
def test_what_is_told(ready, client):
    """What is told fits 80 columns but for paths and what stands in files, and names another port where one was given."""
    told = ready.run("setup", client, "--port", "9001").stdout
    assert "--port 9001" in told
    prose = [line for line in told.splitlines() if "/" not in line and not line.startswith("    ")]
    assert all(len(line) <= 80 for line in prose)


# --- opencode


def test_opencode(ready, auth):
    """The placeholder comes in; other providers' logins and the file's mode stay, and none of them is shown."""
    auth.write_text(json.dumps(OTHERS))
    auth.chmod(0o640)
    before = everything(ready.home)
    assert "Canary" not in ready.run("setup", "opencode", "--dry-run").output
    told = ready.run("setup", "opencode").stdout
    found = json.loads(auth.read_text())
    assert found.pop("github-copilot") == {"type": "oauth", "refresh": PLACEHOLDER, "access": PLACEHOLDER, "expires": 0}
    assert found == OTHERS
    assert stat.S_IMODE(auth.stat().st_mode) == 0o640
    assert "Its 2 logins of other providers stay" in told
    ready.run("setup", "opencode", "--undo")
    assert everything(ready.home) == before


def test_opencode_has_its_own_login(ready, auth):
    """A real login is replaced only when that was asked for; it is kept for the user alone, and comes back."""
    auth.write_text(json.dumps({**OTHERS, "github-copilot": OWN}))
    before = everything(ready.home)
    told = ready.refused("setup", "opencode")
    assert "has a login for GitHub Copilot of its own" in told
    assert "accounts import --from opencode" in told
    assert everything(ready.home) == before

    ready.run("setup", "opencode", "--replace")
    assert "gho_CanaryOwn" not in auth.read_text()
    kept = ready.env.paths.state / "setup" / "opencode.before"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert "opencode has its own login again" in ready.run("setup", "opencode", "--undo").stderr
    assert everything(ready.home) == before
    assert not kept.exists()


def test_opencode_wrote_there_since(ready, auth):
    """Logins that opencode wrote since stay when the placeholder goes, and the old login comes back."""
    auth.write_text(json.dumps({"github-copilot": OWN}))
    ready.run("setup", "opencode", "--replace")
    since = {**json.loads(auth.read_text()), **OTHERS}
    auth.write_text(json.dumps(since))
    assert "has what it needs already" in ready.run("setup", "opencode").stdout
    assert "only what copilot-balancer wrote is removed" in ready.run("setup", "opencode", "--undo").stdout
    assert json.loads(auth.read_text()) == {**OTHERS, "github-copilot": OWN}


def test_what_is_kept_is_not_overwritten(ready, auth):
    """A second set-up over a file that was changed since does not throw away what stood there first."""
    auth.write_text(json.dumps({"github-copilot": OWN}))
    ready.run("setup", "opencode", "--replace")
    auth.write_text(json.dumps(OTHERS))
    assert "`copilot-balancer setup opencode --undo` first" in ready.refused("setup", "opencode")
    kept = ready.env.paths.state / "setup" / "opencode.before"
    assert json.loads(kept.read_text()) == {"github-copilot": OWN}
    assert "has logged in by itself since" in ready.refused("setup", "opencode", "--undo")


def test_opencode_holds_the_placeholder(ready, auth):
    """A placeholder that the user wrote is enough, and is not ours to take back."""
    auth.write_text(json.dumps({"github-copilot": {"refresh": PLACEHOLDER}}))
    before = everything(ready.home)
    told = ready.run("setup", "opencode").stdout
    assert "has what it needs already" in told
    assert "To undo" not in told
    assert everything(ready.home) == before


def test_opencode_s_file_is_broken(ready, auth):
    """A file that cannot be read is left alone."""
    auth.write_text("{")
    assert "is not a JSON object, so it is left alone" in ready.refused("setup", "opencode")
    assert auth.read_text() == "{"


# --- the Copilot CLI


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "it gets the placeholder"),
        ({"GH_TOKEN": "gho_x"}, "a login of its own (the environment variable GH_TOKEN)"),
    ],
)
def test_copilot_cli(ready, environ, said):
    """For the Copilot CLI nothing is written; how it is run is told, and what the placeholder cannot do."""
    ready.environ.update(environ)
    before = everything(ready.home)
    told = " ".join(ready.run("setup", "copilot-cli").stdout.split())
    assert said in told
    assert "`copilot-balancer exec -- copilot`" in told
    assert everything(ready.home) == before
    assert "nothing to undo" in ready.run("setup", "copilot-cli", "--undo").stdout


# --- VS Code


def test_vscode(ready):
    """VS Code's settings keep every byte, comments too; undone after an edit, only our line goes."""
    path = ready.home / ".config/Code/User/settings.json"
    path.parent.mkdir(parents=True)
    before = '// mine\n{\n    "a": 1, // one\n}\n'
    path.write_text(before)
    told = ready.run("setup", "vscode").stdout
    assert path.read_text() == before.replace("{\n", f'{{\n    "http.proxy": "{URL}",\n')
    assert "not tried with VS Code itself" in " ".join(told.split())
    path.write_text(path.read_text().replace("one", "two"))
    ready.run("setup", "vscode", "--undo")
    assert path.read_text() == before.replace("one", "two")


def test_vscode_has_a_proxy(ready):
    """A proxy that the user set stays."""
    path = ready.home / ".config/Code/User/settings.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"http.proxy": "http://corp:3128"}')
    assert f"or set it to {URL}" in ready.refused("setup", "vscode")


# --- Neovim


def test_neovim(ready):
    """A real Neovim runs our file and finds the proxy and the CA."""
    program = shutil.which("nvim")
    ready.run("setup", "neovim")
    if program is None:
        pytest.skip("Neovim is not installed")
    environ = {"HOME": str(ready.home), "XDG_CONFIG_HOME": str(ready.home / ".config")}
    ran = subprocess.run(
        [program, "--headless", "-c", "echo g:copilot_proxy $NODE_EXTRA_CA_CERTS", "-c", "quit"],
        env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.stderr.split() == [URL, str(ready.authority.certificate)]


def test_neovim_has_such_a_file(ready):
    """A file of this name that says something else is left alone, before and after."""
    path = ready.home / ".config/nvim/plugin/copilot-balancer.lua"
    path.parent.mkdir(parents=True)
    path.write_text("-- mine")
    assert "says something else" in ready.refused("setup", "neovim")
    path.unlink()
    ready.run("setup", "neovim")
    path.write_text("-- edited")
    assert "was changed by another program since" in ready.refused("setup", "neovim", "--undo")
    assert path.read_text() == "-- edited"


def test_the_company_s_certificates(ready):
    """Certificates that the user's environment names already are in the file that is written down."""
    theirs = ready.home / "company.pem"
    theirs.write_text("-----BEGIN CERTIFICATE-----\n")
    ready.environ["NODE_EXTRA_CA_CERTS"] = str(theirs)
    ready.run("setup", "neovim")
    named = (ready.home / ".config/nvim/plugin/copilot-balancer.lua").read_text()
    assert str(ready.authority.folder / "more.pem") in named
    assert (ready.authority.folder / "more.pem").read_text().startswith(theirs.read_text())
