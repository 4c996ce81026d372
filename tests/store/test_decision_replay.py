"""Whether recorded calls come out the same again, and what is said of files that are not whole."""

import json
from dataclasses import replace

import pytest
from hypothesis import assume, example, given, strategies

from copilot_balancer import __version__
from copilot_balancer.cli.explain import differing_parts
from copilot_balancer.errors import InvalidInput
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.types import SERVED, Policy, PoolRequest, Tried
from copilot_balancer.store import decision_log
from copilot_balancer.store.decision_log import Recorder
from copilot_balancer.store.decision_replay import Difference, Replay, replay
from support.pools import FAULT, HOUR, LIMIT, MISSING, START, account, decisions, hinted
from support.recordings import POLICIES, Story, Tape, steps, told


@pytest.fixture(scope="module")
def raw() -> tuple[bytes, ...]:
    """A recording of some runs, with refusals, edits, and requests under way where a run begins."""
    tape, was = Tape(), decision_log.RUN_BYTES
    decision_log.RUN_BYTES = 6000
    story = Story(Policy(strategy="round-robin"), tape)
    for number in range(24):
        story.ask(("gpt", "o9")[number % 2], f"talk{number % 5}")
        story.now += 1.1
        if number % 3:
            story.answer(0, (SERVED, hinted(LIMIT, 20.5), MISSING, FAULT, SERVED)[number % 5])
    story.edit(0, enabled=False)
    story.call("home", story.now)
    decision_log.RUN_BYTES = was
    return tuple(tape.raw)


def changed(line: bytes, **more: object) -> bytes:
    return json.dumps({**json.loads(line), **more}).encode()


def lines_with(raw: tuple[bytes, ...], key: str, value: object = None) -> list[int]:
    """Indices of the lines that hold `key`, and with this value when one is given."""
    read = [json.loads(line) for line in raw]
    return [index for index, line in enumerate(read) if key in line and value in (None, line[key])]


# --- the same ---------------------------------------------------------------------------------------------------------


@given(strategies.sampled_from(POLICIES), steps, strategies.sampled_from([0, 3000, decision_log.RUN_BYTES]))
def test_a_replay_comes_out_the_same(policy, story, size):
    """Whatever happens, each decision comes out the same, and so does the whole pool at each new run."""
    tape = Tape()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision_log, "RUN_BYTES", size)
        lived = told(policy, story, tape)
    assume(lived.calls)
    done = replay(tape.raw)

    assert done.difference is None
    assert (done.broken, done.skipped, done.calls) == ([], 0, lived.calls)
    assert done.decisions == sum(line.get("call") in ("assign", "home") for line in tape.read)
    assert (done.runs, done.programs) == (sum("begin" in line for line in tape.read), [__version__])


def test_several_runs(raw):
    """Requests that are under way where a run begins do not disturb it, nor does a file that begins there."""
    begins = lines_with(raw, "begin")
    done = replay(raw)
    assert done == Replay(runs=len(begins), calls=done.calls, decisions=done.decisions, programs=[__version__])
    assert len(begins) > 3
    flights = [json.loads(raw[index])["pool"].get("flights") for index in begins]
    assert sum(bool(one) for one in flights) > 1
    later = replay(raw[begins[2] :])
    assert (later.difference, later.runs) == (None, len(begins) - 2)


def test_a_call_that_raised_raises_again():
    """An exception of the pool is part of what is compared."""
    tape = Tape()
    pool = Recorder(Pool(Policy(), decisions("a"), START), tape)
    with pytest.raises(InvalidInput):
        pool.set_policy(Policy(strategy="luck"))
    assert replay(tape.raw).difference is None
    done = replay([tape.raw[0], changed(tape.raw[1], raised="KeyError")])
    assert done.difference == Difference(2, "set_policy", {"raised": "KeyError"}, {"raised": "InvalidInput"})


def test_a_replay_needs_no_token():
    """A recorded account with another token later is another credential again, though nobody knows either token."""
    tape = Tape()
    pool = Recorder(Pool(Policy(), decisions("a", "b"), START), tape)
    request = PoolRequest("r", "o9", START)
    first = pool.assign(request, START)
    pool.replace(decisions(account("a", token="gho_newer-canary"), "b"), START)
    pool.record(first, hinted(MISSING, HOUR), START)
    pool.assign(PoolRequest("r2", "o9", START), START)
    assert tape.read[-1]["result"]["attempt"]["account_id"] == "github.com:b"
    assert replay(tape.raw).difference is None
    same_token = changed(tape.raw[2], given={"decisions": tape.read[0]["pool"]["decisions"], "now": START})
    assert replay([*tape.raw[:2], same_token, *tape.raw[3:]]).difference is not None


# --- differences ------------------------------------------------------------------------------------------------------


@given(strategies.data())
def test_a_changed_answer_is_found(raw, data):
    """Each answer counts, and each part of it; the line is named, and nothing after it is looked at."""
    deciding = [*lines_with(raw, "call", "assign"), *lines_with(raw, "call", "home")]
    index = data.draw(strategies.sampled_from(deciding))
    line = json.loads(raw[index])
    if isinstance(line["result"], str):
        line["result"] = "github.com:x"
    else:
        (kind, parts), *_ = line["result"].items()
        key = data.draw(strategies.sampled_from([*parts, "new"]))
        parts[key] = data.draw(strategies.none() | strategies.integers(2) | strategies.floats(2, 3) | strategies.text())
        assume(parts[key] != json.loads(raw[index])["result"][kind].get(key))
    done = replay([*raw[:index], json.dumps(line).encode(), *raw[index + 1 :]])

    assert (done.difference.line, done.difference.call) == (index + 1, line["call"])
    assert done.difference.expected == {"result": line["result"]}
    assert len(list(differing_parts("", done.difference.expected, done.difference.got))) == 1


def test_the_parts_that_differ():
    """Each differing place is told by its name; a missing part is None."""
    expected = {"result": {"nobody": {"accounts": [{"label": "a"}, {"label": "b"}], "why": "x", "free": [1, 2]}}}
    got = {"result": {"nobody": {"accounts": [{"label": "a"}, {"label": "c", "free_at": 1.0}], "free": [1]}}}
    assert list(differing_parts("", expected, got)) == [
        ("result.nobody.accounts[1].label", "b", "c"),
        ("result.nobody.accounts[1].free_at", None, 1.0),
        ("result.nobody.why", "x", None),
        ("result.nobody.free", [1, 2], [1]),
    ]


# --- files that are not whole -----------------------------------------------------------------------------------------


CUT = "is cut or was changed"


def test_the_rest_of_a_run_is_passed_over(raw):
    """Where somebody emptied the file under a running proxy, what is left begins with the next run."""
    begin = lines_with(raw, "begin")[1]
    done = replay(raw[begin - 3 :])
    assert (done.difference, done.broken, done.skipped) == (None, [], 3)


def test_a_cut_last_line_is_said(raw):
    """What a killed proxy did not write to its end is no difference."""
    done = replay([*raw[:-1], raw[-1][:-9]])
    assert done.difference is None
    assert done.broken == [f"line {len(raw)} {CUT}: KeyError: 'call'"]


def test_a_cut_line_before_a_new_run_is_said(raw):
    """The next proxy begins after what the one before left."""
    begin = lines_with(raw, "begin")[1]
    done = replay([*raw[: begin - 1], raw[begin - 1][:20], *raw[begin:]])
    assert done.difference is None
    assert done.broken == [f"line {begin} {CUT}: KeyError: 'call'"]
    assert done.runs == len(lines_with(raw, "begin"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(b"{", "KeyError: 'call'", id="no JSON"),
        pytest.param(b"[1]", "KeyError: 'call'", id="no object"),
        pytest.param(b"\xff\xfe", "KeyError: 'call'", id="no UTF-8"),
        pytest.param(b"[" * 100_000, "KeyError: 'call'", id="too deep"),
        pytest.param(b'{"call": []}', "KeyError: '[]'", id="no name"),
        pytest.param(b'{"call": "explain"}', "KeyError: 'explain'", id="unknown call"),
        pytest.param(b'{"call": "finish"}', "KeyError: 'given'", id="no input"),
        pytest.param(b'{"call": "finish", "given": {}}', "KeyError: 'request_id'", id="an input is missing"),
        pytest.param(
            b'{"call": "finish", "given": {"request_id": "r", "now": "soon"}}',
            ": Input should be a valid number, unable to parse string as a number",
            id="an input of another type",
        ),
        pytest.param(
            b'{"begin": 2}', ": Input should be a dictionary or an instance of RecordedState",
            id="no pool",
        ),
    ],
)  # fmt: skip
def test_a_damaged_line_is_said(raw, line, why):
    """It ends its run; the next one is replayed."""
    begins = lines_with(raw, "begin")
    done = replay([*raw[:2], line, *raw[3:]])
    assert done.difference is None
    assert done.broken == [f"line 3 {CUT}: {why}"]
    assert done.skipped == begins[1] - 3
    assert done.runs == len(begins) + (b"begin" in line)


def test_a_pool_that_does_not_fit_together_is_said(raw):
    """A beginning whose parts contradict each other is damage, not a traceback."""
    first = json.loads(raw[0])
    first["pool"]["memory"] = {}
    done = replay([json.dumps(first).encode(), *raw[1:3]])
    assert done.broken == [f"line 1 {CUT}: KeyError: 'github.com:a'"]
    assert (done.calls, done.skipped) == (0, 2)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        pytest.param([], "nothing is recorded in it", id="empty"),
        pytest.param([b"work,1\n"], "this is no decision log", id="not ours"),
        pytest.param([b'{"call": "finish"}'], "this is no decision log", id="the rest of a run"),
        pytest.param(
            [b'{"begin": 1, "program": "0.0.9", "continues": false, "pool": {}}'],
            f"line 1 is written in format 1 by copilot-balancer 0.0.9; this is {__version__} and knows format 2",
            id="older",
        ),
        pytest.param(
            [b'{"begin": [0]}'],
            f"line 1 is written in format [0] by copilot-balancer None; this is {__version__} and knows format 2",
            id="made up",
        ),
    ],
)
def test_what_is_no_decision_log_is_refused(lines, why):
    """Another file, or another format, is one sentence."""
    with pytest.raises(InvalidInput) as error:
        replay(lines)
    assert str(error.value) == why


def test_who_recorded_it(raw):
    """The versions of the programs are told in their order, each once."""
    older = changed(raw[0], program="0.0.9")
    assert replay([older, raw[1], raw[0], older]).programs == ["0.0.9", __version__]


junk = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.floats() | strategies.integers() | strategies.text(),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(strategies.data(), junk)
@example(data=None, value=None)
def test_no_file_makes_it_raise(raw, data, value):
    """Whatever somebody makes of a file, there is an answer or one sentence."""
    lines = list(raw[: lines_with(raw, "begin")[1] + 1])
    if data is None:
        lines[0] = lines[0].replace(b'"weight":1.0', b'"weight":1e999')
    else:
        index = data.draw(strategies.integers(0, len(lines) - 1))
        place = line = json.loads(lines[index])
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(strategies.sampled_from(keys))
            before, place = place, place[key]
            if data.draw(strategies.booleans()):
                break
        before[key] = value
        lines[index] = json.dumps(line).encode()
    try:
        done = replay(lines)
    except InvalidInput:
        return
    difference = done.difference
    assert json.dumps(
        [list(part) for part in differing_parts("", difference.expected, difference.got)] if difference else []
    )


def test_what_was_tried_is_read_back():
    """A request that was refused before holds its attempts, and with them its next decision comes out the same."""
    tape = Tape()
    pool = Pool(Policy(), decisions("a", "b"), START)
    request = PoolRequest("r", "gpt", START)
    first = pool.assign(request, START)
    pool.record(first, FAULT, START)
    recorder = Recorder(pool, tape)  # in the middle of a request
    recorder.assign(replace(request, tried=(Tried(first, FAULT, START),)), START)
    assert tape.read[1]["result"]["attempt"]["why"] == "only one that can serve"
    assert replay(tape.raw).difference is None
