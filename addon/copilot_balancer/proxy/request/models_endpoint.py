"""``GET /models``: records the models of the account that answered, and adds those of other accounts to the response.

The law of this file: a list is only ever completed, with whole entries as the service wrote them.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from mitmproxy import http

from copilot_balancer.copilot.encoding import inflated
from copilot_balancer.copilot.protocol import read_body
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.catalogue import completed, disabled_models, read_models, shelf
from copilot_balancer.rules.types import Attempt, PoolRequest

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
    names = [model.name for model in models]
    live.pool.learn_models(account.id, names, now, included, disabled_models(document))
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
        if request.host not in (None, other.host):
            continue
        if kept.credential == other.fingerprint:
            yield {name: entry for name, entry in kept.entries.items() if live.pool.may_have(other.id, name, now)}


def home_attempt(live: Runtime, request: PoolRequest, asked: list[str]) -> Attempt | None:
    """The attempt with the home account, else with the first that can serve; None: nobody is left.

    Args:
        live: the runtime.
        request: whose fence, host or account the user named.
        asked: ids of the accounts that were asked for it; the chosen one is appended.

    """
    named = live.account(request.only) if request.only else None
    now = live.now()
    home = named if named and not asked else live.pool.home(now, request.fence, asked, request.host)
    if home is None or (named and asked):
        return None
    why = "in place of the home account" if asked else "home account"
    asked.append(home.id)
    return Attempt(request.id, len(asked), home.id, home.fingerprint, None, why, now)
