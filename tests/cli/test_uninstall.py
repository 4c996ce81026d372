"""``uninstall``: everything of ours goes, nothing else does."""

import json
import sys

import pytest

from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
from support.machine import machine, made_ca  # noqa: F401 - fixtures


@pytest.fixture
def used(machine, made_ca, monkeypatch):  # noqa: F811 - fixtures
    """A machine with an account, settings, a set-up client and a service."""
    monkeypatch.setattr(sys, "platform", "linux")
    machine.with_ca(made_ca)
    machine.add("Work", "work")
    machine.env.paths.config.mkdir()
    (machine.env.paths.config / "config.toml").write_text('strategy = "quota"\n')
    auth = machine.home / ".local/share/opencode/auth.json"
    auth.parent.mkdir(parents=True)
    auth.write_text('{"anthropic": {}}')
    machine.run("setup", "opencode")
    machine.run("service", "install")
    machine.service = machine.home / ".config/systemd/user/copilot-balancer.service"
    machine.auth = auth
    return machine


def everything(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_dry_run(used):
    """A dry run shows the set-up, the service, both folders and where to revoke tokens, and changes nothing."""
    before = everything(used.home)
    told = " ".join(used.run("uninstall", "--dry-run").stdout.split())
    for what in (used.auth, used.service, used.env.paths.state, used.env.paths.config):
        assert str(what) in told
    assert "https://github.com/settings/applications" in told
    assert everything(used.home) == before


def test_uninstall(used):
    """The client's file is as before; service, accounts, CA, logs and settings are gone, and with them our folders."""
    used.run("uninstall", "--yes")
    assert json.loads(used.auth.read_text()) == {"anthropic": {}}
    assert not used.service.exists()
    assert not used.env.paths.state.exists()
    assert not used.env.paths.config.exists()
    assert "Nothing is stored" in used.run("uninstall", "--yes").stdout


def test_what_is_not_ours_stays(used):
    """A file with a name that is not ours stays, with its folder, and is named."""
    theirs = [used.env.paths.state / "notes.txt", used.env.paths.config / "mine" / "x"]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    told = used.run("uninstall", "--yes").output
    assert [path.read_text() for path in theirs] == ["x", "x"]
    assert "notes.txt" in told
    assert not used.env.store.accounts_path.exists()


def test_a_set_up_that_cannot_be_undone(used):
    """Where a client's file cannot be given back, its old content is not deleted either, and nothing else is."""
    used.auth.write_text("{}")
    before = everything(used.home)
    assert "does not hold the placeholder any more" in used.refused("uninstall", "--yes")
    assert everything(used.home) == before


def test_while_a_proxy_runs(used):
    """A running proxy would write its files again: it is named, and nothing is removed."""
    file = RunningProxyFile(used.env.paths.state)
    file.write(RunningProxy(7, 0.0, ("127.0.0.1:8080",), "1"))
    try:
        assert "a proxy is running (process 7)" in used.refused("uninstall", "--yes")
    finally:
        file.close()
    assert used.env.store.accounts_path.exists()


def test_not_a_terminal(used):
    """Without a terminal and without --yes nothing is removed."""
    assert "pass --yes" in used.refused("uninstall")
    assert used.env.store.accounts_path.exists()
