"""Logs an exception in our own code under an id, and makes the 502 response that names it."""

import json
import logging
import traceback
import uuid

from mitmproxy import http

logger = logging.getLogger(__name__)


def log_incident(where: str, error: Exception) -> str:
    """Log one ERROR line that names the place and kind of a fault of ours, never its text; return its id."""
    incident = uuid.uuid4().hex[:8]
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"
    logger.error("copilot: incident %s in %s: %s at %s", incident, where, type(error).__name__, place)
    stack = "".join(traceback.format_list(frames))
    logger.debug("copilot: incident %s came by\n%s", incident, stack)
    return incident


def own_request_id() -> str:
    """An ``x-github-request-id`` for a response that was made here; GitHub's own are hex digits and colons.

    copilot-language-server hides the text of a refusal without one (docs/clients.md#other-clients).
    """
    return f"copilot-balancer-{uuid.uuid4().hex[:12]}"


def fault_answer(message: str) -> http.Response:
    """A 502 response in the service's shape that names this proxy as the cause."""
    body = {"error": {"message": f"copilot-balancer: {message}", "code": "proxy_fault", "type": "proxy_error"}}
    headers = {"content-type": "application/json", "x-github-request-id": own_request_id()}
    return http.Response.make(502, json.dumps(body), headers)
