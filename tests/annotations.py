"""What executes the studio's annotations in the tests: beartype."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

from beartype import beartype

_inner: dict[tuple[str, str, CodeType], Any] = {}


def checked(function: FunctionType) -> Any:
    """A function that has a signature and does nothing, made to check its arguments by its annotations.

    A function inside another comes again at every call of that one; beartype, which takes milliseconds, sees
    it once.
    """
    if "<locals>" not in function.__qualname__:
        return beartype(function)
    key = (function.__module__, function.__qualname__, function.__code__)
    if key not in _inner:
        _inner[key] = beartype(function)
    return _inner[key]
