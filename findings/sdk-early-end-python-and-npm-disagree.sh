#!/bin/sh
# A stream that ends too early: where the Python SDK returns half an answer as final, the npm SDK of the same name raises, and the
# other way round, in all three APIs.
#
# Packages: openai 3.57.0, anthropic 2.14.0 (PyPI); openai 7.59.0, @anthropic-ai/sdk 1.14.0 (npm). Their own helpers for "give me
#           the final message" are used, not the raw iteration over events.
# Expected: an event stream that ends, properly chunked, after some text but without finish_reason / response.completed /
#           message_stop is an error in each helper, in both languages.
# Seen:     Python: chat and messages return the half text as the final message (finish_reason and stop_reason None), responses
#           raises. npm: chat and messages raise, responses returns the half text (status "in_progress"). Nobody asks again.
# Matters:  a proxy that ends a broken upstream stream politely (last chunk, END_STREAM) makes half an answer a whole one
#           for one half of the clients: it has to break the connection, so that each client sees a fault. And "my client
#           noticed" says nothing about the next client, though it uses "the same SDK".
# Output (2026-11-30):
#   PyPI chat:      half text returned as final
#   PyPI responses: raises
#   PyPI messages:  half text returned as final
#   npm  chat:      raises
#   npm  responses: half text returned as final
#   npm  messages:  raises
#   SEEN: openai/anthropic: an early end is final in Python for chat and messages, in npm for responses
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
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" openai@7.59.0 @anthropic-ai/sdk@1.14.0
cat > "$tmp/ask.py" <<'EOF'
import sys
import anthropic, openai
api, base = sys.argv[1:]
one, other = openai.OpenAI(api_key="none", base_url=base + "/v1"), anthropic.Anthropic(api_key="none", base_url=base)
messages = [{"role": "user", "content": "hi"}]
try:
    if api == "chat":
        with one.chat.completions.stream(model="m", messages=messages) as stream:
            text = stream.get_final_completion().choices[0].message.content
    elif api == "responses":
        with one.responses.stream(model="m", input="hi") as stream:
            text = stream.get_final_response().output_text
    else:
        with other.messages.stream(model="m", max_tokens=9, messages=messages) as stream:
            text = stream.get_final_message().content[0].text
    print("returned", text)
except Exception as error:
    print("raised", error)
EOF
cat > "$tmp/ask.mjs" <<'EOF'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
const [api, base] = process.argv.slice(2)
const one = new OpenAI({ apiKey: 'none', baseURL: base + '/v1' })
const other = new Anthropic({ apiKey: 'none', baseURL: base })
const messages = [{ role: 'user', content: 'hi' }]
try {
  let text
  if (api === 'chat')
    text = (await one.chat.completions.stream({ model: 'm', messages }).finalChatCompletion()).choices[0].message.content
  else if (api === 'responses')
    text = (await one.responses.stream({ model: 'm', input: 'hi' }).finalResponse()).output_text
  else
    text = (await other.messages.stream({ model: 'm', max_tokens: 9, messages }).finalMessage()).content[0].text
  console.log('returned', text)
} catch (error) {
  console.log('raised', error.message)
}
EOF
TMP_WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import http.server, json, os, signal, subprocess, sys, threading

signal.alarm(300)
work, asked = os.environ["TMP_WORK"], []
ITEM = {"id": "i1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
PART = {"type": "output_text", "text": "", "annotations": []}
HALVES = {
    "chat": [{"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": "half"}, "finish_reason": None}]}],
    "responses": [
        {"type": "response.created", "sequence_number": 0, "response": {
            "id": "r1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": ITEM},
        {"type": "response.content_part.added", "sequence_number": 2, "item_id": "i1", "output_index": 0,
         "content_index": 0, "part": PART},
        {"type": "response.output_text.delta", "sequence_number": 3, "item_id": "i1", "output_index": 0,
         "content_index": 0, "delta": "half"}],
    "messages": [
        {"type": "message_start", "message": {
            "id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}}],
}


class Half(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked.append(self.path)
        api = "chat" if "/chat/" in self.path else "responses" if "/responses" in self.path else "messages"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in HALVES[api]:
            name = f"event: {event['type']}\n" if "type" in event else ""
            data = f"{name}data: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Half)
threading.Thread(target=server.serve_forever, daemon=True).start()
environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
HALF, RAISES = "half text returned as final", "raises"
EXPECTED = {("PyPI", "chat"): HALF, ("PyPI", "responses"): RAISES, ("PyPI", "messages"): HALF,
            ("npm ", "chat"): RAISES, ("npm ", "responses"): HALF, ("npm ", "messages"): RAISES}
changed = []
for (where, api), expected in EXPECTED.items():
    command = [sys.executable, "ask.py"] if where == "PyPI" else ["node", "ask.mjs"]
    asked.clear()
    done = subprocess.run([*command, api, f"http://127.0.0.1:{server.server_port}"], cwd=work, env=environment,
                          capture_output=True, text=True, timeout=120)
    seen = {"returned half": HALF}.get(done.stdout.strip(), RAISES if done.stdout.startswith("raised") else done.stderr[-200:])
    print(f"{where} {api}:".ljust(15), seen + ("" if len(asked) == 1 else f", asked {len(asked)} times"), flush=True)
    if seen != expected or len(asked) != 1:
        changed.append(f"{where.strip()} {api}")
if changed:
    sys.exit("CHANGED: an early end is treated in another way now by " + ", ".join(changed))
print("SEEN: openai/anthropic: an early end is final in Python for chat and messages, in npm for responses")
EOF
