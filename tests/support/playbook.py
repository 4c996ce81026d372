"""A small driver for mitmproxy layers without sockets: events go in, commands come out, hooks are answered at once.

mitmproxy's own playbook is not in its wheel. This one plays mitmproxy's server: it opens connections as told by `dial`,
answers blocking hooks through `hooks`, and keeps everything that was sent, closed and logged, in order.
"""

from collections import defaultdict, deque
from collections.abc import Callable

from mitmproxy import connection, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, context, events, layer, tunnel


class PlainTunnel(tunnel.TunnelLayer):
    """In the place of TLS to an upstream: everything passes as it is, and the connection counts as secured."""

    def __init__(self, ctx: context.Context) -> None:
        super().__init__(ctx, tunnel_connection=ctx.server, conn=ctx.server)
        ctx.server.tls = True

    def start_handshake(self):
        self.conn.timestamp_tls_setup = 1.0
        yield from super().start_handshake()


def make_context(host: str = "api.githubcopilot.com") -> context.Context:
    """A client in a CONNECT tunnel to `host`, with TLS done on both sides and the upstream connection open."""
    opts = options.Options()
    Proxyserver().load(opts)
    client = Client(peername=("127.0.0.1", 50000), sockname=("127.0.0.1", 8080), timestamp_start=1.0)
    client.state, client.tls, client.sni, client.alpn = ConnectionState.OPEN, True, host, b"http/1.1"
    ctx = context.Context(client, opts)
    ctx.server = Server(address=(host, 443))
    ctx.server.state, ctx.server.tls, ctx.server.sni = ConnectionState.OPEN, True, host
    ctx.server.timestamp_tls_setup = 1.0
    return ctx


class Playbook:
    """Drives one layer."""

    def __init__(self, top: layer.Layer, hooks: dict[str, Callable[..., None]] | None = None) -> None:
        self.layer = top
        self.context = top.context
        self.hooks = hooks or {}
        self.dial: Callable[[Server], str | None] = lambda _server: None
        self.sent: dict[connection.Connection, bytes] = defaultdict(bytes)
        self.opened: list[Server] = [top.context.server]
        self.closed: list[connection.Connection] = []
        self.logs: list[str] = []
        self.wakeups: list[commands.RequestWakeup] = []
        self.seen_hooks: list[str] = []
        self.paused: dict[str, commands.StartHook] = {}
        """Hooks that `hold` names wait here until `resume`."""
        self.hold: set[str] = set()
        self._events: deque[events.Event] = deque()
        self.feed(events.Start())

    @property
    def to_client(self) -> bytes:
        return self.sent[self.context.client]

    def client_sends(self, data: bytes) -> None:
        self.feed(events.DataReceived(self.context.client, data))

    def client_leaves(self) -> None:
        self.context.client.state = ConnectionState.CLOSED
        self.feed(events.ConnectionClosed(self.context.client))

    def server_sends(self, data: bytes, server: Server | None = None) -> None:
        self.feed(events.DataReceived(server or self.opened[-1], data))

    def server_closes(self, server: Server | None = None) -> None:
        server = server or self.opened[-1]
        server.state &= ~ConnectionState.CAN_READ
        self.feed(events.ConnectionClosed(server))

    def resume(self, name: str) -> None:
        hook = self.paused.pop(name)
        self._answer(hook)
        self._run()

    def wake(self) -> None:
        """The oldest wake-up that was asked for arrives."""
        self.feed(events.Wakeup(self.wakeups.pop(0)))

    def feed(self, event: events.Event) -> None:
        self._events.append(event)
        self._run()

    def _run(self) -> None:
        while self._events:
            for command in self.layer.handle_event(self._events.popleft()):
                self._do(command)

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.StartHook():
                self.seen_hooks.append(command.name)
                if command.name in self.hold:
                    self.paused[command.name] = command
                else:
                    self._answer(command)
            case commands.OpenConnection():
                err = self.dial(command.connection)
                if err:
                    command.connection.error = err
                else:
                    command.connection.state = ConnectionState.OPEN
                    self.opened.append(command.connection)
                self._events.append(events.OpenConnectionCompleted(command, err))
            case commands.SendData():
                self.sent[command.connection] += command.data
            case commands.CloseConnection():
                if command.connection not in self.closed:
                    self.closed.append(command.connection)
                    was_open = command.connection.state is ConnectionState.OPEN
                    command.connection.state = ConnectionState.CLOSED
                    if was_open:  # mitmproxy's server reports the end of what it was reading
                        self._events.append(events.ConnectionClosed(command.connection))
            case commands.Log():
                self.logs.append(command.message)
            case commands.RequestWakeup():
                self.wakeups.append(command)
            case _:
                raise AssertionError(f"the playbook does not know {command}")

    def _answer(self, hook: commands.StartHook) -> None:
        if answer := self.hooks.get(hook.name):
            answer(*hook.args())
        if hook.blocking:
            self._events.append(events.HookCompleted(hook))
