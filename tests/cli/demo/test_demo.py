import os
import re
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import pytest

from copilot_balancer.cli.demo import story
from copilot_balancer.cli.demo.demo import Told, broken_promises
from copilot_balancer.cli.demo.story import FIRST, SECOND, cast, from_now_on
from copilot_balancer.fake.answers import chosen
from copilot_balancer.fake.seen import Seen

KEPT = (
    Told(200, "spare", "3", FIRST, complete=True, first=0.1, whole=2.0),
    Told(200, "spare", "1", SECOND, complete=True, first=0.1, whole=1.0),
)
ASKED = ["work", "personal", "spare", "spare"]


def start(folder, *, stay):
    """Run the demo in a process of its own, whose every file would be in `folder`."""
    (folder / "tmp").mkdir()
    (folder / "home").mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    program = f"import sys; from copilot_balancer.cli.demo.demo import run_demo; sys.exit(run_demo(stay={stay}))"
    return subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        env=environ,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def unfolded(out, who):
    """What stands on the lines of `who`, as one line."""
    lines = [line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith(f"  {who} ")]
    return " ".join(lines)


def left_behind(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/**/*"))


def test_the_demo_keeps_its_promises(tmp_path):
    """The demo ends by itself with exit code 0, has shown the story, and leaves nothing behind."""
    with start(tmp_path, stay=False) as demo:
        out, err = demo.communicate(timeout=60)
    proxy = unfolded(out, "proxy")

    assert err == ""
    assert demo.returncode == 0
    assert unfolded(out, "client") == f"{FIRST} {SECOND}"
    assert re.search(r"gpt-4\.1 <- spare .*before: work 429 .*; personal 400 .*gpt-4\.1 <- spare ", proxy)
    assert "work 1 request personal 1 request spare 2 requests" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert "gho_" not in out
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
def test_a_closed_window_leaves_nothing_behind(tmp_path):
    """A terminal that is closed hangs up, and takes what is printed no more: the folder is removed all the same."""
    with start(tmp_path, stay=False) as demo:
        next(line for line in demo.stdout if "ready on" in line)
        demo.stdout.close()
        demo.send_signal(signal.SIGHUP)
        demo.wait(timeout=20)

    assert left_behind(tmp_path) == []


def test_the_demo_stays_up_for_curl(tmp_path):
    """With `stay` the printed lines work, and Ctrl-C ends everything with exit code 0."""
    with start(tmp_path, stay=True) as demo:
        line = next(line for line in demo.stdout if "curl" in line)
        proxy, ca, url, token, body = re.search(
            r"--proxy (\S+) --cacert (\S+) (\S+) -H 'authorization: (.*?)' -d '(.*)'", line
        ).groups()
        with httpx.Client(proxy=proxy, verify=ssl.create_default_context(cafile=ca), trust_env=False) as http:
            answer = http.post(url, content=body, headers={"authorization": token})
        lines = [next(line for line in demo.stdout if start in line).strip() for start in ("export PATH", "export COP")]
        lines.append("copilot-balancer status; copilot-balancer events --last 1; copilot-balancer dashboard")
        looked = subprocess.run(["sh", "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=20)

    assert answer.headers["x-copilot-account"] == "spare"
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "Balancing by hybrid; 2 of 3 accounts can serve now." in looked.stdout
    assert "premium  [##..................]  11 %" in looked.stdout
    assert "gpt-4.1 <- spare (api.individual.githubcopilot.com) 200" in looked.stdout
    assert "the dashboard needs a terminal" in looked.stderr
    assert (demo.returncode, err) == (0, "")
    assert "everything temporary is gone" in out
    assert time.monotonic() - began < 10
    assert left_behind(tmp_path) == []


def test_who_plays():
    """Each answer leaves the quota smaller, down to nothing; after the story work runs into its limit again and again."""
    accounts = {account.name: account for account in cast(1_790_000_000.0).values()}
    seen = Seen("api.githubcopilot.com", "POST", "/chat/completions", None, [], b"{}", 0.0, 1)
    work = accounts["work"]
    from_now_on(accounts.values(), every=3)
    given = [chosen(work.default, seen) for _ in range(10)]

    assert [getattr(one, "status", 200) for one in given] == [429, 200, 429, 200, 200, 429, 200, 200, 429, 200]
    assert work.quota["premium_interactions"].percent_left == 39.2
    assert work.quota["premium_interactions"].resets == "2026-09-30T00:00:00Z"
    for _ in range(300):
        chosen(accounts["spare"].default, seen)
    assert accounts["spare"].quota["premium_interactions"].percent_left == 0


@pytest.mark.parametrize("found", [True, False])
def test_path_line(monkeypatch, found):
    """How a shell finds this very program is told where it would not."""
    own = os.path.dirname(sys.executable)
    monkeypatch.setattr(story.shutil, "which", lambda name: f"{own if found else '/elsewhere'}/{name}")
    assert story.path_line() == (None if found else f"export PATH={own}:$PATH")


@pytest.mark.parametrize(
    ("first", "second", "asked", "broken"),
    [
        ({}, {}, ASKED, []),
        ({"status": 429}, {}, ASKED, ["the first answer did not arrive whole"]),
        ({"text": "Hello"}, {}, ASKED, ["the first answer did not arrive whole"]),
        ({}, {"complete": False}, ASKED, ["the second answer did not arrive whole"]),
        ({"account": "work"}, {}, ASKED, ["the first answer was not spare's, after two refusals"]),
        ({}, {"attempts": "2"}, ASKED, ["the second answer was not spare's at once"]),
        ({"first": 1.9}, {}, ASKED, ["the first answer was collected, not streamed"]),
        (
            {},
            {},
            ["work", *ASKED],
            ["the fake saw other accounts asked than work, personal, spare, spare"],
        ),
    ],
)
def test_a_broken_promise_is_a_sentence(first, second, asked, broken):
    """Whatever does not come out as promised is told, and nothing else is."""
    assert broken_promises((replace(KEPT[0], **first), replace(KEPT[1], **second)), asked) == broken
