"""One record, every place where it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http

from copilot_balancer.attribution import MARKERS, Attribution, Try, comment, log_line, metadata, put_headers

WORK = Try("work", "api.githubcopilot.com", "sticky", "limit", 429, 30.0, "slow down")
SPARE = Try("spare", "api.githubcopilot.com", "least recently used", "served", 200)


def record(*tries, status=200, served=True, note=""):
    return Attribution("gpt-5", tries, status, 0.8123, served, note)


@pytest.mark.parametrize(
    ("told", "line", "note"),
    [
        pytest.param(
            record(SPARE),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used",
            "spare 200 (least recently used)",
            id="served",
        ),
        pytest.param(
            record(WORK, SPARE),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used; "
            "before: work 429 limit (rests 30 s)",
            "work 429 > spare 200 (least recently used)",
            id="failed over",
        ),
        pytest.param(
            record(WORK, status=429, served=False, note="all accounts tried, all refused"),
            "copilot: gpt-5 <- nobody, 429 in 812 ms: all accounts tried, all refused; "
            "tried: work 429 limit (rests 30 s)",
            "work 429 > all accounts tried, all refused",
            id="refused",
        ),
        pytest.param(
            record(SPARE, status=None, note="x"),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) cut off by the upstream in 812 ms, least recently used",
            "spare cut off by the upstream (least recently used)",
            id="cut off",
        ),
        pytest.param(
            Attribution("gpt-5", (SPARE,), None, 0.8123, served=True, client_left=True),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) the client left in 812 ms, least recently used",
            "spare the client left (least recently used)",
            id="the client left",
        ),
        pytest.param(
            record(status=401, served=False),
            "copilot: gpt-5 <- nobody, 401 in 812 ms",
            "",
            id="nobody was asked",
        ),
        pytest.param(
            record(Try("work", "h", "w", "transient", text="server closed connection"), SPARE),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used; "
            "before: work transient: server closed connection",
            "work transient > spare 200 (least recently used)",
            id="no answer at all",
        ),
    ],
)
def test_line_and_comment(told, line, note):
    """The log line says account, host, model, reason, attempts and why, status and time; the comment the gist."""
    assert log_line(told) == line
    assert comment(told) == note


def test_verdicts():
    """Green when the first account served, yellow after a failover, red when nobody did."""
    assert record(SPARE).verdict == "served"
    assert record(WORK, SPARE).verdict == "failed over"
    assert record(WORK, served=False).verdict == "refused"
    declined = Attribution("gpt-5", (), 426, 0.1, served=False, declined=True)
    assert declined.verdict == "declined"
    assert record(SPARE, status=None).verdict == "cut off"
    assert Attribution("gpt-5", (SPARE,), None, 0.1, served=True, client_left=True).verdict == "left"
    assert set(MARKERS) == {"served", "failed over", "refused", "declined", "cut off", "left"}


def test_metadata():
    """The flow's metadata are plain values: who, how often, and each refused attempt."""
    assert metadata(record(WORK, SPARE)) == {
        "copilot": "failed over",
        "copilot_account": "spare",
        "copilot_attempts": 2,
        "copilot_attempt_1": "work 429 limit (rests 30 s) slow down",
    }
    assert "copilot_account" not in metadata(record(WORK, served=False))


def test_headers():
    """The client learns who answered and how many were asked."""
    response = http.Response.make(200)
    put_headers(response, "work", 2)
    assert response.headers["x-copilot-account"] == "work"
    assert response.headers["x-copilot-attempts"] == "2"
    put_headers(response := http.Response.make(429), None, 0)
    assert "x-copilot-account" not in response.headers


@given(st.text(), st.text())
def test_nothing_foreign_forges_a_line(model, text):
    """Whatever a model or an upstream is called, the log line and the comment are one printable line."""
    told = Attribution(model, (Try("work", "h", "w", "limit", 429, None, text), SPARE), 200, 1.0, True, text)
    refused = Attribution(model, told.tries[:1], 429, 1.0, False, text)
    for line in (log_line(told), comment(told), log_line(refused), comment(refused)):
        assert line.isprintable()
        assert len(line) < 1000
    assert all(str(value).isprintable() for value in metadata(told).values())
