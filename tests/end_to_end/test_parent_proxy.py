"""Behind a parent proxy, with a real mitmdump: the stream, failover and time-outs as without one."""

import base64
import contextlib
import time

import pytest

from copilot_balancer.fake.answers import limited
from end_to_end.test_http2 import Http2
from support.parent_proxies import parent_proxy
from support.proxies import WORK, until

SECRET = "parent-canary-0007"
WAYS = {
    "option": (lambda url: ("--set", f"copilot_upstream_proxy={url}"), lambda _url: {}),
    "environment": (lambda _url: (), lambda url: {"HTTPS_PROXY": url}),
    "mode": (lambda url: ("--mode", f"upstream:{url}"), lambda _url: {}),
}


@pytest.mark.parametrize("strategy", ["eager", "lazy"])
@pytest.mark.parametrize("way", WAYS)
def test_failover_behind_a_parent(start, fake, way, strategy):
    """The first account is limited: HTTP/1.1 and HTTP/2 clients are answered by the second one, all through the parent."""
    fake.accounts[WORK].default = limited(30)
    arguments, environment = WAYS[way]
    with parent_proxy(fake.port) as parent:
        proxy = start(*arguments(parent.url), "--set", f"connection_strategy={strategy}", env=environment(parent.url))
        got = proxy.post()
        assert (got.status_code, got.headers["x-copilot-attempts"]) == (200, "2"), proxy.log
        assert set(parent.hosts) == {"api.githubcopilot.com"}
        if strategy == "lazy":
            client = Http2(proxy)
            with contextlib.closing(client.tls):
                streams = {client.asks() for _ in range(8)}
                client.hears_the_end_of(streams)
                assert {client.statuses[stream] for stream in streams} == {b"200"}
        assert "Traceback" not in proxy.log
        assert "crashed" not in proxy.log
        proxy.stop()


def test_a_password(start, fake):
    """It comes from the environment, opens the parent, and stands in no log, option or file."""
    needs = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:" + SECRET.encode())
    with parent_proxy(fake.port, needs=needs) as parent:
        proxy = start(
            "--set", f"copilot_upstream_proxy={parent.url}", env={"COPILOT_BALANCER_PROXY_AUTH": f"me:{SECRET}"}
        )
        assert proxy.post().status_code == 200, proxy.log
        assert len(parent.asked) >= 1
        written = proxy.stop() + "".join(
            path.read_text(errors="replace") for path in proxy.folder.rglob("*") if path.is_file()
        )
    assert SECRET not in written
    assert base64.b64encode(b"me:" + SECRET.encode()).decode() not in written


def test_a_parent_that_never_answers(start, fake):
    """It is given up after ten seconds, once, with an answer and a line: no account is to blame."""
    with parent_proxy(fake.port, mute=True) as parent:
        proxy = start("--set", f"copilot_upstream_proxy={parent.url}", "--set", "connection_strategy=lazy")
        began = time.monotonic()
        got = proxy.post()
        assert got.status_code == 503
        assert len(parent.asked) == 1
        assert "did not answer CONNECT within 10 s" in got.text
        assert time.monotonic() - began < 60
        until(proxy.lines, "the line")
        proxy.stop()


def test_no_proxy_and_our_own_address(start, fake):
    """A host of NO_PROXY is reached directly; a parent that is ourselves is none."""
    with parent_proxy(fake.port) as parent:
        proxy = start(env={"HTTPS_PROXY": parent.url, "NO_PROXY": "githubcopilot.com"})
        assert proxy.post().status_code == 200
        assert parent.asked == []
    proxy = start("--set", "copilot_upstream_proxy=none", env={"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert proxy.post().status_code == 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ("--mode", "upstream:http://127.0.0.1:1", "--set", "copilot_upstream_proxy=http://127.0.0.1:2"),
            "name two parents: give one",
            id="two parents",
        ),
        pytest.param(("--set", "copilot_upstream_proxy=socks5://h:1"), "upstream_proxy must be http", id="socks"),
        pytest.param(("--set", "copilot_upstream_proxy=http://u:p@h:1"), "without a password", id="password"),
        pytest.param(("--set", "copilot_ca=/nowhere.pem"), "cannot be read", id="CA"),
    ],
)
def test_what_is_refused_at_start(start, arguments, told):
    """One sentence, and the proxy ends."""
    proxy = start(*arguments, wait=False)
    until(lambda: proxy.process.poll() is not None, "it to end", 90)
    assert told in proxy.log
    assert "Traceback" not in proxy.log
