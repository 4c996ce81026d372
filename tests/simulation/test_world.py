"""Simulated worlds are what was announced."""

import itertools

import pytest

from simulation.upstream import capacity
from simulation.world import HOURS, LOAD, MODELS, PATIENCE, SEATS, make_world


@pytest.mark.parametrize("seed", range(5))
def test_a_world_is_what_was_announced(seed):
    """Load, deadlines, windows without a gap, and at least one account for each model."""
    world = make_world(seed)

    assert len(world.demands) == round(LOAD * capacity(world.accounts))
    assert [one.id for one in world.demands] == list(range(len(world.demands)))
    assert len({one.conversation.partition("-")[0] for one in world.demands}) == SEATS
    assert all(one.deadline == one.due + PATIENCE for one in world.demands)
    assert max(one.due for one in world.demands) <= HOURS * 3600
    for model in MODELS:
        assert any(model in account.models for account in world.accounts)
    for account in world.accounts:
        assert account.windows[0].begins == 0.0
        assert account.windows[-1].ends == HOURS * 3600 + PATIENCE
        for one, other in itertools.pairwise(account.windows):
            assert one.ends == other.begins
            assert one.period <= other.period
        assert len(account.quotas) == account.windows[-1].period + 1


def test_a_conversation_is_one_after_another():
    """A request is wanted when the one before it in its conversation could have ended."""
    for _, group in itertools.groupby(make_world(3).demands, key=lambda one: one.conversation):
        for one, other in itertools.pairwise(group):
            assert other.due >= one.due + one.stream
