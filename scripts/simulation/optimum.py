"""The best that anyone could have done in a world: a maximum flow from its requests through its windows and quotas."""

from collections import Counter, deque

from simulation.world import World


class Network:
    """A network whose maximum flow is found by Dinic's algorithm: shortest paths first, all of a length at once."""

    def __init__(self) -> None:
        self._names: dict[object, int] = {}
        self._edges: list[list[int]] = []
        """Node -> its edges; edge ``i`` and its way back ``i ^ 1`` stand side by side."""
        self._to: list[int] = []
        self._room: list[int] = []

    def _node(self, name: object) -> int:
        if name not in self._names:
            self._names[name] = len(self._edges)
            self._edges.append([])
        return self._names[name]

    def edge(self, tail: object, head: object, capacity: int) -> None:
        """At most `capacity` flows from `tail` to `head`."""
        ends = (self._node(tail), self._node(head))
        for here, there, room in ((*ends, capacity), (*ends[::-1], 0)):
            self._edges[here].append(len(self._to))
            self._to.append(there)
            self._room.append(room)

    def max_flow(self, source: object, sink: object) -> int:
        """How much can flow in all; asked once, since the network is used up by it."""
        start, goal, total = self._node(source), self._node(sink), 0
        while (levels := self._levels(start))[goal] >= 0:
            nexts = [0] * len(self._edges)
            while pushed := self._push(start, goal, levels, nexts):
                total += pushed
        return total

    def _levels(self, start: int) -> list[int]:
        levels = [-1] * len(self._edges)
        levels[start], queue = 0, deque([start])
        while queue:
            here = queue.popleft()
            for edge in self._edges[here]:
                if self._room[edge] and levels[self._to[edge]] < 0:
                    levels[self._to[edge]] = levels[here] + 1
                    queue.append(self._to[edge])
        return levels

    def _push(self, start: int, goal: int, levels: list[int], nexts: list[int]) -> int:
        """One path down the levels; 0 when there is none any more."""
        path: list[int] = []
        here = start
        while here != goal:
            while nexts[here] < len(self._edges[here]):
                edge = self._edges[here][nexts[here]]
                if self._room[edge] and levels[self._to[edge]] == levels[here] + 1:
                    path.append(edge)
                    here = self._to[edge]
                    break
                nexts[here] += 1
            else:
                if not path:
                    return 0
                here = self._to[path.pop() ^ 1]
                nexts[here] += 1
        room = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= room
            self._room[edge ^ 1] += room
        return room


def optimum(world: World) -> int:
    """The most demands that could have been accepted by their deadlines; requests with the same choices are one."""
    alike: Counter[tuple[str, tuple[tuple[int, int], ...]]] = Counter()
    for demand in world.demands:
        choices = tuple(
            (a, w)
            for a, account in enumerate(world.accounts)
            if demand.model in account.models
            for w, window in enumerate(account.windows)
            if window.begins <= demand.deadline and demand.due < window.ends
        )
        alike[demand.model, choices] += 1
    network = Network()
    for (model, choices), count in alike.items():
        network.edge("source", (model, choices), count)
        for a, w in choices:
            own = model in world.accounts[a].windows[w].of_model
            network.edge((model, choices), (a, w, model) if own else (a, w), count)
    for a, account in enumerate(world.accounts):
        for w, window in enumerate(account.windows):
            for model, limit in window.of_model.items():
                network.edge((a, w, model), (a, w), limit)
            network.edge((a, w), ("quota", a, window.period), window.capacity)
        for period in range(len(account.quotas)):
            network.edge(("quota", a, period), "sink", account.serves(period))
    return network.max_flow("source", "sink")
