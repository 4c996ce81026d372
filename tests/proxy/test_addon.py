"""What mitmproxy calls, called directly: options, connections, which hosts are opened, what is kept."""

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import contextmanager

import pytest
from mitmproxy import hooks as mitmproxy_hooks
from mitmproxy import options as mitmproxy_options
from mitmproxy import tls
from mitmproxy.addons.next_layer import NextLayer as NextLayerAddon
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.view import View
from mitmproxy.connection import Client, Server
from mitmproxy.exceptions import AddonHalt, OptionsError
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, TCPLayer
from mitmproxy.proxy.layers.modes import HttpProxy
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import taddons, tflow

from copilot_balancer.config import options
from copilot_balancer.proxy import addon as addon_module
from copilot_balancer.proxy.addon import CopilotBalancer
from copilot_balancer.proxy.chain import hooks
from copilot_balancer.proxy.failover.layer import FailoverLayer
from copilot_balancer.rules.accounts import Decisions
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.types import SERVED, PoolRequest
from copilot_balancer.store.decision_replay import replay
from copilot_balancer.store.store import Paths, Store
from support.proxies import WORK, an_account, three_accounts

HELLO = bytes.fromhex("160301")


def play(tmp_path, test: Callable[[CopilotBalancer, taddons.context], Awaitable[None]], *others: object) -> None:
    """Run `test` with an addon that mitmproxy has loaded and configured."""

    async def run() -> None:
        addon = CopilotBalancer(Paths(tmp_path / "state", tmp_path / "config"), tmp_path)
        with taddons.context(Proxyserver(), NextLayerAddon(), *others) as tctx:
            tctx.master.addons.add(addon)
            tctx.configure(addon)
            await test(addon, tctx)

    asyncio.run(run())


@pytest.fixture
def stored(tmp_path):
    """Three accounts are stored, one of them on an enterprise."""
    acme = an_account("acme", "gho_acme-canary-0009", 9).model_copy(
        update={"id": "acme.ghe.com:9", "host": "acme.ghe.com", "api_host": "copilot-api.acme.ghe.com"}
    )
    decisions = Decisions(accounts=(*three_accounts(), acme), terms_accepted_at=1.0)
    Store(tmp_path / "state").edit_decisions(lambda _: decisions)


def test_every_setting_is_an_option(tmp_path):
    """Each setting of the table is a mitmproxy option with its help; loopback is the default."""

    async def test(addon, tctx):
        for option in options():
            assert f"copilot_{option.name}" in tctx.options
        assert tctx.options.listen_host == "127.0.0.1"

    play(tmp_path, test)


def test_options_beat_files(tmp_path):
    """What --set says beats config.toml, also when it says the default."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text('strategy = "sticky"\nmax_attempts = 2\n')

    async def test(addon, tctx):
        assert (addon.live.settings.strategy, addon.live.settings.max_attempts) == ("sticky", 2)
        tctx.configure(addon, copilot_strategy="hybrid")
        assert (addon.live.settings.strategy, addon.live.settings.max_attempts) == ("hybrid", 2)

    play(tmp_path, test)


def test_a_bad_value_at_run_time_is_refused(tmp_path):
    """Once the proxy runs a bad value is mitmproxy's own OptionsError, and the old one stays."""

    async def test(addon, tctx):
        addon._watching = asyncio.create_task(asyncio.sleep(0))
        with pytest.raises(OptionsError, match="copilot_strategy must be one of"):
            tctx.configure(addon, copilot_strategy="nonsense")
        assert addon.live.settings.strategy == "hybrid"

    play(tmp_path, test)


@contextmanager
def context(address=("api.githubcopilot.com", 443), mode="regular"):
    client = Client(
        peername=("127.0.0.1", 5), sockname=("127.0.0.1", 8080), timestamp_start=1.0, proxy_mode=ProxyMode.parse(mode)
    )
    opts = mitmproxy_options.Options()
    Proxyserver().load(opts)
    found = Context(client, opts)
    found.layers = [HttpProxy(found)]
    found.server = Server(address=address)
    yield found


@pytest.mark.parametrize(
    ("address", "data", "expected"),
    [
        pytest.param(("api.githubcopilot.com", 443), HELLO, ServerTLSLayer, id="Copilot"),
        pytest.param(("API.GithubCopilot.com.", 443), HELLO, ServerTLSLayer, id="Copilot, spelt otherwise"),
        pytest.param(("copilot-api.acme.ghe.com", 443), HELLO, ServerTLSLayer, id="an enterprise of ours"),
        pytest.param(("copilot-api.other.ghe.com", 443), HELLO, TCPLayer, id="an enterprise of nobody"),
        pytest.param(("api.githubcopilot.com", 443), b"POST / HTTP/1.1\r\n", TCPLayer, id="in clear inside the tunnel"),
        pytest.param(("api.githubcopilot.com", 80), HELLO, TCPLayer, id="another port"),
        pytest.param(("api.githubcopilot.com.evil.test", 443), HELLO, TCPLayer, id="suffix"),
        pytest.param(("proxy.individual.githubcopilot.com", 443), HELLO, TCPLayer, id="inline completions"),
        pytest.param(("api.github.com", 443), HELLO, TCPLayer, id="GitHub"),
        pytest.param(("example.com", 443), HELLO, TCPLayer, id="anybody"),
    ],
)
def test_which_hosts_are_opened(tmp_path, stored, address, data, expected):
    """Only a TLS tunnel to port 443 of a Copilot host is opened; every other one is tunnelled unseen."""

    async def test(addon, _tctx):
        with context(address) as ctx:
            asked = NextLayer(ctx)
            asked.data_client = lambda: data
            hooks().next_layer(asked)
            assert type(asked.layer) is expected
            if expected is TCPLayer:
                assert asked.layer.flow is None  # ignored: no flow is made

    play(tmp_path, test)


def test_the_layer_goes_in_after_tls(tmp_path):
    """Inside the opened tunnel our layer speaks HTTP, but only for the name that was CONNECTed to."""

    async def test(addon, _tctx):
        for sni, expected in (("api.githubcopilot.com", FailoverLayer), ("evil.test", TCPLayer)):
            with context() as ctx:
                ctx.layers.append(ClientTLSLayer(ctx))
                ctx.client.sni = sni
                asked = NextLayer(ctx)
                hooks().next_layer(asked)
                assert type(asked.layer) is expected

    play(tmp_path, test)


def test_others_decisions_stand(tmp_path):
    """What another addon, a reverse proxy or allow_hosts has decided is left alone."""

    async def test(addon, tctx):
        with context(("example.com", 443), mode="reverse:https://example.com") as ctx:
            hooks().next_layer(asked := NextLayer(ctx))
            assert asked.layer is None
        with context(("example.com", 443)) as ctx:
            asked = NextLayer(ctx)
            asked.layer = object()
            hooks().next_layer(asked)
            tctx.configure(addon, allow_hosts=["example"])
            hooks().next_layer(asked := NextLayer(ctx))
            assert asked.layer is None

    play(tmp_path, test)


def test_names_must_agree(tmp_path):
    """A Copilot tunnel with another name in its TLS is left closed; another host's is none of our business."""

    async def test(addon, _tctx):
        for address, sni, ignored in (
            (("api.githubcopilot.com", 443), "evil.test", True),
            (("api.githubcopilot.com", 443), "api.githubcopilot.com", False),
            (("example.com", 443), "evil.test", False),
        ):
            with context(address) as ctx:
                hello = tls.ClientHelloData(ctx, type("Hello", (), {"sni": sni})())
                hooks().tls_clienthello(hello)
                assert hello.ignore_connection is ignored

    play(tmp_path, test)


def test_the_hooks_of_its_parts_are_its_own(tmp_path):
    """Whatever mitmproxy would call on a part of the addon is reached through the addon, under its own name."""

    async def test(addon, _tctx):
        for part in (hooks().door, hooks()._timeouts):
            for name in mitmproxy_hooks.all_hooks:
                if hasattr(part, name):
                    assert hasattr(hooks() if name not in ("load", "running") else addon, name), name
        assert type(logging.getLogger("mitmproxy.master").filters[-1]).__name__ == "OutOfFiles"

    play(tmp_path, test)


def test_a_fault_of_ours_opens_no_tunnel(tmp_path, caplog, monkeypatch):
    """Where a hook of ours fails, mitmproxy would go on without us: the tunnel stays closed, and a name stays nobody's."""

    async def test(addon, _tctx):
        def broken(*_):
            raise RuntimeError("broken with a secret")

        monkeypatch.setattr(hooks(), "_is_copilot", broken)
        monkeypatch.setattr("copilot_balancer.proxy.chain.parse_http_basic_auth", broken)
        with context() as ctx:
            hooks().next_layer(asked := NextLayer(ctx))
            assert type(asked.layer) is TCPLayer
            assert asked.layer.flow is None
            hello = tls.ClientHelloData(ctx, type("Hello", (), {"sni": "api.githubcopilot.com"})())
            hooks().tls_clienthello(hello)
            assert hello.ignore_connection
        flow = tflow.tflow()
        flow.request.headers["proxy-authorization"] = "Basic d29yazp4"
        with pytest.raises(RuntimeError):
            hooks().http_connect(flow)
        assert hooks().proxy_users[flow.client_conn] == "?"
        assert caplog.text.count("copilot: incident") == 2
        assert "secret" not in caplog.text

    play(tmp_path, test)


def test_http1_is_pinned(tmp_path):
    """Towards a Copilot host we offer HTTP/1.1 alone; elsewhere nothing is changed."""

    async def test(addon, _tctx):
        for host, offers in (("api.githubcopilot.com", [b"http/1.1"]), ("example.com", [b"h2"])):
            server = Server(address=(host, 443))
            server.alpn_offers = [b"h2"]
            with context() as ctx:
                await hooks().server_connect(ServerConnectionHookData(server=server, client=ctx.client))
            assert list(server.alpn_offers) == offers

    play(tmp_path, test)


def test_passwords_of_the_proxy_stay_out_of_flows(tmp_path):
    """The proxy password that mitmproxy notes on a flow is taken away, and the CONNECT's header with it."""

    async def test(addon, _tctx):
        flow = tflow.tflow()
        flow.metadata["proxyauth"] = ("user", "secret")
        flow.request.headers["proxy-authorization"] = "Basic c2VjcmV0"
        hooks().requestheaders(flow)
        hooks().http_connect(flow)
        assert "secret" not in str(flow.get_state())
        assert "proxy-authorization" not in flow.request.headers

    play(tmp_path, test)


def test_finished_flows_are_forgotten(tmp_path):
    """Where flows are shown, only the newest finished ones are kept; a live one is never removed."""

    async def test(addon, tctx):
        view = tctx.master.addons.get("view")
        tctx.configure(addon, copilot_keep_flows=20)
        flows = [tflow.tflow(resp=True) for _ in range(100)]
        for number, flow in enumerate(flows):
            flow.live = number == 0
            view.add([flow])
            hooks().trim_view(addon.live)
        left = view.resolve("@all")
        assert flows[0] in left
        assert flows[-1] in left
        assert 20 <= len(left) <= 31

    play(tmp_path, test, View())


def test_explain(tmp_path, stored):
    """mitmproxy's command explains with the proxy's own function."""

    async def test(addon, tctx):
        told = tctx.master.commands.call("copilot.explain", "gpt-4.1")
        assert "gpt-4.1 goes to work" in told
        assert "acme" in told

    play(tmp_path, test)


def test_decisions_are_recorded_when_asked_for(tmp_path, stored):
    """With the option on, what the pool decides is written down, and can be replayed; a token never is."""

    async def test(addon, tctx):
        tctx.configure(addon, copilot_record_decisions="true")
        now = addon.live.now()
        attempt = addon.live.pool.assign(PoolRequest("r1", "gpt-4.1", now), now)
        addon.live.pool.record(attempt, SERVED, now)
        addon.live.pool.finish("r1", now)
        tctx.configure(addon, copilot_record_decisions="false")
        addon.live.pool.finish("unrecorded", now)
        assert type(addon.live.pool) is Pool
        await addon.sync._do("decisions", addon.sync._recording.close)

    play(tmp_path, test)
    lines = (tmp_path / "state" / "decisions.jsonl").read_bytes().splitlines()
    assert [json.loads(line).get("call", "begin") for line in lines] == [
        "begin",
        "assign",
        "record",
        "finish",
        "set_policy",
    ]
    assert WORK.encode() not in b"".join(lines)
    done = replay(lines)
    assert done.difference is None


def test_a_fault_in_the_watch_is_survived(tmp_path, caplog, monkeypatch):
    """A fault while looking at the store is logged with an id and no text, and the watch goes on."""
    monkeypatch.setattr("copilot_balancer.proxy.sync.LOOK_EVERY", 0.0)

    async def test(addon, _tctx):
        looks = 0

        def stamp():
            nonlocal looks
            looks += 1
            raise ValueError(WORK)

        addon.sync.store.stamp = stamp
        watch = asyncio.create_task(addon.sync.watch())
        while looks < 3:
            await asyncio.sleep(0)
        watch.cancel()

    with caplog.at_level(logging.ERROR):
        play(tmp_path, test)
    assert "incident" in caplog.text
    assert WORK not in caplog.text


@pytest.mark.parametrize(
    ("modes", "more", "refused"),
    [
        pytest.param(["regular@0.0.0.0:9001"], {}, "allow_remote", id="all addresses"),
        pytest.param(["regular@127.0.0.1:9001", "socks5@192.0.2.1:9002"], {}, "allow_remote", id="the second mode's"),
        pytest.param(["socks5@[::]:9001"], {}, "allow_remote", id="IPv6"),
        pytest.param(
            ["regular@0.0.0.0:9001"], {"copilot_allow_remote": "true"}, "needs mitmproxy's proxyauth", id="no password"
        ),
        pytest.param(
            ["regular@0.0.0.0:9001"],
            {"copilot_allow_remote": "true", "proxyauth": "any"},
            "proxyauth",
            id="any password",
        ),
        pytest.param(
            ["regular@0.0.0.0:9001"],
            {"copilot_allow_remote": "true", "proxyauth": "me:"},
            "proxyauth",
            id="an empty one",
        ),
        pytest.param(
            ["regular@0.0.0.0:9001"], {"copilot_allow_remote": "true", "proxyauth": "me:secret"}, None, id="a password"
        ),
        pytest.param(["upstream:http://127.0.0.1:9000@0.0.0.0:9001"], {}, "allow_remote", id="behind a parent proxy"),
        pytest.param(["regular@[::ffff:192.0.2.1]:9001"], {}, "allow_remote", id="IPv4 in IPv6"),
        pytest.param(["regular@9001"], {"listen_host": "192.0.2.1"}, "allow_remote", id="the option listen_host"),
        pytest.param(["regular@127.0.0.1:9001", "socks5@[::1]:9002"], {}, None, id="loopback"),
    ],
)
def test_each_modes_own_listener_counts(tmp_path, modes, more, refused):
    """A mode that listens beyond this machine needs the user's leave and a real password, at run time as at the start."""

    async def test(addon, tctx):
        addon._watching = asyncio.create_task(asyncio.sleep(0))
        if refused is None:
            tctx.configure(addon, mode=modes, **more)
        else:
            with pytest.raises(OptionsError, match=refused):
                tctx.configure(addon, mode=modes, **more)
            assert list(tctx.options.mode) == ["regular"]

    play(tmp_path, test, ProxyAuth())


@pytest.mark.parametrize(
    ("mode", "said"),
    [("regular", False), ("socks5", False), ("transparent", False), ("reverse:https://x.test", True), ("dns", True)],
)
def test_a_mode_without_balancing_is_told(tmp_path, caplog, mode, said):
    """A mode in which no request is balanced is named once, at the start."""

    async def test(_addon, tctx):
        tctx.options.update(mode=[f"{mode}@127.0.0.1:9001"])
        with caplog.at_level(logging.WARNING):
            addon_module._say_modes()
        assert ("no request is balanced there" in caplog.text) is said

    play(tmp_path, test)


def hello_for(name: str) -> bytes:
    """The first bytes of a client that asks for `name` by TLS."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(received, sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


@pytest.mark.parametrize("mode", ["socks5", "transparent", "wireguard", "local"])
@pytest.mark.parametrize(
    ("address", "name", "to"),
    [
        pytest.param(("203.0.113.9", 443), "api.githubcopilot.com", "api.githubcopilot.com", id="an address"),
        pytest.param(
            ("2001:db8::9", 443), "API.business.githubcopilot.com", "api.business.githubcopilot.com", id="IPv6"
        ),
        pytest.param(("203.0.113.9", 8443), "api.githubcopilot.com", None, id="another port"),
        pytest.param(("evil.test", 443), "api.githubcopilot.com", None, id="a name of a stranger"),
        pytest.param(("203.0.113.9", 443), "evil.test", None, id="TLS for a stranger"),
    ],
)
def test_an_address_is_dialled_by_the_name(tmp_path, mode, address, name, to):
    """TLS for a Copilot host at an IP address is led to the host's name; the address that the client gave is not used."""

    async def test(_addon, _tctx):
        with context(address, mode=mode) as ctx:
            asked, hello = NextLayer(ctx), hello_for(name)
            if to is not None:
                asked.data_client = lambda: hello[:20]
                with pytest.raises(AddonHalt):  # asked again when the rest has come
                    hooks().next_layer(asked)
                assert asked.layer is None
            asked.data_client = lambda: hello
            given = ctx.server
            hooks().next_layer(asked)
            assert type(asked.layer) is (TCPLayer if to is None else ServerTLSLayer)
            assert ctx.server.address == (address if to is None else (to, 443))
            assert (ctx.server is given) is (to is None)

    play(tmp_path, test)
