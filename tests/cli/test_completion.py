"""``completion``: the script, in the shells themselves."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from copilot_balancer.cli.main import cli
from copilot_balancer.rules.state import AccountState, Memory, ModelFact
from support.machine import machine  # noqa: F401 - a fixture

SHELLS = ("bash", "fish", "zsh")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_the_shell_s(machine, shell):  # noqa: F811 - a fixture
    """A real shell takes the script without complaint, and the comment says where to put it."""
    script = machine.run("completion", shell).stdout
    assert "_COPILOT_BALANCER_COMPLETE" in script
    assert f"completion {shell}" in script.splitlines()[-1]
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    before = "autoload -U compinit && compinit -u\n" if shell == "zsh" else ""
    environ = {"PATH": os.environ["PATH"], "HOME": str(machine.home)}
    ran = subprocess.run([program], input=f"{before}{script}\necho fine\n", env=environ, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("fine\n", "")


@pytest.mark.parametrize(
    ("named", "shell"), [("/usr/bin/fish", "fish"), ("/bin/zsh", "zsh"), ("/bin/sh", "bash"), ("", "bash")]
)
def test_the_user_s_own_shell(machine, named, shell):  # noqa: F811 - a fixture
    """Without a word it is the user's own shell, or bash."""
    machine.environ["SHELL"] = named
    assert machine.run("completion").stdout == machine.run("completion", shell).stdout


def test_it_completes(machine):  # noqa: F811 - a fixture
    """What the script asks our command for is the commands."""
    program = [sys.executable, "-c", "from copilot_balancer.cli.main import main; main()"]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(machine.home),
        "COMP_WORDS": "copilot-balancer do",
        "COMP_CWORD": "1",
    }
    ran = subprocess.run(
        program, env={**environ, "_COPILOT_BALANCER_COMPLETE": "bash_complete"}, capture_output=True, text=True
    )
    assert ran.stdout == "plain,doctor\n", (ran, shlex.join(program))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("accounts", "use", ""), ["personal", "work"]),
        (("accounts", "use", "p"), ["personal"]),
        (("accounts", "fence", "work", ""), ["default", "office"]),
        (("exec", "--as", ""), ["default", "office", "personal", "work"]),
        (("explain", "gpt"), ["gpt-5.4"]),
        (("routes", "add", "--account", "w"), ["work"]),
        (("routes", "add", "--model", ""), ["gpt-5.4", "o9"]),
        (("events", "--account", ""), ["personal", "work"]),
    ],
)
def test_names(machine, words, offered):  # noqa: F811 - a fixture
    """Labels, fences, models and what --as takes are offered, as they are stored."""
    machine.add("Work", "work", "--no-verify")
    machine.add("Dog", "personal", "--no-verify")
    machine.run("accounts", "fence", "personal", "office")
    [work, _] = machine.decisions.accounts
    facts = {name: ModelFact(True, machine.now + 99, machine.now) for name in ("gpt-5.4", "o9")}
    machine.env.store.merge_memory(Memory({work.id: AccountState(credential=work.fingerprint, models=facts)}))
    assert completed(machine.env, words) == offered


def test_names_of_a_broken_store(machine):  # noqa: F811 - a fixture
    """Where the accounts cannot be read nothing is offered, and nothing fails."""
    machine.env.paths.state.mkdir(parents=True, mode=0o700)
    machine.env.store.accounts_path.write_text("{")
    machine.env.store.accounts_path.chmod(0o600)
    assert completed(machine.env, ("accounts", "use", "")) == []


def completed(env, words):
    """What the shell is offered for the last word."""
    *before, incomplete = words
    found = ShellComplete(cli, {"obj": env}, "copilot-balancer", "_X").get_completions(list(before), incomplete)
    return [one.value for one in found]
