"""Wrapping of RL Zoo's methods."""

import functools
from collections.abc import Callable
from typing import Any

MARK = "_wrapped_by_sb3_softac"


def wrap_once(holder: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """
    Replace ``holder.name(...)`` by ``wrapper(original, ...)``; nothing happens if this wrapper is already in place.

    :param holder: Class or module.
    :param name: Name of a method or function.
    :param wrapper: Function; its first argument is the function that it replaces.
    """
    original, own = getattr(holder, name), f"{wrapper.__module__}.{wrapper.__qualname__}"
    if own in getattr(original, MARK, ()):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(wrapped, MARK, (*getattr(original, MARK, ()), own))
    setattr(holder, name, wrapped)
