"""One look at the files: an overview and the last requests, or the sentence that says why not.

Laws of this file:

1. Blocks; the app calls it in a thread, twice a second (some milliseconds each).
2. A look that fails is a sentence, never an exception: the dashboard goes on with what it saw last.
"""

from dataclasses import dataclass

from copilot_balancer.errors import BalancerError
from copilot_balancer.event import Event
from copilot_balancer.overview import Overview, events, look
from copilot_balancer.terminal import World

MAX_EVENTS = 200
"""So many requests are shown."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at a moment."""

    overview: Overview | None
    """None: the files could not be used."""
    events: tuple[Event, ...] = ()
    """Newest last."""
    trouble: str = ""
    """One sentence: why something could not be read."""


def see(world: World) -> Seen:
    """Look once."""
    where = world.paths
    try:
        overview = look(where, world.now())
    except BalancerError as error:
        return Seen(None, trouble=str(error))
    try:
        return Seen(overview, events(where, MAX_EVENTS))
    except BalancerError as error:
        return Seen(overview, trouble=str(error))
