"""What ``naive`` gives to its client."""

import pytest

from simulation.balancer import GiveUp, NaiveTrip
from simulation.upstream import Answer

REFUSED = {status: Answer(status, headers) for status, headers in ((400, {}), (402, {}), (429, {"retry-after": "90"}))}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        pytest.param((400, 400, 400), GiveUp(400, None), id="nobody has the model"),
        pytest.param((400, 429, 402), GiveUp(429, 60.0), id="waiting helps"),
        pytest.param((402, 400, 400), GiveUp(400, None), id="the last one"),
    ],
)
def test_what_naive_gives_to_the_client(statuses, expected):
    """Three accounts in turn, then a 429 if there was one, else the last refusal."""
    trip = NaiveTrip(["a", "b", "c", "d"])
    asked = []
    for status in statuses:
        asked.append(trip.choose(0.0).label)
        trip.answered(REFUSED[status], 0.0)
    assert asked == ["a", "b", "c"]
    assert trip.choose(0.0) == expected
