"""Calls mitmproxy's hooks of a Copilot request on its addons directly, without a task for each.

Laws of this file:

1. The same addons hear the same hooks in the same order as from mitmproxy's ``AddonManager``, and its own
   ``invoke_addon`` calls each: halts, faults and addons inside of addons are its affair.
2. An addon without the hook is passed over. mitmproxy calls into each of its forty addons twice for a hook (the hook,
   then ``update``), which is half of what it does with a small request (``scripts/bench profile``).
3. What waits is waited for: an addon that takes its time, a flow that is intercepted.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mitmproxy.addonmanager import AddonManager, safecall, traverse
from mitmproxy.exceptions import AddonHalt
from mitmproxy.flow import Flow
from mitmproxy.hooks import Hook, UpdateHook

PRIVATE = {AddonManager: ("chain", "invoke_addon")}
"""What we use of mitmproxy and it does not promise to keep; tested as ``layer.PRIVATE`` is."""


def begun(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run it up to where it has to wait.

    Returns:
        The task that goes on with it, to be awaited; None: it is over.

    """
    task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
    if not task.done():
        return task
    task.result()
    return None


async def tell(addons: AddonManager, hook: Hook) -> None:
    """What mitmproxy's connection handler does with a hook that is about a flow."""
    flow: Flow = hook.args()[0]
    await _invoke(addons, hook)
    await _invoke(addons, UpdateHook([flow]))
    if flow.intercepted:
        await flow.wait_for_resume()


async def _invoke(addons: AddonManager, hook: Hook) -> None:
    """``AddonManager.trigger_event``, for those that listen."""
    name = hook.name
    for addon in addons.chain:
        if hasattr(addon, name) or (hasattr(addon, "addons") and any(hasattr(one, name) for one in traverse([addon]))):
            try:
                with safecall():
                    await addons.invoke_addon(addon, hook)
            except AddonHalt:
                return
