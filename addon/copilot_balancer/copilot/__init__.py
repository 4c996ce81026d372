"""What Copilot's wire says: hosts, paths, bodies, event streams, quota and waits. Pure functions of bytes and text.

Laws of this room:

1. No clock, no disk, no network, no mitmproxy: the time is an argument (import-linter checks it).
2. Foreign bytes never raise, and are read within bounds; what cannot be read is left alone.
3. A fact about the service cites its public source, or a heading of ``docs/copilot-protocol.md``.
"""
