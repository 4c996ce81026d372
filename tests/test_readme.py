"""README is short, and what it tells a newcomer to type exists."""

import os
import re
import shlex
import subprocess

import click
import pytest

from copilot_balancer.cli.main import cli
from support.proxies import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "addon" / "docs").glob("*.md"))]


def test_it_is_short():
    """A newcomer reads it in one go: at most 150 lines."""
    assert len(README.read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_prose(page):
    """Every `copilot-balancer ...` that README or the documentation names is a command."""
    for words in re.findall(r"copilot-balancer ((?:[a-z-]+ ?)+)", page.read_text("utf-8")):
        group: click.Command = cli
        for word in words.split():
            if not isinstance(group, click.Group) or word not in group.commands:
                break
            group = group.commands[word]
        assert group is not cli, words


@pytest.mark.parametrize("script", ["setup", "demo", "test", "check"])
def test_scripts_are_sound(script):
    """The scripts are executable and their shell reads them."""
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", shlex.quote(str(path))], check=True)
