"""Finds the uid that owns the client's socket of a loopback TCP connection. Linux tells; other systems do not.

Laws of this file:

1. It says who somebody is, never whether they may come in.
2. The kernel is asked for one socket (``sock_diag``, some 20 µs whatever the number of connections), and its long list
   ``/proc/net/tcp`` is read, in a thread, only where that is not there (a kernel without the module, a sandbox).
3. A socket that nobody holds any more has no owner. The kernel shows such a one with uid 0 and no inode: believing the
   uid would make root of everybody who hangs up.
"""

import asyncio
import functools
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

type Address = tuple[str, int]
"""An IP address and a port, as ``getpeername`` tells them (an IPv6 one without its flow and scope)."""

type Way = Callable[[Address, Address], int | None]
"""(the client's end, the server's end) -> the uid that holds the client's end; None: nobody in this system does."""

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = struct.pack("=II", 0xFFFFFFFF, 0xFFFFFFFF)
_HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, sequence, port. Source: linux/netlink.h."""
_ASKED = struct.Struct("=BBBxI")
"""``struct inet_diag_req_v2`` before its id: family, protocol, extensions, states. Source: linux/inet_diag.h."""
_TOLD = struct.Struct("=IIIII")
"""``struct inet_diag_msg`` after its id: expires, rqueue, wqueue, uid, inode. Source: linux/inet_diag.h."""
_ENDS = 36
"""Bytes of ``struct inet_diag_sockid`` that name both ends: two ports and two addresses of 16 bytes."""
_ID = 48
"""Bytes of ``struct inet_diag_sockid``."""


@functools.cache
def way() -> Way | None:
    """The first way in which this system tells who holds a connection of our own; None: it does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            ends = client.getsockname(), client.getpeername()
            return next((found for found in (by_netlink, by_proc) if _tells(found, *ends)), None)
    except OSError:
        return None


async def owner_of(client: Address, server: Address) -> int | None:
    """The uid that holds the client's end of a TCP connection on this machine; None: nobody in this system does.

    None is a client that has hung up, or one that sits in another network namespace.

    Raises:
        OSError: it cannot be told, now or (``way() is None``) ever.

    """
    found = way()
    if found is None:
        raise OSError("this system does not tell who holds a connection")
    if found is by_netlink:
        return by_netlink(client, server)
    return await asyncio.to_thread(found, client, server)


def by_netlink(client: Address, server: Address) -> int | None:
    """Ask the kernel for this one socket (sock_diag(7))."""
    ends = _plain(client), _plain(server)
    family = socket.AF_INET if ends[0].version == ends[1].version == 4 else socket.AF_INET6
    named = struct.pack("!HH", client[1], server[1]) + b"".join(end.packed.ljust(16, b"\0") for end in ends)
    body = _ASKED.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE) + named + struct.pack("=I", 0) + _NO_COOKIE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)  # it answers while we ask
        kernel.sendto(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + body, (0, 0))
        told = kernel.recv(4096)
    if len(told) < _HEADER.size + 4 + _ID + _TOLD.size or _HEADER.unpack_from(told)[1] != _SOCK_DIAG_BY_FAMILY:
        return None  # an error message: there is none
    start = _HEADER.size + 4
    if told[start : start + 4] != named[:4]:
        return None  # not this connection but somebody who listens at the client's port
    uid, inode = _TOLD.unpack_from(told, start + _ID)[3:]
    return int(uid) if inode else None


def by_proc(client: Address, server: Address) -> int | None:
    """Look for the socket in the kernel's list of all (proc(5))."""
    four = f" {_in_proc(client, mapped=False)} {_in_proc(server, mapped=False)} ".encode()
    six = f" {_in_proc(client, mapped=True)} {_in_proc(server, mapped=True)} ".encode()
    for path, wanted in (("/proc/net/tcp", four), ("/proc/net/tcp6", six)):
        try:
            with Path(path).open("rb") as file:
                found = next((line for line in file if wanted in line), None)
        except FileNotFoundError:  # a kernel without IPv6
            continue
        if found is not None:
            _, _, _, _, _, _, _, uid, _, inode, *_ = found.split()
            return int(uid) if int(inode) else None
    return None


def _tells(found: Way, client: Address, server: Address) -> bool:
    try:
        return found(client, server) == os.geteuid()
    except OSError:
        return False


def _plain(end: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; an IPv4 one in IPv6's clothes (``::ffff:127.0.0.1``) without them."""
    address = ipaddress.ip_address(end[0].partition("%")[0])
    return (address.version == 6 and address.ipv4_mapped) or address


def _in_proc(end: Address, *, mapped: bool) -> str:
    """An end as the list writes it: words of 32 bits in this machine's order, then the port."""
    address = _plain(end)
    raw = address.packed
    if mapped and address.version == 4:
        raw = ipaddress.IPv6Address(f"::ffff:{address}").packed
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
