"""What README and the terms promise about accounts, word by word: each sentence stands there, and is kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from copilot_balancer.cli.accounts.terms import _FOOT, RULES
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.admission import Arrival, admit
from copilot_balancer.github.api import Identity
from copilot_balancer.rules import edits
from copilot_balancer.rules.types import Nobody, NobodyKind
from support.pools import BLOCKED, LIMIT, START, Bench, account, decisions, hinted

ROOT = Path(__file__).parents[2]


def rests_as_long_as_the_server_says():
    for seconds in (7, 3600, 90_000, 384_495):
        bench = Bench("a", "b")
        ask = bench.ask()
        ask.sent()
        ask.answered(hinted(LIMIT, seconds))
        assert bench.rest("a") == seconds
        for moment in (1, seconds / 2, seconds - 1):
            bench.now = START + moment
            assert bench.serve() == "b"
        bench.now = START + seconds
        assert bench.rest("a") is None


def a_block_stops_until_the_user_turns_it_on():
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    ask.answered(BLOCKED)
    bench.now += 400 * 86_400
    assert bench.serve() == "b"
    for change in (
        edits.cleared("github.com:a", bench.now),
        edits.renamed("github.com:a", "c"),
        edits.turned_off("github.com:a"),
    ):
        bench.decide(**dict(change(bench.decisions)))
        assert bench.serve() == "b"
    bench.decide(**dict(edits.turned_on("github.com:a", bench.now)(bench.decisions)))
    assert bench.view("c").why_not is None


def nobody_is_asked_in_place_of_a_blocked_one():
    bench = Bench("a", "b")
    ask = bench.ask()
    ask.sent()
    nobody = ask.answered(BLOCKED).nobody()
    assert (nobody.kind, nobody.give) == (NobodyKind.BLOCKED, 0)


def no_second_free_account():
    free = Identity("github.com:9", "second", "individual", "free_limited_copilot", "api.individual.githubcopilot.com")
    known = decisions(account("a", plan="free"))
    with pytest.raises(InvalidInput, match="one free account per person"):
        admit(known, Arrival(SecretStr("gho_second-canary"), "github.com", free, None), START)


def the_second_serves_only_after_the_terms():
    bench = Bench("a", "b", terms_accepted_at=None)
    ask = bench.ask()
    assert ask.sent() == "a"
    assert isinstance(ask.answered(hinted(LIMIT, 60)).assign(), Nobody)
    bench.decide(**dict(edits.accepted(START)(bench.decisions)))
    assert bench.serve() == "b"


def no_request_crosses_a_fence():
    bench = Bench("a", account("b", fence="work"))
    for fence, inside in ((None, "a"), ("default", "a"), ("work", "b")):
        ask = bench.ask(fence=fence)
        assert ask.sent() == inside
        assert isinstance(ask.answered(hinted(LIMIT, 60)).assign(), Nobody)
        bench = Bench("a", account("b", fence="work"))
    assert bench.ask(fence="nowhere").nobody().kind is NobodyKind.FENCED


README = {
    "A limited account rests exactly as long as the server says.": rests_as_long_as_the_server_says,
    "An abuse block stops that account until you turn it on again,": a_block_stops_until_the_user_turns_it_on,
    "and no other account is asked in its place.": nobody_is_asked_in_place_of_a_blocked_one,
    "A second account on the free plan is refused here.": no_second_free_account,
    "So the second account serves only after `copilot-balancer terms accept`.": the_second_serves_only_after_the_terms,
    "no request crosses a fence.": no_request_crosses_a_fence,
}
TERMS = {
    "A second account on Copilot Free is not taken in here.": no_second_free_account,
    "Until you accept, only the first account serves.": the_second_serves_only_after_the_terms,
}


@pytest.mark.parametrize(("sentence", "kept"), README.items(), ids=README)
def test_readme_keeps_its_word(sentence: str, kept: Callable[[], None]):
    """A sentence of README about the user's limits stands there as it is, and is true."""
    text = " ".join((ROOT / "README.md").read_text().replace("**", "").split())
    assert sentence in text
    kept()


@pytest.mark.parametrize(("sentence", "kept"), TERMS.items(), ids=TERMS)
def test_the_terms_keep_their_word(sentence: str, kept: Callable[[], None]):
    """A sentence of the terms about what we do stands there as it is, and is true."""
    assert sentence in " ".join([_FOOT, *(rule.text for rule in RULES)])
    kept()
