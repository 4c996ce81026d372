"""The simulated service: each limit refuses when it is used up, and a success tells what is left."""

from simulation.upstream import Service, Upstream
from support.worlds import window

ACCOUNT = Upstream(
    "account1",
    frozenset("ab"),
    (window(0.0, 100.0, 3, of_model={"b": 1}), window(100.0, 200.0, 1), window(200.0, 300.0, 9, period=1)),
    quotas=(4, None),
    tells=True,
    hints=True,
)


def ask(service, model: str, now: float):
    answer = service.answer("account1", model, now)
    return answer.status, answer.cause, answer.window, answer.headers.get("retry-after")


def test_what_the_service_refuses():
    """Each limit refuses when it is used up, says when it resets, and a refusal uses nothing up."""
    service = Service([ACCOUNT])
    assert [
        ask(service, model, now) for model, now in (("c", 0.0), ("b", 1.0), ("b", 1.5), ("a", 2.0), ("a", 3.0))
    ] == [
        (400, "model missing", 0, None),
        (200, "", 0, None),
        (429, "model limit", 0, "99"),
        (200, "", 0, None),
        (200, "", 0, None),
    ]
    assert [ask(service, "a", now) for now in (4.0, 100.0, 150.0, 199.5, 200.0)] == [
        (429, "session limit", 0, "96"),
        (200, "", 0, None),
        (402, "quota", 0, "50"),
        (402, "quota", 0, "1"),
        (200, "", 0, None),
    ]


def test_what_the_service_tells():
    """A success says what is left of the window, as it was counted up to 30 s before."""
    service = Service([ACCOUNT])
    told = [service.answer("account1", "a", now).headers["x-usage-ratelimit-session"] for now in (0.0, 29.0, 31.0)]
    assert [text.partition("rem=")[2].partition("&")[0] for text in told] == ["66.7", "66.7", "0.0"]
    assert told[0].endswith("rst=2027-01-15T08%3A01%3A40Z")
