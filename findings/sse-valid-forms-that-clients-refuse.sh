#!/bin/sh
# Two valid forms of an event stream break clients: an event that has a name but no data, and lines that end in CR.
#
# Packages: openai 3.57.0 (PyPI); openai 7.59.0, @ai-sdk/openai-compatible 3.0.92 (the layer below opencode),
#           @github/copilot 1.0.102, @openai/codex 0.171.0 (npm). Copilot CLI and codex use a loopback provider by their own settings.
# Expected: "event: ping" and an empty line is an event without data, which a reader drops; CR alone ends a line as LF and CRLF do
#           (both: WHATWG HTML, "Interpreting an event stream"). Each client prints the whole answer after one request.
# Seen:     an `event: ping` before the first chunk: both openai SDKs end the answer with a JSON error; the Copilot CLI asks
#           six times, waits 5 s in all and fails with exit code 1. CR line ends: codex reads the text, does not find the
#           end, asks six times and prints the answer again each time, exit code 1. A comment (": ping") is fine everywhere.
# Matters:  a proxy that keeps a held-back answer alive must send comments with LF, never a bare `event: ping`
#           (Anthropic's ping events carry data). A proxy that passes bytes through has to expect that one client fails on a
#           stream that the next one reads, and that it is the client who repeats, not the upstream who broke off.
# Output (2026-11-30):
#   client                           comment           event: ping       CR
#   PyPI openai 3.57.0               whole, asked 1    broken, asked 1   whole, asked 1
#   npm openai 7.59.0                whole, asked 1    broken, asked 1   whole, asked 1
#   @ai-sdk/openai-compatible 3.0.92 whole, asked 1    whole, asked 1    whole, asked 1
#   Copilot CLI 1.0.102              whole, asked 1    broken, asked 6   whole, asked 1
#   codex 0.171.0                    whole, asked 1    whole, asked 1    broken, asked 6
#   SEEN: an event without data breaks the openai SDKs and the Copilot CLI, CR line ends break codex
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "this needs Python 3.10 or newer: set PYTHON" >&2
    exit 1
}
"$python" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -qq --no-cache-dir --disable-pip-version-check openai==3.57.0
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" \
    openai@7.59.0 @ai-sdk/openai-compatible@3.0.92 @github/copilot@1.0.102 @openai/codex@0.171.0
cat > "$tmp/ask.py" <<'EOF'
import sys
import openai
for chunk in openai.OpenAI(api_key="none", base_url=sys.argv[1]).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True):
    print(chunk.choices[0].delta.content or "", end="")
EOF
cat > "$tmp/ask.mjs" <<'EOF'
import OpenAI from 'openai'
const client = new OpenAI({ apiKey: 'none', baseURL: process.argv[2] })
const messages = [{ role: 'user', content: 'hi' }]
for await (const chunk of await client.chat.completions.create({ model: 'm', messages, stream: true }))
  process.stdout.write(chunk.choices[0].delta.content ?? '')
EOF
cat > "$tmp/sdk.mjs" <<'EOF'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
const model = createOpenAICompatible({ name: 'x', baseURL: process.argv[2], apiKey: 'none' })('m')
const { stream } = await model.doStream({ prompt: [{ role: 'user', content: [{ type: 'text', text: 'hi' }] }] })
for await (const part of stream) {
  if (part.type === 'text-delta') process.stdout.write(part.delta)
  if (part.type === 'error') process.exitCode = 1
}
EOF
mkdir "$tmp/home" "$tmp/home/codex"
TMP_WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import http.server, json, os, signal, subprocess, sys, threading

signal.alarm(900)
work, asked, lock = os.environ["TMP_WORK"], {}, threading.Lock()
TEXT = ["one ", "two ", "three"]


def sse(*events):
    return "".join(("event: %s\n" % event["type"] if "type" in event else "") + "data: %s\n\n" % json.dumps(event)
                   for event in events)


def chunk(delta, finish=None):
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


ITEM = {"id": "i1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "".join(TEXT), "annotations": []}]}
STREAMS = {
    "chat": sse(*(chunk({"role": "assistant", "content": part}) for part in TEXT), chunk({}, "stop")) + "data: [DONE]\n\n",
    "responses": sse(
        {"type": "response.created", "response": {"id": "r1", "object": "response", "status": "in_progress", "output": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
        {"type": "response.completed", "response": {
            "id": "r1", "object": "response", "status": "completed", "output": [ITEM],
            "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
                      "output_tokens_details": {"reasoning_tokens": 0}}}}),
}
FORMS = {"comment": lambda text: ": ping\n\n" + text, "event": lambda text: "event: ping\n\n" + text,
         "cr": lambda text: text.replace("\n", "\r")}


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        _, case, form = self.path.split("/")[:3]
        with lock:
            asked[case] = asked.get(case, 0) + 1
        body = FORMS[form](STREAMS["responses" if "/responses" in self.path else "chat"]).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
plain.update(HOME=work + "/home", TMPDIR=work, NO_COLOR="1", TERM="dumb")
bin = work + "/node_modules/.bin/"


def program(kind, base):
    """Command and environment of one client that talks to `base`."""
    if kind.startswith("Copilot CLI"):
        return [bin + "copilot", "-p", "say hi", "--allow-all-tools", "--disable-builtin-mcps"], {
            "COPILOT_OFFLINE": "true", "COPILOT_AUTO_UPDATE": "false", "COPILOT_PROVIDER_BASE_URL": base,
            "COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": "gpt-5-mini", "COPILOT_PKG_CACHE_HOME": work + "/home/cache"}
    if kind.startswith("codex"):
        settings = {"model": "gpt-5-mini", "model_provider": "fake", "model_providers.fake.name": "fake",
                    "model_providers.fake.base_url": base, "model_providers.fake.wire_api": "responses",
                    "model_providers.fake.env_key": "FAKE_KEY"}
        options = [part for name, value in settings.items() for part in ("-c", f'{name}="{value}"')]
        return [bin + "codex", "exec", "--skip-git-repo-check", *options, "say hi"], {
            "CODEX_HOME": work + "/home/codex", "FAKE_KEY": "none"}
    if kind.startswith("PyPI"):
        return [sys.executable, "ask.py", base], {}
    return ["node", "ask.mjs" if kind.startswith("npm") else "sdk.mjs", base], {}


W, B = "whole, asked 1", "broken, asked "
ROWS = (("PyPI openai 3.57.0", [W, B + "1", W]), ("npm openai 7.59.0", [W, B + "1", W]),
        ("@ai-sdk/openai-compatible 3.0.92", [W, W, W]), ("Copilot CLI 1.0.102", [W, B + "6", W]),
        ("codex 0.171.0", [W, W, B + "6"]))
print("client".ljust(32), *(name.ljust(17) for name in ("comment", "event: ping", "CR")))
changed = []
for row, (kind, expected) in enumerate(ROWS):
    seen = []
    for form in FORMS:
        command, more = program(kind, f"http://127.0.0.1:{server.server_port}/{row}-{form}/{form}/v1")
        process = subprocess.Popen(command, cwd=work + ("/home" if more else ""), env={**plain, **more}, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        try:
            text, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            sys.exit(f"CHANGED: {kind} did not end within 120 s")
        whole = process.returncode == 0 and "".join(TEXT) in text
        seen.append(f"{'whole' if whole else 'broken'}, asked {asked.get(f'{row}-{form}', 0)}")
    print(kind.ljust(32), *(what.ljust(17) for what in seen), flush=True)
    if seen != expected:
        changed.append(kind)
if changed:
    sys.exit("CHANGED: these forms of an event stream are read in another way now by " + ", ".join(changed))
print("SEEN: an event without data breaks the openai SDKs and the Copilot CLI, CR line ends break codex")
EOF
