"""The way out of this machine: which parent proxy a host goes through."""

import pytest

from copilot_balancer.errors import InvalidInput
from copilot_balancer.github.parent_proxy import AUTH_VARIABLE, check_ca, parsed, way_out

SECRET = "parent-canary-0007"


@pytest.mark.parametrize(
    ("setting", "environ", "parent", "source"),
    [
        (None, {}, None, ""),
        (None, {"HTTPS_PROXY": "http://a:1"}, "http://a:1", "HTTPS_PROXY"),
        (None, {"https_proxy": "http://b:2", "HTTPS_PROXY": "http://a:1"}, "http://b:2", "HTTPS_PROXY"),
        (None, {"HTTP_PROXY": "http://a:1", "ALL_PROXY": "http://a:1"}, None, ""),
        (None, {"HTTPS_PROXY": "a:1"}, "http://a:1", "HTTPS_PROXY"),
        (None, {"HTTPS_PROXY": "https://a"}, "https://a:443", "HTTPS_PROXY"),
        ("http://s:9", {"HTTPS_PROXY": "http://a:1"}, "http://s:9", "upstream_proxy"),
        ("http://[::2]:9", {}, "http://[::2]:9", "upstream_proxy"),
        ("none", {"HTTPS_PROXY": "http://a:1"}, None, ""),
    ],
)
def test_which_parent(setting, environ, parent, source):
    """The setting comes first, then HTTPS_PROXY; other variables are other programs'."""
    way = way_out(setting, None, environ)
    assert (way.parent.url if way.parent else None, way.source) == (parent, source)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "api.github.com", False),
        ("*", "api.github.com", True),
        ("github.com", "api.github.com", True),
        (".github.com", "api.github.com", True),
        ("*.github.com", "api.github.com", True),
        ("github.com", "notgithub.com", False),
        ("hub.com", "github.com", False),
        ("other.com, API.GitHub.com", "api.github.com", True),
        ("github.com:443", "api.github.com", True),
        ("github.com:8443", "api.github.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("[nonsense", "api.github.com", False),
        ("", "localhost", True),
        ("", "127.0.0.2", True),
        ("", "::1", True),
    ],
)
def test_no_proxy(no_proxy, host, direct):
    """Names with their subdomains, addresses, networks and ports; this machine is always reached directly."""
    way = way_out("http://p:1", None, {"NO_PROXY": no_proxy})
    assert (way.parent_for(host, 443) is None) is direct


def test_our_own_address_is_never_a_parent():
    """HTTPS_PROXY that names us, as a client's environment does, would lead in a circle."""
    way = way_out(None, None, {"HTTPS_PROXY": "http://127.0.0.1:8080"})
    assert way.parent_for("api.github.com", 443) is not None
    assert way.listening_on({("127.0.0.1", 8080)}).parent_for("api.github.com", 443) is None


@pytest.mark.parametrize("url", ["socks5://a:1", "socks5h://a", "ftp://a", "http://", "http://a:99999", "http://a:x"])
def test_what_is_no_parent(url):
    """One sentence; in the environment, which is other programs' too, it is ignored with that sentence."""
    with pytest.raises(InvalidInput):
        parsed(url)
    way = way_out(None, None, {"HTTPS_PROXY": url})
    assert way.parent is None
    assert way.warning.startswith("HTTPS_PROXY is ignored: ")


def test_a_password_is_shown_nowhere():
    """It comes from the environment alone, and no repr or URL tells it."""
    ways = [
        way_out(None, None, {"HTTPS_PROXY": f"http://me:{SECRET}@a:1"}),
        way_out("http://a:1", None, {AUTH_VARIABLE: f"me:{SECRET}"}),
    ]
    for way in ways:
        assert way.parent.auth.get_secret_value() == f"me:{SECRET}"
        assert way.parent.authorization.startswith(b"Basic ")
        assert SECRET not in repr(way) + way.parent.url
    with pytest.raises(InvalidInput, match="holds no password"):
        way_out(f"http://me:{SECRET}@a:1", None, {})


def test_a_ca(tmp_path):
    """A file that cannot be read or holds no certificate is told at once."""
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    good.write_text("-----BEGIN CERTIFICATE-----\n")
    bad.write_text("hello")
    assert check_ca(str(good))
    for path in (bad, tmp_path / "missing", tmp_path):
        with pytest.raises(InvalidInput):
            way_out(None, str(path), {})
