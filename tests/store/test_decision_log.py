"""What is recorded of a pool, and that recording changes nothing."""

import dataclasses
import json

import pytest
from hypothesis import given, strategies
from pydantic import TypeAdapter, ValidationError

from copilot_balancer import __version__
from copilot_balancer.rules.accounts import Account, Decisions
from copilot_balancer.rules.eligibility import PoolAccount
from copilot_balancer.rules.pool import Flight, Pool
from copilot_balancer.rules.ranking import PoolState
from copilot_balancer.rules.state import Affinity, Memory, Sighting
from copilot_balancer.rules.types import SERVED, Attempt, Policy, PoolRequest, Tried
from copilot_balancer.store import decision_log
from copilot_balancer.store.decision_log import (
    CALLS,
    FORMAT,
    LINE_BYTES,
    NO_TOKEN,
    RECORDED,
    RECORDED_OF_ALL,
    DecisionLog,
    RecordedState,
    Recorder,
    plain,
    resumed,
    state_of,
)
from support.pools import BLOCKED, FAULT, START, account, answer, decisions
from support.recordings import POLICIES, Tape, steps, told


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def pool(tape):
    """Two accounts; recorded from the first call on."""
    return Recorder(Pool(Policy(), decisions("a", "b"), START), tape)


def read_back(pool: Pool) -> Pool:
    """The pool that a reader of its line has."""
    return resumed(json.loads(json.dumps(state_of(pool))))


# --- nothing is changed -----------------------------------------------------------------------------------------------


@given(strategies.sampled_from(POLICIES), steps, strategies.sampled_from([0, 20, float("inf")]))
def test_recording_changes_no_decision(policy, story, room):
    """A recorded pool decides as one that is not, and learns the same, even when its lines find no room."""
    lived = told(policy, story, Tape(room))
    assert state_of(lived.inner) == state_of(lived.twin)
    assert repr(lived.pool.memory(lived.now)) == repr(lived.twin.memory(lived.now))


@given(strategies.sampled_from(POLICIES), steps, steps)
def test_a_pool_goes_on_from_its_line(policy, story, more):
    """At any moment, requests in flight included, the line of a pool is all of it: what reads it decides the same."""
    lived = told(policy, story, Tape())
    before = state_of(lived.inner)
    lived.twin = read_back(lived.inner)
    assert state_of(lived.twin) == before
    assert state_of(lived.inner) == before, "reading the line has not touched the pool"
    for one in more:
        lived.step(*one)
    assert state_of(lived.inner) == state_of(lived.twin)


def test_requests_under_way_stand_in_a_line(pool):
    """One is being served, one was refused, one was sent again: load and retry budget are the same afterwards."""
    pool.assign(PoolRequest("served", "gpt", START), START)
    refused = pool.assign(PoolRequest("refused", "gpt", START), START)
    pool.record(refused, FAULT, START)
    request = PoolRequest("again", "gpt", START)
    first = pool.assign(request, START)
    pool.record(first, FAULT, START)
    pool.assign(dataclasses.replace(request, tried=(Tried(first, FAULT, START),)), START)
    copy = read_back(pool.pool)

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
            {*CALLS, "explain", "snapshot", "cooldown_left", "may_have", "resets_at", "stops"},  # the latter only ask
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

    assert (first["begin"], first["program"]) == (FORMAT, __version__)
    assert set(first["pool"]) == {field.name for field in dataclasses.fields(RecordedState)} - {"renewed"}
    assert first["pool"]["memory"]["accounts"]["github.com:a"] == {"credential": decisions("a").accounts[0].fingerprint}
    assert lines[0] == {
        "call": "assign",
        "given": {"request": {"id": "r", "model": "gpt", "began": START, "conversation": "talk"}, "now": START},
        "result": {"attempt": plain(TypeAdapter(Attempt), attempt)},
    }
    assert [line["call"] for line in lines] == ["assign", "record", "finish", "home", "home", "learn_models"]
    assert [line.get("result") for line in lines[3:5]] == ["github.com:a", None]
    assert (lines[5]["given"]["models"], lines[5]["given"]["included"]) == (["gpt", "o9"], ["o9"])
    assert pool.memory(START).accounts["github.com:a"].models["o9"].included, "a generator is used up once only"


def test_what_a_call_calls_belongs_to_it(pool, tape):
    """A quota that comes with an answer is not recorded twice."""
    window = decision_log.QuotaWindow(30.0, seen_at=START)
    attempt = pool.assign(PoolRequest("r", "gpt", START), START)
    pool.record(attempt, SERVED, START, {"premium": window})
    assert tape.calls() == ["begin", "assign", "record"]
    assert tape.read[2]["given"]["quota"] == {"premium": {"percent_left": 30.0, "seen_at": START}}


def test_times_keep_their_bits(pool, tape):
    """What is read back is the same number."""
    moment = START + 1 / 3
    pool.finish("r", moment)
    assert tape.read[1]["given"]["now"].hex() == moment.hex()


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
    assert tape.read[2]["given"]["outcome"]["code"] == "model_not_supported"


def test_only_news_are_remembered(pool, tape):
    """What the pool knows already is left out of the line, and of the merge: ten thousand conversations each second."""
    pool.assign(PoolRequest("r", "gpt", START, "talk"), START)
    memory = pool.memory(START)
    memory.accounts["github.com:b"].served = 7
    memory.conversations["chat"] = Affinity("github.com:b", START)
    memory.sightings["0123456789ab"] = Sighting("github.com", START)
    pool.remember(memory, START)
    told = tape.read[-1]["given"]["memory"]

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


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_new_run_begins_in_time(pool, tape, monkeypatch):
    """A run is closed before it grows too large."""
    monkeypatch.setattr(decision_log, "RUN_BYTES", len(json.dumps(state_of(pool.pool), separators=(",", ":"))) + 200)
    for number in range(9):
        pool.finish(f"r{number}", START)
    assert tape.calls() == ["begin", "finish", "finish", "finish"] * 3


def test_a_line_that_is_too_long_is_left_out(pool, tape):
    """A huge memory is not written as a call: the next run holds it anyway."""
    many = {f"{number:024x}": Affinity("github.com:a", START) for number in range(5000)}
    pool.remember(Memory({}, many), START)
    pool.finish("r", START)
    assert tape.calls() == ["begin", "begin", "finish"]
    assert len(tape.lines[1]) > LINE_BYTES
    assert len(tape.read[1]["pool"]["memory"]["conversations"]) == 5000


def test_what_is_no_noun_of_the_pool_ends_a_run_not_a_request(pool, tape):
    """A value that cannot be written is left out; the call itself stands."""
    pool.finish(object(), START)
    pool.finish("r", START)
    assert tape.calls() == ["begin", "begin", "finish"]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_room_a_new_run_begins_later(pool, tape, left):
    """While lines are refused the calls go on unrecorded; what is recorded afterwards begins with the whole pool."""
    tape.left = left
    for number in range(5):
        pool.finish(f"r{number}", START)
    assert len(tape.lines) == left
    tape.left = float("inf")
    pool.finish("r", START)
    assert tape.calls()[left:] == ["begin", "finish"]


def test_a_slow_disk_costs_no_state(tmp_path, monkeypatch):
    """While much waits for the disk the whole pool is not taken down again and again."""
    log = DecisionLog(tmp_path / "state", waiting_bytes=5000)
    pool = Recorder(Pool(Policy(), decisions("a", "b"), START), log)
    while log.room > 2500:
        pool.finish("r", START)
    taken = []
    monkeypatch.setattr(decision_log, "state_of", lambda pool: taken.append(pool) or {})
    monkeypatch.setattr(decision_log, "LINE_BYTES", 10)
    for _ in range(9):
        pool.finish("r", START)
    assert taken == []


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="no object"),
        pytest.param({"accounts": 1}, id="no list"),
        pytest.param({"accounts": [{"id": "github.com:1"}]}, id="an account without its parts"),
        pytest.param({"accounts": [[]]}, id="an account that is none"),
    ],
)
def test_what_are_no_decisions(found):
    """Decisions are read strictly, and nothing else than pydantic's own error is raised."""
    with pytest.raises(ValidationError):
        CALLS["replace"]["decisions"].validate_python(found)


def test_a_stand_in_holds_no_token(pool):
    """Whoever reads a log gets accounts that know their fingerprint and nothing to send."""
    one = read_back(pool.pool).home(START)
    assert one.fingerprint == account("a").fingerprint
    assert one.token.get_secret_value() == NO_TOKEN
