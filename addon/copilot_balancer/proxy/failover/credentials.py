"""Hides the client's credential headers from the flow, and makes the copy of the request that goes upstream.

Laws of this file:

1. What a client brought is told by no ``repr``.
2. A copy differs from the client's request in its host alone, and in its framing where HTTP/2 needs none; how it is
   dressed is the addon's.
"""

import copy

from mitmproxy import http

HIDDEN = frozenset(
    {
        b"api-key",
        b"authorization",
        b"cookie",
        b"copilot-session-token",
        b"proxy-authorization",
        b"x-api-key",
        b"x-github-token",
        b"x-goog-api-key",
    }
)
"""Request headers whose values never stand in a flow."""


class HiddenCredentials:
    """The values that were taken out of a request's headers on entry. Its repr tells none of them."""

    __slots__ = ("_values",)

    def __init__(self, headers: http.Headers) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in headers.fields:
            if (plain := name.strip().lower()) in HIDDEN:
                self._values.setdefault(plain, []).append(value)

    def masked(self, headers: http.Headers) -> None:
        """Leave a word in the place of each value."""
        if self:
            headers.fields = tuple(_masked(name, value) for name, value in headers.fields)

    def __repr__(self) -> str:
        return f"<hidden headers: {', '.join(sorted(name.decode() for name in self._values)) or 'none'}>"

    def get(self, name: bytes) -> tuple[bytes, ...]:
        """The values of one header (lower-case name), in their order."""
        return tuple(self._values.get(name, ()))

    @property
    def bearer(self) -> str | None:
        """The token that the client brought, if it brought one."""
        for value in self.get(b"authorization"):
            return value.decode("latin-1").partition(" ")[2].strip()
        return None

    def __bool__(self) -> bool:
        return bool(self._values)


def outgoing(request: http.Request, host: str) -> http.Request:
    """The copy that goes upstream: for `host`, everything else as the client sent it, order included."""
    # copied as it is: mitmproxy's constructor checks each field, and each check of one that may be None leaves garbage
    copied = copy.copy(request)
    data = copied.data = copy.copy(request.data)
    fields = data.headers.fields
    if host != data.host:
        fields = tuple((name, host.encode() if name.lower() == b"host" else value) for name, value in fields)
        data.authority = host.encode() if data.authority else b""
        data.host = host
    if request.is_http2 and data.content and not any(name.lower() == b"content-length" for name, _ in fields):
        fields = (*fields, (b"content-length", b"%d" % len(data.content)))  # mitmproxy would send it without an end
    data.headers = http.Headers(fields)
    return copied


def _masked(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if (plain := name.strip().lower()) not in HIDDEN:
        return name, value
    return name, b"Bearer [client]" if plain == b"authorization" else b"[client]"
