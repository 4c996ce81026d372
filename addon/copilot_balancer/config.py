"""Settings: defaults < config.toml < the project's file < mitmproxy options. Nothing here is a secret.

Laws of this file:

1. Each option stands once, with its type, bounds, default and one sentence; the table in docs/options.md and
   mitmproxy's help are made from that.
2. A value that is not allowed stops with one sentence that names where it stands, the key, and what is allowed. A
   wrong setting is never replaced by its default in silence.
3. A project's file comes from a repository, which may be hostile: it sets only `PROJECT_KEYS`, is bounded in size, and
   the rest of it is ignored with a warning.
4. Files are read, never written.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from copilot_balancer.copilot.hosts import GITHUB, normalise_domain
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.accounts import Decisions, ModelPattern, Name, RouteTable, Strategy
from copilot_balancer.rules.classify import MAX_RULES, OutcomeRule
from copilot_balancer.rules.types import Policy, Route
from copilot_balancer.text import printable

CONFIG_FILE = "config.toml"
PROJECT_FILE = ".copilot-balancer.toml"
PROJECT_KEYS = ("strategy", "fence", "routes", "log")
"""What a project may set: it can change who of the user's own serves, and how much is said; nothing else."""

OPENCODE_CLIENT_ID = "Ov23li8tweQw6odWQebz"
"""The public OAuth client that opencode logs in with. Source: docs/copilot-protocol.md#oauth-clients."""

_CONFIG_BYTES = 1024 * 1024
_PROJECT_BYTES = 64 * 1024
_MONTH = 30 * 86400.0
_SHOWN_KEYS = 5
"""So many ignored keys of a project's file are named."""

FailoverClass = Literal["limit", "quota", "model", "auth", "transient"]
Websocket = Literal["auto", "allow", "refuse"]
Noise = Literal["all", "switches", "errors", "none"]


def _enterprise_domain(text: str) -> str:
    domain = normalise_domain(text)
    if domain == GITHUB:
        raise InvalidInput(f"{GITHUB} is always known")
    return domain


def _parent_proxy(text: str) -> str:
    """Told as wrong at once; what it names is ``github.parent_proxy``'s."""
    parts = urlsplit(text)
    if text != "none" and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
        raise InvalidInput("not a parent proxy's URL")
    return text


Domain = Annotated[str, AfterValidator(_enterprise_domain)]


def _option(default: object, kind: str, allowed: str, text: str, *, shown: str = "", **bounds: Any) -> Any:
    words: dict[str, Any] = {"kind": kind, "allowed": allowed, "shown": shown or _shown(default)}
    return Field(default, description=text, json_schema_extra=words, **bounds)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:.0f}"
    if isinstance(default, tuple | dict):
        return ", ".join(default) or "empty"
    return str(default)


def _one_of(words: object, default: str, text: str) -> Any:
    return _option(default, "text", "one of " + ", ".join(get_args(words)), text)


def _switch(default: bool, text: str) -> Any:
    return _option(default, "bool", "true or false", text)


def _seconds(default: float, low: float, high: float, text: str) -> Any:
    allowed = f"a number of seconds from {low:.0f} to {high:.0f}"
    return _option(default, "seconds", allowed, text, ge=low, le=high)


def _whole(default: int | None, low: int, high: int, text: str, *, unit: str = "number", shown: str = "") -> Any:
    allowed = f"a whole {unit} from {low} to {high}"
    return _option(default, "int", allowed, text, shown=shown, ge=low, le=high)


class Settings(BaseModel):
    """Every option; the fields of the table in docs/options.md, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Strategy = _one_of(Strategy, "hybrid", "How an account is chosen for a new conversation.")
    affinity: float = _seconds(3600.0, 0, _MONTH, "How long a conversation keeps its account; 0 = not at all.")
    failover: tuple[FailoverClass, ...] = _option(
        get_args(FailoverClass),
        "list",
        "a list of some of " + ", ".join(get_args(FailoverClass)),
        "Classes of refusals that may move a request to another account.",
    )
    max_attempts: int = _whole(3, 1, 10, "How often one request is sent upstream at most.")
    deadline: float = _seconds(300.0, 1, 3600, "How long all attempts of a request may take until the first byte.")
    wait: float = _seconds(0.0, 0, 3600, "A request is held when all accounts rest and one frees within this.")
    retry_after_cap: float = _seconds(60.0, 1, 86400, "The longest Retry-After that a client is given.")
    retry_ambiguous: bool = _switch(
        default=True, text="Send once more after a reset or a 5xx of a request that was sent and so may be running."
    )
    first_byte_timeout: float = _seconds(
        0.0,
        0,
        3600,
        "How long a streaming request may stay without any answer before another account is tried; 0 = off.",
    )
    idle_timeout: float = _seconds(600.0, 0, 86400, "How long an answer may pause before it is aborted; 0 = off.")
    websocket: Websocket = _one_of(
        Websocket,
        "auto",
        "WebSocket /responses: auto refuses it while a second account could serve over HTTP, which can fail over.",
    )
    model_ttl: float = _seconds(86400.0, 1, _MONTH, "How long an account is known to have a model.")
    log: Noise = _one_of(Noise, "all", "Which requests get a line in the event log.")
    keep_bodies: int | None = _whole(
        None,
        0,
        1024**3,
        "How many bytes of a streamed answer are kept for inspection.",
        unit="number of bytes",
        shown="2 MB in mitmweb, in the console and with -w, else 0",
    )
    keep_flows: int = _whole(500, 0, 1_000_000, "How many finished flows mitmweb and the console keep.")
    record_decisions: bool = _switch(
        default=False, text="Record what `events replay` needs: the pool at the start, the inputs of each decision."
    )
    keep_unknown: bool = _switch(
        default=True, text="Keep the last 50 refusals that no rule knew, without what they quote, for `events unknown`."
    )
    fence: Name = _option(
        "default",
        "text",
        "a name of 1 to 64 of a-z, 0-9, '.', '_', '-'",
        "The fence of requests that name none.",
    )
    allow_remote: bool = _switch(default=False, text="Listen beyond loopback; mitmproxy's proxyauth is then required.")
    upstream_proxy: Annotated[str, AfterValidator(_parent_proxy)] | None = _option(
        None,
        "text",
        "http://HOST:PORT or https://HOST:PORT without a password, or none",
        "The parent proxy that all connections go through, as with `--mode upstream:`.",
        shown="HTTPS_PROXY of the environment",
    )
    ca: str | None = _option(
        None,
        "text",
        "the path of a PEM file",
        "A company's CA, trusted beside the public ones.",
        shown="none",
    )
    hosts: tuple[Domain, ...] = _option(
        (),
        "list",
        "a list of NAME.ghe.com",
        "Further GitHub Enterprise domains whose Copilot traffic is opened; those of accounts are known.",
    )
    routes: tuple[RouteTable, ...] = _option(
        (),
        "tables",
        "tables of models (a list of patterns), accounts (of labels), fallback (of models), enabled (true or false)",
        "For models that match: which accounts serve, in this order, and which other models may take their place.",
    )
    oauth_client_id: str = _option(
        OPENCODE_CLIENT_ID,
        "text",
        "8 to 64 letters, digits, '.', '_' and '-'",
        "The OAuth client that `accounts add` logs in with.",
        pattern=r"^[A-Za-z0-9._-]{8,64}$",
    )
    preseed: dict[Name, tuple[ModelPattern, ...]] = _option(
        {},
        "tables",
        "a table of LABEL = a list of model patterns",
        "Which models an account has, before anything was learnt.",
    )
    outcomes: tuple[OutcomeRule, ...] = _option(
        (),
        "tables",
        "at most 50 tables of status (a list of 400 to 599 or 'stream'), code, text, header (NAME = pattern), "
        "reason, action (pass, next, next-once or same), rest ('server', 'none' or 1 to 86400 seconds)",
        "What a refusal means that the built-in table does not know; patterns are text with * for anything.",
        max_length=MAX_RULES,
    )


FILE_ONLY = ("routes", "oauth_client_id", "preseed", "outcomes")
"""Settings that only config.toml (and, for routes, a project's file) can hold."""


class Option(NamedTuple):
    """One row of the table of options."""

    name: str
    """As in config.toml; as a mitmproxy option it begins with ``copilot_``."""
    type: str
    """What is allowed, in words."""
    default: str
    """In words."""
    help: str
    """One sentence."""
    kind: str
    """``int``, ``seconds``, ``bool``, ``text``, ``list`` or ``tables``: for whoever must declare it elsewhere."""


def options(*, file_only: bool = False) -> tuple[Option, ...]:
    """The rows of the table: what mitmproxy's ``--set`` takes, or what stands only in files."""
    rows = []
    for name, field in Settings.model_fields.items():
        words: Any = field.json_schema_extra
        row = Option(name, words["allowed"], words["shown"], field.description or "", words["kind"])
        if (name in FILE_ONLY) == file_only:
            rows.append(row)
    return tuple(rows)


@dataclass(frozen=True)
class Loaded:
    """The settings in force, and where each one was set."""

    settings: Settings
    sources: Mapping[str, str]
    """Name -> ``default``, the path of a file, or ``--set``."""
    warnings: tuple[str, ...] = ()
    """Sentences for the log."""
    layers: tuple[tuple[str, Settings], ...] = ()
    """Path of a file or ``--set`` -> its settings, of which ``model_fields_set`` count; in the order applied."""


def load(config_dir: Path, project_dir: Path | None, overrides: Mapping[str, object]) -> Loaded:
    """The settings of `config_dir`, then of `project_dir`, then `overrides`; a missing file sets nothing.

    `overrides` are the mitmproxy options that the user set, by name with or without ``copilot_``: a value of the
    setting's own type or its text, a list also as text with commas; None is an option that was not set.

    Raises:
        InvalidInput: a key is unknown, a value not allowed, or a file cannot be read as TOML.

    """
    layers = [_config_layer(config_dir / CONFIG_FILE)]
    warnings: list[str] = []
    if project_dir is not None:
        layers.append(_project_layer(project_dir / PROJECT_FILE, warnings))
    layers.append(_override_layer(overrides))

    values: dict[str, object] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    for source, layer in layers:
        for name in layer.model_fields_set:
            values[name], sources[name] = getattr(layer, name), source
    return Loaded(Settings().model_copy(update=values), sources, tuple(warnings), tuple(layers))


def policy(settings: Settings, decisions: Decisions) -> Policy:
    """What the pool needs of the settings; what the user changed while a proxy ran comes before them."""
    rows = settings.routes if decisions.routes is None else decisions.routes
    return Policy(
        strategy=decisions.strategy or settings.strategy,
        affinity=settings.affinity,
        failover=frozenset(settings.failover),
        max_attempts=settings.max_attempts,
        deadline=settings.deadline,
        wait=settings.wait,
        retry_after_cap=settings.retry_after_cap,
        retry_ambiguous=settings.retry_ambiguous,
        model_ttl=settings.model_ttl,
        fence=settings.fence,
        routes=tuple(Route(**dict(route)) for route in rows),
        preseed=settings.preseed,
    )


type _Layer = tuple[str, Settings]
"""Where it stands, and the settings of which only ``model_fields_set`` count."""


def _config_layer(path: Path) -> _Layer:
    return str(path), _from_file(path, _table(path, _CONFIG_BYTES))


def _project_layer(path: Path, warnings: list[str]) -> _Layer:
    table = _table(path, _PROJECT_BYTES)
    ignored = [printable(key, 80) for key in table if key not in PROJECT_KEYS]
    if ignored:
        more = f" and {len(ignored) - _SHOWN_KEYS} more" if len(ignored) > _SHOWN_KEYS else ""
        warnings.append(
            f"{_place(path)}: ignored {', '.join(ignored[:_SHOWN_KEYS])}{more}: "
            f"a project sets only {', '.join(PROJECT_KEYS)}"
        )
    return str(path), _from_file(path, {key: table[key] for key in PROJECT_KEYS if key in table})


def _override_layer(overrides: Mapping[str, object]) -> _Layer:
    known = {option.name: option for option in options()}
    given: dict[str, object] = {}
    for key, value in overrides.items():
        name = key.removeprefix("copilot_")
        if name in FILE_ONLY:
            raise InvalidInput(f"--set: {name} stands only in {CONFIG_FILE}")
        if name not in known:
            raise InvalidInput(f"--set: {_unknown(key, known)}")
        if value is not None:
            given[name] = _split(value) if known[name].kind == "list" else value
    try:
        return "--set", Settings.model_validate(given, strict=False)
    except ValidationError as error:
        raise InvalidInput(f"--set copilot_{_wrong(error)}") from None


def _split(value: object) -> object:
    """``["a,b", "c"]`` or ``"a, b c"`` -> ``["a", "b", "c"]``; anything else as it is, to be refused."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        return value
    return [word for part in parts for word in re.split(r"[,\s]+", part) if word]


def _from_file(path: Path, table: Mapping[str, object]) -> Settings:
    for key in table:
        if key not in Settings.model_fields:
            raise InvalidInput(f"{_place(path)}: {_unknown(key, Settings.model_fields)}")
    try:
        # as JSON, because there an array is a tuple's form even to strict types; a TOML date is nobody's value
        return Settings.model_validate_json(json.dumps(table, default=repr), strict=True)
    except ValidationError as error:
        raise InvalidInput(f"{_place(path)}: {_wrong(error)}") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{_place(path)}: a number is too long, or lists are nested too deeply") from None


def misspelt(name: str) -> str | None:
    """A warning about a mitmproxy option that does not exist, where ours was meant; None: it is nobody's of ours."""
    names = [f"copilot_{option.name}" for option in options()]
    near = get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.75)
    if name in FILE_ONLY or name.removeprefix("copilot_") in FILE_ONLY:
        return f"{printable(name, 80)} is no option: it stands only in {CONFIG_FILE}"
    if not near and not name.lower().startswith("copilot"):
        return None
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return f"{printable(name, 80)} is not an option and has no effect; {hint}"


def _unknown(key: str, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(key.removeprefix("copilot_"), names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return f"{printable(key, 80)!r} is not a setting; {hint}"


def _wrong(error: ValidationError) -> str:
    """The first thing that is not allowed: where, and what would be."""
    name, *inner = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
    words: Any = Settings.model_fields[str(name)].json_schema_extra
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part, 80)}" for part in inner)
    return f"{name} must be {words['allowed']}" + (f" (wrong at {name}{place})" if place else "")


def _place(path: Path) -> str:
    return printable(str(path), 4096)


def _table(path: Path, limit: int) -> dict[str, object]:
    """What stands in a TOML file of at most `limit` bytes; nothing when there is none."""
    raw = _read(path, limit)
    if not raw:
        return {}
    import tomllib  # noqa: PLC0415 - few have such a file, and a start is shorter without

    text = ""
    try:
        text = raw.decode()
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        line, why = raw.count(b"\n", 0, error.start) + 1, "it is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at line (\d+)", str(error))  # else it says "at end of document"
        line = int(found[1]) if found else text.count("\n") + 1
        why = printable(str(error).partition(" (at ")[0])
    except (ValueError, RecursionError):
        raise InvalidInput(f"{_place(path)}: a number is too long, or lists are nested too deeply") from None
    raise InvalidInput(f"{_place(path)}, line {line}: this is not TOML: {why}")


def _read(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a regular file; a pipe that a repository holds does not make us wait."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{_place(path)} is not a regular file")
            raw = file.read(limit + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InvalidInput(f"{_place(path)} cannot be read: {error.strerror}") from None
    if len(raw) > limit:
        raise InvalidInput(f"{_place(path)} is larger than {limit} bytes")
    return raw


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
