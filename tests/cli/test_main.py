"""The command as a whole: help, version, failures, and the program itself at a terminal."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import copilot_balancer
from copilot_balancer.cli import main
from copilot_balancer.cli.main import cli as program
from support.command_line import CommandLine, token

PROGRAM = [sys.executable, "-c", "from copilot_balancer.cli.main import main; main()"]


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


def commands(group: click.Group = program, *names: str):
    """Every command with its words."""
    for name, command in sorted(group.commands.items()):
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


ALL = [pytest.param(words, command, id=" ".join(words)) for words, command in commands()]


@pytest.mark.parametrize(("words", "command"), ALL)
def test_help(cli, words, command):
    """Each command says in one uncut line what it does, and explains each option, within 80 columns."""
    shown = cli.run(*words, "--help").stdout
    above = cli.run(*words[:-1], "-h").stdout
    (line,) = [line for line in above.splitlines() if line.startswith(f"  {words[-1]} ")]

    assert line.endswith(".")
    assert not line.endswith("...")
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize(("words", "command"), ALL)
def test_no_option_takes_a_token(words, command):
    """No command takes a secret where ``ps`` shows it or the environment keeps it."""
    for parameter in command.params:
        assert not {"token", "password", "secret", "key"} & {parameter.name}
        assert parameter.envvar is None


def test_version(cli):
    """--version and -V print the version."""
    for option in ("--version", "-V"):
        assert cli.run(option).stdout == f"copilot-balancer, version {copilot_balancer.__version__}\n"


def test_each_command_has_its_place(cli):
    """--help shows each command once, under a title; the first one is where a new user begins."""
    assert sorted(name for names in main.SECTIONS.values() for name in names) == sorted(program.commands)
    assert next(iter(main.SECTIONS.values()))[0] == "start"


def test_help_command(cli):
    """`help WORDS` shows what `WORDS --help` shows."""
    for words in ((), ("exec",), ("accounts", "add")):
        assert cli.run("help", *words).stdout == cli.run(*words, "--help").stdout


def test_addon_path(cli):
    """The printed script is the one that mitmproxy is to run."""
    path = Path(cli.run("addon-path").stdout.strip())

    assert path == Path(copilot_balancer.__file__).with_name("script.py")
    assert path.is_file()


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("accounts", "nonsense"), ("help", "nonsense"), ("balancing", "maybe")]
)
def test_wrong_call(cli, arguments):
    """A wrong call shows the usage and ends with 2."""
    assert "Usage: copilot-balancer" in cli.run(*arguments, exit_code=2).stderr


def test_known_error(cli):
    """A known error is one printable line on stderr and exit code 1."""
    result = cli.run("accounts", "use", "no\x1b[31m\nbody", exit_code=1)

    assert result.stdout == ""
    assert result.stderr.startswith("error: there is no account")
    assert result.stderr.removesuffix("\n").isprintable()


def test_bug(cli, monkeypatch):
    """Whatever is not a known error is a bug and keeps its traceback."""
    monkeypatch.setattr(main, "tell_limits", lambda _: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        cli.run("balancing", "on")


def test_balancing(cli):
    """Balancing goes off and on; off says who serves alone."""
    assert cli.run("balancing", "off").output == "Balancing is off.\n"
    cli.add("Work", "work")
    assert "only work serves while balancing is off" in cli.run("balancing", "off").stderr
    assert cli.run("balancing").stdout == "Balancing is off.\n"  # alone it only shows
    assert not cli.decisions.balancing
    assert cli.run("balancing", "on").output == "Balancing is on.\n"
    assert cli.decisions.balancing


def test_without_a_world(monkeypatch, tmp_path):
    """Without a world of a test the commands touch the real one."""
    monkeypatch.setenv("COPILOT_BALANCER_HOME", str(tmp_path))

    result = CliRunner().invoke(program, ["accounts", "path"])

    assert str(tmp_path) in result.stdout


def test_main(monkeypatch, capsys):
    """The entry point runs the command line under its own name."""
    monkeypatch.setattr(sys, "argv", ["x", "--version"])

    with pytest.raises(SystemExit, match="0"):
        main.main()
    assert capsys.readouterr().out.startswith("copilot-balancer, version")


@pytest.fixture
def home(tmp_path):
    """An environment of its own for a program of its own."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COPILOT_BALANCER_HOME": str(tmp_path / "ours")}


def test_program_from_a_pipe(home):
    """As a program: stdin in, a table out, no colour, no token."""
    arguments = [*PROGRAM, "accounts", "import", "--from", "stdin", "--label", "work", "--no-verify"]
    first = subprocess.run(arguments, env=home, input=token("Work"), capture_output=True, text=True)
    second = subprocess.run([*PROGRAM, "accounts"], env=home, capture_output=True, text=True)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "* work" in second.stdout
    shown = first.stdout + first.stderr + second.stdout + second.stderr
    assert "Canary" not in shown
    assert "\x1b" not in shown


def test_program_at_a_terminal(home):
    """At a terminal the token is asked for and is not echoed."""
    arguments = [*PROGRAM, "accounts", "import", "--from", "stdin", "--label", "work", "--no-verify"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        arguments, env=home, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as run:
        os.close(theirs)
        shown = b""
        typed = False
        while select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # Linux says EIO when the other end is closed
                break
            if not typed and b"Token (not shown): " in shown:
                os.write(ours, token("Work").encode() + b"\n")
                typed = True
    os.close(ours)

    assert run.returncode == 0
    assert b"Added account work" in shown
    assert b"Canary" not in shown
