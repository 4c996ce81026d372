"""Compressed bodies: what may be inflated, how far, and what is left unread."""

import gzip
import importlib.util
import sys

import brotli

from copilot_balancer.copilot import encoding
from copilot_balancer.copilot.encoding import inflated, zstd

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
