"""Whether a perturbation has an effect: tried on copies of the environment, which itself is left alone."""

import contextlib
import copy
import functools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import EzPickle

ROUNDS = (20, 1_000)
"""Steps of a trial; the second round follows only if the first shows no difference."""
EPISODE = 100
"""Steps after which a trial starts a new episode at the latest."""
LONGEST_HOLD = 20
"""Steps for which a trial repeats an action at most."""


class CannotTry(Exception):
    """The environment cannot be copied, or does not run with random actions."""


def new_twin(env: gym.Env, twins: contextlib.ExitStack) -> gym.Env:
    """
    :param env: Environment without wrappers.
    :param twins: Closes the twin at the end.
    :return: The environment, created anew from its registration.
    :raises CannotTry: if that is not possible.
    """
    if env.spec is None or env.spec.entry_point is None:
        raise CannotTry("it is not registered")
    kwargs = {key: value for key, value in copy.deepcopy(env.spec.kwargs).items() if key != "render_mode"}
    entry = env.spec.entry_point
    twin = (load_env_creator(entry) if isinstance(entry, str) else entry)(**kwargs)
    assert isinstance(twin, gym.Env)
    twins.callback(twin.close)
    return twin


def copied_twin(env: gym.Env, twins: contextlib.ExitStack) -> gym.Env:
    """
    :param env: Environment without wrappers.
    :param twins: Closes nothing, which would close what a copy shares with the environment.
    :return: A deep copy of it, without pictures.
    :raises CannotTry: if it would act on the original.
    """
    cells = [cell for value in vars(env).values() for cell in getattr(value, "__closure__", None) or ()]
    if any(cell.cell_contents is env for cell in cells):
        raise CannotTry("a function in it would act on the original")
    twin = copy.deepcopy(env)
    with contextlib.suppress(AttributeError):
        twin.render_mode = None
    return twin


def why_no_effect(
    env: gym.Env,
    change: Callable[[gym.Env], None],
    kept: Callable[[gym.Env], bool],
    what: str,
    *,
    attribute: str | None = None,
    slightly: Callable[[gym.Env], None] | None = None,
    rare: bool = False,
) -> str | None:
    """
    Play the same actions from the same seeds in two copies of an environment, one of which is changed.

    A change has an effect if it makes a difference to an observation, a reward, an action mask or the end of an episode. It
    may have one if the environment reads the changed attribute: some limits are out of the reach of random actions. A limit
    that is reached, since a slight change makes a difference, has no effect if this change makes none.

    :param env: Environment without wrappers. It is not touched.
    :param change: Changes a copy.
    :param kept: Whether a copy still has what ``change`` gave it.
    :param what: What is changed, for the reason.
    :param attribute: The attribute that is changed, if it is one.
    :param slightly: Changes the attribute of a copy a little, in the other direction.
    :param rare: Whether the change is known to have an effect in states that random actions may not reach.
    :return: Why the change has no effect; None if it has one, or may have one.
    :raises CannotTry: if there is no copy that runs with random actions.
    """
    reason, error = None, None
    # The deep copy comes second: it may share a simulator with the environment, but it has what was set after its creation
    for twin in (new_twin, copied_twin):
        if reason is not None and isinstance(env, EzPickle):  # copied by creating it anew
            break
        try:
            with _global_generators_restored(), warnings.catch_warnings(), contextlib.ExitStack() as twins:
                warnings.simplefilter("ignore")
                reason = _compare(functools.partial(twin, env, twins), change, kept, what, attribute, slightly, rare)
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
    change: Callable[[gym.Env], None],
    kept: Callable[[gym.Env], bool],
    what: str,
    attribute: str | None,
    slightly: Callable[[gym.Env], None] | None,
    rare: bool,
) -> str | None:
    plain, changed = twin(), twin()
    read = False
    try:
        change(changed.unwrapped)
    except AttributeError as error:
        return f"{what} cannot be set: {error}"
    if not kept(changed.unwrapped):
        return f"{what} is computed from other attributes: scale one of those"
    for seed, steps in enumerate(ROUNDS):
        before = list(_play(plain, steps, seed))
        with _reads(changed.unwrapped, attribute) as reads:
            try:
                after = list(_play(changed, steps, seed))
            except Exception as error:
                return f"the environment fails with it: {type(error).__name__}: {error}"
        if not kept(changed.unwrapped):
            return f"the environment itself sets {what} when it is reset or stepped"
        if rare or (_differs(before, after) and not _is_random(twin, seed, before)):
            return None
        read |= bool(reads)
    none = f"it made no difference in a trial of {ROUNDS[-1]} steps"
    if not read:
        return f"{none}. Perhaps the environment uses {what} only when it is created or drawn, or not at all"
    if slightly is None or not _acts(slightly, twin, before):
        return None
    return f"{none}, although a slight change in the other direction does: {what} seems to be a limit that nothing can pass"


def _acts(slightly: Callable[[gym.Env], None], twin: Callable[[], gym.Env], seen: list[Any]) -> bool:
    """:return: Whether the slight change makes a difference in the last round."""
    last, nudged = len(ROUNDS) - 1, twin()
    slightly(nudged.unwrapped)
    try:
        return _differs(seen, _last_round(nudged, last)) and not _is_random(twin, last, seen)
    except Exception:  # for example if a whole number is needed
        return False


def _last_round(env: gym.Env, last: int) -> list[Any]:
    for seed, steps in enumerate(ROUNDS[:last]):
        list(_play(env, steps, seed))
    return list(_play(env, ROUNDS[last], last))


def _is_random(twin: Callable[[], gym.Env], last: int, seen: list[Any]) -> bool:
    """:return: Whether another copy shows something else in the last of its rounds, although it is not changed."""
    return _differs(seen, _last_round(twin(), last))


def _differs(first: list[Any], second: list[Any]) -> bool:
    return len(first) != len(second) or not all(map(_same, first, second))


@contextlib.contextmanager
def _reads(env: gym.Env, attribute: str | None) -> Iterator[list[str]]:
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


def _play(env: gym.Env, steps: int, seed: int) -> Iterator[Any]:
    """Yield what an agent sees. Actions are held for a while, and extreme ones are frequent, to get around."""
    random.seed(seed)
    np.random.seed(seed)
    generator = np.random.default_rng(seed)
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    masks = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None
    longest = min(EPISODE, steps // 2)
    action, held, age = None, np.int64(0), longest
    for step in range(steps):
        if age == longest:
            yield copy.deepcopy(env.reset(seed=seed + step)[0])
            age = 0
        if held == 0 or masks is not None:
            action, held = _sample(space, generator, None if masks is None else masks()), generator.integers(LONGEST_HOLD)
        else:
            held -= 1
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        age = longest if terminated or truncated else age + 1
        yield copy.deepcopy(obs), reward, terminated, truncated, None if masks is None else masks()


def _sample(space: gym.Space, generator: np.random.Generator, mask: Any) -> Any:
    """:return: A random action, half of the time at the bounds of the space if there are any."""
    if mask is not None and isinstance(space, spaces.Discrete):
        return space.sample(mask=np.asarray(mask, np.int8))
    if mask is not None and isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        parts = np.split(np.asarray(mask, np.int8), np.cumsum(space.nvec)[:-1])
        return space.sample(mask=tuple(parts))
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


@contextlib.contextmanager
def _global_generators_restored() -> Iterator[None]:
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
