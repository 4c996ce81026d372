"""What the package says of itself, where it is built and where it is tried, agrees."""

import re
import subprocess
import tomllib

import pytest
from ruamel.yaml import YAML

from copilot_balancer.cli.doctor import MITMPROXY
from support.proxies import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = ROOT / ".github" / "workflows"
CI = YAML(typ="safe").load((WORKFLOWS / "ci.yml").read_text())


def bounds() -> tuple[str, str]:
    """The mitmproxy that is needed, and the one that is too new."""
    (needed,) = (one for one in PROJECT["project"]["dependencies"] if one.startswith("mitmproxy"))
    return re.fullmatch(r"mitmproxy>=([0-9.]+),<([0-9.]+)", needed).groups()


def test_the_oldest_and_the_newest_mitmproxy():
    """What CI tries and what doctor accepts is what pip may install."""
    oldest, above = bounds()
    pinned = {path.stem: path.read_text().splitlines()[-1] for path in WORKFLOWS.glob("mitmproxy-*.txt")}
    assert pinned == {"mitmproxy-oldest": f"mitmproxy=={oldest}", "mitmproxy-newest": f"mitmproxy<{above}"}
    assert [".".join(map(str, one)) for one in MITMPROXY] == [oldest, f"{above}.0.0"]
    assert {f"mitmproxy-{name}" for name in CI["jobs"]["scripts"]["strategy"]["matrix"]["mitmproxy"]} == pinned.keys()


def test_the_oldest_python():
    """CI begins with the oldest Python that is allowed, on each system."""
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    for job in ("scripts", "windows"):
        assert CI["jobs"][job]["strategy"]["matrix"]["python"][0] == oldest


def test_ci_runs_what_a_person_runs():
    """Each script that CI names is there, and can be run."""
    told = [step["run"] for job in CI["jobs"].values() for step in job["steps"] if "run" in step]
    named = [line for line in told if re.fullmatch(r"[.a-z]+/[a-z]+", line)]
    assert named == ["scripts/check", "scripts/test", ".ci/run"]
    assert all((ROOT / name).stat().st_mode & 0o111 for name in named)


@pytest.mark.parametrize("name", ["pypi", "pythonhosted", "npmjs", "registry."])
def test_no_registry_is_named(name):
    """Where packages come from is the user's own setting: no address of a registry stands in any file."""
    address = re.compile(rf"https?://[^\s/]*{re.escape(name)}", re.IGNORECASE)
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not files:
        pytest.skip("not a checkout")
    found = [
        path
        for path in files
        if (ROOT / path).is_file() and address.search((ROOT / path).read_text("utf-8", "replace"))
    ]
    assert found == []
