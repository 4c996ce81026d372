"""For a checkout: ``mitmdump -s addon/balancer.py``. Hands on to ``copilot_balancer/script.py``."""

import runpy
from pathlib import Path

# run, not imported: mitmproxy runs this file again when it changes, and wants a new addon object then
addons = runpy.run_path(str(Path(__file__).with_name("copilot_balancer") / "script.py"))["addons"]
