"""A disk that fails: lets one call of one function of ``os`` fail as the system would."""

import itertools
import os

import pytest


class Faults:
    """Let the nth call (from 0) of one function of ``os`` fail, half of a write done; `hit` tells whether it came to that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: str, code: int, nth: int = 0) -> None:
        real = getattr(os, function)
        calls = itertools.count()
        self.hit = False

        def failing(*args: object, **more: object) -> object:
            if next(calls) != nth:
                return real(*args, **more)
            self.hit = True
            if function == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, function, failing)
        self.undo = lambda: monkeypatch.setattr(os, function, real)
