"""Hooks that are told on the spot: the same addons hear the same as from mitmproxy, and what waits is waited for."""

import asyncio
import types

import pytest
from hypothesis import given, strategies
from mitmproxy import options
from mitmproxy.addonmanager import AddonManager
from mitmproxy.exceptions import AddonHalt
from mitmproxy.proxy.layers.http import HttpRequestHook
from mitmproxy.test import tflow

from copilot_balancer.proxy.failover.dispatch import begun, tell
from end_to_end.test_failover import tunnel
from support.proxies import until

HOW = ("deaf", "hears", "waits", "returns what waits", "raises", "halts", "waits and raises")


class Addon:
    """An addon of one kind, with others inside it."""

    def __init__(self, name, how, inside, heard):
        self.name, self.heard = name, heard
        if inside:
            self.addons = inside
        for hook in ("request", "update"):
            if how.get(hook, "deaf") != "deaf":
                setattr(self, hook, self._hook(hook, how[hook]))

    def _hook(self, hook, how):
        def hears(_):
            self.heard.append((self.name, hook))
            if how == "raises":
                raise ValueError
            if how == "halts":
                raise AddonHalt

        async def waits(_):
            self.heard.append((self.name, hook, "begins"))
            await asyncio.sleep(0)
            hears(_)
            if how == "waits and raises":
                raise ValueError

        def returns(flow):
            return waits(flow)

        return {"waits": waits, "waits and raises": waits, "returns what waits": returns}.get(how, hears)


def addons_of(tree, heard, name="a"):
    return [
        Addon(f"{name}{number}", how, addons_of(inside, heard, f"{name}{number}."), heard)
        for number, (how, inside) in enumerate(tree)
    ]


HEARING = strategies.fixed_dictionaries(
    {"request": strategies.sampled_from(HOW), "update": strategies.sampled_from(HOW)}
)
TREES = strategies.recursive(
    strategies.just([]), lambda inside: strategies.lists(strategies.tuples(HEARING, inside), max_size=4), max_leaves=12
)


def manager_of(tree):
    heard = []
    manager = AddonManager(types.SimpleNamespace(options=options.Options()))
    manager.chain = addons_of(tree, heard)
    return manager, heard


@given(TREES)
def test_the_same_addons_hear_the_same(tree):
    """In the same order as from mitmproxy itself, whoever waits, raises or halts."""
    manager, heard = manager_of(tree)
    ours, heard_of_us = manager_of(tree)
    hook = HttpRequestHook(tflow.tflow())
    asyncio.run(manager.handle_lifecycle(hook))

    async def told():
        if (rest := begun(tell(ours, hook))) is not None:
            await rest

    asyncio.run(told())
    assert heard_of_us == heard


def test_no_task_is_left_where_nobody_waits():
    """What can be over at once is over at once."""
    manager, heard = manager_of([({"request": "hears"}, []), ({"request": "raises"}, []), ({"update": "hears"}, [])])

    async def told():
        return begun(tell(manager, HttpRequestHook(tflow.tflow())))

    assert asyncio.run(told()) is None
    assert heard == [("a0", "request"), ("a1", "request"), ("a2", "update")]


def test_an_intercepted_flow_is_waited_for():
    """Until somebody resumes it."""
    manager, _ = manager_of([])
    flow = tflow.tflow()
    flow.intercept()

    async def told():
        rest = begun(tell(manager, HttpRequestHook(flow)))
        await asyncio.sleep(0)
        waited = not rest.done()
        flow.resume()
        await asyncio.wait_for(rest, 10)
        return waited

    assert asyncio.run(told())


@pytest.mark.parametrize("wait", [False, True])
def test_what_is_begun_raises_where_it_is_asked(wait):
    """At once, or where the rest of it is awaited."""

    async def raises():
        if wait:
            await asyncio.sleep(0)
        raise KeyError("once")

    async def begins():
        rest = begun(raises())
        assert wait
        await rest

    with pytest.raises(KeyError, match="once"):
        asyncio.run(begins())


SCRIPT = '''
import asyncio
from mitmproxy import ctx
from mitmproxy.script import concurrent

class Others:
    """Addons of a user's own: one in a thread, one that takes its time, one that raises, one that kills, one that intercepts."""

    @concurrent
    def requestheaders(self, flow):
        flow.request.headers["x-threaded"] = "1"

    async def request(self, flow):
        await asyncio.sleep(0.05)
        flow.request.headers["x-waited"] = "1"
        if "x-hold" in flow.request.headers:
            flow.intercept()
            asyncio.get_running_loop().call_later(0.3, flow.resume)
        if "x-kill" in flow.request.headers:
            flow.kill()

    def responseheaders(self, flow):
        raise ValueError("an addon of somebody's")

    async def response(self, flow):
        await asyncio.sleep(0.05)
        ctx.log  # an addon may look around

addons = [Others()]
'''


def test_other_addons_are_heard(start, fake, tmp_path):
    """Threads, waiting, an exception, interception and a kill in a user's own addon work as they do without us."""
    script = tmp_path / "others.py"
    script.write_text(SCRIPT)
    proxy = start("-s", str(script))
    with proxy.client() as client:
        url = "https://api.githubcopilot.com/chat/completions"
        given = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        for headers in ({}, {"x-hold": "1"}, {}):
            assert client.post(url, json=given, headers=headers).status_code == 200
        assert all({(b"x-threaded", b"1"), (b"x-waited", b"1")} <= set(one.headers) for one in fake.asked())
        with pytest.raises(Exception, match="disconnected"):
            client.post(url, json=given, headers={"x-kill": "1"})
        assert client.post(url, json=given).status_code == 200
    assert proxy.log.count("Addon error: an addon of somebody's") == 4
    assert "invoke_addon" not in proxy.log
    until(lambda: len(proxy.lines()) == 4, "four lines")
    assert len(fake.asked()) == 4


def test_requests_in_a_row_are_answered_in_a_row(proxy, fake):
    """A client that sends its next request before it has the answer gets both (HTTP/1.1 pipelining)."""
    body = b'{"model":"gpt-4.1","messages":[]}'
    request = (
        b"POST /chat/completions HTTP/1.1\r\nhost: api.githubcopilot.com\r\nauthorization: Bearer gho_own\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    with tunnel(proxy) as tls:
        tls.settimeout(20)
        tls.sendall(request * 3)
        got = b""
        while got.count(b"HTTP/1.1 200") < 3 or not got.endswith(b"}"):
            data = tls.recv(65536)
            assert data, got
            got += data
    assert len(fake.asked()) == 3
    assert "Traceback" not in proxy.log
