"""The world of the layer's simulation: mitmproxy's server, the addon, the upstreams, and time.

The law of this file: what happens when is chance, of one seed; whether it was right is judged elsewhere.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator

from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events

from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.failover.layer import FailoverLayer
from support.layer_clients import Person1, Person2
from support.layer_plans import FIRST_BYTE, HEAD_KINDS, IDLE, KINDS, Plan, upgraded
from support.layer_story import CHOICES, HEADS, JUDGEMENTS, Turn, Wanted, Watch
from support.playbook import PlainTunnel, Playbook, make_context

EVENTS = 20_000
"""More events than any seed has: beyond, something goes round in circles."""


class FailingTunnel(PlainTunnel):
    """TLS to an upstream, which may fail after the connection stands."""

    def receive_handshake_data(self, data):
        if "tls" in self.conn.address[0]:
            yield from ()
            return False, "TLS: the certificate is another's"
        return (yield from super().receive_handshake_data(data))


class OnTheSpot:
    """Answers at once, mostly. The chance is its own: a seed keeps its story whatever changes here."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self.seed = seed

    def choose(self, send: Send) -> bool:
        """With what?"""
        at_once = self._rng.random() < 0.8
        if at_once:
            self._world.failover_choose(send)
        return at_once

    def tell(self, hook: commands.StartHook) -> Callable[[], None] | None:
        """Seldom does an addon wait for something."""
        if self._rng.random() < 0.8:
            self._world.tell_addons(hook)
            return None
        return lambda: self._world.tell_addons(hook)


class World(Playbook):
    """mitmproxy's server, the upstreams, the addon and the client of one seed."""

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.rng = random.Random(seed)
        self.tell = tell
        self.now = 1000.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.violations: list[str] = []
        self.upstreams: dict[Server, Upstream] = {}
        self.opening: dict[Server, commands.OpenConnection] = {}
        self.of_flow: dict[str, Wanted] = {}
        self.client_gone = False
        self.left_early = False
        self.happened = 0
        self.leaves_at = self.rng.randrange(1, 150) if self.rng.random() < 0.2 else None
        """After how many events the client leaves."""
        context = make_context()
        self.http2 = self.rng.random() < 0.25
        if self.http2:
            context.client.alpn = b"h2"
        self.wanted = [self._write(number) for number in range(self.rng.choice((1, 1, 2, 3, 4)))]
        self.person: Person1 | Person2 = Person2(self) if self.http2 else Person1(self)
        self.upstreams[context.server] = Upstream(self, context.server)
        self.spot = OnTheSpot(self, seed)
        super().__init__(FailoverLayer(context, lambda: self.spot if self.spot.seed % 4 else None))
        names = ("requestheaders", "failover_choose", "failover_judge", "responseheaders", "response", "error")
        self.hooks = {name: getattr(self, name) for name in names}
        self.hooks["failover_wait"] = lambda wait: wait.rest()

    # --- the script

    def _write(self, number: int) -> Wanted:
        rng = self.rng
        websocket = not self.http2 and rng.random() < 0.08
        wanted = Wanted(
            number,
            b"",
            b"",
            [],
            streams=rng.random() < 0.8,
            timed=rng.random() < 0.8,
            watched=rng.random() < 0.6,
            websocket=websocket,
        )
        wanted.method = b"GET" if websocket else rng.choice((b"POST",) * 14 + (b"HEAD",))
        for attempt in range(rng.choice((1, 2, 2, 3, 3, 4))):
            tag = b"r%da%d" % (number, attempt)
            plan = rng.choice(KINDS if wanted.method != b"HEAD" else HEAD_KINDS)(rng, tag)
            if websocket and plan.kind in ("served", "document"):
                plan = upgraded(rng, tag)
            wanted.turns.append(
                Turn(
                    tag=tag,
                    choice=rng.choice(CHOICES),
                    plan=plan,
                    judgement=rng.choice(JUDGEMENTS),
                    head=rng.choice(HEADS),
                    host=self._host(plan, tag),
                )
            )
        if wanted.turns[-1].judgement == "again":
            wanted.turns[-1].judgement = "no"
        if not websocket and wanted.method == b"POST":
            wanted.body = b'{"n":%d,"pad":"%b"}' % (number, b"y" * rng.choice((0, 10, 500)))
        wanted.head = self._head(wanted)
        return wanted

    def _host(self, plan: Plan, tag: bytes) -> str:
        """Where an attempt goes; one that cannot connect goes where nothing is connected yet."""
        if plan.connect is not None:
            return f"{'tls' if 'TLS' in plan.connect else 'down'}-{tag.decode()}.test"
        return self.rng.choice(("api.githubcopilot.com",) * 3 + ("api.business.githubcopilot.com",))

    def _head(self, wanted: Wanted) -> bytes:
        rng, lines = self.rng, [b"Host: api.githubcopilot.com", b"X-Number: %d" % wanted.number]
        if wanted.websocket:
            lines += [b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Version: 13"]
            lines += [b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="]
        if rng.random() < 0.5:
            lines.append(b"Authorization: Bearer clients-own")
        if wanted.body and rng.random() < 0.3:
            lines.append(b"Transfer-Encoding: chunked")
        elif wanted.body or rng.random() < 0.5:
            lines.append(b"Content-Length: %d" % len(wanted.body))
        if wanted.body and rng.random() < 0.1:
            lines.append(b"Expect: 100-continue")
        return wanted.method + b" /responses HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"

    # --- time

    def later(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.order), action))

    def moment(self) -> float:
        """A short delay, often none."""
        return self.rng.choice((0.0, 0.0, 0.001, 0.1, self.rng.uniform(0, 2)))

    def chunks(self, data: bytes) -> Iterator[bytes]:
        """The data as a network may cut it."""
        rng = self.rng
        how = rng.random()
        if how < 0.4 or len(data) < 2:
            yield data
        elif how < 0.5 and len(data) < 600:
            yield from (data[at : at + 1] for at in range(len(data)))
        else:
            cuts = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 5)))
            for start, end in itertools.pairwise([0, *cuts, len(data)]):
                if start < end:
                    yield data[start:end]

    def play(self) -> None:
        """Let everything happen."""
        self.person.begin()
        while self.queue:
            self.happened += 1
            if self.happened > EVENTS:
                raise AssertionError("it goes round in circles")
            if self.happened == self.leaves_at:
                self.client_goes("its own will")
            at, _, action = heapq.heappop(self.queue)
            self.now = max(self.now, at)
            action()
            if not self.queue and not self.client_gone:
                self.client_goes("it has what it wanted" if self.person.done() else "its patience is at its end")
        self._check_the_end()

    def say(self, text: str) -> None:
        if self.tell:
            self.tell(f"{self.now - 1000:9.3f}  {text}")

    def blame(self, text: str) -> None:
        self.say(f"VIOLATION: {text}")
        self.violations.append(text)

    # --- mitmproxy's server

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.StartHook():
                self.later(self.moment(), lambda: self._run_hook(command))
            case commands.OpenConnection():
                self.opening[command.connection] = command
                slow = 60.0 if command.connection.address[0].startswith("down") and self.rng.random() < 0.5 else 0.0
                self.later(self.moment() + slow, lambda: self._opened(command))
            case commands.SendData():
                self._send(command)
            case commands.CloseTcpConnection(half_close=True):
                command.connection.state &= ~ConnectionState.CAN_WRITE
            case commands.CloseConnection():
                self.close(command.connection)
            case commands.Log():
                self.say(f"log: {command.message[:150]}")
            case commands.RequestWakeup():
                self.later(command.delay, lambda: self.client_over or self.feed(events.Wakeup(command)))
            case _:
                raise AssertionError(f"mitmproxy's server does not know {command}")

    @property
    def client_over(self) -> bool:
        return self.context.client.state is ConnectionState.CLOSED

    def tell_addons(self, hook: commands.StartHook) -> None:
        if hook.name in self.hooks:
            self.hooks[hook.name](*hook.args())

    def _run_hook(self, hook: commands.StartHook) -> None:
        self.tell_addons(hook)
        if hook.blocking:
            self.later(self.moment(), lambda: self.feed(events.HookCompleted(hook)))

    def _opened(self, command: commands.OpenConnection) -> None:
        server = command.connection
        if self.opening.pop(server, None) is None:
            return  # cancelled meanwhile
        if server.address[0].startswith("down"):
            server.error = "refused"
        else:
            server.state = ConnectionState.OPEN
            self.upstreams[server] = Upstream(self, server)
        self.say(f"connection to {server.address[0]}: {server.error or 'stands'}")
        self.feed(events.OpenConnectionCompleted(command, server.error))

    def _send(self, command: commands.SendData) -> None:
        if not command.connection.state & ConnectionState.CAN_WRITE:
            return  # mitmproxy drops it
        if isinstance(command.connection, Client):
            if not self.client_gone:
                self.person.receive(command.data)
        else:
            self.upstreams[command.connection].receive(command.data)

    def close(self, connection) -> None:
        """What mitmproxy's server does to a connection; it tells the end of what it was reading."""
        if (command := self.opening.pop(connection, None)) is not None:
            connection.error = "connection cancelled"
            self.later(0.0, lambda: self.feed(events.OpenConnectionCompleted(command, connection.error)))
            return
        if connection.state is ConnectionState.CLOSED:
            return
        was_read = connection.state & ConnectionState.CAN_READ
        connection.state = ConnectionState.CLOSED
        self.say(f"we close {self._name(connection)}")
        if isinstance(connection, Client):
            self.person.closed()
            self.later(0.0, self._client_is_over)
        if was_read:
            self.later(0.0, lambda: self.feed(events.ConnectionClosed(connection)))

    def _client_is_over(self) -> None:
        """The client's connection has ended on both sides: mitmproxy ends all the others."""
        for server in [*self.opening, *self.upstreams]:
            self.close(server)

    def peer_closes(self, server: Server) -> None:
        """An upstream ends its side."""
        if server.state & ConnectionState.CAN_READ:
            server.state &= ~ConnectionState.CAN_READ
            self.say(f"{self._name(server)} closes")
            self.feed(events.ConnectionClosed(server))

    def client_goes(self, why: str) -> None:
        """The client ends its side."""
        if self.client_gone:
            return
        self.client_gone = True
        self.left_early = not why.startswith("it has")
        self.say(f"the client leaves: {why}")
        if why.startswith("its patience"):
            self.person.gives_up()
        client = self.context.client
        if client.state & ConnectionState.CAN_READ:
            client.state &= ~ConnectionState.CAN_READ
            self.feed(events.ConnectionClosed(client))

    def _name(self, connection) -> str:
        if isinstance(connection, Client):
            return "the client's connection"
        return f"upstream {list(self.upstreams).index(connection)} ({connection.address[0]})"

    # --- the addon

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.of_flow[flow.id] = self.wanted[int(flow.request.headers["x-number"])]
        if self.rng.random() < 0.2:
            flow.request.stream = True  # another addon's idea
        if "clients-own" in str(flow.get_state()):
            self.blame("the client's credential stands in the flow")

    def failover_choose(self, send: Send) -> None:
        wanted = self.of_flow[send.flow.id]
        if wanted.asked >= len(wanted.turns):
            self.blame(f"request {wanted.number}: asked with what? after it was told no")
            return
        turn = wanted.turns[wanted.asked]
        wanted.asked += 1
        wanted.send = send
        self.say(f"request {wanted.number}: attempt {turn.tag.decode()} ({turn.plan.kind}): {turn.choice}")
        match turn.choice:
            case "answers":
                send.flow.response = http.Response.make(418, b"local " + turn.tag)
                return
            case "says nothing":
                return
            case "kills":
                send.flow.kill()
        send.host = turn.host
        if wanted.timed:
            send.first_byte_timeout, send.idle_timeout = FIRST_BYTE, IDLE

        def authorize(request: http.Request, server: Server) -> http.Response | None:
            if turn.choice == "guard raises":
                raise RuntimeError("the guard is broken")
            if turn.choice == "guard refuses":
                return http.Response.make(403, b"guard " + turn.tag)
            if server.address != (turn.host, 443) or request.host != turn.host or not server.connected:
                self.blame(f"request {wanted.number}: sent to {server.address} instead of {turn.host}")
            request.headers["authorization"] = f"Bearer {turn.tag.decode()}"
            return None

        send.authorize = authorize

    def failover_judge(self, refusal: Refusal) -> None:
        wanted = self.of_flow[refusal.flow.id]
        turn = wanted.turns[wanted.asked - 1]
        response = refusal.flow.response
        self.say(
            f"request {wanted.number}: judged {response.status_code if response else refusal.error}: {turn.judgement}"
        )
        if wanted.status is not None:
            self.blame(f"request {wanted.number}: judged after the client has seen a byte")
        if (response is None) is (refusal.error is None):
            self.blame(f"request {wanted.number}: judged with neither or both of answer and error")
        if response is not None and turn.plan.endless and turn.plan.body.startswith(response.raw_content):
            turn.plan.body = response.raw_content
        if response is not None and (response.status_code, response.raw_content) != (turn.plan.status, turn.plan.body):
            self.blame(f"request {wanted.number}: judged another attempt's answer")
        if refusal.sent is not turn.sent:
            self.blame(f"request {wanted.number}: told sent={refusal.sent}, which it was not")
        kept = wanted.first = wanted.first or response
        match turn.judgement:
            case "again":
                refusal.again = True
            case "kills":
                refusal.flow.kill()
            case "replaces" if kept is not None:
                refusal.flow.response = wanted.given = kept

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        wanted = self.of_flow[flow.id]
        turn = wanted.turns[wanted.asked - 1]
        response = flow.response
        if response.status_code >= 400 or not turn.sent or response is wanted.given:
            return
        match turn.head:
            case "replaces":
                flow.response = http.Response.make(418, b"instead " + turn.tag)
                return
            case "kills":
                flow.kill()
        if wanted.streams and response.status_code != 101:
            response.stream = True
            if wanted.watched and turn.plan.streams:
                wanted.send.watch = Watch(turn)
            if turn.head == "raises later":

                def broken(data: bytes) -> bytes:
                    if data:
                        raise RuntimeError("the watcher is broken")
                    return data

                response.stream = broken

    def response(self, flow: http.HTTPFlow) -> None:
        self._ended(flow, "response")

    def error(self, flow: http.HTTPFlow) -> None:
        self._ended(flow, "error")

    def _ended(self, flow: http.HTTPFlow, how: str) -> None:
        wanted = self.of_flow[flow.id]
        wanted.ends.append(how)
        self.say(f"request {wanted.number}: hook {how} {flow.error.msg[:80] if flow.error else ''}")

    # --- the end

    def _check_the_end(self) -> None:
        if self.context.client.state is not ConnectionState.CLOSED:
            self.blame("the client has left, and its connection is still open")
        if any(server.state is not ConnectionState.CLOSED for server in self.upstreams):
            self.blame("an upstream connection is left open")
        for wanted in self.wanted:
            if wanted.ends == ["error", "response"] and self.left_early:
                continue  # mitmproxy's own: an answer without a length ends, all the same, when its client has left
            if wanted.ends and len(wanted.ends) != 1 and not wanted.websocket:
                self.blame(f"request {wanted.number}: its end was told {len(wanted.ends)} times: {wanted.ends}")
            if not wanted.ends and wanted.number in self.of_numbers():
                self.blame(f"request {wanted.number}: its end was never told")

    def of_numbers(self) -> set[int]:
        return {wanted.number for wanted in self.of_flow.values()}


class Upstream:
    """One connection's other end: takes requests in, plays each attempt's plan."""

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server
        self.inbox = b""
        self.closing = False

    def receive(self, data: bytes) -> None:
        """Requests, and what else the layer sends."""
        self.inbox += data
        while True:
            head, found, rest = self.inbox.partition(b"\r\n\r\n")
            if not found:
                return
            body, used = self._body(head.lower(), rest)
            if used is None:
                return
            self.inbox = rest[used:]
            self._requested(head, body)

    @staticmethod
    def _body(head: bytes, rest: bytes) -> tuple[bytes, int | None]:
        if b"transfer-encoding: chunked" in head:
            body, at = b"", 0
            while (line := rest.find(b"\r\n", at)) >= 0:
                size = int(rest[at:line], 16)
                if len(rest) < line + 2 + size + 2:
                    break
                body += rest[line + 2 : line + 2 + size]
                at = line + 2 + size + 2
                if size == 0:
                    return body, at
            return b"", None
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return (rest[:length], length) if len(rest) >= length else (b"", None)

    def _requested(self, head: bytes, body: bytes) -> None:
        world = self.world
        tag = head.partition(b"Bearer ")[2].partition(b"\r\n")[0]
        number = int(head.lower().partition(b"x-number: ")[2].partition(b"\r\n")[0])
        wanted = world.wanted[number]
        turn = next((turn for turn in wanted.turns if turn.tag == tag), None)
        if turn is None:
            world.blame(f"request {number}: sent with {tag!r}, which is no attempt of it")
            return
        world.say(f"upstream {list(world.upstreams).index(self.server)} got {tag.decode()}")
        if wanted.status is not None:
            world.blame(f"request {number}: sent after the client has seen a byte")
        if world.client_gone or wanted.state == "left":
            world.blame(f"request {number}: sent after the client has left")
        silent = turn.stale or not any(isinstance(step, bytes) for step in turn.plan.steps)
        redialled = turn.sent and silent and not turn.redialled  # it met a dead connection: once more on a new one
        turn.redialled = turn.redialled or redialled
        if (turn.sent and not redialled) or turn is not wanted.turns[wanted.asked - 1]:
            world.blame(f"request {number}: {tag.decode()} is sent twice, or late")
        if body != wanted.body:
            world.blame(f"request {number}: its body arrived as {body[:50]!r}")
        turn.sent = True
        turn.stale = self.closing
        if not self.closing:
            self._play(turn.plan)

    def _play(self, plan: Plan) -> None:
        world, after = self.world, 0.0
        for step in plan.steps:
            if isinstance(step, float):
                after += step
                continue
            if step == "close":
                # from now on whatever is sent here meets a closed door
                after += world.moment() / 4
                world.later(after, lambda: world.peer_closes(self.server))
                self.closing = self.closing or plan.kind == "closes when idle"
                continue
            chunks = list(world.chunks(step))
            for chunk in chunks:
                # what belongs to nobody comes before the next request can
                if plan.kind != "garbage after the end":
                    after += world.moment() / (3 + len(chunks))
                world.later(after, lambda chunk=chunk: self._deliver(chunk))

    def _deliver(self, chunk: bytes) -> None:
        if chunk and self.server.state & ConnectionState.CAN_READ:
            self.world.feed(events.DataReceived(self.server, chunk))
