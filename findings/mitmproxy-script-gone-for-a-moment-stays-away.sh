#!/bin/sh
# A script whose file is missing for a moment is removed for good; one that is broken for a moment comes back.
#
# Package:  mitmproxy 12.3.1 (PyPI): mitmdump with a script of ten lines, on loopback; only the script file is changed.
# Expected: mitmdump watches its script and loads it again when it changes. A save with a syntax error keeps the old version
#           running, or takes it out until the next good save; a file that is away (an editor that replaces it, a checkout
#           of another branch and back, an update) is loaded again when it is there.
# Seen:     syntax error: the old version is taken out at once, the proxy goes on without any script, the next good save
#           brings it back. Missing file: taken out, and never looked for again: when the same file is back and is even
#           changed, nothing is loaded and nothing is logged. In both cases the proxy keeps listening and forwards requests
#           as a plain proxy; a module that the script imports is not read again on a reload.
# Matters:  whoever runs a credential-balancing addon from a checkout has, after `git switch` there and back, a proxy that looks
#           alive and sends the client's own token. The addon has to refuse service when its `done` hook is called while
#           the proxy goes on (its own tunnel, a closed door), because nobody else says so.
# Output (2026-11-30):
#   start:                     answered by script 1, helper 1
#   script and helper changed: answered by script 2, helper 1
#   script with syntax error:  no script
#   script mended:             answered by script 3, helper 1
#   script away:               no script
#   script back, then changed: no script
#   SEEN: mitmproxy 12.3.1 never loads a script again that was missing for a moment
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
"$tmp/venv/bin/pip" install -qq --no-cache-dir --disable-pip-version-check mitmproxy==12.3.1
WORK=$tmp "$tmp/venv/bin/python" - <<'EOF'
import http.client, os, re, signal, subprocess, sys, threading, time

signal.alarm(300)
work = os.environ["WORK"]
script, helper = work + "/addon.py", work + "/finding_helper.py"
SCRIPT = """
import finding_helper
from mitmproxy import http
class Addon:
    def running(self):
        print("RUNS {number}", flush=True)
    def request(self, flow):
        flow.response = http.Response.make(200, f"answered by script {number}, helper {{finding_helper.NUMBER}}")
addons = [Addon()]
"""


def write(path, text):
    """In one step, so that no half file is ever seen."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


write(helper, "NUMBER = 1\n")
write(script, SCRIPT.format(number=1))
said = []
process = subprocess.Popen([f"{os.path.dirname(sys.executable)}/mitmdump", "--set", f"confdir={work}/conf", "--listen-host",
                            "127.0.0.1", "-p", "0", "-s", script, "--set", "connection_strategy=lazy"], cwd=work, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
reader = threading.Thread(target=lambda: said.extend(process.stdout))
reader.start()


def until(text, seconds=60):
    end = time.monotonic() + seconds
    while not any(text in line for line in said):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def ask():
    """Who answers a request: the script, or mitmproxy itself, which finds nobody at port 1 of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "http://127.0.0.1:1/")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return text if answer.status == 200 else "no script"


rows = []


def row(name):
    rows.append(ask())
    print(name.ljust(26), rows[-1], flush=True)


try:
    if not (until("RUNS 1") and until("listening at")):
        sys.exit("mitmdump did not start: " + "".join(said))
    port = int(re.search(r"listening at \S+:(\d+)\.", "".join(said))[1])
    row("start:")
    write(helper, "NUMBER = 2\n")
    write(script, SCRIPT.format(number=2))
    until("RUNS 2")
    row("script and helper changed:")
    write(script, SCRIPT.format(number=2).replace("class Addon:", "class Addon"))
    until("SyntaxError")
    row("script with syntax error:")
    write(script, SCRIPT.format(number=3))
    until("RUNS 3")
    row("script mended:")
    os.rename(script, script + ".away")
    until("Un-loading")
    time.sleep(1)
    row("script away:")
    os.rename(script + ".away", script)
    time.sleep(3)
    write(script, SCRIPT.format(number=4))
    until("RUNS 4", 10)
    row("script back, then changed:")
finally:
    process.terminate()
    process.wait(30)
    reader.join(30)
none = "no script"
if rows != ["answered by script 1, helper 1", "answered by script 2, helper 1", none, "answered by script 3, helper 1", none, none]:
    sys.exit("CHANGED: mitmdump treats a changed, broken or missing script in another way now")
print("SEEN: mitmproxy 12.3.1 never loads a script again that was missing for a moment")
EOF
