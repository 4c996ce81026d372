"""Whose a loopback connection is: asked of the kernel, by both ways."""

import asyncio
import errno
import os
import socket
import subprocess
import sys

import pytest

from copilot_balancer.proxy.guard import peer_uid

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells whose a connection is")
ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="another user needs root")
WAYS = [pytest.param(peer_uid.by_netlink, id="netlink"), pytest.param(peer_uid.by_proc, id="proc")]
NOBODY = 65534

CONNECT = """
import os, socket, sys
"".encode("idna")  # loaded while we may still read Python's own folder
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
client = socket.create_connection(({host!r}, {port}))
print(client.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def fresh():
    """The way is found anew in each test."""
    peer_uid.way.cache_clear()
    yield
    peer_uid.way.cache_clear()


@pytest.fixture(params=["127.0.0.1", "::1", "::ffff:127.0.0.1"], ids=["IPv4", "IPv6", "IPv4 in IPv6's clothes"])
def pair(request):
    """A connected pair on loopback: the client's socket, and both ends as the server sees them."""
    family = socket.AF_INET if request.param == "127.0.0.1" else socket.AF_INET6
    at = "127.0.0.1" if "." in request.param else "::1"
    try:
        server = socket.create_server((at, 0), family=socket.AF_INET6 if at == "::1" else socket.AF_INET)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server, socket.socket(family) as client:
        client.connect((request.param, server.getsockname()[1]))
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted.getpeername()[:2], accepted.getsockname()[:2]


@LINUX
@pytest.mark.parametrize("way", WAYS)
def test_our_own(way, pair):
    """A connection of this process belongs to its user, in either family; half-closed it still does."""
    client, ours, servers = pair
    assert way(ours, servers) == os.geteuid()
    mapped = tuple((f"::ffff:{host}" if "." in host else host, port) for host, port in (ours, servers))
    assert way(*mapped) == os.geteuid()
    client.shutdown(socket.SHUT_WR)
    assert way(ours, servers) == os.geteuid()


@LINUX
@pytest.mark.parametrize("way", WAYS)
def test_who_hangs_up_is_not_root(way, pair):
    """A socket that nobody holds has uid 0 in the kernel's words; it has no owner in ours."""
    client, ours, servers = pair
    client.close()
    assert way(ours, servers) is None


@LINUX
@pytest.mark.parametrize("way", WAYS)
def test_nobody_there(way):
    """Ends that are no connection belong to nobody; neither does one who merely listens at the client's port."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        assert way(other.getsockname(), server.getsockname()) is None
        assert way(("127.0.0.1", 1), server.getsockname()) is None


@LINUX
@ROOT
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_another_user(way, host):
    """A connection of another user's process is told as theirs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        program = CONNECT.format(uid=NOBODY, host=host, port=server.getsockname()[1])
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            port = int(process.stdout.readline())
            assert way((host, port), server.getsockname()[:2]) == NOBODY
            process.stdin.close()


@LINUX
def test_the_kernel_is_asked_first(monkeypatch, pair):
    """One socket is asked for; the list of all is read where that does not work, and off the event loop."""
    _, ours, servers = pair
    assert peer_uid.way() is peer_uid.by_netlink
    assert asyncio.run(peer_uid.owner_of(ours, servers)) == os.geteuid()

    def broken(*_):
        raise OSError(errno.EPROTONOSUPPORT, "no such protocol")

    monkeypatch.setattr(peer_uid, "by_netlink", broken)
    peer_uid.way.cache_clear()
    assert peer_uid.way() is peer_uid.by_proc
    assert asyncio.run(peer_uid.owner_of(ours, servers)) == os.geteuid()


@LINUX
def test_a_way_that_finds_nothing_is_none(monkeypatch):
    """A kernel that does not know our own connection is not believed about others'."""
    monkeypatch.setattr(peer_uid, "by_netlink", lambda *_: None)
    monkeypatch.setattr(peer_uid, "by_proc", lambda *_: os.geteuid() + 1)
    assert peer_uid.way() is None


@pytest.mark.parametrize("why", ["another system", "no socket"])
def test_where_it_is_not_told(monkeypatch, why):
    """Elsewhere there is no way, and asking is an error, never an answer."""
    if why == "another system":
        monkeypatch.setattr(peer_uid.sys, "platform", "darwin")
    else:
        monkeypatch.setattr(peer_uid.sys, "platform", "linux")
        monkeypatch.setattr(peer_uid.socket, "create_server", lambda *_: (_ for _ in ()).throw(OSError(24, "too many")))
    assert peer_uid.way() is None
    with pytest.raises(OSError, match="does not tell"):
        asyncio.run(peer_uid.owner_of(("127.0.0.1", 1), ("127.0.0.1", 2)))


def test_a_list_without_ipv6(monkeypatch, tmp_path):
    """A kernel without IPv6 has one list only; the other's absence is no error."""
    monkeypatch.setattr(peer_uid, "Path", lambda name: tmp_path / name.rpartition("/")[2])
    (tmp_path / "tcp").write_text("  sl  local_address rem_address   st\n")
    assert peer_uid.by_proc(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
