"""A status 200 that is no answer, through a real mitmdump: another account is asked once, and nobody is said to serve."""

import pytest

from copilot_balancer.fake.answers import RawBytes
from support.proxies import PERSONAL, SPARE, WORK, three_accounts, until

HTML = b"<html><body>Sign in to the network</body></html>"
ERROR = b'{"error":{"message":"The upstream is busy.","code":"server_error"}}'


def whole(body: bytes, kind: str, status: str = "200 OK") -> RawBytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return RawBytes(head.encode() + body)


NO_ANSWERS = [
    pytest.param(whole(b"", "text/event-stream"), id="an event stream of no bytes"),
    pytest.param(whole(HTML, "text/html; charset=utf-8"), id="a page"),
    pytest.param(whole(b"", "application/json"), id="nothing"),
    pytest.param(RawBytes(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"), id="204"),
    pytest.param(whole(ERROR, "application/json"), id="only an error"),
]


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_another_account_is_asked_once(start, fake, answer):
    """The next account serves; where it answers the same, the client gets an error that says so."""
    proxy = start("--set", "copilot_strategy=priority", accounts=three_accounts()[:2])
    fake.accounts[WORK].default = answer
    good = proxy.post()
    assert (good.status_code, good.headers["x-copilot-account"]) == (200, "personal")
    assert [seen.account for seen in fake.asked()] == ["work", "personal"]
    fake.accounts[PERSONAL].default = fake.accounts[SPARE].default = answer
    bad = proxy.post()
    assert [seen.account for seen in fake.asked()][2:] == ["work", "personal"]
    assert "x-copilot-account" not in bad.headers
    assert bad.status_code == 502, "a 200 would be asked again at once"
    assert bad.json()["error"]["code"] == "bad_gateway"
    until(lambda: len(proxy.lines()) == 2, "two lines")
    assert "<- nobody" in proxy.lines()[1]
