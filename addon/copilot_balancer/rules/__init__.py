"""Who serves a request, what an answer means, and how long an account is not asked.

Laws of this room:

1. Pure: ``now`` is an argument; no clock, disk, network, logging or mitmproxy (import-linter checks it), no chance.
2. What the user decided stands in ``accounts``, what was learnt in ``state``; a status is computed from both.
3. The theory of operation is ``docs/how-it-decides.md``.
"""
