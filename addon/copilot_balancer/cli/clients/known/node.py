"""Programs that run on Node, which uses the proxy of the environment only where ``NODE_USE_ENV_PROXY`` is set.

Source: Node documentation, command-line API, ``NODE_USE_ENV_PROXY=1`` (added in v24.0.0 and v22.21.0).
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Trust

VERSION_SECONDS = 5.0
"""How long ``node --version`` may take."""


def _warning(program: str, environ: Mapping[str, str]) -> str | None:
    if Path(program).stem.lower() != "node":  # the others bring their own way to use a proxy
        return None
    try:
        ran = subprocess.run(  # noqa: S603 - the program that the user asked for
            [program, "--version"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.match(r"v(\d+)\.(\d+)\.", ran.stdout)
    if version is None:
        return None
    major, minor = int(version[1]), int(version[2])
    if major >= 24 or (major == 22 and minor >= 21):
        return None
    return (
        f"Node {ran.stdout.strip()} ignores HTTPS_PROXY, so its own `fetch` does not use the proxy: "
        "install Node 24 or newer"
    )


NODE = Client(
    "node",
    ("node", "npx", "pi", "copilot-api", "copilot-language-server"),
    {"NODE_EXTRA_CA_CERTS": Trust.MORE},
    "measured: Node 24.21 (certs-howto.md); pi, copilot-api and the language server: docs/clients.md",
    more={"NODE_USE_ENV_PROXY": "1"},
    hint="Node before version 24 ignores proxy variables (20 was measured); copilot-api has its own --proxy-env",
    warning=_warning,
)
