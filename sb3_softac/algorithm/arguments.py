"""
What each argument must be: one table for the constructors, ``policy_kwargs`` and the replay buffer.

Everything is checked before any network or buffer is built, and again when an attribute has been set. The errors name the
argument, what is expected and what was given.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.goal_selection_strategy import KEY_TO_GOAL_STRATEGY, GoalSelectionStrategy

from sb3_softac.checks import (
    BOOLEAN,
    KEYWORD_ARGUMENTS,
    Argument,
    Refused,
    as_integer,
    checked,
    did_you_mean,
    evaluate,
    instance,
    integer,
    number,
    optional,
    read,
    shown,
    subclass,
)
from sb3_softac.entropy.temperature import check_bounds, check_ent_coef

# --- Arguments of the constructors


def _learning_rate(value: Any) -> Any:
    if callable(value) and not isinstance(value, type):
        for progress in (1.0, 0.0):  # one that ends at infinity is found now, not at the end of the training
            check_learning_rate(value, progress)
        return value
    return RATE.read(value)


RATE = number("a finite number, at least 0", lambda rate: rate >= 0.0)


def check_learning_rate(schedule: Callable[[float], Any], progress_remaining: float) -> float:
    """The learning rate of a schedule, for a progress from 1 to 0; an error unless it is finite and at least 0."""
    # SB3 wraps the user's schedule in a conversion to float, whose errors do not say what was converted
    schedule = schedule.value_schedule if isinstance(schedule, FloatSchedule) else schedule
    return evaluate("learning_rate", schedule, progress_remaining, RATE)


def _train_freq(value: Any) -> TrainFreq:
    frequency, unit = value if isinstance(value, tuple | list) else (value, "step")
    return TrainFreq(integer(1).read(frequency), TrainFrequencyUnit(unit))


EXTENT = number("a number in [0, 1]", lambda value: 0.0 <= value <= 1.0)
ARGUMENTS: dict[str, Argument] = {
    "learning_rate": Argument(
        "a finite number, at least 0, or a schedule (a function of the remaining progress that returns one)", _learning_rate
    ),
    "buffer_size": integer(1, " transition"),
    "learning_starts": integer(0, " environment steps"),
    "batch_size": integer(1, " transition"),
    "tau": EXTENT._replace(expected="a number in [0, 1] (1 copies the network, 0.005 is the usual slow average)"),
    "gamma": EXTENT._replace(expected="a number in [0, 1] (0.99 is the usual discount factor)"),
    "train_freq": Argument("an integer, at least 1, or a pair such as (4, 'step') or (1, 'episode')", _train_freq),
    "gradient_steps": integer(-1)._replace(expected="an integer, at least 0, or -1 for one per environment step"),
    "action_noise": optional(instance("an ActionNoise object, e.g. NormalActionNoise(mean, sigma)", ActionNoise)),
    "replay_buffer_class": optional(subclass("a subclass of SB3's ReplayBuffer", ReplayBuffer)),
    "replay_buffer_kwargs": optional(KEYWORD_ARGUMENTS),
    "optimize_memory_usage": BOOLEAN,
    "n_steps": integer(1)._replace(expected="an integer, at least 1: the number of rewards in a target"),
    "ent_coef": Argument("a number greater than 0, 'auto', 'auto_0.1', 'lin_0.2', or a schedule", check_ent_coef),
    "ent_coef_bounds": Argument("a pair of numbers greater than 0, None for no bound", check_bounds),
    "target_update_interval": integer(1, " gradient step"),
    "random_steps": optional(integer(0, " environment steps"), " (same as learning_starts)"),
    "policy_kwargs": optional(KEYWORD_ARGUMENTS),
    "stats_window_size": integer(1, " episode"),
    "tensorboard_log": optional(instance("the path of a folder", str, os.PathLike)),
    "verbose": Argument(
        "an integer, at least 0 (0, 1 or 2 in SB3)",
        lambda value: integer(0).read(int(value) if isinstance(value, bool | np.bool_) else value),
    ),
    "device": checked(
        "'auto', 'cpu', 'cuda', another name of a device, or a torch.device",
        lambda value: isinstance(value, str | th.device),
        lambda value: value if value == "auto" else th.device(value),
    ),
    "seed": optional(integer(0, " and less than 2**32", 2**32 - 1)),
    "use_sde": BOOLEAN,
    "sde_sample_freq": Argument(
        "an integer, at least 1, or -1 for one draw per rollout",
        lambda value: -1 if as_integer(value) == -1 else integer(1).read(value),
    ),
    "use_sde_at_warmup": BOOLEAN,
    "cuda_graphs": BOOLEAN,
    "_init_setup_model": BOOLEAN,
}
"""By name. Every algorithm has these in its class attribute ``arguments``, with those of its own."""

# Attributes that only the construction reads
ONLY_AT_CONSTRUCTION = (
    *("buffer_size", "replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage", "policy_kwargs", "use_sde"),
    *("seed", "cuda_graphs"),
)


# --- Arguments of the policies


def _extractor(value: Any) -> Any:
    if not callable(value) or isinstance(value, th.nn.Module):
        raise TypeError
    if isinstance(value, type) and not issubclass(value, th.nn.Module):
        raise TypeError
    if not isinstance(value, type):
        inspect.signature(value).bind_partial(None)  # takes an observation space
    return value


def net_arch(*networks: str) -> Argument:
    """:return: Sizes of hidden layers: one list, or one for each of several networks."""
    names = ", ".join(map(repr, networks))

    def layers(value: Any) -> list[int]:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [integer(1).read(units) for units in value]

    def read_net_arch(value: Any) -> Any:
        if not isinstance(value, Mapping) or not networks:
            return layers(value)
        if not set(networks[:2]) <= value.keys() <= set(networks):
            raise ValueError
        return {name: layers(sizes) for name, sizes in value.items()}

    expected = "a list of integers, at least 1 each, the sizes of the hidden layers"
    if networks:
        expected += f", or a dictionary of such lists with the keys {names}"
    return optional(Argument(expected, read_net_arch))


POLICY_ARGUMENTS: dict[str, Argument] = {
    "net_arch": net_arch("pi", "qf"),
    "activation_fn": checked(
        "a class of torch.nn such as nn.ReLU, not an object or a function of tensors",
        lambda value: isinstance(value(), th.nn.Module),
    ),
    "features_extractor_class": optional(Argument("a subclass of SB3's BaseFeaturesExtractor", _extractor)),
    "features_extractor_kwargs": optional(KEYWORD_ARGUMENTS),
    "normalize_images": BOOLEAN,
    "optimizer_class": checked(
        "a subclass of torch.optim.Optimizer, or a function that creates one",
        lambda value: callable(value) and (not isinstance(value, type) or issubclass(value, th.optim.Optimizer)),
    ),
    "optimizer_kwargs": optional(KEYWORD_ARGUMENTS),
    "n_critics": integer(1, " (the papers use 2)"),
    "share_features_extractor": BOOLEAN,
}
"""By name. Every policy has these in its class attribute ``arguments``, with those of its own."""

PASSED_BY_THE_ALGORITHM = ("self", "observation_space", "action_space", "lr_schedule")


def check_policy_class(policy: object, base: type[BasePolicy], algorithm: str) -> None:
    """Refuse a policy class of another algorithm; a saved model contains the class that it was created with."""
    if isinstance(policy, str) or (isinstance(policy, type) and issubclass(policy, base)):
        return
    given = f"{policy.__module__}.{policy.__qualname__}" if isinstance(policy, type) else shown(policy)
    raise ValueError(
        f"{algorithm} cannot use the policy {given}: give 'MlpPolicy', 'CnnPolicy', 'MultiInputPolicy' or a subclass of "
        f"{base.__module__}.{base.__qualname__}. Load a saved model with the class of the algorithm that saved it"
    )


OWN_AND_SB3 = ("sb3_softac.", "stable_baselines3.")


def parameters_of(cls: type) -> tuple[dict[str, type], bool]:
    """
    Parameters of a constructor by name, those passed on to base classes too, each with the class that defines it; and
    whether it accepts others: a user's constructor may read its ``**kwargs`` itself.
    """
    found: dict[str, type] = {}
    accepts_others = False
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        try:
            parameters = inspect.signature(owner.__init__).parameters.values()  # type: ignore[misc]
        except ValueError:  # written in C
            return found, True
        found = {**{p.name: owner for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return found, accepts_others
        accepts_others |= not owner.__module__.startswith(OWN_AND_SB3)
    return found, True


def merged(defaults: dict[str, Any], given: Any) -> Any:
    """:return: Defaults updated by keyword arguments; anything else unchanged, for the table to refuse."""
    return {**defaults, **(given or {})} if given is None or isinstance(given, Mapping) else given


def check_keywords(name: str, given: Mapping[str, Any], cls: type, taken: Iterable[str] = ()) -> dict[str, type]:
    """The classes that define the parameters by name; an error for one that is unknown or that the algorithm gives."""
    known, accepts_others = parameters_of(cls)
    for key in given:
        if key in taken:
            raise Refused(f"{name}: {key!r} is given by the algorithm itself, leave it out")
        if key not in known and not accepts_others:
            names = sorted(known.keys() - {*taken, "self"})
            raise Refused(f"{name}: {cls.__name__} has no argument {key!r}{did_you_mean(key, names) or f': it has {names}'}")
    return known


def check_policy_kwargs(policy_class: type[BasePolicy], given: dict[str, Any]) -> dict[str, Any]:
    """A policy's keyword arguments in the types that the program uses; an error if one is unknown or wrong."""
    owners = check_keywords("policy_kwargs", given, policy_class, PASSED_BY_THE_ALGORITHM)
    table: dict[str, Argument] = getattr(policy_class, "arguments", POLICY_ARGUMENTS)
    kwargs = {
        # A user's policy may give a parameter another meaning
        name: read(f"policy_kwargs: {name}", value, table[name])
        if name in table and owners.get(name, policy_class).__module__.startswith(OWN_AND_SB3)
        else value
        for name, value in given.items()
    }
    _check_optimizer_kwargs(kwargs)
    return kwargs


def check_features_extractor(policy_class: type[BasePolicy], kwargs: dict[str, Any], observation_space: spaces.Space) -> None:
    """Refuse a features extractor of SB3's that is for other observations, and arguments that the extractor does not have."""
    extractor = kwargs.get("features_extractor_class") or getattr(policy_class, "default_features_extractor_class", None)
    given = kwargs.get("features_extractor_kwargs") or {}
    if isinstance(extractor, type) and isinstance(given, dict):
        check_keywords("policy_kwargs: features_extractor_kwargs", given, extractor, ("observation_space",))
    is_dict = isinstance(observation_space, spaces.Dict)
    if extractor is CombinedExtractor and not is_dict:
        raise Refused(
            f"'MultiInputPolicy' and CombinedExtractor are for Dict observations, got {observation_space}: use 'MlpPolicy'"
        )
    if extractor in (FlattenExtractor, NatureCNN) and is_dict:
        raise Refused(f"{extractor.__name__} cannot read Dict observations, got {observation_space}: use 'MultiInputPolicy'")


def _check_optimizer_kwargs(kwargs: dict[str, Any]) -> None:
    optimizer, given = kwargs.get("optimizer_class", th.optim.Adam), kwargs.get("optimizer_kwargs") or {}
    if not kwargs.keys() & {"optimizer_class", "optimizer_kwargs"} or not isinstance(given, dict):
        return
    if isinstance(optimizer, type):
        check_keywords("policy_kwargs: optimizer_kwargs", given, optimizer, ("params", "lr"))
    parameter = th.zeros(1, requires_grad=True)
    parameter.grad = th.zeros(1)
    try:
        made = optimizer([parameter], lr=1e-3, **given)
        if not isinstance(made, th.optim.Optimizer):
            raise TypeError(f"it returns {shown(made)}, not an optimizer")
        made.step()
    except Exception as error:
        name = getattr(optimizer, "__name__", shown(optimizer))
        raise Refused(
            f"policy_kwargs: optimizer_class={name} with optimizer_kwargs={shown(given)} cannot train a parameter: {error}"
        ) from error


# --- Arguments of replay buffers

BUFFER_ARGUMENTS: dict[str, Argument] = {
    "handle_timeout_termination": BOOLEAN,
    "n_steps": ARGUMENTS["n_steps"],
    "gamma": ARGUMENTS["gamma"],
    "single_precision": BOOLEAN,
    "n_sampled_goal": integer(0, " goals per transition"),
    "goal_selection_strategy": Argument(
        f"one of {sorted(KEY_TO_GOAL_STRATEGY)}",
        lambda value: value if isinstance(value, GoalSelectionStrategy) else KEY_TO_GOAL_STRATEGY[value.lower()],
    ),
    "copy_info_dict": BOOLEAN,
}
GIVEN_TO_BUFFERS = ("buffer_size", "observation_space", "action_space", "device", "n_envs", "optimize_memory_usage")


def check_buffer_kwargs(buffer_class: type[ReplayBuffer], given: dict[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """A replay buffer's keyword arguments in the types that the program uses; an error if one is unknown or wrong."""
    owners = check_keywords("replay_buffer_kwargs", given, buffer_class, taken)
    return {
        name: read(f"replay_buffer_kwargs: {name}", value, BUFFER_ARGUMENTS[name])
        if name in BUFFER_ARGUMENTS and owners.get(name, buffer_class).__module__.startswith(OWN_AND_SB3)
        else value
        for name, value in given.items()
    }


# --- Arguments of learn()


def _callback(value: Any) -> Any:
    if isinstance(value, list):
        return [instance("", BaseCallback).read(each) for each in value]
    if value is None or isinstance(value, BaseCallback) or (callable(value) and not isinstance(value, type)):
        return value
    raise TypeError


LEARN_ARGUMENTS: dict[str, Argument] = {
    "total_timesteps": integer(0, " environment steps"),
    "callback": Argument(
        "a callback object, a list of them, a function of the local and global variables, or None", _callback
    ),
    "log_interval": optional(integer(1, " episode")),
    "tb_log_name": optional(instance("a string", str)),
    "reset_num_timesteps": BOOLEAN,
    "progress_bar": BOOLEAN,
}


# --- Environments and spaces


def check_env(env: object) -> None:
    """Refuse anything that is not an environment; the message says what to do with it."""
    if isinstance(env, str | VecEnv):
        return
    remedy = "give an environment, a vectorized environment of SB3, or a registered name"
    if isinstance(env, type):
        remedy = f"this is a class, create an environment with it: {env.__name__}(...)"
    elif isinstance(env, list | tuple):
        remedy = "for several environments use SB3's make_vec_env, or DummyVecEnv with a list of functions"
    elif isinstance(env, gym.vector.VectorEnv):
        remedy = "this is a vector environment of Gymnasium; SB3 has its own: use its make_vec_env"
    elif hasattr(env, "action_space") and hasattr(env, "observation_space"):
        return
    elif callable(env):
        remedy = "this is a function: call it, or give its result"
    raise Refused(f"env must be an environment, got {shown(env)}: {remedy}")


def check_bounded_box(action_space: spaces.Space) -> None:
    """Require a Box of floating-point numbers with finite, different bounds; as in SB3, the error is an AssertionError."""
    if not isinstance(action_space, spaces.Box):
        raise AssertionError(
            f"SoftAC_v1 and SQL need continuous actions (a Box), got {action_space}: for Discrete, MultiDiscrete and "
            "MultiBinary actions use DiscreteSAC or DiscreteSQL, or SB3's DQN or PPO"
        )
    if not np.issubdtype(action_space.dtype, np.floating):
        raise AssertionError(
            f"The policy's actions are continuous, but {action_space} contains integers, so all actions would be truncated: "
            "give the environment a Box of np.float32 and round inside it, or use Discrete actions and DiscreteSAC"
        )
    remedy = "e.g. with gymnasium.wrappers.RescaleAction or TransformAction"
    if not np.isfinite([action_space.low, action_space.high]).all():
        raise AssertionError(
            f"The policy squashes its actions into the bounds of the Box, but {action_space} has infinite bounds: give the "
            f"environment's action space finite bounds, {remedy}"
        )
    with np.errstate(over="ignore"):
        width = action_space.high.astype(np.float32) - action_space.low.astype(np.float32)
    if not (np.isfinite(width) & (width > 0.0)).all():
        raise AssertionError(
            f"The policy squashes its actions into the bounds of the Box, but in {action_space} a lower and an upper bound "
            f"are equal, or too far apart for single precision: change the environment's action space, {remedy}"
        )
