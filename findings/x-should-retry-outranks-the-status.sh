#!/bin/sh
# The answer header `x-should-retry` decides over the status: "false" ends a 429 at once, "true" makes clients repeat a 402.
#
# Packages: openai 3.57.0, anthropic 2.14.0 (PyPI); openai 7.59.0, @anthropic-ai/sdk 1.14.0, @github/copilot 1.0.102,
#           @openai/codex 0.171.0 (npm). The Copilot CLI and codex are pointed at a loopback provider by their own settings.
# Expected: clients decide by status and Retry-After: 429 is tried again, 402 is not. A header that no RFC and no Copilot page
#           names changes nothing, and a closed program with its own HTTP stack (the Copilot CLI) does not know it.
# Seen:     all four SDKs and the Copilot CLI obey `x-should-retry` in both directions. codex does not look at it (and
#           repeats a 402, but not a 429 without Retry-After, whatever the header says).
# Matters:  with this header a proxy whose accounts all rest can make the Copilot CLI and every SDK client show the reason
#           now, instead of silence through five retries of 5 to 22 s. And a gateway that copies the upstream's
#           answer with `x-should-retry: true` makes clients hammer an exhausted account.
# Output (2026-11-30; the first answer is the one named, the second would be 200):
#   client                        429          429+false    402          402+true
#   PyPI openai 3.57.0            asks again   gives up     gives up     asks again
#   PyPI anthropic 2.14.0         asks again   gives up     gives up     asks again
#   npm openai 7.59.0             asks again   gives up     gives up     asks again
#   npm @anthropic-ai/sdk 1.14.0  asks again   gives up     gives up     asks again
#   Copilot CLI 1.0.102           asks again   gives up     gives up     asks again
#   codex 0.171.0                 gives up     gives up     asks again   asks again
#   SEEN: x-should-retry is obeyed by the openai and anthropic SDKs and by the Copilot CLI, not by codex
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
"$tmp/venv/bin/pip" install -qq --no-cache-dir --disable-pip-version-check openai==3.57.0 anthropic==2.14.0
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" \
    openai@7.59.0 @anthropic-ai/sdk@1.14.0 @github/copilot@1.0.102 @openai/codex@0.171.0
cat > "$tmp/ask.py" <<'EOF'
import sys
kind, base = sys.argv[1:]
module = __import__(kind)
if kind == "openai":
    module.OpenAI(api_key="none", base_url=base).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}])
else:
    module.Anthropic(api_key="none", base_url=base).messages.create(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
EOF
cat > "$tmp/ask.mjs" <<'EOF'
const [kind, base] = process.argv.slice(2)
const client = new (await import(kind)).default({ apiKey: 'none', baseURL: base })
const body = { model: 'm', messages: [{ role: 'user', content: 'hi' }] }
await (kind === 'openai' ? client.chat.completions.create(body) : client.messages.create({ ...body, max_tokens: 9 }))
EOF
mkdir "$tmp/home" "$tmp/home/codex"
TMP_WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import http.server, json, os, signal, subprocess, sys, threading, time

signal.alarm(900)
work, asked, lock = os.environ["TMP_WORK"], {}, threading.Lock()


def sse(*events):
    return "".join(("event: %s\n" % event["type"] if "type" in event else "") + "data: %s\n\n" % json.dumps(event)
                   for event in events)


def chunk(delta, finish=None):
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


CHAT = sse(chunk({"role": "assistant", "content": "hello"}), chunk({}, "stop")) + "data: [DONE]\n\n"
ITEM = {"id": "i1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "hello", "annotations": []}]}
RESPONSES = sse(
    {"type": "response.created", "response": {"id": "r1", "object": "response", "status": "in_progress", "output": []}},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": {"id": "r1", "object": "response", "status": "completed", "output": [ITEM],
     "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
               "output_tokens_details": {"reasoning_tokens": 0}}}})
PLAIN = ('{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "type": "message", "role": "assistant", '
         '"content": [], "choices": [], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}')


class Limited(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        _, case, status, header = self.path.split("/")[:4]
        with lock:
            asked[case] = number = asked.get(case, 0) + 1
        self.send_response(int(status) if number == 1 else 200)
        if number == 1:
            answer, kind = '{"error": {"message": "limited", "code": "quota"}}', "application/json"
            if header != "none":
                self.send_header("x-should-retry", header)
        elif body.get("stream"):
            answer, kind = (RESPONSES if "/responses" in self.path else CHAT), "text/event-stream"
        else:
            answer, kind = PLAIN, "application/json"
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Limited)
threading.Thread(target=server.serve_forever, daemon=True).start()
plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
plain.update(HOME=work + "/home", TMPDIR=work, NO_COLOR="1", TERM="dumb")
bin = work + "/node_modules/.bin/"


def program(kind, base):
    """Command and environment of one client that talks to `base`."""
    if kind == "Copilot CLI 1.0.102":
        return [bin + "copilot", "-p", "say hi", "--allow-all-tools", "--disable-builtin-mcps"], {
            "COPILOT_OFFLINE": "true", "COPILOT_AUTO_UPDATE": "false", "COPILOT_PROVIDER_BASE_URL": base,
            "COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": "gpt-5-mini", "COPILOT_PKG_CACHE_HOME": work + "/home/cache"}
    if kind == "codex 0.171.0":
        settings = {"model": "gpt-5-mini", "model_provider": "fake", "model_providers.fake.name": "fake",
                    "model_providers.fake.base_url": base, "model_providers.fake.wire_api": "responses",
                    "model_providers.fake.env_key": "FAKE_KEY"}
        options = [part for name, value in settings.items() for part in ("-c", f'{name}="{value}"')]
        return [bin + "codex", "exec", "--skip-git-repo-check", *options, "say hi"], {
            "CODEX_HOME": work + "/home/codex", "FAKE_KEY": "none"}
    where, name, _ = kind.split()
    return ([sys.executable, "ask.py", name, base] if where == "PyPI" else ["node", "ask.mjs", name, base]), {}


COLUMNS = (("429", "429", "none"), ("429+false", "429", "false"), ("402", "402", "none"), ("402+true", "402", "true"))
YES, NO = "asks again", "gives up"
OBEYS = [YES, NO, NO, YES]
ROWS = (("PyPI openai 3.57.0", OBEYS), ("PyPI anthropic 2.14.0", OBEYS), ("npm openai 7.59.0", OBEYS),
        ("npm @anthropic-ai/sdk 1.14.0", OBEYS), ("Copilot CLI 1.0.102", OBEYS), ("codex 0.171.0", [NO, NO, YES, YES]))
print("client".ljust(29), *(name.ljust(12) for name, *_ in COLUMNS))
changed = []
for row, (kind, expected) in enumerate(ROWS):
    seen = []
    for name, status, header in COLUMNS:
        case = f"{row}-{name}"
        command, more = program(kind, f"http://127.0.0.1:{server.server_port}/{case}/{status}/{header}/v1")
        process = subprocess.Popen(command, cwd=work + ("/home" if more else ""), env={**plain, **more}, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            sys.exit(f"CHANGED: {kind} did not end within 120 s after {name}")
        seen.append({0: "asked nothing", 1: NO}.get(asked.get(case, 0), YES))
    print(kind.ljust(29), *(what.ljust(12) for what in seen), flush=True)
    if seen != expected:
        changed.append(kind)
if changed:
    sys.exit("CHANGED: x-should-retry is treated in another way now by " + ", ".join(changed))
print("SEEN: x-should-retry is obeyed by the openai and anthropic SDKs and by the Copilot CLI, not by codex")
EOF
