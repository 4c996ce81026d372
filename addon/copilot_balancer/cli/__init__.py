"""The command ``copilot-balancer``, a module for each noun; in it the dashboard, the demo, the clients of this machine.

Laws of this room:

1. A command reads the store, asks GitHub, prints, and ends; it never talks to a running proxy. They meet in the files.
2. What is decided, and what a decision means, stands in ``rules``; how accounts and requests are printed, in ``views``.
3. No token is an argument, a printed word, or part of an error.
"""
