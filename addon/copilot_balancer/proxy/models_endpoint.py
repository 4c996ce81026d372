"""What the home account answers: the list of models, completed with what the others have; and its sessions.

Laws of this file:

1. A list teaches what its account has, and is only ever completed.
2. A session token belongs to the account that fetched it: it is remembered by its mark alone
   (docs/copilot-protocol.md#auto-mode).
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from mitmproxy import http

from copilot_balancer.copilot.bound_state import mark
from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.protocol import read_body
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.catalogue import completed, read_models, shelf
from copilot_balancer.rules.types import PoolRequest

LIMIT = 8 * 1024 * 1024
"""Bytes of an answer that are looked at, inflated; a list of the service's has about 50,000."""


def _document(response: http.Response) -> dict[str, object] | None:
    return read_body(inflated(response.raw_content or b"", response.headers.get("content-encoding", ""), LIMIT))


def learn_models(live: Runtime, request: PoolRequest, account: Account, response: http.Response) -> None:
    """A list of models passes: it teaches what `account` has, and is completed with what the others have."""
    document = _document(response)
    models = read_models(document)
    if document is None or models is None:
        return
    now = live.now()
    included = [model.name for model in models if model.included]
    live.pool.learn_models(account.id, [model.name for model in models], now, included)
    live.shelve(account, shelf(account, models, time.time()))
    if live.decisions.balancing and not request.only:
        more = completed(document, _what_others_have(live, request, account, now))
        if more is not None:
            response.text = json.dumps(more)


def _what_others_have(
    live: Runtime, request: PoolRequest, asked: Account, now: float
) -> Iterator[dict[str, dict[str, Any]]]:
    fence = request.fence or live.settings.fence
    for other in live.decisions.serving():
        kept = live.catalogue.accounts.get(other.id)
        if kept is None or other.id == asked.id or not other.enabled or other.fence != fence:
            continue
        if kept.credential == other.fingerprint:
            yield {name: entry for name, entry in kept.entries.items() if live.pool.may_have(other.id, name, now)}


def session_mark(token: str) -> str:
    """What a ``Copilot-Session-Token`` is remembered by."""
    return mark("session", token)


def learn_session(live: Runtime, account: Account, response: http.Response) -> None:
    """A session was fetched with `account`; its token means nothing to another one."""
    token = (_document(response) or {}).get("session_token")
    if isinstance(token, str) and token:
        live.ownership.learn([session_mark(token)], account.id, time.time())
