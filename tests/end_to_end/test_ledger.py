"""What a real proxy writes into the ledger is what the fake billed: over three API forms, failovers, cuts and refusals."""

import json
import subprocess
import sys

import pytest

from copilot_balancer.fake.answers import CutMid, Ok, limited
from copilot_balancer.store.ledger import Ledger, period_of
from copilot_balancer.store.request_log import newest_events
from support.proxies import PERSONAL, SPARE, WORK, until

CHAT = ("/chat/completions", {"messages": [{"role": "user", "content": "hello"}]})
RESPONSES = ("/responses", {"input": "hello"})
MESSAGES = ("/v1/messages", {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100})


def ledger_of(proxy):
    """What the proxy counted, as sums by account."""
    import time

    proxy.stop()
    found = {}
    for number, name in ((1, "work"), (2, "personal"), (3, "spare")):
        rows = Ledger(proxy.store.folder).period(f"github.com:{number}", period_of(time.time(), None))
        found[name] = (
            sum(row.nano_aiu for row in rows),
            sum(row.requests for row in rows),
            sum(row.unpriced for row in rows),
        )
    return found


def test_the_bill(start, fake):
    """Every answer whose last event came is counted at its price, once, for the account that gave it."""
    for token, price in ((WORK, 3), (PERSONAL, 1000), (SPARE, 7_000_000)):
        fake.accounts[token].nano_aiu_per_token = price
    fake.accounts[WORK].script.extend([Ok("one two three"), limited(), limited()])
    proxy = start()
    for path, body in (CHAT, RESPONSES, MESSAGES):
        for stream in (True, False):
            assert proxy.post(path, stream=stream, **body).status_code == 200

    found = ledger_of(proxy)

    assert {name: nano for name, (nano, _, _) in found.items()} == {
        "work": fake.billed["work"],
        "personal": fake.billed["personal"],
        "spare": fake.billed["spare"],
    }
    assert sum(requests for _, requests, _ in found.values()) == 6
    assert sum(unpriced for _, _, unpriced in found.values()) == 0
    assert sum(fake.billed.values()) > 0


def test_what_names_no_price(start, fake):
    """An answer that is cut before its last event is unpriced; a refusal and a list of models cost nothing."""
    fake.accounts[WORK].nano_aiu_per_token = 5
    fake.accounts[WORK].script.extend([CutMid(), Ok()])
    proxy = start()
    with pytest.raises(Exception):  # noqa: B017 - the stream is aborted
        proxy.post(*CHAT[:1], stream=True, **CHAT[1])
    assert proxy.post(*CHAT[:1], stream=True, **CHAT[1]).status_code == 200
    with proxy.client() as client:
        assert client.get("https://api.githubcopilot.com/models").status_code == 200

    nano, requests, unpriced = ledger_of(proxy)["work"]

    assert (requests, unpriced) == (2, 1)
    assert 0 < nano < fake.billed["work"]


def test_it_is_shown(start, fake):
    """The record of a request has tokens, price, first-token time and client; ``usage`` shows the sums."""
    fake.accounts[WORK].nano_aiu_per_token = 250_000_000
    proxy = start()
    with proxy.client() as client:
        body = {"model": "gpt-4.1", "stream": True, **CHAT[1]}
        answer = client.post(
            "https://api.githubcopilot.com/chat/completions", json=body, headers={"user-agent": "opencode/1.18.33 x"}
        )
        assert answer.status_code == 200
    until(lambda: newest_events(proxy.store.folder, 1), "the record of the request")
    (record,) = newest_events(proxy.store.folder, 1)
    proxy.stop()

    assert record.client == "opencode/1.18.33"
    assert record.nano_aiu == fake.billed["work"] == 250_000_000 * (record.tokens_in + record.tokens_out)
    assert 0 < record.first_ms <= record.ms
    program = "from copilot_balancer.cli.main import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", program, "usage", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={
            "COPILOT_BALANCER_HOME": str(proxy.folder / "home"),
            "HOME": str(proxy.folder),
            "HTTPS_PROXY": "http://127.0.0.1:9",
        },
    )
    work = json.loads(shown.stdout)[0]
    assert work["spent_today"][0]["credits"] == fake.billed["work"] / 1e9
    assert work["spent_this_period"][0]["requests"] == 1
