"""Compressed bodies: what may be inflated, how far, and what is left unread."""

import gzip
import importlib.util
import sys
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as some

from copilot_balancer.copilot import encoding
from copilot_balancer.copilot.encoding import PER_READ, Inflater, inflated, zstd

PLAIN = b'{"error": {"code": "rate_limited"}}'


def test_without_brotli(monkeypatch):
    """Where it is missing, bodies of its encoding stay unread and the others are read."""
    monkeypatch.setitem(sys.modules, "brotli", None)
    spec = importlib.util.spec_from_file_location("without", encoding.__file__)
    without = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "without", without)
    spec.loader.exec_module(without)
    bodies = {"br": brotli.compress(PLAIN), "zstd": zstd.compress(PLAIN), "gzip": gzip.compress(PLAIN)}

    assert {name: without.inflated(body, name) for name, body in bodies.items()} == {
        "br": b"",
        "zstd": PLAIN,
        "gzip": PLAIN,
    }


def test_brotli_without_a_limit(monkeypatch):
    """An older brotli, which cannot be bounded, is not asked at all."""

    class OldDecompressor:
        def process(self, data):
            raise AssertionError("unbounded")

    monkeypatch.setattr(encoding.brotli, "Decompressor", OldDecompressor)

    assert inflated(brotli.compress(PLAIN), "br") == b""


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


ENCODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate ": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("name", ENCODINGS)
@given(parts=some.lists(some.binary(max_size=300), min_size=1, max_size=4), cut=some.integers(1, 40))
def test_a_body_in_chunks(name, parts, cut):
    """However it is cut, a body is inflated to what it was; several members of gzip or frames of zstd are one body."""
    joined = name in ("gzip", "x-gzip", "zstd")
    plain = b"".join(parts)
    body = b"".join(map(ENCODINGS[name], parts)) if joined else ENCODINGS[name](plain)
    read = Inflater(name)
    assert b"".join(read.feed(body[at : at + cut]) for at in range(0, len(body), cut)) == plain
    assert (read.readable, read.behind) == (True, False)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_bomb(name):
    """One chunk is inflated to a bounded size; the rest waits for the chunks after it, and none is lost."""
    plain = bytes(1_000_000)
    read = Inflater(name)
    found = [read.feed(ENCODINGS[name](plain))]
    while read.behind:
        found.append(read.feed(b""))
    assert max(map(len, found)) <= PER_READ
    assert (b"".join(found), read.readable) == (plain, True)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "snappy", "gzip, br", ""])
def test_what_cannot_be_inflated(name):
    """Bytes in another encoding, and encodings that are not known here, are unreadable; nothing is raised."""
    read = Inflater(name)
    assert b"".join(read.feed(chunk) for chunk in (b"\xff\xff no such", b" encoding \xff" * 10)) == b""
    assert (read.readable, read.behind) == (False, False)
