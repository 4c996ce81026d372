"""Real clients, end to end: opencode and the Copilot CLI, through a real mitmdump, against the embedded fake.

What counts is what a person sees (exit code, printed answer) and what the fake saw; never how long it took.
"""

import pytest

from copilot_balancer.fake.answers import Refuse, limited, once
from end_to_end.test_secrets import leaks
from support.proxies import PERSONAL, SPARE, WORK, three_accounts
from support.real_clients import (
    accounts,
    assert_answered,
    assert_said,
    copilot,  # noqa: F401 - a fixture
    home,  # noqa: F401 - a fixture
    is_title,
    lines,
    opencode,  # noqa: F401 - a fixture
    prompts,
    to_prompts,
)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

BY_PRIORITY = ("--set", "copilot_strategy=priority")
"""Every new conversation begins with the account of the lowest priority, whoever was used last."""

WORK_FIRST = tuple(
    account.model_copy(update={"priority": int(account.label != "work")}) for account in three_accounts()
)
"""For that strategy."""

LACKS = Refuse(400, "no_available_model_endpoints", "no endpoints available for this model under your current plan")
"""Model missing, for an hour: long enough for a second run of the slowest client."""


# --- opencode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [("gpt-4.1", "/chat/completions"), ("gpt-5-mini", "/responses"), ("claude-sonnet-4.6", "/v1/messages")],
)
def test_opencode_fails_over(opencode, start, fake, model, endpoint):  # noqa: F811 - a fixture
    """On each wire opencode's prompt is answered by another account; the limited one is asked once."""
    fake.accounts[WORK].default = to_prompts(limited(30))
    proxy = start()
    assert_answered(opencode(proxy, model), proxy)
    first, second = prompts(fake)
    assert (first.account, second.account in ("personal", "spare")) == ("work", True)
    assert {first.endpoint, second.endpoint} == {endpoint}
    assert first.body == second.body
    assert_said(proxy, model, f"<- {second.account} (", " 200 ", "before: work 429 session limit (rests 30 s)")


def test_opencode_spares_a_limited_account(opencode, start, fake):  # noqa: F811 - a fixture
    """A limited account is asked once: neither the rest of that run nor a second one sends it anything."""
    fake.accounts[WORK].default = limited(3600)
    proxy = start(*BY_PRIORITY, accounts=WORK_FIRST)
    for _ in range(2):
        assert_answered(opencode(proxy, "gpt-5-mini"), proxy)
    assert accounts(fake.asked())[0] == "work"
    assert accounts(fake.asked()).count("work") == 1
    assert len(prompts(fake)) == 2


def test_opencode_with_an_account_that_lacks_the_model(opencode, start, fake):  # noqa: F811 - a fixture
    """An account without the model is asked once; a second run sends it titles, but nothing with that model."""
    fake.accounts[WORK].default = to_prompts(LACKS)
    proxy = start(
        *BY_PRIORITY, accounts=WORK_FIRST, home_id="github.com:2"
    )  # opencode uses only what its /models lists
    for _ in range(2):
        assert_answered(opencode(proxy, "gpt-5-mini"), proxy)
    assert len(prompts(fake)) == 3
    assert accounts(prompts(fake))[0] == "work"
    assert accounts(prompts(fake)).count("work") == 1
    assert accounts([seen for seen in fake.asked() if is_title(seen)]) == ["work", "work"]


def test_opencode_waits_when_everybody_is_limited(opencode, start, fake):  # noqa: F811 - a fixture
    """When every account is limited opencode gets a 429 that it understands: it waits, asks again and is answered."""
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = to_prompts(once(limited(1)))
    proxy = start()
    assert_answered(opencode(proxy, "gpt-5-mini"), proxy)
    *refused, served = accounts(prompts(fake))
    assert sorted(refused) == ["personal", "spare", "work"]
    assert served in refused
    assert_said(proxy, "gpt-5-mini", "<- nobody, 429")
    assert_said(proxy, "gpt-5-mini", f"<- {served} (", " 200 ")


def test_opencode_prints_our_own_error(opencode, start, fake):  # noqa: F811 - a fixture
    """When no account takes the model opencode prints our sentence, once, and does not try again."""
    proxy = start(accounts=tuple(a.model_copy(update={"block": ("gpt-5*",)}) for a in three_accounts()))
    ran = opencode(proxy, "gpt-5-mini")
    assert ran.status != 0
    (said,) = [line for line in ran.complained.splitlines() if "copilot-balancer: " in line]
    assert all(f"{label}: " in said for label in ("work", "personal", "spare"))
    assert "{" not in said  # a sentence, not a JSON body
    assert prompts(fake) == []
    assert len(lines(proxy, "gpt-5-mini")) == 1


# --- Copilot CLI -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "endpoint"), [("gpt-5-mini", "/responses"), ("claude-sonnet-4.6", "/v1/messages")])
def test_copilot_fails_over(copilot, start, fake, model, endpoint):  # noqa: F811 - a fixture
    """On each wire the Copilot CLI's prompt is answered by another account; the limited one is asked once."""
    fake.accounts[WORK].default = limited(30)
    proxy = start()
    assert_answered(copilot(proxy, model), proxy)
    first, second = prompts(fake)
    assert (first.account, second.account in ("personal", "spare")) == ("work", True)
    assert {first.endpoint, second.endpoint} == {endpoint}
    assert first.body == second.body
    assert_said(proxy, model, f"<- {second.account} (", " 200 ", "before: work 429 session limit (rests 30 s)")


def test_copilot_with_an_account_that_lacks_the_model(copilot, start, fake):  # noqa: F811 - a fixture
    """An account without the model is asked once by the Copilot CLI, and not at all by a second run."""
    fake.accounts[WORK].default = LACKS
    proxy = start(*BY_PRIORITY, accounts=WORK_FIRST, home_id="github.com:2")
    for _ in range(2):
        assert_answered(copilot(proxy, "gpt-5-mini"), proxy)
    assert accounts(prompts(fake))[0] == "work"
    assert accounts(prompts(fake)).count("work") == 1
    assert len(prompts(fake)) == 3


def test_copilot_waits_when_everybody_is_limited(copilot, start, fake):  # noqa: F811 - a fixture
    """When every account is limited the Copilot CLI waits as it is told, asks again and is answered."""
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = once(limited(1))
    proxy = start()
    assert_answered(copilot(proxy, "gpt-5-mini"), proxy)
    *refused, served = accounts(prompts(fake))
    assert sorted(refused) == ["personal", "spare", "work"]
    assert served in refused


def test_copilot_leaves_its_websocket_when_another_account_could_serve(copilot, start, fake):  # noqa: F811 - a fixture
    """A WebSocket cannot fail over, so it is declined; the Copilot CLI asks the same over HTTP, and that fails over."""
    for account in fake.accounts.values():
        account.websocket = True
    fake.accounts[WORK].default = limited(30)
    proxy = start()
    assert_answered(copilot(proxy, "gpt-5.4"), proxy)
    assert [seen.method for seen in prompts(fake)] == ["POST", "POST"]
    first, second = accounts(prompts(fake))
    assert (first, second in ("personal", "spare")) == ("work", True)


def test_copilot_keeps_its_websocket_with_a_single_account(copilot, start, fake):  # noqa: F811 - a fixture
    """With one account there is nothing to fail over to: the Copilot CLI completes its turn over the WebSocket."""
    fake.accounts[WORK].websocket = True
    proxy = start(accounts=three_accounts()[:1])
    assert_answered(copilot(proxy, "gpt-5.4"), proxy)
    assert [(seen.method, seen.account) for seen in prompts(fake)] == [("GET", "work"), ("FRAME", "work")]


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["opencode", "copilot"])
def test_no_credential_reaches_a_client(client, request, start, fake, home):  # noqa: F811 - a fixture
    """After a failover no account's token is in any file of the client's; opencode still holds only the placeholder."""
    client = request.getfixturevalue(client)
    before = {path: path.read_bytes() for path in home.rglob("auth.json")}
    fake.accounts[WORK].default = to_prompts(limited(30))
    proxy = start()
    ran = client(proxy, "gpt-5-mini")
    assert_answered(ran, proxy)
    assert set(accounts(prompts(fake))) > {"work"}
    assert [path for path in home.rglob("*") if path.is_file() and path not in before]
    assert leaks(home) == []
    assert {path: path.read_bytes() for path in home.rglob("auth.json")} == before
    assert not any(token in f"{ran}" for token in (WORK, PERSONAL, SPARE))
