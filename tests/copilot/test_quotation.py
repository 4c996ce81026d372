"""What an upstream's text quotes is taken out of it."""

import json

import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.quotation import LONGEST_REQUEST, RUN, unquoted

SECRET = 'Grandmother\'s recipe, with\n"nuts" and C:\\new folder — crème'
REQUEST = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": SECRET}]}).encode()


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(json.dumps(SECRET)),
        json.dumps(SECRET, ensure_ascii=False),
        SECRET.upper(),
        SECRET.replace(" ", "\n\t "),
        json.dumps({"error": {"message": f"bad input: {SECRET}"}}),
    ],
    ids=["as it is", "as JSON", "JSON in JSON", "not escaped", "capitals", "white space", "in an error"],
)
def test_no_word_of_a_conversation_stays(text):
    """Whatever way it is written, what also stands in the request is replaced."""
    left = unquoted(f"The prompt {text} is refused", REQUEST)
    assert left.startswith("The prompt")
    assert left.endswith("is refused")
    assert "[quoted]" in left
    for word in ("recipe", "nuts", "folder", "RECIPE"):
        assert word not in left


@settings(deadline=None, max_examples=300)
@given(strategies.text(max_size=60), strategies.text(max_size=200), strategies.integers(0, 3))
def test_no_run_in_common_is_left(text, request, depth):
    """No run of so many characters stands in both afterwards, however deep either is written."""
    body = json.dumps({"messages": [{"content": request}]}).encode()
    quoted = request
    for _ in range(depth):
        quoted = json.dumps(quoted)
    left = unquoted(text + quoted, body)
    plain = " ".join(request.split()).lower()
    for start in range(len(plain) - RUN + 1):
        run = plain[start : start + RUN]
        assert run not in left.lower() or "\\" in run


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("token gho_abcdefghij1234567890 refused", "token [token] refused"),
        ("thought_signature is missing", "thought_signature is missing"),
        ("write to Jane.Doe@example.com", "write to [address]"),
        ("request 0f8fad5b-d9cb-469f-a165-70867728950e", "request [id]"),
        ("installation 12345678", "installation [id]"),
        ("user octo-cat may not", "user [name] may not"),
        ("octo-catalogue", "octo-catalogue"),
        ("computer says no", "computer says no"),
        ("", ""),
    ],
)
def test_what_is_taken_out_whatever_the_request(text, left):
    """Credentials, addresses, ids and names go; words stay."""
    assert unquoted(text, b"{}", ("octo-cat",)) == left


def test_a_request_that_cannot_be_compared_leaves_nothing():
    """A text is shown only where all of the request was looked at."""
    assert unquoted("quoting something", b"x" * (LONGEST_REQUEST + 1)) == "[request too long to compare]"


def test_a_hostile_request_is_read():
    """Depth, bytes and surrogates raise nothing."""
    for body in (b"[" * 100_000, b"\xff\xfe", b'{"a": "\\ud800"}', b""):
        assert unquoted("no \\ud800 \\", body).startswith("no ")
