"""The list of clients is sound, and a client is one file and one line of it."""

import pytest

from copilot_balancer.cli.clients.registry import CLIENTS, PROXIED, SOURCES, client_named, client_of


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("opencode", "opencode"),
        ("/usr/local/bin/copilot", "copilot-cli"),
        (r"C:\Users\x\npm\copilot.CMD", "copilot-cli"),
        ("curl.exe", "curl"),
        ("python3.13", "python"),
        ("python3", "python"),
        ("nvim", "neovim"),
        ("python4.2", None),
        ("sh", None),
        ("opencode-desktop", None),
    ],
)
def test_client_of(program, name):
    """A client is known by the name of its executable, wherever that stands and whatever system runs it."""
    client = client_of(program)
    assert (client and client.name) == name


def test_the_list_is_sound():
    """Each row has a name of its own, no program stands twice, and a row that is run says how it is known."""
    programs = [program for client in CLIENTS for program in client.programs]
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)
    assert len(set(programs)) == len(programs)
    for client in CLIENTS:
        assert client_named(client.name) is client
        assert client.trust or client.find_logins
        assert bool(client.find_logins) == bool(client.logins_at)
    for client in PROXIED:
        assert client.known.startswith(("measured: ", "documented: "))


def test_sources():
    """Each source of logins is found by the name that its program has."""
    assert set(SOURCES) == {"opencode", "copilot-cli", "gh", "vim", "env"}
