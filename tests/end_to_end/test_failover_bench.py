"""The sixteen scenarios of Failover Bench through a real mitmdump: none may fail.

Each runs in a fence of its own with two accounts, and each request is a new conversation: one that goes on stays with
the account that took it over. ``FAILOVER_BENCH=full`` takes the catalogue's own
waits (two minutes), and ``FAILOVER_BENCH_TABLE=FILE`` writes the table there; `scripts/failover_bench` does both.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from copilot_balancer.fake.answers import FakeAccount, Ok, Refuse
from copilot_balancer.fake.server import running
from support.failover_bench import FAST, FULL, HEADER, PROMPT, SCENARIOS, WORDS, Got, Run, Scenario, row, verdict
from support.proxies import CLIENT, Proxy, an_account, proxies

API = "https://api.githubcopilot.com/chat/completions"
PROFILE = FULL if os.environ.get("FAILOVER_BENCH") == "full" else FAST


def token(fence: str, name: str) -> str:
    return f"gho_{fence}-{name}-canary"


def asked(proxy: Proxy, scenario: Scenario, fence: str, number: int, *, stream: bool = True) -> Got:
    """One request, as a client of the OpenAI API reads its answer: what is no JSON is skipped, [DONE] is not needed."""
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": "gpt-4.1", "stream": stream, "messages": messages}
    found, began = Got("error"), time.monotonic()
    try:
        with (
            httpx.Client(
                proxy=f"http://{fence}:@127.0.0.1:{proxy.port}",
                verify=proxy.context(),
                trust_env=False,
                timeout=scenario.limit,
            ) as client,
            client.stream(
                "POST",
                API,
                json=body,
                headers={"authorization": f"Bearer {CLIENT}", "x-session-id": f"{fence}-{number}"},
            ) as response,
        ):
            found.account = response.headers.get("x-copilot-account", "")
            if response.status_code != 200:
                found.error = f"{response.status_code}: {json.loads(response.read())['error']['message']}"
            else:
                read(response, found, began + scenario.limit)
    except httpx.TimeoutException:
        found.outcome = "hang"
    except httpx.HTTPError as error:
        found.error = f"{len(found.text.split())} words, then an abort ({type(error).__name__})"
    found.seconds = time.monotonic() - began
    if found.seconds > scenario.limit:
        found.outcome = "hang"
    return found


def read(response: httpx.Response, found: Got, until: float) -> None:
    """Read a stream or a document to its end."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        document = json.loads(response.read())
        found.text, found.outcome = document["choices"][0]["message"]["content"], "success"
        return
    for line in response.iter_lines():
        if time.monotonic() > until:
            raise httpx.ReadTimeout("it does not end")
        try:
            event = json.loads(line.removeprefix("data: "))
        except ValueError:
            continue
        if "error" in event:
            found.error = event["error"]["message"]
            return
        found.usage = found.usage or bool(event.get("usage"))
        found.text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
    found.outcome = "success"


def played(proxy: Proxy, scenario: Scenario) -> Run:
    """Play one scenario."""
    fence, fake = scenario.id.lower(), proxy.fake
    primary = scenario.primary(PROFILE)
    fake.accounts[token(fence, "primary")].default = primary
    began, seen = time.monotonic(), []
    for number in range(PROFILE.requests if scenario.sequence else 1):
        time.sleep(max(0.0, began + number * PROFILE.interval - time.monotonic()))
        sent_at = time.monotonic() - began
        seen.append(asked(proxy, scenario, fence, number))
        seen[-1].sent_at = sent_at
    healthy = asked(proxy, scenario, "healthy", 0, stream=False)
    run = Run(PROFILE, seen, alive=healthy.complete and healthy.seconds <= 10)
    for one in fake.asked(f"{fence}-primary"):
        run.primary.append(one.at - began)
        if isinstance(primary(one) if callable(primary) and scenario.sequence else None, Ok):
            run.served_by_primary.append(one.at - began)
    for one in fake.asked(f"{fence}-fallback"):
        run.fallback.append(one.at - began)
        given = scenario.fallback(one) if callable(scenario.fallback) else scenario.fallback
        run.prefill_refusals += isinstance(given, Refuse)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    """All of them, played once."""
    folder = tmp_path_factory.mktemp("failover_bench")
    accounts, stored = {}, []
    for number, fence in enumerate([*(scenario.id.lower() for scenario in SCENARIOS), "healthy"]):
        for position, name in enumerate(("primary", "fallback")):
            accounts[token(fence, name)] = FakeAccount(f"{fence}-{name}", default=Ok(WORDS))
            stored.append(
                an_account(
                    *(f"{fence}-{name}", token(fence, name), 10 * number + position + 1),
                    fence=fence,
                    priority=position,
                )
            )
    for scenario in SCENARIOS:
        accounts[token(scenario.id.lower(), "fallback")].default = scenario.fallback
    options = (
        "copilot_strategy=priority",
        f"copilot_first_byte_timeout={PROFILE.first_byte}",
        f"copilot_idle_timeout={PROFILE.idle}",
    )
    with running(accounts) as fake, proxies(fake, folder) as start:
        proxy = start(
            *(part for option in options for part in ("--set", option)),
            accounts=tuple(stored),
            env={"HOME": str(folder)},
        )
        # one after the other, as the catalogue does, but for the long one: more at once would meet our own retry budget
        with ThreadPoolExecutor(1) as thread:
            long = {one.id: thread.submit(played, proxy, one) for one in SCENARIOS if one.sequence}
            played_runs = {one.id: played(proxy, one) for one in SCENARIOS if not one.sequence}
            played_runs |= {name: one.result() for name, one in long.items()}
    if name := os.environ.get("FAILOVER_BENCH_TABLE"):
        lines = [HEADER, *(row(scenario, played_runs[scenario.id]) for scenario in SCENARIOS)]
        Path(name).write_text("\n".join([*lines, ""]))
    return played_runs


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[f"{one.id} {one.title}" for one in SCENARIOS])
def test_scenario(runs, scenario):
    """What the client gets and how often it is tried is scored by the catalogue's rules: nothing fails."""
    run = runs[scenario.id]
    assert verdict(scenario, run)[0] == scenario.verdict, (row(scenario, run), run)


def test_the_answer():
    """The answer has sixty words, so that a beginning of it is told from all of it."""
    assert len(WORDS.split()) == 60
    assert len({scenario.id for scenario in SCENARIOS}) == 16
