"""Who may use the proxy, which credential may leave on which connection, and what is taken out of answers and logs.

Laws of this room:

1. "May it?" is answered by the reason why not, or None. What cannot be checked is refused.
2. The rules, their threats and their tests: ``docs/security.md``.
"""
