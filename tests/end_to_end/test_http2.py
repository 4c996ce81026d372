"""A client that speaks HTTP/2 alone, through a real mitmdump whose upstreams speak HTTP/1.1."""

import contextlib
import json
import socket
import ssl

import h2.config
import h2.connection
import h2.errors
import h2.events

from copilot_balancer.fake.answers import Ok, Silent, limited
from support.proxies import CLIENT, WORK, until

HOST = "api.githubcopilot.com"


class Http2:
    """One connection of such a client."""

    def __init__(self, proxy) -> None:
        raw = socket.create_connection(("127.0.0.1", proxy.port), 30)
        raw.sendall(b"CONNECT %b:443 HTTP/1.1\r\n\r\n" % HOST.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        context: ssl.SSLContext = proxy.context()
        context.set_alpn_protocols(["h2"])
        self.tls = context.wrap_socket(raw, server_hostname=HOST)
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self.http2.initiate_connection()
        self.statuses: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def asks(self) -> int:
        stream = self.http2.get_next_available_stream_id()
        head = {":method": "POST", ":scheme": "https", ":path": "/chat/completions", ":authority": HOST}
        self.http2.send_headers(stream, [*head.items(), ("authorization", f"Bearer {CLIENT}")])
        body = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": str(stream)}]}
        self.http2.send_data(stream, json.dumps(body).encode(), end_stream=True)
        self.tls.sendall(self.http2.data_to_send())
        return stream

    def cancels(self, stream: int) -> None:
        self.http2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.tls.sendall(self.http2.data_to_send())

    def hears_the_end_of(self, streams: set[int]) -> None:
        while not streams <= self.ended:
            for event in self.http2.receive_data(self.tls.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    self.statuses[event.stream_id] = dict(event.headers)[b":status"]
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(event.stream_id)
                elif isinstance(event, h2.events.DataReceived):
                    self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.tls.sendall(self.http2.data_to_send())


def test_many_requests_at_once(start, fake):
    """All of them are upstream at once; those that are cancelled free their place, and the connection goes on."""
    proxy = start("--set", "connection_strategy=lazy")
    for account in fake.accounts.values():
        account.default = Silent()
    client = Http2(proxy)
    with contextlib.closing(client.tls):
        streams = [client.asks() for _ in range(12)]
        until(lambda: len(fake.asked()) == 12, "all requests to be upstream")
        for stream in streams:
            client.cancels(stream)
        until(lambda: all(seen.client_gone for seen in fake.asked()), "the upstream requests to end")
        until(lambda: len(proxy.lines()) == 12, "the lines")
        assert [line for line in proxy.lines() if "the client left" not in line] == []
        fake.accounts[WORK].default = limited(0.001)
        for token in list(fake.accounts)[1:]:
            fake.accounts[token].default = Ok()
        streams = {client.asks() for _ in range(20)}
        client.hears_the_end_of(streams)
        assert {client.statuses[stream] for stream in streams} == {b"200"}
