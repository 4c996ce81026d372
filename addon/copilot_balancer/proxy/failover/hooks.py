"""Hooks between the failover stream and the addon: which credential a request gets, and whether it is sent again.

``stream`` triggers them, ``exchange`` answers them. A third hook only waits for addons that were called directly.

Laws of this file:

1. It knows HTTP, not Copilot.
2. The hooks live in an importable module: a script is run again when it is saved, and a second class of one hook's name
   would be refused.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.proxy import commands

from copilot_balancer.proxy.failover.credentials import HiddenCredentials


class Watch(Protocol):
    """Reads one upstream response and says what it amounts to. The addon implements it; the stream feeds it.

    A response that is streamed is fed chunk by chunk, before any other addon's ``flow.response.stream`` edits it; one
    that is held until its end is handed over once, by `completed`.
    """

    @property
    def watched(self) -> bool:
        """The beginning of the streamed response is held back until it has `opened` or is `refused`."""
        ...

    @property
    def opened(self) -> bool:
        """Something has come that the client should see; until then the response is held back."""
        ...

    @property
    def refused(self) -> bool:
        """It is an error in spite of its status: asked *again?*, with what came as the body of ``flow.response``."""
        ...

    @property
    def whole(self) -> bool:
        """It may end here; an end before that is an abort, towards the client as well."""
        ...

    @property
    def over(self) -> bool:
        """Nothing can follow. If the upstream stays silent or its connection breaks, the response is ended well."""
        ...

    def feed(self, data: bytes) -> None:
        """Read the next chunk, as the upstream sent it."""
        ...

    def completed(self, response: http.Response) -> None:
        """The response was held, and all of it stands in `response`. Called before any other addon may read it."""
        ...

    def released(self) -> None:
        """Called once, when the response begins to go to the client."""
        ...


@dataclass
class Send:
    """What the layer asks before a request goes upstream. Answer by setting fields, or ``flow.response``."""

    flow: http.HTTPFlow
    hidden: HiddenCredentials
    """What the client brought, for ``authorize`` to put back where it belongs."""
    host: str | None = None
    """Set: the host that the outgoing copy is sent to (TLS, the flow's own port)."""
    authorize: Callable[[http.Request, Server], http.Response | None] | None = field(default=None, repr=False)
    """Set: called once the connection stands, with the copy. It dresses the copy, or returns what to answer instead."""
    first_byte_timeout: float = 0.0
    """Set: seconds that the upstream may take until the head of its answer; 0: for ever."""
    first_event_timeout: float = 0.0
    """Set: seconds until the first event of a streamed answer; 0: its head is enough."""
    idle_timeout: float = 0.0
    """Set: seconds that an answer may pause once it has begun; 0: for ever."""
    watch: Watch | None = None
    """Set, until the ``responseheaders`` hook is over: what reads the response to this, unless it is a refusal."""
    ended_by: Literal["", "client", "upstream", "addon", "timeout"] = ""
    """Set by the layer: who ended it with an error; another addon by ``flow.kill()``, mitmproxy by its ``tcp_timeout``.
    A client's connection may go on then (HTTP/2)."""
    hang_up: str = ""
    """Set, while a WebSocket is open: why it is closed now, so that the client comes back."""


@dataclass
class Refusal:
    """What the layer asks when the answer is no success and the client has seen nothing of it."""

    flow: http.HTTPFlow
    error: str | None
    """None: ``flow.response`` is complete. Else why there is no response, in mitmproxy's words."""
    sent: bool
    """Whether the request had been sent on."""
    local: bool = False
    """Whether this machine (no file descriptor, no memory, no port) or its parent proxy failed, and no upstream."""
    again: bool = False
    """Set: ask *with what?* once more. Otherwise ``flow.response`` goes down; set one when there is none."""


@dataclass
class Wait:
    """Addons that were told of something on the spot, and take their time."""

    rest: Awaitable[None] = field(repr=False)
    """Over when all have answered."""


@dataclass
class FailoverChooseHook(commands.StartHook):
    """A request is complete and about to be sent; the addon chooses its credential. See ``Send``."""

    data: Send


@dataclass
class FailoverJudgeHook(commands.StartHook):
    """The response is no success and no byte of it was sent; the addon decides on a retry. See ``Refusal``."""

    data: Refusal


@dataclass
class FailoverWaitHook(commands.StartHook):
    """A hook was told on the spot, and something in it has to wait."""

    data: Wait
