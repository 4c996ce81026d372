"""What is told about requests by a real mitmdump: log lines, events, the file of the running proxy, commands."""

import json
from concurrent.futures import ThreadPoolExecutor

from click.testing import CliRunner

from copilot_balancer.cli.main import cli
from copilot_balancer.fake.answers import Refuse, StreamError, limited
from copilot_balancer.store.request_log import newest_events
from copilot_balancer.store.running_proxies import read_live
from support.proxies import PERSONAL, SPARE, WORK, three_accounts, until

API = "https://api.githubcopilot.com"


def test_a_hundred_equal_failures(start, fake):
    """A hundred equal failures in a few seconds are one line and a count; each is an event."""
    body = json.dumps({"error": {"message": "bad", "code": "invalid_request_body"}}).encode()
    proxy = start("--set", "copilot_strategy=sticky")
    for token in (WORK, PERSONAL, SPARE):
        fake.accounts[token].default = Refuse(400, body=body)

    def ask(_):
        with proxy.client() as client:
            given = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "one and the same"}]}
            return [client.post(f"{API}/chat/completions", json=given).status_code for _ in range(10)]

    with ThreadPoolExecutor(5) as threads:
        assert {status for answers in threads.map(ask, range(10)) for status in answers} == {400}
    until(lambda: len(newest_events(proxy.store.folder, 500)) == 100, "the events")
    until(lambda: "repeated" in proxy.log, "the count", 20)
    proxy.stop()
    repeated = [line for line in proxy.lines() if "repeated" in line]
    assert len(proxy.lines()) <= 6  # a slow machine takes more than one window
    again = sum(int(line.split("repeated ")[1].split()[0]) for line in repeated)
    assert len(proxy.lines()) - len(repeated) + again == 100


def read_memory(proxy):
    return any(state.cooldowns for state in proxy.memory().accounts.values())


def test_events_and_status(start, fake, monkeypatch):
    """What a request came to is an event at once; while the proxy runs it is seen with what it is busy with."""
    fake.accounts[WORK].default = limited(30)
    proxy = start()
    assert proxy.post(model="gpt-5-mini").status_code == 200
    until(lambda: newest_events(proxy.store.folder, 5), "the event")
    (event,) = newest_events(proxy.store.folder, 5)
    assert (event.what, event.verdict, event.status, len(event.attempts)) == ("gpt-5-mini", "failed over", 200, 2)
    assert event.conversation
    (told,) = read_live(proxy.store.folder)
    assert told.pid == proxy.process.pid
    assert told.listening == (f"127.0.0.1:{proxy.port}",)

    monkeypatch.setenv("COPILOT_BALANCER_HOME", str(proxy.store.folder.parent))
    until(lambda: read_memory(proxy), "what was learnt to be written")
    shown = CliRunner().invoke(cli, ["status"])
    assert shown.exit_code == 0
    assert f"Proxy on 127.0.0.1:{proxy.port} (process {told.pid}" in shown.output
    assert "session limit, as the server said" in shown.output
    listed = CliRunner().invoke(cli, ["events"])
    assert "before: work 429 session limit (rests 30 s)" in listed.output

    proxy.stop()
    assert read_live(proxy.store.folder) == ()
    assert "no proxy runs" in CliRunner().invoke(cli, ["status"]).output


def test_killed(start):
    """A proxy that was killed is seen no more."""
    proxy = start()
    until(lambda: read_live(proxy.store.folder), "the file")
    proxy.process.kill()
    proxy.process.wait(20)
    assert read_live(proxy.store.folder) == ()
    assert not (proxy.store.folder / "live" / "1.json").exists()


def test_an_error_in_the_answer(start, fake):
    """An answer that ends with an error is told as failed, with the upstream's code and never its text."""
    fake.accounts[WORK].default = StreamError("rate_limited", "slow down", after=3)
    proxy = start(accounts=three_accounts()[:1])
    assert "Hello" in proxy.post().text
    until(proxy.lines, "the line")
    assert "an error came in the answer: limit (rests 60 s): rate_limited" in proxy.lines()[0]
    assert "slow down" not in proxy.log
    until(lambda: newest_events(proxy.store.folder, 5), "the event")
    (event,) = newest_events(proxy.store.folder, 5)
    assert (event.verdict, event.status, event.account) == ("failed", 200, "work")
    assert event.error == "limit (rests 60 s): rate_limited"
