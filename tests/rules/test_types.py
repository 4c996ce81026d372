"""The nouns of a choice: how long a client is told to wait, and what people read."""

from dataclasses import FrozenInstanceError, asdict

import pytest

from copilot_balancer.rules.types import (
    SERVED,
    Attempt,
    Exclusion,
    Nobody,
    NobodyKind,
    Policy,
    PoolRequest,
    Tried,
    WhyNot,
    retry_after,
    sentences,
)
from copilot_balancer.text import duration


@pytest.mark.parametrize(
    ("free_in", "cap", "told"),
    [
        pytest.param(None, 60, None, id="nobody frees"),
        pytest.param(0.0, 60, 1, id="at once"),
        pytest.param(-5.0, 60, 1, id="already"),
        pytest.param(12.0, 60, 12, id="whole seconds"),
        pytest.param(12.001, 60, 13, id="rounded up"),
        pytest.param(7200.0, 60, 60, id="capped"),
        pytest.param(7200.0, 0.5, 1, id="a cap below a second"),
    ],
)
def test_how_long_a_client_is_told_to_wait(free_in, cap, told):
    """Whole seconds, never shorter than the wait, at least one, at most the cap."""
    assert retry_after(None if free_in is None else 1000.0 + free_in, 1000.0, cap) == told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "1 s"), (0.2, "1 s"), (45, "45 s"), (90, "90 s"), (91, "2 min"), (5400, "90 min"), (5401, "2 h"),
        (48 * 3600, "48 h"), (48 * 3600 + 1, "3 days"), (35 * 86400, "35 days"),
    ],
)  # fmt: skip
def test_a_length_of_time_for_people(seconds, text):
    """Rounded up, in the largest unit that still tells something."""
    assert duration(seconds) == text


def test_one_sentence_an_account():
    """Label, reason, and when it is free again if that is known."""
    nobody = Nobody(
        kind=NobodyKind.LIMITED,
        accounts=(
            WhyNot("github.com:1", "work", "rests after a session limit", 1700.0, Exclusion.COOLDOWN),
            WhyNot("github.com:2", "home", "needs a login", None, Exclusion.LOGIN),
        ),
        free_at=1700.0,
        retry_after=60,
        give=None,
        why="no account can serve this now",
    )
    assert sentences(nobody, 1000.0) == [
        "work: rests after a session limit, free again in 12 min",
        "home: needs a login",
    ]


def test_nouns_are_plain_and_frozen():
    """A request with its history can be written down, and nobody changes it."""
    attempt = Attempt("r1", 1, "github.com:1", "fp", "gpt", "hybrid", 5.0)
    request = PoolRequest("r1", "gpt", 4.0, tried=(Tried(attempt, SERVED, 6.0),))
    assert asdict(request)["tried"][0]["attempt"]["account_id"] == "github.com:1"
    assert asdict(Policy())["strategy"] == "hybrid"
    with pytest.raises(FrozenInstanceError):
        request.model = "other"
