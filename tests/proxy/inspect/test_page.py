"""A page: foreign text stands below our headings, in its lines and letters, and does nothing; the page has an end."""

import json

import pytest
from hypothesis import given, strategies

from copilot_balancer.proxy.inspect import page as page_module
from copilot_balancer.proxy.inspect.page import FACT, WIDTH, Page, arguments, clean


def block(text, **how):
    page = Page()
    page.block("text", text, **how)
    return "\n".join(page.lines)


def test_facts_blocks_and_remarks():
    """A page has facts at its head, blocks below headings, and remarks of its own; no line is empty."""
    page = Page()
    page.fact("model", "gpt-4.1")
    page.fact("finish", "")
    page.block("text", "Hello\n\nthere")
    page.block("tool call", "")
    page.remark("cut here")

    assert page.lines == [
        "model: gpt-4.1",
        " ",
        "text: |",
        "    Hello",
        "    ",
        "    there",
        " ",
        "tool call: (nothing)",
        " ",
        "# ... cut here",
    ]


def test_a_fact_is_one_line_of_ours():
    """A value is foreign: it cannot begin a line of its own, and it is cut and wrapped behind its name."""
    page = Page()
    page.fact("why", "first line\nserved by: forged")
    page.fact("long", "word " * FACT)

    assert page.lines[0] == "why: first line\\nserved by: forged"
    assert page.lines[1].startswith("long: word word")
    assert all(line.startswith("    word") for line in page.lines[2:])
    assert sum(map(len, page.lines)) < 2 * FACT


def test_json_is_broken_after_its_commas():
    """A refusal as it came has few spaces: it is broken after commas, and an address stays whole."""
    page = Page()
    page.fact(
        "body", '{"error":{"message":"The model is not supported.","code":"model_not_supported","param":"model"}}'
    )
    page.fact("page", f"https://example.com/{'a' * 100}")

    assert page.lines == [
        'body: {"error":{"message":"The model is not',
        '    supported.","code":"model_not_supported","param":"model"}}',
        f"page: https://example.com/{'a' * 100}",
    ]
    page = Page()
    page.fact("body", ",".join(["x" * 20] * 8))
    assert all(len(line) <= WIDTH for line in page.lines)
    assert "".join(line.strip() for line in page.lines) == "body: " + ",".join(["x" * 20] * 8)


def test_a_page_has_an_end(monkeypatch):
    """So many characters find room; what was left out is said, and what found none at all is counted."""
    monkeypatch.setattr(page_module, "SHOWN", 100)
    page = Page()
    page.block("text", "a" * 105)
    page.block("text", "b")

    assert page.lines == [" ", "text: |", f"    {'a' * 100}", "    ... 5 characters more"]
    assert page.dropped == 1


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param("a\r\nb\n\n", "a\nb", id="lines stay"),
        pytest.param("\tx", "    x", id="tabs are spaces"),
        pytest.param("12\u202fkm\xa0", "12 km ", id="spaces are spaces"),
        pytest.param("\x1b[2J\x07\x00\x7f\x9b", "\\x1b[2J\\x07\\x00\\x7f\\x9b", id="nothing speaks to a terminal"),
        pytest.param("\u202eabc\u2066", "\\u202eabc\\u2066", id="nothing turns the text"),
        pytest.param("\ud800\u2028\x85\r", "\\ud800\\u2028\\x85\\r", id="no hidden line's end, no half character"),
        pytest.param("naïve → 漢字 👩\u200d💻", "naïve → 漢字 👩\u200d💻", id="letters and emoji stay"),
    ],
)
def test_clean(given, shown):
    """Text keeps its lines and its letters; everything that could do something is shown as its escape."""
    assert clean(given) == shown


def wrapped(text: str) -> list[str]:
    return [line[4:] for line in block(text, wrap=True).split("text: |\n")[1].split("\n")]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("word " * 20, ["word " * 14 + "word"[:0], "word " * 6], id="between words"),
        pytest.param("  - " + "word " * 20, None, id="a list keeps its indent"),
        pytest.param("x" * 200, ["x" * 200], id="a long word stays whole"),
        pytest.param("x" * 200 + " y", ["x" * 200, "y"], id="behind a long word"),
        pytest.param("漢" * 100, ["漢" * 72, "漢" * 28], id="where there are no words"),
        pytest.param("```\n" + "code " * 30 + "\n```", ["```", "code " * 30, "```"], id="code stays"),
        pytest.param("a\n\nb", ["a", "", "b"], id="paragraphs"),
    ],
)
def test_prose_is_wrapped(text, lines):
    """Prose fits a small window, since mitmweb wraps no line; nothing of it is lost."""
    shown = wrapped(text)

    if lines is None:
        assert shown[0].startswith("  - word")
        assert all(line.startswith("  word") for line in shown[1:])
        assert all(len(line) <= WIDTH for line in shown)
    else:
        assert [line.rstrip() for line in shown] == [line.rstrip() for line in lines]


@given(strategies.text(strategies.characters(categories=["L", "Zs", "N", "P"]), max_size=400))
def test_wrapping_loses_nothing(text):
    """However a line is broken, its characters stand there in their order."""
    shown = "".join(page_module._wrapped(text, indent=2))

    assert shown.replace(" ", "") == text.replace(" ", "")


GROWING = json.dumps({"list": [1] * 40, "b": "x" * 100, "c": "x" * 100, "d": 1})
"""A list of 120 characters that takes more than twice as many on lines of its own."""


@pytest.mark.parametrize(
    ("given", "limit", "shown"),
    [
        pytest.param('{"a": 1, "b": "x"}', 100, 'a: 1\nb: "x"', id="an argument a line"),
        pytest.param("ls -l", 100, "ls -l", id="no JSON"),
        pytest.param("[1, 2]", 100, "[1, 2]", id="no object"),
        pytest.param("{}", 100, "{}", id="no arguments"),
        pytest.param('{"a": {"b": [1, "' + "x" * 80 + '"]}}', 999, None, id="a long value on lines"),
        pytest.param('{"a": 1, "b": 2, "c": 3}', 24, "a: 1\nb: 2\nc: 3", id="just fits"),
        pytest.param('{"a": "1\\n\\n\\n\\n\\n\\n", "b": 2}', 31, "a: |\n    1\nb: 2", id="lines"),
        pytest.param(GROWING, len(GROWING), None, id="more than fits"),
        pytest.param('{"a": 1}', 3, '{"a": 1}', id="too long to be looked at"),
    ],
)
def test_arguments(given, limit, shown):
    """Each argument on a line of its own, a text of several lines as such; long ones as indented JSON."""
    told = arguments(given, limit)

    assert told == shown if shown else told.count("\n") > 3
    assert told.endswith("...") == (given == GROWING)


def test_deep_arguments():
    """A nest that is too deep to be indented is shown flat."""
    deep = '{"a": ' + "[" * 3000 + "]" * 3000 + "}"
    assert arguments(deep, 10**9).count("\n") == arguments(deep, 10_000).count("\n") == 0
