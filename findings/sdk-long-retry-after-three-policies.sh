#!/bin/sh
# Five releases of SDKs from one code generator have three different answers to a long Retry-After.
#
# Packages: openai 2.20.0 and 3.57.0, anthropic 2.14.0 (PyPI); openai 7.59.0, @anthropic-ai/sdk 1.14.0 (npm). Copilot clients
#           are built on them, such as aider 0.86 on openai 2.20 and pi 1.6 on the npm packages.
# Expected: one rule for all (they share the header names and the count of 2 retries): a wait is slept up to some limit, or
#           the error is raised.
# Seen:     openai 2.20 and npm openai sleep up to 60 s; above that they ignore the header, ask again after half a second
#           and one second, and only then raise. openai 3.57 sleeps up to 120 s; above that it raises at once, no retry.
#           Both anthropic SDKs sleep whatever they are told, 25 hours too, without a word to their caller.
# Matters:  a balancing proxy whose accounts all rest has to say how long. "Retry-After: 61" makes an openai 2 / npm client
#           knock three times within two seconds; "Retry-After: 7200" on /v1/messages makes an anthropic client sit silent
#           for two hours while a second account may be free in a minute. There is no one value that is right for all:
#           a true wait up to 59 s is understood by each; above that `x-should-retry: false` beside it is.
# Output (2026-11-30; one 429 with the wait, then 200; "sleeps" = no second request within 20 s):
#   PyPI openai 2.20.0:         59 s sleeps, 61 s asks again soon, 119 s asks again soon, 121 s asks again soon, 90000 s asks again soon
#   PyPI openai 3.57.0:         59 s sleeps, 61 s sleeps, 119 s sleeps, 121 s raises at once, 90000 s raises at once
#   PyPI anthropic 2.14.0:      59 s sleeps, 61 s sleeps, 119 s sleeps, 121 s sleeps, 90000 s sleeps
#   npm openai 7.59.0:          59 s sleeps, 61 s asks again soon, 119 s asks again soon, 121 s asks again soon, 90000 s asks again soon
#   npm @anthropic-ai/sdk 1.14.0: 59 s sleeps, 61 s sleeps, 119 s sleeps, 121 s sleeps, 90000 s sleeps
#   SEEN: Retry-After above 60 s: slept, ignored or fatal, by SDK and version
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "this needs Python 3.10 or newer: set PYTHON" >&2
    exit 1
}
for pins in "old openai==2.20.0" "new openai==3.57.0 anthropic==2.14.0"; do
    set -- $pins
    where=$1
    shift
    "$python" -m venv "$tmp/$where"
    "$tmp/$where/bin/pip" install -qq --no-cache-dir --disable-pip-version-check "$@"
done
(
    cd "$tmp"
    npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" \
        openai@7.59.0 @anthropic-ai/sdk@1.14.0
)
cat > "$tmp/ask.py" <<'EOF'
import sys, threading, time
kind, base, *waits = sys.argv[1:]
module = __import__(kind)
options = dict(api_key="none", timeout=20)
seen = {}


def ask(wait):
    where = f"{base}/{wait}/{kind}{module.__version__}"
    try:
        if kind == "openai":
            client = module.OpenAI(base_url=where, **options)
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        else:
            client = module.Anthropic(base_url=where, **options)
            client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        seen[wait] = "asks again soon"
    except module.RateLimitError:
        seen[wait] = "raises at once"


threads = [threading.Thread(target=ask, args=(wait,), daemon=True) for wait in waits]
for thread in threads:
    thread.start()
until = time.monotonic() + 20
for thread in threads:
    thread.join(max(0, until - time.monotonic()))
print(f"PyPI {kind} {module.__version__}:".ljust(27), ", ".join(f"{wait} s {seen.get(wait, 'sleeps')}" for wait in waits))
EOF
cat > "$tmp/ask.mjs" <<'EOF'
import { readFileSync } from 'node:fs'
const [kind, base, ...waits] = process.argv.slice(2)
const Client = (await import(kind)).default
const version = JSON.parse(readFileSync(`node_modules/${kind}/package.json`)).version
const seen = {}
const ask = async wait => {
  const client = new Client({ apiKey: 'none', timeout: 20000, baseURL: `${base}/${wait}/${kind.replace(/\W/g, '')}-npm` })
  const body = { model: 'm', messages: [{ role: 'user', content: 'hi' }] }
  try {
    await (kind === 'openai' ? client.chat.completions.create(body) : client.messages.create({ ...body, max_tokens: 9 }))
    seen[wait] = 'asks again soon'
  } catch (error) {
    seen[wait] = error.status === 429 ? 'raises at once' : String(error)
  }
}
waits.forEach(ask)
setTimeout(() => {
  console.log(`npm ${kind} ${version}:`.padEnd(27), waits.map(wait => `${wait} s ${seen[wait] ?? 'sleeps'}`).join(', '))
  process.exit(0)
}, 20000)
EOF
TMP_WORK=$tmp "$tmp/new/bin/python" - <<'EOF'
import http.server, os, signal, subprocess, sys, threading

signal.alarm(300)
work, asked = os.environ["TMP_WORK"], set()


class Limited(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        first = self.path not in asked
        asked.add(self.path)
        body = b'{"error": {"message": "limited", "code": "rate_limited"}}' if first else (
            b'{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "type": "message", "role": "assistant", '
            b'"content": [], "choices": [], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}')
        self.send_response(429 if first else 200)
        if first:
            self.send_header("retry-after", self.path.split("/")[1])
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Limited)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
waits = ["59", "61", "119", "121", "90000"]
old, new, node = f"{work}/old/bin/python", f"{work}/new/bin/python", "node"
S, A, R = "sleeps", "asks again soon", "raises at once"
ROWS = (
    ((old, "ask.py", "openai"), (S, A, A, A, A)),
    ((new, "ask.py", "openai"), (S, S, S, R, R)),
    ((new, "ask.py", "anthropic"), (S, S, S, S, S)),
    ((node, "ask.mjs", "openai"), (S, A, A, A, A)),
    ((node, "ask.mjs", "@anthropic-ai/sdk"), (S, S, S, S, S)),
)
environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
changed = []
running = [subprocess.Popen([*command, base, *waits], cwd=work, env=environment, stdout=subprocess.PIPE, text=True)
           for command, _ in ROWS]
for (command, expected), process in zip(ROWS, running):
    line = process.communicate(timeout=200)[0].strip()
    print(line, flush=True)
    if not line.endswith(", ".join(f"{wait} s {what}" for wait, what in zip(waits, expected))):
        changed.append(" ".join(command[1:]))
if changed:
    sys.exit("CHANGED: a long Retry-After is treated in another way now by " + "; ".join(changed))
print("SEEN: Retry-After above 60 s: slept, ignored or fatal, by SDK and version")
EOF
