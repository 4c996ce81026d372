"""One record, every place where it is shown."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies
from mitmproxy import http

from copilot_balancer.store import request_log
from copilot_balancer.store.request_record import FAILURES, AttemptRecord, document, finished, parsed
from copilot_balancer.views.requests import (
    BODY_LIMIT,
    ENDED,
    LINE_LIMIT,
    MARKERS,
    comment,
    log_line,
    metadata,
    put_headers,
    repeated_line,
    summary,
)

WORK = AttemptRecord("work", "api.githubcopilot.com", "sticky", "limit", 429, 30.0, "slow down")
SPARE = AttemptRecord("spare", "api.githubcopilot.com", "least recently used", "served", 200)


def record(*attempts, status=200, served=True, **facts):
    facts = {"at": 1_790_000_000.5, "id": "f1", "what": "gpt-5", "ms": 812.3, **facts}
    return finished(attempts, served=served, status=status, **facts)


@pytest.mark.parametrize(
    ("told", "line", "note"),
    [
        pytest.param(
            record(SPARE),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used",
            "spare: gpt-5 (least recently used)",
            id="served",
        ),
        pytest.param(
            record(WORK, SPARE),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used; "
            "before: work 429 limit (rests 30 s)",
            "spare: gpt-5 after work 429 (least recently used)",
            id="failed over",
        ),
        pytest.param(
            record(WORK, status=429, served=False, note="all accounts tried, all refused"),
            "copilot: gpt-5 <- nobody, 429 in 812 ms: all accounts tried, all refused; "
            "tried: work 429 limit (rests 30 s)",
            "nobody: gpt-5 after work 429 (all accounts tried, all refused)",
            id="refused",
        ),
        pytest.param(
            record(SPARE, status=None, note="x"),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) cut off by the upstream in 812 ms, least recently used",
            "spare: gpt-5, cut off by the upstream (least recently used)",
            id="cut off",
        ),
        pytest.param(
            record(SPARE, status=None, note=ENDED["addon"]),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) ended by another addon in 812 ms, least recently used",
            "spare: gpt-5, ended by another addon (least recently used)",
            id="another addon",
        ),
        pytest.param(
            record(status=None, served=False, note=ENDED["timeout"]),
            "copilot: gpt-5 <- nobody, ended by mitmproxy's tcp_timeout in 812 ms",
            "nobody: gpt-5 (ended by mitmproxy's tcp_timeout)",
            id="time-out of mitmproxy's",
        ),
        pytest.param(
            record(SPARE, status=None, client_left=True),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) the client left in 812 ms, least recently used",
            "spare: gpt-5, the client left (least recently used)",
            id="the client left",
        ),
        pytest.param(
            record(status=401, served=False),
            "copilot: gpt-5 <- nobody, 401 in 812 ms",
            "nobody: gpt-5",
            id="nobody was asked",
        ),
        pytest.param(
            record(AttemptRecord("work", "h", "w", "transient", text="server closed connection"), SPARE),
            "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used; "
            "before: work transient: server closed connection",
            "spare: gpt-5 after work transient (least recently used)",
            id="no answer at all",
        ),
        pytest.param(
            record(SPARE, what="GET /models"),
            "copilot: GET /models <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used",
            "spare (least recently used)",
            id="the list shows its path",
        ),
        pytest.param(
            record(
                what="POST /mcp/readonly",
                served=False,
                passed=True,
                note="the client's own credential (never balanced)",
            ),
            "copilot: POST /mcp/readonly <- the client's own credential (never balanced), 200 in 812 ms",
            "the client's own credential (never balanced)",
            id="the client's own credential",
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
    declined = record(status=426, served=False, declined=True)
    assert declined.verdict == "declined"
    assert record(SPARE, status=None).verdict == "cut off"
    assert record(SPARE, status=None, client_left=True).verdict == "left"
    assert record(SPARE, error="overloaded").verdict == "failed"
    assert record(SPARE, status=None, error="overloaded", client_left=True).verdict == "failed"
    assert record(status=200, served=False, passed=True).verdict == "passed"
    assert set(MARKERS) == {"served", "failed over", "passed", "refused", "failed", "declined", "cut off", "left"}
    assert {verdict for verdict, marker in MARKERS.items() if marker == ":red_circle:"} == FAILURES


def test_repeated():
    """The line for many equal failures says what, who, how it ended, and how often."""
    refused = record(WORK, status=429, served=False)
    assert repeated_line(refused, 99, 5.0) == "copilot: gpt-5 <- nobody, 429: repeated 99 times more in 5 s"
    assert repeated_line(record(SPARE, status=None), 1, 2.0) == (
        "copilot: gpt-5 <- spare, cut off by the upstream: repeated 1 time more in 2 s"
    )


def test_a_refusal_can_be_inspected():
    """What an account said that the client never saw stands on the flow, the first 2 KB of it."""
    told = metadata(record(replace(WORK, body="x" * 5000), SPARE))
    assert told["copilot_attempt_1_body"] == "x" * BODY_LIMIT
    assert "copilot_attempt_2_body" not in told


def test_what_was_changed_is_said():
    """Another model, what was left out and an error in the answer stand in line, comment, metadata and header."""
    told = record(
        WORK,
        SPARE,
        model="gpt-4.1",
        moved="left out 3 reasoning items, since its account rests",
        error="overloaded_error: try later",
    )
    assert log_line(told) == (
        "copilot: gpt-5 -> gpt-4.1 (another model, by your route) <- spare (api.githubcopilot.com) 200 in 812 ms, "
        "least recently used; an error came in the answer: overloaded_error: try later; "
        "before: work 429 limit (rests 30 s); left out 3 reasoning items, since its account rests"
    )
    assert comment(told) == (
        "spare: gpt-5 -> gpt-4.1 (ANOTHER MODEL) after work 429 (least recently used); "
        "an error came in the answer: overloaded_error: try later; left out 3 reasoning items, since its account rests"
    )
    assert metadata(told) == {
        "copilot": "failed",
        "copilot_account": "spare",
        "copilot_attempts": 2,
        "copilot_model": "gpt-4.1",
        "copilot_moved": "left out 3 reasoning items, since its account rests",
        "copilot_error": "overloaded_error: try later",
        "copilot_attempt_1": "work 429 limit (rests 30 s) slow down",
    }
    put_headers(response := http.Response.make(200), "spare", 2, model="gpt-4.1", moved="3 reasoning items")
    assert response.headers["x-copilot-model-changed-to"] == "gpt-4.1"
    assert response.headers["x-copilot-left-out"] == "3 reasoning items"


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
    assert "x-copilot-model-changed-to" not in response.headers


NASTY = (
    strategies.text(max_size=40)
    | strategies.text(strategies.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Co")), min_size=1, max_size=40)
    | strategies.sampled_from(
        [
            "gpt-5\r\n[12:00:00] copilot: gpt-5 <- work (evil) 200",
            "\x1b[2J\x1b]0;title\x07",
            "\u202egpt-5\u2066\u2069",
            "\ud800\udfff",
            "a" * 10_240,
            "\N{WOMAN}\N{ZERO WIDTH JOINER}" * 5_000,
            "\x00\x9b31m\u0085\u2028",
        ]
    )
)
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@strategies.composite
def nasty_records(draw):
    attempts = draw(
        strategies.lists(
            strategies.builds(
                AttemptRecord,
                account=NASTY,
                host=NASTY,
                why=NASTY,
                reason=NASTY | strategies.just("served"),
                status=strategies.none() | strategies.integers(100, 599),
                rest=strategies.none() | strategies.floats(),
                text=NASTY,
            ),
            max_size=6,
        )
    )
    return record(
        *attempts,
        what=draw(NASTY),
        status=draw(strategies.none() | strategies.integers(100, 599)),
        ms=draw(strategies.floats(0, 1e9)),
        served=bool(attempts) and draw(strategies.booleans()),
        note=draw(NASTY),
        declined=draw(strategies.booleans()),
        client_left=draw(strategies.booleans()),
        conversation=draw(NASTY),
        model=draw(NASTY),
        moved=draw(NASTY),
        error=draw(NASTY),
    )


@given(nasty_records())
def test_nothing_foreign_forges_a_line(record):
    """Whatever models, labels, hosts and upstreams are called, each place shows one printable line of bounded length."""
    lines = [log_line(record), comment(record), repeated_line(record, 99, 5.0)]
    lines += [value for value in metadata(record).values() if isinstance(value, str)]
    for line in lines:
        assert line.isprintable()
        assert not BIDI & set(line)
        assert len(line) <= LINE_LIMIT
        line.encode()


@given(NASTY, NASTY, NASTY)
def test_nothing_foreign_forges_a_header(account, model, moved):
    """Whatever a label or a model is called, a header's value is visible ASCII of bounded length."""
    put_headers(response := http.Response.make(200), account, 1, model=model, moved=moved)
    for name in ("account", "model-changed-to", "left-out", "attempts"):
        for value in response.headers.get_all(f"x-copilot-{name}"):
            assert value.isascii()
            assert value.isprintable()
            assert 0 < len(value) <= 200
            assert value == value.strip()
    assert len(response.headers.fields) <= 5


@given(nasty_records())
def test_a_record_comes_back(record):
    """What is written about a request, even the worst, is one bounded line of ASCII and tells the same when read."""
    line = request_log._line(document(record))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line) <= request_log.LINE_BYTES
    read = parsed(line)
    assert read is not None
    assert (read.at, read.verdict, read.status) == (record.at, record.verdict, record.status)
    assert (read.served is None) == (record.served is None)
    assert summary(read).isprintable()


def test_a_record_tells_the_same():
    """An ordinary record comes back from the file as it was, but for what the file does not keep."""
    full = record(
        WORK,
        replace(SPARE, body="never in the file"),
        ms=812.34,
        conversation="0123456789abcdef01234567",
        model="gpt-4.1",
        moved="left out 3 reasoning items, since its account rests",
        error="overloaded_error: try later",
    )
    read = parsed(request_log._line(document(full)))
    assert read == replace(full, ms=812.3, conversation="0123456789ab", attempts=(WORK, SPARE))
    assert (read.account, read.host, read.model) == ("spare", "api.githubcopilot.com", "gpt-4.1")
    assert summary(read) == summary(full)
    nobody = record(WORK, status=429, served=False, note="all accounts tried, all refused")
    assert parsed(request_log._line(document(nobody))) == nobody


def test_a_record_without_its_attempts():
    """A line that was too long for its attempts still says who served."""
    read = replace(record(SPARE), attempts=())
    assert log_line(read) == "copilot: gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms"
    assert comment(read) == "spare: gpt-5"
