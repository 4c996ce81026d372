"""JSON of other programs: what cannot be read is None, and what is of another type counts as not said."""

import json

import pytest

from copilot_balancer.copilot.jsontext.lenient import (
    as_list,
    as_number,
    as_object,
    as_text,
    dumped,
    loads,
    objects,
    parsed,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param('{"a": [1]}', {"a": [1]}, id="an object"),
        pytest.param("[1]", None, id="a list"),
        pytest.param("", None, id="nothing"),
        pytest.param('{"a"', None, id="cut off"),
        pytest.param('{"a": ' + "[" * 300_000, None, id="a depth bomb"),
        pytest.param('{"a": ' + "1" * 5000 + "}", None, id="a number that Python refuses"),
    ],
)
def test_only_an_object_is_parsed(text, found):
    """A text is an object, or None; nothing is raised."""
    assert parsed(text) == found


@pytest.mark.parametrize(
    "text", ['{"a": "\\ud800"}', '{"a": NaN}', '{"a": 1, "b": -0.0, "a": 1e400}', '"\ud800"', "[" * 250 + "]" * 250]
)
def test_what_only_json_takes(text):
    """The faster parser is asked first; what it refuses is read as json reads it."""
    assert json.dumps(loads(text)) == json.dumps(json.loads(text))


def test_no_memory_left(monkeypatch):
    """A document that does not fit is none."""

    def refuse(_text, **_options):
        raise MemoryError

    monkeypatch.setattr("copilot_balancer.copilot.jsontext.lenient.from_json", refuse)
    assert parsed("{}") is None


def test_what_is_too_deep_to_be_written():
    """A value is written as it came; a nest that cannot be written again is said so."""
    nest: list[object] = []
    for _ in range(100_000):
        nest = [nest]

    assert dumped({"a": "é"}) == '{"a": "é"}'
    assert dumped(nest) == "(too deep to be shown)"


@pytest.mark.parametrize(
    ("value", "text", "number", "listed", "mapping"),
    [
        pytest.param("a", "a", 0, [], {}, id="text"),
        pytest.param(5, "", 5, [], {}, id="number"),
        pytest.param(5.5, "", 0, [], {}, id="no whole number"),
        pytest.param([1, {"b": 2}, None], "", 0, [1, {"b": 2}, None], {}, id="list"),
        pytest.param({"a": 1}, "", 0, [], {"a": 1}, id="object"),
        pytest.param(None, "", 0, [], {}, id="null"),
    ],
)
def test_what_was_expected(value, text, number, listed, mapping):
    """A value of the expected type is itself; any other counts as empty."""
    assert (as_text(value), as_number(value), as_list(value), as_object(value)) == (text, number, listed, mapping)
    assert objects(value) == [part for part in listed if isinstance(part, dict)]
