"""A machine of its own for the commands that touch one: a home, an environment, and a CA that was made once."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from copilot_balancer.cli.clients.local_proxy import Authority, own_authority
from copilot_balancer.cli.main import cli
from support.command_line import CommandLine


@pytest.fixture(scope="session")
def made_ca(tmp_path_factory) -> Path:
    """The folder of a CA that mitmproxy made; making one takes a second."""
    authority = Authority(tmp_path_factory.mktemp("ca") / "mitmproxy")
    authority.create()
    return authority.folder


class Machine(CommandLine):
    """Runs commands in `home`, with only such environment as a test gives."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.environ: dict[str, str] = {"COPILOT_BALANCER_HOME": str(home / "ours"), "PATH": str(home / "bin")}
        (home / "project").mkdir()
        (home / "bin").mkdir()
        self.env = replace(self.env, environ=self.environ)

    @property
    def authority(self) -> Authority:
        """Our own CA."""
        return own_authority(self.env.paths.state)

    def with_ca(self, made: Path) -> "Machine":
        """Let our own CA be there, as the first start of the proxy would have made it."""
        self.authority.prepare()
        shutil.copytree(made, self.authority.folder, dirs_exist_ok=True)
        return self

    def install(self, name: str, script: str = "#!/bin/sh\n") -> Path:
        """A program on the PATH."""
        path = self.home / "bin" / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    def run(self, *arguments: str, typed: str | None = None, exit_code: int | None = 0, **_: object) -> Result:
        """Run ``copilot-balancer ARGUMENTS``; no token is in its output, nor in a file but those for tokens."""
        result = CliRunner().invoke(
            cli, arguments, input=typed, obj=self.env, prog_name="copilot-balancer", catch_exceptions=False
        )
        assert exit_code in (None, result.exit_code), result.output
        self._no_token_in(result.output + repr(result.exception))
        for path in self.home.rglob("*"):
            if path.is_file() and path.suffix != ".before" and path.name not in ("accounts.json", "auth.json"):
                assert b"Canary" not in path.read_bytes(), path
        return result


@pytest.fixture
def machine(tmp_path) -> Machine:
    """An empty machine."""
    return Machine(tmp_path)
