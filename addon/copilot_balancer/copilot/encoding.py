"""Inflates compressed bodies (gzip, deflate, br, zstd), whole or chunk by chunk, within a bound.

Laws of this file:

1. Nothing here raises for what a body holds: what cannot be read is said to be unreadable.
2. No input makes it inflate more than its caller's limit at once: a body may be a bomb.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Any

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


PER_READ = 64 * 1024
"""Bytes that one chunk of a streamed body is inflated to at most; what is over waits for the next one."""
_STEP = 32 * 1024
"""Bytes that a decoder is asked for at once."""
_WAITING = 1024 * 1024
"""Compressed bytes that may wait; beyond, the body is unreadable."""


class Inflater:
    """Inflates one body chunk by chunk.

    Args:
        encoding: the value of its ``Content-Encoding``: one name, or several that are not supported together.

    """

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower()
        self._open = _OPEN.get(name)
        self.readable = self._open is not None
        """False: the encoding is not known here, or the bytes are not in it; nothing more is inflated."""
        self._stream: Any = None
        self._waiting = b""
        self._more = False
        self._raw_deflate = name == "deflate"

    @property
    def behind(self) -> bool:
        """Whether something of what was fed still waits to be inflated."""
        return bool(self._waiting) or self._more

    def feed(self, data: bytes) -> bytes:
        """Take the next chunk; at most `PER_READ` bytes of what has come so far, inflated."""
        if not self.readable:
            return b""
        waiting = self._waiting + data
        try:
            plain, self._waiting = self._inflated(waiting)
        except _BROKEN:
            plain, self._waiting, self.readable = b"", b"", False
        if len(self._waiting) > _WAITING:
            self._waiting, self.readable = b"", False
        self._more = self._more and self.readable
        return plain

    def _inflated(self, waiting: bytes) -> tuple[bytes, bytes]:
        found, room = [], PER_READ
        while room >= _STEP and (waiting or self._more):
            fresh = self._stream is None
            if fresh and self._raw_deflate and len(waiting) < 2:
                break  # two bytes tell whether it is zlib's
            if self._stream is None:
                assert self._open is not None
                self._stream = self._open()
            try:
                plain, waiting, ended, self._more = self._stream(waiting, _STEP)
            except zlib.error:
                if not (fresh and self._raw_deflate):
                    raise
                self._stream = _ZlibStream(-15)  # some servers call a raw deflate stream so
                plain, waiting, ended, self._more = self._stream(waiting, _STEP)
            self._raw_deflate = False
            if ended:
                self._more, self._stream = False, None  # another member, or frame, may follow
            found.append(plain)
            room -= len(plain)
        return b"".join(found), waiting


# a decoder takes bytes and how many it may give: what it gives, bytes it did not take, whether the body (or one member
# of it) ended, and whether it may have more to give


class _ZlibStream:
    def __init__(self, window: int = 47) -> None:
        self._object = zlib.decompressobj(window)

    def __call__(self, data: bytes, room: int) -> tuple[bytes, bytes, bool, bool]:
        plain = self._object.decompress(data, room)
        return plain, self._object.unconsumed_tail or self._object.unused_data, self._object.eof, len(plain) >= room


class _ZstdStream:
    def __init__(self) -> None:
        self._object = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})

    def __call__(self, data: bytes, room: int) -> tuple[bytes, bytes, bool, bool]:
        plain = self._object.decompress(data, room)
        return plain, self._object.unused_data, self._object.eof, len(plain) >= room


class _BrotliStream:
    def __init__(self) -> None:
        self._object = brotli.Decompressor()

    def __call__(self, data: bytes, room: int) -> tuple[bytes, bytes, bool, bool]:
        ready = self._object.can_accept_more_data()
        plain: bytes = self._object.process(
            data if ready else b"", output_buffer_limit=room // 2
        )  # its blocks are larger
        return plain, b"" if ready else data, False, bool(plain)


_OPEN: dict[str, Callable[[], Callable[[bytes, int], tuple[bytes, bytes, bool, bool]]]] = {
    "gzip": _ZlibStream,
    "x-gzip": _ZlibStream,
    "deflate": _ZlibStream,
    "zstd": _ZstdStream,
    **({"br": _BrotliStream} if brotli else {}),
}

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
    EOFError,
    AttributeError,  # a brotli before 1.2
    zstd.ZstdError,
    *([brotli.error] if brotli else []),
)
