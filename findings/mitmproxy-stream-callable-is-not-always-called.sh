#!/bin/sh
# An addon's stream callable is not called for an answer with "Content-Length: 0", nor for an answer that the addon made itself.
#
# Package:  mitmproxy 12.3.1 (PyPI), loopback only.
# Expected: a callable that `responseheaders` puts in flow.response.stream is called with each piece and, at the end, with
#           b"" (so says the documentation of streaming), whichever way the answer has no or a ready body.
# Seen:     a chunked answer without a byte: called once with b"". "Content-Length: 0": never called, not even with b"".
#           An answer that an addon sets in `request` gets its own `responseheaders` hook, where `stream` can be set, and
#           the callable is then ignored without a word; the whole body is sent at once.
# Matters:  an addon that does its bookkeeping in the last call (b""), such as "the answer ended, free the account's
#           place, was it complete?", never does it for an event stream that a gateway answered with Content-Length: 0. And
#           an addon cannot stream an answer of its own: no keep-alive comment, no slow body.
# Output (2026-11-30):
#   three events, chunked:      called with b'data: 0\n\n' b'data: 1\n\n' b'data: 2\n\n' b''
#   no byte, chunked:           called with b''
#   no byte, content-length: 0: never called
#   made by the addon:          never called
#   SEEN: mitmproxy 12.3.1: response.stream is skipped for Content-Length: 0 and for an addon's own answer
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
"$tmp/venv/bin/pip" install -qq --no-cache-dir --disable-pip-version-check mitmproxy==12.3.1
WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import asyncio, os, signal, sys
from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    b"/events": [CHUNKED, *(b"9\r\ndata: %d\n\n\r\n" % number for number in range(3)), b"0\r\n\r\n"],
    b"/chunked": [CHUNKED, b"0\r\n\r\n"],
    b"/length": [b"Content-Length: 0\r\n\r\n"],
}


class Caller:
    def __init__(self):
        self.calls, self.heads = [], 0

    def request(self, flow):
        if flow.request.path == "/own":
            flow.response = http.Response.make(200, b"data: own\n\n", {"content-type": "text/event-stream"})

    def responseheaders(self, flow):
        self.heads += 1

        def piece(data):
            self.calls.append(data)
            return data

        flow.response.stream = piece


async def upstream(reader, writer):
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
    writer.write(HEAD)
    for part in ANSWERS[path]:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.1)
    writer.close()


async def main():
    signal.alarm(300)
    caller = Caller()
    master = DumpMaster(Options(listen_host="127.0.0.1", listen_port=0, confdir=os.environ["WORK"]),
                        with_termlog=False, with_dumper=False)
    master.addons.add(caller)
    running = asyncio.create_task(master.run())
    addresses = master.addons.get("proxyserver")
    while not addresses.listen_addrs():
        await asyncio.sleep(0.05)
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    host = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    seen = []
    for path, name in (("/events", "three events, chunked:"), ("/chunked", "no byte, chunked:"),
                       ("/length", "no byte, content-length: 0:"), ("/own", "made by the addon:")):
        caller.calls, caller.heads = [], 0
        reader, writer = await asyncio.open_connection("127.0.0.1", addresses.listen_addrs()[0][1])
        writer.write(f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
        if caller.heads != 1:
            sys.exit(f"CHANGED: responseheaders was called {caller.heads} times for {path}")
        seen.append(list(caller.calls))
        print(name.ljust(27), ("called with " + " ".join(map(repr, caller.calls))) if caller.calls else "never called")
    master.shutdown()
    await running
    server.close()
    if (b"".join(seen[0]), seen[0][-1:], seen[1:]) != (b"data: 0\n\ndata: 1\n\ndata: 2\n\n", [b""], [[b""], [], []]):
        sys.exit("CHANGED: mitmproxy calls response.stream in other cases now")
    print("SEEN: mitmproxy 12.3.1: response.stream is skipped for Content-Length: 0 and for an addon's own answer")


asyncio.run(main())
EOF
