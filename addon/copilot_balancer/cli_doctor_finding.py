"""What ``doctor`` finds, and what its checks look at.

Laws of this file:

1. Nouns only: what is right or wrong is judged in ``cli_doctor`` and ``cli_doctor_clients``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from copilot_balancer.accounts import Decisions
from copilot_balancer.errors import StoreError
from copilot_balancer.local_proxy import Authority, own_authority
from copilot_balancer.terminal import World


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as one may think."""
    PROBLEM = "problem"
    """It does not work, or is not safe."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    check: str
    """What was looked at."""
    state: State
    text: str
    remedy: str = ""
    """What to do, as a sentence; empty: nothing."""


@dataclass(frozen=True)
class Case:
    """What the checks look at."""

    world: World
    port: int
    online: bool

    @property
    def authority(self) -> Authority:
        """The CA of our own proxies."""
        return own_authority(self.world.paths.state)

    def decisions(self) -> Decisions:
        """What the user decided; nothing where that cannot be read, which another check tells."""
        try:
            return self.world.store.read_decisions()
        except StoreError:
            return Decisions()


type Found = Iterator[Finding]
"""What a check yields."""
