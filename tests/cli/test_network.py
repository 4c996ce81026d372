"""The way that the commands' questions to GitHub take."""

import pytest

from copilot_balancer.cli.network import commands_way
from copilot_balancer.store.store import paths


@pytest.mark.parametrize(
    ("settings", "environ", "parent"),
    [
        ("", {}, None),
        ("", {"HTTPS_PROXY": "http://a:3128"}, "http://a:3128"),
        ("", {"HTTPS_PROXY": "http://127.0.0.1:3128"}, "http://127.0.0.1:3128"),
        ("", {"HTTPS_PROXY": "http://127.0.0.1:8080"}, None),
        ('upstream_proxy = "http://s:1"', {"HTTPS_PROXY": "http://a:3128"}, "http://s:1"),
        ('upstream_proxy = "none"', {"HTTPS_PROXY": "http://a:3128"}, None),
        ("upstream_proxy = 3", {"HTTPS_PROXY": "http://a:3128"}, "http://a:3128"),
    ],
)
def test_which_way(settings, environ, parent, tmp_path, monkeypatch):
    """config.toml comes before the environment, and our own proxy is never asked to lead to GitHub."""
    monkeypatch.setenv("COPILOT_BALANCER_HOME", str(tmp_path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    folder = paths({"COPILOT_BALANCER_HOME": str(tmp_path)}).config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(settings)
    found = commands_way().parent_for("api.github.com", 443)
    assert (found.url if found else None) == parent
