"""How a credential becomes an account."""

import pytest
from pydantic import SecretStr

from copilot_balancer.copilot.protocol import PLACEHOLDER
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.admission import Arrival, admit, adopted, consented, moved, unusable
from copilot_balancer.github.api import Access, Identity
from copilot_balancer.rules.accounts import Account, Consent, Decisions, fingerprint
from copilot_balancer.rules.state import AccountState, Affinity, Memory

NOW = 1_790_000_000.0
ONE, TWO = SecretStr("gho_one_one_one_one"), SecretStr("gho_two_two_two_two")


def identity(number=1, login="octocat", plan="individual", sku=None, host="github.com", **more) -> Identity:
    return Identity(f"{host}:{number}", login, plan, sku, **{"api_host": "api.githubcopilot.com", **more})


def arrival(token=ONE, who=None, label=None, host="github.com") -> Arrival:
    return Arrival(token, host, who, label)


def unverified(token=ONE, label="work", **more) -> Account:
    mark = fingerprint(token.get_secret_value())
    return Account(id=f"github.com:h{mark}", label=label, token=token, **more)


def refused(decisions: Decisions, who: Arrival) -> str:
    with pytest.raises(InvalidInput) as caught:
        admit(decisions, who, NOW)
    return str(caught.value)


def test_new_account():
    """Somebody new is appended with what GitHub says, under the label that the user gives."""
    who = identity(plan="business", api_host="api.business.githubcopilot.com")

    decisions, admitted = admit(Decisions(), arrival(who=who, label=" My Work "), NOW)

    assert decisions.accounts == (admitted.account,)
    assert (admitted.new, admitted.old_id) == (True, None)
    account = admitted.account
    assert (account.id, account.label, account.login, account.plan) == (
        "github.com:1",
        "my-work",
        "octocat",
        "business",
    )
    assert (account.api_host, account.token, account.added_at) == ("api.business.githubcopilot.com", ONE, NOW)


def test_unverified_account():
    """A credential that nobody verified goes by its own hash and the default API host of its login host."""
    decisions, admitted = admit(Decisions(), arrival(label="acme", host="acme.ghe.com"), NOW)

    account = admitted.account
    assert account.id == f"acme.ghe.com:h{fingerprint(ONE.get_secret_value())}"
    assert (account.login, account.plan, account.api_host) == (None, None, "copilot-api.acme.ghe.com")
    assert decisions.accounts == (account,)


@pytest.mark.parametrize(
    ("wish", "login", "label"),
    [
        ("Work", "octocat", "work"),
        ("  Work (Acme)  ", "octocat", "work-acme"),
        ("a.b_c-d", "octocat", "a.b_c-d"),
        ("UPPER", "octocat", "upper"),
        ("--x--", "octocat", "x"),
        ("Grüße aus Köln", "octocat", "gr-e-aus-k-ln"),
        ("1", "octocat", "1"),
        ("x" * 64, "octocat", "x" * 64),
        (None, "Octo-Cat", "octo-cat"),
        (None, "jane_acme", "jane_acme"),
    ],
)
def test_label(wish, login, label):
    """A label is normalised; without one the account is called by its login."""
    _, admitted = admit(Decisions(), arrival(who=identity(login=login), label=wish), NOW)

    assert admitted.account.label == label


@pytest.mark.parametrize("wish", [" ", "---", "🙂", "x" * 65, "../x", "\x1b[31m\n"])
def test_unusable_label(wish):
    """A label of which nothing usable is left is refused, and quoted harmlessly."""
    if wish in ("../x", "\x1b[31m\n"):
        _, admitted = admit(Decisions(), arrival(who=identity(), label=f"a{wish}"), NOW)
        assert admitted.account.label in ("a..-x", "a-31m")
    else:
        assert "cannot be a label" in refused(Decisions(), arrival(who=identity(), label=wish))


def test_taken_label():
    """A label that another account has is refused with that account's name."""
    decisions, _ = admit(Decisions(), arrival(who=identity(), label="work"), NOW)

    assert "the label work is taken by octocat on github.com" in refused(
        decisions, arrival(TWO, identity(2, "octodog"), "Work")
    )


def test_label_taken_by_an_unverified_account():
    """A holder without a login is told as such."""
    decisions = Decisions(accounts=(unverified(),))

    assert "taken by an unverified account on github.com" in refused(decisions, arrival(TWO, identity(2), "work"))


def test_unverified_account_without_a_label():
    """Who has no login needs a label."""
    assert "give it a --label" in refused(Decisions(), arrival())


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (PLACEHOLDER, "placeholder"),
        ("ghp_" + "x" * 36, "classic personal access token"),
        ("tid=abc;exp=1;sku=x", "short-lived Copilot token"),
    ],
    ids=["placeholder", "classic", "exchanged"],
)
def test_unusable_token(token, said):
    """A token that can be nobody's account is refused with its reason, by its looks alone."""
    assert said in refused(Decisions(), arrival(SecretStr(token), label="work"))
    assert said in unusable(SecretStr(token))


@pytest.mark.parametrize("beginning", ["gho_", "ghu_", "github_pat_", "ghs_"])
def test_usable_token(beginning):
    """The kinds of token that the Copilot API takes may come in."""
    assert unusable(SecretStr(beginning + "x" * 36)) is None


@pytest.mark.parametrize(
    ("access", "credential", "api_host"),
    [
        (None, "direct", "api.githubcopilot.com"),
        (Access("direct"), "direct", "api.githubcopilot.com"),
        (Access("exchange", "api.business.githubcopilot.com"), "exchange", "api.business.githubcopilot.com"),
        (Access("exchange"), "exchange", "api.githubcopilot.com"),
    ],
)
def test_how_the_api_takes_it(access, credential, api_host):
    """How the API took the token, and where, is stored with the account, new or known."""
    new = Arrival(ONE, "github.com", identity(), access=access)
    decisions, admitted = admit(Decisions(), new, NOW)
    assert (admitted.account.credential, admitted.account.api_host) == (credential, api_host)

    again = Arrival(TWO, "github.com", identity(), access=Access("exchange", "api.enterprise.githubcopilot.com"))
    account = admit(decisions, again, NOW)[1].account
    assert (account.credential, account.api_host) == ("exchange", "api.enterprise.githubcopilot.com")

    back = admit(decisions, Arrival(TWO, "github.com", identity(), access=Access("direct")), NOW)[1].account
    assert (back.credential, back.api_host) == ("direct", api_host)


def test_same_identity_again():
    """The same person again gets the new token and what GitHub says now, and keeps everything that the user decided."""
    before = Account(
        id="github.com:1",
        label="work",
        login="old-login",
        token=ONE,
        plan="individual",
        priority=7,
        weight=2.0,
        fence="acme",
        enabled=False,
        block=("gpt*",),
        cleared={"gpt-5": 1.0},
        added_at=5.0,
    )
    other = Account(id="github.com:2", label="other", token=SecretStr("gho_other_other"))
    who = identity(login="new-login", plan="business", api_host="api.business.githubcopilot.com", api_host_named=True)

    decisions, admitted = admit(Decisions(accounts=(before, other)), arrival(TWO, who, "renamed"), NOW)

    told = {"login": "new-login", "token": TWO, "plan": "business", "api_host": "api.business.githubcopilot.com"}
    assert decisions.accounts == (before.model_copy(update=told), other)
    assert (admitted.new, admitted.old_id) == (False, None)


def test_what_github_does_not_tell_stays():
    """A token that may not ask for plan and API host does not make us forget them."""
    known = identity(plan="business", api_host="api.business.githubcopilot.com", api_host_named=True)
    decisions, _ = admit(Decisions(), arrival(who=known), NOW)

    _, admitted = admit(decisions, arrival(TWO, identity(plan=None)), NOW)

    assert (admitted.account.plan, admitted.account.api_host) == ("business", "api.business.githubcopilot.com")


def test_same_token_again():
    """The same token, accepted again by GitHub, ends what its refusal began: the account is cleared, now."""
    decisions, _ = admit(Decisions(), arrival(who=identity()), NOW)

    _, admitted = admit(decisions, arrival(who=identity()), NOW + 60)

    assert admitted.account.cleared == {"": NOW + 60}


def test_same_token_unverified():
    """A stored token that comes again without being verified changes nothing, and makes no second account."""
    decisions, _ = admit(Decisions(), arrival(who=identity()), NOW)

    again, admitted = admit(decisions, arrival(label="twice"), NOW + 60)

    assert again == decisions
    assert not admitted.new


def test_verified_later():
    """An unverified account takes its real id over when it is verified, in its place, with label and home kept."""
    first = Account(id="github.com:9", label="first", token=TWO)
    decisions = Decisions(accounts=(first, unverified(priority=3)), home_id=unverified().id)

    decisions, admitted = admit(decisions, arrival(who=identity(), label="work"), NOW)

    assert [account.id for account in decisions.accounts] == ["github.com:9", "github.com:1"]
    assert (admitted.account.label, admitted.account.priority, admitted.account.login) == ("work", 3, "octocat")
    assert admitted.old_id == unverified().id
    assert decisions.home is admitted.account
    assert decisions.removed == {unverified().id: NOW}


def test_verified_later_and_known_already():
    """An unverified account that turns out to be one that is stored gives way to it, home included."""
    known = Account(id="github.com:1", label="known", token=TWO)
    decisions = Decisions(accounts=(unverified(label="unknown"), known), home_id=unverified().id)

    decisions, admitted = admit(decisions, arrival(who=identity()), NOW)

    assert [(account.label, account.token) for account in decisions.accounts] == [("known", ONE)]
    assert decisions.home is admitted.account


def test_verified_after_a_removal():
    """An unverified account whose real id was removed once is newer than that removal, so the store takes it."""
    decisions = Decisions(accounts=(unverified(added_at=NOW - 9),), removed={"github.com:1": NOW - 5})

    decisions, admitted = admit(decisions, arrival(who=identity()), NOW)

    assert admitted.account.added_at == NOW
    assert "github.com:1" not in decisions.removed


FREE = identity(1, "octofree", "individual", "free_limited_copilot")


@pytest.mark.parametrize("plan", ["free", "individual", None])
def test_second_free_account(plan):
    """One account on Copilot Free is taken; a second one is refused by name; paid and unknown ones are no hindrance."""
    decisions, admitted = admit(Decisions(), arrival(who=FREE, label="mine"), NOW)
    assert admitted.account.plan == "free"
    second = arrival(TWO, identity(2, "octofree2", plan))

    if plan == "free":
        assert refused(decisions, second).startswith("octofree2 is on Copilot Free, and so is mine")
    else:
        assert len(admit(decisions, second, NOW)[0].accounts) == 2


def test_free_account_again():
    """The one free account may be refreshed."""
    decisions, _ = admit(Decisions(), arrival(who=FREE), NOW)

    assert not admit(decisions, arrival(TWO, FREE), NOW)[1].new


def test_unverified_account_that_is_free():
    """An unverified account that turns out to be a second free one is not verified."""
    decisions, _ = admit(Decisions(accounts=(unverified(TWO, "later"),)), arrival(who=FREE), NOW)

    assert "Copilot Free" in refused(decisions, arrival(TWO, identity(2, "octofree2", "free")))


def test_moved_memory():
    """What was learnt under the hash is told again under the real id, and nothing else."""
    state = AccountState(served=3)
    conversations = {"a": Affinity("old", 1.0), "b": Affinity("other", 2.0)}
    memory = Memory({"old": state, "other": AccountState()}, conversations)

    assert moved(memory, "old", "new") == Memory({"new": state}, {"a": Affinity("new", 1.001)})
    assert moved(memory, "unknown", "new") == Memory()


# ── adopt ────────────────────────────────────────────────────────────────────────────────────────────────────────────


MARK = fingerprint(ONE.get_secret_value())


def test_consent():
    """A consent is written down under the credential's fingerprint, with a label; a later one takes its place."""
    first = consented(Decisions(), MARK, None, NOW)
    second = consented(first, MARK, " My Client ", NOW + 1)

    assert first.adopt == {MARK: Consent(label=f"client-{MARK[:6]}", at=NOW)}
    assert second.adopt == {MARK: Consent(label="my-client", at=NOW + 1)}
    assert first.accounts == ()


@pytest.mark.parametrize(
    ("label", "said"), [("work", "label work is taken"), ("other", "label other is taken"), ("!", "cannot be a label")]
)
def test_refused_consent(label, said):
    """A label that an account has, or another consent, is refused."""
    decisions = Decisions(accounts=(unverified(TWO),), adopt={"ffffffffffff": Consent(label="other", at=NOW)})

    with pytest.raises(InvalidInput, match=said):
        consented(decisions, MARK, label, NOW)


def test_consent_to_an_account():
    """A credential that an account has needs no consent."""
    with pytest.raises(InvalidInput, match="work has this credential already"):
        consented(Decisions(accounts=(unverified(),)), MARK, None, NOW)


def test_adopted():
    """With consent the credential becomes an account at its next sighting; the consent is spent."""
    decisions = consented(Decisions(), MARK, "mine", NOW)

    after = adopted(decisions, ONE, "acme.ghe.com", NOW + 5)

    (account,) = after.accounts
    assert (account.id, account.label, account.host) == (f"acme.ghe.com:h{MARK}", "mine", "acme.ghe.com")
    assert (account.token, account.added_at, account.api_host) == (ONE, NOW + 5, "copilot-api.acme.ghe.com")
    assert after.adopt == {}
    assert adopted(after, ONE, "acme.ghe.com", NOW + 6) is None


def test_not_adopted():
    """Without consent to just this credential nothing changes."""
    decisions = consented(Decisions(), MARK, "mine", NOW)

    assert adopted(decisions, TWO, "github.com", NOW) is None
    assert adopted(Decisions(), ONE, "github.com", NOW) is None


def test_adopted_and_verified():
    """Who GitHub says it is counts, if the proxy asked: the same person again is no second account."""
    known, _ = admit(Decisions(), arrival(TWO, identity()), NOW)

    after = adopted(consented(known, MARK, "mine", NOW), ONE, "github.com", NOW, identity())

    assert [(one.label, one.token) for one in after.accounts] == [("octocat", ONE)]


def test_label_taken_meanwhile():
    """A label that was taken after the consent does not hinder it: the hash makes it another one."""
    decisions = consented(Decisions(), MARK, "work", NOW)

    after = adopted(decisions.with_account(unverified(TWO)), ONE, "github.com", NOW)

    assert [one.label for one in after.accounts] == ["work", f"work-{MARK}"]


def test_adopted_in_vain():
    """A credential that may not come in is not stored, and the consent is spent all the same."""
    free, _ = admit(Decisions(), arrival(TWO, FREE), NOW)
    second = identity(7, "second", "free")

    assert adopted(consented(free, MARK, "mine", NOW), ONE, "github.com", NOW, second) == free
