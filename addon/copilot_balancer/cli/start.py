"""``copilot-balancer start``: from nothing to the first answer: logins, GitHub's rules, a client through the proxy.

Laws of this file:

1. It only combines other commands: it finds logins as ``accounts import``, logs in as ``accounts add``, asks as
   ``terms`` and runs as ``exec``.
2. A login that another program holds is stored only after the user agreed, at a terminal or with ``--yes``.
3. A login that cannot be used is reported and does not stop the others.
"""

import shutil
from collections.abc import Sequence

import click

from copilot_balancer.cli.accounts.importing import verified_logins
from copilot_balancer.cli.accounts.login import ask_for_terms, checked, let_in, log_in_and_store
from copilot_balancer.cli.clients.client import Found
from copilot_balancer.cli.clients.registry import CLIENTS, PROXIED
from copilot_balancer.cli.env import Env, note, pass_world
from copilot_balancer.cli.run import exec_command
from copilot_balancer.cli.status import tell_limits
from copilot_balancer.copilot.hosts import GITHUB
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.rules.accounts import Decisions, fingerprint
from copilot_balancer.text import wrapped


@click.command("start", context_settings={"allow_interspersed_args": False})
@click.option("--yes", is_flag=True, help="Store every login that is found without asking.")
@click.argument("arguments", metavar="[CLIENT [ARGS]...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
@pass_world
def start(env: Env, context: click.Context, *, yes: bool, arguments: tuple[str, ...]) -> None:
    """From nothing to the first answer: accounts, then a client.

    Looks for GitHub logins on this machine, stores those that you choose, or logs you in with a code; asks for GitHub's
    rules when there is a second account; then runs CLIENT through the proxy, or says how.
    """
    decisions = env.store.read_decisions()
    if decisions.accounts:
        click.echo(f"Stored accounts: {', '.join(account.label for account in decisions.accounts)}", err=True)
    found = _logins(env, decisions)
    for one in found:
        click.echo(f"Found a login in {one.where}", err=True)
    _store(env, [one for one in found if yes or _wanted(env, one)])
    decisions = env.store.read_decisions()
    if not decisions.accounts:
        decisions = _log_in(env, found)
    if decisions.terms_missing:
        decisions = ask_for_terms(env, decisions, new=True)
    tell_limits(decisions)
    _go_on(env, context, arguments)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _logins(env: Env, decisions: Decisions) -> list[Found]:
    """The logins of all clients that can be a GitHub login and are not stored, each once."""
    known = {account.fingerprint for account in decisions.accounts}
    found: list[Found] = []
    for client in CLIENTS:
        logins = client.find_logins(env.environ, env.home) if client.find_logins else []
        for one in logins if isinstance(logins, list) else ():
            mark = fingerprint(one.token.get_secret_value())
            if mark not in known and _may_be_used(one):
                known.add(mark)
                found.append(one)
    return found


def _may_be_used(found: Found) -> bool:
    try:
        checked(found.token)
    except InvalidInput as error:
        note(f"{found.where} is left out: {error}")
        return False
    return True


def _wanted(env: Env, found: Found) -> bool:
    if not env.interactive():
        return False
    return click.confirm(f"Store the login in {found.where}?", default=True, err=True)


def _store(env: Env, logins: Sequence[Found]) -> None:
    for one in logins:
        try:
            let_in(env, verified_logins(env, [one], None), as_json=False, last=False)
        except BalancerError as error:
            note(f"{one.where} is left out: {error}")


def _log_in(env: Env, found: Sequence[Found]) -> Decisions:
    """The first account by a code, where a person is there to type it."""
    if not env.interactive():
        if found:
            raise InvalidInput(
                "no account is stored, and this is not a terminal: pass --yes to store the logins that were found"
            )
        raise InvalidInput(
            "no account is stored, no login was found on this machine, and this is not a terminal: run "
            "`copilot-balancer accounts add --yes`, or pipe a token into `copilot-balancer accounts import "
            "--from stdin`"
        )
    click.echo("\nNo account is stored. Log in at GitHub with a code:", err=True)
    log_in_and_store(env, GITHUB, last=False)
    return env.store.read_decisions()


# ── a client ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _go_on(env: Env, context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run a client, or say how one is run."""
    path = env.environ.get("PATH")
    installed = [
        program
        for client in PROXIED
        if client.login  # these work without a login of their own
        for program in client.programs
        if shutil.which(program, path=path)
    ]
    if not arguments and installed and env.interactive():
        click.echo(err=True)
        if click.confirm(f"Run {installed[0]} through the proxy now?", default=True, err=True):
            arguments = (installed[0],)
    if arguments:
        context.invoke(exec_command, arguments=arguments)
        return
    program = installed[0] if installed else "opencode"
    click.echo(f"\nRun a client through the proxy:  copilot-balancer exec -- {program}")
    if not installed:
        click.echo(
            wrapped(
                "Neither opencode nor the Copilot CLI is installed here: `npm install --global opencode-ai`, or `npm "
                "install --global @github/copilot`. Other clients: `copilot-balancer env --help`, certs-howto.md"
            )
        )
