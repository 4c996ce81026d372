"""``accounts import`` and ``accounts adopt``: store a login that exists already.

Laws of this file:

1. A token is read from stdin, from a hidden prompt, or from the files of another program that the user names; never
   from an argument.
2. A credential that a client was seen with is stored by the proxy, after the user's consent, when it is seen again;
   here only its fingerprint is known.
"""

import sys
from collections.abc import Sequence

import click
from pydantic import SecretStr

from copilot_balancer.cli.accounts.login import checked, let_in, verified
from copilot_balancer.cli.clients.client import Found
from copilot_balancer.cli.clients.registry import CLIENTS, SOURCES, find
from copilot_balancer.cli.env import Env, json_option, note, pass_world, show_json, show_table
from copilot_balancer.copilot.hosts import GITHUB, normalise_domain
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.github.admission import Arrival, consented
from copilot_balancer.rules.accounts import Decisions, check_token, normalise_label
from copilot_balancer.rules.state import Sighting
from copilot_balancer.text import day, iso

TOKEN_BYTES = 4096
"""The longest token that ``check_token`` takes."""

_SHORTEST_HASH = 4
"""The least digits of a fingerprint that name it, when no other one begins with them."""


_PLACES = "\n".join(
    [
        "\b",
        *(f"{client.name:<13}{client.logins_at}" for client in CLIENTS if client.find_logins),
        f"{'stdin':<13}what you type or pipe in",
    ]
)


@click.command("import", epilog=_PLACES)
@click.option(
    "--from",
    "source",
    type=click.Choice(["stdin", *SOURCES]),
    required=True,
    help="Read the token from stdin, or from that program's files.",
)
@click.option("--label", help="The account's label; default is its login.")
@click.option("--host", help="The login host, for a token from stdin: github.com (default) or NAME.ghe.com.")
@click.option("--no-verify", is_flag=True, help="Do not ask GitHub whose token it is.")
@json_option
@pass_world
def import_command(
    env: Env, *, source: str, label: str | None, host: str | None, no_verify: bool, as_json: bool
) -> None:
    """Add an account by its token; GitHub says whose it is.

    An account that is stored already gets the new token.
    """
    if label is not None:
        label = normalise_label(label)
    found = _from_stdin(env, host) if source == "stdin" else _from_program(env, source, label, host)
    for one in found:
        checked(one.token)
    if no_verify:
        arrivals = [Arrival(one.token, one.host, label=label) for one in found]
    else:
        arrivals = verified_logins(env, found, label)
    let_in(env, arrivals, as_json=as_json)


def _from_stdin(env: Env, host: str | None) -> list[Found]:
    login_host = normalise_domain(host or GITHUB)
    token = _typed() if env.interactive() else _piped()
    check_token(token.get_secret_value())
    return [Found(token, login_host, "stdin")]


def _typed() -> SecretStr:
    return SecretStr(click.prompt("Token (not shown)", hide_input=True, err=True).strip())


def _piped() -> SecretStr:
    return SecretStr(sys.stdin.buffer.read(TOKEN_BYTES + 64).decode("ascii", "replace").strip())


def _from_program(env: Env, source: str, label: str | None, host: str | None) -> list[Found]:
    if host is not None:
        raise InvalidInput(
            f"--host is for a token from stdin: with --from {source} it is known where its token belongs"
        )
    found = find(source, env.environ, env.home)
    if label is not None and len(found) > 1:
        raise InvalidInput(
            f"{source} holds {len(found)} logins, which cannot all have the label {label}: leave out --label"
        )
    for one in found:
        click.echo(f"Found a login in {one.where}", err=True)
    return found


def verified_logins(env: Env, found: Sequence[Found], label: str | None) -> list[Arrival]:
    """The logins whose owner GitHub names; one that GitHub refuses does not stop the others."""
    arrivals: list[Arrival] = []
    for one in found:
        try:
            arrivals.append(verified(env, one.token, one.host, label))
        except UpstreamError as error:
            if len(found) == 1:
                raise
            note(f"{one.where} is left out: {error}")
    if not arrivals:
        raise InvalidInput("none of these logins can be used")
    return arrivals


# ── adopt ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.command("adopt")
@click.argument("beginning", required=False, metavar="[HASH]")
@click.option("--label", help="The account's label.")
@json_option
@pass_world
def adopt_command(env: Env, beginning: str | None, label: str | None, as_json: bool) -> None:
    """Store a login that a client uses; alone: list them.

    A running proxy notices a credential that a client uses and that no account has, and keeps its hash only. With your
    consent it stores the credential when the client uses it again.
    """
    decisions = env.store.read_decisions()
    noticed = _noticed(env, decisions)
    if beginning is None and label is not None:
        raise InvalidInput("--label is for one credential: name its HASH")
    if beginning is not None:
        mark = _named(noticed, beginning)
        decisions = env.store.edit_decisions(lambda now: consented(now, mark, label, env.now()))
        noticed = {mark: noticed[mark]}
    if as_json:
        show_json([_noticed_row(mark, sighting, decisions) for mark, sighting in noticed.items()])
    elif beginning is not None:
        click.echo(f"{decisions.adopt[mark].label} is stored when a client uses it through the proxy again.")
    elif noticed:
        _list(noticed, decisions)
    else:
        click.echo("No client was seen with a credential that no account has.")
    if beginning is not None and decisions.accounts and decisions.terms_accepted_at is None:
        note("it is a second account, and serves only after `copilot-balancer terms accept`")


def _noticed(env: Env, decisions: Decisions) -> dict[str, Sighting]:
    """The credentials that the proxy noticed and that no account has."""
    stored = {account.fingerprint for account in decisions.accounts}
    sightings = env.store.read_memory().sightings
    return {mark: sighting for mark, sighting in sightings.items() if mark not in stored}


def _named(noticed: dict[str, Sighting], beginning: str) -> str:
    """The one fingerprint that begins with `beginning`."""
    wanted = beginning.strip().lower()
    found = [mark for mark in noticed if len(wanted) >= _SHORTEST_HASH and mark.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(noticed) or "none"
    raise InvalidInput(f"{beginning[:80]!r} does not name one credential that was noticed (noticed: {known})")


def _list(noticed: dict[str, Sighting], decisions: Decisions) -> None:
    rows = []
    for mark, sighting in noticed.items():
        consent = decisions.adopt.get(mark)
        state = f"waiting to be seen again, as {consent.label}" if consent else "noticed"
        rows.append((mark, sighting.host, day(sighting.first_seen), state))
    show_table(("HASH", "HOST", "FIRST SEEN", "STATE"), rows)
    click.echo("\nTo store one: copilot-balancer accounts adopt HASH --label LABEL")


def _noticed_row(mark: str, sighting: Sighting, decisions: Decisions) -> dict[str, object]:
    consent = decisions.adopt.get(mark)
    return {
        "hash": mark,
        "host": sighting.host,
        "first_seen": iso(sighting.first_seen),
        "consent": None if consent is None else {"label": consent.label, "at": iso(consent.at)},
    }
