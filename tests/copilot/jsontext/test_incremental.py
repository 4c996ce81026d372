"""A long JSON text read in slices: what json takes is taken, what json refuses is refused, and the pauses are many."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given, strategies

from copilot_balancer.copilot.jsontext import incremental
from copilot_balancer.copilot.jsontext.incremental import LARGE, MOST_WITHIN, LongText, finish
from copilot_balancer.copilot.jsontext.spans import UNREADABLE


def reading(raw):
    """All of a document, put together from its slices."""
    text = LongText(raw)
    body = {}

    def long(value):
        if value is not LARGE:
            return value
        if text.is_array:
            found = []

            def large_element(value):
                found.append((yield from long(value)))

            yield from text.elements(found.append, large_element)
        else:
            found = {}

            def large_member(key, value):
                found[key] = yield from long(value)

            yield from text.members(found.__setitem__, large_member)
        return found

    def large(key, value):
        body[key] = yield from long(value)

    yield from text.document(body.__setitem__, large)
    return body


def sliced(raw):
    """As it is read in slices: its text as json would write it; None when it cannot be read."""
    try:
        return json.dumps(finish(reading(raw)))
    except UNREADABLE:
        return None


def at_once(raw):
    """As json reads it."""
    try:
        found = json.loads(raw)
    except UNREADABLE:
        return None
    return json.dumps(found) if isinstance(found, dict) else None


@pytest.fixture(autouse=True, scope="module")
def any_depth():
    """Tiny windows, so that everything is longer than one; what stands in what is not counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "MOST_WITHIN", 10_000)
        patch.setattr(incremental, "_MOST_STEPS", 2)
        yield


VALUES = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=8),
    lambda inner: (
        strategies.lists(inner, max_size=5) | strategies.dictionaries(strategies.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)
ODD = '0123456789.eE+-"\\/bfnrtu{}[]:, \n\t\x00\x1fNaInfinity\u00e9\U0001f600\ud800\ufeff'


@given(
    strategies.dictionaries(strategies.text(max_size=3), VALUES, max_size=6),
    strategies.integers(1, 40),
    strategies.booleans(),
    strategies.sampled_from([None, 0, 3]),
    strategies.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"]),
    strategies.lists(
        strategies.tuples(strategies.integers(0, 300), strategies.integers(0, 3), strategies.text(ODD, max_size=4)),
        max_size=2,
    ),
)
@example({"a": [1.5e300, -0.0, "\ud800\udc00"]}, 1, False, None, "utf-8", [])
def test_the_same_as_json(body, window, ascii_only, indent, encoding, edits):
    """Whatever the text is, and wherever the slices are cut: the same value, or none."""
    raw = bytearray(json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode(encoding, "surrogatepass"))
    for place, length, text in edits:
        raw[place : place + length] = text.encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "WINDOW", window)
        assert sliced(bytes(raw)) == at_once(bytes(raw))


NUMBERS = (
    "1",
    "-1",
    "1.",
    "1.5",
    "1e5",
    "1e+5",
    "1E-5",
    "-",
    "1e",
    "1e+",
    "01",
    ".5",
    "-0.0e-0",
    "NaN",
    "-Infinity",
    "Inf",
)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("number", [*NUMBERS, "1" * 4300, "1" * 5000, "1" * 5000 + ".0"], ids=lambda text: text[:12])
def test_a_number_where_a_slice_ends(number, window, monkeypatch):
    """It is not taken for the shorter one that stands before the cut."""
    monkeypatch.setattr(incremental, "WINDOW", window)
    for before in range(window + 1):
        raw = b'{"a":' + b" " * before + b"[" + number.encode() + b",2]}"
        assert sliced(raw) == at_once(raw)


DEEP = 1_000_000


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b'{"a":"' + b"\x80" * 100_000 + b'"}', id="nothing but continuation bytes"),
        pytest.param(b'{"a":' + b"[" * DEEP, id="deep"),
        pytest.param(b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}", id="deep and closed"),
        pytest.param(b'{"a":' * DEEP, id="deep objects"),
        pytest.param(b'{"a":[' + b"x" * 300_000, id="what is no JSON"),
        pytest.param(b'{"a":[' + b"1," * 100_000 + b"]}", id="a comma too many"),
        pytest.param(b'{"a":[' + b"1," * 100_000 + b"1}", id="the wrong bracket"),
        pytest.param(b'{"a":[1]' + b" " * 300_000 + b"}x", id="more behind it"),
        pytest.param(b'{"a"' + b" " * 300_000 + b"1}", id="no colon"),
        pytest.param(b'{"a":1,' + b" " * 300_000 + b"1:1}", id="a key that is no string"),
        pytest.param(b'{"a":"' + b"x" * 300_000, id="a string without an end"),
        pytest.param(b'{"a":"' + b"x" * 300_000 + b'\n"}', id="a line break in a string"),
    ],
)
def test_what_is_no_document(raw):
    """It is refused as json refuses it, also with windows as they are."""
    assert at_once(raw) is None
    assert sliced(raw) is None


def test_too_much_in_each_other(monkeypatch):
    """Long arrays in long arrays are read to a bound, since each is looked at again for every one around it."""
    monkeypatch.setattr(incremental, "MOST_WITHIN", MOST_WITHIN)
    monkeypatch.setattr(incremental, "WINDOW", 8)

    def nested(depth):
        return b'{"a":' + b"[1," * depth + b"2" + b"]" * depth + b"}"

    assert sliced(nested(MOST_WITHIN - 1)) == at_once(nested(MOST_WITHIN - 1))
    assert at_once(nested(40)) is not None
    assert sliced(nested(40)) is None


@pytest.mark.parametrize(
    ("raw", "longest"),
    [
        pytest.param(b'{"a":[' + b"1," * 400_000 + b"1]}", 400, id="small elements"),
        pytest.param(b'{"a":{' + b'"b":1,' * 100_000 + b'"c":1}}', 400, id="small members"),
        pytest.param(b'{"a":["' + b'","'.join([b"x" * 1000] * 800) + b'"]}', 400, id="strings"),
        pytest.param(b'{"a":"' + b"x" * 800_000 + b'"}', 1, id="one string"),
        pytest.param(b'{"b":"' + b"x" * 800_000 + b'","a":[' + b"[]," * 60_000 + b"1]}", 400, id="small ones after it"),
    ],
)
def test_the_pauses(raw, longest, monkeypatch):
    """Between two of them no more is taken than a few hundred elements, or a window."""
    monkeypatch.undo()
    text = LongText(raw)
    taken = 0

    def take(*told):
        nonlocal taken
        taken += 1
        assert len(json.dumps(told[-1])) <= 2 * incremental.WINDOW

    def large(*told):
        if told[-1] is LARGE:
            yield from text.elements(take, large) if text.is_array else text.members(take, large)

    counts = []
    steps = text.document(take, large)
    while next(steps, 0) is None:
        counts.append(taken)
    assert len(counts) >= 3
    assert max(after - before for before, after in pairwise(counts)) <= longest
