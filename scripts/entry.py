"""The scripts for systems without a POSIX shell (Windows): ``py scripts/entry.py setup|demo|test|check [ARGS]``.

It does what the shell scripts of the same names do, in ``.venv`` beside this folder, made with the Python that runs it.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / ("Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""


def setup(extra: str = "") -> None:
    """Make .venv with what the proxy needs; `extra`: "dev": and with what tests and checks need."""
    if sys.version_info < (3, 12):  # noqa: UP036 - whoever runs this may have an older one
        sys.exit("scripts/entry.py: Python 3.12 or newer is needed")
    if not (BIN / f"python{EXE}").exists():
        print("setup: making .venv")
        venv.create(ROOT / ".venv", with_pip=True)
    stamp = ROOT / ".venv" / (f".installed-{extra}" if extra else ".installed")
    if not stamp.exists() or stamp.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        print("setup: installing (a minute or two the first time)")
        quiet = ["--quiet", "--disable-pip-version-check"]
        run("python", "-m", "pip", "install", *quiet, "--editable", f".[{extra}]" if extra else ".")
        stamp.touch()


def run(program: str, *arguments: str) -> None:
    """Run a program of .venv; where it fails, end with its exit code."""
    code = subprocess.call([str(BIN / f"{program}{EXE}"), *arguments], cwd=ROOT)
    if code:
        sys.exit(code)


def main(name: str = "", *arguments: str) -> None:
    """Do what the script `name` does."""
    if name == "setup":
        setup(*arguments)
    elif name == "demo":
        setup()
        run("copilot-balancer", "demo", *arguments)
    elif name == "test":
        setup("dev")
        run("python", "-m", "pytest", *arguments)
    elif name == "check":
        setup("dev")
        run("ruff", "check")
        run("ruff", "format", "--check")
        run("mypy")
        run("lint-imports")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
