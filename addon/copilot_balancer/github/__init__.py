"""GitHub over the network: HTTPS client, API, device login, exchanged tokens, how a credential becomes an account.

Laws of this room:

1. A request goes over verified TLS to the host that it names and nowhere else, bounded in time and size.
2. What GitHub answers is checked before it is believed (``docs/security.md#what-the-network-says``).
3. No exception that leaves here holds a token. What asks GitHub blocks; ``tokens`` asks in a thread.
"""
