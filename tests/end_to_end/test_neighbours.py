"""Other addons in the same mitmdump, with real sockets: the examples of mitmproxy's documentation, run beside ours.

Our hooks come before those of every script (``proxy.chain``), so where a script is named on the command line changes nothing.
"""

import httpx
import pytest

from copilot_balancer.fake.answers import FakeAccount, limited
from copilot_balancer.fake.server import running
from support.proxies import PERSONAL, SPARE, SUPPORT, WORK, proxies, until

SCRIPT = SUPPORT / "neighbours.py"
NAMES = ("stream", "upper", "header", "edit", "slow", "write", "hold")


@pytest.fixture(scope="module", params=["named before ours", "named after ours"])
def served(request, tmp_path_factory):
    """A proxy with another script, named before or after ours; the first account is limited for every model."""
    accounts = {WORK: FakeAccount("work"), PERSONAL: FakeAccount("personal"), SPARE: FakeAccount("spare")}
    for account in accounts.values():
        account.models = (*NAMES, "kill", "kill-head", "raise", "reply")
    accounts[WORK].default = limited(0.001)
    with running(accounts) as fake, proxies(fake, tmp_path_factory.mktemp("neighbours")) as start:
        last = request.param == "named after ours"
        yield start(*(("-s", str(SCRIPT)) if last else ()), scripts_before=() if last else (SCRIPT,))


@pytest.mark.parametrize("stream", [True, False], ids=["event stream", "document"])
@pytest.mark.parametrize("name", NAMES)
def test_examples_of_the_documentation(served, name, stream):
    """Each does what it does in plain mitmproxy, and another account answers in the place of the limited one."""
    got = served.post(model=name, stream=stream)
    assert got.status_code == 200
    assert got.headers["x-copilot-account"] != "work"
    # a stream is whole in `response` only when another addon has said that it is not to be streamed
    edited = name == "hold" or (name == "edit" and not stream)
    assert ("HELLO" if name == "upper" else "Edited" if edited else "Hello") in got.text
    if name == "header" and not stream:
        assert got.headers["x-neighbour"] == "was here"


def test_an_answer_of_another_addons(served):
    """A response that another addon makes goes to the client, and no account is asked."""
    before = len(served.fake.asked())
    assert served.post(model="reply").json() == {"reply": "from the neighbour"}
    assert len(served.fake.asked()) == before


def test_another_addon_that_raises(served):
    """mitmproxy logs its exception, and the request is served."""
    assert served.post(model="raise").status_code == 200
    until(lambda: "a neighbour's own fault" in served.log, "the exception in the log")


@pytest.mark.parametrize("name", ["kill", "kill-head"])
@pytest.mark.parametrize("stream", [True, False], ids=["event stream", "document"])
def test_another_addon_that_kills(served, name, stream):
    """The client's connection is closed, as in plain mitmproxy; no account is blamed for it."""
    lines = len(served.lines())
    with pytest.raises(httpx.RemoteProtocolError):
        served.post(model=name, stream=stream)
    until(lambda: len(served.lines()) > lines, "the line")
    # what is killed in `response` was answered in full: our hooks come first and told it by then
    told = "ended by another addon" if name == "kill-head" else " 200 in "
    assert told in served.lines()[-1]
    assert len(served.lines()) == lines + 1
    assert "rests" not in served.lines()[-1].partition("before:")[0]
    assert served.post(model="slow").status_code == 200


def test_nothing_of_ours_broke(served):
    """The exceptions in the log are the neighbour's own."""
    assert "incident" not in served.log
    assert "copilot_balancer/" not in served.log
