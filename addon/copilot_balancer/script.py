"""What mitmproxy runs: ``mitmdump -s "$(copilot-balancer addon-path)"``. It builds the addon object, nothing else.

mitmproxy runs this file again whenever it changes, so each run builds a new object; classes that must stay the same
(the layer's hooks) live in modules that are imported once.

mitmproxy's self-contained binaries carry a Python of their own, which has nothing of what is imported below: one line
says so. At start-up a logged error ends mitmproxy, so nobody takes a proxy without the addon for one with it.

Two things keep the start short. The garbage collector rests while modules are loaded: what they make stays. Pydantic
loads no plug-ins: it would read what every installed package says of itself to find them, and show them our tokens.
"""

import gc
import logging
import os

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
gc.disable()
try:
    from copilot_balancer.proxy.addon import CopilotBalancer
except ImportError as missing:
    logging.getLogger(__name__).error(  # noqa: TRY400 - a sentence, not a traceback
        "copilot-balancer cannot start: %s. It needs a mitmproxy >= 12.2.3 installed into the same environment: in a "
        "checkout scripts/setup, then .venv/bin/mitmdump; mitmproxy's self-contained binaries take no packages.",
        f"this mitmproxy's Python has no {missing.name!r}" if isinstance(missing, ModuleNotFoundError) else missing,
    )
    addons = []
else:
    addons = [CopilotBalancer()]
finally:
    gc.enable()
