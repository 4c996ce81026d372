"""How several copies of a memory become one, and how it crosses from one clock to another."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules import state as room
from copilot_balancer.rules.state import (
    LONGEST_COOLDOWN,
    LONGEST_DATE,
    LONGEST_WAIT,
    MAX_CONVERSATIONS,
    MAX_COOLDOWNS,
    MAX_MODELS,
    MAX_SIGHTINGS,
    PAID,
    AccountState,
    Affinity,
    Cooldown,
    Count,
    Memory,
    ModelFact,
    Sighting,
    copied,
    live,
    merge,
    newest_conversations,
    newest_sightings,
    restored,
    shifted,
    undominated,
)

NOW = 1_800_000_000.0
TIMES = strategies.integers(0, 20).map(lambda step: NOW + step)
NAMES = strategies.sampled_from(["gpt", "o9"])

COOLDOWNS = strategies.builds(
    lambda began, length, reason, model, told: Cooldown(
        began, began + length, reason, model, "server", began + length + told if told else None
    ),
    TIMES,
    strategies.integers(1, 9),
    strategies.sampled_from(["limit", "quota"]),
    strategies.none() | NAMES,
    strategies.integers(0, 2),
)
FACTS = strategies.builds(
    ModelFact, strategies.booleans(), TIMES, TIMES, strategies.integers(0, 3), strategies.booleans()
)
WINDOWS = strategies.builds(QuotaWindow, strategies.sampled_from([0.0, 50.0]), strategies.none() | TIMES, seen_at=TIMES)
COUNTS = strategies.builds(
    Count, TIMES, strategies.integers(0, 3), strategies.none() | TIMES, strategies.none() | strategies.just(9.0)
)
STATES = strategies.builds(
    AccountState,
    credential=strategies.sampled_from(["", "old", "new"]),
    rejected_at=strategies.none() | TIMES,
    blocked_at=strategies.none() | TIMES,
    blocked_why=strategies.sampled_from(["", "spam"]),
    cooldowns=strategies.lists(COOLDOWNS, max_size=4).map(undominated),
    ended_by_success=strategies.dictionaries(strategies.sampled_from(["", "gpt", PAID]), TIMES, max_size=2),
    backoff=strategies.dictionaries(
        strategies.sampled_from(["", "gpt"]), strategies.tuples(strategies.integers(0, 5), TIMES), max_size=2
    ),
    faults=strategies.lists(TIMES, max_size=4).map(sorted),
    models=strategies.dictionaries(NAMES, FACTS, max_size=2),
    listed_at=strategies.none() | TIMES,
    quota=strategies.dictionaries(strategies.sampled_from(["premium", "chat"]), WINDOWS, max_size=2),
    count=strategies.none() | COUNTS,
    last_used=TIMES,
    turn=strategies.integers(0, 5).map(float),
    served=strategies.integers(0, 5),
    refused=strategies.integers(0, 5),
)
MEMORIES = strategies.builds(
    Memory,
    sightings=strategies.dictionaries(
        strategies.sampled_from("pq"),
        strategies.builds(Sighting, strategies.sampled_from(["x", "y"]), TIMES),
        max_size=2,
    ),
    accounts=strategies.dictionaries(strategies.sampled_from(["a", "b"]), STATES, max_size=2),
    conversations=strategies.dictionaries(
        strategies.sampled_from("xyz"),
        strategies.builds(Affinity, strategies.sampled_from(["a", "b"]), TIMES),
        max_size=3,
    ),
)


@given(MEMORIES, MEMORIES)
def test_it_does_not_matter_which_copy_comes_first(one, two):
    """Merging is commutative."""
    assert merge(one, two) == merge(two, one)


@given(MEMORIES, MEMORIES)
def test_merging_again_changes_nothing(one, two):
    """Merging is idempotent, so a file may be merged as often as it is written."""
    both = merge(one, two)

    assert merge(both, both) == both
    assert merge(both, one) == both
    assert merge(two, both) == both


@given(MEMORIES, MEMORIES)
def test_the_longest_deadline_survives_a_merge(one, two):
    """No rest ends earlier by a merge, unless a success that began after it is known to the other copy."""
    both = merge(one, two)
    for side in (one, two):
        for key, state in side.accounts.items():
            merged = both.accounts[key]
            for rest in live(state):
                over = rest.began < merged.ended_by_success.get(rest.key, 0.0)
                kept = [one.until for one in merged.cooldowns if (one.model, one.reason) == (rest.model, rest.reason)]
                assert over or max(kept) >= rest.until


@given(MEMORIES, MEMORIES)
def test_a_merge_changes_neither_copy(one, two):
    """Both memories are left as they were, and share nothing that can change with the result."""
    before = repr((one, two))
    both = merge(one, two)
    for state in both.accounts.values():
        state.cooldowns.append(Cooldown(NOW, NOW, "x"))
        state.ended_by_success["x"] = state.turn = 1.0
        state.models.clear()
        state.quota.clear()
        state.faults.clear()
        state.backoff.clear()

    assert repr((one, two)) == before


def test_what_wins_in_a_merge():
    """Newest facts, latest times, highest counters; the newer conversation."""
    one = AccountState(
        credential="fp",
        blocked_at=5.0,
        blocked_why="spam",
        models={"gpt": ModelFact(True, 90.0, 10.0), "o9": ModelFact(False, 50.0, 10.0)},
        quota={"premium": QuotaWindow(80.0, seen_at=3.0)},
        backoff={"": (2, 7.0)},
        faults=[1.0, 2.0, 2.0],
        served=3,
        refused=9,
    )
    two = AccountState(
        credential="fp",
        rejected_at=4.0,
        models={"gpt": ModelFact(False, 40.0, 20.0)},
        quota={"premium": QuotaWindow(70.0, seen_at=4.0)},
        backoff={"": (1, 8.0)},
        faults=[2.0, 3.0],
        last_used=6.0,
        turn=2.0,
        served=5,
    )
    both = merge(
        Memory({"a": one}, {"x": Affinity("a", 1.0), "y": Affinity("a", 9.0)}),
        Memory({"a": two}, {"x": Affinity("b", 2.0), "y": Affinity("b", 8.0)}),
    )

    assert both == Memory(
        {
            "a": AccountState(
                credential="fp",
                rejected_at=4.0,
                blocked_at=5.0,
                blocked_why="spam",
                models={"gpt": ModelFact(False, 40.0, 20.0), "o9": ModelFact(False, 50.0, 10.0)},
                quota={"premium": QuotaWindow(70.0, seen_at=4.0)},
                backoff={"": (1, 8.0)},
                faults=[1.0, 2.0, 2.0, 3.0],
                last_used=6.0,
                turn=2.0,
                served=5,
                refused=9,
            )
        },
        {"x": Affinity("b", 2.0), "y": Affinity("a", 9.0)},
    )


def test_sightings_keep_when_they_were_first_seen():
    """An unknown credential was noticed when the first of us noticed it; those noticed last are kept."""
    one = Memory(sightings={"fp": Sighting("github.com", 5.0)})
    two = Memory(sightings={"fp": Sighting("github.com", 9.0), "other": Sighting("acme.ghe.com", 7.0)})
    both = merge(one, two)
    assert both.sightings == {"fp": Sighting("github.com", 5.0), "other": Sighting("acme.ghe.com", 7.0)}
    assert shifted(both, 10.0).sightings["fp"].first_seen == 15.0
    assert restored(both, 6.0).sightings["other"].first_seen == 6.0
    many = Memory(sightings={f"f{n}": Sighting("github.com", float(n)) for n in range(MAX_SIGHTINGS + 1)})
    assert "f0" not in merge(many, Memory()).sightings


def test_a_credential_is_first_seen_once():
    """Of two sightings of one credential the earlier one counts, whichever copy has it."""
    early, late = Sighting("github.com", 5.0), Sighting("github.com", 9.0)
    one, two = Memory(sightings={"x": early, "y": late}), Memory(sightings={"x": late})

    assert merge(one, two).sightings == merge(two, one).sightings == {"x": early, "y": late}


def test_facts_about_two_credentials_are_not_mixed():
    """The facts of the credential about which something was learnt last win as a whole."""
    old = AccountState(credential="old", rejected_at=50.0, models={"o9": ModelFact(False, 90.0, 40.0)}, served=2)
    new = AccountState(credential="new", listed_at=60.0, models={"gpt": ModelFact(True, 90.0, 60.0)})
    both = merge(Memory({"a": old}), Memory({"a": new})).accounts["a"]

    assert (both.credential, both.rejected_at, list(both.models), both.listed_at) == ("new", None, ["gpt"], 60.0)
    assert both.served == 2


def test_a_success_ends_the_other_copys_cooldown():
    """What one process saw heal does not come back from the other's file."""
    rest = Cooldown(10.0, 900.0, "limit")
    healed = AccountState(ended_by_success={"": 20.0})
    both = merge(Memory({"a": AccountState(cooldowns=[rest])}), Memory({"a": healed}))

    assert both.accounts["a"].cooldowns == []


def test_a_rest_is_dropped_only_for_one_that_outlasts_it():
    """Of the same model and reason a rest goes when another began no earlier and ends no earlier."""
    long, late = Cooldown(0.0, 100.0, "limit"), Cooldown(5.0, 50.0, "limit")
    within, other = Cooldown(0.0, 40.0, "limit"), Cooldown(0.0, 10.0, "limit", "gpt")

    assert undominated([within, late, other, long]) == [long, late, other]
    assert undominated([long, long]) == [long]
    many = [Cooldown(float(n), 1000.0 - n, f"r{n}") for n in range(2 * MAX_COOLDOWNS)]
    assert len(undominated(many)) == MAX_COOLDOWNS
    assert many[0] in undominated(many)


def test_memories_are_bounded():
    """The conversations used last and the models learnt last are kept."""
    conversations = {f"c{n}": Affinity("a", float(n)) for n in range(MAX_CONVERSATIONS + 5)}
    models = {f"m{n}": ModelFact(True, 9.0, float(n)) for n in range(MAX_MODELS + 5)}
    sightings = {f"s{n}": Sighting("github.com", float(n)) for n in range(MAX_SIGHTINGS + 5)}
    both = merge(Memory({"a": AccountState(models=models)}, conversations, sightings), Memory({"a": AccountState()}))

    assert next(iter(both.sightings)) == "s5"
    assert len(both.sightings) == MAX_SIGHTINGS
    assert newest_sightings({}) == {}
    assert next(iter(both.conversations)) == "c5"
    assert len(both.conversations) == MAX_CONVERSATIONS
    assert len(both.accounts["a"].models) == MAX_MODELS
    assert "m4" not in both.accounts["a"].models
    assert newest_conversations({}) == {}


@pytest.mark.parametrize(
    ("rest", "key"),
    [
        pytest.param(Cooldown(0, 1, "limit"), "", id="account"),
        pytest.param(Cooldown(0, 1, "quota"), PAID, id="quota"),
        pytest.param(Cooldown(0, 1, "quota", "gpt"), "gpt", id="quota of a model"),
        pytest.param(Cooldown(0, 1, "limit", "gpt"), "gpt", id="model"),
    ],
)
def test_what_ends_a_cooldown(rest, key):
    """A success ends the rests of its account and of its model; a quota only with a model that costs."""
    assert rest.key == key
    assert live(AccountState(cooldowns=[rest], ended_by_success={key: 0.5})) == []
    assert live(AccountState(cooldowns=[rest], ended_by_success={key: 0.0, "else": 0.5})) == [rest]


def full_state() -> AccountState:
    """A state with a value in every field."""
    return AccountState(
        credential="fp",
        rejected_at=NOW - 1,
        blocked_at=NOW - 2,
        blocked_why="spam",
        cooldowns=[Cooldown(NOW - 3, NOW + 60, "limit", "gpt", "server", NOW + 90)],
        ended_by_success={"": NOW - 4},
        backoff={"": (2, NOW - 5)},
        faults=[NOW - 6],
        models={"gpt": ModelFact(True, NOW + 70, NOW - 7)},
        listed_at=NOW - 8,
        quota={"premium": QuotaWindow(50.0, NOW + 80, seen_at=NOW - 9), "chat": QuotaWindow(1.0, seen_at=NOW - 9)},
        count=Count(NOW - 11, 3, NOW + 90, 50.0),
        last_used=NOW - 10,
        turn=4.0,
        served=1,
        refused=1,
    )


def test_every_time_is_shifted():
    """On another clock everything lies `by` seconds later, and nothing else changes; 0 means never and stays."""
    sightings = {"s": Sighting("github.com", NOW)}
    memory = Memory({"a": full_state(), "b": AccountState()}, {"x": Affinity("a", NOW)}, sightings)
    later = shifted(memory, 1000.0)

    assert later.accounts["a"] == AccountState(
        credential="fp",
        rejected_at=NOW + 999,
        blocked_at=NOW + 998,
        blocked_why="spam",
        cooldowns=[Cooldown(NOW + 997, NOW + 1060, "limit", "gpt", "server", NOW + 1090)],
        ended_by_success={"": NOW + 996},
        backoff={"": (2, NOW + 995)},
        faults=[NOW + 994],
        models={"gpt": ModelFact(True, NOW + 1070, NOW + 993)},
        listed_at=NOW + 992,
        quota={
            "premium": QuotaWindow(50.0, NOW + 1080, seen_at=NOW + 991),
            "chat": QuotaWindow(1.0, seen_at=NOW + 991),
        },
        count=Count(NOW + 989, 3, NOW + 1090, 50.0),
        last_used=NOW + 990,
        turn=4.0,
        served=1,
        refused=1,
    )
    assert later.accounts["b"] == AccountState()
    assert later.conversations == {"x": Affinity("a", NOW + 1000)}
    assert later.sightings == {"s": Sighting("github.com", NOW + 1000)}
    assert shifted(later, -1000.0) == memory


def test_what_happened_stays_known_when_the_clock_goes_back_to_1970():
    """A block that would lie before the epoch is still newer than none at all."""
    blocked = AccountState(blocked_at=NOW, blocked_why="spam", rejected_at=NOW, ended_by_success={"": NOW - 10})
    written = shifted(Memory({"a": blocked}), 1000.0 - (NOW + 5000))
    read = merge(written, Memory({"a": AccountState()})).accounts["a"]
    assert read.blocked_at is not None and read.blocked_at > 0.0
    assert read.rejected_at is not None and read.rejected_at >= read.ended_by_success[""] > 0.0


def test_an_honest_memory_is_restored_as_it_is():
    """Nothing changes when no clock jumped."""
    memory = Memory({"a": full_state()}, {"x": Affinity("a", NOW)}, {"s": Sighting("github.com", NOW)})
    assert restored(memory, NOW) == memory


DAY = 86400.0


JUMPS = [-10 * 365 * DAY, -DAY, -3600.0, -30.0, 0.0, 30.0, 3600.0, DAY, 10 * 365 * DAY]


@given(STATES, strategies.sampled_from(JUMPS))
def test_a_clock_jump_never_makes_a_rest_longer(state, jump):
    """However the wall clock jumped, what is left of a rest lies between 0 and its length, and the past is past."""
    wall = NOW + jump
    memory = restored(Memory({"a": state}, {"x": Affinity("a", NOW)}, {"s": Sighting("h", NOW)}), wall)
    after = memory.accounts["a"]
    for rest, before in zip(after.cooldowns, state.cooldowns, strict=True):
        assert rest.began <= wall
        assert rest.until - wall <= min(before.until - before.began, LONGEST_COOLDOWN)
        assert rest.until <= before.until
    past = [
        *after.ended_by_success.values(), *(at for _, at in after.backoff.values()), *after.faults, after.last_used,
        after.rejected_at or 0.0, after.blocked_at or 0.0, after.listed_at or 0.0, memory.conversations["x"].used_at,
        memory.sightings["s"].first_seen,
        *(window.seen_at for window in after.quota.values()), *(fact.began for fact in after.models.values()),
    ]  # fmt: skip
    assert max(past) <= wall


def test_absurd_dates_are_cut():
    """A rest of a month and a reset in ten years, as a hostile or broken file may hold them."""
    state = AccountState(
        cooldowns=[
            Cooldown(NOW, NOW + 30 * DAY, "limit", told_until=NOW + 3650 * DAY),
            Cooldown(NOW + 5, NOW, "quota"),
            Cooldown(NOW, NOW + 3650 * DAY, "limit", "gpt", "server"),
        ],
        quota={"premium": QuotaWindow(0.0, NOW + 3650 * DAY)},
        models={"gpt": ModelFact(False, NOW + 2 * DAY, NOW)},
    )
    after = restored(Memory({"a": state}), NOW).accounts["a"]

    assert after.cooldowns[2] == Cooldown(NOW, NOW + LONGEST_WAIT, "limit", "gpt", "server")
    assert after.cooldowns[0] == Cooldown(NOW, NOW + LONGEST_COOLDOWN, "limit", told_until=NOW + LONGEST_DATE)
    assert after.cooldowns[1].until == NOW
    assert after.quota["premium"].resets_at == NOW + LONGEST_DATE
    assert after.models["gpt"].until == NOW + 2 * DAY


def test_a_copy_is_independent():
    """A copied state equals the first and shares nothing that can change."""
    state = full_state()
    other = copied(state)
    assert other == state
    assert not any(
        getattr(other, name) is getattr(state, name) for name in ("cooldowns", "models", "quota", "ended_by_success")
    )
    assert replace(other, served=2) != state


def test_the_room_holds_no_secret_by_name():
    """No field of what is written to state.json is named like a token or a password."""
    fields = {
        name for noun in (room.AccountState, room.Cooldown, room.ModelFact, room.Sighting) for name in noun.__slots__
    }
    assert not fields & {"token", "secret", "password", "authorization"}
