#!/bin/sh
# A graceful GOAWAY from an HTTP/2 upstream ends the event streams that run on that connection, though the upstream goes on
# to finish them.
#
# Package:  mitmproxy 12.3.1 and httpx 0.28.1 (PyPI); a small HTTP/2 server on loopback that writes its frames by hand.
# Expected: GOAWAY with NO_ERROR and last_stream_id = the running stream means "no new requests here, the running ones will
#           be finished" (RFC 9113, 6.8). curl and Node's http2 client read such a stream to its end.
# Seen:     mitmproxy closes the upstream connection at once; the client gets the first event and then RST_STREAM
#           (INTERNAL_ERROR) or a closed connection; the `error` hook says "HTTP/2 connection closed:
#           <ConnectionTerminated error_code:0, last_stream_id:1 ...>". httpx on its own fails in the same way.
# Matters:  load balancers send exactly this when they drain a node or after N requests on a connection. Behind the proxy
#           each long answer that runs at that moment is lost half-way, after it was paid for, and looks like a fault of
#           the upstream (or of the account). A proxy that speaks HTTP/1.1 to the upstream is not touched by it.
# Output (2026-11-30):
#   through mitmproxy: events 1 of 2, broken; error hook: HTTP/2 connection closed, error_code:0, last_stream_id:1
#   httpx, direct:     events 1 of 2, broken
#   curl, direct:      events 2 of 2, whole (only where curl speaks HTTP/2)
#   SEEN: mitmproxy 12.3.1 and httpx 0.28.1 drop a stream that a graceful GOAWAY leaves running
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
import asyncio, datetime, os, shutil, signal, ssl, sys
import h2.config, h2.connection, h2.events, httpx
from hyperframe.frame import DataFrame, GoAwayFrame
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
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    stream = None
    while stream is None and (data := await reader.read(65536)):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                stream = event.stream_id
        writer.write(connection.data_to_send())
    if stream is not None:
        connection.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        connection.send_data(stream, b"data: 1\n\n")
        writer.write(connection.data_to_send())
        await asyncio.sleep(0.3)
        writer.write(GoAwayFrame(stream_id=0, last_stream_id=stream, error_code=0).serialize())
        await asyncio.sleep(0.3)
        writer.write(DataFrame(stream_id=stream, data=b"data: 2\n\n", flags=["END_STREAM"]).serialize())
        await asyncio.sleep(0.3)
    writer.close()


async def ask(port, proxy=None):
    got = b""
    async with httpx.AsyncClient(http2=True, proxy=proxy, verify=False, timeout=20) as client:
        try:
            async with client.stream("GET", f"https://localhost:{port}/") as answer:
                async for piece in answer.aiter_raw():
                    got += piece
            end = "whole"
        except httpx.HTTPError:
            end = "broken"
    return got.count(b"data: "), end


async def main():
    signal.alarm(300)
    server = await asyncio.start_server(upstream, "127.0.0.1", 0, ssl=certificate())
    port = server.sockets[0].getsockname()[1]
    seen = Seen()
    master = DumpMaster(Options(listen_host="127.0.0.1", listen_port=0, confdir=work),
                        with_termlog=False, with_dumper=False)
    master.addons.add(seen)
    master.options.update(ssl_insecure=True)
    running = asyncio.create_task(master.run())
    addresses = master.addons.get("proxyserver")
    while not addresses.listen_addrs():
        await asyncio.sleep(0.05)
    through = await ask(port, "http://127.0.0.1:%d" % addresses.listen_addrs()[0][1])
    await asyncio.sleep(0.2)
    said = "HTTP/2 connection closed" in seen.errors[0] and "error_code:0, last_stream_id:1" in seen.errors[0]
    print(f"through mitmproxy: events {through[0]} of 2, {through[1]}; error hook: "
          + ("HTTP/2 connection closed, error_code:0, last_stream_id:1" if said else str(seen.errors)), flush=True)
    direct = await ask(port)
    print(f"httpx, direct:     events {direct[0]} of 2, {direct[1]}", flush=True)
    if shutil.which("curl"):
        curl = await asyncio.create_subprocess_exec("curl", "-qsk", "--http2", "--max-time", "20", "--noproxy", "*",
                                                    f"https://localhost:{port}/", stdout=asyncio.subprocess.PIPE)
        got, _ = await curl.communicate()
        if got:
            print(f"curl, direct:      events {got.count(b'data: ')} of 2, {'broken' if curl.returncode else 'whole'}")
    master.shutdown()
    await running
    server.close()
    if through != (1, "broken") or direct != (1, "broken") or not said:
        sys.exit("CHANGED: a stream now outlives a graceful GOAWAY in mitmproxy or httpx, or is named otherwise")
    print("SEEN: mitmproxy 12.3.1 and httpx 0.28.1 drop a stream that a graceful GOAWAY leaves running")


asyncio.run(main())
EOF
