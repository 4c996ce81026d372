"""``copilot-balancer config show``: every setting and where it comes from."""

import json

import pytest

from copilot_balancer.config import Settings
from support.command_line import CommandLine

CONFIG = """
strategy = "sticky"
affinity = 2592000
failover = ["limit", "quota"]
retry_ambiguous = false
hosts = ["acme.ghe.com"]
[[routes]]
models = ["gpt*", "o9"]
accounts = ["work", "personal"]
fallback = ["gpt-4.1"]
[[routes]]
models = ["claude*"]
enabled = false
[preseed]
work = ["gpt*", "o9"]
"""


@pytest.fixture
def cli(tmp_path):
    cli = CommandLine(tmp_path)
    cli.env.paths.config.mkdir(parents=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".copilot-balancer.toml").write_text('strategy = "priority"\nmax_attempts = 9\n')
    (cli.env.paths.config / "config.toml").write_text(CONFIG)
    return cli


def test_show(cli):
    """Each setting is a line with its value and its file; what a project may not set is told."""
    result = cli.run("config", "show")

    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line)
    shown = {name: " ".join(rest.split()) for name, rest in rows.items()}
    assert set(Settings.model_fields) <= set(shown)
    assert shown["strategy"] == "priority .copilot-balancer.toml"
    assert shown["failover"] == "limit, quota config.toml"
    assert shown["retry_ambiguous"] == "false config.toml"
    assert shown["hosts"] == "acme.ghe.com config.toml"
    assert shown["affinity"] == "2592000 config.toml"
    assert shown["keep_bodies"].startswith("2 MB in mitmweb")
    assert shown["routes"] == "gpt* o9: work personal, else as gpt-4.1, claude*: (off) config.toml"
    assert shown["preseed"] == "work: gpt* o9 config.toml"
    assert shown["config.toml"] == str(cli.env.paths.config / "config.toml")
    assert "ignored max_attempts" in " ".join(result.stderr.split())


def test_show_in_json(cli):
    """Programs get values as they are, and the whole path of each file."""
    facts = json.loads(cli.run("config", "show", "--json").stdout)

    assert facts["failover"] == {"value": ["limit", "quota"], "source": str(cli.env.paths.config / "config.toml")}
    assert facts["strategy"]["source"] == str(cli.home / "project" / ".copilot-balancer.toml")
    assert facts["wait"] == {"value": 0.0, "source": "default"}


def test_defaults(tmp_path):
    """Without files every setting has its default."""
    shown = CommandLine(tmp_path).run("config", "show").stdout

    lines = shown.partition("\n\n")[0].splitlines()[1:]
    assert len(lines) == len(Settings.model_fields)
    assert all(line.endswith("default") for line in lines)


def test_value_that_is_not_allowed(cli):
    """A value that is not allowed is one sentence with file, key and what is allowed."""
    path = cli.env.paths.config / "config.toml"
    path.write_text("deadline = -1\n")

    assert f"{path}: deadline must be a number of seconds" in cli.refused("config", "show")
