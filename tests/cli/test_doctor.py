"""``doctor``: each thing that can be wrong is found, and told with what to do."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from importlib import metadata

import pytest

from copilot_balancer import __version__
from copilot_balancer.cli import doctor
from copilot_balancer.cli.clients import doctor as doctor_clients
from copilot_balancer.cli.clients.doctor import Case, Finding, State
from copilot_balancer.cli.clients.local_proxy import Listener, usual_authority
from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.https import Response
from copilot_balancer.rules.state import AccountState, Cooldown, Memory
from support.faults import Faults
from support.machine import machine, made_ca  # noqa: F401 - fixtures
from support.proxies import free_port

HOUR = 3600.0


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def quick(monkeypatch):
    """The check that starts Python is told by itself below."""
    monkeypatch.setattr(doctor, "CHECKS", tuple(check for check in doctor.CHECKS if check != doctor._addon))


@pytest.fixture
def sound(machine, made_ca, quick, monkeypatch):  # noqa: F811 - fixtures
    """A machine on which nothing is wrong."""
    machine.with_ca(made_ca)
    machine.add("Work", "work", "--no-verify")
    monkeypatch.setattr(doctor_clients, "SYSTEM_BUNDLES", ())
    return machine


def look(machine, port, *options) -> list[Finding]:  # noqa: F811 - a parameter
    """What doctor finds; the exit code says whether there is a problem."""
    asked = ("doctor", "--port", str(port), "--json", *options)
    found = [
        Finding(**{**facts, "state": State(facts["state"])})
        for facts in json.loads(machine.run(*asked, exit_code=None).stdout)["findings"]
    ]
    broken = any(finding.state is State.PROBLEM for finding in found)
    assert machine.run(*asked, exit_code=int(broken)).stdout
    return found


def wrong(machine, port, *options) -> list[Finding]:  # noqa: F811 - a parameter
    """What is not as it should be."""
    found = [finding for finding in look(machine, port, *options) if finding.state is not State.OK]
    assert all(finding.remedy for finding in found), "whatever is wrong has a remedy"
    return found


# --- how it is told


def test_all_is_well(sound, port):
    """On a sound machine each check has its line, nothing is wrong, and the exit code is 0."""
    assert wrong(sound, port) == []
    told = sound.run("doctor", "--port", str(port)).stdout
    for check in (
        "Python",
        "mitmproxy",
        "store",
        "settings",
        "account work",
        "terms",
        "CA",
        "proxy",
        "HTTPS_PROXY",
        "NO_PROXY",
        "clock",
    ):
        assert any(line.startswith(f"ok       {check} ") for line in told.splitlines()), check
    assert told.endswith("\nno problems, no warnings.\n")
    assert sound.asked == [], "without --online nobody is asked"


def test_a_problem(sound, port):
    """A problem is one line, its remedy follows, they are counted, and the exit code is 1."""
    sound.environ.update(SSLKEYLOGFILE="/tmp/keys", HTTPS_PROXY="http://corp:3128")
    told = sound.run("doctor", "--port", str(port), exit_code=1).stdout
    lines = told.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("problem  SSLKEYLOGFILE"))
    assert lines[at + 2].strip() == "-> `unset SSLKEYLOGFILE`"
    assert lines[-1] == "1 problem, 1 warning."
    assert all(len(line) <= 80 for line in lines if "/" not in line)


@pytest.mark.parametrize("plain", [False, True])
def test_colours(sound, port, plain, monkeypatch):
    """At a terminal the first word is coloured, unless NO_COLOR asks for none."""
    from click.testing import CliRunner

    from copilot_balancer.cli.main import cli

    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    told = CliRunner().invoke(cli, ["doctor", "--port", str(port)], obj=sound.env, color=True).stdout
    assert ("\x1b[32mok     \x1b[0m" in told) is not plain


# --- programs


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("12.2.3", "ok"),
        ("12.9.0", "ok"),
        ("12.2.2", "problem"),
        ("11.1.0", "problem"),
        ("13.0.0", "problem"),
        ("13.0.0.dev1", "problem"),
    ],
)
def test_mitmproxy_versions(sound, port, monkeypatch, version, state):
    """mitmproxy older or newer than those that were tried is a problem."""
    real = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: version if name == "mitmproxy" else real(name))
    (finding,) = [finding for finding in look(sound, port) if finding.check == "mitmproxy"]
    assert finding.state == state
    assert version in finding.text


def test_mitmproxy_is_elsewhere(sound, port, monkeypatch, tmp_path):
    """mitmproxy's programs must stand beside our Python."""
    (tmp_path / "mitmdump").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (finding,) = [finding for finding in wrong(sound, port) if finding.check == "mitmproxy"]
    assert "without mitmweb and mitmproxy" in finding.text


def test_python_is_old(sound, port, monkeypatch):
    """A Python that is too old is a problem."""
    monkeypatch.setattr(sys, "version_info", (3, 11))
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == ("Python", State.PROBLEM)


def addon(machine):  # noqa: F811 - a parameter
    (finding,) = doctor._addon(Case(machine.env, 1, online=False))
    return finding


def test_the_addon_loads(sound):
    """The addon is loaded as mitmproxy would load it, and its version is told."""
    finding = addon(sound)
    assert finding.state is State.OK
    assert finding.text.startswith(f"{__version__} loads (")


@pytest.mark.parametrize(
    ("ran", "said"),
    [
        (subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: no module\n"), "ImportError: no module"),
        (subprocess.CompletedProcess([], 1, "", ""), "it does not say why"),
        (subprocess.TimeoutExpired([], 60), "not within 60 seconds"),
    ],
)
def test_the_addon_does_not_load(sound, monkeypatch, ran, said):
    """An addon that cannot be loaded is a problem, told in its last words."""

    def run(*_, **__):
        if isinstance(ran, Exception):
            raise ran
        return ran

    monkeypatch.setattr(doctor.subprocess, "run", run)
    finding = addon(sound)
    assert finding.state is State.PROBLEM
    assert said in finding.text


# --- our files


@pytest.mark.parametrize("name", ["accounts.json", "state.json"])
def test_a_store_that_others_may_read(sound, port, name):
    """A file of ours that others may read is a problem with the store's own remedy; the other checks go on."""
    sound.env.store.merge_memory(Memory(accounts={"github.com:1": AccountState(served=1)}))
    path = sound.env.paths.state / name
    path.chmod(0o644)
    found = wrong(sound, port)
    assert found[0].check == "store"
    assert found[0].remedy == f"chmod 600 {path}"
    assert len(found) == 1, "nothing else is said of what cannot be read, `accounts add` above all"


def test_names(sound, port):
    """A route that names an account that is not stored is a warning, with the nearest name."""
    label = sound.decisions.accounts[0].label
    folder = sound.env.paths.config
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'[[routes]]\nmodels = ["gpt*"]\naccounts = ["{label}", "{label}x"]\n')
    [found] = wrong(sound, port)
    assert (found.check, found.state) == ("names", State.WARNING)
    assert f"names the account {label}x, which is not stored (did you mean {label}?)" in found.text


def test_settings(sound, port):
    """A bad setting is a problem, a key that a project may not set a warning, a good one is counted."""
    folder = sound.env.paths.config
    folder.mkdir(parents=True)
    (sound.home / "project" / ".copilot-balancer.toml").write_text("wait = 3\n")
    (folder / "config.toml").write_text("wait = 5\n")
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == ("settings", State.WARNING)
    assert any(finding.text == "1 changed from the default" for finding in look(sound, port))
    (folder / "config.toml").write_text("wait = 'x'\n")
    (finding,) = wrong(sound, port)
    assert finding.state is State.PROBLEM
    assert "wait must be" in finding.text


def test_no_account(machine, quick, port, monkeypatch):  # noqa: F811 - fixtures
    """Without an account, and before the CA is made, one warning is all."""
    (finding,) = wrong(machine, port)
    assert (finding.check, finding.state, finding.text) == ("accounts", State.WARNING, "none is stored")


def remember(machine, **facts):  # noqa: F811 - a parameter
    """What the proxy learnt about the only account."""
    (account,) = machine.decisions.accounts
    state = AccountState(credential=account.fingerprint, **facts)
    machine.env.store.merge_memory(Memory(accounts={account.id: state}))


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        ({"rejected_at": 1_789_999_000.0}, State.PROBLEM, "accounts login work"),
        (
            {"cooldowns": [Cooldown(1_789_999_000.0, 1_790_000_500.0, "limit")]},
            State.WARNING,
            "ends by itself",
        ),
        ({"blocked_at": 1_789_999_000.0}, State.WARNING, "accounts enable work"),
    ],
    ids=["needs login", "rests", "blocked"],
)
def test_what_the_proxy_learnt(sound, port, facts, state, said):
    """An account that does not serve is told by the pool's own rule, with what to do."""
    remember(sound, **facts)
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == ("account work", state)
    assert said in finding.remedy


def test_terms(sound, port):
    """With a second account the terms matter, until they are accepted."""
    sound.add("Dog", "dog", "--no-verify")
    (finding,) = [finding for finding in wrong(sound, port) if finding.check == "terms"]
    assert "only work serves" in finding.text
    sound.run("terms", "accept", "--yes")
    assert wrong(sound, port) == []


def test_online(sound, port, monkeypatch):
    """--online asks GitHub whose each token is; one that it does not know is a problem."""
    monkeypatch.setattr(doctor, "Wire", lambda: Clock(sound.now))
    sound.add("Nobody", "gone", "--no-verify")
    sound.run("terms", "accept", "--yes")
    found = look(sound, port, "--online")
    assert any(finding.text == "GitHub knows it as octocat" for finding in found)
    (finding,) = [finding for finding in found if finding.state is not State.OK]
    assert (finding.check, finding.state) == ("account gone", State.PROBLEM)
    assert "accounts login gone" in finding.remedy


# --- the CA


def test_the_ca(sound, port):
    """A key that others may read, or that is gone, is a problem with a command that repairs it."""
    sound.authority.key.chmod(0o640)
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == ("CA", State.PROBLEM)
    assert finding.remedy.startswith(f"`chmod 600 {sound.authority.key}`")
    sound.authority.key.unlink()
    (finding,) = wrong(sound, port)
    assert "cannot be looked at (No such file or directory)" in finding.text
    sound.authority.folder.chmod(0o755)
    (finding,) = wrong(sound, port)
    assert f"`chmod 700 {sound.authority.folder}`" in finding.remedy


def test_the_ca_of_somebody_else(sound, port, monkeypatch):
    """A CA that belongs to another user is a problem."""
    real = os.geteuid()
    owners = iter([real + 1])
    path = sound.authority.folder
    monkeypatch.setattr(doctor.os, "geteuid", lambda: next(owners, real))
    assert f"(owner {real})" in doctor._others_may_use(path)
    with monkeypatch.context() as patched:
        patched.setattr(doctor.os, "name", "nt")
        assert doctor._others_may_use(path) is None


# --- the environment


@pytest.mark.parametrize(
    ("environ", "check", "state"),
    [
        ({"HTTPS_PROXY": "http://corp:3128"}, "HTTPS_PROXY", State.WARNING),
        ({"HTTPS_PROXY": "http://127.0.0.1:1"}, "HTTPS_PROXY", State.WARNING),
        ({"HTTPS_PROXY": "http://127.0.0.1:PORT", "https_proxy": "http://corp"}, "HTTPS_PROXY", State.WARNING),
        ({"HTTPS_PROXY": "http://127.0.0.1:PORT", "NO_PROXY": "*"}, "NO_PROXY", State.PROBLEM),
        ({"https_proxy": "http://work@localhost:PORT/", "no_proxy": ".githubcopilot.com"}, "NO_PROXY", State.PROBLEM),
        ({"NO_PROXY": "*"}, "NO_PROXY", State.WARNING),
        ({"SSLKEYLOGFILE": "/tmp/x"}, "SSLKEYLOGFILE", State.PROBLEM),
        ({"MITMPROXY_SSLKEYLOGFILE": "/tmp/x"}, "MITMPROXY_SSLKEYLOGFILE", State.PROBLEM),
        ({"NODE_TLS_REJECT_UNAUTHORIZED": "0"}, "NODE_TLS_REJECT_UNAUTHORIZED", State.WARNING),
    ],
)
def test_the_environment(sound, port, environ, check, state):
    """What a shell's environment does to the proxy is found."""
    sound.environ.update({name: value.replace("PORT", str(port)) for name, value in environ.items()})
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == (check, state)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "found opencode, curl; `copilot-balancer exec` sets what they need"),
        ({"NODE_EXTRA_CA_CERTS": "CA"}, "trust the proxy's CA: opencode (NODE_EXTRA_CA_CERTS)"),
        ({"HTTPS_PROXY": "HERE"}, "do not trust its CA: opencode, curl"),
        ({"HTTPS_PROXY": "HERE", "NODE_EXTRA_CA_CERTS": "CA"}, "do not trust its CA: curl"),
    ],
    ids=["nothing", "trusts", "blind", "one of two"],
)
def test_clients(sound, port, environ, said):
    """A client that uses the proxy without trusting its CA is a problem; one that does neither is none."""
    sound.install("opencode")
    sound.install("curl")
    words = {"CA": str(sound.authority.certificate), "HERE": f"http://127.0.0.1:{port}"}
    sound.environ.update({name: words[value] for name, value in environ.items()})
    texts = [finding.text for finding in look(sound, port) if finding.check == "clients"]
    assert any(said in text for text in texts), texts
    assert any(finding.state is State.PROBLEM for finding in look(sound, port)) is ("HTTPS_PROXY" in environ)


def test_trusted_by_the_system(sound, port, monkeypatch):
    """A CA in the system's store is told as more than is needed; what takes the store's place hides it again."""
    sound.install("curl")
    monkeypatch.setattr(doctor_clients, "SYSTEM_BUNDLES", (str(sound.authority.certificate),))
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == ("system trust", State.WARNING)
    assert any(finding.text == "trust the proxy's CA: curl (by the system)" for finding in look(sound, port))
    other = sound.home / "other.pem"
    other.write_text("")
    sound.environ["CURL_CA_BUNDLE"] = str(other)
    assert any(finding.text.startswith("found curl") for finding in look(sound, port))


# --- who listens


def test_another_program(sound):
    """Another program on the port is a warning, with another port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = server.getsockname()[1]
        (finding,) = wrong(sound, at)
    assert finding.text == f"another program listens on 127.0.0.1:{at}"
    assert f"--port {at + 1}" in finding.remedy


def test_our_proxy(sound, monkeypatch):
    """A proxy of ours is fine, unless it can be reached from elsewhere."""
    monkeypatch.setattr(doctor, "listener", lambda _port, _authority: Listener.OURS)
    monkeypatch.setattr(doctor, "open_addresses", lambda _port: [])
    assert wrong(sound, 8080) == []
    monkeypatch.setattr(doctor, "open_addresses", lambda _port: ["0.0.0.0"])
    (finding,) = wrong(sound, 8080)
    assert (finding.state, finding.text) == (State.PROBLEM, "listens on 0.0.0.0, not on loopback alone")


def test_a_proxy_by_hand(sound, monkeypatch):
    """Whether a mitmproxy that was started by hand has the addon cannot be seen, and that is said."""
    by_hand = usual_authority(sound.home)
    shutil.copytree(sound.authority.folder, by_hand.folder)
    monkeypatch.setattr(
        doctor, "listener", lambda _port, authority: Listener.OURS if authority == by_hand else Listener.ANOTHER
    )
    (finding,) = wrong(sound, 8080)
    assert "started by hand" in finding.text


# --- the clock


class Clock:
    """Answers with a time, or with something else."""

    def __init__(self, at) -> None:
        self.at = at

    def ask(self, question):
        assert question.url == "https://api.github.com/zen"
        assert question.token is None
        if isinstance(self.at, Exception):
            raise self.at
        date = {"date": format_datetime(datetime.fromtimestamp(self.at, UTC), usegmt=True)} if self.at else {}
        return Response("api.github.com", 200, date, b"")


@pytest.mark.parametrize(
    ("ahead", "state", "said"),
    [
        (0.0, State.OK, "0 s behind GitHub's"),
        (59.0, State.OK, "59 s ahead of GitHub's"),
        (-61.0, State.WARNING, "61 s behind"),
        (HOUR, State.PROBLEM, "3600 s ahead of"),
    ],
)
def test_the_clock_online(sound, port, monkeypatch, ahead, state, said):
    """How far the clock is from GitHub's decides."""
    monkeypatch.setattr(doctor, "Wire", lambda: Clock(sound.now - ahead))
    (finding,) = [finding for finding in look(sound, port, "--online") if finding.check == "clock"]
    assert finding.state is state
    assert said in finding.text


@pytest.mark.parametrize("at", [None, UpstreamError("api.github.com cannot be reached")])
def test_the_clock_cannot_be_compared(sound, port, monkeypatch, at):
    """Without an answer the clock is a warning."""
    monkeypatch.setattr(doctor, "Wire", lambda: Clock(at))
    (finding,) = wrong(sound, port, "--online")
    assert (finding.check, finding.state) == ("clock", State.WARNING)


def test_the_clock_went_back(sound, port):
    """A clock before the newest account is a problem that is seen without a network."""
    sound.env = replace(sound.env, now=lambda: sound.now - HOUR)
    (finding,) = wrong(sound, port)
    assert (finding.check, finding.state) == ("clock", State.PROBLEM)


def test_nothing_is_changed(sound, port):
    """Looking changes no file; the state folder itself is tried by a file that is gone again."""

    def files():
        found = {path: path.stat().st_mtime_ns for path in sound.home.rglob("*") if path.is_file()}
        return found, {path for path in sound.home.rglob("*") if path.is_dir()}

    before = files()
    sound.run("doctor", "--port", str(port))
    assert files() == before


def test_a_disk_that_is_full(sound, port, monkeypatch):
    """A store that can be read but not written is a problem, and its remedy is told."""
    Faults(monkeypatch, "write", errno.ENOSPC)
    result = sound.run("doctor", "--port", str(port), exit_code=1)
    told = " ".join(result.stdout.split())
    assert "No space left on device" in told
    assert "free some space on this disk" in told


def test_what_may_not_be_looked_at(sound, monkeypatch):
    """A file that this user may not look at is a finding with its path, and the other checks go on."""

    def _certificate(_case):
        raise PermissionError(13, "Permission denied", "/somewhere/ca.pem")
        yield

    others = [check for check in doctor.CHECKS if check.__name__ != "_certificate"]
    monkeypatch.setattr(doctor, "CHECKS", (_certificate, *others))
    result = sound.run("doctor", "--json", exit_code=1)
    found = json.loads(result.stdout)["findings"]
    assert found[0]["text"] == "/somewhere/ca.pem: looking at it failed (Permission denied)"
    assert len(found) > len(others) / 2
