"""The CONNECT tunnel through a parent proxy: mitmproxy's, with a time-out and a password that stands in no flow.

Laws of this file:

1. A parent that does not answer CONNECT within `SECONDS` has failed; mitmproxy waits for ever.
2. The password is put on the bytes of the CONNECT request: no hook, flow or log sees it.
3. It takes the place of mitmproxy's class in this process, so that each tunnel of any layer is one of these.
"""

from collections.abc import Callable
from typing import ClassVar

from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.layers.http import _upstream_proxy

from copilot_balancer.proxy.failover.connect_timeout import SECONDS

Plain = _upstream_proxy.HttpUpstreamProxy

PRIVATE = {
    Plain: (
        "make",
        "on_handshake_error",
        "start_handshake",
        "tunnel_connection",
        "tunnel_state",
        "_handle_event",
        "_handshake_finished",
    )
}
"""What we override or call and mitmproxy does not promise to keep; tested as ``layer.PRIVATE`` is."""


class ParentTunnel(Plain):
    """A tunnel through one parent proxy."""

    authorization: ClassVar[Callable[[tuple[str, int]], bytes | None]] = staticmethod(lambda _address: None)
    """A parent's address -> the value of ``Proxy-Authorization`` for it; the addon sets it."""
    _wakeup: commands.RequestWakeup | None = None

    def start_handshake(self) -> layer.CommandGenerator[None]:
        """As mitmproxy's, with the password, and with an end."""
        for command in super().start_handshake():
            if isinstance(command, commands.SendData) and self.send_connect:
                yield commands.SendData(command.connection, self._authorized(command.data))
            else:
                yield command
        if self.send_connect:
            self._wakeup = commands.RequestWakeup(SECONDS)
            yield self._wakeup

    def _authorized(self, head: bytes) -> bytes:
        address = self.tunnel_connection.address
        value = ParentTunnel.authorization(address[:2]) if address else None
        if value is None or b"\r\nproxy-authorization:" in head.lower():  # mitmproxy's own upstream_auth
            return head
        return head.removesuffix(b"\r\n") + b"Proxy-Authorization: " + value + b"\r\n\r\n"

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but the time-out ends a handshake that is under way."""
        if not isinstance(event, events.Wakeup) or event.command is not self._wakeup:
            yield from super()._handle_event(event)
        elif self.tunnel_state is tunnel.TunnelState.ESTABLISHING:
            error = f"the parent proxy did not answer CONNECT within {SECONDS:g} s"
            yield from self.on_handshake_error(error)
            yield from self._handshake_finished(error)


def take_place() -> None:
    """Let mitmproxy, in this process, build these tunnels."""
    _upstream_proxy.HttpUpstreamProxy = ParentTunnel  # type: ignore[misc]
