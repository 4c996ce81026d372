"""Files on disk: decisions, what was learnt, finished requests, running proxies, the decision log.

Laws of this room:

1. A file is replaced whole or not at all; one that cannot be read is an error with a remedy, never an empty file.
2. Only the user may read what stands here; only ``accounts.json`` holds secrets.
3. Everything blocks: callers keep it off the event loop. No content of a file stands in an error.
"""
