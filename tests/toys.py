"""Toy environments and small models that the tests of all rooms share. A new algorithm joins by its name in ALGORITHMS."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1
from sb3_softac.algorithm.engine import PyTorchEngine
from sb3_softac.discrete.discrete_algorithm import DiscreteOffPolicyAlgorithm


def is_discrete(algorithm):
    return issubclass(algorithm, DiscreteOffPolicyAlgorithm)


ALGORITHMS = [SoftAC_v1, SQL, DiscreteSAC, DiscreteSQL]
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)
with_actor = pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if "actor" in each.trains.values()])
continuous = pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if not is_discrete(each)])
ENVIRONMENTS = {each: "CartPole-v1" if is_discrete(each) else "Pendulum-v1" for each in ALGORITHMS}

VECTOR, BOX = spaces.Box(-2, 2, (3,), np.float32), spaces.Box(-1.0, 3.0, (2,))
OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,), np.float64),
    "matrix": spaces.Box(-1, 1, (3, 2), np.float32),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.MultiBinary(2)}),
    "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
}
POLICIES = {"dict": "MultiInputPolicy", "image": "CnnPolicy"}
SMALL = dict(buffer_size=200, learning_starts=10, batch_size=8, seed=0, device="cpu")
OF_ALGORITHM = {SQL: dict(kernel_particles=4, value_particles=4)}


def step_in_pytorch(model, batch):
    """One gradient step by ``_update``, and one of the targets."""
    engine = PyTorchEngine(model)
    engine.prepare(len(batch.rewards))
    model.count_steps(engine.step([batch], [1.0]))


class RandomEnv(gym.Env):
    """Random observations and rewards, and random ends of episodes: terminations and time limits."""

    def __init__(self, observation_space=VECTOR, action_space=BOX):
        self.observation_space, self.action_space = deepcopy(observation_space), deepcopy(action_space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(1 << 31)))
        return self.observation_space.sample(), {}

    def step(self, action):
        reward, truncated, terminated = self.np_random.uniform(size=3).tolist()
        return self.observation_space.sample(), 4.0 * reward - 2.0, terminated < 0.2, truncated < 0.2, {}


class RandomMasks(RandomEnv):
    """The same with random masks: at least one option of each branch is allowed."""

    def draw(self):
        space = self.action_space
        sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else getattr(space, "nvec", [2] * np.prod(space.shape))
        masks = [self.np_random.random(size) < 0.6 for size in sizes]
        for mask in masks:
            mask[self.np_random.integers(len(mask))] = True
        self.mask = np.concatenate(masks)

    def reset(self, **kwargs):
        result = super().reset(**kwargs)
        self.draw()
        return result

    def step(self, action):
        self.draw()
        return super().step(action)

    def action_masks(self):
        return self.mask


class CountingEnv(gym.Env):
    """
    Counts its episodes and steps in the observation, so that a transition that never happened shows. The reward is the number
    of the step.
    """

    def __init__(self, discrete=False, length=7, truncate=False, scale=1.0):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.truncate, self.scale, self.episode, self.step_number = length, truncate, scale, -1, 0

    def observe(self):
        return self.scale * np.array([self.episode, self.step_number], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.step_number += 1
        end = self.step_number == self.length
        return self.observe(), float(self.step_number), end and not self.truncate, end and self.truncate, {}


def random_envs(algorithm, obs=VECTOR, actions=None, n_envs=1, masked=False, normalized=False):
    actions = actions or (spaces.Discrete(3) if is_discrete(algorithm) else BOX)
    env = make_vec_env(lambda: (RandomMasks if masked else RandomEnv)(obs, actions), n_envs, seed=0)
    return VecNormalize(env) if normalized else env


def make_model(algorithm, env=None, policy="MlpPolicy", net_arch=(8,), **kwargs):
    """A small model; on a CountingEnv unless another environment is given."""
    env = CountingEnv(is_discrete(algorithm)) if env is None else env
    policy_kwargs = {"net_arch": list(net_arch), **kwargs.pop("policy_kwargs", {})}
    return algorithm(policy, env, policy_kwargs=policy_kwargs, **{**SMALL, **OF_ALGORITHM.get(algorithm, {}), **kwargs})


def make_trained(algorithm, steps=40, policy="MlpPolicy", **kwargs):
    """
    A model on random data that has made one gradient step, so that its optimizers have state.

    :param kwargs: Arguments of :func:`random_envs` and of the algorithm.
    """
    of_env = {name: kwargs.pop(name) for name in ("obs", "actions", "n_envs", "masked", "normalized") if name in kwargs}
    settings = dict(learning_starts=1_000, learning_rate=1e-3, policy_kwargs=dict(net_arch=[8, 6]))
    settings = {**SMALL, **OF_ALGORITHM.get(algorithm, {}), **settings, **kwargs}
    model = algorithm(policy, random_envs(algorithm, **of_env), **settings).learn(steps)
    train(model)
    return model


def train(model, steps=1, batch_size=None, seed=1):
    """Gradient steps from the same random numbers for every model."""
    np.random.seed(seed)
    th.manual_seed(seed)
    model.train(steps, batch_size or model.batch_size)


def state_of(model):
    """A copy of everything that a gradient step changes, by name."""
    state = dict(model.policy.state_dict())
    optimizers = (model.policy.optimizer, model.ent_coef_optimizer)
    for k, optimizer in enumerate(optimizer for optimizer in optimizers if optimizer is not None):
        for i, parameter in enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]):
            state |= {f"optimizer {k}, {i}: {name}": value for name, value in optimizer.state.get(parameter, {}).items()}
    if model.temperature.parameters():
        state["log_ent_coef"] = model.log_ent_coef
    return {name: value.detach().clone() for name, value in state.items() if value is not None}


def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def flat(module):
    return th.cat([parameter.detach().flatten() for parameter in module.parameters()])


def parameters_of(model):
    """A copy by name."""
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_equal(mine, theirs):
    """Equal bits, and NaN where the other is NaN."""
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not th.allclose(mine[name], theirs[name], 0.0, 0.0, equal_nan=True)] == []


class StopAt(BaseCallback):
    """Stop the training at a call, or raise the error there."""

    def __init__(self, last_call, error=None):
        super().__init__()
        self.last_call, self.error = last_call, error

    def _on_step(self):
        if self.n_calls == self.last_call and self.error is not None:
            raise self.error
        return self.n_calls < self.last_call


class SetAt(BaseCallback):
    """Set attributes of the model at a call."""

    def __init__(self, at, **values):
        super().__init__()
        self.at, self.values = at, values

    def _on_step(self):
        if self.n_calls == self.at:
            for name, value in self.values.items():
                setattr(self.model, name, value)
        return True
