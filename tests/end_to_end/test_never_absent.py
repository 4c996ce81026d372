"""A real mitmdump never runs as an open proxy without the addon: wrong options end the start, a lost script stops serving."""

import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from copilot_balancer.cli.main import cli
from copilot_balancer.config import options
from copilot_balancer.store.running_proxies import read_live
from support.proxies import CLIENT, PERSONAL, ROOT, SPARE, WORK, Proxy, until

HOST = "api.githubcopilot.com"

WHOLE = [option.name for option in options() if option.kind == "int"]
SECONDS = [option.name for option in options() if option.kind == "seconds"]
CHOICES = [option.name for option in options() if option.type.startswith(("one of", "true or false", "a list of some"))]


def start_that_ends(start, *arguments, **more) -> Proxy:
    proxy = start(*arguments, wait=False, **more)
    proxy.process.wait(60)
    return proxy


@pytest.mark.parametrize(
    ("given", "named"),
    [
        *(pytest.param([f"copilot_{name}=three"], name, id=f"{name}, a word") for name in WHOLE),
        *(pytest.param([f"copilot_{name}=soon"], name, id=f"{name}, a word") for name in SECONDS),
        *(pytest.param([f"copilot_{name}=whatever"], name, id=f"{name}, no such word") for name in CHOICES),
        pytest.param(["copilot_max_attempts=3.5"], "max_attempts", id="a broken number"),
        pytest.param(["copilot_max_attempts=99"], "max_attempts", id="a number out of bounds"),
        pytest.param(["copilot_max_attempts=-1"], "max_attempts", id="a negative number"),
        pytest.param(["copilot_deadline=nan"], "deadline", id="seconds that are no number"),
        pytest.param(["copilot_deadline=inf"], "deadline", id="seconds without end"),
        pytest.param(["copilot_max_attempts="], "max_attempts", id="nothing"),
        pytest.param(["copilot_log=all", "copilot_log=none"], "log", id="two values"),
        pytest.param(["copilot_hosts=evil.test"], "hosts", id="a host that is none"),
        pytest.param(["copilot_fence=***"], "fence", id="a name that is none"),
    ],
)
def test_a_wrong_option_ends_the_start(start, given, named):
    """A wrong value of any option is one sentence that names the option, exit code 1, and no proxy."""
    proxy = start_that_ends(start, *(word for one in given for word in ("--set", one)))
    said = [line for line in proxy.log.splitlines() if f"copilot_{named}" in line or f" {named} " in line]
    assert proxy.process.returncode == 1
    assert len(said) == 1, proxy.log
    assert "Traceback" not in proxy.log
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("copilot_max_attempts: three\n", 1, id="a word"),
        pytest.param("copilot_max_attempts: [1, 2]\n", 1, id="a list"),
        pytest.param("copilot_deadline: {a: 1}\n", 1, id="a table"),
        pytest.param(
            "copilot_max_attempts: 2\ncopilot_record_decisions: true\ncopilot_wait: 1.5\n", None, id="YAML's own types"
        ),
    ],
)
def test_mitmproxys_own_settings_file(start, text, code):
    """A value in mitmproxy's config.yaml is taken in YAML's own types, and a wrong one ends the start as well."""
    proxy = start(config_yaml=text, wait=False)
    until(lambda: "copilot: ready on" in proxy.log or proxy.process.poll() is not None, "start or end", 60)
    if code is not None:
        proxy.process.wait(20)
        assert "must be" in proxy.log or "takes one value" in proxy.log
    assert proxy.process.poll() == code, proxy.log
    assert "Traceback" not in proxy.log


def test_a_misspelt_option_is_told(start):
    """An option that does not exist is named with the nearest one; other addons' options are left alone."""
    given = (
        "copilot_stratgy=priority",
        "copilot-strategy=priority",
        "coplot_strategy=x",
        "COPILOT_STRATEGY=priority",
        "copilotstrategy=priority",
        "copilot_balancer_strategy=priority",
        "copilot_zzzzzzzzzzzzzzzz=1",
        "their_own=1",
    )
    proxy = start(*(word for one in given for word in ("--set", one)))
    until(lambda: proxy.log.count("is not an option") >= 7, "the warnings")
    assert proxy.log.count("did you mean copilot_strategy?") == 6
    assert "copilot_zzzzzzzzzzzzzzzz is not an option and has no effect; there are copilot_" in proxy.log
    assert "their_own" not in proxy.log


@pytest.fixture
def script(tmp_path):
    """A script of the user's own that runs ours, so that a test may break it."""
    path = tmp_path / "ours.py"
    path.write_text(
        f"import runpy\naddons = runpy.run_path({str(ROOT / 'addon' / 'copilot_balancer' / 'script.py')!r})['addons']\n"
    )
    return path


def broken(script):
    script.write_text("this is no Python (\n")
    os.utime(script, (script.stat().st_mtime + 5,) * 2)


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        pytest.param(
            lambda script, kept: script.unlink(),
            lambda script, kept: shutil.copy2(kept, script),
            id="missing, then back with its old time",
        ),
        pytest.param(
            lambda script, kept: broken(script),
            lambda script, kept: shutil.copy2(kept, script),
            id="saved broken, then restored with its old time",
        ),
        pytest.param(
            lambda script, kept: (
                script.write_text("import no_such_module_of_anybody\n") and os.utime(script, (2e9, 2e9))
            ),
            lambda script, kept: os.replace(kept, script),
            id="a module is missing, then another file takes its place",
        ),
        pytest.param(
            lambda script, kept: script.rename(script.with_suffix(".away")),
            lambda script, kept: script.with_suffix(".away").rename(script),
            id="renamed, and back",
        ),
        pytest.param(
            lambda script, kept: script.write_text("") or os.utime(script, (2e9, 2e9)),
            lambda script, kept: shutil.copy2(kept, script),
            id="saved empty, then restored with its old time",
        ),
        pytest.param(
            lambda script, kept: script.unlink() or script.symlink_to("nowhere"),
            lambda script, kept: os.replace(kept, script),
            id="a link that leads nowhere, then another file",
        ),
    ],
)
def test_a_lost_script_serves_nobody_until_it_is_back(start, fake, script, tmp_path, breaks, mends):
    """Without the script: an ERROR, no answer of a Copilot host, no credential in a flow or upstream; it is loaded again."""
    kept = shutil.copy2(script, tmp_path / "kept.py")
    flows = tmp_path / "flows.mitm"
    proxy = start("-w", str(flows), script=script)
    assert proxy.post().status_code == 200
    open_before = proxy.client()
    assert (
        open_before.post(f"https://{HOST}/chat/completions", json={"model": "gpt-4.1", "messages": []}).status_code
        == 200
    )
    sent = len(fake.seen)

    breaks(script, kept)
    until(lambda: "its script is missing or broken" in proxy.log, "the ERROR", 30)
    for client in (open_before, proxy.client()):
        for path in ("/chat/completions", "/agents"):
            got = client.post(f"https://{HOST}{path}", json={"model": "gpt-4.1", "messages": []})
            assert (got.status_code, got.json()["error"]["code"]) == (503, "not_loaded")
        client.close()
    assert len(fake.seen) == sent
    until(lambda: any(one.off for one in read_live(proxy.store.folder)), "the record of it")
    env = {"COPILOT_BALANCER_HOME": str(proxy.folder / "home")}
    status = CliRunner().invoke(cli, ["status"], env=env)
    assert status.exit_code == 1
    assert "0 of 3 accounts can serve now" in status.stdout
    assert "missing or broken" in " ".join(status.stdout.split())

    mends(script, kept)
    until(lambda: "the script is loaded again" in proxy.log, "the script", 30)
    assert proxy.post().status_code == 200
    until(lambda: CliRunner().invoke(cli, ["status"], env=env).exit_code == 0, "the record of it")
    proxy.stop()
    kept_flows = flows.read_bytes()
    for token in (CLIENT, WORK, PERSONAL, SPARE):
        assert token.encode() not in kept_flows


def test_a_script_that_the_user_takes_out_stays_out(start, fake, script, tmp_path):
    """Who takes the script out of mitmproxy's options by hand gets no account and no script back."""
    out = tmp_path / "out.py"
    out.write_text(
        "import pathlib\nfrom mitmproxy import ctx\n"
        f"GO, OURS = pathlib.Path({str(tmp_path / 'go')!r}), {str(script)!r}\n"
        "class Out:\n"
        "    def client_connected(self, client):\n"
        "        if GO.exists() and OURS in ctx.options.scripts:\n"
        "            ctx.options.update(scripts=[one for one in ctx.options.scripts if one != OURS])\n"
        "addons = [Out()]\n"
    )
    proxy = start("-s", str(out), script=script)
    assert proxy.post().status_code == 200
    (tmp_path / "go").touch()
    assert proxy.post().status_code in (200, 503)
    until(lambda: "its script is missing or broken" in proxy.log, "the ERROR", 30)
    assert proxy.post().json()["error"]["code"] == "not_loaded"
    assert "is loaded again" not in proxy.log


GATE = """
import asyncio, os
from pathlib import Path
from copilot_balancer.proxy.request.exchange import Exchange

PLAN, WHERE, GATE = Exchange.plan, os.environ["WHERE"], Path(os.environ["GATE"])

async def opened():
    GATE.with_suffix(".reached").touch()
    while not GATE.exists():
        await asyncio.sleep(0.02)

async def plan(self, send):
    if WHERE == "before":
        await opened()
    step = await PLAN(self, send)
    if WHERE == "after":
        await opened()
    return step

Exchange.plan = plan
addons = []
"""


@pytest.mark.parametrize("back", [False, True], ids=["gone", "gone and back"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_request_that_waits_is_not_sent_without_the_script(start, fake, script, tmp_path, where, back):
    """A request whose account is still to be chosen, or just was, when the script goes, gets 503 and no account."""
    (tmp_path / "gating.py").write_text(GATE)
    gate = tmp_path / "gate"
    env = {"WHERE": where, "GATE": str(gate)}
    proxy = start(script=script, scripts_before=(tmp_path / "gating.py",), env=env)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(proxy.post)
        until(gate.with_suffix(".reached").exists, "the choice")
        script.rename(script.with_suffix(".away"))
        until(lambda: "its script is missing or broken" in proxy.log, "the ERROR", 30)
        if back:
            script.with_suffix(".away").rename(script)
            until(lambda: "the script is loaded again" in proxy.log, "the script", 30)
        gate.touch()
        got = asked.result(30)
    assert (got.status_code, got.json()["error"]["code"]) == (503, "not_loaded")
    assert fake.seen == []
    if back:
        assert proxy.post().status_code == 200
