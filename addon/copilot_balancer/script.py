"""The script that mitmproxy loads (``mitmdump -s "$(copilot-balancer addon-path)"``): builds the addon object.

mitmproxy runs this file again whenever it changes, so each run builds a new object; classes and hooks that must stay
the same live in modules that are imported once (``proxy/chain.py``).

mitmproxy's self-contained binaries carry a Python of their own that lacks what is imported below: one line says so. An
error logged at start-up ends mitmproxy, so nobody takes a proxy without the addon for one with it.

Two things keep the start short. The garbage collector is off while modules are loaded, whose objects stay. Pydantic
loads no plug-ins: it would read the metadata of every installed package to find them, and show them our tokens.
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
