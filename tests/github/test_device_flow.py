"""The device flow as a generator: every answer, good and bad, without a network and without waiting."""

import json
import traceback

import pytest
from hypothesis import given, strategies

from copilot_balancer.errors import BalancerError, InvalidInput, UpstreamError
from copilot_balancer.github.device_flow import (
    GRANT_TYPE,
    MAX_LOST,
    Post,
    Reply,
    Show,
    Wait,
    check_verification_url,
    device_login,
)

DEVICE_CODE = "CanaryDevice" + "x" * 28
TOKEN = "gho_CanaryCanaryCanary"
CLIENT = "Ov23liExample"
CODE = {
    "device_code": DEVICE_CODE,
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://github.com/login/device",
    "expires_in": 900,
    "interval": 5,
}
GOOD = {"access_token": TOKEN, "token_type": "bearer", "scope": "read:user"}
PENDING, SLOW = {"error": "authorization_pending"}, {"error": "slow_down"}


def reply(body: object, status: int = 200, kind: str = "application/json; charset=utf-8") -> dict:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"status": status, "content_type": kind, "body": content}


LOST = {"lost": "github.com cannot be reached: is there a network?"}


class Story:
    """Drives a login with canned answers; `at` is the time that its waits add up to."""

    def __init__(self, *answers: object, code: object = CODE, host: str = "github.com"):
        self.answers = [self._reply(code), *map(self._reply, answers)]
        self.host = host
        self.at = 1000.0
        self.steps: list = []

    @staticmethod
    def _reply(answer) -> dict:
        return answer if isinstance(answer, dict) and ("status" in answer or "lost" in answer) else reply(answer)

    def run(self):
        login = device_login(self.host, CLIENT)
        step = next(login)
        answers = iter(self.answers)
        while True:
            self.steps.append(step)
            answer = None
            if isinstance(step, Wait):
                self.at += step.seconds
            elif isinstance(step, Post):
                answer = Reply(self.at, **next(answers))
            try:
                step = login.send(answer)
            except StopIteration as end:
                return end.value

    def refused(self) -> str:
        with pytest.raises(BalancerError) as caught:
            self.run()
        told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        frames = told.partition("device_flow.py")[2]  # ours: the test's own frames hold the answers
        assert "Canary" not in frames + repr(self.steps) + str(caught.value)
        assert str(caught.value).isprintable()
        assert caught.value.__context__ is None
        return str(caught.value)

    @property
    def waits(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, Wait)]


# ── a login that works ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_login():
    """A code is asked for and shown, the token is asked for after a wait, and given back."""
    story = Story(PENDING, GOOD)

    assert story.run().get_secret_value() == TOKEN

    wait = Wait(6.0)
    code, show, first, poll, second, again = story.steps
    assert (code.url, code.form) == (
        "https://github.com/login/device/code",
        {"client_id": CLIENT, "scope": "read:user"},
    )
    assert show == Show("https://github.com/login/device", "WDJB-MJHT", 900.0)
    assert (first, second) == (wait, wait)
    assert poll == again
    assert (poll.url, poll.form) == (
        "https://github.com/login/oauth/access_token",
        {"client_id": CLIENT, "device_code": DEVICE_CODE, "grant_type": GRANT_TYPE},
    )
    assert "Canary" not in repr(story.steps)


def test_enterprise_domain():
    """On a domain of one's own everything stays on that domain."""
    page = "https://acme.ghe.com/login/device"
    story = Story(GOOD, code={**CODE, "verification_uri": page}, host="https://Acme.ghe.com/")

    story.run()

    assert story.steps[1].url == page
    assert {step.url.split("/")[2] for step in story.steps if isinstance(step, Post)} == {"acme.ghe.com"}


@pytest.mark.parametrize("host", ["evil.test", "github.com.evil.test", "127.0.0.1", ""])
def test_foreign_host(host):
    """Nothing is posted to another host."""
    with pytest.raises(InvalidInput):
        next(device_login(host, CLIENT))


@pytest.mark.parametrize(
    ("answers", "waits"),
    [
        pytest.param([PENDING, PENDING], [6, 6, 6], id="pending"),
        pytest.param([{**SLOW, "interval": 10}, PENDING], [6, 12, 12], id="the server's new interval stays"),
        pytest.param([SLOW, SLOW], [6, 12, 18], id="without a new interval: 5 s more"),
        pytest.param([{**SLOW, "interval": 1}], [6, 6], id="never faster"),
        pytest.param([{**SLOW, "interval": "10"}], [6, 12], id="an interval that is no number"),
        pytest.param([{**SLOW, "interval": 1e9}], [6, 72], id="a minute at most"),
        pytest.param([LOST, PENDING], [6, 12, 12], id="lost: slower"),
        pytest.param([reply(b"<html>", 503, "text/html")], [6, 12], id="trouble of the server's: slower"),
        pytest.param([reply({}, 429)], [6, 12], id="429: slower"),
        pytest.param([LOST, LOST, PENDING, LOST, LOST], [6, 12, 18, 18, 24, 30], id="lost, but not in a row"),
    ],
)
def test_intervals(answers, waits):
    """How long is waited before each poll."""
    story = Story(*answers, GOOD)

    story.run()

    assert story.waits == pytest.approx(waits)


@pytest.mark.parametrize(
    ("code", "wait", "life"),
    [
        pytest.param({"interval": 0}, 1.2, 900, id="no interval"),
        pytest.param({"interval": 3600}, 72, 900, id="an hour"),
        pytest.param({"interval": None}, 6, 900, id="null"),
        pytest.param({"interval": "fast"}, 6, 900, id="text"),
        pytest.param({"interval": True}, 6, 900, id="bool"),
        pytest.param({"expires_in": 1}, 6, 60, id="a second"),
        pytest.param({"expires_in": 10**6}, 6, 1800, id="days"),
        pytest.param({"expires_in": 10**400}, 6, 1800, id="no float"),
        pytest.param({"expires_in": float("nan")}, 6, 900, id="not a number"),
        pytest.param({"expires_in": -5}, 6, 60, id="negative"),
    ],
)
def test_bounds(code, wait, life):
    """Interval and life of a code are bounded, whatever the server says."""
    story = Story(GOOD, code={**CODE, **code})

    story.run()

    assert story.waits == pytest.approx([wait])
    assert story.steps[1].seconds == life


def test_it_ends_with_the_code():
    """It is not polled beyond the code's life, and never waits for ever."""
    story = Story(*[PENDING] * 1000, code={**CODE, "expires_in": 61})

    assert "nobody typed the code in time" in story.refused()
    assert story.at == pytest.approx(1060)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


NINE = [
    pytest.param({"error": "access_denied"}, "the login was refused at github.com", id="denied"),
    pytest.param({"error": "expired_token"}, "nobody typed the code in time", id="expired"),
    pytest.param({"error": "token_expired"}, "nobody typed the code in time", id="expired, other word"),
    pytest.param({"error": "device_flow_disabled"}, f"{CLIENT} takes no logins by code", id="disabled"),
    pytest.param({"error": "incorrect_client_credentials"}, f"does not know the OAuth client {CLIENT}", id="client"),
    pytest.param({"error": "incorrect_device_code"}, "does not know this login any more", id="device code"),
    pytest.param({"error": "unsupported_grant_type"}, "does not know logins by code", id="grant type"),
    pytest.param(reply(b"<!DOCTYPE html>", kind="text/html"), "a web page (HTTP 200)", id="HTML"),
    pytest.param(reply(b"error=access_denied", kind="text/plain"), "not a JSON object (HTTP 200)", id="content type"),
]

MORE = [
    pytest.param({"error": "unauthorized_client"}, "takes no logins by code", id="unauthorized client"),
    pytest.param(reply({"error": "Not Found"}, 404), f"does not know the OAuth client {CLIENT}", id="404"),
    pytest.param({"error": "new_word"}, "github.com refuses the login: new_word", id="unknown word"),
    pytest.param({"error": "\x1b[31m{host}"}, "refuses the login: something unknown", id="word that is none"),
    pytest.param({"error": ["x"]}, "refuses the login: something unknown", id="not a word"),
    pytest.param(reply(b"", 302), "redirect (HTTP 302)", id="redirect"),
    pytest.param(reply({}, 403), "github.com refuses the login (HTTP 403)", id="no error, no 200"),
    pytest.param(reply(b"[1]"), "not a JSON object", id="array"),
    pytest.param(reply(b"[" * 100_000), "not a JSON object", id="deep"),
    pytest.param(reply(b"\xff"), "not a JSON object", id="not text"),
    pytest.param(reply(json.dumps(CODE).encode(), kind=""), "not a JSON object", id="no content type"),
]


@pytest.mark.parametrize(("answer", "said"), [*NINE, *MORE])
@pytest.mark.parametrize("when", ["code", "poll"])
def test_refusals(answer, said, when):
    """Every refusal is one sentence, whenever it comes, and shows neither token nor device code."""
    story = Story(code=answer) if when == "code" else Story(PENDING, answer)

    assert said in story.refused()


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ({}, "no token that can be used"),
        ({**GOOD, "access_token": None}, "no token that can be used"),
        ({**GOOD, "access_token": f"{TOKEN}\r\nx: y"}, "no token that can be used"),
        ({**GOOD, "token_type": "mac"}, "a kind that is not known"),
        ({**GOOD, "token_type": 7}, "a kind that is not known"),
    ],
    ids=["none", "null", "line break", "another kind", "no kind"],
)
def test_token_that_is_none(token, said):
    """An answer without an error and without a usable token is a refusal."""
    assert said in Story(token).refused()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param({"device_code": None}, "no device code", id="no device code"),
        pytest.param({"device_code": "Canary " * 9}, "no device code", id="device code with blanks"),
        pytest.param({"user_code": None}, "no code that a person can type", id="no user code"),
        pytest.param({"user_code": "\x1b]52;c;x\x07"}, "no code that a person can type", id="terminal codes"),
        pytest.param({"user_code": "-rf"}, "no code that a person can type", id="an option"),
        pytest.param({"verification_uri": None}, "nobody is sent there", id="no page"),
        pytest.param({"verification_uri": "https://evil.test/"}, "nobody is sent there", id="another page"),
    ],
)
def test_code_that_is_none(code, said):
    """A code that nobody can use, or a page that is not GitHub's, ends the login before anything is shown."""
    story = Story(code={**CODE, **code})

    assert said in story.refused()
    assert not any(isinstance(step, Show) for step in story.steps)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (PENDING, "takes no logins for now"),
        (LOST, "is there a network?"),
        (reply({}, 500), "trouble of its own (HTTP 500)"),
    ],
    ids=["pending", "lost", "500"],
)
def test_no_code(first, said):
    """The first question is asked once."""
    story = Story(code=first)

    assert said in story.refused()
    assert len(story.steps) == 1


def test_lost_for_good():
    """When several polls in a row come to nothing, the last one's reason is told."""
    story = Story(*[reply({}, 500)] * (MAX_LOST - 1), LOST)

    assert story.refused() == LOST["lost"]
    assert len(story.waits) == MAX_LOST


@given(
    strategies.binary(max_size=200),
    strategies.integers(100, 599),
    strategies.sampled_from(["application/json", "text/html", ""]),
)
def test_any_answer(body, status, kind):
    """Whatever comes back, a login ends with a token or with a sentence."""
    for story in (Story(code=reply(body, status, kind)), Story(*[reply(body, status, kind)] * 200)):
        try:
            assert story.run() is not None
        except UpstreamError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("url", ["https://github.com/login/device"])
def test_page(url):
    """The one page is taken; what else there is stands in test_accounts."""
    assert check_verification_url(url, "github.com") is None
