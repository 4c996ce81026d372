"""Small worlds of the simulation, written by hand: a window, a demand."""

from simulation.upstream import Window
from simulation.world import Demand


def window(begins: float, ends: float, capacity: int, **changes):
    return Window(begins, ends, capacity, whole=changes.pop("whole", capacity), **changes)


def demand(number: int, model: str = "a", due: float = 0.0, patience: float = 300.0, **changes):
    fields = {"conversation": f"c{number}", "head": 1.0, "stream": 5.0, "client": "opencode", "luck": 0.5}
    return Demand(id=number, model=model, due=due, deadline=due + patience, **{**fields, **changes})
