"""A coroutine that may answer at once, outside any task, and goes on in one when it cannot.

Laws of this file:

1. Whatever takes time stands in a `Later`; nothing else that such a coroutine awaits may wait.
2. What was begun is not begun again: `begun` gives back what is left of it.
"""

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


class Later[T]:
    """Something that takes its time: whoever awaits it is left until its result is there."""

    def __init__(self, what: Awaitable[T]) -> None:
        self.what = what

    def __await__(self) -> Generator["Later[T]", T, T]:
        """Leave the coroutine here."""
        return (yield self)


def begun(coroutine: Coroutine[Later[Any], Any, None]) -> Awaitable[None] | None:
    """Run it up to where it has to wait.

    Returns:
        What is left of it, to be awaited in a task; None: it is over.

    """
    try:
        later = coroutine.send(None)
    except StopIteration:
        return None
    return _rest(coroutine, later)


async def _rest(coroutine: Coroutine[Later[Any], Any, None], later: Later[Any]) -> None:
    try:
        while True:
            try:
                result = await later.what
            except BaseException as error:  # noqa: BLE001 - the coroutine's own to catch, a cancellation too
                later = coroutine.throw(error)
            else:
                later = coroutine.send(result)
    except StopIteration:
        return
