"""The table of clients, and the environment that follows from it."""

from pathlib import Path

import pytest
from hypothesis import given, strategies

from copilot_balancer.cli.clients.client import Trust, Way
from copilot_balancer.cli.clients.environment import BYPASS_VARIABLES, bypasses, environment, kept_direct, other_proxy
from copilot_balancer.cli.clients.registry import PROXIED, client_named
from copilot_balancer.copilot.hosts import copilot_hosts
from copilot_balancer.copilot.protocol import PLACEHOLDER

HOSTS = copilot_hosts({"acme.ghe.com"})
WAY = Way(8080, Path("/ca/more.pem"), Path("/ca/all.pem"))


def test_environment_of_a_known_client():
    """A client that we know gets the proxy and the one variable of its own that makes it trust the CA."""
    found = environment(client_named("opencode"), WAY, {}, hosts=HOSTS)
    assert found == {
        "HTTPS_PROXY": "http://127.0.0.1:8080",
        "https_proxy": "http://127.0.0.1:8080",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
        "NODE_EXTRA_CA_CERTS": "/ca/more.pem",
    }


def test_environment_of_an_unknown_client():
    """A program that we do not know gets what any of them reads, but no login."""
    found = environment(None, WAY, {}, hosts=HOSTS, placeholder=True)
    for client in PROXIED:
        for name, trust in client.trust.items():
            assert found[name] == str(WAY.more if trust is Trust.MORE else WAY.all)
        assert not set(client.login) & set(found)
    assert found["NODE_USE_ENV_PROXY"] == "1"


def test_a_variable_that_is_set_already_is_ours_too():
    """What the user's environment puts in the place of the system's CAs would hide ours, so ours is in it as well."""
    found = environment(client_named("copilot-cli"), WAY, {"CURL_CA_BUNDLE": "/etc/ca.pem"}, hosts=HOSTS)
    assert found["CURL_CA_BUNDLE"] == "/ca/all.pem"
    assert "SSL_CERT_FILE" not in found


def test_without_the_system_s_bundle():
    """Where the system's CAs are in no file, nothing is put in their place."""
    way = Way(8080, WAY.more, None)
    assert "SSL_CERT_FILE" not in environment(client_named("python"), way, {}, hosts=HOSTS)
    assert environment(None, way, {}, hosts=HOSTS)["NODE_EXTRA_CA_CERTS"] == "/ca/more.pem"


@pytest.mark.parametrize("client", PROXIED, ids=lambda client: client.name)
def test_the_placeholder_is_the_only_login(client):
    """A login that is made here is the placeholder, and only where it was asked for."""
    before = set(environment(client, WAY, {}, hosts=HOSTS))
    found = environment(client, WAY, {}, hosts=HOSTS, placeholder=True)
    added = {name: value for name, value in found.items() if name not in before}
    assert added == dict(client.login)
    for value in added.values():
        assert PLACEHOLDER in value or value == "https://api.githubcopilot.com"


def test_a_proxy_user():
    """A fence or an account stands in the proxy's URL, as its user; with a password, or some clients would drop it."""
    assert Way(8081, WAY.more, None, "work").url == "http://work:x@127.0.0.1:8081"


@pytest.mark.parametrize(
    ("entry", "is_trap"),
    [
        ("*", True),
        ("githubcopilot.com", True),
        (".githubcopilot.com", True),
        ("*.githubcopilot.com", True),
        ("api.githubcopilot.com", True),
        ("API.GitHubCopilot.com.", True),
        ("api.githubcopilot.com:443", True),
        ("com", True),
        ("copilot-api.acme.ghe.com", True),
        (".acme.ghe.com", True),
        ("telemetry.githubcopilot.com", False),
        ("pilot.com", False),
        ("github.com", False),
        ("localhost", False),
        ("10.0.0.0/8", False),
        ("other.ghe.com", False),
        ("::1", False),
        (".", False),
    ],
)
def test_traps(entry, is_trap):
    """An entry of NO_PROXY that any program could read as a Copilot host is a trap, and goes; every other one stays."""
    environ = {"NO_PROXY": f"localhost, {entry} 192.168.0.1"}
    assert bypasses(environ, HOSTS) == ([entry] if is_trap else [])
    kept = kept_direct(environ, HOSTS).split(",")
    assert (entry in kept) is (not is_trap)
    assert kept[:3] == ["localhost", "127.0.0.1", "::1"]
    assert "192.168.0.1" in kept


def test_both_spellings_count():
    """NO_PROXY and no_proxy are both read, and their entries stand in both."""
    environ = {"NO_PROXY": "a.test", "no_proxy": "b.test,a.test"}
    assert kept_direct(environ, HOSTS) == "localhost,127.0.0.1,::1,a.test,b.test"


@given(strategies.text(strategies.sampled_from("*.,:; abc123githubcopilot\t"), max_size=40))
def test_no_trap_is_left(text):
    """Whatever stood in NO_PROXY, nothing that is left lets a Copilot host pass the proxy by; a second time changes nothing."""
    kept = kept_direct({"NO_PROXY": text}, HOSTS)
    assert bypasses({"NO_PROXY": kept}, HOSTS) == []
    assert kept_direct(dict.fromkeys(BYPASS_VARIABLES, kept), HOSTS) == kept


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("", None),
        ("http://127.0.0.1:8080", None),
        ("http://work@127.0.0.1:8080/", None),
        ("http://localhost:9000", None),
        ("http://corp:3128", "http://corp:3128"),
        ("http://me:secret@corp:3128", "http://...@corp:3128"),
        ("corp:3128", "corp:3128"),
    ],
)
def test_other_proxy(value, other):
    """A proxy beyond this machine is told without its password."""
    assert other_proxy({"https_proxy": value}) == other
