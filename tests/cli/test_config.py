"""``copilot-balancer config show``: every setting and where it comes from."""

import json
import re

import click
import pytest

from copilot_balancer.config import Settings, load
from copilot_balancer.store.running_proxies import RunningProxy, RunningProxyFile
from copilot_balancer.views.overview import look
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
    assert shown["strategy"] == "priority .copilot-balancer.toml, instead of config.toml: sticky"
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

    path = str(cli.env.paths.config / "config.toml")
    default = {"source": "default", "value": ["limit", "quota", "model", "auth", "transient"]}
    there = {"source": path, "value": ["limit", "quota"]}
    assert facts["failover"] == {**there, "origins": [default, there]}
    assert facts["strategy"]["source"] == str(cli.home / "project" / ".copilot-balancer.toml")
    assert facts["wait"] == {"value": 0.0, "source": "default", "origins": [{"source": "default", "value": 0.0}]}


def test_what_was_decided_counts_most(cli):
    """What was decided by command or in the dashboard is in force, and shown as such, over every file."""
    cli.run("strategy", "quota")
    cli.run("routes", "remove", "1")
    result = cli.run("config", "show")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines() if line}
    assert lines["strategy"] == ("quota decided, instead of .copilot-balancer.toml: priority; config.toml: sticky")
    assert lines["routes"].startswith("claude*: (off) decided, instead of config.toml: gpt* o9")
    assert "copilot-balancer strategy --reset" in result.stdout
    facts = json.loads(cli.run("config", "show", "--json").stdout)
    assert [one["source"].rpartition("/")[2] for one in facts["strategy"]["origins"]] == [
        "default", "config.toml", ".copilot-balancer.toml", "decided",
    ]  # fmt: skip
    policy = load_policy(cli)
    assert (policy.strategy, len(policy.routes)) == (facts["strategy"]["value"], len(facts["routes"]["value"]))


def load_policy(cli):
    """The policy that a proxy in the same folder uses."""
    return look(cli.env.paths, cli.now, cli.env.folder()).policy


def test_a_proxy_with_an_option(cli):
    """A running proxy that was given another strategy by --set is named."""
    file = RunningProxyFile(cli.env.paths.state)
    file.write(RunningProxy(7, 0.0, ("127.0.0.1:8080",), "1", strategy="quota"))
    try:
        told = " ".join(cli.run("config", "show").stderr.split())
    finally:
        file.close()
    assert "the proxy on 127.0.0.1:8080 chooses by quota: it was given --set copilot_strategy" in told


def test_broken_accounts(cli):
    """Settings are shown beside an accounts.json that cannot be read, and that is said."""
    cli.env.paths.state.mkdir(parents=True, mode=0o700)
    cli.env.store.accounts_path.touch(mode=0o600)
    cli.env.store.accounts_path.write_text("{")
    result = cli.run("config", "show")
    assert "affinity" in result.stdout
    assert "what you decided is not shown" in result.stderr


def test_example(cli):
    """The example holds every setting; with the # taken away it is a config.toml that says the defaults."""
    text = cli.run("config", "example").stdout
    path = cli.env.paths.config / "config.toml"
    assignments = [line.removeprefix("# ") for line in text.splitlines() if re.match(r"# [a-z_]+ = ", line)]
    tables = ("routes", "outcomes", "preseed")
    assert {line.partition(" = ")[0] for line in assignments} >= set(Settings.model_fields) - set(tables)
    given = [line for line in assignments if getattr(Settings(), line.partition(" = ")[0], None) is not None]
    path.write_text("\n".join(line for line in given if line.partition(" = ")[0] not in tables))
    assert load(path.parent, None, {}).settings == Settings()

    example = text[text.index("# [[routes]]") :]
    path.write_text(
        "\n".join(line.removeprefix("# ") for line in example.splitlines() if re.match(r"# (\[|[a-z_]+ =)", line))
    )
    settings = load(path.parent, None, {}).settings
    assert settings.routes[0].accounts == ("work", "personal")
    assert all(getattr(settings, name) for name in tables)


def test_edit(cli, monkeypatch):
    """A file that is not there begins as the example, for the user alone; what the editor left is checked."""
    path = cli.env.paths.config / "config.toml"
    path.unlink()
    opened = []
    monkeypatch.setattr(click, "edit", lambda filename, editor: opened.append((filename, editor)))
    cli.env.environ["EDITOR"] = "ed"
    told = cli.run("config", "edit", at_terminal=True).stdout
    assert opened == [(str(path), "ed")]
    assert path.read_text() == cli.run("config", "example").stdout
    assert path.stat().st_mode & 0o777 == 0o600
    assert "after a restart" in told
    path.write_text("deadline = -1\n")
    assert "deadline must be" in cli.refused("config", "edit", at_terminal=True)
    assert path.read_text() == "deadline = -1\n"
    assert str(path) in cli.refused("config", "edit")


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
