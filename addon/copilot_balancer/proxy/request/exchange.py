"""One client request to a Copilot host: chooses an account for it, judges each refusal, and records its attempts.

Laws of this file:

1. It translates between the failover stream's hooks, the pool's decisions and mitmproxy's flow; it decides nothing
   about accounts itself. `plan` and `verdict` return what is to be done; `choose` and `judge` do it.
2. An answer that cannot be judged reaches the client unchanged.
3. The client's own credential goes upstream unchanged or not at all; an account's credential only through the guard.
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
from copilot_balancer.copilot.clients import told_wait, wait_rule
from copilot_balancer.copilot.hosts import plain_host
from copilot_balancer.copilot.protocol import PLACEHOLDER, Kind, client_identity, kind_of
from copilot_balancer.errors import InvalidInput, UpstreamError
from copilot_balancer.github.tokens import ExchangeRefused
from copilot_balancer.proxy.failover.hooks import Refusal, Send
from copilot_balancer.proxy.guard import credential_guard
from copilot_balancer.proxy.guard.whose_credential import named_by_user, tenant_of, why_the_clients_own
from copilot_balancer.proxy.incident import log_incident
from copilot_balancer.proxy.request.auto_mode import AutoSession, SelectionTap
from copilot_balancer.proxy.request.local_responses import QUOTA_STATUS, own_answer, refusal_of
from copilot_balancer.proxy.request.models_endpoint import home_attempt
from copilot_balancer.proxy.request.request_body import RequestBody, by_name
from copilot_balancer.proxy.request.response_tap import ResponseTap, beginning, goes_in_chunks, is_stream
from copilot_balancer.proxy.request.steps import (
    Again,
    Answer,
    Authorize,
    Outgoing,
    PassOn,
    Upstream,
    attempted,
    seen_refusal,
)
from copilot_balancer.proxy.request.websocket import declines
from copilot_balancer.proxy.runtime import Runtime
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
from copilot_balancer.store.request_record import AttemptRecord
from copilot_balancer.text import printable
from copilot_balancer.views import requests

HOLD_STEP = 0.25
"""Seconds between two checks whether the client of a held request is still connected."""

LAST_CHANCE = 0.1
"""Seconds that an upstream may take when the deadline has come; the pool sends nothing more by then."""


class Exchange:
    """One client request to a Copilot host."""

    def __init__(self, live: Runtime, flow: http.HTTPFlow, proxy_user: str = "") -> None:
        request = flow.request
        self.live = live
        self.flow = flow
        self.headers = by_name(request.headers)
        """The client's own, by lower-case name."""
        self.websocket = self.headers.get("upgrade", "").lower() == "websocket"
        self.kind = kind_of(request.method, request.path, websocket=self.websocket)
        self.lists_models = self.kind is Kind.HOME and request.path.partition("?")[0] == "/models"
        self.began = live.now()
        self.first_at: float | None = None
        """When the first byte of an account's answer went to the client; None: none has."""
        self.proxy_user = proxy_user
        """The user name in the client's proxy URL: a fence, or an account, for all that the client sends."""
        self.request = PoolRequest(id=flow.id, model=None, began=self.began)
        self.body = RequestBody(request)
        self.auto = AutoSession(live, self.kind, request)
        """What its session token of Auto mode means, if it carries one."""
        self.upstream: Upstream | None = None
        """What is upstream now, or was last; None: nothing yet, or with the client's own credential."""
        self.send: Send | None = None
        """The last value of the hook that asks with what the request is sent."""
        self.tries: list[AttemptRecord] = []
        self.home_asked: list[str] = []
        """Ids of the accounts that were asked for what the home account answers."""
        self.answers: list[http.Response | None] = []
        """The upstream responses that were refusals, by their attempt's number - 1; None: there was no response."""
        self.choice: Awaitable[None] | None = None
        """What is left of a `choose` that could not answer at once."""
        self.next: Attempt | Hold | None = None
        """What `judge` decided, for the next `choose` to do."""
        self.local = False
        """Whether the client's answer was chosen by `Answer`."""
        self.declined = False
        self.note = ""
        self.passing: ResponseTap | None = None
        """The response that is streamed, once its head has come."""

    @property
    def costs(self) -> bool:
        """Whether an account pays for it: inference does, lists and counted tokens do not."""
        path = self.flow.request.path.partition("?")[0]
        return self.kind is Kind.BALANCED and not self.websocket and not path.endswith("/count_tokens")

    def time_left(self) -> float:
        """Seconds within which the client must see the first byte."""
        return self.began + self.live.settings.deadline - self.live.now()

    # --- with what? --------------------------------------------------------------------------------------------------

    async def choose(self, send: Send) -> None:
        """Answer the failover stream: with what is the request sent?"""
        self.send = send
        step = await self.plan(send)
        if isinstance(step, Answer):
            self._answer(step)
        elif step is not None:
            self._go(send, step)

    async def plan(self, send: Send) -> Outgoing | Answer | None:
        """What is to be done with the request; None: the client has left."""
        if not self.tries:
            await self._read(send)
            if self.proxy_user and (error := self._named()) is not None:
                return error
        own = why_the_clients_own(self.live, self.flow, self.kind, self.request)
        if own is None and self.auto.foreign:
            own = "its session token was not fetched through this proxy"
        return await self._an_account(send) if own is None else self._client_itself(send, why=own)

    def _named(self) -> Answer | None:
        """Keep the request to what the user named in the proxy URL; an error when that cannot be done."""
        named = named_by_user(self.live, replace(self.request, only=None), self.proxy_user)
        if named is None:
            return self._own(403, "unknown_proxy_user", f"no fence or account is named {self.proxy_user}")
        self.auto.pinned = named.only is not None
        self.request = replace(named, only=named.only or self.request.only)
        if self.auto.pinned and self.auto.elsewhere(named):
            why = f"its Auto session is another account's than {self.proxy_user}'s"
            return self._own(403, "session_of_another_account", why)
        return None

    async def _read(self, send: Send) -> None:
        request, bearer = self.flow.request, send.hidden.bearer
        if bearer and bearer != PLACEHOLDER:
            self.live.notice(SecretStr(bearer), request.host)
        if not self.proxy_user:  # who names a fence or an account decides by that
            self.request = replace(self.request, host=tenant_of(request.host))
        if self.kind not in (Kind.BALANCED, Kind.SELECTION):
            return
        await self.body.read(self.headers)
        owner, held = owner_of(self.live.ownership, self.body.bound.hashes, self.body.bound.needed)
        self.request = self.auto.read(
            PoolRequest(
                id=self.flow.id,
                model=self.body.model,
                began=self.began,
                conversation=self.body.conversation,
                owner=owner,
                bound=held,
                client=client_identity(self.headers),
                host=self.request.host,
            ),
            send.hidden,
        )

    def _client_itself(self, send: Send, *, why: str) -> Outgoing | Answer:
        """Send the client's own credential, unless it is the placeholder or the host is no Copilot host."""
        host = self.flow.request.host
        if plain_host(host) not in self.live.hosts:
            return self._own(403, "credential_refused", f"it was led to {printable(host)}, which is no Copilot host")
        if send.hidden.bearer == PLACEHOLDER:
            self.declined = self.kind is Kind.OTHER  # the Copilot CLI asks for /mcp/readonly with whatever login it has
            none_stored = self.kind is not Kind.OTHER and not self.live.decisions.accounts
            return self._own(401 if none_stored else 403, "no_account", why)

        def authorize(request: http.Request, server: Server) -> http.Response | None:
            reason = credential_guard.hand_on(request, server, hidden=send.hidden, options=self.live.options)
            if reason is None:
                return None
            return self._answer(self._own(403, "credential_refused", f"the client's credential is not sent: {reason}"))

        self.note = f"the client's own credential ({why})"
        return Outgoing(host, authorize)

    async def _an_account(self, send: Send) -> Outgoing | Answer | None:
        if self.websocket and declines(self.live, self.request):
            self.declined = True
            why = "use HTTP: over a WebSocket no other account could take over"
            return self._own(426, "websocket_refused", why)
        found = self.next or self._home_account() or self._assign()
        self.next = None
        while not self.live.ended:
            if isinstance(found, Nobody):
                other = await self._other_session(found)
                if other is None:
                    return self._nobody(found)
                found = other
            if isinstance(found, Hold):
                if not await self._hold(found.until):
                    return None
                found = self._assign()
                continue
            prepared = await self._prepare(found, send)
            if isinstance(prepared, Upstream):
                self.upstream = prepared
                await self.body.dress(found.model, self._keeps(found))
                return Outgoing(prepared.bearer.host, partial(self._authorize, prepared), prepared)
            found = prepared
        return self._script_gone()

    def _home_account(self) -> Attempt | None:
        return home_attempt(self.live, self.request, self.home_asked) if self.kind is Kind.HOME else None

    def _assign(self) -> Attempt | Hold | Nobody:
        return self.live.pool.assign(self.request, self.live.now())

    async def _prepare(self, attempt: Attempt, send: Send) -> Upstream | Attempt | Hold | Nobody:
        """What the chosen account's attempt is sent with; else what the pool decides after that failed."""
        account = self.live.account(attempt.account_id)
        if account is None:  # removed this very moment; the pool does not choose it again
            return self._assign()
        again = self.upstream.bearer.token if attempt.renew and self.upstream else None
        try:
            if attempt.renew and account.credential == "direct":
                account = await self.live.learn_host(account)
            wall = time.time()
            known = self.live.mint.known(account, wall=wall, refused=again)
            bearer = known or await self.live.mint.bearer(account, wall=wall, refused=again)
        except (ExchangeRefused, UpstreamError, InvalidInput) as error:
            outcome = error.outcome if isinstance(error, ExchangeRefused) else classify_error(str(error), sent=False)
            self.answers.append(None)
            return self._refused(account, attempt, outcome, host=account.api_host)
        return Upstream(account, attempt, bearer, send, self.auto.token_for(account.id))

    async def _other_session(self, nobody: Nobody) -> Attempt | None:
        """Another account's attempt, with a session of its own, where that of the session token is limited."""
        asked = await self.auto.select(self.request, nobody, self.time_left())
        if asked is None:
            return None
        if asked.outcome.reason is Reason.SERVED:
            self.request = replace(self.request, only=asked.account.id)
            return asked.attempt
        rest = self.live.pool.cooldown_left(asked.account.id, asked.attempt.model, self.live.now())
        self.tries.append(
            attempted(
                asked.account, asked.attempt, asked.outcome, host=asked.host, status=asked.outcome.status, rest=rest
            )
        )
        return None

    def _go(self, send: Send, to: Outgoing) -> None:
        """Tell the failover stream where the request goes, who puts the credential on, and for how long it waits."""
        send.host, send.authorize = to.host, partial(self._while_loaded, to.authorize)
        if to.upstream is None:
            return
        self.local, self.passing = False, None
        self.flow.request.headers["authorization"] = f"Bearer [account:{to.upstream.account.label}]"
        send.idle_timeout = self.live.settings.idle_timeout
        send.first_byte_timeout = max(self.time_left(), LAST_CHANCE)
        if self.body.streams and (patience := self.live.settings.first_byte_timeout):
            send.first_event_timeout = send.first_byte_timeout = min(patience, send.first_byte_timeout)

    def _while_loaded(self, authorize: Authorize, request: http.Request, server: Server) -> http.Response | None:
        """Authorize, unless the script has gone since that was decided; then an answer."""
        if not self.live.ended:
            return authorize(request, server)
        self.upstream = None
        return self._answer(self._script_gone())

    def _script_gone(self) -> Answer:
        return self._own(503, "not_loaded", "its script went away while this request waited: nothing was sent")

    def _authorize(self, upstream: Upstream, request: http.Request, server: Server) -> http.Response | None:
        """Let the guard put the account's credential on the outgoing copy; an answer when it refuses."""
        bearer = upstream.bearer
        reason = credential_guard.put_on(
            request,
            server,
            token=bearer.token,
            hidden=upstream.send.hidden,
            hosts=self.live.hosts,
            options=self.live.options,
            prefix=self.live.prefixes.get((upstream.account.fingerprint, bearer.host), "Bearer"),
            session=upstream.session,
            sent=self.live.sent,
            shown=f"[account:{upstream.account.label}]",
        )
        if reason is None:
            return None
        self.upstream = None
        step = self._own(403, "credential_refused", f"no account's credential is put on this request: {reason}")
        return self._answer(replace(step, note=f"refused by the guard: {reason}"))

    def _keeps(self, attempt: Attempt) -> Callable[[str], bool]:
        """Which of what is bound goes along with this attempt."""
        owners = self.live.ownership
        return lambda state_hash: not attempt.bare and owners.keeps(state_hash, attempt.account_id, self.request.owner)

    async def _hold(self, until: float) -> bool:
        """Wait until then, or until the script goes; False when the client has left meanwhile."""
        while not self.live.ended and (left := until - self.live.now()) > 0:
            await asyncio.sleep(min(left, HOLD_STEP))
            if not self.flow.client_conn.connected:
                return False
        return True

    # --- responses ---------------------------------------------------------------------------------------------------

    def head(self) -> None:
        """The head of a response has come: stream a success, hold back a refusal."""
        response, upstream = self.flow.response, self.upstream
        if response is None or self.local:
            return
        if upstream is None:
            response.stream = response.stream or goes_in_chunks(response)
            return
        response.headers.fields = tuple(f for f in response.headers.fields if f[0].lower() != b"set-cookie")
        credential_guard.redact_head(response, self.live.sent)
        if response.status_code >= 400:
            return
        served = partial(self._serves, upstream, response)
        if self.kind is Kind.SELECTION:
            learn = partial(self._selected, upstream)
            self.passing = upstream.send.watch = SelectionTap(response, served, learn)
            response.stream = response.stream or True  # held, its session token would stand in the flow
        elif self.kind is Kind.BALANCED and response.status_code != 101:
            self.passing = upstream.send.watch = ResponseTap(
                response, self.body.api, self.live.keep_bodies, served, self._redact
            )
            response.stream = response.stream or goes_in_chunks(response)
        else:
            served()
        requests.put_headers(
            response, upstream.account.label, self._attempts(), model=self.body.other_model, moved=self.body.left_out
        )

    def _redact(self, response: http.Response) -> None:
        credential_guard.redact(response, self.live.sent)

    def _attempts(self) -> int:
        """How often the request was sent, the one under way included."""
        return len(self.tries) + (not self.served)

    @property
    def served(self) -> bool:
        """Whether the last of its attempts is the one that answers."""
        return bool(self.tries) and self.tries[-1].reason == Reason.SERVED

    def _serves(self, upstream: Upstream, response: http.Response) -> None:
        """The account serves the request: the client gets its answer from now on."""
        self.first_at = self.live.now()
        account, attempt = upstream.account, upstream.attempt
        self.tries.append(attempted(account, attempt, SERVED, host=upstream.bearer.host, status=response.status_code))
        if self.kind is not Kind.BALANCED:
            return  # a selection says nothing about the limits of what is paid for
        now, wall = self.live.now(), time.time()
        told = quota.read_headers(by_name(response.headers), wall=wall, now=now)
        self.live.pool.record(attempt, SERVED, now, told)
        if attempt.bare:
            self.live.ownership.learn(self.body.bound.hashes, NOBODY, wall)
        elif self.body.bound:
            kept = filter(self._keeps(attempt), self.body.bound.hashes)
            self.live.ownership.learn(list(kept), account.id, wall)

    def _selected(self, upstream: Upstream, document: object) -> None:
        self.auto.learn(upstream.account, document, self.headers, self.flow.request.raw_content or b"")

    async def judge(self, refusal: Refusal) -> None:
        """Answer the failover stream: is the request sent again?"""
        step = await self.verdict(refusal)
        if isinstance(step, Again):
            self.next, refusal.again = step.then, True
        elif isinstance(step, Answer):
            self._answer(step)
        else:
            self.note = step.note or self.note

    async def verdict(self, refusal: Refusal) -> Again | Answer | PassOn:
        """What is to be done after a refusal; the pool has learnt what it says."""
        upstream, response = self.upstream, self.flow.response
        if refusal.error is not None:  # mitmproxy quotes what it could not read
            refusal.error = self.live.sent.text(refusal.error)
        if refusal.local:
            why = f"this machine cannot connect: {printable(refusal.error or '')}"
            return self._own(503, "proxy_overloaded", why)
        if upstream is None:
            return PassOn() if refusal.error is None else replace(self._no_answer(refusal.error), note=self.note)
        if response is not None:
            self._redact(response)
        outcome = self._outcome(refusal, response)
        in_stream = response is not None and response.status_code < 400
        self.answers.append(None if in_stream else response)
        if self.kind is Kind.HOME:
            return self._home_refused(upstream, outcome, refusal.error)
        if outcome.action is Action.OWNER:
            self.request = replace(self.request, carries=await self.body.can_go_bare())
        status = response.status_code if response and not in_stream else None
        number = len(self.tries)
        following = self._refused(
            upstream.account,
            upstream.attempt,
            outcome,
            host=upstream.bearer.host,
            status=status,
            body=beginning(response),
        )
        if not isinstance(following, Nobody):
            return Again(following)
        if (other := await self._other_session(following)) is not None:
            return Again(other)
        if response is not None and in_stream and is_stream(response) and following.give in (None, number):
            # what came reaches the client as it is, and so does the rest of the stream
            response.headers.pop("x-copilot-account", None)
            requests.put_headers(response, None, len(self.tries), refused_by=upstream.account.label)
            return PassOn(f"{following.why}; the answer is {upstream.account.label}'s")
        return self._nobody(following)

    def _home_refused(self, upstream: Upstream, outcome: Outcome, error: str | None) -> Again | Answer | PassOn:
        """Ask another account for a list of models: clients end without one (docs/clients.md#copilot-cli)."""
        response = self.flow.response
        status = response.status_code if response else None
        self.tries.append(
            attempted(upstream.account, upstream.attempt, outcome, host=upstream.bearer.host, status=status)
        )
        if outcome.reason in (Reason.NEEDS_LOGIN, Reason.BLOCKED):
            self.live.pool.record(upstream.attempt, outcome, self.live.now())
        balances = self.lists_models and self.live.decisions.balancing and outcome.action is not Action.STOP
        if balances and (other := self._home_account()) is not None:
            return Again(other)
        return PassOn() if error is None else self._no_answer(error)

    def _refused(
        self,
        account: Account,
        attempt: Attempt,
        outcome: Outcome,
        *,
        host: str,
        status: int | None = None,
        body: str = "",
    ) -> Attempt | Hold | Nobody:
        """Tell the pool what came of the attempt; what it decides to do next."""
        now, pool = self.live.now(), self.live.pool
        pool.record(attempt, outcome, now)
        self.request = replace(self.request, tried=(*self.request.tried, Tried(attempt, outcome, now)))
        if outcome.reason is Reason.PREFIX:
            key = (account.fingerprint, host)
            self.live.prefixes[key] = "token" if self.live.prefixes.get(key, "Bearer") == "Bearer" else "Bearer"
        rest = pool.cooldown_left(attempt.account_id, attempt.model, now, self.request.client)
        self.tries.append(attempted(account, attempt, outcome, host=host, status=status, body=body, rest=rest))
        if outcome.reason is Reason.UNKNOWN and outcome.sent and self.live.unknown is not None:
            response = self.flow.response if status is not None else None
            accounts = self.live.decisions.accounts
            self.live.unknown.put(seen_refusal(self.flow.request, response, outcome, self.body.sent(), accounts))
        return pool.assign(self.request, self.live.now())

    def _outcome(self, refusal: Refusal, response: http.Response | None) -> Outcome:
        bound, own = bool(self.body.bound), self.live.settings.outcomes
        if response is None:
            return classify_error(refusal.error or "no answer", sent=refusal.sent)
        if self.passing is not None and (error := self.passing.error) is not None:
            return classify_event(
                error.code, self.live.sent.text(error.message), wall=time.time(), bound=bound, own=own
            )
        headers, body = by_name(response.headers), response.raw_content or b""
        return classify(response.status_code, headers, body, wall=time.time(), bound=bound, own=own)

    def _nobody(self, nobody: Nobody) -> Answer:
        """Nobody (else) can serve: give back a refusal that was given, or say so ourselves."""
        given = self.answers[nobody.give] if nobody.give is not None else None
        account = self.tries[nobody.give or 0].account if given is not None else None
        response = refusal_of(self.flow.request.path, nobody, given, self.request.tried, self.live.now())
        if nobody.free_at is not None and response.status_code != QUOTA_STATUS:
            left = nobody.free_at - self.live.now()
            told = told_wait(wait_rule(self.headers), left, self.live.settings.retry_after_cap)
            response.headers["retry-after"] = str(told)
            response.headers.pop("retry-after-ms", None)
        why = nobody.why if self.tries else f"{nobody.why}: {'; '.join(sentences(nobody, self.live.now()))}"
        whose = f"the answer is {account}'s" if account else ""
        return Answer(response, "; ".join(one for one in (why, self.auto.note, whose) if one), account)

    def _own(self, status: int, code: str, message: str) -> Answer:
        """A response of our own, in the service's shape."""
        return Answer(own_answer(self.flow.request.path, status, code, message), message)

    def _no_answer(self, error: str) -> Answer:
        return self._own(502, "bad_gateway", f"no answer from upstream: {printable(error)}")

    def _answer(self, step: Answer) -> http.Response:
        """Do what an `Answer` says; its response."""
        self.local, self.note = True, step.note
        self.flow.response = step.response
        requests.put_headers(step.response, None, len(self.tries), refused_by=step.account)
        return step.response

    def fault(self, where: str, error: Exception) -> None:
        """An exception of ours: the client gets a 502 with its id, and nothing else is done with this request."""
        incident = log_incident(where, error)
        self.next = None
        message = f"a fault of ours, incident {incident}; the proxy's log has the details"
        self._answer(replace(self._own(502, "proxy_fault", message), note=f"incident {incident}"))

    def let_go(self) -> None:
        """Break reference cycles once the request is over, so that it need not wait for the garbage collector."""
        if self.send is not None:
            self.send.authorize = self.send.watch = None
        if self.passing is not None:
            self.passing.let_go()
        self.send = self.passing = self.upstream = None
