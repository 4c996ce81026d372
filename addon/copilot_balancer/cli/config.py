"""``copilot-balancer config``: each setting, where it was set, and what it took the place of; and the file itself.

Laws of this file:

1. The order is the proxy's: default, config.toml, the project's file, mitmproxy's ``--set``, and what was decided by
   command or in the dashboard (strategy, routes). The last one is in force.
2. The ``--set`` of a running proxy is not stored; what differs because of it is said where the proxy tells it.
3. Only ``edit`` writes, and only a file that does not exist yet; the rest is written by the user's editor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from copilot_balancer.cli.env import Env, json_option, note, pass_world, show_facts, show_json, show_table
from copilot_balancer.config import CONFIG_FILE, PROJECT_FILE, Loaded, Settings, options
from copilot_balancer.errors import BalancerError, InvalidInput, StoreError
from copilot_balancer.rules.accounts import Decisions, RouteTable
from copilot_balancer.store.folder import make
from copilot_balancer.store.running_proxies import RunningProxy, read_live
from copilot_balancer.text import printable, wrapped
from copilot_balancer.views.overview import look

DECIDED = "decided"
"""The origin of what was set by a command or in the dashboard; it is stored in accounts.json."""


@click.group()
def config() -> None:
    """Show the settings and their origin, or edit the file."""


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Origin:
    """A value of a setting, and where it was set."""

    source: str
    """``default``, the path of a file, or `DECIDED`."""
    value: Any


def origins(loaded: Loaded, decisions: Decisions) -> Mapping[str, list[Origin]]:
    """Setting -> its values in the order in which the proxy applies them; the last one is in force."""
    default = Settings()
    found = {name: [Origin("default", getattr(default, name))] for name in Settings.model_fields}
    for source, layer in loaded.layers:
        for name in layer.model_fields_set:
            found[name].append(Origin(source, getattr(layer, name)))
    for name, decided in (("strategy", decisions.strategy), ("routes", decisions.routes)):
        if decided is not None:
            found[name].append(Origin(DECIDED, decided))
    return found


@config.command("show")
@json_option
@pass_world
def show_command(env: Env, as_json: bool) -> None:
    """Show each setting in force and its origin.

    The last of these counts: default, config.toml, the project's file, an option of mitmproxy (`--set
    copilot_NAME=VALUE`, not visible here), and what you decided by command or in the dashboard.
    """
    loaded = env.settings(with_project=True)
    decisions = _decisions(env)
    found = origins(loaded, decisions)
    for warning in loaded.warnings:
        note(warning)
    if as_json:
        show_json({name: _facts(values) for name, values in found.items()})
        return
    defaults = {option.name: option.default for option in (*options(), *options(file_only=True))}
    rows = []
    for name, values in found.items():
        used, *older = reversed(values)
        value = defaults[name] if used.value is None else _text(used.value)
        over = [f"{_place(one.source)}: {_text(one.value)}" for one in older if one.source != "default"]
        rows.append((name, value, _place(used.source) + (f", instead of {'; '.join(over)}" if over else "")))
    show_table(("SETTING", "VALUE", "FROM"), rows)
    click.echo()
    show_facts({CONFIG_FILE: str(env.paths.config / CONFIG_FILE), PROJECT_FILE: str(env.folder() / PROJECT_FILE)})
    if any(values[-1].source == DECIDED for values in found.values()):
        click.echo("\nTo undo a decision: `copilot-balancer strategy --reset`, `copilot-balancer routes reset`")
    for sentence in (
        look(env.paths, env.now(), env.folder(), decisions=decisions).warnings if decisions.accounts else ()
    ):
        if sentence not in loaded.warnings:
            note(sentence)
    for proxy in _proxies(env):
        if proxy.strategy not in ("", found["strategy"][-1].value):
            where = printable(", ".join(proxy.listening), 200)
            note(
                f"the proxy on {where} chooses by {printable(proxy.strategy, 40)}: it was given --set copilot_strategy"
            )


def _decisions(env: Env) -> Decisions:
    try:
        return env.store.read_decisions()
    except StoreError as error:
        note(f"what you decided is not shown: {error}")
        return Decisions()


def _proxies(env: Env) -> tuple[RunningProxy, ...]:
    try:
        return read_live(env.paths.state)
    except StoreError:
        return ()


def _facts(values: list[Origin]) -> dict[str, object]:
    used = values[-1]
    return {
        "value": _plain(used.value),
        "source": used.source,
        "origins": [{"source": one.source, "value": _plain(one.value)} for one in values],
    }


def _plain(value: Any) -> object:
    if isinstance(value, RouteTable):
        return value.model_dump(mode="json")
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _text(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, RouteTable):
        return route_text(value)
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {' '.join(patterns)}" for name, patterns in value.items()) or "-"
    return str(value)


def route_text(route: RouteTable) -> str:
    """``gpt* o9: work personal, else as gpt-4.1``."""
    fallback = f", else as {' '.join(route.fallback)}" if route.fallback else ""
    return f"{' '.join(route.models)}: {' '.join(route.accounts)}{fallback}{'' if route.enabled else ' (off)'}"


def _place(source: str) -> str:
    return Path(source).name if source not in ("default", DECIDED, "--set") else source


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_TABLES = """\
# The OAuth client that `accounts add` logs in with:
# oauth_client_id = "{client}"

# Which accounts serve a model, in this order, and which model may take its place (only here and in a project's file):
# [[routes]]
# models = ["claude-opus-*"]
# accounts = ["work", "personal"]
# fallback = ["claude-sonnet-4.5"]

# What a refusal means that no rule knows (`copilot-balancer explain-answer` tries it):
# [[outcomes]]
# status = [429]
# code = "some_new_code"
# reason = "limit"
# action = "next"

# Which models an account has, before its own list is known:
# [preseed]
# work = ["gpt-*", "claude-*"]
"""


def example() -> str:
    """A config.toml in which every setting stands as a comment, with its default and what is allowed."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    lines = [
        "# Settings of copilot-balancer. Remove the # of a line to set it. A proxy reads this when it starts.",
        "",
    ]
    for option in options():
        lines += [*wrapped(f"{option.help} Allowed: {option.type}.", "# ").replace("\n  ", "\n# ").split("\n")]
        default = defaults[option.name]
        unset = f"{0 if option.kind == 'int' else '"..."'}  # not set by default: {option.default}"
        lines += [f"# {option.name} = {unset if default is None else _toml(default)}", ""]
    return "\n".join([*lines, _TABLES.format(client=defaults["oauth_client_id"])])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return f'"{value}"'


@config.command("example")
def example_command() -> None:
    """Print a config.toml with every setting as a comment."""
    click.echo(example(), nl=False)


@config.command("edit")
@pass_world
def edit_command(env: Env) -> None:
    """Open config.toml in your editor, and check it afterwards.

    The editor is $VISUAL or $EDITOR. A file that does not exist yet begins as `config example` prints it.
    """
    path = env.paths.config / CONFIG_FILE
    if not env.interactive():
        raise InvalidInput(f"not a terminal: edit {path} yourself")
    if not path.exists():
        _create(path)
    try:
        click.edit(filename=str(path), editor=env.environ.get("VISUAL") or env.environ.get("EDITOR"))
    except click.ClickException as error:
        raise BalancerError(f"{error.format_message()} (to edit: {path})") from None
    env.settings()
    click.echo(f"{path} can be read. A running proxy uses it after a restart.")


def _create(path: Path) -> None:
    """Write `example` as a new file, for the user alone."""
    refusal = make(path.parent)
    if refusal is None:
        try:
            with path.open("x") as file:
                path.chmod(0o600)
                file.write(example())
        except OSError as error:
            raise BalancerError(f"{path} cannot be written: {error.strerror}") from None
    else:
        raise BalancerError(refusal.of(path.parent))
