"""Chooses between the client's own credential and an account's, which the user may have named.

Laws of this file:

1. What acts as a person, comes from a web page, or belongs to nobody that is stored goes out with the client's own
   credential, or not at all.
2. The name in the client's proxy URL is a fence or an account; one that nobody has is an error, never a default.
"""

from dataclasses import replace

from mitmproxy import http

from copilot_balancer.copilot.hosts import GITHUB, login_host_of, plain_host
from copilot_balancer.copilot.protocol import Kind
from copilot_balancer.proxy.guard.client_access import made_by_a_page
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.rules.types import PoolRequest


def tenant_of(host: str) -> str | None:
    """The login host of the enterprise whose own API host this is; None: github.com's, or no Copilot host."""
    login_host = login_host_of(plain_host(host))
    return login_host if login_host != GITHUB else None


def why_the_clients_own(live: Runtime, flow: http.HTTPFlow, kind: Kind, request: PoolRequest) -> str | None:
    """Why no account's credential goes with a request; None: an account serves it."""
    accounts = live.decisions.accounts
    if (page := made_by_a_page(flow.request)) is not None:
        return page
    if kind is Kind.OTHER:
        return "this path acts as a person and is never balanced"
    if not accounts:
        return "no account is stored; `copilot-balancer accounts add` adds one"
    if live.off is not None:
        return f"accounts are switched off: {live.off}"
    if request.host is not None and all(account.host != request.host for account in accounts):
        return f"no account is on {request.host}"
    return None


def named_by_user(live: Runtime, request: PoolRequest, name: str) -> PoolRequest | None:
    """`request` inside the fence, or for the account, with this name; None: nothing is called so."""
    accounts = live.decisions.accounts
    if any(account.fence == name for account in accounts):
        return replace(request, fence=name)
    named = next((account for account in accounts if account.label == name), None)
    return replace(request, fence=named.fence, only=named.id) if named is not None else None
