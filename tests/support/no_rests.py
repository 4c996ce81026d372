"""A mitmproxy script for tests alone: each request finds every account as if nothing had happened before.

So a fault can be met by every one of many requests. The brake on sending again (tested in test_choosing) is off, and
the layer's fixed waits are short.
"""

from copilot_balancer.proxy.failover import connect_timeout, response
from copilot_balancer.rules import decide
from copilot_balancer.rules.cooldowns import clear
from copilot_balancer.rules.pool import Pool

decide.BUDGET_FLOOR = 10_000
connect_timeout.SECONDS = response.REFUSAL_SECONDS = 3.0

_assign = Pool.assign


def assign(self, request, now):
    if not request.tried:
        for member in self._board.members.values():
            clear(member.state, "", now)
    return _assign(self, request, now)


Pool.assign = assign
