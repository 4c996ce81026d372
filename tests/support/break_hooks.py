"""A mitmproxy script for tests alone: for models named break-*, our own code raises, with a secret in hand.

For the model wait-choose the choice of an account takes for ever.
"""

import asyncio

from copilot_balancer.proxy import chain
from copilot_balancer.proxy.failover.stream import FailoverStream
from copilot_balancer.proxy.request.exchange import Exchange

_choose, _judge, _head, _ended = Exchange.choose, Exchange.judge, Exchange.head, chain.ended
_connect = FailoverStream._send


def _break(exchange: Exchange, where: str) -> None:
    if exchange.body.model == f"break-{where}":
        secret = exchange.upstream.account.token.get_secret_value() if exchange.upstream else "none"
        raise RuntimeError(f"broken {where} with {secret}")


async def choose(self, send):
    await _choose(self, send)
    _break(self, "choose")
    if self.body.model == "wait-choose":
        await asyncio.Event().wait()


async def judge(self, refusal):
    await _judge(self, refusal)
    _break(self, "judge")


def head(self):
    _head(self)
    _break(self, "head")


def ended(exchange):
    record = _ended(exchange)
    _break(exchange, "end")
    return record


def send(self, request, connection):
    if b"break-send" in (request.raw_content or b""):
        raise RuntimeError(f"broken send with {request.headers['authorization']}")
    yield from _connect(self, request, connection)


Exchange.choose, Exchange.judge, Exchange.head, chain.ended = choose, judge, head, ended
FailoverStream._send = send
