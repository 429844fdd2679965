"""The only place where functions of other libraries are replaced. docs/decisions lists each of them with its reason."""

import functools
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import resolve_name
from typing import Any


def replace(target: str, value: Any) -> None:
    """Give ``module:name`` or ``module:Class.name`` another value, also in RL Zoo's modules that imported it by its name."""
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    holder = resolve_name(f"{module}:{owner}") if owner else import_module(module)
    original = vars(holder).get(name)
    setattr(holder, name, staticmethod(value) if isinstance(original, staticmethod) else value)
    for other in list(sys.modules.values()) if inspect.isfunction(original) and not owner else ():
        if getattr(other, "__name__", "").startswith("rl_zoo3") and vars(other).get(name) is original:
            setattr(other, name, value)


def wrap(target: str, wrapper: Callable[..., Any]) -> None:
    """Replace ``target(...)`` by ``wrapper(original, ...)``. Doing it again changes nothing."""
    original = resolve_name(target)
    if wrapper in (wrappers := getattr(original, "wrapped_by", ())):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    wrapped.wrapped_by = (*wrappers, wrapper)  # type: ignore[attr-defined]
    replace(target, wrapped)
