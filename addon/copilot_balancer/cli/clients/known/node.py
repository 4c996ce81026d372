"""Programs that run on Node. ``fetch`` of Node uses a proxy from the environment only since Node 24, and only when
``NODE_USE_ENV_PROXY`` is set. Source: Node documentation, CLI, ``NODE_USE_ENV_PROXY`` (added in v24.0.0).
"""

from copilot_balancer.cli.clients.client import Client, Trust

NODE = Client(
    "node",
    ("node", "npx", "pi", "copilot-api", "copilot-language-server"),
    {"NODE_EXTRA_CA_CERTS": Trust.MORE},
    "measured: Node 24.21 (certs-howto.md); pi, copilot-api and the language server: docs/clients.md",
    more={"NODE_USE_ENV_PROXY": "1"},
    hint="Node before version 24 ignores proxy variables (20 was measured); copilot-api has its own --proxy-env",
)
