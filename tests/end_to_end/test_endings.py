"""What ended a request is told as what it was, with a real mitmdump."""

import threading

import httpx
import pytest

from copilot_balancer.fake.answers import CutMid, Silent
from support.proxies import WORK, three_accounts, until


@pytest.mark.parametrize("begun", [True, False], ids=["in its answer", "before its answer"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(("--set", "tcp_timeout=2"), "ended by mitmproxy's tcp_timeout", id="tcp_timeout"),
        pytest.param((), "ended because this proxy was stopped", id="Ctrl-C"),
    ],
)
def test_what_is_neither_the_clients_nor_the_upstreams(start, fake, arguments, told, begun):
    """mitmproxy's own time-out and the end of the proxy are told as such, and no account rests for them."""
    proxy = start(*arguments, accounts=three_accounts()[:1])
    fake.accounts[WORK].default = CutMid(2, how="stall") if begun else Silent()
    ended = []

    def ask():
        try:
            proxy.post()
        except httpx.HTTPError as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(fake.asked, "the request to be sent")
    if not arguments:
        proxy.stop()
    asking.join(30)
    assert len(ended) == 1
    until(proxy.lines, "the line")
    assert told in proxy.lines()[0]
    assert "rests" not in proxy.lines()[0]
