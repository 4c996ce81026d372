"""Whose is what a request carries."""

from hypothesis import given, strategies

from copilot_balancer.rules.ownership import MAX_HASHES, NOBODY, Owned, Ownership, newest, owner_of


def known(**owners: str) -> Ownership:
    found = Ownership()
    for state_hash, account_id in owners.items():
        found.learn([state_hash], account_id, 1.0)
    return found


def test_the_newest_word_counts():
    """A hash belongs to whoever made it last; the order of the hashes is that in which they were seen."""
    owners = known(m1="a", m2="b")
    owners.learn(["m1"], "c", 2.0)
    assert owners.of("m1") == "c"
    assert list(owners.hashes) == ["m2", "m1"]
    assert owners.of("m3") is None


def test_it_is_bounded():
    """The hashes seen least recently are forgotten first."""
    owners = Ownership()
    owners.learn((f"m{n}" for n in range(MAX_HASHES)), "a", 1.0)
    owners.learn(["m0", "new"], "a", 2.0)
    assert len(owners.hashes) == MAX_HASHES
    assert owners.of("m1") is None
    assert owners.of("m0") == "a"


def test_what_is_new():
    """What was learnt since a moment, oldest first: that is all that must be written down."""
    owners = known(m1="a", m2="a")
    owners.learn(["m3", "m1"], "b", 2.0)
    assert list(owners.since(2.0).hashes) == ["m3", "m1"]
    assert owners.since(1.0) == owners
    assert owners.since(3.0).hashes == {}


def test_the_newest_owner():
    """The last hash that somebody made says who is asked first; what nobody takes back says nothing."""
    owners = known(m1="a", m2="b", m3=NOBODY)
    assert owners.newest(["m1", "m2", "m3", "m4"]) == "b"
    assert owners.newest(["m3", "m4"]) is None


def test_what_is_needed_binds():
    """Its maker is the one who may go on, even when something newer was made by another; NOBODY's binds nobody."""
    owners = known(m1="a", m2="b", m3=NOBODY)
    assert owner_of(owners, ["m1", "m2"], {"m1"}) == ("a", True)
    assert owner_of(owners, ["m1", "m2"], set()) == ("b", False)
    assert owner_of(owners, ["m1", "m3"], {"m3"}) == ("a", False)
    assert owner_of(owners, ["m4"], {"m4"}) == (None, True), "somebody's"
    assert owner_of(owners, ["m4"], set()) == (None, False)
    assert owner_of(owners, ["m1", "m4"], {"m4"}) == ("a", False)
    assert owner_of(owners, ["m3"], {"m3"}) == (None, False)
    assert owner_of(owners, [], set()) == (None, False)


def test_what_a_request_keeps():
    """Its own, always; another's or NOBODY's, never; what is not known goes with the newest owner, or on trust."""
    owners = known(mine="a", theirs="b", dead=NOBODY)
    assert [owners.keeps(state_hash, "a", "b") for state_hash in ("mine", "theirs", "dead", "new")] == [
        True,
        False,
        False,
        False,
    ]
    assert owners.keeps("new", "a", "a")
    assert owners.keeps("new", "a", None)
    assert not owners.keeps("dead", "a", None)


OWNERS = strategies.dictionaries(
    strategies.sampled_from("abcdef"),
    strategies.builds(Owned, strategies.sampled_from(["x", "y", NOBODY]), strategies.integers(0, 5).map(float)),
).map(lambda hashes: Ownership(dict(sorted(hashes.items(), key=lambda item: (item[1].seen_at, item[0])))))


@given(OWNERS, OWNERS, OWNERS)
def test_merging_is_the_same_in_any_order(one, two, three):
    """It does not matter who writes first, or how often."""
    assert newest(one, two) == newest(two, one)
    assert newest(one, one) == one
    assert newest(newest(one, two), three) == newest(one, newest(two, three))


def test_a_merge_is_bounded():
    """The newest of both stay."""
    one, two = Ownership(), Ownership()
    one.learn((f"a{n}" for n in range(MAX_HASHES)), "a", 1.0)
    two.learn(["b"], "b", 2.0)
    merged = newest(one, two)
    assert len(merged.hashes) == MAX_HASHES
    assert merged.of("b") == "b"
