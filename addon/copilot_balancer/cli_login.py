"""``accounts add`` and ``accounts login``: a person logs in at GitHub by a code, and the token stays here.

Laws of this file:

1. No browser is opened, and nothing is put into the clipboard, unless the user asks for it.
2. Nothing is stored before GitHub has said who logged in and the user has agreed; whoever leaves at any moment leaves
   nothing behind here.
3. ``login`` never makes an account another person's.
"""

import click
from pydantic import SecretStr

from copilot_balancer.accounts import GITHUB, normalise_domain, normalise_label
from copilot_balancer.cli_admission import let_in, verified
from copilot_balancer.cli_views import who
from copilot_balancer.device_flow import Show
from copilot_balancer.errors import BalancerError, InvalidInput
from copilot_balancer.github import Identity
from copilot_balancer.terminal import World, json_option, note, pass_world

copy_option = click.option("--copy", is_flag=True, help="Put the code into the clipboard.")
open_option = click.option("--open", "open_page", is_flag=True, help="Open GitHub's page in your browser.")


@click.command("add")
@click.option("--label", help="What to call the account; default is its login.")
@click.option("--host", default=GITHUB, help="Where to log in: github.com (default) or NAME.ghe.com.")
@copy_option
@open_option
@click.option("--yes", is_flag=True, help="Store whoever logs in without being asked.")
@json_option
@pass_world
def add_command(
    world: World, *, label: str | None, host: str, copy: bool, open_page: bool, yes: bool, as_json: bool
) -> None:
    """Log in at GitHub with a code, and store the account.

    You are shown a page of GitHub's and a code to type there. The login is one of the OAuth app that oauth_client_id in
    config.toml names; by default that is opencode's public one, with the scope read:user. So GitHub's page names that
    app, the token counts toward the ten that GitHub keeps for you and this app (an eleventh takes the oldest away), and
    which models you are offered can depend on the app.
    """
    host = normalise_domain(host)
    if label is not None:
        label = normalise_label(label)
        taken = next((one for one in world.store.read_decisions().accounts if one.label == label), None)
        if taken:
            raise InvalidInput(
                f"the label {label} is taken by {who(taken)}: choose another one, or log in again with "
                f"`copilot-balancer accounts login {label}`"
            )
    if not yes and not world.interactive():
        raise InvalidInput("nobody can be asked here whether the right person logged in: say --yes")
    token = log_in(world, host, copy=copy, open_page=open_page)
    identity = world.github.whoami(token, host)
    click.echo(f"Logged in as {_person(identity, host)}.", err=True)
    if not yes and not click.confirm("Store this account?", default=True, err=True):
        _tell_about_the_token(host)
        raise InvalidInput("nothing was stored")
    try:
        let_in(world, [verified(world, token, host, label, identity)], as_json=as_json)
    except BalancerError:
        _tell_about_the_token(host)
        raise


@click.command("login")
@click.argument("label")
@copy_option
@open_option
@json_option
@pass_world
def login_command(world: World, label: str, copy: bool, open_page: bool, as_json: bool) -> None:
    """Log in again with a code for an account that needs it. It must be the same person."""
    account = world.store.read_decisions().find(label)
    if account.login is None:
        raise InvalidInput(
            f"nobody has verified whose account {account.label} is: bring it in with `copilot-balancer accounts add`, "
            f"and remove {account.label}"
        )
    token = log_in(world, account.host, copy=copy, open_page=open_page)
    try:
        identity = world.github.whoami(token, account.host)
        if identity.id != account.id:
            raise InvalidInput(
                f"you logged in as {_person(identity, account.host)}, but {account.label} is {who(account)}: nothing "
                "was changed. Log out there, or use a private window, and try again"
            )
        arrival = verified(world, token, account.host, None, identity)
        let_in(world, [arrival], as_json=as_json, guard=lambda now: now.find(account.id))
    except BalancerError:
        _tell_about_the_token(account.host)
        raise


def log_in(world: World, host: str, *, copy: bool, open_page: bool) -> SecretStr:
    """Let a person log in at `host` by a code, and return the token.

    Raises:
        InvalidInput: the settings cannot be used.
        UpstreamError: nobody logged in, as one sentence.

    """

    def show(prompt: Show) -> None:
        copied = copy and world.copy(prompt.user_code)
        click.echo(f"Open  {prompt.url}", err=True)
        click.echo(f"Type  {prompt.user_code}{'  (it is in the clipboard)' if copied else ''}", err=True)
        if copy and not copied:
            note("the code was not copied: none of pbcopy, wl-copy, xclip and clip.exe works here")
        if open_page and not world.open_page(prompt.url):
            note("no browser could be opened")
        click.echo(f"Waiting for you, {prompt.seconds / 60:.0f} minutes at most ...", err=True)

    client_id = world.settings().settings.oauth_client_id
    return world.github.log_in(host, client_id, show=show, sleep=world.sleep, clock=world.clock)


def _person(identity: Identity, host: str) -> str:
    number = identity.id.partition(":")[2]
    return f"{identity.login} on {host} (id {number}, plan {identity.plan_name or 'unknown'})"


def _tell_about_the_token(host: str) -> None:
    note(f"GitHub goes on knowing the new token until you revoke it: https://{host}/settings/applications")
