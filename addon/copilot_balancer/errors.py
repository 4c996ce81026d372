"""The few ways to fail that a user is told about.

::

    BalancerError            a sentence for the user; the CLI prints it and exits with 1
    ├── InvalidInput         what the user gave cannot be used: a label, a domain, a setting, a token
    ├── StoreError           a file of ours cannot be used as it is; nothing was changed
    │   └── StoreBusy        another program held the lock for too long
    └── UpstreamError        GitHub answered something that we cannot go on with

Everything else that is raised is a bug and shows its traceback. No message here ever holds a token.
"""


class BalancerError(Exception):
    """A sentence for the user."""


class InvalidInput(BalancerError, ValueError):  # noqa: N818 - reads as what it says
    """What the user gave cannot be used; the sentence says what is allowed."""


class StoreError(BalancerError):
    """A file of ours cannot be used as it is; the sentence names path, cause and remedy. Nothing was changed."""


class StoreBusy(StoreError):  # noqa: N818
    """Another program held the lock for too long."""


class UpstreamError(BalancerError):
    """GitHub answered something that we cannot go on with."""
