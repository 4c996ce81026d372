#!/bin/sh
# Node's fetch sends a POST twice when the answer is 421, and turns a 407 into a failure without status or body.
#
# Packages: node 24.21.0 and openai 7.59.0 (npm); a small Node server on loopback, no proxy.
# Expected: each status of an answer reaches the program: 421 and 407 as 401 or 426 do, with their JSON body, after one
#           request. The SDK then raises an error that names the status.
# Seen:     421: fetch itself repeats the request, body and all, before the program hears of it; the server counts two.
#           407: fetch rejects with "TypeError: fetch failed" whose cause is an Error without a message; status, body and
#           headers are lost. The openai SDK takes that for a broken connection and tries twice more: three requests
#           and "Connection error." (401, 402 and 426: one request and the error's own words).
# Matters:  421 is what Copilot's hosts answer when token and host do not belong together: a proxy that passes it on is
#           asked twice by each Node client, with all that the proxy tries for one request, and sees a retry that the client's log does not show. And
#           a proxy must not say "no account for you" with 407 inside the tunnel: no Node client can show the reason.
# Output (2026-11-30):
#   fetch 401: 1 request,  program sees 401 and the body
#   fetch 402: 1 request,  program sees 402 and the body
#   fetch 407: 1 request,  program sees TypeError: fetch failed
#   fetch 421: 2 requests, program sees 421 and the body
#   fetch 426: 1 request,  program sees 426 and the body
#   openai 402: 1 request,  program sees 402 why
#   openai 407: 3 requests, program sees Connection error.
#   openai 421: 2 requests, program sees 421 why
#   SEEN: node 24.21.0: fetch repeats a POST after 421 and hides a 407
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" node@24.21.0 openai@7.59.0
cat > "$tmp/ask.mjs" <<'EOF'
import http from 'node:http'
import OpenAI from 'openai'

setTimeout(() => { console.log('CHANGED: the requests did not end within 60 s'); process.exit(1) }, 60000).unref()
let requests
const server = http.createServer((request, response) => {
  requests++
  request.resume().on('end', () => {
    response.writeHead(Number(request.url.split('/')[1]), { 'content-type': 'application/json' })
    response.end('{"error":{"message":"why","code":"some_code"}}')
  })
})
await new Promise(done => server.listen(0, '127.0.0.1', done))
const base = `http://127.0.0.1:${server.address().port}`
const seen = []
const row = (who, status, what) => {
  seen.push(`${who} ${status}: ${requests} ${what}`)
  console.log(`${who} ${status}: ${requests} request${requests > 1 ? 's,' : ', '} program sees ${what}`)
}
for (const status of [401, 402, 407, 421, 426]) {
  requests = 0
  try {
    const answer = await fetch(`${base}/${status}`, { method: 'POST', body: '{}' })
    row('fetch', status, answer.status + ((await answer.text()).includes('why') ? ' and the body' : ' without the body'))
  } catch (error) {
    row('fetch', status, String(error))
  }
}
for (const status of [402, 407, 421]) {
  requests = 0
  try {
    const client = new OpenAI({ apiKey: 'none', baseURL: `${base}/${status}` })
    await client.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'hi' }] })
  } catch (error) {
    row('openai', status, error.message)
  }
}
server.close()
server.closeAllConnections()
const expected = ['fetch 401: 1 401 and the body', 'fetch 402: 1 402 and the body', 'fetch 407: 1 TypeError: fetch failed',
  'fetch 421: 2 421 and the body', 'fetch 426: 1 426 and the body', 'openai 402: 1 402 why',
  'openai 407: 3 Connection error.', 'openai 421: 2 421 why']
if (JSON.stringify(seen) !== JSON.stringify(expected)) {
  console.log('CHANGED: Node or the SDK treats one of these answers in another way now')
  process.exit(1)
}
console.log(`SEEN: node ${process.versions.node}: fetch repeats a POST after 421 and hides a 407`)
EOF
cd "$tmp"
env -u HTTP_PROXY -u HTTPS_PROXY -u http_proxy -u https_proxy "$tmp/node_modules/.bin/node" ask.mjs
