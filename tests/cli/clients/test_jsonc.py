"""JSON with comments: what is read, and that nothing moves."""

import json

import pytest
from hypothesis import given, strategies

from copilot_balancer.cli.clients.jsonc import parsed, plain


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        pytest.param(b'{"a": 1} // end', {"a": 1}, id="to the end of the line"),
        pytest.param(b'/* {\n */ {"a": /* x */ 1}', {"a": 1}, id="between"),
        pytest.param(b'{"a": [1, 2,], // x\n}', {"a": [1, 2]}, id="a comma too many"),
        pytest.param(b'{"a": "// no /* comment */"}', {"a": "// no /* comment */"}, id="in a string"),
        pytest.param(b'{"a": "\\"// no"}', {"a": '"// no'}, id="behind a quote in a string"),
        pytest.param(b'{"a": "x, ]"}', {"a": "x, ]"}, id="a comma before a bracket in a string"),
        pytest.param(b'{"a": ",}", "b": [1, /* , ] */ ],}', {"a": ",}", "b": [1]}, id="both"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', {"a": 1}, id="a byte order mark"),
        pytest.param(b"{", None, id="cut"),
        pytest.param(b"\xff", None, id="no text"),
        pytest.param(b"[" * 100_000, None, id="too deep"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_json_with_comments(raw, found):
    """Comments and commas too many are allowed; what is no JSON is None, and no exception."""
    assert parsed(raw, comments=True) == found


@pytest.mark.parametrize("raw", [b'{"a": 1} // end', b'{"a": [1,]}'])
def test_json_without_comments(raw):
    """Where a program allows no comments they are none."""
    assert parsed(raw, comments=False) is None


@given(strategies.text())
def test_nothing_moves(text):
    """Whatever the text is, each line keeps its place and its length."""
    assert [len(line) for line in plain(text).split("\n")] == [len(line) for line in text.split("\n")]


@given(
    strategies.recursive(
        strategies.none() | strategies.integers() | strategies.text(),
        lambda inner: strategies.dictionaries(strategies.text(), inner),
        max_leaves=5,
    )
)
def test_json_without_a_comment_is_itself(document):
    """Strings are never taken for comments or trailing commas, whatever stands in them."""
    text = json.dumps(document)
    assert plain(text) == text
    assert parsed(text.encode(), comments=True) == document
