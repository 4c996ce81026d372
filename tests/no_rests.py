"""A mitmproxy script for tests alone: each request finds every account as if nothing had happened before.

So a fault can be met by every one of many requests. The brake on sending again (tested in test_choosing) is off, and
the layer's fixed waits are short.
"""

from copilot_balancer import arriving, choosing, upstreams
from copilot_balancer.cooldowns import clear
from copilot_balancer.pool import Pool

choosing.BUDGET_FLOOR = 10_000
upstreams.SECONDS = arriving.REFUSAL_SECONDS = 3.0

_assign = Pool.assign


def assign(self, request, now):
    if not request.tried:
        for member in self._board.members.values():
            clear(member.state, "", now)
    return _assign(self, request, now)


Pool.assign = assign
