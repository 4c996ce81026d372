"""Whose is what a request carries."""

from hypothesis import given, strategies

from copilot_balancer.rules.ownership import MAX_MARKS, NOBODY, Owned, Ownership, newest, owner_of


def known(**owners: str) -> Ownership:
    found = Ownership()
    for mark, account_id in owners.items():
        found.learn([mark], account_id, 1.0)
    return found


def test_the_newest_word_counts():
    """A mark belongs to whoever made it last; the order of the marks is that in which they were seen."""
    owners = known(m1="a", m2="b")
    owners.learn(["m1"], "c", 2.0)
    assert owners.of("m1") == "c"
    assert list(owners.marks) == ["m2", "m1"]
    assert owners.of("m3") is None


def test_it_is_bounded():
    """The marks seen least recently are forgotten first."""
    owners = Ownership()
    owners.learn((f"m{n}" for n in range(MAX_MARKS)), "a", 1.0)
    owners.learn(["m0", "new"], "a", 2.0)
    assert len(owners.marks) == MAX_MARKS
    assert owners.of("m1") is None
    assert owners.of("m0") == "a"


def test_what_is_new():
    """What was learnt since a moment, oldest first: that is all that must be written down."""
    owners = known(m1="a", m2="a")
    owners.learn(["m3", "m1"], "b", 2.0)
    assert list(owners.since(2.0).marks) == ["m3", "m1"]
    assert owners.since(1.0) == owners
    assert owners.since(3.0).marks == {}


def test_the_newest_owner():
    """The last mark that somebody made says who is asked first; what nobody takes back says nothing."""
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
    assert [owners.keeps(mark, "a", "b") for mark in ("mine", "theirs", "dead", "new")] == [True, False, False, False]
    assert owners.keeps("new", "a", "a")
    assert owners.keeps("new", "a", None)
    assert not owners.keeps("dead", "a", None)


MARKS = strategies.dictionaries(
    strategies.sampled_from("abcdef"),
    strategies.builds(Owned, strategies.sampled_from(["x", "y", NOBODY]), strategies.integers(0, 5).map(float)),
).map(lambda marks: Ownership(dict(sorted(marks.items(), key=lambda item: (item[1].seen_at, item[0])))))


@given(MARKS, MARKS, MARKS)
def test_merging_is_the_same_in_any_order(one, two, three):
    """It does not matter who writes first, or how often."""
    assert newest(one, two) == newest(two, one)
    assert newest(one, one) == one
    assert newest(newest(one, two), three) == newest(one, newest(two, three))


def test_a_merge_is_bounded():
    """The newest of both stay."""
    one, two = Ownership(), Ownership()
    one.learn((f"a{n}" for n in range(MAX_MARKS)), "a", 1.0)
    two.learn(["b"], "b", 2.0)
    merged = newest(one, two)
    assert len(merged.marks) == MAX_MARKS
    assert merged.of("b") == "b"
