"""The nouns of what the user decided, and what may become one: labels, login hosts, API hosts, pages, tokens."""

import json

import pytest
from hypothesis import given, strategies
from pydantic import BaseModel, SecretStr, ValidationError

from copilot_balancer.copilot.hosts import API_HOSTS, check_api_host, default_api_host, login_host_of, normalise_domain
from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.api import read_api_host
from copilot_balancer.github.device_flow import check_verification_url
from copilot_balancer.rules.accounts import (
    Account,
    Consent,
    Decisions,
    Label,
    check_token,
    fingerprint,
    matches,
    normalise_label,
)

TOKEN = SecretStr("gho_CanaryCanaryCanary")


def account(number: int = 1, label: str = "work", **more) -> Account:
    return Account(**{"id": f"github.com:{number}", "label": label, "token": TOKEN, **more})


class Labelled(BaseModel):
    label: Label


# ── 54 that are refused, 12 that are taken ───────────────────────────────────────────────────────────────────────────


BAD_LABELS = (
    "", " ", "-", ".", "..", "../x", "a/b", "a\\b", "a b", "a\n", "a\r\nX-Injected: yes", "\x1b[31m", "a\x00", "Work",
    "wörk", "аcme", "🙂", "x" * 65, "-x",
)  # fmt: skip
BAD_DOMAINS = (
    "", "evil.test", "github.com.evil.test", "evil.test/github.com", "http://github.com", "https://github.com/path",
    "github.com:8443", "user@github.com", "github.com@evil.test", "api.github.com", "ghe.com", ".ghe.com",
    "a.b.ghe.com", "-a.ghe.com", "acme.ghe.com.evil.test", "аcme.ghe.com", "127.0.0.1",
)  # fmt: skip
BAD_API_URLS = (
    "http://api.githubcopilot.com", "https://api.githubcopilot.com.evil.test", "https://evil.test/",
    "https://api.githubcopilot.com:8443", "https://api.githubcopilot.com@evil.test",
    "https://user@api.githubcopilot.com", "https://api.githubcopilot.com/path", "https://127.0.0.1",
    "https://proxy.individual.githubcopilot.com", "https://copilot-api.acme.ghe.com",
)  # fmt: skip
BAD_PAGES = (
    "http://github.com/login/device", "https://github.com/login/device/", "https://github.com/login/device?user_code=X",
    "https://github.com.evil.test/login/device", "https://github.com@evil.test/login/device",
    "https://github.com:443/login/device", "https://GitHub.com/login/device", "javascript:alert(1)",
)  # fmt: skip

GOOD_LABELS = ("a", "work", "work-acme", "0.9_x", "x" * 64)
GOOD_DOMAINS = ("github.com", "https://Acme.ghe.com/", "a-1.ghe.com.")
GOOD_API_URLS = ("https://api.githubcopilot.com", "https://api.enterprise.githubcopilot.com/")
GOOD_PAGES = ("https://github.com/login/device", "https://acme.ghe.com/login/device")


def take_page(page: str) -> None:
    host = "acme.ghe.com" if page.startswith("https://acme") else "github.com"
    if why := check_verification_url(page, host):
        raise InvalidInput(why)


TAKES = {
    "label": lambda text: Labelled(label=text),
    "domain": normalise_domain,
    "API URL": lambda url: read_api_host(url, "github.com"),
    "page": take_page,
}


def rows(*lists):
    kinds = ("label", "domain", "API URL", "page")
    return [
        pytest.param(kind, text, id=f"{kind} {text[:30]!r}")
        for kind, texts in zip(kinds, lists, strict=True)
        for text in texts
    ]


BAD = rows(BAD_LABELS, BAD_DOMAINS, BAD_API_URLS, BAD_PAGES)
GOOD = rows(GOOD_LABELS, GOOD_DOMAINS, GOOD_API_URLS, GOOD_PAGES)


def test_how_many():
    """The table is as long as it says."""
    assert (len(BAD), len(GOOD)) == (54, 12)


@pytest.mark.parametrize(("kind", "text"), BAD)
def test_refused(kind, text):
    """Nothing that only looks like a label, a login host, an API URL or GitHub's page is taken."""
    with pytest.raises((InvalidInput, ValidationError)):
        TAKES[kind](text)


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_taken(kind, text):
    """What people and GitHub write is taken."""
    TAKES[kind](text)


@given(strategies.text(max_size=80))
def test_any_text(text):
    """Whatever is taken as a label, a domain or an API host is harmless in a path, a header, a line of a log."""
    for take in (normalise_label, normalise_domain, lambda text: check_api_host(text, "github.com")):
        try:
            taken = take(text)
        except InvalidInput as error:
            assert str(error).isprintable()
        else:
            assert taken.isascii()
            assert taken.isprintable()
            assert "/" not in taken
            assert ".." not in taken or take is normalise_label


# ── labels, hosts, tokens ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "label"),
    [(" Work (Acme) ", "work-acme"), ("A.B_c", "a.b_c"), ("é1", "1"), ("a--b", "a--b"), ("-x-", "x")],
)
def test_label(text, label):
    """A label is what is left of a name in lower case, with one dash for a run of anything else."""
    assert normalise_label(text) == label


@pytest.mark.parametrize("host", sorted(API_HOSTS))
def test_api_hosts(host):
    """Each of GitHub's API hosts is one of github.com's, and of no other login host."""
    assert check_api_host(host, "github.com") == host
    assert login_host_of(host) == "github.com"
    with pytest.raises(InvalidInput):
        check_api_host(host, "acme.ghe.com")


def test_api_host_of_a_domain():
    """An enterprise domain has one API host, and that has one domain."""
    assert default_api_host("acme.ghe.com") == check_api_host("copilot-api.acme.ghe.com", "acme.ghe.com")
    assert login_host_of("copilot-api.acme.ghe.com") == "acme.ghe.com"
    assert default_api_host("github.com") == "api.githubcopilot.com"


@pytest.mark.parametrize(
    "host", ["evil.test", "copilot-api.evil.test", "acme.ghe.com", "copilot-api.a.b.ghe.com", "api.github.com", ""]
)
def test_host_of_nobody(host):
    """Any other host is no API host."""
    assert login_host_of(host) is None


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 4097, "two words", "tök" * 9, "x" * 20 + "\r\n", "x" * 20 + "\x00"]
)
def test_token_that_is_none(token):
    """What cannot stand in a header as it is, is no token; it is not quoted."""
    with pytest.raises(InvalidInput) as caught:
        check_token(token)
    assert token == "" or token not in str(caught.value)


def test_fingerprint():
    """A fingerprint names a credential and does not tell it."""
    mark = fingerprint("gho_one_one_one")

    assert mark == fingerprint("gho_one_one_one") != fingerprint("gho_two_two_two")
    assert len(mark) == 12
    assert int(mark, 16) >= 0


@pytest.mark.parametrize(
    ("model", "patterns", "expected"),
    [
        ("GPT-5.4", ("gpt-5*",), True),
        ("gpt-5.4", ("GPT-5.4",), True),
        ("claude", ("gpt*", "o?"), False),
        ("x", (), False),
    ],
)
def test_patterns(model, patterns, expected):
    """Patterns are the shell's, in any case."""
    assert matches(model, patterns) is expected


# ── account ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_account_shows_no_token():
    """Neither repr nor JSON of an account holds its token; only whoever asks by context gets it."""
    one = account()

    for shown in (repr(one), str(one), one.model_dump_json(), json.dumps(one.model_dump(mode="json"))):
        assert "Canary" not in shown
    assert one.model_dump(context={"reveal": True})["token"] == TOKEN.get_secret_value()
    assert one.model_dump(context={"reveal": False})["token"] == "**********"
    assert one.fingerprint == fingerprint(TOKEN.get_secret_value())


@pytest.mark.parametrize(
    "facts",
    [
        {"id": "acme.ghe.com:1"},
        {"id": "github.com:"},
        {"host": "https://github.com"},
        {"host": "evil.test", "id": "evil.test:1"},
        {"api_host": "evil.test"},
        {"api_host": "copilot-api.acme.ghe.com"},
        {"token": SecretStr("short")},
        {"label": "Work"},
        {"login": "octo\ncat"},
        {"weight": 0},
        {"reserve": 101},
        {"credential": "other"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_account_that_is_none(facts):
    """An account whose parts do not fit together is none, and its token stands in no error."""
    with pytest.raises((ValidationError, InvalidInput)) as caught:
        account(**facts)
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("allow", "block", "model", "why"),
    [
        ((), (), "gpt-4.1", None),
        ((), (), None, None),
        (("gpt*",), (), "gpt-4.1", None),
        (("gpt*",), (), "claude", "not in its allow list"),
        ((), ("gpt*",), "gpt-4.1", "in its block list"),
        (("gpt*",), ("gpt-4*",), "gpt-4.1", "in its block list"),
        (("gpt*",), (), None, None),
    ],
)
def test_what_an_account_takes(allow, block, model, why):
    """The user's own patterns keep a model from an account, and say so."""
    assert account(allow=allow, block=block).takes(model) == why


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def two(**more) -> Decisions:
    return Decisions(
        accounts=(account(1, "work", login="Octocat"), account(2, "home", login="octodog")),
        **{"terms_accepted_at": 1.0, **more},
    )


@pytest.mark.parametrize(
    "twice", [{"number": 1, "label": "other"}, {"number": 2, "label": "work"}], ids=["id", "label"]
)
def test_two_of_one_kind(twice):
    """Neither an id nor a label stands twice."""
    with pytest.raises(ValidationError, match="two accounts have the same"):
        Decisions(accounts=(account(), account(**twice)))


@pytest.mark.parametrize(
    ("home_id", "label"), [(None, "work"), ("github.com:2", "home"), ("github.com:9", "work")], ids=str
)
def test_home(home_id, label):
    """The home account is the chosen one, else the first."""
    assert two(home_id=home_id).home.label == label
    assert Decisions().home is None


def test_terms():
    """Until the terms are accepted only the first account serves; one alone needs none."""
    assert [one.label for one in two().serving()] == ["work", "home"]
    assert [one.label for one in two(terms_accepted_at=None).serving()] == ["work"]
    assert not Decisions(accounts=(account(),)).terms_missing


@pytest.mark.parametrize("name", ["work", "github.com:1", "octocat", " OCTOCAT "])
def test_find(name):
    """An account goes by label, id or login."""
    assert two().find(name).label == "work"


def test_find_nobody():
    """A name that nobody has is told with those that there are."""
    with pytest.raises(InvalidInput, match=r"there is no account 'x' \(accounts: work, home\)"):
        two().find("x")
    with pytest.raises(InvalidInput, match="none is stored"):
        Decisions().find("x")


def test_find_two():
    """A login of two accounts is no name."""
    both = Decisions(accounts=(account(1, "a", login="x"), account(2, "b", login="X")))

    with pytest.raises(InvalidInput, match="names 2 accounts; use a label"):
        both.find("x")


def test_with_account():
    """An account replaces the one of its id in its place, or is appended; an old removal of it is forgotten."""
    renamed, third = account(1, "new"), account(3, "third")
    changed = two(removed={"github.com:3": 5.0}).with_account(renamed).with_account(third)

    assert [one.label for one in changed.accounts] == ["new", "home", "third"]
    assert changed.removed == {}
    with pytest.raises(ValidationError):
        two().with_account(account(3, "home"))


@pytest.mark.parametrize("home_id", ["github.com:1", "github.com:2"])
def test_without(home_id):
    """A removed account is gone, remembered as removed, and home no more; everything else stays."""
    consent = {"0123456789ab": Consent(label="x", at=1.0)}
    changed = two(home_id=home_id, adopt=consent).without("github.com:1", 9.0)

    assert [one.label for one in changed.accounts] == ["home"]
    assert changed.removed == {"github.com:1": 9.0}
    assert changed.home.label == "home"
    assert changed.home_id == (None if home_id == "github.com:1" else home_id)
    assert changed.adopt == consent


def test_decisions_in_json():
    """What is decided survives its way through a file, consents included."""
    before = two(adopt={"0123456789ab": Consent(label="x", at=1.0)})

    after = Decisions.model_validate_json(json.dumps(before.model_dump(mode="json", context={"reveal": True})))

    assert after == before
