"""The proxy on this machine: its CA, who listens, how it starts and ends."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy.certs import CertStore

from copilot_balancer.cli.clients import local_proxy
from copilot_balancer.cli.clients.local_proxy import (
    KEPT_LOGS,
    Authority,
    Listener,
    command,
    holds,
    last_words,
    listener,
    open_addresses,
    own_authority,
    start,
    system_bundle,
    trust_all,
    trust_more,
    usual_authority,
)
from copilot_balancer.errors import BalancerError
from support.machine import made_ca  # noqa: F401 - a fixture
from support.proxies import free_port

THEIRS = "-----BEGIN CERTIFICATE-----\nVEhFSVJT\n-----END CERTIFICATE-----\n"


@pytest.fixture
def authority(tmp_path, made_ca):  # noqa: F811 - a fixture
    """A CA that is there already."""
    found = Authority(tmp_path / "state" / "mitmproxy")
    found.prepare()
    shutil.copytree(made_ca, found.folder, dirs_exist_ok=True)
    return found


# --- the CA


def test_where_they_are(tmp_path):
    """Our own CA stands beside the accounts, the one of a proxy that was started by hand where mitmproxy puts it."""
    assert own_authority(tmp_path).certificate == tmp_path / "mitmproxy" / "mitmproxy-ca-cert.pem"
    assert usual_authority(tmp_path).key == tmp_path / ".mitmproxy" / "mitmproxy-ca.pem"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_ca_is_for_the_user_alone(tmp_path, umask):
    """Whatever the umask, nobody else can enter the CA's folder or read its key."""
    found = own_authority(tmp_path / "state")
    before = os.umask(umask)
    try:
        found.create()
    finally:
        os.umask(before)
    assert stat.S_IMODE(found.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(found.key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in found.certificate.read_bytes()
    made = found.key.read_bytes()
    found.create()
    assert found.key.read_bytes() == made


def test_a_folder_that_others_may_use(tmp_path):
    """A CA folder that others may use is refused, with what to do."""
    found = own_authority(tmp_path)
    found.folder.mkdir()
    found.folder.chmod(0o755)
    with pytest.raises(BalancerError, match="chmod 700"):
        found.create()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BalancerError, match="Remedy"):
        own_authority(tmp_path / "file").prepare()


@pytest.mark.parametrize(
    ("program", "said"), [("raise ValueError('no luck')", "no luck"), ("raise SystemExit(3)", "why")]
)
def test_a_ca_that_cannot_be_made(tmp_path, monkeypatch, program, said):
    """When mitmproxy cannot make its CA its last words are told."""
    monkeypatch.setattr(local_proxy, "_MAKE_CA", program)
    with pytest.raises(BalancerError, match=f"cannot make its CA.*{said}"):
        own_authority(tmp_path).create()


def test_a_ca_of_our_own_name(tmp_path):
    """A new CA is named after this program and this computer; it holds what mitmproxy expects in its folder."""
    found = own_authority(tmp_path)
    found.create()
    name = x509.load_pem_x509_certificate(found.certificate.read_bytes()).subject.rfc4514_string()
    assert name == f"O=copilot-balancer,CN=copilot-balancer on {socket.gethostname()}"
    CertStore.from_store(found.folder, "mitmproxy", 2048)  # raises where key and certificate are no pair
    assert [path for path in tmp_path.iterdir() if path != found.folder] == []


def test_a_ca_that_exists_stays(authority, monkeypatch):
    """Neither a whole CA nor a key alone is replaced, and a CA that is made meanwhile by another process wins."""
    before = {path.name: path.read_bytes() for path in authority.folder.iterdir()}
    authority.create()
    assert {path.name: path.read_bytes() for path in authority.folder.iterdir()} == before
    authority.certificate.unlink()
    authority.create()
    assert authority.key.read_bytes() == before[authority.key.name]


def test_two_that_make_a_ca_at_once(tmp_path):
    """Of several processes that make the CA at the same time one wins, and all see a whole one."""
    found = own_authority(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(found.create) for _ in range(4)]:
            done.result()
            CertStore.from_store(found.folder, "mitmproxy", 2048)
    certificate = x509.load_pem_x509_certificate(found.certificate.read_bytes())
    key = serialization.load_pem_private_key(found.key.read_bytes().partition(b"-----BEGIN CERT")[0], None)
    assert certificate.public_key() == key.public_key()
    assert {path.name for path in tmp_path.iterdir()} == {found.folder.name}


# --- what clients trust


def test_trust_more(authority, tmp_path):
    """The file holds the proxy's CA, and beside it whatever the user's environment named already; a second time it stays."""
    assert trust_more(authority, {}) == authority.certificate
    assert trust_more(authority, {"NODE_EXTRA_CA_CERTS": str(tmp_path / "gone.pem")}) == authority.certificate
    theirs = tmp_path / "company.pem"
    theirs.write_text(THEIRS)
    found = trust_more(authority, {"NODE_EXTRA_CA_CERTS": str(theirs)})
    assert found.read_text() == THEIRS + authority.certificate.read_text()
    assert found.parent == authority.folder
    assert trust_more(authority, {"NODE_EXTRA_CA_CERTS": str(found)}) == found
    inode = found.stat().st_ino
    assert trust_more(authority, {"NODE_EXTRA_CA_CERTS": str(theirs)}).stat().st_ino == inode


def test_trust_all(authority, tmp_path, monkeypatch):
    """The file holds the system's CAs and the proxy's; Python trusts both by it."""
    bundle = tmp_path / "system.pem"
    bundle.write_text(THEIRS)
    monkeypatch.setattr(local_proxy, "SYSTEM_BUNDLES", (str(tmp_path / "none"), str(bundle)))
    assert system_bundle({}) == bundle
    found = trust_all(authority, {})
    assert found.read_text() == THEIRS + authority.certificate.read_text()
    other = tmp_path / "other.pem"
    other.write_text(authority.certificate.read_text())
    assert trust_all(authority, {"SSL_CERT_FILE": str(other)}) == other
    monkeypatch.setattr(local_proxy, "SYSTEM_BUNDLES", ())
    assert trust_all(authority, {}) is None


def test_holds(authority, tmp_path):
    """A certificate is found however its lines are broken, and nowhere where it is not."""
    other = tmp_path / "other.pem"
    other.write_text(THEIRS + authority.certificate.read_text().replace("\n", "\r\n"))
    assert holds(other, authority.certificate)
    other.write_text(THEIRS)
    assert not holds(other, authority.certificate)
    assert not holds(tmp_path / "gone", authority.certificate)
    assert not holds(other, tmp_path / "gone")
    (tmp_path / "empty").write_text("")
    assert not holds(other, tmp_path / "empty")


# --- who listens


@contextlib.contextmanager
def answering(answer):
    """Something that listens, and answers each connection with `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_nobody_listens(authority):
    """A port where nobody answers is nobody's."""
    assert listener(free_port(), authority) is Listener.NOBODY


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="a web server"),
        pytest.param(lambda _: None, id="closes"),
    ],
)
def test_another_program_listens(authority, answer):
    """Whatever cannot prove itself is another program."""
    with answering(answer) as port:
        assert listener(port, authority) is Listener.ANOTHER


def test_a_program_that_never_answers(authority, monkeypatch):
    """Nobody waits long for a program that says nothing."""
    monkeypatch.setattr(local_proxy, "ANSWER_SECONDS", 0.2)
    done = threading.Event()
    with answering(lambda _: done.wait(5)) as port:
        assert listener(port, authority) is Listener.ANOTHER
        done.set()


def test_another_ca(authority, tmp_path):
    """Who shows a certificate for the name, but of another CA, is another program; so is everybody before we have a CA."""
    other = own_authority(tmp_path / "other")
    other.create()
    pem = tmp_path / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem, "-out", tmp_path / "cert.pem",
         "-subj", "/CN=copilot-balancer.invalid", "-addext", "subjectAltName=DNS:copilot-balancer.invalid"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", pem)

    def handshake(connection):
        context.wrap_socket(connection, server_side=True).close()

    with answering(handshake) as port:
        assert listener(port, authority) is Listener.ANOTHER
        assert listener(port, own_authority(tmp_path / "nothing")) is Listener.ANOTHER


TABLE = """  sl  local_address rem_address   st tx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000
   1: 00000000:1F90 00000000:0000 0A 00000000
   2: 00000000:1F91 00000000:0000 0A 00000000
   3: 0F02000A:1F90 0100007F:BEEF 01 00000000
"""
TABLE6 = """  sl  local_address remote_address st
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A
   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A
   2: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A
   3: 0000000000000000FFFF00000F02000A:1F90 00000000000000000000000000000000:0000 0A
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is one of a little-endian machine")
def test_open_addresses(tmp_path):
    """Only listening sockets of this port that are reached from beyond loopback are told."""
    (tmp_path / "tcp").write_text(TABLE)
    (tmp_path / "tcp6").write_text(TABLE6)
    assert open_addresses(8080, (tmp_path / "tcp", tmp_path / "tcp6", tmp_path / "none")) == [
        "0.0.0.0",
        "::",
        "10.0.2.15",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize(("host", "told"), [("127.0.0.1", []), ("0.0.0.0", ["0.0.0.0"])])
def test_open_addresses_of_this_machine(host, told):
    """The system's own table is read right."""
    with socket.create_server((host, 0)) as server:
        assert open_addresses(server.getsockname()[1]) == told


# --- start and end


def test_command(tmp_path):
    """The command line names mitmproxy's own program of this Python, the addon, loopback, our CA, and what the user said."""
    found = command("mitmdump", Authority(tmp_path), 8081, ("--set", "copilot_log=errors"))
    assert found[0] == str(Path(sys.executable).with_name("mitmdump"))
    ours = [Path(local_proxy.__file__).with_name("companion.py"), Path(local_proxy.__file__).parents[2] / "script.py"]
    assert found[1:5] == ["--scripts", str(ours[0]), "--scripts", str(ours[1])]
    assert all(path.is_file() for path in ours)
    assert found[5:9] == ["--listen-host", "127.0.0.1", "--listen-port", "8081"]
    assert f"confdir={tmp_path}" in found
    assert found[-2:] == ["--set", "copilot_log=errors"]


def test_without_mitmproxy(tmp_path, monkeypatch):
    """Without mitmproxy's programs beside Python it is said where to install them."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BalancerError, match=r"mitmweb is not beside .*python: install mitmproxy"):
        command("mitmweb", Authority(tmp_path), 8080)


def environ_of(folder):
    return {**os.environ, "COPILOT_BALANCER_HOME": str(folder)}


def test_start_and_stop(authority, tmp_path):
    """A proxy starts on a free port of loopback, proves that it is ours, and ends; its log is for the user alone."""
    logs = tmp_path / "logs"
    key_log = tmp_path / "keys"
    started = start(authority, logs, {**environ_of(tmp_path), "SSLKEYLOGFILE": str(key_log)})
    try:
        assert listener(started.port, authority) is Listener.OURS
        assert listener(started.port, own_authority(tmp_path / "other")) is Listener.ANOTHER
        assert open_addresses(started.port) == []
        assert os.getsid(started.process.pid) == started.process.pid
    finally:
        started.stop()
    assert started.process.returncode == 0
    assert listener(started.port, authority) is Listener.NOBODY
    assert stat.S_IMODE(started.log.stat().st_mode) == 0o600
    assert "copilot: ready on" in started.log.read_text()
    assert not key_log.exists()


def test_a_proxy_that_does_not_start(authority, tmp_path):
    """A proxy that ends at once is an error with the addon's own words and the place of its log."""
    with pytest.raises(BalancerError, match=r"did not start: .*copilot_wait must be .*proxy-.*\.log") as caught:
        start(authority, tmp_path / "logs", environ_of(tmp_path), ["--set", "copilot_wait=x"])
    assert "\n" not in str(caught.value)


def silent(monkeypatch, tmp_path, script):
    """Let a program of a test take the place of mitmdump."""
    program = tmp_path / "mitmdump"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_a_proxy_that_is_never_ready(authority, tmp_path, monkeypatch):
    """A proxy that is not ready in time is ended, by force where it must be."""
    silent(monkeypatch, tmp_path, "trap '' TERM; echo hanging; while :; do sleep 0.05; done")
    monkeypatch.setattr(local_proxy, "START_SECONDS", 0.3)
    monkeypatch.setattr(local_proxy, "END_SECONDS", 0.3)
    with pytest.raises(BalancerError, match="did not start: hanging"):
        start(authority, tmp_path / "logs", environ_of(tmp_path))


def test_interrupted_while_it_starts(authority, tmp_path, monkeypatch):
    """Ctrl-C while the proxy starts ends the proxy too."""
    silent(monkeypatch, tmp_path, "echo $$ > pid; exec sleep 60")
    monkeypatch.chdir(tmp_path)

    def interrupt(_seconds):
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt
        os.sched_yield()

    monkeypatch.setattr(local_proxy, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    with pytest.raises(KeyboardInterrupt):
        start(authority, tmp_path / "logs", environ_of(tmp_path))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


def test_old_logs_go(authority, tmp_path, monkeypatch):
    """Of the logs only the newest few are kept."""
    silent(monkeypatch, tmp_path, 'echo "copilot: ready on 127.0.0.1:1"; exec sleep 60')
    logs = tmp_path / "logs"
    made = []
    for number in range(KEPT_LOGS + 2):
        started = start(authority, logs, environ_of(tmp_path))
        started.stop()
        os.utime(started.log, (number, number))
        made.append(started.log)
    assert sorted(logs.iterdir()) == sorted(made[-KEPT_LOGS:])


def test_logs_that_cannot_be_written(authority, tmp_path):
    """A place for logs that cannot be made is one sentence."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(BalancerError, match="Remedy"):
        start(authority, tmp_path / "file" / "logs", environ_of(tmp_path))


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("", "it said nothing"),
        ("[10:11:12.131] one\n\n[10:11:12.132] two\n", "two"),
        ("[10:11:12.131] copilot: a bad value\n[10:11:12.132] Traceback\n", "a bad value"),
        ("copilot: ready on 127.0.0.1:80\nthen it fell\x1b[31m\n", r"then it fell\x1b[31m"),
    ],
)
def test_last_words(tmp_path, log, told):
    """The addon's own complaint comes before mitmproxy's; nothing unprintable is told."""
    path = tmp_path / "log"
    path.write_text(log)
    assert last_words(path) == told
