"""mitmproxy's HTTP layer and stream, so that one flow can be sent several times before the client has seen a byte.

Laws of this room:

1. It knows HTTP, not Copilot: no account, no rule, no store (import-linter checks it).
2. Names that mitmproxy does not promise to keep stand in a ``PRIVATE`` table that tests compare with the installed
   version; ``stream`` also reaches into wsproto's event queue.
3. The theory of operation is ``docs/how-it-decides.md#the-failover-stream``.
"""
