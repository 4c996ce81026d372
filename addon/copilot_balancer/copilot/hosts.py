"""The login hosts and API hosts of GitHub Copilot, github.com's and those of GitHub Enterprise (``NAME.ghe.com``)."""

import re
from collections.abc import Iterable

from copilot_balancer.errors import InvalidInput

GITHUB = "github.com"
"""The login host of everybody who is not on GitHub Enterprise Cloud with data residency (``*.ghe.com``)."""

API_HOSTS = frozenset(
    {
        "api.githubcopilot.com",
        "api.individual.githubcopilot.com",
        "api.business.githubcopilot.com",
        "api.enterprise.githubcopilot.com",
    }
)
"""The API hosts of github.com accounts. Source: GitHub docs, copilot-allowlist-reference."""

DEFAULT_API_HOST = "api.githubcopilot.com"
_GHE_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.ghe\.com")


def normalise_domain(text: str) -> str:
    """The login host that a person means: ``"https://Acme.ghe.com/"`` -> ``"acme.ghe.com"``.

    Raises:
        InvalidInput: it is neither github.com nor one ``NAME.ghe.com``; no port, path, user or other host is taken.

    """
    host = text.strip().lower()
    host = host.removeprefix("https://").removesuffix("/").removesuffix(".")
    if host in (GITHUB, f"www.{GITHUB}"):
        return GITHUB
    if not _GHE_DOMAIN.fullmatch(host):
        raise InvalidInput(f"{text[:80]!r} is not a login host: it is {GITHUB} or NAME.ghe.com")
    return host


def check_api_host(host: str, login_host: str) -> str:
    """Return `host` when an account of `login_host` may be sent there.

    Raises:
        InvalidInput: any other host, whoever named it: GitHub's own answers are checked as well
        (docs/security.md#what-the-network-says).

    """
    allowed = API_HOSTS if login_host == GITHUB else {f"copilot-api.{login_host}"}
    if host not in allowed:
        raise InvalidInput(f"{host[:80]!r} is not a Copilot API host of {login_host}: {', '.join(sorted(allowed))}")
    return host


def default_api_host(login_host: str) -> str:
    """Where an account of `login_host` is sent as long as GitHub has not named a host of its own for it."""
    return DEFAULT_API_HOST if login_host == GITHUB else f"copilot-api.{login_host}"


def login_host_of(api_host: str) -> str | None:
    """The login host whose accounts are sent to `api_host`; None when that is no API host of Copilot's."""
    if api_host in API_HOSTS:
        return GITHUB
    domain = api_host.removeprefix("copilot-api.")
    return domain if domain != api_host and _GHE_DOMAIN.fullmatch(domain) else None


def copilot_hosts(domains: Iterable[str] = ()) -> frozenset[str]:
    """The API hosts that are opened: github.com's, and ``copilot-api.<domain>`` of each GitHub Enterprise domain."""
    return API_HOSTS | {f"copilot-api.{domain}" for domain in domains}


def plain_host(host: str) -> str:
    """A host name as it is compared: lower case, without the root's dot."""
    return host.lower().removesuffix(".")
