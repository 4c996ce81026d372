"""What is recorded of a pool, and that recording changes nothing."""

import dataclasses
import json

import pytest
from hypothesis import given, strategies
from pydantic import ValidationError

from copilot_balancer import __version__
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.eligibility import PoolAccount
from copilot_balancer.rules.pool import Flight, Pool
from copilot_balancer.rules.ranking import PoolState
from copilot_balancer.rules.state import Affinity, Memory, Sighting
from copilot_balancer.rules.types import SERVED, Policy, PoolRequest, Tried
from copilot_balancer.store import decision_log
from copilot_balancer.store.decision_log import (
    LINE_BYTES,
    RECORDED,
    RECORDED_OF_ALL,
    RETRY_CALLS,
    RecordedPool,
    RecordedState,
    plain,
)
from copilot_balancer.store.decision_replay import CALLS, STATE
from support.pools import BLOCKED, FAULT, HOUR, LIMIT, QUOTA, START, account, answer, decisions, hinted
from support.recordings import POLICIES, Tape, steps, told


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def pool(tape):
    """Two accounts; recorded from the first call on."""
    pool = RecordedPool(Policy(), decisions("a", "b"), START)
    pool.record_to(tape.put)
    return pool


def resumed(pool: RecordedPool) -> RecordedPool:
    """The pool that a reader of its line has."""
    return RecordedPool.resumed(STATE.validate_python(json.loads(json.dumps(pool.state())), strict=False))


# --- nothing is changed -----------------------------------------------------------------------------------------------


@given(strategies.sampled_from(POLICIES), steps, strategies.sampled_from([0, 20, float("inf")]))
def test_recording_changes_no_decision(policy, story, room):
    """A recorded pool decides as one that is not, and learns the same, even when its lines find no room."""
    lived = told(policy, story, Tape(room))
    assert lived.pool.state() == lived.twin.state()
    assert repr(lived.pool.memory(lived.now)) == repr(lived.twin.memory(lived.now))


@given(strategies.sampled_from(POLICIES), steps, steps)
def test_a_pool_goes_on_from_its_line(policy, story, more):
    """At any moment, requests in flight included, the line of a pool is all of it: what reads it decides the same."""
    lived = told(policy, story, Tape())
    before = lived.pool.state()
    lived.twin = resumed(lived.pool)
    assert lived.twin.state() == before
    assert lived.pool.state() == before, "reading the line has not touched the pool"
    for one in more:
        lived.step(*one)
    assert lived.pool.state() == lived.twin.state()


def test_requests_under_way_stand_in_a_line(pool):
    """One is being served, one was refused, one was sent again: load and retry budget are the same afterwards."""
    pool.assign(PoolRequest("served", "gpt", START), START)
    refused = pool.assign(PoolRequest("refused", "gpt", START), START)
    pool.record(refused, FAULT, START)
    request = PoolRequest("again", "gpt", START)
    first = pool.assign(request, START)
    pool.record(first, FAULT, START)
    pool.assign(dataclasses.replace(request, tried=(Tried(first, FAULT, START),)), START)
    copy = resumed(pool)

    assert sum(view.in_flight for view in pool.snapshot(START).accounts) == 2
    assert copy.snapshot(START) == pool.snapshot(START)
    assert (copy._board.flights, copy._board.resent, copy._in_flight) == (3, 1, pool._in_flight)
    for one in ("served", "refused", "again"):
        copy.finish(one, START)
    assert (copy._board.flights, copy._board.resent, copy._in_flight) == (0, 0, {})


@pytest.mark.parametrize(
    ("names", "known"),
    [
        pytest.param(
            vars(Pool(Policy(), Decisions(), START)),
            {
                "_board", "_decisions", "_states", "_conversations", "_flights", "_stamps",  # in the line
                "_in_flight",  # follows from the flights
                "version",  # decides nothing
            },
            id="pool",
        ),
        pytest.param(
            [field.name for field in dataclasses.fields(PoolState)],
            {
                "policy", "scarce", "conversations",  # in the line
                "balancing", "members", "in_flight", "flights", "resent",  # follow from decisions and flights
            },
            id="board",
        ),
        pytest.param(
            [field.name for field in dataclasses.fields(PoolAccount)],
            {
                "state", "probes", "renewed_at",  # in the line
                "account", "position", "fingerprint", "home", "serving", "has",  # follow from decisions
            },
            id="member",
        ),
        pytest.param(
            [field.name for field in dataclasses.fields(Flight)],
            {"attempt", "serving", "resent", "marks", "unknown"},
            id="flight",
        ),
        pytest.param(
            Account.model_fields,
            {*RECORDED, "token", "login", "api_host", "plan", "added_at"},
            id="account",
        ),
        pytest.param(Decisions.model_fields, {*RECORDED_OF_ALL, "accounts", "adopt", "strategy", "routes"}, id="decisions"),
        pytest.param(
            [field.name for field in dataclasses.fields(Memory)],
            {"accounts", "conversations", "sightings"},  # the last are the addon's: a pool does not look at them
            id="memory",
        ),
        pytest.param(
            [name for name, what in vars(Pool).items() if callable(what) and not name.startswith("_")],
            {*CALLS, "explain", "snapshot", "cooldown_left", "may_have"},  # the latter only ask
            id="calls",
        ),
    ],
)  # fmt: skip
def test_a_line_holds_all_of_a_pool(names, known):
    """Whoever gives the pool a new part or a new call decides here how it is recorded."""
    assert set(names) == known


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_run_begins_with_the_whole_pool(pool, tape):
    """The first line holds everything, the others one call each, with its answer where it decides."""
    attempt = pool.assign(PoolRequest("r", "gpt", START, "talk"), START)
    pool.record(attempt, SERVED, START + 1, {})
    pool.finish("r", START + 2)
    assert pool.home(START).label == "a"
    assert pool.home(START, "work") is None
    pool.learn_models("github.com:a", (name for name in ["gpt", "o9"]), START, included=iter(["o9"]))
    first, *lines = tape.read

    assert (first["begin"], first["program"], first["continues"]) == (1, __version__, False)
    assert set(first["pool"]) == {field.name for field in dataclasses.fields(RecordedState)} - {"renewed"}
    assert first["pool"]["memory"]["accounts"]["github.com:a"] == {"credential": decisions("a").accounts[0].fingerprint}
    assert tape.begins == [0]
    assert lines[0] == {
        "call": "assign",
        "request": {"id": "r", "model": "gpt", "began": START, "conversation": "talk"},
        "now": START,
        "result": {"attempt": plain(attempt)},
    }
    assert [line["call"] for line in lines] == ["assign", "record", "finish", "home", "home", "learn_models"]
    assert [line.get("result") for line in lines[3:5]] == ["github.com:a", None]
    assert (lines[5]["models"], lines[5]["included"]) == (["gpt", "o9"], ["o9"])
    assert pool.memory(START).accounts["github.com:a"].models["o9"].included, "a generator is used up once only"


def test_what_a_call_calls_belongs_to_it(pool, tape):
    """A quota that comes with an answer is not recorded twice."""
    window = decision_log.QuotaWindow(30.0, seen_at=START)
    attempt = pool.assign(PoolRequest("r", "gpt", START), START)
    pool.record(attempt, SERVED, START, {"premium": window})
    assert tape.calls() == ["begin", "assign", "record"]
    assert tape.read[2]["quota"] == {"premium": {"percent_left": 30.0, "seen_at": START}}


def test_times_keep_their_bits(pool, tape):
    """What is read back is the same number."""
    moment = START + 1 / 3
    pool.finish("r", moment)
    assert tape.read[1]["now"].hex() == moment.hex()


def test_nothing_is_recorded_unless_asked_for(tape):
    """A pool begins silent, and falls silent again."""
    pool = RecordedPool(Policy(), decisions("a"), START)
    pool.finish("r1", START)
    pool.remember(Memory({}, {"talk": Affinity("github.com:a", START)}), START)
    pool.record_to(tape.put)
    pool.finish("r2", START)
    pool.record_to(None)
    pool.finish("r3", START)
    pool.record_to(tape.put)
    pool.finish("r4", START)
    assert tape.calls() == ["begin", "finish", "begin", "finish"]
    assert [line["continues"] for line in tape.read if "begin" in line] == [False, False]
    assert list(tape.read[0]["pool"]["memory"]["conversations"]) == ["talk"]


def test_no_secret_and_no_words(pool, tape):
    """No token is written, nor what a server wrote: it may quote the client; but for an abuse block's sentence."""
    said = answer(400, "model_not_supported", "quoting the client")
    block = answer(403, "spammy_user", "Access to this endpoint is forbidden. Please review our Terms of Service")
    assert (said.text, block.text) == ("quoting the client", BLOCKED.text)
    request = PoolRequest("r", "gpt", START)
    first = pool.assign(request, START)
    pool.record(first, said, START)
    second = pool.assign(dataclasses.replace(request, tried=(Tried(first, said, START),)), START)
    pool.record(second, block, START)
    pool.replace(decisions("a", "b", account("c", token="gho_third-canary", login="octocat")), START)
    text = "\n".join(tape.lines)

    assert "canary" not in text
    assert "quoting" not in text
    assert "octocat" not in text
    assert text.count("Terms of Service") == 1
    assert tape.read[2]["outcome"]["code"] == "model_not_supported"


def test_only_news_are_remembered(pool, tape):
    """What the pool knows already is left out of the line, and of the merge: ten thousand conversations each second."""
    pool.assign(PoolRequest("r", "gpt", START, "talk"), START)
    memory = pool.memory(START)
    memory.accounts["github.com:b"].served = 7
    memory.conversations["chat"] = Affinity("github.com:b", START)
    memory.sightings["0123456789ab"] = Sighting("github.com", START)
    pool.remember(memory, START)
    told = tape.read[-1]["memory"]

    assert list(told["accounts"]) == ["github.com:b"]
    assert list(told["conversations"]) == ["chat"]
    assert "sightings" not in told
    after = pool.memory(START)
    assert after.accounts["github.com:b"].served == 7
    assert set(after.conversations) == {"talk", "chat"}


def test_an_exception_is_recorded_and_goes_on(pool, tape):
    """A call that raises still raises; its line says so."""
    with pytest.raises(ValueError, match="is not a strategy"):
        pool.set_policy(Policy(strategy="luck"))
    assert tape.read[-1]["raised"] == "InvalidInput"
    pool.finish("r", START)
    assert tape.calls() == ["begin", "set_policy", "finish"]


# --- runs and gaps ----------------------------------------------------------------------------------------------------


def test_a_new_run_begins_in_time(pool, tape, monkeypatch):
    """A run is closed before it grows too large, and the next one says that nothing lies between."""
    monkeypatch.setattr(decision_log, "RUN_BYTES", 150)
    for number in range(9):
        pool.finish(f"r{number}", START)
    assert tape.calls() == ["begin", "finish", "finish", "finish"] * 3
    assert [line["continues"] for line in tape.read if "begin" in line] == [False, True, True]


def test_a_line_that_is_too_long_is_left_out(pool, tape):
    """A huge memory is not written as a call: the next run holds it anyway."""
    many = {f"{number:024x}": Affinity("github.com:a", START) for number in range(5000)}
    pool.remember(Memory({}, many), START)
    pool.finish("r", START)
    assert tape.calls() == ["begin", "gap", "begin", "finish"]
    assert len(tape.lines[2]) > LINE_BYTES
    assert tape.read[1] == {"gap": 1}
    assert tape.read[2]["continues"] is False
    assert len(tape.read[2]["pool"]["memory"]["conversations"]) == 5000


def test_what_is_no_noun_of_the_pool_ends_a_run_not_a_request(pool, tape):
    """A value that cannot be written is a gap; the call itself stands."""
    pool.finish(object(), START)
    pool.finish("r", START)
    assert tape.calls() == ["begin", "gap", "begin", "finish"]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_without_room_the_missed_calls_are_counted(room):
    """When lines are refused, a whole run is tried again only each so many calls, after a line that says what is missing."""
    tape = Tape(room)
    pool = RecordedPool(Policy(), decisions("a"), START)
    pool.record_to(tape.put)
    for number in range(RETRY_CALLS + 5):
        pool.finish(f"r{number}", START)
        tape.room = room if number < 3 else float("inf")

    calls = tape.calls()
    assert calls[room : room + 3] == ["gap", "begin", "finish"]
    assert RETRY_CALLS < tape.read[room]["gap"] <= RETRY_CALLS + 3
    assert tape.read[room]["gap"] + calls.count("finish") == RETRY_CALLS + 5
    assert tape.read[room + 1]["continues"] is False


def test_when_a_gap_found_room_but_no_run(pool, tape):
    """What was said to be missing is not said again."""
    for room in (2, 2, 3, *[float("inf")] * (RETRY_CALLS + 1)):
        tape.room = room
        pool.finish("r", START)
    assert tape.calls() == ["begin", "finish", "gap", "gap", "begin", "finish"]
    assert sum(line.get("gap", 0) for line in tape.read) == RETRY_CALLS + 2


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_as_json():
    """Nouns lose what has its default; sets are sorted; a policy is written whole."""
    assert plain(hinted(LIMIT, HOUR).rest) == {"kind": "ladder"}
    assert plain(frozenset({"b", "a"})) == ["a", "b"]
    assert plain({"key": (QUOTA.rest, None)})["key"][1] is None
    assert set(plain(Policy())) == {field.name for field in dataclasses.fields(Policy)}
    with pytest.raises(TypeError, match="a object is none"):
        plain(object())


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="no object"),
        pytest.param({"accounts": {}}, id="no list"),
        pytest.param({"accounts": [{"id": "github.com:1"}]}, id="an account without its parts"),
    ],
)
def test_what_are_no_decisions(found):
    """Decisions are read strictly, and nothing else than pydantic's own error is raised."""
    with pytest.raises((ValidationError, LookupError)):
        CALLS["replace"]["decisions"].validate_python(found)


def test_a_stand_in_holds_no_token(pool):
    """Whoever reads a log gets accounts that know their fingerprint and nothing to send."""
    one = resumed(pool).home(START)
    assert one.fingerprint == account("a").fingerprint
    assert one.token.get_secret_value() == decision_log.NO_TOKEN
