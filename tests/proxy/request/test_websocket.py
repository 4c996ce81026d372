"""A Responses WebSocket through a real mitmdump: what is learnt of its frames, and when it is closed."""

import json

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from copilot_balancer.copilot.bound_state import state_hash
from copilot_balancer.fake.answers import Ok, Refuse, StreamError, limited
from copilot_balancer.fake.bodies import Quota
from end_to_end.test_failover import tunnel
from support.proxies import WORK, three_accounts, until

LIMIT = Refuse(
    429, "user_global_rate_limited:pro", "Sorry, you have exceeded your rate limit.", (("retry-after", "9"),)
)


class Socket:
    """A client of the Responses WebSocket."""

    def __init__(self, tls):
        self.tls = tls
        self.ws = WSConnection(ConnectionType.CLIENT)
        tls.sendall(self.ws.send(Request(host="api.githubcopilot.com", target="/responses")))
        assert isinstance(self.next(), AcceptConnection)
        self._waiting = []

    def next(self):
        while True:
            for event in self.ws.events():
                return event
            data = self.tls.recv(65536)
            self.ws.receive_data(data or None)

    def ask(self, model="gpt-5.4", **body):
        """The frames of one answer; the last one may be the close."""
        self.tls.sendall(self.ws.send(TextMessage(json.dumps({"type": "response.create", "model": model, **body}))))
        frames, text = [], ""
        while True:
            event = self.next()
            if isinstance(event, CloseConnection):
                return [*frames, event]
            text += event.data
            if event.message_finished:
                frames.append(json.loads(text))
                text = ""
                if frames[-1]["type"] in ("response.completed", "error"):
                    return frames


@pytest.fixture
def alone(start, fake):
    """One account, so that a WebSocket is allowed."""
    fake.accounts[WORK].websocket = True
    return start(accounts=three_accounts()[:1])


def test_a_limit_in_a_frame_closes_the_socket(alone, fake):
    """The frame is held back, the close says to come again; over HTTP the client learns how long to wait."""
    with tunnel(alone) as tls:
        socket = Socket(tls)
        assert socket.ask(input="hi")[-1]["type"] == "response.completed"
        fake.accounts[WORK].default = LIMIT
        (closed,) = socket.ask(input="more")
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1013
    got = alone.post("/responses", model="gpt-5.4", input="more")
    assert got.status_code == 429
    assert "retry-after" in got.headers
    assert [seen.method for seen in fake.asked()] == ["GET", "FRAME", "FRAME"]
    until(lambda: "the socket is closed, so that the client comes back" in alone.log, "the warning")


def test_an_error_after_output_is_handed_on(alone, fake):
    """The client has seen a part of the turn: it gets the error as it is, and then the close."""
    with tunnel(alone) as tls:
        socket = Socket(tls)
        fake.accounts[WORK].default = StreamError("user_global_rate_limited", "limit", after=3)
        frames = socket.ask(input="hi")
        assert frames[-1]["type"] == "error"
        assert isinstance(socket.next(), CloseConnection)


def test_a_fault_of_the_request_leaves_the_socket_open(alone, fake):
    """What another account would answer alike is handed on, and the next turn goes on."""
    with tunnel(alone) as tls:
        socket = Socket(tls)
        fake.accounts[WORK].default = Refuse(422, "content_filter", "no")
        assert socket.ask(input="hi")[-1]["error"]["code"] == "content_filter"
        fake.accounts[WORK].default = Ok()
        assert socket.ask(input="hi")[-1]["type"] == "response.completed"


def test_frames_teach(start, fake):
    """What a WebSocket made belongs to its account, for HTTP as well; its quota is read."""
    fake.accounts[WORK].websocket = True
    fake.accounts[WORK].quota = {"premium_interactions": Quota(37.5)}
    proxy = start(
        "--set", "copilot_websocket=allow", "--set", "copilot_strategy=priority", "--set", "copilot_affinity=0"
    )
    with tunnel(proxy) as tls:
        output = Socket(tls).ask(input="hi")[-1]["response"]["output"]
    proxy.stop()
    owners = proxy.store.read_owners()
    assert [owners.of(state_hash("id", item["id"])) for item in output] == ["github.com:1"] * len(output)
    assert proxy.memory().accounts["github.com:1"].quota["premium"].percent_left == 37.5


def test_a_handshake_that_is_refused_fails_over(start, fake):
    """The account is chosen at the handshake; a limited one costs the client nothing."""
    for account in fake.accounts.values():
        account.websocket = True
    fake.accounts[WORK].default = limited(30)
    proxy = start("--set", "copilot_websocket=allow", "--set", "copilot_strategy=priority")
    with tunnel(proxy) as tls:
        assert Socket(tls).ask(input="hi")[-1]["type"] == "response.completed"
    assert [seen.account for seen in fake.asked()] == ["work", "personal", "personal"]
