"""``service``: the file that lets a system run the proxy."""

import os
import plistlib
import shutil
import subprocess
import sys

import pytest

from copilot_balancer.cli.service import launchd_agent, systemd_unit
from support.machine import machine  # noqa: F401 - a fixture

PATHS = {
    "linux": ".config/systemd/user/copilot-balancer.service",
    "darwin": "Library/LaunchAgents/copilot-balancer.plist",
}
ODD = {"COPILOT_BALANCER_HOME": '/home/a "b" %h $x\\y'}


@pytest.fixture(params=list(PATHS))
def system(request, monkeypatch):
    monkeypatch.setattr(sys, "platform", request.param)
    return request.param


def test_there_and_back(machine, system):  # noqa: F811 - a fixture
    """The file is shown, written, found again, and deleted; nothing is started, and a dry run writes nothing."""
    path = machine.home / PATHS[system]
    dry = machine.run("service", "install", "--dry-run").stdout
    assert dry.startswith(f"Would write {path}:")
    assert not path.exists()

    result = machine.run("service", "install", "--port", "9001")
    shown = [line.strip() for line in result.stdout.splitlines()]
    assert all(line.strip() in shown for line in path.read_text().splitlines())
    assert "Start it, now and at each login:" in result.stdout
    assert ("next login" in result.stderr) is (system == "darwin")
    assert "9001" in path.read_text()
    assert "is there already" in machine.run("service", "install", "--port", "9001").stdout
    machine.run("service", "install")
    assert "8080" in path.read_text()

    assert machine.run("service", "remove", "--dry-run").stdout.startswith(f"Would delete {path}.")
    assert path.exists()
    assert machine.run("service", "remove").stdout.startswith(f"Deleted {path}.")
    assert not path.exists()
    assert machine.run("service", "remove").stdout == f"There is no {path}.\n"


def test_no_secret(machine, system):  # noqa: F811 - a fixture
    """Of the environment only what names our folders is written down."""
    machine.environ.update(GH_TOKEN="gho_Canary", XDG_STATE_HOME="/s", HTTPS_PROXY="http://u:p@corp")
    machine.run("service", "install")
    written = (machine.home / PATHS[system]).read_text()
    assert "COPILOT_BALANCER_HOME" in written
    assert "XDG_STATE_HOME" in written
    assert "corp" not in written


def test_a_file_of_somebody_else(machine, system):  # noqa: F811 - a fixture
    """A file of this name that we did not write is neither replaced nor deleted."""
    path = machine.home / PATHS[system]
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for verb in ("install", "remove"):
        assert "was not written by copilot-balancer" in machine.refused("service", verb)
    assert path.read_text() == "mine"


def test_what_cannot_be_written(machine, system):  # noqa: F811 - a fixture
    """A folder that is none is one sentence."""
    path = machine.home / PATHS[system]
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("a file")
    assert "cannot be read: Not a directory" in machine.refused("service", "remove")
    path.parent.unlink()
    path.mkdir(parents=True)
    assert "cannot be read: Is a directory" in machine.refused("service", "install")


def test_a_disk_that_refuses(machine, system, monkeypatch):  # noqa: F811 - a fixture
    """A file that cannot be written is one sentence."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "cannot be written: No space left on device" in machine.refused("service", "install")


def test_another_system(machine, monkeypatch):  # noqa: F811 - a fixture
    """Where there is neither, it is told what to do."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Task Scheduler" in machine.refused("service", "install")


def test_the_plist(machine):  # noqa: F811 - a fixture
    """launchd gets the command, the limits and a log; the file is a property list."""
    made = launchd_agent(machine.env, ["/a b/copilot-balancer", "run"], ODD)
    found = plistlib.loads(made.content.encode())
    assert found["ProgramArguments"] == ["/a b/copilot-balancer", "run"]
    assert found["EnvironmentVariables"] == ODD
    assert found["SoftResourceLimits"]["NumberOfFiles"] == 65_536
    assert found["KeepAlive"] == {"SuccessfulExit": False}


def test_the_unit(machine):  # noqa: F811 - a fixture
    """systemd gets the command, the limits and no specifier or variable by accident."""
    made = systemd_unit(machine.env, ["/a b/%h/$x", "run"], ODD)
    assert 'ExecStart="/a b/%%h/$$x" "run"' in made.content
    assert 'Environment="COPILOT_BALANCER_HOME=/home/a \\"b\\" %%h $x\\\\y"' in made.content
    assert "LimitNOFILE=65536" in made.content


def test_the_unit_as_systemd_reads_it(machine, tmp_path):  # noqa: F811 - a fixture
    """systemd finds nothing to complain about."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    (tmp_path / "run").mkdir(mode=0o700)
    made = systemd_unit(machine.env, ["/bin/true", "a b", "%h", "$x"], ODD)
    unit = tmp_path / "copilot-balancer.service"
    unit.write_text(made.content)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    ran = subprocess.run([program, "verify", "--user", unit], env=environ, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
