"""``copilot-balancer config``: the settings in force, and where each of them was set.

Laws of this file:

1. Settings are shown, never written. What mitmproxy is given with ``--set`` is not seen here, and this is said.
"""

from pathlib import Path

import click

from copilot_balancer.cli.env import Env, json_option, note, pass_world, show_facts, show_json, show_table
from copilot_balancer.config import CONFIG_FILE, PROJECT_FILE, Settings, options
from copilot_balancer.rules.accounts import RouteTable


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@json_option
@pass_world
def show_command(env: Env, as_json: bool) -> None:
    """Show each setting, its value and where that comes from.

    An option that mitmproxy is given (`--set copilot_NAME=VALUE`) counts more than both files, and is not seen here.
    """
    loaded = env.settings(with_project=True)
    settings = loaded.settings.model_dump(mode="json")
    for warning in loaded.warnings:
        note(warning)
    if as_json:
        show_json({name: {"value": value, "source": loaded.sources[name]} for name, value in settings.items()})
        return
    defaults = {option.name: option.default for option in (*options(), *options(file_only=True))}
    rows = []
    for name in Settings.model_fields:
        value = getattr(loaded.settings, name)
        rows.append((name, defaults[name] if value is None else _told(value), _place(loaded.sources[name])))
    show_table(("SETTING", "VALUE", "FROM"), rows)
    click.echo()
    show_facts({CONFIG_FILE: str(env.paths.config / CONFIG_FILE), PROJECT_FILE: str(env.folder() / PROJECT_FILE)})


def _told(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, RouteTable):
        fallback = f", else as {' '.join(value.fallback)}" if value.fallback else ""
        return f"{' '.join(value.models)}: {' '.join(value.accounts)}{fallback}{'' if value.enabled else ' (off)'}"
    if isinstance(value, tuple):
        return ", ".join(map(_told, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {' '.join(patterns)}" for name, patterns in value.items()) or "-"
    return str(value)


def _place(source: str) -> str:
    return Path(source).name if source not in ("default", "--set") else source
