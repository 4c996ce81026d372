"""codex, with a custom provider."""

from copilot_balancer.cli.clients.client import Client, Trust

CODEX = Client(
    "codex",
    ("codex",),
    {"SSL_CERT_FILE": Trust.ALL, "CODEX_CA_CERTIFICATE": Trust.ALL},
    "measured: codex 0.169.0 with a custom provider (docs/clients.md)",
)
