"""The checks of ``doctor`` about this shell and its clients: do they use the proxy, and do they trust its CA?

Laws of this file:

1. What is known about each client is its row in ``registry``; here it is compared with the environment.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from copilot_balancer.cli.clients.client import Client, Trust
from copilot_balancer.cli.clients.environment import PROXY_VARIABLES, bypasses, other_proxy
from copilot_balancer.cli.clients.local_proxy import SYSTEM_BUNDLES, Authority, holds, own_authority
from copilot_balancer.cli.clients.registry import PROXIED
from copilot_balancer.cli.env import Env
from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.errors import StoreError
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.text import printable


class State(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """It works, but perhaps not as intended."""
    PROBLEM = "problem"
    """It does not work, or is not safe."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    check: str
    """What was checked."""
    state: State
    text: str
    remedy: str = ""
    """What to do, as a sentence; empty: nothing."""


@dataclass(frozen=True)
class Case:
    """What the checks look at."""

    env: Env
    port: int
    online: bool

    @property
    def authority(self) -> Authority:
        """The CA of our own proxies."""
        return own_authority(self.env.paths.state)

    @property
    def broken(self) -> bool:
        """Whether accounts.json cannot be read; one check says so."""
        try:
            self.env.store.read_decisions()
        except StoreError:
            return True
        return False

    def decisions(self) -> Decisions:
        """The user's decisions; none where they cannot be read."""
        try:
            return self.env.store.read_decisions()
        except StoreError:
            return Decisions()


type Found = Iterator[Finding]
"""What a check yields."""


def proxy_variables(case: Case) -> Found:
    """Which proxy the clients of this shell use."""
    environ = case.env.environ
    named = {name: environ[name] for name in PROXY_VARIABLES if environ.get(name)}
    values = set(named.values())
    start = 'To use the proxy in this shell: `eval "$(copilot-balancer env)"`; for one client: `copilot-balancer exec`.'
    if not named:
        yield Finding(
            "HTTPS_PROXY", State.OK, "not set: clients of this shell do not use the proxy, except with `exec`"
        )
    elif len(values) > 1:
        yield Finding("HTTPS_PROXY", State.WARNING, "HTTPS_PROXY and https_proxy name different proxies", start)
    elif _points_here(values, case.port):
        yield Finding("HTTPS_PROXY", State.OK, "clients of this shell use the proxy")
    elif other_proxy(environ) is None:
        yield Finding("HTTPS_PROXY", State.WARNING, "names another port of this machine", start)
    else:
        remedy = (
            f"{start} If your network needs that proxy, ours needs it too: `copilot-balancer run --mode upstream:URL`."
        )
        yield Finding(
            "HTTPS_PROXY", State.WARNING, f"names another proxy: {printable(other_proxy(environ) or '')}", remedy
        )


def _points_here(values: set[str], port: int) -> bool:
    return any(
        value.removeprefix("http://").rpartition("@")[2].rstrip("/") in (f"127.0.0.1:{port}", f"localhost:{port}")
        for value in values
    )


def traps(case: Case) -> Found:
    """Variables that lead clients past the proxy, or make TLS worth nothing."""
    environ = case.env.environ
    through = bypasses(environ, copilot_hosts(case.decisions().domains))
    if through:
        here = _points_here({environ.get(name, "") for name in PROXY_VARIABLES}, case.port)
        yield Finding(
            "NO_PROXY",
            State.PROBLEM if here else State.WARNING,
            f"{printable(', '.join(through))} makes Copilot's requests bypass the proxy",
            'Remove it, or `eval "$(copilot-balancer env)"`.',
        )
    else:
        yield Finding("NO_PROXY", State.OK, "no Copilot host bypasses the proxy")
    for name in ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE"):
        if environ.get(name):
            yield Finding(
                name,
                State.PROBLEM,
                "is set: TLS keys are written to a file, so a proxy started here uses no account",
                f"`unset {name}`",
            )
    if environ.get("NODE_TLS_REJECT_UNAUTHORIZED") == "0":
        yield Finding(
            "NODE_TLS_REJECT_UNAUTHORIZED",
            State.WARNING,
            "is 0: Node programs of this shell accept any certificate",
            "`unset NODE_TLS_REJECT_UNAUTHORIZED`; the proxy does not need it.",
        )


def trusting(case: Case) -> Found:
    """Each client that is installed: does it, in this shell, trust the CA of the proxy that it would meet?"""
    environ, authority = case.env.environ, case.authority
    if not authority.certificate.is_file():
        return
    here = _points_here({environ.get(name, "") for name in PROXY_VARIABLES}, case.port)
    system = next((path for path in SYSTEM_BUNDLES if holds(Path(path), authority.certificate)), None)
    if system:
        yield Finding(
            "system trust",
            State.WARNING,
            f"every program of this system trusts the proxy's CA ({system})",
            "That is more than is needed: certs-howto.md says how to undo it.",
        )
    believing, blind, by_exec = [], [], []
    for client in PROXIED:
        if not any(shutil.which(name, path=environ.get("PATH")) for name in client.programs):
            continue
        name = next((name for name in client.trust if _names_ours(environ, name, authority)), None)
        if name or (system and not _replaced(client, environ, authority)):
            believing.append(f"{client.name} ({name or 'by the system'})")
        elif here:
            blind.append(client.name)
        else:
            by_exec.append(client.name)
    if believing:
        yield Finding("clients", State.OK, f"trust the proxy's CA: {', '.join(believing)}")
    if blind:
        yield Finding(
            "clients",
            State.PROBLEM,
            f"use the proxy in this shell, but do not trust its CA: {', '.join(blind)}",
            "".join(f'`eval "$(copilot-balancer env --client {name})"` ' for name in blind[:1]).strip()
            + (", and so for each of them." if len(blind) > 1 else ""),
        )
    if by_exec:
        yield Finding("clients", State.OK, f"found {', '.join(by_exec)}; `copilot-balancer exec` sets what they need")


def _names_ours(environ: Mapping[str, str], name: str, authority: Authority) -> bool:
    return bool(environ.get(name)) and holds(Path(environ[name]), authority.certificate)


def _replaced(client: Client, environ: Mapping[str, str], authority: Authority) -> bool:
    """Whether a variable puts a file without our CA in the place of the system's."""
    return any(
        trust is Trust.ALL and environ.get(name) and not _names_ours(environ, name, authority)
        for name, trust in client.trust.items()
    )
