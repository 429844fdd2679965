"""Action masks of environments, by sb3-contrib's protocol: the environment has a method ``action_masks()``."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from sb3_contrib.common.maskable.utils import EXPECTED_METHOD_NAME, is_masking_supported
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_softac.discrete.branches import Branches

MASK_KEY = "sb3_softac.action_masks"
"""Key under which :class:`ActionMaskInfo` puts the mask in an info."""

_WHAT = ("action", "actions", "move", "moves")
_WHICH = ("valid", "legal", "allowed", "available", "avail", "possible", "feasible", "invalid", "illegal", "forbidden")
OTHER_NAMES = {
    *(f"{what}_{mask}" for what in _WHAT for mask in ("mask", "masks")),
    *(f"{which}_{what}" for which in _WHICH for what in _WHAT),
    *(f"{which}_{what}_{mask}" for which in _WHICH for what in _WHAT for mask in ("mask", "masks")),
    *("compute_action_mask", "compute_action_masks", "action_mask_fn", "mask_fn", "mask_actions"),
}
"""Other names that environments give to masks, which are not read here; also with the prefix ``get_``."""
AMBIGUOUS_NAMES = {"mask", "masks"}
"""The same, but ambiguous (images and agents have masks too): the value must look like an action mask."""


class ActionMaskInfo(gym.Wrapper):
    """
    Put the mask of the state that a step leads to into ``info["sb3_softac.action_masks"]``, unless that state is terminal.

    A vectorized environment resets itself when an episode ends; after that, ``action_masks()`` belongs to the new episode. The
    value of the last state, which is needed if a time limit ended the episode, depends on the mask of that state. An
    environment without masks is not changed.

    :param env: Environment.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._reports = env.has_wrapper_attr(EXPECTED_METHOD_NAME)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The step, with the mask of the state that it leads to in the info."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self._reports and not terminated:
            # A copy, because an environment may keep its mask in one array that its next reset changes
            info = {**info, MASK_KEY: np.array(self.env.get_wrapper_attr(EXPECTED_METHOD_NAME)())}
        return obs, reward, terminated, truncated, info


def has_masks(env: VecEnv) -> bool:
    """Whether a vectorized environment or its environments have action masks; an error if only some of these have any."""
    if is_masking_supported(env):
        return True
    venv = env.unwrapped
    if isinstance(venv, DummyVecEnv | SubprocVecEnv):
        having = venv.env_method("has_wrapper_attr", EXPECTED_METHOD_NAME)
        if any(having) and not all(having):
            raise ValueError(
                f"The environments {np.flatnonzero(having).tolist()} of {env.num_envs} have a method action_masks(), the "
                "others do not: give it to all of them (it returns ones where all actions are allowed), or to none"
            )
    return False


def _other_name(names: Iterable[Any], is_mask: Callable[[Any], bool]) -> str | None:
    """:return: The first name of masks that are not read here; ``is_mask`` judges the ambiguous ones."""
    for name in names:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower().lstrip("_").removeprefix("get_")
        if words in OTHER_NAMES or (words in AMBIGUOUS_NAMES and is_mask(name)):
            return str(name)
    return None


def _is_mask(value: Any, n: int) -> bool:
    """:return: Whether a value has an entry for each of ``n`` actions, 0 or 1."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return False
    return array.dtype.kind in "biuf" and array.size == n and bool(np.isin(array, (0, 1)).all())


def _has_mask(layer: Any, name: str, n: int) -> bool:
    """:return: Whether an attribute is a mask, or a method without arguments; neither it nor a property is called."""
    member = inspect.getattr_static(layer, name)
    if not callable(member):
        return _is_mask(member, n)
    try:
        inspect.signature(getattr(layer, name)).bind()
    except (TypeError, ValueError):
        return False
    return True


def _is_space_of_masks(space: gym.Space, n: int) -> bool:
    binary = isinstance(space, gym.spaces.Box) and (space.low == 0).all() and (space.high == 1).all()
    return bool(binary or isinstance(space, gym.spaces.MultiBinary)) and np.prod(space.shape or ()) == n


def _layers(env: VecEnv) -> Iterator[Any]:
    """:return: A vectorized environment, its wrappers, and the first of its environments with its wrappers, if accessible."""
    layer: Any = env
    seen: set[int] = set()
    while layer is not None and id(layer) not in seen:  # an environment may refer to one that refers to it
        seen.add(id(layer))
        yield layer
        if isinstance(layer, DummyVecEnv):
            layer = layer.envs[0]
        else:
            # Without running a property: behind the wrappers, a user's `env` may be anything
            layer = inspect.getattr_static(layer, "venv" if isinstance(layer, VecEnvWrapper) else "env", None)


def unread_masks(env: VecEnv) -> str | None:
    """:return: What an environment without action_masks() has that looks like a mask, in words; None if there is nothing."""
    n = Branches(env.action_space).n
    if isinstance(env.observation_space, gym.spaces.Dict):
        parts = env.observation_space.spaces
        if name := _other_name(parts, lambda key: _is_space_of_masks(parts[key], n)):
            return f"an observation {name!r}"
    for layer in _layers(env):
        if name := _other_name(dir(layer), partial(_has_mask, layer, n=n)):  # dir() evaluates nothing, so no property runs
            return f"an attribute or method {name!r}"
    if isinstance(env.unwrapped, SubprocVecEnv):
        for name in sorted({*OTHER_NAMES, *(f"get_{name}" for name in OTHER_NAMES)}):
            if all(env.env_method("has_wrapper_attr", name, indices=[0])):
                return f"an attribute or method {name!r}"
    return unread_masks_of_infos(getattr(env, "reset_infos", []), n)


def unread_masks_of_infos(infos: Iterable[dict[str, Any]], n: int) -> str | None:
    """:return: Which entry of the infos looks like a mask of ``n`` actions, in words; None if there is none."""
    for info in infos:
        # A single number under such a name is a count, not a mask
        names = [key for key, value in info.items() if hasattr(value, "__len__") and not isinstance(value, str)]
        if name := _other_name(names, lambda key, info=info: _is_mask(info[key], n)):  # type: ignore[misc]
            return f"an entry {name!r} of the info"
    return None


def ask_masks(env: VecEnv, branches: Branches) -> np.ndarray:
    """:return: Masks of the states that the environments are in now ``[n_envs, n]``, checked."""
    try:
        masks = env.env_method(EXPECTED_METHOD_NAME)
    except TypeError as error:
        if "not callable" not in str(error):
            raise
        raise ValueError(f"The environment's action_masks must be a method that returns the mask, but {error}") from error
    return branches.check_masks(list(masks), env.num_envs)


def single_envs_answer(env: VecEnv) -> bool:
    """Whether the masks come from the single environments, not from a wrapper around the vectorized one."""
    while isinstance(env, VecEnvWrapper):
        if type(env).env_method is not VecEnvWrapper.env_method:
            return False
        env = env.venv
    return True


def keep_last_masks(env: VecEnv) -> VecEnv:
    """Wrap the environments of a ``DummyVecEnv`` that have masks in :class:`ActionMaskInfo`, in place; return the same."""
    venv = env.unwrapped
    if has_masks(env) and isinstance(venv, DummyVecEnv) and single_envs_answer(env):
        venv.envs = [single if is_wrapped(single, ActionMaskInfo) else ActionMaskInfo(single) for single in venv.envs]
    return env


def dead_ends(infos: list[dict[str, Any]], dones: np.ndarray, branches: Branches) -> list[int]:
    """:return: The environments in which a time limit ended the episode in a state that allows no action."""
    return [
        i
        for i, (info, done) in enumerate(zip(infos, dones, strict=True))
        if done
        and info.get("TimeLimit.truncated")
        and MASK_KEY in info
        and not branches.allow_an_action(branches.read_masks(info[MASK_KEY], 1)).all()
    ]


def masks_of_next_states(
    env: VecEnv, infos: list[dict[str, Any]], dones: np.ndarray, branches: Branches
) -> tuple[np.ndarray, bool]:
    """
    Masks of the states that the last step led to, before any reset ``[n_envs, n]``, and whether one was missing.

    In terminal states, which have no value and may have no valid action, all actions count as allowed; so they do in the last
    states before a time limit whose masks were not reported.
    """
    rows: list[Any] = [info.get(MASK_KEY) for info in infos]
    running, ended = np.flatnonzero(~dones), np.flatnonzero(dones)
    # What was reported with the step holds even if a callback has used the environment since then
    if not single_envs_answer(env) or any(rows[i] is None for i in running):
        asked = env.env_method(EXPECTED_METHOD_NAME)
        for i in running:
            rows[i] = asked[i]
    missing = False
    for i in ended:
        by_time_limit = bool(infos[i].get("TimeLimit.truncated"))
        missing |= by_time_limit and rows[i] is None
        if not by_time_limit or rows[i] is None:
            rows[i] = np.ones(branches.n, dtype=bool)
    return branches.check_masks([np.reshape(row, -1) for row in rows], len(rows)), missing
