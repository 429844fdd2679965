"""How the checks see an algorithm: a class that fits SB3's algorithms as they are, and whose methods an adapter overrides."""

import importlib
import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_softac.checks import did_you_mean

ALPHA, GAMMA = 0.2, 0.8


class NotApplicable(Exception):
    """A check needs something that the algorithm does not offer; the message names it."""


def decaying(left: float) -> float:
    """Learning rate that leaves little noise at the end; a function of the remaining progress."""
    return 1e-4 + 4e-3 * left


SETTINGS = dict(
    learning_rate=decaying,
    buffer_size=20_000,
    learning_starts=400,
    batch_size=64,
    tau=0.1,
    gamma=GAMMA,
    train_freq=8,
    gradient_steps=8,
    ent_coef=ALPHA,
    policy_kwargs=dict(net_arch=[64, 64]),
    device="cpu",
)
"""What every check starts from, under SB3's names."""


def _arguments_of(algorithm: type) -> set[str]:
    """:return: Names of the constructor's arguments, including those that it passes on to base classes."""
    names: set[str] = set()
    for owner in algorithm.__mro__:
        if "__init__" in vars(owner):
            parameters = inspect.signature(owner.__init__).parameters.values()  # type: ignore[misc]
            names |= {each.name for each in parameters}
            if not any(each.kind is each.VAR_KEYWORD for each in parameters):
                break
    return names


class Subject:
    """
    A model under examination. A subclass with another ``algorithm``, or with other methods, is an adapter.

    States are indices: all problems have the observation space Discrete. Continuous actions are scaled to [-1, 1] here.

    :param env: Environment, or a list of functions that make one each.
    :param seed: Seed of the model.
    :param settings: Arguments of the algorithm that this check sets.
    :raises NotApplicable: if the algorithm does not take one of them.
    """

    algorithm: ClassVar[type[Any]]
    """A class with SB3's interface."""
    settings: ClassVar[dict[str, Any]] = {}
    """Arguments of the algorithm that differ from ``SETTINGS`` in all checks."""

    def __init__(self, env: Any, seed: int = 0, **settings: Any):
        if unknown := sorted(settings.keys() - _arguments_of(self.algorithm)):
            raise NotApplicable(f"takes no {', '.join(unknown)}")
        env = DummyVecEnv(env) if isinstance(env, list) else env
        # a copy, because SB3 adds to policy_kwargs what the next algorithm may not take
        self.model = self.algorithm("MlpPolicy", env, seed=seed, **deepcopy({**SETTINGS, **self.settings, **settings}))

    @classmethod
    def of(cls, model: Any) -> "Subject":
        """:return: A subject that stands for a model which exists already."""
        subject = object.__new__(cls)
        subject.model = model
        return subject

    @classmethod
    def refuses(cls, action_space: gym.Space) -> Exception | None:
        """:return: The error of creating the algorithm for these actions; None if it takes them."""
        try:
            cls(_Spaces(action_space))
        except Exception as error:
            return error
        return None

    def learn(self, steps: int, callback: Any = None) -> None:
        """Train for so many further environment steps."""
        self.model.learn(steps, callback, reset_num_timesteps=False)

    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        """:return: Actions in the given states: scaled ``[n, dim]``, or indices ``[n]``."""
        kwargs = {} if masks is None else {"action_masks": masks}
        actions, _ = self.model.predict(np.asarray(states), deterministic=deterministic, **kwargs)
        space = self.model.action_space
        return actions if space.shape == () else 2.0 * (actions - space.low) / (space.high - space.low) - 1.0

    @th.no_grad()
    def probabilities(self, states: Any) -> np.ndarray:
        """:return: Probabilities of discrete actions in the given states ``[n, actions]``."""
        pi = self._get("policy.get_distribution")(self._obs(states)).distribution.probs.cpu().double().numpy()
        return pi / pi.sum(axis=1, keepdims=True)  # in single precision they sum to 1 but for the eighth digit

    def has_actor(self) -> bool:
        """:return: Whether a network of its own chooses the actions, rather than the Q-values."""
        return getattr(self._get("policy"), "actor", None) is not None

    def accepts_masks(self) -> bool:
        """:return: Whether ``predict`` takes sb3-contrib's ``action_masks``."""
        return "action_masks" in inspect.signature(self.model.predict).parameters

    @th.no_grad()
    def density(self, states: Any) -> tuple[np.ndarray, np.ndarray]:
        """:return: A scaled action for each state ``[n, dim]``, and the log-density that the algorithm gives it ``[n]``."""
        actions, log_prob = self._get("actor.action_log_prob")(self._obs(states))
        return actions.cpu().numpy(), log_prob.reshape(-1).cpu().double().numpy()

    @th.no_grad()
    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        """:return: Q-values of each critic: of scaled actions ``[critics, n]`` or all indices ``[critics, n, actions]``."""
        given = [] if actions is None else [th.as_tensor(actions, dtype=th.float32, device=self.model.device)]
        values = self._get(f"policy.{network}")(self._obs(states), *given)
        stacked = th.stack(tuple(values)) if isinstance(values, tuple | list) else values
        if actions is not None and isinstance(values, th.Tensor) and values.ndim == 3:  # sb3-contrib's quantiles, states first
            stacked = values.mean(dim=2).T
        found = (stacked if actions is None else stacked.reshape(len(stacked), -1)).cpu().double().numpy()
        if found.ndim < 2 or found.shape[1] != len(states):
            raise NotApplicable(f"policy.{network} does not return Q-values of each critic in each state")
        return found

    def temperature(self) -> float:
        """:return: The present temperature."""
        if getattr(self.model, "log_ent_coef", None) is None:  # SB3's is fixed then
            return float(self._get("ent_coef_tensor"))
        return float(self._get("log_ent_coef").detach().exp())

    def targets(self) -> np.ndarray:
        """:return: A copy of all parameters of target networks, in one row."""
        named = self._get("policy").named_parameters()
        found = [parameter.detach().reshape(-1).numpy() for name, parameter in named if "_target." in name]
        if not found:
            raise NotApplicable("has no target network")
        return np.concatenate(found)

    def scale_targets(self, factor: float) -> None:
        """Multiply all parameters of the critics' targets."""
        with th.no_grad():
            for parameter in self._get("policy.critic_target").parameters():
                parameter.mul_(factor)

    def stored(self) -> int:
        """:return: Number of transitions in the replay buffer of one environment."""
        return int(self._get("replay_buffer").size())

    def reloaded(self, env: Any) -> "Subject":
        """:return: The model from a file, with its replay buffer."""
        with TemporaryDirectory() as folder:
            file, buffer = Path(folder) / "model.zip", Path(folder) / "buffer.pkl"
            self._get("save")(file)
            self._get("save_replay_buffer")(buffer)
            model = self.algorithm.load(file, env=env, device="cpu")
            model.load_replay_buffer(buffer)
        return self.of(model)

    def seed_everything(self, seed: int) -> None:
        """Seed the generators that training draws from."""
        set_random_seed(seed)

    def saturate(self, mean: float) -> None:
        """Give a Gaussian actor this mean before tanh, in all states."""
        with th.no_grad():
            self._get("actor.mu").weight.zero_()
            self._get("actor.mu").bias.fill_(mean)

    def squashed_gaussian(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        """:return: Mean and standard deviation of a Gaussian actor before tanh."""
        parameters: Callable[..., Any] = self._get("actor.get_action_dist_params")
        with th.no_grad():
            mean, log_std, _ = parameters(self._obs([state]))
        return mean[0].double().numpy(), log_std[0].exp().double().numpy()

    def _obs(self, states: Any) -> Any:
        return self._get("policy").obs_to_tensor(np.asarray(states))[0]

    def _get(self, path: str) -> Any:
        found: Any = self.model
        for name in path.split("."):
            found = getattr(found, name, None)
            if found is None:
                raise NotApplicable(f"has no {path}")
        return found


Make = Callable[..., Subject]
"""An adapter, as the checks use it: called with an environment, a seed and settings."""


@cache
def as_subject(algorithm: type[Any]) -> type[Subject]:
    """:return: The class itself if it is an adapter, otherwise one for this class with SB3's interface."""
    return algorithm if issubclass(algorithm, Subject) else type(algorithm.__name__, (Subject,), {"algorithm": algorithm})


def import_subject(name: str) -> type[Subject]:
    """:return: The adapter of ``module:Class``; ValueError if that is not a class."""
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ValueError(f"--algo must be module:Class, e.g. stable_baselines3:SAC, got {name!r}")
    imported = importlib.import_module(module)
    found = getattr(imported, attribute, None)
    if not isinstance(found, type):
        classes = [each for each, value in vars(imported).items() if isinstance(value, type)]
        raise ValueError(f"--algo: {module} has no class {attribute!r}{did_you_mean(attribute, classes)}")
    return as_subject(found)


class _Spaces(gym.Env[Any, Any]):
    """Nothing but spaces."""

    def __init__(self, action_space: gym.Space):
        self.observation_space, self.action_space = gym.spaces.Discrete(2), action_space
