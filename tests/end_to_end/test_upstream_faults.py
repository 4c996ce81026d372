"""Every fault of an upstream over real sockets, through mitmdump and mitmweb, to HTTP/1.1 and HTTP/2 clients.

Of each request it is counted whether it was lost (not the answer that it should have got), doubled (a second answer, or
sent more often than it may), misattributed (``x-copilot-account`` or ``x-copilot-refused-by`` is not who answered) or late; all must be 0. In the end no connection is left open.
A few requests a fault here; ``FAULT_REQUESTS=200`` is the long form, and ``FAULT_TABLE=FILE`` writes the counts there.

A client that offers HTTP/2 gets it only with ``connection_strategy=lazy``, and only when it prefers HTTP/2: by default
mitmproxy gives the client what the upstream took, and upstream is pinned to HTTP/1.1.
"""

import json
import os
import ssl
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from copilot_balancer.fake.answers import FakeAccount, limited
from copilot_balancer.fake.seen import Seen
from copilot_balancer.fake.server import FakeCopilot
from support.proxies import CLIENT, SUPPORT, WORK, Proxy, an_account, until
from support.upstream_faults import (
    CUT,
    FAULTS,
    MUTE,
    PASSED,
    REFUSES,
    SHORT_WAIT,
    STAYED,
    SWALLOWS,
    Fault,
    answer,
    word_of,
)

API = "https://api.githubcopilot.com/chat/completions"
REQUESTS = int(os.environ.get("FAULT_REQUESTS", "2"))
"""Of each fault, in each cell; a part of them one after the other over one connection, as long as that lasts."""
PART = 25
AT_ONCE = 16 if REQUESTS <= PART else 40
DEADLINE = 20.0
"""Seconds; far above what the time-outs add up to, so that only a hang, not a busy machine, comes near it."""
OPTIONS = {
    "copilot_strategy": "priority",
    "copilot_deadline": DEADLINE,
    "copilot_first_byte_timeout": SHORT_WAIT,
    "copilot_idle_timeout": SHORT_WAIT,
}

CLIENTS = {
    "HTTP/1.1": ("eager", "HTTP/1.1"),
    "HTTP/2 offered": ("eager", "HTTP/1.1"),
    "HTTP/2": ("lazy", "HTTP/2"),
}
"""mitmproxy's ``connection_strategy``, and what is spoken then."""
CELLS = CLIENTS if REQUESTS > PART else ("HTTP/1.1", "HTTP/2")


class PrefersHttp2(ssl.SSLContext):
    """httpx names HTTP/1.1 first, and mitmproxy takes the client's first."""

    def set_alpn_protocols(self, protocols: list[str]) -> None:
        super().set_alpn_protocols(sorted(protocols, key=len))


@dataclass
class Got:
    """What a client got for one request."""

    fault: Fault
    word: str
    turn: int
    """How many requests were sent before it over the client's connection."""
    status: int = 0
    version: str = ""
    text: str = ""
    ended: bool = False
    """Whether the body was ended well."""
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    seconds: float = 0.0
    problem: str = ""
    """No answer at all, and why."""


@dataclass
class Count:
    """What became of the requests of one fault."""

    requests: int = 0
    lost: int = 0
    doubled: int = 0
    misattributed: int = 0
    late: int = 0
    slowest: float = 0.0


def fence(number: int) -> str:
    return f"f{number:02}"


def accounts_of(fake: FakeCopilot) -> list:
    """A fence for each fault, and in it two accounts: the one that fails is asked first."""
    stored = []
    for number, fault in enumerate(FAULTS):
        for position, (name, behaviour) in enumerate((("first", fault.answer), ("second", answer))):
            label, token = f"{fence(number)}-{name}", f"gho_{fence(number)}-{name}-canary"
            host = fault.host if name == "first" else "api.githubcopilot.com"
            # a refusal makes the proxy ask GitHub for the account's host again: it is told the same
            fake.accounts[token] = FakeAccount(label, default=behaviour, api_host=host)
            stored.append(
                an_account(
                    *(label, token, 10 * number + position + 1),
                    priority=position,
                    fence=fence(number),
                    api_host=host,
                )
            )
    return stored


def parts() -> list[tuple[int, range]]:
    """Which requests of which fault are sent over one connection; those that wait first. Few of them need be sent once."""
    few = REQUESTS <= PART
    return [
        (number, range(first, min(first + PART, 1 if few and fault.waits else REQUESTS)))
        for number, fault in sorted(enumerate(FAULTS), key=lambda pair: not pair[1].waits)
        for first in range(0, REQUESTS, PART)
    ]


def asked_by(proxy: Proxy, number: int, turns: range, version: str) -> list[Got]:
    """Send some requests of one fault, one after the other."""
    fault, found = FAULTS[number], []
    context = PrefersHttp2(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(proxy.ca_file))
    with httpx.Client(
        proxy=f"http://{fence(number)}:@127.0.0.1:{proxy.port}",
        verify=context,
        http2=version != "HTTP/1.1",
        trust_env=False,
        timeout=2 * DEADLINE,
        headers={"authorization": f"Bearer {CLIENT}"},
    ) as client:
        for turn in turns:
            got = Got(fault, f"{fence(number)}r{turn:04}", turn - turns.start)
            body = {"model": "gpt-4.1", "stream": True, "messages": [{"role": "user", "content": got.word}]}
            began = time.monotonic()
            try:
                with client.stream("POST", API, json=body) as response:
                    got.status, got.version = response.status_code, response.http_version
                    got.headers = response.headers
                    for piece in response.iter_text():
                        got.text += piece
                        if time.monotonic() - began > 2 * DEADLINE:
                            raise httpx.ReadTimeout("it does not end")
                got.ended = True
            except httpx.RemoteProtocolError as error:
                got.problem = "" if got.status else str(error)
            except httpx.HTTPError as error:
                got.problem = repr(error)
            got.seconds = time.monotonic() - began
            found.append(got)
    return found


def said(text: str) -> str:
    """The words of a chat stream, as far as it came."""
    events = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {"))
    choices = (choice for event in events for choice in json.loads(event).get("choices", ()))
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def is_lost(got: Got) -> bool:
    """Whether this is not the one answer that the client should have got."""
    fault = got.fault
    if got.problem or got.status != fault.status or "set-cookie" in got.headers:
        return True
    if fault.expected == PASSED:
        return not got.ended or fault.text not in got.text
    whole = said(got.text) == f"an answer to {got.word} in several words"
    return whole or got.ended if fault.expected == CUT else not (whole and got.ended)


def is_doubled(got: Got, asked: list[str]) -> bool:
    """Whether there was a second answer, or an account was asked twice."""
    return got.text.count(got.word) > 1 or got.text.count("[DONE]") > 1 or len(set(asked)) < len(asked)


def expected_accounts(number: int, fault: Fault) -> list[str]:
    first, second = f"{fence(number)}-first", f"{fence(number)}-second"
    before = [first] if fault.asked else []
    return before if fault.expected in (CUT, PASSED, STAYED) else [*before, second]


def named(got: Got) -> tuple[str | None, str | None]:
    """Who served, and whose refusal it is, as the headers say."""
    return got.headers.get("x-copilot-account"), got.headers.get("x-copilot-refused-by")


def attributed(fault: Fault, last: str) -> tuple[str | None, str | None]:
    """The same as it must be: nobody serves a refusal that is passed on; a redirect is none."""
    return (None, last) if fault.expected == PASSED and fault.status >= 400 else (last, None)


def counted(seen: list[Seen], answers: dict[int, list[Got]]) -> tuple[dict[str, Count], list[str]]:
    """Count; and a line about each request that is counted as wrong."""
    asked: dict[str, list[str]] = defaultdict(list)
    for one in seen:
        asked[word_of(one)].append(str(one.account))
    counts, wrong = {}, []
    repairs: Counter[int] = Counter()
    for number, fault in enumerate(FAULTS):
        count = counts[fault.name] = Count()
        for got in answers[number]:
            who = asked[got.word]
            again = who[:1] == who[1:2]
            if again and (fault.repaired or (fault.looks_dead and got.turn)) and repairs[number] < fault.most_repairs:
                repairs[number] += 1
                del who[0]  # sent once over a kept connection, then over a new one; or once before the host was learnt
            lost, doubled = is_lost(got), is_doubled(got, who)
            misattributed = who != expected_accounts(number, fault) or named(got) != attributed(fault, who[-1])
            late = got.seconds > DEADLINE + 1
            count.requests += 1
            count.lost += lost
            count.doubled += doubled
            count.misattributed += misattributed
            count.late += late
            count.slowest = max(count.slowest, got.seconds)
            if lost or doubled or misattributed or late:
                told = (got.status, got.headers.get("x-copilot-account"), who, got.ended, got.problem, got.text[-200:])
                wrong.append(f"{fault.name}, {got.word}, {got.seconds:.1f} s: {told}")
    return counts, wrong


def open_sockets(proxy: Proxy) -> int:
    """How many sockets the proxy has open; 0 where the system does not tell."""
    found = 0
    for link in Path(f"/proc/{proxy.process.pid}/fd").glob("*"):
        with suppress(FileNotFoundError):
            found += os.readlink(link).startswith("socket:")
    return found


def write_table(cell: str, counts: dict[str, Count]) -> None:
    """Append the counts of a cell to the file that `FAULT_TABLE` names."""
    if name := os.environ.get("FAULT_TABLE"):
        lines = [f"## {cell}", "", "| fault | requests | lost | doubled | misattributed | late | slowest |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [
            f"| {fault} | {count.requests} | {count.lost} | {count.doubled} | {count.misattributed} | {count.late} "
            f"| {count.slowest:.2f} s |"
            for fault, count in counts.items()
        ]
        with Path(name).open("a") as file:
            file.write("\n".join([*lines, "", ""]))


def test_what_is_spoken_to_a_client_that_prefers_http2(start, fake):
    """HTTP/1.1, as upstream, and the client is served."""
    fake.accounts[WORK].default = limited(30)
    proxy = start()
    context = PrefersHttp2(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(proxy.ca_file))
    with httpx.Client(proxy=proxy.url, verify=context, http2=True, trust_env=False) as client:
        got = client.post(API, json={"model": "gpt-4.1"}, headers={"authorization": f"Bearer {CLIENT}"})
    assert got.status_code == 200
    assert got.http_version == "HTTP/1.1"
    assert fake.asked()[0].account == "work"


@pytest.mark.timeout(0 if REQUESTS > PART else 240)
@pytest.mark.parametrize("spoken", CELLS)
@pytest.mark.parametrize("program", ["mitmdump", "mitmweb"])
def test_every_fault(start, fake, program, spoken):
    """Every request ends in time with exactly one answer, the second account's wherever nothing was sent yet."""
    strategy, version = CLIENTS[spoken]
    options = [f"{name}={value}" for name, value in {**OPTIONS, "connection_strategy": strategy}.items()]
    proxy = start(
        *("-s", str(SUPPORT / "no_rests.py")),
        *(part for option in options for part in ("--set", option)),
        program=program,
        accounts=accounts_of(fake),
        env={"FAKE_REFUSES": REFUSES, "FAKE_SWALLOWS": SWALLOWS, "FAKE_MUTE": MUTE},
    )
    before = open_sockets(proxy)
    answers: dict[int, list[Got]] = defaultdict(list)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for found in threads.map(lambda part: (part[0], asked_by(proxy, *part, spoken)), parts()):
            answers[found[0]] += found[1]
    until(lambda: len(proxy.lines()) >= 1, "a line")
    counts, wrong = counted(fake.asked(), answers)
    write_table(f"{program}, {spoken}", counts)
    assert not wrong, "\n".join([*wrong, proxy.log[-3000:]])
    assert {got.version for found in answers.values() for got in found} == {version}
    assert "Traceback" not in proxy.log
    assert "incident" not in proxy.log
    until(lambda: open_sockets(proxy) <= before, "every connection to be closed")
