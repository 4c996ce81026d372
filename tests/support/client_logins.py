"""What the tests of the clients' login files share: how a file is written, and how a search that finds nothing is checked."""

import json
import traceback
from pathlib import Path

import pytest

from copilot_balancer.cli.clients import registry
from copilot_balancer.cli.clients.client import Found
from copilot_balancer.cli.clients.registry import find
from copilot_balancer.errors import InvalidInput

CANARY = "gho_" + "Canary7Canary7Canary7Canary7Canary7x"
TWO = CANARY + "2"
CLIENTS = str(Path(registry.__file__).parent)


def not_found(source: str, home: Path, environ: dict[str, str] | None = None) -> str:
    """The sentence with which a search ends that finds nothing; no frame of ours holds a token by then."""
    with pytest.raises(InvalidInput) as caught:
        find(source, environ or {}, home)
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.tb), capture_locals=True)
    ours = [str(frame.locals) for frame in frames if frame.filename.startswith(CLIENTS)]
    assert ours
    assert CANARY not in f"{ours} {caught.value!r}"
    assert caught.value.__context__ is None
    return str(caught.value)


def told(found: list[Found]) -> list[tuple[str, str]]:
    """Token and host of each login."""
    return [(one.token.get_secret_value(), one.host) for one in found]


def write(path: Path, content: object) -> Path:
    """A file of a client: bytes, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path
