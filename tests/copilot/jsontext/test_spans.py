"""Spans of a JSON text: what is cut goes with its comma, every other byte stays, and what is no document is refused."""

import json

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot.jsontext.spans import (
    MOST_PARTS,
    UNREADABLE,
    Walked,
    document,
    named,
    spans,
    walk,
    without,
)


def cut_keys(text, *keys):
    """The text of an object without these keys."""
    body = document(text, "")
    return without(text, sorted(spans(body.parts, named(body, keys))))


def cut_places(text, *places):
    """The text of an object without these elements of its array "a"."""
    array = document(text, "a").members["a"]
    assert isinstance(array, Walked)
    return without(text, sorted(spans(array.parts, places)))


KEYS = [
    ('{"x":1,"a":2}', '{"a":2}', "first of two"),
    ('{"a":2 ,\n "x" : 1}', '{"a":2}', "last of two"),
    ('{ "a":1, "x":1, "b":2 }', '{ "a":1, "b":2 }', "between two"),
    ('{ "x":1 }', "{  }", "the only one"),
    ('{"x":0,"a":{"x":1},"x":1,"x":1}', '{"a":{"x":1}}', "thrice"),
    ('{"\\u0078":"\\u0078","a":1}', '{"a":1}', "escaped key and value"),
    ('{"x":1,"t":"é\\ud83d\\ude00\\"]},"}', '{"t":"é\\ud83d\\ude00\\"]},"}', "text"),
    ('\ufeff {"x":1} \n', "\ufeff {} \n", "byte order mark"),
    ('{"x":"q","a":1e2,"b":[{},{}] , "x":"p"}', '{"a":1e2,"b":[{},{}]}', "first and last"),
    ('{"x":0,"y":[],"a":1,"y":2}', '{"a":1}', "two keys"),
    ('{"a": 1.50, "b": -0}', '{"a": 1.50, "b": -0}', "none of them"),
    ("{ }", "{ }", "an empty object"),
]


@pytest.mark.parametrize(("text", "left"), [pytest.param(*row, id=name) for *row, name in KEYS])
def test_the_members_that_stay(text, left):
    """Exactly the span of a member goes, as often as its key stands there."""
    assert cut_keys(text, "x", "y") == left


@pytest.mark.parametrize(
    ("text", "places", "left"),
    [
        pytest.param('{"a":[ {} , "x" , 1.50 ]}', (0, 1), '{"a":[ 1.50 ]}', id="the first ones"),
        pytest.param('{"a":[ 1.50 , {} , "x" , -0 ]}', (1, 2), '{"a":[ 1.50 , -0 ]}', id="those in the middle"),
        pytest.param('{"a":[ {},1 , "x" ]}', (0, 2), '{"a":[ 1 ]}', id="first and last"),
        pytest.param('{"a":[ {} ]}', (0,), '{"a":[  ]}', id="the only one"),
        pytest.param('{"a":[ 1 , 2 ]}', (0, 1), '{"a":[  ]}', id="all"),
        pytest.param('{"a":[ ]}', (), '{"a":[ ]}', id="an empty array"),
        pytest.param('{"a":[0],"a":[1,2]}', (0,), '{"a":[0],"a":[2]}', id="of two arrays of that name the last"),
    ],
)
def test_the_elements_that_stay(text, places, left):
    """Exactly the span of an element goes, with one comma and the white space on that side of it."""
    assert cut_places(text, *places) == left


def test_what_is_walked():
    """A document's members are read as json reads them; only the array that is named is walked itself."""
    text = ' {"a": [1, {"b": []}], "c": [2]} '
    body = document(text, "a")
    array = body.members["a"]

    assert body.members["c"] == [2]
    assert body.end == len(text) - 1
    assert isinstance(array, Walked)
    assert [part.value for part in array.parts] == [1, {"b": []}]
    assert [text[part.start : part.end] for part in array.parts] == ["1", '{"b": []}']
    assert [text[part.start : part.end] for part in body.parts] == ['"a": [1, {"b": []}]', '"c": [2]']
    assert walk(text, array.parts[1].start, "b").members == {"b": ([], text.index("]}") + 1)}


VALID = '{"a":[{"x":1}],"b":[]}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="no object"),
        pytest.param('"a"', id="a string"),
        pytest.param(VALID + "x", id="more behind it"),
        pytest.param(VALID[:-1], id="cut off"),
        pytest.param(VALID[:-3], id="cut off in an array"),
        pytest.param('{"a":[{"x":1}],}', id="a comma too many"),
        pytest.param('{"a":[{"x":1}] "b":1}', id="a comma too few"),
        pytest.param('{"a":[{"x":1}},"b":1}', id="the wrong bracket"),
        pytest.param('{"a":[{"x":1}}1]}', id="the wrong bracket for a comma"),
        pytest.param('{"a":[{"x":1},]}', id="a comma too many in the array"),
        pytest.param('{"a" [{"x":1}]}', id="no colon"),
        pytest.param('{5:1,"a":[]}', id="a key that is no string"),
        pytest.param('{"b":' + "1" * 5000 + ',"a":[]}', id="a number that Python refuses"),
        pytest.param('{"a":["\n"]}', id="a control character"),
        pytest.param('{"a":[' + "[" * 300_000, id="a depth bomb"),
        pytest.param('{"a":[],"b":' + '{"b":' * 300_000, id="a depth bomb of objects"),
    ],
)
def test_what_is_no_document(text):
    """A text that json could not read, or that is no object, is refused."""
    with pytest.raises(UNREADABLE):
        document(text, "a")


def test_the_limit_is_where_it_says():
    """An array or object is walked up to its bound, and no further."""
    assert len(walk("[" + "0," * (MOST_PARTS - 1) + "0]", 0).parts) == MOST_PARTS
    with pytest.raises(ValueError, match="too much of it"):
        walk("[" + "0," * MOST_PARTS + "0]", 0)


VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=3),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    strategies.dictionaries(strategies.text(max_size=2), VALUES, max_size=5),
    strategies.data(),
    strategies.sampled_from([None, 1]),
)
def test_any_object(value, data, indent):
    """Whatever keys are cut, what is left reads as the object without them."""
    gone = data.draw(strategies.sets(strategies.sampled_from(sorted(value)))) if value else set()
    left = cut_keys(json.dumps(value, indent=indent), *gone)

    assert json.loads(left) == {key: inner for key, inner in value.items() if key not in gone}
