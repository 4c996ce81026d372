"""``copilot-balancer doctor``: one line for each check, and the remedy where it fails.

Laws of this file:

1. Nothing is changed, and no network is used unless ``--online`` says so.
2. A check is a function that yields findings; a problem carries its remedy. No check stops another one.
3. A check calls what decides in the proxy: the store checks files, ``config`` settings, the pool accounts.
4. A file that cannot be read is one finding; the checks of what it would hold are silent.
"""

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

import click

from copilot_balancer import __version__, config
from copilot_balancer.cli.clients.doctor import Case, Finding, Found, State, proxy_variables, traps, trusting
from copilot_balancer.cli.clients.local_proxy import SCRIPT, Listener, listener, open_addresses, usual_authority
from copilot_balancer.cli.env import Env, coloured, json_option, pass_world, port_option, show_json
from copilot_balancer.errors import BalancerError, StoreError, UpstreamError
from copilot_balancer.github.https import Request, Wire
from copilot_balancer.rules.accounts import Status
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.snapshot import AccountView
from copilot_balancer.rules.state import Memory, restored
from copilot_balancer.rules.types import Policy
from copilot_balancer.store.unknown_refusals import read_unknown
from copilot_balancer.text import printable, wrapped
from copilot_balancer.views.names import known_models, unknown_names

MITMPROXY = ((12, 2, 3), (13, 0, 0))
"""From, and below: as in pyproject.toml; ``proxy.failover`` uses private names of mitmproxy."""
SKEW_WARNING, SKEW_PROBLEM = 60.0, 300.0
"""Seconds that the clock may differ from GitHub's: cooldowns and short-lived tokens depend on it."""
LOAD_SECONDS = 60.0


# ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _python(_case: Case) -> Found:
    told = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info >= (3, 12):  # noqa: UP036 - it is what is looked at
        yield Finding("Python", State.OK, told)
    else:
        yield Finding("Python", State.PROBLEM, told, "Install it again with Python 3.12 or newer, as README says.")


def _mitmproxy(_case: Case) -> Found:
    version = metadata.version("mitmproxy")
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    remedy = f"Install it here: `{shlex.quote(sys.executable)} -m pip install 'mitmproxy>=12.2.3,<13'`."
    if not MITMPROXY[0] <= numbers < MITMPROXY[1]:
        yield Finding("mitmproxy", State.PROBLEM, f"{version} was never tried with this addon", remedy)
        return
    missing = [
        tool
        for tool in ("mitmdump", "mitmweb", "mitmproxy")
        if not Path(sys.executable).with_name(tool + _EXE).is_file()
    ]
    if missing:
        yield Finding("mitmproxy", State.PROBLEM, f"{version}, but without {' and '.join(missing)}", remedy)
    else:
        yield Finding("mitmproxy", State.OK, version)


_EXE = ".exe" if os.name == "nt" else ""


def _addon(_case: Case) -> Found:
    try:
        loaded = subprocess.run(
            [sys.executable, "-c", "import copilot_balancer.script"],
            capture_output=True,
            text=True,
            timeout=LOAD_SECONDS,
            check=False,
        )
        failed = loaded.returncode != 0
        last = (loaded.stderr.strip().splitlines() or ["it does not say why"])[-1]
    except subprocess.TimeoutExpired:
        failed, last = True, f"not within {LOAD_SECONDS:g} seconds"
    if failed:
        remedy = "Install it and mitmproxy again, into one environment, as README says."
        yield Finding("addon", State.PROBLEM, f"cannot be loaded: {printable(last, 200)}", remedy)
    else:
        yield Finding("addon", State.OK, f"{__version__} loads ({SCRIPT})")


# ── our files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _store(case: Case) -> Found:
    store = case.env.store
    for read, path in ((store.read_decisions, store.accounts_path), (store.read_memory, store.state_path)):
        try:
            read()
        except StoreError as error:
            why, _, remedy = str(error).partition(". Remedy: ")
            yield Finding("store", State.PROBLEM, why, remedy)
        else:
            mode = f", mode {stat.S_IMODE(path.stat().st_mode):04o}" if path.exists() else " (nothing there yet)"
            yield Finding("store", State.OK, f"{path}{mode}")
    try:
        if store.folder.is_dir():
            store.try_write()
    except StoreError as error:
        why, _, remedy = str(error).partition(". Remedy: ")
        yield Finding("store", State.PROBLEM, f"{why}: a proxy that runs goes on with what is in memory", remedy)


def _unknown(case: Case) -> Found:
    try:
        kept = len(read_unknown(case.env.store))
    except StoreError as error:
        why, _, remedy = str(error).partition(". Remedy: ")
        yield Finding("refusals", State.WARNING, why, remedy)
        return
    if kept:
        told = f"{kept} of a kind that no rule knows {'was' if kept == 1 else 'were'} met"
        yield Finding("refusals", State.OK, f"{told}: `copilot-balancer events unknown` prints them for a report")


def _settings(case: Case) -> Found:
    try:
        loaded = case.env.settings(with_project=True)
    except BalancerError as error:
        yield Finding("settings", State.PROBLEM, str(error), "Correct it: `copilot-balancer config edit`.")
        return
    for warning in loaded.warnings:
        yield Finding("settings", State.WARNING, warning, "Remove these keys from that file.")
    changed = sum(source != "default" for source in loaded.sources.values())
    yield Finding("settings", State.OK, f"{changed or 'none'} changed from the default")


def _accounts(case: Case) -> Found:
    decisions = case.decisions()
    if case.broken:
        return
    if not decisions.accounts:
        yield Finding("accounts", State.WARNING, "none is stored", "Add one: `copilot-balancer start`.")
        return
    now = case.env.now()
    pool = Pool(Policy(), decisions, now)
    pool.remember(restored(_memory(case), now), now)
    for view, account in zip(pool.snapshot(now).accounts, decisions.accounts, strict=True):
        yield _account(view)
        if case.online:
            try:
                who = case.env.github.whoami(account.token, account.host)
            except UpstreamError as error:
                remedy = f"Log in again: `copilot-balancer accounts login {account.label}`."
                yield Finding(f"account {account.label}", State.PROBLEM, str(error), remedy)
            else:
                yield Finding(f"account {account.label}", State.OK, f"GitHub knows it as {who.login}")


def _names(case: Case) -> Found:
    decisions = case.decisions()
    if case.broken or not decisions.accounts:
        return
    try:
        loaded = case.env.settings(with_project=True)
    except BalancerError:
        return
    policy = config.policy(loaded.settings, decisions)
    for sentence in unknown_names(policy, decisions, known_models(_memory(case), decisions)):
        remedy = "Correct it: `copilot-balancer routes`, `copilot-balancer config edit`."
        yield Finding("names", State.WARNING, sentence, remedy)


def _memory(case: Case) -> Memory:
    try:
        return case.env.store.read_memory()
    except StoreError:
        return Memory()


def _account(view: AccountView) -> Finding:
    name = f"account {view.label}"
    why = f"{view.status}{f': {view.why_not}' if view.why_not else ''}"
    if view.status is Status.NEEDS_LOGIN:
        return Finding(name, State.PROBLEM, why, f"Log in again: `copilot-balancer accounts login {view.label}`.")
    if view.status is Status.DISABLED:
        return Finding(name, State.WARNING, why, f"To let it serve: `copilot-balancer accounts enable {view.label}`.")
    if view.status is Status.COOLING:
        return Finding(name, State.WARNING, why, "Nothing: the cooldown ends by itself.")
    return Finding(name, State.OK, why)


def _terms(case: Case) -> Found:
    decisions = case.decisions()
    if case.broken:
        return
    if decisions.terms_missing:
        remedy = "Read them and accept: `copilot-balancer terms accept`."
        yield Finding("terms", State.WARNING, f"not accepted: only {decisions.accounts[0].label} serves", remedy)
    elif decisions.terms_accepted_at is not None:
        yield Finding("terms", State.OK, "accepted")
    else:
        yield Finding("terms", State.OK, "needed from the second account on")


def _certificate(case: Case) -> Found:
    authority = case.authority
    if not authority.certificate.is_file():
        yield Finding("CA", State.OK, "not made yet; the first `copilot-balancer run` or `exec` makes it")
        return
    for path, mode in ((authority.folder, 0o700), (authority.key, 0o600)):
        if problem := _others_may_use(path):
            remedy = (
                f"`chmod {mode:o} {shlex.quote(str(path))}`, and make a new CA if somebody could have read its key."
            )
            yield Finding("CA", State.PROBLEM, f"{path}: {problem}", remedy)
            return
    yield Finding("CA", State.OK, str(authority.certificate))


def _others_may_use(path: Path) -> str | None:
    """Why somebody else could use it; None: nobody could."""
    if os.name != "posix":
        return None
    try:
        facts = path.stat()
    except OSError as error:
        return f"it cannot be looked at ({error.strerror})"
    if facts.st_uid != os.geteuid():
        return f"it belongs to another user (owner {facts.st_uid})"
    return f"others may use it (mode {stat.S_IMODE(facts.st_mode):04o})" if facts.st_mode & 0o077 else None


# ── the proxy, and the clock ─────────────────────────────────────────────────────────────────────────────────────────


def _port(case: Case) -> Found:
    where = f"127.0.0.1:{case.port}"
    if listener(case.port, case.authority) is Listener.OURS:
        beyond = open_addresses(case.port)
        if beyond:
            remedy = "Stop it, unless you want that: everybody who can connect uses your accounts."
            yield Finding("proxy", State.PROBLEM, f"listens on {', '.join(beyond)}, not on loopback alone", remedy)
        else:
            yield Finding("proxy", State.OK, f"a proxy of yours runs on {where}")
        return
    usual = usual_authority(case.env.home)
    heard = listener(case.port, usual)
    if heard is Listener.NOBODY:
        yield Finding("proxy", State.OK, f"none listens on {where}; `run` starts one, `exec` its own")
    elif heard is Listener.OURS:
        remedy = "If it was started without the addon: stop it, then `copilot-balancer run`."
        yield Finding("proxy", State.WARNING, f"a mitmproxy that was started by hand runs on {where}", remedy)
    else:
        remedy = f"Give the proxy another port: `copilot-balancer run --port {case.port + 1}`."
        yield Finding("proxy", State.WARNING, f"another program listens on {where}", remedy)


def _clock(case: Case) -> Found:
    now = case.env.now()
    remedy = "Set the clock; time synchronisation does that by itself."
    newest = max((account.added_at for account in case.decisions().accounts), default=0.0)
    if newest > now + SKEW_WARNING:
        yield Finding("clock", State.PROBLEM, "the time is before the newest account was stored", remedy)
        return
    if not case.online:
        yield Finding("clock", State.OK, "not before anything that is stored; --online compares it with GitHub's")
        return
    try:
        date = Wire().ask(Request("https://api.github.com/zen")).headers.get("date", "")
        skew = now - parsedate_to_datetime(date).timestamp()
    except UpstreamError as error:
        yield Finding("clock", State.WARNING, f"could not be compared: {error}", "Look at the network.")
    except ValueError:
        yield Finding("clock", State.WARNING, "could not be compared: GitHub named no time", "Try again.")
    else:
        state = State.OK if abs(skew) < SKEW_WARNING else State.WARNING if abs(skew) < SKEW_PROBLEM else State.PROBLEM
        told = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} GitHub's"
        yield Finding("clock", state, told, "" if state is State.OK else remedy)


CHECKS: tuple[Callable[[Case], Found], ...] = (
    _python,
    _mitmproxy,
    _addon,
    _store,
    _unknown,
    _settings,
    _accounts,
    _names,
    _terms,
    _certificate,
    _port,
    proxy_variables,
    traps,
    trusting,
    _clock,
)
"""In the order in which a person would repair things."""


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "red"}


@click.command("doctor")
@port_option
@click.option("--online", is_flag=True, help="Also ask GitHub whose the tokens are, and for its time.")
@json_option
@pass_world
def doctor(env: Env, *, port: int, online: bool, as_json: bool) -> None:
    """Check what could keep it from working, with remedies.

    Exit code 1: there is a problem.
    """
    case = Case(env, port, online)
    found = [finding for check in CHECKS for finding in _checked(check, case)]
    count = {state: sum(finding.state is state for finding in found) for state in State}
    if as_json:
        show_json({"ok": not count[State.PROBLEM], "findings": [asdict(finding) for finding in found]})
    else:
        width = max(len(finding.check) for finding in found)
        for finding in found:
            _tell(finding, width)
        click.echo(f"\n{_counted(count[State.PROBLEM], 'problem')}, {_counted(count[State.WARNING], 'warning')}.")
    raise click.exceptions.Exit(1 if count[State.PROBLEM] else 0)


def _checked(check: Callable[[Case], Found], case: Case) -> Found:
    """What a check finds; a file that this user may not look at is a finding, too, and the other checks go on."""
    try:
        yield from check(case)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}looking at it failed ({error.strerror or type(error).__name__})"
        name = check.__name__.strip("_").replace("_", " ")
        yield Finding(name, State.PROBLEM, text, "Look at owner and mode of it and of the folders above it.")


def _tell(finding: Finding, width: int) -> None:
    head = f"{finding.state:<7}  {finding.check:<{width}}  "
    lines = wrapped(finding.text, head)
    click.echo(coloured(lines[:7], _COLOURS[finding.state]) + lines[7:])
    if finding.remedy:
        click.echo(wrapped(finding.remedy, f"{'':<{len(head)}}-> "))


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
