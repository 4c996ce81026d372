"""The mitmproxy addon: what happens to one request, what requests share, and what a running proxy keeps up to date.

In it ``failover`` (one flow sent several times, HTTP only), ``guard`` (who comes in, what goes out) and ``inspect``
(the content view).

Laws of this room:

1. It translates between mitmproxy and ``rules``; who serves a request is decided there.
2. Nothing blocks the event loop. An exception of ours ends one request, with a 502 and an id.
3. Another addon may change whatever it sees, so what must hold is checked when a request is sent.
"""
