"""A parent proxy for tests: answers CONNECT on loopback and leads every host to the fake."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Parent:
    """One that runs."""

    port: int
    asked: list[bytes] = field(default_factory=list)
    """The heads of the CONNECT requests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hosts(self) -> list[str]:
        return [head.split()[1].decode().partition(":")[0] for head in self.asked]


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _serve(parent: Parent, client: socket.socket, target: int, needs: bytes | None, mute: bool) -> None:
    head = b""
    with client, contextlib.suppress(OSError):
        while b"\r\n\r\n" not in head:
            if not (data := client.recv(4096)):
                return
            head += data
        parent.asked.append(head)
        if mute:
            client.recv(1)
        elif needs is not None and needs not in head:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
        else:
            with socket.create_connection(("127.0.0.1", target)) as upstream:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_relay, args=(upstream, client))
                back.start()
                _relay(client, upstream)
                back.join()


@contextlib.contextmanager
def parent_proxy(target: int, *, needs: bytes | None = None, mute: bool = False) -> Iterator[Parent]:
    """Run one that leads to the port `target`; `needs` must stand in a CONNECT, and a `mute` one never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        parent = Parent(listening.getsockname()[1])

        threads: list[threading.Thread] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threads.append(threading.Thread(target=_serve, args=(parent, client, target, needs, mute)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield parent
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join(10)
