"""certs-howto.md says what the program does."""

import re

import click
import pytest

from copilot_balancer.cli.clients.registry import PROXIED
from copilot_balancer.cli.main import cli
from copilot_balancer.copilot.protocol import PLACEHOLDER
from support.proxies import ROOT

GUIDE = (ROOT / "certs-howto.md").read_text()


def test_its_commands_exist():
    """Each command of ours that the guide names exists, with the options that it gives it."""
    named = re.findall(r"copilot-balancer ([a-z][a-z-]*(?: [a-z][a-z-]*)*) ?((?:--[a-z-]+ ?)*)", GUIDE)
    assert len(named) > 10
    for words, options in named:
        command: click.Command = cli
        for word in words.split():
            if not isinstance(command, click.Group) or word not in command.commands:
                break
            command = command.commands[word]
        assert command is not cli, words
        known = {option for parameter in command.params for option in parameter.opts}
        if command.name not in ("run", "exec"):
            assert set(options.split()) - {"--"} <= known, (words, options)


@pytest.mark.parametrize("client", PROXIED, ids=lambda client: client.name)
def test_it_names_what_exec_sets(client):
    """The variable that makes a client trust the CA is in the guide; whoever refers to the guide is found there."""
    for variable in (*client.trust, *client.more):
        assert f"`{variable}" in GUIDE
    if "certs-howto.md" in client.known:
        (version,) = re.findall(r"(?:curl|Python|Node|copilot-language-server) \d+\.[\d.]*\d", client.known)
        assert version in GUIDE


def test_its_placeholder():
    """The command that checks the way sends the placeholder, and no other token stands in the guide."""
    assert set(re.findall(r"gh[a-z]_\w+", GUIDE)) == {PLACEHOLDER}


def test_what_was_tried_is_marked():
    """Each section about a client or a system says what was tried."""
    for section in re.split(r"^##+ ", GUIDE, flags=re.MULTILINE)[1:]:
        if section.startswith(
            ("opencode", "curl", "Python", "Neovim", "VS Code", "JetBrains", "Linux", "macOS", "Windows")
        ):
            assert re.search(r"run\b|measured", section, re.IGNORECASE), section[:40]
