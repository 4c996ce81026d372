#!/bin/sh
# codex sends a request again six times after 401, 402 and 421, thirty times after 500, and not once after a 429 without Retry-After.
#
# Package:  @openai/codex 0.171.0 (npm) with a custom provider on loopback, as it is used with a Copilot proxy.
# Expected: 429 is tried again after a back-off; 401, 402 and 421 end the turn, because the same request cannot succeed; 500
#           is tried a handful of times; the message of the error body is shown.
# Seen:     the other way round. A 429 without Retry-After ends the turn after one request, and the person reads "exceeded
#           retry limit, last status: 429 Too Many Requests", though nothing was retried; the body's message is not shown.
#           401, 402 and 421 are each sent six times. A 500 is sent 30 times in about half a minute (two retry loops, 5 and 6
#           times, one inside the other), and its message is replaced by one about high demand.
# Matters:  when all accounts are out of quota a 402 costs six rounds through the proxy, and with failover each of them tries each
#           account: 6 x accounts requests for one line typed. A refusal that codex should wait for must carry
#           Retry-After, or it is final; a text that the person should read must not be in a 429 or a 500.
# Output (2026-11-30):
#   429:                1 request,   the body's message is not shown
#   429, Retry-After 2: 2 requests, then the answer
#   401:                6 requests,  the body's message is shown
#   402:                6 requests,  the body's message is shown
#   421:                6 requests,  the body's message is shown
#   500:                30 requests, the body's message is not shown
#   SEEN: codex 0.171.0: 429 is final, 401, 402 and 421 are sent 6 times, 500 is sent 30 times
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
npm install --silent --no-audit --no-fund --no-save --cache "$tmp/npm" --prefix "$tmp" @openai/codex@0.171.0
cat > "$tmp/main.mjs" <<'EOF'
import http from 'node:http'
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'

const item = { id: 'i1', type: 'message', role: 'assistant', status: 'completed',
  content: [{ type: 'output_text', text: 'one two three', annotations: [] }] }
const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2, input_tokens_details: { cached_tokens: 0 },
  output_tokens_details: { reasoning_tokens: 0 } }
const events = [
  { type: 'response.created', response: { id: 'r1', object: 'response', status: 'in_progress', output: [] } },
  { type: 'response.output_item.done', output_index: 0, item },
  { type: 'response.completed', response: { id: 'r1', object: 'response', status: 'completed', output: [item], usage } },
]
const counts = {}
const server = http.createServer((request, response) => {
  request.resume().on('end', () => {
    const [, name, status, wait] = request.url.split('/')
    counts[name] = (counts[name] ?? 0) + 1
    if (wait !== 'none' && counts[name] > 1) {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      return response.end(events.map(event => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''))
    }
    response.writeHead(Number(status), { 'content-type': 'application/json', ...(wait === 'none' ? {} : { 'retry-after': wait }) })
    response.end('{"error":{"message":"because of the moon","code":"some_code"}}')
  })
})
await new Promise(done => server.listen(0, '127.0.0.1', done))

const run = (name, status, wait) => new Promise((resolve, reject) => {
  const home = `${process.cwd()}/home-${name}`
  mkdirSync(home)
  const settings = { model: 'gpt-5-mini', model_provider: 'fake', 'model_providers.fake.name': 'fake',
    'model_providers.fake.base_url': `http://127.0.0.1:${server.address().port}/${name}/${status}/${wait}/v1`,
    'model_providers.fake.wire_api': 'responses', 'model_providers.fake.env_key': 'FAKE_KEY' }
  const options = Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}="${value}"`])
  const environment = { PATH: process.env.PATH, HOME: home, CODEX_HOME: home, TMPDIR: process.cwd(), FAKE_KEY: 'none' }
  const child = spawn(`${process.cwd()}/node_modules/.bin/codex`, ['exec', '--skip-git-repo-check', ...options, 'say hi'],
    { cwd: home, env: environment, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let text = ''
  child.stdout.on('data', data => { text += data })
  child.stderr.on('data', data => { text += data })
  const timer = setTimeout(() => { process.kill(-child.pid, 'SIGKILL'); reject(new Error(`codex did not end after ${name}`)) }, 240000)
  child.on('close', () => {
    clearTimeout(timer)
    const shown = text.includes('one two three') ? 'then the answer'
      : `the body's message is ${text.includes('because of the moon') ? 'shown' : 'not shown'}`
    resolve(`${counts[name] ?? 0} request${counts[name] === 1 ? '' : 's'}, ${shown}`)
  })
})
const rows = [
  ['429', 429, 'none', "1 request, the body's message is not shown"],
  ['429-wait', 429, '2', '2 requests, then the answer'],
  ['401', 401, 'none', "6 requests, the body's message is shown"],
  ['402', 402, 'none', "6 requests, the body's message is shown"],
  ['421', 421, 'none', "6 requests, the body's message is shown"],
  ['500', 500, 'none', "30 requests, the body's message is not shown"],
]
let changed = ''
for (const [name, status, wait, expected] of rows) {
  const seen = await run(name, status, wait)
  console.log(`${name === '429-wait' ? '429, Retry-After 2' : name}:`.padEnd(19), seen)
  if (seen !== expected) changed += ` ${name}`
}
server.close()
server.closeAllConnections()
if (changed) {
  console.log(`CHANGED: codex treats these in another way now:${changed}`)
  process.exit(1)
}
console.log('SEEN: codex 0.171.0: 429 is final, 401, 402 and 421 are sent 6 times, 500 is sent 30 times')
EOF
cd "$tmp"
node main.mjs
