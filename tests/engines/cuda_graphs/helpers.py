"""Tiny models, with and without graphs."""

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import SQL
from sb3_softac.engines.cuda_graphs import GraphEngine
from tests.engines.cuda_graphs.capturers import DEVICE, CountingCapturer
from tests.toys import ALGORITHMS as ALGORITHMS
from tests.toys import OBSERVATIONS, POLICIES, RandomEnv, is_discrete


class Masked(RandomEnv):
    def action_masks(self):
        return np.array([True, True, True, False, True])


def make_model(algorithm, graphs, kind="vector", action_space=None, n_envs=1, env_class=RandomEnv, **kwargs):
    if action_space is None:
        action_space = spaces.Discrete(3) if is_discrete(algorithm) else spaces.Box(-1.0, 3.0, (2,))
    env = make_vec_env(lambda: env_class(OBSERVATIONS[kind], action_space), n_envs, seed=0)
    policy_kwargs = dict(net_arch=[4], **(dict(features_extractor_kwargs=dict(features_dim=4)) if kind == "image" else {}))
    settings = dict(
        buffer_size=20 * n_envs, batch_size=4, learning_starts=3, policy_kwargs=policy_kwargs, seed=0, device=DEVICE
    )
    settings |= dict(learning_rate=1e-2)
    settings |= dict(kernel_particles=4, value_particles=4) if issubclass(algorithm, SQL) else {}
    model = algorithm(POLICIES.get(kind, "MlpPolicy"), env, **{**settings, **kwargs})
    return use_graphs(model) if graphs else model


def use_graphs(model, capturer=None):
    model.engines = [GraphEngine(model, capturer or CountingCapturer())]
    return model


def engine_of(model):
    return next((each for each in model.engines if isinstance(each, GraphEngine)), None)


def capturer_of(model):
    return engine_of(model).capturer


def both(algorithm, **kwargs):
    return [make_model(algorithm, graphs, **kwargs) for graphs in (False, True)]


def learn(model, steps, **kwargs):
    """From the same random numbers for every model."""
    model.set_random_seed(1)
    return model.learn(steps, **kwargs)


def parameters_of(model):
    return {**model.policy.state_dict(), "log_ent_coef": model.log_ent_coef.detach()}


def copy_of_parameters(model):
    return {name: value.clone() for name, value in parameters_of(model).items()}


def assert_same(a, b, rtol=1e-5, atol=1e-6):
    for (name, mine), theirs in zip(a.items(), b.values(), strict=True):
        th.testing.assert_close(mine, theirs, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_models(a, b, **tolerance):
    assert a._n_updates == b._n_updates > 0
    assert_same(parameters_of(a), parameters_of(b), **tolerance)
