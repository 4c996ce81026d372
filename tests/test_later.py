"""A coroutine that may answer at once and goes on in a task when it cannot."""

import asyncio

import pytest

from copilot_balancer.later import Later, begun


async def sleeper(value):
    await asyncio.sleep(0)
    return value


def test_what_waits_for_nothing_is_over_at_once():
    """Outside any event loop."""
    done = []

    async def quick():
        done.append(await inner())

    async def inner():
        return "done"

    assert begun(quick()) is None
    assert done == ["done"]


def test_what_waits_goes_on_where_it_is_awaited():
    """Each wait's result comes back to where it was awaited, and nothing runs twice."""
    done = []

    async def slow():
        done.append("begun")
        done.append(await Later(sleeper("one")))
        done.append(await Later(sleeper("two")))

    rest = begun(slow())
    assert done == ["begun"]
    asyncio.run(asyncio.wait_for(rest, 10))
    assert done == ["begun", "one", "two"]


def test_an_exception_of_what_is_waited_for_is_the_coroutines_to_catch():
    """And of the coroutine's own, whoever awaits the rest."""
    done = []

    async def broken():
        raise ValueError("one")

    async def slow():
        try:
            await Later(broken())
        except ValueError as error:
            done.append(str(error))
        await Later(sleeper(None))
        raise KeyError("two")

    with pytest.raises(KeyError, match="two"):
        asyncio.run(asyncio.wait_for(begun(slow()), 10))
    assert done == ["one"]


def test_an_exception_before_the_first_wait_is_raised_at_once():
    async def wrong():
        raise KeyError("at once")

    with pytest.raises(KeyError, match="at once"):
        begun(wrong())


def test_a_cancelled_rest_cancels_what_it_waits_for():
    """The coroutine may clean up, and sees the cancellation."""
    done = []

    async def slow():
        try:
            await Later(asyncio.sleep(3600))
        finally:
            done.append("cleaned up")

    async def cancelled():
        task = asyncio.ensure_future(begun(slow()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert done == ["cleaned up"]
