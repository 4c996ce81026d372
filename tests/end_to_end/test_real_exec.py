"""Real clients by `copilot-balancer exec`, from an empty home to an answered prompt, against the embedded fake.

Laws of this file:

1. A client is the one on PATH, unchanged. A test whose client is missing is skipped, and says how to install it.
2. The user types one command. Nothing but what a client needs to run without network is set beside it.
3. GitHub refuses the placeholder here too: at each of its doors it is answered with 401.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.answers import BAD_CREDENTIALS, FakeAccount, Ok, limited
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.store.store import Store, paths
from end_to_end.test_secrets import leaks
from support.proxies import SUPPORT, WORK, three_accounts

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

PROGRAM = [sys.executable, "-c", "from copilot_balancer.cli.main import main; main()"]
DOORS = (
    "/copilot_internal/user",
    "/copilot_internal/managed_settings",
    "/copilot_internal/team_customizations",
    "/copilot/mcp_registry",
    "/repos/github/copilot-cli/releases",
)
"""What the Copilot CLI asks api.github.com when it starts, with its token (docs/clients.md#copilot-cli, and seen here)."""


@pytest.fixture
def home(tmp_path, fake, tmp_path_factory):
    """The environment of an empty home, with three accounts in the store, of which the first is limited."""
    user = tmp_path / "user"
    user.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(user),
        "COPILOT_BALANCER_HOME": str(tmp_path / "ours"),
        "FAKE_PORT": str(fake.port),
        # api.github.com is not opened by the proxy, so a client sees the fake's own certificate there
        "NODE_EXTRA_CA_CERTS": str(fake.ca_file),
        "COPILOT_AUTO_UPDATE": "false",
        "COPILOT_PKG_CACHE_HOME": str(tmp_path_factory.getbasetemp().parent / "copilot-cli"),  # 235 MB, kept
        **{f"OPENCODE_DISABLE_{what}": "1" for what in ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "SHARE")},
    }
    decisions = Decisions(accounts=three_accounts(), terms_accepted_at=1.0)
    Store(paths(environ).state).edit_decisions(lambda _: decisions)
    fake.accounts[WORK].default = limited(30)
    fake.accounts[PLACEHOLDER] = FakeAccount("placeholder", at=dict.fromkeys(DOORS, BAD_CREDENTIALS))
    return environ


def run(home, fake, *arguments):
    """``copilot-balancer exec -- ARGUMENTS`` in an empty folder; the proxy that it starts dials the fake."""
    project = Path(home["HOME"]).parent / "project"
    project.mkdir(exist_ok=True)
    to_fake = f"-s {SUPPORT / 'dial_fake.py'} --set ssl_verify_upstream_trusted_ca={fake.ca_file}"
    return subprocess.run(
        [*PROGRAM, "exec", "--proxy-args", to_fake, "--", *arguments],
        cwd=project,
        env=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def program(name: str, package: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not installed: npm install --global {package}")


def assert_answered(ran, fake, home) -> None:
    """The prompt was answered by another account than the limited one, and no token reached the client's home."""
    assert ran.returncode == 0, ran
    assert Ok().text in ran.stdout, ran
    served = [seen.account for seen in fake.asked() if seen.account != "work"]
    assert served
    assert set(served) <= {"personal", "spare"}
    assert fake.asked()[0].account == "work"
    assert leaks(Path(home["HOME"])) == []
    assert PLACEHOLDER not in {seen.token for seen in fake.asked()}


def test_opencode(home, fake):
    """From an empty home opencode answers a prompt, by its environment alone: no login is written."""
    opencode = program("opencode", "opencode-ai")
    ran = run(home, fake, opencode, "run", "-m", "github-copilot/gpt-5-mini", "say hi")
    assert_answered(ran, fake, home)
    assert not (Path(home["HOME"]) / ".local/share/opencode/auth.json").exists()


def test_opencode_after_setup(home, fake):
    """With other providers' logins opencode is set up once, and then answers; the others are still there."""
    opencode = program("opencode", "opencode-ai")
    auth = Path(home["HOME"]) / ".local/share/opencode/auth.json"
    auth.parent.mkdir(parents=True)
    auth.write_text('{"anthropic": {"type": "api", "key": "sk-theirs"}}')
    arguments = (opencode, "run", "-m", "github-copilot/gpt-5-mini", "say hi")
    assert "`copilot-balancer setup opencode`" in run(home, fake, *arguments).stderr
    subprocess.run([*PROGRAM, "setup", "opencode"], env=home, check=True, stdout=subprocess.DEVNULL)
    assert_answered(run(home, fake, *arguments), fake, home)
    assert "sk-theirs" in auth.read_text()


def test_copilot_cli(home, fake):
    """From an empty home the Copilot CLI answers a prompt, although GitHub refuses the placeholder."""
    copilot = program("copilot", "@github/copilot")
    known = subprocess.run([copilot, "--version"], env=home, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if "GitHub Copilot CLI" not in known.stdout:
        pytest.skip(f"{copilot} is another program: npm install --global @github/copilot")
    options = ("--model", "gpt-5-mini", "--allow-all-tools", "--disable-builtin-mcps")
    ran = run(home, fake, copilot, "-p", "say hi", *options)
    assert_answered(ran, fake, home)
    refused = [seen for seen in fake.seen if seen.host == "api.github.com"]
    assert {seen.token for seen in refused} <= {PLACEHOLDER, None}
    assert "/copilot_internal/user" in {seen.path for seen in refused}
