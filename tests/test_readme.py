"""README is true to the code: its tables are made from it. `UPDATE_README=1 scripts/test tests/test_readme.py` writes them."""

import os
import re
import shlex
import subprocess

import click
import pytest

from copilot_balancer.cli.main import cli
from copilot_balancer.config import options
from support.proxies import ROOT

README = ROOT / "README.md"


def options_table() -> str:
    rows = [(f"`copilot_{one.name}`", one) for one in options()]
    rows += [(f"`{one.name}` (only in config.toml)", one) for one in options(file_only=True)]
    lines = [f"| {name} | {one.type} | {one.default} | {one.help} |" for name, one in rows]
    return "\n".join(["| option | value | default | meaning |", "|---|---|---|---|", *lines])


def commands_table() -> str:
    rows: list[str] = []

    def walk(command: click.Command, name: str) -> None:
        text = (command.help or "").strip().split("\n\n")[0].replace("\n", " ")
        rows.append(f"| `{name}` | {re.sub(' +', ' ', text)} |")
        if isinstance(command, click.Group):
            for child in sorted(command.commands):
                walk(command.commands[child], f"{name} {child}")

    for name in sorted(cli.commands):
        walk(cli.commands[name], name)
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


@pytest.mark.parametrize(("block", "made"), [("options", options_table), ("commands", commands_table)])
def test_tables(block, made):
    """The tables of options and commands are those of the code."""
    text = README.read_text()
    pattern = rf"(<!-- {block}: begin[^\n]*-->\n)(.*?)(<!-- {block}: end -->)"
    found = re.search(pattern, text, re.DOTALL)
    assert found
    wanted = f"{made()}\n"
    if os.environ.get("UPDATE_README"):
        README.write_text(text[: found.start(2)] + wanted + text[found.end(2) :])
    else:
        assert found[2] == wanted


def test_links():
    """What README links to in the repository is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_commands_in_prose():
    """Every `copilot-balancer ...` that README names is a command."""
    for words in re.findall(r"copilot-balancer ((?:[a-z-]+ ?)+)", README.read_text()):
        group: click.Command = cli
        for word in words.split():
            if not isinstance(group, click.Group) or word not in group.commands:
                break
            group = group.commands[word]
        assert group is not cli or words.split()[0] in ("", "and"), words


@pytest.mark.parametrize("script", ["setup", "demo", "test", "check"])
def test_scripts_are_sound(script):
    """The scripts are executable and their shell reads them."""
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", shlex.quote(str(path))], check=True)
