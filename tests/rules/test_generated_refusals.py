"""Refusals that nobody has seen yet: generated from statuses, shapes, words and waits, and run through table and pool."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest

from copilot_balancer.copilot.protocol import Api
from copilot_balancer.copilot.response_reader import ResponseReader
from copilot_balancer.rules.classify import classify, classify_event
from copilot_balancer.rules.types import SERVED, Action, Attempt, Hold, Nobody, Outcome, Policy, Reason, Tried
from support.pools import HOUR, START, Bench, account

STATUSES = (400, 401, 402, 403, 404, 408, 409, 410, 413, 418, 421, 422, 424, 429, 451, 466, 499,
            500, 501, 502, 503, 504, 511, 520, 524, 529, 599)  # fmt: skip
WORDS = {
    "nothing": ("", ""),
    "known code": ("rate_limited", "slow down"),
    "quota": ("quota_exceeded", "no quota"),
    "known text": ("", "You have exceeded a secondary rate limit"),
    "unknown code": ("surprise_me", "computer says no"),
    "unknown text": ("", "computer says no"),
    "forbidden": ("", "forbidden"),
    "policy": ("", "vision is not enabled for this organization"),
    "client": ("", "bad request: missing Editor-Version header for IDE auth"),
    "model": ("model_not_supported", "The requested model is not supported."),
    "retired": ("model_not_found", "gone"),
    "overloaded": ("server_is_overloaded", "busy"),
    "abuse": ("spammy_user", "stopped"),
    "faulty": ("invalid_request_body", "no such field"),
}
SHAPES = ("nested", "flat", "text", "within", "anthropic", "html")
WAITS = (None, 30.0)
ASKS_NOBODY_ELSE = {
    400, 404, 413, 422, 424, 466, 499,  # the status blames the request
    409, 418, 451,  # no row is about them, and no report says that another account helps
}  # fmt: skip


def body(shape: str, code: str, text: str) -> tuple[str, bytes]:
    """The content type and the bytes of a refusal."""
    error = {"message": text, "code": code}
    shapes = {
        "nested": {"error": error},
        "flat": error,
        "within": {"error": {"message": json.dumps({"error": error}), "code": ""}},
        "anthropic": {"type": "error", "error": {"type": code, "message": text}},
    }
    if shape == "html":
        return "text/html", b"<!DOCTYPE html><html><head><title>no</title></head></html>"
    if shape == "text":
        return "text/plain", text.encode()
    return "application/json", json.dumps(shapes[shape]).encode()


def generated() -> list[tuple[str, Outcome]]:
    """Each refusal with an id: HTTP responses, then errors inside a stream in the three forms."""
    found = []
    for status, (word, (code, text)), shape, wait in itertools.product(STATUSES, WORDS.items(), SHAPES, WAITS):
        kind, raw = body(shape, code, text)
        headers = {"content-type": kind} | ({} if wait is None else {"retry-after": f"{wait:.0f}"})
        found.append((f"{status} {word} {shape} {wait}", classify(status, headers, raw, wall=START)))
    for api, (word, (code, text)), only in itertools.product(Api, WORDS.items(), ("both", "type", "text")):
        error = (
            {"message": text, "code": code}
            if only == "both"
            else {"type": code}
            if only == "type"
            else {"message": text}
        )
        events = {
            Api.CHAT: {"error": error},
            Api.RESPONSES: {"type": "response.failed", "response": {"status": "failed", "error": error}},
            Api.MESSAGES: {"type": "error", "error": error},
        }
        reader = ResponseReader(api)
        reader.feed(f"data: {json.dumps(events[api])}\n\n".encode())
        assert reader.error is not None
        assert not reader.output
        found.append(
            (f"stream {api} {word} {only}", classify_event(reader.error.code, reader.error.message, wall=START))
        )
    return found


GENERATED = generated()
EXCEPTIONS = {Action.PASS: "given at once", Action.STOP: "an abuse block", Action.OWNER: "bound state"}


def run(bench: Bench, answers: dict[str, Outcome], **changes) -> tuple[list[str], Nobody | None, tuple[Tried, ...]]:
    """Send one request as the proxy does: whom it went to, and what nobody came to; a hold passes at once."""
    ask, sends = bench.ask(client="tool/1", **changes), []
    while True:
        decision = ask.assign()
        if isinstance(decision, Hold):
            bench.now = decision.until
            continue
        if isinstance(decision, Nobody):
            ask.over()
            return sends, decision, ask.request.tried
        assert isinstance(decision, Attempt)
        sends.append(bench.label(decision.account_id))
        outcome = answers.get(sends[-1], SERVED)
        ask.answered(outcome)
        if outcome is SERVED:
            ask.over()
            return sends, None, ask.request.tried


@pytest.mark.parametrize("credential", ["direct", "exchange"])
@pytest.mark.parametrize("attempts", [2, 3, 5])
def test_another_ready_account_is_asked(credential, attempts, capsys):
    """One account refuses and two would serve: the client is served unless the table blames the request itself."""
    exceptions: Counter[str] = Counter()
    for name, outcome in GENERATED:
        bench = Bench(*(account(label, credential=credential) for label in "abc"),
                      policy=Policy(strategy="priority", max_attempts=attempts))  # fmt: skip
        sends, nobody, _ = run(bench, {"a": outcome})
        assert len(sends) <= attempts, name
        assert set(sends) <= {"a", "b"}, name
        if nobody is None:
            assert sends[-1] == "b", name
        elif outcome.action in EXCEPTIONS:
            exceptions[f"{EXCEPTIONS[outcome.action]}: {outcome.rule}"] += 1
            page = "html" in name
            assert (
                page
                or outcome.action is Action.STOP
                or outcome.status is None
                or (outcome.status in ASKS_NOBODY_ELSE or outcome.rule == "unknown")
            ), name
            assert sends == ["a"], name
        else:
            # a repair that is known to help goes before another account, and two sends leave none for that
            exceptions[f"no send left after a repair: {outcome.rule}"] += 1
            assert (attempts, sends) == (2, ["a", "a"]), name
            assert outcome.action is Action.SAME, name
        for label in "bc":
            assert bench.rest(label) is None, name
            assert not bench.pool.memory(bench.now).accounts[f"github.com:{label}"].cooldowns, name
    with capsys.disabled():
        print(f"\n{len(GENERATED)} refusals, {credential}, {attempts} sends: {sum(exceptions.values())} exceptions")
        for rule, times in sorted(exceptions.items()):
            print(f"  {times:5} {rule}")


@pytest.mark.parametrize("labels", ["ab", "abcde"])
def test_what_everybody_refuses_alike_is_held_against_nobody_beyond_what_is_known(labels):
    """All accounts give the same refusal: the client gets one of them, at most three sends, and no unknown rests."""
    for name, outcome in GENERATED:
        bench = Bench(*labels, policy=Policy(strategy="priority"))
        sends, nobody, _ = run(bench, dict.fromkeys(labels, outcome))
        assert len(sends) <= 3, name
        assert nobody is not None, name
        asked_to_wait = outcome.retry_after is not None
        many = outcome.action is Action.NEXT or (outcome.action is Action.SAME and len(labels) > 3)
        assert nobody.give is not None or many or asked_to_wait, name
        if outcome.reason is Reason.UNKNOWN and outcome.retry_after is None:
            assert bench.rest("a") is None, name
            assert bench.rest("b") is None, name
            assert nobody.kind.value == "not retried", name
            assert nobody.retry_after is None, name


@pytest.mark.parametrize("wait", [30.0, 60.0, HOUR])
def test_a_wait_that_the_server_named_is_never_forgiven(wait):
    """Both accounts ask for time, whoever is to blame: nothing goes upstream before it is over."""
    for name, outcome in GENERATED:
        if outcome.action not in (Action.NEXT_ONCE, Action.SAME_ONCE, Action.NEXT) or outcome.reason is Reason.POLICY:
            continue
        if outcome.reason in (Reason.CLIENT_REFUSED, Reason.NEEDS_LOGIN, Reason.QUOTA):
            continue  # their own times; the last is looked at again after six hours at most
        bench = Bench("a", "b", policy=Policy(strategy="priority"))
        run(bench, dict.fromkeys("ab", replace(outcome, retry_after=wait)))
        sent = run(bench, {})[0]
        assert sent == [], name
        bench.now = START + wait + 2 * 61
        assert run(bench, {})[0], name


def test_an_unknown_refusal_counts_once_another_account_has_served():
    """Then the model of the one that refused rests a moment, so that the next conversation does not begin there."""
    for name, outcome in GENERATED:
        if outcome.reason is not Reason.UNKNOWN or outcome.action is Action.PASS or outcome.retry_after is not None:
            continue
        bench = Bench("a", "b", policy=Policy(strategy="priority"))
        run(bench, {"a": outcome})
        assert bench.rest("a") == 60, name
        assert bench.rest("a", "another model") is None, name
        assert run(bench, {"a": outcome})[0] == ["b"], name
