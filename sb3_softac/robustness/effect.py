"""Whether a perturbation has an effect: tried on copies, so that the environment itself is untouched."""

import contextlib
import copy
import functools
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

ROUNDS = (20, 1_000)
"""Steps of a trial; the second round follows only if the first shows no difference."""
EPISODES = (10, 100)
"""The most steps of an episode, in each round."""
LONGEST_HOLD = 20
"""The most steps for which a trial repeats an action."""

Change = Callable[[gym.Env], None]


class CannotTry(Exception):
    """The environment cannot be copied, or does not run with random actions."""


def _created_again(env: gym.Env, created: contextlib.ExitStack) -> gym.Env:
    if env.spec is None or env.spec.entry_point is None:
        raise CannotTry("it is not registered")
    kwargs = {key: value for key, value in copy.deepcopy(env.spec.kwargs).items() if key != "render_mode"}
    entry = env.spec.entry_point
    twin = (load_env_creator(entry) if isinstance(entry, str) else entry)(**kwargs)
    assert isinstance(twin, gym.Env)
    created.callback(twin.close)
    return twin


def _copied(env: gym.Env, created: contextlib.ExitStack) -> gym.Env:
    """This copy is never closed: that would also close what it shares with the environment."""
    cells = [cell for value in vars(env).values() for cell in getattr(value, "__closure__", None) or ()]
    if any(cell.cell_contents is env for cell in cells):
        raise CannotTry("a function in it would act on the original")
    twin = copy.deepcopy(env)
    with contextlib.suppress(AttributeError):
        twin.render_mode = None
    return twin


def why_no_effect(env: gym.Env, what: str, change: Change, **others: Any) -> str | None:
    """
    Why a change of an environment without wrappers has no effect; None if it has one, or may have one. The same actions are
    played from the same seeds in two copies, one of which is changed; CannotTry if no copy runs with random actions.
    """
    reason, error = None, None
    # The deep copy comes second: it may share a simulator with the environment, but it has what was set after its creation
    for make in (_created_again, _copied):
        with warnings.catch_warnings(), contextlib.ExitStack() as created:
            created.callback(random.setstate, random.getstate())
            created.callback(np.random.set_state, np.random.get_state())
            warnings.simplefilter("ignore")
            try:
                reason = _compare(functools.partial(make, env, created), what, change, **others)
            except Exception as caught:
                error = caught
                continue
        if reason is None:
            return None
    if reason is None:
        raise CannotTry(f"{type(error).__name__}: {error}") from error
    return reason


def _compare(
    twin: Callable[[], gym.Env],
    what: str,
    change: Change,
    *,
    slight: Change,
    is_kept: Callable[[gym.Env], bool],
    attribute: str | None,
    acts_elsewhere: bool,
) -> str | None:
    """
    Look for a difference in an observation, a reward, an action mask or the end of an episode.

    Without one, a change may still have an effect if the environment reads the changed attribute: some limits are out of the
    reach of random actions. It has none at a limit that is reached, which a slight change the other way shows.
    """
    plain, changed = twin(), twin()
    try:
        change(changed.unwrapped)
    except AttributeError as error:
        return f"{what} cannot be set: {error}"
    if not is_kept(changed.unwrapped):
        return f"{what} is computed from other attributes: scale one of those"
    plays, is_read = (_play(plain), _play(changed)), False
    before: list[Any] = []
    for steps in ROUNDS:
        before += itertools.islice(plays[0], steps)
        with _watched(changed.unwrapped, attribute) as reads:
            try:
                after = list(itertools.islice(plays[1], steps))
            except Exception as error:
                return f"the environment fails with it: {type(error).__name__}: {error}"
        if not is_kept(changed.unwrapped):
            return f"the environment itself sets {what} when it is reset or stepped"
        if acts_elsewhere or (not _same(before[-steps:], after) and _repeats(twin(), before)):
            return None
        is_read |= bool(reads)
    none = f"it made no difference in a trial of {ROUNDS[-1]} steps"
    if not is_read:
        return f"{none}. Perhaps the environment uses {what} only when it is created or rendered, or not at all"
    nudged = twin()
    slight(nudged.unwrapped)
    with contextlib.suppress(Exception):  # for example if a whole number is needed
        if not _repeats(nudged, before) and _repeats(twin(), before):
            hint = f"{what} seems to be a limit that nothing can pass"
            return f"{none}, although a slight change in the other direction does: {hint}"
    return None


def _repeats(twin: gym.Env, seen: list[Any]) -> bool:
    """:return: Whether a copy shows the same: one that has not been changed does not, if it is random whatever the seed."""
    return _same(seen, list(itertools.islice(_play(twin), len(seen))))


@contextlib.contextmanager
def _watched(env: gym.Env, attribute: str | None) -> Iterator[list[str]]:
    """Note when an attribute of a copy is read."""
    reads: list[str] = []
    cls = type(env)

    def read(self: gym.Env, name: str) -> Any:
        if name == attribute:
            reads.append(name)
        return cls.__getattribute__(self, name)

    watched = type(cls.__name__, (cls,), {"__getattribute__": read, "__module__": cls.__module__})
    try:
        if attribute is not None:
            env.__class__ = watched
    except TypeError:  # a class that is not written in Python
        reads.append("unknown")
    yield reads
    if type(env) is watched:
        env.__class__ = cls


def _play(env: gym.Env) -> Iterator[Any]:
    """Yield what an agent sees. Actions are held for a while, and extreme ones are frequent, to get around."""
    generator = np.random.default_rng(0)
    space = copy.deepcopy(env.action_space)
    space.seed(0)
    masks = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None
    action, hold, age = None, 0, np.inf
    for step in itertools.count():
        random.seed(step)  # for environments that draw from the global generators
        np.random.seed(step)
        if age >= EPISODES[step >= ROUNDS[0]]:
            yield copy.deepcopy(env.reset(seed=step)[0])
            age = 0
        if hold == 0 or masks is not None:
            action, hold = _sample(space, generator, None if masks is None else masks()), int(generator.integers(LONGEST_HOLD))
        else:
            hold -= 1
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        age = np.inf if terminated or truncated else age + 1
        yield copy.deepcopy(obs), reward, terminated, truncated, None if masks is None else masks()


def _sample(space: gym.Space, generator: np.random.Generator, mask: Any) -> Any:
    """:return: A random action, half of the time at the bounds of the space if there are any."""
    if mask is not None and isinstance(space, spaces.Discrete):
        return space.sample(mask=np.asarray(mask, np.int8))
    if mask is not None and isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return space.sample(mask=tuple(np.split(np.asarray(mask, np.int8), np.cumsum(space.nvec)[:-1])))
    if isinstance(space, spaces.Box) and space.is_bounded() and generator.random() < 0.5:
        return np.where(generator.random(space.shape) < 0.5, space.low, space.high).astype(space.dtype)
    return space.sample()


def _same(first: Any, second: Any) -> bool:
    """:return: Whether two observations, or containers of them, are equal; NaN equals NaN."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(_same, first, second))
    one, other = np.asarray(first), np.asarray(second)
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc" and other.dtype.kind in "fc")
