"""encoding: split from its former room."""

import sys
import zlib
from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
try:
    import brotli  # type: ignore[import-untyped]  # it ships no types
except ImportError:  # mitmproxy brings it; without it such a body stays unread and its status alone counts
    brotli = None

LIMIT = 65536
"""Bytes of an error body that are read as received, and again when inflated."""
_ZSTD_WINDOW_LOG = 23
"""8 MB, as a power of two. RFC 9659: a sender of ``Content-Encoding: zstd`` must not ask a receiver for more."""


def inflated(body: bytes, encoding: str, limit: int = LIMIT) -> bytes:
    """At most `limit` bytes of a body that says it is compressed; nothing when that cannot be read."""
    raw = bytes(body[:limit])
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return raw
    inflate = _INFLATE.get(name)
    if inflate is None:
        return b""
    try:
        return inflate(raw, limit)[:limit]
    except _BROKEN:
        return b""


def _inflated_zlib(raw: bytes, limit: int) -> bytes:
    """Gzip and zlib are told apart by their heads; some servers call a raw deflate stream ``deflate``, too."""
    try:
        return zlib.decompressobj(47).decompress(raw, limit)
    except zlib.error:
        return zlib.decompressobj(-15).decompress(raw, limit)


def _inflated_zstd(raw: bytes, limit: int) -> bytes:
    opened = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    return opened.decompress(raw, limit)


def _inflated_brotli(raw: bytes, limit: int) -> bytes:
    # before brotli 1.2 there is no output_buffer_limit: a TypeError, and the body stays unread
    inflated: bytes = brotli.Decompressor().process(raw, output_buffer_limit=limit)
    return inflated


_INFLATE: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflated_zlib,
    "x-gzip": _inflated_zlib,
    "deflate": _inflated_zlib,
    "zstd": _inflated_zstd,
    **({"br": _inflated_brotli} if brotli else {}),
}
_BROKEN: tuple[type[Exception], ...] = (
    zlib.error,
    TypeError,
    zstd.ZstdError,
    *([brotli.error] if brotli else []),
)
