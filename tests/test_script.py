"""What mitmproxy runs: the addon object, or one sentence that says what is missing."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from support.proxies import ROOT, free_port

CHECKOUT = ROOT / "addon" / "balancer.py"
INSTALLED = ROOT / "addon" / "copilot_balancer" / "script.py"

MITMDUMP = """
import sys
{before}
from mitmproxy.tools.main import mitmdump
sys.argv[0] = "mitmdump"
mitmdump()
"""


def mitmdump(script: Path, tmp_path: Path, before: str) -> subprocess.CompletedProcess[str]:
    """mitmdump with `script`, in a Python in which `before` was run."""
    return subprocess.run(
        [
            *(sys.executable, "-c", MITMDUMP.format(before=before), "-s", str(script), "-p", str(free_port())),
            *("--listen-host", "127.0.0.1", "--set", f"confdir={tmp_path / 'ca'}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )


@pytest.mark.parametrize("script", [CHECKOUT, INSTALLED], ids=["checkout", "installed"])
@pytest.mark.parametrize(
    ("before", "why"),
    [
        pytest.param(
            "sys.modules['pydantic'] = None", "this mitmproxy's Python has no 'pydantic'", id="mitmproxy's own Python"
        ),
        pytest.param(
            "sys.modules['copilot_balancer'] = None",
            "this mitmproxy's Python has no 'copilot_balancer.proxy'",
            id="nothing of ours",
        ),
        pytest.param(
            "import mitmproxy.proxy.layers.http; del mitmproxy.proxy.layers.http.HttpStream",
            "cannot import name 'HttpStream' from 'mitmproxy.proxy.layers.http'",
            id="another mitmproxy",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path, script, before, why):
    """Without what it needs there is one line that names it and what to do, no traceback, and no proxy."""
    ended = mitmdump(script, tmp_path, before)
    said = ended.stdout + ended.stderr
    lines = [line for line in said.splitlines() if "copilot-balancer cannot start" in line]

    assert ended.returncode == 1
    assert len(lines) == 1, said
    assert why in lines[0]
    assert "into the same environment" in lines[0]
    assert lines[0].endswith("mitmproxy's self-contained binaries take no packages.")
    assert "Traceback" not in said


@pytest.mark.parametrize("script", [CHECKOUT, INSTALLED], ids=["checkout", "installed"])
def test_each_run_builds_a_new_addon(script):
    """mitmproxy runs the script again when it changes: the object is new, its class is not."""
    (first,), (second,) = (runpy.run_path(str(script))["addons"] for _ in range(2))
    assert type(first).__name__ == "CopilotBalancer"
    assert type(first) is type(second)
    assert first is not second


@pytest.mark.parametrize("script", [CHECKOUT, INSTALLED], ids=["checkout", "installed"])
def test_what_a_start_does_without(tmp_path, script):
    """What only a rare wish needs is not loaded, nor a plug-in of pydantic's; the garbage collector works again."""
    about = tmp_path / "spy-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pydantic]\nspy = spy\n")
    (tmp_path / "spy.py").write_text("def new_schema_validator(*_, **__): return None, None, None\n")
    rare = ("spy", "httpx", "filelock", "tomllib", "copilot_balancer.github.api", "copilot_balancer.github.admission")
    code = (
        f"import gc, runpy, sys; from pydantic import TypeAdapter; runpy.run_path({str(script)!r});"
        f"print([name for name in {rare!r} if name in sys.modules], gc.isenabled());"
        "import os; del os.environ['PYDANTIC_DISABLE_PLUGINS']; TypeAdapter(int); print('spy' in sys.modules)"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environ.pop("PYDANTIC_DISABLE_PLUGINS", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[] True\nTrue\n", "")
