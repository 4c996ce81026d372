#!/bin/sh
# The idle time-out (`tcp_timeout`) ends a silent event stream over HTTP/1.1 and never over HTTP/2; and it is reported as
# the client's leaving.
#
# Package:  mitmproxy 12.3.1 (PyPI); httpx 0.28.1 with h2 as client and a small HTTP/2 server on loopback.
# Expected: an upstream that sends nothing for `tcp_timeout` seconds (600 unless set) is cut off, whatever the HTTP version,
#           and the addon's `error` hook says so.
# Seen:     over HTTP/1.1 the stream is cut at `tcp_timeout`. Over HTTP/2 it is not: the proxy's own wake-up for its
#           keep-alive ping (`http2_ping_keepalive`, each 58 s unless set) counts as activity, so the time-out never
#           comes; with the ping off it does. When it comes, flow.error says "Client disconnected." (HTTP/1.1) or
#           "peer closed connection" (HTTP/2), although the client sat there waiting; the client sees a broken body.
# Matters:  a model that thinks for 11 minutes without a byte is cut for HTTP/1.1 clients (opencode, Copilot CLI) and not
#           for HTTP/2 clients (codex, language server). And with HTTP/2 nothing ends a stream whose upstream stays silent
#           for ever. Who counts "client left" in the `error` hook counts the proxy's own time-outs among them.
# Output (2026-11-30, tcp_timeout=2, the second event comes after 5 s):
#   HTTP/1.1, ping each 1 s: cut in the silence, error hook: Client disconnected.
#   HTTP/1.1, no ping:       cut in the silence, error hook: Client disconnected.
#   HTTP/2,   ping each 1 s: whole
#   HTTP/2,   no ping:       cut in the silence, error hook: peer closed connection
#   SEEN: mitmproxy 12.3.1: tcp_timeout cuts a silent HTTP/1.1 stream, and an HTTP/2 one only without keep-alive pings
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
"$tmp/venv/bin/pip" install -qq --no-cache-dir --disable-pip-version-check mitmproxy==12.3.1 'httpx[http2]==0.28.1'
WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import asyncio, datetime, os, signal, ssl, sys
import h2.config, h2.connection, h2.events, httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster

work = os.environ["WORK"]


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.timezone.utc)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256()))
    with open(work + "/server.pem", "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                     serialization.NoEncryption()))
        file.write(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work + "/server.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class Seen:
    def __init__(self):
        self.errors = []

    def responseheaders(self, flow):
        flow.response.stream = True

    def error(self, flow):
        self.errors.append(flow.error.msg)


async def upstream(reader, writer):
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"9\r\ndata: 1\n\n\r\n")
        await asyncio.sleep(5)
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        writer.close()
        return
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())

    async def answer(stream):
        connection.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        connection.send_data(stream, b"data: 1\n\n")
        writer.write(connection.data_to_send())
        await asyncio.sleep(5)
        connection.send_data(stream, b"data: 2\n\n", end_stream=True)
        writer.write(connection.data_to_send())

    answers = []
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                answers.append(asyncio.create_task(answer(event.stream_id)))
        writer.write(connection.data_to_send())
    for one in answers:
        one.cancel()
    writer.close()


async def one(port, http2, ping):
    seen = Seen()
    master = DumpMaster(Options(listen_host="127.0.0.1", listen_port=0, confdir=work),
                        with_termlog=False, with_dumper=False)
    master.addons.add(seen)
    master.options.update(ssl_insecure=True, tcp_timeout=2, http2_ping_keepalive=ping)
    running = asyncio.create_task(master.run())
    server = master.addons.get("proxyserver")
    while not server.listen_addrs():
        await asyncio.sleep(0.05)
    proxy = "http://127.0.0.1:%d" % server.listen_addrs()[0][1]
    async with httpx.AsyncClient(http2=http2, proxy=proxy, verify=False, timeout=20) as client:
        try:
            async with client.stream("GET", f"https://localhost:{port}/") as answer:
                async for _ in answer.aiter_raw():
                    pass
            end = "whole"
        except httpx.HTTPError:
            end = "cut in the silence"
    await asyncio.sleep(0.2)
    master.shutdown()
    await running
    name = ("HTTP/2,  " if http2 else "HTTP/1.1,") + (" ping each 1 s: " if ping else " no ping:       ")
    print(name + end + "".join(f", error hook: {text}" for text in seen.errors), flush=True)
    return end, seen.errors


async def main():
    signal.alarm(300)
    server = await asyncio.start_server(upstream, "127.0.0.1", 0, ssl=certificate())
    port = server.sockets[0].getsockname()[1]
    ends = [await one(port, http2, ping) for http2 in (False, True) for ping in (1, 0)]
    server.close()
    gone = ("cut in the silence", ["Client disconnected."])
    if ends != [gone, gone, ("whole", []), ("cut in the silence", ["peer closed connection"])]:
        sys.exit("CHANGED: tcp_timeout treats HTTP/1.1 and HTTP/2 streams in another way now, or names it otherwise")
    print("SEEN: mitmproxy 12.3.1: tcp_timeout cuts a silent HTTP/1.1 stream, "
          "and an HTTP/2 one only without keep-alive pings")


asyncio.run(main())
EOF
