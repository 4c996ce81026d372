import gzip
import json
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given, settings, strategies

from copilot_balancer.copilot.encoding import LIMIT, zstd
from copilot_balancer.copilot.error_body import ErrorBody, read

GOOGLE = json.dumps(
    {
        "error": {
            "message": json.dumps(
                {
                    "error": {
                        "code": 429,
                        "message": "You exceeded your current quota. Please retry in 3.564818218s.",
                        "status": "RESOURCE_EXHAUSTED",
                    }
                },
                indent=1,
            ),
            "code": 429,
            "status": "Too Many Requests",
        }
    }
)
"""The shape of microsoft/vscode#303628."""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            '{"error":{"message":"Slow down","code":"rate_limited","type":"t","param":null}}',
            ErrorBody("rate_limited", "t", "Slow down", "Slow down"),
            id="nested",
        ),
        pytest.param(
            '{"message":"Slow down","code":"extension_blocked","type":"rate_limit_error"}',
            ErrorBody("extension_blocked", "rate_limit_error", "Slow down", "Slow down"),
            id="flat",
        ),
        pytest.param(
            '{"error":{"message":"m"},"code":"c"}', ErrorBody("c", "", "m", "m"), id="code beside a nested error"
        ),
        pytest.param('{"error":{"code":"c"},"message":"m"}', ErrorBody("c", "", "m", "m"), id="message beside it"),
        pytest.param('{"error":"busy"}', ErrorBody("", "", "busy", "busy"), id="error is text"),
        pytest.param(
            '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            ErrorBody("", "overloaded_error", "Overloaded", "Overloaded", provider=True),
            id="Anthropic",
        ),
        pytest.param(
            '{"type":"error","error":{"code":"user_global_rate_limited:pro","message":"m"}}',
            ErrorBody("user_global_rate_limited:pro", "", "m", "m"),
            id="WebSocket frame",
        ),
        pytest.param(
            '{"error":{"code":"","message":"m","type":""}}', ErrorBody("", "", "m", "m"), id="empty code and type"
        ),
        pytest.param('{"error":{"code":null,"message":"m"}}', ErrorBody("", "", "m", "m"), id="code is null"),
        pytest.param('{"error":{"code":true,"message":"m"}}', ErrorBody("", "", "m", "m"), id="code is true"),
        pytest.param('{"error":{"code":["x"],"message":"m"}}', ErrorBody("", "", "m", "m"), id="code is a list"),
        pytest.param(
            '{"error":{"code":429,"message":"m"}}', ErrorBody("429", "", "m", "m", provider=True), id="code is a number"
        ),
        pytest.param(
            '{"error":{"code":429.0,"message":"m"}}',
            ErrorBody("429", "", "m", "m", provider=True),
            id="code is a float",
        ),
        pytest.param(
            '{"error":{"message":"m","status":"RESOURCE_EXHAUSTED"}}',
            ErrorBody("", "", "m", "m", provider=True),
            id="Google, not nested",
        ),
        pytest.param(
            '[{"error":{"code":503,"message":"m"}}]', ErrorBody("503", "", "m", "m", provider=True), id="Google's list"
        ),
        pytest.param(
            GOOGLE,
            ErrorBody(
                "429",
                "",
                "You exceeded your current quota. Please retry in 3.564818218s.",
                '{ "error": { "code": 429, "message": "You exceeded your current quota. Please retry in 3.564818218s.", '
                '"status": "RESOURCE_EXHAUSTED" } } You exceeded your current quota. Please retry in 3.564818218s.',
                provider=True,
                retry_after=3.564818218,
            ),
            id="Google's JSON inside the message",
        ),
        pytest.param(
            json.dumps({"error": {"code": 400, "message": '{"error":{"code":"model_not_supported","message":"m"}}'}}),
            ErrorBody("model_not_supported", "", "m", '{"error":{"code":"model_not_supported","message":"m"}} m'),
            id="a word inside beats a number outside",
        ),
        pytest.param(
            '{"message":"m","error_details":{"notification_id":"spammy_user","message":"n"},"reason":"r"}',
            ErrorBody("spammy_user", "", "m", "m"),
            id="token exchange",
        ),
        pytest.param(
            '{"error_details":{"notification_id":"spammy_user","message":"n"}}',
            ErrorBody("spammy_user", "", "n", "n"),
            id="token exchange, message in its details",
        ),
        pytest.param(
            '{"authorize_url":"https://x","message":"m"}',
            ErrorBody("", "", "m", "m", authorize_url=True),
            id="authorize_url",
        ),
        pytest.param(
            '{"error":{"authorize_url":"https://x","message":"m"}}',
            ErrorBody("", "", "m", "m", authorize_url=True),
            id="authorize_url inside",
        ),
        pytest.param(
            '{"detail": "quota exceeded"}',
            ErrorBody("", "", '{"detail": "quota exceeded"}', '{"detail": "quota exceeded"}'),
            id="JSON of another shape speaks as a whole",
        ),
        pytest.param(
            '{"error":{"message":{"a":1},"type":3}}',
            ErrorBody("", "", '{"error":{"message":{"a":1},"type":3}}', '{"error":{"message":{"a":1},"type":3}}'),
            id="message and type are no text",
        ),
        pytest.param("[]", ErrorBody("", "", "[]", "[]"), id="empty list"),
        pytest.param(
            "unauthorized: token  expired\n",
            ErrorBody("", "", "unauthorized: token  expired", "unauthorized: token expired"),
            id="text/plain",
        ),
        pytest.param('"quota"', ErrorBody("", "", '"quota"', '"quota"'), id="a JSON string is text"),
        pytest.param("{not JSON", ErrorBody("", "", "{not JSON", "{not JSON"), id="not JSON"),
        pytest.param('\ufeff{"error":{"message":"m"}}', ErrorBody("", "", "m", "m"), id="BOM"),
        pytest.param("", ErrorBody(), id="empty"),
        pytest.param(
            "<!DOCTYPE html>\n<html><head><title>Unicorn! &middot; GitHub</title></head>Terms of Service</html>",
            ErrorBody("", "", "Unicorn! &middot; GitHub", "", html=True),
            id="HTML page: its title is for people, its text for nobody",
        ),
        pytest.param(
            "<html><body>502</body></html>", ErrorBody("", "", "an HTML page", "", html=True), id="HTML without a title"
        ),
    ],
)
def test_shapes(body, expected):
    """Every shape in which a refusal was seen is read for its code, type and message."""
    assert expected == read({}, body.encode(), wall=0.0)


@pytest.mark.parametrize(
    ("content_type", "body", "html"),
    [
        pytest.param("text/html; charset=utf-8", "<body>no</body>", True, id="HTML of another beginning"),
        pytest.param("TEXT/HTML", "", True, id="empty HTML"),
        pytest.param("text/html", "quota exceeded", False, id="text that calls itself HTML"),
        pytest.param("text/html", '{"error":{"message":"m"}}', False, id="JSON that calls itself HTML"),
        pytest.param("text/plain", "<html>", True, id="HTML that calls itself text"),
        pytest.param("application/xml", "<Error/>", False, id="XML"),
    ],
)
def test_html(content_type, body, html):
    """A page is known by how it begins, and by its type where that leaves a doubt."""
    assert html is read({"content-type": content_type}, body.encode(), wall=0.0).html


def test_html_keeps_the_hint_of_the_headers():
    """The Retry-After of a page counts; what stands in its text does not."""
    body = read({"retry-after": "7"}, b"<html>try again in 2 hours</html>", wall=0.0)

    assert body.retry_after == 7.0


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        pytest.param("user_global_rate_limited:pro_plus", "x", "user_global_rate_limited", id="plan"),
        pytest.param("User_Model_Rate_Limited:gpt-5:x", "x", "user_model_rate_limited", id="model, capitals"),
        pytest.param("rate_limited", "x", "rate_limited", id="no suffix"),
        pytest.param("", "Overloaded_error", "overloaded_error", id="no code: the type"),
        pytest.param("429", "quota_exceeded", "quota_exceeded", id="a number says nothing: the type"),
        pytest.param(":pro", "x", "x", id="suffix alone"),
        pytest.param("", "", "", id="nothing"),
    ],
)
def test_word(code, kind, word):
    """What counts of a code stands before its first colon; the type stands in for a code that says nothing."""
    assert word == ErrorBody(code, kind).word


PLAIN = b'{"error":{"message":"Slow down","code":"rate_limited"}}'


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        pytest.param("", PLAIN, id="none"),
        pytest.param("identity", PLAIN, id="identity"),
        pytest.param("gzip", gzip.compress(PLAIN), id="gzip"),
        pytest.param(" GZIP ", gzip.compress(PLAIN), id="capitals and spaces"),
        pytest.param("x-gzip", gzip.compress(PLAIN), id="x-gzip"),
        pytest.param("deflate", zlib.compress(PLAIN), id="deflate"),
        pytest.param("deflate", raw_deflate(PLAIN), id="deflate without its head"),
        pytest.param("zstd", zstd.compress(PLAIN), id="zstd"),
        pytest.param("br", brotli.compress(PLAIN), id="br"),
    ],
)
def test_encodings(encoding, body):
    """A compressed body reads as the plain one."""
    assert read({"content-encoding": encoding}, body, wall=0.0).code == "rate_limited"


def zstd_with_a_huge_window():
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    return packer.compress(PLAIN * 400_000) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        pytest.param("gzip", b"no gzip at all", id="no gzip"),
        pytest.param("deflate", b"\xff\xff\xff", id="no deflate"),
        pytest.param("zstd", b"no zstd at all", id="no zstd"),
        pytest.param("zstd", zstd_with_a_huge_window(), id="zstd that asks for 128 MB"),
        pytest.param("br", b"no brotli at all", id="no brotli"),
        pytest.param("gzip, br", gzip.compress(brotli.compress(PLAIN)), id="two encodings"),
        pytest.param("compress", PLAIN, id="an encoding that nobody offers"),
    ],
)
def test_unreadable_encodings(encoding, body):
    """What cannot be inflated is an empty body."""
    assert read({"content-encoding": encoding}, body, wall=0.0) == ErrorBody()


MEGABYTE = bytes(1 << 20)


def deflate_bomb(wbits):
    """1 GB of zeros: after a full flush a megabyte's code can be repeated as it is."""
    packer = zlib.compressobj(9, wbits=wbits)
    first = packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * 1023


def zstd_bomb():
    packer = zstd.ZstdCompressor(level=1)
    return b"".join([*(packer.compress(MEGABYTE) for _ in range(1024)), packer.flush()])


def brotli_bomb():
    packer = brotli.Compressor(quality=1)
    return b"".join([*(packer.process(MEGABYTE) for _ in range(1024)), packer.finish()])


@pytest.mark.parametrize(
    ("encoding", "make"),
    [
        pytest.param("gzip", lambda: deflate_bomb(31), id="gzip"),
        pytest.param("deflate", lambda: deflate_bomb(15), id="deflate"),
        pytest.param("deflate", lambda: deflate_bomb(-15), id="raw deflate"),
        pytest.param("zstd", zstd_bomb, id="zstd"),
        pytest.param("br", brotli_bomb, id="br"),
        pytest.param("", lambda: bytes(16 << 20), id="not compressed"),
    ],
)
def test_bomb(encoding, make):
    """Of 1 GB of zeros no more than 64 KB are inflated, and no more than 1 MB is held for it."""
    bomb = make()
    tracemalloc.start()
    try:
        body = read({"content-encoding": encoding}, bomb, wall=0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(body.message) == LIMIT
    assert len(body.text) < LIMIT
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * LIMIT, id="brackets"),
        pytest.param(b'{"a":' * (LIMIT // 5), id="objects"),
        pytest.param(b'{"error":{"code":' + b"9" * 60000 + b"}}", id="a number of 60000 digits"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
        pytest.param(b'{"error":{"message":"\\ud800","code":"\\udfff"}}', id="lone surrogates"),
        pytest.param(
            json.dumps({"message": json.dumps({"message": json.dumps({"message": "{}"})})}).encode(), id="deep"
        ),
        pytest.param(b'{"error":{"code":NaN,"message":"m"}}', id="NaN"),
    ],
)
def test_hostile_bodies(body):
    """A body made to break a parser is read as far as it goes."""
    assert isinstance(read({}, body, wall=0.0), ErrorBody)


@settings(max_examples=500, deadline=None)
@given(
    body=strategies.binary(max_size=300) | strategies.text(strategies.characters(codec="utf-8")).map(str.encode),
    encoding=strategies.sampled_from(["", "gzip", "deflate", "zstd", "br", "x"]),
    content_type=strategies.sampled_from(["", "text/html", "application/json"]),
)
def test_any_bytes_are_read(body, encoding, content_type):
    """Whatever the bytes are, nothing is raised and nothing grows beyond the limit."""
    found = read({"content-encoding": encoding, "content-type": content_type}, body, wall=0.0)

    assert len(found.message) <= LIMIT
    assert len(found.text) <= LIMIT
