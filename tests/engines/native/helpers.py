"""Small models on random data, and twins of them that take the plain way."""

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import DiscreteSAC, SoftAC_v1
from tests.random_observations import RandomObservations

ALGORITHMS = [SoftAC_v1, DiscreteSAC]
BOX, VECTOR = spaces.Box(-1.0, 3.0, (2,)), spaces.Box(-2, 2, (3,), np.float32)
SMALL = dict(buffer_size=200, learning_starts=1_000, batch_size=8, learning_rate=1e-3, device="cpu", seed=0)


class RandomEnv(RandomObservations):
    """Random observations, rewards, ends of episodes and time limits."""

    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, 4.0 * reward - 2.0, self.np_random.random() < 0.2, truncated, info


class MaskedEnv(RandomEnv):
    """The same with random masks: at least one option of each branch is allowed."""

    def sizes(self):
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return [int(space.n)]
        return space.nvec.tolist() if isinstance(space, spaces.MultiDiscrete) else [2] * space.n

    def draw(self):
        masks = [self.np_random.random(size) < 0.6 for size in self.sizes()]
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


def make_model(algorithm, fast=True, obs=VECTOR, actions=None, n_envs=1, masked=False, normalized=False, steps=40, **kwargs):
    """A model with `steps` transitions in its replay buffer and one gradient step, so that its optimizers have state."""
    actions = actions or (spaces.Discrete(3) if issubclass(algorithm, DiscreteSAC) else BOX)
    env = make_vec_env(lambda: (MaskedEnv if masked else RandomEnv)(obs, actions), n_envs, seed=0)
    env = VecNormalize(env) if normalized else env
    net_arch = dict(policy_kwargs=dict(net_arch=[8, 6]))
    model = algorithm(kwargs.pop("policy", "MlpPolicy"), env, **{**SMALL, **net_arch, **kwargs})
    model.learn(steps)
    if not fast:
        model._step_runner = None
    train(model)
    return model


def both(algorithm, **kwargs):
    """The same model twice: on the fast way, and on the plain one."""
    models = [make_model(algorithm, fast, **kwargs) for fast in (True, False)]
    assert_close(*models, rtol=0.0)
    return models


def train(model, steps=1, batch_size=None, seed=1):
    """Gradient steps from the same random numbers for every model."""
    np.random.seed(seed)
    th.manual_seed(seed)
    model.train(steps, batch_size or model.batch_size)


def is_fast(model):
    return model._step_runner._plan is not None


def state_of(model):
    """Everything that a gradient step changes, by name."""
    state = dict(model.policy.state_dict())
    for k, optimizer in enumerate(model._optimizers):
        for i, parameter in enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]):
            state |= {f"optimizer {k}, {i}: {name}": value for name, value in optimizer.state.get(parameter, {}).items()}
    if model.temperature.parameters():
        state["log_ent_coef"] = model.log_ent_coef
    return {name: value.detach().clone() for name, value in state.items() if value is not None}


def logs_of(model):
    return {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}


def difference(mine, theirs):
    """Largest difference, relative to the largest element where that is greater than 1."""
    scale = max(1.0, theirs.abs().max().item())
    return (mine.double() - theirs.double()).abs().max().item() / scale


def differences(a, b):
    mine, theirs = state_of(a), state_of(b)
    assert mine.keys() == theirs.keys()
    found = {name: difference(mine[name], theirs[name]) for name in mine}
    mine, theirs = logs_of(a), logs_of(b)
    assert list(mine) == list(theirs)
    return found | {name: difference(th.tensor(mine[name]), th.tensor(theirs[name])) for name in mine}


def assert_close(a, b, rtol):
    assert a._n_updates == b._n_updates > 0
    wrong = {name: value for name, value in differences(a, b).items() if not value <= rtol}
    assert not wrong, wrong
