"""One client request to a Copilot host, from the first choice to its attribution.

Laws of this file:

1. It translates between the layer's questions, the pool's decisions and mitmproxy's flow; it decides nothing itself.
2. What it cannot judge it passes on untouched.
3. A client's own credential goes on unchanged or not at all; an account's only by the guard.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.options import Options
from pydantic import SecretStr

from copilot_balancer import attribution, guard, quota
from copilot_balancer.accounts import Account, Decisions
from copilot_balancer.attribution import Attribution, Try
from copilot_balancer.catalogue import Catalogue, Shelf, completed, read_models, shelf
from copilot_balancer.config import Settings
from copilot_balancer.conversation import conversation_of
from copilot_balancer.copilot import PLACEHOLDER, Kind, error_body, kind_of, model_of, read_body, with_model
from copilot_balancer.decision_log import RecordedPool
from copilot_balancer.errors import InvalidInput, UpstreamError, printable
from copilot_balancer.github import ExchangeRefused
from copilot_balancer.layer import Refusal, Send, log_incident
from copilot_balancer.minting import Bearer, Mint
from copilot_balancer.outcomes import SERVED, Action, Outcome, Reason, classify, classify_error
from copilot_balancer.pool import Attempt, Hold, Nobody, NobodyKind, PoolRequest, Tried, sentences

PARSE_ON_LOOP = 1024 * 1024
"""Bytes of a request body that are parsed on the event loop; a longer one is parsed in a thread."""

SNAPSHOTS = b'"copilot_quota_snapshots"'
TOLD_LIMIT = 64 * 1024
"""Bytes from that mention on that are looked at."""

HOLD_STEP = 0.25
"""Seconds between two looks at whether the client of a held request is still there."""

_OWN_ERRORS = {
    NobodyKind.LIMITED: (429, "rate_limited", "rate_limit_error"),
    NobodyKind.NO_MODEL: (400, "model_not_supported", "invalid_request_error"),
    NobodyKind.NEEDS_LOGIN: (401, "unauthorized", "authentication_error"),
    NobodyKind.NO_ACCOUNTS: (401, "unauthorized", "authentication_error"),
}
"""Status, code and type of our own error; anything else is a 403 ``no_account_available`` (features C5)."""


@dataclass
class Live:
    """What all requests of a running proxy share. The addon keeps it up to date."""

    pool: RecordedPool
    decisions: Decisions
    settings: Settings
    options: Options
    hosts: frozenset[str]
    mint: Mint
    learn_host: Callable[[Account], Awaitable[Account]]
    """Ask GitHub where an account's requests go now, and write it down."""
    notice: Callable[[SecretStr, str], None]
    """A client was seen with this credential, at this API host."""
    shelve: Callable[[Account, Shelf], None]
    """An account's own list of models has passed."""
    catalogue: Catalogue
    keep_bodies: int = 0
    """Bytes of a streamed answer that are kept for mitmweb, the console and dumps."""
    off: str | None = None
    """Why no account's credential is used at all; None in normal times."""
    prefixes: dict[tuple[str, str], str] = field(default_factory=dict)
    """(credential, host) -> ``token``, where ``Bearer`` was refused as badly formatted (copilot-protocol.md 2.1)."""
    _epoch: float = field(default_factory=lambda: time.time() - time.monotonic())

    def now(self) -> float:
        """Seconds on the steady clock: the epoch at start plus monotonic time since."""
        return self._epoch + time.monotonic()

    def account(self, account_id: str) -> Account | None:
        """The account with this id, unless it was removed meanwhile."""
        return next((account for account in self.decisions.accounts if account.id == account_id), None)


class Exchange:
    """One client request to a Copilot host."""

    def __init__(self, live: Live, flow: http.HTTPFlow, proxy_user: str = "") -> None:
        request = flow.request
        self.live = live
        self.flow = flow
        self.websocket = request.headers.get("upgrade", "").lower() == "websocket"
        self.kind = kind_of(request.method, request.path, websocket=self.websocket)
        self.lists_models = request.method == "GET" and self.kind is Kind.HOME
        self.began = live.now()
        self.proxy_user = proxy_user
        """The name in the client's proxy URL: a fence, or an account, for all that it sends (features A11)."""
        self.request = PoolRequest(id=flow.id, model=None, began=self.began)
        self.model: str | None = None
        """What the client asked for."""
        self.asked_model: str | None = None
        """What the request asks for now."""
        self.original: bytes | None = None
        """The body as the client sent it, when the request asks for another model now."""
        self.streams = False
        """Whether the client asked for a stream."""
        self.attempt: Attempt | None = None
        """What is upstream now, or was last."""
        self.account: Account | None = None
        self.bearer: Bearer | None = None
        self.tries: list[Try] = []
        self.home_asked: list[str] = []
        """Ids of the accounts that were asked for what the home account answers."""
        self.answers: list[http.Response | None] = []
        """The refusals so far, to be given back; by their attempt's number."""
        self.next: Attempt | Hold | Nobody | None = None
        """What ``judge`` decided, for ``choose`` to do."""
        self.local = False
        """Whether the answer was made by us."""
        self.declined = False
        self.note = ""
        self.kept: bytearray | None = None
        self.quota_told = bytearray()
        """What came from the first mention of the quota on."""

    # --- with what? --------------------------------------------------------------------------------------------------

    async def choose(self, send: Send) -> None:
        """Answer the layer's *with what?*."""
        if not self.tries:
            await self._read(send)
            if self.proxy_user and not self._name_is_known():
                self._answer_self(403, "unknown_proxy_user", f"no fence or account is named {self.proxy_user}")
                return
        bearer = _bearer(send)
        held = bearer == PLACEHOLDER
        if self.kind is Kind.OTHER:
            self._client_itself(send, held, why="this path acts as a person and is never balanced")
        elif not self.live.decisions.accounts:
            self._client_itself(send, held, why="no account is stored; `copilot-balancer accounts add` adds one")
        elif self.live.off is not None:
            self._client_itself(send, held, why=f"accounts are switched off: {self.live.off}")
        else:
            await self._an_account(send)

    def _name_is_known(self) -> bool:
        """Keep the request inside the fence, or to the account, that the proxy user names; False: there is none."""
        accounts = self.live.decisions.accounts
        if any(account.fence == self.proxy_user for account in accounts):
            self.request = replace(self.request, fence=self.proxy_user)
            return True
        named = next((account for account in accounts if account.label == self.proxy_user), None)
        if named is not None:
            self.request = replace(self.request, fence=named.fence, only=named.id)
        return named is not None

    async def _read(self, send: Send) -> None:
        request, bearer = self.flow.request, _bearer(send)
        if bearer and bearer != PLACEHOLDER:
            self.live.notice(SecretStr(bearer), request.host)
        if self.kind is not Kind.BALANCED:
            return
        raw = request.get_content(strict=False) or b""
        body = await asyncio.to_thread(read_body, raw) if len(raw) > PARSE_ON_LOOP else read_body(raw)
        self.model = self.asked_model = model_of(body)
        self.streams = (body or {}).get("stream") is True
        home = self.live.decisions.home
        self.request = PoolRequest(
            id=self.flow.id,
            model=self.model,
            began=self.began,
            conversation=conversation_of(_lower(request.headers), body),
            # the session was fetched by the home account, and only there it means anything (design.md 5)
            only=home.id if home and send.hidden.get(b"copilot-session-token") else None,
        )

    def _client_itself(self, send: Send, held: bool, *, why: str) -> None:
        if held:
            self.note = why
            self._answer_self(403 if self.kind is Kind.OTHER else 401, "no_account", why)
            return

        def authorize(request: http.Request, _server: Server) -> None:
            guard.hand_on(request, hidden=send.hidden)

        self.note = f"the client's own credential ({why})"
        send.host = self.flow.request.host
        send.authorize = authorize

    def _declines_websocket(self) -> bool:
        """Whether a WebSocket handshake is answered with 426: the client then sends the same turn over HTTP.

        What is said over a WebSocket is bound to its connection and so to its account: nothing there can fail over
        (features D11; what clients do with 426: clients.md 4).
        """
        if not self.websocket or self.live.settings.websocket == "allow":
            return False
        if self.live.settings.websocket == "refuse":
            return True
        if self.request.only:
            return False
        decisions, fence = self.live.decisions, self.request.fence or self.live.settings.fence
        could = [account for account in decisions.serving() if account.enabled and account.fence == fence]
        return decisions.balancing and len(could) > 1

    async def _an_account(self, send: Send) -> None:
        if self._declines_websocket():
            self.declined = True
            self._answer_self(426, "websocket_refused", "use HTTP: over a WebSocket no other account could take over")
            return
        found = self.next or self._home() or self.live.pool.assign(self.request, self.live.now())
        while True:
            self.next = None
            if isinstance(found, Hold):
                if not await self._hold(found.until):
                    return  # the client has left: the layer sees it next
            elif isinstance(found, Nobody):
                self._nobody(found)
                return
            elif await self._prepare(found):
                self._tell(send)
                return
            found = self.next or self.live.pool.assign(self.request, self.live.now())

    async def _prepare(self, attempt: Attempt) -> bool:
        """Get what is sent for the chosen account; False: it could not be had, and the pool knows."""
        account = self.live.account(attempt.account_id)
        refused, self.attempt = self.attempt, attempt
        if account is None:  # removed this very moment; the pool does not choose it again
            return False
        self.account, self.local = account, False
        last = self.request.tried[-1].outcome.reason if attempt.repair and self.request.tried else None
        again = self.bearer.token if last is Reason.CREDENTIAL and refused and self.bearer else None
        try:
            if last is Reason.WRONG_HOST and account.credential == "direct":
                self.account = account = await self.live.learn_host(account)
            self.bearer = await self.live.mint.bearer(account, wall=time.time(), refused=again)
        except (ExchangeRefused, UpstreamError, InvalidInput) as error:
            outcome = error.outcome if isinstance(error, ExchangeRefused) else classify_error(str(error), sent=False)
            self.answers.append(None)
            self._refused(outcome, None)
            return False
        return True

    def _tell(self, send: Send) -> None:
        """Answer the layer: this account, this host, and how the copy is dressed."""
        assert self.account is not None
        assert self.attempt is not None
        assert self.bearer is not None
        self.flow.request.headers["authorization"] = f"Bearer [account:{self.account.label}]"
        self._use_model(self.attempt.model)
        send.host = self.bearer.host
        send.authorize = partial(self._authorize, send)
        send.idle_timeout = self.live.settings.idle_timeout
        if self.streams:
            send.first_byte_timeout = self.live.settings.first_byte_timeout

    def _home(self) -> Attempt | None:
        """For what only one account may answer: the home account, else the first that can."""
        if self.kind is not Kind.HOME:
            return None
        named = self.live.account(self.request.only) if self.request.only else None
        now, asked = self.live.now(), self.home_asked
        home = named if named and not asked else self.live.pool.home(now, self.request.fence, asked)
        if home is None or (named and asked):
            return None
        why = "in place of the home account" if asked else "home account"
        asked.append(home.id)
        return Attempt(self.flow.id, len(asked), home.id, home.fingerprint, None, why, now)

    def _authorize(self, send: Send, request: http.Request, server: Server) -> http.Response | None:
        """Let the guard put the account's credential on the outgoing copy; an answer when it refuses."""
        assert self.account is not None
        assert self.bearer is not None
        reason = guard.put_on(
            request,
            server,
            token=self.bearer.token,
            hidden=send.hidden,
            hosts=self.live.hosts,
            options=self.live.options,
            prefix=self.live.prefixes.get((self.account.fingerprint, self.bearer.host), "Bearer"),
        )
        if reason is None:
            return None
        self.note = f"refused by the guard: {reason}"
        self.attempt = self.account = None
        return self._answer_self(403, "credential_refused", f"no account's credential is put on this request: {reason}")

    def _use_model(self, model: str | None) -> None:
        """Let the request ask for `model`: the client's own, or one that the user wrote down as a fallback (B4)."""
        if model == self.asked_model or model is None or self.model is None:
            return
        request = self.flow.request
        if self.asked_model == self.model:
            self.original = request.raw_content
        self.asked_model = model
        if model != self.model:
            request.content = with_model(request.get_content(strict=False) or b"", self.model, model)
            return
        request.raw_content = self.original
        if "content-length" in request.headers:
            request.headers["content-length"] = str(len(self.original or b""))

    async def _hold(self, until: float) -> bool:
        """Wait until then; False when the client has left meanwhile."""
        while (left := until - self.live.now()) > 0:
            await asyncio.sleep(min(left, HOLD_STEP))
            if not self.flow.client_conn.connected:
                return False
        return True

    # --- answers -----------------------------------------------------------------------------------------------------

    def head(self) -> None:
        """The head of an answer has come: stream a success, hold back a refusal."""
        response = self.flow.response
        assert response is not None
        if self.local:
            return
        if self.account is None:
            response.stream = _is_stream(response) or self.kind is Kind.OTHER
            return
        response.headers.fields = tuple(f for f in response.headers.fields if f[0].lower() != b"set-cookie")
        if response.status_code >= 400:
            return
        assert self.attempt is not None
        headers = _lower(response.headers)
        self._tried(SERVED, response.status_code)
        now, wall = self.live.now(), time.time()
        if self.kind is Kind.BALANCED:
            self.live.pool.record(self.attempt, SERVED, now, quota.read_headers(headers, wall=wall, now=now))
            if response.status_code != 101:
                self._stream(response)
        attribution.put_headers(response, self.account.label, len(self.tries))
        if self.asked_model != self.model:
            response.headers["x-copilot-model-changed-to"] = printable(self.asked_model or "?", 80)

    def _stream(self, response: http.Response) -> None:
        """Hand on each piece as it comes; keep what a person may look at, and where the quota is told."""
        limit = self.live.keep_bodies
        kept = self.kept = bytearray() if limit else None
        told = self.quota_told = bytearray()

        def passing(data: bytes) -> bytes:
            if kept is not None and len(kept) < limit:
                kept.extend(data[: limit - len(kept)])
            if (told or SNAPSHOTS in data) and len(told) < TOLD_LIMIT:
                told.extend(data[:TOLD_LIMIT])
            return data

        response.stream = passing

    def _learn_quota(self) -> None:
        """The end of a stream may say what is left (``copilot_quota_snapshots``, copilot-protocol.md 3.4)."""
        _, _, found = self.quota_told.partition(SNAPSHOTS)
        if not found or self.account is None:
            return
        try:
            snapshots, _ = json.JSONDecoder().raw_decode(found.decode("utf-8", "replace").lstrip(' ":'))
        except (ValueError, RecursionError):
            return
        windows = quota.read_snapshots({"copilot_quota_snapshots": snapshots}, wall=time.time(), now=self.live.now())
        self.live.pool.learn_quota(self.account.id, windows)

    async def judge(self, refusal: Refusal) -> None:
        """Answer the layer's *again?*."""
        if self.account is None or self.attempt is None:
            if refusal.error is not None:
                self._answer_self(502, "bad_gateway", f"no answer from upstream: {printable(refusal.error)}")
            return
        response = self.flow.response
        if response is not None:
            guard.redact(response, self.live.decisions.accounts, self.live.mint.secrets())
        outcome = self._outcome(refusal, response)
        self.answers.append(response)
        if self.kind is Kind.HOME:
            self._tried(outcome, response.status_code if response else None)
            if outcome.reason in (Reason.NEEDS_LOGIN, Reason.BLOCKED):
                self.live.pool.record(self.attempt, outcome, self.live.now())
            # a list may come from another account: clients end when they get none (clients.md 4)
            if (
                self.flow.request.method == "GET"
                and self.live.decisions.balancing
                and outcome.action is not Action.STOP
            ):
                self.next = self._home()
                refusal.again = self.next is not None
            if refusal.error is not None and not refusal.again:
                self._answer_self(502, "bad_gateway", f"no answer from upstream: {printable(refusal.error)}")
            return
        self._refused(outcome, response.status_code if response else None)
        assert self.next is not None
        if isinstance(self.next, Nobody):
            self._nobody(self.next)
        else:
            refusal.again = True

    def _refused(self, outcome: Outcome, status: int | None) -> None:
        """Tell the pool what came of the attempt, and ask it what to do next."""
        assert self.account is not None
        assert self.attempt is not None
        now = self.live.now()
        self._tried(outcome, status)
        self.live.pool.record(self.attempt, outcome, now)
        self.request = replace(self.request, tried=(*self.request.tried, Tried(self.attempt, outcome, now)))
        if outcome.reason is Reason.PREFIX and self.bearer is not None:
            key = (self.account.fingerprint, self.bearer.host)
            self.live.prefixes[key] = "token" if self.live.prefixes.get(key, "Bearer") == "Bearer" else "Bearer"
        rest = self.live.pool.rest_left(self.attempt.account_id, self.attempt.model, now)
        self.tries[-1] = replace(self.tries[-1], rest=rest)
        self.next = self.live.pool.assign(self.request, self.live.now())

    def _outcome(self, refusal: Refusal, response: http.Response | None) -> Outcome:
        if response is None:
            return classify_error(refusal.error or "no answer", sent=refusal.sent)
        return classify(response.status_code, _lower(response.headers), response.raw_content or b"", wall=time.time())

    def _nobody(self, nobody: Nobody) -> None:
        """Nobody (else) can serve: give back a refusal that was given, or say so ourselves."""
        told = sentences(nobody, self.live.now())
        self.note = nobody.why if self.tries else f"{nobody.why}: {'; '.join(told)}"
        given = self.answers[nobody.give] if nobody.give is not None else None
        if given is not None:
            self.flow.response = given
            self.local = True
            attribution.put_headers(given, self.tries[nobody.give or 0].account, len(self.tries))
        elif nobody.give is not None:
            last = self.request.tried[nobody.give].outcome
            self._answer_self(502, "bad_gateway", f"no answer from upstream: {last.text or last.reason}")
        else:
            status, code, kind = _OWN_ERRORS.get(nobody.kind, (403, "no_account_available", "permission_error"))
            reasons = " ".join(f"{sentence}." for sentence in told)
            self._answer_self(status, code, f"{_HEADLINES.get(nobody.kind, nobody.why)} {reasons}".strip(), kind)
        if nobody.retry_after is not None and self.flow.response is not None:
            self.flow.response.headers["retry-after"] = str(nobody.retry_after)
            self.flow.response.headers.pop("retry-after-ms", None)

    def _answer_self(self, status: int, code: str, message: str, kind: str = "proxy_error") -> http.Response:
        """Make an answer of our own, in the service's shape."""
        self.local = True
        self.note = self.note or message
        body = error_body(self.flow.request.path, message=f"copilot-balancer: {message}", code=code, kind=kind)
        response = self.flow.response = http.Response.make(status, body, {"content-type": "application/json"})
        attribution.put_headers(response, None, len(self.tries))
        return response

    def fault(self, where: str, error: Exception) -> None:
        """An exception of ours: the client gets a 502 with its id, and nothing else is done with this request."""
        incident = log_incident(where, error)
        self.next = None
        self.note = f"incident {incident}"
        message = f"a fault of ours, incident {incident}; the proxy's log has the details"
        self._answer_self(502, "proxy_fault", message)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _tried(self, outcome: Outcome, status: int | None) -> None:
        assert self.account is not None
        assert self.attempt is not None
        self.tries.append(
            Try(
                account=self.account.label,
                host=self.bearer.host if self.bearer else self.account.api_host,
                why=self.attempt.why,
                reason=outcome.reason,
                status=status,
                text=outcome.text,
            )
        )

    def end(self) -> Attribution:
        """The request is over: the flow gets its comment, marker and metadata; the pool is told."""
        flow, response = self.flow, self.flow.response
        self.live.pool.finish(flow.id, self.live.now())
        if self.kept is not None and response is not None and response.stream and self.account is not None:
            response.raw_content = bytes(self.kept)
            guard.redact(response, self.live.decisions.accounts, self.live.mint.secrets())
        if self.lists_models and response is not None and not self.local and response.status_code == 200:
            self._learn_models(response)
        self._learn_quota()
        served = not self.local and bool(self.tries) and self.tries[-1].reason == Reason.SERVED
        what = self.model or f"{flow.request.method} {flow.request.path.partition('?')[0]}"
        record = Attribution(
            what=what,
            tries=tuple(self.tries),
            status=None if flow.error else response.status_code if response else None,
            seconds=self.live.now() - self.began,
            served=served,
            note=self.note or (flow.error.msg if flow.error else ""),
            declined=self.declined,
            client_left=flow.error is not None and not flow.client_conn.connected,
        )
        flow.comment = attribution.comment(record)
        if self.account is not None or self.local:
            flow.marked = attribution.MARKERS[record.verdict]
        flow.metadata.update(attribution.metadata(record))
        return record

    def _learn_models(self, response: http.Response) -> None:
        """A list of models passes: it teaches what its account has, and is completed with what the others have (C4)."""
        account, document = self.account, read_body(response.get_content(strict=False) or b"")
        models = read_models(document)
        if account is None or document is None or models is None:
            return
        now = self.live.now()
        included = [model.name for model in models if model.included]
        self.live.pool.learn_models(account.id, [model.name for model in models], now, included)
        self.live.shelve(account, shelf(account, models, time.time()))
        if self.live.decisions.balancing and not self.request.only:
            more = completed(document, self._what_others_have(account, now))
            if more is not None:
                response.text = json.dumps(more)

    def _what_others_have(self, asked: Account, now: float) -> Iterator[dict[str, dict[str, Any]]]:
        fence = self.request.fence or self.live.settings.fence
        for other in self.live.decisions.serving():
            kept = self.live.catalogue.accounts.get(other.id)
            if kept is None or other.id == asked.id or not other.enabled or other.fence != fence:
                continue
            if kept.credential == other.fingerprint:
                may_have = self.live.pool.may_have
                yield {name: entry for name, entry in kept.entries.items() if may_have(other.id, name, now)}


_HEADLINES: Mapping[NobodyKind, str] = {
    NobodyKind.LIMITED: "every account that could serve this has reached a rate limit.",
    NobodyKind.NO_MODEL: "no account can be asked for this model.",
    NobodyKind.NEEDS_LOGIN: "every account needs a new login.",
    NobodyKind.NO_ACCOUNTS: "no account is stored; `copilot-balancer accounts add` adds one.",
}


def _bearer(send: Send) -> str | None:
    """The token that the client brought, if it brought one."""
    for value in send.hidden.get(b"authorization"):
        return value.decode("latin-1").partition(" ")[2].strip()
    return None


def _lower(headers: http.Headers) -> dict[str, str]:
    """Headers by lower-case name; of several with one name the first counts."""
    found: dict[str, str] = {}
    for name, value in headers.items(multi=True):
        found.setdefault(name.lower(), value)
    return found


def _is_stream(response: http.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith("text/event-stream")
