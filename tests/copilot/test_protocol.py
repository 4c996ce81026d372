"""Facts of the wire: paths, hosts, bodies, our own errors."""

import json

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot.hosts import copilot_hosts, plain_host
from copilot_balancer.copilot.protocol import (
    PARSE_LIMIT,
    PLACEHOLDER,
    Api,
    Kind,
    api_of,
    error_body,
    kind_of,
    model_of,
    read_body,
    with_model,
)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/chat/completions", Kind.BALANCED),
        ("POST", "/v1/chat/completions", Kind.BALANCED),
        ("POST", "/responses", Kind.BALANCED),
        ("POST", "/v1/messages", Kind.BALANCED),
        ("POST", "/v1/messages?beta=true", Kind.BALANCED),
        ("POST", "/v1/messages/count_tokens", Kind.BALANCED),
        ("POST", "/embeddings", Kind.BALANCED),
        ("GET", "/models", Kind.HOME),
        ("GET", "/models?x=1", Kind.HOME),
        ("POST", "/models/session", Kind.SELECTION),
        ("POST", "/models/session/intent", Kind.SELECTION),
        ("POST", "/models/gpt-5/policy", Kind.OTHER),
        ("POST", "/models", Kind.OTHER),
        ("GET", "/chat/completions", Kind.OTHER),
        ("PUT", "/chat/completions", Kind.OTHER),
        ("TRACE", "/responses", Kind.OTHER),
        ("POST", "/mcp/", Kind.OTHER),
        ("POST", "/agents/swe/jobs", Kind.OTHER),
        ("POST", "//chat/completions", Kind.OTHER),
        ("POST", "/chat/completions/../mcp", Kind.OTHER),
        ("POST", "/chat/completions/", Kind.OTHER),
        ("POST", "/chat%2fcompletions", Kind.OTHER),
        ("POST", "https://api.githubcopilot.com/chat/completions", Kind.OTHER),
        ("GET", "/responses", Kind.OTHER),
    ],
)
def test_kind_of(method, path, kind):
    """Only listed methods and paths are balanced; everything else keeps the client's own credential."""
    assert kind_of(method, path) is kind


def test_kind_of_websocket():
    """The WebSocket handshake of /responses is balanced; of nothing else."""
    assert kind_of("GET", "/responses", websocket=True) is Kind.BALANCED
    assert kind_of("GET", "/mcp", websocket=True) is Kind.OTHER


def test_hosts():
    """github.com's hosts are always opened; an enterprise's only when it is known."""
    assert "api.githubcopilot.com" in copilot_hosts()
    assert "proxy.individual.githubcopilot.com" not in copilot_hosts()
    assert "copilot-api.acme.ghe.com" in copilot_hosts(["acme.ghe.com"])
    assert plain_host("API.GitHubCopilot.com.") == "api.githubcopilot.com"


def test_placeholder_shape():
    """The placeholder has the shape that the Copilot CLI accepts."""
    assert PLACEHOLDER == "ghu_" + 36 * "a"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[1]", id="not an object"),
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'{"a": ' + b"1" * 5000 + b"}", id="5000 digits"),
    ],
)
def test_a_body_that_cannot_be_read_is_no_error(body):
    """A strange body is None, never an exception."""
    assert read_body(body) is None


def test_a_huge_body_is_not_parsed(monkeypatch):
    """A body beyond the limit goes on unread."""
    monkeypatch.setattr("copilot_balancer.copilot.protocol.json.loads", lambda _: 1 / 0)
    assert read_body(b" " * (PARSE_LIMIT + 1)) is None


@given(strategies.binary(max_size=200))
def test_read_body_never_raises(body):
    """Whatever the bytes are, there is a dict or None."""
    assert read_body(body) is None or isinstance(read_body(body), dict)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"model": "gpt-5"}, "gpt-5"),
        ({"model": ""}, None),
        ({"model": 5}, None),
        ({"model": "x" * 201}, None),
        ({"model": "a\nb"}, None),
        ({"model": "\ud800"}, None),
        ({}, None),
        (None, None),
    ],
    ids=str,
)
def test_model_of(body, model):
    """The model is the top-level string, or there is none."""
    assert model_of(body) == model


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        pytest.param(
            b'{"x": 1.0, "model" : "a","y":"\xc3\xa9"}', b'{"x": 1.0, "model" : "b","y":"\xc3\xa9"}', id="in place"
        ),
        pytest.param(
            b'{"tools":[{"model":"a"}],"model":"a"}', b'{"tools": [{"model": "a"}], "model": "b"}', id="named twice"
        ),
        pytest.param(
            b'{"mo\\u0064el":"a","z":{"model":"a"}}', b'{"model": "b", "z": {"model": "a"}}', id="only a nested one"
        ),
    ],
)
def test_with_model(body, changed):
    """Only the top-level model is changed, and in place where that is safe."""
    assert with_model(body, "a", "b") == changed
    assert model_of(read_body(changed)) == "b"


def test_error_body():
    """Our own errors have the service's shape; on the messages API Anthropic's, with the same fields."""
    chat = json.loads(error_body("/chat/completions", message="m", code="c", kind="k"))
    assert chat == {"error": {"message": "m", "code": "c", "type": "k"}}
    assert json.loads(error_body("/v1/messages", message="m", code="c", kind="k")) == {"type": "error", **chat}


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/chat/completions", Api.CHAT),
        ("/v1/chat/completions?x=1", Api.CHAT),
        ("/responses", Api.RESPONSES),
        ("/v1/messages", Api.MESSAGES),
        ("/messages/count_tokens", Api.MESSAGES),
        ("/embeddings", None),
        ("/models", None),
        ("/v1", None),
    ],
)
def test_api_of(path, api):
    """In which form a conversation is told at a path."""
    assert api_of(path) is api


VALUES = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=8),
    lambda inner: (
        strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
ODD = '0123456789.eE+-"\\/bfnrtu{}[]:, \n\t\x00\x1fNaInfinity\u00e9\U0001f600\ud800\ufeff'


def reference(raw):
    """The object as json reads it, and every number in it; None when it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return json.dumps(found) if isinstance(found, dict) else None


@given(
    strategies.dictionaries(strategies.text(max_size=3), VALUES, max_size=4),
    strategies.booleans(),
    strategies.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"]),
    strategies.lists(
        strategies.tuples(strategies.integers(0, 100), strategies.integers(0, 3), strategies.text(ODD, max_size=4)),
        max_size=2,
    ),
)
def test_a_body_is_read_as_json_reads_it(body, ascii_only, encoding, edits):
    """The faster parser changes no answer, whatever the bytes are."""
    raw = bytearray(json.dumps(body, ensure_ascii=ascii_only).encode(encoding, "surrogatepass"))
    for place, length, text in edits:
        raw[place : place + length] = text.encode("utf-8", "surrogatepass")
    found = read_body(bytes(raw))
    assert (None if found is None else json.dumps(found)) == reference(bytes(raw))


@pytest.mark.parametrize(
    "value",
    [
        *("1" * 4300, "1" * 4301, "1" * 5000 + ".0", "1" * 400, "-0", "-0.0", "1e400", "-1E400", "5e-324", "01", "1."),
        *("9007199254740993.0", "9223372036854775808", "NaN", "-Infinity", "-NaN", "1.7976931348623159e308"),
        *('"\\ud83d"', '"\\ud83d\\ude00"', '"\\u0000"', '"\x7f"', '"\t"', '"\\x"', "[" * 250 + "]" * 250, "[1,]"),
    ],
    ids=lambda value: value[:14].encode("unicode_escape").decode(),
)
def test_values_that_parsers_differ_on(value):
    """They are read, or refused, as json does it."""
    raw = f'{{"a":1,"b":{value},"a":2}}'.encode("utf-8", "surrogatepass")
    found = read_body(raw)
    assert (None if found is None else json.dumps(found)) == reference(raw)
