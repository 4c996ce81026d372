"""The environment that points a client at the proxy.

Laws of this file:

1. Pure: an environment comes in, variables come out. What stands in files is an argument.
2. No credential stands in the result. A client without a login of its own gets the placeholder.
3. Only the way to the Copilot hosts is changed: the other entries of the user's ``NO_PROXY`` are kept.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from copilot_balancer.cli.clients.client import Client, Trust, Way
from copilot_balancer.cli.clients.registry import PROXIED

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy")
"""Programs read one or the other. ``HTTP_PROXY`` is left alone: no Copilot host is reached without TLS."""
BYPASS_VARIABLES = ("NO_PROXY", "no_proxy")

_ALWAYS_DIRECT = ("localhost", "127.0.0.1", "::1")
"""A client's own servers on this machine."""


def environment(
    client: Client | None, way: Way, environ: Mapping[str, str], *, hosts: Collection[str], placeholder: bool = False
) -> dict[str, str]:
    """The variables that point a client at the proxy.

    Args:
        client: its row; None: a program in no row gets what any of them reads.
        way: the proxy.
        environ: the environment that they are added to.
        hosts: the Copilot hosts, which must not pass the proxy by.
        placeholder: whether it gets `Client.login`, since it holds no login of its own.

    """
    direct = kept_direct(environ, hosts)
    found = dict.fromkeys(PROXY_VARIABLES, way.url) | dict.fromkeys(BYPASS_VARIABLES, direct)
    rows = (client,) if client else PROXIED
    for row in rows:
        found |= row.more
    for row in PROXIED:
        for name, trust in row.trust.items():
            file = way.more if trust is Trust.MORE else way.all
            # a variable that is set already could take precedence over the one that was measured
            if file is not None and (row in rows or environ.get(name)):
                found[name] = str(file)
    if client and placeholder:
        found |= client.login
    return found


def other_proxy(environ: Mapping[str, str]) -> str | None:
    """The proxy beyond this machine that the user's environment names, without a password; None: there is none."""
    for name in PROXY_VARIABLES:
        scheme, slashes, rest = environ.get(name, "").rpartition("://")
        login, at, place = rest.rpartition("@")
        if place and not place.startswith(("127.0.0.1:", "localhost:")):
            return f"{scheme}{slashes}{'...@' if login or at else ''}{place}"
    return None


def kept_direct(environ: Mapping[str, str], hosts: Collection[str]) -> str:
    """The value of ``NO_PROXY``: what the user wrote there, without what would let a Copilot host pass the proxy by."""
    written = [entry for entry in _entries(environ) if not _matches(entry, hosts)]
    return ",".join(dict.fromkeys([*_ALWAYS_DIRECT, *written]))


def bypasses(environ: Mapping[str, str], hosts: Collection[str]) -> list[str]:
    """The entries of ``NO_PROXY`` that let a Copilot host pass the proxy by."""
    return list(dict.fromkeys(entry for entry in _entries(environ) if _matches(entry, hosts)))


def _entries(environ: Mapping[str, str]) -> Iterable[str]:
    for name in BYPASS_VARIABLES:
        yield from re.findall(r"[^,\s]+", environ.get(name, ""))


def _matches(entry: str, hosts: Collection[str]) -> bool:
    """Whether a program that is generous in reading `entry` would call one of `hosts` directly.

    Programs differ: with or without a leading dot or star, with a port, for the domain itself or only below it.
    """
    domain = re.sub(r":\d+$", "", entry.lower()).removeprefix("*").strip(".")
    if not domain:
        return entry.startswith("*")
    return any(host == domain or host.endswith(f".{domain}") for host in hosts)
