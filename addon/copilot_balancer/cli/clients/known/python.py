"""Programs that run on Python."""

from copilot_balancer.cli.clients.client import Client, Trust

PYTHON = Client(
    "python",
    ("python", "python3", "llm", "litellm", "aider"),
    {"SSL_CERT_FILE": Trust.ALL, "REQUESTS_CA_BUNDLE": Trust.ALL},
    "measured: Python 3.13 with urllib, httpx, requests and openai (certs-howto.md); litellm, llm: docs/clients.md",
)
