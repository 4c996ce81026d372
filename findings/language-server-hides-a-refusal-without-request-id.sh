#!/bin/sh
# The Copilot language server shows the text of a refusal only when the answer has the header `x-github-request-id`.
#
# Package:  @github/copilot-language-server 1.539.0 (npm), driven over stdio; a CONNECT proxy with its own certificate on
#           loopback answers as Copilot's hosts (Python's standard library, certificates by the openssl command).
# Expected: an inline completion that is answered 400 with {"error": {"message": ...}} gives the editor that message as status,
#           whatever other headers the answer has; a header that only names a request for support changes nothing.
# Seen:     with any `x-github-request-id` the status is "Last response was a 400 error: " and the body. Without it the body is
#           withheld, and the editor says that the error "does not appear to originate from GitHub. Is a proxy or firewall
#           intercepting this request?". An answer with status 200 is taken with or without the header.
# Matters:  a proxy that answers by itself ("all accounts rest until 14:05") has to put an x-github-request-id on its answer, or
#           the one sentence that would help is replaced by one that sends the person to their firewall. mitmproxy's own
#           502 pages have none.
# Output (2026-11-30):
#   200 with the header:    completed
#   200 without the header: completed
#   400 with the header:    status shows the body's message
#   400 without the header: status asks for a proxy or firewall, the message is hidden
#   SEEN: language server 1.539.0 hides the message of a refusal that has no x-github-request-id
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" @github/copilot-language-server@1.539.0
cd "$tmp"
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# shellcheck disable=SC2086 # the options are words
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj /CN=loopback-ca -addext keyUsage=critical,keyCertSign 2>openssl.log
# shellcheck disable=SC2086
openssl req $key -keyout server.key -out server.csr -subj /CN=api.github.com 2>>openssl.log
echo "subjectAltName=DNS:api.github.com,DNS:api.githubcopilot.com,DNS:*.individual.githubcopilot.com" > names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 2 -extfile names -out server.pem 2>>openssl.log
"${PYTHON:-python3}" - <<'EOF'
import json, os, signal, socket, ssl, subprocess, sys, threading, time

signal.alarm(600)
work = os.getcwd()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.set_alpn_protocols(["http/1.1"])
refuse, named, asked = False, True, 0
HOSTS = {name: f"https://{name}.individual.githubcopilot.com" for name in ("api", "proxy", "telemetry")}


def completion(text, finish=None):
    return "data: " + json.dumps({"id": "1", "object": "text_completion", "created": 1, "choices": [
        {"index": 0, "text": text, "finish_reason": finish}]}) + "\n\n"


def answer(path):
    """Status, media type and body."""
    global asked
    if path == "/copilot_internal/v2/token":
        end = int(time.time()) + 1800
        return 200, "application/json", json.dumps({
            "token": f"tid=none;exp={end};sku=monthly_subscriber_quota;proxy-ep=proxy.individual.githubcopilot.com",
            "expires_at": end, "refresh_in": 1500, "sku": "monthly_subscriber_quota", "chat_enabled": True,
            "individual": True, "endpoints": HOSTS})
    if path == "/copilot_internal/user":
        return 200, "application/json", json.dumps({
            "login": "octocat", "access_type_sku": "monthly_subscriber_quota", "copilot_plan": "individual",
            "chat_enabled": True, "endpoints": HOSTS})
    if path == "/models":
        return 200, "application/json", '{"object": "list", "data": []}'
    if path.startswith("/v1/engines/"):
        asked += 1
        if refuse:
            return 400, "application/json", '{"error": {"message": "because of the moon", "code": "some_code"}}'
        return 200, "text/event-stream", completion("return a + b") + completion("", "stop") + "data: [DONE]\n\n"
    return 404, "application/json", '{"message": "Not Found"}'


def head(file):
    first, length = file.readline().decode("latin-1"), 0
    while line := file.readline().strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return first, length


def serve(connection):
    try:
        file = connection.makefile("rb")
        line, _ = head(file)
        if not (line.startswith("CONNECT ") and line.split(":")[0].endswith((".githubcopilot.com", " api.github.com"))):
            connection.sendall(b"HTTP/1.1 502 closed\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection = context.wrap_socket(connection, server_side=True)
        file = connection.makefile("rb")
        while True:
            line, length = head(file)
            if not line:
                return
            file.read(length)
            path = line.split()[1].split("?")[0]
            code, kind, body = answer(path)
            name = "x-github-request-id: A1:B2\r\n" if named or not path.startswith("/v1/engines/") else ""
            connection.sendall(f"HTTP/1.1 {code} such\r\n{name}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    except OSError:
        pass
    finally:
        connection.close()


def accept(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


class Editor:
    """A language server and its messages."""

    def __init__(self, home, environment):
        self.process = subprocess.Popen([f"{work}/node_modules/.bin/copilot-language-server", "--stdio"], cwd=home, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        start_new_session=True)
        self.results, self.status, self.number, self.lock = {}, [], 0, threading.Lock()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            length = 0
            while line := self.process.stdout.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not length:
                return
            message = json.loads(self.process.stdout.read(length))
            if "method" not in message:
                self.results[message["id"]] = message.get("result")
            elif "id" in message:
                self.send(id=message["id"], result=None)
            elif message["method"] == "statusNotification":
                self.status.append(message["params"].get("message", ""))

    def send(self, **message):
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        with self.lock:
            self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
            self.process.stdin.flush()

    def call(self, method, params):
        self.number += 1
        self.send(id=self.number, method=method, params=params)
        until = time.monotonic() + 100
        while self.number not in self.results:
            if time.monotonic() > until:
                self.end()
                sys.exit(f"CHANGED: the language server did not answer {method} within 100 s")
            time.sleep(0.05)
        return self.results[self.number]

    def end(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
proxy = "http://127.0.0.1:%d" % listener.getsockname()[1]


def ask(number):
    """What the editor gets for one inline completion in a fresh process."""
    home = f"{work}/home-{number}"
    os.makedirs(home + "/config/github-copilot")
    app = "Iv1.b507a08c87ecfe98"
    with open(home + "/config/github-copilot/apps.json", "w") as file:
        json.dump({f"github.com:{app}": {"user": "octocat", "oauth_token": "ghu_" + "a" * 36, "githubAppId": app}}, file)
    editor = Editor(home, {"PATH": os.environ["PATH"], "HOME": home, "XDG_CONFIG_HOME": home + "/config", "TMPDIR": work,
                           "NODE_EXTRA_CA_CERTS": work + "/ca.pem", "HTTPS_PROXY": proxy})
    who = {"name": "probe", "version": "1"}
    editor.call("initialize", {"processId": os.getpid(), "capabilities": {}, "workspaceFolders": [],
                               "initializationOptions": {"editorInfo": who, "editorPluginInfo": who}})
    editor.send(method="initialized", params={})
    editor.send(method="workspace/didChangeConfiguration", params={"settings": {"http": {"proxy": proxy}}})
    editor.call("checkStatus", {})
    document = {"uri": f"file://{home}/add.py", "version": 1}
    editor.send(method="textDocument/didOpen", params={
        "textDocument": {**document, "languageId": "python", "text": "def add(a, b):\n    "}})
    items = editor.call("textDocument/inlineCompletion", {
        "textDocument": document, "position": {"line": 1, "character": 4}, "context": {"triggerKind": 1},
        "formattingOptions": {"tabSize": 4, "insertSpaces": True}})
    time.sleep(1)
    editor.end()
    said = " ".join(editor.status)
    if items and items.get("items"):
        return "completed"
    if "because of the moon" in said:
        return "status shows the body's message"
    return "status asks for a proxy or firewall, the message is hidden" if "proxy or firewall" in said else f"status: {said}"


seen = []
for number, (refuse, named) in enumerate(((False, True), (False, False), (True, True), (True, False))):
    asked = 0
    seen.append(ask(number))
    print(f"{400 if refuse else 200} {'with' if named else 'without'} the header:".ljust(23), seen[-1]
          + ("" if asked else " (no completion was asked for)"), flush=True)
if seen != ["completed", "completed", "status shows the body's message",
            "status asks for a proxy or firewall, the message is hidden"]:
    sys.exit("CHANGED: the language server treats x-github-request-id in another way now")
print("SEEN: language server 1.539.0 hides the message of a refusal that has no x-github-request-id")
EOF
