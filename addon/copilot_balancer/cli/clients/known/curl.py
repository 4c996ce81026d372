"""curl."""

from copilot_balancer.cli.clients.client import Client, Trust

CURL = Client("curl", ("curl",), {"CURL_CA_BUNDLE": Trust.ALL}, "measured: curl 7.88 (certs-howto.md)")
