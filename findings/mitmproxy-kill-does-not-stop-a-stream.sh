#!/bin/sh
# flow.kill() does not stop an answer that is already streaming, nor an open WebSocket.
#
# Package:  mitmproxy 12.3.1 (PyPI), run in one process with a small addon; websockets 17.4 as peer.
# Expected: flow.kill() called while an event stream runs (from the stream callable) ends the answer within that event,
#           as it does in a hook before the answer; on an open WebSocket it closes both sides.
# Seen:     every later event still reaches the client, the upstream is read to its end, and only then is the
#           connection closed without the last chunk: the client paid for, read and showed the whole text, and then
#           sees a broken stream. The `error` hook is not called; `response` is, with flow.error "Connection killed.".
#           On a WebSocket messages go on in both directions as if nothing had been called.
# Matters:  a proxy that wants to stop a stream (a budget reached, an account withdrawn, a leaked secret seen) cannot
#           do it with kill(): it has to raise in, or end, its own stream callable or close the connection. A counter
#           that counts killed flows in the `error` hook misses these.
# Output (2026-11-30):
#   event stream: killed at event 2 of 5, client got 5 events, last chunk missing, hooks: response
#   WebSocket: killed after message 1, client still got "echo 2"
#   SEEN: mitmproxy 12.3.1: flow.kill() stops neither a running event stream nor an open WebSocket
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || {
    echo "this needs Python 3.12 or newer: set PYTHON" >&2
    exit 1
}
"$python" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -qq --no-cache-dir --disable-pip-version-check mitmproxy==12.3.1 websockets==17.4
WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import asyncio, os, signal, sys
from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

signal.alarm(300)


class Killer:
    def __init__(self):
        self.hooks, self.flow = [], None

    def responseheaders(self, flow):
        self.flow, pieces = flow, []

        def piece(data):
            pieces.append(data)
            if len(pieces) == 2:
                flow.kill()
            return data

        if flow.response.status_code == 200:
            flow.response.stream = piece

    def response(self, flow):
        if flow.response.status_code == 200:
            self.hooks.append("response")

    def error(self, flow):
        self.hooks.append("error")


async def events(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(1, 6):
        writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
        await writer.drain()
        await asyncio.sleep(0.1)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    writer.close()


async def echo(socket):
    async for message in socket:
        await socket.send("echo " + message)


async def main():
    killer = Killer()
    master = DumpMaster(Options(listen_host="127.0.0.1", listen_port=0, confdir=os.environ["WORK"]),
                        with_termlog=False, with_dumper=False)
    master.addons.add(killer)
    running = asyncio.create_task(master.run())
    server = master.addons.get("proxyserver")
    while not server.listen_addrs():
        await asyncio.sleep(0.05)
    proxy = server.listen_addrs()[0][1]

    upstream = await asyncio.start_server(events, "127.0.0.1", 0)
    host = "127.0.0.1:%d" % upstream.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
    writer.write(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    got, whole = answer.count(b"data: "), answer.endswith(b"0\r\n\r\n")
    print(f"event stream: killed at event 2 of 5, client got {got} events, "
          f"last chunk {'there' if whole else 'missing'}, hooks: {' '.join(killer.hooks)}")

    async with serve(echo, "127.0.0.1", 0) as sockets:
        port = sockets.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/", proxy=f"http://127.0.0.1:{proxy}") as client:
            await client.send("1")
            await client.recv()
            killer.flow.kill()
            await client.send("2")
            try:
                second = await asyncio.wait_for(client.recv(), 3)
            except Exception as error:
                second = type(error).__name__
            print(f'WebSocket: killed after message 1, client still got "{second}"')
    upstream.close()
    master.shutdown()
    await running
    if (got, whole, killer.hooks, second) != (5, False, ["response"], "echo 2"):
        sys.exit("CHANGED: flow.kill() on a running stream behaves differently now")
    print("SEEN: mitmproxy 12.3.1: flow.kill() stops neither a running event stream nor an open WebSocket")


asyncio.run(main())
EOF
