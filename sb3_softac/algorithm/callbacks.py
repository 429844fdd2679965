"""The callbacks of a training, however deep."""

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


def inner_callbacks(callback: Any) -> list[BaseCallback]:
    """The callbacks that a callback calls: those of a list, and those of events such as a new best evaluation."""
    events = [getattr(callback, name, None) for name in ("callback", "callback_on_new_best")]
    listed = callback if isinstance(callback, list) else getattr(callback, "callbacks", [])
    listed = listed if isinstance(listed, list | tuple) else []  # a user's attribute of this name may be anything
    return [part for part in [*listed, *events] if isinstance(part, BaseCallback)]


def all_callbacks(callback: Any) -> Iterator[Any]:
    """A callback, or a list of them as ``learn`` takes it, and all that it calls, each once."""
    waiting, seen = [callback], {id(callback)}
    while waiting:
        yield (each := waiting.pop(0))
        new = [inner for inner in inner_callbacks(each) if id(inner) not in seen]
        seen.update(map(id, new))
        waiting = new + waiting
