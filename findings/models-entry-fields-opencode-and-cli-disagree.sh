#!/bin/sh
# Which fields a /models entry must have: opencode and the Copilot CLI want opposite things of the same entry.
#
# Packages: opencode-ai 1.18.33, @github/copilot 1.0.102 (npm); a CONNECT proxy with its own certificate on loopback answers as
#           Copilot's hosts (Python's standard library, certificates by the openssl command).
# Expected: an entry that one Copilot client accepts is accepted by the other; a missing boolean means false in both.
# Seen:     supports.tool_calls: opencode takes the entry when it is false and drops it when it is missing; the CLI takes it
#           when it is missing and refuses it when it is false. policy.state "unconfigured" and a missing model_picker_enabled
#           go opposite ways too. opencode drops entries without version, name, limits or supports without a word; the
#           CLI needs none of these.
# Matters:  a proxy that builds a /models entry itself, completes one account's list from another's, or trims entries, has to
#           copy whole entries: each "harmless" gap hides the model from one client, and no log says why. Entries from two
#           accounts may be mixed in a list, but never the fields of one entry.
# Output (2026-11-30):
#   entry                        opencode 1.18.33   Copilot CLI 1.0.102
#   complete                     listed             served
#   tool_calls missing           dropped            served
#   tool_calls false             listed             refused
#   policy unconfigured          listed             refused
#   policy missing               listed             served
#   model_picker_enabled missing dropped            served
#   version missing              dropped            served
#   limits missing               dropped            served
#   SEEN: opencode and the Copilot CLI disagree on 6 of 8 forms of a /models entry
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" opencode-ai@1.18.33 @github/copilot@1.0.102
cd "$tmp"
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# shellcheck disable=SC2086 # the options are words
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj /CN=loopback-ca -addext keyUsage=critical,keyCertSign 2>openssl.log
# shellcheck disable=SC2086
openssl req $key -keyout server.key -out server.csr -subj /CN=api.github.com 2>>openssl.log
echo "subjectAltName=DNS:api.github.com,DNS:api.githubcopilot.com" > names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 2 -extfile names -out server.pem 2>>openssl.log
"${PYTHON:-python3}" - <<'EOF'
import json, os, signal, socket, ssl, subprocess, sys, threading

signal.alarm(900)
work = os.getcwd()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.set_alpn_protocols(["http/1.1"])
models, posts = [], []
USER = {"login": "octocat", "access_type_sku": "monthly_subscriber_quota", "copilot_plan": "individual", "chat_enabled": True,
        "endpoints": {"api": "https://api.githubcopilot.com", "telemetry": "https://api.githubcopilot.com"}}


def entry(name, *path, value=None):
    """A complete entry, with the field at `path` set to `value`, or taken out."""
    made = {
        "id": name, "name": name, "object": "model", "vendor": "OpenAI", "version": name, "preview": False,
        "model_picker_enabled": True, "policy": {"state": "enabled", "terms": ""}, "supported_endpoints": ["/chat/completions"],
        "billing": {"is_premium": False, "multiplier": 0},
        "capabilities": {
            "family": name, "object": "model_capabilities", "tokenizer": "o200k_base", "type": "chat",
            "limits": {"max_context_window_tokens": 128000, "max_output_tokens": 16384, "max_prompt_tokens": 128000},
            "supports": {"streaming": True, "tool_calls": True, "parallel_tool_calls": True}}}
    at = made
    for part in path[:-1]:
        at = at[part]
    if path and value is None:
        del at[path[-1]]
    elif path:
        at[path[-1]] = value
    return made


def chunk(delta, finish=None):
    return "data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                  "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + "\n\n"


def answer(line):
    path = line.split()[1].split("?")[0]
    if path == "/models":
        return 200, "application/json", json.dumps({"object": "list", "data": models})
    if path == "/copilot_internal/user":
        return 200, "application/json", json.dumps(USER)
    if path == "/chat/completions":
        posts.append(path)
        return 200, "text/event-stream", chunk({"role": "assistant", "content": "hello"}) + chunk({}, "stop") + "data: [DONE]\n\n"
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
        if line.split(":")[0] not in ("CONNECT api.github.com", "CONNECT api.githubcopilot.com"):
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
            code, kind, body = answer(line)
            connection.sendall(f"HTTP/1.1 {code} such\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
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
home = work + "/home"
os.makedirs(home + "/data/opencode")
with open(home + "/data/opencode/auth.json", "w") as file:
    json.dump({"github-copilot": {"type": "oauth", "refresh": "gho_none", "access": "gho_none", "expires": 0}}, file)
proxy = "http://127.0.0.1:%d" % listener.getsockname()[1]
environment = {
    "PATH": os.environ["PATH"], "HOME": home, "TMPDIR": work, "NO_COLOR": "1", "TERM": "dumb", "HTTPS_PROXY": proxy,
    "NODE_EXTRA_CA_CERTS": work + "/ca.pem", "XDG_CONFIG_HOME": home + "/config", "XDG_DATA_HOME": home + "/data",
    "XDG_CACHE_HOME": home + "/cache", "XDG_STATE_HOME": home + "/state", "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1", "COPILOT_AUTO_UPDATE": "false",
    "COPILOT_GITHUB_TOKEN": "gho_" + "a" * 36, "COPILOT_PKG_CACHE_HOME": home + "/cache/copilot"}


def run(*command):
    process = subprocess.Popen([f"{work}/node_modules/.bin/{command[0]}", *command[1:]], cwd=home, env=environment, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        return process.communicate(timeout=180)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        sys.exit(f"CHANGED: {command[0]} did not end within 180 s")


TOOLS = ("capabilities", "supports", "tool_calls")
FORMS = (
    ("complete", (), None, "listed", "served"),
    ("tool_calls missing", TOOLS, None, "dropped", "served"),
    ("tool_calls false", TOOLS, False, "listed", "refused"),
    ("policy unconfigured", ("policy", "state"), "unconfigured", "listed", "refused"),
    ("policy missing", ("policy",), None, "listed", "served"),
    ("model_picker_enabled missing", ("model_picker_enabled",), None, "dropped", "served"),
    ("version missing", ("version",), None, "dropped", "served"),
    ("limits missing", ("capabilities", "limits"), None, "dropped", "served"),
)
models[:] = [entry(f"form-{number}", *path, value=value) for number, (_, path, value, *_) in enumerate(FORMS)]
listed = run("opencode", "models", "github-copilot").split()
print("entry".ljust(28), "opencode 1.18.33   Copilot CLI 1.0.102", flush=True)
changed = []
for number, (name, path, value, *expected) in enumerate(FORMS):
    models[:] = [entry("gpt-5-mini", *path, value=value), entry("claude-sonnet-4.5")]
    posts.clear()
    run("copilot", "-p", "say hi", "--allow-all-tools", "--disable-builtin-mcps", "--model", "gpt-5-mini")
    seen = ["listed" if f"github-copilot/form-{number}" in listed else "dropped", "served" if posts else "refused"]
    print(name.ljust(28), seen[0].ljust(18), seen[1], flush=True)
    if seen != expected:
        changed.append(name)
if changed:
    sys.exit("CHANGED: opencode or the Copilot CLI treats these entries in another way now: " + ", ".join(changed))
print("SEEN: opencode and the Copilot CLI disagree on 6 of 8 forms of a /models entry")
EOF
