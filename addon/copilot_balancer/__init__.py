"""copilot-balancer: one proxy, several GitHub Copilot accounts of one person. A room imports only those below it::

    script | cli      what mitmproxy runs; the command, in it dashboard, demo and the clients of this machine
    proxy             the mitmproxy addon, in it failover (HTTP only), guard (in and out) and inspect (content view)
    views             what people read: status, explanation, finished requests
    store | github    disk: accounts, state, request log; network: GitHub's API, logins, exchanged tokens
    config            settings
    rules             who serves a request (pure): classify, cooldowns, eligibility, ranking, decide, pool
    copilot           what Copilot's wire says (pure): paths, bodies, streams, quota, waits
    text|errors|fake  words for people; a fake Copilot for the demo and the tests

``docs/architecture.md`` walks through them.
"""

__version__ = "0.1.0"
