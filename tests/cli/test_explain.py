"""``explain`` and ``events replay`` on the command line."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies

from copilot_balancer.copilot.conversation import conversation_of
from copilot_balancer.copilot.quota import QuotaWindow
from copilot_balancer.rules.pool import Pool
from copilot_balancer.rules.ranking import STRATEGIES, Strategy
from copilot_balancer.rules.state import AccountState, Memory, ModelFact
from copilot_balancer.rules.types import SERVED, Attempt, Policy, PoolRequest, Route
from copilot_balancer.store.decision_log import DecisionLog, Recorder
from copilot_balancer.views.explanation import PARTS, TERMS, explain_text, explained
from support.command_line import CommandLine
from support.pools import (
    BLOCKED,
    DAY,
    FAULT,
    HOUR,
    LIMIT,
    MINUTE,
    MISSING,
    MODEL_LIMIT,
    START,
    WEEKLY,
    Bench,
    account,
    hinted,
)


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """A command line with two accounts, in a folder without settings."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    cli = CommandLine(tmp_path)
    cli.add("Work", "work")
    cli.add("Dog", "private")
    cli.run("terms", "accept", "--yes")
    return cli


def learn(
    cli: CommandLine, *outcomes, model: str = "gpt-5", conversation: str | None = None, age: float = 12.0
) -> None:
    """A proxy served a request and wrote down what it learnt, `age` seconds ago."""
    bench = Bench(now=cli.now - age)
    bench.decisions = cli.decisions
    bench.pool.replace(cli.decisions, bench.now)
    ask = bench.ask(model, conversation and conversation_of({"x-session-affinity": conversation}, None))
    for outcome in outcomes:
        ask.assign()
        ask.answered(outcome)
    ask.over()
    cli.env.store.merge_memory(bench.pool.memory(bench.now))
    os.utime(cli.env.store.state_path, (cli.now - age, cli.now - age))


def text_of(bench: Bench, model: str | None = "gpt", conversation: str | None = None) -> str:
    return explain_text(bench.pool.explain(model, conversation, bench.now), bench.now)


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain(cli):
    """Who would serve, by what, why not the others, and how old that is."""
    learn(cli, hinted(LIMIT, 10 * MINUTE), SERVED)
    result = cli.run("explain", "gpt-5")

    assert result.stdout == (
        "gpt-5 goes to private: only one that can serve.\n"
        "\n"
        "Who can serve it, best first; hybrid prefers the highest score, then the lowest\n"
        "turn, then the longest unused:\n"
        "     ACCOUNT  HEALTH  PACE  IDLE  SCARCE  DOUBT  SCORE  TURN  LAST USED\n"
        "  1  private    1.00  3.00  2.00    0.00   0.00  6.000     1   12 s ago\n"
        "  SCORE = HEALTH + PACE + IDLE + SCARCE + DOUBT\n"
        "\n"
        "The others:\n"
        "  work  rests after a rate limit, free again in 10 min\n"
    )
    assert result.stderr == (
        "note: this uses what was stored 12 s ago; what a proxy serves at this moment,\n"
        "      and options that it was given with --set, are not seen here\n"
    )


def test_explain_what_nobody_knows(cli):
    """A model that is on no account's list, and a fence without an account, are told with the nearest name."""
    [work, *_] = cli.decisions.accounts
    models = {"gpt-5": ModelFact(True, cli.now + 99, cli.now)}
    cli.env.store.merge_memory(
        Memory({work.id: AccountState(credential=work.fingerprint, listed_at=cli.now, models=models)})
    )
    told = " ".join(cli.run("explain", "gpt-9", "--fence", "defualt", exit_code=1).stderr.split())
    assert "gpt-9 is on no account's list (did you mean gpt-5?)" in told
    assert "no account is in the fence defualt (did you mean default?)" in told
    assert "no account's list" not in cli.run("explain", "gpt-5").stderr


def test_explain_when_nobody_can(cli):
    """Exit code 1 says that nobody can serve."""
    learn(cli, hinted(LIMIT, 10 * MINUTE), hinted(LIMIT, HOUR))
    result = cli.run("explain", "gpt-5", exit_code=1)

    assert result.stdout == (
        "Nobody can serve gpt-5 now (limited); the first is free in 10 min.\n"
        "\n"
        "Why not:\n"
        "  work     rests after a rate limit, free again in 10 min\n"
        "  private  rests after a rate limit, free again in 60 min\n"
        "\n"
        "Retry-After: 10 min for clients that print a wait or bound their sleep (openai\n"
        "library for Python (litellm, llm), Copilot CLI, copilot-language-server, VS\n"
        "Code); 60 s for all others, which may sleep as long as they are told; none with\n"
        "a used-up quota (402).\n"
    )


def test_explain_a_conversation(cli):
    """The client's own id finds the conversation, as the proxy names it."""
    learn(cli, SERVED, conversation="ses_1")
    stays = cli.run("explain", "gpt-5", "--conversation", "ses_1").stdout
    new = cli.run("explain", "gpt-5", "--conversation", "ses_2").stdout

    assert stays.startswith("gpt-5 goes to work: same conversation.")
    assert "  1  work *" in stays
    assert "  * the conversation is there already, which comes first\n" in stays
    assert new.startswith("gpt-5 goes to work: first by hybrid.")
    assert "  2  private -" in new
    assert "  - asked last: its own list lacks the model" in new
    assert "*" not in new


def test_explain_follows_the_settings(cli):
    """Strategy, routes and fence are the ones that the proxy would read."""
    folder = cli.env.paths.config
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        'strategy = "priority"\n[[routes]]\nmodels = ["gpt*"]\naccounts = ["private"]\n'
    )
    result = cli.run("explain", "gpt-5")
    assert "priority prefers the lowest priority number" in result.stdout
    assert "  work  is not in the route\n" in result.stdout
    (Path.cwd() / ".copilot-balancer.toml").write_text('strategy = "quota"\nwait = 3\n')
    result = cli.run("explain", "o9")
    assert "quota prefers the most quota left" in " ".join(result.stdout.split())
    assert "ignored wait" in result.stderr


def test_explain_another_fence(cli):
    """A fence is named as people write it; nobody stands in it here."""
    result = cli.run("explain", "gpt-5", "--fence", "My Work", exit_code=1)
    assert "  work     stands in another fence\n" in result.stdout
    assert cli.refused("explain", "gpt-5", "--fence", "!").startswith("'!' cannot be a label")


def test_explain_before_any_proxy_ran(cli):
    """Without a memory it says so."""
    cli.env.store.state_path.unlink(missing_ok=True)
    result = cli.run("explain", "gpt-5")
    assert "gpt-5 goes to work: first by hybrid." in result.stdout
    assert "nothing is stored about the accounts yet" in " ".join(result.stderr.split())


def test_explain_without_accounts(tmp_path, monkeypatch):
    """What to do then is said."""
    monkeypatch.chdir(tmp_path)
    result = CommandLine(tmp_path).run("explain", "gpt-5", exit_code=1)
    assert result.stdout == "No account is stored; `copilot-balancer accounts add` adds one.\n"


def test_explain_changes_nothing(cli):
    """Asking leaves no trace on disk."""
    learn(cli, hinted(LIMIT, 10 * MINUTE), SERVED)
    before = {path: path.read_bytes() for path in cli.home.rglob("*") if path.is_file()}
    cli.run("explain", "gpt-5", "--conversation", "ses_1")
    assert {path: path.read_bytes() for path in cli.home.rglob("*") if path.is_file()} == before


def test_explain_for_programs(cli):
    """The same as JSON: every term exact, times as text and in seconds."""
    learn(cli, hinted(LIMIT, 10 * MINUTE), SERVED)
    result = cli.run("explain", "gpt-5", "--json")

    assert json.loads(result.stdout) == {
        "model": "gpt-5",
        "conversation": None,
        "strategy": "hybrid",
        "account": "private",
        "decision": {"kind": "attempt", "why": "only one that can serve", "model": "gpt-5", "probe": False},
        "candidates": [
            {
                "account": "private",
                "stays": False,
                "asked_last": False,
                "terms": {"-score": -6.0, "turn": 1.0, "last used": cli.now - 12},
                "parts": {"health": 1.0, "pace": 3.0, "idle": 2.0, "scarcity": 0.0, "doubt": 0.0},
            }
        ],
        "why_not": [
            {
                "account": "work",
                "bar": "rests",
                "reason": "rests after a rate limit",
                "free_at": "2026-09-21T14:23:08Z",
                "free_in": 588.0,
            }
        ],
        "state_written_at": "2026-09-21T14:13:08Z",
    }
    assert result.stderr == ""


def test_a_hold_and_nobody_for_programs():
    """What is held says for how long, what is refused says when it is over; an unknown time is null."""
    bench = Bench("a", policy=Policy(wait=100.0, strategy="quota"))
    assert explained(bench.pool.explain("gpt", None, START), START)["candidates"][0]["terms"]["resets at"] is None
    bench.refuse(LIMIT)
    assert explained(bench.pool.explain("gpt", None, START), START)["decision"] == {
        "kind": "hold", "why": "waits for a", "seconds": 60.0,
    }  # fmt: skip
    bench.edit("a", enabled=False)
    assert explained(bench.pool.explain("gpt", None, START), START)["decision"] == {
        "kind": "nobody", "why": "no account can serve this now", "nobody": "unavailable", "retry_after": None,
        "free_at": None, "free_in": None,
    }  # fmt: skip


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "table"),
    [
        pytest.param(
            "hybrid",
            "ACCOUNT HEALTH PACE IDLE SCARCE DOUBT SCORE TURN LAST USED"
            " | 1 a 1.00 4.00 2.00 0.00 0.00 7.000 2 60 s ago | 2 b 1.00 1.84 2.00 0.00 0.00 4.840 1 2 min ago",
            id="hybrid",
        ),
        pytest.param("sticky", "ACCOUNT USED LAST PRIORITY | 1 a yes 5 | 2 b no 0", id="sticky"),
        pytest.param("round-robin", "ACCOUNT TURN | 1 b 1 | 2 a 2", id="round-robin"),
        pytest.param("priority", "ACCOUNT PRIORITY | 1 b 0 | 2 a 5", id="priority"),
        pytest.param(
            "quota",
            "ACCOUNT QUOTA LEFT RESETS IN FLIGHT TURN | 1 b 92 % unknown 0 1 | 2 a 42 % in 3 h 0 2",
            id="quota",
        ),
    ],
)  # fmt: skip
def test_the_terms_of_each_strategy(strategy, table):
    """Each strategy shows what it compares, in the words of people."""
    bench = Bench(account("a", priority=5), "b")
    for label in ("a", "b", "a"):
        bench.serve(only=f"github.com:{label}")
        bench.now += MINUTE
    bench.pool.learn_quota("github.com:a", {"premium": QuotaWindow(42.0, bench.now + 3 * HOUR)})
    bench.pool.learn_quota("github.com:b", {"premium": QuotaWindow(92.0)})
    bench.pool.set_policy(Policy(strategy=strategy))
    lines = text_of(bench).splitlines()
    first = next(index for index, line in enumerate(lines) if "ACCOUNT" in line)
    assert " | ".join(" ".join(line.split()) for line in lines[first : first + 3]) == table


def test_every_term_has_its_words():
    """No strategy compares by something that the table of terms does not know."""
    seen = [Bench("a", policy=Policy(strategy=name)).pool.explain("gpt", None, START).candidates for name in STRATEGIES]
    assert {name for (one,) in seen for name in one.terms} == set(TERMS)
    assert {name for (one,) in seen for name in one.parts} == set(PARTS)


def test_a_term_without_words(monkeypatch):
    """A term that is new is shown by its name."""
    monkeypatch.setitem(STRATEGIES, "priority", Strategy(lambda one, at: (7.5,), ("luck",)))
    assert "priority prefers the lowest luck" in text_of(Bench("a", policy=Policy(strategy="priority")))


def test_the_widest_table():
    """A score whose parts are all at their widest still leaves room for a label of ten letters."""
    bench = Bench("colleagues", "other")
    found = bench.pool.explain("gpt", None, bench.now)
    terms = {"-score": 17.123, "turn": 1234.5, "last used": bench.now - 39 * MINUTE}
    wide = {"health": 0.25, "pace": 4.0, "idle": 0.02, "scarcity": -12.25, "doubt": -10.0}
    found = replace(found, candidates=tuple(replace(one, terms=terms, parts=wide) for one in found.candidates))
    lines = explain_text(found, bench.now).splitlines()
    assert max(map(len, lines)) == 80
    assert "  1  colleagues    0.25  4.00  0.02  -12.25  -10.00  -17.123  1234.5  39 min ago" in lines


@pytest.mark.parametrize(
    ("model", "begin"),
    [
        pytest.param("gpt", "gpt goes to b: first in its route.", id="route"),
        pytest.param("o9", "o9 waits 30 s, and is then served: waits for a.", id="hold"),
        pytest.param(
            "mini",
            "a serves another model than mini: MODEL CHANGED to tiny, as your route says:\nnobody can serve mini.",
            id="another model",
        ),
        pytest.param(None, "A request without a model goes to b: first by hybrid.", id="no model"),
    ],
)
def test_the_first_line(model, begin):
    """What would happen stands first, in one sentence."""
    routes = (Route(("gpt*",), ("b", "a")), Route(("mini",), ("a",), ("tiny",)))
    bench = Bench("a", "b", policy=Policy(wait=40.0, routes=routes))
    bench.refuse(hinted(MODEL_LIMIT, 30.0), hinted(MODEL_LIMIT, 30.0), model="o9")
    bench.refuse(hinted(MODEL_LIMIT, 90.0), model="mini")
    assert text_of(bench, model).startswith(begin)


def test_a_route_gives_the_order():
    """Where the strategy alone would order otherwise, the text does not say that it did."""
    bench = Bench("a", "b", policy=Policy(routes=(Route(("gpt*",), ("b", "a")),)))
    bench.pool.learn_quota("github.com:b", {"premium": QuotaWindow(42.0)})
    assert "best first; a route, or a doubt, gives the order:" in text_of(bench)
    assert "best first; hybrid prefers" in text_of(bench, "o9")


def test_the_others_are_told_one_by_one():
    """Reasons stand under each other; a long label has a line of its own; what GitHub said cannot break a terminal."""
    long = "a" * 60
    bench = Bench("one", "blocked", long, "missing")
    bench.refuse(hinted(WEEKLY, 3 * DAY), only="github.com:one")
    bench.refuse(replace(BLOCKED, text="no\x1b[31m " + "more " * 30), only="github.com:blocked")
    bench.edit(long, enabled=False)
    bench.refuse(MISSING, only="github.com:missing")
    text = text_of(bench)

    assert text.startswith("Nobody can serve gpt now (limited); the first is free in 3 days.\n\nWhy not:\n")
    assert "\n  one      rests after a weekly limit, free again in 3 days\n" in text
    assert f"\n  {long}\n           is turned off\n" in text
    assert "\n  blocked  was blocked by GitHub (no\\x1b[31m more" in text
    assert "\n  missing  does not have the model gpt (asked again in 30 s)" in text


@given(
    strategies.lists(strategies.from_regex(r"[a-z0-9]{1,64}", fullmatch=True), min_size=1, max_size=4, unique=True),
    strategies.text(max_size=300) | strategies.sampled_from(["m" * 300, "\ud800", "\x1b[31m", "\u202egpt"]),
    strategies.sampled_from(sorted(STRATEGIES)),
    strategies.lists(strategies.sampled_from([LIMIT, MISSING, FAULT, SERVED]), max_size=3),
)
def test_no_name_breaks_the_text(labels, model, strategy, outcomes):
    """Whatever accounts and models are called: lines of at most 80 columns that a terminal can print."""
    bench = Bench(*labels, policy=Policy(strategy=strategy))
    ask = bench.ask(model or None, "talk")
    for outcome in outcomes:
        if isinstance(ask.assign(), Attempt):
            ask.answered(outcome)
    ask.over()
    text = text_of(bench, model or None, "talk")
    assert all(len(line) <= 80 and line.isprintable() for line in text.split("\n"))
    assert json.dumps(explained(bench.pool.explain(model, "talk", bench.now), bench.now), allow_nan=False)


# --- events replay ----------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(cli) -> bytes:
    """The proxy of this command line recorded some requests; the lines of its file."""
    file = DecisionLog(cli.env.store.folder)
    pool = Recorder(Pool(Policy(), cli.decisions, START), file)
    for number, outcome in enumerate((SERVED, LIMIT, SERVED, FAULT)):
        request = PoolRequest(f"r{number}", "gpt", START + number, f"talk{number}")
        pool.record(pool.assign(request, START + number), outcome, START + number)
        pool.finish(request.id, START + number)
    file.close()
    return (cli.env.store.folder / DecisionLog.NAME).read_bytes()


def test_replay(cli, recorded):
    """All the same: counted, on stdout, exit code 0."""
    result = cli.run("events", "replay")
    assert (result.stdout, result.stderr) == ("All the same: 4 decisions, 12 calls, 1 run.\n", "")


def test_replay_another_file(cli, recorded, tmp_path):
    """A file of one's own choice, like the one before."""
    path = tmp_path / DecisionLog.BEFORE
    path.write_bytes(recorded.replace(b'"program":"0', b'"program":"9'))
    result = cli.run("events", "replay", str(path))
    assert result.stdout.startswith("All the same")
    told = " ".join(result.stderr.split())
    assert re.match(
        r"note: recorded by copilot-balancer 9\S+; this is 0\S+, which may decide otherwise on purpose", told
    )


def test_replay_finds_a_difference(cli, recorded):
    """The first difference is told with its line, and what was recorded and what comes out now; exit code 1."""
    path = cli.env.store.folder / DecisionLog.NAME
    path.write_bytes(recorded.replace(b'"why":"first by hybrid"', b'"why":"by luck"', 1))
    result = cli.run("events", "replay", exit_code=1)
    assert result.stdout == (
        "Line 2: another result of assign.\n"
        "\n"
        "  result.attempt.why\n"
        "    recorded  by luck\n"
        "    now       first by hybrid\n"
        "\n"
        "Up to there the same: 1 decision, 1 call, 1 run.\n"
    )


def test_a_large_difference_is_shortened(cli, recorded):
    """Of a decision that differs in many places only the first are printed, without what could break a terminal."""
    first, second, *_ = recorded.splitlines()
    line = json.loads(second)
    line["result"]["attempt"] |= {f"new{number}": "\x1b" * 200 for number in range(9)}
    (cli.env.store.folder / DecisionLog.NAME).write_bytes(first + b"\n" + json.dumps(line).encode())
    lines = cli.run("events", "replay", exit_code=1).stdout.splitlines()
    assert lines[0] == "Line 2: another result of assign."
    assert "  and 1 more" in lines
    assert all(len(line) <= 80 and line.isprintable() for line in lines)


def test_replay_of_a_cut_file(cli, recorded):
    """What a killed proxy left, or somebody damaged, is said, and the rest is replayed."""
    path = cli.env.store.folder / DecisionLog.NAME
    path.write_bytes(recorded[:-5])
    result = cli.run("events", "replay")
    assert result.stdout == "The same as far as it can be read: 4 decisions, 11 calls, 1 run.\n"
    assert result.stderr == "note: line 13 is cut or was changed: KeyError: 'call'\n"
    lines = recorded.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{\n", *lines[3:]]))
    result = cli.run("events", "replay")
    assert result.stdout == "The same as far as it can be read: 1 decision, 1 call, 1 run.\n"
    assert result.stderr == (
        "note: line 3 is cut or was changed: KeyError: 'call'\n"
        "note: 10 lines could not be replayed: they belong to no run that is whole\n"
    )  # fmt: skip


def test_replay_for_programs(cli, recorded):
    """The same as JSON."""
    found = json.loads(cli.run("events", "replay", "--json").stdout)
    assert found.pop("file").endswith(DecisionLog.NAME)
    assert found.pop("programs")
    assert found == {
        "same": True, "runs": 1, "calls": 12, "decisions": 4, "skipped": 0, "broken": [], "difference": None,
    }  # fmt: skip
    (cli.env.store.folder / DecisionLog.NAME).write_bytes(
        recorded.replace(b'"why":"first by hybrid"', b'"why":"by luck"', 1)
    )
    found = json.loads(cli.run("events", "replay", "--json", exit_code=1).stdout)
    assert (found["same"], found["difference"]["line"], found["difference"]["call"]) == (False, 2, "assign")


def test_replay_of_nothing(cli, tmp_path):
    """No file, another file, or one that cannot be read is one sentence."""
    told = cli.refused("events", "replay")
    assert told.startswith("nothing is recorded yet: there is no ")
    assert told.endswith("decisions.jsonl; set copilot_record_decisions")
    other = tmp_path / "other"
    other.write_text("hello\n")
    assert cli.refused("events", "replay", str(other)) == f"{other}: this is no decision log"
    (cli.env.store.folder / DecisionLog.NAME).mkdir()
    assert cli.refused("events", "replay").endswith("decisions.jsonl cannot be read: Is a directory")
    assert "does not exist" in cli.run("events", "replay", "nowhere", exit_code=2).stderr


# --- explain-answer ---------------------------------------------------------------------------------------------------

GATED = "HTTP/2 403 \r\nContent-Type: application/json\r\n\r\n" + json.dumps(
    {"error": {"code": "surprise_me", "message": "gated for a moment gho_abcdefghij1234567890"}}
)


@pytest.mark.parametrize(
    ("answer", "options", "rule", "follows"),
    [
        ("HTTP/1.1 429 Too Many Requests\nRetry-After: 30\n\n", (), "limit without a code", "rests 30 s, as the server asked"),
        (GATED, (), "unknown 403", "then one other, once"),
        ('HTTP/1.1 404\r\n\r\n{"error":{"code":"not_found","message":""}}', ("--bound",), "conversation not found", "owns"),
        ("HTTP/1.1 404\n\nno", (), "request", "The client gets it as it is"),
        ('HTTP/1.1 403 no\n\n{"code":"spammy_user"}', (), "blocked", "until you enable it"),
    ],
    ids=["limit", "unknown", "bound state", "request", "abuse"],
)  # fmt: skip
def test_which_rule_judges_an_answer(cli, answer, options, rule, follows):
    """The rule, what it concerns and what follows, in words; a credential that the answer quotes is not printed."""
    told = cli.run("explain-answer", *options, typed=answer).output
    assert f"rule      {rule}\n" in told
    assert follows in " ".join(told.split())
    assert "gho_" not in told
    assert json.loads(cli.run("explain-answer", "--json", *options, typed=answer).output)["rule"] == rule


def test_a_rule_of_the_users_judges_an_answer(cli):
    """The rules of config.toml are asked as the proxy asks them."""
    folder = cli.env.paths.config
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        '[[outcomes]]\ncode = "surprise*"\nreason = "limit"\naction = "next"\nrest = 90\n'
    )
    told = cli.run("explain-answer", typed=GATED).output
    assert "rule      your rule 1\n" in told
    assert "It rests 90 s." in told


def test_what_is_no_answer(cli):
    """Without a status line it is said what one looks like."""
    assert "status line" in cli.refused("explain-answer", typed="403 no")


def test_an_answer_that_serves(cli):
    """A 200 is no refusal."""
    assert cli.run("explain-answer", typed="HTTP/1.1 200 OK\n\n{}").output == (
        "This is no refusal: the answer reaches the client.\n"
    )
