"""Asks GitHub's API about a token: its user, Copilot plan and quota, and the short-lived token it is exchanged for.

Laws of this file:

1. A GitHub token goes to ``api.github.com`` or ``api.NAME.ghe.com``, and to the Copilot API host of its account; a
   token that was exchanged for it to that API host alone. How it travels stands in ``https``.
2. What GitHub says is checked before it is believed: the API host above all (docs/security.md#what-the-network-says).
3. Nothing here asks on its own: each method is one wish of the user's, or of a request that needs a credential.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from copilot_balancer.copilot.hosts import GITHUB, check_api_host, default_api_host, normalise_domain
from copilot_balancer.copilot.quota import QuotaWindow, read_snapshots
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.github.device_flow import Post, Reply, Show, Step, Wait, device_login
from copilot_balancer.github.https import PROGRAM, TOTAL_SECONDS, Request, Response, Wire, parsed
from copilot_balancer.github.models import REFUSED_AS_SUCH, Listing, list_models, told
from copilot_balancer.github.tokens import Exchanged, ExchangeRefused
from copilot_balancer.rules.accounts import Account, check_token
from copilot_balancer.rules.catalogue import Listed
from copilot_balancer.rules.classify import classify_exchange
from copilot_balancer.rules.types import Reason
from copilot_balancer.text import printable

if TYPE_CHECKING:  # ``https`` imports it where something is asked
    import httpx

REST_VERSION = "2022-11-28"
"""``/user`` is a public endpoint and answers 400 to a version that is not one of the REST API's own.

Source: GitHub docs, rest/overview/api-versions; seen with Copilot's version in QLHazyCoder/copilot-api#5.
"""
COPILOT_VERSION = "2025-04-01"
"""What clients send to ``/copilot_internal``. Source: docs/copilot-protocol.md#account-document."""

_SHOWN = frozenset(
    {
        "access_type_sku", "assigned_date", "can_signup_for_limited", "chat_enabled", "copilot_plan", "endpoints",
        "is_mcp_enabled", "limited_user_quotas", "limited_user_reset_date", "login", "monthly_quotas",
        "quota_reset_date", "quota_reset_date_utc", "quota_snapshots", "token_based_billing",
    }
)  # fmt: skip
"""What of ``/copilot_internal/user`` is shown as it is: plan and quota. The rest (tracking ids, organisations and
whatever is added later) is told by name only."""

_LOGIN = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Identity:
    """The user and the plan of a token, as GitHub reports them."""

    id: str
    """``host:numeric-user-id``, as in ``Account.id``."""
    login: str
    plan: str | None
    """``copilot_plan``: individual, individual_pro, business, enterprise ...; None when GitHub does not tell."""
    sku: str | None
    """``access_type_sku``: free_limited_copilot, monthly_subscriber_quota ...; None when GitHub does not tell."""
    api_host: str
    """Where its requests go; the default of the login host unless `api_host_named`."""
    api_host_named: bool = False
    """Whether GitHub itself named the API host."""
    quota: dict[str, QuotaWindow] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """Sentences for the user: what GitHub would not tell, and what was taken instead."""

    @property
    def plan_name(self) -> str | None:
        """What is stored as the account's plan; ``free`` says all that ``free_plan`` has to know later."""
        return "free" if free_plan(self.plan, self.sku) else self.plan or self.sku


def free_plan(plan: str | None, sku: str | None) -> bool:
    """Whether this is Copilot Free; a student's or a maintainer's free Pro is not.

    Source: VS Code tells Copilot Free by ``access_type_sku`` ``free_limited_copilot`` (chatEntitlementService.ts), also
    where ``copilot_plan`` says ``individual``.
    """
    return plan == "free" or (sku or "").startswith("free_limited")


def read_api_host(url: object, login_host: str) -> str:
    """The host in ``endpoints.api``: ``"https://api.business.githubcopilot.com"`` -> its host name.

    Raises:
        InvalidInput: it is not exactly ``https://HOST``, or an account of `login_host` may not be sent there.

    """
    if not isinstance(url, str) or not url.startswith("https://"):
        raise InvalidInput(f"{str(url)[:80]!r} is not the URL of an API host")
    return check_api_host(url.removeprefix("https://").removesuffix("/"), login_host)


@dataclass(frozen=True)
class Usage:
    """What is left of an account's quota, as GitHub reports it now."""

    plan: str | None
    sku: str | None
    windows: dict[str, QuotaWindow]
    """By the names of ``quota``, on the wall clock."""
    raw: dict[str, object]
    """The answer itself, without what says more than plan and quota."""


@dataclass(frozen=True)
class Access:
    """How the Copilot API takes a token, as tried once."""

    credential: Literal["direct", "exchange"]
    """As in ``Account.credential``."""
    api_host: str | None = None
    """The host of the exchanged token; None: as GitHub said before."""
    models: tuple[Listed, ...] | None = None
    """What it has; None: it could not be listed."""
    warning: str | None = None
    """A sentence for the user: what did not work."""


class GitHub:
    """Asks GitHub and the Copilot API, blocking. `transport` is the seam for the tests and the demo."""

    def __init__(self, transport: "httpx.BaseTransport | None" = None, *, total_seconds: float = TOTAL_SECONDS) -> None:
        self._wire = Wire(transport, total_seconds=total_seconds)

    def whoami(self, token: SecretStr, host: str = GITHUB) -> Identity:
        """Whose `token` it is, at the login host `host`.

        A token that may not ask about Copilot still has an identity: then plan and SKU are None and a warning says why.

        Raises:
            InvalidInput: `token` or `host` is none.
            UpstreamError: GitHub does not accept the token, cannot be reached, or makes no sense.

        """
        host = _checked(token, host)
        api = f"api.{host}"
        person = _facts(self._wire.ask(Request(f"https://{api}/user", token, version=REST_VERSION)))
        copilot = self._copilot_user(token, host)
        number, login = person.get("id"), person.get("login")
        if type(number) is not int or number <= 0 or not isinstance(login, str) or not _LOGIN.fullmatch(login):
            raise UpstreamError(f"{api} did not say whose token this is")
        account_id = f"{host}:{number}"
        if copilot.status in (403, 404) and not copilot.limited:
            warning = (
                f"{api} tells nothing about {login}'s Copilot plan (HTTP {copilot.status}): this account has no "
                "Copilot, or the token's app may not ask for it"
            )
            return Identity(account_id, login, None, None, default_api_host(host), warnings=(warning,))
        facts = _facts(copilot)
        api_host, named, warnings = _api_host(facts, host)
        now = time.time()
        return Identity(
            account_id,
            login,
            _word(facts.get("copilot_plan")),
            _word(facts.get("access_type_sku")),
            api_host,
            named,
            read_snapshots(facts, wall=now, now=now),
            warnings,
        )

    def usage(self, token: SecretStr, host: str = GITHUB) -> Usage:
        """What is left of the quota of `token`'s account.

        Raises:
            InvalidInput: `token` or `host` is none.
            UpstreamError: GitHub does not tell, as one sentence.

        """
        answer = self._copilot_user(token, _checked(token, host))
        if answer.status in (403, 404) and not answer.limited:
            raise UpstreamError(
                f"{answer.host} tells nothing about quota (HTTP {answer.status}): this account has no Copilot, or the "
                "token's app may not ask for it"
            )
        facts = _facts(answer)
        now = time.time()
        raw = {printable(key): value if key in _SHOWN else "(not shown)" for key, value in facts.items()}
        return Usage(
            _word(facts.get("copilot_plan")),
            _word(facts.get("access_type_sku")),
            read_snapshots(facts, wall=now, now=now),
            raw,
        )

    def exchange(self, token: SecretStr, host: str = GITHUB) -> Exchanged:
        """A short-lived token for the Copilot API, for a GitHub token. Source: docs/copilot-protocol.md#token-exchange.

        Raises:
            InvalidInput: `token` or `host` is none.
            ExchangeRefused: GitHub says no.
            UpstreamError: there was no answer that could be read; nothing is known about the token then.

        """
        host = _checked(token, host)
        url = f"https://api.{host}/copilot_internal/v2/token"
        answer = self._wire.ask(Request(url, token, version=COPILOT_VERSION, headers={"Editor-Version": PROGRAM}))
        outcome = classify_exchange(answer.status, answer.headers, answer.body, wall=time.time())
        if outcome.reason is not Reason.SERVED:
            raise ExchangeRefused(told(answer, outcome), outcome)
        found = _exchanged(answer, host)
        if isinstance(found, str):
            raise UpstreamError(found)
        return found

    def models(self, token: SecretStr, host: str, api_host: str) -> tuple[Listed, ...]:
        """What the account of `token` (a GitHub token, or one that was exchanged) has, by its own list at `api_host`.

        Raises:
            InvalidInput: `token` or `host` is none, or an account of `host` may not be sent to `api_host`.
            UpstreamError: there is no list, as one sentence.

        """
        listing = self._list(token, host, api_host)
        if listing.models is None:
            raise UpstreamError(listing.why)
        return listing.models

    def models_of(self, account: Account) -> tuple[Listed, ...]:
        """What `account` has, by its own list; its credential is exchanged first where it must be.

        Raises:
            UpstreamError: there is no list, as one sentence.

        """
        if account.credential == "direct":
            return self.models(account.token, account.host, account.api_host)
        minted = self.exchange(account.token, account.host)
        return self.models(minted.token, account.host, minted.api_host or account.api_host)

    def select(
        self, account: Account, token: SecretStr, *, api_host: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Response:
        """The answer to a selection request of Auto mode (docs/copilot-protocol.md#auto-mode), asked with `account`.

        Args:
            account: whose `token` it is.
            token: what goes to the Copilot API for it: a GitHub token, or one that was exchanged.
            api_host: where `token` may go.
            path: of the client's own selection request.
            body: of it.
            headers: of it, without a credential; names in any case.

        Raises:
            InvalidInput: an account of this login host may not be sent to `api_host`.
            UpstreamError: there was no answer.

        """
        url = f"https://{check_api_host(api_host, account.host)}{path}"
        return self._wire.ask(Request(url, token, "Bearer", headers=headers, body=body))

    def access(self, token: SecretStr, who: Identity) -> Access:
        """How the Copilot API takes `token`: as it is, or exchanged.

        It is asked for its models with the token as it is. Only where it refuses the token as such, and GitHub
        exchanges it, and the exchanged one is not refused as well, the token is one to be exchanged.
        """
        host = who.id.partition(":")[0]
        plain = self._list(token, host, who.api_host)
        if plain.models is not None or plain.reason not in REFUSED_AS_SUCH:
            return Access("direct", models=plain.models, warning=plain.why or None)
        try:
            minted = self.exchange(token, host)
        except UpstreamError as error:
            return Access("direct", warning=f"{plain.why}; nor can the token be exchanged: {error}")
        api_host = minted.api_host or who.api_host
        bought = self._list(minted.token, host, api_host)
        if bought.models is None and bought.reason in REFUSED_AS_SUCH:
            return Access("direct", warning=f"{plain.why}; nor does it take what the token was exchanged for")
        return Access("exchange", api_host, bought.models, bought.why or None)

    def log_in(
        self,
        host: str,
        client_id: str,
        *,
        show: Callable[[Show], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> SecretStr:
        """Let a person log in at `host` by a code that `show` tells them; the token that comes of it.

        Raises:
            InvalidInput: `host` is no login host.
            UpstreamError: the login was refused, or came to nothing.

        """
        login = device_login(host, client_id)
        step = next(login)
        while True:
            reply = self._done(step, show, sleep, clock)
            try:
                step = login.send(reply)
            except StopIteration as end:
                token: SecretStr = end.value
                return token

    def _done(
        self, step: Step, show: Callable[[Show], None], sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Reply | None:
        if isinstance(step, Show):
            show(step)
        elif isinstance(step, Wait):
            sleep(step.seconds)
        else:
            return self._posted(step, clock)
        return None

    def _posted(self, step: Post, clock: Callable[[], float]) -> Reply:
        try:
            answer = self._wire.ask(Request(step.url, form=step.form))
        except UpstreamError as error:
            return Reply(clock(), lost=str(error))
        return Reply(clock(), answer.status, answer.headers.get("content-type", ""), answer.body)

    def _copilot_user(self, token: SecretStr, host: str) -> Response:
        return self._wire.ask(Request(f"https://api.{host}/copilot_internal/user", token, version=COPILOT_VERSION))

    def _list(self, token: SecretStr, host: str, api_host: str) -> Listing:
        check_api_host(api_host, _checked(token, host))
        return list_models(self._wire, token, api_host, exchanged=token.get_secret_value().startswith("tid="))


def _checked(token: SecretStr, host: str) -> str:
    """The login host, when both can be used."""
    check_token(token.get_secret_value())
    return normalise_domain(host)


def _facts(answer: Response) -> dict[str, object]:
    """The JSON object of a 200.

    Raises:
        UpstreamError: anything else, as one sentence.

    """
    if answer.status == 401:
        raise UpstreamError(f"GitHub does not accept this token ({answer.host}, HTTP 401): log in again")
    if answer.refusal is not None:
        raise UpstreamError(answer.refusal)
    return answer.object()


def _exchanged(answer: Response, host: str) -> Exchanged | str:
    """The short-lived token in an answer, or why there is none. Returned, not raised: this frame reads it."""
    facts = parsed(answer.body)
    if not isinstance(facts, dict):
        return f"{answer.host} {answer.fault or 'answered something that is not a JSON object'}"
    token, expires_at, refresh_in = facts.get("token"), _seconds(facts.get("expires_at")), facts.get("refresh_in")
    try:
        secret = SecretStr(check_token(token if isinstance(token, str) else ""))
    except InvalidInput:
        return f"{answer.host} gave no Copilot token that can be used"
    if expires_at is None:
        return f"{answer.host} did not say until when the Copilot token holds"
    wanted = _seconds(refresh_in)
    api_host, named, _ = _api_host(facts, host)
    return Exchanged(
        secret,
        expires_at,
        max(expires_at - time.time() - 300, 0.0) if wanted is None else wanted,
        api_host if named else None,
    )


def _seconds(value: object) -> float | None:
    """A number of seconds that makes sense: not negative, and no date beyond the year 5138."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e11 else None


def _api_host(facts: dict[str, object], host: str) -> tuple[str, bool, tuple[str, ...]]:
    """The API host, whether GitHub named it, and the warning when it did not or named one that is refused."""
    endpoints = facts.get("endpoints")
    url = endpoints.get("api") if isinstance(endpoints, dict) else None
    default = default_api_host(host)
    if url is None:
        return default, False, (f"api.{host} names no API host for this account: {default} is taken",)
    try:
        return read_api_host(url, host), True, ()
    except InvalidInput as error:
        return default, False, (f"{error}: {default} is taken instead",)


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
