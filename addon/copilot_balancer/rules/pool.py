"""The pool: assigns each request to an account and records the outcome of each attempt.

Laws of this file:

1. No await, no lock, no clock: a method call is a transaction at ``now`` (seconds on the steady clock). The same calls
   give the same decisions, bit for bit: no chance, no order of a set.
2. State is keyed by account id; it outlives every edit of the account, and the removal of another one.
3. Only an attempt that began after a cooldown began can raise or end it (``cooldowns``); evidence about an older
   credential is ignored.
4. When every account refuses a request for the same reason within moments, no account gets a cooldown for it, except
   for a time that the server named.
5. A request asks each account at most once, plus one repair in all: a new token, a wait, the owner of the bound state,
   or another model.

Theory of operation. A client request is assigned again and again until it is served or given up: `assign` returns an
`Attempt` (send it with this account), a `Hold` (ask again at a time) or `Nobody`. After each attempt `record` stores
its outcome, and the caller adds the attempt to ``PoolRequest.tried`` and asks again; `finish` ends the request. So
everything that a decision needs is in the request, in the facts about the accounts (``state``) and in ``now``. `decide`
reads these and changes nothing; this file alone changes them. Each refusal is judged alone (``cooldowns.learn``); this
file adds what only the whole request shows: that every account refused alike (the cooldowns of this request are undone,
unless the server named the time), and that another account served what one refused for an unknown reason (the model
gets a cooldown of a minute on the account that refused).
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.cooldowns import (
    Mark,
    clear,
    distrust,
    forget_clients,
    learn,
    listed,
    prune,
    take_back,
    turned_off,
)
from copilot_balancer.rules.decide import decide, is_nobodys_fault
from copilot_balancer.rules.eligibility import (
    PROBE_LEASE,
    PoolAccount,
    cooling,
    lacks,
    repairable,
    scarce,
    settled,
    unproved,
)
from copilot_balancer.rules.ranking import PoolState, affinity_keys, bar, strategy
from copilot_balancer.rules.snapshot import Explanation, PoolSnapshot, explain, snapshot
from copilot_balancer.rules.state import (
    MAX_CONVERSATIONS,
    AccountState,
    Affinity,
    Memory,
    ModelFact,
    copied,
    merge,
    newest_conversations,
    refilled,
)
from copilot_balancer.rules.types import (
    Attempt,
    Hold,
    Nobody,
    Outcome,
    Policy,
    PoolRequest,
    Reason,
)


@dataclass(slots=True)
class Flight:
    """A client request under way."""

    attempt: Attempt
    serving: bool = True
    """The request was sent to the account and not refused."""
    resent: bool = False
    """It was sent again and has no answer yet."""
    marks: list[Mark] = field(default_factory=list)
    """What its attempts changed, to be undone when every account refused alike."""
    unknown: list[Attempt] = field(default_factory=list)
    """Its attempts that were refused for a reason that no rule knows."""


class Pool:
    """All accounts, the facts learnt about them, and the requests in flight.

    Args:
        policy: what the user set.
        decisions: the accounts and what the user decided about them.
        now: seconds on the steady clock.

    Raises:
        InvalidInput: the policy names a strategy that does not exist.

    """

    def __init__(self, policy: Policy, decisions: Decisions, now: float) -> None:
        strategy(policy.strategy)
        self.version = 0
        """Rises on each change that is worth keeping."""
        self._decisions = Decisions()
        self._states: dict[str, AccountState] = {}
        self._conversations: OrderedDict[str, Affinity] = OrderedDict()
        """Least recently used first."""
        self._flights: dict[str, Flight] = {}
        self._stamps: dict[tuple[str, str], tuple[float, float]] = {}
        """(account id, model) -> (when the user cleared that, the moment on our clock that it stands for)."""
        self._in_flight: dict[str, int] = {}
        self._board = PoolState(policy, decisions.balancing, {}, self._conversations, self._in_flight, {})
        self.replace(decisions, now)

    # --- a request --------------------------------------------------------------------------------------------------

    def assign(self, request: PoolRequest, now: float) -> Attempt | Hold | Nobody:
        """The next step for `request`; called again after each refusal and each hold, with ``request.tried`` grown."""
        if request.tried and is_nobodys_fault(self._board, request, now):
            self._forgive(request.id, now)
        decision, turn = decide(self._board, request, now)
        if isinstance(decision, Attempt):
            self._take(request, decision, turn, now)
        return decision

    def record(
        self, attempt: Attempt, outcome: Outcome, now: float, quota: Mapping[str, QuotaWindow] | None = None
    ) -> None:
        """Note what came of `attempt`: a refusal, or ``SERVED`` when the head of a success has come."""
        flight = self._flights.get(attempt.request_id)
        if flight is not None and flight.attempt.number == attempt.number:
            self._answered(flight)
            if outcome.reason is not Reason.SERVED:
                self._land(flight)
        member = self._board.members.get(attempt.account_id)
        if member is None:
            return
        _release(member, attempt.request_id)
        if member.fingerprint != attempt.credential:
            return
        if quota:
            self.learn_quota(attempt.account_id, quota)
        before = member.state.models.get(attempt.model or "")
        mark = learn(
            member.state,
            attempt,
            outcome,
            now,
            direct=member.direct,
            model_ttl=self._board.policy.model_ttl,
            enabled_at=member.account.enabled_at,
            renews=not attempt.repair and repairable(member, outcome, now),
        )
        if flight is not None:
            if mark is not None:
                flight.marks.append(mark)
            self._compare(flight, attempt, outcome, now)
        after = member.state.models.get(attempt.model or "")
        if outcome.models or _in_use(before) != _in_use(after):
            self._weigh_models()
        self.version += 1

    def _compare(self, flight: Flight, attempt: Attempt, outcome: Outcome, now: float) -> None:
        """A refusal that nobody understands counts once another account has served the same request."""
        if outcome.reason is Reason.UNKNOWN:
            flight.unknown.append(attempt)
        elif outcome.reason is Reason.SERVED:
            for earlier in flight.unknown:
                member = self._board.members.get(earlier.account_id)
                same = member is not None and member.fingerprint == earlier.credential
                if member is not None and same and earlier.account_id != attempt.account_id:
                    distrust(member.state, earlier, now)
            flight.unknown = []

    def finish(self, request_id: str, now: float) -> None:  # noqa: ARG002 - each transaction has its moment
        """The client's request is over, however it ended; may be called again."""
        flight = self._flights.pop(request_id, None)
        if flight is None:
            return
        self._answered(flight)
        self._land(flight)
        self._board.flights = len(self._flights)
        member = self._board.members.get(flight.attempt.account_id)
        if member is not None:
            _release(member, request_id)

    def _take(self, request: PoolRequest, attempt: Attempt, turn: float | None, now: float) -> None:
        """`attempt` is about to be sent."""
        board, member = self._board, self._board.members[attempt.account_id]
        flight = self._flights.get(request.id)
        if flight is None:
            flight = self._flights[request.id] = Flight(attempt)
            board.flights = len(self._flights)
        else:
            self._answered(flight)
            self._land(flight)
            flight.attempt, flight.serving = attempt, True
        self._in_flight[attempt.account_id] = self._in_flight.get(attempt.account_id, 0) + 1
        if attempt.number > 1:
            flight.resent = True
            board.resent += 1
        if attempt.renew:
            member.renewed_at = now
        for key in unproved(member, attempt, now) if attempt.probe else ():
            member.probes[key] = (request.id, now + PROBE_LEASE)
        if turn is not None:
            member.state.turn = turn + 1.0 / member.account.weight
        if board.balancing and request.conversation is not None and board.policy.affinity > 0:
            self._settle_down(request.conversation, attempt.model, member, now)
        member.state.last_used = now
        self.version += 1

    def _settle_down(self, conversation: str, model: str | None, member: PoolAccount, now: float) -> None:
        """The conversation is with this account now: for this model only, when its own account lacks just that."""
        for_model, for_all = affinity_keys(conversation, model)
        known = self._conversations.get(for_all)
        here = Affinity(member.account.id, now)
        if known is not None and known.account_id != member.account.id and self._still_serves(known, conversation, now):
            self._remember_where(for_all, Affinity(known.account_id, now))
            self._remember_where(for_model, here)
        else:
            self._conversations.pop(for_model, None)
            self._remember_where(for_all, here)

    def _still_serves(self, known: Affinity, conversation: str, now: float) -> bool:
        """Whether a conversation's account could go on with it, if only the model were another one."""
        member = self._board.members.get(known.account_id)
        if member is None or now - known.used_at >= self._board.policy.affinity:
            return False
        anything = PoolRequest("", None, now, conversation, fence=member.account.fence)
        return bar(self._board, member, anything, None, now) is None

    def _remember_where(self, key: str, here: Affinity) -> None:
        self._conversations[key] = here
        self._conversations.move_to_end(key)
        if len(self._conversations) > MAX_CONVERSATIONS:
            self._conversations.popitem(last=False)

    def _answered(self, flight: Flight) -> None:
        if flight.resent:
            flight.resent = False
            self._board.resent -= 1

    def _land(self, flight: Flight) -> None:
        """The account is not busy with this request any more."""
        if flight.serving:
            flight.serving = False
            account_id = flight.attempt.account_id
            self._in_flight[account_id] -= 1
            if not self._in_flight[account_id]:
                del self._in_flight[account_id]

    def _forgive(self, request_id: str, now: float) -> None:
        """Every account refused this request alike: take back what its attempts marked."""
        flight = self._flights.get(request_id)
        for mark in flight.marks if flight is not None else ():
            if mark.account_id in self._states:
                take_back(self._states[mark.account_id], mark, now)
        if flight is not None and flight.marks:
            flight.marks = []
            self.version += 1

    # --- what is learnt elsewhere -----------------------------------------------------------------------------------

    def learn_models(
        self,
        account_id: str,
        models: Iterable[str],
        now: float,
        included: Iterable[str] = (),
        disabled: Iterable[str] = (),
    ) -> None:
        """An account's own list of models has passed.

        Args:
            account_id: whose list it is.
            models: that it has.
            now: seconds on the steady clock.
            included: those of them that cost nothing.
            disabled: those that its policy has turned off.

        """
        member = self._board.members.get(account_id)
        if member is None:
            return
        listed(member.state, models, now, self._board.policy.model_ttl, frozenset(included))
        turned_off(member.state, disabled, now)
        member.state.listed_at = now
        self._weigh_models()
        self.version += 1

    def learn_quota(self, account_id: str, windows: Mapping[str, QuotaWindow]) -> None:
        """An answer, or the end of a stream, said what is left of an account's quota."""
        member = self._board.members.get(account_id)
        if member is None:
            return
        for name, window in windows.items():
            known = member.state.quota.get(name)
            if known is None or known.seen_at <= window.seen_at:
                member.state.quota[name] = window
                refilled(member.state, name, known, window)
        self.version += 1

    # --- what the user decided --------------------------------------------------------------------------------------

    def resets_at(self, account_id: str) -> float | None:
        """When the account's billing period ends, as GitHub named it; None: it did not, or the account is gone."""
        member = self._board.members.get(account_id)
        window = member.state.quota.get("premium") if member else None
        return window.resets_at if window else None

    def set_policy(self, policy: Policy) -> None:
        """Go on with another policy.

        Raises:
            InvalidInput: it names a strategy that does not exist; the old policy stays.

        """
        strategy(policy.strategy)
        self._board.policy = policy
        for member in self._board.members.values():
            member.has = policy.preseed.get(member.account.label)
        self._weigh_models()

    def replace(self, decisions: Decisions, now: float) -> None:
        """Go on with other decisions: what was learnt about an account outlives every edit but its removal."""
        before, home = self._board.members, decisions.home
        serving = {account.id for account in decisions.serving()}
        self._states = {key: state for key, state in self._states.items() if key not in decisions.removed}
        self._board.balancing = decisions.balancing
        self._board.members = {}
        for position, account in enumerate(decisions.accounts):
            known = before.get(account.id)
            self._board.members[account.id] = PoolAccount(
                account=account,
                state=self._states.setdefault(account.id, AccountState()),
                position=position,
                fingerprint=account.fingerprint,
                home=home is not None and account.id == home.id,
                serving=account.id in serving,
                has=self._board.policy.preseed.get(account.label),
                probes=known.probes if known else {},
                renewed_at=known.renewed_at if known else -math.inf,
            )
            for model, stamp in account.cleared.items():
                self._note_clearing(account.id, model, stamp, now, known=known is not None)
        self._decisions = decisions
        self._refresh()
        self.version += 1

    def _note_clearing(self, account_id: str, model: str, stamp: float, now: float, *, known: bool) -> None:
        """Find our moment for a stamp of the user, who reads the wall clock: a new one of a known account is from now.

        One that was there before we started counts as it is, and one from the future (the clock was set back) not.
        """
        seen = self._stamps.get((account_id, model))
        if seen is None or seen[0] != stamp:
            self._stamps[account_id, model] = (stamp, now if known else stamp if stamp <= now else 0.0)

    def _refresh(self) -> None:
        """Bring what was learnt in line with what was decided."""
        for member in self._board.members.values():
            state = member.state
            if state.credential != member.fingerprint:
                state.credential = member.fingerprint
                state.rejected_at, state.models, state.listed_at = None, {}, None
                forget_clients(state)
            for model in member.account.cleared:
                clear(state, model, self._stamps[member.account.id, model][1])
        self._weigh_models()

    def _weigh_models(self) -> None:
        self._board.scarce = scarce(self._board.members.values())

    # --- memory -----------------------------------------------------------------------------------------------------

    def remember(self, memory: Memory, now: float) -> None:
        """Take in what was learnt before, or by another proxy (times on the steady clock)."""
        known = {key: member.fingerprint for key, member in self._board.members.items()}
        theirs = {
            key: state if known.get(key, state.credential) == state.credential else _without_credential(state)
            for key, state in memory.accounts.items()
            if key not in self._decisions.removed
        }
        self._states = merge(Memory(theirs), Memory(self._states)).accounts
        for key, member in self._board.members.items():
            member.state = self._states[key]
        self._refresh()
        newer = {
            key: here
            for key, here in memory.conversations.items()
            if key not in self._conversations or self._conversations[key].used_at < here.used_at
        }
        if newer:
            merged = newest_conversations({**self._conversations, **newer})
            self._conversations.clear()
            self._conversations.update(merged)
        self._forget_old(now)

    def memory(self, now: float) -> Memory:
        """What was learnt, to be kept: an independent copy (times on the steady clock)."""
        self._forget_old(now)
        return Memory({key: copied(state) for key, state in self._states.items()}, dict(self._conversations))

    def _forget_old(self, now: float) -> None:
        for state in self._states.values():
            prune(state, now)
        while self._conversations:
            oldest = next(iter(self._conversations.values()))
            if now - oldest.used_at < self._board.policy.affinity:
                break
            self._conversations.popitem(last=False)

    # --- questions --------------------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> PoolSnapshot:
        """What ``status`` and the dashboard show."""
        return snapshot(self._board, now)

    def explain(self, model: str | None, conversation: str | None, now: float, fence: str | None = None) -> Explanation:
        """Who would serve a request for `model` in `conversation` (its hash) if it came now; nothing is changed."""
        request = PoolRequest("explain", model, now, conversation, fence)
        return explain(self._board, request, now)

    def home(
        self, now: float, fence: str | None = None, without: Collection[str] = (), host: str | None = None
    ) -> Account | None:
        """Who answers what only one account may answer (``/models``): the home account, else the first that can.

        Args:
            now: seconds on the steady clock.
            fence: only accounts of this fence; None: of the policy's.
            without: ids of accounts that have just refused.
            host: only accounts of this login host; None: of any.

        """
        members = sorted(self._board.members.values(), key=lambda member: (not member.home, member.position))
        request = PoolRequest("", None, now, fence=fence, host=host)
        able = (
            m
            for m in members
            if m.account.id not in without
            and not settled(m, request, fence or self._board.policy.fence, None, balancing=self._board.balancing)
        )
        return next((member.account for member in able), None)

    def stops(self) -> list[tuple[str, float, str, float]]:
        """The accounts that GitHub stopped and whose decisions do not say so yet: id, when, why, their `enabled_at`."""
        return [
            (key, member.state.blocked_at, member.state.blocked_why, member.account.enabled_at)
            for key, member in self._board.members.items()
            if member.account.stopped_at is None and member.blocked and member.state.blocked_at is not None
        ]

    def may_have(self, account_id: str, model: str, now: float) -> bool:
        """Whether this account could be asked for `model` in better times: nothing but a rest speaks against it."""
        member = self._board.members.get(account_id)
        return member is not None and member.account.takes(model) is None and lacks(member, model, now) is None

    def cooldown_left(self, account_id: str, model: str | None, now: float, client: str = "") -> float | None:
        """Seconds for which this account is not asked for `model`: it rests, or is known to lack it; None: it is."""
        member = self._board.members.get(account_id)
        if member is None:
            return None
        rest, gone = cooling(member.state, PoolRequest("", model, now, client=client), now), lacks(member, model, now)
        until = max((rest.until if rest else now), gone if gone is not None and gone != math.inf else now)
        return until - now if until > now else None


def _release(member: PoolAccount, request_id: str) -> None:
    """The probes of this request have their answer, or will never have one."""
    if member.probes:
        member.probes = {key: lease for key, lease in member.probes.items() if lease[0] != request_id}


def _in_use(fact: ModelFact | None) -> tuple[bool, bool] | None:
    """What ``eligibility.scarce`` looks at."""
    return None if fact is None else (fact.has, fact.times > 0)


def _without_credential(state: AccountState) -> AccountState:
    return replace(state, credential="", rejected_at=None, models={}, listed_at=None)
