"""One client request to a Copilot host, from the first choice to its answer.

Laws of this file:

1. It translates between the layer's questions, the pool's decisions and mitmproxy's flow; it decides nothing itself.
2. What it cannot judge it passes on untouched.
3. A client's own credential goes on unchanged or not at all; an account's only by the guard.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from mitmproxy import http
from mitmproxy.connection import Server
from pydantic import SecretStr

from copilot_balancer.copilot import quota
from copilot_balancer.copilot.hosts import plain_host
from copilot_balancer.copilot.protocol import PLACEHOLDER, Kind, kind_of
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.github.tokens import Bearer, ExchangeRefused
from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.guard.client_access import made_by_a_page
from copilot_balancer.proxy.incident import log_incident
from copilot_balancer.proxy.local_responses import no_answer, nobody_serves, own_answer
from copilot_balancer.proxy.models_endpoint import session_mark
from copilot_balancer.proxy.request_body import RequestBody
from copilot_balancer.proxy.response_tap import ResponseTap, beginning, goes_in_chunks
from copilot_balancer.proxy.runtime import Runtime
from copilot_balancer.proxy.websocket import declines
from copilot_balancer.rules.accounts import Account
from copilot_balancer.rules.classify import classify, classify_error, classify_event
from copilot_balancer.rules.ownership import NOBODY, owner_of
from copilot_balancer.rules.types import (
    SERVED,
    Action,
    Attempt,
    Hold,
    Nobody,
    Outcome,
    PoolRequest,
    Reason,
    Tried,
    sentences,
)
from copilot_balancer.text import printable
from copilot_balancer.views import requests
from copilot_balancer.views.requests import Try

HOLD_STEP = 0.25
"""Seconds between two looks at whether the client of a held request is still there."""


LAST_CHANCE = 0.1
"""Seconds for an answer to what is sent when the deadline is there; by then the pool sends nothing more."""


class Exchange:
    """One client request to a Copilot host."""

    def __init__(self, live: Runtime, flow: http.HTTPFlow, proxy_user: str = "") -> None:
        request = flow.request
        self.live = live
        self.flow = flow
        self.headers = _lower(request.headers)
        """The client's own, by lower-case name."""
        self.websocket = self.headers.get("upgrade", "").lower() == "websocket"
        self.kind = kind_of(request.method, request.path, websocket=self.websocket)
        self.lists_models = self.kind is Kind.HOME and request.path.partition("?")[0] == "/models"
        self.began = live.now()
        self.proxy_user = proxy_user
        """The name in the client's proxy URL: a fence, or an account, for all that it sends (features A11)."""
        self.request = PoolRequest(id=flow.id, model=None, began=self.began)
        self.body = RequestBody(request)
        self.attempt: Attempt | None = None
        """What is upstream now, or was last."""
        self.account: Account | None = None
        self.bearer: Bearer | None = None
        self.tries: list[Try] = []
        self.home_asked: list[str] = []
        """Ids of the accounts that were asked for what the home account answers."""
        self.answers: list[http.Response | None] = []
        """The refusals so far, to be given back; by their attempt's number."""
        self.choice: Awaitable[None] | None = None
        """What is left of a `choose` that could not answer at once."""
        self.next: Attempt | Hold | Nobody | None = None
        """What ``judge`` decided, for ``choose`` to do."""
        self.local = False
        """Whether the answer was made by us."""
        self.declined = False
        self.note = ""
        self.send: Send | None = None
        self.passing: ResponseTap | None = None
        """The answer that is streamed, once its head has come."""

    def time_left(self) -> float:
        """Seconds within which the client must see the first byte."""
        return self.began + self.live.settings.deadline - self.live.now()

    # --- with what? --------------------------------------------------------------------------------------------------

    async def choose(self, send: Send) -> None:
        """Answer the layer's *with what?*."""
        self.send = send
        if not self.tries:
            await self._read(send)
            if self.proxy_user and not self._name_is_known():
                self._answer_self(403, "unknown_proxy_user", f"no fence or account is named {self.proxy_user}")
                return
        held = send.hidden.bearer == PLACEHOLDER
        if (page := made_by_a_page(self.flow.request)) is not None:
            self._client_itself(send, held, why=page)
        elif self.kind is Kind.OTHER:
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
        request, bearer = self.flow.request, send.hidden.bearer
        if bearer and bearer != PLACEHOLDER:
            self.live.notice(SecretStr(bearer), request.host)
        if self.kind is not Kind.BALANCED:
            return
        await self.body.read(self.headers)
        owner, held = owner_of(self.live.ownership, self.body.bound.marks, self.body.bound.needed)
        self.request = PoolRequest(
            id=self.flow.id,
            model=self.body.model,
            began=self.began,
            conversation=self.body.conversation,
            only=self._session_account(send),
            owner=owner,
            bound=held,
        )

    def _session_account(self, send: Send) -> str | None:
        """Who fetched the session of this request: only there it means anything (design.md 5)."""
        tokens = send.hidden.get(b"copilot-session-token")
        if not tokens:
            return None
        home = self.live.decisions.home
        known = self.live.ownership.of(session_mark(tokens[0].decode("latin-1")))
        return known or (home.id if home else None)

    def _client_itself(self, send: Send, held: bool, *, why: str) -> None:
        host = self.flow.request.host
        if plain_host(host) not in self.live.hosts:
            self._answer_self(403, "credential_refused", f"it was led to {printable(host)}, which is no Copilot host")
            return
        if held:
            self.note = why
            none_stored = self.kind is not Kind.OTHER and not self.live.decisions.accounts
            self._answer_self(401 if none_stored else 403, "no_account", why)
            return

        def authorize(request: http.Request, _server: Server) -> None:
            credential_guard.hand_on(request, hidden=send.hidden)

        self.note = f"the client's own credential ({why})"
        send.host = host
        send.authorize = authorize

    async def _an_account(self, send: Send) -> None:
        if self.websocket and declines(self.live, self.request):
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
                await self.body.dress(found.model, self._keeps(found))
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
            wall = time.time()
            known = self.live.mint.known(account, wall=wall, refused=again)
            self.bearer = known or await self.live.mint.bearer(account, wall=wall, refused=again)
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
        self.passing = None
        send.host = self.bearer.host
        send.authorize = partial(self._authorize, send)
        send.idle_timeout = self.live.settings.idle_timeout
        send.first_byte_timeout = max(self.time_left(), LAST_CHANCE)
        if self.body.streams and (patience := self.live.settings.first_byte_timeout):
            send.first_event_timeout = send.first_byte_timeout = min(patience, send.first_byte_timeout)

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
        reason = credential_guard.put_on(
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

    def _keeps(self, attempt: Attempt) -> Callable[[str], bool]:
        """Which of what is bound goes along with this attempt."""
        if attempt.bare:
            return lambda _mark: False
        owners = self.live.ownership
        return lambda mark: owners.keeps(mark, attempt.account_id, self.request.owner)

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
            response.stream = response.stream or goes_in_chunks(response)
            return
        response.headers.fields = tuple(f for f in response.headers.fields if f[0].lower() != b"set-cookie")
        if response.status_code >= 400:
            return
        if self.kind is Kind.BALANCED and response.status_code != 101:
            assert self.send is not None
            self.passing = self.send.watch = ResponseTap(
                response, self.body.api, self.live.keep_bodies, self._serves, self._redact
            )
            response.stream = response.stream or goes_in_chunks(response)
        else:
            self._serves()
        requests.put_headers(
            response, self.account.label, self._attempts(), model=self.body.other_model, moved=self.body.left_out
        )

    def _redact(self, response: http.Response) -> None:
        credential_guard.redact(response, self.live.decisions.accounts, self.live.mint.secrets())

    def _attempts(self) -> int:
        """How often the request was sent, the one under way included."""
        return len(self.tries) + (not self.served)

    @property
    def served(self) -> bool:
        """Whether the last of its attempts is the one that answers."""
        return bool(self.tries) and self.tries[-1].reason == Reason.SERVED

    def _serves(self) -> None:
        """The account serves the request: the client gets its answer from now on."""
        response = self.flow.response
        assert response is not None
        assert self.account is not None
        assert self.attempt is not None
        self._tried(SERVED, response.status_code)
        if self.kind is not Kind.BALANCED:
            return
        now, wall = self.live.now(), time.time()
        told = quota.read_headers(_lower(response.headers), wall=wall, now=now)
        self.live.pool.record(self.attempt, SERVED, now, told)
        if self.attempt.bare:
            self.live.ownership.learn(self.body.bound.marks, NOBODY, wall)
        elif self.body.bound:
            kept = filter(self._keeps(self.attempt), self.body.bound.marks)
            self.live.ownership.learn(list(kept), self.account.id, wall)

    async def judge(self, refusal: Refusal) -> None:
        """Answer the layer's *again?*."""
        if self.account is None or self.attempt is None:
            if refusal.error is not None:
                self._answer_self(502, "bad_gateway", f"no answer from upstream: {printable(refusal.error)}")
            return
        if refusal.local:
            self._answer_self(503, "proxy_overloaded", f"this machine cannot connect: {printable(refusal.error or '')}")
            return
        response = self.flow.response
        if response is not None:
            self._redact(response)
        outcome = self._outcome(refusal, response)
        in_stream = response is not None and response.status_code < 400
        self.answers.append(None if in_stream else response)
        if self.kind is Kind.HOME:
            self._tried(outcome, response.status_code if response else None)
            if outcome.reason in (Reason.NEEDS_LOGIN, Reason.BLOCKED):
                self.live.pool.record(self.attempt, outcome, self.live.now())
            # a list may come from another account: clients end when they get none (clients.md 4)
            if self.lists_models and self.live.decisions.balancing and outcome.action is not Action.STOP:
                self.next = self._home()
                refusal.again = self.next is not None
            if refusal.error is not None and not refusal.again:
                self._answer_self(502, "bad_gateway", f"no answer from upstream: {printable(refusal.error)}")
            return
        if outcome.action is Action.OWNER:
            self.request = replace(self.request, carries=await self.body.can_go_bare())
        self._refused(outcome, response.status_code if response and not in_stream else None, beginning(response))
        assert self.next is not None
        if not isinstance(self.next, Nobody):
            refusal.again = True
        elif in_stream and self.next.give in (None, len(self.tries) - 1):
            self.note = self.next.why  # what came is passed on as it is, and so is the rest
        else:
            self._nobody(self.next)

    def _refused(self, outcome: Outcome, status: int | None, body: str = "") -> None:
        """Tell the pool what came of the attempt, and ask it what to do next."""
        assert self.account is not None
        assert self.attempt is not None
        now = self.live.now()
        self._tried(outcome, status, body)
        self.live.pool.record(self.attempt, outcome, now)
        self.request = replace(self.request, tried=(*self.request.tried, Tried(self.attempt, outcome, now)))
        if outcome.reason is Reason.PREFIX and self.bearer is not None:
            key = (self.account.fingerprint, self.bearer.host)
            self.live.prefixes[key] = "token" if self.live.prefixes.get(key, "Bearer") == "Bearer" else "Bearer"
        rest = self.live.pool.cooldown_left(self.attempt.account_id, self.attempt.model, now)
        self.tries[-1] = replace(self.tries[-1], rest=rest)
        self.next = self.live.pool.assign(self.request, self.live.now())

    def _outcome(self, refusal: Refusal, response: http.Response | None) -> Outcome:
        if response is None:
            return classify_error(refusal.error or "no answer", sent=refusal.sent)
        if self.passing is not None and (error := self.passing.error) is not None:
            return classify_event(error.code, error.message, wall=time.time())
        return classify(response.status_code, _lower(response.headers), response.raw_content or b"", wall=time.time())

    def _nobody(self, nobody: Nobody) -> None:
        """Nobody (else) can serve: give back a refusal that was given, or say so ourselves."""
        path, now = self.flow.request.path, self.live.now()
        self.note = nobody.why if self.tries else f"{nobody.why}: {'; '.join(sentences(nobody, now))}"
        given = self.answers[nobody.give] if nobody.give is not None else None
        if given is not None:
            self._answer(given, self.tries[nobody.give or 0].account)
        elif nobody.give is not None:
            self._answer(no_answer(path, self.request.tried[nobody.give].outcome))
        else:
            self._answer(nobody_serves(path, nobody, now))
        if nobody.retry_after is not None and self.flow.response is not None:
            self.flow.response.headers["retry-after"] = str(nobody.retry_after)
            self.flow.response.headers.pop("retry-after-ms", None)

    def _answer(self, response: http.Response, account: str | None = None) -> None:
        """Answer with this; no further attempt is made."""
        self.local = True
        self.flow.response = response
        requests.put_headers(response, account, len(self.tries))

    def _answer_self(self, status: int, code: str, message: str) -> http.Response:
        """Make an answer of our own, in the service's shape."""
        self.note = self.note or message
        response = own_answer(self.flow.request.path, status, code, message)
        self._answer(response)
        return response

    def fault(self, where: str, error: Exception) -> None:
        """An exception of ours: the client gets a 502 with its id, and nothing else is done with this request."""
        incident = log_incident(where, error)
        self.next = None
        self.note = f"incident {incident}"
        message = f"a fault of ours, incident {incident}; the proxy's log has the details"
        self._answer_self(502, "proxy_fault", message)

    # --- its attempts ------------------------------------------------------------------------------------------------

    def _tried(self, outcome: Outcome, status: int | None, body: str = "") -> None:
        assert self.account is not None
        assert self.attempt is not None
        self.tries.append(
            Try(
                account=self.account.label,
                account_id=self.account.id,
                host=self.bearer.host if self.bearer else self.account.api_host,
                why=self.attempt.why,
                reason=outcome.reason,
                status=status,
                text=outcome.text,
                body=body,
            )
        )

    def let_go(self) -> None:
        """Nothing is asked any more: what holds us and is held by us need not wait for the garbage collector."""
        if self.send is not None:
            self.send.authorize = self.send.watch = None
        if self.passing is not None:
            self.passing.let_go()
        self.send = self.passing = None


def _lower(headers: http.Headers) -> dict[str, str]:
    """Headers by lower-case name; of several with one name the first counts."""
    found: dict[str, str] = {}
    for name, value in headers.fields:
        found.setdefault(name.decode("utf-8", "surrogateescape").lower(), value.decode("utf-8", "surrogateescape"))
    return found
