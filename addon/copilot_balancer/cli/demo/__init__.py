"""``copilot-balancer demo``: a failover told live, with the real addon and the fake in the place of GitHub.

The law of this room: it touches no account, no store and no network of the user's.
"""
