"""Copilot clients on this machine: files, environment, the logins that they hold, and what ``setup`` changes there.

Laws of this room:

1. A file of another program is read without trust; what ``setup`` changes in it can be undone, all else stays.
2. A fact about a client carries the version that it was measured with (``docs/clients.md``).
"""
