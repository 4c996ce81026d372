"""What is known about one client: a row that every command reads, with a file for each client in `known`.

Laws of this file:

1. A client is data and functions. A part that it does not have is left out, and the commands leave it out too.
2. The functions get the environment and the home folder as arguments; they read files of that home, and write none.
3. Nothing here holds a credential, except `Found`, whose token stands in a ``SecretStr``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pydantic import SecretStr

PORT = 8080
"""The port on which mitmproxy listens by default."""

_ANY_PASSWORD = "x"  # noqa: S105 - it is none
"""A user without a password is dropped silently by opencode 1.18.33, fetch of Node 24.21 and urllib of Python 3.13
(measured), and the request would leave its fence; the proxy asks for no password."""


class Trust(Enum):
    """Which certificates the file that a variable names must hold."""

    MORE = "more"
    """CAs in addition to those that the program has by itself."""
    ALL = "all"
    """All CAs: the file replaces those that the program has by itself."""


@dataclass(frozen=True)
class Way:
    """The address of the proxy, and the files that make a client trust it."""

    port: int
    more: Path
    """PEM file: the proxy's CA, and what ``NODE_EXTRA_CA_CERTS`` named before."""
    all: Path | None
    """PEM file: the CAs of this system and the proxy's; None: those of this system were not found."""
    user: str | None = None
    """The fence or account that alone may serve; None: as the settings say."""

    @property
    def url(self) -> str:
        """The proxy's URL."""
        name = f"{self.user}:{_ANY_PASSWORD}@" if self.user else ""
        return f"http://{name}127.0.0.1:{self.port}"

    @property
    def port_option(self) -> str:
        """`` --port N`` for the commands that are shown; nothing for the default."""
        return "" if self.port == PORT else f" --port {self.port}"


# ── logins that a client holds ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Found:
    """A login that another program holds."""

    token: SecretStr
    host: str
    """The login host: github.com or NAME.ghe.com."""
    where: str
    """The file or variable that holds it, for people."""


type Finder = Callable[[Mapping[str, str], Path], list[Found] | str]
"""Given environment and home: the logins of a program, at least one, or a sentence that says where it looked."""


# ── setup and undo ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class SetupRequest:
    """How a client is to be set up."""

    environ: Mapping[str, str]
    home: Path
    platform: str
    """``sys.platform``."""
    way: Way
    replace: bool
    """Whether a real login may be replaced."""


@dataclass(frozen=True)
class Plan:
    """What `setup` does for a client."""

    done: str
    """What the change is for, as a sentence."""
    steps: tuple[str, ...]
    """What the user has to do."""
    path: Path | None = None
    """The file that is written; None: none has to be."""
    after: bytes = b""
    """The whole new content of that file."""
    shown: str = ""
    """The part of the content that is ours, for people; the rest may be secret."""
    note: str = ""
    """Kept for the undo."""


@dataclass(frozen=True)
class Record:
    """A change to a client's file, as kept until it is undone."""

    path: str
    """The file itself, links followed."""
    before: bytes | None
    """The old content; None: there was no file."""
    after: str
    """SHA-256 of what we wrote."""
    made: tuple[str, ...] = ()
    """Folders that were made for it, outermost first."""
    note: str = ""
    """`Plan.note`."""


# ── the row ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _no_own_login(_environ: Mapping[str, str], _home: Path) -> str | None:
    return None


def _no_placeholder(_environ: Mapping[str, str], _home: Path) -> bool:
    return False


def _no_warning(_program: str, _environ: Mapping[str, str]) -> str | None:
    return None


@dataclass(frozen=True)
class Client:
    """A program, or programs that read the same variables. Registered in `registry`."""

    name: str
    """What a person calls it, as an argument of our commands."""
    programs: tuple[str, ...] = ()
    """The names of its executables."""
    trust: Mapping[str, Trust] = field(default_factory=dict)
    """The variables that make it trust the proxy's CA; empty: it is not run through the proxy."""
    known: str = ""
    """How the row is known: ``measured: VERSION`` or ``documented: WHERE``."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further variables that it needs to use a proxy at all."""
    hint: str = ""
    """What it needs besides its environment."""
    warning: Callable[[str, Mapping[str, str]], str | None] = _no_warning
    """Given the program's path and the environment: why it would not use the proxy; None: it does."""

    login: Mapping[str, str] = field(default_factory=dict)
    """The variables that make it believe that it is logged in: the placeholder."""
    wants_placeholder: Callable[[Mapping[str, str], Path], bool] = _no_placeholder
    """Whether it needs `login`. Raises InvalidInput where `login` would hide other logins that it holds."""
    own_login: Callable[[Mapping[str, str], Path], str | None] = _no_own_login
    """Where it holds a Copilot login of its own, in words for people; None: nowhere that can be seen."""

    find_logins: Finder | None = None
    """For ``accounts import --from NAME``; None: it is no source of logins."""
    logins_at: str = ""
    """Where those logins are, for the help."""

    plan: Callable[[SetupRequest], Plan] | None = None
    """What ``setup NAME`` does; None: it cannot be set up. Raises InvalidInput where it must not be done."""
    without: Callable[[Path, Record, bytes], bytes] | None = None
    """Given file, record and its content of now: the content without what we wrote, where somebody else wrote there
    since; None: such a file is left alone. Raises InvalidInput where that cannot be done."""
