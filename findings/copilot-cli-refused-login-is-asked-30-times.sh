#!/bin/sh
# One start of the Copilot CLI with a refused token asks GitHub for the user more than 25 times within seconds.
#
# Package:  @github/copilot 1.0.102 (npm), run with `-p`; a CONNECT proxy with its own certificate on loopback (Python's standard
#           library, certificates by the openssl command) answers for api.github.com.
# Expected: GET /copilot_internal/user answered with 401 {"message": "Bad credentials"} is asked once, or once more, and the
#           CLI ends with "not authenticated". A 500 is tried a few times with growing waits.
# Seen:     33 to 35 requests for a 401 in some seconds, on one start of the program, and 55 for a 500. Then exit code 1 with
#           the hint to log in.
# Matters:  a proxy that passes this path on hands GitHub the burst, and a script that starts `copilot -p` in a loop with a dead
#           token is a flood. A proxy should answer repeated refusals of one credential from memory for some seconds,
#           and not write a log line for each.
# Output (2026-11-30; the counts vary by a few):
#   401: 33 requests in 2.3 s, exit code 1
#   500: 55 requests in 8.9 s, exit code 1
#   SEEN: Copilot CLI 1.0.102 asks a refused /copilot_internal/user more than 25 times per start
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" @github/copilot@1.0.102
cd "$tmp"
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# shellcheck disable=SC2086 # the options are words
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj /CN=loopback-ca -addext keyUsage=critical,keyCertSign 2>openssl.log
# shellcheck disable=SC2086
openssl req $key -keyout server.key -out server.csr -subj /CN=api.github.com 2>>openssl.log
echo "subjectAltName=DNS:api.github.com" > names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 2 -extfile names -out server.pem 2>>openssl.log
"${PYTHON:-python3}" - <<'EOF'
import os, signal, socket, ssl, subprocess, sys, threading, time

signal.alarm(400)
work = os.getcwd()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.set_alpn_protocols(["http/1.1"])
times, status = [], "401"


def head(file):
    first = file.readline().decode("latin-1")
    while file.readline().strip():
        pass
    return first


def serve(connection):
    try:
        file = connection.makefile("rb")
        if not head(file).startswith("CONNECT api.github.com:"):
            connection.sendall(b"HTTP/1.1 502 closed\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection = context.wrap_socket(connection, server_side=True)
        file = connection.makefile("rb")
        while line := head(file):
            code = "404"
            if line.startswith("GET /copilot_internal/user"):
                times.append(time.monotonic())
                code = status
            body = b'{"message": "Bad credentials"}'
            connection.sendall(b"HTTP/1.1 %s no\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                               % (code.encode(), len(body), body))
    except OSError:
        pass
    finally:
        connection.close()


def accept(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
environment = {
    "PATH": os.environ["PATH"], "HOME": work + "/home", "TMPDIR": work, "NO_COLOR": "1", "TERM": "dumb", "COPILOT_AUTO_UPDATE": "false",
    "COPILOT_GITHUB_TOKEN": "gho_" + "a" * 36, "COPILOT_PKG_CACHE_HOME": work + "/home/cache",
    "HTTPS_PROXY": "http://127.0.0.1:%d" % listener.getsockname()[1], "NODE_EXTRA_CA_CERTS": work + "/ca.pem"}
os.mkdir("home")
few = []
for status in ("401", "500"):
    times.clear()
    process = subprocess.Popen([work + "/node_modules/.bin/copilot", "-p", "say hi", "--allow-all-tools"], cwd=work + "/home",
                               env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        code = process.wait(180)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        sys.exit(f"CHANGED: the Copilot CLI did not end within 180 s after {status}")
    seconds = times[-1] - times[0] if times else 0
    print(f"{status}: {len(times)} requests in {seconds:.1f} s, exit code {code}", flush=True)
    if len(times) <= 25 or code != 1:
        few.append(status)
if few:
    sys.exit("CHANGED: the Copilot CLI asks less often now, or ends in another way, after " + " and ".join(few))
print("SEEN: Copilot CLI 1.0.102 asks a refused /copilot_internal/user more than 25 times per start")
EOF
