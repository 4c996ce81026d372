"""``run``, ``web``, ``console``, ``env`` and ``exec``: what is started, with what, and what becomes of it."""

import json
import os
import pty
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from copilot_balancer.cli import run
from copilot_balancer.cli.clients.local_proxy import Listener, listener, own_authority, start, usual_authority
from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.fake.answers import limited
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.store.store import Store, paths
from end_to_end.test_secrets import leaks
from support.machine import machine, made_ca  # noqa: F401 - fixtures
from support.proxies import PERSONAL, SUPPORT, WORK, free_port, three_accounts, until

PROGRAM = [sys.executable, "-c", "from copilot_balancer.cli.main import main; main()"]
NAMES = ["bash", "zsh", "fish"]


@pytest.fixture
def ready(machine, made_ca):  # noqa: F811 - fixtures
    """A machine with a CA, and nobody on port 8080."""
    return machine.with_ca(made_ca)


@pytest.fixture
def port():
    """A port that is free."""
    return free_port()


# --- run, web, console


@pytest.fixture
def became(monkeypatch):
    """What the command line would have become."""
    found = []
    monkeypatch.setattr(run, "become", lambda arguments, environ: found.append((arguments, dict(environ))))
    return found


@pytest.mark.parametrize(
    ("verb", "tool", "hint"), [("run", "mitmdump", True), ("web", "mitmweb", True), ("console", "mitmproxy", False)]
)
def test_run(ready, became, port, verb, tool, hint):
    """Each verb becomes its own program on loopback, with the addon, our CA, and whatever else was said."""
    told = ready.run(verb, "--port", str(port), "--set", "copilot_log=errors", "--", "-q").stderr
    ((arguments, environ),) = became
    assert Path(arguments[0]).name == tool
    assert arguments[arguments.index("--listen-host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--listen-port") + 1] == str(port)
    assert f"confdir={ready.authority.folder}" in arguments
    assert arguments[-3:] == ["--set", "copilot_log=errors", "-q"]
    assert environ == {**ready.environ, "PYTHONUNBUFFERED": "1"}
    ready.run(verb, "--port", str(port), "--verbose")
    assert became[1][1]["COPILOT_BALANCER_VERBOSE"]
    assert (f"copilot-balancer exec --port {port} -- opencode" in told) is hint


def test_run_makes_the_folder(machine, became, port):  # noqa: F811 - a fixture
    """The CA's folder is made before mitmproxy would make it for everybody."""
    machine.run("run", "--port", str(port))
    assert machine.authority.folder.stat().st_mode & 0o777 == 0o700
    assert became


@pytest.mark.parametrize(
    ("arguments", "config", "said"),
    [
        (("--set", "copilot_max_attempts=0"), "", "--set copilot_max_attempts must be a whole number from 1 to 10"),
        (("--set=copilot_nonsense=1",), "", "--set: 'copilot_nonsense' is not a setting"),
        (
            ("--set", "copilot_failover=limit", "--set", "copilot_failover=x"),
            "",
            "--set copilot_failover must be a list",
        ),
        ((), "deadline = -1\n", "deadline must be a number of seconds"),
    ],
)
def test_bad_settings_are_said_first(machine, became, port, arguments, config, said):  # noqa: F811 - a fixture
    """On bad settings nothing is announced, made or started before the error."""
    machine.env.paths.config.mkdir(parents=True)
    (machine.env.paths.config / "config.toml").write_text(config)
    result = machine.run("run", "--port", str(port), *arguments, exit_code=1)
    assert result.stdout == ""
    assert said in result.stderr
    assert "Point a client" not in result.stderr
    assert became == []
    assert not machine.authority.folder.exists()


def test_another_program_has_the_port(ready, became):
    """Where another program listens, nothing is started, and another port is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = server.getsockname()[1]
        assert ready.refused("run", "--port", str(at)).startswith(f"another program listens on 127.0.0.1:{at}")
    assert became == []


def test_our_own_proxy_has_the_port(ready, became, monkeypatch):
    """Where a proxy of ours, or one that was started by hand, runs already, that is said."""
    by_hand = usual_authority(ready.home)
    shutil.copytree(ready.authority.folder, by_hand.folder)
    for running, said in ((ready.authority, "a proxy of yours"), (by_hand, "a mitmproxy of yours")):
        monkeypatch.setattr(
            run, "listener", lambda _, asked, has=running: Listener.OURS if asked == has else Listener.ANOTHER
        )
        assert ready.refused("web").startswith(f"{said} runs on 127.0.0.1:8080 already")
    assert became == []


def test_become(tmp_path):
    """To become a program is to be replaced by it: the same process, its signals, its exit code."""
    script = (
        "import os; from copilot_balancer.cli.run import become; print(os.getpid(), flush=True); "
        "become(['/bin/sh', '-c', 'echo $$ $A; kill -TERM $$'], {'A': 'b'})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    ours, theirs = ran.stdout.split(maxsplit=1)
    assert theirs == f"{ours} b\n"
    assert ran.returncode == -signal.SIGTERM


def test_become_on_windows(monkeypatch):
    """Where a process cannot be replaced, the program's exit code becomes ours."""
    with monkeypatch.context() as patched:
        patched.setattr(run.os, "name", "nt")
        with pytest.raises(click.exceptions.Exit) as caught:
            run.become(["/bin/sh", "-c", "exit 5"], {})
    assert caught.value.exit_code == 5


# --- env


def test_env(ready, port):
    """By default a shell gets the proxy, what stays direct, and the CA for Node; how to use it and how to go back."""
    result = ready.run("env", "--shell", "bash", "--port", str(port))
    names = [line.removeprefix("export ").partition("=")[0] for line in result.stdout.splitlines()[:-2]]
    assert names == ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "NODE_EXTRA_CA_CERTS"]
    use, back = result.stdout.splitlines()[-2:]
    assert use == f'# for this shell:  eval "$(copilot-balancer env --port {port})"'
    assert back == f"# and back:        unset {' '.join(names)}"
    assert (
        result.stderr
        == f"note: no proxy of yours runs on 127.0.0.1:{port} yet:\n      `copilot-balancer run --port {port}`\n"
    )


def test_env_makes_the_ca(machine, port):  # noqa: F811 - a fixture
    """The file that the environment names is there, even when no proxy ever ran."""
    found = json.loads(machine.run("env", "--json", "--port", str(port)).stdout)
    assert Path(found["NODE_EXTRA_CA_CERTS"]).is_file()


VALUES = {
    "SIMPLE": "a",
    "SPACE": "a b",
    "QUOTES": 'it\'s "so" `x` $HOME \\ ! %',
    "NEWLINE": "a\nb",
    "EMPTY": "",
    "NON": "ä…",
}


@pytest.mark.parametrize("shell", NAMES)
def test_quoting(shell):
    """In each shell every value arrives as it was, and the way back gives what was before."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    before = {"PATH": os.environ["PATH"], "SPACE": "it's old", "NEWLINE": "x"}
    script = run._script(VALUES, before, shell, "copilot-balancer env")
    back = script.rpartition("# and back:")[2].strip()
    show = f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    ran = subprocess.run(
        [program], input=f"{script}\n{show}\n{back}\n{show}\n", env=before, capture_output=True, text=True
    )
    there, gone = map(json.loads, ran.stdout.splitlines())
    assert ran.stderr == ""
    assert {name: there[name] for name in VALUES} == VALUES
    assert {name: gone.get(name) for name in VALUES} == {name: before.get(name) for name in VALUES}


def test_quoting_in_powershell():
    """PowerShell gets single quotes, doubled inside (about_Quoting_Rules); not run here."""
    script = run._script({"A": "it's $x"}, {}, "powershell", "copilot-balancer env")
    assert script.splitlines()[0] == "$env:A = 'it''s $x'"
    assert "Out-String | Invoke-Expression" in script
    assert script.endswith("Remove-Item Env:A")


@pytest.mark.parametrize("shell", NAMES)
def test_env_is_used_as_it_says(ready, port, shell):
    """The line that the comment names works in a real shell."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    ready.install("copilot-balancer", f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    environ = {
        **ready.environ,
        "PATH": f"{ready.home / 'bin'}:{os.environ['PATH']}",
        "HOME": str(ready.home),
        "SHELL": program,
    }
    told = ready.run("env", "--shell", shell, "--port", str(port)).stdout
    (use,) = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("# for this shell")]
    ran = subprocess.run(
        [program], input=f"{use}\necho $HTTPS_PROXY $NODE_EXTRA_CA_CERTS\n", env=environ, capture_output=True, text=True
    )
    assert ran.stdout == f"http://127.0.0.1:{port} {ready.authority.certificate}\n"


@pytest.mark.parametrize(
    ("shell", "found"), [("/usr/bin/fish", "set -gx"), ("/bin/zsh", "export"), ("/bin/tcsh", "export"), ("", "export")]
)
def test_env_knows_the_shell(ready, port, shell, found):
    """The shell is the user's own; an unknown one gets the words of bash."""
    ready.environ["SHELL"] = shell
    assert ready.run("env", "--port", str(port)).stdout.startswith(found)


def test_env_for_a_client(ready, port):
    """A client gets what it needs and, where it holds no login, the placeholder."""
    found = json.loads(ready.run("env", "--client", "copilot-cli", "--json", "--port", str(port)).stdout)
    assert found["COPILOT_GITHUB_TOKEN"] == PLACEHOLDER
    assert found["COPILOT_API_URL"] == "https://api.githubcopilot.com"
    ready.environ["GH_TOKEN"] = "gho_theirs"
    found = json.loads(ready.run("env", "--client", "copilot-cli", "--json", "--port", str(port)).stdout)
    assert "COPILOT_GITHUB_TOKEN" not in found
    assert "gho_theirs" not in json.dumps(found)


def test_env_for_a_client_that_needs_more(ready, port):
    """What a client needs besides its environment is told, where no shell reads it."""
    result = ready.run("env", "--client", "node", "--port", str(port))
    assert "--proxy-env" in result.stderr
    assert "--proxy-env" not in result.stdout


def test_env_beside_a_proxy_by_hand(ready, port, monkeypatch):
    """For a proxy that was started by hand the CA that is named is that proxy's."""
    by_hand = usual_authority(ready.home)
    shutil.copytree(ready.authority.folder, by_hand.folder)
    monkeypatch.setattr(
        run, "listener", lambda _port, authority: Listener.OURS if authority == by_hand else Listener.ANOTHER
    )
    result = ready.run("env", "--json")
    assert json.loads(result.stdout)["NODE_EXTRA_CA_CERTS"] == str(by_hand.certificate)
    assert result.stderr == ""


def test_a_proxy_user(ready, port):
    """A fence or an account that is to serve alone stands in the proxy's URL; one that nobody has is refused."""
    ready.add("Work", "work", "--no-verify")
    found = json.loads(ready.run("env", "--as", "work", "--json", "--port", str(port)).stdout)
    assert found["HTTPS_PROXY"] == f"http://work:x@127.0.0.1:{port}"
    assert (
        ready.refused("env", "--as", "wrok") == "--as: no fence or account is named 'wrok' (there are: default, work)"
    )
    assert "--as work" in ready.run("env", "--as", "work", "--port", str(port)).stdout


def test_enterprise_hosts_are_not_kept_direct(ready, port):
    """NO_PROXY keeps what the user wrote, without what would let an Enterprise host pass the proxy by."""
    folder = ready.env.paths.config
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('hosts = ["acme.ghe.com"]\n')
    ready.environ["NO_PROXY"] = "intra.test,.acme.ghe.com"
    found = json.loads(ready.run("env", "--json", "--port", str(port)).stdout)
    assert found["NO_PROXY"] == "localhost,127.0.0.1,::1,intra.test"


# --- exec: what it refuses


def test_exec_without_a_program(ready):
    """A program that is not there is one sentence."""
    assert ready.refused("exec", "--", "nothing") == "there is no program 'nothing' on the PATH"


def test_exec_without_an_account(ready):
    """A client that would have nothing but the placeholder needs an account."""
    ready.install("copilot")
    assert "no account is stored, and copilot has no login of its own" in ready.refused("exec", "copilot")


def test_exec_opencode_with_other_logins(ready):
    """opencode's other logins would be hidden by a placeholder in its environment, so it is set up first."""
    ready.install("opencode")
    path = ready.home / ".local/share/opencode/auth.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"anthropic": {"type": "api", "key": "Canary"}}')
    assert "`copilot-balancer setup opencode`" in ready.refused("exec", "opencode")


@pytest.fixture
def no_proxy(monkeypatch):
    """exec believes that a proxy of ours runs."""
    monkeypatch.setattr(run, "listener", lambda _port, _authority: Listener.OURS)


@pytest.mark.parametrize(
    ("name", "file", "environ", "placeholder"),
    [
        ("opencode", None, {}, True),
        ("opencode", "{}", {}, True),
        ("opencode", json.dumps({"github-copilot": {"refresh": PLACEHOLDER}, "x": {}}), {}, False),
        ("opencode", json.dumps({"github-copilot": {"refresh": "gho_Canary"}}), {}, False),
        ("opencode", None, {"OPENCODE_AUTH_CONTENT": "{}"}, False),
        ("copilot", None, {}, True),
        ("copilot", None, {"COPILOT_GITHUB_TOKEN": "gho_x"}, False),
        ("curl", None, {}, False),
        ("sh", None, {}, False),
    ],
)
def test_who_gets_the_placeholder(ready, no_proxy, name, file, environ, placeholder):
    """The placeholder is for clients that hold no login and can be told one by their environment."""
    ready.add("Work", "work", "--no-verify")
    ready.environ.update(environ)
    out = ready.home / "out.json"
    ready.install(
        name, f"#!{sys.executable}\nimport json, os\nopen({str(out)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
    )
    if file is not None:
        path = ready.home / ".local/share/opencode/auth.json"
        path.parent.mkdir(parents=True)
        path.write_text(file)
    ready.run("exec", name)
    found = json.loads(out.read_text())
    assert (PLACEHOLDER in json.dumps(found)) is placeholder
    assert found["HTTPS_PROXY"] == "http://127.0.0.1:8080"
    assert "Canary" not in out.read_text()


def test_exec_for_a_client_by_another_name(ready, no_proxy):
    """A client that is started by another program is named."""
    ready.add("Work", "work", "--no-verify")
    out = ready.home / "out"
    ready.install("wrapper", f'#!/bin/sh\necho "$COPILOT_GITHUB_TOKEN" > {out}\n')
    ready.run("exec", "--client", "copilot-cli", "wrapper")
    assert out.read_text().strip() == PLACEHOLDER


def test_exec_a_program_that_cannot_be_run(ready, no_proxy):
    """A program that the system does not run is one sentence."""
    ready.install("broken", "#!/no/such/interpreter\n")
    assert "cannot be run: No such file or directory" in ready.refused("exec", "broken")


@pytest.mark.parametrize("arguments", [("--proxy-args", "'open"), ("--as", "nobody")])
def test_exec_with_wrong_options(ready, arguments):
    """Wrong options are told before anything is started."""
    ready.install("true")
    assert ready.refused("exec", *arguments, "--", "true").startswith(arguments[0])


def test_exec_tells_a_proxy_that_does_not_start(ready):
    """Why the proxy did not start is told, with its log; the client is not run."""
    ready.install("client", f"#!/bin/sh\ntouch {ready.home / 'ran'}\n")
    told = ready.refused("exec", "--proxy-args", "--set copilot_wait=x", "--", "client")
    assert told.startswith("the proxy did not start: ")
    assert "copilot_wait must be" in told
    log = told.partition("(its log: ")[2].removesuffix(")")
    assert Path(log).parent == ready.env.paths.state / "logs"
    assert not (ready.home / "ran").exists()


def test_exec_beside_a_company_s_proxy(ready, monkeypatch):
    """A proxy that the user's network needs is not used by ours unasked: that is said, without its password."""
    ready.install("client")
    ready.environ["HTTPS_PROXY"] = "http://me:secret@corp:3128"
    monkeypatch.setattr(run, "listener", lambda _port, _authority: Listener.NOBODY)
    told = ready.run("exec", "client").stderr
    assert "HTTPS_PROXY names http://...@corp:3128" in told
    assert "secret" not in told


KILL = """
import os, pathlib, signal, time
pid = int(open("pid").read())
os.kill(pid, signal.SIGTERM)
while pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
    time.sleep(0.02)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_proxy_that_ends_early(ready, monkeypatch):
    """A proxy that ended before its client is told, with its log."""
    monkeypatch.chdir(ready.home / "project")
    ready.install("client", f"#!{sys.executable}\n{KILL}")
    (ready.home / "project" / "pid.py").write_text("import os\nopen('pid', 'w').write(str(os.getpid()))\n")
    told = ready.run("exec", "--proxy-args", "-s pid.py", "client").stderr
    assert "the proxy ended before the client did (exit code 0); its log:" in told.replace("\n      ", " ")


# --- exec, end to end: the program itself, a real proxy, the embedded fake

ASK = """
import sys, json, httpx
answer = httpx.post(
    "https://api.githubcopilot.com/chat/completions",
    headers={"authorization": "Bearer " + sys.argv[1]},
    json={"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
)
print(answer.status_code, answer.headers["x-copilot-account"], "Hello" in answer.text)
"""


@pytest.fixture
def home(tmp_path, made_ca, fake):  # noqa: F811 - fixtures
    """The environment of an empty home with three accounts, and what leads a proxy to the fake."""
    user = tmp_path / "user"
    user.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(user),
        "COPILOT_BALANCER_HOME": str(tmp_path / "ours"),
        "FAKE_PORT": str(fake.port),
        "TO_FAKE": f"-s {SUPPORT / 'dial_fake.py'} --set ssl_verify_upstream_trusted_ca={fake.ca_file}",
    }
    authority = own_authority(paths(environ).state)
    authority.prepare()
    shutil.copytree(made_ca, authority.folder, dirs_exist_ok=True)
    decisions = Decisions(accounts=three_accounts(), terms_accepted_at=1.0)
    Store(paths(environ).state).edit_decisions(lambda _: decisions)
    return environ


def execute(home, *arguments, own=True, **more):
    """``copilot-balancer exec -- ARGUMENTS``, with a proxy of its own in front of the fake."""
    proxy = ["--proxy-args", home["TO_FAKE"]] if own else []
    return subprocess.run(
        [*PROGRAM, "exec", *proxy, "--", *arguments], env=home, capture_output=True, text=True, timeout=60, **more
    )


def proxies(home) -> list[Path]:
    """The logs of the proxies that were started."""
    return sorted((Path(home["COPILOT_BALANCER_HOME"]) / "state" / "logs").glob("*.log"))


def ended(log: Path) -> bool:
    """Whether the proxy of this log is gone."""
    (line,) = [line for line in log.read_text().splitlines() if "copilot: ready on" in line]
    port = int(line.partition("127.0.0.1:")[2].partition(";")[0])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_exec_end_to_end(home, fake):
    """A plain client with the placeholder is answered, by another account; its proxy comes and goes with it."""
    fake.accounts[WORK].default = limited(30)
    ran = execute(home, sys.executable, "-c", ASK, PLACEHOLDER)
    assert (ran.returncode, ran.stdout.split()[0], ran.stdout.split()[2]) == (0, "200", "True"), ran
    assert ran.stdout.split()[1] in ("personal", "spare")
    assert ran.stderr == ""
    assert fake.asked()[0].account == "work"
    (log,) = proxies(home)
    assert ended(log)
    assert leaks(Path(home["COPILOT_BALANCER_HOME"])) == []


def test_uninstall_knows_what_a_proxy_writes(home, fake):
    """After a real proxy has run, uninstall leaves none of its files."""
    assert execute(home, sys.executable, "-c", ASK, PLACEHOLDER).returncode == 0
    ran = subprocess.run([*PROGRAM, "uninstall", "--yes"], env=home, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not paths(home).state.exists()


def test_exec_keeps_a_fence(home, fake):
    """With --as only that account serves, for a client that reads its proxy from the environment as urllib does."""
    asking = """
import sys, urllib.request as u, json
body = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}).encode()
head = {"authorization": "Bearer " + sys.argv[1], "content-type": "application/json"}
print(u.urlopen(u.Request("https://api.githubcopilot.com/chat/completions", body, head)).headers["x-copilot-account"])
"""
    extra = ["--as", "spare", "--proxy-args", home["TO_FAKE"]]
    for _ in range(2):
        ran = subprocess.run(
            [*PROGRAM, "exec", *extra, "--", sys.executable, "-c", asking, PLACEHOLDER],
            env=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.stdout == "spare\n", ran
    assert {seen.account for seen in fake.asked()} == {"spare"}


def test_exec_uses_a_proxy_that_runs(home, fake, tmp_path):
    """Where a proxy of ours runs on the port, it is used, and goes on afterwards."""
    where = paths(home).state
    started = start(own_authority(where), tmp_path / "other logs", home, shlex.split(home["TO_FAKE"]))
    try:
        ran = subprocess.run(
            [*PROGRAM, "exec", "--port", str(started.port), "--", sys.executable, "-c", ASK, PLACEHOLDER],
            env=home, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.stdout.startswith("200 "), ran
        assert proxies(home) == []
        assert listener(started.port, own_authority(where)) is Listener.OURS
    finally:
        started.stop()


def test_exec_touches_nothing_else(home):
    """What the client reads and prints is its own; so is its exit code."""
    script = "import sys; sys.stdout.write(sys.stdin.read().upper()); print('oh', file=sys.stderr); sys.exit(7)"
    ran = execute(home, sys.executable, "-c", script, input="a\x00b\n")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("A\x00B\n", "oh\n", 7)


def test_exec_tells_no_token(home):
    """No account's token is in the client's environment, in its arguments, or in those of the proxy."""
    script = """
import os, pathlib
print(dict(os.environ))
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if os.stat(process).st_uid == os.getuid():
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            print(told.replace(b"\\0", b" ") if b"COPILOT_BALANCER_HOME" in told else "")
    except OSError:
        pass
"""
    ran = execute(home, sys.executable, "-c", script)
    assert "HTTPS_PROXY" in ran.stdout
    if sys.platform == "linux":
        assert "mitmdump" in ran.stdout
    assert not any(token in ran.stdout for token in (WORK, PERSONAL))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name)
def test_signals_are_passed_on(home, tmp_path, number):
    """A signal that reaches exec reaches the client; what the client makes of it is the exit code, and the proxy ends."""
    ready = tmp_path / "ready"
    script = f"trap 'exit 9' {number.name.removeprefix('SIG')}; touch {ready}; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*PROGRAM, "exec", "--proxy-args", home["TO_FAKE"], "--", "sh", "-c", script],
        env=home, stdin=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        until(ready.exists, "the client to run")
        process.send_signal(number)
        assert process.wait(20) == 9
    (log,) = proxies(home)
    assert ended(log)


def test_a_client_that_is_killed(home):
    """A client that a signal ended is told as a shell tells it."""
    assert execute(home, "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_exec_that_is_killed(home):
    """When exec is killed with SIGKILL its client goes on, and the proxy ends when the client does."""
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    arguments = [*PROGRAM, "exec", "--proxy-args", home["TO_FAKE"], "--", sys.executable, "-c", script]
    with subprocess.Popen(arguments, env=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ran:
        assert ran.stdout.readline() == b"up\n"
        (log,) = proxies(home)
        ran.send_signal(signal.SIGKILL)
        ran.wait()
        assert not ended(log)  # the client still runs
        ran.stdin.close()  # it ends
        until(lambda: ended(log), "the end of the proxy")


def test_interrupted_before_the_client_runs(home, tmp_path):
    """A signal while the proxy starts ends exec and the proxy; the client is never run."""
    slow = tmp_path / "slow.py"
    pid, ran = tmp_path / "pid", tmp_path / "ran"
    slow.write_text(f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(0.5)\n")
    with subprocess.Popen(
        [*PROGRAM, "exec", "--proxy-args", f"-s {slow}", "--", "touch", str(ran)], env=home, start_new_session=True
    ) as process:
        until(lambda: pid.exists() and pid.read_text(), "the proxy to start")
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not ran.exists()


def test_a_terminal_is_the_client_s(home):
    """At a terminal the client has it whole, and Ctrl-C reaches it once."""
    script = (
        "import signal, sys, time; n = []; signal.signal(signal.SIGINT, lambda *_: n.append(1)); "
        "print('tty', sys.stdin.isatty(), sys.stdout.isatty(), flush=True); time.sleep(0.5); time.sleep(0.5); print('hits', len(n))"
    )
    pid, ours = pty.fork()
    if pid == 0:
        os.execve(
            PROGRAM[0], [*PROGRAM, "exec", "--proxy-args", home["TO_FAKE"], "--", sys.executable, "-c", script], home
        )
    shown = b""
    typed = False
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # Linux says EIO when the other end is closed
            break
        if not typed and b"tty True True" in shown:
            os.write(ours, b"\x03")
            typed = True
    _, status = os.waitpid(pid, 0)
    os.close(ours)
    assert b"hits 1" in shown, shown
    assert os.waitstatus_to_exitcode(status) == 0


def test_run_for_real(home, fake):
    """`copilot-balancer run` serves a client, proves itself, and ends by Ctrl-C."""
    at = free_port()
    where = paths(home).state
    with subprocess.Popen(
        [*PROGRAM, "run", "--port", str(at), *shlex.split(home["TO_FAKE"])],
        env=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        until(lambda: listener(at, own_authority(where)) is Listener.OURS, "the proxy")
        exports = json.loads(
            subprocess.run(
                [*PROGRAM, "env", "--client", "python", "--port", str(at), "--json"], env=home, capture_output=True
            ).stdout
        )
        ran = subprocess.run(
            [sys.executable, "-c", ASK, PLACEHOLDER], env={**home, **exports}, capture_output=True, text=True
        )
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=20)[0]
    assert ran.stdout.startswith("200 "), ran
    assert process.returncode == 0
    assert f"copilot-balancer exec --port {at} -- opencode" in told
    assert "copilot: gpt-4.1 <- " in told
    assert "<< 200 OK" not in told
