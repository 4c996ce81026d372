#!/bin/sh
# A WebSocket whose peer vanishes without a Close frame is closed towards the other side with code 1000, "normal".
#
# Package:  mitmproxy 12.3.1 (PyPI); raw sockets on loopback at both ends.
# Expected: when the upstream's connection ends without a Close frame (RFC 6455: code 1006, never on the wire), the client's
#           connection ends in the same way, or with 1011 / 1014, so that it knows that the answer is cut.
# Seen:     mitmproxy writes a proper Close frame with code 1000 to the other side, in both directions. Only the addon
#           knows: flow.websocket.close_code is 1006. A Close frame that was really sent (1011, 4001) is passed on as it is.
# Matters:  Copilot's `ws:/responses` answers may run for minutes over one WebSocket. When the upstream dies in the middle, a
#           client without a proxy sees an abnormal end and sends its turn again; behind the proxy it sees "all went well,
#           goodbye" after half an answer. A client must look for its own last event, and so must an addon.
# Output (2026-11-30):
#   upstream drops the connection: client reads code none direct, code 1000 through the proxy; addon sees 1006
#   client drops the connection:   upstream reads code none direct, code 1000 through the proxy; addon sees 1006
#   SEEN: mitmproxy 12.3.1: a WebSocket that broke off is told to the other side as closed normally (1000)
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
import asyncio, base64, hashlib, os, signal, sys
from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster


class Seen:
    def __init__(self):
        self.codes = []

    def websocket_end(self, flow):
        self.codes.append(int(flow.websocket.close_code))


def close_code(data):
    """The code in the Close frame that ends `data`, or None without one."""
    at = data.rfind(b"\x88")
    if at < 0:
        return None
    if data[at + 1] & 0x80:
        mask, body = data[at + 2:at + 6], data[at + 6:at + 8]
        body = bytes(one ^ mask[index] for index, one in enumerate(body))
    else:
        body = data[at + 2:at + 4]
    return int.from_bytes(body)


async def one(who, proxy):
    heard = asyncio.get_running_loop().create_future()

    async def upstream(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81\x04half")
        await writer.drain()
        if who == "upstream":
            await asyncio.sleep(0.3)
        else:
            heard.set_result(await reader.read(-1))
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy or port)
    writer.write(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                 "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                 "Sec-WebSocket-Version: 13\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n\x81\x04half")
    if who == "client":
        writer.close()
        data = await asyncio.wait_for(heard, 10)
    else:
        data = await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
    server.close()
    return close_code(data)


async def main():
    signal.alarm(300)
    seen = Seen()
    master = DumpMaster(Options(listen_host="127.0.0.1", listen_port=0, confdir=os.environ["WORK"]),
                        with_termlog=False, with_dumper=False)
    master.addons.add(seen)
    running = asyncio.create_task(master.run())
    addresses = master.addons.get("proxyserver")
    while not addresses.listen_addrs():
        await asyncio.sleep(0.05)
    proxy = addresses.listen_addrs()[0][1]
    rows = []
    for who, other in (("upstream", "client"), ("client", "upstream")):
        direct, through = await one(who, None), await one(who, proxy)
        await asyncio.sleep(0.2)
        rows.append((direct, through, seen.codes.pop()))
        print(f"{who} drops the connection:".ljust(30), f"{other} reads code {direct or 'none'} direct, "
              f"code {through or 'none'} through the proxy; addon sees {rows[-1][2]}")
    master.shutdown()
    await running
    if rows != [(None, 1000, 1006)] * 2:
        sys.exit("CHANGED: mitmproxy passes the loss of a WebSocket on in another way now")
    print("SEEN: mitmproxy 12.3.1: a WebSocket that broke off is told to the other side as closed normally (1000)")


asyncio.run(main())
EOF
