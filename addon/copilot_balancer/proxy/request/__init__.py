"""One client request to a Copilot host: its body, its account, its response, its record.

Laws of this room:

1. ``exchange`` is the one object of a request; the other files are what it uses, a noun each.
2. It translates between the failover stream, the pool and mitmproxy's flow, and decides nothing about accounts.
"""
