"""For a checkout: ``mitmdump -s addon/balancer.py``. Hands on to ``copilot_balancer/script.py``."""

try:
    from copilot_balancer.addon import CopilotBalancer
except ModuleNotFoundError as missing:
    import logging

    logging.getLogger(__name__).error(  # noqa: TRY400 - a sentence, not a traceback
        "copilot-balancer cannot start: the Python of this mitmproxy has no %r. Run scripts/setup and use "
        ".venv/bin/mitmdump, or install copilot-balancer beside mitmproxy with pip "
        "(mitmproxy's self-contained binaries carry a Python of their own and take no packages).",
        missing.name,
    )
else:
    addons = [CopilotBalancer()]
