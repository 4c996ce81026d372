#!/bin/sh
# A value that does not fit an addon's whole-number option removes the addon without a word; mitmdump runs on as a plain proxy.
#
# Package:  mitmproxy 12.3.1 (PyPI): mitmdump with a script of eight lines, on loopback.
# Expected: `mitmdump -s addon.py --set rest_seconds=soon`, where the addon declared rest_seconds as int, ends with a
#           message and exit code 1, as it does for a whole-number option of mitmproxy's own (listen_port=soon).
# Seen:     no message at all. The script is "loaded", none of its hooks is called (not even `running`), the proxy
#           listens and serves. A misspelt option name is not noticed either (it may belong to a script that comes later). An
#           option declared as float takes its default and can never be set: any value ends mitmdump with a traceback.
# Matters:  a credential-balancing addon that is silently absent means: requests leave with the client's own token, and
#           every access rule that the addon enforces is gone, though the log says "Loading script" and "listening". An
#           addon should declare such options as str and check them itself, and its users should look for its own
#           "ready" line. Seconds with a fraction need str as well.
# Output (2026-11-30):
#   int option, good value:      addon runs, nothing is said
#   int option, bad value:       addon is not there, the proxy runs, nothing is said
#   own int option, bad value:   exit 1
#   misspelt option:             addon runs, nothing is said
#   float option, default:       addon runs
#   float option, any value:     exit 1
#   SEEN: mitmproxy 12.3.1: a bad value of an addon's int option drops the addon in silence; float options cannot be set
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
import os, re, signal, subprocess, sys, threading, time

signal.alarm(300)
work = os.environ["WORK"]
SCRIPT = """
class Addon:
    def load(self, loader):
        loader.add_option("rest_seconds", {type}, {default}, "how long")
    def running(self):
        print("ADDON RUNS", flush=True)
addons = [Addon()]
"""
for kind, default in (("int", "60"), ("float", "60.0")):
    with open(f"{work}/{kind}.py", "w") as file:
        file.write(SCRIPT.format(type=kind, default=default))


def start(kind, *values):
    """What mitmdump does within some seconds: it ends by itself, or is ended once it listens and was given time."""
    command = [f"{os.path.dirname(sys.executable)}/mitmdump", "--set", f"confdir={work}/conf", "--listen-host", "127.0.0.1",
               "-p", "0", "-s", f"{work}/{kind}.py"]
    for value in values:
        command += ["--set", value]
    said = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=work)
    reader = threading.Thread(target=lambda: said.extend(process.stdout))
    reader.start()
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until and not any("listening" in line for line in said):
        time.sleep(0.1)
    try:
        time.sleep(3)
        code = process.wait(60 if any("exiting" in line or "rror" in line for line in said) else 0.1)
    except subprocess.TimeoutExpired:
        code = None
        process.terminate()
        process.wait(10)
    reader.join()
    if code is not None:
        return f"exit {code}"
    rest = [line for line in said if not re.search("Loading script|listening at|ADDON RUNS|shutting down", line)]
    return ("addon runs" if any("ADDON RUNS" in line for line in said) else "addon is not there, the proxy runs") + (
        ", it says: " + "".join(rest).strip() if rest else "" if not values else ", nothing is said")


ROWS = (
    ("int option, good value:", "int", ("rest_seconds=5",), "addon runs, nothing is said"),
    ("int option, bad value:", "int", ("rest_seconds=soon",), "addon is not there, the proxy runs, nothing is said"),
    ("own int option, bad value:", "int", ("listen_port=soon",), "exit 1"),
    ("misspelt option:", "int", ("rest_second=5",), "addon runs, nothing is said"),
    ("float option, default:", "float", (), "addon runs"),
    ("float option, any value:", "float", ("rest_seconds=2.5",), "exit 1"),
)
wrong = []
for name, kind, values, expected in ROWS:
    seen = start(kind, *values)
    print(name.ljust(28), seen, flush=True)
    if seen != expected:
        wrong.append(name)
if wrong:
    sys.exit(f"CHANGED: mitmdump treats this in another way now: {' '.join(wrong)}")
print("SEEN: mitmproxy 12.3.1: a bad value of an addon's int option drops the addon in silence; float options cannot be set")
EOF
