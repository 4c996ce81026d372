"""The proxy on this machine: its CA, what listens on a port, and how a proxy is started and stopped.

Laws of this file:

1. Proxies that these commands start have a CA folder of their own, for the user alone, beside the accounts: not
   ``~/.mitmproxy``. So a client that trusts this CA trusts this proxy and nothing else, and a ``config.yaml`` that was
   written for another purpose (another mode, no certificate checks) is not read.
2. A listener is identified by a TLS handshake with the CA's key. Nothing is sent to it before that, and no upstream is
   contacted.
3. A proxy that is started here listens on loopback, and its arguments and environment hold no credential.
4. A CA that exists is never replaced: clients may trust it.
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from copilot_balancer.cli.clients.companion import ALIVE, VERBOSE
from copilot_balancer.errors import BalancerError
from copilot_balancer.store.folder import Refusal, make, opened, replace_file
from copilot_balancer.text import printable

SCRIPT = Path(__file__).parents[2] / "script.py"
"""What mitmproxy runs."""

ANSWER_SECONDS = 1.5
"""How long a listener may take for the TLS handshake; a proxy of ours takes a twentieth."""
START_SECONDS = 30.0
"""How long a proxy may take until it is ready; it takes about one."""
END_SECONDS = 10.0
"""How long it may take to store what it learnt."""
KEPT_LOGS = 5
"""How many logs of proxies that ``exec`` started are kept."""

_MAKE_CA = (
    "import pathlib, sys; from mitmproxy.certs import CertStore; "
    "CertStore.create_store(pathlib.Path(sys.argv[1]), 'mitmproxy', 2048, 'copilot-balancer', sys.argv[2])"
)
"""The names of the files are mitmproxy's; 2048 bits: the default of mitmproxy's option ``key_size``."""
_LONGEST_NAME = 64
"""Characters of a common name. Source: RFC 5280, appendix A.1, ub-common-name."""
_NO_HOST = "copilot-balancer.invalid"
"""The server name of that handshake. RFC 6761: it never resolves, so no upstream is contacted."""
_KEY_LOGS = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")
"""With one of these the proxy would use no account (guard.py)."""
_READY = re.compile(r"copilot: ready on 127\.0\.0\.1:(\d+)")

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep all their CAs in one file. Source: Go, crypto/x509/root_linux.go and root_bsd.go; macOS has the
last one."""


@dataclass(frozen=True)
class Authority:
    """The folder of a proxy's CA: mitmproxy's ``confdir``."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What clients trust."""
        return self.folder / "mitmproxy-ca-cert.pem"

    @property
    def key(self) -> Path:
        """The private key, and the certificate: with it any site can be impersonated to clients that trust the CA."""
        return self.folder / "mitmproxy-ca.pem"

    def prepare(self) -> None:
        """Make the folder, accessible to the user only.

        Raises:
            BalancerError: it cannot be made, or other users can access it.

        """
        refusal = make(self.folder)
        if refusal is None:
            with opened(self.folder) as folder:
                refusal = folder if isinstance(folder, Refusal) else None
        if refusal is not None:
            raise _error(self.folder, refusal)

    def create(self) -> None:
        """Make the folder and in it a CA "copilot-balancer on HOST", unless there is one.

        Raises:
            BalancerError: they cannot be made, or other users can access a folder without a certificate.

        """
        if self.certificate.is_file():
            return
        self.prepare()
        if self.key.exists():
            return
        with tempfile.TemporaryDirectory(dir=self.folder.parent, ignore_cleanup_errors=True) as beside:
            name = f"copilot-balancer on {socket.gethostname()}"[:_LONGEST_NAME]
            made = subprocess.run(  # noqa: S603 - this Python, a program of ours
                [sys.executable, "-c", _MAKE_CA, beside, name], capture_output=True, text=True, check=False
            )
            if made.returncode:
                last = (made.stderr.strip().splitlines() or ["it did not say why"])[-1]
                raise BalancerError(f"mitmproxy cannot make its CA in {self.folder}: {printable(last, 400)}")
            self._take(Path(beside))

    def _take(self, made: Path) -> None:
        """Move the files of a new CA here, the key first; where another process was faster, its CA stays."""
        try:
            if os.name == "posix":
                os.link(made / self.key.name, self.key)  # fails where there is one; a rename would replace it
                (made / self.key.name).unlink()
            else:
                (made / self.key.name).rename(self.key)  # fails where there is one
        except FileExistsError:
            _wait_for(self.certificate)
            return
        except OSError as error:
            raise BalancerError(f"{self.key} cannot be written: {error.strerror}") from None
        for path in sorted(made.iterdir(), key=lambda path: path.name == self.certificate.name):
            path.replace(self.folder / path.name)  # the certificate last: who sees it sees a whole CA


def _wait_for(certificate: Path) -> None:
    """Wait until the process that makes the CA has moved its last file."""
    end = time.monotonic() + ANSWER_SECONDS
    while not certificate.is_file() and time.monotonic() < end:
        time.sleep(0.01)


def own_authority(state: Path) -> Authority:
    """The CA of the proxies that these commands start, below the folder of the accounts."""
    return Authority(state / "mitmproxy")


def usual_authority(home: Path) -> Authority:
    """The CA of a mitmproxy that was started by hand."""
    return Authority(home / ".mitmproxy")


def _error(path: Path, refusal: Refusal) -> BalancerError:
    return BalancerError(f"{printable(str(path), 4096)}: {refusal.why}. Remedy: {refusal.remedy}")


# ── what clients trust ───────────────────────────────────────────────────────────────────────────────────────────────


def trust_more(authority: Authority, environ: Mapping[str, str]) -> Path:
    """A file with the proxy's CA, and with those that ``NODE_EXTRA_CA_CERTS`` names already: a company's, say."""
    return _with_ours(authority, "more.pem", _named(environ, "NODE_EXTRA_CA_CERTS")) or authority.certificate


def trust_all(authority: Authority, environ: Mapping[str, str]) -> Path | None:
    """A file with all CAs of this system and the proxy's; None when those of the system are in no file."""
    return _with_ours(authority, "all.pem", system_bundle(environ))


def system_bundle(environ: Mapping[str, str]) -> Path | None:
    """The file with the CAs that programs of this system trust."""
    named = _named(environ, "SSL_CERT_FILE")
    return named or next((Path(path) for path in SYSTEM_BUNDLES if Path(path).is_file()), None)


def _named(environ: Mapping[str, str], variable: str) -> Path | None:
    path = Path(environ.get(variable, ""))
    return path if path.is_file() else None


def _with_ours(authority: Authority, name: str, others: Path | None) -> Path | None:
    """A file that holds `others` and the proxy's CA; `others` itself where it does: it was made here before."""
    if others is None or holds(others, authority.certificate):
        return others
    return _joined(authority, name, others)


def _joined(authority: Authority, name: str, others: Path) -> Path:
    """A file in the CA's folder: `others`, then the proxy's certificate. Replaced whole: a client may be reading it."""
    content = others.read_bytes().rstrip(b"\n") + b"\n" + authority.certificate.read_bytes()
    path = authority.folder / name
    if not path.is_file() or path.read_bytes() != content:
        replace_file(path, content)
    return path


def holds(file: Path, certificate: Path) -> bool:
    """Whether one PEM file holds the first certificate of another one."""
    try:
        wanted = re.search(rb"-----BEGIN CERTIFICATE-----(.+?)-----END", certificate.read_bytes(), re.DOTALL)
        return wanted is not None and b"".join(wanted[1].split()) in b"".join(file.read_bytes().split())
    except OSError:
        return False


# ── listeners ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Listener(Enum):
    """What listens on a port of loopback."""

    NOBODY = "nobody"
    OURS = "ours"
    """It has the key of the CA that was looked for."""
    ANOTHER = "another"


def listener(port: int, authority: Authority) -> Listener:
    """What listens on 127.0.0.1:`port`. A listener with the key of `authority`'s CA is a proxy of this user."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
    except OSError:
        return Listener.NOBODY
    with connection:
        try:
            context = ssl.create_default_context(cafile=authority.certificate)
            with context.wrap_socket(connection, server_hostname=_NO_HOST):
                return Listener.OURS
        except OSError:  # no CA yet, no TLS there, another CA, no answer in time
            return Listener.ANOTHER


def open_addresses(port: int, tables: Sequence[Path] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> list[str]:
    """The addresses beyond loopback on which something listens on `port`; only Linux tells."""
    return [address for table in tables if table.is_file() for address in _listening(table, port)]


def _listening(table: Path, port: int) -> Iterator[str]:
    for line in table.read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        address, _, number = local.partition(":")
        if state != "0A" or int(number, 16) != port:  # 0A: listening (include/net/tcp_states.h)
            continue
        # words of four bytes in the machine's order
        raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
        family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
        shown = socket.inet_ntop(family, raw).removeprefix("::ffff:")
        if not shown.startswith("127.") and shown != "::1":
            yield shown


# ── start and end ────────────────────────────────────────────────────────────────────────────────────────────────────


COMPANION = Path(__file__).with_name("companion.py")


def command(tool: str, authority: Authority, port: int, extra: Sequence[str] = ()) -> list[str]:
    """The command line of mitmdump, mitmweb or mitmproxy (the ones of this Python) with the addon, on loopback.

    Raises:
        BalancerError: this Python has no such program.

    """
    suffix = ".exe" if os.name == "nt" else ""
    program = Path(sys.executable).with_name(tool + suffix)
    if not program.is_file():
        raise BalancerError(f"{tool} is not beside {sys.executable}: install mitmproxy into the same environment")
    scripts = ["--scripts", str(COMPANION), "--scripts", str(SCRIPT)]
    listen = ["--listen-host", "127.0.0.1", "--listen-port", str(port)]
    quiet = ["--flow-detail", "0"] if tool == "mitmdump" else []  # the addon has its own line for each request
    return [str(program), *scripts, *listen, "--set", f"confdir={authority.folder}", *quiet, *extra]


def prompt(environ: Mapping[str, str], *, verbose: bool = False) -> dict[str, str]:
    """An environment in which a proxy's lines come out one by one, into a file or a pipe too."""
    return {**environ, "PYTHONUNBUFFERED": "1", **({VERBOSE: "1"} if verbose else {})}


@dataclass(frozen=True)
class Started:
    """A proxy that was started here."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def stop(self) -> None:
        """Stop it, and let it store what it learnt."""
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    authority: Authority, logs: Path, environ: Mapping[str, str], extra: Sequence[str] = (), alive: int | None = None
) -> Started:
    """Start a proxy on a free port of loopback, in a session of its own, and wait until it is ready.

    Args:
        authority: its CA.
        logs: the folder of its log.
        environ: its environment.
        extra: further arguments of mitmdump.
        alive: the read end of a pipe; the proxy ends when that does. None: it is stopped by its caller only.

    Raises:
        BalancerError: it ended, or was not ready in time; with its last message and the path of its log.

    """
    authority.prepare()
    authority.create()
    arguments = command("mitmdump", authority, 0, extra)
    log = _new_log(logs)
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - mitmdump of this environment
            arguments,
            env={
                **{name: value for name, value in prompt(environ).items() if name not in _KEY_LOGS},
                **({} if alive is None else {ALIVE: str(alive)}),
            },
            pass_fds=() if alive is None else (alive,),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the client's
        )
    started = Started(process, 0, log)
    try:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            if ready := _READY.search(_text(log)):
                return Started(process, int(ready[1]), log)
            time.sleep(0.02)
    except BaseException:  # Ctrl-C, above all
        started.stop()
        raise
    started.stop()
    raise BalancerError(f"the proxy did not start: {last_words(log)} (its log: {log})")


def _new_log(folder: Path) -> Path:
    """A new log file for the user alone; the oldest ones go."""
    if failure := make(folder):
        raise _error(folder, failure)
    known = sorted(folder.glob("proxy-*.log"), key=lambda path: path.stat().st_mtime)
    for old in known[: max(len(known) + 1 - KEPT_LOGS, 0)]:
        old.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(".log", "proxy-", folder)
    os.close(handle)
    return Path(name)


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def last_words(log: Path) -> str:
    """The last message of a proxy that ended: the addon's own, else the last line of its log."""
    lines = [re.sub(r"^\[[\d:.]+\] ?", "", line) for line in _text(log).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("copilot: ") and not _READY.search(line)]
    told = (ours or lines or ["it said nothing"])[-1]
    return printable(told.removeprefix("copilot: "), 400)
