"""``events``: what proxies wrote down about finished requests."""

import functools
import json
from dataclasses import replace
from datetime import timedelta, timezone

import click
import pytest

from copilot_balancer.cli.events import events
from copilot_balancer.cli.main import cli as program
from copilot_balancer.store.request_log import NAME, RequestLog
from copilot_balancer.store.request_record import AttemptRecord, RequestRecord, document
from copilot_balancer.store.unknown_refusals import SeenRefusal, UnknownRefusalLog
from support.command_line import CommandLine

WORK = AttemptRecord("work", "api.githubcopilot.com", "sticky", "limit", 429, 30.0, "slow down")
SPARE = AttemptRecord("spare", "api.githubcopilot.com", "least recently used", "served", 200)
START = 1_790_000_000.25
SERVED = RequestRecord(
    START, "f1", "gpt-5", "served", 200, 812.0, "spare", "api.githubcopilot.com", attempts=(SPARE,),
    client="opencode/1.18.33",
)  # fmt: skip
OVER = replace(SERVED, client="", at=START + 1, id="f2", verdict="failed over", attempts=(WORK, SPARE), what="gpt-4.1")
REFUSED = RequestRecord(
    START + 2, "f3", "GPT-5", "refused", 429, 3.0, attempts=(WORK,), note="all accounts tried, all refused"
)
OTHER = replace(SERVED, client="copilot/1.0.102", at=START + 3, id="f4", what="o3", model="gpt-5")


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.setitem(program.commands, "events", events)
    return CommandLine(tmp_path)


@pytest.fixture
def told(cli):
    """Four requests were written down."""
    put(cli, SERVED, OVER, REFUSED, OTHER)
    cli.now = START + 4
    return cli


def put(cli, *many):
    file = RequestLog(cli.env.paths.state)
    for event in many:
        file.put(document(event))
    file.close()


def test_events(told):
    """One line a request, oldest first, in the words of the event log."""
    assert told.run("events").stdout == (
        "2026-09-21 14:13:20  gpt-5 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used\n"
        "2026-09-21 14:13:21  gpt-4.1 <- spare (api.githubcopilot.com) 200 in 812 ms, least recently used; "
        "before: work 429 limit (rests 30 s)\n"
        "2026-09-21 14:13:22  GPT-5 <- nobody, 429 in 3 ms: all accounts tried, all refused; "
        "tried: work 429 limit (rests 30 s)\n"
        "2026-09-21 14:13:23  o3 -> gpt-5 (another model, by your route) <- spare (api.githubcopilot.com) 200 "
        "in 812 ms, least recently used\n"
    )


def test_an_account_that_was_renamed(cli):
    """Its old events are found by its new label, and still by the old one."""
    cli.add("Work", "office")
    [account] = cli.decisions.accounts
    put(cli, replace(SERVED, account="work", attempts=(replace(SPARE, account="work", account_id=account.id),)))
    assert "<- work" in cli.run("events", "--account", "office").stdout
    assert "<- work" in cli.run("events", "--account", "work").stdout
    assert cli.run("events", "--account", "spare").stdout == ""


def test_in_a_terminal(told):
    """In a terminal a long line is folded below its words; the times are of this computer's zone."""
    told.env = replace(told.env, columns=lambda: 60, zone=timezone(timedelta(hours=5.5)))
    assert told.run("events", "--last", "1", "--model", "gpt-4.1").stdout == (
        "2026-09-21 19:43:21  gpt-4.1 <- spare\n"
        "                     (api.githubcopilot.com) 200 in 812 ms,\n"
        "                     least recently used; before: work 429\n"
        "                     limit (rests 30 s)\n"
    )


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ([], ["f1", "f2", "f3", "f4"]),
        (["--account", "work"], ["f2", "f3"]),
        (["--account", "s*"], ["f1", "f2", "f4"]),
        (["--account", "nobody"], []),
        (["--model", "gpt-5"], ["f1", "f3", "f4"]),
        (["--model", "GPT-4*"], ["f2"]),
        (["--model", "gpt-5", "--account", "spare"], ["f1", "f4"]),
        (["--last", "2"], ["f3", "f4"]),
        (["-n", "0"], ["f1", "f2", "f3", "f4"]),
        (["--model", "gpt-5", "--last", "1"], ["f4"]),
        (["--failed"], ["f3"]),
        (["--switches"], ["f2"]),
        (["--failed", "--switches"], ["f2", "f3"]),
        (["--failed", "--model", "gpt-4*"], []),
        (["--client", "opencode"], ["f1"]),
        (["--client", "OpenCode/1*"], ["f1"]),
        (["--client", "copilot"], ["f4"]),
        (["--since", "2s"], ["f3", "f4"]),
        (["--since", "1h"], ["f1", "f2", "f3", "f4"]),
        (["--since", "2026-09-21T14:13:22"], ["f3", "f4"]),
        (["--since", "2026-09-21T16:13:23+02:00"], ["f4"]),
        (["--since", "2026-09-22"], []),
    ],
    ids=" ".join,
)
def test_filters(told, filters, ids):
    """Filters are patterns over accounts that were asked and models that were asked for or served."""
    lines = told.run("events", "--json", *filters).stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids


@pytest.mark.parametrize("since", ["yesterday", "5 fortnights", "", "9999999999999h", "1e9d"])
def test_a_time_that_is_none(told, since):
    """What is no time is a wrong call that says which forms there are."""
    assert "like 30min, 1h, 2d nor a time" in " ".join(told.run("events", "--since", since, exit_code=2).stderr.split())


def test_colours(told, monkeypatch):
    """In a terminal what failed is red and what moved is yellow; never in a pipe, nor with NO_COLOR."""
    monkeypatch.setattr(click, "echo", functools.partial(click.echo, color=True))
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = told.run("events").stdout.splitlines()
    assert [line[:5] if line.startswith("\x1b") else "" for line in lines] == ["", "\x1b[33m", "\x1b[31m", ""]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in told.run("events").stdout


def test_json(told):
    """Programs get one object a line, as in the file."""
    assert told.run("events", "--json").stdout.splitlines() == [
        json.dumps(json.loads(line)) for line in (told.env.paths.state / NAME).read_text().splitlines()
    ]


def test_nothing(cli):
    """Where nothing was written down that is said on stderr, and nothing is made."""
    result = cli.run("events")
    assert (result.stdout, result.stderr) == ("", "note: no request is stored yet\n")
    put(cli, SERVED)
    result = cli.run("events", "--account", "work")
    assert (result.stdout, result.stderr) == ("", "note: no such request is stored\n")


def test_only_the_newest(cli):
    """Without a number the newest fifty are shown."""
    put(cli, *(replace(SERVED, id=f"f{number}") for number in range(70)))
    lines = cli.run("events", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"f{number}" for number in range(20, 70)]


def test_follow(told):
    """Following prints what is there and then what comes, filtered, until Ctrl-C."""
    coming = [[OVER, replace(REFUSED, id="f5")], [], [replace(SERVED, id="f6"), replace(OTHER, id="f7")]]

    def sleep(seconds):
        assert 0.1 <= seconds <= 1
        if not coming:
            raise KeyboardInterrupt
        put(told, *coming.pop(0))

    told.env = replace(told.env, sleep=sleep)
    lines = told.run("events", "--follow", "--json", "--model", "gpt-5").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["f1", "f3", "f4", "f5", "f6", "f7"]


def test_follow_from_nothing(cli):
    """Following may begin before any proxy ran."""
    coming = [[], [SERVED]]

    def sleep(_):
        if not coming:
            raise KeyboardInterrupt
        put(cli, *coming.pop(0))

    cli.env = replace(cli.env, sleep=sleep)
    result = cli.run("events", "-f")
    assert result.stdout.startswith("2026-09-21 14:13:20  gpt-5 <- spare")
    assert result.stderr == ""


def test_a_forged_file(told):
    """What somebody else wrote into the file breaks neither line nor terminal."""
    with (told.env.paths.state / NAME).open("a") as file:
        nasty = "\x1b[2J\u202egpt\n2026-09-21 14:13:20  gpt-5 <- evil"
        attempt = {"account": nasty, "host": nasty, "why": nasty, "reason": nasty, "text": nasty}
        forged = document(OVER) | {"what": nasty, "note": nasty, "model": nasty, "attempts": [attempt]}
        file.write(json.dumps(forged) + "\nnonsense\n")
    lines = told.run("events").stdout.splitlines()
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert "\\u202egpt\\n2026" in lines[-1]


def test_a_subcommand_is_left_alone(told, monkeypatch):
    """What stands below `events` prints no events."""

    @click.command()
    def nothing():
        """Do nothing."""

    monkeypatch.setitem(events.commands, "nothing", nothing)
    assert told.run("events", "nothing").stdout == ""


def test_unknown_refusals(cli):
    """What no rule knew is printed for a report, and doctor says that there is some."""
    assert "no refusal of an unknown kind" in cli.run("events", "unknown").stderr
    log = UnknownRefusalLog(cli.env.store)
    log.put(SeenRefusal(START, 403, "/chat/completions", "surprise_me", b'{"error":"computer says no"}', b"{}"))
    log.put(SeenRefusal(START, None, "/responses", "", b"", b"{}"))
    log.drain()
    told = cli.run("events", "unknown").stdout
    assert "/chat/completions 403 surprise_me\n" in told
    assert "computer says no" in told
    assert "/responses in a stream\n    (nothing said)\n" in told
    assert [one["status"] for one in json.loads(cli.run("events", "unknown", "--json").stdout)] == [403, None]
    found = json.loads(cli.run("doctor", "--json").stdout)["findings"]
    assert [one["check"] for one in found if "events unknown" in one["text"]] == ["refusals"]
