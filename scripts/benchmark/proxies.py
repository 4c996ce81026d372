"""The processes that scripts/bench measures: the upstream, plain mitmdump, and mitmdump with the addon."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.store.store import Store, paths

HERE = Path(__file__).resolve().parent
ADDON = HERE.parents[1] / "addon" / "balancer.py"
MITMDUMP = Path(sys.executable).with_name("mitmdump")
STARTING = 60.0
"""Seconds that a process may take to start."""


@dataclass(frozen=True)
class Upstream:
    """A running upstream."""

    port: int
    ca_file: Path


@contextmanager
def upstream() -> Iterator[Upstream]:
    """An upstream in a process of its own."""
    command = [sys.executable, HERE / "upstream.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, ca_file = process.stdout.readline().split(maxsplit=1)
        yield Upstream(int(port), Path(ca_file.strip()))


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with mitmproxy's CA and a home of the addon's with two accounts, gone at the end."""
    made = Path(tempfile.mkdtemp(prefix="copilot-balancer-bench-"))
    try:
        accounts = tuple(
            Account(id=f"github.com:{number}", label=label, token=SecretStr(f"gho_bench{number:031}"))
            for number, label in enumerate(("work", "personal"), 1)
        )
        store = Store(paths({"COPILOT_BALANCER_HOME": str(made / "home")}).state)
        store.edit_decisions(lambda _: Decisions(accounts=accounts, terms_accepted_at=1.0))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Proxy:
    """A mitmdump in a process of its own, which listens."""

    def __init__(
        self, name: str, at: Path, to: Upstream | None, *, addon: bool, environ: Mapping[str, str] | None = None
    ) -> None:
        """Start it; `to`: where every connection leads (None: where it should, and nothing of the bench is loaded)."""
        self.name = name
        self.port = free_port()
        self.ca_file = at / "ca" / "mitmproxy-ca-cert.pem"
        where = {**os.environ, "COPILOT_BALANCER_HOME": str(at / "home"), **(environ or {})}
        where.pop("PYTHONDONTWRITEBYTECODE", None)  # it would compile every module of ours at each start
        arguments = ["-p", str(self.port), "--listen-host", "127.0.0.1", "--set", f"confdir={at / 'ca'}"]
        if to is not None:
            where["BENCH_UPSTREAM"] = str(to.port)
            if not addon:
                where["BENCH_STREAM"] = "1"
            arguments += [
                "-s",
                str(HERE / "script.py"),
                "--set",
                f"ssl_verify_upstream_trusted_ca={to.ca_file}",
            ]
        if addon:
            arguments += ["-s", str(ADDON)]
        self._log = (at / f"{name.replace(' ', '-')}.log").open("wb")
        began = time.monotonic()
        self._process = subprocess.Popen([MITMDUMP, *arguments], env=where, stdout=self._log, stderr=self._log)
        self._wait_until_it_answers()
        self.started_in = time.monotonic() - began
        """Seconds from its start until it answered."""
        self.started_with = self.cpu()
        """Seconds of processor time that it had taken by then."""

    def _wait_until_it_answers(self) -> None:
        """It listens before scripts are loaded, so a connection alone says little."""
        end = time.monotonic() + STARTING
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), STARTING) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\nhost: nobody.invalid\r\n\r\n")
                    connection.recv(1)
            except OSError:
                time.sleep(0.002)
            else:
                return
        raise SystemExit(f"{self.name} did not start:\n{Path(self._log.name).read_text(errors='replace')}")

    def cpu(self) -> float:
        """Seconds of processor time so far, of all its threads; Linux alone counts finely enough."""
        tasks = Path(f"/proc/{self._process.pid}/task")
        if not tasks.is_dir():
            return float("nan")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def memory(self) -> float:
        """Resident megabytes."""
        told = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self._process.pid)], capture_output=True, text=True, check=True
        )
        return int(told.stdout) / 1024

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._process.terminate()
        self._process.wait(STARTING)
        self._log.close()


@contextmanager
def proxies(*wanted: Proxy) -> Iterator[tuple[Proxy, ...]]:
    """Proxies that are stopped at the end."""
    try:
        yield wanted
    finally:
        for proxy in wanted:
            proxy.stop()
