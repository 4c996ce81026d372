"""Short-lived tokens: one exchange at a time, replaced in time, at most once more after a refusal."""

import asyncio
import threading

import pytest
from pydantic import SecretStr

from copilot_balancer.errors import UpstreamError
from copilot_balancer.github.tokens import EARLY, JITTER, Bearer, Exchanged, TokenCache
from support.proxies import an_account

WORK = an_account("work", "gho_work-canary-0001", 1, credential="exchange")


class GitHub:
    """Exchanges at once, or when the test lets it; counts."""

    def __init__(self, refresh_in: float = 1500.0, api_host: str | None = None, error: Exception | None = None) -> None:
        self.asked = 0
        self.open = threading.Event()
        self.open.set()
        self.refresh_in, self.api_host, self.error = refresh_in, api_host, error

    def exchange(self, token: SecretStr, host: str) -> Exchanged:
        assert (token.get_secret_value(), host) == (WORK.token.get_secret_value(), "github.com")
        self.asked += 1
        self.open.wait(10)
        if self.error:
            raise self.error
        return Exchanged(SecretStr(f"tid={self.asked}"), 1800.0, self.refresh_in, self.api_host)

    def whoami(self, token: SecretStr, host: str):
        return type("Who", (), {"api_host": "api.business.githubcopilot.com"})()


def test_a_direct_credential_is_sent_as_it_is():
    """Without an exchange there is nothing to ask."""
    account = WORK.model_copy(update={"credential": "direct"})
    github = GitHub()
    mint = TokenCache(lambda: github)
    assert asyncio.run(mint.bearer(account, wall=0.0)) == Bearer(account.token, account.api_host)
    assert github.asked == 0
    assert mint.secrets() == []


@pytest.mark.parametrize("error", [None, UpstreamError("no")])
def test_one_exchange_for_all_who_wait(error):
    """Fifty that come at once share one exchange, and what came of it."""
    github = GitHub(error=error)
    github.open.clear()

    async def run():
        mint = TokenCache(lambda: github)
        waiting = [asyncio.create_task(mint.bearer(WORK, wall=0.0)) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # a client that leaves does not take it away from the others
        github.open.set()
        return await asyncio.gather(*waiting[1:], return_exceptions=True)

    found = asyncio.run(run())
    assert github.asked == 1
    if error:
        assert found == [error] * 49
    else:
        assert {bearer.token.get_secret_value() for bearer in found} == {"tid=1"}


@pytest.mark.parametrize(
    ("refresh_in", "until"),
    [pytest.param(1400.0, 1400.0, id="when GitHub asks"), pytest.param(9999.0, 1800.0 - EARLY, id="before its end")],
)
def test_replaced_in_time(refresh_in, until):
    """A token is used until GitHub wants it replaced or five minutes before its end, minus the jitter."""
    github = GitHub(refresh_in)

    async def run():
        mint = TokenCache(lambda: github)
        for wall in (0.0, 100.0, until - JITTER - 1):
            await mint.bearer(WORK, wall=wall)
        assert github.asked == 1
        await mint.bearer(WORK, wall=until)
        assert github.asked == 2

    asyncio.run(run())


def test_a_refused_token_is_replaced_once():
    """Whoever reports a token that is no longer in use gets the present one; only the present one is replaced."""
    github = GitHub()

    async def run():
        mint = TokenCache(lambda: github)
        first = await mint.bearer(WORK, wall=0.0)
        for _ in range(5):
            second = await mint.bearer(WORK, wall=0.0, refused=first.token)
        assert github.asked == 2
        assert second.token.get_secret_value() == "tid=2"
        assert mint.secrets() == [second.token]

    asyncio.run(run())


def test_the_host_that_comes_with_a_token():
    """A token works on the host that was named with it (docs/copilot-protocol.md#wrong-host); else on the account's."""
    mint = TokenCache(lambda: GitHub(api_host="api.enterprise.githubcopilot.com"))
    assert asyncio.run(mint.bearer(WORK, wall=0.0)).host == "api.enterprise.githubcopilot.com"
    assert asyncio.run(TokenCache(GitHub).bearer(WORK, wall=0.0)).host == WORK.api_host
    assert asyncio.run(mint.host(WORK)) == "api.business.githubcopilot.com"
