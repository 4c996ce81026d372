"""Node: whether the one that would run uses the proxy of its environment."""

import pytest

from copilot_balancer.cli.clients.known import node
from copilot_balancer.cli.clients.known.node import NODE


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ("v18.20.0", True),
        ("v20.20.2", True),
        ("v22.20.0", True),
        ("v22.21.0", False),
        ("v23.11.0", True),
        ("v24.0.0", False),
        ("v25.1.0", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_warning(tmp_path, version, warned):
    """A Node without NODE_USE_ENV_PROXY is told with its version; what cannot be told is not."""
    program = tmp_path / "node"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    said = NODE.warning(str(program), {})
    assert (said is not None) is warned
    if warned:
        assert said.startswith(f"Node {version} ignores HTTPS_PROXY")


def test_other_programs(tmp_path):
    """Programs that bring their own way to a proxy are not run for this."""
    assert NODE.warning(str(tmp_path / "pi"), {}) is None


def test_a_node_that_cannot_be_run(tmp_path, monkeypatch):
    """A program that is none, and one that hangs, are not waited for and warn of nothing."""
    program = tmp_path / "node"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    assert NODE.warning(str(program), {}) is None
    program.write_text("#!/bin/sh\nexec sleep 9\n")
    monkeypatch.setattr(node, "VERSION_SECONDS", 0.1)
    assert NODE.warning(str(program), {}) is None
