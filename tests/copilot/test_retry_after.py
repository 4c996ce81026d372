import math

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.retry_after import LONGEST, epoch, read

WALL = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("30", 30.0, id="whole seconds"),
        pytest.param("3.5", 3.5, id="fraction"),
        pytest.param(".5", 0.5, id="fraction without a zero"),
        pytest.param(" 30\t", 30.0, id="white space around"),
        pytest.param("+7", 7.0, id="plus sign"),
        pytest.param("0", 0.0, id="zero: now"),
        pytest.param("-5", 0.0, id="negative: now, never below"),
        pytest.param("2113200", 2113200.0, id="587 hours, the longest seen"),
        pytest.param("99999999999", LONGEST, id="beyond 366 days is cut"),
        pytest.param("9" * 400, LONGEST, id="too large for a float is cut"),
        pytest.param("30, 60", 60.0, id="two header lines: the later"),
        pytest.param("60", 60.0, id="number before date: 60 is no year"),
        pytest.param("Sun, 06 Nov 1994 08:50:47 GMT", 70.0, id="IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:50:47 GMT", 70.0, id="RFC 850 date"),
        pytest.param("Sun Nov  6 08:50:47 1994", 70.0, id="asctime date"),
        pytest.param("Sun, 06 Nov 1994 09:50:47 +0100", 70.0, id="date with another zone"),
        pytest.param("1994-11-06T08:50:47Z", 70.0, id="ISO 8601 date"),
        pytest.param("1994-11-06T08:50:47", 70.0, id="ISO 8601 date without a zone is UTC"),
        pytest.param("Sun, 06 Nov 1994 08:49:07 GMT", 0.0, id="past date: now"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST, id="far date is cut"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="word"),
        pytest.param("nan", None, id="NaN"),
        pytest.param("inf", None, id="inf"),
        pytest.param("-Infinity", None, id="-Infinity"),
        pytest.param("1e3", None, id="exponent"),
        pytest.param("1_0", None, id="underscore, which Python reads as 10"),
        pytest.param("0x10", None, id="hexadecimal"),
        pytest.param("٣٠", None, id="Arabic digits, which Python reads as 30"),
        pytest.param("３０", None, id="full-width digits"),
        pytest.param("30\r\nX-Evil: 1", None, id="line break"),
        pytest.param("30 s", None, id="unit"),
        pytest.param("30, soon", None, id="number and word"),
        pytest.param("Sun, ٠٦ Nov 1994 08:50:47 GMT", None, id="date with Arabic digits"),
        pytest.param("Sun, 0_6 Nov 1994 08:50:47 GMT", None, id="date with an underscore"),
        pytest.param("Sun, 36 Nov 1994 08:50:47 GMT", None, id="date that does not exist"),
        pytest.param("1994-13-06T08:50:47Z", None, id="ISO date that does not exist"),
        pytest.param("0001-01-01T00:00:00+23:59", 0.0, id="date at the edge of what Python knows"),
        pytest.param("Sun, 06 Nov 1994 08:50:47 +999999", None, id="zone that does not exist"),
    ],
)
def test_retry_after_header(value, seconds):
    """Retry-After is ASCII seconds or a date, finite and not negative, or it says nothing."""
    assert seconds == read({"retry-after": value}, None, "", wall=WALL)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("1500", 1.5, id="milliseconds"),
        pytest.param("-1", 0.0, id="negative: now"),
        pytest.param("9" * 400, LONGEST, id="huge"),
        pytest.param("1.5s", None, id="unit"),
        pytest.param("Sun, 06 Nov 1994 08:50:47 GMT", None, id="no dates here"),
    ],
)
def test_retry_after_ms_header(value, seconds):
    """Retry-After-Ms is a number of milliseconds."""
    assert seconds == read({"retry-after-ms": value}, None, "", wall=WALL)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "784111800"}, 23.0, id="nothing left"),
        pytest.param({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "784111800"}, None, id="something left"),
        pytest.param({"x-ratelimit-remaining": "0"}, None, id="no reset told"),
        pytest.param({"x-ratelimit-reset": "784111800"}, None, id="not told what is left"),
    ],
)
def test_github_reset_headers(headers, seconds):
    """GitHub's x-ratelimit-reset counts only when nothing remains."""
    assert seconds == read(headers, None, "", wall=WALL)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        pytest.param({"retry_after": 30}, 30.0, id="top level"),
        pytest.param({"error": {"retry_after": 2.5}}, 2.5, id="in error"),
        pytest.param({"retry_after": "45"}, 45.0, id="number in a string"),
        pytest.param({"retry_after": "Sun, 06 Nov 1994 08:50:47 GMT"}, 70.0, id="date in a string"),
        pytest.param({"retry_after": 10**400}, LONGEST, id="integer that no float holds"),
        pytest.param({"retry_after": -(10**400)}, 0.0, id="negative integer that no float holds"),
        pytest.param({"retry_after": 1e300}, LONGEST, id="huge float"),
        pytest.param({"retry_after": -1.5}, 0.0, id="negative float"),
        pytest.param({"retry_after": math.nan}, None, id="NaN"),
        pytest.param({"retry_after": math.inf}, None, id="Infinity"),
        pytest.param({"retry_after": True}, None, id="true is not 1"),
        pytest.param({"retry_after": None}, None, id="null"),
        pytest.param({"retry_after": [30]}, None, id="list"),
        pytest.param({"error": "busy"}, None, id="error is text"),
        pytest.param([{"retry_after": 30}], None, id="body is a list"),
        pytest.param(None, None, id="body is not JSON"),
    ],
)
def test_body(body, seconds):
    """A body tells retry_after at its top or in its error, as a number or as the header would."""
    assert seconds == read({}, body, "", wall=WALL)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("Please try again in 2 hours.", 7200.0, id="hours"),
        pytest.param("… Please retry in 3.564818218s. …", 3.564818218, id="Google's fraction"),
        pytest.param("quota exceeded, retrying in 10h 7m", 36420.0, id="hours and minutes"),
        pytest.param("Try again in 1d 21h", 162000.0, id="days and hours"),
        pytest.param("try again in 10h7m5s", 36425.0, id="without spaces"),
        pytest.param("TRY AGAIN IN 46 MINUTES", 2760.0, id="capitals"),
        pytest.param("try again in 2 hours, 5 minutes and 1 second", 7501.0, id="list"),
        pytest.param("Please try again in about an hour", 3600.0, id="about an hour"),
        pytest.param("trying again after one day", 86400.0, id="one day"),
        pytest.param("Retry after 500ms", 0.5, id="ms"),
        pytest.param("retry in 1500 milliseconds", 1.5, id="milliseconds"),
        pytest.param("Please retry after 10 seconds.", 10.0, id="retry after (Azure)"),
        pytest.param("retry-after: 30s", 30.0, id="a header in a text"),
        pytest.param("please wait for at least 5 min before", 300.0, id="wait for"),
        pytest.param("wait a second", 1.0, id="wait a second"),
        pytest.param("Your limit resets in 2 weeks", 1209600.0, id="weeks"),
        pytest.param("available again in 3 hrs", 10800.0, id="available again"),
        pytest.param("try again in 99999999999999999999 hours", LONGEST, id="absurd"),
        pytest.param("try again in 0 seconds", 0.0, id="zero: now"),
        pytest.param("you've exceeded your 5 hour session limits", None, id="names the limit, not the wait"),
        pytest.param("50 requests in 2 hours", None, id="names the rate"),
        pytest.param("Please try again in a moment", None, id="a moment"),
        pytest.param("try again in 5 parsecs", None, id="no unit of time"),
        pytest.param("try again in 5 monkeys", None, id="begins like a unit"),
        pytest.param("try again in -5 seconds", None, id="negative"),
        pytest.param("try again in ٣٠ seconds", None, id="Arabic digits"),
        pytest.param("try again later", None, id="later"),
        pytest.param(" " * 70000 + "try again in 5 s", None, id="beyond what is searched"),
        pytest.param("", None, id="empty"),
    ],
)
def test_text(text, seconds):
    """A text tells a wait when it announces one; a span on its own is something else."""
    assert seconds == pytest.approx(read({}, None, text, wall=WALL))


@pytest.mark.parametrize(
    ("headers", "body", "text", "seconds"),
    [
        pytest.param({"retry-after-ms": "1500", "retry-after": "2"}, None, "", 1.5, id="milliseconds before seconds"),
        pytest.param({"retry-after-ms": "x", "retry-after": "2"}, None, "", 2.0, id="unusable is passed over"),
        pytest.param({"retry-after": "2"}, {"retry_after": 9}, "", 2.0, id="header before body"),
        pytest.param({}, {"retry_after": 9, "error": {"retry_after": 7}}, "", 9.0, id="top before error"),
        pytest.param({}, {"retry_after": 9}, "try again in 1 hour", 9.0, id="body before text"),
        pytest.param({"retry-after": "0"}, None, "try again in 1 hour", 3600.0, id="now does not outrank a wait"),
        pytest.param({"retry-after": "-1"}, {"retry_after": 0}, "", 0.0, id="now and now is now"),
        pytest.param({"content-type": "text/plain"}, {}, "busy", None, id="nothing said is None, not a default"),
    ],
)
def test_order(headers, body, text, seconds):
    """The most explicit place wins, but nobody is asked earlier than any place told."""
    assert seconds == read(headers, body, text, wall=WALL)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("1994-11-06", 784080000.0, id="day"),
        pytest.param("1994-11-06T08:49:37.123456789Z", 784111777.123456, id="nanoseconds"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 -0000", WALL, id="-0000 is UTC of an unknown zone"),
        pytest.param("6 Nov", None, id="too short"),
        pytest.param("x" * 65, None, id="too long"),
    ],
)
def test_epoch(text, seconds):
    """A date is read as seconds since the epoch, without a zone as UTC."""
    assert seconds == epoch(text)


ANY_TEXT = strategies.text(strategies.characters(), max_size=80)
LOOKS_LIKE = (
    strategies.from_regex(r"\A[+-]?[0-9]{0,30}\.?[0-9]{0,30}\Z")
    | strategies.text("0123456789 ,:.+-TZGMTSunNovFriJan", max_size=40)
    | strategies.datetimes().map(lambda moment: moment.isoformat())
    | strategies.builds(
        "try again in {} {}".format,
        strategies.integers(),
        strategies.sampled_from(["s", "hours", "d 3m", "weeks and a ms"]),
    )
    | strategies.sampled_from(["nan", "inf", "-inf", "1_0", "٣٠", "1e999", "Sun, 06 Nov 1994 08:49:37 GMT"])
)
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | ANY_TEXT | LOOKS_LIKE,
    lambda inner: (
        strategies.dictionaries(strategies.sampled_from(["retry_after", "error", "x"]), inner)
        | strategies.lists(inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(
    texts=strategies.lists(ANY_TEXT | LOOKS_LIKE, min_size=25, max_size=25),
    body=JSON,
    wall=strategies.floats(-1e10, 1e11),
)
def test_any_input_gives_none_or_a_bounded_number(texts, body, wall):
    """Whatever 10,000 strings say, the answer is None or a number from 0 to the longest, and nothing is raised."""
    for text in texts:
        for headers, said in (({"retry-after": text, "retry-after-ms": text[::-1]}, ""), ({}, text)):
            seconds = read(headers, body, said, wall=wall)

            assert seconds is None or 0 <= seconds <= LONGEST
