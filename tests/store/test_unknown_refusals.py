"""The last refusals that no rule knew, on disk."""

import json
import stat

import pytest

from copilot_balancer.errors import StoreError
from copilot_balancer.store.store import Store
from copilot_balancer.store.unknown_refusals import (
    KEPT,
    SHOWN_BYTES,
    WAITING,
    SeenRefusal,
    UnknownRefusalLog,
    read_unknown,
)


def seen(number: int = 0, body: bytes = b"computer says no", **changes) -> SeenRefusal:
    return SeenRefusal(
        **{
            "at": float(number),
            "status": 403,
            "path": "/chat",
            "code": "new",
            "body": body,
            "request": b"{}",
            **changes,
        }
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


def test_the_last_fifty_are_kept_for_the_owner_alone(store):
    """Older ones make room; the file has mode 0600 and names no secret."""
    log = UnknownRefusalLog(store)
    for number in range(KEPT + 20):
        log.put(seen(number))
        log.drain()
    assert [one.at for one in read_unknown(store)] == [float(number) for number in range(20, KEPT + 20)]
    assert stat.S_IMODE((store.folder / "unknown.json").stat().st_mode) == 0o600


def test_what_waits_is_bounded(store):
    """A flood of refusals holds so many requests and no more."""
    log = UnknownRefusalLog(store)
    for number in range(10 * WAITING):
        log.put(seen(number))
    log.drain()
    assert len(read_unknown(store)) == WAITING
    assert not log.waits


def test_nothing_that_a_refusal_quotes_is_written(store):
    """Neither body nor code holds words of the request, a login or a credential, also at the cut."""
    secret = "my grandmother's secret recipe"
    body = b"x " * (SHOWN_BYTES // 2 - 10) + f"{secret} of octo-cat gho_abcdefghij1234567890".encode()
    log = UnknownRefusalLog(store)
    log.put(seen(body=body, code=secret, request=json.dumps({"input": secret}).encode(), names=("octo-cat",)))
    log.drain()
    raw = (store.folder / "unknown.json").read_text()
    for word in ("grandmother", "recipe", "octo-cat", "gho_"):
        assert word not in raw
    (kept,) = read_unknown(store)
    assert (kept.status, kept.code, len(kept.body) <= SHOWN_BYTES) == (403, "[quoted]", True)


def test_a_file_that_cannot_be_used_is_left_as_it_is(store):
    """It is said, and nothing is overwritten."""
    UnknownRefusalLog(store).drain()
    assert read_unknown(store) == ()
    log = UnknownRefusalLog(store)
    log.put(seen())
    log.drain()
    path = store.folder / "unknown.json"
    path.write_text("broken")
    log.put(seen())
    with pytest.raises(StoreError):
        log.drain()
    assert path.read_text() == "broken"
